/* linear_gemv_avx2.h - one token times the commonest quantised weights, for AVX2: eight super-blocks, or four rows by four
 * blocks of 32, at a time (see linear_gemv.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_AVX2_H

enum { CHUNK = 8, STEP_BLOCKS = 4, CHAIN_LAST = 1 };

#define IN_ORDER                                                                                                               \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15                                                                   \
    }
#define ORDER_NIBBLES                                                                                                          \
    {                                                                                                                          \
        0, 2, 1, 3, 4, 6, 5, 7                                                                                                 \
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
    X(Q4_0, 18, 2, false, 3, ORDER_NIBBLES)                                                                                    \
    X(Q4_1, 20, 4, true, 0, ORDER_NIBBLES)                                                                                     \
    X(Q5_0, 22, 6, false, 4, ORDER_NIBBLES)                                                                                    \
    X(Q5_1, 24, 8, true, 0, ORDER_NIBBLES)                                                                                     \
    X(IQ4_NL, 18, 2, false, 0, ORDER_NIBBLES)

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

/* Eight blocks: their scales (Q4_K, Q5_K: 16 bytes each, mins among them; Q6_K: 16 words) and integer sums, and in pairs, one
 * block to a half, the sums of their mins and their heads. */
typedef struct chunk {
    _Alignas(32) uint8_t scales[32 * CHUNK];
    __m256i s[CHUNK], m[4], head[4];
} chunk;

/* Scales go through memory, from where a block's come to both halves without work for the vector units; the empty statement
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

FM_INLINE void heads_q6_k(chunk *c, const uint8_t *w)
{
    UNROLL for (size_t k = 0; k < CHUNK; k++)
    {
        const uint8_t *b = w + 210 * k;
        _mm256_store_si256((void *)(c->scales + 32 * k), _mm256_cvtepi8_epi16(load_128(b + 192)));
        if (k % 2 == 0) c->head[k / 2] = load_pair(b + 194, b + 210 + 194);
    }
    __asm__("" : "+m"(c->scales));
}

/* 32 columns: groups g and g + 1 of the eight whose scales each half has. */
FM_INLINE __m256i add_q6(__m256i sum, __m256i low4, __m256i high2, const int8_t *x, __m256i scales, int g)
{
    const uint64_t each = 0x0001000100010001u, a = (0x0100u + 0x0202u * (unsigned)g) * each, b = a + 0x0202u * each;
    const __m256i by_half = _mm256_set_epi64x((long long)b, (long long)b, (long long)a, (long long)a);
    return add_scaled(sum, _mm256_or_si256(low4, high2), load_256(x), _mm256_shuffle_epi8(scales, by_half));
}

FM_INLINE __m256i isum_q6_k(const uint8_t *w, const int8_t *x, const int16_t *sums, const uint8_t *scales)
{
    const __m256i low4 = bytes_of(15), top = bytes_of(48);
    const __m256i sum16 = _mm256_inserti128_si256(load_256(sums), load_128(sums + (size_t)(GEMV_BLOCKS + CHUNK) * 8), 1);
    __m256i sum = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m256i u = load_once(w + 64 * i), v = load_once(w + 64 * i + 32), h = load_once(w + 128 + 32 * i);
        const __m256i s = both_halves(scales + 16 * i);
        const int8_t *xs = x + 128 * i;
        sum = add_q6(sum, _mm256_and_si256(u, low4), _mm256_and_si256(_mm256_slli_epi16(h, 4), top), xs, s, 0);
        sum = add_q6(sum, _mm256_and_si256(v, low4), _mm256_and_si256(_mm256_slli_epi16(h, 2), top), xs + 32, s, 2);
        sum = add_q6(sum, _mm256_and_si256(_mm256_srli_epi16(u, 4), low4), _mm256_and_si256(h, top), xs + 64, s, 4);
        sum = add_q6(sum, _mm256_and_si256(_mm256_srli_epi16(v, 4), low4), _mm256_and_si256(_mm256_srli_epi16(h, 2), top),
                     xs + 96, s, 6);
    }
    return _mm256_sub_epi32(sum, _mm256_slli_epi32(_mm256_madd_epi16(load_256(scales), sum16), 5));
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

/* Each half of the result has the sums of that half of four vectors; of words, which may be added once: 8 * 31 * 127 fits. */
FM_INLINE __m256i sums_of(const __m256i v[4], bool words)
{
    __m256i s[2];
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m256i a = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]), b = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        s[i] = words ? _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1)) : _mm256_add_epi32(a, b);
    }
    return _mm256_add_epi32(_mm256_unpacklo_epi64(s[0], s[1]), _mm256_unpackhi_epi64(s[0], s[1]));
}

FM_INLINE void chunk_256(float v[CHUNK], fm_dtype type, form_256 f, const uint8_t *w, const token_256 *x, size_t at)
{
    const __m256i order = _mm256_set_epi32(7, 3, 6, 2, 5, 1, 4, 0);
    chunk c;
    if (type == FM_Q6_K)
        heads_q6_k(&c, w);
    else
        heads_q45_k(&c, w, x->sum[0] + 8 * at, f.bytes);
    const __m256i d = collect(c.head, f.word);
    UNROLL for (size_t k = 0; k < CHUNK; k++)
    {
        fetch_with_block(w, k, f.bytes);
        const int8_t *q = x->q + 256 * (at + k);
        if (type == FM_Q6_K)
            c.s[k] = isum_q6_k(w + k * f.bytes, q, x->sum[0] + 8 * (at + k), c.scales + 32 * k);
        else
            c.s[k] = isum_q45_k(w + k * f.bytes, q, both_halves(c.scales + 16 * k), type == FM_Q5_K);
    }
    __m256i s[4];
    UNROLL for (size_t k = 0; k < 4; k++) s[k] = join_128(c.s[2 * k], c.s[2 * k + 1]);
    __m256 sum = _mm256_mul_ps(halves(d, f.upper), _mm256_cvtepi32_ps(sums_of(s, false)));
    if (f.min) sum = _mm256_fnmadd_ps(halves(d, true), _mm256_cvtepi32_ps(sums_of(c.m, false)), sum);
    _mm256_storeu_ps(v, _mm256_permutevar8x32_ps(sum, order));
}

/* The codes' upper bits: bit j of the first word of each half belongs to column j of 32, and is wanted from `first` on. */
FM_INLINE __m256i fifth_bits(__m256i words, int first)
{
    const long long low = 0x0101010101010101 * (first / 8), high = low + 0x0101010101010101;
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i bits = _mm256_shuffle_epi8(words, _mm256_set_epi64x(high, low, high, low));
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit), bytes_of(16));
}

/* Products of full-range codes: their sign moves to the input, since 2 * 128 * 127 still fits 16 bits. */
FM_INLINE __m256i dot_signed(__m256i w, const int8_t *x)
{
    const __m256i words = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(load_256(x), w));
    return _mm256_madd_epi16(words, _mm256_set1_epi16(1));
}

/* Two blocks of 32, a half each: sums of four columns in 16 bits, or of eight in 32. */
FM_INLINE __m256i dot_nibbles(const uint8_t *a, const uint8_t *b, const int8_t *x, fm_dtype type, form_32 f)
{
    const __m256i v = load_pair(a + f.codes, b + f.codes);
    __m256i low = _mm256_and_si256(v, bytes_of(15)), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), bytes_of(15));
    if (type == FM_IQ4_NL) {
        const __m256i table = both_halves(iq4_values);
        return _mm256_add_epi32(dot_signed(_mm256_shuffle_epi8(table, low), x),
                                dot_signed(_mm256_shuffle_epi8(table, high), x + 32));
    }
    if (type == FM_Q5_0 || type == FM_Q5_1) {
        const __m256i bits = load_pair(a + f.codes - 4, b + f.codes - 4);
        low = _mm256_or_si256(low, fifth_bits(bits, 0));
        high = _mm256_or_si256(high, fifth_bits(bits, 16));
    }
    return _mm256_add_epi16(_mm256_maddubs_epi16(low, load_256(x)), _mm256_maddubs_epi16(high, load_256(x + 32)));
}

/* Blocks a and b of four rows: lane r of a half is row r. */
FM_INLINE __m256i dot_rows(const uint8_t *const a[4], const uint8_t *const b[4], const int8_t *x, fm_dtype type, form_32 f)
{
    __m256i s[4], t[4];
    UNROLL for (size_t r = 0; r < STEP_ROWS; r++)
    {
        s[r] = type == FM_Q8_0 ? dot_signed(load_once(a[r] + 2), x) : dot_nibbles(a[r], b[r], x, type, f);
        if (type == FM_Q8_0) t[r] = dot_signed(load_once(b[r] + 2), x + 32);
    }
    if (type == FM_Q8_0) return join_128(sums_of(s, false), sums_of(t, false));
    return sums_of(s, type != FM_IQ4_NL);
}

FM_INLINE short half_at(const uint8_t *w)
{
    return (short)(w[0] | w[1] << 8);
}

/* What blocks a and b of four rows begin with: words, or halves as floats. */
FM_INLINE __m256i head_words(const uint8_t *const a[4], const uint8_t *const b[4])
{
    return _mm256_set_epi32((int)word_at(b[3]), (int)word_at(b[2]), (int)word_at(b[1]), (int)word_at(b[0]), (int)word_at(a[3]),
                            (int)word_at(a[2]), (int)word_at(a[1]), (int)word_at(a[0]));
}

FM_INLINE __m256 head_halves(const uint8_t *const a[4], const uint8_t *const b[4])
{
    return _mm256_cvtph_ps(_mm_set_epi16(half_at(b[3]), half_at(b[2]), half_at(b[1]), half_at(b[0]), half_at(a[3]),
                                         half_at(a[2]), half_at(a[1]), half_at(a[0])));
}

FM_INLINE __m128 add_step(__m128 y, const uint8_t *const w[STEP_ROWS], const step_32 *x, size_t left, fm_dtype type, form_32 f)
{
    float scale[STEP_LANES], isum[STEP_LANES], m[STEP_LANES];
    UNROLL for (size_t k = 0; k < STEP_BLOCKS; k += 2)
    {
        const uint8_t *a[STEP_ROWS], *b[STEP_ROWS];
        UNROLL for (size_t r = 0; r < STEP_ROWS; r++) a[r] = block_at(w[r], k, left, f), b[r] = block_at(w[r], k + 1, left, f);
        __m256i sum = dot_rows(a, b, x->q + 32 * k, type, f);
        if (f.shift) sum = _mm256_add_epi32(sum, load_256(x->offset + STEP_ROWS * k));
        const __m256i head = f.min ? head_words(a, b) : _mm256_setzero_si256();
        const __m256 d = f.min ? halves(head, false) : head_halves(a, b);
        if (f.min) _mm256_storeu_ps(m + STEP_ROWS * k, halves(head, true));
        _mm256_storeu_ps(isum + STEP_ROWS * k, _mm256_cvtepi32_ps(sum));
        _mm256_storeu_ps(scale + STEP_ROWS * k, _mm256_mul_ps(d, _mm256_loadu_ps(x->d + STEP_ROWS * k)));
    }
    return add_blocks(y, scale, isum, f.min ? m : NULL, x->ds, left);
}

#endif
