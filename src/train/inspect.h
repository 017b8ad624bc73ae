/* inspect.h - a look into a model in training: what is damaged, and what the scan of each layer works with. */
#ifndef FM_TRAIN_INSPECT_H
#define FM_TRAIN_INSPECT_H

#include "train/trainer.h"

/* Appends which weight, or else which gradient of the last step, is not finite, by its name in checkpoints; nothing when all are.
 * Gradients are looked at from the head back, the way that they were computed. */
void fm_trainer_find_damage(const fm_trainer *t, fm_str *out);

/* Of values that were looked at. */
typedef struct fm_spread {
    double least, mean, most, rms;
} fm_spread;

/* What the scan of a layer works with: the step size after softplus, what is written, what is read, and the states. */
typedef struct fm_layer_spread {
    fm_spread dt, B, C, h;
} fm_layer_spread;

enum { FM_SPREAD_TOKENS = 32 }; /* states are looked at after each so many tokens */

/* Runs the window that training reads next from a zero state, without moving anything; out is (n_layer). */
fm_status fm_trainer_spread(const fm_trainer *t, fm_layer_spread *out, fm_error *err);

#endif
