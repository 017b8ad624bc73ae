/* ops.h - matrices in, matrices out: checks shapes, gives each worker its share, and meets at a barrier after each op.
 *
 * A forward runs on all workers of a pool at once (SPMD): every worker calls the same ops in the same order with its own fm_ctx.
 * When an op returns, its output is complete for every worker.  Shapes that do not fit are bugs and assert: files and callers
 * were checked before. */
#ifndef FM_OPS_OPS_H
#define FM_OPS_OPS_H

#include "base/pool.h"
#include "kernels/kernels.h"

/* One worker's view of the step that runs. */
typedef struct fm_ctx {
    const fm_kernels *k;
    fm_pool *pool;
    fm_run run;
    void *packed; /* scratch for packed input rows, shared: fm_op_linear_bytes() of the largest product */
} fm_ctx;

/* n rows of d floats, `stride` floats apart; owned by someone else. */
typedef struct fm_rows {
    float *p;
    size_t n, d, stride;
} fm_rows;

static inline fm_rows fm_rows_of(float *p, size_t n, size_t d)
{
    return (fm_rows){p, n, d, d};
}
/* Columns [first, first + d) of x. */
fm_rows fm_rows_cols(fm_rows x, size_t first, size_t d);

void fm_op_sync(const fm_ctx *c);

/* out (n, d_model) = rows `ids` (n) of the embedding table, decoded. */
void fm_op_embed(const fm_ctx *c, fm_rows out, const fm_tensor *table, const int32_t *ids);
/* out = rows of x; the rows to take are `index` (out.n), or the first ones when NULL. */
void fm_op_gather(const fm_ctx *c, fm_rows out, fm_rows x, const size_t *index);

/* out = x / rms(x) * w; w (d) may be NULL; out may be x. */
void fm_op_rmsnorm(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps);

/* y = x W^T (+ bias): packs x, then multiplies.  fm_op_linear_add adds to y instead (the residual stream). */
void fm_op_linear(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, const float *bias);
void fm_op_linear_add(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, const float *bias);
/* Bytes of fm_ctx.packed that a product of n rows with W needs; 0 on overflow. */
size_t fm_op_linear_bytes(const fm_kernels *k, const fm_tensor *W, size_t n);

void fm_op_conv_silu(const fm_ctx *c, const fm_conv_args *a);
void fm_op_scan(const fm_ctx *c, const fm_scan_args *a);

#endif
