/* trainer.h - one model being trained: batches in, weights moved, checkpoints out.  One thread at a time; the work is done by
 * a pool.
 *
 * A step is a function of the checkpoint before it and of the options: the same bits for any number of threads, with layers kept
 * or run again, and after any interruption.  The micro batch is an option like any other: it groups the sums of gradients. */
#ifndef FM_TRAIN_TRAINER_H
#define FM_TRAIN_TRAINER_H

#include "train/data.h"
#include "train/params.h"
#include "train/schedule.h"

typedef struct fm_train_options {
    fm_schedule schedule;
    size_t length;      /* tokens of a window */
    size_t micro_batch; /* windows computed at once; memory grows with it */
    bool carry;         /* state runs on over document ends inside a window; default: each document begins at zero */
    int32_t eos;        /* id that ends a document; negative: none */
    float beta1, beta2, eps, weight_decay;
    float clip; /* largest norm of all gradients together; 0: no limit */
    float z_loss;
    float dropout; /* of the embedding and of what each layer adds; 0: none */
    bool recompute;
    uint64_t seed;
    unsigned threads;
    const char *cpu;
} fm_train_options;

fm_train_options fm_train_defaults(void);

typedef struct fm_train_step {
    uint64_t step, tokens; /* after it */
    double loss;           /* nats per scored token */
    double grad_norm;      /* before clipping */
    double rate;
    uint32_t batch; /* windows */
    bool finite;    /* false: loss or gradients were not, and nothing moved */
} fm_train_step;

typedef struct fm_trainer fm_trainer;

/* Takes over the model's weights (fm_params_open); the model, the data and `a` must outlive it. */
fm_status fm_trainer_open(fm_trainer **out, fm_model *m, const fm_data *data, const fm_train_options *o, const fm_allocator *a,
                          fm_error *err);
void fm_trainer_free(fm_trainer *t);
size_t fm_trainer_bytes(const fm_trainer *t); /* what it holds: masters, gradients, moments, a pass */

/* One step at the current place of the schedule. */
fm_train_step fm_trainer_step(fm_trainer *t);
uint64_t fm_trainer_tokens(const fm_trainer *t);

/* Writes model.safetensors, optimizer.safetensors and trainer.json into an existing folder; and goes on from such a folder, whose
 * weights the model was opened from. */
fm_status fm_trainer_save(const fm_trainer *t, const char *dir, fm_error *err);
fm_status fm_trainer_resume(fm_trainer *t, const char *dir, fm_error *err);

#endif
