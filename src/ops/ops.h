/* ops.h - matrices in, matrices out: checks shapes, gives each worker its share, and meets the others where that is needed.
 *
 * A forward runs on all workers of a pool at once (SPMD): every worker calls the same ops in the same order with its own fm_ctx.
 * A barrier costs as much as a small product, so an op only ends with one where others read what it wrote.  Three shares:
 *
 *   rows      a worker takes some tokens; of a few tokens (FM_FEW) each worker takes them all, in memory of its own, since
 *             computing a row twice is cheaper than waiting for it.  What follows on the same rows needs no barrier.
 *   channels  a worker owns a run of channels from one op to the next: products that make them, convolution, scan.
 *   all       rows of a product's weights; everybody waits for the whole output.
 *
 * Each op says which share it takes and whether it MEETS: returns when the output is complete for every worker.  The share never
 * changes a bit.  Shapes that do not fit are bugs and assert: files and callers were checked before. */
#ifndef FM_OPS_OPS_H
#define FM_OPS_OPS_H

#include "base/pool.h"
#include "ops/device.h"

enum { FM_FEW = 4 };

/* One worker's view of the step that runs. */
typedef struct fm_ctx {
    const fm_kernels *k;
    fm_pool *pool;
    fm_device *device; /* NULL: the CPU; else there is one worker, and its run has the device's queue */
    fm_run run;
    void *packed; /* packed inputs: fm_op_packed_bytes() of the product that needs most */
    size_t packed_bytes;
} fm_ctx;

/* n rows of d floats, `stride` floats apart; owned by someone else.  half: of bf16 instead (kernels.h), which products,
 * convolution and scan take. */
typedef struct fm_rows {
    float *p;
    size_t n, d, stride;
    bool half;
} fm_rows;

static inline fm_rows fm_rows_of(float *p, size_t n, size_t d)
{
    return (fm_rows){.p = p, .n = n, .d = d, .stride = d};
}
/* Bytes of one element of x. */
static inline size_t fm_rows_element(fm_rows x)
{
    return x.half ? sizeof(uint16_t) : sizeof(float);
}
/* Columns [first, first + d) of x. */
fm_rows fm_rows_cols(fm_rows x, size_t first, size_t d);

/* Whether rows of d channels around products with such weights are bf16 in a step of n tokens: on a device, where its table
 * says so. */
bool fm_op_half(const fm_kernels *k, const fm_device *device, fm_dtype weights, size_t n, size_t d);

void fm_op_meet(const fm_ctx *c);

/* Numbers of the host into the step's memory; MEETS.  And numbers of the step for the host: where they are on a CPU, else in
 * `room`, once the device is there.  What a failing device leaves there is not told from numbers: its next wait says so. */
void fm_op_put(const fm_ctx *c, float *to, const float *host, size_t floats);
const float *fm_op_fetch(const fm_ctx *c, float *room, const float *p, size_t floats);

/* ---- Rows ---- */

/* Room for n rows in which each worker finds its own copy while they are few; fm_op_rows() is this worker's view of it. */
size_t fm_op_rows_count(size_t n, unsigned n_parts);
fm_rows fm_op_rows(const fm_ctx *c, float *p, size_t n, size_t d);
/* Rows from here on are read by everybody: MEETS unless they are few and everyone has his own. */
void fm_op_meet_rows(const fm_ctx *c, size_t n);

/* out = x / rms(x) * w; w (d) may be NULL; out may be x unless x is shared, and may be half.  Rows. */
void fm_op_rmsnorm(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps);
/* out = rows of x; the rows to take are `index` (out.n), or the first ones when NULL.  Rows. */
void fm_op_gather(const fm_ctx *c, fm_rows out, fm_rows x, const size_t *index);

/* out = x, both shared, or x this worker's own few.  Rows. */
void fm_op_copy(const fm_ctx *c, fm_rows out, fm_rows x);
/* The same floats of each sequence's memory from one place to another: channels. */
void fm_op_copy_states(const fm_ctx *c, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats);

/* out (n, d_model) = rows `ids` (n) of the embedding table, decoded.  MEETS. */
void fm_op_embed(const fm_ctx *c, fm_rows out, const fm_tensor *table, const int32_t *ids);

/* ---- Products: inputs are packed, then multiplied with as many matrices as want them ---- */

/* An input as products of one form read it.  Rows and channels have a place each: it lasts until the next packing of its kind. */
typedef struct fm_packed {
    const void *p;
    size_t n, cols;
    fm_xform form;
} fm_packed;

/* Packs rows for products with W: what ops on rows made in this worker's share.  MEETS unless they are few. */
fm_packed fm_op_pack_rows(const fm_ctx *c, fm_rows x, const fm_tensor *W);
/* Packs channels, each worker those it owns.  MEETS. */
fm_packed fm_op_pack_channels(const fm_ctx *c, fm_rows x, const fm_tensor *W);

/* y = x W^T (+ bias).  fm_op_linear and fm_op_linear_add, which adds that to `old` (the residual stream; y itself, or rows
 * that stay as they are), MEET; fm_op_linear_channels leaves each worker with the channels that it owns. */
void fm_op_linear(const fm_ctx *c, fm_rows y, fm_packed x, const fm_tensor *W, const float *bias);
void fm_op_linear_add(const fm_ctx *c, fm_rows y, fm_rows old, fm_packed x, const fm_tensor *W, const float *bias);
void fm_op_linear_channels(const fm_ctx *c, fm_rows y, fm_packed x, const fm_tensor *W, const float *bias);

/* Bytes of fm_ctx.packed for products of at most n rows with W; 0 on overflow. */
size_t fm_op_packed_bytes(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts);

/* ---- The recurrence: channels ---- */

void fm_op_conv_silu(const fm_ctx *c, const fm_conv_args *a);
void fm_op_scan(const fm_ctx *c, const fm_scan_args *a);

/* Each as the op and the packing that follows it.  A device packs rows of a large step as it writes them; those of the norm, and
 * of the scan unless `keep`, are then written nowhere else; x of the norm stays as it is until the product was called. */
fm_packed fm_op_rmsnorm_pack(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps, const fm_tensor *W);
/* y = x W^T, then the norm without weights for each of three runs of y's columns that follow one another, d[0], d[1] and d[2]
 * wide; `next` takes the first.  Rows; y is whole only when `keep`. */
typedef struct fm_linear_three {
    fm_packed x;
    const fm_tensor *W, *next;
    fm_rows y, out;
    size_t d[3];
    float eps;
    bool keep;
} fm_linear_three;
fm_packed fm_op_linear_three_pack(const fm_ctx *c, const fm_linear_three *a);
fm_packed fm_op_conv_silu_pack(const fm_ctx *c, const fm_conv_args *a, const fm_tensor *W);
/* The product of x with `a`'s W, then the above of its first half, where the table does both at once in such a step
 * (fm_kernels.linear_conv): then true, with the pack for W in *out.  Of `a`, the product's x and n and what conv packs are not
 * looked at.  False: nothing was done. */
bool fm_op_linear_conv_pack(const fm_ctx *c, fm_packed x, const fm_linear_conv_args *a, const fm_tensor *W, fm_packed *out);
fm_packed fm_op_scan_pack(const fm_ctx *c, const fm_scan_args *a, const fm_tensor *W, bool keep);

/* From x_proj, of the pack u, to the scan and its pack for W, where the table has that for such a step (fm_kernels.select): then
 * true, with the pack in *out; of `a`, the product's x and n and what the scan packs are not looked at.  False: nothing was
 * done. */
bool fm_op_select(const fm_ctx *c, fm_packed u, const fm_select_args *a, const fm_tensor *W, fm_packed *out);

/* From the convolution to the scan and its pack for W at once, where the table has that for such a step (fm_kernels.mix): then
 * true, with the pack in *out; of `a`, out_form and packed are not looked at.  False: nothing was done. */
bool fm_op_mix(const fm_ctx *c, const fm_mix_args *a, const fm_tensor *W, fm_packed *out);

#endif
