/* linear_quant.h - products with quantised weights, once for all instruction sets (after the set's linear_vec_<isa>.h).
 *
 * A panel of LANES rows by 256 columns is unpacked to bytes on the stack and multiplied with every token of a group, P panels by
 * T tokens of sums in registers.  One lane is one row, and its float sums run over the blocks in order: the order of the
 * reference, whatever P and T are. */
#ifndef FM_KERNELS_SIMD_LINEAR_QUANT_H
#define FM_KERNELS_SIMD_LINEAR_QUANT_H

#include "kernels/simd/linear_unpack.h"

/* Sums stay in registers only where every index becomes a constant. */
#ifdef FM_ROLLED /* with sanitizers, which would take minutes over the unrolled code */
#define UNROLL
#elif defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* sanitizers keep some loops rolled */
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { GRANULE = 16, TOKEN_GROUP = 256 };

typedef enum mins { MIN_NONE, MIN_OFFSET, MIN_FLOAT } mins;

/* What a tile must know of a type; constants where tiles are instantiated. */
typedef struct tile_form {
    int groups; /* scales per 256 columns */
    mins min;
    int run;   /* products of four columns that may be added in 16 bits: 2 * 127 * largest code * run < 2^15 */
    bool full; /* codes use all eight bits */
    int shift; /* log2 of the codes' offset, for types with blocks of 32 */
} tile_form;

FM_INLINE uint32_t word_at(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Ends a run of dot_step: adds it, times a scale, to a sum. */
FM_INLINE iv dot_end_scaled(iv sum, iv run, iv scale)
{
    return DOT_CHAIN ? sum + run * scale : iv_dot16(sum, run, scale);
}

/* s[p][t] = dot products of words [from, from + count) on top of what chained instructions find there. */
FM_INLINE void dot_run(iv s[PANELS][TOKENS], const panel *w, const int8_t *const *x, const int pt[2], const int at[2],
                       bool full)
{
    UNROLL for (int k = 0; k < at[1]; k++)
    {
        iv xs[TOKENS];
        UNROLL for (int t = 0; t < pt[1]; t++) xs[t] = iv_set1(word_at(x[t] + 4 * (at[0] + k)));
        UNROLL for (int p = 0; p < pt[0]; p++) UNROLL for (int t = 0; t < pt[1]; t++) s[p][t] =
            dot_step(s[p][t], w[p].q[at[0] + k], xs[t], k == 0, full);
    }
}

/* The sum of mins (or offsets) times input sums. */
FM_INLINE iv min_sum(const panel *w, const fm_x256 *x, int groups)
{
    const int16_t *sums = groups == 16 ? x->sum16 : x->sum32;
    iv m = iv_set1(0);
    UNROLL for (int g = 0; g < groups / 2; g++) m = iv_dot16(m, w->min[g], iv_set1(word_at(sums + 2 * g)));
    return m;
}

/* y += d * isum - m * msum, times the input's scale; offsets leave the integer sum. */
FM_INLINE void add_block(float *y, iv isum, const panel *w, const fm_x256 *x, tile_form f)
{
    fv v;
    if (f.min == MIN_OFFSET) isum -= min_sum(w, x, f.groups);
    v = w->d[0] * fv_from_int(isum);
    if (f.min == MIN_FLOAT) v = fv_fma(-w->m[0], fv_from_int(min_sum(w, x, f.groups)), v);
    fv_store(y, fv_fma(v, fv_set1(x->d), fv_load(y)));
}

FM_INLINE void tile_256(float *y, const panel *w, const fm_x256 *x, int P, int T, tile_form f)
{
    const int words = 64 / f.groups, step = f.run < words && !DOT_CHAIN ? f.run : words;
    const int8_t *xq[TOKENS];
    iv sum[PANELS][TOKENS];
    UNROLL for (int t = 0; t < T; t++) xq[t] = x[t].q;
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) sum[p][t] = iv_set1(0);
    UNROLL for (int g = 0; g < f.groups; g++)
    {
        UNROLL for (int k = 0; k < words; k += step)
        {
            iv s[PANELS][TOKENS];
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) s[p][t] = iv_set1(0);
            dot_run(s, w, xq, (const int[2]){P, T}, (const int[2]){g * words + k, step}, f.full);
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) sum[p][t] =
                dot_end_scaled(sum[p][t], s[p][t], w[p].scale[g]);
        }
    }
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int p = 0; p < P; p++)
        add_block(y + (t * P + p) * LANES, sum[p][t], w + p, x + t, f);
}

FM_INLINE void sum_32(iv sum[PANELS][TOKENS], const panel *w, const int8_t *const *x, const int pt[2], int b, tile_form f)
{
    const int step = f.run < 8 && !DOT_CHAIN ? f.run : 8;
    UNROLL for (int k = 0; k < 8; k += step)
    {
        iv s[PANELS][TOKENS];
        UNROLL for (int p = 0; p < pt[0]; p++) UNROLL for (int t = 0; t < pt[1]; t++) s[p][t] =
            DOT_CHAIN ? sum[p][t] : iv_set1(0);
        dot_run(s, w, x, pt, (const int[2]){8 * b + k, step}, f.full);
        UNROLL for (int p = 0; p < pt[0]; p++) UNROLL for (int t = 0; t < pt[1]; t++) sum[p][t] =
            DOT_CHAIN ? s[p][t] : iv_dot16(sum[p][t], s[p][t], iv_set1(0x00010001u));
    }
}

FM_INLINE void tile_32(float *y, const panel *w, const fm_x32 *x, const int pt[2], int blocks, tile_form f)
{
    const int P = pt[0], T = pt[1];
    const int8_t *xq[TOKENS];
    fv acc[PANELS][TOKENS];
    UNROLL for (int t = 0; t < T; t++) xq[t] = x[t].q;
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) acc[p][t] = fv_load(y + (t * P + p) * LANES);
    for (int b = 0; b < blocks; b++) {
        iv sum[PANELS][TOKENS];
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) sum[p][t] =
            f.min == MIN_OFFSET ? iv_set1((uint32_t)x[t].nsum[b]) << f.shift : iv_set1(0);
        sum_32(sum, w, xq, pt, b, f);
        UNROLL for (int p = 0; p < P; p++)
        {
            UNROLL for (int t = 0; t < T; t++)
            {
                acc[p][t] = fv_fma(w[p].d[b] * fv_set1(x[t].d[b]), fv_from_int(sum[p][t]), acc[p][t]);
                if (f.min == MIN_FLOAT) acc[p][t] = fv_fma(w[p].m[b], fv_set1(x[t].ds[b]), acc[p][t]);
            }
        }
    }
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) fv_store(y + (t * P + p) * LANES, acc[p][t]);
}

/* Adds 256 columns to the sums of n tokens: y[t][P][LANES]. */
typedef void block_fn(float *y, const panel *w, const void *x, size_t n, int blocks);

#define BLOCK_256(name, P, ...)                                                                                                \
    static void name(float *y, const panel *w, const void *x, size_t n, int blocks)                                            \
    {                                                                                                                          \
        const fm_x256 *xs = x;                                                                                                 \
        size_t t = 0;                                                                                                          \
        (void)blocks;                                                                                                          \
        for (; t + TOKENS <= n; t += TOKENS) tile_256(y + t * P * LANES, w, xs + t, P, TOKENS, (tile_form){__VA_ARGS__});      \
        for (; t < n; t++) tile_256(y + t * P * LANES, w, xs + t, P, 1, (tile_form){__VA_ARGS__});                             \
    }

#define BLOCK_32(name, P, ...)                                                                                                 \
    static void name(float *y, const panel *w, const void *x, size_t n, int blocks)                                            \
    {                                                                                                                          \
        const fm_x32 *xs = x;                                                                                                  \
        size_t t = 0;                                                                                                          \
        for (; t + TOKENS <= n; t += TOKENS)                                                                                   \
            tile_32(y + t * P * LANES, w, xs + t, (const int[2]){P, TOKENS}, blocks, (tile_form){__VA_ARGS__});                \
        for (; t < n; t++) tile_32(y + t * P * LANES, w, xs + t, (const int[2]){P, 1}, blocks, (tile_form){__VA_ARGS__});      \
    }

/* groups, mins, run, full, shift */
BLOCK_256(block_q4_k, PANELS, 8, MIN_FLOAT, 8, false, 0)
BLOCK_256(block_q5_k, PANELS, 8, MIN_FLOAT, 4, false, 0)
BLOCK_256(block_q2_k, PANELS, 16, MIN_FLOAT, 4, false, 0)
BLOCK_256(block_q3_k, PANELS, 16, MIN_OFFSET, 4, false, 0)
BLOCK_256(block_q6_k, PANELS, 16, MIN_OFFSET, 2, false, 0)
BLOCK_256(block_iq4_xs, PANELS, 8, FULL_OFFSET ? MIN_OFFSET : MIN_NONE, 1, true, 0)
BLOCK_32(block_q8_0, PANELS, 8, FULL_OFFSET ? MIN_OFFSET : MIN_NONE, 1, true, 7)
BLOCK_32(block_q4_0, PANELS, 8, MIN_OFFSET, 8, false, 3)
BLOCK_32(block_q5_0, PANELS, 8, MIN_OFFSET, 4, false, 4)
BLOCK_32(block_q4_1, PANELS, 8, MIN_FLOAT, 8, false, 0)
BLOCK_32(block_q5_1, PANELS, 8, MIN_FLOAT, 4, false, 0)

typedef struct quant_kind {
    void (*unpack)(panel *p, row_list row, size_t off, size_t blocks);
    block_fn *add;
    size_t bytes;  /* of 256 columns */
    size_t record; /* of a token's 256 packed columns */
} quant_kind;

static const quant_kind quant_kinds[FM_DTYPE_COUNT] = {
    [FM_Q8_0] = {unpack_q8_0, block_q8_0, 8 * 34, sizeof(fm_x32)},
    [FM_Q4_0] = {unpack_q4_0, block_q4_0, 8 * 18, sizeof(fm_x32)},
    [FM_Q4_1] = {unpack_q4_1, block_q4_1, 8 * 20, sizeof(fm_x32)},
    [FM_Q5_0] = {unpack_q5_0, block_q5_0, 8 * 22, sizeof(fm_x32)},
    [FM_Q5_1] = {unpack_q5_1, block_q5_1, 8 * 24, sizeof(fm_x32)},
    [FM_IQ4_NL] = {unpack_iq4_nl, block_q8_0, 8 * 18, sizeof(fm_x32)},
    [FM_Q2_K] = {unpack_q2_k, block_q2_k, 84, sizeof(fm_x256)},
    [FM_Q3_K] = {unpack_q3_k, block_q3_k, 110, sizeof(fm_x256)},
    [FM_Q4_K] = {unpack_q4_k, block_q4_k, 144, sizeof(fm_x256)},
    [FM_Q5_K] = {unpack_q5_k, block_q5_k, 176, sizeof(fm_x256)},
    [FM_Q6_K] = {unpack_q6_k, block_q6_k, 210, sizeof(fm_x256)},
    [FM_IQ4_XS] = {unpack_iq4_xs, block_iq4_xs, 136, sizeof(fm_x256)},
};

static void finish_rows(const fm_linear_args *a, size_t r, size_t rows, size_t t, const float *v)
{
    float *y = a->y + t * a->y_stride + r;
    for (size_t i = 0; i < rows; i++) {
        float s = v[i];
        if (a->bias) s += a->bias[r + i];
        y[i] = a->add ? s + y[i] : s;
    }
}

/* A panel reads a little of each of its rows at a time, which hardware prefetchers do not follow: asks for piece `b` of the rows
 * that come after these.  A prefetch cannot fault, so the last piece may lie beyond the weights. */
FM_INLINE void prefetch_next(const fm_tensor *W, size_t r, size_t b, size_t block_bytes)
{
    const size_t piece = PANELS * LANES * block_bytes;
    const uintptr_t next = (uintptr_t)W->data + (r + PANELS * LANES) * W->stride + b * piece;
    for (size_t i = 0; i < piece; i += 64) __builtin_prefetch((const void *)(next + i), 0, 1);
}

/* Rows [r, r + rows), at most PANELS * LANES, of tokens [t0, t0 + n).  Lanes beyond the last row repeat it. */
static void rows_quant(const fm_linear_args *a, size_t r, size_t rows, size_t t0, size_t n)
{
    const quant_kind *kind = &quant_kinds[a->W->type];
    const uint8_t *row[PANELS * LANES], *x = (const uint8_t *)a->x + t0 * kind->record;
    const size_t cols = a->W->cols;
    panel w[PANELS];
    float y[TOKEN_GROUP * PANELS * LANES];
    for (size_t i = 0; i < PANELS * LANES; i++) row[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    memset(y, 0, n * PANELS * LANES * sizeof *y);
    for (size_t b = 0; b * FM_X_COLS < cols; b++) {
        const size_t left = (cols - b * FM_X_COLS) / 32, blocks = left < 8 ? left : 8;
        prefetch_next(a->W, r, b, kind->bytes);
        for (size_t p = 0; p < PANELS; p++) kind->unpack(w + p, row + p * LANES, b * kind->bytes, blocks);
        kind->add(y, w, x + b * a->n * kind->record, n, (int)blocks);
    }
    for (size_t t = 0; t < n; t++) finish_rows(a, r, rows, t0 + t, y + t * PANELS * LANES);
}

static void linear_quant(const fm_run *run, const fm_linear_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->W->rows, GRANULE, &begin, &end);
    for (size_t r = begin; r < end; r += PANELS * LANES) {
        const size_t rows = end - r < PANELS * LANES ? end - r : PANELS * LANES;
        for (size_t t = 0; t < a->n; t += TOKEN_GROUP)
            rows_quant(a, r, rows, t, a->n - t < TOKEN_GROUP ? a->n - t : TOKEN_GROUP);
    }
}

#endif
