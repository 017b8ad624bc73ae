/* draw.c - which choices a device can make: temperature, min_p, top_k and top_p, those that do something, in this order. */
#include "runtime/sampler/draw.h"

#include "base/rng.h"
#include "runtime/sampler/internal.h"

/* Where a sampler stands in the device's order, from 1; 0: it is not there. */
static size_t place_of(const fm_sampler_kind *kind)
{
    static const fm_sampler_kind *const order[] = {&fm_sampler_temperature, &fm_sampler_min_p, &fm_sampler_top_k,
                                                   &fm_sampler_top_p};
    for (size_t i = 0; i < FM_COUNT(order); i++)
        if (order[i] == kind) return i + 1;
    return 0;
}

static void take(fm_draw *d, const fm_sampling *p, const fm_sampler_kind *kind)
{
    if (kind == &fm_sampler_temperature) d->temperature = p->temperature;
    if (kind == &fm_sampler_min_p) d->min_p = p->min_p;
    if (kind == &fm_sampler_top_k) d->top_k = p->top_k;
    if (kind == &fm_sampler_top_p) d->top_p = p->top_p;
}

/* Collects what the list does; gives the name of the first thing that no device does, or NULL. */
static const char *collect(const fm_sampler *s, fm_draw *d)
{
    static const char other_order[] = "this order of samplers";
    size_t at = 0;
    *d = (fm_draw){.top_p = 1};
    if (s->p.mirostat) return "mirostat";
    if (!fm_sampler_bias.idle(s)) return fm_sampler_bias.name;
    for (size_t i = 0; i < s->n_order; i++) {
        const size_t place = place_of(s->order[i]);
        if (!fm_sampler_takes_part(s, s->order[i])) continue;
        if (!place) return s->order[i]->name;
        if (place <= at || (!at && place > 1)) return other_order;
        at = place;
        take(d, &s->p, s->order[i]);
    }
    if (s->p.temperature > 0 && s->p.dynatemp_range > 0) return "a dynamic temperature";
    return s->p.temperature > 0 && !at ? other_order : NULL;
}

FM_API const char *fm_sampler_host_reason(const fm_sampler *s)
{
    fm_draw d;
    return collect(s, &d);
}

bool fm_sampler_draw(const fm_sampler *s, uint64_t choice, uint64_t position, fm_draw *out)
{
    if (collect(s, out)) return false;
    out->random = fm_rng_uniform(s->p.seed, choice * FM_DRAWS + FM_DRAW_TOKEN, position);
    return true;
}
