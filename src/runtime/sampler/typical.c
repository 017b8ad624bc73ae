/* typical.c - locally typical sampling (Meister et al. 2022): keeps the tokens whose information is nearest to the entropy, until
 * their probabilities exceed typical_p. */
#include <math.h>

#include "runtime/sampler/internal.h"

static int compare(const void *a, const void *b)
{
    const fm_scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return x->c.id < y->c.id ? -1 : 1;
}

static bool idle(const struct fm_sampler *s)
{
    return s->p.typical_p >= 1;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    double entropy = 0, sum = 0;
    size_t n = 0;
    fm_candidates_softmax(c);
    for (size_t i = 0; i < c->n; i++) entropy -= c->p[i] > 0 ? c->p[i] * log(c->p[i]) : 0;
    for (size_t i = 0; i < c->n; i++)
        s->scored[i] = (fm_scored){c->p[i] > 0 ? fabs(-log(c->p[i]) - entropy) : HUGE_VAL, c->p[i], c->c[i]};
    fm_sort_in_place(s->scored, c->n, sizeof *s->scored, compare);
    while (n < c->n && sum <= (double)s->p.typical_p) sum += s->scored[n++].p;
    for (size_t i = 0; i < n; i++) c->c[i] = s->scored[i].c;
    c->n = n;
    c->sorted = 0;
    fm_candidates_sort(c, n);
}

const fm_sampler_kind fm_sampler_typical = {.name = "typical", .apply = apply, .idle = idle, .truncates = true};
