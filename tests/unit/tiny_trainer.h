/* tiny_trainer.h - a small model over a short text, for tests of what training does. */
#ifndef FM_TESTS_UNIT_TINY_TRAINER_H
#define FM_TESTS_UNIT_TINY_TRAINER_H

#include <sys/stat.h>

#include "model/shape.h"
#include "train/init.h"
#include "train/trainer.h"
#include "unit/testing.h"

enum { LENGTH = 24, TEXT = 24 * 12 + 1, EOS = 3 };

typedef struct world {
    test_folder f;
    char dir[256];
    int32_t ids[TEXT];
    fm_tokens text;
    fm_data data;
} world;

FM_UNUSED static fm_config tiny_config(bool norms)
{
    return (fm_config){.d_model = 32,
                       .d_inner = 64,
                       .d_state = 8,
                       .d_conv = 4,
                       .dt_rank = 4,
                       .n_layer = 2,
                       .vocab = 50,
                       .norm_eps = 1e-5f,
                       .mixer_norms = norms,
                       .mixer_rms_eps = 1e-6f,
                       .use_conv_bias = true,
                       .tie = !norms,
                       .pad_vocab_multiple = 1,
                       .n_eos = 1};
}

FM_UNUSED static void world_open(world *w, bool norms)
{
    fm_error err = {0};
    const fm_config c = tiny_config(norms);
    w->f = test_folder_make();
    for (size_t i = 0; i < TEXT; i++) w->ids[i] = (int32_t)(i * i * 7 + i * 3) % 50;
    for (size_t i = 10; i < TEXT; i += 37) w->ids[i] = EOS;
    w->text = (fm_tokens){.ids = w->ids, .n = TEXT};
    w->data = (fm_data){.sources = {&w->text}, .weights = {1}, .n_sources = 1, .length = LENGTH, .seed = 5};
    if (fm_init_write(fm_arch_by_name(norms ? "falcon_mamba" : "mamba"), &c, 1, w->f.path, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
}

typedef struct run {
    fm_model *m;
    fm_trainer *t;
} run;

FM_UNUSED static fm_train_options options(void)
{
    fm_train_options o = fm_train_defaults();
    o.schedule = (fm_schedule){.peak = 3e-3, .final = 0.1, .warmup = 200, .decay_begin = 4000, .total = 6000, .batch_end = 3};
    o.length = LENGTH;
    o.eos = EOS;
    o.seed = 5;
    o.threads = 1;
    return o;
}

FM_UNUSED static run run_open(const world *w, const fm_train_options *o)
{
    run r;
    fm_error err = {0};
    if (fm_model_open(&r.m, w->f.path, NULL, &err) != FM_OK || fm_trainer_open(&r.t, r.m, &w->data, o, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    return r;
}

FM_UNUSED static void run_close(run *r)
{
    fm_trainer_free(r->t);
    fm_model_free(r->m);
}

#endif
