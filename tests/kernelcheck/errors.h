/* errors.h - numbers that carry a bound of their error: what a chain of float operations may have done to them.
 *
 * Every function computes the value in double and adds to the bound what its operands' errors become and one rounding: half an
 * epsilon of the result, or a step of denormals.  A fused operation rounds less often, so the bound holds for it too.  Two tables
 * are each within the bound of the truth, so of each other within SIDES times that. */
#ifndef FM_TESTS_KERNELCHECK_ERRORS_H
#define FM_TESTS_KERNELCHECK_ERRORS_H

#include "base/compiler.h"
#include "tests/kernelcheck/kernelcheck.h"

enum { SIDES = 2 };

#define ROUNDING (FLT_EPSILON / 2.0)
#define TINY     0x1p-149

typedef struct ef {
    double v, e;
} ef;

FM_UNUSED static ef ef_of(float x)
{
    return (ef){(double)x, 0.0};
}

/* Part of a magnitude; an infinity is exact. */
FM_UNUSED static double ef_part(double part, double v)
{
    return isinf(v) ? 0.0 : part * fabs(v);
}

FM_UNUSED static ef ef_round(double v, double e)
{
    return (ef){v, e + ef_part(ROUNDING, v) + TINY};
}

FM_UNUSED static ef ef_add(ef a, ef b)
{
    return ef_round(a.v + b.v, a.e + b.e);
}

/* An error times a magnitude: none is none, whatever the magnitude. */
FM_UNUSED static double ef_scaled(double e, double v)
{
    return e > 0.0 ? e * fabs(v) : e;
}

FM_UNUSED static ef ef_mul(ef a, ef b)
{
    return ef_round(a.v * b.v, ef_scaled(b.e, a.v) + ef_scaled(a.e, b.v) + a.e * b.e);
}

/* e^a by a table's own function: 4 epsilon; its argument may be turned into a power of two first, which rounds it thrice more.
 * Below 2^-126 what comes out may be zero. */
FM_UNUSED static ef ef_exp(ef a)
{
    const double v = exp(a.v), e = isinf(a.v) ? 0.0 : a.e + 3.0 * ROUNDING * fabs(a.v);
    return (ef){v, v * (expm1(e) + 4.0 * FLT_EPSILON) + 0x1p-126};
}

/* log(1 + e^a), whose slope is at most 1. */
FM_UNUSED static ef ef_softplus(ef a)
{
    const double v = a.v > 20.0 ? a.v : log1p(exp(a.v));
    return (ef){v, a.e + ef_part(4.0 * FLT_EPSILON, v) + TINY};
}

/* 1 / (1 + e^-a), whose slope is at most 1/4: the exponential, a sum, a quotient. */
FM_UNUSED static ef ef_sigmoid(ef a)
{
    const double v = 1.0 / (1.0 + exp(-a.v));
    return (ef){v, a.e / 4.0 + (4.0 * FLT_EPSILON + ef_part(3.0 * ROUNDING, a.v) + 3.0 * ROUNDING) * v + 0x1p-126};
}

FM_UNUSED static ef ef_silu(ef a)
{
    return ef_mul(a, ef_sigmoid(a));
}

/* s (1 + a (1 - s)), the slope of silu. */
FM_UNUSED static ef ef_silu_slope(ef a)
{
    const ef s = ef_sigmoid(a), one = {1.0, 0.0}, rest = ef_round(1.0 - s.v, s.e);
    return ef_mul(s, ef_add(one, ef_mul(a, rest)));
}

/* A sum of terms in any order: each addition rounds a partial sum, which is at most the sum of magnitudes. */
typedef struct ef_sum {
    double v, e, magnitude;
    size_t n;
} ef_sum;

FM_UNUSED static void ef_sum_add(ef_sum *s, ef term)
{
    s->v += term.v;
    s->e += term.e;
    s->magnitude += fabs(term.v) + term.e;
    s->n++;
}

FM_UNUSED static ef ef_sum_of(const ef_sum *s)
{
    return (ef){s->v, s->e + (double)s->n * (ROUNDING * s->magnitude + TINY)};
}

/* A bound that is not finite leaves the reference to decide alone. */
FM_UNUSED static void ef_check(kc *t, float got, float ref, ef truth, const char *where)
{
    const double bound = SIDES * truth.e;
    kc_near(t, (double)got, (double)ref, isfinite(bound) ? bound : 0.0, where);
}

#endif
