/* jinja_print.c - values to text and back: Python's str() and repr(), JSON out (tojson) and in (the variables of a render). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "text/jinja_internal.h"

/* ---- Floats ---- */

/* The shortest digits that read back as f: "d" or "d.ddd", and the exponent behind it. */
static int shortest(char digits[24], double f)
{
    char text[40];
    for (int precision = 0; precision < 17; precision++) {
        double back = 0;
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (precision) text[1] = '.'; /* whatever the locale writes there */
        if (fm_parse_f64(fm_view_of(text), &back) && !(back < f) && !(back > f)) break;
    }
    char *e = strchr(text, 'e');
    int exponent = 0;
    for (const char *p = e + 2; *p; p++) exponent = exponent * 10 + (*p - '0');
    if (e[1] == '-') exponent = -exponent;
    *e = 0;
    size_t n = 0;
    for (const char *p = text; *p && n < 23; p++)
        if (*p != '.') digits[n++] = *p;
    digits[n] = 0;
    return exponent;
}

size_t fm_j_float_text(char out[40], double f)
{
    char digits[24];
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, "%s", f < 0 ? "-inf" : "inf");
    const char *sign = signbit(f) ? "-" : "";
    const int e = shortest(digits, fabs(f));
    const int n = (int)strlen(digits);
    if (e < -4 || e >= 16)
        return (size_t)snprintf(out, 40, "%s%c%s%se%c%02d", sign, digits[0], n > 1 ? "." : "", digits + 1, e < 0 ? '-' : '+',
                                e < 0 ? -e : e);
    if (e < 0) return (size_t)snprintf(out, 40, "%s0.%.*s%s", sign, -e - 1, "0000", digits);
    if (n <= e + 1) return (size_t)snprintf(out, 40, "%s%s%.*s.0", sign, digits, e + 1 - n, "0000000000000000");
    return (size_t)snprintf(out, 40, "%s%.*s.%s", sign, e + 1, digits, digits + e + 1);
}

/* ---- str() and repr() ---- */

static fm_status repr(fm_jbuf *b, fm_jval v);

static fm_status repr_char(fm_jbuf *b, uint32_t cp, char quote, fm_jval c)
{
    static const char plain[] = "\n\r\t\\", letters[] = "nrt\\";
    char text[16];
    const char *at = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
    if (at)
        snprintf(text, sizeof text, "\\%c", letters[at - plain]);
    else if (cp == (uint32_t)quote)
        snprintf(text, sizeof text, "\\%c", quote);
    else if (fm_j_printable(cp))
        return fm_jbuf_add(b, c);
    else
        snprintf(text, sizeof text, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
    return fm_jbuf_put(b, text, strlen(text), fm_j_taint_at(c, 0));
}

static fm_status repr_string(fm_jbuf *b, fm_jval v)
{
    const bool has_single = v.s.n && memchr(v.s.p, '\'', v.s.n), has_double = v.s.n && memchr(v.s.p, '"', v.s.n);
    const char quote = has_single && !has_double ? '"' : '\'';
    FM_TRY(fm_jbuf_put(b, &quote, 1, false));
    for (size_t i = 0; i < v.s.n;) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, v.s.p + i, v.s.n - i);
        FM_TRY(repr_char(b, cp, quote, fm_j_cut(v, i, n)));
        i += n;
    }
    return fm_jbuf_put(b, &quote, 1, false);
}

static fm_status repr_range(fm_jbuf *b, const fm_jlist *l)
{
    char text[80];
    if (l->step == 1)
        snprintf(text, sizeof text, "range(%lld, %lld)", (long long)l->start, (long long)l->stop);
    else
        snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)l->start, (long long)l->stop, (long long)l->step);
    return fm_jbuf_puts(b, text);
}

static fm_status repr_list(fm_jbuf *b, const fm_jlist *l)
{
    const bool tuple = l->form == FM_J_TUPLE;
    if (l->form == FM_J_RANGE) return repr_range(b, l);
    if (l->form == FM_J_ITERATOR) return fm_jbuf_puts(b, "<iterator>");
    if (l->form == FM_J_VIEW) FM_TRY(fm_jbuf_puts(b, "dict_view("));
    FM_TRY(fm_jbuf_puts(b, tuple ? "(" : "["));
    for (size_t i = 0; i < l->n; i++) {
        if (i) FM_TRY(fm_jbuf_puts(b, ", "));
        FM_TRY(repr(b, l->v[i]));
    }
    FM_TRY(fm_jbuf_puts(b, tuple ? (l->n == 1 ? ",)" : ")") : "]"));
    return l->form == FM_J_VIEW ? fm_jbuf_puts(b, ")") : FM_OK;
}

static fm_status repr_dict(fm_jbuf *b, const fm_jdict *d)
{
    FM_TRY(fm_jbuf_puts(b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i) FM_TRY(fm_jbuf_puts(b, ", "));
        FM_TRY(repr(b, d->keys[i]));
        FM_TRY(fm_jbuf_puts(b, ": "));
        FM_TRY(repr(b, d->values[i]));
    }
    return fm_jbuf_puts(b, "}");
}

static fm_status print_scalar(fm_jbuf *b, fm_jval v)
{
    char text[40];
    switch ((fm_jtype)v.type) {
    case FM_J_NONE: return fm_jbuf_puts(b, "None");
    case FM_J_BOOL: return fm_jbuf_put(b, v.b ? "True" : "False", v.b ? 4 : 5, v.tainted);
    case FM_J_INT: return fm_jbuf_put(b, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v.i), v.tainted);
    case FM_J_FLOAT: return fm_jbuf_put(b, text, fm_j_float_text(text, v.f), v.tainted);
    case FM_J_FUNC: return fm_jbuf_puts(b, "<function>");
    case FM_J_MACRO: return fm_jbuf_puts(b, "<macro>");
    case FM_J_LOOP: return fm_jbuf_puts(b, "<loop>");
    default: return FM_OK;
    }
}

static fm_status repr(fm_jbuf *b, fm_jval v)
{
    if (v.type == FM_J_STRING) return repr_string(b, v);
    if (v.type == FM_J_UNDEFINED) return fm_jbuf_puts(b, "Undefined");
    if (v.type != FM_J_LIST && v.type != FM_J_DICT && v.type != FM_J_NAMESPACE) return print_scalar(b, v);
    FM_TRY(fm_j_step(b->r, 1));
    FM_TRY(fm_j_enter(b->r));
    if (v.type == FM_J_NAMESPACE) FM_TRY(fm_jbuf_puts(b, "<Namespace "));
    FM_TRY(v.type == FM_J_LIST ? repr_list(b, v.list) : repr_dict(b, v.dict));
    if (v.type == FM_J_NAMESPACE) FM_TRY(fm_jbuf_puts(b, ">"));
    fm_j_leave(b->r);
    return FM_OK;
}

fm_status fm_j_print(fm_jbuf *b, fm_jval v)
{
    if (v.type == FM_J_STRING) return fm_jbuf_add(b, v);
    if (v.type == FM_J_UNDEFINED) return FM_OK;
    return repr(b, v);
}

fm_status fm_j_str(fm_jrender *r, fm_jval v, fm_jval *out)
{
    if (v.type != FM_J_STRING) {
        fm_jbuf b = {.r = r};
        FM_TRY(fm_j_print(&b, v));
        v = fm_jbuf_value(&b);
    }
    *out = v;
    return FM_OK;
}

/* ---- JSON out, as Python's json.dumps() ---- */

typedef struct writer {
    fm_jbuf b;
    fm_jval indent, comma, colon; /* indent: none, or the blanks of one level */
    bool ascii, sort;
    size_t level;
} writer;

static fm_status write_json(writer *w, fm_jval v);

static fm_status write_escape(writer *w, uint32_t cp, bool tainted)
{
    char text[16];
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
    if (at)
        snprintf(text, sizeof text, "\\%c", letters[at - plain]);
    else if (cp < 0x10000)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
    else
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD7C0 + (unsigned)(cp >> 10), 0xDC00 + (unsigned)(cp & 0x3FF));
    return fm_jbuf_put(&w->b, text, strlen(text), tainted);
}

static fm_status write_string(writer *w, fm_jval v)
{
    FM_TRY(fm_jbuf_puts(&w->b, "\""));
    for (size_t i = 0; i < v.s.n;) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, v.s.p + i, v.s.n - i);
        if (cp < 0x20 || cp == '"' || cp == '\\' || (w->ascii && cp >= 0x7F))
            FM_TRY(write_escape(w, cp, fm_j_taint_at(v, i)));
        else
            FM_TRY(fm_jbuf_add(&w->b, fm_j_cut(v, i, n)));
        i += n;
    }
    return fm_jbuf_puts(&w->b, "\"");
}

static fm_status new_line(writer *w)
{
    if (w->indent.type == FM_J_NONE) return FM_OK;
    FM_TRY(fm_jbuf_puts(&w->b, "\n"));
    for (size_t i = 0; i < w->level; i++) FM_TRY(fm_jbuf_add(&w->b, w->indent));
    return FM_OK;
}

static fm_status write_comma(writer *w, size_t i)
{
    if (i) FM_TRY(fm_jbuf_add(&w->b, w->comma));
    return new_line(w);
}

static fm_status write_list(writer *w, const fm_jlist *l)
{
    if (l->n == 0) return fm_jbuf_puts(&w->b, "[]");
    FM_TRY(fm_jbuf_puts(&w->b, "["));
    w->level++;
    for (size_t i = 0; i < l->n; i++) {
        FM_TRY(write_comma(w, i));
        FM_TRY(write_json(w, l->v[i]));
    }
    w->level--;
    FM_TRY(new_line(w));
    return fm_jbuf_puts(&w->b, "]");
}

static fm_status write_scalar(writer *w, fm_jval v)
{
    if (v.type == FM_J_NONE) return fm_jbuf_puts(&w->b, "null");
    if (v.type == FM_J_BOOL) return fm_jbuf_put(&w->b, v.b ? "true" : "false", v.b ? 4 : 5, v.tainted);
    if (v.type == FM_J_FLOAT && isnan(v.f)) return fm_jbuf_puts(&w->b, "NaN");
    if (v.type == FM_J_FLOAT && isinf(v.f)) return fm_jbuf_puts(&w->b, v.f < 0 ? "-Infinity" : "Infinity");
    return print_scalar(&w->b, v);
}

static fm_status write_key(writer *w, fm_jval key)
{
    if (key.type == FM_J_STRING) return write_string(w, key);
    if (key.type > FM_J_STRING) return fm_j_type_error(w->b.r, "a key of JSON is a string or a number", key);
    FM_TRY(fm_jbuf_puts(&w->b, "\""));
    FM_TRY(write_scalar(w, key));
    return fm_jbuf_puts(&w->b, "\"");
}

/* The order in which the keys are written: as they came, or sorted by insertion. */
static fm_status key_order(writer *w, const fm_jdict *d, size_t **out)
{
    void *room;
    FM_TRY(fm_j_alloc(w->b.r, &room, d->n, sizeof **out));
    size_t *at = *out = room;
    for (size_t i = 0; i < d->n; i++) {
        size_t k = i;
        for (; w->sort && k > 0; k--) {
            int order;
            FM_TRY(fm_j_order(w->b.r, d->keys[at[k - 1]], d->keys[i], &order));
            if (order <= 0) break;
            at[k] = at[k - 1];
        }
        at[k] = i;
    }
    return FM_OK;
}

static fm_status write_dict(writer *w, const fm_jdict *d)
{
    size_t *at;
    if (d->n == 0) return fm_jbuf_puts(&w->b, "{}");
    FM_TRY(key_order(w, d, &at));
    FM_TRY(fm_jbuf_puts(&w->b, "{"));
    w->level++;
    for (size_t i = 0; i < d->n; i++) {
        FM_TRY(write_comma(w, i));
        FM_TRY(write_key(w, d->keys[at[i]]));
        FM_TRY(fm_jbuf_add(&w->b, w->colon));
        FM_TRY(write_json(w, d->values[at[i]]));
    }
    w->level--;
    FM_TRY(new_line(w));
    return fm_jbuf_puts(&w->b, "}");
}

static fm_status write_json(writer *w, fm_jval v)
{
    fm_jrender *r = w->b.r;
    FM_TRY(fm_j_step(r, 1));
    FM_TRY(fm_j_enter(r));
    if (v.type == FM_J_STRING)
        FM_TRY(write_string(w, v));
    else if (v.type >= FM_J_NONE && v.type <= FM_J_FLOAT)
        FM_TRY(write_scalar(w, v));
    else if (v.type == FM_J_LIST && v.list->form <= FM_J_TUPLE)
        FM_TRY(write_list(w, v.list));
    else if (v.type == FM_J_DICT)
        FM_TRY(write_dict(w, v.dict));
    else if (v.type == FM_J_UNDEFINED)
        return fm_j_undefined_error(r, v);
    else
        return fm_j_type_error(r, "tojson takes strings, numbers, lists and dicts", v);
    fm_j_leave(r);
    return FM_OK;
}

static fm_status json_indent(writer *w, fm_jval v)
{
    int64_t n;
    w->indent = fm_j_none();
    if (v.type == FM_J_NONE || !fm_j_given(v)) return FM_OK;
    if (v.type == FM_J_STRING) {
        w->indent = v;
        return FM_OK;
    }
    if (!fm_j_integer(v, &n) || n > 64) return fm_j_type_error(w->b.r, "indent is a string or a number up to 64", v);
    return fm_j_repeat(w->b.r, fm_j_text(" "), n, &w->indent);
}

/* tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false), as transformers defines it. */
fm_status fm_j_tojson(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)
{
    writer w = {.b.r = r, .colon = fm_j_text(": ")};
    w.ascii = fm_j_truth(a->v[0]);
    w.sort = fm_j_truth(a->v[3]);
    FM_TRY(json_indent(&w, a->v[1]));
    w.comma = fm_j_text(w.indent.type == FM_J_NONE ? ", " : ",");
    if (fm_j_given(a->v[2]) && a->v[2].type != FM_J_NONE) {
        fm_jlist *pair;
        FM_TRY(fm_j_items(r, a->v[2], &pair));
        if (pair->n != 2 || pair->v[0].type != FM_J_STRING || pair->v[1].type != FM_J_STRING)
            return fm_j_fail(r, FM_ERR_FORMAT, "separators are two strings, as in (',', ':')");
        w.comma = pair->v[0];
        w.colon = pair->v[1];
    }
    FM_TRY(write_json(&w, self));
    *out = fm_jbuf_value(&w.b);
    return FM_OK;
}

/* ---- JSON in ---- */

typedef struct loader {
    fm_jrender *r;
    fm_json j;
    bool tainted;
} loader;

static fm_status load_value(loader *l, fm_jval *out);

static fm_status load_string(loader *l, fm_view raw, fm_jval *out)
{
    void *room;
    fm_str *s = &l->r->scratch;
    FM_TRY(fm_j_scan(l->r, raw.n));
    if (raw.n && memchr(raw.p, '\\', raw.n)) {
        fm_str_reset(s);
        fm_json_unescape(s, raw);
        FM_TRY(fm_str_ok(s, "template variables", l->r->err));
        FM_TRY(fm_j_alloc(l->r, &room, s->n, 1));
        if (s->n) memcpy(room, s->p, s->n);
        raw = (fm_view){room, s->n};
    }
    *out = fm_j_string(raw.n ? raw : FM_VIEW(""), l->tainted);
    return FM_OK;
}

static void load_number(loader *l, fm_jval *out)
{
    fm_view raw;
    int64_t i;
    double f;
    if (!fm_json_raw(&l->j, &raw)) return;
    if (fm_parse_i64(raw, &i))
        *out = fm_j_int(i);
    else if (fm_parse_f64(raw, &f))
        *out = fm_j_float(f);
    else
        fm_json_fail(&l->j, "number out of range");
    out->tainted = l->tainted;
}

static fm_status load_array(loader *l, fm_jval *out)
{
    fm_jlist *list;
    FM_TRY(fm_j_list(l->r, FM_J_PLAIN, 0, &list));
    *out = fm_j_list_value(list);
    if (!fm_json_enter_array(&l->j)) return FM_OK;
    while (fm_json_element(&l->j)) {
        fm_jval v;
        FM_TRY(load_value(l, &v));
        FM_TRY(fm_j_push(l->r, list, v));
    }
    return FM_OK;
}

static fm_status load_object(loader *l, fm_jval *out)
{
    fm_jdict *dict;
    fm_view raw;
    FM_TRY(fm_j_dict(l->r, &dict));
    *out = fm_j_dict_value(dict);
    if (!fm_json_enter_object(&l->j)) return FM_OK;
    while (fm_json_key(&l->j, &raw)) {
        fm_jval key, v;
        FM_TRY(load_string(l, raw, &key));
        FM_TRY(load_value(l, &v));
        FM_TRY(fm_j_put(l->r, dict, key, v));
    }
    return FM_OK;
}

static fm_status load_value(loader *l, fm_jval *out)
{
    fm_view raw;
    bool b = false;
    *out = fm_j_none();
    switch (fm_json_peek(&l->j)) {
    case FM_JSON_BOOL:
        fm_json_bool(&l->j, &b);
        *out = fm_j_bool(b);
        out->tainted = l->tainted;
        return FM_OK;
    case FM_JSON_NUMBER: load_number(l, out); return FM_OK;
    case FM_JSON_STRING: return fm_json_string(&l->j, &raw) ? load_string(l, raw, out) : FM_OK;
    case FM_JSON_ARRAY: return load_array(l, out);
    case FM_JSON_OBJECT: return load_object(l, out);
    default: fm_json_null(&l->j); return FM_OK;
    }
}

static bool listed(fm_jval key, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fm_j_is(key, names[i])) return true;
    return false;
}

fm_status fm_j_load_json(fm_jrender *r, fm_view json, const char *const *trusted, size_t n_trusted)
{
    loader l = {.r = r, .j = fm_json_begin(json.p, json.n, "template variables"), .tainted = true};
    fm_view raw;
    FM_TRY(fm_j_dict(r, &r->variables));
    if (fm_json_enter_object(&l.j)) {
        while (fm_json_key(&l.j, &raw)) {
            fm_jval key, v;
            FM_TRY(load_string(&l, raw, &key));
            l.tainted = !listed(key, trusted, n_trusted);
            FM_TRY(load_value(&l, &v));
            l.tainted = true;
            FM_TRY(fm_j_put(r, r->variables, key, v));
        }
    }
    return fm_json_finish(&l.j, r->err);
}
