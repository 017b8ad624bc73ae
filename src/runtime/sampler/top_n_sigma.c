/* top_n_sigma.c - keeps logits within n standard deviations of the largest. */
#include <math.h>

#include "runtime/sampler/internal.h"

/* Logits that were not finite stand at -1e30 (at -5e27, after the highest temperature) and would drown the deviation. */
static bool counts(const fm_candidate *c)
{
    return c->logit > -1e27f;
}

static bool idle(const struct fm_sampler *s)
{
    return s->p.top_n_sigma <= 0;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    double sum = 0, squares = 0, n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (counts(&c->c[i])) n++, sum += (double)c->c[i].logit;
    for (size_t i = 0; i < c->n; i++)
        if (counts(&c->c[i])) squares += ((double)c->c[i].logit - sum / n) * ((double)c->c[i].logit - sum / n);
    const double sigma = n > 0 ? sqrt(squares / n) : 0;
    fm_candidates_keep(c, (float)((double)fm_candidates_max(c) - (double)s->p.top_n_sigma * sigma));
}

const fm_sampler_kind fm_sampler_top_n_sigma = {.name = "top_n_sigma", .apply = apply, .idle = idle};
