/* fuzz_train_config.c - any bytes as the YAML of a training.  What is accepted can be looked at, its stages read, and let go. */
#define _GNU_SOURCE
#include <string.h>

#include "fuzz/format_file.h"
#include "train/stages.h"

static void look(const fm_train_config *c)
{
    fm_stage stages[FM_TRAIN_FILES_MAX];
    fm_data d = {.n_sources = 2, .weights = {1, 2}, .length = (size_t)c->length, .stages = stages, .n_stages = c->stages.n};
    if (fm_train_config_check(c, NULL) != FM_OK || fm_stages_parse(stages, c, &d, NULL) != FM_OK) return;
    if (c->decay > FM_DECAY_1_SQRT || c->weights > FM_PARAMS_BF16_STOCHASTIC || c->norms > FM_NORMS_OFF) abort();
    if (c->train.n == 0 || c->batch == 0 || !(c->rate >= 0.0)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fm_train_config c;
    fm_error err = {0};
    const memory_file f = memory_file_make(data, size);
    if (fm_train_config_open(&c, NULL, NULL) != FM_OK) abort();
    if (fm_train_config_read(&c, f.path, &err) == FM_OK)
        look(&c);
    else if (!strlen(err.text))
        abort(); /* a refusal has a sentence */
    fm_train_config_free(&c);
    close(f.fd);
    return 0;
}
