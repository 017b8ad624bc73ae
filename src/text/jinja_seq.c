/* jinja_seq.c - filters of lists and dicts: first, last, join, map, select, sort, unique, dictsort and their kin. */
#include <string.h>

#include "text/jinja_internal.h"

#define FILTER(name) static fm_status name(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)

/* v.a.b.0 for the attribute "a.b.0", or v[3] for the number 3. */
static fm_status get_attribute(fm_jrender *r, fm_jval v, fm_jval attribute, fm_jval *out)
{
    int64_t i;
    bool overflow;
    *out = v;
    if (attribute.type != FM_J_STRING) return fm_j_item(r, v, attribute, out);
    fm_view path = fm_j_view(attribute);
    do {
        const char *dot = path.n ? memchr(path.p, '.', path.n) : NULL;
        const fm_view part = {path.p, dot ? (size_t)(dot - path.p) : path.n};
        const bool digits = part.n && part.p[0] >= '0' && part.p[0] <= '9' && fm_j_parse_int(part, 10, &i, &overflow);
        v = *out;
        FM_TRY(fm_j_item(r, v, digits ? fm_j_int(i) : fm_j_string(part, false), out));
        path = dot ? (fm_view){dot + 1, path.n - part.n - 1} : (fm_view){NULL, 0};
        if (!dot) break;
    } while (true);
    return FM_OK;
}

FILTER(q_length)
{
    (void)a;
    int64_t n;
    FM_TRY(fm_j_length(r, self, &n));
    *out = fm_j_int(n);
    return FM_OK;
}

FILTER(q_first)
{
    (void)a;
    fm_jlist *items;
    FM_TRY(fm_j_items(r, self, &items));
    *out = items->n ? items->v[0] : fm_j_undefined(FM_J_NO_VALUE, (fm_view){NULL, 0});
    return FM_OK;
}

FILTER(q_last)
{
    (void)a;
    fm_jlist *items;
    if (fm_j_is_list(self, FM_J_ITERATOR)) return fm_j_type_error(r, "last() takes a list; use |list before it", self);
    FM_TRY(fm_j_items(r, self, &items));
    *out = items->n ? items->v[items->n - 1] : fm_j_undefined(FM_J_NO_VALUE, (fm_view){NULL, 0});
    return FM_OK;
}

/* A copy of what a loop over self would see, of the wanted form. */
static fm_status copy_items(fm_jrender *r, fm_jval self, fm_jform form, fm_jlist **out)
{
    fm_jlist *items;
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(fm_j_list(r, form, items->n, out));
    for (size_t i = 0; i < items->n; i++) FM_TRY(fm_j_push(r, *out, items->v[i]));
    return FM_OK;
}

FILTER(q_list)
{
    (void)a;
    fm_jlist *l;
    FM_TRY(copy_items(r, self, FM_J_PLAIN, &l));
    *out = fm_j_list_value(l);
    return FM_OK;
}

FILTER(q_reverse)
{
    (void)a;
    fm_jlist *items, *l;
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(fm_j_list(r, FM_J_ITERATOR, items->n, &l));
    for (size_t i = items->n; i-- > 0;) FM_TRY(fm_j_push(r, l, items->v[i]));
    *out = fm_j_list_value(l);
    return self.type == FM_J_STRING ? fm_j_join(r, fm_j_text(""), l, false, out) : FM_OK;
}

FILTER(q_items)
{
    (void)a;
    fm_jlist *l;
    if (self.type != FM_J_DICT && self.type != FM_J_UNDEFINED) return fm_j_type_error(r, "items takes a dict", self);
    const size_t n = self.type == FM_J_DICT ? self.dict->n : 0;
    FM_TRY(fm_j_list(r, FM_J_ITERATOR, n, &l));
    for (size_t i = 0; i < n; i++) {
        fm_jval pair;
        FM_TRY(fm_j_pair(r, self.dict->keys[i], self.dict->values[i], &pair));
        FM_TRY(fm_j_push(r, l, pair));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

FILTER(q_join)
{
    fm_jlist *l;
    fm_jval by;
    FM_TRY(fm_j_str(r, fm_j_given(a->v[0]) ? a->v[0] : fm_j_text(""), &by));
    FM_TRY(copy_items(r, self, FM_J_PLAIN, &l));
    for (size_t i = 0; fm_j_given(a->v[1]) && i < l->n; i++) {
        const fm_jval v = l->v[i];
        FM_TRY(get_attribute(r, v, a->v[1], &l->v[i]));
    }
    return fm_j_join(r, by, l, true, out);
}

/* ---- map, select, reject ---- */

static fm_jval argument(const fm_jargs *a, const char *name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (fm_view_is(a->kw[i], name)) return a->v[a->n + i];
    return (fm_jval){0};
}

static fm_status map_attribute(fm_jrender *r, fm_jval v, const fm_jargs *a, fm_jval *out)
{
    const fm_jval otherwise = argument(a, "default");
    FM_TRY(get_attribute(r, v, argument(a, "attribute"), out));
    if (out->type == FM_J_UNDEFINED && fm_j_given(otherwise)) *out = otherwise;
    return FM_OK;
}

/* The row of a filter or test named by a value, or an error. */
static fm_status named_row(fm_jrender *r, fm_jval name, bool test, const fm_jbuiltin **out)
{
    if (name.type != FM_J_STRING) return fm_j_type_error(r, "expected the name of a filter or test", name);
    *out = test ? fm_j_test(fm_j_view(name)) : fm_j_filter(fm_j_view(name));
    if (!*out && !test) *out = fm_j_seq_filter(fm_j_view(name));
    if (*out) return FM_OK;
    return fm_j_fail(r, FM_ERR_FORMAT, "no %s named '%.*s'", test ? "test" : "filter", (int)(name.s.n < 60 ? name.s.n : 60),
                     name.s.p);
}

/* The arguments behind the first `skip` positional ones. */
static fm_jargs behind(const fm_jargs *a, size_t skip)
{
    return (fm_jargs){.v = a->v + skip, .kw = a->kw, .n = a->n - skip, .n_kw = a->n_kw};
}

FILTER(q_map)
{
    fm_jlist *items, *l;
    const fm_jbuiltin *filter = NULL;
    const bool by_attribute = a->n == 0;
    if (by_attribute && !fm_j_given(argument(a, "attribute")))
        return fm_j_fail(r, FM_ERR_FORMAT, "map() takes the name of a filter, or attribute=...");
    if (!by_attribute) FM_TRY(named_row(r, a->v[0], false, &filter));
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(fm_j_list(r, FM_J_ITERATOR, items->n, &l));
    for (size_t i = 0; i < items->n; i++) {
        fm_jval v;
        if (by_attribute) {
            FM_TRY(map_attribute(r, items->v[i], a, &v));
        } else {
            const fm_jargs rest = behind(a, 1);
            FM_TRY(fm_j_builtin(r, filter, "", items->v[i], &rest, &v));
        }
        FM_TRY(fm_j_push(r, l, v));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

/* Keeps the items whose value, or attribute, passes the test (or is true) as `want` says. */
static fm_status choose(fm_jrender *r, fm_jval self, const fm_jargs *a, bool attribute, bool want, fm_jval *out)
{
    fm_jlist *items, *l;
    const fm_jbuiltin *test = NULL;
    const size_t skip = attribute ? 1 : 0;
    if (a->n < skip) return fm_j_fail(r, FM_ERR_FORMAT, "selectattr() and rejectattr() take an attribute");
    if (a->n > skip) FM_TRY(named_row(r, a->v[skip], true, &test));
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(fm_j_list(r, FM_J_ITERATOR, 0, &l));
    for (size_t i = 0; i < items->n; i++) {
        fm_jval v = items->v[i], yes;
        if (attribute) FM_TRY(get_attribute(r, items->v[i], a->v[0], &v));
        yes = v;
        if (test) {
            const fm_jargs rest = behind(a, skip + 1);
            FM_TRY(fm_j_builtin(r, test, "", v, &rest, &yes));
        }
        FM_TRY(fm_j_step(r, 1));
        if (fm_j_truth(yes) == want) FM_TRY(fm_j_push(r, l, items->v[i]));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

FILTER(q_select)
{
    return choose(r, self, a, false, true, out);
}
FILTER(q_reject)
{
    return choose(r, self, a, false, false, out);
}
FILTER(q_selectattr)
{
    return choose(r, self, a, true, true, out);
}
FILTER(q_rejectattr)
{
    return choose(r, self, a, true, false, out);
}

/* ---- Order ---- */

static fm_status sort_key(fm_jrender *r, fm_jval v, fm_jval attribute, bool fold, fm_jval *out)
{
    *out = v;
    if (fm_j_given(attribute) && attribute.type != FM_J_NONE) {
        if (attribute.type == FM_J_STRING && attribute.s.n && memchr(attribute.s.p, ',', attribute.s.n))
            return fm_j_fail(r, FM_ERR_UNSUPPORTED, "sorting by several attributes is not supported");
        FM_TRY(get_attribute(r, v, attribute, out));
    }
    const fm_jval key = *out;
    return fold && key.type == FM_J_STRING ? fm_j_recase(r, key, FM_J_LOWER, out) : FM_OK;
}

/* n keys, each with the item it belongs to at +1; merges runs of doubling length, which keeps equal keys in order. */
static fm_status merge(fm_jrender *r, const fm_jval *from, fm_jval *to, const size_t at[3], int sign)
{
    size_t i = at[0], k = at[1], n = at[0];
    while (i < at[1] || k < at[2]) {
        bool right = i == at[1];
        if (!right && k < at[2]) {
            int order;
            FM_TRY(fm_j_order(r, from[2 * k], from[2 * i], &order));
            right = order != 2 && order * sign < 0;
        }
        const size_t take = right ? k++ : i++;
        to[2 * n] = from[2 * take];
        to[2 * n + 1] = from[2 * take + 1];
        n++;
    }
    return FM_OK;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Sorts items by keys (as long); the items end up in `items`. */
static fm_status sort(fm_jrender *r, fm_jlist *items, const fm_jlist *keys, bool reverse)
{
    void *room;
    const size_t n = items->n;
    FM_TRY(fm_j_alloc(r, &room, 4 * n, sizeof(fm_jval)));
    fm_jval *from = room, *to = from + 2 * n;
    for (size_t i = 0; i < n; i++) {
        from[2 * i] = keys->v[i];
        from[2 * i + 1] = items->v[i];
    }
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t i = 0; i < n; i += 2 * width)
            FM_TRY(merge(r, from, to, (size_t[]){i, least(i + width, n), least(i + 2 * width, n)}, reverse ? -1 : 1));
        fm_jval *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n; i++) items->v[i] = from[2 * i + 1];
    return FM_OK;
}

static fm_status key_list(fm_jrender *r, const fm_jlist *items, fm_jval attribute, bool fold, fm_jlist **out)
{
    FM_TRY(fm_j_list(r, FM_J_PLAIN, items->n, out));
    for (size_t i = 0; i < items->n; i++) {
        fm_jval key;
        FM_TRY(sort_key(r, items->v[i], attribute, fold, &key));
        FM_TRY(fm_j_push(r, *out, key));
    }
    return FM_OK;
}

FILTER(q_sort)
{
    fm_jlist *l, *keys;
    FM_TRY(copy_items(r, self, FM_J_PLAIN, &l));
    FM_TRY(key_list(r, l, a->v[2], !fm_j_truth(a->v[1]), &keys));
    FM_TRY(sort(r, l, keys, fm_j_truth(a->v[0])));
    *out = fm_j_list_value(l);
    return FM_OK;
}

FILTER(q_dictsort)
{
    fm_jval pairs;
    fm_jlist *l, *keys;
    if (self.type != FM_J_DICT) return fm_j_type_error(r, "dictsort takes a dict", self);
    const fm_jval by = fm_j_given(a->v[1]) ? a->v[1] : fm_j_text("key");
    if (!fm_j_is(by, "key") && !fm_j_is(by, "value"))
        return fm_j_fail(r, FM_ERR_FORMAT, "dictsort sorts by 'key' or by 'value'");
    FM_TRY(q_items(r, self, a, &pairs));
    FM_TRY(copy_items(r, pairs, FM_J_PLAIN, &l));
    FM_TRY(key_list(r, l, fm_j_int(fm_j_is(by, "value")), !fm_j_truth(a->v[0]), &keys));
    FM_TRY(sort(r, l, keys, fm_j_truth(a->v[2])));
    *out = fm_j_list_value(l);
    return FM_OK;
}

static fm_status extreme(fm_jrender *r, fm_jval self, const fm_jargs *a, int sign, fm_jval *out)
{
    fm_jlist *items, *keys;
    size_t best = 0;
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(key_list(r, items, a->v[1], !fm_j_truth(a->v[0]), &keys));
    *out = fm_j_undefined(FM_J_NO_VALUE, (fm_view){NULL, 0});
    for (size_t i = 1; i < items->n; i++) {
        int order;
        FM_TRY(fm_j_order(r, keys->v[i], keys->v[best], &order));
        if (order != 2 && order * sign > 0) best = i;
    }
    if (items->n) *out = items->v[best];
    return FM_OK;
}

FILTER(q_min)
{
    return extreme(r, self, a, -1, out);
}
FILTER(q_max)
{
    return extreme(r, self, a, 1, out);
}

FILTER(q_sum)
{
    fm_jlist *items;
    FM_TRY(fm_j_items(r, self, &items));
    *out = fm_j_given(a->v[1]) ? a->v[1] : fm_j_int(0);
    for (size_t i = 0; i < items->n; i++) {
        fm_jval v = items->v[i];
        const fm_jval so_far = *out;
        if (fm_j_given(a->v[0]) && a->v[0].type != FM_J_NONE) FM_TRY(get_attribute(r, items->v[i], a->v[0], &v));
        FM_TRY(fm_j_math(r, '+', so_far, v, out));
    }
    return FM_OK;
}

FILTER(q_unique)
{
    fm_jlist *items, *keys, *l;
    fm_jdict *seen;
    FM_TRY(fm_j_items(r, self, &items));
    FM_TRY(key_list(r, items, a->v[1], !fm_j_truth(a->v[0]), &keys));
    FM_TRY(fm_j_list(r, FM_J_ITERATOR, 0, &l));
    FM_TRY(fm_j_dict(r, &seen));
    for (size_t i = 0; i < items->n; i++) {
        const size_t before = seen->n;
        FM_TRY(fm_j_put(r, seen, keys->v[i], fm_j_none()));
        if (seen->n > before) FM_TRY(fm_j_push(r, l, items->v[i]));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

const fm_jbuiltin *fm_j_seq_filter(fm_view name)
{
    static const fm_jbuiltin table[] = {{"length", "", 0, q_length},
                                        {"count", "", 0, q_length},
                                        {"first", "", 0, q_first},
                                        {"last", "", 0, q_last},
                                        {"list", "", 0, q_list},
                                        {"reverse", "", 0, q_reverse},
                                        {"items", "", 0, q_items},
                                        {"join", "d attribute", 0, q_join},
                                        {"map", "*", 0, q_map},
                                        {"select", "*", 0, q_select},
                                        {"reject", "*", 0, q_reject},
                                        {"selectattr", "*", 0, q_selectattr},
                                        {"rejectattr", "*", 0, q_rejectattr},
                                        {"sort", "reverse case_sensitive attribute", 0, q_sort},
                                        {"dictsort", "case_sensitive by reverse", 0, q_dictsort},
                                        {"min", "case_sensitive attribute", 0, q_min},
                                        {"max", "case_sensitive attribute", 0, q_max},
                                        {"sum", "attribute start", 0, q_sum},
                                        {"unique", "case_sensitive attribute", 0, q_unique}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}
