/* schedule.c - see schedule.h. */
#include "train/schedule.h"

#include <math.h>

/* Fraction of the peak, u in [0, 1]. */
static double decayed(fm_decay decay, double r, double u)
{
    switch (decay) {
    case FM_DECAY_LINEAR: return 1.0 - (1.0 - r) * u;
    case FM_DECAY_COSINE: return r + (1.0 - r) * 0.5 * (1.0 + cos(acos(-1.0) * u));
    case FM_DECAY_SQRT:
    case FM_DECAY_1_SQRT: return r + (1.0 - r) * (1.0 - sqrt(u));
    case FM_DECAY_INVERSE: return r > 0.0 ? 1.0 / (1.0 - u + u / r) : (u < 1.0 ? 1.0 : 0.0);
    case FM_DECAY_MEGATRON: return r + (1.0 - r) * (2.0 * pow(0.5, u) - 1.0);
    default: return pow(r, u);
    }
}

uint32_t fm_schedule_batch(const fm_schedule *s, uint64_t tokens)
{
    if (s->ramp == 0 || tokens >= s->ramp) return s->batch_end;
    const double u = (double)tokens / (double)s->ramp;
    const double batch = (double)s->batch_begin + u * ((double)s->batch_end - (double)s->batch_begin);
    return batch < 1.0 ? 1 : (uint32_t)(batch + 0.5);
}

uint32_t fm_schedule_most(const fm_schedule *s)
{
    const uint32_t most = s->ramp > 0 && s->batch_begin > s->batch_end ? s->batch_begin : s->batch_end;
    return most ? most : 1;
}

double fm_schedule_rate(const fm_schedule *s, uint64_t tokens, uint32_t batch)
{
    double f = 1.0;
    if (tokens < s->warmup)
        f = (double)(tokens + 1) / (double)s->warmup;
    else if (tokens >= s->total)
        f = s->total > s->decay_begin ? s->final : 1.0;
    else if (tokens >= s->decay_begin)
        f = decayed(s->decay, s->final, (double)(tokens - s->decay_begin) / (double)(s->total - s->decay_begin));
    if (s->scale_with_batch) f *= sqrt((double)batch / (double)s->batch_end);
    return s->peak * f;
}
