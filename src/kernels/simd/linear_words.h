/* linear_words.h - products with float sums, once for all instruction sets and float types (after linear_vec_<isa>.h).
 *
 * A row is a run of words, one to a lane: a column widened to f32, or a pair of bf16 columns where the set multiplies pairs.
 * In each block of F_BLOCK words lane l sums words l, l + LANES, ...; the lanes are added in the fixed tree of fv_sum, and the
 * blocks in order.  Two kernels keep to that order, so the number of tokens changes no bit:
 *   few tokens:   rows stream as they lie, words across the lanes; memory sets the speed;
 *   many tokens:  a panel of rows is turned on the stack until rows lie across the lanes.  For one l after the other (residues of
 *                 the word modulo LANES) sums stay in registers, and whole vectors of them meet in that tree. */
#ifndef FM_KERNELS_SIMD_LINEAR_WORDS_H
#define FM_KERNELS_SIMD_LINEAR_WORDS_H

#include "kernels/simd/linear_common.h"

/* A tile of F_PANELS vectors of rows by F_TILE tokens fills the registers: 16 of AVX2, 32 of the others. */
enum { F_BLOCK = 1024, F_PANELS = 2, F_TILE = LANES == 8 ? 6 : 12, F_GROUP = 44 * F_TILE };

typedef enum word_kind { WORD_F32, WORD_F16, WORD_BF16, WORD_PAIR } word_kind;

FM_INLINE size_t word_bytes(word_kind kind)
{
    return kind == WORD_F16 || kind == WORD_BF16 ? 2 : 4;
}

FM_INLINE size_t row_bytes(size_t cols, word_kind kind)
{
    return cols * (kind == WORD_F32 ? 4 : 2);
}

FM_INLINE size_t words_of(size_t cols, word_kind kind)
{
    return kind == WORD_PAIR ? cols / 2 + cols % 2 : cols;
}

FM_INLINE size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

FM_INLINE fv word_load(const uint8_t *p, word_kind kind)
{
    return kind == WORD_F16 ? fv_load_f16(p) : kind == WORD_BF16 ? fv_load_bf16(p) : fv_load(p);
}

/* The last words of a row, which a whole vector would read past. */
FM_INLINE fv word_tail(const uint8_t *p, size_t bytes, word_kind kind)
{
    uint8_t lanes[LANES * sizeof(float)] = {0};
    memcpy(lanes, p, bytes);
    return word_load(lanes, kind);
}

FM_INLINE fv word_fma(fv w, fv x, fv sum, word_kind kind)
{
#ifdef __AVX512BF16__
    if (kind == WORD_PAIR) return (fv)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#endif
    (void)kind;
    return fv_fma(w, x, sum);
}

/* ---- Inputs: rows of words for few tokens; for many, tiles of F_TILE tokens, block by block, residue by residue ---- */

FM_INLINE size_t padded_tokens(size_t n)
{
    return (n + F_TILE - 1) / F_TILE * F_TILE;
}

FM_INLINE size_t steps_of(size_t words)
{
    return (words + LANES - 1) / LANES;
}

/* Where residue l stands: in the order in which the tree wants them, l before l + LANES / 2. */
FM_INLINE size_t slot_of(size_t l)
{
    return ((l & 1) << 3 | (l & 2) << 1 | (l & 4) >> 1 | (l & 8) >> 3) / (16 / LANES);
}

/* To nearest even; a NaN stays one. */
FM_INLINE uint32_t round_bf16(const float *x)
{
    const uint32_t v = word_at(x), rounded = (v + 0x7fffu + (v >> 16 & 1)) >> 16;
    return (v & 0x7fffffffu) > 0x7f800000u ? v >> 16 | 0x40u : rounded;
}

/* Words [k, k + n) of a row of `cols` floats; zeros beyond it. */
FM_INLINE void words_from(uint32_t *out, const float *x, size_t cols, size_t k, size_t n, word_kind kind)
{
    const size_t words = words_of(cols, kind), real = k < words ? min_size(words - k, n) : 0;
    const size_t pairs = kind == WORD_PAIR && k + real == words ? real - cols % 2 * (real > 0) : real;
    if (kind != WORD_PAIR) memcpy(out, x + k, real * sizeof *x);
    if (kind == WORD_PAIR) {
        for (size_t i = 0; i < pairs; i++) out[i] = round_bf16(x + 2 * (k + i)) | round_bf16(x + 2 * (k + i) + 1) << 16;
        for (size_t i = pairs; i < real; i++) out[i] = round_bf16(x + 2 * (k + i));
    }
    memset(out + real, 0, (n - real) * sizeof *out);
}

enum { PACK_STEPS = 4, PACK_WORDS = PACK_STEPS * LANES };

/* Words [k, k + PACK_WORDS) of tokens [t, t_end) of one tile; beyond the last token there are zeros. */
FM_INLINE void pack_piece(const fm_pack_args *a, size_t k, size_t t, size_t t_end, word_kind kind)
{
    const size_t b = k / F_BLOCK * F_BLOCK, steps = steps_of(min_size(words_of(a->cols, kind) - b, F_BLOCK));
    const size_t tile = t / F_TILE * F_TILE, i = (k - b) / LANES, n = min_size(steps - i, PACK_STEPS);
    uint32_t *out = (uint32_t *)a->out + b * padded_tokens(a->n) + tile * steps * LANES, words[F_TILE][PACK_WORDS];
    for (size_t j = t; j < t_end; j++) {
        if (j < a->n)
            words_from(words[j - tile], a->x + j * a->x_stride, a->cols, k, PACK_WORDS, kind);
        else
            memset(words[j - tile], 0, sizeof *words);
    }
    for (size_t l = 0; l < LANES; l++) {
        uint32_t *o = out + (slot_of(l) * steps + i) * F_TILE;
        for (size_t s = 0; s < n; s++, o += F_TILE) {
            if (t_end - t == F_TILE)
                UNROLL for (size_t j = 0; j < F_TILE; j++) o[j] = words[j][s * LANES + l];
            else
                for (size_t j = t - tile; j < t_end - tile; j++) o[j] = words[j][s * LANES + l];
        }
    }
}

FM_INLINE void pack_tiles(const fm_pack_args *a, size_t k, size_t k_end, word_kind kind)
{
    const size_t end = a->row_end == a->n ? padded_tokens(a->n) : a->row_end;
    for (size_t t = a->row, next; t < end; t = next) {
        next = min_size(end, (t / F_TILE + 1) * F_TILE);
        for (size_t i = k; i < k_end; i += PACK_WORDS) pack_piece(a, i, t, next, kind);
    }
}

FM_INLINE void pack_words(const fm_pack_args *a, word_kind kind)
{
    const size_t words = words_of(a->cols, kind), stride = fm_x_f32_stride(words), per = kind == WORD_PAIR ? 2 : 1;
    const size_t k = a->col / per, k_end = a->col_end == a->cols ? stride : a->col_end / per;
    if (a->row == a->row_end || a->col == a->col_end) return;
    if (a->n >= FM_X_MANY) {
        pack_tiles(a, k, min_size(k_end, words), kind);
        return;
    }
    for (size_t t = a->row; t < a->row_end; t++)
        words_from((uint32_t *)a->out + t * stride + k, a->x + t * a->x_stride, a->cols, k, k_end - k, kind);
}

/* ---- Few tokens ---- */

enum { WORDS_FAR = 6 << 10, WORDS_NEAR = 512 }; /* bytes beyond the rows that are being read, and in each of them */

/* Rows that are read side by side are fetched in the order in which they lie, into the second level, and from there row by row
 * into the first (linear_gemv.h).  A prefetch cannot fault, so the last ones may lie beyond the weights. */
FM_INLINE void fetch_words(uintptr_t at, size_t bytes)
{
    UNROLL for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const void *)(at + i), 0, 2);
}

/* The first line of the next page, where these bytes begin one: hardware prefetchers stop at its end.  F32 gained by it, F16 lost
 * (docs/linear-kernels.md). */
FM_INLINE void fetch_page(uintptr_t at, size_t bytes)
{
    enum { PAGE = 4096 };
    if (at % PAGE < bytes) __builtin_prefetch((const void *)(at + PAGE));
}

FM_INLINE void stream_tile(const fm_linear_args *a, size_t r, size_t t0, int R, int T, word_kind kind)
{
    const size_t bytes = row_bytes(a->W->cols, kind), size = word_bytes(kind), words = words_of(a->W->cols, kind);
    const size_t stride = fm_x_f32_stride(words), w_stride = a->W->stride;
    const uint8_t *w[F_ROWS], *x = (const uint8_t *)a->x + t0 * stride * sizeof(float);
    uintptr_t ahead = (uintptr_t)fm_tensor_row(a->W, r) + (size_t)R * w_stride + WORDS_FAR;
    float y[F_TOKENS][F_ROWS] = {{0}};
    UNROLL for (int i = 0; i < R; i++) w[i] = fm_tensor_row(a->W, r + (size_t)i);
    for (size_t b = 0; b < words; b += F_BLOCK) {
        const size_t end = min_size(words, b + F_BLOCK), whole = b + (min_size(end, bytes / size) - b) / LANES * LANES;
        fv acc[F_ROWS][F_TOKENS];
        UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < T; j++) acc[i][j] = fv_set1(0.0f);
        size_t k = b;
        for (; k < whole; k += LANES) {
            fv xs[F_TOKENS];
            if (R > 1 && t0 == 0) fetch_words(ahead, (size_t)R * LANES * size);
            if (R > 1 && t0 == 0 && k * size % 64 == 0)
                UNROLL for (int i = 0; i < R; i++) __builtin_prefetch((const void *)((uintptr_t)w[i] + k * size + WORDS_NEAR));
            if (R == 1 && t0 == 0 && kind == WORD_F32) fetch_page((uintptr_t)w[0] + k * size, LANES * size);
            ahead += (size_t)R * LANES * size;
            UNROLL for (int j = 0; j < T; j++) xs[j] = fv_load(x + ((size_t)j * stride + k) * sizeof(float));
            UNROLL for (int i = 0; i < R; i++)
            {
                const fv ws = word_load(w[i] + k * size, kind);
                UNROLL for (int j = 0; j < T; j++) acc[i][j] = word_fma(ws, xs[j], acc[i][j], kind);
            }
        }
        if (k < end) {
            UNROLL for (int i = 0; i < R; i++)
            {
                const fv ws = word_tail(w[i] + k * size, bytes - k * size, kind);
                UNROLL for (int j = 0; j < T; j++) acc[i][j] =
                    word_fma(ws, fv_load(x + ((size_t)j * stride + k) * sizeof(float)), acc[i][j], kind);
            }
        }
        UNROLL for (int j = 0; j < T; j++) UNROLL for (int i = 0; i < R; i++) y[j][i] += fv_sum(acc[i][j]);
    }
    for (int j = 0; j < T; j++) finish_rows(a, r, (size_t)R, t0 + (size_t)j, y[j]);
}

FM_INLINE void stream_rows(const fm_linear_args *a, size_t r, int R, word_kind kind)
{
    size_t t = 0;
    for (; t + F_TOKENS <= a->n; t += F_TOKENS) stream_tile(a, r, t, R, F_TOKENS, kind);
    if (F_TOKENS > 4 && t + 4 <= a->n) stream_tile(a, r, t, R, 4, kind), t += 4;
    if (t + 2 <= a->n) stream_tile(a, r, t, R, 2, kind), t += 2;
    if (t < a->n) stream_tile(a, r, t, R, 1, kind);
}

/* ---- Many tokens ---- */

/* A line of LANES rows, side by side: rows that lie a power of two apart fall on the same few places of the first cache, where a
 * line that is read in pieces would be gone before the next. */
typedef struct row_lines {
    uint8_t of[LANES][64];
} row_lines;

/* Of which `left` bytes exist; zeros beyond. */
FM_INLINE void copy_lines(row_lines *to, const uint8_t *const *row, size_t off, size_t left)
{
    if (left >= 64) {
        UNROLL for (size_t i = 0; i < LANES; i++) memcpy(to->of[i], row[i] + off, 64);
        return;
    }
    memset(to, 0, sizeof *to);
    for (size_t i = 0; i < LANES; i++) memcpy(to->of[i], row[i] + off, left);
}

/* The (second) word of one column of LANES rows. */
FM_INLINE fv widen(iv v, bool second, word_kind kind)
{
    if (kind == WORD_F16) return fv_from_half(second ? v >> 16 : v);
    if (kind == WORD_BF16) return (fv)(second ? v & 0xffff0000u : v << 16);
    return (fv)v;
}

/* The n words of these lines, the first of which is word k of the block, to their places in w (turn_panel). */
FM_INLINE void turn_lines(float *w, const row_lines *l, size_t k, size_t n, size_t steps, int P, word_kind kind)
{
    const size_t size = word_bytes(kind), each = 4 / size;
    const uint8_t *line[LANES];
    for (size_t i = 0; i < LANES; i++) line[i] = l->of[i];
    for (size_t at = 0; at < n; at += 16 / size) {
        iv v[4];
        iv_load_rows(v, line, at * size);
        UNROLL for (size_t c = 0; c < 4 * each; c++)
        {
            const size_t word = k + at + c, to = slot_of(word % LANES) * (steps + 1) + word / LANES;
            if (LANES * size >= 16 || at + c < n) fv_store(w + to * (size_t)P * LANES, widen(v[c / each], c % each, kind));
        }
    }
}

/* Turns the words [b, b + steps * LANES) of P vectors of rows: w[residue][step][P][LANES], with a step's room between residues,
 * which would lie a power of two apart too; words beyond the row are 0. */
FM_INLINE void turn_panel(float *w, const uint8_t *const *row, size_t b, size_t bytes, size_t steps, int P, word_kind kind)
{
    const size_t size = word_bytes(kind), words = 64 / size;
    row_lines l;
    for (size_t k = 0; k < steps * LANES; k += words) {
        const size_t off = (b + k) * size, left = off < bytes ? bytes - off : 0;
        UNROLL for (int p = 0; p < P; p++)
        {
            copy_lines(&l, row + p * LANES, off, left);
            turn_lines(w + p * LANES, &l, k, min_size(words, steps * LANES - k), steps, P, kind);
        }
    }
}

/* Lines that are read next: so many of each row, `off` bytes into it. */
typedef struct words_next {
    const uint8_t *const *row;
    size_t rows, off, lines;
    size_t at;    /* of all lines, the next to ask for */
    size_t share; /* so many at a time, whenever a tile goes on to another residue */
} words_next;

/* A prefetch cannot fault. */
FM_INLINE void fetch_share(words_next *n)
{
    const size_t end = min_size(n->at + n->share, n->rows * n->lines);
    for (; n->at < end; n->at++)
        __builtin_prefetch((const void *)((uintptr_t)n->row[n->at / n->lines] + n->off + n->at % n->lines * 64));
}

/* Adds a block to the sums y[T][P][LANES] of T tokens of a tile.  Sums of residues wait in `part` until their partner comes. */
FM_INLINE void panel_tile(float *y, const float *w, const uint32_t *x, size_t steps, int P, int T, word_kind kind,
                          words_next *next)
{
    fv part[5][F_PANELS * F_TILE];
    int d = 0;
    for (unsigned l = 0; l < LANES; l++, w += P * LANES) {
        fv acc[F_PANELS][F_TILE];
        fetch_share(next);
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) acc[p][t] = fv_set1(0.0f);
        for (size_t i = 0; i < steps; i++, w += P * LANES, x += F_TILE) {
            fv ws[F_PANELS];
            UNROLL for (int p = 0; p < P; p++) ws[p] = fv_load(w + p * LANES);
            UNROLL for (int t = 0; t < T; t++)
            {
                const fv xs = (fv)iv_set1(x[t]);
                UNROLL for (int p = 0; p < P; p++) acc[p][t] = word_fma(ws[p], xs, acc[p][t], kind);
            }
        }
        for (d = 0; l >> d & 1; d++)
            UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) acc[p][t] =
                part[d][p * F_TILE + t] + acc[p][t];
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) part[d][p * F_TILE + t] = acc[p][t];
    }
    for (int t = 0; t < T; t++)
        for (int p = 0; p < P; p++, y += LANES) fv_store(y, fv_load(y) + part[d][p * F_TILE + t]);
}

/* A block of n tokens: whole tiles, then the last in thirds of a tile. */
FM_INLINE void panel_block(float *y, const float *w, const uint32_t *x, size_t n, size_t steps, int P, word_kind kind,
                           words_next *next)
{
    for (; n > F_TILE / 3 * 2; n -= min_size(n, F_TILE), x += steps * LANES * F_TILE, y += F_TILE * P * LANES)
        panel_tile(y, w, x, steps, P, F_TILE, kind, next);
    if (n > F_TILE / 3)
        panel_tile(y, w, x, steps, P, F_TILE / 3 * 2, kind, next);
    else if (n > 0)
        panel_tile(y, w, x, steps, P, F_TILE / 3, kind, next);
}

/* While n tokens are multiplied by the block at word b: the block after it, or the first of the rows that come after these. */
FM_INLINE words_next next_block(const fm_tensor *W, const uint8_t *const *row, size_t b, size_t n, int P, word_kind kind)
{
    const size_t rows = (size_t)P * LANES, times = (n + F_TILE - 1) / F_TILE * LANES;
    const size_t size = word_bytes(kind), bytes = row_bytes(W->cols, kind), after = (b + F_BLOCK) * size;
    const bool more = after < bytes;
    words_next next = {.row = row, .rows = rows, .off = more ? after : rows * W->stride};
    next.lines = min_size(more ? bytes - after : bytes, F_BLOCK * size) / 64 + 1;
    next.share = (rows * next.lines + times - 1) / times;
    return next;
}

/* Rows [r, r + rows), at most P vectors of them, of tokens [t0, t0 + n).  Lanes beyond the last row repeat it. */
FM_INLINE void panel_rows(const fm_linear_args *a, size_t r, size_t rows, size_t t0, size_t n, int P, word_kind kind)
{
    const size_t words = words_of(a->W->cols, kind), tokens = padded_tokens(a->n);
    const uint8_t *row[F_PANELS * LANES];
    float w[F_PANELS * LANES * (F_BLOCK + LANES)] __attribute__((aligned(64)));
    float y[F_GROUP * F_PANELS * LANES] __attribute__((aligned(64)));
    for (size_t i = 0; i < (size_t)P * LANES; i++) row[i] = fm_tensor_row(a->W, r + min_size(i, rows - 1));
    memset(y, 0, padded_tokens(n) * (size_t)P * LANES * sizeof *y);
    for (size_t b = 0; b < words; b += F_BLOCK) {
        const size_t steps = steps_of(min_size(words - b, F_BLOCK));
        turn_panel(w, row, b, row_bytes(a->W->cols, kind), steps, P, kind);
        words_next next = next_block(a->W, row, b, n, P, kind);
        panel_block(y, w, (const uint32_t *)a->x + b * tokens + t0 * steps * LANES, n, steps, P, kind, &next);
    }
    for (size_t t = 0; t < n; t++) finish_rows(a, r, rows, t0 + t, y + t * (size_t)P * LANES);
}

FM_INLINE void linear_words(const fm_run *run, const fm_linear_args *a, word_kind kind)
{
    size_t r, end;
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    if (a->n < FM_X_MANY) {
        for (; r + F_ROWS <= end; r += F_ROWS) stream_rows(a, r, F_ROWS, kind);
        for (; r < end; r++) stream_rows(a, r, 1, kind);
        return;
    }
    for (size_t rows; r < end; r += rows) {
        rows = min_size(end - r, F_PANELS * LANES);
        for (size_t t = 0; t < a->n; t += F_GROUP) {
            const size_t n = min_size(a->n - t, F_GROUP);
            if (rows > LANES)
                panel_rows(a, r, rows, t, n, F_PANELS, kind);
            else
                panel_rows(a, r, rows, t, n, 1, kind);
        }
    }
}

#endif
