/* internal.h - what a trainer is made of. */
#ifndef FM_TRAIN_INTERNAL_H
#define FM_TRAIN_INTERNAL_H

#include "base/pool.h"
#include "train/bptt.h"
#include "train/outliers.h"
#include "train/trainer.h"

struct fm_trainer {
    fm_train_options o;
    const fm_data *data;
    const fm_allocator *a;
    fm_kernels k;
    fm_pool *pool;
    fm_gradients g;
    fm_params p;
    float *moments;         /* (2, floats): m, then v */
    float **m1, **m2;       /* (n) as fm_gradients.g */
    double *squares;        /* sums of squares of the gradients, FM_SQUARES at a time */
    double *device_squares; /* the same there; NULL on the CPU */
    fm_cursor cursor;
    uint64_t step, tokens;
    fm_outliers outliers;
    uint64_t anchor, rewinds;
    bool masters; /* of the checkpoint that is read: they lie beside the moments */
    size_t bytes;
    fm_error error; /* of the last step */

    int32_t *windows; /* (fm_schedule_most(), length + 1) of a step */
    /* A micro batch: up to micro_batch of them, cut at document ends. */
    int32_t *ids, *targets; /* (micro_batch, length) */
    float *loss;            /* (micro_batch, length) */
    fm_piece *pieces;       /* (micro_batch, length) at most one a token */
    fm_pass pass;
    fm_bptt bptt; /* instead of scratch, with chunks */
};

#endif
