/* mamba.h - what the Mamba-1 family shares: configuration keys, names of the weights outside the layers. */
#ifndef FM_MODEL_ARCH_MAMBA_H
#define FM_MODEL_ARCH_MAMBA_H

#include "model/arch/arch.h"

extern const fm_weight_def fm_mamba_globals[FM_GLOBAL_COUNT];

fm_status fm_mamba_read_config(fm_config *c, const fm_source *s, fm_error *err);
const fm_block *fm_mamba_block(const fm_config *c, size_t layer);
void fm_mamba_put_gguf(fm_gguf_writer *w, const fm_config *c);
void fm_mamba_put_json(fm_jsonw *w, const fm_config *c);

/* Whether the source is a Mamba-1 model, and whether it has norms on dt, B, C. */
bool fm_mamba_claims(const fm_source *s, bool *mixer_norms);

#endif
