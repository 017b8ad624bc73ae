/* backward.h - gradients of the ops of ops.h.  Called by every worker, like those; each of these MEETS.
 * Gradients of weights are added to what is there, in f32, whatever the type of the weight. */
#ifndef FM_OPS_BACKWARD_H
#define FM_OPS_BACKWARD_H

#include "ops/ops.h"

/* y = x W^T + bias backwards.  g_y, x and g_x have as many rows. */
typedef struct fm_linear_back {
    fm_rows g_x, g_y, x;
    const fm_tensor *W;  /* of any type */
    float *g_W, *g_bias; /* (rows, cols), (rows): added to; NULL: not wanted */
    bool add;            /* to g_x what is there */
    float *decoded;      /* fm_op_linear_back_floats(W) of shared scratch, or as many as W has elements */
} fm_linear_back;

/* g_x = g_y W, g_W += g_y^T x, g_bias += sum of the rows of g_y.  Both products read their matrices as they lie. */
void fm_op_linear_back(const fm_ctx *c, const fm_linear_back *a);
size_t fm_op_linear_back_floats(const fm_tensor *W);
/* Bytes of fm_ctx.packed that the products of W with n rows take; 0 on overflow. */
size_t fm_op_linear_back_packed(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts);

/* W as bf16 at `place` (rows x cols of them): what a device would make of W in every product. */
void fm_op_round(const fm_ctx *c, fm_tensor *out, void *place, const fm_tensor *W);

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
