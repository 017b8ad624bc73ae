/* str.c - views, the string builder, and strict number reading. */
#define _GNU_SOURCE /* newlocale, strtod_l */
#include "base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fm_view fm_view_of(const char *s)
{
    return (fm_view){s, s == NULL ? 0 : strlen(s)};
}

bool fm_view_eq(fm_view a, fm_view b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool fm_view_is(fm_view a, const char *s)
{
    return fm_view_eq(a, fm_view_of(s));
}

bool fm_view_starts(fm_view a, const char *prefix)
{
    const size_t n = strlen(prefix);
    return n == 0 || (a.n >= n && memcmp(a.p, prefix, n) == 0);
}

bool fm_view_ends(fm_view a, const char *suffix)
{
    const size_t n = strlen(suffix);
    return n == 0 || (a.n >= n && memcmp(a.p + (a.n - n), suffix, n) == 0);
}

fm_quote fm_quote_of(fm_view name)
{
    fm_quote q;
    const size_t room = sizeof(q.text) - 4, n = name.n < room ? name.n : room;
    size_t at = 0;
    for (; at < n; at++) q.text[at] = name.p[at] >= ' ' && name.p[at] <= '~' ? name.p[at] : '?';
    if (name.n > n)
        for (int dot = 0; dot < 3; dot++) q.text[at++] = '.';
    q.text[at] = '\0';
    return q;
}

/* Room for n more bytes and the 0 after them. */
static bool reserve(fm_str *s, size_t n)
{
    if (s->failed) return false;
    size_t need = 0;
    void *p = s->p;
    if (!fm_add(s->n, n, &need) || !fm_add(need, 1, &need) || fm_grow(&p, &s->cap, need, 1, s->a, "a text", NULL) != FM_OK) {
        s->failed = true;
        return false;
    }
    s->p = p;
    return true;
}

void fm_str_reserve(fm_str *s, size_t n)
{
    reserve(s, n);
}

void fm_str_put(fm_str *s, const char *bytes, size_t n)
{
    if (!reserve(s, n)) return;
    if (n > 0) memcpy(s->p + s->n, bytes, n);
    s->n += n;
    s->p[s->n] = '\0';
}

void fm_str_puts(fm_str *s, const char *text)
{
    fm_str_put(s, text, strlen(text));
}

void fm_str_putc(fm_str *s, char c)
{
    fm_str_put(s, &c, 1);
}

void fm_str_printf(fm_str *s, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    char small[256];
    const int n = vsnprintf(small, sizeof(small), fmt, args);
    if (n < 0) {
        s->failed = true;
    } else if ((size_t)n < sizeof(small)) {
        fm_str_put(s, small, (size_t)n);
    } else if (reserve(s, (size_t)n)) {
        vsnprintf(s->p + s->n, (size_t)n + 1, fmt, again);
        s->n += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void fm_str_reset(fm_str *s)
{
    s->n = 0;
    if (s->p != NULL) s->p[0] = '\0';
}

void fm_str_free(fm_str *s)
{
    fm_free(s->a, s->p);
    *s = (fm_str){.a = s->a};
}

fm_status fm_str_ok(const fm_str *s, const char *what, fm_error *err)
{
    if (!s->failed) return FM_OK;
    return fm_fail(err, FM_ERR_MEMORY, "out of memory while building %s (%zu bytes so far)", what, s->n);
}

bool fm_parse_u64(fm_view v, uint64_t *out)
{
    if (v.n == 0) return false;
    uint64_t value = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9') return false;
        if (__builtin_mul_overflow(value, 10u, &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(v.p[i] - '0'), &value)) return false;
    }
    *out = value;
    return true;
}

bool fm_parse_i64(fm_view v, int64_t *out)
{
    const bool negative = v.n > 0 && v.p[0] == '-';
    uint64_t size = 0;
    if (!fm_parse_u64(negative ? (fm_view){v.p + 1, v.n - 1} : v, &size)) return false;
    if (size > (uint64_t)INT64_MAX + (negative ? 1u : 0u)) return false;
    *out = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

static size_t skip_digits(fm_view v, size_t i)
{
    while (i < v.n && v.p[i] >= '0' && v.p[i] <= '9') i++;
    return i;
}

/* [+-] digits [. digits] [e [+-] digits], with a digit on at least one side of the point: what strtod takes, less inf, nan,
 * hexadecimal and leading blanks. */
static bool is_decimal(fm_view v)
{
    size_t i = v.n > 0 && (v.p[0] == '-' || v.p[0] == '+') ? 1 : 0;
    const size_t whole = i;
    i = skip_digits(v, i);
    size_t digits = i - whole;
    if (i < v.n && v.p[i] == '.') {
        const size_t end = skip_digits(v, i + 1);
        digits += end - (i + 1);
        i = end;
    }
    if (digits == 0) return false;
    if (i < v.n && (v.p[i] == 'e' || v.p[i] == 'E')) {
        i++;
        if (i < v.n && (v.p[i] == '-' || v.p[i] == '+')) i++;
        const size_t end = skip_digits(v, i);
        if (end == i) return false;
        i = end;
    }
    return i == v.n;
}

/* strtod reads the decimal point of the program's locale, which is not ours to set: a private C locale for the call. */
static bool convert_f64(const char *text, double *out)
{
    const locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0) return false;
    const double value = strtod_l(text, NULL, c);
    freelocale(c);
    if (!isfinite(value)) return false;
    *out = value;
    return true;
}

bool fm_parse_f64(fm_view v, double *out)
{
    if (!is_decimal(v)) return false;
    char small[128];
    if (v.n < sizeof(small)) {
        memcpy(small, v.p, v.n);
        small[v.n] = '\0';
        return convert_f64(small, out);
    }
    char *copy = fm_strdup(NULL, v.p, v.n, NULL);
    if (copy == NULL) return false;
    const bool ok = convert_f64(copy, out);
    fm_free(NULL, copy);
    return ok;
}

/* ---- Words ---- */

bool fm_word_find(fm_view word, const char *list, char separator, size_t *at)
{
    for (size_t i = 0; list && *list; i++) {
        const char *end = strchr(list, separator);
        const size_t n = end ? (size_t)(end - list) : strlen(list);
        if (fm_view_eq(word, (fm_view){list, n})) {
            if (at) *at = i;
            return true;
        }
        list += n + (end ? 1 : 0);
    }
    return false;
}

/* ---- Suggestions ---- */

enum { WORD_MAX = 48 }; /* longer words get none */

static size_t smallest(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Insertions, deletions and substitutions between two words (Levenshtein). */
static size_t edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    size_t row[WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX) return WORD_MAX;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t above = row[j];
            row[j] = smallest(row[j - 1] + 1, above + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[m];
}

const char *fm_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2; /* farther away it is another word */
    for (size_t i = 0; i < n; i++) {
        const size_t d = edit_distance(word, words[i]);
        if (d < best_distance && d < strlen(words[i])) best = words[i], best_distance = d;
    }
    return best;
}
