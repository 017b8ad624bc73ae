/* jinja_string.c - work on text by code points: searching, replacing, stripping, splitting into lines, joining, slicing. */
#define _GNU_SOURCE /* memmem */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_internal.h"

size_t fm_j_points(fm_view v)
{
    size_t n = 0;
    for (size_t i = 0; i < v.n; i++) n += ((unsigned char)v.p[i] & 0xC0) != 0x80;
    return n;
}

size_t fm_j_point_at(fm_view v, size_t i)
{
    for (size_t at = 0; at < v.n; at++) {
        if (((unsigned char)v.p[at] & 0xC0) == 0x80) continue;
        if (i-- == 0) return at;
    }
    return v.n;
}

fm_status fm_j_search(fm_jrender *r, fm_view in, fm_view what, size_t from, size_t *at)
{
    *at = in.n + 1;
    if (from > in.n || what.n > in.n - from) return FM_OK;
    if (what.n == 0) {
        *at = from;
        return FM_OK;
    }
    const char *hit = memmem(in.p + from, in.n - from, what.p, what.n);
    if (hit) *at = (size_t)(hit - in.p);
    return fm_j_scan(r, hit ? *at - from + what.n : in.n - from);
}

fm_status fm_j_replace(fm_jrender *r, fm_jval s, fm_jval from, fm_jval to, int64_t count, fm_jval *out)
{
    fm_jbuf b = {.r = r};
    const fm_view text = fm_j_view(s), what = fm_j_view(from);
    size_t done = 0;
    while (count != 0) {
        size_t at;
        /* An empty text is found before every character and at the end. */
        const size_t ahead = what.n || done == 0 ? 0 : 1;
        FM_TRY(fm_j_step(r, 1));
        if (what.n == 0 && ahead && done > text.n) break;
        FM_TRY(fm_j_search(r, text, what, done, &at));
        if (at > text.n) break;
        FM_TRY(fm_jbuf_add(&b, fm_j_cut(s, done, at - done)));
        FM_TRY(fm_jbuf_add(&b, to));
        count--;
        done = at + what.n;
        if (what.n) continue;
        if (done == text.n) break;
        const size_t n = fm_j_point_at((fm_view){text.p + done, text.n - done}, 1);
        FM_TRY(fm_jbuf_add(&b, fm_j_cut(s, done, n)));
        done += n;
    }
    FM_TRY(fm_jbuf_add(&b, fm_j_cut(s, done, text.n - done)));
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

static bool strips(uint32_t cp, fm_jval chars)
{
    if (chars.type != FM_J_STRING) return fm_j_space(cp);
    for (size_t i = 0; i < chars.s.n;) {
        uint32_t c;
        i += fm_utf8_decode(&c, chars.s.p + i, chars.s.n - i);
        if (c == cp) return true;
    }
    return false;
}

fm_status fm_j_strip(fm_jrender *r, fm_jval s, fm_jval chars, fm_jside side, fm_jval *out)
{
    size_t from = 0, to = s.s.n;
    uint32_t cp;
    if (fm_j_given(chars) && chars.type != FM_J_NONE && chars.type != FM_J_STRING)
        return fm_j_type_error(r, "strip takes a string of characters", chars);
    while ((side & FM_J_LEFT) && from < to) {
        const size_t n = fm_utf8_decode(&cp, s.s.p + from, to - from);
        if (!strips(cp, chars)) break;
        from += n;
    }
    while ((side & FM_J_RIGHT) && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s.s.p[at] & 0xC0) == 0x80) at--;
        fm_utf8_decode(&cp, s.s.p + at, to - at);
        if (!strips(cp, chars)) break;
        to = at;
    }
    *out = fm_j_cut(s, from, to - from);
    return fm_j_scan(r, (s.s.n - (to - from)) * (chars.type == FM_J_STRING ? 1 + chars.s.n : 1));
}

static bool ends_line(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

fm_status fm_j_splitlines(fm_jrender *r, fm_jval s, fm_jlist **out)
{
    size_t from = 0;
    FM_TRY(fm_j_scan(r, s.s.n));
    FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, out));
    for (size_t i = 0; i < s.s.n;) {
        uint32_t cp;
        size_t n = fm_utf8_decode(&cp, s.s.p + i, s.s.n - i);
        if (ends_line(cp)) {
            if (cp == '\r' && i + 1 < s.s.n && s.s.p[i + 1] == '\n') n = 2;
            FM_TRY(fm_j_push(r, *out, fm_j_cut(s, from, i - from)));
            from = i + n;
        }
        i += n;
    }
    return from < s.s.n ? fm_j_push(r, *out, fm_j_cut(s, from, s.s.n - from)) : FM_OK;
}

fm_status fm_j_join(fm_jrender *r, fm_jval by, const fm_jlist *items, bool convert, fm_jval *out)
{
    fm_jbuf b = {.r = r};
    for (size_t i = 0; i < items->n; i++) {
        FM_TRY(fm_j_step(r, 1));
        if (i) FM_TRY(fm_jbuf_add(&b, by));
        if (!convert && items->v[i].type != FM_J_STRING)
            return fm_j_type_error(r, "join() of a string takes strings only", items->v[i]);
        FM_TRY(fm_j_print(&b, items->v[i]));
    }
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

/* ---- Slices ---- */

static fm_status slice_bound(fm_jrender *r, fm_jval v, int64_t n, int64_t if_none, bool backwards, int64_t *out)
{
    *out = if_none;
    if (v.type == FM_J_NONE) return FM_OK;
    if (v.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, v);
    if (!fm_j_integer(v, out)) return fm_j_type_error(r, "a slice's bounds are whole numbers", v);
    if (*out < 0) *out = *out < -n ? -1 : *out + n;
    if (*out < 0) *out = backwards ? -1 : 0;
    if (*out > n - backwards) *out = n - backwards;
    return FM_OK;
}

static fm_status slice_text(fm_jrender *r, fm_jval v, int64_t from, int64_t to, fm_jval *out)
{
    const fm_view s = fm_j_view(v);
    const size_t begin = fm_j_point_at(s, (size_t)from);
    const size_t end = to > from ? begin + fm_j_point_at((fm_view){s.p + begin, s.n - begin}, (size_t)(to - from)) : begin;
    *out = fm_j_cut(v, begin, end - begin);
    return fm_j_scan(r, s.n);
}

static fm_status slice_items(fm_jrender *r, const fm_jlist *items, int64_t from, int64_t to, int64_t step, fm_jlist *out)
{
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
        FM_TRY(fm_j_push(r, out, items->v[i]));
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    return FM_OK;
}

fm_status fm_j_slice(fm_jrender *r, fm_jval v, const fm_jval part[3], fm_jval *out)
{
    int64_t n, from, to, step = 1;
    fm_jlist *items, *cut;
    if (v.type != FM_J_STRING && (v.type != FM_J_LIST || v.list->form > FM_J_RANGE))
        return fm_j_type_error(r, "only strings and lists can be sliced", v);
    if (part[2].type != FM_J_NONE && !fm_j_integer(part[2], &step))
        return fm_j_type_error(r, "a slice's step is a whole number", part[2]);
    if (step == 0) return fm_j_fail(r, FM_ERR_FORMAT, "a slice's step cannot be 0");
    FM_TRY(fm_j_length(r, v, &n));
    FM_TRY(slice_bound(r, part[0], n, step > 0 ? 0 : n - 1, step < 0, &from));
    FM_TRY(slice_bound(r, part[1], n, step > 0 ? n : -1, step < 0, &to));
    if (v.type == FM_J_STRING && step == 1) return slice_text(r, v, from, to, out);
    FM_TRY(fm_j_items(r, v, &items));
    FM_TRY(fm_j_list(r, v.type == FM_J_LIST && v.list->form == FM_J_TUPLE ? FM_J_TUPLE : FM_J_PLAIN, 0, &cut));
    FM_TRY(slice_items(r, items, from, to, step, cut));
    *out = fm_j_list_value(cut);
    return v.type == FM_J_STRING ? fm_j_join(r, fm_j_text(""), cut, false, out) : FM_OK;
}
