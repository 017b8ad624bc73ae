/* test_base_str.c - views and the string builder of base/str.h. */
#include "testing.h"

#include "base/str.h"

static void test_views(void **state)
{
    (void)state;
    const fm_view v = FM_VIEW("model.safetensors");
    assert_int_equal(v.n, 17);
    assert_true(fm_view_is(v, "model.safetensors"));
    assert_false(fm_view_is(v, "model.safetensor"));
    assert_true(fm_view_starts(v, "model."));
    assert_true(fm_view_starts(v, ""));
    assert_false(fm_view_starts(v, "model.safetensors.index"));
    assert_true(fm_view_ends(v, ".safetensors"));
    assert_false(fm_view_ends(v, ".gguf"));
    const fm_view none = fm_view_of(NULL);
    assert_true(none.p == NULL && none.n == 0);
    assert_true(fm_view_eq(none, FM_VIEW("")));
    assert_true(fm_view_starts(none, "") && fm_view_ends(none, ""));
    assert_false(fm_view_starts(none, "x"));
}

static void test_builder(void **state)
{
    (void)state;
    test_allocator t;
    test_allocator_arm(&t, 0);
    fm_str s = {.a = &t.a};
    fm_str_puts(&s, "one");
    fm_str_putc(&s, ' ');
    fm_str_put(&s, "two\0three", 9);
    fm_str_printf(&s, " %d%%", 4);
    assert_int_equal(s.n, 3 + 1 + 9 + 3);
    assert_memory_equal(s.p, "one two\0three 4%", s.n + 1);
    fm_str_reset(&s);
    assert_int_equal(s.n, 0);
    assert_string_equal(s.p, "");
    assert_ok(fm_str_ok(&s, "a test", NULL));
    fm_str_free(&s);
    assert_null(s.p);
    assert_ptr_equal(s.a, &t.a);
    assert_int_equal(t.n_live, 0);
}

/* printf around the size of its first buffer, and far beyond. */
static void test_long_printf(void **state)
{
    (void)state;
    static const int widths[] = {0, 1, 254, 255, 256, 257, 5000};
    fm_str s = {0};
    size_t n = 0;
    for (size_t i = 0; i < FM_COUNT(widths); i++) {
        fm_str_printf(&s, "%*s", widths[i], "");
        n += (size_t)widths[i];
        assert_int_equal(s.n, n);
        assert_int_equal(strlen(s.p), n);
    }
    fm_str_free(&s);
}

static void test_words(void **state)
{
    (void)state;
    size_t at = 9;
    assert_true(fm_word_find(FM_VIEW("note"), "note|skip|rewind", '|', &at) && at == 0);
    assert_true(fm_word_find(FM_VIEW("rewind"), "note|skip|rewind", '|', &at) && at == 2);
    static const char *const others[] = {"", "not", "notes", "note|skip", "|", "skip "};
    for (size_t i = 0; i < FM_COUNT(others); i++)
        assert_false(fm_word_find(fm_view_of(others[i]), "note|skip|rewind", '|', &at));
    assert_int_equal(at, 2);
    assert_false(fm_word_find(FM_VIEW("a"), NULL, ' ', NULL));
    assert_true(fm_word_find(FM_VIEW("b"), "a b", ' ', NULL));
}

static fm_status build(const fm_allocator *a, void *ctx)
{
    fm_str s = {.a = a};
    for (int i = 0; i < 300; i++) fm_str_printf(&s, "%d,", i);
    fm_str_printf(&s, "%400d", 1);
    const fm_status status = fm_str_ok(&s, "numbers", ctx);
    assert_true(s.p == NULL || strlen(s.p) == s.n);
    fm_str_free(&s);
    return status;
}

static void test_failing(void **state)
{
    (void)state;
    fm_error err = {0};
    assert_true(test_every_allocation(build, &err) > 5);
    assert_non_null(strstr(err.text, "numbers"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views), cmocka_unit_test(test_builder), cmocka_unit_test(test_long_printf),
        cmocka_unit_test(test_words), cmocka_unit_test(test_failing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
