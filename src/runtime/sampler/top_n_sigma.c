/* top_n_sigma.c - keeps logits within n standard deviations of the largest. */
#include <math.h>

#include "runtime/sampler/internal.h"

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if (s->p.top_n_sigma <= 0) return;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < c->n; i++) sum += (double)c->c[i].logit;
    const double mean = sum / (double)c->n;
    for (size_t i = 0; i < c->n; i++) squares += ((double)c->c[i].logit - mean) * ((double)c->c[i].logit - mean);
    const double sigma = sqrt(squares / (double)c->n);
    fm_candidates_keep(c, (float)((double)fm_candidates_max(c) - (double)s->p.top_n_sigma * sigma));
}

const fm_sampler_kind fm_sampler_top_n_sigma = {.name = "top_n_sigma", .apply = apply};
