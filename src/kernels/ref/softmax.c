/* softmax.c - softmax of rows and the logarithm of their sums of exponentials.
 *
 * A row that holds NaN or +Inf, or nothing but -Inf, gives NaN throughout. */
#include "kernels/ref/ref.h"

static fm_real row_max(const fm_real *x, size_t d)
{
    fm_real m = x[0];
    for (size_t i = 1; i < d; i++) m = x[i] > m ? x[i] : m;
    return m;
}

/* out may be NULL: the sum alone. */
static fm_real row_exp(fm_real *out, const fm_real *x, size_t d, fm_real max)
{
    fm_real sum = 0.0f;
    for (size_t i = 0; i < d; i++) {
        const fm_real e = exp(x[i] - max);
        if (out) out[i] = e;
        sum += e;
    }
    return sum;
}

void fm_ref_softmax(const fm_run *run, fm_real *out, fm_real *lse, const fm_real *x, size_t x_stride, size_t n, size_t d)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const fm_real *row = x + r * x_stride;
        fm_real *o = out ? out + r * d : NULL;
        const fm_real max = row_max(row, d);
        const fm_real sum = row_exp(o, row, d, max);
        if (lse) lse[r] = max + log(sum);
        if (!o) continue;
        for (size_t i = 0; i < d; i++) o[i] /= sum;
    }
}
