/* test_base_error.c - base/error.h, fm_version and fm_status_name. */
#include "testing.h"

#include <errno.h>

#include "base/error.h"

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(fm_status_name(FM_OK), "FM_OK");
    assert_string_equal(fm_status_name(FM_ERR_IO), "FM_ERR_IO");
    assert_string_equal(fm_status_name(FM_ERR_MISMATCH), "FM_ERR_MISMATCH");
    assert_string_equal(fm_status_name((fm_status)-99), "unknown fm_status");
    char version[32];
    snprintf(version, sizeof(version), "%d.%d.%d", FM_VERSION_MAJOR, FM_VERSION_MINOR, FM_VERSION_PATCH);
    assert_string_equal(fm_version(), version);
}

static void test_fail(void **state)
{
    (void)state;
    fm_error err = {0};
    assert_int_equal(fm_fail(&err, FM_ERR_SHAPE, "%s has %d rows", "A_log", 7), FM_ERR_SHAPE);
    assert_int_equal(err.code, FM_ERR_SHAPE);
    assert_string_equal(err.text, "A_log has 7 rows");
    assert_int_equal(fm_fail(&err, FM_ERR_FORMAT, "again: %s", err.text), FM_ERR_FORMAT);
    assert_string_equal(err.text, "again: A_log has 7 rows");
    assert_int_equal(fm_fail(NULL, FM_ERR_LIMIT, "nobody listens"), FM_ERR_LIMIT);
}

static void test_errno(void **state)
{
    (void)state;
    fm_error err = {0};
    errno = ENOENT;
    assert_int_equal(fm_fail_errno(&err, "cannot open %s", "x"), FM_ERR_IO);
    assert_string_equal(err.text, "cannot open x: No such file or directory");
    errno = ENOMEM;
    assert_int_equal(fm_fail_errno(&err, "mlock"), FM_ERR_MEMORY);
    assert_int_equal(fm_fail_errno(NULL, "mlock"), FM_ERR_MEMORY);
    errno = 12345;
    assert_fails(fm_fail_errno(&err, "odd"), FM_ERR_IO, err, "system error 12345");
}

static void test_prefix(void **state)
{
    (void)state;
    fm_error err = {0};
    fm_fail(&err, FM_ERR_FORMAT, "cut off");
    assert_int_equal(fm_fail_prefix(&err, FM_ERR_IO, "model %d", 2), FM_ERR_FORMAT);
    assert_string_equal(err.text, "model 2: cut off");
    assert_int_equal(fm_fail_prefix(NULL, FM_ERR_IO, "model"), FM_ERR_IO);
}

/* Texts that do not fit end with a whole code point and are terminated. */
static void test_long(void **state)
{
    (void)state;
    char text[2000];
    for (size_t shift = 0; shift < 4; shift++) {
        fm_error err = {0};
        memset(text, 'a', sizeof(text));
        for (size_t i = shift; i + 3 < sizeof(text); i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
        text[sizeof(text) - 1] = '\0';
        fm_fail(&err, FM_ERR_IO, "%s", text);
        const size_t n = strlen(err.text);
        assert_true(n < sizeof(err.text) && n >= sizeof(err.text) - 3);
        assert_int_equal((n - shift) % 3, 0);
        assert_memory_equal(err.text, text, n);
        fm_fail_prefix(&err, FM_ERR_IO, "prefix");
        assert_true(strlen(err.text) < sizeof(err.text));
        assert_memory_equal(err.text, "prefix: ", 8);
    }
}

static fm_status passes_on(fm_status status)
{
    FM_TRY(status);
    return FM_ERR_CANCELLED;
}

static void test_try(void **state)
{
    (void)state;
    assert_int_equal(passes_on(FM_ERR_LIMIT), FM_ERR_LIMIT);
    assert_int_equal(passes_on(FM_OK), FM_ERR_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  cmocka_unit_test(test_fail), cmocka_unit_test(test_errno),
        cmocka_unit_test(test_prefix), cmocka_unit_test(test_long), cmocka_unit_test(test_try),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
