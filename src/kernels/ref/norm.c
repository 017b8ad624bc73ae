/* norm.c - root-mean-square norm (spec falcon-mamba.md 2.1, steps 1 and 8).
 *
 * The squares are summed in double: no finite row overflows, and every table's scale agrees to one
 * ulp of float whatever its order of summation. */
#include "kernels/ref/ref.h"

static fm_real row_scale(const fm_real *x, size_t d, fm_real eps)
{
    double sum = 0.0;
    for (size_t i = 0; i < d; i++) sum += (double)x[i] * (double)x[i];
    return (fm_real)(1.0 / sqrt(sum / (double)d + (double)eps));
}

void fm_ref_rmsnorm(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const fm_real *w,
                    size_t n, size_t d, fm_real eps)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const fm_real *row = x + r * x_stride;
        fm_real *o = out + r * out_stride;
        const fm_real scale = row_scale(row, d, eps);
        for (size_t i = 0; i < d; i++) o[i] = w ? row[i] * scale * w[i] : row[i] * scale;
    }
}

/* With y = x rho and f = w g: g_x = rho (f - y mean(f y)). */
static void row_back(const fm_rmsnorm_back_args *a, size_t r)
{
    const fm_real *x = a->x + r * a->x_stride, *g = a->g + r * a->g_stride;
    fm_real *g_x = a->g_x + r * a->g_x_stride;
    const fm_real rho = row_scale(x, a->d, a->eps);
    double dot = 0.0;
    for (size_t i = 0; i < a->d; i++) dot += (double)(a->w ? a->w[i] * g[i] : g[i]) * (double)(x[i] * rho);
    const fm_real mean = (fm_real)(dot / (double)a->d);
    for (size_t i = 0; i < a->d; i++) {
        const fm_real v = rho * ((a->w ? a->w[i] * g[i] : g[i]) - x[i] * rho * mean);
        g_x[i] = a->add ? g_x[i] + v : v;
    }
    a->rho[r] = rho;
}

void fm_ref_rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) row_back(a, r);
}

void fm_ref_rmsnorm_gw(const fm_run *run, fm_real *g_w, const fm_rmsnorm_back_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d, 16, &begin, &end);
    for (size_t r = 0; r < a->n; r++)
        for (size_t i = begin; i < end; i++) g_w[i] += a->g[r * a->g_stride + i] * (a->x[r * a->x_stride + i] * a->rho[r]);
}
