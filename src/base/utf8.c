/* utf8.c - the well-formed byte sequences of the Unicode standard, table 3-7. */
#include "base/utf8.h"

#define REPLACEMENT 0xFFFDu

/* What a lead byte asks for: how many bytes in all (0: never a lead byte), and the range of the second one, which is where
 * overlong forms, surrogates and values past U+10FFFF are shut out. */
typedef struct lead {
    size_t n;
    unsigned char low, high;
} lead;

static lead lead_of(unsigned char byte)
{
    if (byte < 0x80) return (lead){1, 0, 0};
    if (byte < 0xC2) return (lead){0, 0, 0};
    if (byte < 0xE0) return (lead){2, 0x80, 0xBF};
    if (byte == 0xE0) return (lead){3, 0xA0, 0xBF};
    if (byte == 0xED) return (lead){3, 0x80, 0x9F};
    if (byte < 0xF0) return (lead){3, 0x80, 0xBF};
    if (byte == 0xF0) return (lead){4, 0x90, 0xBF};
    if (byte < 0xF4) return (lead){4, 0x80, 0xBF};
    if (byte == 0xF4) return (lead){4, 0x80, 0x8F};
    return (lead){0, 0, 0};
}

/* Length of the well-formed or so far well-formed beginning of a sequence at p; 0 when the first byte is wrong already. */
static size_t good_prefix(lead l, const unsigned char *p, size_t n)
{
    if (l.n < 2) return l.n;
    size_t i = 1;
    while (i < l.n && i < n) {
        const unsigned char low = i == 1 ? l.low : 0x80, high = i == 1 ? l.high : 0xBF;
        if (p[i] < low || p[i] > high) break;
        i++;
    }
    return i;
}

size_t fm_utf8_decode(uint32_t *cp, const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    const lead l = lead_of(u[0]);
    const size_t good = good_prefix(l, u, n);
    if (good == 0 || good < l.n) {
        *cp = FM_UTF8_INVALID;
        return good > 0 ? good : 1;
    }
    uint32_t value = l.n == 1 ? u[0] : u[0] & (0x7Fu >> l.n);
    for (size_t i = 1; i < l.n; i++) value = value << 6 | (u[i] & 0x3Fu);
    *cp = value;
    return l.n;
}

size_t fm_utf8_encode(char out[4], uint32_t cp)
{
    if (cp > 0x10FFFFu || (cp >= 0xD800u && cp <= 0xDFFFu)) cp = REPLACEMENT;
    if (cp < 0x80u) {
        out[0] = (char)cp;
        return 1;
    }
    const size_t n = cp < 0x800u ? 2 : cp < 0x10000u ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        out[i] = (char)(unsigned char)(0x80u | (cp & 0x3Fu));
        cp >>= 6;
    }
    static const unsigned char mark[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(unsigned char)(mark[n] | cp);
    return n;
}

size_t fm_utf8_valid(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if ((unsigned char)p[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp = 0;
        const size_t length = fm_utf8_decode(&cp, p + i, n - i);
        if (cp == FM_UTF8_INVALID) break;
        i += length;
    }
    return i;
}

size_t fm_utf8_tail(const char *p, size_t n)
{
    for (size_t tail = 1; tail <= 3 && tail <= n; tail++) {
        const unsigned char *u = (const unsigned char *)p + (n - tail);
        const lead l = lead_of(u[0]);
        if (l.n > tail && good_prefix(l, u, tail) == tail) return tail;
        if (l.n > 0) return 0;
    }
    return 0;
}
