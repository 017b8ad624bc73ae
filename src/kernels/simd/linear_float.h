/* linear_float.h - products with float weights, once for all instruction sets (after the set's linear_vec_<isa>.h).
 *
 * Lane l sums columns l, l + LANES, ... by fused multiply-add; the lanes are then added in the fixed tree of fv_sum.  A tile is
 * F_ROWS x F_TOKENS such sums; its size changes no bit. */
#ifndef FM_KERNELS_SIMD_LINEAR_FLOAT_H
#define FM_KERNELS_SIMD_LINEAR_FLOAT_H

#include "kernels/simd/linear_quant.h"

/* Inputs that stay in the second-level cache while all rows pass. */
enum { F_CACHE_BYTES = 256 * 1024 };

FM_INLINE fv load_weights(const uint8_t *p, fm_dtype type)
{
    return type == FM_F32 ? fv_load(p) : type == FM_F16 ? fv_load_f16(p) : fv_load_bf16(p);
}

/* The last columns of a row, which a whole vector would read past. */
FM_INLINE fv load_tail(const uint8_t *p, fm_dtype type, size_t n)
{
    uint8_t lanes[LANES * sizeof(float)] = {0};
    memcpy(lanes, p, n * (type == FM_F32 ? 4 : 2));
    return load_weights(lanes, type);
}

FM_INLINE void tile_float(const fm_linear_args *a, size_t r, size_t t0, int R, int T, fm_dtype type)
{
    const size_t cols = a->W->cols, stride = fm_x_f32_stride(cols), size = type == FM_F32 ? 4 : 2;
    const float *x = (const float *)a->x + t0 * stride;
    const uint8_t *w = fm_tensor_row(a->W, r);
    fv acc[F_ROWS][F_TOKENS];
    size_t k = 0;
    UNROLL for (int i = 0; i < R; i++)
        UNROLL for (int j = 0; j < T; j++) acc[i][j] = fv_set1(0.0f);
    for (; k + LANES <= cols; k += LANES) {
        fv xs[F_TOKENS];
        UNROLL for (int j = 0; j < T; j++) xs[j] = fv_load(x + (size_t)j * stride + k);
        UNROLL for (int i = 0; i < R; i++) {
            const fv ws = load_weights(w + (size_t)i * a->W->stride + k * size, type);
            UNROLL for (int j = 0; j < T; j++) acc[i][j] = fv_fma(ws, xs[j], acc[i][j]);
        }
    }
    if (k < cols) {
        UNROLL for (int i = 0; i < R; i++) {
            const fv ws = load_tail(w + (size_t)i * a->W->stride + k * size, type, cols - k);
            UNROLL for (int j = 0; j < T; j++) acc[i][j] = fv_fma(ws, fv_load(x + (size_t)j * stride + k), acc[i][j]);
        }
    }
    UNROLL for (int j = 0; j < T; j++) {
        float y[F_ROWS];
        UNROLL for (int i = 0; i < R; i++) y[i] = fv_sum(acc[i][j]);
        finish_rows(a, r, (size_t)R, t0 + (size_t)j, y);
    }
}

FM_INLINE void rows_float(const fm_linear_args *a, size_t r, int R, size_t t, size_t end, fm_dtype type)
{
    for (; t + F_TOKENS <= end; t += F_TOKENS) tile_float(a, r, t, R, F_TOKENS, type);
    for (; t + 2 <= end; t += 2) tile_float(a, r, t, R, 2, type);
    if (t < end) tile_float(a, r, t, R, 1, type);
}

FM_INLINE void linear_float(const fm_run *run, const fm_linear_args *a, fm_dtype type)
{
    const size_t bytes = fm_x_f32_stride(a->W->cols) * sizeof(float);
    const size_t group = bytes * F_TOKENS < F_CACHE_BYTES ? F_CACHE_BYTES / (bytes * F_TOKENS) * F_TOKENS : F_TOKENS;
    size_t begin, end;
    fm_run_range(run, a->W->rows, GRANULE, &begin, &end);
    for (size_t t = 0; t < a->n; t += group) {
        const size_t last = a->n - t < group ? a->n : t + group;
        size_t r = begin;
        for (; r + F_ROWS <= end; r += F_ROWS) rows_float(a, r, F_ROWS, t, last, type);
        for (; r < end; r++) rows_float(a, r, 1, t, last, type);
    }
}

static void linear_f32(const fm_run *run, const fm_linear_args *a) { linear_float(run, a, FM_F32); }

static void linear_f16(const fm_run *run, const fm_linear_args *a) { linear_float(run, a, FM_F16); }

static void linear_bf16(const fm_run *run, const fm_linear_args *a) { linear_float(run, a, FM_BF16); }

static void linear_fill(fm_kernels *k)
{
    for (int t = 0; t < FM_DTYPE_COUNT; t++)
        if (quant_kinds[t].unpack) k->linear[t] = linear_quant;
    k->linear[FM_F32] = linear_f32;
    k->linear[FM_F16] = linear_f16;
    k->linear[FM_BF16] = linear_bf16;
}

#endif
