/* q6_k.c - sixteen groups of 16 six-bit codes around 32, signed 8-bit scales:
 * u8 low nibbles [128]; u8 high pairs [64]; i8 scales[16]; f16 d. */
#include "tensor/quant/super.h"

#include <math.h>
#include <string.h>

enum { GROUP = 16, GROUPS = FM_SUPER / GROUP, HALF = 32, HIGH = 128, SCALES = 192, D = 208 /* byte offsets */ };

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q6_K_BYTES) {
        uint8_t codes[FM_SUPER], high[FM_SUPER] = {0};
        for (size_t j = 0; j < FM_SUPER; j += 128) fm_unpack_nibbles(codes + j, p + j / 2, 64);
        fm_unpack_pairs(high, p + HIGH, 4);
        for (size_t g = 0; g < GROUPS; g++) {
            const float scale = fm_get_f16(p + D) * (float)(int8_t)p[SCALES + g];
            for (size_t j = GROUP * g; j < GROUP * (g + 1); j++) dst[i + j] = scale * (float)((codes[j] | high[j]) - HALF);
        }
    }
}

/* Without importance an element weighs its square. */
static float fit_group(uint8_t *codes, const float *x, const float *importance)
{
    float squares[GROUP];
    for (size_t i = 0; i < GROUP; i++) squares[i] = x[i] * x[i];
    return fm_fit_signed(x, importance ? importance : squares, GROUP, HALF, codes);
}

static void encode_block(uint8_t *p, const float *x, const float *importance)
{
    uint8_t codes[FM_SUPER];
    float fit[GROUPS];
    memset(p, 0, FM_Q6_K_BYTES);
    for (size_t g = 0; g < GROUPS; g++)
        fit[g] = fit_group(codes + GROUP * g, x + GROUP * g, importance ? importance + GROUP * g : NULL);
    const float peak = fm_peak(fit, GROUPS);
    if (fabsf(peak) < FM_TINY_GROUP) return;
    const float inverse = -128.0f / peak;
    fm_put_f16(p + D, 1.0f / inverse);
    for (size_t g = 0; g < GROUPS; g++) {
        const int scale = fm_clamp_int(fm_round_even(inverse * fit[g]), -128, 127);
        p[SCALES + g] = (uint8_t)scale;
        fm_super_signed_codes(codes + GROUP * g, x + GROUP * g, fm_get_f16(p + D) * (float)scale, HALF);
    }
    for (size_t j = 0; j < FM_SUPER; j += 128) fm_pack_nibbles(p + j / 2, codes + j, 64);
    fm_pack_pairs(p + HIGH, codes, 4);
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q6_K_BYTES) encode_block(p, src + i, importance ? importance + i : NULL);
}

const fm_dtype_traits fm_dtype_Q6_K = FM_DTYPE_TRAITS(Q6_K, false, decode, encode);
