/* bias.c - biases and masks, before anything else: logit_bias, allowed ids, and no end of text before min_tokens. */
#include <math.h>

#include "runtime/sampler/internal.h"

/* In id order, so that candidate i is token i until something is dropped. */
static void bias(const struct fm_sampler *s, fm_candidates *c)
{
    for (size_t i = 0; i < s->p.n_biases; i++) c->c[s->biases[i].id].logit += s->biases[i].bias;
    for (size_t i = 0; s->allowed && i < c->n; i++)
        if (!s->allowed[c->c[i].id]) c->c[i].logit = -INFINITY;
    for (size_t i = 0; i < s->n_eos && s->n_generated < s->p.min_tokens; i++) c->c[s->eos[i]].logit = -INFINITY;
}

/* A mask that leaves nothing is no mask. */
static bool any_left(const fm_candidates *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->c[i].logit > -INFINITY) return true;
    return false;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if (c->n != s->vocab || c->sorted) return; /* placed behind something that drops: too late to mask by id */
    bias(s, c);
    if (!any_left(c)) {
        for (size_t i = 0; i < c->n; i++) c->c[i].logit = 0;
        return;
    }
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->c[i].logit > -INFINITY) c->c[n++] = c->c[i];
    c->n = n;
}

const fm_sampler_kind fm_sampler_bias = {.name = "bias", .apply = apply};
