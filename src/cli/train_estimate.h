/* train_estimate.h - what training takes, said before it begins. */
#ifndef FM_CLI_TRAIN_ESTIMATE_H
#define FM_CLI_TRAIN_ESTIMATE_H

#include "train/estimate.h"

/* Appends the table of `train --estimate`. */
void fm_estimate_put(fm_str *out, const fm_estimate *e, const char *name, const fm_train_options *o);
/* FM_ERR_MEMORY when what the options ask for is more than `free` bytes: says how much, and which keys would take less. */
fm_status fm_estimate_check(const fm_estimate *e, const char *name, uint64_t free, fm_error *err);

#endif
