/* test_base_parse.c - strict number reading of base/str.h, in every locale. */
#include "testing.h"

#include <locale.h>
#include <math.h>

#include "base/str.h"

static void test_u64(void **state)
{
    (void)state;
    uint64_t v = 77;
    assert_true(fm_parse_u64(FM_VIEW("0"), &v) && v == 0);
    assert_true(fm_parse_u64(FM_VIEW("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_true(fm_parse_u64(FM_VIEW("007"), &v) && v == 7);
    static const char *const wrong[] = {
        "", "-1", "+1", " 1", "1 ", "1.0", "0x10", "18446744073709551616", "99999999999999999999999", "1e3", "abc"};
    for (size_t i = 0; i < FM_COUNT(wrong); i++) assert_false(fm_parse_u64(fm_view_of(wrong[i]), &v));
    assert_false(fm_parse_u64((fm_view){NULL, 0}, &v));
    assert_int_equal(v, 7);
}

static void test_i64(void **state)
{
    (void)state;
    int64_t v = 77;
    assert_true(fm_parse_i64(FM_VIEW("-9223372036854775808"), &v) && v == INT64_MIN);
    assert_true(fm_parse_i64(FM_VIEW("9223372036854775807"), &v) && v == INT64_MAX);
    assert_true(fm_parse_i64(FM_VIEW("-0"), &v) && v == 0);
    static const char *const wrong[] = {"", "-", "--1", "+1", "9223372036854775808", "-9223372036854775809"};
    for (size_t i = 0; i < FM_COUNT(wrong); i++) assert_false(fm_parse_i64(fm_view_of(wrong[i]), &v));
    assert_int_equal(v, 0);
}

static void check_f64(void)
{
    double v = 77.0;
    static const struct {
        const char *text;
        double value;
    } right[] = {{"0", 0.0},
                 {"1e-05", 1e-05},
                 {"-2.5", -2.5},
                 {".5", 0.5},
                 {"5.", 5.0},
                 {"+3", 3.0},
                 {"1E+3", 1000.0},
                 {"4.9e-324", 4.9e-324},
                 {"1.7976931348623157e308", 1.7976931348623157e308},
                 {"1e-400", 0.0}};
    for (size_t i = 0; i < FM_COUNT(right); i++) {
        assert_true(fm_parse_f64(fm_view_of(right[i].text), &v));
        assert_true(v == right[i].value);
    }
    v = 77.0;
    static const char *const wrong[] = {"",      "-",  ".",  "e5",  "1e",    "1e+",    "inf",   "nan",
                                        "0x1p3", " 1", "1 ", "1,5", "1e400", "-1e400", "1.2.3", "1f"};
    for (size_t i = 0; i < FM_COUNT(wrong); i++) assert_false(fm_parse_f64(fm_view_of(wrong[i]), &v));
    assert_true(v == 77.0);
}

static void test_f64(void **state)
{
    (void)state;
    check_f64();
}

/* A locale with a decimal comma changes nothing.  (Where no such locale is installed, this is the test above again.) */
static void test_f64_in_a_locale(void **state)
{
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    for (size_t i = 0; i < FM_COUNT(names) && setlocale(LC_ALL, names[i]) == NULL; i++) continue;
    check_f64();
    setlocale(LC_ALL, "C");
}

/* Longer than the buffer on the stack; and a view is not terminated. */
static void test_f64_long(void **state)
{
    (void)state;
    char text[400];
    memset(text, '0', sizeof(text));
    text[0] = '1';
    text[1] = '.';
    text[398] = '5';
    text[399] = '9';
    double v = 0.0;
    assert_true(fm_parse_f64((fm_view){text, sizeof(text)}, &v) && v == 1.0);
    assert_true(fm_parse_f64((fm_view){text, 3}, &v) && v == 1.0);
    assert_true(fm_parse_f64((fm_view){"12345", 2}, &v) && v == 12.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_u64),      cmocka_unit_test(test_i64),
        cmocka_unit_test(test_f64),      cmocka_unit_test(test_f64_in_a_locale),
        cmocka_unit_test(test_f64_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
