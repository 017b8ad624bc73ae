/* draw_reference.h - a device's choice of a token by the definition of docs/sampling.md, written out in double with a sort. */
#ifndef FM_TESTS_DRAW_REFERENCE_H
#define FM_TESTS_DRAW_REFERENCE_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/draw.h"

typedef struct draw_entry {
    float logit;
    int32_t id;
} draw_entry;

static inline int draw_by_rank(const void *a, const void *b)
{
    const draw_entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static inline float draw_tamed(float v)
{
    return v >= -1e30f ? fminf(v, 1e30f) : -1e30f;
}

static inline int32_t draw_likeliest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (draw_tamed(x[i]) > draw_tamed(x[best])) best = i;
    return (int32_t)best;
}

/* The choice; *sure is false where a border is too near. */
static inline int32_t draw_reference(draw_entry *e, const float *x, size_t n, const fm_draw *d, bool *sure)
{
    const float max = draw_tamed(x[draw_likeliest(x, n)]), least = d->min_p > 0 ? logf(d->min_p) : -1e30f;
    size_t kept = 0;
    double total = 0, sum = 0;
    *sure = true;
    if (d->temperature == 0) return draw_likeliest(x, n);
    for (size_t i = 0; i < n; i++) {
        const float v = fmaxf((draw_tamed(x[i]) - max) / d->temperature, -1e30f);
        if (fabsf(v - least) < 1e-6f * fabsf(least)) *sure = false;
        if (v >= least) e[kept++] = (draw_entry){v, (int32_t)i};
    }
    const bool few = d->top_k > 0 && (size_t)d->top_k < kept;
    if (few || d->top_p < 1) qsort(e, kept, sizeof *e, draw_by_rank);
    if (few) kept = (size_t)d->top_k;
    for (size_t i = 0; i < kept; i++) total += exp((double)e[i].logit);
    for (size_t i = 0; i < kept && d->top_p < 1; i++) {
        sum += exp((double)e[i].logit);
        if (fabs(sum - (double)d->top_p * total) < 1e-6 * total) *sure = false;
        if (sum >= (double)d->top_p * total) kept = i + 1;
    }
    total = sum = 0;
    for (size_t i = 0; i < kept; i++) total += exp((double)e[i].logit);
    for (size_t i = 0; i < kept; i++) {
        const double after = sum + exp((double)e[i].logit);
        if (fabs(after - d->random * total) < 1e-6 * total) *sure = false;
        if (after > d->random * total) return e[i].id;
        sum = after;
    }
    return draw_likeliest(x, n);
}

#endif
