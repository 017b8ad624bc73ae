/* linear_vec_avx512.h - what the product templates need of AVX-512, with or without VNNI.  Plain arithmetic on vectors is
 * written with the compilers' vector types, so only what these lack is here. */
#ifndef FM_KERNELS_SIMD_LINEAR_VEC_H
#define FM_KERNELS_SIMD_LINEAR_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

enum { LANES = 16, PANELS = 2, TOKENS = 4, TOKENS_SMALL = 4, F_ROWS = 4, F_TOKENS = 6 };

typedef uint32_t iv __attribute__((vector_size(64)));
typedef float fv __attribute__((vector_size(64)));

FM_INLINE iv iv_set1(uint32_t v) { return (iv)_mm512_set1_epi32((int)v); }
FM_INLINE fv fv_set1(float v) { return (fv)_mm512_set1_ps(v); }
FM_INLINE fv fv_load(const void *p) { return (fv)_mm512_loadu_ps(p); }
FM_INLINE void fv_store(float *p, fv v) { _mm512_storeu_ps(p, (__m512)v); }
FM_INLINE fv fv_fma(fv a, fv b, fv c) { return (fv)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
FM_INLINE fv fv_from_int(iv v) { return (fv)_mm512_cvtepi32_ps((__m512i)v); }
FM_INLINE fv fv_load_f16(const void *p) { return (fv)_mm512_cvtph_ps(_mm256_loadu_si256(p)); }

FM_INLINE fv fv_load_bf16(const void *p)
{
    return (fv)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16);
}

/* The low half of every lane as an f16. */
FM_INLINE fv fv_from_half(iv v) { return (fv)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v)); }

FM_INLINE float fv_sum(fv v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_shuffle_ps(b, b, 1)));
}

FM_INLINE iv iv_lookup(const int8_t *table16, iv index)
{
    __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table16));
    return (iv)_mm512_shuffle_epi8(table, (__m512i)index);
}

FM_INLINE __m512i load_rows4(const uint8_t *const *row, size_t off)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(row[0] + off)));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(row[4] + off)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(row[8] + off)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(row[12] + off)), 3);
}

/* 16 bytes of every row at `off`: out[j] holds word j of all rows. */
FM_INLINE void iv_load_rows(iv out[4], const uint8_t *const *row, size_t off)
{
    __m512i a = load_rows4(row, off), b = load_rows4(row + 1, off);
    __m512i c = load_rows4(row + 2, off), d = load_rows4(row + 3, off);
    __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    out[0] = (iv)_mm512_unpacklo_epi64(ab0, cd0);
    out[1] = (iv)_mm512_unpackhi_epi64(ab0, cd0);
    out[2] = (iv)_mm512_unpacklo_epi64(ab1, cd1);
    out[3] = (iv)_mm512_unpackhi_epi64(ab1, cd1);
}

#ifdef __AVX512VNNI__

/* Chained instructions keep their sums by themselves. */
FM_INLINE iv iv_kept(iv sum)
{
    return sum;
}

/* acc + sums of products of signed 16-bit pairs. */
FM_INLINE iv iv_dot16(iv acc, iv a, iv b)
{
    return (iv)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
}

/* Full-range bytes are stored + 128, since the instruction wants one unsigned side. */
enum { DOT_CHAIN = 1, FULL_OFFSET = 128, FEW_FREE = 0 };

/* 9 to 16 tokens of blocks of 32 and of Q6_K at once, of the types of FEW_TWICE in two parts (linear_quant.h). */
#define FEW_LONG  1
#define FEW_TWICE (1u << FM_Q2_K | 1u << FM_Q3_K | 1u << FM_IQ4_XS)

FM_INLINE iv dot_step(iv acc, iv w, iv x, bool first, bool full)
{
    (void)first, (void)full;
    return (iv)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
}

#else

FM_INLINE iv iv_kept(iv sum)
{
    __asm__ volatile("" : "+v"(sum));
    return sum;
}

FM_INLINE iv iv_dot16(iv acc, iv a, iv b)
{
    return (iv)_mm512_add_epi32((__m512i)acc, _mm512_madd_epi16((__m512i)a, (__m512i)b));
}

/* As in linear_vec_avx2.h. */
enum { DOT_CHAIN = 0, FULL_OFFSET = 0, FEW_FREE = 6 };
#define FEW_LONG  0
#define FEW_TWICE (1u << FM_Q8_0 | 1u << FM_Q4_1 | 1u << FM_IQ4_XS)

FM_INLINE iv dot_step(iv acc, iv w, iv x, bool first, bool full)
{
    __m512i a = (__m512i)w, b = (__m512i)x;
    if (full) {
        b = _mm512_mask_sub_epi8(b, _mm512_movepi8_mask(a), _mm512_setzero_si512(), b);
        a = _mm512_abs_epi8(a);
    }
    __m512i p = _mm512_maddubs_epi16(a, b);
    return (iv)(first ? p : _mm512_add_epi16((__m512i)acc, p));
}

#endif
#endif
