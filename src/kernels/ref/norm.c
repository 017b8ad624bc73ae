/* norm.c - root-mean-square norm (spec falcon-mamba.md 2.1, steps 1 and 8).
 *
 * The squares are summed in double: no finite row overflows, and every table's scale agrees to one
 * ulp of float whatever its order of summation. */
#include "kernels/ref/ref.h"

static float row_scale(const float *x, size_t d, float eps)
{
    double sum = 0.0;
    for (size_t i = 0; i < d; i++) sum += (double)x[i] * (double)x[i];
    return (float)(1.0 / sqrt(sum / (double)d + (double)eps));
}

void fm_ref_rmsnorm(const fm_run *run, float *out, size_t out_stride, const float *x,
                    size_t x_stride, const float *w, size_t n, size_t d, float eps)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *row = x + r * x_stride;
        float *o = out + r * out_stride;
        const float scale = row_scale(row, d, eps);
        for (size_t i = 0; i < d; i++) o[i] = w ? row[i] * scale * w[i] : row[i] * scale;
    }
}
