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

/* What becomes of a step whose loss or gradient norm stands out (outliers.h): it is told of and taken as any other; nothing
 * moves; or nothing moves and the caller goes back with fm_trainer_rewind(). */
typedef enum fm_outlier_action { FM_OUTLIER_NOTE, FM_OUTLIER_SKIP, FM_OUTLIER_REWIND } fm_outlier_action;
#define FM_OUTLIER_ACTIONS "note|skip|rewind"

typedef struct fm_train_options {
    fm_schedule schedule;
    size_t length;      /* tokens of the longest window */
    size_t micro_batch; /* windows computed at once; memory grows with it */
    size_t chunk;       /* tokens of them computed at once, see bptt.h; 0: all */
    bool truncate;      /* gradients end at the borders of chunks */
    bool carry;         /* state runs on over document ends inside a window; default: each document begins at zero */
    int32_t eos;        /* id that ends a document; negative: none */
    float beta1, beta2, eps, weight_decay;
    float clip; /* largest norm of all gradients together; 0: no limit */
    float z_loss;
    float dropout; /* of the embedding and of what each layer adds; 0: none */
    bool recompute;
    fm_params_kind weights;
    size_t outlier_window; /* steps; 0: nobody looks */
    double loss_z, norm_z; /* what stands out, in standard deviations above the mean; 0: nothing */
    fm_outlier_action outlier_action;
    uint64_t seed;
    unsigned threads;
    const char *cpu;
    const char *device;   /* fm_device_open(); the model is opened on the CPU and goes there */
    bool f32_activations; /* on a device: products in f32; default: rounded to bf16, sums and masters in f32 */
} fm_train_options;

fm_train_options fm_train_defaults(void);

typedef struct fm_train_step {
    /* FM_ERR_DEVICE: the device is lost, and with it what was not saved.  FM_ERR_FORMAT, FM_ERR_SHAPE: the data are damaged, and
     * nothing has moved. */
    fm_status status;
    uint64_t step, tokens; /* after it */
    double loss;           /* nats per scored token */
    double grad_norm;      /* before clipping */
    double rate;
    uint32_t batch; /* windows */
    bool finite;    /* false: loss or gradients were not, and nothing moved */
    double loss_z, norm_z;
    bool outlier;      /* it stood out ... */
    uint64_t in_a_row; /* ... as the last so many did */
    bool moved;        /* the weights did */
} fm_train_step;

typedef struct fm_trainer fm_trainer;

/* Takes over the model's weights (fm_params_open); the model, the data and `a` must outlive it. */
fm_status fm_trainer_open(fm_trainer **out, fm_model *m, const fm_data *data, const fm_train_options *o, const fm_allocator *a,
                          fm_error *err);
void fm_trainer_free(fm_trainer *t);
size_t fm_trainer_bytes(const fm_trainer *t); /* what it holds: masters, gradients, moments, a pass */

/* One step at the current place of the schedule. */
fm_train_step fm_trainer_step(fm_trainer *t);
const char *fm_trainer_error(const fm_trainer *t); /* after a step whose status is not FM_OK */
uint64_t fm_trainer_tokens(const fm_trainer *t);

/* Writes model.safetensors, optimizer.safetensors, trainer.json and their check sums into an existing folder; and goes on from
 * such a folder, whose weights the model was opened from: FM_ERR_FORMAT names a file that is not what was written. */
fm_status fm_trainer_save(const fm_trainer *t, const char *dir, fm_error *err);
fm_status fm_trainer_resume(fm_trainer *t, const char *dir, fm_error *err);
/* How far the checkpoint in a folder has come. */
fm_status fm_trainer_place(const char *dir, uint64_t *step, uint64_t *tokens, const fm_allocator *a, fm_error *err);

/* Makes the place where the training is one to go back to: the checkpoint that is saved next. */
void fm_trainer_anchor(fm_trainer *t);
uint64_t fm_trainer_anchored(const fm_trainer *t); /* the step of that place; 0: none */
uint64_t fm_trainer_rewinds(const fm_trainer *t);  /* how often it was gone back to */
/* Goes back to the checkpoint of that step in `dir`, but not to its data: what was read since is not read again. */
fm_status fm_trainer_rewind(fm_trainer *t, const char *dir, fm_error *err);

#endif
