/* temperature.c - logits / T; T = 0 leaves the likeliest.  With a range T follows the entropy of the distribution. */
#include <math.h>

#include "runtime/sampler/internal.h"

/* lo + (hi - lo) * (H / H_max)^exponent */
static float dynamic(const struct fm_sampler *s, fm_candidates *c)
{
    const double lo = fmax(0, (double)(s->p.temperature - s->p.dynatemp_range));
    const double hi = (double)(s->p.temperature + s->p.dynatemp_range), max = log((double)c->n);
    double entropy = 0;
    if (c->n < 2) return s->p.temperature;
    fm_candidates_softmax(c);
    for (size_t i = 0; i < c->n; i++) entropy -= c->p[i] > 0 ? c->p[i] * log(c->p[i]) : 0;
    return (float)(lo + (hi - lo) * pow(fmin(1, entropy / max), (double)s->p.dynatemp_exponent));
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    const float t = s->p.dynatemp_range > 0 && s->p.temperature > 0 ? dynamic(s, c) : s->p.temperature;
    if (t > 0) {
        const float max = fm_candidates_max(c); /* relative to it nothing overflows, however small t is */
        for (size_t i = 0; i < c->n; i++) c->c[i].logit = fmaxf((c->c[i].logit - max) / t, -1e30f);
        return;
    }
    fm_candidates_sort(c, 1);
    c->n = 1;
}

const fm_sampler_kind fm_sampler_temperature = {.name = "temperature", .apply = apply};
