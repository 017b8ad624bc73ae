/* ref.h - the scalar kernels, one file per family; ref.c puts them into the table. */
#ifndef FM_KERNELS_REF_REF_H
#define FM_KERNELS_REF_REF_H

#include <tgmath.h> /* exp() of a float is expf() */

#include "kernels/kernels.h"

void fm_ref_rmsnorm(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const fm_real *w,
                    size_t n, size_t d, fm_real eps);
void fm_ref_conv_silu(const fm_run *run, const fm_conv_args *a);
void fm_ref_scan(const fm_run *run, const fm_scan_args *a);
void fm_ref_softmax(const fm_run *run, fm_real *out, fm_real *lse, const fm_real *x, size_t x_stride, size_t n, size_t d);
void fm_ref_product(const fm_run *run, const fm_product_args *a);
size_t fm_ref_product_floats(size_t m);
void fm_ref_rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a);
void fm_ref_rmsnorm_gw(const fm_run *run, fm_real *g_w, const fm_rmsnorm_back_args *a);
void fm_ref_conv_back(const fm_run *run, const fm_conv_back_args *a);
void fm_ref_scan_back(const fm_run *run, const fm_scan_back_args *a);
size_t fm_ref_scan_back_floats(size_t n_tokens, size_t d_inner, size_t d_state);
void fm_ref_xent(const fm_run *run, const fm_xent_args *a);
void fm_ref_sum_parts(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *parts, size_t n_parts, size_t n,
                      size_t d);
void fm_ref_sum_rows(const fm_run *run, fm_real *g_b, const fm_real *g, size_t g_stride, size_t n, size_t d);
void fm_ref_transpose(const fm_run *run, float *out, size_t out_stride, const fm_tensor *W);
void fm_ref_embed(const fm_run *run, float *out, size_t out_stride, const fm_tensor *table, const int32_t *ids, size_t n);
void fm_ref_gather(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const size_t *index,
                   size_t n, size_t d);
void fm_ref_copy_states(const fm_run *run, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats);
void fm_ref_embed_back(const fm_run *run, fm_real *g_E, const fm_real *g, size_t g_stride, const int32_t *ids, size_t n,
                       size_t d);
void fm_ref_decays(const fm_run *run, fm_real *A, const fm_real *w, size_t n);
void fm_ref_decays_back(const fm_run *run, fm_real *g, const fm_real *A, size_t n);
void fm_ref_dropout(const fm_run *run, const fm_dropout_args *a);
void fm_ref_adamw(const fm_run *run, const fm_adamw_args *a);
void fm_ref_narrow(const fm_run *run, const fm_narrow_args *a);
void fm_ref_squares(const fm_run *run, double *sums, const fm_real *x, size_t n);

/* v / (1 + e^-v): -0 for large negative v, v for large positive v. */
static inline fm_real fm_ref_silu(fm_real v)
{
    return v / (1.0f + exp(-v));
}

/* log(1 + e^v), and v itself above 20, where the difference is below half an ulp. */
static inline fm_real fm_ref_softplus(fm_real v)
{
    return v > 20.0f ? v : log1p(exp(v));
}

#endif
