/* min_p.c - keeps tokens at least min_p times as likely as the likeliest. */
#include <math.h>

#include "runtime/sampler/internal.h"

static bool idle(const struct fm_sampler *s)
{
    return s->p.min_p <= 0;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    fm_candidates_keep(c, fm_candidates_max(c) + logf(s->p.min_p));
}

const fm_sampler_kind fm_sampler_min_p = {.name = "min_p", .apply = apply, .idle = idle};
