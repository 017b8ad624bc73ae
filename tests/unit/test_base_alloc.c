/* test_base_alloc.c - base/alloc.h and base/arena.h. */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "testing.h"

#include "base/arena.h"

static void test_sizes(void **state)
{
    (void)state;
    size_t n = 7;
    assert_true(fm_mul(6, 7, &n));
    assert_int_equal(n, 42);
    assert_false(fm_mul(SIZE_MAX / 2, 3, &n));
    assert_false(fm_add(SIZE_MAX, 1, &n));
    assert_int_equal(n, 42);
    assert_true(fm_add(SIZE_MAX, 0, &n));
    assert_true(n == SIZE_MAX);
    assert_int_equal(fm_round_up(0, 64), 0);
    assert_int_equal(fm_round_up(65, 64), 128);
}

static void check_zeroed(const fm_allocator *a, size_t count, size_t size)
{
    void *p = NULL;
    assert_ok(fm_alloc(&p, a, count, size, "a test", NULL));
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % FM_ALIGN, 0);
    for (size_t i = 0; i < count * size; i++) assert_int_equal(((unsigned char *)p)[i], 0);
    fm_free(a, p);
}

static void test_alloc_zeroes(void **state)
{
    (void)state;
    test_allocator t;
    test_allocator_arm(&t, 0);
    for (size_t n = 0; n < 200; n += 13) {
        check_zeroed(NULL, n, 3);
        check_zeroed(&t.a, n, 3);
    }
    assert_int_equal(t.n_live, 0);
    fm_free(NULL, NULL);
    fm_free(&t.a, NULL);
}

/* Large blocks are zeroed by giving pages back; here they come from memory that has been written before. */
static void test_large_blocks(void **state)
{
    (void)state;
    const size_t mib = (size_t)1 << 20, sizes[] = {4 * mib - 64, 4 * mib, 4 * mib + 64, 6 * mib + 4096, 9 * mib + 192};
#if defined(__GLIBC__) && !TEST_ASAN && !TEST_TSAN
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 32 << 20), 1);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 1 << 30), 1);
#endif
    for (size_t i = 0; i < FM_COUNT(sizes); i++) {
        unsigned char *dirty = malloc(sizes[i] + mib);
        void *p;
        assert_non_null(dirty);
        memset(dirty, 0xff, sizes[i] + mib);
        free(dirty);
        assert_ok(fm_alloc(&p, NULL, sizes[i], 1, "a large block", NULL));
#if defined(__GLIBC__) && !TEST_ASAN && !TEST_TSAN
        assert_in_range((uintptr_t)p, (uintptr_t)dirty, (uintptr_t)dirty + mib);
#endif
        for (size_t k = 0; k < sizes[i]; k++)
            if (((unsigned char *)p)[k]) fail_msg("byte %zu of %zu is not zero", k, sizes[i]);
        memset(p, 0xff, sizes[i]);
        fm_free(NULL, p);
    }
}

static void test_alloc_fails(void **state)
{
    (void)state;
    fm_error err = {0};
    void *p = &err;
    assert_fails(fm_alloc(&p, NULL, SIZE_MAX, 2, "a giant", &err), FM_ERR_MEMORY, err, "a giant");
    assert_null(p);
    assert_fails(fm_alloc(&p, NULL, SIZE_MAX, 1, "a giant", &err), FM_ERR_MEMORY, err, "a giant");
    test_allocator t;
    test_allocator_arm(&t, 1);
    assert_fails(fm_alloc(&p, &t.a, 10, 8, "ten words", &err), FM_ERR_MEMORY, err, "80 bytes");
    assert_null(p);
}

static void test_grow(void **state)
{
    (void)state;
    test_allocator t;
    test_allocator_arm(&t, 0);
    void *p = NULL;
    size_t cap = 0;
    for (size_t n = 1; n <= 1000; n++) {
        assert_ok(fm_grow(&p, &cap, n, sizeof(uint32_t), &t.a, "numbers", NULL));
        assert_true(cap >= n);
        ((uint32_t *)p)[n - 1] = (uint32_t)n;
    }
    for (uint32_t i = 0; i < 1000; i++) assert_int_equal(((uint32_t *)p)[i], i + 1);
    assert_true(t.n_calls < 12);
    assert_int_equal(t.n_live, 1);
    const size_t before = cap;
    void *const same = p;
    fm_error err = {0};
    assert_fails(fm_grow(&p, &cap, SIZE_MAX / 2, 4, &t.a, "numbers", &err), FM_ERR_MEMORY, err, "numbers");
    assert_int_equal(cap, before);
    assert_ptr_equal(p, same);
    fm_free(&t.a, p);
    assert_int_equal(t.n_live, 0);
}

static void test_strdup(void **state)
{
    (void)state;
    char *s = fm_strdup(NULL, "falcon mamba", 6, NULL);
    assert_string_equal(s, "falcon");
    fm_free(NULL, s);
    s = fm_strdup(NULL, NULL, 0, NULL);
    assert_string_equal(s, "");
    fm_free(NULL, s);
    fm_error err = {0};
    assert_null(fm_strdup(NULL, "", SIZE_MAX, &err));
    assert_int_equal(err.code, FM_ERR_MEMORY);
}

typedef struct layout {
    char *a;
    double *b, *c;
} layout;

static layout push_all(fm_arena *arena)
{
    layout l;
    l.a = FM_PUSH(arena, char, 3);
    l.b = FM_PUSH(arena, double, 9);
    l.c = FM_PUSH(arena, double, 0);
    return l;
}

static void test_arena(void **state)
{
    (void)state;
    fm_arena arena = {0};
    layout l = push_all(&arena);
    assert_null(l.a);
    assert_int_equal(arena.used, 64 + 128);
    void *memory = NULL;
    assert_ok(fm_alloc(&memory, NULL, arena.used, 1, "an arena", NULL));
    fm_arena real = {memory, 0, arena.used};
    l = push_all(&real);
    assert_ptr_equal(l.a, memory);
    assert_ptr_equal((char *)l.b, l.a + 64);
    assert_ptr_equal((char *)l.c, l.a + 192);
    assert_int_equal(real.used, real.size);
    fm_free(NULL, memory);
}

static void test_arena_saturates(void **state)
{
    (void)state;
    fm_arena arena = {0};
    fm_arena_push(&arena, SIZE_MAX / 2, 4);
    assert_true(arena.used == SIZE_MAX);
    fm_arena_push(&arena, 1, 1);
    assert_true(arena.used == SIZE_MAX);
    fm_arena edge = {0};
    fm_arena_push(&edge, SIZE_MAX - 10, 1);
    assert_true(edge.used == SIZE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),        cmocka_unit_test(test_alloc_zeroes),
        cmocka_unit_test(test_large_blocks), cmocka_unit_test(test_alloc_fails),
        cmocka_unit_test(test_grow),         cmocka_unit_test(test_strdup),
        cmocka_unit_test(test_arena),        cmocka_unit_test(test_arena_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
