/* test_base_cpu.c - base/cpu.h: features hang together, caps only take away, the count obeys the affinity mask. */
#define _GNU_SOURCE /* sched_setaffinity */
#include "testing.h"

#include <sched.h>

#include "base/cpu.h"

static void test_features(void **state)
{
    (void)state;
    const unsigned f = fm_cpu_features();
    if ((f & FM_CPU_AVX512) != 0) assert_true((f & FM_CPU_AVX2) != 0);
    if ((f & (FM_CPU_AVX512_VNNI | FM_CPU_AVX512_BF16)) != 0) assert_true((f & FM_CPU_AVX512) != 0);
    if ((f & FM_CPU_AMX_INT8) != 0) assert_true((f & FM_CPU_AVX512_VNNI) != 0);
    if ((f & FM_CPU_STREAM) != 0) assert_true((f & FM_CPU_AVX2) != 0);
    if ((f & FM_CPU_DOTPROD) != 0) assert_true((f & FM_CPU_NEON) != 0);
    assert_false((f & FM_CPU_AVX2) != 0 && (f & FM_CPU_NEON) != 0);
#if defined(__x86_64__)
    __builtin_cpu_init();
    assert_int_equal((f & FM_CPU_AVX2) != 0, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    assert_int_equal((f & FM_CPU_AVX512) != 0, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
    assert_int_equal((f & FM_CPU_AVX512_VNNI) != 0, __builtin_cpu_supports("avx512vnni") != 0);
#endif
}

static void test_caps(void **state)
{
    (void)state;
    static const char *const tables[] = {"avx2", "avx512",      "avx512+vnni", "avx512+vnni+bf16", "avx512+vnni+amx",
                                         "neon", "neon+dotprod"};
    static const unsigned bits[] = {FM_CPU_AVX2,     FM_CPU_AVX512, FM_CPU_AVX512_VNNI, FM_CPU_AVX512_BF16,
                                    FM_CPU_AMX_INT8, FM_CPU_NEON,   FM_CPU_DOTPROD};
    const unsigned have = fm_cpu_features();
    fm_error err = {0};
    unsigned f = 99;
    assert_ok(fm_cpu_cap(&f, NULL, &err));
    assert_int_equal(f | FM_CPU_AVX512_BF16, have | FM_CPU_AVX512_BF16); /* which only its name asks for */
    assert_int_equal(f & ~have, 0);
    const unsigned chosen = f;
    assert_ok(fm_cpu_cap(&f, "auto", &err));
    assert_int_equal(f, chosen);
    assert_ok(fm_cpu_cap(&f, "ref", &err));
    assert_int_equal(f, 0);
    for (size_t i = 0; i < FM_COUNT(tables); i++) {
        if ((have & bits[i]) == bits[i]) {
            assert_ok(fm_cpu_cap(&f, tables[i], &err));
            assert_true((f & bits[i]) != 0 && (f & ~have) == 0);
            assert_int_equal(f & FM_CPU_STREAM, have & FM_CPU_STREAM);
        } else {
            assert_fails(fm_cpu_cap(&f, tables[i], &err), FM_ERR_UNSUPPORTED, err, tables[i]);
            assert_int_equal(f, 0);
        }
    }
    assert_fails(fm_cpu_cap(&f, "sse9", &err), FM_ERR_ARGUMENT, err, "sse9");
}

static void test_count(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_true(fm_cpu_count() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_true(fm_cpu_count() <= (unsigned)CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    if (sched_setaffinity(0, sizeof(one), &one) != 0) skip();
    assert_int_equal(fm_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
