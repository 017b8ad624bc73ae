/* test_train_estimate.c - parameters and operations of known shapes against their published numbers, and memory against what a
 * trainer holds. */
#include <math.h>

#include "model/shape.h"
#include "testing.h"
#include "train/estimate.h"
#include "train/init.h"

/* spec training.md 7: forward operations of a token in millions; parameters as the published checkpoints have them. */
static void known_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t params;
        double mflop;
    } known[] = {{"falcon-mamba-7b", 7272665088, 14059}, {"mamba-130m", 129135360, 261.5}, {"mamba-370m", 371516416, 752},
                 {"mamba-790m", 793204224, 1599},        {"mamba-1.4b", 1372178432, 2762}, {"mamba-2.8b", 2768345600, 5566}};
    for (size_t i = 0; i < FM_COUNT(known); i++) {
        const fm_arch *arch;
        fm_config c;
        fm_estimate e;
        fm_train_options o = fm_train_defaults();
        o.threads = 1;
        assert_ok(fm_shape_find(known[i].name, &arch, &c, NULL));
        assert_ok(fm_estimate_make(&e, arch, &c, &o, NULL, NULL));
        if (e.n_params != known[i].params) fail_msg("%s: %llu parameters", known[i].name, (unsigned long long)e.n_params);
        if (fabs(e.forward_flops / 1e6 / known[i].mflop - 1) > 1e-3)
            fail_msg("%s: %g MFLOP", known[i].name, e.forward_flops / 1e6);
        assert_int_equal(e.moments, e.weights + e.gradients);
        assert_true(e.weights >= e.n_params * 4 && e.weights < e.n_params * 4 + 4 * 16 * 1000);
        assert_true(e.pass[FM_TRAIN_RECOMPUTE] < e.pass[FM_TRAIN_KEEP]);
        assert_true(e.pass[FM_TRAIN_TRUNCATED] < e.pass[FM_TRAIN_CHUNKS]);
    }
}

static fm_config tiny_config(void)
{
    return (fm_config){.d_model = 64,
                       .d_inner = 128,
                       .d_state = 16,
                       .d_conv = 4,
                       .dt_rank = 4,
                       .n_layer = 3,
                       .vocab = 700,
                       .norm_eps = 1e-5f,
                       .mixer_norms = true,
                       .mixer_rms_eps = 1e-6f,
                       .use_conv_bias = true,
                       .pad_vocab_multiple = 1,
                       .n_eos = 1};
}

/* A trainer of these options holds what was said, but for some lists. */
static void check_trainer(const char *dir, const fm_train_options *o, fm_train_mode mode)
{
    static int32_t ids[1000];
    const fm_tokens text = {.ids = ids, .n = FM_COUNT(ids)};
    const fm_data data = {.sources = {&text}, .weights = {1}, .n_sources = 1, .length = o->length};
    const fm_config c = tiny_config();
    fm_model *m;
    fm_trainer *t;
    fm_estimate e;
    fm_error err = {0};
    assert_ok(fm_estimate_make(&e, fm_arch_by_name("falcon_mamba"), &c, o, NULL, NULL));
    assert_int_equal(e.mode, mode);
    assert_int_equal(e.total, fm_estimate_total(&e, mode));
    if (fm_model_open(&m, dir, NULL, &err) != FM_OK || fm_trainer_open(&t, m, &data, o, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    const double ratio = (double)fm_trainer_bytes(t) / (double)e.total;
    if (fabs(ratio - 1) > 0.01) fail_msg("mode %d: %zu bytes, estimated %zu", (int)mode, fm_trainer_bytes(t), e.total);
    fm_trainer_free(t);
    fm_model_free(m);
}

static void a_trainer_takes_what_was_estimated(void **state)
{
    (void)state;
    test_folder f = test_folder_make();
    const fm_config c = tiny_config();
    fm_train_options o = fm_train_defaults();
    assert_ok(fm_init_write(fm_arch_by_name("falcon_mamba"), &c, 1, f.path, NULL, NULL));
    o.length = 200;
    o.micro_batch = 2;
    o.schedule.batch_end = 2;
    o.threads = 2;
    check_trainer(f.path, &o, FM_TRAIN_KEEP);
    o.recompute = true;
    check_trainer(f.path, &o, FM_TRAIN_RECOMPUTE);
    o.chunk = 30;
    check_trainer(f.path, &o, FM_TRAIN_CHUNKS);
    o.truncate = true;
    o.recompute = false;
    check_trainer(f.path, &o, FM_TRAIN_TRUNCATED);
    o.chunk = 400;
    check_trainer(f.path, &o, FM_TRAIN_KEEP);
    o.weights = FM_PARAMS_BF16;
    check_trainer(f.path, &o, FM_TRAIN_KEEP);
    test_folder_remove(&f);
}

static void sizes_without_end_are_refused(void **state)
{
    (void)state;
    fm_estimate e;
    fm_error err = {0};
    const fm_config c = tiny_config();
    fm_train_options o = fm_train_defaults();
    o.length = (size_t)1 << 60;
    assert_fails(fm_estimate_make(&e, fm_arch_by_name("falcon_mamba"), &c, &o, NULL, &err), FM_ERR_MEMORY, err,
                 "overflow memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_shapes), cmocka_unit_test(a_trainer_takes_what_was_estimated),
                                       cmocka_unit_test(sizes_without_end_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
