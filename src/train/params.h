/* params.h - the weights that training moves: f32 masters in one block.  The model computes with them, or what they round to. */
#ifndef FM_TRAIN_PARAMS_H
#define FM_TRAIN_PARAMS_H

#include "base/pool.h"
#include "train/gradients.h"

/* What the matrices of the model are while it learns.  In bf16 they are rounded from the masters after each step: to nearest, or
 * up or down by chance, so that on average nothing is lost of steps that are smaller than half a bf16's last place. */
typedef enum fm_params_kind { FM_PARAMS_F32, FM_PARAMS_BF16, FM_PARAMS_BF16_STOCHASTIC } fm_params_kind;
#define FM_PARAMS_KINDS "f32|bf16|bf16-stochastic"

/* The masters lie in the order and layout of fm_gradients, so that optimisers run over both at once.  Of A the master is
 * A_log; A itself follows it after each step. */
typedef struct fm_params {
    fm_model *m;
    const fm_allocator *a;
    float **w; /* (n) as fm_gradients.g */
    size_t n, floats;
    float *memory; /* (floats), on the model's device */
    float *decays; /* on a device: A of all layers, which on the CPU lies in the model */
    fm_params_kind kind;
    uint64_t seed;
    uint64_t rounded;       /* the step whose number keyed the chances of the last rounding: part of a checkpoint */
    uint16_t **halves;      /* (n) bf16 of the matrices in the layout of w, there; NULL for the others; NULL with f32 */
    uint16_t *halves_block; /* (floats), on the model's device */
} fm_params;

/* Decodes every weight into masters and makes the model use them: from here on it belongs to training, and every session or
 * backward pass over it sees each step.  The layout is that of `g`.  The model's weights are still the host's when it has a
 * device: they go there here.  Then fm_params_settle(). */
fm_status fm_params_open(fm_params *p, fm_model *m, const fm_gradients *g, fm_params_kind kind, uint64_t seed, fm_error *err);
void fm_params_free(fm_params *p); /* the model must not be used afterwards */
/* After the masters have moved in step `step`: what the model computes from them.  A function of both. */
void fm_params_settle(fm_params *p, const fm_kernels *k, fm_pool *pool, uint64_t step);
/* Weight decay is for matrices, the convolution and the embedding: not for A, D, biases and norms (training.md 3.2). */
bool fm_params_decays(const fm_params *p, size_t i);

/* model.safetensors of a checkpoint, in the names and layout of Hugging Face: what the model computes with. */
fm_status fm_params_write(const fm_params *p, const char *path, fm_error *err);

#endif
