/* draw.h - a choice as a device makes it. */
#ifndef FM_RUNTIME_SAMPLER_DRAW_H
#define FM_RUNTIME_SAMPLER_DRAW_H

#include "fmamba.h"
#include "model/model.h"

/* What a device has to know for the choice that fm_sampler_choose() would make; false where it cannot make it. */
bool fm_sampler_draw(const fm_sampler *s, uint64_t choice, uint64_t position, fm_draw *out);

#endif
