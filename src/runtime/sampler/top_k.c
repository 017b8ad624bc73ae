/* top_k.c - keeps the k likeliest tokens. */
#include "runtime/sampler/internal.h"

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if (s->p.top_k <= 0 || (size_t)s->p.top_k >= c->n) return;
    fm_candidates_sort(c, (size_t)s->p.top_k);
    c->n = (size_t)s->p.top_k;
    c->sorted = c->n;
}

const fm_sampler_kind fm_sampler_top_k = {.name = "top_k", .apply = apply, .truncates = true};
