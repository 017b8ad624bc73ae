/* linear_gemv_vnni.h - one token times quantised weights, for AVX-512 with VNNI: sixteen super-blocks, or four rows by four
 * blocks of 32, at a time (see linear_gemv.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_VNNI_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_VNNI_H

enum { CHUNK = 16, STEP_BLOCKS = 4, CHAIN_LAST = 0 };

#define ORDER_Q45_K                                                                                                            \
    {                                                                                                                          \
        0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15                                                                   \
    }
#define ORDER_Q23_K                                                                                                            \
    {                                                                                                                          \
        0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15                                                                   \
    }
#define ORDER_Q6_K                                                                                                             \
    {                                                                                                                          \
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15                                                                   \
    }
#define ORDER_IQ4_XS                                                                                                           \
    {                                                                                                                          \
        0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15                                                                   \
    }

/* type, bytes, narrow, min, word, upper, order */
#define GEMV_256(X)                                                                                                            \
    X(Q2_K, 84, true, true, 3, false, ORDER_Q23_K)                                                                             \
    X(Q3_K, 110, true, false, 3, true, ORDER_Q23_K)                                                                            \
    X(Q4_K, 144, false, true, 0, false, ORDER_Q45_K)                                                                           \
    X(Q5_K, 176, false, true, 0, false, ORDER_Q45_K)                                                                           \
    X(Q6_K, 210, true, false, 3, true, ORDER_Q6_K)                                                                             \
    X(IQ4_XS, 136, false, false, 0, false, ORDER_IQ4_XS)

#define ORDER_WHOLE                                                                                                            \
    {                                                                                                                          \
        0, 1, 4, 5, 2, 3, 6, 7                                                                                                 \
    }
#define ORDER_NIBBLES                                                                                                          \
    {                                                                                                                          \
        0, 2, 4, 6, 1, 3, 5, 7                                                                                                 \
    }

/* type, bytes, codes, min, shift, order */
#define GEMV_32(X)                                                                                                             \
    X(Q8_0, 34, 2, false, 7, ORDER_WHOLE)                                                                                      \
    X(Q4_0, 18, 2, false, 3, ORDER_NIBBLES)                                                                                    \
    X(Q4_1, 20, 4, true, 0, ORDER_NIBBLES)                                                                                     \
    X(Q5_0, 22, 6, false, 4, ORDER_NIBBLES)                                                                                    \
    X(Q5_1, 24, 8, true, 0, ORDER_NIBBLES)                                                                                     \
    X(IQ4_NL, 18, 2, false, 7, ORDER_NIBBLES)

#include "kernels/simd/linear_gemv.h"

FM_INLINE __m512i load_512(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* Sums of neighbours at four distances: half of the lanes of the result belong to a, half to b. */
FM_INLINE __m512i join_256(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_mask_blend_epi64(0xf0, a, b), _mm512_alignr_epi64(b, a, 4));
}

FM_INLINE __m512i join_128(__m512i a, __m512i b)
{
    const __m512i other = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2);
    return _mm512_add_epi32(_mm512_mask_blend_epi64(0xcc, a, b), _mm512_permutex2var_epi64(a, other, b));
}

FM_INLINE __m512i join_64(__m512i a, __m512i b)
{
    const __m512d other = _mm512_shuffle_pd(_mm512_castsi512_pd(a), _mm512_castsi512_pd(b), 0x55);
    return _mm512_add_epi32(_mm512_mask_blend_epi64(0xaa, a, b), _mm512_castpd_si512(other));
}

FM_INLINE __m512i join_32(__m512i a, __m512i b)
{
    const __m512i other = _mm512_set_epi32(30, 15, 28, 13, 26, 11, 24, 9, 22, 7, 20, 5, 18, 3, 16, 1);
    return _mm512_add_epi32(_mm512_mask_blend_epi32(0xaaaa, a, b), _mm512_permutex2var_epi32(a, other, b));
}

/* 16 bytes of four consecutive blocks, one in each quarter of the vector. */
FM_INLINE __m512i heads_4(const uint8_t *w, size_t bytes)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)w));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(w + bytes)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(w + 2 * bytes)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const void *)(w + 3 * bytes)), 3);
}

/* (a & b) | c, and (a & b) | (c & ~b). */
FM_INLINE __m512i and_or(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xea);
}
FM_INLINE __m512i choose(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xe2);
}

/* Two numbers of bits, one for each half of the vector. */
FM_INLINE __m512i by_half(int low, int high)
{
    return _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
}

FM_INLINE __m512i bytes_of(int v)
{
    return _mm512_set1_epi8((char)v);
}

/* Four blocks: their integer sums, in four parts each, the quarters of the vectors being the blocks. */
typedef struct quad {
    __m512i isum, msum;
    __m512i head; /* with the float scales in one of the words of a quarter */
} quad;

/* Reduces the lanes of four vectors to quarters. */
FM_INLINE __m512i quarters(const __m512i s[4])
{
    return join_128(join_256(s[0], s[2]), join_256(s[1], s[3]));
}

/* Q4_K and Q5_K: eight scales, then eight mins, in bytes. */
FM_INLINE __m512i scales_q45_k(__m512i head)
{
    const __m512i by = _mm512_set4_epi32(4, 0, 0, 0), six = _mm512_set4_epi32(0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f);
    const __m512i top = _mm512_set4_epi32(0x30303030, 0, 0x30303030, 0);
    const __m512i low = _mm512_and_si512(_mm512_srlv_epi32(_mm512_shuffle_epi32(head, 0xed), by), six);
    return and_or(_mm512_srli_epi32(_mm512_shuffle_epi32(head, 0xa5), 2), top, low);
}

/* Products of 128 columns: each lane a word with four columns of a group, and one with four of the next.  Both come out of one
 * chain of dot products: the upper group's codes are taken where they lie, times 16 (or 8), shifted up, and the lower group's
 * added; a bias keeps the lower word from borrowing. */
FM_INLINE __m512i pairs_q4_k(const uint8_t *q, const int8_t *x)
{
    const __m512i v = load_512(q), high = _mm512_and_si512(v, bytes_of(0xf0)), low = _mm512_and_si512(v, bytes_of(15));
    const __m512i sum = _mm512_dpbusd_epi32(_mm512_set1_epi32(2), high, load_512(x + 64));
    return _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 12), low, load_512(x));
}

FM_INLINE __m512i pairs_q5_k(const uint8_t *q, const int8_t *x, __m512i fifth, int at)
{
    const __m512i v = load_512(q);
    const __m512i a = _mm512_rolv_epi32(fifth, by_half((36 - at) % 32, (34 - at) % 32));
    const __m512i b = _mm512_rolv_epi32(fifth, by_half((38 - at) % 32, (36 - at) % 32));
    const __m512i low = and_or(a, bytes_of(16), _mm512_and_si512(v, bytes_of(15)));
    const __m512i high = and_or(b, bytes_of(128), _mm512_and_si512(_mm512_srli_epi32(v, 1), bytes_of(0x78)));
    const __m512i sum = _mm512_dpbusd_epi32(_mm512_set1_epi32(2), high, load_512(x + 64));
    return _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 13), low, load_512(x));
}

FM_INLINE quad quad_q45_k(const uint8_t *w, const token_256 *x, size_t at, bool fifth)
{
    const size_t bytes = fifth ? 176 : 144, q = fifth ? 48 : 16;
    const __m512i zero = _mm512_setzero_si512(), head = heads_4(w, bytes), both = scales_q45_k(head);
    const __m512i scales = _mm512_unpacklo_epi8(both, zero);
    __m512i s[4];
    UNROLL for (int k = 0; k < 4; k++)
    {
        const uint8_t *b = w + (size_t)k * bytes;
        fetch_with_block(w, (size_t)k, bytes);
        const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(b + 16)));
        s[k] = zero;
        UNROLL for (int i = 0; i < 2; i++)
        {
            const int8_t *xs = x->q + 256 * (at + (size_t)k) + 128 * i;
            const __m512i p = fifth ? pairs_q5_k(b + q + 64 * i, xs, bits, 4 * i) : pairs_q4_k(b + q + 64 * i, xs);
            s[k] = _mm512_dpwssd_epi32(s[k], p, _mm512_permutexvar_epi32(by_half(4 * k + 2 * i, 4 * k + 2 * i + 1), scales));
        }
    }
    const __m512i excess = _mm512_slli_epi32(scales, fifth ? 17 : 16); /* the bias, eight lanes of it */
    const __m512i m = _mm512_madd_epi16(_mm512_unpackhi_epi8(both, zero), load_512(x->sum[0] + 8 * at));
    return (quad){_mm512_sub_epi32(quarters(s), excess), m, head};
}

/* Sixteen signed scales per quarter, times the inputs' sums. */
FM_INLINE __m512i sum_scales(__m512i scales, const token_256 *x, size_t at)
{
    const __m512i low = _mm512_srai_epi16(_mm512_unpacklo_epi8(scales, scales), 8);
    const __m512i high = _mm512_srai_epi16(_mm512_unpackhi_epi8(scales, scales), 8);
    const __m512i sum = _mm512_madd_epi16(low, load_512(x->sum[0] + 8 * at));
    return _mm512_dpwssd_epi32(sum, high, load_512(x->sum[1] + 8 * at));
}

FM_INLINE __m512i quarter(__m512i v, int k)
{
    switch (k) {
    case 0: return _mm512_shuffle_i32x4(v, v, 0x00);
    case 1: return _mm512_shuffle_i32x4(v, v, 0x55);
    case 2: return _mm512_shuffle_i32x4(v, v, 0xaa);
    default: return _mm512_shuffle_i32x4(v, v, 0xff);
    }
}

/* Scales as words: in quarter i of the result four times byte first[i], then four times the byte `next` later. */
FM_INLINE __m512i spread_16(__m512i scales, const int first[4], int next, bool is_signed)
{
    const int shift = is_signed ? 8 : 0, none = is_signed ? 0x80 : 0x8000;
    __m512i index = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 4; i++)
    {
        const uint64_t a = 0x0001000100010001u * (uint64_t)(first[i] << shift | none);
        const uint64_t b = 0x0001000100010001u * (uint64_t)((first[i] + next) << shift | none);
        index = _mm512_mask_set1_epi64(index, (__mmask8)(1 << 2 * i), (long long)a);
        index = _mm512_mask_set1_epi64(index, (__mmask8)(2 << 2 * i), (long long)b);
    }
    const __m512i words = _mm512_shuffle_epi8(scales, index);
    return is_signed ? _mm512_srai_epi16(words, 8) : words;
}

FM_INLINE __m512i dot(__m512i w, const int8_t *x)
{
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, load_512(x));
}

FM_INLINE __m512i isum_q6_k(const uint8_t *w, const int8_t *x, __m512i scales)
{
    __m512i sum = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 2; i++)
    {
        const __m512i q = load_512(w + 64 * i),
                      h = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(w + 128 + 32 * i)));
        const __m512i low = and_or(_mm512_rolv_epi32(h, by_half(4, 2)), bytes_of(48), _mm512_and_si512(q, bytes_of(15)));
        const __m512i high = choose(_mm512_srli_epi32(q, 4), bytes_of(15), _mm512_rolv_epi32(h, by_half(0, 30)));
        const __m512i d = dot(low, x + 128 * i), e = dot(_mm512_and_si512(high, bytes_of(63)), x + 128 * i + 64);
        const int first[4] = {8 * i, 8 * i + 1, 8 * i + 2, 8 * i + 3};
        sum = _mm512_dpwssd_epi32(sum, _mm512_packs_epi32(d, e), spread_16(scales, first, 4, true));
    }
    return sum;
}

FM_INLINE quad quad_q6_k(const uint8_t *w, const token_256 *x, size_t at)
{
    const __m512i scales = heads_4(w + 192, 210);
    __m512i s[4];
    UNROLL for (int k = 0; k < 4; k++)
    {
        fetch_with_block(w, (size_t)k, 210);
        s[k] = isum_q6_k(w + 210 * k, x->q + 256 * (at + (size_t)k), quarter(scales, k));
    }
    const __m512i excess = _mm512_slli_epi32(sum_scales(scales, x, at), 5);
    return (quad){_mm512_sub_epi32(quarters(s), excess), excess, heads_4(w + 194, 210)};
}

/* Q2_K and Q3_K: two bits of a code here, the third, if any, in `high`. */
FM_INLINE __m512i isum_q23_k(const uint8_t *w, const int8_t *x, __m512i scales, __m512i high, bool third)
{
    const __m512i q = load_512(w);
    __m512i sum = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 4; i += 2)
    {
        __m512i d[2];
        UNROLL for (int j = 0; j < 2; j++)
        {
            const int part = i + j;
            __m512i v = _mm512_and_si512(part ? _mm512_srli_epi32(q, (unsigned)(2 * part)) : q, bytes_of(3));
            if (third) v = and_or(_mm512_rolv_epi32(high, by_half((34 - part) % 32, 30 - part)), bytes_of(4), v);
            d[j] = dot(v, x + 64 * part);
        }
        const int first[4] = {2 * i, 2 * i + 1, 2 * i + 8, 2 * i + 9};
        sum = _mm512_dpwssd_epi32(sum, _mm512_packs_epi32(d[0], d[1]), spread_16(scales, first, 2, third));
    }
    return sum;
}

FM_INLINE quad quad_q2_k(const uint8_t *w, const token_256 *x, size_t at)
{
    const __m512i both = heads_4(w, 84), scales = _mm512_and_si512(both, bytes_of(15));
    const __m512i least = _mm512_and_si512(_mm512_srli_epi32(both, 4), bytes_of(15));
    __m512i s[4];
    UNROLL for (int k = 0; k < 4; k++)
    {
        fetch_with_block(w, (size_t)k, 84);
        s[k] = isum_q23_k(w + 84 * k + 16, x->q + 256 * (at + (size_t)k), quarter(scales, k), least, false);
    }
    return (quad){quarters(s), sum_scales(least, x, at), heads_4(w + 68, 84)};
}

/* The 12 bytes of scales lie at 96; the load starts two bytes earlier, so that it ends with the block. */
FM_INLINE __m512i scales_q3_k(__m512i head)
{
    const __m512i ab = _mm512_set4_epi32(0x09080706, 0x05040302, 0x09080706, 0x05040302), c = _mm512_set1_epi32(0x0d0c0b0a);
    const __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi8(head, ab), _mm512_set4_epi32(4, 4, 0, 0));
    const __m512i high = _mm512_rolv_epi32(_mm512_shuffle_epi8(head, c), _mm512_set4_epi32(30, 0, 2, 4));
    return _mm512_sub_epi8(and_or(high, bytes_of(48), _mm512_and_si512(low, bytes_of(15))), bytes_of(32));
}

FM_INLINE quad quad_q3_k(const uint8_t *w, const token_256 *x, size_t at)
{
    const __m512i head = heads_4(w + 94, 110), scales = scales_q3_k(head);
    __m512i s[4];
    UNROLL for (int k = 0; k < 4; k++)
    {
        const uint8_t *b = w + 110 * k;
        fetch_with_block(w, (size_t)k, 110);
        const __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)b));
        s[k] = isum_q23_k(b + 32, x->q + 256 * (at + (size_t)k), quarter(scales, k), high, true);
    }
    const __m512i excess = _mm512_slli_epi32(sum_scales(scales, x, at), 2);
    return (quad){_mm512_sub_epi32(quarters(s), excess), excess, head};
}

FM_INLINE __m512i iq4_codes(__m512i index)
{
    const __m128i table = _mm_xor_si128(_mm_loadu_si128((const void *)iq4_values), _mm_set1_epi8(-128));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index);
}

/* Sixteen bytes of each of four blocks of 32 columns: codes + 128. */
FM_INLINE __m512i dot_iq4(__m512i sum, __m512i q, const int8_t *x)
{
    const __m512i low = _mm512_and_si512(q, bytes_of(15)), high = _mm512_and_si512(_mm512_srli_epi32(q, 4), bytes_of(15));
    sum = _mm512_dpbusd_epi32(sum, iq4_codes(low), load_512(x));
    return _mm512_dpbusd_epi32(sum, iq4_codes(high), load_512(x + 64));
}

/* Eight scales + 32 in bytes. */
FM_INLINE uint64_t scales_iq4_xs(const uint8_t *w)
{
    uint64_t low = word_at(w + 4), high = word_at(w) >> 16;
    low = (low | low << 16) & 0x0000ffff0000ffffu;
    low = (low | low << 8) & 0x00ff00ff00ff00ffu;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0fu;
    high = (high | high << 24) & 0x000000ff000000ffu;
    high = (high | high << 12) & 0x000f000f000f000fu;
    high = (high | high << 6) & 0x0303030303030303u;
    return low | high << 4;
}

FM_INLINE quad quad_iq4_xs(const uint8_t *w, const token_256 *x, size_t at)
{
    enum { BYTES = 136 };
    const __m512i scales =
        _mm512_sub_epi8(_mm512_set_epi64(0, (long long)scales_iq4_xs(w + 3 * BYTES), 0, (long long)scales_iq4_xs(w + 2 * BYTES),
                                         0, (long long)scales_iq4_xs(w + BYTES), 0, (long long)scales_iq4_xs(w)),
                        bytes_of(32));
    __m512i s[4];
    UNROLL for (int k = 0; k < 4; k++)
    {
        s[k] = _mm512_setzero_si512();
        fetch_with_block(w, (size_t)k, BYTES);
        UNROLL for (int i = 0; i < 2; i++)
        {
            const __m512i first = _mm512_set1_epi32((int)0x00808080u | 4 * i << 24), zero = _mm512_setzero_si512();
            const __m512i group = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
            const __m512i index = _mm512_add_epi32(first, _mm512_slli_epi32(group, 24));
            const __m512i scale = _mm512_srai_epi32(_mm512_shuffle_epi8(quarter(scales, k), index), 24);
            const __m512i d = dot_iq4(zero, load_512(w + BYTES * k + 8 + 64 * i), x->q + 256 * (at + (size_t)k) + 128 * i);
            s[k] = _mm512_add_epi32(s[k], _mm512_mullo_epi32(d, scale));
        }
    }
    const __m512i words = _mm512_srai_epi16(_mm512_unpacklo_epi8(scales, scales), 8);
    const __m512i excess = _mm512_slli_epi32(_mm512_madd_epi16(words, load_512(x->sum[0] + 8 * at)), 7);
    return (quad){_mm512_sub_epi32(quarters(s), excess), excess, heads_4(w, BYTES)};
}

FM_INLINE quad quad_256(fm_dtype type, const uint8_t *w, const token_256 *x, size_t at)
{
    switch (type) {
    case FM_Q2_K: return quad_q2_k(w, x, at);
    case FM_Q3_K: return quad_q3_k(w, x, at);
    case FM_Q4_K: return quad_q45_k(w, x, at, false);
    case FM_Q5_K: return quad_q45_k(w, x, at, true);
    case FM_Q6_K: return quad_q6_k(w, x, at);
    default: return quad_iq4_xs(w, x, at);
    }
}

/* Every fourth lane, from i on, of `all` becomes word 0 or 3 of the quarters of `head`. */
FM_INLINE __m512i collect(__m512i all, __m512i head, int i, int word)
{
    const __mmask16 lanes = (__mmask16)(0x1111 << i);
    return word == 0 ? _mm512_mask_shuffle_epi32(all, lanes, head, 0x00) : _mm512_mask_shuffle_epi32(all, lanes, head, 0xff);
}

FM_INLINE __m512 halves(__m512i words, bool upper)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(upper ? _mm512_srli_epi32(words, 16) : words));
}

FM_INLINE __m512i join_4(const __m512i p[4])
{
    return join_32(join_64(p[0], p[2]), join_64(p[1], p[3]));
}

FM_INLINE void chunk_256(float v[CHUNK], fm_dtype type, form_256 f, const uint8_t *w, const token_256 *x, size_t at)
{
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i p[4], m[4], d = _mm512_setzero_si512();
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        const uint8_t *piece = w + 4 * i * f.bytes;
        const quad q = quad_256(type, piece, x, at + 4 * i);
        p[i] = q.isum;
        m[i] = q.msum;
        d = collect(d, q.head, (int)i, f.word);
    }
    __m512 sum = _mm512_mul_ps(halves(d, f.upper), _mm512_cvtepi32_ps(join_4(p)));
    if (f.min) sum = _mm512_fnmadd_ps(halves(d, true), _mm512_cvtepi32_ps(join_4(m)), sum);
    _mm512_storeu_ps(v, _mm512_permutexvar_ps(order, sum));
}

FM_INLINE __m512i load_halves(const uint8_t *a, const uint8_t *b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)a)), _mm256_loadu_si256((const void *)b),
                              1);
}

/* Four blocks of a row: their sums in four parts each, the quarters being the blocks. */
FM_INLINE __m512i dot_q8_0(const uint8_t *w, const int8_t *x, size_t left, form_32 f)
{
    const __m512i flip = bytes_of(0x80);
    const __m512i a = load_halves(w + 2, block_at(w, 2, left, f) + 2);
    const __m512i b = load_halves(block_at(w, 1, left, f) + 2, block_at(w, 3, left, f) + 2);
    return join_128(dot(_mm512_xor_si512(a, flip), x), dot(_mm512_xor_si512(b, flip), x + 64));
}

FM_INLINE __m512i blocks_4(const uint8_t *w, size_t left, form_32 f)
{
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const void *)w));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)block_at(w, 1, left, f)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const void *)block_at(w, 2, left, f)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const void *)block_at(w, 3, left, f)), 3);
}

/* 16 where the bit of a column is set: the bits start at byte `at` of each block's head. */
FM_INLINE __m512i add_fifths(__m512i v, __m512i head, int at)
{
    const long long a = at * 0x0101010101010101ll, b = a + 0x0101010101010101ll;
    const __m512i bytes = _mm512_shuffle_epi8(head, _mm512_mask_set1_epi64(_mm512_set1_epi64(a), 0xaa, b));
    const __mmask64 set = _mm512_test_epi8_mask(bytes, _mm512_set1_epi64((long long)0x8040201008040201u));
    return _mm512_mask_add_epi8(v, set, v, bytes_of(16));
}

FM_INLINE bool has_fifth(fm_dtype type)
{
    return type == FM_Q5_0 || type == FM_Q5_1;
}

FM_INLINE __m512i dot_nibbles(const uint8_t *w, const int8_t *x, size_t left, fm_dtype type, form_32 f)
{
    const __m512i q = blocks_4(w + f.codes, left, f);
    if (type == FM_IQ4_NL) return dot_iq4(_mm512_setzero_si512(), q, x);
    __m512i low = _mm512_and_si512(q, bytes_of(15)), high = _mm512_and_si512(_mm512_srli_epi32(q, 4), bytes_of(15));
    if (has_fifth(type)) {
        const __m512i head = blocks_4(w, left, f);
        low = add_fifths(low, head, (int)f.codes - 4);
        high = add_fifths(high, head, (int)f.codes - 2);
    }
    return _mm512_dpbusd_epi32(dot(low, x), high, load_512(x + 64));
}

/* Four rows by four blocks: d, and m above it if there is one, rows together; what else lies there is left in the upper half. */
FM_INLINE __m512i heads_near(const uint8_t *const w[STEP_ROWS], form_32 f)
{
    const int at[4] = {0, (int)f.bytes / 4, (int)f.bytes * 2 / 4, (int)f.bytes * 3 / 4};
    const __m512i index = _mm512_set_epi32(at[3], at[3], at[3], at[3], at[2], at[2], at[2], at[2], at[1], at[1], at[1], at[1],
                                           at[0], at[0], at[0], at[0]);
    __m512i v = _mm512_permutexvar_epi32(index, load_512(w[0]));
    v = _mm512_mask_permutexvar_epi32(v, 0x2222, index, load_512(w[1]));
    v = _mm512_mask_permutexvar_epi32(v, 0x4444, index, load_512(w[2]));
    v = _mm512_mask_permutexvar_epi32(v, 0x8888, index, load_512(w[3]));
    return f.bytes % 4 ? _mm512_mask_srli_epi32(v, 0xf0f0, v, 16) : v; /* every other block starts in the middle of a word */
}

FM_INLINE __m512i heads_far(const uint8_t *const w[STEP_ROWS], size_t left, form_32 f)
{
    uint32_t h[16];
    UNROLL for (size_t k = 0; k < 4; k++) UNROLL for (size_t r = 0; r < STEP_ROWS; r++) h[4 * k + r] =
        word_at(block_at(w[r], k, left, f));
    return load_512(h);
}

/* Where 64 bytes hold the heads of four whole blocks, a permutation finds them. */
FM_INLINE __m512i heads_32(const uint8_t *const w[STEP_ROWS], size_t left, form_32 f)
{
    return left == 4 && f.bytes <= 20 ? heads_near(w, f) : heads_far(w, left, f);
}

/* `begin` and the four lanes of each quarter of four vectors.  Of codes below 16 and inputs within 127 a lane's eight products
 * come to 15240 at most, so that two lanes still fit 16 bits. */
FM_INLINE __m512i lanes_4(__m512i begin, const __m512i s[STEP_ROWS], fm_dtype type)
{
    const __m512i ones = _mm512_set1_epi16(1);
    if (type != FM_Q4_0 && type != FM_Q4_1) return _mm512_add_epi32(join_4(s), begin);
    const __m512i a = _mm512_madd_epi16(_mm512_packs_epi32(s[0], s[1]), ones);
    const __m512i b = _mm512_madd_epi16(_mm512_packs_epi32(s[2], s[3]), ones);
    return _mm512_dpwssd_epi32(begin, _mm512_packs_epi32(a, b), ones);
}

FM_INLINE __m128 add_step(__m128 y, const uint8_t *const w[STEP_ROWS], const step_32 *x, size_t left, fm_dtype type, form_32 f)
{
    float scale[16], isum[16], m[16];
    const __m512i head = heads_32(w, left, f);
    __m512i s[STEP_ROWS];
    UNROLL for (int r = 0; r < STEP_ROWS; r++) s[r] =
        type == FM_Q8_0 ? dot_q8_0(w[r], x->q, left, f) : dot_nibbles(w[r], x->q, left, type, f);
    const __m512i sum = lanes_4(f.min ? _mm512_setzero_si512() : load_512(x->offset), s, type);
    _mm512_storeu_ps(isum, _mm512_cvtepi32_ps(sum));
    _mm512_storeu_ps(scale, _mm512_mul_ps(halves(head, false), _mm512_load_ps(x->d)));
    if (f.min) _mm512_storeu_ps(m, halves(head, true));
    return add_blocks(y, scale, isum, f.min ? m : NULL, x->ds, left);
}

#endif
