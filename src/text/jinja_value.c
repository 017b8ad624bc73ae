/* jinja_value.c - the values of templates: making them, comparing them, what loops and `in` see of them. */
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_internal.h"

fm_jval fm_j_string(fm_view v, bool tainted)
{
    return (fm_jval){.type = FM_J_STRING, .tainted = tainted, .s = {v.p, NULL, v.n}};
}

fm_jval fm_j_text(const char *literal)
{
    return fm_j_string(fm_view_of(literal), false);
}

fm_jval fm_j_undefined(fm_jwhy why, fm_view name)
{
    return (fm_jval){.type = FM_J_UNDEFINED, .why = (unsigned char)why, .s = {name.p, NULL, name.n}};
}

fm_view fm_j_view(fm_jval string)
{
    return (fm_view){string.s.p, string.s.n};
}

bool fm_j_is(fm_jval v, const char *text)
{
    return v.type == FM_J_STRING && fm_view_is(fm_j_view(v), text);
}

bool fm_j_taint_at(fm_jval string, size_t i)
{
    return string.s.mask ? string.s.mask[i] : string.tainted;
}

bool fm_j_any_taint(fm_jval string)
{
    if (string.type != FM_J_STRING || !string.s.mask) return string.tainted;
    return string.s.n && memchr(string.s.mask, 1, string.s.n) != NULL;
}

fm_jval fm_j_cut(fm_jval string, size_t from, size_t n)
{
    fm_jval cut = string;
    cut.s.p += from;
    cut.s.n = n;
    if (cut.s.mask) cut.s.mask += from;
    return cut;
}

const char *fm_j_type_name(fm_jval v)
{
    static const char *const lists[] = {"a list", "a tuple", "a range", "an iterator", "a view of a dict"};
    switch ((fm_jtype)v.type) {
    case FM_J_ABSENT:
    case FM_J_UNDEFINED: return "an undefined value";
    case FM_J_NONE: return "none";
    case FM_J_BOOL: return "a bool";
    case FM_J_INT: return "an integer";
    case FM_J_FLOAT: return "a float";
    case FM_J_STRING: return "a string";
    case FM_J_LIST: return lists[v.list->form];
    case FM_J_DICT: return "a dict";
    case FM_J_NAMESPACE: return "a namespace";
    case FM_J_FUNC: return "a function";
    case FM_J_MACRO: return "a macro";
    case FM_J_LOOP: return "a loop";
    }
    return "a value";
}

/* ---- Lists and dicts ---- */

fm_status fm_j_list(fm_jrender *r, fm_jform form, size_t cap, fm_jlist **out)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof **out));
    *out = room;
    (*out)->form = form;
    if (cap == 0) return FM_OK;
    FM_TRY(fm_j_alloc(r, &room, cap, sizeof(fm_jval)));
    (*out)->v = room;
    (*out)->cap = cap;
    return FM_OK;
}

/* A larger copy of an array of values; the old one stays in the pool until the render ends. */
static fm_status larger(fm_jrender *r, fm_jval **v, size_t n, size_t cap)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, cap, sizeof **v));
    if (n) memcpy(room, *v, n * sizeof **v);
    *v = room;
    return FM_OK;
}

fm_status fm_j_push(fm_jrender *r, fm_jlist *l, fm_jval v)
{
    FM_TRY(fm_j_step(r, 1));
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 4;
        FM_TRY(larger(r, &l->v, l->n, cap));
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return FM_OK;
}

fm_status fm_j_pair(fm_jrender *r, fm_jval a, fm_jval b, fm_jval *out)
{
    fm_jlist *l;
    FM_TRY(fm_j_list(r, FM_J_TUPLE, 2, &l));
    l->v[0] = a;
    l->v[1] = b;
    l->n = 2;
    *out = fm_j_list_value(l);
    return FM_OK;
}

fm_status fm_j_dict(fm_jrender *r, fm_jdict **out)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof **out));
    *out = room;
    return FM_OK;
}

static fm_status find_slot(fm_jrender *r, const fm_jdict *d, fm_jval key, size_t *at)
{
    FM_TRY(fm_j_scan(r, 16 * d->n));
    for (*at = 0; *at < d->n; ++*at) {
        bool same;
        const fm_jval k = d->keys[*at];
        if (key.type == FM_J_STRING && (k.type != FM_J_STRING || k.s.n != key.s.n)) continue;
        FM_TRY(fm_j_equal(r, k, key, &same));
        if (same) return FM_OK;
    }
    return FM_OK;
}

fm_status fm_j_find(fm_jrender *r, const fm_jdict *d, fm_jval key, fm_jval *out)
{
    size_t at;
    *out = (fm_jval){0};
    FM_TRY(find_slot(r, d, key, &at));
    if (at < d->n) *out = d->values[at];
    return FM_OK;
}

static bool hashable(fm_jval v)
{
    if (v.type == FM_J_LIST && v.list->form == FM_J_TUPLE) {
        for (size_t i = 0; i < v.list->n; i++)
            if (v.list->v[i].type == FM_J_LIST || v.list->v[i].type == FM_J_DICT) return false;
        return true;
    }
    return v.type != FM_J_LIST && v.type != FM_J_DICT;
}

fm_status fm_j_put(fm_jrender *r, fm_jdict *d, fm_jval key, fm_jval value)
{
    size_t at;
    if (!hashable(key)) return fm_j_type_error(r, "a dict's key is a string or a number", key);
    FM_TRY(find_slot(r, d, key, &at));
    if (at == d->n) {
        if (d->n == d->cap) {
            const size_t cap = d->cap ? 2 * d->cap : 4;
            FM_TRY(larger(r, &d->keys, d->n, cap));
            FM_TRY(larger(r, &d->values, d->n, cap));
            d->cap = cap;
        }
        d->keys[d->n++] = key;
    }
    d->values[at] = value;
    return FM_OK;
}

/* ---- Comparing ---- */

bool fm_j_truth(fm_jval v)
{
    switch ((fm_jtype)v.type) {
    case FM_J_ABSENT:
    case FM_J_UNDEFINED:
    case FM_J_NONE: return false;
    case FM_J_BOOL: return v.b;
    case FM_J_INT: return v.i != 0;
    case FM_J_FLOAT: return v.f < 0 || v.f > 0 || isnan(v.f);
    case FM_J_STRING: return v.s.n > 0;
    case FM_J_LIST: return v.list->n > 0 || v.list->form == FM_J_ITERATOR;
    case FM_J_DICT: return v.dict->n > 0;
    default: return true;
    }
}

static bool is_number(fm_jval v)
{
    return v.type == FM_J_BOOL || v.type == FM_J_INT || v.type == FM_J_FLOAT;
}

/* Sign of a - b, exact also where an integer does not fit a double; 2 with a NaN. */
static int order_numbers(fm_jval a, fm_jval b)
{
    int64_t i, k;
    double f = 0, g = 0;
    if (fm_j_integer(a, &i) && fm_j_integer(b, &k)) return (i > k) - (i < k);
    fm_j_number(a, &f);
    fm_j_number(b, &g);
    if (isnan(f) || isnan(g)) return 2;
    return (f > g) - (f < g);
}

static fm_status equal_lists(fm_jrender *r, const fm_jlist *a, const fm_jlist *b, bool *out)
{
    *out = a->n == b->n && a->form == b->form;
    for (size_t i = 0; *out && i < a->n; i++) FM_TRY(fm_j_equal(r, a->v[i], b->v[i], out));
    return FM_OK;
}

static fm_status equal_dicts(fm_jrender *r, const fm_jdict *a, const fm_jdict *b, bool *out)
{
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        fm_jval other;
        FM_TRY(fm_j_find(r, b, a->keys[i], &other));
        if (fm_j_given(other))
            FM_TRY(fm_j_equal(r, a->values[i], other, out));
        else
            *out = false;
    }
    return FM_OK;
}

static fm_status equal_containers(fm_jrender *r, fm_jval a, fm_jval b, bool *out)
{
    FM_TRY(fm_j_enter(r));
    if (a.type == FM_J_LIST)
        FM_TRY(equal_lists(r, a.list, b.list, out));
    else
        FM_TRY(equal_dicts(r, a.dict, b.dict, out));
    fm_j_leave(r);
    return FM_OK;
}

fm_status fm_j_equal(fm_jrender *r, fm_jval a, fm_jval b, bool *out)
{
    FM_TRY(fm_j_step(r, 1));
    *out = false;
    if (is_number(a) && is_number(b)) {
        *out = order_numbers(a, b) == 0;
        return FM_OK;
    }
    if (a.type != b.type) return FM_OK;
    switch ((fm_jtype)a.type) {
    case FM_J_STRING: *out = fm_view_eq(fm_j_view(a), fm_j_view(b)); return a.s.n == b.s.n ? fm_j_scan(r, a.s.n) : FM_OK;
    case FM_J_LIST:
    case FM_J_DICT: return equal_containers(r, a, b, out);
    case FM_J_NAMESPACE: *out = a.dict == b.dict; break;
    case FM_J_FUNC: *out = a.func == b.func; break;
    case FM_J_MACRO: *out = a.macro == b.macro; break;
    case FM_J_LOOP: *out = a.loop == b.loop; break;
    default: *out = true; break;
    }
    return FM_OK;
}

static fm_status order_lists(fm_jrender *r, const fm_jlist *a, const fm_jlist *b, int *out)
{
    FM_TRY(fm_j_enter(r));
    *out = (a->n > b->n) - (a->n < b->n);
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        FM_TRY(fm_j_equal(r, a->v[i], b->v[i], &same));
        if (same) continue;
        FM_TRY(fm_j_order(r, a->v[i], b->v[i], out));
        break;
    }
    fm_j_leave(r);
    return FM_OK;
}

/* UTF-8 sorts as its code points do. */
static int order_text(fm_view a, fm_view b)
{
    const size_t n = a.n < b.n ? a.n : b.n;
    const int c = n ? memcmp(a.p, b.p, n) : 0;
    if (c) return c < 0 ? -1 : 1;
    return (a.n > b.n) - (a.n < b.n);
}

fm_status fm_j_order(fm_jrender *r, fm_jval a, fm_jval b, int *out)
{
    FM_TRY(fm_j_step(r, 1));
    if (is_number(a) && is_number(b)) {
        *out = order_numbers(a, b);
        return FM_OK;
    }
    if (a.type == FM_J_STRING && b.type == FM_J_STRING) {
        *out = order_text(fm_j_view(a), fm_j_view(b));
        return fm_j_scan(r, a.s.n < b.s.n ? a.s.n : b.s.n);
    }
    if (a.type == FM_J_LIST && b.type == FM_J_LIST && a.list->form == b.list->form && a.list->form <= FM_J_TUPLE)
        return order_lists(r, a.list, b.list, out);
    if (a.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, a);
    if (b.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, b);
    return fm_j_fail(r, FM_ERR_FORMAT, "%s and %s have no order", fm_j_type_name(a), fm_j_type_name(b));
}

/* ---- What loops see ---- */

fm_status fm_j_contains(fm_jrender *r, fm_jval in, fm_jval what, bool *out)
{
    *out = false;
    if (in.type == FM_J_STRING) {
        size_t at;
        if (what.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, what);
        if (what.type != FM_J_STRING) return fm_j_type_error(r, "only a string can be in a string", what);
        FM_TRY(fm_j_search(r, fm_j_view(in), fm_j_view(what), 0, &at));
        *out = at <= in.s.n;
        return FM_OK;
    }
    if (in.type == FM_J_DICT) {
        fm_jval value;
        FM_TRY(fm_j_find(r, in.dict, what, &value));
        *out = fm_j_given(value);
        return FM_OK;
    }
    fm_jlist *items;
    FM_TRY(fm_j_items(r, in, &items));
    for (size_t i = 0; !*out && i < items->n; i++) FM_TRY(fm_j_equal(r, items->v[i], what, out));
    return FM_OK;
}

fm_status fm_j_length(fm_jrender *r, fm_jval v, int64_t *out)
{
    *out = 0;
    if (v.type == FM_J_UNDEFINED) return FM_OK;
    if (v.type == FM_J_STRING) {
        *out = (int64_t)fm_j_points(fm_j_view(v));
        return fm_j_scan(r, v.s.n);
    }
    if (v.type == FM_J_LIST && v.list->form != FM_J_ITERATOR)
        *out = (int64_t)v.list->n;
    else if (v.type == FM_J_DICT)
        *out = (int64_t)v.dict->n;
    else if (v.type == FM_J_LOOP)
        *out = (int64_t)v.loop->n;
    else
        return fm_j_type_error(r, "only strings, lists and dicts have a length", v);
    return FM_OK;
}

static fm_status items_of_text(fm_jrender *r, fm_jval v, fm_jlist *l)
{
    for (size_t i = 0; i < v.s.n;) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, v.s.p + i, v.s.n - i);
        FM_TRY(fm_j_push(r, l, fm_j_cut(v, i, n)));
        i += n;
    }
    return FM_OK;
}

/* What is left of an iterator, which is then at its end. */
static fm_status drain(fm_jrender *r, fm_jlist *from, fm_jlist **out)
{
    FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, out));
    (*out)->v = from->v ? from->v + from->pos : NULL;
    (*out)->n = (*out)->cap = from->n - from->pos;
    from->pos = from->n;
    return FM_OK;
}

fm_status fm_j_items(fm_jrender *r, fm_jval v, fm_jlist **out)
{
    switch ((fm_jtype)v.type) {
    case FM_J_LIST:
        if (v.list->form == FM_J_ITERATOR) return drain(r, v.list, out);
        *out = v.list;
        return FM_OK;
    case FM_J_STRING: FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, out)); return items_of_text(r, v, *out);
    case FM_J_UNDEFINED: return fm_j_list(r, FM_J_PLAIN, 0, out);
    case FM_J_DICT:
        FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, out));
        (*out)->v = v.dict->keys;
        (*out)->n = (*out)->cap = v.dict->n;
        return FM_OK;
    default: return fm_j_type_error(r, "only lists, dicts and strings can be gone through", v);
    }
}
