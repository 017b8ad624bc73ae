/* jsonw.c - the JSON writer of json.h: commas, indentation, escapes, and the shortest text of a number. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"

#define DIGITS_MAX 17 /* decimal digits that tell any two doubles apart */

static void new_line(fm_jsonw *w)
{
    fm_str_putc(w->out, '\n');
    for (unsigned i = 0; i < w->depth; i++) fm_str_put(w->out, "  ", 2);
}

/* What stands between two members; values at the top level have nothing between them. */
static void before_member(fm_jsonw *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth == 0) return;
    if (w->comma) fm_str_putc(w->out, ',');
    if (w->pretty) new_line(w);
}

static void put_scalar(fm_jsonw *w, const char *text, size_t n)
{
    before_member(w);
    fm_str_put(w->out, text, n);
    w->comma = true;
}

static void open_container(fm_jsonw *w, char bracket)
{
    before_member(w);
    fm_str_putc(w->out, bracket);
    w->depth++;
    w->comma = false;
}

void fm_jsonw_object(fm_jsonw *w)
{
    open_container(w, '{');
}

void fm_jsonw_array(fm_jsonw *w)
{
    open_container(w, '[');
}

void fm_jsonw_end(fm_jsonw *w, char bracket)
{
    FM_ASSERT(w->depth > 0 && !w->after_key && (bracket == '}' || bracket == ']'));
    w->depth--;
    if (w->pretty && w->comma) new_line(w);
    fm_str_putc(w->out, bracket);
    w->comma = true;
}

static void put_control(fm_str *out, unsigned char c)
{
    switch (c) {
    case '"': fm_str_put(out, "\\\"", 2); return;
    case '\\': fm_str_put(out, "\\\\", 2); return;
    case '\b': fm_str_put(out, "\\b", 2); return;
    case '\f': fm_str_put(out, "\\f", 2); return;
    case '\n': fm_str_put(out, "\\n", 2); return;
    case '\r': fm_str_put(out, "\\r", 2); return;
    case '\t': fm_str_put(out, "\\t", 2); return;
    default: fm_str_printf(out, "\\u%04x", (unsigned)c); return;
    }
}

static bool is_plain(char c)
{
    const unsigned char u = (unsigned char)c;
    return u >= 0x20 && u < 0x80 && u != '"' && u != '\\';
}

static void put_quoted(fm_str *out, fm_view v)
{
    fm_str_putc(out, '"');
    size_t i = 0;
    while (i < v.n) {
        size_t plain = i;
        while (plain < v.n && is_plain(v.p[plain])) plain++;
        if (plain > i) fm_str_put(out, v.p + i, plain - i);
        i = plain;
        if (i == v.n) break;
        if ((unsigned char)v.p[i] < 0x80) {
            put_control(out, (unsigned char)v.p[i]);
            i++;
            continue;
        }
        uint32_t cp = 0;
        char utf8[4];
        i += fm_utf8_decode(&cp, v.p + i, v.n - i);
        fm_str_put(out, utf8, fm_utf8_encode(utf8, cp));
    }
    fm_str_putc(out, '"');
}

void fm_jsonw_key(fm_jsonw *w, const char *key)
{
    FM_ASSERT(w->depth > 0 && !w->after_key);
    before_member(w);
    put_quoted(w->out, fm_view_of(key));
    fm_str_put(w->out, ": ", w->pretty ? 2 : 1);
    w->after_key = true;
}

void fm_jsonw_string(fm_jsonw *w, fm_view v)
{
    before_member(w);
    put_quoted(w->out, v);
    w->comma = true;
}

void fm_jsonw_cstr(fm_jsonw *w, const char *s)
{
    if (s == NULL) {
        fm_jsonw_null(w);
    } else {
        fm_jsonw_string(w, fm_view_of(s));
    }
}

void fm_jsonw_i64(fm_jsonw *w, int64_t v)
{
    char text[24];
    put_scalar(w, text, (size_t)snprintf(text, sizeof(text), "%" PRId64, v));
}

void fm_jsonw_u64(fm_jsonw *w, uint64_t v)
{
    char text[24];
    put_scalar(w, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, v));
}

/* A finite number's sign, its significant digits without trailing zeros, and where its point is: 0.d1d2d3... * 10^point. */
typedef struct decimal {
    bool negative;
    char digits[DIGITS_MAX];
    int n, point;
} decimal;

/* From printf's d.ddde+xx.  The point may be any bytes the program's locale prescribes, so everything between the digits is
 * skipped rather than read. */
static decimal decimal_of(double v, int n_digits)
{
    char text[64];
    const int length = snprintf(text, sizeof(text), "%.*e", n_digits - 1, v);
    decimal d = {.negative = text[0] == '-'};
    int i = d.negative ? 1 : 0;
    for (; i < length && text[i] != 'e'; i++)
        if (text[i] >= '0' && text[i] <= '9' && d.n < DIGITS_MAX) d.digits[d.n++] = text[i];
    const bool small = text[i + 1] == '-';
    int exponent = 0;
    for (i += 2; i < length; i++) exponent = exponent * 10 + (text[i] - '0');
    d.point = (small ? -exponent : exponent) + 1;
    while (d.n > 1 && d.digits[d.n - 1] == '0') d.n--;
    return d;
}

static size_t put_run(char *out, size_t n, char c, int count)
{
    for (int i = 0; i < count; i++) out[n++] = c;
    return n;
}

static size_t put_digits(char *out, size_t n, const decimal *d, int from, int to)
{
    for (int i = from; i < to; i++) out[n++] = d->digits[i];
    return n;
}

/* 120, 1.25, 0.00125, 1.25e-9: plain between 1e-5 and 1e16, where people and JSON readers expect it.  The longest is
 * "-0.0000" and 17 digits. */
static size_t decimal_text(char out[32], const decimal *d)
{
    size_t n = 0;
    if (d->negative) out[n++] = '-';
    if (d->point > 16 || d->point < -4) {
        n = put_digits(out, n, d, 0, 1);
        if (d->n > 1) out[n++] = '.';
        n = put_digits(out, n, d, 1, d->n);
        n += (size_t)snprintf(out + n, 32 - n, "e%d", d->point - 1);
    } else if (d->point <= 0) {
        n = put_run(out, n, '0', 1);
        out[n++] = '.';
        n = put_run(out, n, '0', -d->point);
        n = put_digits(out, n, d, 0, d->n);
    } else if (d->n <= d->point) {
        n = put_digits(out, n, d, 0, d->n);
        n = put_run(out, n, '0', d->point - d->n);
    } else {
        n = put_digits(out, n, d, 0, d->point);
        out[n++] = '.';
        n = put_digits(out, n, d, d->point, d->n);
    }
    return n;
}

static bool reads_back(const char *text, size_t n, double v, bool single)
{
    double read = 0.0;
    if (!fm_parse_f64((fm_view){text, n}, &read)) return false;
    return single ? (float)read == (float)v : read == v;
}

/* Tries more and more digits.  Normal numbers keep every text of `low` digits apart, so a shorter one is the same text with
 * zeros at its end; subnormal ones have less precision and are tried from one digit on. */
static void put_float(fm_jsonw *w, double v, bool single)
{
    if (!isfinite(v)) {
        fm_jsonw_null(w);
        return;
    }
    const int low = single ? FLT_DIG : DBL_DIG, high = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;
    const bool subnormal = fabs(v) < (single ? (double)FLT_MIN : DBL_MIN);
    char text[32];
    size_t n = 0;
    for (int digits = subnormal ? 1 : low; digits <= high; digits++) {
        const decimal d = decimal_of(v, digits);
        n = decimal_text(text, &d);
        if (reads_back(text, n, v, single)) break;
    }
    put_scalar(w, text, n);
}

void fm_jsonw_f64(fm_jsonw *w, double v)
{
    put_float(w, v, false);
}

void fm_jsonw_f32(fm_jsonw *w, float v)
{
    put_float(w, (double)v, true);
}

void fm_jsonw_bool(fm_jsonw *w, bool v)
{
    put_scalar(w, v ? "true" : "false", v ? 4 : 5);
}

void fm_jsonw_null(fm_jsonw *w)
{
    put_scalar(w, "null", 4);
}
