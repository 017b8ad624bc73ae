/* softmax.c - softmax of rows and the logarithm of their sums of exponentials.
 *
 * A row that holds NaN or +Inf, or nothing but -Inf, gives NaN throughout. */
#include "kernels/ref/ref.h"

static float row_max(const float *x, size_t d)
{
    float m = x[0];
    for (size_t i = 1; i < d; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* out may be NULL: the sum alone. */
static float row_exp(float *out, const float *x, size_t d, float max)
{
    float sum = 0.0f;
    for (size_t i = 0; i < d; i++) {
        const float e = expf(x[i] - max);
        if (out) out[i] = e;
        sum += e;
    }
    return sum;
}

void fm_ref_softmax(const fm_run *run, float *out, float *lse, const float *x, size_t x_stride,
                    size_t n, size_t d)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *row = x + r * x_stride;
        float *o = out ? out + r * d : NULL;
        const float max = row_max(row, d);
        const float sum = row_exp(o, row, d, max);
        if (lse) lse[r] = max + logf(sum);
        if (!o) continue;
        for (size_t i = 0; i < d; i++) o[i] /= sum;
    }
}
