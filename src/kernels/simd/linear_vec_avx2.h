/* linear_vec_avx2.h - what the product templates need of AVX2 with FMA and F16C (see linear_vec_avx512.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_VEC_H
#define FM_KERNELS_SIMD_LINEAR_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

/* Sixteen registers: two panels by three tokens of sums fill them, or by two where more is to be held. */
enum { LANES = 8, PANELS = 2, TOKENS = 3, TOKENS_SMALL = 2, F_ROWS = 4, F_TOKENS = 3 };

typedef uint32_t iv __attribute__((vector_size(32)));
typedef float fv __attribute__((vector_size(32)));

FM_INLINE iv iv_set1(uint32_t v) { return (iv)_mm256_set1_epi32((int)v); }
FM_INLINE fv fv_set1(float v) { return (fv)_mm256_set1_ps(v); }
FM_INLINE fv fv_load(const void *p) { return (fv)_mm256_loadu_ps(p); }
FM_INLINE void fv_store(float *p, fv v) { _mm256_storeu_ps(p, (__m256)v); }
FM_INLINE fv fv_fma(fv a, fv b, fv c) { return (fv)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
FM_INLINE fv fv_from_int(iv v) { return (fv)_mm256_cvtepi32_ps((__m256i)v); }
FM_INLINE fv fv_load_f16(const void *p) { return (fv)_mm256_cvtph_ps(_mm_loadu_si128(p)); }

FM_INLINE fv fv_load_bf16(const void *p)
{
    return (fv)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16);
}

/* The low half of every lane as an f16. */
FM_INLINE fv fv_from_half(iv v)
{
    const __m256i masked = (__m256i)(v & 0xffffu);
    return (fv)_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(masked), _mm256_extracti128_si256(masked, 1)));
}

FM_INLINE float fv_sum(fv v)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

FM_INLINE iv iv_lookup(const int8_t *table16, iv index)
{
    __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table16));
    return (iv)_mm256_shuffle_epi8(table, (__m256i)index);
}

FM_INLINE __m256i load_rows2(const uint8_t *const *row, size_t off)
{
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const void *)(row[0] + off)));
    return _mm256_inserti128_si256(v, _mm_loadu_si128((const void *)(row[4] + off)), 1);
}

/* 16 bytes of every row at `off`: out[j] holds word j of all rows. */
FM_INLINE void iv_load_rows(iv out[4], const uint8_t *const *row, size_t off)
{
    __m256i a = load_rows2(row, off), b = load_rows2(row + 1, off);
    __m256i c = load_rows2(row + 2, off), d = load_rows2(row + 3, off);
    __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
    __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
    out[0] = (iv)_mm256_unpacklo_epi64(ab0, cd0);
    out[1] = (iv)_mm256_unpackhi_epi64(ab0, cd0);
    out[2] = (iv)_mm256_unpacklo_epi64(ab1, cd1);
    out[3] = (iv)_mm256_unpackhi_epi64(ab1, cd1);
}

/* Keeps a sum in a register from one product to the next.  gcc 12 takes chains of vector additions apart, makes all products of
 * a group first and has them wait in memory. */
FM_INLINE iv iv_kept(iv sum)
{
    __asm__ volatile("" : "+x"(sum));
    return sum;
}

/* acc + sums of products of signed 16-bit pairs. */
FM_INLINE iv iv_dot16(iv acc, iv a, iv b)
{
    return (iv)_mm256_add_epi32((__m256i)acc, _mm256_madd_epi16((__m256i)a, (__m256i)b));
}

/* FEW_FREE: up to so many tokens the sums of blocks of 32 are better taken apart. */
enum { DOT_CHAIN = 0, FULL_OFFSET = 0, FEW_FREE = 0 };
#define FEW_LONG  0
#define FEW_TWICE 0u

/* Sums in 16 bits.  Full-range codes move their sign to the input: 2 * 128 * 127 still fits. */
FM_INLINE iv dot_step(iv acc, iv w, iv x, bool first, bool full)
{
    __m256i a = (__m256i)w, b = (__m256i)x;
    if (full) {
        b = _mm256_sign_epi8(b, a);
        a = _mm256_abs_epi8(a);
    }
    __m256i p = _mm256_maddubs_epi16(a, b);
    return (iv)(first ? p : _mm256_add_epi16((__m256i)acc, p));
}

#endif
