/* backward.c - see backward.h. */
#include "ops/backward.h"

#include "base/alloc.h"

/* ---- Products ---- */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static fm_tensor tensor_of(fm_rows x)
{
    return (fm_tensor){x.p, FM_F32, x.n, x.d, x.stride * sizeof(float)};
}

/* W transposed for g_x, or both sides transposed for g_W. */
size_t fm_op_linear_back_floats(const fm_tensor *W, size_t n)
{
    return max_size(W->rows * W->cols, fm_round_up(n * W->rows, 16) + n * W->cols);
}

size_t fm_op_linear_back_packed(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts)
{
    const fm_tensor by_rows = {.type = FM_F32, .rows = W->cols, .cols = W->rows}, by_tokens = {.type = FM_F32, .cols = n};
    const size_t gx = fm_op_packed_bytes(k, &by_rows, n, n_parts), gw = fm_op_packed_bytes(k, &by_tokens, W->rows, n_parts);
    return gx && gw ? max_size(gx, gw) : 0;
}

/* (d, n) of x (n, d). */
static fm_tensor transposed(const fm_ctx *c, float *out, const fm_tensor *x)
{
    c->k->transpose(&c->run, out, x->rows, x);
    return (fm_tensor){out, FM_F32, x->cols, x->rows, x->rows * sizeof(float)};
}

static void multiply(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, bool add)
{
    const fm_packed packed = fm_op_pack_rows(c, x, W);
    (add ? fm_op_linear_add : fm_op_linear)(c, y, packed, W, NULL);
}

void fm_op_linear_gx(const fm_ctx *c, fm_rows g_x, fm_rows g_y, const fm_tensor *W, bool add, float *scratch)
{
    FM_ASSERT(g_x.n == g_y.n && g_x.d == W->cols && g_y.d == W->rows);
    if (c->k->linear_gx) {
        c->k->linear_gx(&c->run, &(fm_linear_gx_args){.g_x = g_x.p,
                                                      .g_x_stride = g_x.stride,
                                                      .g_y = g_y.p,
                                                      .g_y_stride = g_y.stride,
                                                      .W = W,
                                                      .add = add,
                                                      .n = g_y.n});
        fm_op_meet(c);
        return;
    }
    const fm_tensor Wt = transposed(c, scratch, W);
    fm_op_meet(c);
    multiply(c, g_x, g_y, &Wt, add);
}

void fm_op_linear_gw(const fm_ctx *c, float *g_W, float *g_bias, fm_rows g_y, fm_rows x, float *scratch)
{
    FM_ASSERT(g_y.n == x.n);
    if (c->k->linear_gw) {
        if (g_bias) c->k->sum_rows(&c->run, g_bias, g_y.p, g_y.stride, g_y.n, g_y.d);
        c->k->linear_gw(&c->run, &(fm_linear_gw_args){.g_W = g_W,
                                                      .g_y = g_y.p,
                                                      .g_y_stride = g_y.stride,
                                                      .x = x.p,
                                                      .x_stride = x.stride,
                                                      .n = x.n,
                                                      .rows = g_y.d,
                                                      .cols = x.d});
        fm_op_meet(c);
        return;
    }
    const fm_tensor g = tensor_of(g_y), xs = tensor_of(x);
    const fm_tensor gt = transposed(c, scratch, &g), xt = transposed(c, scratch + fm_round_up(g_y.n * g_y.d, 16), &xs);
    if (g_bias) c->k->sum_rows(&c->run, g_bias, g_y.p, g_y.stride, g_y.n, g_y.d);
    fm_op_meet(c);
    multiply(c, fm_rows_of(g_W, g_y.d, x.d), fm_rows_of((float *)scratch, gt.rows, gt.cols), &xt, true);
}

/* ---- The rest ---- */

void fm_op_rmsnorm_back(const fm_ctx *c, float *g_w, const fm_rmsnorm_back_args *a)
{
    c->k->rmsnorm_back(&c->run, a);
    fm_op_meet(c);
    if (!g_w) return;
    c->k->rmsnorm_gw(&c->run, g_w, a);
    fm_op_meet(c);
}

void fm_op_conv_back(const fm_ctx *c, const fm_conv_back_args *a)
{
    c->k->conv_back(&c->run, a);
    fm_op_meet(c);
}

static size_t n_blocks(size_t d_inner)
{
    return (d_inner + FM_CHANNEL_GRANULE - 1) / FM_CHANNEL_GRANULE;
}

size_t fm_op_scan_back_floats(const fm_kernels *k, size_t n_tokens, size_t d_inner, size_t d_state, unsigned n_parts)
{
    return n_blocks(d_inner) * n_tokens * 2 * d_state + n_parts * fm_round_up(k->scan_back_floats(n_tokens, d_state), 16);
}

void fm_op_scan_back(const fm_ctx *c, fm_rows g_bc, const fm_scan_back_args *args, float *scratch)
{
    FM_ASSERT(g_bc.d == 2 * args->d_state);
    fm_scan_back_args a = *args;
    const size_t blocks = n_blocks(a.d_inner), parts = blocks * g_bc.n * g_bc.d;
    a.g_bc_parts = scratch;
    a.scratch = scratch + parts + c->run.part * fm_round_up(c->k->scan_back_floats(g_bc.n, a.d_state), 16);
    c->k->scan_back(&c->run, &a);
    fm_op_meet(c);
    c->k->sum_parts(&c->run, g_bc.p, g_bc.stride, a.g_bc_parts, blocks, g_bc.n, g_bc.d);
    fm_op_meet(c);
}

void fm_op_dropout(const fm_ctx *c, const fm_dropout_args *a)
{
    c->k->dropout(&c->run, a);
    fm_op_meet(c);
}

void fm_op_xent(const fm_ctx *c, const fm_xent_args *a)
{
    c->k->xent(&c->run, a);
    fm_op_meet(c);
}

void fm_op_embed_back(const fm_ctx *c, float *g_E, fm_rows g, const int32_t *ids)
{
    c->k->embed_back(&c->run, g_E, g.p, g.stride, ids, g.n, g.d);
    fm_op_meet(c);
}
