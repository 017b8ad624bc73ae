/* init.h - an untrained checkpoint: config.json and model.safetensors of random weights (spec training.md 3.1). */
#ifndef FM_TRAIN_INIT_H
#define FM_TRAIN_INIT_H

#include "model/model.h"

/* Into an existing folder.  The same values for the same seed, whatever the machine. */
fm_status fm_init_write(const fm_arch *arch, const fm_config *c, uint64_t seed, const char *dir, const fm_allocator *a,
                        fm_error *err);

#endif
