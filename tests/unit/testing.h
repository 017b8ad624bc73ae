/* testing.h - what the unit tests share: cmocka, an allocator that counts and fails on request, a folder of scratch files, and
 * assertions about fm_status. */
#ifndef FM_TESTS_UNIT_TESTING_H
#define FM_TESTS_UNIT_TESTING_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/compiler.h"

/* Which sanitizer this program was built with, for the few tests that one of them makes impossible. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_ASAN 1
#elif __has_feature(thread_sanitizer)
#define TEST_TSAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define TEST_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define TEST_TSAN 1
#endif
#ifndef TEST_ASAN
#define TEST_ASAN 0
#endif
#ifndef TEST_TSAN
#define TEST_TSAN 0
#endif

/* Hand &t.a to the code under test.  Allocation number fail_at (from 1) and all later ones fail; 0: none does. */
typedef struct test_allocator {
    fm_allocator a;
    size_t n_calls, n_live, fail_at;
} test_allocator;

FM_UNUSED static void *test_take(void *ctx, size_t bytes, size_t align)
{
    test_allocator *t = ctx;
    t->n_calls++;
    if (t->fail_at != 0 && t->n_calls >= t->fail_at) return NULL;
    void *p = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (p == NULL) return NULL;
    memset(p, 0xA5, bytes); /* whoever trusts fresh memory to be zero finds out */
    t->n_live++;
    return p;
}

FM_UNUSED static void test_give_back(void *ctx, void *p)
{
    test_allocator *t = ctx;
    assert_true(t->n_live > 0);
    t->n_live--;
    free(p);
}

/* It points to itself, so it must stay where it is. */
FM_UNUSED static void test_allocator_arm(test_allocator *t, size_t fail_at)
{
    *t = (test_allocator){.a = {test_take, test_give_back, NULL}, .fail_at = fail_at};
    t->a.ctx = t;
}

/* Calls body(allocator, ctx) with the 1st, the 2nd ... allocation failing until it succeeds.  Every failing run must report
 * FM_ERR_MEMORY and leave nothing behind; so must the run that succeeds, which frees what it made.  Returns the allocations
 * of the successful run. */
FM_UNUSED static size_t test_every_allocation(fm_status (*body)(const fm_allocator *a, void *ctx), void *ctx)
{
    for (size_t fail_at = 1; fail_at < 100000; fail_at++) {
        test_allocator t;
        test_allocator_arm(&t, fail_at);
        const fm_status status = body(&t.a, ctx);
        assert_int_equal(t.n_live, 0);
        if (t.n_calls < fail_at) {
            assert_int_equal(status, FM_OK);
            return t.n_calls;
        }
        assert_int_equal(status, FM_ERR_MEMORY);
    }
    fail_msg("still allocating after 100000 allocations");
    return 0;
}

#define assert_ok(call)                                                                                                        \
    do {                                                                                                                       \
        const fm_status assert_status_ = (call);                                                                               \
        if (assert_status_ != FM_OK) fail_msg("%s: %s", #call, fm_status_name(assert_status_));                                \
    } while (0)

/* The call fails with this code, and the sentence in `error` (an fm_error) has `part` in it. */
#define assert_fails(call, want, error, part)                                                                                  \
    do {                                                                                                                       \
        assert_int_equal((call), (want));                                                                                      \
        assert_int_equal((error).code, (want));                                                                                \
        if (strstr((error).text, (part)) == NULL) fail_msg("\"%s\" is not in the error \"%s\"", (part), (error).text);         \
    } while (0)

/* A new folder under the current one; test_folder_remove() deletes it and the files directly in it. */
typedef struct test_folder {
    char path[64];
} test_folder;

FM_UNUSED static test_folder test_folder_make(void)
{
    test_folder f = {"test_scratch_XXXXXX"};
    assert_non_null(mkdtemp(f.path));
    return f;
}

/* "<folder>/<name>" in a buffer of the caller's. */
FM_UNUSED static char *test_path(char out[256], const test_folder *f, const char *name)
{
    assert_true(snprintf(out, 256, "%s/%s", f->path, name) < 256);
    return out;
}

FM_UNUSED static void test_file_write(const char *path, const void *p, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(p, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* Files in the folder; with `delete` they are deleted on the way. */
FM_UNUSED static size_t test_folder_walk(const test_folder *f, bool delete)
{
    DIR *dir = opendir(f->path);
    assert_non_null(dir);
    size_t n = 0;
    char path[256];
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        n++;
        if (delete) assert_int_equal(remove(test_path(path, f, e->d_name)), 0);
    }
    closedir(dir);
    return n;
}

FM_UNUSED static size_t test_folder_count(const test_folder *f)
{
    return test_folder_walk(f, false);
}

FM_UNUSED static void test_folder_remove(const test_folder *f)
{
    test_folder_walk(f, true);
    assert_int_equal(rmdir(f->path), 0);
}

#endif
