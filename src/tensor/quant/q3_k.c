/* q3_k.c - sixteen groups of 16 three-bit codes around 4, 6-bit scales around 32:
 * u8 high bits [32]; u8 q[64]; u8 scales[12]; f16 d. */
#include "tensor/quant/super.h"

#include <math.h>
#include <string.h>

enum { GROUP = 16, GROUPS = FM_SUPER / GROUP, HALF = 4, CODES = 32, SCALES = 96, D = 108 /* byte offsets */ };

static int get_scale(const uint8_t *s, size_t g)
{
    const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
    return (low | (s[8 + g % 4] >> 2 * (g / 4) & 3) << 4) - 32;
}

static void put_scale(uint8_t *s, size_t g, int scale)
{
    const unsigned v = (unsigned)(scale + 32);
    s[g % 8] |= (uint8_t)((v & 15) << 4 * (g / 8));
    s[8 + g % 4] |= (uint8_t)(v >> 4 << 2 * (g / 4));
}

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q3_K_BYTES) {
        uint8_t codes[FM_SUPER] = {0};
        fm_unpack_pairs(codes, p + CODES, 0);
        fm_unpack_plane(codes, p, 2);
        for (size_t g = 0; g < GROUPS; g++) {
            const float scale = fm_get_f16(p + D) * (float)get_scale(p + SCALES, g);
            for (size_t j = GROUP * g; j < GROUP * (g + 1); j++) dst[i + j] = scale * (float)((int)codes[j] - HALF);
        }
    }
}

/* Scales of the groups around zero, as integers; returns d. */
static float fit_plain(int *scale, uint8_t *codes, const float *x)
{
    float fit[GROUPS];
    for (size_t g = 0; g < GROUPS; g++) fit[g] = fm_fit_signed_exchange(x + GROUP * g, GROUP, HALF, codes + GROUP * g);
    const float peak = fm_peak(fit, GROUPS), inverse = peak != 0.0f ? -32.0f / peak : 0.0f;
    for (size_t g = 0; g < GROUPS; g++)
        scale[g] = inverse != 0.0f ? fm_clamp_int(fm_round_even(inverse * fit[g]), -32, 31) : -32;
    return inverse != 0.0f ? 1.0f / inverse : 0.0f;
}

static float fit_important(int *scale, uint8_t *codes, const float *x, const float *importance)
{
    float fit[GROUPS], sums[GROUPS], weight[GROUP];
    uint8_t scale_codes[GROUPS];
    const float sigma2 = fm_sum_squares(x, FM_SUPER) * (2.0f / FM_SUPER);
    for (size_t g = 0; g < GROUPS; g++) {
        fm_importance_weights(weight, x + GROUP * g, importance + GROUP * g, GROUP, sigma2);
        fit[g] = fm_fit_signed(x + GROUP * g, weight, GROUP, HALF, codes + GROUP * g);
        sums[g] = fm_sum(weight, GROUP);
    }
    const float d = fm_fit_signed(fit, sums, GROUPS, 32, scale_codes);
    for (size_t g = 0; g < GROUPS; g++) scale[g] = scale_codes[g] - 32;
    return d;
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q3_K_BYTES) {
        uint8_t codes[FM_SUPER];
        int scale[GROUPS];
        memset(p, 0, FM_Q3_K_BYTES);
        fm_put_f16(p + D, importance ? fit_important(scale, codes, src + i, importance + i) : fit_plain(scale, codes, src + i));
        for (size_t g = 0; g < GROUPS; g++) {
            put_scale(p + SCALES, g, scale[g]);
            fm_super_signed_codes(codes + GROUP * g, src + i + GROUP * g, fm_get_f16(p + D) * (float)scale[g], HALF);
        }
        fm_pack_pairs(p + CODES, codes, 0);
        fm_pack_plane(p, codes, 2);
    }
}

const fm_dtype_traits fm_dtype_Q3_K = FM_DTYPE_TRAITS(Q3_K, false, decode, encode);
