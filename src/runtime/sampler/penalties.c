/* penalties.c - repetition, over a window of prompt and output (HF, llama.cpp); presence and frequency, over generated text only
 * (OpenAI, vLLM). */
#include "runtime/sampler/internal.h"

static bool idle(const struct fm_sampler *s)
{
    return s->p.repeat_penalty == 1.0f && s->p.presence_penalty == 0.0f && s->p.frequency_penalty == 0.0f;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    const float repeat = s->p.repeat_penalty, presence = s->p.presence_penalty, frequency = s->p.frequency_penalty;
    for (size_t i = 0; i < c->n; i++) {
        float *z = &c->c[i].logit;
        const int32_t id = c->c[i].id;
        const uint32_t count = s->generated[id];
        if (s->window[id]) *z = *z > 0 ? *z / repeat : *z * repeat;
        *z -= frequency * (float)count + (count ? presence : 0.0f);
    }
    c->sorted = 0;
}

const fm_sampler_kind fm_sampler_penalties = {.name = "penalties", .apply = apply, .idle = idle};
