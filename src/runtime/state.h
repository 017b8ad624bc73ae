/* state.h - a detached snapshot of a sequence: what the file holds and what a session takes in. */
#ifndef FM_RUNTIME_STATE_H
#define FM_RUNTIME_STATE_H

#include "model/model.h"

enum {
    FM_STATE_D_MODEL,
    FM_STATE_D_INNER,
    FM_STATE_D_STATE,
    FM_STATE_D_CONV,
    FM_STATE_N_LAYER,
    FM_STATE_VOCAB,
    FM_STATE_SIZES
};

struct fm_state {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    char model_id[65], arch[33], weight_type[17], name[65]; /* terminated */
    uint64_t sizes[FM_STATE_SIZES];
    uint64_t tokens, state_floats;
    fm_state_type type; /* as it was stored; fp32 in memory */
    bool has_logits;
    float *state;  /* (state_floats) */
    float *logits; /* (vocab) */
};

/* A state whose numbers are still to be filled in: allocator and arrays only. */
fm_status fm_state_new(fm_state **out, uint64_t state_floats, uint64_t vocab, const fm_allocator *a, fm_error *err);

#endif
