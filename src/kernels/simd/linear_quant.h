/* linear_quant.h - products with quantised weights, once for all instruction sets (after the set's linear_vec_<isa>.h).
 *
 * A panel of LANES rows by 256 columns is unpacked to bytes on the stack and multiplied with every token of a group, P panels by
 * T tokens of sums in registers.  For up to FEW_TOKENS tokens, of some types FEW_MOST, the codes of one panel go straight into
 * the products instead, and with types of FEW_TWICE they do so twice for up to twice as many.  One lane is one row, and its float
 * sums run over the blocks in order: the order of the reference, whatever P and T are. */
#ifndef FM_KERNELS_SIMD_LINEAR_QUANT_H
#define FM_KERNELS_SIMD_LINEAR_QUANT_H

#include "kernels/simd/linear_common.h"
#include "kernels/simd/linear_unpack.h"

/* For the steps of a block, which differ in little but an offset: unrolled, a function would be four or eight times as long. */
#ifdef __clang__
#define ROLLED _Pragma("nounroll")
#else
#define ROLLED _Pragma("GCC unroll 1")
#endif

enum { TOKEN_GROUP = 256, FEW_TOKENS = 8, FEW_MOST = FEW_LONG ? 16 : FEW_TOKENS };

typedef enum mins { MIN_NONE, MIN_OFFSET, MIN_FLOAT } mins;

/* What a tile must know of a type; constants where tiles are instantiated. */
typedef struct tile_form {
    int groups; /* scales per 256 columns */
    mins min;
    int run;   /* products of four columns that may be added in 16 bits: 2 * 127 * largest code * run < 2^15 */
    bool full; /* codes use all eight bits */
    int shift; /* log2 of the codes' offset, for types with blocks of 32 */
} tile_form;

FM_INLINE iv dot16_kept(iv acc, iv a, iv b)
{
    return iv_kept(iv_dot16(acc, a, b));
}

/* Ends a run of dot_step: adds it, times a scale, to a sum. */
FM_INLINE iv dot_end_scaled(iv sum, iv run, iv scale)
{
    return DOT_CHAIN ? sum + run * scale : dot16_kept(sum, run, scale);
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
            iv_kept(dot_step(s[p][t], w[p].q[at[0] + k], xs[t], k == 0, full));
    }
}

/* The sum of mins (or offsets) times input sums. */
FM_INLINE iv min_sum(const panel *w, const fm_x256 *x, int groups)
{
    const int16_t *sums = groups == 16 ? x->sum16 : x->sum32;
    iv m = iv_set1(0);
    UNROLL for (int g = 0; g < groups / 2; g++) m = dot16_kept(m, w->min[g], iv_set1(word_at(sums + 2 * g)));
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

FM_INLINE void tile_256(float *y, const panel *w, const fm_x256 *x, const int pt[2], int blocks, tile_form f)
{
    const int P = pt[0], T = pt[1];
    const int words = 64 / f.groups, step = f.run < words && !DOT_CHAIN ? f.run : words;
    const int8_t *xq[TOKENS];
    iv sum[PANELS][TOKENS];
    (void)blocks;
    UNROLL for (int t = 0; t < T; t++) xq[t] = x[t].q;
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) sum[p][t] = iv_set1(0);
    UNROLL for (int g = 0; g < f.groups; g++)
    {
        UNROLL for (int k = 0; k < words; k += step)
        {
            iv s[PANELS][TOKENS];
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) s[p][t] = iv_set1(0);
            dot_run(s, w, xq, pt, (const int[2]){g * words + k, step}, f.full);
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
            DOT_CHAIN ? s[p][t] : dot16_kept(sum[p][t], s[p][t], iv_set1(0x00010001u));
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

/* What a sum over 128 columns starts from: the codes' offset, taken back. */
FM_INLINE iv start_128(const fm_x256 *x, int g, tile_form f)
{
    const int16_t *s = x->sum32 + 4 * g;
    return iv_set1(0u - ((uint32_t)(s[0] + s[1] + s[2] + s[3]) << f.shift));
}

/* A float scale for each 128 columns: v = d[0] isum[0], v = fma(d[1], isum[1], v), y = fma(v, the input's scale, y). */
FM_INLINE void tile_128(float *y, const panel *w, const fm_x256 *x, const int pt[2], int blocks, tile_form f)
{
    const int P = pt[0], T = pt[1];
    const int8_t *xq[TOKENS];
    fv v[PANELS][TOKENS];
    (void)blocks;
    UNROLL for (int t = 0; t < T; t++) xq[t] = x[t].q;
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) v[p][t] = fv_set1(0.0f);
    ROLLED for (int g = 0; g < 2; g++)
    {
        iv sum[PANELS][TOKENS];
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) sum[p][t] = start_128(x + t, g, f);
        for (int b = 4 * g; b < 4 * g + 4; b++) sum_32(sum, w, xq, pt, b, f);
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) v[p][t] =
            fv_fma(w[p].d[g], fv_from_int(sum[p][t]), v[p][t]);
    }
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int p = 0; p < P; p++)
    {
        float *to = y + (t * P + p) * LANES;
        fv_store(to, fv_fma(v[p][t], fv_set1(x[t].d), fv_load(to)));
    }
}

/* Adds 256 columns to the sums of n tokens: y[t][P][LANES]. */
typedef void block_fn(float *y, const panel *w, const void *x, size_t n, int blocks);

#define BLOCK(name, tile, record, T, ...)                                                                                      \
    static void name(float *y, const panel *w, const void *x, size_t n, int blocks)                                            \
    {                                                                                                                          \
        const record *xs = x;                                                                                                  \
        size_t t = 0;                                                                                                          \
        for (; t + (T) <= n; t += (T))                                                                                         \
            tile(y + t * PANELS * LANES, w, xs + t, (const int[2]){PANELS, T}, blocks, (tile_form){__VA_ARGS__});              \
        for (; t < n; t++)                                                                                                     \
            tile(y + t * PANELS * LANES, w, xs + t, (const int[2]){PANELS, 1}, blocks, (tile_form){__VA_ARGS__});              \
    }

/* groups, mins, run, full, shift */
#define FORM_q4_k      8, MIN_FLOAT, 8, false, 0
#define FORM_q5_k      8, MIN_FLOAT, 4, false, 0
#define FORM_q2_k      16, MIN_FLOAT, 4, false, 0
#define FORM_q3_k      16, MIN_OFFSET, 4, false, 0
#define FORM_q6_k      16, MIN_OFFSET, 2, false, 0
#define FORM_iq4_xs    8, FULL_OFFSET ? MIN_OFFSET : MIN_NONE, 1, true, 0
#define FORM_q8_0      8, FULL_OFFSET ? MIN_OFFSET : MIN_NONE, 1, true, 7
#define FORM_iq4_nl    FORM_q8_0
#define FORM_q4_0      8, MIN_OFFSET, 8, false, 3
#define FORM_q5_0      8, MIN_OFFSET, 4, false, 4
#define FORM_q4_1      8, MIN_FLOAT, 8, false, 0
#define FORM_q5_1      8, MIN_FLOAT, 4, false, 0
#define FORM_int4_g128 2, MIN_OFFSET, 8, false, 3

UNPACK_256(int4_g128, 2) /* not among the unpackers, for AMX has no use for it */

#define KINDS_SHORT(X) X(Q2_K, q2_k, 84) X(Q3_K, q3_k, 110) X(Q4_K, q4_k, 144) X(Q5_K, q5_k, 176) X(IQ4_XS, iq4_xs, 136)
#define KINDS_LONG(X)  X(Q6_K, q6_k, 210)
#define KINDS_256(X)   KINDS_SHORT(X) KINDS_LONG(X)
#define KINDS_128(X) X(INT4_G128, int4_g128, 132)
#define KINDS_32(X)                                                                                                            \
    X(Q8_0, q8_0, 34) X(Q4_0, q4_0, 18) X(Q4_1, q4_1, 20) X(Q5_0, q5_0, 22) X(Q5_1, q5_1, 24) X(IQ4_NL, iq4_nl, 18)

#define X(upper, type, bytes) BLOCK(block_##type, tile_256, fm_x256, TOKENS, FORM_##type)
KINDS_SHORT(X)
#undef X
#define X(upper, type, bytes) BLOCK(block_##type, tile_256, fm_x256, TOKENS_SMALL, FORM_##type)
KINDS_LONG(X)
#undef X
#define X(upper, type, bytes) BLOCK(block_##type, tile_128, fm_x256, TOKENS_SMALL, FORM_##type)
KINDS_128(X)
#undef X
#define X(upper, type, bytes) BLOCK(block_##type, tile_32, fm_x32, TOKENS_SMALL, FORM_##type)
KINDS_32(X)
#undef X

/* What a few tokens need of a block: the rows, where its bytes begin in them, and what memory to ask for meanwhile. */
typedef struct few_block {
    row_list row;
    size_t off, blocks;
    const uint8_t *next;
    size_t stride; /* records of x from a token's block to its next */
} few_block;

/* Adds 256 columns to the sums of T tokens, y[t][LANES], of which n are there: all, or all but the last, which then repeats the
 * one before. */
typedef void few_fn(float *y, few_block w, const void *x, size_t n, size_t cols);

/* Where in a block's work the next memory is asked for: step `step` of `steps`, each of 64 / steps slots. */
typedef struct few_place {
    int step, steps;
    size_t bytes; /* of 256 columns */
} few_place;

/* The lines that belong to a slot of a step: those of the next panel into the second level, in the order in which they lie, and
 * those of the same rows' next block into the first.  The empty statement keeps them between the work on two vectors of codes:
 * in a bunch, where the compiler would put them, they hold up the loads behind them.  A prefetch cannot fault. */
FM_INLINE void few_fetch(const few_block *w, few_place p, int slot)
{
    const int slots = 64 / p.steps, rows = LANES < p.steps ? 1 : LANES / p.steps, lines = (int)(p.bytes + 63) / 64;
    const size_t part = LANES * p.bytes / (size_t)p.steps;
    const int far = (int)(part + 63) / 64, near = rows * lines;
    const uint8_t *next = w->next + (size_t)p.step * part;
    __asm__ volatile("");
    UNROLL for (int i = slot * far / slots; i < (slot + 1) * far / slots; i++) __builtin_prefetch(next + 64 * i, 0, 2);
    UNROLL for (int i = slot * near / slots; i < (slot + 1) * near / slots; i++)
        __builtin_prefetch(w->row[(rows * p.step + i / lines) % LANES] + w->off + p.bytes + 64 * (i % lines), 0, 3);
}

/* sum[t] += the products of `count` codes with words [at, at + count) of every token, times a scale. */
FM_INLINE void few_run(iv *sum, const iv *q, const int8_t *const *x, int T, const int at[2], iv scale, tile_form f,
                       const few_block *w, few_place place, int slot)
{
    const int step = f.run < at[1] && !DOT_CHAIN ? f.run : at[1];
    UNROLL for (int from = 0; from < at[1]; from += step)
    {
        iv s[FEW_MOST];
        UNROLL for (int t = 0; t < T; t++) s[t] = iv_set1(0);
        UNROLL for (int k = from; k < from + step; k++)
        {
            few_fetch(w, place, slot + k);
            UNROLL for (int t = 0; t < T; t++) s[t] =
                iv_kept(dot_step(s[t], q[k], iv_set1(word_at(x[t] + 4 * (at[0] + k))), k == from, f.full));
        }
        UNROLL for (int t = 0; t < T; t++) sum[t] = dot_end_scaled(sum[t], s[t], scale);
    }
}

FM_INLINE void few_step_256(iv *sum, const iv q[16], const panel *p, const int8_t *const *x, int T, const few_block *w,
                            few_place place, tile_form f)
{
    const int words = 64 / f.groups;
    UNROLL for (int i = 0; i < 16; i += words)
    {
        const int at = step_word(place.step, i, f.groups);
        few_run(sum, q + i, x, T, (const int[2]){at, words}, p->scale[at / words], f, w, place, i);
    }
}

FM_INLINE iv few_kept(iv sum, int T)
{
    return T > FEW_FREE ? iv_kept(sum) : sum;
}

FM_INLINE void few_step_32(fv *acc, const iv q[8], const panel *p, const fm_x32 *const *x, int T, const few_block *w,
                           few_place place, tile_form f)
{
    const size_t b = (size_t)place.step;
    const int step = f.run < 8 && !DOT_CHAIN ? f.run : 8;
    iv sum[FEW_MOST];
    UNROLL for (int t = 0; t < T; t++) sum[t] = f.min == MIN_OFFSET ? iv_set1((uint32_t)x[t]->nsum[b]) << f.shift : iv_set1(0);
    UNROLL for (int from = 0; from < 8; from += step)
    {
        iv s[FEW_MOST];
        UNROLL for (int t = 0; t < T; t++) s[t] = DOT_CHAIN ? sum[t] : iv_set1(0);
        UNROLL for (int k = from; k < from + step; k++)
        {
            few_fetch(w, place, k);
            UNROLL for (int t = 0; t < T; t++) s[t] =
                few_kept(dot_step(s[t], q[k], iv_set1(word_at(x[t]->q + 32 * b + 4 * (size_t)k)), k == from, f.full), T);
        }
        UNROLL for (int t = 0; t < T; t++) sum[t] =
            DOT_CHAIN ? s[t] : few_kept(iv_dot16(sum[t], s[t], iv_set1(0x00010001u)), T);
    }
    UNROLL for (int t = 0; t < T; t++)
    {
        acc[t] = fv_fma(p->d[0] * fv_set1(x[t]->d[b]), fv_from_int(sum[t]), acc[t]);
        if (f.min == MIN_FLOAT) acc[t] = fv_fma(p->m[0], fv_set1(x[t]->ds[b]), acc[t]);
    }
}

/* The function of a type and a number of tokens walks the whole row: where it was called block by block Q4_K lost a quarter. */
#define FEW_ROWS(name, bytes, record)                                                                                          \
    static void name(float *y, few_block w, const void *x, size_t n, size_t cols)                                              \
    {                                                                                                                          \
        for (size_t c = 0; c < cols; c += FM_X_COLS, w.off += (bytes), w.next += LANES * (bytes)) {                            \
            w.blocks = cols - c < FM_X_COLS ? (cols - c) / 32 : 8;                                                             \
            name##_block(y, w, (const record *)x + c / FM_X_COLS * w.stride, n);                                               \
        }                                                                                                                      \
    }

/* Tokens lie one after the other, so an address is a constant away from another's, but for the last. */
#define FEW_TOKEN(t, T, n) ((t) < (T)-1 ? (size_t)(t) : (n)-1)

#define FEW_256(name, type, bytes, T)                                                                                          \
    FM_INLINE void name##_block(float *y, few_block w, const void *x, size_t n)                                                \
    {                                                                                                                          \
        const tile_form f = {FORM_##type};                                                                                     \
        const fm_x256 *xs[T];                                                                                                  \
        const int8_t *xq[T];                                                                                                   \
        panel p;                                                                                                               \
        iv sum[T];                                                                                                             \
        UNROLL for (int t = 0; t < T; t++) xs[t] = (const fm_x256 *)x + FEW_TOKEN(t, T, n);                                    \
        UNROLL for (int t = 0; t < T; t++) xq[t] = xs[t]->q, sum[t] = iv_set1(0);                                              \
        head_##type(&p, w.row, w.off);                                                                                         \
        ROLLED for (int step = 0; step < 4; step++)                                                                            \
        {                                                                                                                      \
            iv q[16];                                                                                                          \
            codes_##type(q, &p, w.row, w.off, step);                                                                           \
            few_step_256(sum, q, &p, xq, T, &w, (few_place){step, 4, bytes}, f);                                               \
        }                                                                                                                      \
        UNROLL for (int t = 0; t < T; t++) add_block(y + t * LANES, sum[t], &p, xs[t], f);                                     \
    }                                                                                                                          \
    FEW_ROWS(name, bytes, fm_x256)

/* sum[t] += the products of the codes of a step, half of 128 columns. */
FM_INLINE void few_step_128(iv *sum, const iv q[16], const int8_t *const *x, int T, const few_block *w, few_place place,
                            tile_form f)
{
    const int run = DOT_CHAIN ? 16 : f.run;
    UNROLL for (int from = 0; from < 16; from += run)
    {
        iv s[FEW_MOST];
        UNROLL for (int t = 0; t < T; t++) s[t] = DOT_CHAIN ? sum[t] : iv_set1(0);
        UNROLL for (int k = from; k < from + run; k++)
        {
            const int at = step_word(place.step, k, f.groups);
            few_fetch(w, place, k);
            UNROLL for (int t = 0; t < T; t++) s[t] =
                iv_kept(dot_step(s[t], q[k], iv_set1(word_at(x[t] + 4 * at)), k == from, f.full));
        }
        UNROLL for (int t = 0; t < T; t++) sum[t] = DOT_CHAIN ? s[t] : dot16_kept(sum[t], s[t], iv_set1(0x00010001u));
    }
}

#define FEW_128(name, type, bytes, T)                                                                                          \
    FM_INLINE void name##_block(float *y, few_block w, const void *x, size_t n)                                                \
    {                                                                                                                          \
        const tile_form f = {FORM_##type};                                                                                     \
        const fm_x256 *xs[T];                                                                                                  \
        const int8_t *xq[T];                                                                                                   \
        panel p;                                                                                                               \
        iv sum[T];                                                                                                             \
        fv v[T];                                                                                                               \
        UNROLL for (int t = 0; t < T; t++) xs[t] = (const fm_x256 *)x + FEW_TOKEN(t, T, n);                                    \
        UNROLL for (int t = 0; t < T; t++) xq[t] = xs[t]->q, sum[t] = iv_set1(0), v[t] = fv_set1(0.0f);                        \
        head_##type(&p, w.row, w.off);                                                                                         \
        ROLLED for (int step = 0; step < 4; step++)                                                                            \
        {                                                                                                                      \
            iv q[16];                                                                                                          \
            codes_##type(q, &p, w.row, w.off, step);                                                                           \
            if (step % 2 == 0) UNROLL for (int t = 0; t < T; t++) sum[t] = start_128(xs[t], step / 2, f);                      \
            few_step_128(sum, q, xq, T, &w, (few_place){step, 4, bytes}, f);                                                   \
            if (step % 2 == 0) continue;                                                                                       \
            UNROLL for (int t = 0; t < T; t++) v[t] = fv_fma(p.d[step / 2], fv_from_int(sum[t]), v[t]);                        \
        }                                                                                                                      \
        UNROLL for (int t = 0; t < T; t++) fv_store(y + t * LANES, fv_fma(v[t], fv_set1(xs[t]->d), fv_load(y + t * LANES)));   \
    }                                                                                                                          \
    FEW_ROWS(name, bytes, fm_x256)

#define FEW_32(name, type, bytes, T)                                                                                           \
    FM_INLINE void name##_block(float *y, few_block w, const void *x, size_t n)                                                \
    {                                                                                                                          \
        const tile_form f = {FORM_##type};                                                                                     \
        panel p;                                                                                                               \
        const fm_x32 *xs[T];                                                                                                   \
        fv acc[T];                                                                                                             \
        UNROLL for (int t = 0; t < T; t++) xs[t] = (const fm_x32 *)x + FEW_TOKEN(t, T, n);                                     \
        UNROLL for (int t = 0; t < T; t++) acc[t] = fv_load(y + t * LANES);                                                    \
        ROLLED for (size_t b = 0; b < w.blocks; b++)                                                                           \
        {                                                                                                                      \
            iv q[8];                                                                                                           \
            codes_##type(q, &p, w.row, w.off + (bytes)*b, 0);                                                                  \
            few_step_32(acc, q, &p, xs, T, &w, (few_place){(int)b, 8, 8 * (bytes)}, f);                                        \
        }                                                                                                                      \
        UNROLL for (int t = 0; t < T; t++) fv_store(y + t * LANES, acc[t]);                                                    \
    }                                                                                                                          \
    FEW_ROWS(name, 8 * (bytes), fm_x32)

/* For a number in between the next larger one works on a copy of the last (few_fn). */
enum { FEW_KINDS = FEW_LONG ? 9 : 5 };
static const uint8_t few_tokens[] = {2, 3, 4, 6, 8, 10, 12, 14, 16};

#define FEW_EACH(FEW, type, bytes)                                                                                             \
    FEW(few2_##type, type, bytes, 2)                                                                                           \
    FEW(few3_##type, type, bytes, 3)                                                                                           \
    FEW(few4_##type, type, bytes, 4)                                                                                           \
    FEW(few6_##type, type, bytes, 6)                                                                                           \
    FEW(few8_##type, type, bytes, 8)
#define FEW_NAMES(type)       few2_##type, few3_##type, few4_##type, few6_##type, few8_##type
#define X(upper, type, bytes) FEW_EACH(FEW_256, type, bytes)
KINDS_256(X)
#undef X
#define X(upper, type, bytes) FEW_EACH(FEW_128, type, bytes)
KINDS_128(X)
#undef X
#define X(upper, type, bytes) FEW_EACH(FEW_32, type, bytes)
KINDS_32(X)
#undef X

/* Sums of a block are then in memory, except while a group of its columns is multiplied. */
#if FEW_LONG
#define FEW_LONGER(FEW, type, bytes)                                                                                           \
    FEW(few10_##type, type, bytes, 10)                                                                                         \
    FEW(few12_##type, type, bytes, 12)                                                                                         \
    FEW(few14_##type, type, bytes, 14)                                                                                         \
    FEW(few16_##type, type, bytes, 16)
#define FEW_ALL_NAMES(type)   FEW_NAMES(type), few10_##type, few12_##type, few14_##type, few16_##type
#define X(upper, type, bytes) FEW_LONGER(FEW_256, type, bytes)
KINDS_LONG(X)
#undef X
#define X(upper, type, bytes) FEW_LONGER(FEW_32, type, bytes)
KINDS_32(X)
#undef X
#else
#define FEW_ALL_NAMES FEW_NAMES
#endif

typedef struct quant_kind {
    void (*unpack)(panel *p, row_list row, size_t off, size_t blocks);
    block_fn *add;
    few_fn *few[FEW_KINDS]; /* NULL: none for so many tokens */
    size_t tokens;          /* of a tile */
    size_t bytes;           /* of 256 columns */
    size_t record;          /* of a token's 256 packed columns */
} quant_kind;

#define KIND(type, few, tokens, bytes, record)                                                                                 \
    {                                                                                                                          \
        unpack_##type, block_##type, {few}, tokens, bytes, sizeof(record)                                                      \
    }
static const quant_kind quant_kinds[FM_DTYPE_COUNT] = {
#define X(upper, type, bytes) [FM_##upper] = KIND(type, FEW_NAMES(type), TOKENS, bytes, fm_x256),
    KINDS_SHORT(X)
#undef X
#define X(upper, type, bytes) [FM_##upper] = KIND(type, FEW_NAMES(type), TOKENS_SMALL, bytes, fm_x256),
    KINDS_128(X)
#undef X
#define X(upper, type, bytes) [FM_##upper] = KIND(type, FEW_ALL_NAMES(type), TOKENS_SMALL, bytes, fm_x256),
    KINDS_LONG(X)
#undef X
#define X(upper, type, bytes) [FM_##upper] = KIND(type, FEW_ALL_NAMES(type), TOKENS_SMALL, 8 * (bytes), fm_x32),
    KINDS_32(X)
#undef X
};
#undef KIND

/* A panel reads a little of each of its rows at a time, which hardware prefetchers do not follow: asks for `bytes` bytes of rows
 * [first, end) of these, `off` bytes into them.  A prefetch cannot fault, so they may lie beyond the weights. */
static void fetch_rows(row_list row, size_t first, size_t end, size_t off, size_t bytes)
{
    for (size_t i = first; i < end; i++) {
        const uintptr_t at = (uintptr_t)row[i] + off, last = at + bytes - 1;
        for (uintptr_t line = at; line / 64 <= last / 64; line += 64) __builtin_prefetch((const void *)line, 0, 3);
    }
}

/* 256 columns of a panel times n tokens, whose records begin at x; meanwhile, a few rows at a time, asks for what lies `next`
 * bytes into the rows. */
static void add_panel(float *y, const panel *w, const uint8_t *x, size_t n, size_t blocks, const quant_kind *kind, row_list row,
                      size_t next)
{
    enum { ROWS = PANELS * LANES, PIECES = 16 };
    const size_t piece = fm_round_up((n + PIECES - 1) / PIECES, kind->tokens), share = (ROWS * piece + n - 1) / n;
    for (size_t t = 0, r = 0; t < n; t += piece, r += share) {
        fetch_rows(row, r, r + share < ROWS ? r + share : ROWS, next, kind->bytes);
        kind->add(y + t * ROWS, w, x + t * kind->record, n - t < piece ? n - t : piece, (int)blocks);
    }
}

/* Rows [r, r + rows), at most PANELS * LANES, of tokens [t0, t0 + n).  Lanes beyond the last row repeat it. */
static void rows_quant(const fm_linear_args *a, size_t r, size_t rows, size_t t0, size_t n)
{
    const quant_kind *kind = &quant_kinds[a->W->type];
    const uint8_t *row[PANELS * LANES], *x = (const uint8_t *)a->x + t0 * kind->record;
    const size_t cols = a->W->cols, n_blocks = (cols + FM_X_COLS - 1) / FM_X_COLS;
    panel w[PANELS];
    float y[TOKEN_GROUP * PANELS * LANES];
    for (size_t i = 0; i < PANELS * LANES; i++) row[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    memset(y, 0, n * PANELS * LANES * sizeof *y);
    for (size_t b = 0; b < n_blocks; b++) {
        const size_t left = (cols - b * FM_X_COLS) / 32, blocks = left < 8 ? left : 8;
        const size_t next = b + 1 < n_blocks ? (b + 1) * kind->bytes : PANELS * LANES * a->W->stride;
        for (size_t p = 0; p < PANELS; p++) kind->unpack(w + p, row + p * LANES, b * kind->bytes, blocks);
        add_panel(y, w, x + b * a->n * kind->record, n, blocks, kind, row, next);
    }
    for (size_t t = 0; t < n; t++) finish_rows(a, r, rows, t0 + t, y + t * PANELS * LANES);
}

/* Rows [r, r + rows), at most LANES, of tokens [t0, t0 + n), at most few_most() of them; tokens beyond the last repeat it. */
static void rows_few(const fm_linear_args *a, size_t r, size_t rows, size_t t0, size_t n)
{
    const quant_kind *kind = &quant_kinds[a->W->type];
    const uint8_t *row[LANES], *x = (const uint8_t *)a->x + t0 * kind->record;
    float y[FEW_MOST * LANES];
    size_t f = 0;
    while (few_tokens[f] < n) f++;
    for (size_t i = 0; i < LANES; i++) row[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    const uint8_t *next = (const uint8_t *)((uintptr_t)a->W->data + (r + LANES) * a->W->stride);
    memset(y, 0, few_tokens[f] * LANES * sizeof *y);
    kind->few[f](y, (few_block){.row = row, .next = next, .stride = a->n}, x, n, a->W->cols);
    for (size_t t = 0; t < n; t++) finish_rows(a, r, rows, t0 + t, y + t * LANES);
}

static size_t few_most(fm_dtype type)
{
    return quant_kinds[type].few[FEW_KINDS - 1] ? FEW_MOST : FEW_TOKENS;
}

/* Parts of at most few_most() tokens each in which a few are multiplied; 0: they are many. */
static size_t few_parts(const fm_linear_args *a)
{
    const size_t most = few_most(a->W->type);
    if (a->n <= most) return 1;
    return a->n <= 2 * most && FEW_TWICE >> a->W->type & 1 ? 2 : 0;
}

/* Rows [r, end), LANES at a time: the second part finds them in the cache. */
static void linear_few(const fm_linear_args *a, size_t r, size_t end, size_t parts)
{
    for (; r < end; r += LANES) {
        const size_t rows = end - r < LANES ? end - r : LANES;
        for (size_t i = 0, t0 = 0, t1; i < parts; i++, t0 = t1) {
            t1 = a->n * (i + 1) / parts;
            rows_few(a, r, rows, t0, t1 - t0);
        }
    }
}

static void linear_quant(const fm_run *run, const fm_linear_args *a)
{
    const size_t parts = few_parts(a);
    size_t begin, end;
    fm_run_range(run, a->W->rows, GRANULE, &begin, &end);
    if (parts > 0) {
        linear_few(a, begin, end, parts);
        return;
    }
    for (size_t r = begin; r < end; r += PANELS * LANES) {
        const size_t rows = end - r < PANELS * LANES ? end - r : PANELS * LANES;
        for (size_t t = 0; t < a->n; t += TOKEN_GROUP)
            rows_quant(a, r, rows, t, a->n - t < TOKEN_GROUP ? a->n - t : TOKEN_GROUP);
    }
}

#endif
