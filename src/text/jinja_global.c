/* jinja_global.c - functions a template can call by name: range, namespace, dict, raise_exception, strftime_now. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "text/jinja_internal.h"

#define GLOBAL(name) static fm_status name(fm_jrender *r, fm_jval self, const fm_jargs *a, fm_jval *out)

const fm_jbuiltin *fm_j_lookup(const fm_jbuiltin *table, size_t n, fm_view name)
{
    for (size_t i = 0; i < n; i++)
        if (fm_view_is(name, table[i].name)) return &table[i];
    return NULL;
}

/* How many numbers there are from start to stop, UINT64_MAX-safe. */
static uint64_t range_length(int64_t start, int64_t stop, int64_t step)
{
    if (step > 0 ? start >= stop : start <= stop) return 0;
    const uint64_t span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    const uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    return (span - 1) / by + 1;
}

GLOBAL(g_range)
{
    (void)self;
    int64_t part[3] = {0, 0, 1};
    fm_jlist *l;
    for (size_t i = 0; i < 3 && fm_j_given(a->v[i]); i++) {
        if (a->v[i].type == FM_J_UNDEFINED) return fm_j_undefined_error(r, a->v[i]);
        if (!fm_j_integer(a->v[i], &part[i])) return fm_j_type_error(r, "range() takes whole numbers", a->v[i]);
    }
    if (!fm_j_given(a->v[1])) {
        part[1] = part[0];
        part[0] = 0;
    }
    if (part[2] == 0) return fm_j_fail(r, FM_ERR_FORMAT, "the step of range() cannot be 0");
    const uint64_t n = range_length(part[0], part[1], part[2]);
    if (n > FM_J_RANGE_MAX) return fm_j_fail(r, FM_ERR_LIMIT, "range() gives at most %d numbers", FM_J_RANGE_MAX);
    FM_TRY(fm_j_list(r, FM_J_RANGE, (size_t)n, &l));
    l->start = part[0];
    l->stop = part[1];
    l->step = part[2];
    int64_t value = part[0];
    for (uint64_t i = 0; i < n; i++) {
        FM_TRY(fm_j_push(r, l, fm_j_int(value)));
        if (__builtin_add_overflow(value, part[2], &value)) break;
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

static fm_status add_pair(fm_jrender *r, fm_jdict *d, fm_jval pair)
{
    fm_jlist *two;
    FM_TRY(fm_j_items(r, pair, &two));
    if (two->n != 2) return fm_j_fail(r, FM_ERR_FORMAT, "dict() takes pairs of key and value");
    return fm_j_put(r, d, two->v[0], two->v[1]);
}

/* dict(), namespace(): perhaps a dict or a list of pairs, then name=value. */
static fm_status make_dict(fm_jrender *r, const fm_jargs *a, fm_jval *out)
{
    fm_jdict *d;
    FM_TRY(fm_j_dict(r, &d));
    if (a->n > 1) return fm_j_fail(r, FM_ERR_FORMAT, "dict() and namespace() take one dict, and name=value");
    if (a->n == 1 && a->v[0].type == FM_J_DICT) {
        for (size_t i = 0; i < a->v[0].dict->n; i++) FM_TRY(fm_j_put(r, d, a->v[0].dict->keys[i], a->v[0].dict->values[i]));
    } else if (a->n == 1) {
        fm_jlist *pairs;
        FM_TRY(fm_j_items(r, a->v[0], &pairs));
        for (size_t i = 0; i < pairs->n; i++) FM_TRY(add_pair(r, d, pairs->v[i]));
    }
    for (size_t i = 0; i < a->n_kw; i++) FM_TRY(fm_j_put(r, d, fm_j_string(a->kw[i], false), a->v[a->n + i]));
    *out = fm_j_dict_value(d);
    return FM_OK;
}

GLOBAL(g_dict)
{
    (void)self;
    return make_dict(r, a, out);
}

GLOBAL(g_namespace)
{
    (void)self;
    FM_TRY(make_dict(r, a, out));
    out->type = FM_J_NAMESPACE;
    return FM_OK;
}

GLOBAL(g_raise)
{
    (void)self, (void)out;
    fm_jval text;
    FM_TRY(fm_j_str(r, a->v[0], &text));
    return fm_j_fail(r, FM_ERR_FORMAT, "the template refuses: %.*s", (int)(text.s.n < 300 ? text.s.n : 300),
                     text.s.p ? text.s.p : "");
}

GLOBAL(g_strftime)
{
    (void)self;
    char format[128], text[512];
    struct tm now;
    void *room;
    const time_t seconds = time(NULL);
    const fm_jval f = a->v[0];
    if (f.type != FM_J_STRING || f.s.n >= sizeof format || memchr(f.s.p, 0, f.s.n))
        return fm_j_fail(r, FM_ERR_FORMAT, "strftime_now() takes a format of at most %zu bytes", sizeof format - 1);
    memcpy(format, f.s.p, f.s.n);
    format[f.s.n] = 0;
    if (!localtime_r(&seconds, &now)) return fm_j_fail(r, FM_ERR_FORMAT, "the clock has no date");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    const size_t n = strftime(text, sizeof text, format, &now); /* any format is safe: it reads nothing but `now` */
#pragma GCC diagnostic pop
    FM_TRY(fm_j_alloc(r, &room, n, 1));
    memcpy(room, text, n);
    *out = fm_j_string((fm_view){room, n}, fm_j_any_taint(f));
    return FM_OK;
}

bool fm_j_global(fm_jrender *r, fm_view name, fm_status *status, fm_jval *out)
{
    static const fm_jbuiltin table[] = {{"range", "start stop step", 1, g_range},
                                        {"namespace", "*", 0, g_namespace},
                                        {"dict", "*", 0, g_dict},
                                        {"raise_exception", "message", 1, g_raise},
                                        {"strftime_now", "format", 1, g_strftime},
                                        {"cycler", "*", 0, NULL},
                                        {"joiner", "*", 0, NULL},
                                        {"lipsum", "*", 0, NULL}};
    const fm_jbuiltin *b = fm_j_lookup(table, FM_COUNT(table), name);
    void *room;
    if (!b) return false;
    *status = fm_j_alloc(r, &room, 1, sizeof(fm_jfunc));
    if (*status != FM_OK) return true;
    fm_jfunc *f = room;
    *f = (fm_jfunc){.builtin = b, .kind = ""};
    *out = (fm_jval){.type = FM_J_FUNC, .func = f};
    return true;
}
