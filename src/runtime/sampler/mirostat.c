/* mirostat.c - keeps the surprise of the text near tau (Basu et al. 2021), in the place of top_k, top_p and typical.  Version
 * 2 drops tokens more surprising than mu; version 1 estimates how long the tail is from the likeliest tokens and cuts it
 * there.  Both learn when the token that was drawn is accepted, from its probability before the cut. */
#include <math.h>

#include "runtime/sampler/internal.h"

enum { TAIL = 100 }; /* tokens that version 1 looks at */

/* Zipf's exponent by least squares over neighbouring ranks. */
static double zipf(const fm_candidates *c, size_t m)
{
    double tb = 0, tt = 0;
    for (size_t i = 0; i + 1 < m; i++) {
        const double t = log((double)(i + 2) / (double)(i + 1)), b = (double)(c->c[i].logit - c->c[i + 1].logit);
        tb += t * b;
        tt += t * t;
    }
    return tt > 0 ? tb / tt : 1;
}

/* eps / (1 - n^-eps), which tends to 1 / log n where eps is 0. */
static double tail_factor(double eps, double n)
{
    return fabs(eps) < 1e-9 ? 1 / log(n) : eps / (1 - pow(n, -eps));
}

static void truncate_v1(struct fm_sampler *s, fm_candidates *c)
{
    const size_t m = c->n < TAIL ? c->n : TAIL;
    fm_candidates_sort(c, m);
    const double exponent = zipf(c, m);
    const double k = pow(tail_factor(exponent - 1, (double)s->vocab) * pow(2, s->mu), 1 / exponent);
    const size_t keep = k >= 1 && k < (double)c->n ? (size_t)k : k >= (double)c->n ? c->n : 1;
    fm_candidates_sort(c, keep);
    c->n = c->sorted = keep;
}

static double log_sum(const fm_candidates *c)
{
    const double max = (double)fm_candidates_max(c);
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) sum += exp((double)c->c[i].logit - max);
    return max + log(sum);
}

void fm_mirostat_truncate(struct fm_sampler *s, fm_candidates *c)
{
    s->norm = log_sum(c);
    if (s->p.mirostat == 1)
        truncate_v1(s, c);
    else
        fm_candidates_keep(c, (float)(s->norm - s->mu * log(2))); /* -log2 p <= mu, in logits */
}

void fm_mirostat_remember(struct fm_sampler *s, const fm_candidate *drawn)
{
    s->drawn = drawn->id;
    s->surprise = (s->norm - (double)drawn->logit) / log(2);
}

void fm_mirostat_learn(struct fm_sampler *s, int32_t id)
{
    if (id == s->drawn) s->mu -= (double)s->p.mirostat_eta * (s->surprise - (double)s->p.mirostat_tau);
    s->drawn = -1;
}
