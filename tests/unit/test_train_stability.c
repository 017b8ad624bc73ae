/* test_train_stability.c - spikes: found by their z-scores, skipped or gone back from, with the same bits after a resume; and
 * what is not finite is named. */
#include <math.h>

#include "train/inspect.h"
#include "train/internal.h"
#include "train/run.h"
#include "unit/tiny_trainer.h"

enum { ROWS = 12, ODD_ROW = 5, EASY = 80 };

/* A text so regular that it is learnt at once, but for one window of noise. */
static void spiked_world(world *w)
{
    world_open(w, true);
    for (int i = 0; i < TEXT; i++) w->ids[i] = 10 + i % 6;
    for (int i = 0; i < LENGTH; i++) w->ids[ODD_ROW * LENGTH + i] = (i * i * 31 + 17) % 50;
}

static fm_train_options spiked_options(fm_outlier_action action)
{
    fm_train_options o = options();
    o.schedule = (fm_schedule){.peak = 3e-3, .final = 1, .batch_end = 1};
    o.eos = -1;
    o.outlier_window = ROWS;
    o.loss_z = o.norm_z = 25;
    o.outlier_action = action;
    return o;
}

static bool odd_is_next(const world *w, const fm_trainer *t)
{
    int32_t next[LENGTH + 1];
    assert_ok(fm_data_window(&w->data, &t->cursor, 0, next, NULL));
    return memcmp(next, w->ids + ODD_ROW * LENGTH, LENGTH * sizeof *next) == 0;
}

static float *copy_weights(const fm_trainer *t)
{
    float *w;
    assert_int_equal(fm_alloc((void **)&w, NULL, t->p.floats, sizeof *w, "weights", NULL), FM_OK);
    memcpy(w, t->p.memory, t->p.floats * sizeof *w);
    return w;
}

/* Steps until the text is learnt and the noise comes next. */
static void run_to_spike(const world *w, run *r)
{
    for (int i = 0; i < EASY || !odd_is_next(w, r->t); i++) fm_trainer_step(r->t);
}

/* The numbers of the definition, oldest forgotten first; what stands out is not taken. */
static void z_scores_are_those_of_the_window(void **state)
{
    (void)state;
    fm_outliers o;
    double z[2];
    assert_int_equal(fm_outliers_open(&o, 4, (const double[]){3, 0}, NULL, NULL), FM_OK);
    for (int i = 0; i < 6; i++) {
        assert_false(fm_outliers_judge(&o, (const double[]){i % 2, i}, z));
        if (i < 4) assert_true(z[0] == 0 && z[1] == 0);
    }
    assert_true(fm_outliers_judge(&o, (const double[]){3, 100}, z));
    const double mean = (2 + 3 + 4 + 5) / 4.0, sd = sqrt((2.25 + 0.25 + 0.25 + 2.25) / 3);
    assert_true(fabs(z[0] - 2.5 / sqrt(1.0 / 3)) < 1e-12 && fabs(z[1] - (100 - mean) / sd) < 1e-12);
    assert_int_equal(o.in_a_row, 1);
    assert_false(
        fm_outliers_judge(&o, (const double[]){1, 1e9}, z)); /* no limit for the norm; the spike is not in the window */
    assert_true(fabs(z[1] - (1e9 - mean) / sd) < 1e-3);
    assert_int_equal(o.in_a_row, 0);
    fm_outliers_free(&o);
    assert_int_equal(fm_outliers_open(&o, 1, (const double[]){3, 0}, NULL, NULL), FM_ERR_ARGUMENT);
    assert_int_equal(fm_outliers_open(&o, FM_OUTLIERS_WINDOW_MAX + 1, (const double[]){3, 0}, NULL, NULL), FM_ERR_ARGUMENT);
}

static void a_window_is_saved_with_all_its_bits(void **state)
{
    (void)state;
    fm_outliers o, again, shorter;
    const double limits[] = {3, 3};
    double z[2], want[2];
    fm_str text = {0};
    fm_jsonw w = {.out = &text};
    fm_outliers_open(&o, 5, limits, NULL, NULL);
    fm_outliers_open(&again, 5, limits, NULL, NULL);
    fm_outliers_open(&shorter, 3, limits, NULL, NULL);
    for (int i = 0; i < 13; i++) fm_outliers_judge(&o, (const double[]){sin(i), 1 / (1.0 + i)}, z);
    fm_outliers_put(&o, &w);
    fm_json j = fm_json_begin(text.p, text.n, "state"), j2 = j;
    fm_outliers_read(&again, &j);
    assert_int_equal(fm_json_finish(&j, NULL), FM_OK);
    fm_outliers_judge(&o, (const double[]){0.3, 0.4}, want);
    fm_outliers_judge(&again, (const double[]){0.3, 0.4}, z);
    assert_memory_equal(z, want, sizeof z);
    fm_outliers_read(&shorter, &j2); /* the last three of five */
    assert_int_equal(fm_json_finish(&j2, NULL), FM_OK);
    assert_int_equal(shorter.n, 3);
    assert_true(shorter.values[0][shorter.oldest] == sin(10));
    fm_json bad = fm_json_begin("{\"loss\": [1, 2], \"norm\": [1]}", 30, "state");
    fm_outliers_read(&again, &bad);
    assert_int_equal(fm_json_finish(&bad, NULL), FM_ERR_FORMAT);
    fm_str_free(&text);
    fm_outliers_free(&o), fm_outliers_free(&again), fm_outliers_free(&shorter);
}

static void a_spike_moves_nothing(void **state)
{
    (void)state;
    world w;
    spiked_world(&w);
    const fm_train_options o = spiked_options(FM_OUTLIER_SKIP);
    run r = run_open(&w, &o);
    for (int epoch = 0; epoch < 2; epoch++) {
        run_to_spike(&w, &r);
        float *before = copy_weights(r.t);
        const uint64_t step = r.t->step;
        fm_train_step s = fm_trainer_step(r.t);
        assert_true(s.outlier && !s.moved && s.finite);
        assert_true(s.loss_z > o.loss_z || s.norm_z > o.norm_z);
        assert_int_equal(s.step, step + 1);
        assert_memory_equal(before, r.t->p.memory, r.t->p.floats * sizeof(float));
        s = fm_trainer_step(r.t);
        assert_true(!s.outlier && s.moved);
        assert_memory_not_equal(before, r.t->p.memory, r.t->p.floats * sizeof(float));
        fm_free(NULL, before);
    }
    run_close(&r);
    test_folder_remove(&w.f);
}

/* Saved right before the spike: the resumed trainer sees it with the same numbers and goes on with the same bits. */
static void a_resumed_run_sees_the_same_spike(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    spiked_world(&w);
    const fm_train_options o = spiked_options(FM_OUTLIER_SKIP);
    run r = run_open(&w, &o);
    run_to_spike(&w, &r);
    assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
    run again = run_open(&w, &o);
    assert_int_equal(fm_trainer_resume(again.t, w.f.path, &err), FM_OK);
    for (int i = 0; i < 2 * ROWS; i++) {
        const fm_train_step a = fm_trainer_step(r.t), b = fm_trainer_step(again.t);
        assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
        assert_true(a.loss_z == b.loss_z && a.norm_z == b.norm_z && a.outlier == b.outlier && (i > 0 || a.outlier));
    }
    assert_memory_equal(again.t->p.memory, r.t->p.memory, r.t->p.floats * sizeof(float));
    run_close(&again);
    run_close(&r);
    test_folder_remove(&w.f);
}

static void remove_checkpoint(const test_folder *out, uint64_t step)
{
    test_folder f;
    assert_true(snprintf(f.path, sizeof f.path, "%s/step-%08d", out->path, (int)step) < (int)sizeof f.path);
    test_folder_remove(&f);
}

/* Weights, moments and step of the anchor, but the data after the spike. */
static void going_back_skips_the_data(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    bool gone;
    spiked_world(&w);
    const fm_train_options o = spiked_options(FM_OUTLIER_REWIND);
    test_folder out = test_folder_make();
    const fm_run_folder folder = {.out = out.path, .keep = 0};
    run r = run_open(&w, &o);
    assert_int_equal(fm_run_rewind(&gone, &folder, r.t, &err), FM_OK);
    assert_false(gone); /* nowhere to go */
    for (int i = 0; i < EASY; i++) fm_trainer_step(r.t);
    fm_trainer_anchor(r.t);
    assert_int_equal(fm_run_save(&folder, r.t, &err), FM_OK);
    float *anchor = copy_weights(r.t);
    run_to_spike(&w, &r);
    assert_int_equal(fm_run_save(&folder, r.t, &err), FM_OK); /* of an interruption: the anchor stays */
    const uint64_t last = r.t->step;
    assert_true(fm_trainer_step(r.t).outlier);
    const fm_cursor cursor = r.t->cursor;
    assert_int_equal(fm_run_rewind(&gone, &folder, r.t, &err), FM_OK);
    assert_true(gone);
    assert_memory_equal(anchor, r.t->p.memory, r.t->p.floats * sizeof(float));
    assert_memory_equal(&cursor, &r.t->cursor, sizeof cursor);
    assert_int_equal(r.t->step, EASY);
    assert_int_equal(fm_trainer_rewinds(r.t), 1);
    assert_true(fm_trainer_step(r.t).moved);
    fm_free(NULL, anchor);
    run_close(&r);
    remove_checkpoint(&out, EASY);
    remove_checkpoint(&out, last);
    test_folder_remove(&out);
    test_folder_remove(&w.f);
}

static void what_is_not_finite_is_named(void **state)
{
    (void)state;
    world w;
    fm_str name = {0};
    world_open(&w, true);
    const fm_train_options o = options();
    run r = run_open(&w, &o);
    assert_true(fm_trainer_step(r.t).finite);
    fm_trainer_find_damage(r.t, &name);
    assert_int_equal(name.n, 0);
    r.t->g.g[r.t->g.n - 2][3] = INFINITY; /* as if the backward of the last layer had overflowed */
    fm_trainer_find_damage(r.t, &name);
    assert_non_null(strstr(name.p, "the gradient of backbone.layers.1.mixer."));
    fm_str_reset(&name);
    r.t->p.w[FM_GLOBAL_NORM][0] = NAN;
    const fm_train_step s = fm_trainer_step(r.t);
    assert_true(!s.finite && !s.moved);
    fm_trainer_find_damage(r.t, &name);
    assert_string_equal(name.p, "the weight backbone.norm_f.weight");
    fm_str_free(&name);
    run_close(&r);
    test_folder_remove(&w.f);
}

/* Against the definition: B and C leave their norm with rms 1, dt is positive, and nothing of the training moved. */
static void spreads_are_those_of_the_scan(void **state)
{
    (void)state;
    world w;
    fm_layer_spread s[2], again[2];
    for (int norms = 0; norms < 2; norms++) {
        world_open(&w, norms);
        fm_train_options o = options();
        run r = run_open(&w, &o);
        fm_trainer_step(r.t);
        float *before = copy_weights(r.t);
        assert_int_equal(fm_trainer_spread(r.t, s, NULL), FM_OK);
        assert_memory_equal(before, r.t->p.memory, r.t->p.floats * sizeof(float));
        fm_free(NULL, before);
        for (int l = 0; l < 2; l++) {
            const fm_spread all[] = {s[l].dt, s[l].B, s[l].C, s[l].h};
            for (size_t i = 0; i < FM_COUNT(all); i++) {
                assert_true(all[i].least < all[i].mean && all[i].mean < all[i].most);
                assert_true(all[i].rms > fabs(all[i].mean) && all[i].rms < fmax(fabs(all[i].least), fabs(all[i].most)));
            }
            assert_true(s[l].dt.least > 0 && s[l].dt.most < 10);
            assert_true((fabs(s[l].B.rms - 1) < 1e-3 && fabs(s[l].C.rms - 1) < 1e-3) == (norms == 1));
        }
        run_close(&r);
        o.threads = 3;
        r = run_open(&w, &o);
        fm_trainer_step(r.t);
        assert_int_equal(fm_trainer_spread(r.t, again, NULL), FM_OK);
        assert_memory_equal(s, again, sizeof s);
        run_close(&r);
        test_folder_remove(&w.f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(z_scores_are_those_of_the_window),
                                       cmocka_unit_test(a_window_is_saved_with_all_its_bits),
                                       cmocka_unit_test(a_spike_moves_nothing),
                                       cmocka_unit_test(a_resumed_run_sees_the_same_spike),
                                       cmocka_unit_test(going_back_skips_the_data),
                                       cmocka_unit_test(what_is_not_finite_is_named),
                                       cmocka_unit_test(spreads_are_those_of_the_scan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
