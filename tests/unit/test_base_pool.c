/* test_base_pool.c - base/pool.h: every part runs, barriers order, forks and failing threads are survived. */
#include "testing.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "base/pool.h"

#define PARTS_MAX 16

typedef struct job {
    fm_pool *pool;
    int ran[PARTS_MAX];
    int value[2][PARTS_MAX];
    atomic_int n_wrong;
    unsigned n_parts;
    int rounds;
} job;

static void mark(void *ctx, unsigned part, unsigned n_parts)
{
    job *j = ctx;
    j->ran[part]++;
    if (part == 0) j->n_parts = n_parts;
}

static void test_every_part(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 5; n++) {
        job j = {0};
        assert_ok(fm_pool_open(&j.pool, n, NULL, NULL));
        assert_int_equal(fm_pool_threads(j.pool), n);
        for (int i = 0; i < 200; i++) fm_pool_run(j.pool, mark, &j);
        assert_int_equal(j.n_parts, n);
        for (unsigned part = 0; part < n; part++) assert_int_equal(j.ran[part], 200);
        fm_pool_free(j.pool);
    }
}

/* Plain memory on purpose: only the barrier orders it, which the thread sanitizer checks too. */
static void pass_around(void *ctx, unsigned part, unsigned n_parts)
{
    job *j = ctx;
    for (int i = 0; i < j->rounds; i++) {
        int *now = j->value[i % 2];
        now[part] = i;
        fm_pool_sync(j->pool, part);
        for (unsigned k = 0; k < n_parts; k++)
            if (now[k] != i) atomic_fetch_add(&j->n_wrong, 1);
    }
}

static void test_barrier(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 6; n++) {
        job j = {.rounds = 300};
        assert_ok(fm_pool_open(&j.pool, n, NULL, NULL));
        for (int i = 0; i < 5; i++) fm_pool_run(j.pool, pass_around, &j);
        assert_int_equal(atomic_load(&j.n_wrong), 0);
        fm_pool_free(j.pool);
    }
}

/* Parts that come late make the others sleep in the barrier, and the caller at the end. */
static void dawdle(void *ctx, unsigned part, unsigned n_parts)
{
    job *j = ctx;
    for (unsigned i = 0; i < 4; i++) {
        const struct timespec pause = {0, 2000000};
        if (part == i % n_parts) nanosleep(&pause, NULL);
        fm_pool_sync(j->pool, part);
    }
    if (part + 1 == n_parts) nanosleep(&(const struct timespec){0, 2000000}, NULL);
    j->ran[part]++;
}

static void test_sleeping(void **state)
{
    (void)state;
    job j = {0};
    assert_ok(fm_pool_open(&j.pool, 2, NULL, NULL));
    for (int i = 0; i < 10; i++) fm_pool_run(j.pool, dawdle, &j);
    assert_int_equal(j.ran[0] + j.ran[1], 20);
    fm_pool_free(j.pool);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_idle_costs_nothing(void **state)
{
    (void)state;
    job j = {0};
    assert_ok(fm_pool_open(&j.pool, 4, NULL, NULL));
    fm_pool_run(j.pool, mark, &j);
    nanosleep(&(const struct timespec){0, 20000000}, NULL);
    const double before = cpu_seconds();
    nanosleep(&(const struct timespec){0, 200000000}, NULL);
    assert_true(cpu_seconds() - before < 0.05);
    fm_pool_free(j.pool);
}

static void test_unused(void **state)
{
    (void)state;
    fm_pool *p = NULL;
    assert_ok(fm_pool_open(&p, 0, NULL, NULL));
    assert_true(fm_pool_threads(p) >= 1);
    fm_pool_free(p);
    fm_pool_free(NULL);
    fm_error err = {0};
    assert_fails(fm_pool_open(&p, 1000000, NULL, &err), FM_ERR_LIMIT, err, "1000000 threads");
    assert_null(p);
}

/* A child has none of the parent's workers: it starts its own, works, and frees the pool; the parent's goes on. */
static void test_fork(void **state)
{
    (void)state;
    if (TEST_TSAN) skip(); /* it stops a child that starts threads */
    job j = {.rounds = 20};
    assert_ok(fm_pool_open(&j.pool, 3, NULL, NULL));
    fm_pool_run(j.pool, pass_around, &j);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        fm_pool_run(j.pool, mark, &j);
        fm_pool_run(j.pool, pass_around, &j);
        const bool good = j.n_parts == 3 && j.ran[1] == 1 && j.ran[2] == 1 && atomic_load(&j.n_wrong) == 0;
        fm_pool_free(j.pool);
        _exit(good ? 0 : 1);
    }
    const pid_t idle = fork(); /* a child that only frees */
    if (idle == 0) {
        alarm(20);
        fm_pool_free(j.pool);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(waitpid(idle, &status, 0), idle);
    assert_int_equal(status, 0);
    fm_pool_run(j.pool, mark, &j);
    assert_int_equal(j.ran[2], 1);
    fm_pool_free(j.pool);
}

static void see_signals(void *ctx, unsigned part, unsigned n_parts)
{
    (void)n_parts;
    job *j = ctx;
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    j->ran[part] = sigismember(&set, SIGINT) + sigismember(&set, SIGTERM);
}

static void test_signals(void **state)
{
    (void)state;
    job j = {0};
    assert_ok(fm_pool_open(&j.pool, 2, NULL, NULL));
    fm_pool_run(j.pool, see_signals, &j);
    assert_int_equal(j.ran[0], 0);
    assert_int_equal(j.ran[1], 2);
    fm_pool_free(j.pool);
}

static fm_status open_and_run(const fm_allocator *a, void *ctx)
{
    job *j = ctx;
    FM_TRY(fm_pool_open(&j->pool, 3, a, NULL));
    fm_pool_run(j->pool, mark, j);
    fm_pool_free(j->pool);
    return FM_OK;
}

static void test_failing(void **state)
{
    (void)state;
    job j = {0};
    test_every_allocation(open_and_run, &j);
    assert_int_equal(j.ran[2], 1);
}

/* No room for another thread's stack: the job runs on the threads there are.  In a child, as the limit stays. */
static void test_no_threads(void **state)
{
    (void)state;
    if (TEST_ASAN || TEST_TSAN) skip(); /* they need more address space than the limit leaves */
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        job j = {.rounds = 3};
        if (fm_pool_open(&j.pool, 8, NULL, NULL) != FM_OK) _exit(2);
        const struct rlimit none = {0, 0};
        if (setrlimit(RLIMIT_AS, &none) != 0) _exit(3);
        fm_pool_run(j.pool, mark, &j);
        fm_pool_run(j.pool, pass_around, &j);
        const bool good = j.ran[0] == 1 && j.n_parts >= 1 && j.n_parts < 8 && atomic_load(&j.n_wrong) == 0;
        fm_pool_free(j.pool);
        _exit(good ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part), cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_sleeping),   cmocka_unit_test(test_idle_costs_nothing),
        cmocka_unit_test(test_unused),     cmocka_unit_test(test_fork),
        cmocka_unit_test(test_signals),    cmocka_unit_test(test_failing),
        cmocka_unit_test(test_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
