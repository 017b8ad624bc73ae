/* ops.c - see ops.h.  Everything here is a shape check, a call of the kernel table and a barrier. */
#include "ops/ops.h"

#include <string.h>

fm_rows fm_rows_cols(fm_rows x, size_t first, size_t d)
{
    FM_ASSERT(first <= x.d && d <= x.d - first);
    return (fm_rows){x.p + first, x.n, d, x.stride};
}

void fm_op_sync(const fm_ctx *c)
{
    fm_pool_sync(c->pool, c->run.part);
}

void fm_op_embed(const fm_ctx *c, fm_rows out, const fm_tensor *table, const int32_t *ids)
{
    FM_ASSERT(out.d == table->cols);
    const fm_dtype_traits *type = fm_dtype_get(table->type);
    size_t begin, end;
    fm_run_range(&c->run, out.n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        FM_ASSERT(ids[i] >= 0 && (size_t)ids[i] < table->rows);
        type->decode(out.p + i * out.stride, fm_tensor_row(table, (size_t)ids[i]), out.d);
    }
    fm_op_sync(c);
}

void fm_op_gather(const fm_ctx *c, fm_rows out, fm_rows x, const size_t *index)
{
    FM_ASSERT(out.d == x.d);
    size_t begin, end;
    fm_run_range(&c->run, out.n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const size_t from = index ? index[i] : i;
        FM_ASSERT(from < x.n);
        memcpy(out.p + i * out.stride, x.p + from * x.stride, out.d * sizeof(float));
    }
    fm_op_sync(c);
}

void fm_op_rmsnorm(const fm_ctx *c, fm_rows out, fm_rows x, const float *w, float eps)
{
    FM_ASSERT(out.n == x.n && out.d == x.d);
    c->k->rmsnorm(&c->run, out.p, out.stride, x.p, x.stride, w, x.n, x.d, eps);
    fm_op_sync(c);
}

static void linear(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, const float *bias, bool add)
{
    FM_ASSERT(y.n == x.n && x.d == W->cols && y.d == W->rows);
    c->k->pack_x[fm_xform_of(W->type)](&c->run, c->packed, x.p, x.stride, x.n, x.d);
    fm_op_sync(c);
    const fm_linear_args a = {.y = y.p, .y_stride = y.stride, .x = c->packed, .W = W, .bias = bias, .add = add, .n = x.n};
    c->k->linear[W->type](&c->run, &a);
    fm_op_sync(c);
}

void fm_op_linear(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, const float *bias)
{
    linear(c, y, x, W, bias, false);
}

void fm_op_linear_add(const fm_ctx *c, fm_rows y, fm_rows x, const fm_tensor *W, const float *bias)
{
    linear(c, y, x, W, bias, true);
}

size_t fm_op_linear_bytes(const fm_kernels *k, const fm_tensor *W, size_t n)
{
    return k->pack_x_bytes(fm_xform_of(W->type), n, W->cols);
}

void fm_op_conv_silu(const fm_ctx *c, const fm_conv_args *a)
{
    c->k->conv_silu(&c->run, a);
    fm_op_sync(c);
}

void fm_op_scan(const fm_ctx *c, const fm_scan_args *a)
{
    c->k->scan(&c->run, a);
    fm_op_sync(c);
}
