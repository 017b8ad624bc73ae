/* iq4_nl.c - 32 codes into the table of iq4.h with one scale: f16 d; u8 q[16]. */
#include "tensor/quant/codes.h"
#include "tensor/quant/iq4.h"
#include "tensor/quant/search.h"

enum { N = FM_IQ4_NL_BLOCK };

static void decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i += N, p += FM_IQ4_NL_BYTES) fm_iq4_decode(dst + i, p + 2, fm_get_f16(p));
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i += N, p += FM_IQ4_NL_BYTES) {
        const float *x = src + i;
        float sigma2 = fm_sum_squares(x, N) * (2.0f / N);
        float scale = fm_iq4_fit(x, importance ? importance + i : NULL, sigma2);
        fm_put_f16(p, scale);
        fm_iq4_codes(p + 2, x, scale != 0.0f ? 1.0f / scale : 0.0f);
    }
}

const fm_dtype_traits fm_dtype_IQ4_NL = FM_DTYPE_TRAITS(IQ4_NL, false, decode, encode);
