/* iq4_xs.c - eight groups of 32 codes into the table of iq4.h, 6-bit group scales around 32:
 * f16 d; u16 high bits of the scales; u8 low nibbles [4]; u8 q[128]. */
#include "tensor/quant/codes.h"
#include "tensor/quant/iq4.h"
#include "tensor/quant/search.h"

#include <string.h>

enum { GROUP = FM_IQ4_GROUP, GROUPS = FM_SUPER / GROUP, HIGH = 2, LOW = 4, CODES = 8 /* byte offsets */ };

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_IQ4_XS_BYTES) {
        float d = fm_get_f16(p);
        unsigned high = fm_get_u16(p + HIGH);
        for (unsigned g = 0; g < GROUPS; g++) {
            int scale = (p[LOW + g / 2] >> 4 * (g % 2) & 15) | (int)(high >> 2 * g & 3) << 4;
            fm_iq4_decode(dst + i + GROUP * g, p + CODES + GROUP / 2 * g, d * (float)(scale - 32));
        }
    }
}

static void encode_block(uint8_t *p, const float *x, const float *importance)
{
    float scales[GROUPS], sigma2 = fm_sum_squares(x, FM_SUPER) * (2.0f / FM_SUPER);
    for (size_t g = 0; g < GROUPS; g++) {
        scales[g] = fm_iq4_fit(x + GROUP * g, importance ? importance + GROUP * g : NULL, sigma2);
    }
    /* The codes follow the unrounded d; only the stored one is a half float. */
    float d = -fm_peak(scales, GROUPS) / 32.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
    unsigned high = 0;
    memset(p, 0, FM_IQ4_XS_BYTES);
    fm_put_f16(p, d);
    for (unsigned g = 0; g < GROUPS; g++) {
        int scale = fm_clamp_int(fm_round_even(inverse * scales[g]), -32, 31);
        float step = d * (float)scale;
        fm_iq4_codes(p + CODES + GROUP / 2 * g, x + GROUP * g, step != 0.0f ? 1.0f / step : 0.0f);
        p[LOW + g / 2] |= (uint8_t)(((scale + 32) & 15) << 4 * (g % 2));
        high |= (unsigned)(scale + 32) >> 4 << 2 * g;
    }
    fm_put_u16(p + HIGH, (uint16_t)high);
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_IQ4_XS_BYTES) {
        encode_block(p, src + i, importance ? importance + i : NULL);
    }
}

const fm_dtype_traits fm_dtype_IQ4_XS = FM_DTYPE_TRAITS(IQ4_XS, false, decode, encode);
