/* loss.c - cross entropy with its gradient, and the sums that gradients are collected by. */
#include <string.h>

#include "kernels/ref/ref.h"

static fm_real row_lse(const fm_real *x, size_t n)
{
    fm_real max = x[0];
    for (size_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    double sum = 0.0; /* so that every table's agrees to an ulp of float */
    for (size_t i = 0; i < n; i++) sum += (double)exp(x[i] - max);
    return max + (fm_real)log(sum);
}

/* d(lse) = p, d(z lse^2) = 2 z lse p. */
static void row_xent(const fm_xent_args *a, size_t r)
{
    fm_real *x = a->logits + r * a->vocab;
    const int32_t target = a->target[r];
    a->loss[r] = 0.0f;
    if (target < 0) {
        memset(x, 0, a->vocab * sizeof *x);
        return;
    }
    const fm_real lse = row_lse(x, a->vocab), p_scale = a->scale * (1.0f + 2.0f * a->z * lse);
    a->loss[r] = lse - x[target] + a->z * lse * lse;
    for (size_t i = 0; i < a->vocab; i++) x[i] = p_scale * exp(x[i] - lse);
    x[target] -= a->scale;
}

void fm_ref_xent(const fm_run *run, const fm_xent_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) row_xent(a, r);
}

void fm_ref_sum_parts(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *parts, size_t n_parts, size_t n,
                      size_t d)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        fm_real *o = out + r * out_stride;
        memcpy(o, parts + r * d, d * sizeof *o);
        for (size_t p = 1; p < n_parts; p++)
            for (size_t i = 0; i < d; i++) o[i] += parts[(p * n + r) * d + i];
    }
}

void fm_ref_sum_rows(const fm_run *run, fm_real *g_b, const fm_real *g, size_t g_stride, size_t n, size_t d)
{
    size_t begin, end;
    fm_run_range(run, d, 16, &begin, &end);
    for (size_t r = 0; r < n; r++)
        for (size_t i = begin; i < end; i++) g_b[i] += g[r * g_stride + i];
}

enum { TILE = 16, WIDTH = 256 };

/* A tile of rows is decoded in pieces, so that what is written are whole runs of TILE floats. */
void fm_ref_transpose(const fm_run *run, float *out, size_t out_stride, const fm_tensor *W)
{
    const fm_dtype_traits *type = fm_dtype_get(W->type);
    float piece[TILE][WIDTH];
    size_t begin, end;
    fm_run_range(run, W->rows, TILE, &begin, &end);
    for (size_t r = begin; r < end; r += TILE) {
        const size_t rows = end - r < TILE ? end - r : TILE;
        for (size_t c = 0; c < W->cols; c += WIDTH) {
            const size_t cols = W->cols - c < WIDTH ? W->cols - c : WIDTH, from = c / type->block * type->bytes;
            for (size_t i = 0; i < rows; i++) type->decode(piece[i], (const char *)fm_tensor_row(W, r + i) + from, cols);
            for (size_t j = 0; j < cols; j++)
                for (size_t i = 0; i < rows; i++) out[(c + j) * out_stride + r + i] = piece[i][j];
        }
    }
}
