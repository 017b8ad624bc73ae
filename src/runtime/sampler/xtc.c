/* xtc.c - "exclude top choices": with a probability per choice, of the tokens above the threshold all but the least likely go. */
#include <string.h>

#include "runtime/sampler/internal.h"

static bool idle(const struct fm_sampler *s)
{
    return s->p.xtc_probability <= 0 || s->p.xtc_threshold > 0.5f;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if (fm_sampler_random(s, FM_DRAW_XTC) >= (double)s->p.xtc_probability) return;
    size_t above = 0;
    fm_candidates_softmax(c);
    for (size_t i = 0; i < c->n; i++) above += c->p[i] >= (double)s->p.xtc_threshold;
    if (above < 2) return;
    fm_candidates_sort(c, above);
    c->n -= above - 1;
    c->sorted = c->sorted - (above - 1);
    memmove(c->c, c->c + above - 1, c->n * sizeof *c->c);
}

const fm_sampler_kind fm_sampler_xtc = {.name = "xtc", .apply = apply, .idle = idle};
