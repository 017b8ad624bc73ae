/* test_trainer.c - that training learns, and that a step is a function of the checkpoint before it: the same bits for any number
 * of threads, micro batch, recomputation and after a resume. */
#include <math.h>

#include "base/file.h"
#include "train/run.h"
#include "unit/tiny_trainer.h"

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

/* The room for a step's windows is that of the largest, which may be the first. */
static void a_batch_may_shrink(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    fm_trainer *t;
    fm_train_options o = options();
    o.schedule.batch_begin = 7, o.schedule.batch_end = 2, o.schedule.ramp = 10 * LENGTH;
    world_open(&w, true);
    run r = run_open(&w, &o);
    assert_int_equal(fm_trainer_step(r.t).batch, 7);
    assert_int_equal(fm_trainer_step(r.t).batch, 4);
    assert_int_equal(fm_trainer_step(r.t).batch, 2);
    run_close(&r);
    o.schedule.batch_begin = 100;
    assert_ok(fm_model_open(&r.m, w.f.path, NULL, &err));
    assert_fails(fm_trainer_open(&t, r.m, &w.data, &o, NULL, &err), FM_ERR_ARGUMENT, err, "100");
    fm_model_free(r.m);
    test_folder_remove(&w.f);
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

/* Some steps, a checkpoint, a new trainer from it, the other steps: the bits of all in a row. */
static void check_resume(const world *w, const fm_train_options *o, int at, const double *want)
{
    fm_error err = {0};
    uint64_t step, tokens;
    run r = run_open(w, o);
    for (int i = 0; i < at; i++) fm_trainer_step(r.t);
    assert_int_equal(fm_trainer_save(r.t, w->f.path, &err), FM_OK);
    assert_ok(fm_trainer_place(w->f.path, &step, &tokens, NULL, &err));
    assert_int_equal(step, at);
    assert_int_equal(tokens, fm_trainer_tokens(r.t));
    run_close(&r);
    r = run_open(w, o);
    if (fm_trainer_resume(r.t, w->f.path, &err) != FM_OK) fail_msg("%s", err.text);
    for (int i = at; i < STEPS; i++) {
        const fm_train_step s = fm_trainer_step(r.t);
        assert_int_equal(s.step, i + 1);
        assert_true(s.loss == want[2 * i] && s.grad_norm == want[2 * i + 1]);
    }
    run_close(&r);
}

static void resuming_changes_no_bit(void **state)
{
    (void)state;
    for (int at = 1; at < STEPS; at += 2) {
        world w;
        double want[2 * STEPS];
        const fm_train_options o = options();
        world_open(&w, true);
        losses(want, STEPS, &w, &o);
        check_resume(&w, &o, at, want);
        test_folder_remove(&w.f);
    }
}

/* The same with two sources, and stages that change within the run; another list of stages cannot go on. */
static void resuming_finds_its_stage(void **state)
{
    (void)state;
    static const fm_stage stages[] = {{.begin = 0, .length = 12, .weights = {1, 2}},
                                      {.begin = 70, .length = LENGTH, .weights = {1, 0}},
                                      {.begin = 200, .length = 8, .weights = {3, 1}}};
    for (int at = 1; at < STEPS; at++) {
        world w;
        double want[2 * STEPS];
        fm_error err = {0};
        const fm_train_options o = options();
        world_open(&w, true);
        w.data.sources[1] = &w.text;
        w.data.n_sources = 2;
        w.data.stages = stages;
        w.data.n_stages = FM_COUNT(stages);
        losses(want, STEPS, &w, &o);
        check_resume(&w, &o, at, want);
        w.data.n_stages = 1;
        run r = run_open(&w, &o);
        if (at > 2)
            assert_fails(fm_trainer_resume(r.t, w.f.path, &err), FM_ERR_ARGUMENT, err, "but data.stages has 1: give them back");
        run_close(&r);
        test_folder_remove(&w.f);
    }
}

/* Windows in chunks: the loss of the first step to the bit, its norm but for the order of sums when nothing is cut off; and a
 * chunk of the whole is no chunk. */
static void chunks_change_no_loss(void **state)
{
    (void)state;
    world w;
    double want[2 * STEPS], got[2 * STEPS];
    fm_train_options o = options();
    world_open(&w, true);
    o.micro_batch = 3;
    o.dropout = 0.1f;
    losses(want, STEPS, &w, &o);
    o.chunk = 7;
    losses(got, STEPS, &w, &o);
    assert_true(got[0] == want[0] && fabs(got[1] / want[1] - 1) < 1e-6);
    o.truncate = true;
    losses(got, STEPS, &w, &o);
    assert_true(got[0] == want[0] && fabs(got[1] / want[1] - 1) > 1e-4);
    o.chunk = 3 * LENGTH;
    losses(got, STEPS, &w, &o);
    assert_memory_equal(got, want, sizeof want);
    test_folder_remove(&w.f);
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    char name[512];
    for (const struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (fm_path_is_dir(name))
            remove_tree(name);
        else
            unlink(name);
    }
    if (d) closedir(d);
    rmdir(path);
}

/* A run that went back to an earlier checkpoint comes by the later ones again. */
static void a_step_is_saved_twice(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    char out[256], beside[256], *newest;
    const fm_train_options o = options();
    world_open(&w, true);
    const fm_run_folder folder = {.out = test_path(out, &w.f, "run"), .keep = 2};
    run r = run_open(&w, &o);
    for (int i = 0; i < 2; i++) {
        fm_trainer_step(r.t);
        if (fm_run_save(&folder, r.t, &err) != FM_OK) fail_msg("%s", err.text);
    }
    for (int again = 0; again < 2; again++) /* the second time there is one in its place */
        if (fm_run_save(&folder, r.t, &err) != FM_OK) fail_msg("%s", err.text);
    run_close(&r);
    assert_true(fm_path_exists(test_path(beside, &w.f, "run/step-00000001")));
    assert_false(fm_path_exists(test_path(beside, &w.f, "run/step-00000002.tmp")));
    if (fm_run_newest(&newest, &folder, &err) != FM_OK) fail_msg("%s", err.text);
    r = run_open(&w, &o);
    if (fm_trainer_resume(r.t, newest, &err) != FM_OK) fail_msg("%s", err.text);
    assert_int_equal(fm_trainer_step(r.t).step, 3);
    run_close(&r);
    fm_free(NULL, newest);
    remove_tree(out);
    test_folder_remove(&w.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_do_not_depend_on_how),  cmocka_unit_test(a_batch_may_shrink),
                                       cmocka_unit_test(a_batch_is_learnt_by_heart), cmocka_unit_test(resuming_changes_no_bit),
                                       cmocka_unit_test(resuming_finds_its_stage),   cmocka_unit_test(chunks_change_no_loss),
                                       cmocka_unit_test(a_step_is_saved_twice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
