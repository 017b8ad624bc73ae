/* top_p.c - keeps the shortest list of likeliest tokens whose probabilities reach top_p (the one that crosses it included). */
#include <math.h>

#include "runtime/sampler/internal.h"

enum { FIRST = 64 }; /* a quarter of what is sorted at first, which is usually enough */

static bool idle(const struct fm_sampler *s)
{
    return s->p.top_p >= 1;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    const double max = (double)fm_candidates_max(c);
    double total = 0, sum = 0;
    for (size_t i = 0; i < c->n; i++) total += exp((double)c->c[i].logit - max);
    for (size_t i = 0, k = FIRST; i < c->n; i++) {
        if (i == c->sorted) fm_candidates_sort(c, k *= 4);
        sum += exp((double)c->c[i].logit - max);
        if (sum < (double)s->p.top_p * total) continue;
        c->n = i + 1;
        c->sorted = c->n;
    }
}

const fm_sampler_kind fm_sampler_top_p = {.name = "top_p", .apply = apply, .idle = idle, .truncates = true};
