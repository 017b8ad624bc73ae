/* top_k.c - keeps the k likeliest tokens. */
#include "runtime/sampler/internal.h"

static bool idle(const struct fm_sampler *s)
{
    return s->p.top_k <= 0;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if ((size_t)s->p.top_k >= c->n) return;
    fm_candidates_sort(c, (size_t)s->p.top_k);
    c->n = (size_t)s->p.top_k;
    c->sorted = c->n;
}

const fm_sampler_kind fm_sampler_top_k = {.name = "top_k", .apply = apply, .idle = idle, .truncates = true};
