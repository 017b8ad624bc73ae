/* linear32.c - Q4_0, Q4_1, Q5_0 and Q5_1 rows.
 *
 * Without importance a block is written straight from its extremes; with it, by the weighted searches of search.h. */
#include "tensor/quant/linear32.h"

#include "tensor/quant/codes.h"
#include "tensor/quant/search.h"

#include <float.h>

enum { N = 32 };

/* A block taken apart. */
typedef struct block {
    float d, min;
    uint8_t codes[N];
} block;

static int half_of(const fm_linear32 *format)
{
    return format->has_fifth ? 16 : 8;
}

static size_t bytes_of(const fm_linear32 *format)
{
    return 2 + (format->has_min ? 2 : 0) + (format->has_fifth ? 4 : 0) + N / 2;
}

static void block_write(const fm_linear32 *format, uint8_t *p, const block *b)
{
    fm_put_f16(p, b->d);
    p += 2;
    if (format->has_min) {
        fm_put_f16(p, b->min);
        p += 2;
    }
    if (format->has_fifth) {
        fm_pack_fifth(p, b->codes);
        p += 4;
    }
    fm_pack_nibbles(p, b->codes, N / 2);
}

void fm_linear32_decode(const fm_linear32 *format, float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    size_t bytes = bytes_of(format);
    for (size_t i = 0; i < n; i += N, p += bytes) {
        uint8_t codes[N];
        float d = fm_get_f16(p);
        fm_unpack_nibbles(codes, p + bytes - N / 2, N / 2);
        if (format->has_fifth) fm_unpack_fifth(codes, p + bytes - N / 2 - 4);
        if (format->has_min) {
            float min = fm_get_f16(p + 2);
            for (size_t j = 0; j < N; j++) dst[i + j] = d * (float)codes[j] + min;
        } else {
            int half = half_of(format);
            for (size_t j = 0; j < N; j++) dst[i + j] = d * (float)(codes[j] - half);
        }
    }
}

/* Truncation; what no block of finite numbers gives (a quotient by a subnormal d, a NaN) becomes 0. */
static uint8_t truncate(float v, int top)
{
    if (!(v >= 0.0f && v < 128.0f)) return 0;
    int code = (int)v;
    return (uint8_t)(code < top ? code : top);
}

static float inverse_of(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

static void extremes(block *b, const float *x, int levels)
{
    float min = FLT_MAX, max = -FLT_MAX;
    for (size_t j = 0; j < N; j++) {
        if (x[j] < min) min = x[j];
        if (x[j] > max) max = x[j];
    }
    b->min = min;
    b->d = (max - min) / (float)levels;
    float inverse = inverse_of(b->d);
    for (size_t j = 0; j < N; j++) b->codes[j] = truncate((x[j] - min) * inverse + 0.5f, levels);
}

/* The element of largest magnitude becomes code 0, which is the end with one code more. */
static void peak(block *b, const float *x, int half)
{
    b->d = fm_peak(x, N) / (float)-half;
    float inverse = inverse_of(b->d);
    for (size_t j = 0; j < N; j++) b->codes[j] = truncate(x[j] * inverse + ((float)half + 0.5f), 2 * half - 1);
}

static void weighted(const fm_linear32 *format, block *b, const float *x, const float *weight)
{
    int half = half_of(format);
    const fm_affine_plan plan = FM_AFFINE_PLAN_IMPORTANCE(2 * half - 1);
    if (!format->has_min) {
        b->d = fm_fit_signed(x, weight, N, half, b->codes);
        return;
    }
    b->d = fm_fit_affine(x, weight, N, &plan, b->codes, &b->min);
    b->min = -b->min;
}

void fm_linear32_encode(const fm_linear32 *format, void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    int half = half_of(format);
    float sigma2 = importance ? fm_sum_squares(src, n) / (float)n : 0.0f, weight[N];
    for (size_t i = 0; i < n; i += N, p += bytes_of(format)) {
        block b = {0};
        if (importance) {
            fm_importance_weights(weight, src + i, importance + i, N, sigma2);
            weighted(format, &b, src + i, weight);
        } else if (format->has_min) {
            extremes(&b, src + i, 2 * half - 1);
        } else {
            peak(&b, src + i, half);
        }
        block_write(format, p, &b);
    }
}
