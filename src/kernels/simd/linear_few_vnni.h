/* linear_few_vnni.h - 2 to 16 tokens times Q4_K, for AVX-512 with VNNI; linear_quant.h has the way of the other types.
 *
 * All tokens go at once: with more than 8 a step's sums are in registers, those of a block in memory, where they are wanted
 * once for every eight products.
 *
 * A 32-bit product costs as much as three of the instruction that multiplies pairs of 16 bits, and the sum of a group's products
 * almost fits 16: 32 codes of at most 15 with inputs of at most 127 make 60960.  So a sum starts at minus 8 times the input's,
 * as if the codes were -8 .. 7, which makes at most 32512, and sum(scale * 8 * the input's sums) comes back at the end, for all
 * groups of the block together. */
#ifndef FM_KERNELS_SIMD_LINEAR_FEW_VNNI_H
#define FM_KERNELS_SIMD_LINEAR_FEW_VNNI_H

#include "kernels/simd/linear_quant.h"

typedef struct head_few {
    iv scale[8];        /* of a group */
    iv pair[4], min[4]; /* scales and mins of two groups in 16 bits each */
    fv d, m;
} head_few;

/* Bytes `at` and at + 1 of every word, as 16 bits. */
FM_INLINE iv widen(iv v, unsigned at)
{
    const unsigned first = 0x80008000u | at | (at + 1) << 16, next = 4 * 0x00010001u;
    const __m128i index = _mm_set_epi32((int)(first + 3 * next), (int)(first + 2 * next), (int)(first + next), (int)first);
    return (iv)_mm512_shuffle_epi8((__m512i)v, _mm512_broadcast_i32x4(index));
}

FM_INLINE void head_few_q4_k(head_few *h, row_list row, size_t off)
{
    iv v[4];
    iv_load_rows(v, row, off);
    const iv scales[2] = {v[1] & 0x3f3f3f3fu, (v[3] & 0x0f0f0f0fu) | (v[1] >> 2 & 0x30303030u)};
    const iv least[2] = {v[2] & 0x3f3f3f3fu, (v[3] >> 4 & 0x0f0f0f0fu) | (v[2] >> 2 & 0x30303030u)};
    h->d = fv_from_half(v[0]);
    h->m = fv_from_half(v[0] >> 16);
    UNROLL for (int g = 0; g < 8; g++) h->scale[g] = unpack_byte(scales, g);
    UNROLL for (unsigned j = 0; j < 4; j++)
    {
        h->pair[j] = widen(scales[j / 2], j % 2 * 2);
        h->min[j] = widen(least[j / 2], j % 2 * 2);
    }
}

/* What the sums of every group start from. */
FM_INLINE void start_few(int32_t start[8], const fm_x256 *x)
{
    const __m256i sums = _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)x->sum32));
    _mm256_storeu_si256((void *)start, _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sums, 3)));
}

/* 64 columns: the lower nibbles of v are one group, the upper ones the next. */
FM_INLINE void step_few_q4_k(iv *sum, const iv v[8], const head_few *h, const fm_x256 *x, int32_t (*start)[8], int T,
                             const few_block *w, int step)
{
    UNROLL for (int half = 0; half < 2; half++)
    {
        const int g = 2 * step + half;
        iv s[FEW_MOST];
        UNROLL for (int t = 0; t < T; t++) s[t] = iv_set1((uint32_t)start[t][g]);
        UNROLL for (int k = 0; k < 8; k++)
        {
            const iv q = (half ? v[k] >> 4 : v[k]) & 0x0f0f0f0fu;
            few_fetch(w, (few_place){step, 4, 144}, 8 * half + k);
            UNROLL for (int t = 0; t < T; t++) s[t] =
                dot_step(s[t], q, iv_set1(word_at(x[t].q + 32 * g + 4 * k)), false, false);
        }
        UNROLL for (int t = 0; t < T; t++) sum[t] = iv_dot16(sum[t], s[t], h->scale[g]);
    }
}

/* As add_block of linear_quant.h. */
FM_INLINE void finish_few_q4_k(float *y, iv sum, const head_few *h, const fm_x256 *x)
{
    iv back = iv_set1(0), m = iv_set1(0);
    UNROLL for (int j = 0; j < 4; j++)
    {
        const iv s = iv_set1(word_at(x->sum32 + 2 * j));
        back = iv_dot16(back, h->pair[j], s);
        m = iv_dot16(m, h->min[j], s);
    }
    const fv v = fv_fma(-h->m, fv_from_int(m), h->d * fv_from_int(sum + (back << 3)));
    fv_store(y, fv_fma(v, fv_set1(x->d), fv_load(y)));
}

FM_INLINE void block_few_q4_k(float *y, const few_block *w, const fm_x256 *x, int T)
{
    int32_t start[FEW_MOST][8];
    head_few h;
    iv sum[FEW_MOST];
    UNROLL for (int t = 0; t < T; t++) start_few(start[t], x + t), sum[t] = iv_set1(0);
    head_few_q4_k(&h, w->row, w->off);
    ROLLED for (int step = 0; step < 4; step++)
    {
        iv v[8];
        iv_load_rows(v, w->row, w->off + 16 + 32 * (size_t)step);
        iv_load_rows(v + 4, w->row, w->off + 32 + 32 * (size_t)step);
        step_few_q4_k(sum, v, &h, x, start, T, w, step);
    }
    UNROLL for (int t = 0; t < T; t++) finish_few_q4_k(y + t * LANES, sum[t], &h, x + t);
}

/* Rows [r, r + rows), at most LANES, of T tokens. */
FM_INLINE void rows_few_q4_k(const fm_linear_args *a, size_t r, size_t rows, int T)
{
    const uint8_t *row[LANES];
    float y[FEW_MOST * LANES] = {0};
    few_block w = {.row = row, .next = (const uint8_t *)((uintptr_t)a->W->data + (r + LANES) * a->W->stride)};
    for (size_t i = 0; i < LANES; i++) row[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    for (size_t b = 0; b < a->W->cols / FM_X_COLS; b++, w.off += 144, w.next += LANES * 144)
        block_few_q4_k(y, &w, (const fm_x256 *)a->x + b * a->n, T);
    for (size_t t = 0; t < (size_t)T; t++) finish_rows(a, r, rows, t, y + t * LANES);
}

#ifdef FM_ROLLED
static void few_q4_k(const fm_linear_args *a, size_t r, size_t rows)
{
    rows_few_q4_k(a, r, rows, (int)a->n);
}
#else
#define FEW_Q4_K(X) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16)
#define X(T)                                                                                                                   \
    static void few_q4_k_##T(const fm_linear_args *a, size_t r, size_t rows)                                                   \
    {                                                                                                                          \
        rows_few_q4_k(a, r, rows, T);                                                                                          \
    }
FEW_Q4_K(X)
#undef X

static void few_q4_k(const fm_linear_args *a, size_t r, size_t rows)
{
#define X(T) few_q4_k_##T,
    static void (*const few[])(const fm_linear_args *, size_t, size_t) = {FEW_Q4_K(X)};
#undef X
    few[a->n - 2](a, r, rows);
}
#endif

#endif
