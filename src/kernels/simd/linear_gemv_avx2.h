/* linear_gemv_avx2.h - one token times the commonest quantised weights, for AVX2: eight super-blocks, or four rows by two
 * blocks of 32, at a time (see linear_gemv.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H

enum { CHUNK = 8, STEP_BLOCKS = 2 };

#define IN_ORDER                                                                                                               \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15                                                                   \
    }
#define STEP_IN_ORDER                                                                                                          \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7                                                                                                 \
    }

/* type, bytes, narrow, min, word, upper, order */
#define GEMV_256(X)                                                                                                            \
    X(Q4_K, 144, false, true, 0, false, IN_ORDER)                                                                              \
    X(Q5_K, 176, false, true, 0, false, IN_ORDER)                                                                              \
    X(Q6_K, 210, true, false, 3, true, IN_ORDER)

/* type, bytes, codes, min, shift, order */
#define GEMV_32(X)                                                                                                             \
    X(Q8_0, 34, 2, false, 0, STEP_IN_ORDER)                                                                                    \
    X(Q4_0, 18, 2, false, 3, STEP_IN_ORDER)                                                                                    \
    X(Q4_1, 20, 4, true, 0, STEP_IN_ORDER)                                                                                     \
    X(Q5_0, 22, 6, false, 4, STEP_IN_ORDER)                                                                                    \
    X(Q5_1, 24, 8, true, 0, STEP_IN_ORDER)                                                                                     \
    X(IQ4_NL, 18, 2, false, 0, STEP_IN_ORDER)

#include "kernels/simd/linear_gemv.h"

FM_INLINE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256(p);
}
FM_INLINE __m128i load_128(const void *p)
{
    return _mm_loadu_si128(p);
}
FM_INLINE __m256i bytes_of(int v)
{
    return _mm256_set1_epi8((char)v);
}

/* Sums of lanes four apart: the lower half of the result belongs to a, the upper to b. */
FM_INLINE __m256i join_128(__m256i a, __m256i b)
{
    return _mm256_add_epi32(_mm256_blend_epi32(a, b, 0xf0), _mm256_permute2x128_si256(a, b, 0x21));
}

/* Lane i = the sum of vector i. */
FM_INLINE __m256i sums_8(const __m256i v[8])
{
    const __m256i a = join_128(v[0], v[4]), b = join_128(v[1], v[5]), c = join_128(v[2], v[6]), d = join_128(v[3], v[7]);
    const __m256i even = _mm256_hadd_epi32(a, b), odd = _mm256_hadd_epi32(c, d);
    return _mm256_hadd_epi32(even, odd);
}

FM_INLINE __m256i add_scaled(__m256i sum, __m256i w, __m256i x, __m256i scale)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), scale));
}

/* A block's integer sums, in eight and four parts. */
typedef struct part {
    __m256i isum;
    __m128i msum;
} part;

FM_INLINE uint64_t two_words(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

FM_INLINE __m256i with_fifth(__m256i v, __m256i bits, int group)
{
    const __m256i moved = group > 4 ? _mm256_srli_epi32(bits, group - 4) : _mm256_slli_epi32(bits, 4 - group);
    return _mm256_or_si256(v, _mm256_and_si256(moved, bytes_of(16)));
}

FM_INLINE part part_q45_k(const uint8_t *w, const int8_t *x, const int16_t *sums, bool fifth)
{
    const uint32_t a = word_at(w + 4), b = word_at(w + 8), c = word_at(w + 12), m6 = 0x3f3f3f3fu, m4 = 0x0f0f0f0fu,
                   top = 0x30303030u;
    const uint64_t scales = two_words(a & m6, (c & m4) | (a >> 2 & top));
    const uint64_t mins8 = two_words(b & m6, (c >> 4 & m4) | (b >> 2 & top));
    const __m128i words = _mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)scales));
    const __m256i both = _mm256_set_m128i(words, words), bits = fifth ? load_256(w + 16) : both, low4 = bytes_of(15);
    const uint8_t *q = w + (fifth ? 48 : 16);
    __m256i sum = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++)
    {
        const __m256i v = load_256(q + 32 * i);
        __m256i low = _mm256_and_si256(v, low4), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), low4);
        if (fifth) low = with_fifth(low, bits, 2 * i), high = with_fifth(high, bits, 2 * i + 1);
        const __m256i at = _mm256_add_epi8(_mm256_set1_epi16(0x0100), bytes_of(4 * i));
        sum = add_scaled(sum, low, load_256(x + 64 * i), _mm256_shuffle_epi8(both, at));
        sum = add_scaled(sum, high, load_256(x + 64 * i + 32), _mm256_shuffle_epi8(both, _mm256_add_epi8(at, bytes_of(2))));
    }
    const __m128i m = _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)mins8)), load_128(sums));
    return (part){sum, m};
}

/* 32 columns: two groups of 16.  */
FM_INLINE __m256i add_q6(__m256i sum, __m256i low4, __m256i high2, const int8_t *x, __m256i pair)
{
    return add_scaled(sum, _mm256_or_si256(low4, high2), load_256(x), pair);
}

FM_INLINE part part_q6_k(const uint8_t *w, const int8_t *x, const int16_t *sums)
{
    const __m256i low4 = bytes_of(15), top = bytes_of(48), words = _mm256_cvtepi8_epi16(load_128(w + 192));
    /* scales in pairs of words: 0 to 3 and 8 to 11; 4 to 7 and 12 to 15 */
    const __m256i a = _mm256_unpacklo_epi16(words, words), b = _mm256_unpackhi_epi16(words, words);
    const __m256i sum16 = _mm256_set_m128i(load_128(sums + (size_t)(GEMV_BLOCKS + CHUNK) * 8), load_128(sums));
    __m256i sum = _mm256_slli_epi32(_mm256_madd_epi16(words, sum16), 5);
    sum = _mm256_sub_epi32(_mm256_setzero_si256(), sum);
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m256i u = load_256(w + 64 * i), v = load_256(w + 64 * i + 32), h = load_256(w + 128 + 32 * i);
        const __m256i first = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
        const __m256i pair0 = _mm256_add_epi32(first, _mm256_set1_epi32(4 * i)),
                      pair1 = _mm256_add_epi32(pair0, _mm256_set1_epi32(2));
        const int8_t *xs = x + 128 * i;
        sum = add_q6(sum, _mm256_and_si256(u, low4), _mm256_and_si256(_mm256_slli_epi16(h, 4), top), xs,
                     _mm256_permutevar8x32_epi32(a, pair0));
        sum = add_q6(sum, _mm256_and_si256(v, low4), _mm256_and_si256(_mm256_slli_epi16(h, 2), top), xs + 32,
                     _mm256_permutevar8x32_epi32(a, pair1));
        sum = add_q6(sum, _mm256_and_si256(_mm256_srli_epi16(u, 4), low4), _mm256_and_si256(h, top), xs + 64,
                     _mm256_permutevar8x32_epi32(b, pair0));
        sum = add_q6(sum, _mm256_and_si256(_mm256_srli_epi16(v, 4), low4), _mm256_and_si256(_mm256_srli_epi16(h, 2), top),
                     xs + 96, _mm256_permutevar8x32_epi32(b, pair1));
    }
    return (part){sum, _mm_setzero_si128()};
}

FM_INLINE __m256 halves(__m256i words, bool upper)
{
    const __m256i v = upper ? _mm256_srli_epi32(words, 16) : _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

FM_INLINE void chunk_256(float v[CHUNK], fm_dtype type, form_256 f, const uint8_t *w, const token_256 *x, size_t at)
{
    __m256i s[CHUNK], m[CHUNK];
    uint32_t head[CHUNK];
    UNROLL for (size_t i = 0; i < CHUNK; i++)
    {
        fetch_with_block(w, i, f.bytes);
        const uint8_t *b = w + i * f.bytes;
        const int8_t *q = x->q + 256 * (at + i);
        const int16_t *sums = x->sum[0] + 8 * (at + i);
        const part p = type == FM_Q6_K ? part_q6_k(b, q, sums) : part_q45_k(b, q, sums, type == FM_Q5_K);
        s[i] = p.isum;
        m[i] = _mm256_zextsi128_si256(p.msum);
        head[i] = type == FM_Q6_K ? word_at(b + 206) >> 16 : word_at(b);
    }
    const __m256i d = load_256(head);
    __m256 sum = _mm256_mul_ps(halves(d, false), _mm256_cvtepi32_ps(sums_8(s)));
    if (f.min) {
        UNROLL for (int i = 0; i < 4; i++) m[i] = _mm256_inserti128_si256(m[i], _mm256_castsi256_si128(m[i + 4]), 1);
        const __m256i msum = _mm256_hadd_epi32(_mm256_hadd_epi32(m[0], m[1]), _mm256_hadd_epi32(m[2], m[3]));
        sum = _mm256_fnmadd_ps(halves(d, true), _mm256_cvtepi32_ps(msum), sum);
    }
    _mm256_storeu_ps(v, sum);
}

/* 32 codes as bytes, signed or with an offset. */
FM_INLINE __m256i codes_32(const uint8_t *w, fm_dtype type, form_32 f)
{
    if (type == FM_Q8_0) return load_256(w + f.codes);
    const __m256i both = _mm256_broadcastsi128_si256(load_128(w + f.codes));
    const __m256i v = _mm256_and_si256(_mm256_srlv_epi32(both, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0)), bytes_of(15));
    if (type == FM_IQ4_NL) return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_128(iq4_values)), v);
    if (type == FM_Q4_0 || type == FM_Q4_1) return v;
    const __m256i at = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i bits = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word_at(w + f.codes - 4)), at);
    const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
    return _mm256_or_si256(v, _mm256_and_si256(set, bytes_of(16)));
}

/* Sums of pairs in 16 bits; full-range codes move their sign to the input: 2 * 128 * 127 still fits. */
FM_INLINE __m256i pairs_32(__m256i w, const int8_t *x, bool full)
{
    const __m256i v = load_256(x);
    return full ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(v, w)) : _mm256_maddubs_epi16(w, v);
}

FM_INLINE __m128 add_step(__m128 y, const uint8_t *const w[STEP_ROWS], const step_32 *x, size_t left, fm_dtype type, form_32 f)
{
    const bool full = type == FM_Q8_0 || type == FM_IQ4_NL;
    float scale[8], isum[8], m[8];
    __m256i s[8];
    uint32_t head[8];
    UNROLL for (size_t k = 0; k < 2; k++) UNROLL for (size_t r = 0; r < STEP_ROWS; r++)
    {
        const uint8_t *b = block_at(w[r], k, left, f);
        head[4 * k + r] = word_at(b);
        s[4 * k + r] = _mm256_madd_epi16(pairs_32(codes_32(b, type, f), x->q + 32 * k, full), _mm256_set1_epi16(1));
    }
    const __m256i d = load_256(head), sum = _mm256_add_epi32(sums_8(s), load_256(x->offset));
    _mm256_storeu_ps(isum, _mm256_cvtepi32_ps(sum));
    _mm256_storeu_ps(scale, _mm256_mul_ps(halves(d, false), _mm256_loadu_ps(x->d)));
    if (f.min) _mm256_storeu_ps(m, halves(d, true));
    return add_blocks(y, scale, isum, f.min ? m : NULL, x->ds, left);
}

#endif
