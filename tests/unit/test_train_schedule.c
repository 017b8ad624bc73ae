/* test_train_schedule.c - learning rates against the formulae of spec training.md 2, batch ramps, and the order of windows. */
#include <math.h>

#include "testing.h"
#include "train/config.h"
#include "train/data.h"
#include "train/schedule.h"

static void check(double got, double want)
{
    if (fabs(got - want) > 1e-12 * fabs(want)) fail_msg("%.17g, expected %.17g", got, want);
}

static void test_shapes(void **state)
{
    (void)state;
    fm_schedule s = {.peak = 6.4e-4, .final = 1.0 / 256, .warmup = 100, .decay_begin = 900, .total = 1000, .batch_end = 1};
    check(fm_schedule_rate(&s, 0, 1), 6.4e-6);
    check(fm_schedule_rate(&s, 99, 1), 6.4e-4);
    check(fm_schedule_rate(&s, 500, 1), 6.4e-4);
    check(fm_schedule_rate(&s, 950, 1), 6.4e-4 / 16); /* geometric: half way is the geometric mean */
    check(fm_schedule_rate(&s, 1000, 1), 2.5e-6);
    s.decay = FM_DECAY_LINEAR;
    check(fm_schedule_rate(&s, 950, 1), 6.4e-4 * (1 + 1.0 / 256) / 2);
    s.decay = FM_DECAY_COSINE;
    check(fm_schedule_rate(&s, 950, 1), 6.4e-4 * (1 + 1.0 / 256) / 2);
    s.decay = FM_DECAY_SQRT;
    check(fm_schedule_rate(&s, 925, 1), 6.4e-4 * (1.0 / 256 + (1 - 1.0 / 256) * 0.5));
    s.decay = FM_DECAY_1_SQRT;
    check(fm_schedule_rate(&s, 925, 1), 6.4e-4 * (1.0 / 256 + (1 - 1.0 / 256) * 0.5));
    s.decay = FM_DECAY_MEGATRON;
    check(fm_schedule_rate(&s, 950, 1), 6.4e-4 * (1.0 / 256 + (1 - 1.0 / 256) * (sqrt(2) - 1)));
    check(fm_schedule_rate(&s, 900, 1), 6.4e-4);
    check(fm_schedule_rate(&s, 1000, 1), 2.5e-6);
    s.decay = FM_DECAY_INVERSE;
    check(fm_schedule_rate(&s, 950, 1), 2 / (1 / 6.4e-4 + 256 / 6.4e-4));
}

/* Words of the configuration become the enums that they stand for. */
static void test_names(void **state)
{
    (void)state;
    static const char *const decays[] = {"geometric", "linear", "cosine", "sqrt", "inverse", "megatron", "1-sqrt"};
    fm_train_config c;
    fm_error err = {0};
    assert_ok(fm_train_config_open(&c, NULL, &err));
    assert_true(c.decay == FM_DECAY_GEOMETRIC && c.weights == FM_PARAMS_F32 && c.outlier_action == FM_OUTLIER_SKIP);
    for (unsigned i = 0; i < FM_COUNT(decays); i++) {
        assert_ok(fm_train_config_set(&c, "schedule.decay", 0, decays[i], "here", &err));
        assert_int_equal(c.decay, FM_DECAY_GEOMETRIC + i);
    }
    assert_ok(fm_train_config_set(&c, "optimizer.weights", 0, "bf16-stochastic", "here", &err));
    assert_ok(fm_train_config_set(&c, "stability.action", 0, "rewind", "here", &err));
    assert_ok(fm_train_config_set(&c, "model.norms", 0, "false", "here", &err));
    assert_true(c.weights == FM_PARAMS_BF16_STOCHASTIC && c.outlier_action == FM_OUTLIER_REWIND && c.norms == FM_NORMS_OFF);
    assert_fails(fm_train_config_set(&c, "schedule.decay", 0, "exponential", "here", &err), FM_ERR_ARGUMENT, err,
                 "expected geometric|linear"); /* which one? */
    assert_int_equal(c.decay, FM_DECAY_1_SQRT);
    fm_train_config_free(&c);
}

static void test_ramp(void **state)
{
    (void)state;
    const fm_schedule s = {
        .peak = 6.4e-4, .final = 1, .batch_begin = 128, .batch_end = 2048, .ramp = 1000, .scale_with_batch = true};
    assert_int_equal(fm_schedule_batch(&s, 0), 128);
    assert_int_equal(fm_schedule_batch(&s, 500), 1088);
    assert_int_equal(fm_schedule_batch(&s, 1000), 2048);
    assert_int_equal(fm_schedule_most(&s), 2048);
    check(fm_schedule_rate(&s, 0, 128), 1.6e-4); /* spec 1.2: 128 -> 1.6e-4, 512 -> 3.2e-4 */
    check(fm_schedule_rate(&s, 0, 512), 3.2e-4);
    const fm_schedule down = {.batch_begin = 9, .batch_end = 2, .ramp = 100}, flat = {.batch_begin = 9, .batch_end = 2};
    assert_int_equal(fm_schedule_most(&down), 9);
    assert_int_equal(fm_schedule_most(&flat), 2);
}

/* Every number once, for sizes around powers of two, and in another order for another key. */
static void test_permutation(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 100, 1000};
    for (size_t i = 0; i < FM_COUNT(sizes); i++) {
        unsigned char seen[1000] = {0};
        size_t same = 0;
        for (uint64_t k = 0; k < sizes[i]; k++) {
            const uint64_t at = fm_permute(k, sizes[i], 7);
            assert_true(at < sizes[i] && !seen[at]);
            seen[at] = 1;
            same += at == fm_permute(k, sizes[i], 8);
        }
        assert_true(sizes[i] < 100 || same < sizes[i] / 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes), cmocka_unit_test(test_names), cmocka_unit_test(test_ramp),
                                       cmocka_unit_test(test_permutation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
