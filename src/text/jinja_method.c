/* jinja_method.c - methods of strings, lists, dicts and loops.  Python's methods that are not here but known are rows without a
 * function, so that the error says "not supported" instead of "no attribute".  Methods that change a list or dict are among
 * them: transformers' sandbox refuses those too. */
#include <string.h>

#include "text/jinja_internal.h"

#define METHOD(name) static fm_status name(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)

static fm_status need_string(fm_jrender *r, fm_jval v, const char *what)
{
    return v.type == FM_J_STRING ? FM_OK : fm_j_type_error(r, what, v);
}

METHOD(s_upper)
{
    (void)a;
    return fm_j_recase(r, self, FM_J_UPPER, out);
}
METHOD(s_lower)
{
    (void)a;
    return fm_j_recase(r, self, FM_J_LOWER, out);
}
METHOD(s_title)
{
    (void)a;
    return fm_j_recase(r, self, FM_J_TITLE, out);
}
METHOD(s_capitalize)
{
    (void)a;
    return fm_j_recase(r, self, FM_J_CAPITALIZE, out);
}
METHOD(s_strip)
{
    return fm_j_strip(r, self, a->v[0], FM_J_BOTH, out);
}
METHOD(s_lstrip)
{
    return fm_j_strip(r, self, a->v[0], FM_J_LEFT, out);
}
METHOD(s_rstrip)
{
    return fm_j_strip(r, self, a->v[0], FM_J_RIGHT, out);
}

static fm_status count_argument(fm_jrender *r, fm_jval v, int64_t otherwise, int64_t *out)
{
    *out = otherwise;
    if (!fm_j_given(v) || fm_j_integer(v, out)) return FM_OK;
    return fm_j_type_error(r, "expected a whole number as argument", v);
}

METHOD(s_replace)
{
    int64_t count;
    FM_TRY(need_string(r, a->v[0], "replace() takes strings"));
    FM_TRY(need_string(r, a->v[1], "replace() takes strings"));
    FM_TRY(count_argument(r, a->v[2], -1, &count));
    return fm_j_replace(r, self, a->v[0], a->v[1], count, out);
}

static bool has_affix(fm_view s, fm_view affix, bool at_end)
{
    return affix.n <= s.n && (affix.n == 0 || memcmp(at_end ? s.p + s.n - affix.n : s.p, affix.p, affix.n) == 0);
}

/* One string, or a tuple of strings of which one must fit. */
static fm_status affix(fm_jrender *r, fm_jval self, fm_jval what, bool at_end, fm_jval *out)
{
    FM_TRY(fm_j_scan(r, self.s.n));
    bool yes = false;
    if (fm_j_is_list(what, FM_J_TUPLE)) {
        for (size_t i = 0; !yes && i < what.list->n; i++) {
            FM_TRY(need_string(r, what.list->v[i], "startswith() and endswith() take strings"));
            yes = has_affix(fm_j_view(self), fm_j_view(what.list->v[i]), at_end);
        }
    } else {
        FM_TRY(need_string(r, what, "startswith() and endswith() take strings"));
        yes = has_affix(fm_j_view(self), fm_j_view(what), at_end);
    }
    *out = fm_j_bool(yes);
    return FM_OK;
}

METHOD(s_startswith)
{
    return affix(r, self, a->v[0], false, out);
}
METHOD(s_endswith)
{
    return affix(r, self, a->v[0], true, out);
}

static fm_status without_affix(fm_jrender *r, fm_jval self, fm_jval what, bool at_end, fm_jval *out)
{
    FM_TRY(fm_j_scan(r, self.s.n));
    FM_TRY(need_string(r, what, "removeprefix() and removesuffix() take a string"));
    const size_t n = has_affix(fm_j_view(self), fm_j_view(what), at_end) ? what.s.n : 0;
    *out = fm_j_cut(self, at_end ? 0 : n, self.s.n - n);
    return FM_OK;
}

METHOD(s_removeprefix)
{
    return without_affix(r, self, a->v[0], false, out);
}
METHOD(s_removesuffix)
{
    return without_affix(r, self, a->v[0], true, out);
}

/* ---- Splitting ---- */

static fm_status split_spaces(fm_jrender *r, fm_jval s, int64_t most, fm_jlist *l)
{
    const fm_view v = fm_j_view(s);
    FM_TRY(fm_j_scan(r, v.n));
    for (size_t i = fm_j_spaces_before(v); i < v.n; most--) {
        size_t end = most == 0 ? v.n : i;
        while (end < v.n && !fm_j_spaces_before((fm_view){v.p + end, v.n - end})) end++;
        FM_TRY(fm_j_push(r, l, fm_j_cut(s, i, end - i)));
        i = end + fm_j_spaces_before((fm_view){v.p + end, v.n - end});
    }
    return FM_OK;
}

static fm_status split_by(fm_jrender *r, fm_jval s, fm_view by, int64_t most, fm_jlist *l)
{
    size_t done = 0, at;
    for (; most != 0; most--) {
        FM_TRY(fm_j_search(r, fm_j_view(s), by, done, &at));
        if (at > s.s.n) break;
        FM_TRY(fm_j_push(r, l, fm_j_cut(s, done, at - done)));
        done = at + by.n;
    }
    return fm_j_push(r, l, fm_j_cut(s, done, s.s.n - done));
}

static fm_status search_back(fm_jrender *r, fm_view in, fm_view what, size_t end, size_t *at)
{
    *at = in.n + 1;
    for (size_t i = end - (what.n < end ? what.n : end) + 1; what.n <= end && i-- > 0;) {
        FM_TRY(fm_j_scan(r, 4));
        if (memcmp(in.p + i, what.p, what.n) != 0) continue;
        *at = i;
        break;
    }
    return FM_OK;
}

static void reverse(fm_jlist *l)
{
    for (size_t i = 0; i < l->n / 2; i++) {
        const fm_jval v = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = v;
    }
}

static fm_status rsplit_by(fm_jrender *r, fm_jval s, fm_view by, int64_t most, fm_jlist *l)
{
    size_t end = s.s.n, at;
    for (; most != 0; most--) {
        FM_TRY(search_back(r, fm_j_view(s), by, end, &at));
        if (at > s.s.n) break;
        FM_TRY(fm_j_push(r, l, fm_j_cut(s, at + by.n, end - at - by.n)));
        end = at;
    }
    FM_TRY(fm_j_push(r, l, fm_j_cut(s, 0, end)));
    reverse(l);
    return FM_OK;
}

static fm_status split(fm_jrender *r, fm_jval self, const fm_jargs *a, bool back, fm_jval *out)
{
    int64_t most;
    fm_jlist *l;
    FM_TRY(count_argument(r, a->v[1], -1, &most));
    FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, &l));
    *out = fm_j_list_value(l);
    if (!fm_j_given(a->v[0]) || a->v[0].type == FM_J_NONE) {
        if (back && most >= 0)
            return fm_j_fail(r, FM_ERR_UNSUPPORTED, "rsplit() at white space a number of times is not supported");
        return split_spaces(r, self, most, l);
    }
    FM_TRY(need_string(r, a->v[0], "split() takes a string"));
    if (a->v[0].s.n == 0) return fm_j_fail(r, FM_ERR_FORMAT, "split() takes a string that is not empty");
    return (back ? rsplit_by : split_by)(r, self, fm_j_view(a->v[0]), most, l);
}

METHOD(s_split)
{
    return split(r, self, a, false, out);
}
METHOD(s_rsplit)
{
    return split(r, self, a, true, out);
}

METHOD(s_splitlines)
{
    fm_jlist *l;
    if (fm_j_truth(a->v[0])) return fm_j_fail(r, FM_ERR_UNSUPPORTED, "splitlines() with line ends kept is not supported");
    FM_TRY(fm_j_splitlines(r, self, &l));
    *out = fm_j_list_value(l);
    return FM_OK;
}

static fm_status partition(fm_jrender *r, fm_jval self, fm_jval by, bool back, fm_jval *out)
{
    fm_jlist *l;
    size_t at;
    FM_TRY(need_string(r, by, "partition() takes a string"));
    if (by.s.n == 0) return fm_j_fail(r, FM_ERR_FORMAT, "partition() takes a string that is not empty");
    FM_TRY((back ? search_back : fm_j_search)(r, fm_j_view(self), fm_j_view(by), back ? self.s.n : 0, &at));
    FM_TRY(fm_j_list(r, FM_J_TUPLE, 3, &l));
    const bool found = at <= self.s.n;
    const fm_jval none = fm_j_text("");
    FM_TRY(fm_j_push(r, l, found ? fm_j_cut(self, 0, at) : back ? none : self));
    FM_TRY(fm_j_push(r, l, found ? fm_j_cut(self, at, by.s.n) : none));
    FM_TRY(fm_j_push(r, l, found ? fm_j_cut(self, at + by.s.n, self.s.n - at - by.s.n) : back ? self : none));
    *out = fm_j_list_value(l);
    return FM_OK;
}

METHOD(s_partition)
{
    return partition(r, self, a->v[0], false, out);
}
METHOD(s_rpartition)
{
    return partition(r, self, a->v[0], true, out);
}

/* ---- Finding ---- */

static fm_status find(fm_jrender *r, fm_jval self, const fm_jargs *a, bool back, fm_jval *out)
{
    size_t at;
    FM_TRY(need_string(r, a->v[0], "find() takes a string"));
    FM_TRY((back ? search_back : fm_j_search)(r, fm_j_view(self), fm_j_view(a->v[0]), back ? self.s.n : 0, &at));
    *out = fm_j_int(at > self.s.n ? -1 : (int64_t)fm_j_points((fm_view){self.s.p, at}));
    return FM_OK;
}

METHOD(s_find)
{
    return find(r, self, a, false, out);
}
METHOD(s_rfind)
{
    return find(r, self, a, true, out);
}

METHOD(s_index)
{
    FM_TRY(find(r, self, a, false, out));
    return out->i < 0 ? fm_j_fail(r, FM_ERR_FORMAT, "index() does not find the text") : FM_OK;
}

METHOD(s_count)
{
    size_t at = 0;
    FM_TRY(need_string(r, a->v[0], "count() takes a string"));
    int64_t n = a->v[0].s.n ? 0 : (int64_t)fm_j_points(fm_j_view(self)) + 1;
    while (a->v[0].s.n) {
        FM_TRY(fm_j_search(r, fm_j_view(self), fm_j_view(a->v[0]), at, &at));
        if (at > self.s.n) break;
        at += a->v[0].s.n;
        n++;
    }
    *out = fm_j_int(n);
    return FM_OK;
}

METHOD(s_join)
{
    fm_jlist *items;
    FM_TRY(fm_j_items(r, a->v[0], &items));
    return fm_j_join(r, self, items, false, out);
}

METHOD(s_isdigit)
{
    (void)a;
    FM_TRY(fm_j_scan(r, self.s.n));
    size_t n = 0;
    while (n < self.s.n && self.s.p[n] >= '0' && self.s.p[n] <= '9') n++;
    *out = fm_j_bool(n > 0 && n == self.s.n);
    return FM_OK;
}

METHOD(s_isspace)
{
    (void)a;
    FM_TRY(fm_j_scan(r, self.s.n));
    *out = fm_j_bool(self.s.n > 0 && fm_j_spaces_before(fm_j_view(self)) == self.s.n);
    return FM_OK;
}

static fm_status is_cased(fm_jrender *r, fm_jval self, fm_jcase as, fm_jval *out)
{
    fm_jval same, upper, lower;
    FM_TRY(fm_j_recase(r, self, FM_J_UPPER, &upper));
    FM_TRY(fm_j_recase(r, self, FM_J_LOWER, &lower));
    same = as == FM_J_UPPER ? upper : lower;
    *out = fm_j_bool(fm_view_eq(fm_j_view(same), fm_j_view(self)) && !fm_view_eq(fm_j_view(upper), fm_j_view(lower)));
    return FM_OK;
}

METHOD(s_isupper)
{
    (void)a;
    return is_cased(r, self, FM_J_UPPER, out);
}
METHOD(s_islower)
{
    (void)a;
    return is_cased(r, self, FM_J_LOWER, out);
}

const fm_jbuiltin *fm_j_string_method(fm_view name)
{
    static const fm_jbuiltin table[] = {{"upper", "", 0, s_upper},
                                        {"lower", "", 0, s_lower},
                                        {"title", "", 0, s_title},
                                        {"capitalize", "", 0, s_capitalize},
                                        {"strip", "chars", 0, s_strip},
                                        {"lstrip", "chars", 0, s_lstrip},
                                        {"rstrip", "chars", 0, s_rstrip},
                                        {"replace", "old new count", 2, s_replace},
                                        {"startswith", "prefix", 1, s_startswith},
                                        {"endswith", "suffix", 1, s_endswith},
                                        {"removeprefix", "prefix", 1, s_removeprefix},
                                        {"removesuffix", "suffix", 1, s_removesuffix},
                                        {"split", "sep maxsplit", 0, s_split},
                                        {"rsplit", "sep maxsplit", 0, s_rsplit},
                                        {"splitlines", "keepends", 0, s_splitlines},
                                        {"partition", "sep", 1, s_partition},
                                        {"rpartition", "sep", 1, s_rpartition},
                                        {"find", "sub", 1, s_find},
                                        {"rfind", "sub", 1, s_rfind},
                                        {"index", "sub", 1, s_index},
                                        {"count", "sub", 1, s_count},
                                        {"join", "items", 1, s_join},
                                        {"isdigit", "", 0, s_isdigit},
                                        {"isspace", "", 0, s_isspace},
                                        {"isupper", "", 0, s_isupper},
                                        {"islower", "", 0, s_islower},
                                        {"format", "*", 0, NULL},
                                        {"zfill", "*", 0, NULL},
                                        {"ljust", "*", 0, NULL},
                                        {"rjust", "*", 0, NULL},
                                        {"center", "*", 0, NULL},
                                        {"encode", "*", 0, NULL},
                                        {"swapcase", "*", 0, NULL},
                                        {"isalpha", "*", 0, NULL},
                                        {"isalnum", "*", 0, NULL},
                                        {"casefold", "*", 0, NULL},
                                        {"expandtabs", "*", 0, NULL},
                                        {"translate", "*", 0, NULL},
                                        {"format_map", "*", 0, NULL}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}

/* ---- Lists, dicts, loops ---- */

static fm_status find_item(fm_jrender *r, fm_jval self, fm_jval what, bool all, int64_t *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < self.list->n; i++) {
        bool same;
        FM_TRY(fm_j_equal(r, self.list->v[i], what, &same));
        if (!same) continue;
        *out = all ? ++n : (int64_t)i;
        if (!all) return FM_OK;
    }
    if (!all) return fm_j_fail(r, FM_ERR_FORMAT, "index() does not find the value");
    *out = n;
    return FM_OK;
}

METHOD(l_index)
{
    *out = fm_j_int(0);
    return find_item(r, self, a->v[0], false, &out->i);
}

METHOD(l_count)
{
    *out = fm_j_int(0);
    return find_item(r, self, a->v[0], true, &out->i);
}

const fm_jbuiltin *fm_j_list_method(fm_view name)
{
    static const fm_jbuiltin table[] = {
        {"index", "value", 1, l_index}, {"count", "value", 1, l_count}, {"append", "*", 0, NULL}, {"extend", "*", 0, NULL},
        {"insert", "*", 0, NULL},       {"pop", "*", 0, NULL},          {"remove", "*", 0, NULL}, {"reverse", "*", 0, NULL},
        {"sort", "*", 0, NULL},         {"clear", "*", 0, NULL},        {"copy", "*", 0, NULL}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}

static fm_status dict_view(fm_jrender *r, const fm_jdict *d, bool keys, bool values, fm_jval *out)
{
    fm_jlist *l;
    FM_TRY(fm_j_list(r, FM_J_VIEW, d->n, &l));
    for (size_t i = 0; i < d->n; i++) {
        fm_jval v = keys ? d->keys[i] : d->values[i];
        if (keys && values) FM_TRY(fm_j_pair(r, d->keys[i], d->values[i], &v));
        FM_TRY(fm_j_push(r, l, v));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

METHOD(d_keys)
{
    (void)a;
    return dict_view(r, self.dict, true, false, out);
}
METHOD(d_values)
{
    (void)a;
    return dict_view(r, self.dict, false, true, out);
}
METHOD(d_items)
{
    (void)a;
    return dict_view(r, self.dict, true, true, out);
}

METHOD(d_get)
{
    FM_TRY(fm_j_find(r, self.dict, a->v[0], out));
    if (!fm_j_given(*out)) *out = fm_j_given(a->v[1]) ? a->v[1] : fm_j_none();
    return FM_OK;
}

METHOD(d_copy)
{
    (void)a;
    fm_jdict *d;
    FM_TRY(fm_j_dict(r, &d));
    for (size_t i = 0; i < self.dict->n; i++) FM_TRY(fm_j_put(r, d, self.dict->keys[i], self.dict->values[i]));
    *out = fm_j_dict_value(d);
    return FM_OK;
}

const fm_jbuiltin *fm_j_dict_method(fm_view name)
{
    static const fm_jbuiltin table[] = {
        {"keys", "", 0, d_keys},      {"values", "", 0, d_values}, {"items", "", 0, d_items}, {"get", "key default", 1, d_get},
        {"copy", "", 0, d_copy},      {"pop", "*", 0, NULL},       {"popitem", "*", 0, NULL}, {"update", "*", 0, NULL},
        {"setdefault", "*", 0, NULL}, {"clear", "*", 0, NULL},     {"fromkeys", "*", 0, NULL}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}

METHOD(loop_cycle)
{
    if (a->n == 0 || a->n_kw) return fm_j_fail(r, FM_ERR_FORMAT, "loop.cycle() takes one or more values");
    *out = a->v[self.loop->i % a->n];
    return FM_OK;
}

METHOD(loop_changed)
{
    fm_jlist *now;
    bool same = false;
    FM_TRY(fm_j_list(r, FM_J_TUPLE, a->n, &now));
    for (size_t i = 0; i < a->n; i++) FM_TRY(fm_j_push(r, now, a->v[i]));
    if (fm_j_given(self.loop->last)) FM_TRY(fm_j_equal(r, self.loop->last, fm_j_list_value(now), &same));
    self.loop->last = fm_j_list_value(now);
    *out = fm_j_bool(!same);
    return FM_OK;
}

const fm_jbuiltin *fm_j_loop_method(fm_view name)
{
    static const fm_jbuiltin table[] = {{"cycle", "*", 0, loop_cycle}, {"changed", "*", 0, loop_changed}};
    return fm_j_lookup(table, FM_COUNT(table), name);
}
