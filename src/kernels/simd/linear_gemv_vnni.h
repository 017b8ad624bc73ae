/* linear_gemv_vnni.h - one token times the commonest formats, row by row, for AVX-512 with VNNI.
 *
 * Decoding reads every weight once, so memory sets the speed: rows are read as they lie, one ascending stream that hardware
 * prefetchers follow.  Here 256 columns of one row lie across the lanes; the integer sums and the order of the float operations
 * are those of the panels (linear_quant.h), so the bits are too. */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_VNNI_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_VNNI_H

#include "kernels/simd/linear_quant.h"

FM_INLINE __m512i dot_bytes(__m512i acc, __m512i w, const int8_t *x)
{
    return _mm512_dpbusd_epi32(acc, w, _mm512_loadu_si512(x));
}

FM_INLINE __m256i load_256(const void *p)
{
    return _mm256_loadu_si256(p);
}

/* 32 bytes twice, the copies shifted right by `low` and by `high` bits within words. */
FM_INLINE __m512i twice_shifted(const uint8_t *p, int low, int high)
{
    const __m512i by = _mm512_inserti64x4(_mm512_set1_epi32(low), _mm256_set1_epi32(high), 1);
    return _mm512_srlv_epi32(_mm512_broadcast_i64x4(load_256(p)), by);
}

FM_INLINE __m128i fold(__m512i v)
{
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

FM_INLINE uint64_t two_words(uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | low;
}

/* Scale i of eight (or sixteen) for the lanes that hold its columns in vector `v` of four. */
FM_INLINE __m512i spread(__m512i scales, int v, int groups)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const int shift = groups == 16 ? 2 : 3;
    return _mm512_permutexvar_epi32(_mm512_add_epi32(_mm512_srli_epi32(lane, shift), _mm512_set1_epi32(v * groups / 4)),
                                    scales);
}

/* 256 columns of Q4_K or Q5_K: y + the block's part. */
FM_INLINE __m128 gemv_q45_k(__m128 y, const uint8_t *w, const fm_x256 *x, bool fifth)
{
    const __m512i low4 = _mm512_set1_epi8(15), bit = _mm512_set1_epi8(16);
    const uint32_t a = word_at(w + 4), b = word_at(w + 8), c = word_at(w + 12), m6 = 0x3f3f3f3fu, m4 = 0x0f0f0f0fu,
                   top = 0x30303030u;
    const uint64_t scales = two_words(a & m6, (c & m4) | (a >> 2 & top));
    const uint64_t min_bytes = two_words(b & m6, (c >> 4 & m4) | (b >> 2 & top));
    const __m512i s = _mm512_castsi256_si512(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)scales)));
    const uint8_t *q = w + (fifth ? 48 : 16);
    __m512i sum = _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m512i v = _mm512_and_si512(twice_shifted(q + 32 * i, 0, 4), low4);
        if (fifth) {
            const __m512i high = _mm512_slli_epi32(twice_shifted(w + 16, 2 * i, 2 * i + 1), 4);
            v = _mm512_or_si512(v, _mm512_and_si512(high, bit));
        }
        const __m512i dot = dot_bytes(_mm512_setzero_si512(), v, x->q + 64 * i);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, spread(s, i, 8)));
    }
    const __m128i m =
        _mm_madd_epi16(_mm_cvtepu8_epi16(_mm_cvtsi64_si128((long long)min_bytes)), _mm_loadu_si128((const void *)x->sum32));
    const __m128i pairs = _mm_hadd_epi32(fold(sum), m);
    const __m128 both = _mm_cvtepi32_ps(_mm_hadd_epi32(pairs, pairs)); /* isum, msum */
    const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)word_at(w)));
    const __m128 v = _mm_fnmadd_ss(_mm_movehdup_ps(d), _mm_movehdup_ps(both), _mm_mul_ss(d, both));
    return _mm_fmadd_ss(v, _mm_load_ss(&x->d), y);
}

FM_INLINE __m128 gemv_q6_k(__m128 y, const uint8_t *w, const fm_x256 *x)
{
    const __m512i low4 = _mm512_set1_epi8(15), high2 = _mm512_set1_epi8(48);
    const __m128i bytes = _mm_loadu_si128((const void *)(w + 192));
    const __m512i s = _mm512_cvtepi8_epi32(bytes);
    const __m256i offset = _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), load_256(x->sum16));
    __m512i sum = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_zextsi256_si512(_mm256_slli_epi32(offset, 5)));
    UNROLL for (int i = 0; i < 4; i++)
    {
        const __m512i q = _mm512_loadu_si512(w + 64 * (i / 2));
        const __m512i high = _mm512_slli_epi32(twice_shifted(w + 128 + 32 * (i / 2), i % 2 * 4, i % 2 * 4 + 2), 4);
        const __m512i low = _mm512_and_si512(i % 2 ? _mm512_srli_epi32(q, 4) : q, low4);
        const __m512i dot =
            dot_bytes(_mm512_setzero_si512(), _mm512_or_si512(low, _mm512_and_si512(high, high2)), x->q + 64 * i);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(dot, spread(s, i, 16)));
    }
    __m128i four = fold(sum);
    four = _mm_hadd_epi32(four, four);
    uint16_t half;
    memcpy(&half, w + 208, sizeof half);
    const __m128 isum = _mm_cvtepi32_ps(_mm_hadd_epi32(four, four)), d = _mm_cvtph_ps(_mm_cvtsi32_si128(half));
    return _mm_fmadd_ss(_mm_mul_ss(d, isum), _mm_load_ss(&x->d), y);
}

/* 32 codes as unsigned bytes; the offset is 1 << offset_shift(type). */
FM_INLINE __m256i codes_32(const uint8_t *w, fm_dtype type)
{
    if (type == FM_Q8_0) return _mm256_xor_si256(load_256(w + 2), _mm256_set1_epi8(-128));
    const __m128i q = _mm_loadu_si128((const void *)(w + 2));
    const __m256i v = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(q, 4), q), _mm256_set1_epi8(15));
    if (type == FM_Q4_0) return v;
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)iq4_values));
    return _mm256_xor_si256(_mm256_shuffle_epi8(table, v), _mm256_set1_epi8(-128));
}

FM_INLINE int offset_shift(fm_dtype type)
{
    return type == FM_Q4_0 ? 3 : 7;
}

/* The instruction wants a constant; through memory, a wide load would wait for eight narrow stores. */
FM_INLINE __m128i insert_half(__m128i v, int half, int at)
{
    switch (at) {
    case 1: return _mm_insert_epi16(v, half, 1);
    case 2: return _mm_insert_epi16(v, half, 2);
    case 3: return _mm_insert_epi16(v, half, 3);
    case 4: return _mm_insert_epi16(v, half, 4);
    case 5: return _mm_insert_epi16(v, half, 5);
    case 6: return _mm_insert_epi16(v, half, 6);
    default: return _mm_insert_epi16(v, half, 7);
    }
}

/* `blocks` (<= 8) blocks of 32; the blocks that are not there repeat the first and are left out of the sum. */
FM_INLINE __m128 gemv_32(__m128 y, const uint8_t *w, const fm_x32 *x, size_t blocks, fm_dtype type)
{
    const size_t bytes = type == FM_Q8_0 ? 34 : 18;
    __m128i half = _mm_setzero_si128();
    float scale[8], isum[8];
    __m256i dot[8];
    UNROLL for (size_t b = 0; b < 8; b++)
    {
        const uint8_t *block = w + (b < blocks ? b * bytes : 0);
        uint16_t h;
        memcpy(&h, block, sizeof h);
        half = b == 0 ? _mm_cvtsi32_si128(h) : insert_half(half, h, (int)b);
        dot[b] = _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes_32(block, type), load_256(x->q + 32 * b));
    }
    UNROLL for (int i = 0; i < 8; i += 2) dot[i / 2] = _mm256_hadd_epi32(dot[i], dot[i + 1]);
    const __m256i low = _mm256_hadd_epi32(dot[0], dot[1]), high = _mm256_hadd_epi32(dot[2], dot[3]);
    __m256i sum = _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
    sum = _mm256_add_epi32(sum, _mm256_slli_epi32(load_256(x->nsum), offset_shift(type)));
    const __m256 d = _mm256_cvtph_ps(half);
    _mm256_storeu_ps(scale, _mm256_mul_ps(d, _mm256_loadu_ps(x->d)));
    _mm256_storeu_ps(isum, _mm256_cvtepi32_ps(sum));
    UNROLL for (size_t b = 0; b < blocks; b++) y = _mm_fmadd_ss(_mm_load_ss(&scale[b]), _mm_load_ss(&isum[b]), y);
    return y;
}

FM_INLINE __m128 gemv_block(__m128 y, const uint8_t *w, const fm_linear_args *a, size_t b, fm_dtype type)
{
    const size_t left = (a->W->cols - b * FM_X_COLS) / 32;
    switch (type) {
    case FM_Q4_K: return gemv_q45_k(y, w, (const fm_x256 *)a->x + b, false);
    case FM_Q5_K: return gemv_q45_k(y, w, (const fm_x256 *)a->x + b, true);
    case FM_Q6_K: return gemv_q6_k(y, w, (const fm_x256 *)a->x + b);
    default: break;
    }
    if (FM_LIKELY(left >= 8)) return gemv_32(y, w, (const fm_x32 *)a->x + b, 8, type);
    return gemv_32(y, w, (const fm_x32 *)a->x + b, left, type);
}

FM_INLINE void gemv(const fm_run *run, const fm_linear_args *a, fm_dtype type)
{
    size_t r, end;
    if (a->n != 1) {
        linear_quant(run, a);
        return;
    }
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    for (; r < end; r++) {
        const uint8_t *w = fm_tensor_row(a->W, r);
        __m128 sum = _mm_setzero_ps();
        for (size_t b = 0; b * FM_X_COLS < a->W->cols; b++) sum = gemv_block(sum, w + b * quant_kinds[type].bytes, a, b, type);
        const float y = _mm_cvtss_f32(sum);
        finish_rows(a, r, 1, 0, &y);
    }
}

#define GEMV_TYPES(X) X(Q8_0) X(Q4_0) X(IQ4_NL) X(Q4_K) X(Q5_K) X(Q6_K)

#define X(type)                                                                                                                \
    static void linear_##type(const fm_run *run, const fm_linear_args *a)                                                      \
    {                                                                                                                          \
        gemv(run, a, FM_##type);                                                                                               \
    }
GEMV_TYPES(X)
#undef X

static void gemv_fill(fm_kernels *k)
{
#define X(type) k->linear[FM_##type] = linear_##type;
    GEMV_TYPES(X)
#undef X
}

#endif
