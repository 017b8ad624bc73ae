/* q2_k.c - sixteen groups of 16 two-bit codes, 4-bit scales and minima:
 * u8 scale | min << 4 [16]; u8 q[64]; f16 d; f16 dmin. */
#include "tensor/quant/super.h"

#include <string.h>

enum { GROUP = 16, GROUPS = FM_SUPER / GROUP, CODES = 16, D = 80, DMIN = 82 /* byte offsets */ };

static const fm_affine_kind kind = {.group = GROUP,
                                    .top = 15,
                                    .by_magnitude = true,
                                    .sigma = 1.0f,
                                    .plain = {3, -0.5f, 0.1f, 16, true},
                                    .important = FM_AFFINE_PLAN_IMPORTANCE(3)};

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q2_K_BYTES) {
        uint8_t codes[FM_SUPER] = {0};
        fm_unpack_pairs(codes, p + CODES, 0);
        for (size_t g = 0; g < GROUPS; g++) {
            const float scale = fm_get_f16(p + D) * (float)(p[g] & 15), min = fm_get_f16(p + DMIN) * (float)(p[g] >> 4);
            for (size_t j = GROUP * g; j < GROUP * (g + 1); j++) dst[i + j] = scale * (float)codes[j] - min;
        }
    }
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q2_K_BYTES) {
        fm_affine_super s;
        fm_super_fit_affine(&s, src + i, importance ? importance + i : NULL, &kind);
        for (size_t g = 0; g < GROUPS; g++) p[g] = (uint8_t)(s.scale[g] | s.min[g] << 4);
        memset(p + CODES, 0, D - CODES);
        fm_pack_pairs(p + CODES, s.codes, 0);
        fm_put_u16(p + D, s.d);
        fm_put_u16(p + DMIN, s.dmin);
    }
}

const fm_dtype_traits fm_dtype_Q2_K = FM_DTYPE_TRAITS(Q2_K, false, decode, encode);
