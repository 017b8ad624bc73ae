/* train_estimate.h - what training takes, said before it begins. */
#ifndef FM_CLI_TRAIN_ESTIMATE_H
#define FM_CLI_TRAIN_ESTIMATE_H

#include "train/estimate.h"

/* Appends the table of `train --estimate`. */
void fm_estimate_put(fm_str *out, const fm_estimate *e, const char *name, const fm_train_options *o);
/* Bytes that are free where the estimate is of; UINT64_MAX: nobody knows.  FM_ERR_DEVICE: there is no such device. */
fm_status fm_estimate_free(uint64_t *free, const fm_estimate *e, const fm_train_options *o, fm_error *err);
/* FM_ERR_MEMORY when what the options ask for is more than `free` bytes: says how much, and which keys would take less. */
fm_status fm_estimate_check(const fm_estimate *e, const char *name, uint64_t free, fm_error *err);

#endif
