/* run.h - the folder of a run: checkpoints step-00000120, each a Hugging Face model with the optimiser's state beside it. */
#ifndef FM_TRAIN_RUN_H
#define FM_TRAIN_RUN_H

#include "train/trainer.h"

typedef struct fm_run_folder {
    const char *out;       /* exists or is made */
    const char *tokenizer; /* folder whose tokenizer files go into each checkpoint, or NULL */
    size_t keep;           /* older checkpoints that stay; the one before the newest always does */
    bool milestone;        /* what is saved now stays for good: a file named "keep" in it says so, which anyone may put there */
    const fm_allocator *a;
    bool locked;
    int lock; /* descriptor of the folder while it is locked */
} fm_run_folder;

/* Makes the folder, and keeps other trainings out of it until it is unlocked or the process ends; locked is fine.
 * FM_ERR_ARGUMENT: one is there. */
fm_status fm_run_lock(fm_run_folder *f, fm_error *err);
void fm_run_unlock(fm_run_folder *f); /* unlocked is fine */

/* Path of the newest whole checkpoint (free with fm_free(a, p)), or NULL with FM_OK when there is none. */
fm_status fm_run_newest(char **dir, const fm_run_folder *f, fm_error *err);
/* The same of those that have seen at most so many steps. */
fm_status fm_run_newest_until(char **dir, const fm_run_folder *f, uint64_t step, fm_error *err);
/* Is `dir` a checkpoint of this run? */
bool fm_run_holds(const fm_run_folder *f, const char *dir);
/* Writes the checkpoint beside its place, syncs, renames; then removes those that are too old, but for milestones and the
 * trainer's anchor.  A run that is killed at any moment leaves the one before whole. */
fm_status fm_run_save(const fm_run_folder *f, const fm_trainer *t, fm_error *err);

/* Goes back to the anchor of the trainer (fm_trainer_rewind()); *gone is false when it has none. */
fm_status fm_run_rewind(bool *gone, const fm_run_folder *f, fm_trainer *t, fm_error *err);

#endif
