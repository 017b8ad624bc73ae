/* test_base_jsonw.c - the JSON writer of base/json.h. */
#include "testing.h"

#include <locale.h>
#include <math.h>

#include "base/json.h"
#include "base/rng.h"

static void write_sample(fm_jsonw *w)
{
    fm_jsonw_object(w);
    fm_jsonw_key(w, "n");
    fm_jsonw_i64(w, -5);
    fm_jsonw_key(w, "list");
    fm_jsonw_array(w);
    fm_jsonw_u64(w, UINT64_MAX);
    fm_jsonw_bool(w, true);
    fm_jsonw_null(w);
    fm_jsonw_object(w);
    fm_jsonw_end(w, '}');
    fm_jsonw_end(w, ']');
    fm_jsonw_key(w, "s");
    fm_jsonw_cstr(w, "q\"\n");
    fm_jsonw_key(w, "none");
    fm_jsonw_cstr(w, NULL);
    fm_jsonw_end(w, '}');
}

static void test_layout(void **state)
{
    (void)state;
    fm_str s = {0};
    fm_jsonw w = {.out = &s};
    write_sample(&w);
    assert_string_equal(s.p, "{\"n\":-5,\"list\":[18446744073709551615,true,null,{}],\"s\":\"q\\\"\\n\",\"none\":null}");
    fm_str_reset(&s);
    w = (fm_jsonw){.out = &s, .pretty = true};
    write_sample(&w);
    assert_string_equal(s.p, "{\n  \"n\": -5,\n  \"list\": [\n    18446744073709551615,\n    true,\n    null,\n    {}\n  ],\n"
                             "  \"s\": \"q\\\"\\n\",\n  \"none\": null\n}");
    fm_json j = fm_json_begin(s.p, s.n, "sample");
    assert_true(fm_json_skip(&j));
    assert_ok(fm_json_finish(&j, NULL));
    fm_str_free(&s);
}

static void test_strings(void **state)
{
    (void)state;
    fm_str s = {0}, back = {0};
    fm_jsonw w = {.out = &s};
    fm_jsonw_string(&w, (fm_view){"\0\x1F\x7F\\\b\f\r\t\xC3\xA9\xFF\xE2\x82", 13});
    assert_string_equal(s.p, "\"\\u0000\\u001f\x7F\\\\\\b\\f\\r\\t\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD\"");
    fm_json j = fm_json_begin(s.p, s.n, NULL);
    fm_view raw;
    assert_true(fm_json_string(&j, &raw));
    fm_json_unescape(&back, raw);
    assert_memory_equal(back.p, "\0\x1F\x7F\\\b\f\r\t\xC3\xA9", 10);
    fm_str_free(&back);
    fm_str_free(&s);
}

static void check_f64(double v, const char *want)
{
    fm_str s = {0};
    fm_jsonw w = {.out = &s};
    fm_jsonw_f64(&w, v);
    assert_string_equal(s.p, want);
    fm_str_free(&s);
}

static void check_f32(float v, const char *want)
{
    fm_str s = {0};
    fm_jsonw w = {.out = &s};
    fm_jsonw_f32(&w, v);
    assert_string_equal(s.p, want);
    fm_str_free(&s);
}

static void test_floats(void **state)
{
    (void)state;
    check_f64(0.0, "0");
    check_f64(-0.0, "-0");
    check_f64(1.0, "1");
    check_f64(100.0, "100");
    check_f64(0.1, "0.1");
    check_f64(-12.5, "-12.5");
    check_f64(0.1 + 0.2, "0.30000000000000004");
    check_f64(1e-5, "0.00001");
    check_f64(1.5e-6, "1.5e-6");
    check_f64(1e15, "1000000000000000");
    check_f64(1e16, "1e16");
    check_f64(9007199254740993.0, "9007199254740992");
    check_f64(1.7976931348623157e308, "1.7976931348623157e308");
    check_f64(2.2250738585072014e-308, "2.2250738585072014e-308");
    check_f64(5e-324, "5e-324");
    check_f64(NAN, "null");
    check_f64(-INFINITY, "null");
    check_f32(0.1f, "0.1");
    check_f32(16777216.0f, "16777216");
    check_f32(3.4028235e38f, "3.4028235e38");
    check_f32(1e-45f, "1e-45");
    check_f32(-1.17549435e-38f, "-1.1754944e-38");
    check_f32(INFINITY, "null");
}

/* Random bit patterns, written and read: the same number. */
static void check_round_trips(void)
{
    fm_str s = {0};
    for (uint64_t i = 0; i < 5000; i++) {
        uint32_t words[4];
        double d = 0.0, back = 0.0;
        float f = 0.0f;
        fm_rng_words(words, 1, 2, i);
        memcpy(&d, words, sizeof(d));
        memcpy(&f, words + 2, sizeof(f));
        if (!isfinite(d) || !isfinite(f)) continue;
        fm_jsonw w = {.out = &s};
        fm_str_reset(&s);
        fm_jsonw_f64(&w, d);
        assert_true(fm_parse_f64((fm_view){s.p, s.n}, &back) && back == d);
        assert_true(s.n <= 24);
        fm_str_reset(&s);
        fm_jsonw_f32(&w, f);
        assert_true(fm_parse_f64((fm_view){s.p, s.n}, &back) && (float)back == f);
        assert_true(strtof(s.p, NULL) == f);
        assert_true(s.n <= 17);
    }
    fm_str_free(&s);
}

static void test_round_trips(void **state)
{
    (void)state;
    check_round_trips();
}

static void test_locale(void **state)
{
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    for (size_t i = 0; i < FM_COUNT(names) && setlocale(LC_ALL, names[i]) == NULL; i++) continue;
    check_f64(-12.5, "-12.5");
    check_f64(1.5e-300, "1.5e-300");
    setlocale(LC_ALL, "C");
}

static fm_status write_with(const fm_allocator *a, void *ctx)
{
    (void)ctx;
    fm_str s = {.a = a};
    fm_jsonw w = {.out = &s, .pretty = true};
    fm_jsonw_array(&w);
    for (int i = 0; i < 50; i++) write_sample(&w);
    fm_jsonw_end(&w, ']');
    const fm_status status = fm_str_ok(&s, "JSON", NULL);
    fm_str_free(&s);
    return status;
}

static void test_failing(void **state)
{
    (void)state;
    assert_true(test_every_allocation(write_with, NULL) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),      cmocka_unit_test(test_strings), cmocka_unit_test(test_floats),
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_locale),  cmocka_unit_test(test_failing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
