/* bias.c - biases and masks, before anything else: logit_bias, allowed ids, and no end of text before min_tokens.  They come
 * first whatever the order list says, so that nothing it leaves out can undo a ban. */
#include <math.h>

#include "runtime/sampler/internal.h"

/* In id order: candidate i is token i until something is dropped. */
static void add_biases(const struct fm_sampler *s, fm_candidates *c)
{
    for (size_t i = 0; i < s->p.n_biases; i++) {
        float *z = &c->c[s->biases[i].id].logit;
        *z = fminf(*z + s->biases[i].bias, 1e30f); /* finite, however many are added */
    }
    for (size_t i = 0; i < s->n_eos && s->n_generated < s->p.min_tokens; i++) c->c[s->eos[i]].logit = -INFINITY;
}

void fm_sampler_keep_allowed(const struct fm_sampler *s, fm_candidates *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if ((!s->allowed || s->allowed[c->c[i].id]) && c->c[i].logit > -INFINITY) c->c[n++] = c->c[i];
    c->n = n;
}

static bool idle(const struct fm_sampler *s)
{
    return !s->p.n_biases && !s->allowed && (!s->n_eos || s->n_generated >= s->p.min_tokens);
}

/* May leave no candidate. */
static void apply(struct fm_sampler *s, fm_candidates *c)
{
    add_biases(s, c);
    fm_sampler_keep_allowed(s, c);
}

const fm_sampler_kind fm_sampler_bias = {.name = "bias", .apply = apply, .idle = idle};
