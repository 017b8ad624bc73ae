/* vec_avx2.h - the vector layer in AVX2 with FMA: 8 floats.  Contracts as in vec_avx512.h. */
#ifndef FM_KERNELS_SIMD_VEC_AVX2_H
#define FM_KERNELS_SIMD_VEC_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum { VLEN = 8, VREGISTERS = 16 };
typedef __m256 vf;
typedef __m256i vtail;

FM_INLINE vf vset(float a) { return _mm256_set1_ps(a); }
FM_INLINE vf vload(const float *p) { return _mm256_loadu_ps(p); }
FM_INLINE void vstore(float *p, vf a) { _mm256_storeu_ps(p, a); }

FM_INLINE vtail vtail_of(size_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}

FM_INLINE vf vload_tail(const float *p, vtail t) { return _mm256_maskload_ps(p, t); }
FM_INLINE void vstore_tail(float *p, vf a, vtail t) { _mm256_maskstore_ps(p, t, a); }
FM_INLINE vf vtail_select(vtail t, vf inside, vf outside)
{
    return _mm256_blendv_ps(outside, inside, _mm256_castsi256_ps(t));
}

FM_INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
FM_INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
FM_INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
FM_INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
FM_INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
FM_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
FM_INLINE vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
FM_INLINE vf vabs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
FM_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
FM_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
FM_INLINE vf vround(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* 2^n from its bits, n in [-126, 127]. */
FM_INLINE vf vpow2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* In two steps, |n| <= 250: the first is exact, so the result is rounded once. */
FM_INLINE vf vscale(vf a, vf n)
{
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    return _mm256_mul_ps(_mm256_mul_ps(a, vpow2(half)), vpow2(_mm256_sub_epi32(whole, half)));
}

/* |t| is cut at 200, beyond which every 2^t is 0 or infinity. */
FM_INLINE vf vsplit(vf t, vf *n)
{
    const vf cut = vmin(vset(200.0f), vmax(vset(-200.0f), t));
    *n = vround(cut);
    return vsub(cut, *n);
}

enum { VNEAR_FASTER = 1 };
FM_INLINE vf vsplit_near(vf t, vf *n)
{
    *n = vround(t);
    return vsub(t, *n);
}

FM_INLINE vf vscale_near(vf a, vf n)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

FM_INLINE bool vall_le(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)) == 0xff;
}

/* 64-bit lanes: products of their low halves. */
typedef uint64_t vwide __attribute__((vector_size(32)));
FM_INLINE vwide vwide_product(vwide a, vwide b) { return (vwide)_mm256_mul_epu32((__m256i)a, (__m256i)b); }

FM_INLINE float vsum(vf a)
{
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

FM_INLINE float vmax_lane(vf a)
{
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

typedef struct vsquares {
    __m256d lo, hi;
} vsquares;

FM_INLINE vsquares vsquares_zero(void)
{
    return (vsquares){_mm256_setzero_pd(), _mm256_setzero_pd()};
}

FM_INLINE vsquares vsquares_add(vsquares s, vf a)
{
    const __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(a));
    const __m256d hi = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
    return (vsquares){_mm256_fmadd_pd(lo, lo, s.lo), _mm256_fmadd_pd(hi, hi, s.hi)};
}

FM_INLINE double vsquares_sum(vsquares s)
{
    const __m256d b = _mm256_add_pd(s.lo, s.hi);
    const __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

#endif
