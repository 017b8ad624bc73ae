/* tensors.h - one float per weight (the weights, their gradients, the optimiser's moments) to and from safetensors, in the names
 * and layout of a Hugging Face checkpoint.  In memory they lie as the model's weights do: some of them transposed. */
#ifndef FM_TRAIN_TENSORS_H
#define FM_TRAIN_TENSORS_H

#include "model/model.h"

/* Sets of values that go into one file, "<prefix><tensor name>" each. */
typedef struct fm_tensor_set {
    const char *prefix;
    float *const *values; /* (fm_model_weight_count()) NULL where the model has no such weight */
    const uint16_t *const
        *halves; /* the same in bf16, written instead where it is not NULL; NULL: there is none.  Never read */
} fm_tensor_set;

typedef struct fm_tensor_file {
    const fm_model *m;
    const fm_tensor_set *sets;
    size_t n_sets;
    fm_dtype type;     /* of the values in the file: FM_F32, or FM_BF16 */
    const float *loss; /* a tensor `loss` (1), or NULL */
    const fm_allocator *a;
} fm_tensor_file;

/* Written beside the target, synced, renamed. */
fm_status fm_tensors_write(const fm_tensor_file *f, const char *path, fm_error *err);
/* Fills the values of every set.  Errors name the tensor that is missing or of another shape. */
fm_status fm_tensors_read(const fm_tensor_file *f, const char *path, fm_error *err);

#endif
