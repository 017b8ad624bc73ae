/* crc64.c - CRC-64/XZ, eight bytes at a time ("slicing by 8": Kounavis and Berry, 2005).
 *
 * table[k][i] is the CRC register after byte i and k bytes of 0.  The register is linear over XOR, so each table is written
 * down as its values at the eight powers of two, and the compiler adds up the rest.  With step(c) = c & 1 ? c >> 1 ^ POLY :
 * c >> 1 and POLY = 0xC96C5795D7870F42, table[k][2^b] = step applied 8 * (k + 1) times to 2^b; tests/unit/test_base_crc64.c
 * compares with that rule bit by bit. */
#include "base/crc64.h"

#define BIT(i, bit, value) ((((i) >> (bit)) & 1u) != 0 ? (value) : (uint64_t)0)
#define ONE(i, a, b, c, d, e, f, g, h)                                                                                         \
    (BIT(i, 0, a) ^ BIT(i, 1, b) ^ BIT(i, 2, c) ^ BIT(i, 3, d) ^ BIT(i, 4, e) ^ BIT(i, 5, f) ^ BIT(i, 6, g) ^ BIT(i, 7, h))
#define FOUR(i, ...) ONE((i), __VA_ARGS__), ONE((i) + 1u, __VA_ARGS__), ONE((i) + 2u, __VA_ARGS__), ONE((i) + 3u, __VA_ARGS__)
#define SIXTEEN(i, ...)                                                                                                        \
    FOUR((i), __VA_ARGS__), FOUR((i) + 4u, __VA_ARGS__), FOUR((i) + 8u, __VA_ARGS__), FOUR((i) + 12u, __VA_ARGS__)
#define SIXTY_FOUR(i, ...)                                                                                                     \
    SIXTEEN((i), __VA_ARGS__), SIXTEEN((i) + 16u, __VA_ARGS__), SIXTEEN((i) + 32u, __VA_ARGS__), SIXTEEN((i) + 48u, __VA_ARGS__)
#define TABLE(...)                                                                                                             \
    {                                                                                                                          \
        SIXTY_FOUR(0u, __VA_ARGS__), SIXTY_FOUR(64u, __VA_ARGS__), SIXTY_FOUR(128u, __VA_ARGS__),                              \
            SIXTY_FOUR(192u, __VA_ARGS__)                                                                                      \
    }

static const uint64_t table[8][256] = {
    TABLE(0xB32E4CBE03A75F6Fu, 0xF4843657A840A05Bu, 0x7BD0C384FF8F5E33u, 0xF7A18709FF1EBC66u, 0x7D9BA13851336649u,
          0xFB374270A266CC92u, 0x64B62BCAEBC387A1u, 0xC96C5795D7870F42u),
    TABLE(0x54E979925CD0F10Du, 0xA9D2F324B9A1E21Au, 0xC17D4962DC4DDAB1u, 0x10223DEE1795ABE7u, 0x20447BDC2F2B57CEu,
          0x4088F7B85E56AF9Cu, 0x8111EF70BCAD5F38u, 0x90FB71CAD654A0F5u),
    TABLE(0x3F0BE14A916A6DCBu, 0x7E17C29522D4DB96u, 0xFC2F852A45A9B72Cu, 0x6A87A57F245D70DDu, 0xD50F4AFE48BAE1BAu,
          0x38C63AD73E7BDDF1u, 0x718C75AE7CF7BBE2u, 0xE318EB5CF9EF77C4u),
    TABLE(0x1DEE8A5E222CA1DCu, 0x3BDD14BC445943B8u, 0x77BA297888B28770u, 0xEF7452F111650EE0u, 0x4C300AC98DC40345u,
          0x986015931B88068Au, 0xA218840D981E1391u, 0xD6E9A7309F3239A7u),
    TABLE(0x5C2D776033C4205Eu, 0xB85AEEC0678840BCu, 0xE26D72AB601E9FFDu, 0x56024A7D6F33217Fu, 0xAC0494FADE6642FEu,
          0xCAD186DE13C29B79u, 0x077BA297888B2877u, 0x0EF7452F111650EEu),
    TABLE(0x6184D55F721267C6u, 0xC309AABEE424CF8Cu, 0x14CBFA566747819Du, 0x2997F4ACCE8F033Au, 0x532FE9599D1E0674u,
          0xA65FD2B33A3C0CE8u, 0xDE670A4DDB760755u, 0x2E16BBB019E2102Fu),
    TABLE(0x22EF0D5934F964ECu, 0x45DE1AB269F2C9D8u, 0x8BBC3564D3E593B0u, 0x85A0C5E208C539E5u, 0x999924EFBE846D4Fu,
          0xA1EAE6F4D206C41Bu, 0xD10D62C20B0396B3u, 0x30C26AAFB90933E3u),
    TABLE(0xDABE95AFC7875F40u, 0x27A584742000A005u, 0x4F4B08E84001400Au, 0x9E9611D080028014u, 0xAFF48C8AAF0B1EADu,
          0xCD31B63EF11823DFu, 0x08BBC3564D3E593Bu, 0x117786AC9A7CB276u),
};

static uint64_t load_le64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i]; /* compilers make one load of it */
    return v;
}

uint64_t fm_crc64(uint64_t crc, const void *p, size_t n)
{
    const unsigned char *u = p;
    crc = ~crc;
    for (; n >= 8; n -= 8, u += 8) {
        const uint64_t v = crc ^ load_le64(u);
        crc = 0;
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) crc ^= table[7 - k][(v >> (8 * k)) & 0xFFu];
    }
    for (; n > 0; n--, u++) crc = table[0][(crc ^ *u) & 0xFFu] ^ crc >> 8;
    return ~crc;
}
