/* linear_product.h - products of gradients, out = (out +) a b in f32 (after linear_words.h).
 *
 * The tile of linear_words.h without its tree: nothing here has to agree with a product of one token, so a sum runs straight
 * through the P_BLOCK terms of a block.  b lies as its panel wants it and is only copied; of a, which is read once for every
 * panel, a block of rows is packed in tiles that the second cache holds: by copying where the sum runs over its rows (g_W), by
 * turning where it runs over its columns (g_x). */
#ifndef FM_KERNELS_SIMD_LINEAR_PRODUCT_H
#define FM_KERNELS_SIMD_LINEAR_PRODUCT_H

#include "kernels/simd/linear_words.h"

enum { P_BLOCK = 256, P_ROWS = 480 / F_TILE * F_TILE, P_COLS = F_PANELS * LANES };

/* A worker's block of a: tiles (P_BLOCK, F_TILE); a turned tile is stored in whole vectors, the last of which reaches further. */
static size_t product_floats(size_t m)
{
    return min_size((m + F_TILE - 1) / F_TILE * F_TILE, P_ROWS) * P_BLOCK + LANES;
}

/* 16 bytes of LANES rows, of which `left` exist: out[j] holds word j of all rows. */
FM_INLINE void load_piece(iv out[4], const uint8_t *const *row, size_t off, size_t left)
{
    uint8_t copy[LANES][16] = {{0}};
    const uint8_t *copies[LANES];
    if (left >= 16) {
        iv_load_rows(out, row, off);
        return;
    }
    for (size_t i = 0; i < LANES; i++) {
        memcpy(copy[i], row[i] + off, left);
        copies[i] = copy[i];
    }
    iv_load_rows(out, copies, 0);
}

/* Rows [r, r + rows) of a, of which row i is a tile's lane i: columns [k, k + n).  Lanes beyond repeat the last row. */
FM_INLINE void turn_tile(float *out, const fm_product_args *a, size_t r, size_t rows, size_t k, size_t n)
{
    for (size_t g = 0; g < F_TILE; g += LANES) {
        const uint8_t *row[LANES];
        for (size_t i = 0; i < LANES; i++) row[i] = (const uint8_t *)(a->a + (r + min_size(g + i, rows - 1)) * a->a_stride + k);
        for (size_t j = 0; j < n; j += 4) {
            iv v[4];
            load_piece(v, row, j * sizeof(float), (n - j) * sizeof(float));
            for (size_t c = 0; c < 4 && j + c < n; c++) fv_store(out + (j + c) * F_TILE + g, (fv)v[c]);
        }
    }
}

static void pack_turned(const fm_product_args *a, size_t r, size_t r_end, size_t k, size_t n)
{
    float *out = a->scratch;
    for (; r < r_end; r += F_TILE, out += n * F_TILE) turn_tile(out, a, r, min_size(r_end - r, F_TILE), k, n);
}

/* Lanes beyond the last column hold zeros. */
static void pack_copied(const fm_product_args *a, size_t r, size_t r_end, size_t k, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float *row = a->a + (k + i) * a->a_stride;
        float *out = a->scratch + i * F_TILE;
        size_t c = r;
        for (; c + F_TILE <= r_end; c += F_TILE, out += n * F_TILE) memcpy(out, row + c, F_TILE * sizeof *out);
        if (c == r_end) continue;
        memset(out, 0, F_TILE * sizeof *out);
        memcpy(out, row + c, (r_end - c) * sizeof *out);
    }
}

/* Columns [c, c + cols) of n rows of b, at most P vectors of them; zeros beyond. */
FM_INLINE void copy_panel(float *w, const fm_product_args *a, size_t k, size_t n, size_t c, size_t cols, int P)
{
    for (size_t i = 0; i < n; i++, w += P * LANES) {
        const float *row = a->b + (k + i) * a->b_stride + c;
        if (cols == (size_t)P * LANES) {
            UNROLL for (int p = 0; p < P; p++) fv_store(w + p * LANES, fv_load(row + p * LANES));
        } else {
            memset(w, 0, (size_t)P * LANES * sizeof *w);
            memcpy(w, row, cols * sizeof *w);
        }
    }
}

FM_INLINE void product_tile(float *out, size_t stride, const float *w, const float *x, size_t n, int P, int T, bool add)
{
    fv acc[F_PANELS][F_TILE];
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) acc[p][t] = fv_set1(0.0f);
    for (size_t i = 0; i < n; i++, w += P * LANES, x += F_TILE) {
        fv ws[F_PANELS];
        UNROLL for (int p = 0; p < P; p++) ws[p] = fv_load(w + p * LANES);
        UNROLL for (int t = 0; t < T; t++)
        {
            const fv xs = fv_set1(x[t]);
            UNROLL for (int p = 0; p < P; p++) acc[p][t] = fv_fma(ws[p], xs, acc[p][t]);
        }
    }
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int p = 0; p < P; p++)
    {
        float *o = out + (size_t)t * stride + p * LANES;
        fv_store(o, add ? fv_load(o) + acc[p][t] : acc[p][t]);
    }
}

/* A tile that reaches over the edge of out. */
FM_INLINE void product_edge(float *out, size_t stride, const float *w, const float *x, size_t n, size_t rows, size_t cols,
                            int P, bool add)
{
    float y[F_TILE * P_COLS] __attribute__((aligned(64)));
    if (rows > F_TILE / 3 * 2)
        product_tile(y, P_COLS, w, x, n, P, F_TILE, false);
    else if (rows > F_TILE / 3)
        product_tile(y, P_COLS, w, x, n, P, F_TILE / 3 * 2, false);
    else
        product_tile(y, P_COLS, w, x, n, P, F_TILE / 3, false);
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < cols; i++)
            out[t * stride + i] = add ? out[t * stride + i] + y[t * P_COLS + i] : y[t * P_COLS + i];
}

/* Columns [c, c + cols) of the packed rows [r, r_end): a block of n terms from k on. */
FM_INLINE void product_panel(const fm_product_args *a, size_t r, size_t r_end, size_t k, size_t n, size_t c, size_t cols, int P)
{
    float w[P_COLS * P_BLOCK] __attribute__((aligned(64)));
    const float *x = a->scratch;
    const bool add = a->add || k > 0;
    copy_panel(w, a, k, n, c, cols, P);
    for (; r < r_end; r += F_TILE, x += n * F_TILE) {
        float *out = a->out + r * a->out_stride + c;
        if (r_end - r >= F_TILE && cols == (size_t)P * LANES)
            product_tile(out, a->out_stride, w, x, n, P, F_TILE, add);
        else
            product_edge(out, a->out_stride, w, x, n, min_size(r_end - r, F_TILE), cols, P, add);
    }
}

static void product_block(const fm_product_args *a, size_t r, size_t r_end, size_t k, size_t n)
{
    (a->turned ? pack_copied : pack_turned)(a, r, r_end, k, n);
    for (size_t c = 0; c < a->n; c += P_COLS) {
        const size_t cols = min_size(a->n - c, P_COLS);
        if (cols > LANES)
            product_panel(a, r, r_end, k, n, c, cols, F_PANELS);
        else
            product_panel(a, r, r_end, k, n, c, cols, 1);
    }
}

static void product(const fm_run *run, const fm_product_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->m, F_TILE, &begin, &end);
    for (size_t k = 0; k < a->k; k += P_BLOCK)
        for (size_t r = begin; r < end; r += P_ROWS)
            product_block(a, r, min_size(end, r + P_ROWS), k, min_size(a->k - k, P_BLOCK));
}

#endif
