/* params.h - the weights that training moves: f32 masters in one block, which the model computes with. */
#ifndef FM_TRAIN_PARAMS_H
#define FM_TRAIN_PARAMS_H

#include "train/gradients.h"

/* The masters lie in the order and layout of fm_gradients, so that optimisers run over both at once.  Of A the master is
 * A_log; A itself follows it after each step. */
typedef struct fm_params {
    fm_model *m;
    const fm_allocator *a;
    float **w; /* (n) as fm_gradients.g */
    size_t n, floats;
    float *memory; /* (floats) */
} fm_params;

/* Decodes every weight into masters and makes the model use them: from here on it belongs to training, and every session or
 * backward pass over it sees each step.  The layout is that of `g`. */
fm_status fm_params_open(fm_params *p, fm_model *m, const fm_gradients *g, fm_error *err);
void fm_params_free(fm_params *p); /* the model must not be used afterwards */
/* After the masters have moved: what the model computes from them. */
void fm_params_settle(fm_params *p);
/* Weight decay is for matrices, the convolution and the embedding: not for A, D, biases and norms (training.md 3.2). */
bool fm_params_decays(const fm_params *p, size_t i);

/* model.safetensors of a checkpoint, in the names and layout of Hugging Face, f32 or bf16. */
fm_status fm_params_write(const fm_params *p, fm_dtype type, const char *path, fm_error *err);

#endif
