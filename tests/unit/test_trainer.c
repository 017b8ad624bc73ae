/* test_trainer.c - that training learns, and that a step is a function of the checkpoint before it: the same bits for any number
 * of threads, micro batch, recomputation and after a resume. */
#include <math.h>
#include <sys/stat.h>

#include "base/json.h"
#include "model/shape.h"
#include "testing.h"
#include "train/init.h"
#include "train/trainer.h"

enum { LENGTH = 24, TEXT = 24 * 12 + 1, EOS = 3 };

typedef struct world {
    test_folder f;
    char dir[256];
    int32_t ids[TEXT];
    fm_tokens text;
    fm_data data;
} world;

static fm_config tiny_config(bool norms)
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

static void world_open(world *w, bool norms)
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

static fm_train_options options(void)
{
    fm_train_options o = fm_train_defaults();
    o.schedule = (fm_schedule){.peak = 3e-3, .final = 0.1, .warmup = 200, .decay_begin = 4000, .total = 6000, .batch_end = 3};
    o.length = LENGTH;
    o.eos = EOS;
    o.seed = 5;
    o.threads = 1;
    return o;
}

static run run_open(const world *w, const fm_train_options *o)
{
    run r;
    fm_error err = {0};
    if (fm_model_open(&r.m, w->f.path, NULL, &err) != FM_OK || fm_trainer_open(&r.t, r.m, &w->data, o, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    return r;
}

static void run_close(run *r)
{
    fm_trainer_free(r->t);
    fm_model_free(r->m);
}

static void losses(double *out, size_t n, const world *w, const fm_train_options *o)
{
    run r = run_open(w, o);
    for (size_t i = 0; i < n; i++) {
        const fm_train_step s = fm_trainer_step(r.t);
        assert_true(s.finite);
        assert_int_equal(s.step, i + 1);
        out[2 * i] = s.loss;
        out[2 * i + 1] = s.grad_norm;
    }
    run_close(&r);
}

enum { STEPS = 6 };

/* Against one thread with one window at a time. */
static void bits_do_not_depend_on_how(void **state)
{
    (void)state;
    for (int norms = 0; norms < 2; norms++) {
        world w;
        double want[2 * STEPS], got[2 * STEPS];
        fm_train_options o = options();
        world_open(&w, norms);
        losses(want, STEPS, &w, &o);
        assert_true(want[0] > log(50) - 0.5 && want[0] < log(50) + 0.5); /* untrained: no better than chance */
        o.threads = 3;
        losses(got, STEPS, &w, &o);
        assert_memory_equal(got, want, sizeof want);
        o.recompute = true;
        losses(got, STEPS, &w, &o);
        assert_memory_equal(got, want, sizeof want);
        o.dropout = 0.3f;
        losses(want, STEPS, &w, &o);
        assert_true(want[0] != got[0]);
        o.recompute = false;
        o.threads = 1;
        losses(got, STEPS, &w, &o);
        assert_memory_equal(got, want, sizeof want);
        test_folder_remove(&w.f);
    }
}

static void a_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    world w;
    fm_train_options o = options();
    world_open(&w, true);
    w.text.n = LENGTH + 1; /* one window, over and over */
    o.schedule = (fm_schedule){.peak = 1e-2, .final = 1, .batch_end = 1};
    o.weight_decay = 0;
    run r = run_open(&w, &o);
    fm_train_step s = {0};
    for (int i = 0; i < 300; i++) s = fm_trainer_step(r.t);
    if (s.loss > 0.1) fail_msg("the loss is still %g", s.loss);
    run_close(&r);
    test_folder_remove(&w.f);
}

/* Three steps, a checkpoint, a new trainer from it, three more: the bits of six in a row. */
static void resuming_changes_no_bit(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    double want[2 * STEPS];
    const fm_train_options o = options();
    world_open(&w, true);
    losses(want, STEPS, &w, &o);
    run r = run_open(&w, &o);
    for (int i = 0; i < STEPS / 2; i++) fm_trainer_step(r.t);
    assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
    run_close(&r);
    r = run_open(&w, &o);
    if (fm_trainer_resume(r.t, w.f.path, &err) != FM_OK) fail_msg("%s", err.text);
    for (int i = STEPS / 2; i < STEPS; i++) {
        const fm_train_step s = fm_trainer_step(r.t);
        assert_int_equal(s.step, i + 1);
        assert_true(s.loss == want[2 * i] && s.grad_norm == want[2 * i + 1]);
    }
    run_close(&r);
    test_folder_remove(&w.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_do_not_depend_on_how),
                                       cmocka_unit_test(a_batch_is_learnt_by_heart), cmocka_unit_test(resuming_changes_no_bit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
