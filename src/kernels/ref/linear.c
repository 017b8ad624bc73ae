/* linear.c - y = x . W^T in scalar C: the definition that the other tables are judged against.
 *
 * Integer sums are exact; floats combine per block, in the order of the blocks, with one rounding per fmaf, so that another table
 * can and must give the same bits.  Products with float weights are summed in double and rounded once; other tables may differ
 * from that by the error of a float sum (docs/linear-kernels.md). */
#include "kernels/linear.h"

#include <math.h>
#include <string.h>

#include "kernels/ref/linear_ref.h"

enum { GRANULE = 16 };

static void finish(const fm_linear_args *a, size_t r, size_t t, float v)
{
    float *y = a->y + t * a->y_stride + r;
    if (a->bias) v += a->bias[r];
    *y = a->add ? v + *y : v;
}

static int32_t dot(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static float add_256(float y, const fm_codes *w, const fm_x256 *x, bool has_min)
{
    int32_t isum = 0, msum = 0;
    for (int g = 0; g < 16; g++) {
        isum += w->scale[g] * dot(w->q + 16 * g, x->q + 16 * g, 16);
        if (has_min) msum += w->min[g] * x->sum16[g];
    }
    float v = w->d * (float)isum;
    if (has_min) v = fmaf(-w->m, (float)msum, v);
    return fmaf(v, x->d, y);
}

static float add_128(float y, const fm_codes *w, const fm_x256 *x)
{
    const float v = w->d32[0] * (float)dot(w->q, x->q, 128);
    return fmaf(fmaf(w->d32[1], (float)dot(w->q + 128, x->q + 128, 128), v), x->d, y);
}

static float add_32(float y, const fm_codes *w, const fm_x32 *x, bool has_min, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        y = fmaf(w->d32[b] * x->d[b], (float)dot(w->q + 32 * b, x->q + 32 * b, 32), y);
        if (has_min) y = fmaf(w->m32[b], x->ds[b], y);
    }
    return y;
}

enum { TOKENS = 64 }; /* tokens that share one reading of a row */

static void row_quant(const fm_linear_args *a, size_t r, size_t t0, size_t n)
{
    const fm_dtype type = a->W->type;
    const fm_dtype_traits *traits = fm_dtype_get(type);
    const bool wide = traits->block == FM_X_COLS;
    const bool has_min = type == FM_Q4_1 || type == FM_Q5_1 || type == FM_Q2_K || type == FM_Q4_K || type == FM_Q5_K;
    const uint8_t *row = fm_tensor_row(a->W, r);
    float y[TOKENS] = {0};
    fm_codes w;
    for (size_t b = 0; b * FM_X_COLS < a->W->cols; b++) {
        size_t left = (a->W->cols - b * FM_X_COLS) / 32, blocks = left < 8 ? left : 8;
        fm_codes_read(&w, type, row + b * FM_X_COLS / traits->block * traits->bytes, blocks);
        for (size_t t = 0; t < n; t++) {
            size_t at = b * a->n + t0 + t;
            y[t] = type == FM_INT4_G128 ? add_128(y[t], &w, (const fm_x256 *)a->x + at)
                   : wide               ? add_256(y[t], &w, (const fm_x256 *)a->x + at, has_min)
                                        : add_32(y[t], &w, (const fm_x32 *)a->x + at, has_min, blocks);
        }
    }
    for (size_t t = 0; t < n; t++) finish(a, r, t0 + t, y[t]);
}

static void linear_quant(const fm_run *run, const fm_linear_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->W->rows, GRANULE, &begin, &end);
    for (size_t r = begin; r < end; r++)
        for (size_t t = 0; t < a->n; t += TOKENS) row_quant(a, r, t, a->n - t < TOKENS ? a->n - t : TOKENS);
}

static float float_at(const uint8_t *row, fm_dtype type, size_t j)
{
    float f;
    uint16_t h;
    if (type == FM_F32) {
        memcpy(&f, row + 4 * j, sizeof f);
        return f;
    }
    memcpy(&h, row + 2 * j, sizeof h);
    return type == FM_F16 ? fm_f16_to_f32(h) : fm_bf16_to_f32(h);
}

enum { WIDEN = 64 }; /* columns widened at a time, once for all tokens of a group */

static void row_float(const fm_linear_args *a, size_t r, size_t t0, size_t n)
{
    const size_t cols = a->W->cols, stride = fm_x_f32_stride(cols);
    const uint8_t *row = fm_tensor_row(a->W, r);
    double y[TOKENS] = {0};
    for (size_t c = 0; c < cols; c += WIDEN) {
        size_t m = cols - c < WIDEN ? cols - c : WIDEN;
        double w[WIDEN];
        for (size_t j = 0; j < m; j++) w[j] = (double)float_at(row, a->W->type, c + j);
        for (size_t t = 0; t < n; t++) {
            const float *x = (const float *)a->x + (t0 + t) * stride + c;
            for (size_t j = 0; j < m; j++) y[t] += w[j] * (double)x[j];
        }
    }
    for (size_t t = 0; t < n; t++) finish(a, r, t0 + t, (float)y[t]);
}

static void linear_float(const fm_run *run, const fm_linear_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->W->rows, GRANULE, &begin, &end);
    for (size_t r = begin; r < end; r++)
        for (size_t t = 0; t < a->n; t += TOKENS) row_float(a, r, t, a->n - t < TOKENS ? a->n - t : TOKENS);
}

void fm_linear_fill_ref(fm_kernels *k)
{
    fm_pack_fill_ref(k);
    for (int t = 0; t < FM_DTYPE_COUNT; t++) k->linear[t] = fm_dtype_get((fm_dtype)t)->is_float ? linear_float : linear_quant;
}
