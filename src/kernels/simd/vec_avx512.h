/* vec_avx512.h - the vector layer in AVX-512 (F, BW, DQ, VL): 16 floats. */
#ifndef FM_KERNELS_SIMD_VEC_AVX512_H
#define FM_KERNELS_SIMD_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum { VLEN = 16, VREGISTERS = 32 };
typedef __m512 vf;
typedef __mmask16 vtail;

FM_INLINE vf vset(float a) { return _mm512_set1_ps(a); }
FM_INLINE vf vload(const float *p) { return _mm512_loadu_ps(p); }
FM_INLINE void vstore(float *p, vf a) { _mm512_storeu_ps(p, a); }

/* The first n lanes, n < VLEN: other lanes load as 0, are not stored and touch no memory. */
FM_INLINE vtail vtail_of(size_t n) { return (__mmask16)((1u << n) - 1u); }
FM_INLINE vf vload_tail(const float *p, vtail t) { return _mm512_maskz_loadu_ps(t, p); }
FM_INLINE void vstore_tail(float *p, vf a, vtail t) { _mm512_mask_storeu_ps(p, t, a); }
FM_INLINE vf vtail_select(vtail t, vf inside, vf outside)
{
    return _mm512_mask_blend_ps(t, outside, inside);
}

FM_INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
FM_INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
FM_INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
FM_INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
FM_INLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
FM_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
FM_INLINE vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
FM_INLINE vf vabs(vf a) { return _mm512_abs_ps(a); }
/* A NaN in b is kept. */
FM_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
FM_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
FM_INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }

/* a 2^n, n whole: one rounding, gradual underflow, overflow to infinity. */
FM_INLINE vf vscale(vf a, vf n) { return _mm512_scalef_ps(a, n); }

/* t = *n + the result, *n whole and the result in [-1/2, 1/2]; an infinite t gives *n = t and 0. */
FM_INLINE vf vsplit(vf t, vf *n)
{
    const vf f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEAREST_INT);
    *n = _mm512_sub_ps(t, f);
    return f;
}

/* The same two where |t| <= VNEAR: to the same bits, and faster where no instruction scales. */
enum { VNEAR_FASTER = 0 };
FM_INLINE vf vsplit_near(vf t, vf *n)
{
    return vsplit(t, n);
}
FM_INLINE vf vscale_near(vf a, vf n)
{
    return vscale(a, n);
}

/* Whether a <= b in all lanes; a NaN is not. */
FM_INLINE bool vall_le(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ) == 0xffff;
}

/* 64-bit lanes: products of their low halves. */
typedef uint64_t vwide __attribute__((vector_size(64)));
FM_INLINE vwide vwide_product(vwide a, vwide b) { return (vwide)_mm512_mul_epu32((__m512i)a, (__m512i)b); }

/* Halves added to halves: an order fixed by the width alone. */
FM_INLINE float vsum(vf a)
{
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

FM_INLINE float vmax_lane(vf a) { return _mm512_reduce_max_ps(a); }

/* Sums of squares in double. */
typedef struct vsquares {
    __m512d lo, hi;
} vsquares;

FM_INLINE vsquares vsquares_zero(void)
{
    return (vsquares){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

FM_INLINE vsquares vsquares_add(vsquares s, vf a)
{
    const __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    const __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    return (vsquares){_mm512_fmadd_pd(lo, lo, s.lo), _mm512_fmadd_pd(hi, hi, s.hi)};
}

FM_INLINE double vsquares_sum(vsquares s)
{
    const __m512d a = _mm512_add_pd(s.lo, s.hi);
    const __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    const __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

#endif
