/* estimate.h - what training a model takes, from its configuration alone: nothing of its weights is there. */
#ifndef FM_TRAIN_ESTIMATE_H
#define FM_TRAIN_ESTIMATE_H

#include "train/trainer.h"

/* Ways to do without memory, see trainer.h. */
typedef enum fm_train_mode {
    FM_TRAIN_KEEP,
    FM_TRAIN_RECOMPUTE,
    FM_TRAIN_CHUNKS,
    FM_TRAIN_TRUNCATED,
    FM_TRAIN_MODES
} fm_train_mode;

typedef struct fm_estimate {
    bool on_device; /* all bytes are of a GPU's memory, as far as kernels ask for them: not what its driver takes */
    uint64_t n_params;
    double forward_flops;               /* of a token; a step takes three times that */
    size_t weights, gradients, moments; /* bytes */
    size_t rest;                        /* bytes of a batch, lists, sums */
    size_t pass[FM_TRAIN_MODES];        /* bytes; 0: this mode is none, the chunk is no shorter than the batch */
    size_t total;                       /* bytes of what the options ask for */
    fm_train_mode mode;                 /* which is this */
    size_t chunk;                       /* tokens, also where the options have none */
} fm_estimate;

/* Of the device that the options name, which need not be there.  FM_ERR_MEMORY when sizes overflow; FM_ERR_DEVICE in a program
 * that knows no such device. */
fm_status fm_estimate_make(fm_estimate *e, const fm_arch *arch, const fm_config *c, const fm_train_options *o,
                           const fm_allocator *a, fm_error *err);
size_t fm_estimate_total(const fm_estimate *e, fm_train_mode mode); /* bytes; 0 for no mode */
/* The keys that ask for a mode: "batch.recompute=true". */
const char *fm_train_mode_keys(fm_train_mode mode);

/* Forward operations of a token, a multiplication and an addition being two (spec training.md 7). */
double fm_forward_flops(const fm_config *c);

#endif
