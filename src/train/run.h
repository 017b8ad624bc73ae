/* run.h - the folder of a run: checkpoints step-00000120, each a Hugging Face model with the optimiser's state beside it. */
#ifndef FM_TRAIN_RUN_H
#define FM_TRAIN_RUN_H

#include "train/trainer.h"

typedef struct fm_run_folder {
    const char *out;       /* exists or is made */
    const char *tokenizer; /* folder whose tokenizer files go into each checkpoint, or NULL */
    size_t keep;           /* older checkpoints that stay */
    const fm_allocator *a;
} fm_run_folder;

/* Path of the newest whole checkpoint (free with fm_free(a, p)), or NULL with FM_OK when there is none. */
fm_status fm_run_newest(char **dir, const fm_run_folder *f, fm_error *err);
/* Writes the checkpoint beside its place, syncs, renames; then removes those that are too old.  A run that is killed at any
 * moment leaves the one before whole. */
fm_status fm_run_save(const fm_run_folder *f, const fm_trainer *t, fm_error *err);

#endif
