/* test_base_memory.c - free memory is never more than the limit on the process leaves. */
#include <sys/resource.h>

#include "base/memory.h"
#include "testing.h"

static void a_limit_counts(void **state)
{
    (void)state;
    struct rlimit before, limit;
    const uint64_t all = fm_memory_free();
    assert_true(all > 0 && all != UINT64_MAX);
    if (TEST_ASAN || TEST_TSAN) return; /* shadow memory is beyond any such limit */
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)1 << 30;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    const uint64_t less = fm_memory_free();
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_true(less < (uint64_t)1 << 30);
    assert_true(less > (uint64_t)1 << 20 || less == all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_limit_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
