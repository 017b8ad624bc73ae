/* q4_k.c - eight groups of 32 four-bit codes, 6-bit scales and minima:
 * f16 d; f16 dmin; u8 scales[12]; u8 q[128]. */
#include "tensor/quant/super.h"

#include <string.h>

enum { GROUP = 32, GROUPS = FM_SUPER / GROUP, SCALES = 4, CODES = 16 /* byte offsets */ };

static const fm_affine_kind kind = {.group = GROUP,
                                    .top = 63,
                                    .sigma = 2.0f,
                                    .plain = {15, -1.0f, 0.1f, 21, false},
                                    .important = FM_AFFINE_PLAN_IMPORTANCE(15)};

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q4_K_BYTES) {
        uint8_t codes[FM_SUPER], scale[GROUPS], min[GROUPS];
        fm_unpack_scales(scale, min, p + SCALES);
        for (size_t j = 0; j < FM_SUPER; j += 64) fm_unpack_nibbles(codes + j, p + CODES + j / 2, 32);
        for (size_t g = 0; g < GROUPS; g++) {
            const float d = fm_get_f16(p) * (float)scale[g], m = fm_get_f16(p + 2) * (float)min[g];
            for (size_t j = GROUP * g; j < GROUP * (g + 1); j++) dst[i + j] = d * (float)codes[j] - m;
        }
    }
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q4_K_BYTES) {
        fm_affine_super s;
        fm_super_fit_affine(&s, src + i, importance ? importance + i : NULL, &kind);
        memset(p, 0, FM_Q4_K_BYTES);
        fm_put_u16(p, s.d);
        fm_put_u16(p + 2, s.dmin);
        fm_pack_scales(p + SCALES, s.scale, s.min);
        for (size_t j = 0; j < FM_SUPER; j += 64) fm_pack_nibbles(p + CODES + j / 2, s.codes + j, 32);
    }
}

const fm_dtype_traits fm_dtype_Q4_K = FM_DTYPE_TRAITS(Q4_K, false, decode, encode);
