/* differences.h - central differences of a function of many numbers, and the judgement of what is said to be its gradient.
 *
 * With D(h) = (L(x + h) - L(x - h)) / 2h = L' + a h^2 + b h^4 + ..., R(h) = (4 D(h) - D(2h)) / 3 is 4 b h^4 away from L', and
 * R(2h) sixty of these from R(h): their distance bounds the error of R(h) fifteen times over.  To it comes the noise of L, which
 * is summed from terms of `size` together, each rounded a few hundred times on its way: NOISE size / h. */
#ifndef FM_TESTS_UNIT_DIFFERENCES_H
#define FM_TESTS_UNIT_DIFFERENCES_H

#include <float.h>
#include <math.h>

#include "base/rng.h"
#include "unit/testing.h"

/* A sum and the sum of the magnitudes of its terms. */
typedef struct dif_value {
    double sum, size;
} dif_value;

/* Numbers that the function depends on, rows x cols of them, and what is said to be their gradient. */
typedef struct dif_input {
    const char *name;
    double *x;
    size_t x_stride;
    const double *g;
    size_t g_stride;
    size_t rows, cols;
} dif_input;

typedef struct dif_problem {
    const char *name;
    dif_value (*f)(void *ctx);
    void *ctx;
} dif_problem;

#define DIF_STEP   0x1p-10
#define DIF_NOISE  (512.0 * DBL_EPSILON / 2.0)
#define DIF_WITHIN 1e-6 /* of the largest gradient: a tolerance above it would prove nothing */
enum { DIF_SAMPLES = 40 };

/* D(h), and the size of the function. */
FM_UNUSED static double dif_slope(const dif_problem *p, double *x, double h, double *size)
{
    const double at = *x;
    *x = at + h;
    const dif_value above = p->f(p->ctx);
    *x = at - h;
    const dif_value below = p->f(p->ctx);
    *x = at;
    *size = fmax(above.size, below.size);
    return (above.sum - below.sum) / (2.0 * h);
}

typedef struct dif_estimate {
    double slope, tolerance, size;
} dif_estimate;

FM_UNUSED static dif_estimate dif_estimate_of(const dif_problem *p, double *x)
{
    dif_estimate e;
    const double d1 = dif_slope(p, x, DIF_STEP, &e.size), d2 = dif_slope(p, x, 2 * DIF_STEP, &e.size),
                 d4 = dif_slope(p, x, 4 * DIF_STEP, &e.size), coarse = (4.0 * d2 - d4) / 3.0;
    e.slope = (4.0 * d1 - d2) / 3.0;
    e.tolerance = fabs(e.slope - coarse) + DIF_NOISE * e.size / DIF_STEP;
    return e;
}

/* Element number k of those that are tried: all of a few, drawn ones of many. */
FM_UNUSED static size_t dif_pick(size_t k, size_t n)
{
    return n <= DIF_SAMPLES ? k : (size_t)(fm_rng_uniform(n, 77, k) * (double)n);
}

/* How far the gradient of one input is off, at worst, in tolerances. */
FM_UNUSED static double dif_error(const dif_problem *p, const dif_input *in)
{
    const size_t n = in->rows * in->cols;
    double largest = 0.0, worst = 0.0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs(in->g[i / in->cols * in->g_stride + i % in->cols]));
    for (size_t k = 0; k < n && k < DIF_SAMPLES; k++) {
        const size_t i = dif_pick(k, n), r = i / in->cols, c = i % in->cols;
        const dif_estimate e = dif_estimate_of(p, in->x + r * in->x_stride + c);
        const double error = fabs(in->g[r * in->g_stride + c] - e.slope) / e.tolerance;
        if (e.tolerance > DIF_WITHIN * fmax(largest, 1e-3 * e.size))
            fail_msg("%s, %s: differences are only known to %.1e", p->name, in->name, e.tolerance);
        worst = error > worst || isnan(error) ? error : worst;
    }
    return worst;
}

FM_UNUSED static void dif_check(const dif_problem *p, const dif_input *in, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++) {
        const double error = dif_error(p, &in[i]);
        if (!(error <= 1.0))
            fail_msg("%s: the gradient of %s is %.3g tolerances away from its differences", p->name, in[i].name, error);
    }
}

#endif
