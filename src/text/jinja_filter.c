/* jinja_filter.c - filters of single values: text, numbers, default, tojson.  Those of lists and dicts are in jinja_seq.c.  The
 * table also names the filters of Jinja that are outside the subset. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_internal.h"

#define FILTER(name) static fm_status name(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)

static fm_status recase(fm_jrender *r, fm_jval self, fm_jcase to, fm_jval *out)
{
    fm_jval s;
    FM_TRY(fm_j_str(r, self, &s));
    return fm_j_recase(r, s, to, out);
}

FILTER(f_upper)
{
    (void)a;
    return recase(r, self, FM_J_UPPER, out);
}
FILTER(f_lower)
{
    (void)a;
    return recase(r, self, FM_J_LOWER, out);
}
FILTER(f_capitalize)
{
    (void)a;
    return recase(r, self, FM_J_CAPITALIZE, out);
}

/* Unlike the method, a new word begins only behind white space and - ( { [ <. */
FILTER(f_title)
{
    (void)a;
    fm_jval s;
    fm_jbuf b = {.r = r};
    bool begins = true;
    FM_TRY(fm_j_str(r, self, &s));
    for (size_t i = 0; i < s.s.n;) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, s.s.p + i, s.s.n - i);
        FM_TRY(fm_jbuf_cp(&b, begins ? fm_j_upper(cp) : fm_j_lower(cp), fm_j_taint_at(s, i)));
        begins = fm_j_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
        i += n;
    }
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

FILTER(f_trim)
{
    fm_jval s;
    FM_TRY(fm_j_str(r, self, &s));
    return fm_j_strip(r, s, a->v[0], FM_J_BOTH, out);
}

FILTER(f_string)
{
    (void)a;
    return fm_j_str(r, self, out);
}

FILTER(f_safe)
{
    (void)a;
    return fm_j_str(r, self, out);
}

FILTER(f_replace)
{
    fm_jval s, from, to;
    int64_t count = -1;
    FM_TRY(fm_j_str(r, self, &s));
    FM_TRY(fm_j_str(r, a->v[0], &from));
    FM_TRY(fm_j_str(r, a->v[1], &to));
    if (fm_j_given(a->v[2]) && a->v[2].type != FM_J_NONE && !fm_j_integer(a->v[2], &count))
        return fm_j_type_error(r, "replace() takes a whole number of replacements", a->v[2]);
    return fm_j_replace(r, s, from, to, count, out);
}

FILTER(f_default)
{
    (void)r;
    const bool use = self.type == FM_J_UNDEFINED || (fm_j_truth(a->v[1]) && !fm_j_truth(self));
    *out = !use ? self : fm_j_given(a->v[0]) ? a->v[0] : fm_j_text("");
    return FM_OK;
}

static fm_status indent_text(fm_jrender *r, fm_jval width, fm_jval *out)
{
    int64_t n = 4;
    if (width.type == FM_J_STRING) {
        *out = width;
        return FM_OK;
    }
    if (fm_j_given(width) && !fm_j_integer(width, &n)) return fm_j_type_error(r, "indent() takes a number or a string", width);
    return fm_j_repeat(r, fm_j_text(" "), n, out);
}

FILTER(f_indent)
{
    fm_jval s, by;
    fm_jbuf whole = {.r = r}, b = {.r = r};
    fm_jlist *lines;
    FM_TRY(fm_j_str(r, self, &s));
    FM_TRY(indent_text(r, a->v[0], &by));
    FM_TRY(fm_jbuf_add(&whole, s));
    FM_TRY(fm_jbuf_puts(&whole, "\n"));
    FM_TRY(fm_j_splitlines(r, fm_jbuf_value(&whole), &lines));
    for (size_t i = 0; i < lines->n; i++) {
        const bool blank = lines->v[i].s.n == 0 && !fm_j_truth(a->v[2]);
        if (i) FM_TRY(fm_jbuf_puts(&b, "\n"));
        if (i ? !blank : fm_j_truth(a->v[1])) FM_TRY(fm_jbuf_add(&b, by));
        FM_TRY(fm_jbuf_add(&b, lines->v[i]));
    }
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

/* ---- Numbers ---- */

FILTER(f_int)
{
    int64_t i, base = 10;
    double f;
    bool overflow = false;
    *out = fm_j_given(a->v[0]) ? a->v[0] : fm_j_int(0);
    if (fm_j_given(a->v[1]) && (!fm_j_integer(a->v[1], &base) || base == 1 || base < 0 || base > 36))
        return fm_j_type_error(r, "the base of int() is 0 or 2 to 36", a->v[1]);
    if (fm_j_integer(self, &i)) {
        *out = fm_j_int(i);
    } else if (self.type == FM_J_FLOAT) {
        return isfinite(self.f) ? fm_j_float_to_int(r, self.f, out) : FM_OK;
    } else if (self.type == FM_J_STRING) {
        FM_TRY(fm_j_scan(r, self.s.n));
        if (fm_j_parse_int(fm_j_view(self), (int)base, &i, &overflow))
            *out = fm_j_int(i);
        else if (overflow)
            return fm_j_fail(r, FM_ERR_UNSUPPORTED, "a whole number does not fit 64 bits");
        else if (fm_j_parse_float(fm_j_view(self), &f) && isfinite(f))
            FM_TRY(fm_j_float_to_int(r, f, out));
    }
    out->tainted = out->tainted || fm_j_any_taint(self);
    return FM_OK;
}

FILTER(f_float)
{
    double f;
    *out = fm_j_given(a->v[0]) ? a->v[0] : fm_j_float(0.0);
    if (self.type == FM_J_STRING) FM_TRY(fm_j_scan(r, self.s.n));
    if (fm_j_number(self, &f) || (self.type == FM_J_STRING && fm_j_parse_float(fm_j_view(self), &f))) {
        *out = fm_j_float(f);
        out->tainted = fm_j_any_taint(self);
    }
    return FM_OK;
}

FILTER(f_abs)
{
    (void)a;
    double f = 0;
    fm_j_number(self, &f);
    return fm_j_sign(r, f < 0, self, out);
}

/* An int to tens (1), hundreds (2) ..., half to even; false: that has more than 64 bits. */
static bool round_int(int64_t *out, int64_t v, int digits)
{
    int64_t unit = 1;
    *out = 0;
    if (digits > 18) return digits > 19 || (v <= 5000000000000000000 && v >= -5000000000000000000);
    for (int i = 0; i < digits; i++) unit *= 10;
    const int64_t rest = v % unit, twice = rest < 0 ? -2 * rest : 2 * rest, whole = v - rest;
    const bool away = twice > unit || (twice == unit && whole / unit % 2 != 0);
    return !__builtin_add_overflow(whole, away ? (v < 0 ? -unit : unit) : 0, out);
}

/* Python rounds the exact decimal value of the double, half to even, which is what printf does. */
static double round_common(double f, int precision)
{
    char text[400];
    double back = f;
    if (precision < 0) {
        const double p = pow(10.0, -precision);
        return nearbyint(f / p) * p;
    }
    const int n = snprintf(text, sizeof text, "%.*f", precision, f);
    if (n <= 0 || n >= (int)sizeof text) return f;
    for (int i = 0; i < n; i++)
        if (text[i] != '-' && (text[i] < '0' || text[i] > '9')) text[i] = '.';
    return fm_parse_f64((fm_view){text, (size_t)n}, &back) ? back : f;
}

FILTER(f_round)
{
    int64_t precision = 0;
    int64_t whole;
    double f;
    const fm_jval method = fm_j_given(a->v[1]) ? a->v[1] : fm_j_text("common");
    if (self.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, self);
    if (!fm_j_number(self, &f)) return fm_j_type_error(r, "round() takes a number", self);
    if (fm_j_given(a->v[0]) && (!fm_j_integer(a->v[0], &precision) || precision < -300 || precision > 300))
        return fm_j_type_error(r, "the precision of round() is a whole number from -300 to 300", a->v[0]);
    const double p = pow(10.0, (double)precision);
    if (fm_j_is(method, "ceil"))
        *out = fm_j_float(ceil(f * p) / p);
    else if (fm_j_is(method, "floor"))
        *out = fm_j_float(floor(f * p) / p);
    else if (!fm_j_is(method, "common"))
        return fm_j_fail(r, FM_ERR_FORMAT, "the method of round() is 'common', 'ceil' or 'floor'");
    else if (fm_j_integer(self, &whole) && round_int(&whole, whole, precision < 0 ? (int)-precision : 0))
        *out = fm_j_int(whole);
    else
        *out = fm_j_float(isfinite(f) ? round_common(f, (int)precision) : f);
    out->tainted = self.tainted;
    return FM_OK;
}

FILTER(f_attr)
{
    if (a->v[0].type != FM_J_STRING) return fm_j_type_error(r, "attr() takes a name", a->v[0]);
    return fm_j_attribute(r, self, fm_j_view(a->v[0]), out);
}

const fm_jbuiltin *fm_j_filter(fm_view name)
{
    static const fm_jbuiltin table[] = {{"upper", "", 0, f_upper},
                                        {"lower", "", 0, f_lower},
                                        {"capitalize", "", 0, f_capitalize},
                                        {"title", "", 0, f_title},
                                        {"trim", "chars", 0, f_trim},
                                        {"string", "", 0, f_string},
                                        {"safe", "", 0, f_safe},
                                        {"replace", "old new count", 2, f_replace},
                                        {"default", "default_value boolean", 0, f_default},
                                        {"d", "default_value boolean", 0, f_default},
                                        {"indent", "width first blank", 0, f_indent},
                                        {"int", "default base", 0, f_int},
                                        {"float", "default", 0, f_float},
                                        {"abs", "", 0, f_abs},
                                        {"round", "precision method", 0, f_round},
                                        {"attr", "name", 1, f_attr},
                                        {"tojson", "ensure_ascii indent separators sort_keys", 0, fm_j_tojson},
                                        {"escape", "*", 0, NULL},
                                        {"e", "*", 0, NULL},
                                        {"forceescape", "*", 0, NULL},
                                        {"format", "*", 0, NULL},
                                        {"truncate", "*", 0, NULL},
                                        {"wordwrap", "*", 0, NULL},
                                        {"wordcount", "*", 0, NULL},
                                        {"center", "*", 0, NULL},
                                        {"urlencode", "*", 0, NULL},
                                        {"urlize", "*", 0, NULL},
                                        {"striptags", "*", 0, NULL},
                                        {"xmlattr", "*", 0, NULL},
                                        {"pprint", "*", 0, NULL},
                                        {"filesizeformat", "*", 0, NULL},
                                        {"random", "*", 0, NULL},
                                        {"batch", "*", 0, NULL},
                                        {"slice", "*", 0, NULL},
                                        {"groupby", "*", 0, NULL}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}
