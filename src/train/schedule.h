/* schedule.h - learning rate and batch size as functions of the tokens seen (spec training.md 1.2 and 2). */
#ifndef FM_TRAIN_SCHEDULE_H
#define FM_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

/* How the rate falls from `peak` to `peak * final` while u goes from 0 to 1 over the decay (r = final):
 *   geometric  peak r^u (Falcon Mamba)                 linear   peak (1 - (1 - r) u)
 *   cosine     peak (r + (1 - r)(1 + cos pi u) / 2)    sqrt     peak (r + (1 - r)(1 - sqrt u))
 *   inverse    1 / rate is linear in u (WSD-S)         megatron peak (r + (1 - r)(2 0.5^u - 1)), its "exponential" */
typedef enum fm_decay {
    FM_DECAY_GEOMETRIC,
    FM_DECAY_LINEAR,
    FM_DECAY_COSINE,
    FM_DECAY_SQRT,
    FM_DECAY_INVERSE,
    FM_DECAY_MEGATRON,
    FM_DECAY_1_SQRT /* sqrt, as Hugging Face calls it */
} fm_decay;
#define FM_DECAYS "geometric|linear|cosine|sqrt|inverse|megatron|1-sqrt"

/* All in tokens.  Warm-up is linear from 0; between it and `decay_begin` the rate is constant; cosine over the whole run is
 * decay_begin = warmup. */
typedef struct fm_schedule {
    double peak, final; /* final is a fraction of peak */
    uint64_t warmup, decay_begin, total;
    fm_decay decay;
    /* Batch ramp: linear from batch_begin to batch_end samples over ramp tokens; 0: constant. */
    uint32_t batch_begin, batch_end;
    uint64_t ramp;
    bool scale_with_batch; /* rate * sqrt(batch / batch_end): keeps Adam's noise temperature through the ramp */
} fm_schedule;

uint32_t fm_schedule_batch(const fm_schedule *s, uint64_t tokens); /* samples of the step that begins here, >= 1 */
uint32_t fm_schedule_most(const fm_schedule *s);                   /* samples of the largest step */
/* Rate of the step that begins at `tokens` and takes `batch` samples. */
double fm_schedule_rate(const fm_schedule *s, uint64_t tokens, uint32_t batch);

#endif
