/* jinja_eval.c - evaluates the expressions of a template. */
#include <string.h>

#include "text/jinja_internal.h"

/* ---- Names ---- */

static fm_jvar *find_var(const fm_jscope *scope, fm_view name)
{
    for (size_t i = 0; i < scope->n; i++)
        if (fm_view_eq(scope->v[i].name, name)) return &scope->v[i];
    return NULL;
}

static fm_status eval_name(fm_jrender *r, fm_view name, fm_jval *out)
{
    for (const fm_jscope *s = r->scope; s; s = s->parent) {
        const fm_jvar *var = find_var(s, name);
        FM_TRY(fm_j_scan(r, 8 * s->n));
        if (!var) continue;
        *out = var->value;
        return FM_OK;
    }
    FM_TRY(fm_j_find(r, r->variables, fm_j_string(name, false), out));
    if (fm_j_given(*out)) return FM_OK;
    fm_status status = FM_OK;
    if (!fm_j_global(r, name, &status, out)) *out = fm_j_undefined(FM_J_NO_NAME, name);
    return status;
}

fm_status fm_j_assign(fm_jrender *r, fm_view name, fm_jval v)
{
    fm_jscope *s = r->scope;
    fm_jvar *var = find_var(s, name);
    if (var) {
        var->value = v;
        return FM_OK;
    }
    if (s->n == s->cap) {
        void *room;
        const size_t cap = s->cap ? 2 * s->cap : 4;
        FM_TRY(fm_j_alloc(r, &room, cap, sizeof *s->v));
        if (s->n) memcpy(room, s->v, s->n * sizeof *s->v);
        s->v = room;
        s->cap = cap;
    }
    s->v[s->n++] = (fm_jvar){name, v};
    return FM_OK;
}

fm_status fm_j_push_scope(fm_jrender *r, fm_jscope *parent, fm_jscope **out)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof **out));
    *out = room;
    (*out)->parent = parent;
    return FM_OK;
}

/* ---- Attributes and items ---- */

static fm_status bind(fm_jrender *r, const fm_jbuiltin *b, const char *kind, fm_jval self, fm_jval *out)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof(fm_jfunc)));
    fm_jfunc *f = room;
    *f = (fm_jfunc){b, kind, self};
    *out = (fm_jval){.type = FM_J_FUNC, .func = f};
    return FM_OK;
}

static fm_jval loop_item(const fm_jloop *l, size_t i, const char *name)
{
    return i < l->n ? l->v[i] : fm_j_undefined(FM_J_NO_ATTRIBUTE, fm_view_of(name));
}

static bool loop_attribute(const fm_jloop *l, fm_view name, fm_jval *out)
{
    const int64_t i = (int64_t)l->i, n = (int64_t)l->n;
    if (fm_view_is(name, "index"))
        *out = fm_j_int(i + 1);
    else if (fm_view_is(name, "index0"))
        *out = fm_j_int(i);
    else if (fm_view_is(name, "revindex"))
        *out = fm_j_int(n - i);
    else if (fm_view_is(name, "revindex0"))
        *out = fm_j_int(n - i - 1);
    else if (fm_view_is(name, "first"))
        *out = fm_j_bool(i == 0);
    else if (fm_view_is(name, "last"))
        *out = fm_j_bool(i + 1 == n);
    else if (fm_view_is(name, "length"))
        *out = fm_j_int(n);
    else if (fm_view_is(name, "depth"))
        *out = fm_j_int(l->depth);
    else if (fm_view_is(name, "depth0"))
        *out = fm_j_int((int64_t)l->depth - 1);
    else if (fm_view_is(name, "previtem"))
        *out = loop_item(l, l->i - 1, "previtem");
    else if (fm_view_is(name, "nextitem"))
        *out = loop_item(l, l->i + 1, "nextitem");
    else
        return false;
    return true;
}

static const fm_jbuiltin *method(fm_jval v, fm_view name, const char **kind)
{
    switch ((fm_jtype)v.type) {
    case FM_J_STRING: *kind = "str."; return fm_j_string_method(name);
    case FM_J_LIST: *kind = "list."; return fm_j_list_method(name);
    case FM_J_DICT: *kind = "dict."; return fm_j_dict_method(name);
    case FM_J_LOOP: *kind = "loop."; return fm_j_loop_method(name);
    default: return NULL;
    }
}

/* The attribute as Python's getattr() finds it, FM_J_ABSENT when there is none. */
static fm_status python_attribute(fm_jrender *r, fm_jval v, fm_view name, fm_jval *out)
{
    const char *kind = "";
    *out = (fm_jval){0};
    if (v.type == FM_J_NAMESPACE) return fm_j_find(r, v.dict, fm_j_string(name, false), out);
    if (v.type == FM_J_LOOP && loop_attribute(v.loop, name, out)) return FM_OK;
    if (v.type == FM_J_MACRO && fm_view_is(name, "name")) {
        *out = fm_j_string(v.macro->name, false);
        return FM_OK;
    }
    const fm_jbuiltin *b = method(v, name, &kind);
    return b ? bind(r, b, kind, v, out) : FM_OK;
}

fm_status fm_j_attribute(fm_jrender *r, fm_jval v, fm_view name, fm_jval *out)
{
    if (v.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, v);
    FM_TRY(python_attribute(r, v, name, out));
    if (!fm_j_given(*out) && v.type == FM_J_DICT) FM_TRY(fm_j_find(r, v.dict, fm_j_string(name, false), out));
    if (!fm_j_given(*out)) *out = fm_j_undefined(FM_J_NO_ATTRIBUTE, name);
    return FM_OK;
}

fm_status fm_j_item(fm_jrender *r, fm_jval v, fm_jval key, fm_jval *out)
{
    int64_t i;
    *out = (fm_jval){0};
    if (v.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, v);
    if (v.type == FM_J_DICT) {
        FM_TRY(fm_j_find(r, v.dict, key, out));
    } else if (fm_j_integer(key, &i) && v.type == FM_J_LIST && v.list->form <= FM_J_RANGE) {
        const int64_t n = (int64_t)v.list->n;
        if (i < 0) i += n;
        if (i >= 0 && i < n) *out = v.list->v[i];
    } else if (fm_j_integer(key, &i) && v.type == FM_J_STRING) {
        const fm_view s = fm_j_view(v);
        FM_TRY(fm_j_scan(r, s.n));
        if (i < 0) i += (int64_t)fm_j_points(s);
        const size_t at = i >= 0 && (uint64_t)i < s.n ? fm_j_point_at(s, (size_t)i) : s.n;
        if (at < s.n) *out = fm_j_cut(v, at, fm_j_point_at((fm_view){s.p + at, s.n - at}, 1));
    }
    if (!fm_j_given(*out) && key.type == FM_J_STRING) FM_TRY(python_attribute(r, v, fm_j_view(key), out));
    if (!fm_j_given(*out))
        *out = fm_j_undefined(FM_J_NO_ATTRIBUTE, key.type == FM_J_STRING ? fm_j_view(key) : FM_VIEW("(an index)"));
    return FM_OK;
}

static fm_status eval_item(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval v, part[3], key;
    const fm_jnode *k = n->kids[1];
    FM_TRY(fm_j_eval(r, n->kids[0], &v));
    if (k->kind != FM_JN_SLICE) {
        FM_TRY(fm_j_eval(r, k, &key));
        return fm_j_item(r, v, key, out);
    }
    for (size_t i = 0; i < 3; i++) {
        part[i] = fm_j_none();
        if (k->kids[i]) FM_TRY(fm_j_eval(r, k->kids[i], &part[i]));
    }
    if (v.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, v);
    return fm_j_slice(r, v, part, out);
}

/* ---- Calls ---- */

fm_status fm_j_arguments(fm_jrender *r, const fm_jnode *n, size_t first, fm_jval *room, fm_jargs *out)
{
    const size_t count = n->n - first;
    if (count > FM_J_SLOTS) {
        void *more;
        FM_TRY(fm_j_alloc(r, &more, count, sizeof *room));
        room = more;
    }
    for (size_t i = 0; i < count; i++) FM_TRY(fm_j_eval(r, n->kids[first + i], &room[i]));
    *out = (fm_jargs){.v = room, .kw = n->names, .n = count - n->n_names, .n_kw = n->n_names};
    return FM_OK;
}

/* Place of a name in a list of names separated by blanks, FM_J_SLOTS when it is not there; *count: how many there are. */
static size_t parameter(const char *params, fm_view name, size_t *count)
{
    size_t found = FM_J_SLOTS;
    for (*count = 0; *params; ++*count) {
        const size_t n = strcspn(params, " ");
        if (fm_view_eq((fm_view){params, n}, name)) found = *count;
        params += n;
        while (*params == ' ') params++;
    }
    return found;
}

static fm_status place_arguments(fm_jrender *r, const fm_jbuiltin *b, const char *kind, const fm_jargs *a, fm_jval *slots)
{
    size_t count;
    parameter(b->params, (fm_view){NULL, 0}, &count);
    if (a->n > count)
        return fm_j_fail(r, FM_ERR_FORMAT, "%s%s() takes at most %zu arguments, found %zu", kind, b->name, count, a->n);
    for (size_t i = 0; i < a->n; i++) slots[i] = a->v[i];
    for (size_t i = 0; i < a->n_kw; i++) {
        const size_t at = parameter(b->params, a->kw[i], &count);
        const int n = a->kw[i].n < 40 ? (int)a->kw[i].n : 40;
        if (at == FM_J_SLOTS || fm_j_given(slots[at]))
            return fm_j_fail(r, FM_ERR_FORMAT, "%s%s() has no free parameter '%.*s'; it takes (%s)", kind, b->name, n,
                             a->kw[i].p, b->params);
        slots[at] = a->v[a->n + i];
    }
    for (size_t i = 0; i < b->required; i++)
        if (!fm_j_given(slots[i]))
            return fm_j_fail(r, FM_ERR_FORMAT, "%s%s() needs %zu of its arguments (%s)", kind, b->name, b->required, b->params);
    return FM_OK;
}

fm_status fm_j_builtin(fm_jrender *r, const fm_jbuiltin *b, const char *kind, fm_jval self, const fm_jargs *a, fm_jval *out)
{
    FM_TRY(fm_j_step(r, 1));
    if (!b->fn) return fm_j_fail(r, FM_ERR_UNSUPPORTED, "%s%s() is not supported", kind, b->name);
    if (strcmp(b->params, "*") == 0) return b->fn(r, self, a, out);
    fm_jval slots[FM_J_SLOTS] = {{0}};
    FM_TRY(place_arguments(r, b, kind, a, slots));
    const fm_jargs placed = {.v = slots, .n = FM_J_SLOTS};
    return b->fn(r, self, &placed, out);
}

fm_status fm_j_call(fm_jrender *r, fm_jval callee, const fm_jargs *a, fm_jval *out)
{
    if (callee.type == FM_J_UNDEFINED) return fm_j_undefined_error(r, callee);
    if (callee.type == FM_J_MACRO) return fm_j_call_macro(r, callee.macro, a, out);
    if (callee.type != FM_J_FUNC) return fm_j_type_error(r, "only functions and macros can be called", callee);
    return fm_j_builtin(r, callee.func->builtin, callee.func->kind, callee.func->self, a, out);
}

static fm_status eval_call(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval callee, room[FM_J_SLOTS];
    fm_jargs a;
    FM_TRY(fm_j_eval(r, n->kids[0], &callee));
    FM_TRY(fm_j_arguments(r, n, 1, room, &a));
    r->at = n->at;
    return fm_j_call(r, callee, &a, out);
}

/* Filters and tests; the innermost filter of a block has no value of its own. */
static fm_status eval_filter(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval self = r->block, room[FM_J_SLOTS];
    fm_jargs a;
    if (n->kids[0]) FM_TRY(fm_j_eval(r, n->kids[0], &self));
    FM_TRY(fm_j_arguments(r, n, 1, room, &a));
    r->at = n->at;
    return fm_j_builtin(r, n->fn, "", self, &a, out);
}

/* ---- Operators ---- */

static fm_status eval_list(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jlist *l;
    FM_TRY(fm_j_list(r, n->kind == FM_JN_TUPLE ? FM_J_TUPLE : FM_J_PLAIN, n->n, &l));
    for (size_t i = 0; i < n->n; i++) {
        fm_jval v;
        FM_TRY(fm_j_eval(r, n->kids[i], &v));
        FM_TRY(fm_j_push(r, l, v));
    }
    *out = fm_j_list_value(l);
    return FM_OK;
}

static fm_status eval_dict(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jdict *d;
    FM_TRY(fm_j_dict(r, &d));
    for (size_t i = 0; i < n->n; i += 2) {
        fm_jval key, value;
        FM_TRY(fm_j_eval(r, n->kids[i], &key));
        FM_TRY(fm_j_eval(r, n->kids[i + 1], &value));
        FM_TRY(fm_j_put(r, d, key, value));
    }
    *out = fm_j_dict_value(d);
    return FM_OK;
}

static fm_status eval_cond(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval cond;
    FM_TRY(fm_j_eval(r, n->kids[1], &cond));
    if (fm_j_truth(cond)) return fm_j_eval(r, n->kids[0], out);
    if (n->kids[2]) return fm_j_eval(r, n->kids[2], out);
    *out = fm_j_undefined(FM_J_NO_VALUE, (fm_view){NULL, 0});
    return FM_OK;
}

static fm_status eval_and_or(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    for (size_t i = 0; i < n->n; i++) {
        FM_TRY(fm_j_eval(r, n->kids[i], out));
        if (fm_j_truth(*out) == (n->kind == FM_JN_OR)) break;
    }
    return FM_OK;
}

static fm_status eval_math(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval b;
    FM_TRY(fm_j_eval(r, n->kids[0], out));
    for (size_t i = 1; i < n->n; i++) {
        FM_TRY(fm_j_eval(r, n->kids[i], &b));
        r->at = n->at;
        const fm_jval a = *out;
        FM_TRY(fm_j_math(r, n->ops[i - 1], a, b, out));
    }
    return FM_OK;
}

static fm_status eval_concat(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jbuf b = {.r = r};
    for (size_t i = 0; i < n->n; i++) {
        fm_jval v;
        FM_TRY(fm_j_eval(r, n->kids[i], &v));
        FM_TRY(fm_j_print(&b, v));
    }
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

static fm_status compare(fm_jrender *r, int op, fm_jval a, fm_jval b, bool *out)
{
    int order;
    switch (op) {
    case FM_J_EQ: return fm_j_equal(r, a, b, out);
    case FM_J_NE: FM_TRY(fm_j_equal(r, a, b, out)); break;
    case FM_J_IN: return fm_j_contains(r, b, a, out);
    case FM_J_NOT_IN: FM_TRY(fm_j_contains(r, b, a, out)); break;
    default:
        FM_TRY(fm_j_order(r, a, b, &order));
        *out = (op == '<' && order == -1) || (op == '>' && order == 1) || (op == FM_J_LE && order <= 0) ||
               (op == FM_J_GE && (order == 0 || order == 1));
        return FM_OK;
    }
    *out = !*out;
    return FM_OK;
}

/* a < b < c is a < b and b < c with b evaluated once. */
static fm_status eval_compare(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval a, b;
    bool yes = true;
    FM_TRY(fm_j_eval(r, n->kids[0], &a));
    for (size_t i = 1; yes && i < n->n; i++) {
        FM_TRY(fm_j_eval(r, n->kids[i], &b));
        r->at = n->at;
        FM_TRY(compare(r, n->ops[i - 1], a, b, &yes));
        a = b;
    }
    *out = fm_j_bool(yes);
    return FM_OK;
}

static fm_status eval_unary(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval v;
    FM_TRY(fm_j_eval(r, n->kids[0], &v));
    if (n->kind != FM_JN_NOT) return fm_j_sign(r, n->kind == FM_JN_NEG, v, out);
    *out = fm_j_bool(!fm_j_truth(v));
    return FM_OK;
}

static fm_status eval_node(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    fm_jval v;
    switch ((fm_jkind)n->kind) {
    case FM_JN_CONST: *out = n->value; return FM_OK;
    case FM_JN_NAME: return eval_name(r, n->name, out);
    case FM_JN_LIST:
    case FM_JN_TUPLE: return eval_list(r, n, out);
    case FM_JN_DICT: return eval_dict(r, n, out);
    case FM_JN_COND: return eval_cond(r, n, out);
    case FM_JN_AND:
    case FM_JN_OR: return eval_and_or(r, n, out);
    case FM_JN_NOT:
    case FM_JN_NEG:
    case FM_JN_POS: return eval_unary(r, n, out);
    case FM_JN_MATH: return eval_math(r, n, out);
    case FM_JN_CONCAT: return eval_concat(r, n, out);
    case FM_JN_COMPARE: return eval_compare(r, n, out);
    case FM_JN_ATTR:
        FM_TRY(fm_j_eval(r, n->kids[0], &v));
        r->at = n->at;
        return fm_j_attribute(r, v, n->name, out);
    case FM_JN_ITEM: return eval_item(r, n, out);
    case FM_JN_CALL: return eval_call(r, n, out);
    case FM_JN_FILTER:
    case FM_JN_TEST: return eval_filter(r, n, out);
    default: break;
    }
    return fm_j_fail(r, FM_ERR_FORMAT, "a slice stands only between brackets");
}

fm_status fm_j_eval(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    r->at = n->at;
    FM_TRY(fm_j_step(r, 1));
    FM_TRY(fm_j_enter(r));
    FM_TRY(eval_node(r, n, out));
    fm_j_leave(r);
    return FM_OK;
}
