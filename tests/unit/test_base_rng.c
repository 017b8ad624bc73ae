/* test_base_rng.c - base/rng.h against Random123's published answers, and as a distribution. */
#include "testing.h"

#include <math.h>

#include "base/rng.h"

static void check_words(uint64_t seed, uint64_t stream, uint64_t counter, const uint32_t want[4])
{
    uint32_t got[4];
    fm_rng_words(got, seed, stream, counter);
    assert_memory_equal(got, want, sizeof(got));
}

/* philox4x32-10 of Random123's kat_vectors: counter words 0..3, then key words 0..1, lowest first. */
static void test_known_answers(void **state)
{
    (void)state;
    check_words(0, 0, 0, (const uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check_words(UINT64_MAX, UINT64_MAX, UINT64_MAX, (const uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check_words(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u,
                (const uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void test_uniform(void **state)
{
    (void)state;
    double sum = 0.0, squares = 0.0;
    const int n = 100000;
    for (int i = 0; i < n; i++) {
        const double u = fm_rng_uniform(42, 7, (uint64_t)i);
        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
        squares += u * u;
    }
    assert_true(fabs(sum / n - 0.5) < 0.005); /* five standard errors */
    assert_true(fabs(squares / n - 1.0 / 3.0) < 0.005);
}

static void test_normal(void **state)
{
    (void)state;
    double sum = 0.0, squares = 0.0, fourth = 0.0;
    const int n = 100000;
    for (int i = 0; i < n; i++) {
        const double x = (double)fm_rng_normal(1, 2, (uint64_t)i);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(sum / n) < 0.016);
    assert_true(fabs(squares / n - 1.0) < 0.025);
    assert_true(fabs(fourth / n - 3.0) < 0.2);
}

/* Any change of seed, stream or counter gives another value; the same three give the same. */
static void test_independence(void **state)
{
    (void)state;
    const double u = fm_rng_uniform(1, 2, 3);
    assert_true(u == fm_rng_uniform(1, 2, 3));
    assert_true(u != fm_rng_uniform(2, 2, 3) && u != fm_rng_uniform(1, 3, 3) && u != fm_rng_uniform(1, 2, 4));
    assert_true(u != fm_rng_uniform(1 + (1ull << 32), 2, 3) && u != fm_rng_uniform(1, 2 + (1ull << 32), 3));
    assert_true(u != fm_rng_uniform(1, 2, 3 + (1ull << 32)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_independence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
