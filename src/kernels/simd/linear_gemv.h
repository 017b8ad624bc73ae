/* linear_gemv.h - one token times quantised weights: what the instruction sets share.
 *
 * Decoding reads every weight once, so memory sets the speed, and a kernel must be much faster than memory for its work to hide
 * behind the reading.  Rows are read as they lie.  Integer sums stay in vectors until several blocks can be reduced together, so
 * that blocks (or rows) lie across the lanes for the float work, and only the last fma runs block by block, in the order of the
 * columns.  That order is the one of the panels (linear_quant.h), and so are the bits.
 *
 * A linear_gemv_<isa>.h gives STEP_BLOCKS, CHUNK and CHAIN_LAST (whether a chunk's fmas stand behind the next chunk's work or
 * before it) and lists types with their forms, GEMV_256 and GEMV_32; it includes this file and defines chunk_256 and add_step. */
#ifndef FM_KERNELS_SIMD_LINEAR_GEMV_H
#define FM_KERNELS_SIMD_LINEAR_GEMV_H

#include "kernels/simd/linear_quant.h"

enum {
    GEMV_BLOCKS = 64, /* of 256 columns in a row; longer rows take the panels */
    /* Bytes beyond those that are read: into the second level, and from there into the first. */
    FAR_256 = 12 << 10,
    NEAR_256 = 3 << 9,
    FAR_32 = 6 << 10,
    NEAR_32 = 640,
    STEP_ROWS = 4,
    STEP_COLS = 32 * STEP_BLOCKS,
    STEP_LANES = STEP_ROWS * STEP_BLOCKS,
    GEMV_STEPS = GEMV_BLOCKS * FM_X_COLS / STEP_COLS,
};

/* Hardware prefetchers stop at the ends of pages, so every line is fetched twice by name: into the second level long before it
 * is used, since the first has too few lines under way, and into the first shortly before.  A prefetch cannot fault, so the last
 * ones may lie beyond the weights. */
FM_INLINE void fetch_far(uintptr_t at, size_t bytes)
{
    UNROLL for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(at + i), _MM_HINT_T1);
}
FM_INLINE void fetch_near(uintptr_t at, size_t bytes)
{
    UNROLL for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(at + i), _MM_HINT_T0);
}

/* The lines that begin with block k of a run of blocks.  They are asked for between the work on the blocks, where the empty
 * statement keeps them: the compiler would put all of them first, and in a bunch they hold up the loads behind them. */
FM_INLINE void fetch_with_block(const uint8_t *w, size_t k, size_t bytes)
{
    __asm__ volatile("");
    UNROLL for (size_t i = (k * bytes + 63) / 64 * 64; i < (k + 1) * bytes; i += 64)
    {
        fetch_far((uintptr_t)w + FAR_256 + i, 1);
        fetch_near((uintptr_t)w + NEAR_256 + i, 1);
    }
}

/* Super-blocks: the weights of a call are one stream, taken CHUNK blocks at a time whatever row they belong to. */

/* The token's blocks, repeated beyond the last, so that a chunk that starts in one row and ends in the next finds its inputs in
 * one piece. */
typedef struct token_256 {
    _Alignas(64) int8_t q[(GEMV_BLOCKS + CHUNK) * 256]; /* in the order in which codes lie in a block */
    int16_t sum[2][(GEMV_BLOCKS + CHUNK) * 8];
    float d[GEMV_BLOCKS + CHUNK];
} token_256;

/* What sets a type apart. */
typedef struct form_256 {
    size_t bytes;
    bool narrow; /* 16 groups, not 8 */
    bool min;
    int word;          /* of the head that holds d (and m) */
    bool upper;        /* d is that word's upper half */
    uint8_t order[16]; /* which 16 columns come n-th */
} form_256;

/* v[i] = block i of CHUNK without the input's scale; the token's first block is `at`. */
FM_INLINE void chunk_256(float v[CHUNK], fm_dtype type, form_256 f, const uint8_t *w, const token_256 *x, size_t at);

static void token_256_fill(token_256 *o, const fm_x256 *x, size_t blocks, const form_256 *f)
{
    for (size_t b = 0; b < blocks + CHUNK; b++) {
        const fm_x256 *from = x + b % blocks;
        for (size_t i = 0; i < 16; i++) memcpy(o->q + 256 * b + 16 * i, from->q + 16 * f->order[i], 16);
        memcpy(o->sum[0] + 8 * b, f->narrow ? from->sum16 : from->sum32, 16);
        memcpy(o->sum[1] + 8 * b, from->sum16 + 8, 16);
        o->d[b] = from->d;
    }
}

/* Where the ordered float sum stands. */
typedef struct chain {
    float y;
    size_t row, block;
} chain;

FM_INLINE void chain_add(chain *c, const fm_linear_args *a, const float *v, const float *d, size_t n)
{
    const size_t blocks = a->W->cols / FM_X_COLS;
    for (size_t i = 0; i < n;) {
        const size_t left = blocks - c->block, count = n - i < left ? n - i : left;
        if (count == CHUNK) {
            UNROLL for (size_t j = 0; j < CHUNK; j++) c->y = __builtin_fmaf(v[j], d[j], c->y);
        } else {
            for (size_t j = i; j < i + count; j++) c->y = __builtin_fmaf(v[j], d[j], c->y);
        }
        i += count;
        c->block += count;
        if (count == left) {
            finish_rows(a, c->row, 1, 0, &c->y);
            *c = (chain){.row = c->row + 1};
        }
    }
}

/* Rows [r, end).  A chunk's fmas, which wait for each other, run beside the integer work of the next chunk. */
FM_INLINE void rows_256(const fm_linear_args *a, size_t r, size_t end, fm_dtype type, form_256 f)
{
    const size_t blocks = a->W->cols / FM_X_COLS, n = (end - r) * blocks;
    const uint8_t *w = fm_tensor_row(a->W, r);
    uint8_t rest[CHUNK * 210] = {0}; /* the last blocks, where they do not fill a chunk */
    float v[2][CHUNK];
    token_256 x;
    chain c = {.row = r};
    size_t at = 0, before = 0, count = 0;
    token_256_fill(&x, a->x, blocks, &f);
    memcpy(rest, w + n / CHUNK * CHUNK * f.bytes, n % CHUNK * f.bytes);
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t side = i / CHUNK % 2, last = count;
        if (!CHAIN_LAST) chain_add(&c, a, v[!side], x.d + before, last);
        count = n - i < CHUNK ? n - i : CHUNK;
        chunk_256(v[side], type, f, count < CHUNK ? rest : w + i * f.bytes, &x, at);
        if (CHAIN_LAST) chain_add(&c, a, v[!side], x.d + before, last);
        before = at;
        at = (at + CHUNK) % blocks;
    }
    chain_add(&c, a, v[(n - 1) / CHUNK % 2], x.d + before, count);
}

FM_INLINE void gemv_256(const fm_run *run, const fm_linear_args *a, fm_dtype type, form_256 f)
{
    const size_t blocks = a->W->cols / FM_X_COLS;
    size_t r, end;
    if (a->n != 1 || blocks > GEMV_BLOCKS || a->W->stride != blocks * f.bytes) {
        linear_quant(run, a);
        return;
    }
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    if (r < end && blocks > 0) rows_256(a, r, end, type, f);
}

/* Blocks of 32: the fma of a block would wait for that of the block before, so four rows go side by side. */

/* STEP_BLOCKS blocks of the token; the numbers of a block four times, once for each row. */
typedef struct step_32 {
    _Alignas(64) int8_t q[STEP_COLS]; /* in the order in which codes lie in these blocks */
    int32_t offset[STEP_LANES];       /* what the codes' offset adds, taken back */
    float d[STEP_LANES], ds[STEP_LANES];
} step_32;

typedef struct form_32 {
    size_t bytes, codes; /* of a block, and before its codes */
    bool min;
    int shift;        /* log2 of the codes' offset, 0 for none */
    uint8_t order[8]; /* which 16 columns come n-th in a step */
} form_32;

/* Adds `left` (<= STEP_BLOCKS) blocks of four rows to their sums, block after block. */
FM_INLINE __m128 add_step(__m128 y, const uint8_t *const w[STEP_ROWS], const step_32 *x, size_t left, fm_dtype type, form_32 f);

/* Block k of those that are there; the others repeat the first and are left out of the sum. */
FM_INLINE const uint8_t *block_at(const uint8_t *w, size_t k, size_t left, form_32 f)
{
    return k < left ? w + k * f.bytes : w;
}

static void token_32_fill(step_32 *o, const fm_x32 *x, size_t steps, const form_32 *f)
{
    for (size_t i = 0; i < steps; i++, o++) {
        const fm_x32 *from = x + i * STEP_BLOCKS / 8;
        const size_t b = i * STEP_BLOCKS % 8;
        for (size_t j = 0; j < 2 * STEP_BLOCKS; j++) memcpy(o->q + 16 * j, from->q + 32 * b + 16 * f->order[j], 16);
        for (size_t j = 0; j < STEP_LANES; j++) {
            o->offset[j] = f->shift ? from->nsum[b + j / STEP_ROWS] * (1 << f->shift) : 0;
            o->d[j] = from->d[b + j / STEP_ROWS];
            o->ds[j] = from->ds[b + j / STEP_ROWS];
        }
    }
}

/* y += scale * isum, then y += m * ds, for each block in turn. */
FM_INLINE __m128 add_blocks(__m128 y, const float *scale, const float *isum, const float *m, const float *ds, size_t blocks)
{
    UNROLL for (size_t k = 0; k < blocks; k++)
    {
        y = _mm_fmadd_ps(_mm_loadu_ps(scale + STEP_ROWS * k), _mm_loadu_ps(isum + STEP_ROWS * k), y);
        if (m) y = _mm_fmadd_ps(_mm_loadu_ps(m + STEP_ROWS * k), _mm_loadu_ps(ds + STEP_ROWS * k), y);
    }
    return y;
}

/* Rows [r, r + rows), at most four; rows that are not there repeat the last.  The rows after these are fetched in the order in
 * which they lie, whatever the order of reading; and again row by row, where a row ends from the one four further. */
FM_INLINE void rows_32(const fm_linear_args *a, size_t r, size_t rows, const step_32 *x, fm_dtype type, form_32 f)
{
    const size_t blocks = a->W->cols / 32, steps = blocks / STEP_BLOCKS, stride = a->W->stride;
    uintptr_t ahead = (uintptr_t)fm_tensor_row(a->W, r) + STEP_ROWS * stride + FAR_32;
    const uint8_t *w[STEP_ROWS];
    __m128 y = _mm_setzero_ps();
    float sums[STEP_ROWS];
    for (size_t i = 0; i < STEP_ROWS; i++) w[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    for (size_t s = 0; s < steps; s++, ahead += STEP_LANES * f.bytes) {
        const bool here = s * STEP_BLOCKS * f.bytes + NEAR_32 < stride;
        const size_t near = here ? NEAR_32 : NEAR_32 + (STEP_ROWS - 1) * stride;
        fetch_far(ahead, STEP_LANES * f.bytes);
        UNROLL for (size_t i = 0; i < STEP_ROWS; i++) fetch_near((uintptr_t)w[i] + near, STEP_BLOCKS * f.bytes);
        y = add_step(y, w, x + s, STEP_BLOCKS, type, f);
        UNROLL for (size_t i = 0; i < STEP_ROWS; i++) w[i] += STEP_BLOCKS * f.bytes;
    }
    if (blocks % STEP_BLOCKS) y = add_step(y, w, x + steps, blocks % STEP_BLOCKS, type, f);
    _mm_storeu_ps(sums, y);
    finish_rows(a, r, rows, 0, sums);
}

FM_INLINE void gemv_32(const fm_run *run, const fm_linear_args *a, fm_dtype type, form_32 f)
{
    const size_t steps = (a->W->cols + STEP_COLS - 1) / STEP_COLS;
    step_32 x[GEMV_STEPS];
    size_t r, end;
    if (a->n != 1 || steps > GEMV_STEPS) {
        linear_quant(run, a);
        return;
    }
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    if (r < end) token_32_fill(x, a->x, steps, &f);
    for (; r < end; r += STEP_ROWS) rows_32(a, r, end - r < STEP_ROWS ? end - r : STEP_ROWS, x, type, f);
}

/* A function for each type of the lists. */
#define GEMV_256_DEFINE(type, ...)                                                                                             \
    static void linear_##type(const fm_run *run, const fm_linear_args *a)                                                      \
    {                                                                                                                          \
        gemv_256(run, a, FM_##type, (form_256){__VA_ARGS__});                                                                  \
    }
#define GEMV_32_DEFINE(type, ...)                                                                                              \
    static void linear_##type(const fm_run *run, const fm_linear_args *a)                                                      \
    {                                                                                                                          \
        gemv_32(run, a, FM_##type, (form_32){__VA_ARGS__});                                                                    \
    }
#define GEMV_ENTRY(type, ...) [FM_##type] = linear_##type,

GEMV_256(GEMV_256_DEFINE)
GEMV_32(GEMV_32_DEFINE)

static void (*const gemv[FM_DTYPE_COUNT])(const fm_run *run,
                                          const fm_linear_args *a) = {GEMV_256(GEMV_ENTRY) GEMV_32(GEMV_ENTRY)};

static void gemv_fill(fm_kernels *k)
{
    for (int t = 0; t < FM_DTYPE_COUNT; t++)
        if (gemv[t]) k->linear[t] = gemv[t];
}

#endif
