/* unicode.c - character classes by a two-stage table, and normalisation form C (UAX 15).
 * A text is normalised piece by piece: a character that NFC cannot touch, with the touchable ones behind it. */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/unicode_data.h"

enum {
    L_BASE = 0x1100,
    V_BASE = 0x1161,
    T_BASE = 0x11A7,
    S_BASE = 0xAC00,
    L_N = 19,
    V_N = 21,
    T_N = 28,
    S_N = L_N * V_N * T_N
};
enum { SMALL_SORT = 32, CCC_N = 256 };

typedef struct letters {
    uint32_t *cp; /* ccc in the upper 8 bits once decomposed */
    size_t n, cap;
    uint32_t *sorted; /* scratch of order_run() */
    size_t sorted_cap;
    const fm_allocator *a;
} letters;

unsigned fm_unicode_flags(uint32_t cp)
{
    if (cp >= 0x110000) return 0;
    const uint64_t word = fm_unicode_stage2[(size_t)fm_unicode_stage1[cp >> 7] * 8 + ((cp >> 4) & 7)];
    return fm_unicode_class[(word >> (4 * (cp & 15))) & 15];
}

static uint32_t ccc_of(uint32_t cp)
{
    size_t low = 0, high = fm_unicode_n_ccc;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (fm_unicode_ccc[mid].last < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < fm_unicode_n_ccc && fm_unicode_ccc[low].first <= cp ? fm_unicode_ccc[low].ccc : 0;
}

static const fm_unicode_slice *decomposition(uint32_t cp)
{
    size_t low = 0, high = fm_unicode_n_decompose;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (fm_unicode_decompose[mid].cp < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < fm_unicode_n_decompose && fm_unicode_decompose[low].cp == cp ? &fm_unicode_decompose[low] : NULL;
}

/* 0 when the pair has no composite. */
static uint32_t composite(uint32_t a, uint32_t b)
{
    if (a - L_BASE < L_N && b - V_BASE < V_N) return S_BASE + ((a - L_BASE) * V_N + (b - V_BASE)) * T_N;
    if (a - S_BASE < S_N && (a - S_BASE) % T_N == 0 && b - T_BASE - 1 < T_N - 1) return a + (b - T_BASE);
    size_t low = 0, high = fm_unicode_n_compose;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        const fm_unicode_pair *p = &fm_unicode_compose[mid];
        if (p->first < a || (p->first == a && p->second < b))
            low = mid + 1;
        else
            high = mid;
    }
    const fm_unicode_pair *p = &fm_unicode_compose[low];
    return low < fm_unicode_n_compose && p->first == a && p->second == b ? p->composed : 0;
}

static fm_status push(letters *l, uint32_t cp, fm_error *err)
{
    FM_TRY(fm_grow((void **)&l->cp, &l->cap, l->n + 1, sizeof *l->cp, l->a, "the text being normalised", err));
    l->cp[l->n++] = cp | ccc_of(cp) << 24;
    return FM_OK;
}

static fm_status push_decomposed(letters *l, uint32_t cp, fm_error *err)
{
    if (cp - S_BASE < S_N) {
        const uint32_t s = cp - S_BASE;
        FM_TRY(push(l, L_BASE + s / (V_N * T_N), err));
        FM_TRY(push(l, V_BASE + s % (V_N * T_N) / T_N, err));
        return s % T_N != 0 ? push(l, T_BASE + s % T_N, err) : FM_OK;
    }
    const fm_unicode_slice *d = decomposition(cp);
    if (d == NULL) return push(l, cp, err);
    for (size_t i = 0; i < d->n; i++) FM_TRY(push(l, fm_unicode_pool[d->begin + i], err));
    return FM_OK;
}

/* Stable sort of marks by combining class: insertion for the usual few, counting for a hostile many. */
static fm_status order_run(letters *l, size_t begin, size_t end, fm_error *err)
{
    uint32_t *cp = l->cp + begin;
    const size_t n = end - begin;
    if (n <= SMALL_SORT) {
        for (size_t i = 1; i < n; i++)
            for (size_t k = i; k > 0 && cp[k - 1] >> 24 > cp[k] >> 24; k--) {
                const uint32_t swap = cp[k];
                cp[k] = cp[k - 1];
                cp[k - 1] = swap;
            }
        return FM_OK;
    }
    size_t at[CCC_N + 1] = {0};
    FM_TRY(fm_grow((void **)&l->sorted, &l->sorted_cap, n, sizeof *l->sorted, l->a, "the text being normalised", err));
    for (size_t i = 0; i < n; i++) at[(cp[i] >> 24) + 1]++;
    for (size_t i = 0; i < CCC_N; i++) at[i + 1] += at[i];
    for (size_t i = 0; i < n; i++) l->sorted[at[cp[i] >> 24]++] = cp[i];
    memcpy(cp, l->sorted, n * sizeof *cp);
    return FM_OK;
}

static fm_status order(letters *l, fm_error *err)
{
    for (size_t i = 0; i < l->n;) {
        size_t end = i;
        while (end < l->n && l->cp[end] >> 24 != 0) end++;
        if (end - i > 1) FM_TRY(order_run(l, i, end, err));
        i = end > i ? end : i + 1;
    }
    return FM_OK;
}

/* UAX 15, D117: each character joins the last starter unless something of at least its class stands between. */
static void compose(letters *l)
{
    size_t n = 0, starter = SIZE_MAX;
    uint32_t between = 0; /* class of the last character kept behind the starter, 0 when none */
    for (size_t i = 0; i < l->n; i++) {
        const uint32_t cp = l->cp[i] & 0xFFFFFF, ccc = l->cp[i] >> 24;
        if (starter != SIZE_MAX && (n == starter + 1 || (between != 0 && between < ccc))) {
            const uint32_t joined = composite(l->cp[starter] & 0xFFFFFF, cp);
            if (joined != 0) {
                l->cp[starter] = joined;
                continue;
            }
        }
        if (ccc == 0) starter = n;
        between = ccc;
        l->cp[n++] = l->cp[i];
    }
    l->n = n;
}

static fm_status flush(fm_str *out, letters *l, fm_error *err)
{
    FM_TRY(order(l, err));
    compose(l);
    for (size_t i = 0; i < l->n; i++) {
        char utf8[4];
        fm_str_put(out, utf8, fm_utf8_encode(utf8, l->cp[i] & 0xFFFFFF));
    }
    l->n = 0;
    return FM_OK;
}

bool fm_nfc_needed(fm_view text)
{
    for (size_t i = 0; i < text.n;) {
        if ((unsigned char)text.p[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp;
        i += fm_utf8_decode(&cp, text.p + i, text.n - i);
        if (fm_unicode_flags(cp) & FM_UC_NFC) return true;
    }
    return false;
}

static fm_status normalise(fm_str *out, letters *l, fm_view text, fm_error *err)
{
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, text.p + i, text.n - i);
        const bool touchable = fm_unicode_flags(cp) & FM_UC_NFC;
        if (!touchable && l->n > 0) FM_TRY(flush(out, l, err));
        if (cp == FM_UTF8_INVALID)
            fm_str_put(out, text.p + i, n);
        else
            FM_TRY(push_decomposed(l, cp, err));
        i += n;
    }
    return flush(out, l, err);
}

fm_status fm_nfc(fm_str *out, fm_view text, const fm_allocator *a, fm_error *err)
{
    letters l = {.a = a};
    const fm_status status = normalise(out, &l, text, err);
    fm_free(a, l.cp);
    fm_free(a, l.sorted);
    return status != FM_OK ? status : fm_str_ok(out, "the normalised text", err);
}
