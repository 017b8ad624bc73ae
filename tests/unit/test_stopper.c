/* test_stopper.c - what is held back, what is given out, and where stop strings end a text, however it is cut into calls. */
#include "base/rng.h"
#include "runtime/stopper.h"
#include "unit/testing.h"

#define E_ACUTE "\xC3\xA9"
#define E_GRAVE "\xC3\xA8"

static fm_stopper open_stopper(const char *const *stops, size_t n)
{
    fm_stopper s;
    assert_ok(fm_stopper_init(&s, stops, n, 64, NULL, NULL));
    return s;
}

static void add(fm_stopper *s, const char *text, long stop, const char *certain)
{
    fm_view out;
    assert_int_equal(fm_stopper_add(s, fm_view_of(text), &out), stop);
    if (!fm_view_is(out, certain)) fail_msg("after \"%s\": \"%.*s\", expected \"%s\"", text, (int)out.n, out.p, certain);
}

static void flush(fm_stopper *s, const char *certain)
{
    assert_true(fm_view_is(fm_stopper_flush(s), certain));
    assert_true(fm_view_is(fm_stopper_flush(s), ""));
    fm_stopper_deinit(s);
}

static void test_no_stops(void **state)
{
    fm_stopper s = open_stopper(NULL, 0);
    (void)state;
    add(&s, "one ", -1, "one ");
    add(&s, "", -1, "");
    add(&s, "two", -1, "two");
    flush(&s, "");
}

static void test_split(void **state)
{
    static const char *const stops[] = {"STOP"};
    fm_stopper s = open_stopper(stops, 1);
    (void)state;
    add(&s, "a S", -1, "a ");
    add(&s, "TO", -1, "");
    add(&s, "P b", 0, "");
    fm_stopper_deinit(&s);
    s = open_stopper(stops, 1);
    add(&s, "xSTOPy", 0, "x");
    fm_stopper_deinit(&s);
}

static void test_released(void **state)
{
    static const char *const stops[] = {"STOP"};
    fm_stopper s = open_stopper(stops, 1);
    (void)state;
    add(&s, "STO", -1, "");
    add(&s, "STO", -1, "STO");
    add(&s, "X", -1, "STOX");
    add(&s, "SSTO", -1, "S");
    flush(&s, "STO");
}

/* A stop string that begins again inside itself. */
static void test_repetitive(void **state)
{
    static const char *const stops[] = {"aab"};
    fm_stopper s = open_stopper(stops, 1);
    (void)state;
    add(&s, "a", -1, "");
    add(&s, "a", -1, "");
    add(&s, "a", -1, "a");
    add(&s, "a", -1, "a");
    add(&s, "b", 0, "");
    fm_stopper_deinit(&s);
}

static void test_utf8(void **state)
{
    static const char *const stops[] = {E_ACUTE "t"};
    fm_stopper s = open_stopper(stops, 1);
    (void)state;
    add(&s, "x" E_GRAVE, -1, "x" E_GRAVE);
    add(&s, "x" E_ACUTE, -1, "x");
    add(&s, E_ACUTE, -1, E_ACUTE);
    add(&s, "s", -1, E_ACUTE "s");
    add(&s, "\xC3", -1, "");
    add(&s, "\xA9", -1, "");
    add(&s, "t", 0, "");
    fm_stopper_deinit(&s);
}

static void test_overlapping(void **state)
{
    static const char *const stops[] = {"bcd", "abce", "c", "", "ab"};
    fm_stopper s = open_stopper(stops, 2);
    (void)state;
    add(&s, "abc", -1, ""); /* the longer beginning is what counts */
    add(&s, "d", 0, "a");
    fm_stopper_deinit(&s);
    s = open_stopper(stops, 2);
    add(&s, "abc", -1, "");
    add(&s, "e", 1, "");
    fm_stopper_deinit(&s);
    s = open_stopper(stops, 5);
    add(&s, "xabce", 1, "x"); /* the earliest in the text, then the first of the list */
    fm_stopper_deinit(&s);
    s = open_stopper(stops, 3);
    add(&s, "abc", 2, "ab"); /* complete is complete, though "abce" might have come */
    fm_stopper_deinit(&s);
}

static void test_empty_never_matches(void **state)
{
    static const char *const stops[] = {""};
    fm_stopper s = open_stopper(stops, 1);
    (void)state;
    add(&s, "", -1, "");
    add(&s, "abc", -1, "abc");
    flush(&s, "");
}

static void test_long_text(void **state)
{
    enum { N = 10000 };
    static char text[N + 1], stop[N];
    const char *const stops[] = {stop};
    (void)state;
    memset(text, 'a', N);
    memset(stop, 'a', N - 1);
    fm_stopper s = open_stopper(stops, 1);
    fm_view out;
    text[N / 2] = 0;
    add(&s, text, -1, "");
    assert_int_equal(fm_stopper_add(&s, FM_VIEW("b"), &out), -1);
    assert_int_equal(out.n, N / 2 + 1);
    flush(&s, "");
}

/* What comes out, in all, does not depend on the cuts: the text before the stop string that is complete first. */
static void test_any_cut(void **state)
{
    static const char *const stops[] = {"aba", "bb", "abcab", E_ACUTE};
    static const char alphabet[] = "aabbc\xC3\xA9";
    (void)state;
    for (uint64_t stream = 0; stream < 400; stream++) {
        char text[25] = "", got[64] = "";
        const size_t n = sizeof text - 1;
        uint32_t w[4];
        size_t end = n, stop_at = n;
        long want = -1, stop = -1;
        for (size_t i = 0; i < n; i++) {
            fm_rng_words(w, 3, stream, i);
            text[i] = alphabet[w[0] % (sizeof alphabet - 1)];
        }
        /* Byte by byte, the first string to be complete wins; two at the same byte: the longer begins earlier. */
        for (size_t e = 1; e <= n && want < 0; e++)
            for (size_t k = 0; k < FM_COUNT(stops); k++) {
                const size_t m = strlen(stops[k]);
                if (m > e || memcmp(text + e - m, stops[k], m) != 0 || (want >= 0 && e - m >= stop_at)) continue;
                want = (long)k;
                stop_at = e - m;
                end = e;
            }
        fm_stopper s = open_stopper(stops, FM_COUNT(stops));
        for (size_t i = 0; i < end && stop < 0;) {
            fm_view out;
            fm_rng_words(w, 4, stream, i);
            size_t k = 1 + w[0] % 4;
            if (i + k > end) k = end - i; /* a call that reaches further could find one that begins earlier */
            stop = fm_stopper_add(&s, (fm_view){text + i, k}, &out);
            strncat(got, out.p, out.n);
            i += k;
        }
        if (stop < 0) {
            const fm_view rest = fm_stopper_flush(&s);
            strncat(got, rest.p, rest.n);
        }
        assert_int_equal(stop, want);
        assert_int_equal(strlen(got), stop_at);
        assert_memory_equal(got, text, stop_at);
        fm_stopper_deinit(&s);
    }
}

static fm_status open_and_add(const fm_allocator *a, void *ctx)
{
    static const char *const stops[] = {"end"};
    fm_stopper s;
    fm_view out;
    (void)ctx;
    const fm_status status = fm_stopper_init(&s, stops, 1, 64, a, NULL);
    if (status == FM_OK) {
        assert_int_equal(fm_stopper_add(&s, FM_VIEW("this is the e"), &out), -1);
        assert_int_equal(fm_stopper_add(&s, FM_VIEW("nd"), &out), 0);
    }
    fm_stopper_deinit(&s);
    return status;
}

/* The room of the beginning is enough for usual texts. */
static void test_memory(void **state)
{
    (void)state;
    assert_int_equal(test_every_allocation(open_and_add, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_stops),  cmocka_unit_test(test_split),
        cmocka_unit_test(test_released),  cmocka_unit_test(test_repetitive),
        cmocka_unit_test(test_utf8),      cmocka_unit_test(test_overlapping),
        cmocka_unit_test(test_long_text), cmocka_unit_test(test_empty_never_matches),
        cmocka_unit_test(test_any_cut),   cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
