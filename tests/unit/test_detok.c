/* test_detok.c - streaming decoding: however a text is cut into tokens, the same text comes out, and never half a character. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/tokenizer.h"

#define BAD "\xEF\xBF\xBD"

/* Added tokens are verbatim bytes, so the pieces of a text can be made tokens as they are. */
static fm_tokenizer *tokens_of(const fm_view *pieces, size_t n)
{
    int32_t types[64];
    fm_tokenizer *t;
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) types[i] = FM_TOKEN_USER_DEFINED;
    const fm_vocab v = {.tokens = pieces, .types = types, .n_tokens = n, .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    assert_int_equal(fm_tokenizer_build(&t, &v, NULL, NULL), FM_OK);
    return t;
}

static void check_pieces(const fm_view *pieces, size_t n, const char *want)
{
    fm_tokenizer *t = tokens_of(pieces, n);
    fm_detok d = {0};
    fm_str out = {0};
    for (size_t i = 0; i < n; i++) {
        fm_detok_add(&d, t, (int32_t)i, true, &out);
        assert_int_equal(fm_utf8_valid(out.p, out.n), out.n);
        assert_true(d.n <= 3);
        assert_true(out.n <= strlen(want) && memcmp(out.p != NULL ? out.p : "", want, out.n) == 0);
    }
    fm_detok_flush(&d, &out);
    assert_int_equal(out.n, strlen(want));
    assert_memory_equal(out.p, want, out.n);
    assert_int_equal(d.n, 0);
    fm_str_free(&out);
    fm_tokenizer_free(t);
}

/* All cuts into three, and into single bytes. */
static void check_cuts(const char *text, size_t n, const char *want)
{
    for (size_t i = 0; i <= n; i++)
        for (size_t k = i; k <= n; k++) {
            const fm_view pieces[] = {{text, i}, {text + i, k - i}, {text + k, n - k}};
            check_pieces(pieces, 3, want);
        }
    fm_view single[64];
    for (size_t i = 0; i < n; i++) single[i] = (fm_view){text + i, 1};
    check_pieces(single, n, want);
}

static void test_every_cut(void **state)
{
    (void)state;
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z\xED\x9F\xBF\xF4\x8F\xBF\xBF";
    check_cuts(text, sizeof text - 1, text);
}

/* U+FFFD for each maximal part of what is not well-formed (Unicode 16, chapter 3.9, table 3-8 and following). */
static void test_ill_formed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"\x80", BAD},
        {"\xFF"
         "a",
         BAD "a"},
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", BAD BAD BAD BAD BAD BAD BAD BAD "A"},
        {"\xED\xA0\x80", BAD BAD BAD},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", BAD BAD BAD BAD "A"},
        {"\xF4\x90\x80\x80", BAD BAD BAD BAD},
        {"x\xF0\x9F\x98", "x" BAD},
        {"x\xE2\x82", "x" BAD},
        {"\xE2\x82\xC3\xA9", BAD "\xC3\xA9"},
    };
    for (size_t i = 0; i < FM_COUNT(cases); i++) check_cuts(cases[i].text, strlen(cases[i].text), cases[i].want);
}

static void test_special(void **state)
{
    (void)state;
    const fm_view tokens[] = {FM_VIEW("<s>"), FM_VIEW("a"),
                              FM_VIEW("\xC4\xA0"
                                      "b")};
    const int32_t types[] = {FM_TOKEN_CONTROL, FM_TOKEN_NORMAL, FM_TOKEN_NORMAL};
    const fm_vocab v = {.tokens = tokens, .types = types, .n_tokens = 3, .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    fm_tokenizer *t;
    assert_int_equal(fm_tokenizer_build(&t, &v, NULL, NULL), FM_OK);
    fm_str out = {0};
    fm_detok d = {0};
    for (int32_t id = -1; id < 5; id++) fm_detok_add(&d, t, id, false, &out);
    assert_string_equal(out.p, "a b");
    fm_str_reset(&out);
    for (int32_t id = -1; id < 5; id++) fm_detok_add(&d, t, id, true, &out);
    assert_string_equal(out.p, "<s>a b");
    fm_str_free(&out);
    fm_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_ill_formed),
        cmocka_unit_test(test_special),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
