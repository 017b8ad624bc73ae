/* test_base_json.c - the JSON reader of base/json.h. */
#include "testing.h"

#include "base/json.h"

static fm_status check(const char *text, size_t n, fm_error *err)
{
    fm_json j = fm_json_begin(text, n, "t");
    fm_json_skip(&j);
    return fm_json_finish(&j, err);
}

static void test_valid(void **state)
{
    (void)state;
    static const char *const right[] = {
        "0",
        "-0",
        "1.5e-10",
        "1E400",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        " [ 1 , 2 ] ",
        "[[],[[]],{}]",
        "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"e\"}",
        "\"\\u00e9\\n\\/\\\"\\\\\"",
        "\"\xC3\xA9\"",
        "\t\r\n1\n",
        "\"\\ud800\"",
        "\"\x7F\"",
        "{\"a\":1,\"a\":2}",
    };
    for (size_t i = 0; i < FM_COUNT(right); i++) {
        fm_error err = {0};
        if (check(right[i], strlen(right[i]), &err) != FM_OK) fail_msg("%s: %s", right[i], err.text);
    }
}

static void test_invalid(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        " ",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "tru",
        "nul",
        "nulL",
        "True",
        "'a'",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\n\"",
        "\"\xFF\"",
        "\"\xED\xA0\x80\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,,2]",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":}",
        "{\"a\":1",
        "{\"a\":1,}",
        "{,}",
        "{1:2}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "[1}",
        "{\"a\":1]",
        "1 2",
        "[] []",
        "// x\n1",
        "1,",
        "\xEF\xBB\xBF\x31",
        "[1]]",
        "--1",
        "1e+",
        "\"\\u\"",
    };
    for (size_t i = 0; i < FM_COUNT(wrong); i++) {
        fm_error err = {0};
        if (check(wrong[i], strlen(wrong[i]), &err) != FM_ERR_FORMAT) fail_msg("accepted: %s", wrong[i]);
    }
    assert_int_equal(check("1\0", 2, NULL), FM_ERR_FORMAT);
    assert_int_equal(check("\"a\0b\"", 5, NULL), FM_ERR_FORMAT);
    assert_int_equal(check(NULL, 0, NULL), FM_ERR_FORMAT);
}

/* Every cut of a good text is an error, and reads no byte past the cut (the copy is exact, for the sanitizer). */
static void test_cut(void **state)
{
    (void)state;
    static const char text[] = "{\"key\\u00e9\":[1.5e3,true,null,\"\\ud83d\\ude00\",\"\xE2\x82\xAC\"],\"b\":{}}";
    for (size_t n = 0; n < sizeof(text) - 1; n++) {
        char *copy = malloc(n + (n == 0));
        memcpy(copy, text, n);
        assert_int_equal(check(copy, n, NULL), FM_ERR_FORMAT);
        free(copy);
    }
    assert_int_equal(check(text, sizeof(text) - 1, NULL), FM_OK);
}

static void test_depth(void **state)
{
    (void)state;
    char text[2 * FM_JSON_DEPTH_MAX + 2];
    for (size_t depth = FM_JSON_DEPTH_MAX; depth <= FM_JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        fm_error err = {0};
        const fm_status status = check(text, 2 * depth, &err);
        assert_int_equal(status, depth <= FM_JSON_DEPTH_MAX ? FM_OK : FM_ERR_FORMAT);
        if (status != FM_OK) assert_string_equal(err.text, "t: nested deeper than 64 levels at byte 64");
    }
}

static void test_walk(void **state)
{
    (void)state;
    static const char text[] = "{\"vocab_size\": 65024, \"eps\": 1e-05, \"eos\": [11, -1], \"tied\": false,"
                               " \"pad\": null, \"name\": \"a\\tb\", \"other\": {\"x\": [1, {}]}, \"last\": 7}";
    fm_json j = fm_json_begin(text, sizeof(text) - 1, "config.json");
    fm_view key, name = {NULL, 0}, other = {NULL, 0};
    uint64_t vocab = 0, last = 0;
    int64_t eos[4] = {0};
    size_t n_eos = 0;
    double eps = 0.0;
    bool tied = true, null = false;
    assert_int_equal(fm_json_peek(&j), FM_JSON_OBJECT);
    assert_true(fm_json_enter_object(&j));
    while (fm_json_key(&j, &key)) {
        if (fm_view_is(key, "vocab_size"))
            fm_json_u64(&j, &vocab);
        else if (fm_view_is(key, "eps"))
            fm_json_f64(&j, &eps);
        else if (fm_view_is(key, "tied"))
            fm_json_bool(&j, &tied);
        else if (fm_view_is(key, "pad"))
            null = fm_json_null(&j);
        else if (fm_view_is(key, "name"))
            fm_json_string(&j, &name);
        else if (fm_view_is(key, "other"))
            fm_json_raw(&j, &other);
        else if (fm_view_is(key, "eos") && fm_json_enter_array(&j)) {
            while (fm_json_element(&j)) fm_json_i64(&j, &eos[n_eos++]);
        } else if (!fm_json_null(&j))
            fm_json_u64(&j, &last);
    }
    assert_int_equal(fm_json_peek(&j), FM_JSON_END);
    assert_ok(fm_json_finish(&j, NULL));
    assert_int_equal(vocab, 65024);
    assert_true(eps == 1e-05 && !tied && null);
    assert_int_equal(n_eos, 2);
    assert_true(eos[0] == 11 && eos[1] == -1 && last == 7);
    assert_true(fm_view_is(name, "a\\tb"));
    assert_true(fm_view_is(other, "{\"x\": [1, {}]}"));
}

static void test_peek(void **state)
{
    (void)state;
    static const char text[] = "[1, \"a\", true, null, {}, []]";
    static const fm_json_type want[] = {FM_JSON_NUMBER, FM_JSON_STRING, FM_JSON_BOOL,
                                        FM_JSON_NULL,   FM_JSON_OBJECT, FM_JSON_ARRAY};
    fm_json j = fm_json_begin(text, sizeof(text) - 1, NULL);
    assert_true(fm_json_enter_array(&j));
    for (size_t i = 0; i < FM_COUNT(want); i++) {
        assert_int_equal(fm_json_peek(&j), want[i]); /* also before the comma */
        assert_true(fm_json_element(&j));
        assert_int_equal(fm_json_peek(&j), want[i]);
        assert_true(fm_json_skip(&j));
    }
    assert_int_equal(fm_json_peek(&j), FM_JSON_END);
    assert_false(fm_json_element(&j));
    assert_ok(fm_json_finish(&j, NULL));
}

/* One wrong type: every later call fails, and the message says where. */
static void test_sticky(void **state)
{
    (void)state;
    static const char text[] = "{\"a\": \"x\", \"b\": 2}";
    fm_json j = fm_json_begin(text, sizeof(text) - 1, "file");
    fm_view key;
    uint64_t v = 5;
    bool flag = false;
    double d = 0.0;
    assert_true(fm_json_enter_object(&j) && fm_json_key(&j, &key));
    assert_false(fm_json_u64(&j, &v));
    assert_int_equal(v, 5);
    assert_false(fm_json_key(&j, &key));
    assert_false(fm_json_element(&j) || fm_json_enter_object(&j) || fm_json_enter_array(&j));
    assert_false(fm_json_string(&j, &key) || fm_json_bool(&j, &flag) || fm_json_f64(&j, &d) || fm_json_null(&j));
    assert_false(fm_json_skip(&j) || fm_json_raw(&j, &key));
    assert_int_equal(fm_json_peek(&j), FM_JSON_ERROR);
    fm_json_fail(&j, "a later reason");
    fm_error err = {0};
    assert_int_equal(fm_json_finish(&j, &err), FM_ERR_FORMAT);
    assert_string_equal(err.text, "file: expected a whole number at byte 6");
}

static bool one_u64(const char *text, uint64_t *out)
{
    fm_json j = fm_json_begin(text, strlen(text), NULL);
    return fm_json_u64(&j, out) && fm_json_finish(&j, NULL) == FM_OK;
}

static void test_numbers(void **state)
{
    (void)state;
    uint64_t u = 3;
    int64_t i = 3;
    double d = 3.0;
    assert_true(one_u64("18446744073709551615", &u) && u == UINT64_MAX);
    assert_false(one_u64("18446744073709551616", &u) || one_u64("-1", &u) || one_u64("1.0", &u) || one_u64("1e2", &u));
    fm_json j = fm_json_begin("-9223372036854775808", 20, NULL);
    assert_true(fm_json_i64(&j, &i) && i == INT64_MIN);
    j = fm_json_begin("1e999", 5, NULL);
    assert_false(fm_json_f64(&j, &d));
    assert_true(d == 3.0);
    j = fm_json_begin("1 ", 2, NULL);
    assert_false(fm_json_null(&j)); /* none there, and no error */
    assert_true(fm_json_f64(&j, &d) && d == 1.0);
    assert_false(fm_json_f64(&j, &d)); /* a second value */
}

static void check_unescape(const char *raw, const char *want, size_t n)
{
    fm_str s = {0};
    fm_json_unescape(&s, fm_view_of(raw));
    assert_int_equal(s.n, n);
    assert_memory_equal(s.p, want, n + 1);
    fm_str_free(&s);
}

static void test_unescape(void **state)
{
    (void)state;
    check_unescape("", "", 0);
    check_unescape("plain \xC3\xA9", "plain \xC3\xA9", 8);
    check_unescape("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8);
    check_unescape("\\u0041\\u00e9\\u20AC", "A\xC3\xA9\xE2\x82\xAC", 6);
    check_unescape("\\ud83d\\ude00!", "\xF0\x9F\x98\x80!", 5);
    check_unescape("\\ud83dx", "\xEF\xBF\xBDx", 4);
    check_unescape("\\ude00\\ud83d", "\xEF\xBF\xBD\xEF\xBF\xBD", 6);
    check_unescape("\\ud83d\\u0041",
                   "\xEF\xBF\xBD"
                   "A",
                   4);
    check_unescape("a\\u0000b", "a\0b", 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),  cmocka_unit_test(test_invalid), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_depth),  cmocka_unit_test(test_walk),    cmocka_unit_test(test_peek),
        cmocka_unit_test(test_sticky), cmocka_unit_test(test_numbers), cmocka_unit_test(test_unescape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
