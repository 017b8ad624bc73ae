/* linear_gemv_avx2.h - one token times the commonest quantised weights, for AVX2: eight super-blocks, or four rows by two
 * blocks of 32, at a time (see linear_gemv.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H

enum { CHUNK = 8, STEP_BLOCKS = 2, CHAIN_LAST = 1 };

#define IN_ORDER                                                                                                               \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15                                                                   \
    }
#define STEP_IN_ORDER                                                                                                          \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7                                                                                                 \
    }

#define ORDER_Q45_K                                                                                                            \
    {                                                                                                                          \
        0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15                                                                   \
    }

/* type, bytes, narrow, min, word, upper, order */
#define GEMV_256(X)                                                                                                            \
    X(Q4_K, 144, false, true, 0, false, ORDER_Q45_K)                                                                           \
    X(Q5_K, 176, false, true, 0, false, ORDER_Q45_K)                                                                           \
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
FM_INLINE __m256i both_halves(const void *p)
{
    return _mm256_broadcastsi128_si256(load_128(p));
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

/* Sums of neighbours in each half, a's then b's: less work than _mm256_hadd_epi32. */
FM_INLINE __m256i join_32(__m256i a, __m256i b)
{
    const __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
    return _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)),
                            _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd)));
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

/* The compiler would load twice what is used twice, and loads are what the ports are short of. */
FM_INLINE __m256i load_once(const void *p)
{
    __m256i v = load_256(p);
    __asm__("" : "+x"(v));
    return v;
}

FM_INLINE __m256i load_pair(const uint8_t *a, const uint8_t *b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_128(a)), load_128(b), 1);
}

/* Q4_K and Q5_K: eight scales, then eight mins, in bytes. */
FM_INLINE __m256i scales_q45_k(__m256i head)
{
    const __m256i by = _mm256_set_epi32(4, 0, 0, 0, 4, 0, 0, 0);
    const __m256i masks = _mm256_set1_epi64x(0x0f0f0f0f3f3f3f3f), top = _mm256_set1_epi64x(0x3030303000000000);
    const __m256i low = _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi32(head, 0xed), by), masks);
    return _mm256_or_si256(low, _mm256_and_si256(_mm256_srli_epi32(_mm256_shuffle_epi32(head, 0xa5), 2), top));
}

/* Groups g and g + 2 of the scales, as words, one to a half. */
FM_INLINE __m256i spread(__m256i scales, int g)
{
    const uint64_t each = 0x0001000100010001u, a = (0x8000u + (unsigned)g) * each, b = a + 2 * each;
    return _mm256_shuffle_epi8(scales, _mm256_set_epi64x((long long)b, (long long)b, (long long)a, (long long)a));
}

FM_INLINE __m256i with_fifth(__m256i v, __m256i bits, int at)
{
    const __m256i moved = at > 4 ? _mm256_srli_epi32(bits, at - 4) : _mm256_slli_epi32(bits, 4 - at);
    return _mm256_or_si256(v, _mm256_and_si256(moved, bytes_of(16)));
}

/* Sums in pairs of two groups: 4 * 31 * 127 fits 16 bits. */
FM_INLINE __m256i pairs_q45_k(__m256i a, __m256i b, const int8_t *x)
{
    return _mm256_add_epi16(_mm256_maddubs_epi16(a, load_256(x)), _mm256_maddubs_epi16(b, load_256(x + 32)));
}

FM_INLINE __m256i isum_q45_k(const uint8_t *w, const int8_t *x, __m256i scales, bool fifth)
{
    const __m256i low4 = bytes_of(15), by = _mm256_set_epi32(2, 2, 2, 2, 0, 0, 0, 0);
    const uint8_t *q = w + (fifth ? 48 : 16);
    __m256i sum = _mm256_setzero_si256(), bits[2] = {sum, sum};
    if (fifth) UNROLL for (int j = 0; j < 2; j++) bits[j] = _mm256_srlv_epi32(both_halves(w + 16 + 16 * j), by);
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m256i v = load_once(q + 64 * i + 16);
        const __m256i half[2] = {_mm256_blend_epi32(load_256(q + 64 * i), v, 0xf0),
                                 _mm256_blend_epi32(v, load_256(q + 64 * i + 32), 0xf0)};
        __m256i low[2], high[2];
        UNROLL for (int j = 0; j < 2; j++)
        {
            low[j] = _mm256_and_si256(half[j], low4);
            high[j] = _mm256_and_si256(_mm256_srli_epi16(half[j], 4), low4);
            if (fifth) low[j] = with_fifth(low[j], bits[j], 4 * i), high[j] = with_fifth(high[j], bits[j], 4 * i + 1);
        }
        const __m256i a = pairs_q45_k(low[0], low[1], x + 128 * i), b = pairs_q45_k(high[0], high[1], x + 128 * i + 64);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, spread(scales, 4 * i)));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(b, spread(scales, 4 * i + 1)));
    }
    return sum;
}

/* Eight blocks: their integer sums, and in pairs, one block to a half, the sums of their minima and their heads. */
typedef struct chunk {
    _Alignas(32) uint8_t scales[CHUNK * 16];
    __m256i s[CHUNK], m[4], head[4];
} chunk;

/* The scales go through memory, from where a block's come to both halves without work for the vector units; the empty statement
 * keeps the compiler from knowing them. */
FM_INLINE void heads_q45_k(chunk *c, const uint8_t *w, const int16_t *sums, size_t bytes)
{
    const __m256i zero = _mm256_setzero_si256();
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        const uint8_t *b = w + 2 * i * bytes;
        c->head[i] = load_pair(b, b + bytes);
        const __m256i both = scales_q45_k(c->head[i]);
        c->m[i] = _mm256_madd_epi16(_mm256_unpackhi_epi8(both, zero), load_256(sums + 16 * i));
        _mm256_store_si256((void *)(c->scales + 32 * i), both);
    }
    __asm__("" : "+m"(c->scales));
}

/* 32 columns: two groups of 16.  */
FM_INLINE __m256i add_q6(__m256i sum, __m256i low4, __m256i high2, const int8_t *x, __m256i scale)
{
    return add_scaled(sum, _mm256_or_si256(low4, high2), load_256(x), scale);
}

FM_INLINE __m256i isum_q6_k(const uint8_t *w, const int8_t *x, const int16_t *sums)
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
    return sum;
}

FM_INLINE __m256 halves(__m256i words, bool upper)
{
    const __m256i v = upper ? _mm256_srli_epi32(words, 16) : _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

/* One word, the first or the last, of the heads of eight blocks, those of even ones in the lower half. */
FM_INLINE __m256i collect(const __m256i head[4], int word)
{
    if (word == 0)
        return _mm256_unpacklo_epi64(_mm256_unpacklo_epi32(head[0], head[1]), _mm256_unpacklo_epi32(head[2], head[3]));
    return _mm256_unpackhi_epi64(_mm256_unpackhi_epi32(head[0], head[1]), _mm256_unpackhi_epi32(head[2], head[3]));
}

/* Each half of the result has the sums of that half of four vectors. */
FM_INLINE __m256i sums_4(const __m256i v[4])
{
    return join_32(join_32(v[0], v[1]), join_32(v[2], v[3]));
}

FM_INLINE void chunk_256(float v[CHUNK], fm_dtype type, form_256 f, const uint8_t *w, const token_256 *x, size_t at)
{
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    chunk c;
    if (type == FM_Q6_K)
        UNROLL for (size_t i = 0; i < 4; i++) c.head[i] = load_pair(w + 420 * i + 194, w + 420 * i + 210 + 194);
    else
        heads_q45_k(&c, w, x->sum[0] + 8 * at, f.bytes);
    const __m256i d = collect(c.head, f.word);
    UNROLL for (size_t k = 0; k < CHUNK; k++)
    {
        fetch_with_block(w, k, f.bytes);
        const int8_t *q = x->q + 256 * (at + k);
        if (type == FM_Q6_K)
            c.s[k] = isum_q6_k(w + k * f.bytes, q, x->sum[0] + 8 * (at + k));
        else
            c.s[k] = isum_q45_k(w + k * f.bytes, q, both_halves(c.scales + 16 * k), type == FM_Q5_K);
    }
    __m256i s[4];
    UNROLL for (size_t k = 0; k < 4; k++) s[k] = join_128(c.s[2 * k], c.s[2 * k + 1]);
    __m256 sum = _mm256_mul_ps(halves(d, f.upper), _mm256_cvtepi32_ps(sums_4(s)));
    if (f.min) sum = _mm256_fnmadd_ps(halves(d, true), _mm256_cvtepi32_ps(sums_4(c.m)), sum);
    _mm256_storeu_ps(v, _mm256_permutevar8x32_ps(sum, order));
}

/* 32 codes as bytes, signed or with an offset. */
FM_INLINE __m256i codes_32(const uint8_t *w, fm_dtype type, form_32 f)
{
    if (type == FM_Q8_0) return load_256(w + f.codes);
    const __m256i both = both_halves(w + f.codes);
    const __m256i v = _mm256_and_si256(_mm256_srlv_epi32(both, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0)), bytes_of(15));
    if (type == FM_IQ4_NL) return _mm256_shuffle_epi8(both_halves(iq4_values), v);
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
