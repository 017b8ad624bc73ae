/* test_base_sha256.c - base/sha256.h against the vectors of FIPS 180 and NIST, in one call and in small pieces.
 * One call of 2048 bytes or more uses the processor's SHA instructions where it has them, small pieces never do: so the long
 * vectors test both ways against the same answer. */
#include "testing.h"

#include "base/sha256.h"

static void hash(char out[65], const unsigned char *p, size_t n, size_t piece)
{
    fm_sha256 s;
    unsigned char digest[32];
    fm_sha256_begin(&s);
    for (size_t i = 0; i < n; i += piece) fm_sha256_add(&s, p + i, n - i < piece ? n - i : piece);
    fm_sha256_end(&s, digest);
    fm_hex(out, digest, sizeof(digest));
}

static void check(const void *p, size_t n, const char *want)
{
    static const size_t pieces[] = {SIZE_MAX / 2, 1, 3, 63, 64, 65, 1000, 4095, 4097, 10000};
    for (size_t i = 0; i < FM_COUNT(pieces); i++) {
        char got[65];
        hash(got, p, n, pieces[i]);
        assert_string_equal(got, want);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const char four[] = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnop"
                               "qrsmnopqrstnopqrstu";
    check("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(two, sizeof(two) - 1, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check(four, sizeof(four) - 1, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
}

static void test_million(void **state)
{
    (void)state;
    static unsigned char a[1000000];
    memset(a, 'a', sizeof(a));
    check(a, sizeof(a), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* All lengths around block borders: every way of cutting gives one answer. */
static void test_lengths(void **state)
{
    (void)state;
    static unsigned char data[9000];
    for (size_t i = 0; i < sizeof(data); i++) data[i] = (unsigned char)(i * 31 + (i >> 8));
    for (size_t n = 0; n < sizeof(data); n = n < 200 ? n + 1 : n + 67) {
        char whole[65], pieces[65];
        hash(whole, data, n, SIZE_MAX / 2);
        hash(pieces, data, n, 61);
        assert_string_equal(whole, pieces);
    }
}

static void test_hex(void **state)
{
    (void)state;
    char text[9] = "xxxxxxxx";
    fm_hex(text, (const unsigned char *)"\x00\x9A\xBC\xFF", 4);
    assert_string_equal(text, "009abcff");
    fm_hex(text, NULL, 0);
    assert_string_equal(text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_million),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
