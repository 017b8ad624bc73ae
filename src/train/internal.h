/* internal.h - what a trainer is made of. */
#ifndef FM_TRAIN_INTERNAL_H
#define FM_TRAIN_INTERNAL_H

#include "base/pool.h"
#include "train/trainer.h"

struct fm_trainer {
    fm_train_options o;
    const fm_data *data;
    const fm_allocator *a;
    fm_kernels k;
    fm_pool *pool;
    fm_gradients g;
    fm_params p;
    float *moments;   /* (2, floats): m, then v */
    float **m1, **m2; /* (n) as fm_gradients.g */
    double *squares;  /* sums of squares of the gradients, FM_SQUARES at a time */
    fm_cursor cursor;
    uint64_t step, tokens;
    size_t bytes;

    /* A micro batch: up to micro_batch windows, cut at document ends. */
    int32_t *ids, *targets; /* (micro_batch, length) */
    float *loss;            /* (micro_batch, length) */
    fm_piece *pieces;       /* (micro_batch, length) at most one a token */
    void *scratch;
    size_t scratch_bytes;
};

#endif
