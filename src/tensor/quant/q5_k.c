/* q5_k.c - eight groups of 32 five-bit codes, 6-bit scales and minima:
 * f16 d; f16 dmin; u8 scales[12]; u8 fifth bits [32]; u8 q[128]. */
#include "tensor/quant/super.h"

#include <string.h>

enum { GROUP = 32, GROUPS = FM_SUPER / GROUP, SCALES = 4, FIFTH = 16, CODES = 48 /* byte offsets */ };

static const fm_affine_kind kind = {.group = GROUP,
                                    .top = 63,
                                    .sigma = 2.0f,
                                    .plain = {31, -0.5f, 0.1f, 16, false},
                                    .important = FM_AFFINE_PLAN_IMPORTANCE(31)};

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q5_K_BYTES) {
        uint8_t codes[FM_SUPER], scale[GROUPS], min[GROUPS];
        fm_unpack_scales(scale, min, p + SCALES);
        for (size_t j = 0; j < FM_SUPER; j += 64) fm_unpack_nibbles(codes + j, p + CODES + j / 2, 32);
        fm_unpack_plane(codes, p + FIFTH, 4);
        for (size_t g = 0; g < GROUPS; g++) {
            const float d = fm_get_f16(p) * (float)scale[g], m = fm_get_f16(p + 2) * (float)min[g];
            for (size_t j = GROUP * g; j < GROUP * (g + 1); j++) dst[i + j] = d * (float)codes[j] - m;
        }
    }
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += FM_SUPER, p += FM_Q5_K_BYTES) {
        fm_affine_super s;
        fm_super_fit_affine(&s, src + i, importance ? importance + i : NULL, &kind);
        memset(p, 0, FM_Q5_K_BYTES);
        fm_put_u16(p, s.d);
        fm_put_u16(p + 2, s.dmin);
        fm_pack_scales(p + SCALES, s.scale, s.min);
        for (size_t j = 0; j < FM_SUPER; j += 64) fm_pack_nibbles(p + CODES + j / 2, s.codes + j, 32);
        fm_pack_plane(p + FIFTH, s.codes, 4);
    }
}

const fm_dtype_traits fm_dtype_Q5_K = FM_DTYPE_TRAITS(Q5_K, false, decode, encode);
