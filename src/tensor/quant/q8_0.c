/* q8_0.c - 32 elements of 8 bits with a scale: f16 d; i8 q[32].  So fine that importance is not asked. */
#include "base/compiler.h"
#include "tensor/quant/codes.h"
#include "tensor/quant/search.h"

#include <math.h>

enum { N = FM_Q8_0_BLOCK };

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += FM_Q8_0_BYTES) {
        float d = fm_get_f16(p);
        for (size_t j = 0; j < N; j++) dst[i + j] = d * (float)(int8_t)p[2 + j];
    }
}

/* Halves away from zero; what no block of finite numbers gives (infinity, NaN) becomes 0. */
static int8_t round_away(float v)
{
    if (!(v > -128.5f && v < 127.5f)) return 0;
    return (int8_t)roundf(v);
}

static void encode(void *dst, const float *src, FM_UNUSED const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += FM_Q8_0_BYTES) {
        float d = fabsf(fm_peak(src + i, N)) / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
        fm_put_f16(p, d);
        for (size_t j = 0; j < N; j++) p[2 + j] = (uint8_t)round_away(src[i + j] * inverse);
    }
}

const fm_dtype_traits fm_dtype_Q8_0 = FM_DTYPE_TRAITS(Q8_0, false, decode, encode);
