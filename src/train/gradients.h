/* gradients.h - one gradient per weight of a model, in f32 and in the layout that the weight has in memory,
 * on the model's device; of A it is the
 * gradient of A_log, which is what checkpoints hold and optimisers move. */
#ifndef FM_TRAIN_GRADIENTS_H
#define FM_TRAIN_GRADIENTS_H

#include "model/model.h"

typedef struct fm_gradients {
    const fm_model *m;
    const fm_allocator *a;
    fm_where there; /* the model's device */
    float **g;      /* (fm_model_weight_count()) for fm_backward.g; NULL where the model has no such weight */
    size_t *counts; /* floats of each */
    size_t n, floats;
    float *memory; /* (floats) all of them, in order */
} fm_gradients;

/* Zeros.  The model must outlive them. */
fm_status fm_gradients_open(fm_gradients *g, const fm_model *m, const fm_allocator *a, fm_error *err);
void fm_gradients_free(fm_gradients *g);

/* After the backward passes of a step: what they left of A becomes the gradient of A_log. */
void fm_gradients_settle(fm_gradients *g, const fm_kernels *k, fm_pool *pool);

/* Mean next-token cross entropy of ids (n >= 2) from the zero state, and its gradients added to g.  Runs on `pool`. */
fm_status fm_gradients_of(fm_gradients *g, double *loss, const fm_kernels *k, fm_pool *pool, const int32_t *ids, size_t n,
                          fm_error *err);

/* A safetensors file with `loss` (1) and "grad.<name>" of every tensor, named and laid out as in a Hugging Face checkpoint. */
fm_status fm_gradients_write(const fm_gradients *g, double loss, const char *path, fm_error *err);

#endif
