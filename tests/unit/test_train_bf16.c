/* test_train_bf16.c - matrices in bf16 over f32 masters: rounded as promised, saved as the model computes with them, and the same
 * bits for any number of threads and after a resume. */
#include <math.h>

#include "train/internal.h"
#include "unit/tiny_trainer.h"

enum { STEPS = 5 };

static const fm_params_kind kinds[] = {FM_PARAMS_BF16, FM_PARAMS_BF16_STOCHASTIC};

static fm_train_options bf16_options(fm_params_kind kind)
{
    fm_train_options o = options();
    o.schedule.warmup = 0;
    o.weights = kind;
    return o;
}

/* A quarter of the way from 1 to the next bf16: to nearest always 1; by chance up in a quarter of the steps, and as often for any
 * other place. */
static void chance_keeps_the_mean(void **state)
{
    (void)state;
    enum { TRIES = 400, PLACES = 50 };
    world w;
    world_open(&w, true);
    for (size_t k = 0; k < FM_COUNT(kinds); k++) {
        const fm_train_options o = bf16_options(kinds[k]);
        run r = run_open(&w, &o);
        const uint16_t *halves = r.t->p.halves[FM_GLOBAL_EMBED];
        int up = 0;
        for (int i = 0; i < PLACES; i++) r.t->p.w[FM_GLOBAL_EMBED][i] = i % 2 ? 1.0f + 1.0f / 512 : -1.0f - 1.0f / 512;
        for (int step = 1; step <= TRIES; step++) {
            fm_params_settle(&r.t->p, &r.t->k, r.t->pool, (uint64_t)step);
            for (int i = 0; i < PLACES; i++) {
                const float v = fabsf(fm_bf16_to_f32(halves[i]));
                assert_true(v == 1.0f || v == 1.0f + 1.0f / 128);
                up += v > 1.0f;
            }
        }
        const double n = TRIES * PLACES, deviation = sqrt(n * 0.25 * 0.75);
        if (kinds[k] == FM_PARAMS_BF16) assert_int_equal(up, 0);
        if (kinds[k] == FM_PARAMS_BF16_STOCHASTIC && fabs(up - n / 4) > 5 * deviation) fail_msg("up %d times of %g", up, n);
        run_close(&r);
    }
    test_folder_remove(&w.f);
}

static void edges_are_not_left_to_chance(void **state)
{
    (void)state;
    const float edges[] = {0.0f, -0.0f, 1.0f, INFINITY, -INFINITY, 3.3e38f, -3.38e38f, 1e-45f, 65504.0f};
    world w;
    world_open(&w, true);
    const fm_train_options o = bf16_options(FM_PARAMS_BF16_STOCHASTIC);
    run r = run_open(&w, &o);
    float *masters = r.t->p.w[FM_GLOBAL_EMBED];
    memcpy(masters, edges, sizeof edges);
    masters[FM_COUNT(edges)] = NAN;
    for (uint64_t step = 0; step < 100; step++) {
        fm_params_settle(&r.t->p, &r.t->k, r.t->pool, step);
        const uint16_t *halves = r.t->p.halves[FM_GLOBAL_EMBED];
        for (size_t i = 0; i < 5; i++) assert_true(fm_bf16_to_f32(halves[i]) == edges[i]); /* exact in bf16 */
        for (size_t i = 5; i < FM_COUNT(edges); i++) {
            const double v = (double)fm_bf16_to_f32(halves[i]), want = (double)edges[i];
            assert_true(fabs(v - want) <= fmax(fabs(want) / 128, 1e-40));
        }
        assert_true(isnan(fm_bf16_to_f32(halves[FM_COUNT(edges)])));
    }
    run_close(&r);
    test_folder_remove(&w.f);
}

static void take_steps(double out[STEPS], run *r, int from, int to)
{
    for (int i = from; i < to; i++) out[i] = fm_trainer_step(r->t).loss;
}

static void bits_do_not_depend_on_how(void **state)
{
    (void)state;
    for (size_t k = 0; k < FM_COUNT(kinds); k++) {
        world w;
        fm_error err = {0};
        double want[STEPS], got[STEPS];
        world_open(&w, true);
        fm_train_options o = bf16_options(kinds[k]);
        run r = run_open(&w, &o);
        take_steps(want, &r, 0, STEPS);
        run_close(&r);
        o.threads = 3;
        r = run_open(&w, &o);
        take_steps(got, &r, 0, STEPS);
        assert_memory_equal(got, want, sizeof got);
        run_close(&r);
        r = run_open(&w, &o);
        take_steps(got, &r, 0, 2);
        assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
        run_close(&r);
        r = run_open(&w, &o);
        if (fm_trainer_resume(r.t, w.f.path, &err) != FM_OK) fail_msg("%s", err.text);
        take_steps(got, &r, 2, STEPS);
        assert_memory_equal(got, want, sizeof got);
        run_close(&r);
        test_folder_remove(&w.f);
    }
}

/* A step that moved nothing rounds nothing: its checkpoint goes on with the copies of the step before. */
static void a_skipped_step_keeps_its_rounding(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    world_open(&w, true);
    fm_train_options o = bf16_options(FM_PARAMS_BF16_STOCHASTIC);
    o.outlier_window = 2;
    o.loss_z = 1e-9; /* whatever is above the mean */
    o.outlier_action = FM_OUTLIER_SKIP;
    run r = run_open(&w, &o);
    fm_train_step s = {0};
    for (int i = 0; i < 50 && !s.outlier; i++) s = fm_trainer_step(r.t);
    assert_true(s.outlier);
    assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
    run again = run_open(&w, &o);
    assert_int_equal(fm_trainer_resume(again.t, w.f.path, &err), FM_OK);
    assert_memory_equal(again.t->p.halves_block, r.t->p.halves_block, r.t->p.floats * sizeof(uint16_t));
    run_close(&again);
    run_close(&r);
    test_folder_remove(&w.f);
}

/* The checkpoint is the model that was computed with: every matrix bf16 and bit by bit the live one, the rest f32. */
static void what_is_saved_is_what_ran(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    fm_model *saved;
    world_open(&w, true);
    const fm_train_options o = bf16_options(FM_PARAMS_BF16_STOCHASTIC);
    run r = run_open(&w, &o);
    for (int i = 0; i < STEPS; i++) fm_trainer_step(r.t);
    assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
    assert_int_equal(fm_model_open(&saved, w.f.path, NULL, &err), FM_OK);
    size_t matrices = 0;
    for (size_t i = 0; i < fm_model_weight_count(saved); i++) {
        const fm_tensor *a = fm_model_weight_at(saved, i).loaded, *b = fm_model_weight_at(r.m, i).loaded;
        assert_int_equal(a->data != NULL, b->data != NULL);
        if (!a->data) continue;
        const bool matrix = fm_model_weight_at(saved, i).def->kind == FM_WEIGHT_MATRIX;
        assert_int_equal(a->type, matrix ? FM_BF16 : FM_F32);
        assert_int_equal(b->type, a->type);
        for (size_t row = 0; row < a->rows; row++)
            assert_memory_equal(fm_tensor_row(a, row), fm_tensor_row(b, row), a->cols * (matrix ? 2 : 4));
        matrices += matrix;
    }
    assert_true(matrices >= 2 + 2 * 4);
    fm_model_free(saved);
    run_close(&r);
    test_folder_remove(&w.f);
}

static void either_kind_goes_on_as_the_other(void **state)
{
    (void)state;
    const fm_params_kind both[] = {FM_PARAMS_F32, FM_PARAMS_BF16};
    for (int k = 0; k < 2; k++) {
        world w;
        fm_error err = {0};
        world_open(&w, true);
        fm_train_options o = bf16_options(both[k]);
        run r = run_open(&w, &o);
        fm_trainer_step(r.t);
        assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
        o.weights = both[1 - k];
        run other = run_open(&w, &o);
        if (fm_trainer_resume(other.t, w.f.path, &err) != FM_OK) fail_msg("%s", err.text);
        assert_memory_equal(other.t->p.memory, r.t->p.memory, r.t->p.floats * sizeof(float));
        assert_true(fm_trainer_step(other.t).moved);
        run_close(&other);
        run_close(&r);
        test_folder_remove(&w.f);
    }
}

static void a_batch_is_learnt_by_heart(void **state)
{
    (void)state;
    for (size_t k = 0; k < FM_COUNT(kinds); k++) {
        world w;
        world_open(&w, true);
        w.text.n = LENGTH + 1;
        fm_train_options o = bf16_options(kinds[k]);
        o.schedule = (fm_schedule){.peak = 1e-2, .final = 1, .batch_end = 1};
        o.weight_decay = 0;
        run r = run_open(&w, &o);
        fm_train_step s = {0};
        for (int i = 0; i < 300; i++) s = fm_trainer_step(r.t);
        if (s.loss > 0.1) fail_msg("the loss is still %g", s.loss);
        run_close(&r);
        test_folder_remove(&w.f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chance_keeps_the_mean),     cmocka_unit_test(edges_are_not_left_to_chance),
        cmocka_unit_test(bits_do_not_depend_on_how), cmocka_unit_test(a_skipped_step_keeps_its_rounding),
        cmocka_unit_test(what_is_saved_is_what_ran), cmocka_unit_test(either_kind_goes_on_as_the_other),
        cmocka_unit_test(a_batch_is_learnt_by_heart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
