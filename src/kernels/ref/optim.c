/* optim.c - the optimiser's step and the norm of gradients.  Element-wise, or summed in blocks of a fixed size in double. */
#include "kernels/ref/ref.h"

enum { GRANULE = 1024 };

void fm_ref_adamw(const fm_run *run, const fm_adamw_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, GRANULE, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        const float g = a->clip * a->g[i];
        const float m = a->beta1 * a->m[i] + (1.0f - a->beta1) * g;
        const float v = a->beta2 * a->v[i] + (1.0f - a->beta2) * g * g;
        a->m[i] = m;
        a->v[i] = v;
        a->w[i] -= a->lr * (a->decay * a->w[i] + a->c1 * m / (sqrtf(a->c2 * v) + a->eps));
    }
}

void fm_ref_squares(const fm_run *run, double *sums, const float *x, size_t n)
{
    const size_t n_sums = n / FM_SQUARES + (n % FM_SQUARES != 0);
    size_t begin, end;
    fm_run_range(run, n_sums, 1, &begin, &end);
    for (size_t s = begin; s < end; s++) {
        const size_t first = s * FM_SQUARES, last = n - first < FM_SQUARES ? n : first + FM_SQUARES;
        double sum = 0.0;
        for (size_t i = first; i < last; i++) sum += (double)x[i] * (double)x[i];
        sums[s] = sum;
    }
}
