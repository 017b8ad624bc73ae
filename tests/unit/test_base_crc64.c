/* test_base_crc64.c - base/crc64.h against the definition of CRC-64/XZ, one bit at a time. */
#include "testing.h"

#include "base/crc64.h"

static uint64_t bitwise(uint64_t crc, const unsigned char *p, size_t n)
{
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xC96C5795D7870F42u : crc >> 1;
    }
    return ~crc;
}

static void test_check_value(void **state)
{
    (void)state;
    assert_true(fm_crc64(0, "123456789", 9) == 0x995DC9BBDF1939FAu);
    assert_true(fm_crc64(0, NULL, 0) == 0);
}

static void test_definition(void **state)
{
    (void)state;
    static unsigned char data[5000];
    for (size_t i = 0; i < sizeof(data); i++) data[i] = (unsigned char)(i * 2654435761u >> 11);
    for (size_t n = 0; n < sizeof(data); n = n < 64 ? n + 1 : n + 401)
        for (size_t at = 0; at < 8 && at < n; at++)
            assert_true(fm_crc64(7, data + at, n - at) == bitwise(7, data + at, n - at));
    const uint64_t whole = fm_crc64(0, data, sizeof(data));
    for (size_t cut = 0; cut <= 100; cut++)
        assert_true(fm_crc64(fm_crc64(0, data, cut), data + cut, sizeof(data) - cut) == whole);
}

/* Each byte at each of the eight places of a group: all 2048 table entries. */
static void test_tables(void **state)
{
    (void)state;
    for (size_t place = 0; place < 8; place++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            unsigned char group[8] = {0};
            group[place] = (unsigned char)byte;
            assert_true(fm_crc64(0, group, 8) == bitwise(0, group, 8));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_value),
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
