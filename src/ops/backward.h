/* backward.h - gradients of the ops of ops.h.  Called by every worker, like those; each of these MEETS.
 *
 * The three products of a linear layer are one kernel: with transposed copies, g_x = g_y W and g_W = g_y^T x are products of
 * rows with rows.  Gradients of weights are added to what is there, in f32, whatever the type of the weight. */
#ifndef FM_OPS_BACKWARD_H
#define FM_OPS_BACKWARD_H

#include "ops/ops.h"

/* Scratch for the transposed copies: fm_op_linear_back_floats() of the largest product. */
size_t fm_op_linear_back_floats(const fm_tensor *W, size_t n);
/* Bytes of fm_ctx.packed that both products need. */
size_t fm_op_linear_back_packed(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts);

/* g_x (n, cols) = g_y (n, rows) W, or added to g_x. */
void fm_op_linear_gx(const fm_ctx *c, fm_rows g_x, fm_rows g_y, const fm_tensor *W, bool add, float *scratch);
/* g_W (rows, cols) += g_y^T x; g_bias (rows) += sum of the rows of g_y, unless NULL. */
void fm_op_linear_gw(const fm_ctx *c, float *g_W, float *g_bias, fm_rows g_y, fm_rows x, float *scratch);

/* g_w (d) or NULL. */
void fm_op_rmsnorm_back(const fm_ctx *c, float *g_w, const fm_rmsnorm_back_args *a);
void fm_op_conv_back(const fm_ctx *c, const fm_conv_back_args *a);
/* g_bc (T, 2 d_state) = g_B | g_C.  a->g_bc_parts and a->scratch lie in fm_op_scan_back_floats() of shared scratch. */
size_t fm_op_scan_back_floats(const fm_kernels *k, size_t n_tokens, size_t d_inner, size_t d_state, unsigned n_parts);
void fm_op_scan_back(const fm_ctx *c, fm_rows g_bc, const fm_scan_back_args *a, float *scratch);
void fm_op_dropout(const fm_ctx *c, const fm_dropout_args *a);
void fm_op_xent(const fm_ctx *c, const fm_xent_args *a);
/* g_E (vocab, d) += rows of g at their ids (g.n). */
void fm_op_embed_back(const fm_ctx *c, float *g_E, fm_rows g, const int32_t *ids);

#endif
