/* jinja_exec.c - executes the statements of a template and calls its macros. */
#include <string.h>

#include "text/jinja_internal.h"

/* Executes a body in a scope of its own that sees the current one. */
static fm_status exec_scoped(fm_jrender *r, const fm_jnode *body)
{
    fm_jscope *outer = r->scope;
    FM_TRY(fm_j_push_scope(r, outer, &r->scope));
    FM_TRY(fm_j_exec(r, body));
    r->scope = outer;
    return FM_OK;
}

/* As exec_scoped(), with what it writes as a string. */
static fm_status capture(fm_jrender *r, const fm_jnode *body, fm_jval *out)
{
    fm_jbuf *outer = r->out;
    fm_jbuf b = {.r = r, .limit = FM_JINJA_OUTPUT_MAX};
    r->out = &b;
    FM_TRY(exec_scoped(r, body));
    r->out = outer;
    *out = fm_jbuf_value(&b);
    return FM_OK;
}

static fm_status assign_targets(fm_jrender *r, const fm_jnode *n, fm_jval v)
{
    fm_jlist *items;
    if (!(n->flags & FM_JF_TUPLE)) return fm_j_assign(r, n->names[0], v);
    FM_TRY(fm_j_items(r, v, &items));
    if (items->n != n->n_names) return fm_j_fail(r, FM_ERR_FORMAT, "%zu names cannot take %zu values", n->n_names, items->n);
    for (size_t i = 0; i < items->n; i++) FM_TRY(fm_j_assign(r, n->names[i], items->v[i]));
    return FM_OK;
}

static fm_status exec_assign(fm_jrender *r, const fm_jnode *n, fm_jval v)
{
    if (!(n->flags & FM_JF_ATTRIBUTE)) return assign_targets(r, n, v);
    const fm_jnode name = {.kind = FM_JN_NAME, .at = n->at, .name = n->name};
    fm_jval ns;
    FM_TRY(fm_j_eval(r, &name, &ns));
    if (ns.type != FM_J_NAMESPACE) return fm_j_type_error(r, "only attributes of a namespace can be set", ns);
    return fm_j_put(r, ns.dict, fm_j_string(n->names[0], false), v);
}

static fm_status exec_set(fm_jrender *r, const fm_jnode *n)
{
    fm_jval v;
    if (n->kind == FM_JN_SET) {
        FM_TRY(fm_j_eval(r, n->kids[0], &v));
        return exec_assign(r, n, v);
    }
    const fm_jval outer = r->block;
    FM_TRY(capture(r, n->kids[0], &v));
    r->block = v;
    if (n->kids[1]) FM_TRY(fm_j_eval(r, n->kids[1], &v));
    r->block = outer;
    return exec_assign(r, n, v);
}

static fm_status exec_if(fm_jrender *r, const fm_jnode *n)
{
    for (size_t i = 0; i + 1 < n->n; i += 2) {
        fm_jval cond;
        FM_TRY(fm_j_eval(r, n->kids[i], &cond));
        if (fm_j_truth(cond)) return fm_j_exec(r, n->kids[i + 1]);
    }
    return n->n % 2 ? fm_j_exec(r, n->kids[n->n - 1]) : FM_OK;
}

/* The items for which the loop's condition holds. */
static fm_status filter_items(fm_jrender *r, const fm_jnode *n, fm_jlist *from, fm_jlist **out)
{
    fm_jscope *outer = r->scope;
    FM_TRY(fm_j_list(r, FM_J_PLAIN, 0, out));
    for (size_t i = 0; i < from->n; i++) {
        fm_jval cond;
        FM_TRY(fm_j_push_scope(r, outer, &r->scope));
        FM_TRY(assign_targets(r, n, from->v[i]));
        FM_TRY(fm_j_eval(r, n->kids[3], &cond));
        if (fm_j_truth(cond)) FM_TRY(fm_j_push(r, *out, from->v[i]));
    }
    r->scope = outer;
    return FM_OK;
}

static fm_status exec_loop(fm_jrender *r, const fm_jnode *n, fm_jloop *loop)
{
    fm_jscope *outer = r->scope;
    for (loop->i = 0; loop->i < loop->n; loop->i++) {
        FM_TRY(fm_j_push_scope(r, outer, &r->scope));
        FM_TRY(fm_j_assign(r, FM_VIEW("loop"), (fm_jval){.type = FM_J_LOOP, .loop = loop}));
        FM_TRY(assign_targets(r, n, loop->v[loop->i]));
        FM_TRY(fm_j_exec(r, n->kids[1]));
        const fm_jflow flow = r->flow;
        r->flow = FM_J_GO_ON;
        if (flow == FM_J_BREAK) break;
    }
    r->scope = outer;
    return FM_OK;
}

static fm_status exec_for(fm_jrender *r, const fm_jnode *n)
{
    fm_jval over;
    fm_jlist *items;
    void *room;
    FM_TRY(fm_j_eval(r, n->kids[0], &over));
    FM_TRY(fm_j_items(r, over, &items));
    if (n->kids[3]) FM_TRY(filter_items(r, n, items, &items));
    if (items->n == 0) return n->kids[2] ? exec_scoped(r, n->kids[2]) : FM_OK;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof(fm_jloop)));
    fm_jloop *loop = room;
    *loop = (fm_jloop){.v = items->v, .n = items->n, .depth = 1};
    return exec_loop(r, n, loop);
}

static fm_status exec_with(fm_jrender *r, const fm_jnode *n)
{
    fm_jscope *outer = r->scope, *inner;
    FM_TRY(fm_j_push_scope(r, outer, &inner));
    for (size_t i = 0; i < n->n_names; i++) {
        fm_jval v;
        r->scope = outer;
        FM_TRY(fm_j_eval(r, n->kids[i], &v));
        r->scope = inner;
        FM_TRY(fm_j_assign(r, n->names[i], v));
    }
    r->scope = inner;
    FM_TRY(fm_j_exec(r, n->kids[n->n - 1]));
    r->scope = outer;
    return FM_OK;
}

static fm_status exec_filter(fm_jrender *r, const fm_jnode *n)
{
    const fm_jval outer = r->block;
    fm_jval v;
    FM_TRY(capture(r, n->kids[1], &v));
    r->block = v;
    FM_TRY(fm_j_eval(r, n->kids[0], &v));
    r->block = outer;
    return fm_j_print(r->out, v);
}

/* ---- Macros ---- */

static fm_status make_macro(fm_jrender *r, const fm_jnode *n, fm_jval *out)
{
    void *room;
    FM_TRY(fm_j_alloc(r, &room, 1, sizeof(fm_jmacro)));
    fm_jmacro *m = room;
    *m = (fm_jmacro){.node = n, .scope = r->scope, .name = n->name};
    *out = (fm_jval){.type = FM_J_MACRO, .macro = m};
    return FM_OK;
}

static const fm_jval *named(const fm_jargs *a, fm_view name)
{
    for (size_t i = 0; i < a->n_kw; i++)
        if (fm_view_eq(a->kw[i], name)) return &a->v[a->n + i];
    return NULL;
}

static bool has_name(const fm_jnode *n, fm_view name)
{
    for (size_t i = 0; i < n->n_names; i++)
        if (fm_view_eq(n->names[i], name)) return true;
    return false;
}

/* What was given beyond the parameters: caller, kwargs, varargs, or an error. */
static fm_status bind_extra(fm_jrender *r, const fm_jnode *n, const fm_jargs *a)
{
    fm_jlist *rest;
    fm_jdict *names;
    FM_TRY(fm_j_list(r, FM_J_TUPLE, 0, &rest));
    for (size_t i = n->n_names; i < a->n; i++) FM_TRY(fm_j_push(r, rest, a->v[i]));
    FM_TRY(fm_j_dict(r, &names));
    for (size_t i = 0; i < a->n_kw; i++) {
        if (has_name(n, a->kw[i])) continue;
        if (fm_view_is(a->kw[i], "caller") && (n->flags & FM_JF_CALLER)) {
            FM_TRY(fm_j_assign(r, a->kw[i], a->v[a->n + i]));
            continue;
        }
        FM_TRY(fm_j_put(r, names, fm_j_string(a->kw[i], false), a->v[a->n + i]));
    }
    const int len = n->name.n < 60 ? (int)n->name.n : 60;
    if (rest->n && !(n->flags & FM_JF_VARARGS))
        return fm_j_fail(r, FM_ERR_FORMAT, "macro '%.*s' takes at most %zu arguments, found %zu", len, n->name.p, n->n_names,
                         a->n);
    if (names->n && !(n->flags & FM_JF_KWARGS))
        return fm_j_fail(r, FM_ERR_FORMAT, "macro '%.*s' has no parameter '%.*s'", len, n->name.p,
                         (int)(names->keys[0].s.n < 60 ? names->keys[0].s.n : 60), names->keys[0].s.p);
    if (n->flags & FM_JF_VARARGS) FM_TRY(fm_j_assign(r, FM_VIEW("varargs"), fm_j_list_value(rest)));
    if (n->flags & FM_JF_KWARGS) FM_TRY(fm_j_assign(r, FM_VIEW("kwargs"), fm_j_dict_value(names)));
    return FM_OK;
}

static fm_status bind_parameters(fm_jrender *r, const fm_jnode *n, const fm_jargs *a)
{
    const size_t n_defaults = n->n - 1;
    for (size_t i = 0; i < n->n_names; i++) {
        const fm_jval *given = named(a, n->names[i]);
        fm_jval v = fm_j_undefined(FM_J_NO_NAME, n->names[i]);
        if (given && i < a->n) return fm_j_fail(r, FM_ERR_FORMAT, "argument %zu is given by position and by name", i + 1);
        if (given || i < a->n)
            v = given ? *given : a->v[i];
        else if (i + n_defaults >= n->n_names)
            FM_TRY(fm_j_eval(r, n->kids[1 + i + n_defaults - n->n_names], &v));
        FM_TRY(fm_j_assign(r, n->names[i], v));
    }
    if ((n->flags & FM_JF_CALLER) && !has_name(n, FM_VIEW("caller")) && !named(a, FM_VIEW("caller")))
        FM_TRY(fm_j_assign(r, FM_VIEW("caller"), fm_j_undefined(FM_J_NO_NAME, FM_VIEW("caller"))));
    return bind_extra(r, n, a);
}

fm_status fm_j_call_macro(fm_jrender *r, const fm_jmacro *m, const fm_jargs *a, fm_jval *out)
{
    fm_jscope *outer = r->scope;
    if (r->calls >= FM_JINJA_DEPTH_MAX)
        return fm_j_fail(r, FM_ERR_LIMIT, "macros call each other deeper than %d", FM_JINJA_DEPTH_MAX);
    r->calls++;
    FM_TRY(fm_j_push_scope(r, m->scope, &r->scope));
    FM_TRY(bind_parameters(r, m->node, a));
    FM_TRY(capture(r, m->node->kids[0], out));
    r->scope = outer;
    r->calls--;
    return FM_OK;
}

/* The call's arguments and the block as caller. */
static fm_status exec_call(fm_jrender *r, const fm_jnode *n)
{
    const fm_jnode *call = n->kids[0];
    fm_jval callee, room[FM_J_SLOTS], out;
    fm_jargs a;
    void *v, *names;
    FM_TRY(fm_j_eval(r, call->kids[0], &callee));
    FM_TRY(fm_j_arguments(r, call, 1, room, &a));
    const size_t count = a.n + a.n_kw;
    FM_TRY(fm_j_alloc(r, &v, count + 1, sizeof(fm_jval)));
    FM_TRY(fm_j_alloc(r, &names, a.n_kw + 1, sizeof(fm_view)));
    if (count) memcpy(v, a.v, count * sizeof(fm_jval));
    if (a.n_kw) memcpy(names, a.kw, a.n_kw * sizeof(fm_view));
    FM_TRY(make_macro(r, n->kids[1], (fm_jval *)v + count));
    ((fm_view *)names)[a.n_kw] = FM_VIEW("caller");
    r->at = call->at;
    FM_TRY(fm_j_call(r, callee, &(fm_jargs){.v = v, .kw = names, .n = a.n, .n_kw = a.n_kw + 1}, &out));
    return fm_j_print(r->out, out);
}

/* ---- All statements ---- */

static fm_status exec_body(fm_jrender *r, const fm_jnode *n)
{
    for (size_t i = 0; i < n->n && r->flow == FM_J_GO_ON; i++) FM_TRY(fm_j_exec(r, n->kids[i]));
    return FM_OK;
}

static fm_status exec_node(fm_jrender *r, const fm_jnode *n)
{
    fm_jval v;
    switch ((fm_jkind)n->kind) {
    case FM_JN_TEXT: return fm_jbuf_add(r->out, n->value);
    case FM_JN_OUTPUT: FM_TRY(fm_j_eval(r, n->kids[0], &v)); return fm_j_print(r->out, v);
    case FM_JN_BODY: return exec_body(r, n);
    case FM_JN_IF: return exec_if(r, n);
    case FM_JN_FOR: return exec_for(r, n);
    case FM_JN_SET:
    case FM_JN_SET_BLOCK: return exec_set(r, n);
    case FM_JN_MACRO: FM_TRY(make_macro(r, n, &v)); return fm_j_assign(r, n->name, v);
    case FM_JN_CALL_BLOCK: return exec_call(r, n);
    case FM_JN_FILTER_BLOCK: return exec_filter(r, n);
    case FM_JN_WITH: return exec_with(r, n);
    case FM_JN_BREAK: r->flow = FM_J_BREAK; break;
    default: r->flow = FM_J_CONTINUE; break;
    }
    return FM_OK;
}

fm_status fm_j_exec(fm_jrender *r, const fm_jnode *n)
{
    r->at = n->at;
    FM_TRY(fm_j_step(r, 1));
    FM_TRY(fm_j_enter(r));
    FM_TRY(exec_node(r, n));
    fm_j_leave(r);
    return FM_OK;
}
