/* ops.c - see ops.h.  Everything here is a shape check, a share of the work, a call of the kernel table and perhaps a barrier. */
#include "ops/ops.h"

#include <string.h>

#include "base/alloc.h"

fm_rows fm_rows_cols(fm_rows x, size_t first, size_t d)
{
    FM_ASSERT(first <= x.d && d <= x.d - first);
    return (fm_rows){(float *)((unsigned char *)x.p + first * fm_rows_element(x)), x.n, d, x.stride, x.half};
}

bool fm_op_half(const fm_kernels *k, const fm_device *device, fm_dtype weights, size_t n, size_t d)
{
    return k->half && k->half(&(fm_run){.n_parts = 1, .stream = fm_device_stream(device)}, fm_xform_of(weights), n, d);
}

void fm_op_meet(const fm_ctx *c)
{
    fm_pool_sync(c->pool, c->run.part);
}

void fm_op_put(const fm_ctx *c, float *to, const float *host, size_t floats)
{
    if (c->run.part == 0) fm_device_upload(c->device, to, host, floats * sizeof(float));
    fm_op_meet(c);
}

const float *fm_op_fetch(const fm_ctx *c, float *room, const float *p, size_t floats)
{
    if (!c->device) return p;
    fm_device_download(c->device, room, p, floats * sizeof(float));
    fm_device_wait(c->device, NULL);
    return room;
}

/* ---- Shares ---- */

static bool few(size_t n)
{
    return n <= FM_FEW;
}

/* The share of an op on rows. */
static fm_run rows_run(const fm_ctx *c, size_t n)
{
    return few(n) ? (fm_run){.n_parts = 1, .stream = c->run.stream} : c->run;
}

/* The share of an op on d channels: in runs that packing can follow, unless that deals them out too unevenly. */
static fm_run channels_run(const fm_ctx *c, size_t d)
{
    const size_t runs = d / FM_PACK_COLS, n = c->run.n_parts, most = (runs + n - 1) / n;
    fm_run run = c->run;
    run.granule = d % FM_PACK_COLS == 0 && most * n * 9 <= runs * 10 ? FM_PACK_COLS : FM_CHANNEL_GRANULE;
    return run;
}

/* ---- Rows ---- */

size_t fm_op_rows_count(size_t n, unsigned n_parts)
{
    const size_t copies = (size_t)n_parts * FM_FEW;
    return n > copies ? n : copies;
}

fm_rows fm_op_rows(const fm_ctx *c, float *p, size_t n, size_t d)
{
    return fm_rows_of(few(n) ? p + c->run.part * FM_FEW * d : p, n, d);
}

void fm_op_meet_rows(const fm_ctx *c, size_t n)
{
    if (!few(n)) fm_op_meet(c);
}

void fm_op_rmsnorm(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps)
{
    FM_ASSERT(out.n == x.n && out.d == x.d && !x.half && (!out.half || out.stride == out.d));
    const fm_run run = rows_run(c, x.n);
    if (out.half)
        c->k->rmsnorm_pack(&run, FM_X_BF16, out.p, x.p, x.stride, w, x.n, x.d, eps);
    else
        c->k->rmsnorm(&run, out.p, out.stride, x.p, x.stride, w, x.n, x.d, eps);
}

void fm_op_gather(const fm_ctx *c, fm_rows out, fm_rows x, const size_t *index)
{
    FM_ASSERT(out.d == x.d && (index || out.n <= x.n) && !out.half && !x.half);
    const fm_run run = rows_run(c, out.n);
    c->k->gather(&run, out.p, out.stride, x.p, x.stride, index, out.n, out.d);
}

void fm_op_copy(const fm_ctx *c, fm_rows out, fm_rows x)
{
    FM_ASSERT(out.d == x.d && out.n == x.n && !out.half && !x.half);
    c->k->gather(&c->run, out.p, out.stride, x.p, x.stride, NULL, out.n, out.d);
}

void fm_op_copy_states(const fm_ctx *c, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats)
{
    c->k->copy_states(&c->run, to, from, n_seq, floats);
}

void fm_op_embed(const fm_ctx *c, fm_rows out, const fm_tensor *table, const int32_t *ids)
{
    FM_ASSERT(out.d == table->cols && !out.half);
    c->k->embed(&c->run, out.p, out.stride, table, ids, out.n);
    fm_op_meet(c);
}

/* ---- Products ---- */

/* Bytes of n packed rows as they lie beside others. */
static size_t slot_bytes(const fm_kernels *k, const fm_tensor *W, size_t n)
{
    return fm_round_up(k->pack_x_bytes(fm_xform_of(W->type), n, W->cols), FM_ALIGN);
}

/* Two places: rows, of which each worker may have its own few, and channels. */
size_t fm_op_packed_bytes(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts)
{
    const size_t whole = slot_bytes(k, W, n), copy = slot_bytes(k, W, few(n) ? n : FM_FEW);
    size_t copies, bytes;
    if (!whole || !copy || __builtin_mul_overflow(copy, n_parts, &copies)) return 0;
    return __builtin_mul_overflow(whole > copies ? whole : copies, 2, &bytes) ? 0 : bytes;
}

static void *channels_place(const fm_ctx *c)
{
    return (unsigned char *)c->packed + c->packed_bytes / 2;
}

/* Whether kernels write packs of rows, for a product with W, themselves; or rows of bf16 are such packs. */
static bool packs(const fm_ctx *c, bool half, const void *packed, const fm_tensor *W, size_t n)
{
    return c->k->packs && c->k->packs(&c->run, fm_xform_of(W->type), half, packed, n, W->cols);
}

/* A rectangle of x goes to its place in `out`, unless the rows are a pack. */
static fm_packed pack(const fm_ctx *c, void *out, fm_rows x, const fm_tensor *W, fm_pack_args a)
{
    FM_ASSERT(x.d == W->cols);
    const fm_packed packed = {out, x.n, x.d, fm_xform_of(W->type)};
    if (x.half && x.stride == x.d && packs(c, true, x.p, W, x.n)) return (fm_packed){x.p, x.n, x.d, packed.form};
    a.out = out;
    a.x = x.p;
    a.x_stride = x.stride;
    a.half = x.half;
    a.n = x.n;
    a.cols = x.d;
    a.stream = c->run.stream;
    if (a.row < a.row_end && a.col < a.col_end) c->k->pack_x[packed.form](&a); /* whoever has the end pads it, nobody else */
    return packed;
}

fm_packed fm_op_pack_rows(const fm_ctx *c, fm_rows x, const fm_tensor *W)
{
    const fm_run run = rows_run(c, x.n);
    fm_pack_args a = {.col_end = x.d};
    unsigned char *out = c->packed;
    if (few(x.n)) out += c->run.part * slot_bytes(c->k, W, x.n);
    fm_run_range(&run, x.n, 1, &a.row, &a.row_end);
    const fm_packed packed = pack(c, out, x, W, a);
    fm_op_meet_rows(c, x.n);
    return packed;
}

fm_packed fm_op_pack_channels(const fm_ctx *c, fm_rows x, const fm_tensor *W)
{
    fm_run run = channels_run(c, x.d);
    fm_pack_args a = {.row_end = x.n};
    if (run.granule < FM_PACK_COLS) { /* what is packed at once has several owners */
        fm_op_meet(c);
        run = c->run;
    }
    fm_run_range(&run, x.d, FM_PACK_COLS, &a.col, &a.col_end);
    const fm_packed packed = pack(c, channels_place(c), x, W, a);
    fm_op_meet(c);
    return packed;
}

static void linear(const fm_ctx *c, const fm_run *run, fm_rows y, fm_packed x, const fm_linear_args *how)
{
    const fm_tensor *W = how->W;
    FM_ASSERT(y.n == x.n && x.cols == W->cols && y.d == W->rows && x.form == fm_xform_of(W->type));
    FM_ASSERT(!y.half || (!how->bias && !how->add));
    fm_linear_args a = *how;
    a.y = y.p;
    a.y_stride = y.stride;
    a.half = y.half;
    a.x = x.p;
    a.n = x.n;
    c->k->linear[W->type](run, &a);
}

void fm_op_linear(const fm_ctx *c, fm_rows y, fm_packed x, const fm_tensor *W, const float *bias)
{
    linear(c, &c->run, y, x, &(fm_linear_args){.W = W, .bias = bias});
    fm_op_meet(c);
}

void fm_op_linear_add(const fm_ctx *c, fm_rows y, fm_rows old, fm_packed x, const fm_tensor *W, const float *bias)
{
    const bool elsewhere = old.p != y.p;
    FM_ASSERT(old.stride == y.stride && old.n == y.n);
    if (elsewhere && !c->device) {
        fm_op_copy(c, y, old);
        fm_op_meet(c);
    }
    linear(c, &c->run, y, x,
           &(fm_linear_args){.old = elsewhere && c->device ? old.p : NULL, .W = W, .bias = bias, .add = true});
    fm_op_meet(c);
}

void fm_op_linear_channels(const fm_ctx *c, fm_rows y, fm_packed x, const fm_tensor *W, const float *bias)
{
    const fm_run run = channels_run(c, W->rows);
    linear(c, &run, y, x, &(fm_linear_args){.W = W, .bias = bias});
}

/* ---- The recurrence ---- */

void fm_op_conv_silu(const fm_ctx *c, const fm_conv_args *a)
{
    const fm_run run = channels_run(c, a->d_inner);
    c->k->conv_silu(&run, a);
}

fm_packed fm_op_rmsnorm_pack(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps, const fm_tensor *W)
{
    FM_ASSERT(out.n == x.n && out.d == x.d && x.d == W->cols);
    if (packs(c, false, c->packed, W, x.n)) {
        const fm_packed packed = {c->packed, x.n, x.d, fm_xform_of(W->type)};
        c->k->rmsnorm_pack(&c->run, packed.form, c->packed, x.p, x.stride, w, x.n, x.d, eps);
        return packed;
    }
    fm_op_rmsnorm(c, out, x, w, eps);
    return fm_op_pack_rows(c, out, W);
}

/* A table that packs has the entry for three. */
static void norm_three(const fm_ctx *c, const fm_linear_three *a, void *packed)
{
    const fm_rows out = a->out, y = a->y;
    if (c->k->rmsnorm_three)
        c->k->rmsnorm_three(&c->run, out.p, out.stride, fm_xform_of(a->next->type), packed, y.p, y.stride, a->d, y.n, a->eps);
    else
        for (size_t i = 0, at = 0; i < 3; at += a->d[i++])
            fm_op_rmsnorm(c, fm_rows_cols(out, at, a->d[i]), fm_rows_cols(y, at, a->d[i]), NULL, a->eps);
}

static void linear_three(const fm_ctx *c, const fm_linear_three *a, void *packed)
{
    fm_linear_three_args args = {.product = {.y = a->keep ? a->y.p : NULL, .y_stride = a->y.stride, .x = a->x.p, .W = a->W},
                                 .out = a->out.p,
                                 .out_stride = a->out.stride,
                                 .packed = packed,
                                 .form = fm_xform_of(a->next->type),
                                 .d = {a->d[0], a->d[1], a->d[2]},
                                 .eps = a->eps};
    args.product.n = a->y.n;
    c->k->linear_three(&c->run, &args);
}

fm_packed fm_op_linear_three_pack(const fm_ctx *c, const fm_linear_three *a)
{
    const fm_rows y = a->y, out = a->out;
    const size_t width = a->d[0];
    FM_ASSERT(out.n == y.n && out.d == y.d && width + a->d[1] + a->d[2] == y.d && y.d == a->W->rows && width == a->next->cols);
    FM_ASSERT(!out.half && !y.half);
    void *packed = packs(c, false, c->packed, a->next, y.n) ? c->packed : NULL;
    if (c->k->has_three && c->k->has_three(&c->run, a->W, y.n, a->d)) {
        linear_three(c, a, packed);
    } else {
        fm_op_linear(c, y, a->x, a->W, NULL);
        norm_three(c, a, packed);
    }
    return packed ? (fm_packed){packed, y.n, width, fm_xform_of(a->next->type)}
                  : fm_op_pack_rows(c, fm_rows_cols(out, 0, width), a->next);
}

/* Rows of bf16 are packs already. */
fm_packed fm_op_conv_silu_pack(const fm_ctx *c, const fm_conv_args *a, const fm_tensor *W)
{
    const fm_rows out = {a->out, a->ragged->n_tokens, a->d_inner, a->out_stride, a->half};
    fm_conv_args b = *a;
    FM_ASSERT(out.d == W->cols);
    b.packed = !out.half && packs(c, false, channels_place(c), W, out.n) ? channels_place(c) : NULL;
    b.form = fm_xform_of(W->type);
    fm_op_conv_silu(c, &b);
    return b.packed ? (fm_packed){b.packed, out.n, out.d, b.form} : fm_op_pack_channels(c, out, W);
}

bool fm_op_linear_conv_pack(const fm_ctx *c, fm_packed x, const fm_linear_conv_args *a, const fm_tensor *W, fm_packed *out)
{
    const fm_tensor *V = a->product.W;
    fm_linear_conv_args m = *a;
    FM_ASSERT(V->rows == 2 * W->cols && a->conv.d_inner == W->cols && x.n == a->conv.ragged->n_tokens);
    FM_ASSERT(x.cols == V->cols && x.form == fm_xform_of(V->type));
    m.product.x = x.p, m.product.n = x.n;
    m.conv.packed = channels_place(c), m.conv.form = fm_xform_of(W->type);
    if (!c->k->linear_conv || !c->k->linear_conv(&c->run, &m)) return false;
    *out = (fm_packed){m.conv.packed, x.n, W->cols, m.conv.form};
    return true;
}

fm_packed fm_op_scan_pack(const fm_ctx *c, const fm_scan_args *a, const fm_tensor *W, bool keep)
{
    const fm_rows y = {a->y, a->ragged->n_tokens, a->d_inner, a->y_stride, a->half};
    fm_scan_args b = *a;
    FM_ASSERT(y.d == W->cols);
    b.packed = !y.half && packs(c, false, channels_place(c), W, y.n) ? channels_place(c) : NULL;
    b.form = fm_xform_of(W->type);
    b.alone = b.packed && !keep;
    fm_op_scan(c, &b);
    return b.packed ? (fm_packed){b.packed, y.n, y.d, b.form} : fm_op_pack_channels(c, y, W);
}

bool fm_op_select(const fm_ctx *c, fm_packed u, const fm_select_args *a, const fm_tensor *W, fm_packed *out)
{
    fm_select_args m = *a;
    FM_ASSERT(u.cols == W->cols && m.x_proj.W->cols == W->cols && m.dt_proj->rows == W->cols);
    FM_ASSERT(u.form == fm_xform_of(m.x_proj.W->type) && m.x_proj.W->rows == m.dt_proj->cols + 2 * m.scan.d_state);
    m.x_proj.x = u.p, m.x_proj.n = u.n;
    m.scan.packed = channels_place(c), m.scan.form = fm_xform_of(W->type);
    if (!c->k->select || !c->k->select(&c->run, &m)) return false;
    *out = (fm_packed){m.scan.packed, u.n, W->cols, m.scan.form};
    return true;
}

bool fm_op_mix(const fm_ctx *c, const fm_mix_args *a, const fm_tensor *W, fm_packed *out)
{
    fm_mix_args m = *a;
    FM_ASSERT(m.conv.d_inner == W->cols && m.x_proj->cols == W->cols && m.dt_proj->rows == W->cols);
    m.out_form = fm_xform_of(W->type);
    m.packed = channels_place(c);
    if (!c->k->mix || !c->k->mix(&c->run, &m)) return false;
    *out = (fm_packed){m.packed, m.conv.ragged->n_tokens, W->cols, m.out_form};
    return true;
}

void fm_op_scan(const fm_ctx *c, const fm_scan_args *a)
{
    const fm_run run = channels_run(c, a->d_inner);
    c->k->scan(&run, a);
}
