/* test_train_device.c - training on a GPU that is made of the CPU (fake_gpu.h): the losses, checkpoints and spreads of the
 * reference on the host, to the bit, and memory as it was estimated. */
#include "kernelcheck/fake_gpu.h"
#include "train/estimate.h"
#include "train/inspect.h"
#include "train/internal.h"
#include "unit/tiny_trainer.h"

enum { STEPS = 4, LIBRARY_BYTES = 1 << 20 };

static const fm_params_kind kinds[] = {FM_PARAMS_F32, FM_PARAMS_BF16, FM_PARAMS_BF16_STOCHASTIC};

/* Rows of bf16 on a device want eight columns each. */
static fm_config wide_config(void)
{
    fm_config c = tiny_config(true);
    c.dt_rank = 8;
    return c;
}

static void wide_open(world *w)
{
    const fm_config c = wide_config();
    world_open(w, true);
    assert_int_equal(fm_init_write(fm_arch_by_name("falcon_mamba"), &c, 1, w->f.path, NULL, NULL), FM_OK);
    fake_gpu_reset();
}

static void wide_close(world *w)
{
    assert_int_equal(fake.used, 0);
    test_folder_remove(&w->f);
}

static fm_train_options options_on(const char *device)
{
    fm_train_options o = options();
    o.schedule.warmup = 0;
    o.dropout = 0.1f;
    o.cpu = "ref";
    o.device = device;
    return o;
}

static void take_steps(double out[STEPS], run *r, int from, int to)
{
    for (int i = from; i < to; i++) {
        const fm_train_step s = fm_trainer_step(r->t);
        assert_int_equal(s.status, FM_OK);
        assert_true(s.moved);
        out[i] = s.loss;
    }
}

/* Whatever is kept, run again or cut into chunks. */
static void losses_are_those_of_the_host(void **state)
{
    (void)state;
    for (size_t k = 0; k < 4 * FM_COUNT(kinds); k++) {
        world w;
        double want[STEPS], got[STEPS];
        wide_open(&w);
        fm_train_options o = options_on("cpu");
        o.weights = kinds[k / 4];
        o.recompute = k % 4 == 1;
        o.chunk = k % 4 >= 2 ? 7 : 0;
        o.truncate = k % 4 == 3;
        run host = run_open(&w, &o);
        take_steps(want, &host, 0, STEPS);
        run_close(&host);
        o.device = "cuda";
        run there = run_open(&w, &o);
        take_steps(got, &there, 0, STEPS);
        run_close(&there);
        assert_memory_equal(got, want, sizeof got);
        wide_close(&w);
    }
}

/* Begun there and ended here: what is written are the weights that were computed with, and the chances go on. */
static void a_checkpoint_goes_on_elsewhere(void **state)
{
    (void)state;
    for (size_t k = 0; k < FM_COUNT(kinds); k++) {
        world w;
        double want[STEPS], got[STEPS];
        fm_error err = {0};
        wide_open(&w);
        fm_train_options o = options_on("cpu");
        o.weights = kinds[k];
        run r = run_open(&w, &o);
        take_steps(want, &r, 0, STEPS);
        run_close(&r);
        o.device = "cuda";
        r = run_open(&w, &o);
        take_steps(got, &r, 0, 2);
        assert_int_equal(fm_trainer_save(r.t, w.f.path, &err), FM_OK);
        run_close(&r);
        o.device = "cpu";
        r = run_open(&w, &o);
        assert_int_equal(fm_model_weight_at(r.m, FM_GLOBAL_EMBED).loaded->type, k ? FM_BF16 : FM_F32);
        if (fm_trainer_resume(r.t, w.f.path, &err) != FM_OK) fail_msg("%s", err.text);
        take_steps(got, &r, 2, STEPS);
        run_close(&r);
        assert_memory_equal(got, want, sizeof got);
        wide_close(&w);
    }
}

static void spreads_are_those_of_the_host(void **state)
{
    (void)state;
    world w;
    fm_layer_spread want[2], got[2];
    wide_open(&w);
    fm_train_options o = options_on("cpu");
    run r = run_open(&w, &o);
    assert_ok(fm_trainer_spread(r.t, want, NULL));
    run_close(&r);
    o.device = "cuda";
    r = run_open(&w, &o);
    const size_t used = fake.used;
    assert_ok(fm_trainer_spread(r.t, got, NULL));
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(fake.used, used);
    fm_error err = {0};
    fake.waits_left = 3; /* in the middle of it */
    assert_fails(fm_trainer_spread(r.t, got, &err), FM_ERR_DEVICE, err, "a fake failed");
    fake.waits_left = -1;
    run_close(&r);
    wide_close(&w);
}

static void what_is_estimated_is_taken(void **state)
{
    (void)state;
    const fm_config c = wide_config();
    for (size_t k = 0; k < 4 * FM_COUNT(kinds); k++) {
        world w;
        fm_estimate e;
        wide_open(&w);
        fm_train_options o = options_on("cuda:0");
        o.weights = kinds[k / 4];
        o.recompute = k % 4 == 1;
        o.chunk = k % 4 >= 2 ? 20 : 0; /* more than the few that need no library */
        o.truncate = k % 4 == 3;
        fake.why_none = "it is not there yet"; /* a plan asks nobody */
        assert_ok(fm_estimate_make(&e, fm_arch_by_name("falcon_mamba"), &c, &o, NULL, NULL));
        assert_true(e.on_device);
        fake.why_none = NULL;
        run r = run_open(&w, &o);
        const double ratio = (double)(fake.used + LIBRARY_BYTES) / (double)e.total;
        if (ratio < 0.99 || ratio > 1.0) fail_msg("way %zu: %zu bytes, estimated %zu", k, fake.used + LIBRARY_BYTES, e.total);
        run_close(&r);
        wide_close(&w);
    }
}

/* On the CPU where there is no GPU, and then by the CPU's kernels. */
static void auto_is_estimated_as_it_falls_out(void **state)
{
    (void)state;
    const fm_config c = wide_config();
    fm_train_options o = options_on("auto");
    fm_estimate host, there;
    fake_gpu_reset();
    assert_ok(fm_estimate_make(&there, fm_arch_by_name("falcon_mamba"), &c, &o, NULL, NULL));
    assert_true(there.on_device);
    fake.why_none = "nobody plugged it in";
    assert_ok(fm_estimate_make(&host, fm_arch_by_name("falcon_mamba"), &c, &o, NULL, NULL));
    assert_true(!host.on_device);
    fake_gpu_reset();
}

static void rows_of_bf16_have_places(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    run r;
    world_open(&w, true); /* dt_rank 4 */
    fake_gpu_reset();
    fm_train_options o = options_on("cuda");
    o.weights = FM_PARAMS_BF16;
    assert_int_equal(fm_model_open(&r.m, w.f.path, NULL, &err), FM_OK);
    assert_fails(fm_trainer_open(&r.t, r.m, &w.data, &o, NULL, &err), FM_ERR_UNSUPPORTED, err, "multiples of 8");
    fm_model_free(r.m);
    wide_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_those_of_the_host),      cmocka_unit_test(a_checkpoint_goes_on_elsewhere),
        cmocka_unit_test(spreads_are_those_of_the_host),     cmocka_unit_test(what_is_estimated_is_taken),
        cmocka_unit_test(auto_is_estimated_as_it_falls_out), cmocka_unit_test(rows_of_bf16_have_places)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
