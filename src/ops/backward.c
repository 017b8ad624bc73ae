/* backward.c - see backward.h. */
#include "ops/backward.h"

#include "base/alloc.h"

/* ---- Products ---- */

size_t fm_op_linear_back_floats(const fm_tensor *W)
{
    return W->type == FM_F32 ? 0 : W->rows * W->cols;
}

/* What one worker packs for either product; a device has room of its own. */
static size_t own_bytes(const fm_kernels *k, const fm_tensor *W, size_t n)
{
    if (!k->product_floats) return 0;
    return fm_round_up(k->product_floats(n > W->rows ? n : W->rows) * sizeof(float), FM_ALIGN);
}

size_t fm_op_linear_back_packed(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts)
{
    size_t bytes;
    return __builtin_mul_overflow(own_bytes(k, W, n), n_parts, &bytes) ? 0 : bytes + FM_ALIGN;
}

/* W as f32: itself, or decoded by all workers.  MEETS if it decodes. */
static const float *widened(const fm_ctx *c, const fm_tensor *W, float *decoded)
{
    size_t begin, end;
    if (W->type == FM_F32) return W->data;
    fm_run_range(&c->run, W->rows, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) fm_dtype_get(W->type)->decode(decoded + r * W->cols, fm_tensor_row(W, r), W->cols);
    fm_op_meet(c);
    return decoded;
}

/* A device's table has products for any type of weight. */
static void linear_back_device(const fm_ctx *c, const fm_linear_back *a)
{
    c->k->linear_gx(&c->run, &(fm_linear_gx_args){.g_x = a->g_x.p,
                                                  .g_x_stride = a->g_x.stride,
                                                  .g_y = a->g_y.p,
                                                  .g_y_stride = a->g_y.stride,
                                                  .W = a->W,
                                                  .add = a->add,
                                                  .n = a->g_y.n,
                                                  .half_x = a->g_x.half,
                                                  .half_y = a->g_y.half});
    if (a->g_W)
        c->k->linear_gw(&c->run, &(fm_linear_gw_args){.g_W = a->g_W,
                                                      .g_y = a->g_y.p,
                                                      .g_y_stride = a->g_y.stride,
                                                      .x = a->x.p,
                                                      .x_stride = a->x.stride,
                                                      .n = a->x.n,
                                                      .rows = a->g_y.d,
                                                      .cols = a->x.d,
                                                      .same_g_y = true,
                                                      .half_x = a->x.half,
                                                      .half_y = a->g_y.half});
    FM_ASSERT(!a->g_bias || !a->g_y.half);
    if (a->g_bias) c->k->sum_rows(&c->run, a->g_bias, a->g_y.p, a->g_y.stride, a->g_y.n, a->g_y.d);
}

void fm_op_linear_back(const fm_ctx *c, const fm_linear_back *a)
{
    const fm_tensor *W = a->W;
    const size_t n = a->g_y.n;
    FM_ASSERT(a->g_x.n == n && a->x.n == n && a->g_x.d == W->cols && a->x.d == W->cols && a->g_y.d == W->rows);
    if (c->device) {
        linear_back_device(c, a);
        return;
    }
    float *scratch = (float *)((unsigned char *)c->packed + c->run.part * own_bytes(c->k, W, n));
    c->k->product(&c->run, &(fm_product_args){.out = a->g_x.p,
                                              .out_stride = a->g_x.stride,
                                              .a = a->g_y.p,
                                              .a_stride = a->g_y.stride,
                                              .b = widened(c, W, a->decoded),
                                              .b_stride = W->type == FM_F32 ? W->stride / sizeof(float) : W->cols,
                                              .m = n,
                                              .n = W->cols,
                                              .k = W->rows,
                                              .add = a->add,
                                              .scratch = scratch});
    if (a->g_W)
        c->k->product(&c->run, &(fm_product_args){.out = a->g_W,
                                                  .out_stride = W->cols,
                                                  .a = a->g_y.p,
                                                  .a_stride = a->g_y.stride,
                                                  .b = a->x.p,
                                                  .b_stride = a->x.stride,
                                                  .m = W->rows,
                                                  .n = W->cols,
                                                  .k = n,
                                                  .turned = true,
                                                  .add = true,
                                                  .scratch = scratch});
    if (a->g_bias) c->k->sum_rows(&c->run, a->g_bias, a->g_y.p, a->g_y.stride, n, W->rows);
    fm_op_meet(c);
}

/* ---- The rest ---- */

void fm_op_round(const fm_ctx *c, fm_tensor *out, void *place, const fm_tensor *W)
{
    c->k->round(&c->run, place, W);
    *out = (fm_tensor){place, FM_BF16, W->rows, W->cols, W->cols * sizeof(uint16_t)};
}

void fm_op_rmsnorm_back(const fm_ctx *c, float *g_w, const fm_rmsnorm_back_args *a)
{
    fm_rmsnorm_back_args both = *a;
    both.g_w = c->device ? g_w : NULL;
    c->k->rmsnorm_back(&c->run, &both);
    if (c->device) return;
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
    const size_t own = fm_round_up(k->scan_back_floats(n_tokens, d_inner, d_state), 16);
    return n_blocks(d_inner) * n_tokens * 2 * d_state + n_parts * own;
}

void fm_op_scan_back(const fm_ctx *c, fm_rows g_bc, const fm_scan_back_args *args, float *scratch)
{
    FM_ASSERT(g_bc.d == 2 * args->d_state);
    fm_scan_back_args a = *args;
    const size_t blocks = n_blocks(a.d_inner), parts = blocks * g_bc.n * g_bc.d;
    a.g_bc_parts = scratch;
    a.scratch = scratch + parts + c->run.part * fm_round_up(c->k->scan_back_floats(g_bc.n, a.d_inner, a.d_state), 16);
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
