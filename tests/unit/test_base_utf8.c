/* test_base_utf8.c - base/utf8.h against the definition, over every code point and many broken sequences. */
#include "testing.h"

#include "base/utf8.h"

static bool is_scalar(uint32_t cp)
{
    return cp <= 0x10FFFF && !(cp >= 0xD800 && cp <= 0xDFFF);
}

static void test_round_trip(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110100; cp++) {
        char text[4];
        uint32_t back = 0;
        const size_t n = fm_utf8_encode(text, cp);
        if (fm_utf8_decode(&back, text, n) != n) fail_msg("U+%04X: length", (unsigned)cp);
        if (back != (is_scalar(cp) ? cp : 0xFFFDu)) fail_msg("U+%04X became U+%04X", (unsigned)cp, (unsigned)back);
        if (fm_utf8_valid(text, n) != n || fm_utf8_tail(text, n) != 0) fail_msg("U+%04X: not valid", (unsigned)cp);
        for (size_t cut = 1; cut < n; cut++) {
            if (fm_utf8_decode(&back, text, cut) != cut || back != FM_UTF8_INVALID) fail_msg("U+%04X cut", (unsigned)cp);
            if (fm_utf8_tail(text, cut) != cut) fail_msg("U+%04X: tail of %zu", (unsigned)cp, cut);
        }
    }
}

typedef struct broken {
    const char *text;
    size_t length; /* of the maximal ill-formed prefix */
} broken;

static void test_broken(void **state)
{
    (void)state;
    static const broken cases[] = {
        {"\x80", 1},
        {"\xC0\x80", 1},
        {"\xC1\xBF", 1},
        {"\xE0\x80\x80", 1},
        {"\xE0\x9F\x80", 1},
        {"\xED\xA0\x80", 1},
        {"\xF0\x80\x80\x80", 1},
        {"\xF0\x8F\xBF", 1},
        {"\xF4\x90\x80", 1},
        {"\xF5\x80", 1},
        {"\xFF", 1},
        {"\xC3(", 1},
        {"\xE2\x82(", 2},
        {"\xF0\x9F\x98(", 3},
        {"\xE2(\xAC", 1},
    };
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        uint32_t cp = 0;
        const size_t n = strlen(cases[i].text);
        assert_int_equal(fm_utf8_decode(&cp, cases[i].text, n), cases[i].length);
        assert_true(cp == FM_UTF8_INVALID);
        assert_int_equal(fm_utf8_valid(cases[i].text, n), 0);
    }
}

/* Every pair of bytes: the pair is valid, or unfinished, or its valid prefix is shorter; the functions agree. */
static void test_pairs(void **state)
{
    (void)state;
    for (unsigned v = 0; v < 0x10000; v++) {
        const char text[2] = {(char)(unsigned char)(v >> 8), (char)(unsigned char)v};
        const size_t valid = fm_utf8_valid(text, 2), tail = fm_utf8_tail(text, 2);
        const bool ascii = (v >> 8) < 0x80 && (v & 0xFF) < 0x80;
        const bool two = (v >> 8) >= 0xC2 && (v >> 8) < 0xE0 && (v & 0xC0) == 0x80;
        if ((ascii || two) != (valid == 2)) fail_msg("%04X: valid", v);
        if (valid == 2 && tail != 0) fail_msg("%04X: tail", v);
        if (tail > 2) fail_msg("%04X: tail is too long", v);
    }
}

static void test_tail(void **state)
{
    (void)state;
    assert_int_equal(fm_utf8_tail("", 0), 0);
    assert_int_equal(fm_utf8_tail("abc\xF0\x9F\x98", 6), 3);
    assert_int_equal(fm_utf8_tail("abc\xF0\x9F", 5), 2);
    assert_int_equal(fm_utf8_tail("abc\xE0\x80", 5), 0); /* overlong: no more bytes make it right */
    assert_int_equal(fm_utf8_tail("\x80\x80\x80\x80", 4), 0);
    assert_int_equal(fm_utf8_tail("\xC3\xA9\xC3", 3), 1);
    assert_int_equal(fm_utf8_valid("ok\xC3\xA9\xFFok", 7), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
