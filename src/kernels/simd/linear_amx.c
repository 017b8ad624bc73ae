/* linear_amx.c - products of quantised weights with 32 tokens or more, by int8 tiles; fewer are left to the VNNI table, which
 * is about as fast with them.
 *
 * Two panels of 16 rows by 256 columns are unpacked and meet every token of a group, 16 at a time.  Tiles cannot scale, so the
 * integer scales of super-blocks are multiplied into the codes first, once for all tokens; where the products need more than a
 * byte they are split in two, isum = weight * sum(high x) + sum(low x), which stays exact.  While the tiles of 16 tokens
 * are multiplied, the vector units add the sums of the 16 before them: either alone would idle half of the time. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_amx.h"
#include "kernels/simd/linear_unpack.h"
#include "kernels/simd/unroll.h"

enum { ROW_GRANULE = 16, PAIR = 2, PAIR_ROWS = PAIR * LANES, GROUP = 256, FEWEST = 32 };

/* How codes and integer scales become bytes. */
typedef enum fold {
    FOLD_SPLIT_SCALE, /* code * (scale & 7) and code * (scale >> 3), both unsigned */
    FOLD_SPLIT,       /* (code - offset) * scale = 256 * signed + unsigned byte */
    FOLD_SMALL,       /* code * scale <= 255 */
    FOLD_NEGATED,     /* - (code - offset) * scale, in [-128, 127] */
    FOLD_CODES        /* code - offset, for float scales */
} fold;

/* Constants where kernels are instantiated. */
typedef struct form {
    fold fold;
    int groups; /* scales per 256 columns */
    uint8_t offset;
    bool min;
} form;

/* Two panels: codes as `panel` has them until folded, then the (low) bytes. */
typedef struct panels {
    panel w[PAIR];
    iv high[PAIR][64];
} panels;

/* 256 columns of n tokens; y[PAIR][GROUP][LANES]. */
typedef struct piece {
    const panels *p;
    const void *x;
    float *y;
    size_t n;
    int blocks;
} piece;

FM_INLINE iv mul16(iv a, iv b)
{
    return (iv)_mm512_mullo_epi16((__m512i)a, (__m512i)b);
}

FM_INLINE iv sub16(iv a, iv b)
{
    return (iv)_mm512_sub_epi16((__m512i)a, (__m512i)b);
}

FM_INLINE iv sub8(iv a, iv b)
{
    return (iv)_mm512_sub_epi8((__m512i)a, (__m512i)b);
}

FM_INLINE iv shift_right16(iv a, int by)
{
    return (iv)_mm512_srli_epi16((__m512i)a, (unsigned)by);
}

FM_INLINE iv shift_left16(iv a, int by)
{
    return (iv)_mm512_slli_epi16((__m512i)a, (unsigned)by);
}

/* Even bytes of one, odd bytes of the other. */
FM_INLINE iv weave(iv even, iv odd)
{
    return (even & 0x00ff00ffu) | (odd & 0xff00ff00u);
}

FM_INLINE void fold_split(iv *low, iv *high, iv q, iv scale, uint32_t offset)
{
    const iv back = mul16(scale, iv_set1(offset * 0x00010001u));
    const iv even = sub16(mul16(q & 0x00ff00ffu, scale), back), odd = sub16(mul16(shift_right16(q, 8), scale), back);
    *low = weave(even, shift_left16(odd, 8));
    *high = weave(shift_right16(even, 8), odd);
}

/* A byte of a product depends on no higher byte, and not on a lower one that is zero. */
FM_INLINE iv fold_negated(iv q, iv scale, uint32_t offset)
{
    const iv minus = sub16(iv_set1(0), scale), back = mul16(minus, iv_set1(offset * 0x00010001u));
    return sub8(weave(mul16(q, minus), mul16(q & 0xff00ff00u, minus)), weave(back, shift_left16(back, 8)));
}

FM_INLINE void fold_panel(panel *w, iv *high, form f)
{
    const int words = f.fold == FOLD_CODES ? 64 : 64 / f.groups;
    for (int g = 0; g < 64 / words; g++) {
        const iv s = pair16(w->scale[g], w->scale[g]);
        for (int k = g * words; k < (g + 1) * words; k++) {
            const iv q = w->q[k];
            if (f.fold == FOLD_SPLIT_SCALE) {
                w->q[k] = mul16(q, s & 0x00070007u);
                high[k] = mul16(q, shift_right16(s, 3));
            }
            if (f.fold == FOLD_SPLIT) fold_split(&w->q[k], &high[k], q, s, f.offset);
            if (f.fold == FOLD_SMALL) w->q[k] = mul16(q, s);
            if (f.fold == FOLD_NEGATED) w->q[k] = fold_negated(q, s, f.offset);
            if (f.fold == FOLD_CODES) w->q[k] = sub8(q, iv_set1(f.offset * 0x01010101u));
        }
    }
}

/* Tiles of 16 tokens; the last one ends with the last token and repeats some of the one before, which `fresh` leaves out. */
FM_INLINE size_t tile_count(size_t n)
{
    return (n + TILE_ROWS - 1) / TILE_ROWS;
}

FM_INLINE size_t tile_first(size_t i, size_t n)
{
    return (i + 1) * TILE_ROWS <= n ? i * TILE_ROWS : n - TILE_ROWS;
}

FM_INLINE size_t tile_fresh(size_t i, size_t n)
{
    return i * TILE_ROWS - tile_first(i, n);
}

typedef uint32_t tile_sums[TILE_ROWS][LANES] __attribute__((aligned(64)));

FM_INLINE uint32_t word_of(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The order of kernels/ref/linear.c: y += (d * isum - m * msum) * the input's d. */
FM_INLINE void add_256(float *y, iv isum, const panel *w, const fm_x256 *x, form f)
{
    fv v = w->d[0] * fv_from_int(isum);
    if (f.min) {
        const int16_t *sums = f.groups == 16 ? x->sum16 : x->sum32;
        iv m = iv_set1(0);
        for (int g = 0; g < f.groups / 2; g++) m = iv_dot16(m, w->min[g], iv_set1(word_of(sums + 2 * g)));
        v = fv_fma(-w->m[0], fv_from_int(m), v);
    }
    fv_store(y, fv_fma(v, fv_set1(x->d), fv_load(y)));
}

FM_INLINE iv whole_sum(tile_sums *s, size_t row, form f)
{
    const iv low = (iv)_mm512_load_si512(s[0][row]);
    if (f.fold == FOLD_SMALL) return low;
    if (f.fold == FOLD_NEGATED) return iv_set1(0) - low;
    return ((iv)_mm512_load_si512(s[1][row]) << (f.fold == FOLD_SPLIT ? 8 : 3)) + low;
}

/* Adds rows [from, from + 4) of tile i to y: s holds low and high sums of the first panel, then of the second. */
FM_INLINE void finish_256(const piece *c, tile_sums *s, size_t i, size_t from, form f)
{
    const size_t t = tile_first(i, c->n), fresh = tile_fresh(i, c->n);
    for (size_t row = from > fresh ? from : fresh; row < from + 4; row++) {
        const fm_x256 *x = (const fm_x256 *)c->x + t + row;
        add_256(c->y + (t + row) * LANES, whole_sum(s, row, f), &c->p->w[0], x, f);
        add_256(c->y + (GROUP + t + row) * LANES, whole_sum(s + 2, row, f), &c->p->w[1], x, f);
    }
}

/* 64 columns of 16 tokens. */
FM_INLINE void multiply_64(const panels *p, const fm_x256 *x, int chunk, form f)
{
    const int at = 16 * chunk;
    TILE_LOAD(4, x->q + 64 * chunk, sizeof *x);
    TILE_LOAD(5, p->w[0].q + at, TILE_BYTES);
    TILE_LOAD(6, p->w[1].q + at, TILE_BYTES);
    if (f.fold == FOLD_NEGATED) {
        TILE_DOT_SS(0, 4, 5);
        TILE_DOT_SS(2, 4, 6);
    } else {
        TILE_DOT_SU(0, 4, 5);
        TILE_DOT_SU(2, 4, 6);
    }
    if (f.fold == FOLD_SMALL || f.fold == FOLD_NEGATED) return;
    TILE_LOAD(7, p->high[0] + at, TILE_BYTES);
    TILE_LOAD(5, p->high[1] + at, TILE_BYTES);
    if (f.fold == FOLD_SPLIT) {
        TILE_DOT_SS(1, 4, 7);
        TILE_DOT_SS(3, 4, 5);
    } else {
        TILE_DOT_SU(1, 4, 7);
        TILE_DOT_SU(3, 4, 5);
    }
}

FM_INLINE void sums_begin(void)
{
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
}

FM_INLINE void sums_store(tile_sums *s, form f)
{
    TILE_STORE(s[0], 0);
    TILE_STORE(s[2], 2);
    if (f.fold == FOLD_SMALL || f.fold == FOLD_NEGATED) return;
    TILE_STORE(s[1], 1);
    TILE_STORE(s[3], 3);
}

FM_INLINE void add_piece_256(const piece *c, form f)
{
    const size_t tiles = tile_count(c->n);
    tile_sums s[2][4];
    for (size_t i = 0; i <= tiles; i++) {
        if (i < tiles) sums_begin();
        for (int k = 0; k < 4; k++) {
            if (i < tiles) multiply_64(c->p, (const fm_x256 *)c->x + tile_first(i, c->n), k, f);
            if (i > 0) finish_256(c, s[(i - 1) % 2], i - 1, (size_t)k * 4, f);
        }
        if (i < tiles) sums_store(s[i % 2], f);
    }
}

/* Sums wait this many blocks of 32 before they are read, so that they have arrived. */
enum { LAG = 3 };

/* All blocks of 32 of one panel and 16 tokens, whose float sums stay in registers. */
FM_INLINE void add_tile_32(const piece *c, int side, size_t i, bool min)
{
    const panel *w = &c->p->w[side];
    const size_t t = tile_first(i, c->n), fresh = tile_fresh(i, c->n);
    const fm_x32 *x = (const fm_x32 *)c->x + t;
    float *y = c->y + ((size_t)side * GROUP + t) * LANES;
    tile_sums s[LAG + 1];
    fv acc[TILE_ROWS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++) acc[r] = fv_load(y + r * LANES);
    for (int b = 0; b < c->blocks + LAG; b++) {
        if (b < c->blocks) {
            TILE_ZERO(0);
            TILE_LOAD(4, x->q + 32 * b, sizeof *x);
            TILE_LOAD(5, w->q + 8 * b, TILE_BYTES);
            TILE_DOT_SS(0, 4, 5);
            TILE_STORE(s[b % (LAG + 1)], 0);
        }
        const int d = b - LAG;
        if (d < 0) continue;
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
        {
            const iv isum = (iv)_mm512_load_si512(s[d % (LAG + 1)][r]);
            acc[r] = fv_fma(w->d[d] * fv_set1(x[r].d[d]), fv_from_int(isum), acc[r]);
            if (min) acc[r] = fv_fma(w->m[d], fv_set1(x[r].ds[d]), acc[r]);
        }
    }
    UNROLL for (int r = 0; r < TILE_ROWS; r++) if ((size_t)r >= fresh) fv_store(y + r * LANES, acc[r]);
}

FM_INLINE void add_piece_32(const piece *c, bool min)
{
    for (size_t i = 0; i < tile_count(c->n); i++)
        for (int side = 0; side < PAIR; side++) add_tile_32(c, side, i, min);
}

/* type, unpacker, fold, groups, offset, whether there is a minimum */
#define TYPES_256(X)                                                                                                           \
    X(Q2_K, unpack_q2_k, FOLD_SMALL, 16, 0, true)                                                                              \
    X(Q3_K, unpack_q3_k, FOLD_NEGATED, 16, 4, false)                                                                           \
    X(Q4_K, unpack_q4_k, FOLD_SPLIT_SCALE, 8, 0, true)                                                                         \
    X(Q5_K, unpack_q5_k, FOLD_SPLIT_SCALE, 8, 0, true)                                                                         \
    X(Q6_K, unpack_q6_k, FOLD_SPLIT, 16, 32, false)                                                                            \
    X(IQ4_XS, unpack_iq4_xs, FOLD_SPLIT, 8, FULL_OFFSET, false)
#define TYPES_32(X)                                                                                                            \
    X(Q8_0, unpack_q8_0, FOLD_CODES, 0, FULL_OFFSET, false)                                                                    \
    X(Q4_0, unpack_q4_0, FOLD_CODES, 0, 8, false)                                                                              \
    X(Q4_1, unpack_q4_1, FOLD_CODES, 0, 0, true)                                                                               \
    X(Q5_0, unpack_q5_0, FOLD_CODES, 0, 16, false)                                                                             \
    X(Q5_1, unpack_q5_1, FOLD_CODES, 0, 0, true)                                                                               \
    X(IQ4_NL, unpack_iq4_nl, FOLD_CODES, 0, FULL_OFFSET, false)

typedef struct amx_kind {
    void (*unpack)(panel *p, row_list row, size_t off, size_t blocks);
    void (*fold)(panels *p);
    void (*add)(const piece *c);
    size_t bytes;  /* of 256 columns of weights */
    size_t record; /* and of a token */
    size_t cols;   /* of a tile */
} amx_kind;

#define FOLD_AND_ADD(type, how, groups, offset, min, call)                                                                     \
    static void fold_##type(panels *p)                                                                                         \
    {                                                                                                                          \
        for (int i = 0; i < PAIR; i++) fold_panel(&p->w[i], p->high[i], (form){how, groups, offset, min});                     \
    }                                                                                                                          \
    static void add_##type(const piece *c)                                                                                     \
    {                                                                                                                          \
        call;                                                                                                                  \
    }
#define X(type, unpack, how, groups, offset, min)                                                                              \
    FOLD_AND_ADD(type, how, groups, offset, min, add_piece_256(c, ((form){how, groups, offset, min})))
TYPES_256(X)
#undef X
#define X(type, unpack, how, groups, offset, min) FOLD_AND_ADD(type, how, groups, offset, min, add_piece_32(c, min))
TYPES_32(X)
#undef X

static const amx_kind amx_kinds[FM_DTYPE_COUNT] = {
#define X(type, unpack, how, groups, offset, min) [FM_##type] = {unpack, fold_##type, add_##type, 0, sizeof(fm_x256), 64},
    TYPES_256(X)
#undef X
#define X(type, unpack, how, groups, offset, min) [FM_##type] = {unpack, fold_##type, add_##type, 0, sizeof(fm_x32), 32},
        TYPES_32(X)
#undef X
};

/* Every NaN leaves as the same one, as in linear_common.h. */
static void finish_rows(const fm_linear_args *a, size_t r, size_t rows, size_t t, const float *v)
{
    const __mmask16 in = (__mmask16)((1u << rows) - 1u);
    float *y = a->y + t * a->y_stride + r;
    __m512 s = _mm512_loadu_ps(v);
    if (a->bias) s = _mm512_add_ps(s, _mm512_maskz_loadu_ps(in, a->bias + r));
    if (a->add) s = _mm512_add_ps(s, _mm512_maskz_loadu_ps(in, y));
    s = _mm512_mask_mov_ps(s, _mm512_cmp_ps_mask(s, s, _CMP_UNORD_Q), _mm512_set1_ps(__builtin_nanf("")));
    _mm512_mask_storeu_ps(y, in, s);
}

/* Asks for piece b of the rows that come after these; a prefetch cannot fault, wherever it lies. */
FM_INLINE void prefetch_next(const fm_tensor *W, size_t r, size_t b, size_t block_bytes)
{
    const size_t bytes = PAIR_ROWS * block_bytes;
    const uintptr_t next = (uintptr_t)W->data + (r + PAIR_ROWS) * W->stride + b * bytes;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch((const void *)(next + i), 0, 1);
}

/* Rows [r, r + rows), at most PAIR_ROWS, of tokens [t0, t0 + n).  Lanes beyond the last row repeat it. */
static void rows_amx(const fm_linear_args *a, size_t r, size_t rows, size_t t0, size_t n)
{
    const amx_kind *kind = &amx_kinds[a->W->type];
    const fm_dtype_traits *traits = fm_dtype_get(a->W->type);
    const size_t bytes = FM_X_COLS / traits->block * traits->bytes;
    const uint8_t *row[PAIR_ROWS], *x = (const uint8_t *)a->x + t0 * kind->record;
    float y[PAIR * GROUP * LANES] __attribute__((aligned(64)));
    panels p;
    for (size_t i = 0; i < PAIR_ROWS; i++) row[i] = fm_tensor_row(a->W, r + (i < rows ? i : rows - 1));
    for (size_t i = 0; i < PAIR; i++) memset(y + i * GROUP * LANES, 0, n * LANES * sizeof *y);
    for (size_t b = 0; b * FM_X_COLS < a->W->cols; b++) {
        const size_t left = (a->W->cols - b * FM_X_COLS) / 32, blocks = left < 8 ? left : 8;
        prefetch_next(a->W, r, b, bytes);
        for (size_t i = 0; i < PAIR; i++) kind->unpack(&p.w[i], row + i * LANES, b * bytes, blocks);
        kind->fold(&p);
        kind->add(&(piece){&p, x + b * a->n * kind->record, y, n, (int)blocks});
    }
    for (size_t t = 0; t < n; t++) {
        finish_rows(a, r, rows < LANES ? rows : LANES, t0 + t, y + t * LANES);
        if (rows > LANES) finish_rows(a, r + LANES, rows - LANES, t0 + t, y + (GROUP + t) * LANES);
    }
}

/* Tokens [t, t + n) of a group; what is left for the last one fills a tile. */
static size_t group_size(size_t left)
{
    if (left <= GROUP) return left;
    return left - GROUP < TILE_ROWS ? left - TILE_ROWS : GROUP;
}

static void linear_amx(const fm_run *run, const fm_linear_args *a)
{
    size_t begin, end;
    if (a->n < FEWEST) {
        fm_linear_few_avx512_vnni(run, a);
        return;
    }
    fm_run_range(run, a->W->rows, ROW_GRANULE, &begin, &end);
    tiles_begin(TILE_ROWS, amx_kinds[a->W->type].cols);
    for (size_t r = begin; r < end; r += PAIR_ROWS) {
        const size_t rows = end - r < PAIR_ROWS ? end - r : PAIR_ROWS;
        for (size_t t = 0, n; t < a->n; t += n) {
            n = group_size(a->n - t);
            rows_amx(a, r, rows, t, n);
        }
    }
    tiles_end();
}

void fm_linear_fill_amx(fm_kernels *k)
{
    fm_linear_fill_avx512_vnni(k);
    for (int type = 0; type < FM_DTYPE_COUNT; type++)
        if (amx_kinds[type].unpack) k->linear[type] = linear_amx;
}
