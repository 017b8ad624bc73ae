/* states.c - states in bf16, as a device may keep them: layer by layer what stays f32, then the rest two to a float. */
#include <string.h>

#include "model/model.h"

/* Floats of a layer's state that stay, and numbers behind them that are bf16. */
typedef struct parts {
    size_t whole, half;
} parts;

static parts parts_of(const fm_model *m, const fm_layer *l)
{
    const size_t whole = l->block->state_whole(&m->config);
    return (parts){whole, l->block->state_floats(&m->config) - whole};
}

void fm_state_narrow(const fm_model *m, float *out, const float *state)
{
    for (size_t i = 0; i < m->config.n_layer; i++) {
        const fm_layer *l = &m->layers[i];
        const parts n = parts_of(m, l);
        const float *from = state + l->state_offset;
        float *to = out + l->half_offset;
        memcpy(to, from, n.whole * sizeof *to);
        uint16_t *half = (uint16_t *)(void *)(to + n.whole);
        for (size_t k = 0; k < n.half; k++) half[k] = fm_f32_to_bf16(from[n.whole + k]);
        if (n.half % 2) half[n.half] = 0;
    }
}

/* From the last number to the first: each goes to where none is left that has yet to go. */
void fm_state_widen(const fm_model *m, float *state)
{
    for (size_t i = m->config.n_layer; i-- > 0;) {
        const fm_layer *l = &m->layers[i];
        const parts n = parts_of(m, l);
        const unsigned char *from = (const unsigned char *)(state + l->half_offset + n.whole);
        float *to = state + l->state_offset + n.whole;
        for (size_t k = n.half; k-- > 0;) {
            uint16_t v;
            memcpy(&v, from + k * sizeof v, sizeof v);
            to[k] = fm_bf16_to_f32(v);
        }
        memmove(state + l->state_offset, state + l->half_offset, n.whole * sizeof *state);
    }
}
