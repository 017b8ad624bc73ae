/* test_pretok.c - the pieces of the three pre-tokenisers, character classes, and NFC. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "text/pretok.h"
#include "text/unicode.h"

/* `want` is the text with a bar between pieces. */
static void check(fm_pretok kind, const char *text, const char *want)
{
    char got[512];
    size_t n = 0;
    fm_view piece;
    for (fm_pieces s = fm_pieces_begin(kind, fm_view_of(text)); fm_pieces_next(&s, &piece);) {
        if (n > 0) got[n++] = '|';
        assert_true(piece.n > 0 && n + piece.n < sizeof got - 1);
        memcpy(got + n, piece.p, piece.n);
        n += piece.n;
    }
    got[n] = '\0';
    assert_string_equal(got, want);
}

static void test_gpt2(void **state)
{
    (void)state;
    check(FM_PRETOK_GPT2, "", "");
    check(FM_PRETOK_GPT2, "It's you're I'LL 'tis", "It|'s| you|'re| I|'|LL| '|tis");
    check(FM_PRETOK_GPT2, "a  b", "a| | b");
    check(FM_PRETOK_GPT2, "a   ", "a|   ");
    check(FM_PRETOK_GPT2, "a\n\n b", "a|\n\n| b");
    check(FM_PRETOK_GPT2, "a\n\nb", "a|\n|\n|b");
    check(FM_PRETOK_GPT2, "x=1234, y!?", "x|=|1234|,| y|!?");
    check(FM_PRETOK_GPT2, " \xC2\xB2 \xC3\xA9t\xC3\xA9", " \xC2\xB2| \xC3\xA9t\xC3\xA9");
    check(FM_PRETOK_GPT2, "a\xC2\xA0 b", "a|\xC2\xA0| b"); /* no-break space is white, but not the blank of " ?" */
    check(FM_PRETOK_GPT2, "a\xFF\xFE!b", "a|\xFF\xFE!|b");
    check(FM_PRETOK_GPT2, "e\xCC\x81x", "e|\xCC\x81|x"); /* a combining mark is no letter */
    check(FM_PRETOK_GPT2, "'", "'");
    check(FM_PRETOK_GPT2, "'r", "'|r");
    check(FM_PRETOK_GPT2, " ", " ");
}

static void test_llama3(void **state)
{
    (void)state;
    check(FM_PRETOK_LLAMA3, "", "");
    check(FM_PRETOK_LLAMA3, "It'S THEY'LL 'tis", "It|'S| THEY|'LL| '|tis");
    check(FM_PRETOK_LLAMA3, "'\xC5\xBFx", "'\xC5\xBF|x");
    check(FM_PRETOK_LLAMA3, "1234567", "123|456|7");
    check(FM_PRETOK_LLAMA3, "a 1234", "a| |123|4");
    check(FM_PRETOK_LLAMA3, "foo(bar) (x", "foo|(bar|)| (|x");
    check(FM_PRETOK_LLAMA3, "a!!\n\nb", "a|!!\n\n|b");
    check(FM_PRETOK_LLAMA3, "a \n \n  b", "a| \n \n| | b");
    check(FM_PRETOK_LLAMA3, "a\tb\nc", "a|\tb|\n|c");
    check(FM_PRETOK_LLAMA3, "  ", "  ");
    check(FM_PRETOK_LLAMA3, "\r\nx", "\r\n|x");
    check(FM_PRETOK_LLAMA3, " \xFFz", " \xFF|z");
    check(FM_PRETOK_LLAMA3, "\xFFz", "\xFFz");
}

static void test_falcon(void **state)
{
    (void)state;
    check(FM_PRETOK_FALCON, "", "");
    check(FM_PRETOK_FALCON, "It's 12345.", "It|'|s| |123|45|.");
    check(FM_PRETOK_FALCON, "a  (b)+c", "a|  |(|b|)+|c");
    check(FM_PRETOK_FALCON, "x$1\xE2\x82\xAC", "x|$|1|\xE2\x82\xAC"); /* the euro sign is a symbol, the dollar is ASCII */
    check(FM_PRETOK_FALCON, "123456", "123|456");
    check(FM_PRETOK_FALCON, "5\xC2\xB2", "5|\xC2|\xB2"); /* the byte B2 is spelled with a superscript two */
    check(FM_PRETOK_FALCON, "\xC3\xB2", "\xC3|\xB2");
}

static void test_pieces_are_the_text(void **state)
{
    (void)state;
    uint64_t x = 88172645463325252u;
    char text[64];
    for (int round = 0; round < 30000; round++) {
        size_t n = 1;
        for (; n < sizeof text; n++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            text[n] = (x >> 40) % 3 == 0 ? (char)(x >> 32) : " \n\r'sl19.\xC2\xB2\xCC"[(x >> 32) % 12];
        }
        for (fm_pretok kind = FM_PRETOK_FALCON; kind <= FM_PRETOK_LLAMA3; kind++) {
            const char *at = text + 1;
            fm_view piece;
            for (fm_pieces s = fm_pieces_begin(kind, (fm_view){at, n - 1}); fm_pieces_next(&s, &piece); at += piece.n)
                assert_true(piece.p == at && piece.n > 0);
            assert_true(at == text + n);
        }
    }
}

static void test_classes(void **state)
{
    (void)state;
    assert_int_equal(fm_unicode_flags('a'), FM_UC_LETTER);
    assert_int_equal(fm_unicode_flags('7'), FM_UC_NUMBER);
    assert_int_equal(fm_unicode_flags('\n'), FM_UC_SPACE);
    assert_int_equal(fm_unicode_flags('$'), FM_UC_PUNCT);
    assert_int_equal(fm_unicode_flags(0x2029), FM_UC_SPACE);
    assert_int_equal(fm_unicode_flags(0x200B), 0);
    assert_int_equal(fm_unicode_flags(0x0301), FM_UC_MARK | FM_UC_NFC);
    assert_int_equal(fm_unicode_flags(0x31350), FM_UC_LETTER); /* extension H, new in Unicode 15 */
    assert_int_equal(fm_unicode_flags(0x10FFFF), 0);
    assert_int_equal(fm_unicode_flags(0x110000), 0);
    assert_int_equal(fm_unicode_flags(FM_UTF8_INVALID), 0);
    size_t letters = 0, numbers = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        letters += (fm_unicode_flags(cp) & FM_UC_LETTER) != 0;
        numbers += (fm_unicode_flags(cp) & FM_UC_NUMBER) != 0;
    }
    assert_int_equal(letters, 141028); /* of Unicode 16 */
    assert_int_equal(numbers, 1911);
}

static void check_nfc(const char *text, const char *want)
{
    fm_str out = {0};
    assert_int_equal(fm_nfc(&out, fm_view_of(text), NULL, NULL), FM_OK);
    assert_string_equal(out.p, want);
    if (strcmp(text, want) != 0) assert_true(fm_nfc_needed(fm_view_of(text)));
    fm_str_free(&out);
}

static void test_nfc(void **state)
{
    (void)state;
    check_nfc("plain", "plain");
    check_nfc("e\xCC\x81", "\xC3\xA9");
    check_nfc("s\xCC\x87\xCC\xA3", "\xE1\xB9\xA9");                    /* marks are put in order first */
    check_nfc("\xE1\xB8\x8B\xCC\xA3", "\xE1\xB8\x8D\xCC\x87");         /* d with dot above, then dot below */
    check_nfc("\xE2\x84\xAB", "\xC3\x85");                             /* the angstrom sign */
    check_nfc("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); /* Hangul */
    check_nfc("\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81");
    check_nfc("\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"); /* excluded from composition */
    check_nfc("\xCC\x81"
              "a",
              "\xCC\x81"
              "a");
    check_nfc("e\xFF\xCC\x81", "e\xFF\xCC\x81"); /* a bad byte stands between */
    assert_false(fm_nfc_needed(FM_VIEW("caf\xC3\xA9 \xE4\xBD\xA0")));
    fm_str many = {0}, out = {0};
    fm_str_putc(&many, 'a');
    for (int i = 0; i < 3000; i++) fm_str_puts(&many, i % 2 ? "\xCC\xA3" : "\xCC\x88"); /* more than the insertion sort takes */
    assert_int_equal(fm_nfc(&out, (fm_view){many.p, many.n}, NULL, NULL), FM_OK);
    assert_memory_equal(out.p, "\xE1\xBA\xA1\xCC\xA3", 5);
    assert_memory_equal(out.p + out.n - 4, "\xCC\x88\xCC\x88", 4);
    fm_str_free(&many);
    fm_str_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),    cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_falcon),  cmocka_unit_test(test_pieces_are_the_text),
        cmocka_unit_test(test_classes), cmocka_unit_test(test_nfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
