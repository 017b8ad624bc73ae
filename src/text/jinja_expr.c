/* jinja_expr.c - parses expressions.  Binding from loose to tight, as Jinja 3.1 has it: x if y else z, or, and, not,
 * comparisons and in, + -, ~, * / // %, **, unary + -, then .name [key] (call) | filter and is test. */
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_internal.h"

static fm_status parse_unary(fm_jparser *p, bool with_filter, fm_jnode **out);

fm_status fm_jparse_enter(fm_jparser *p)
{
    if (p->depth >= FM_JINJA_DEPTH_MAX)
        return fm_jparse_fail(p, FM_ERR_LIMIT, fm_jpeek(p)->at, "nested deeper than %d", FM_JINJA_DEPTH_MAX);
    p->depth++;
    return FM_OK;
}

fm_status fm_jparse_node(fm_jparser *p, fm_jkind kind, fm_jnode **out)
{
    void *room;
    FM_TRY(fm_jpool_alloc(&room, &p->t->pool, 1, sizeof **out, p->err));
    *out = room;
    (*out)->kind = (unsigned char)kind;
    (*out)->at = fm_jpeek(p)->at;
    return FM_OK;
}

/* Arrays of nodes grow by doubling: the room of n elements is the power of two not below n. */
static fm_status grow_array(fm_jparser *p, const void *old, size_t n, size_t size, void **out)
{
    FM_TRY(fm_jpool_alloc(out, &p->t->pool, n ? 2 * n : 1, size, p->err));
    if (n) memcpy(*out, old, n * size);
    return FM_OK;
}

static bool full(size_t n)
{
    return (n & (n - 1)) == 0;
}

fm_status fm_jparse_add(fm_jparser *p, fm_jnode *node, fm_jnode *kid)
{
    if (full(node->n)) {
        void *room;
        FM_TRY(grow_array(p, node->kids, node->n, sizeof *node->kids, &room));
        node->kids = room;
    }
    node->kids[node->n++] = kid;
    return FM_OK;
}

fm_status fm_jparse_name(fm_jparser *p, fm_jnode *node, fm_view name)
{
    void *room;
    FM_TRY(fm_jpool_alloc(&room, &p->t->pool, node->n_names + 1, sizeof name, p->err));
    fm_view *names = room;
    if (node->n_names) memcpy(names, node->names, node->n_names * sizeof name);
    names[node->n_names++] = name;
    node->names = names;
    return FM_OK;
}

/* ---- Tokens ---- */

const fm_jtoken *fm_jtake(fm_jparser *p)
{
    const fm_jtoken *t = fm_jpeek(p);
    if (t->type != FM_JT_END) p->i++;
    return t;
}

bool fm_jis_op(const fm_jparser *p, int op)
{
    return fm_jpeek(p)->type == FM_JT_OP && fm_jpeek(p)->op == op;
}

bool fm_jis_word(const fm_jparser *p, const char *word)
{
    return fm_jpeek(p)->type == FM_JT_NAME && fm_view_is(fm_jpeek(p)->text, word);
}

bool fm_jskip_op(fm_jparser *p, int op)
{
    const bool is = fm_jis_op(p, op);
    if (is) fm_jtake(p);
    return is;
}

bool fm_jskip_word(fm_jparser *p, const char *word)
{
    const bool is = fm_jis_word(p, word);
    if (is) fm_jtake(p);
    return is;
}

fm_status fm_junexpected(const fm_jparser *p, const char *expected)
{
    const fm_jtoken *t = fm_jpeek(p);
    if (t->type == FM_JT_END)
        return fm_jparse_fail(p, FM_ERR_FORMAT, t->at, "expected %s, found the end of the template", expected);
    const int n = t->text.n < 40 ? (int)t->text.n : 40;
    return fm_jparse_fail(p, FM_ERR_FORMAT, t->at, "expected %s, found '%.*s'", expected, n, t->text.p);
}

fm_status fm_jexpect_op(fm_jparser *p, int op, const char *where)
{
    return fm_jskip_op(p, op) ? FM_OK : fm_junexpected(p, where);
}

fm_status fm_jexpect(fm_jparser *p, fm_jtok type, const char *what, const fm_jtoken **out)
{
    if (fm_jpeek(p)->type != type) return fm_junexpected(p, what);
    const fm_jtoken *t = fm_jtake(p);
    if (out) *out = t;
    return FM_OK;
}

/* ---- Literals ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \xHH, \uHHHH, \UHHHHHHHH with `n` digits at s; false when they are not all there. */
static bool hex_escape(fm_view s, size_t i, size_t n, uint32_t *cp)
{
    *cp = 0;
    if (n > s.n - i) return false;
    for (size_t k = 0; k < n; k++) {
        const int d = hex_digit(s.p[i + k]);
        if (d < 0) return false;
        *cp = *cp << 4 | (uint32_t)d;
    }
    return *cp <= 0x10FFFF;
}

static size_t octal_escape(fm_view s, size_t i, uint32_t *cp)
{
    size_t n = 0;
    for (*cp = 0; n < 3 && i + n < s.n && s.p[i + n] >= '0' && s.p[i + n] <= '7'; n++)
        *cp = *cp * 8 + (uint32_t)(s.p[i + n] - '0');
    return n;
}

/* One escape at s.p[i], a backslash; writes its text and gives the bytes read, 0 for a broken \x \u \U. */
static size_t unescape(fm_view s, size_t i, char *out, size_t *n_out)
{
    static const char plain[] = "\\'\"abfnrtv", meaning[] = "\\'\"\a\b\f\n\r\t\v";
    const char c = s.p[i + 1];
    uint32_t cp;
    const char *at = c ? strchr(plain, c) : NULL;
    *n_out = 1;
    if (at) return out[0] = meaning[at - plain], 2;
    if (c == '\n') return *n_out = 0, 2;
    const size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (hex && !hex_escape(s, i + 2, hex, &cp)) return 0;
    const size_t used = hex ? hex : octal_escape(s, i + 1, &cp);
    if (used == 0) return out[0] = '\\', 1;
    *n_out = fm_utf8_encode(out, cp);
    return hex ? 2 + hex : 1 + used;
}

static fm_status string_text(fm_jparser *p, const fm_jtoken *t, fm_view *out)
{
    void *room;
    size_t n = 0;
    *out = t->text;
    if (t->text.n == 0 || !memchr(t->text.p, '\\', t->text.n)) return FM_OK;
    FM_TRY(fm_jpool_alloc(&room, &p->t->pool, t->text.n + 4, 1, p->err));
    char *to = room;
    for (size_t i = 0; i < t->text.n;) {
        size_t wrote = 1, used = 1;
        to[n] = t->text.p[i];
        if (to[n] == '\\') used = unescape(t->text, i, to + n, &wrote);
        if (used == 0) return fm_jparse_fail(p, FM_ERR_FORMAT, t->at + (uint32_t)i, "broken escape sequence in a string");
        i += used;
        n += wrote;
    }
    *out = (fm_view){to, n};
    return FM_OK;
}

/* Adjacent strings are one. */
static fm_status parse_string(fm_jparser *p, fm_jnode *node)
{
    fm_view text;
    FM_TRY(string_text(p, fm_jtake(p), &text));
    while (fm_jpeek(p)->type == FM_JT_STRING) {
        fm_view more;
        void *room;
        FM_TRY(string_text(p, fm_jtake(p), &more));
        FM_TRY(fm_jpool_alloc(&room, &p->t->pool, text.n + more.n, 1, p->err));
        if (text.n) memcpy(room, text.p, text.n);
        if (more.n) memcpy((char *)room + text.n, more.p, more.n);
        text = (fm_view){room, text.n + more.n};
    }
    node->value = fm_j_string(text, false);
    return FM_OK;
}

static fm_status parse_number(fm_jparser *p, fm_jnode *node)
{
    const fm_jtoken *t = fm_jtake(p);
    int64_t i;
    double f;
    bool overflow = false;
    if (t->type == FM_JT_INT && fm_j_parse_int(t->text, 0, &i, &overflow))
        node->value = fm_j_int(i);
    else if (t->type == FM_JT_FLOAT && fm_j_parse_float(t->text, &f))
        node->value = fm_j_float(f);
    else
        return fm_jparse_fail(p, overflow ? FM_ERR_UNSUPPORTED : FM_ERR_FORMAT, t->at,
                              overflow ? "a whole number must fit 64 bits" : "not a number");
    return FM_OK;
}

static fm_status parse_name(fm_jparser *p, fm_jnode *node)
{
    const fm_view name = fm_jtake(p)->text;
    const bool yes = fm_view_is(name, "true") || fm_view_is(name, "True");
    if (fm_view_is(name, "caller")) p->used |= FM_JF_CALLER;
    if (fm_view_is(name, "varargs")) p->used |= FM_JF_VARARGS;
    if (fm_view_is(name, "kwargs")) p->used |= FM_JF_KWARGS;
    if (yes || fm_view_is(name, "false") || fm_view_is(name, "False"))
        node->value = fm_j_bool(yes);
    else if (fm_view_is(name, "none") || fm_view_is(name, "None"))
        node->value = fm_j_none();
    else
        node->kind = FM_JN_NAME;
    node->name = name;
    return FM_OK;
}

static fm_status parse_list(fm_jparser *p, fm_jnode *node)
{
    fm_jtake(p);
    node->kind = FM_JN_LIST;
    while (!fm_jis_op(p, ']')) {
        fm_jnode *kid;
        if (node->n) FM_TRY(fm_jexpect_op(p, ',', "',' or ']' in a list"));
        if (fm_jis_op(p, ']')) break;
        FM_TRY(fm_jparse_expression(p, true, &kid));
        FM_TRY(fm_jparse_add(p, node, kid));
    }
    fm_jtake(p);
    return FM_OK;
}

static fm_status parse_dict(fm_jparser *p, fm_jnode *node)
{
    fm_jtake(p);
    node->kind = FM_JN_DICT;
    while (!fm_jis_op(p, '}')) {
        fm_jnode *key, *value;
        if (node->n) FM_TRY(fm_jexpect_op(p, ',', "',' or '}' in a dict"));
        if (fm_jis_op(p, '}')) break;
        FM_TRY(fm_jparse_expression(p, true, &key));
        FM_TRY(fm_jexpect_op(p, ':', "':' after a dict's key"));
        FM_TRY(fm_jparse_expression(p, true, &value));
        FM_TRY(fm_jparse_add(p, node, key));
        FM_TRY(fm_jparse_add(p, node, value));
    }
    fm_jtake(p);
    return FM_OK;
}

fm_status fm_jparse_primary(fm_jparser *p, fm_jnode **out)
{
    const fm_jtoken *t = fm_jpeek(p);
    FM_TRY(fm_jparse_node(p, FM_JN_CONST, out));
    switch (t->type) {
    case FM_JT_NAME: return parse_name(p, *out);
    case FM_JT_STRING: return parse_string(p, *out);
    case FM_JT_INT:
    case FM_JT_FLOAT: return parse_number(p, *out);
    default: break;
    }
    if (fm_jis_op(p, '[')) return parse_list(p, *out);
    if (fm_jis_op(p, '{')) return parse_dict(p, *out);
    if (!fm_jskip_op(p, '(')) return fm_junexpected(p, "an expression");
    FM_TRY(fm_jparse_tuple(p, true, true, out));
    return fm_jexpect_op(p, ')', "')'");
}

static bool tuple_ends(const fm_jparser *p)
{
    const unsigned type = fm_jpeek(p)->type;
    return type == FM_JT_VAR_END || type == FM_JT_BLOCK_END || type == FM_JT_END || fm_jis_op(p, ')') || fm_jis_word(p, "in");
}

fm_status fm_jparse_tuple(fm_jparser *p, bool with_cond, bool parentheses, fm_jnode **out)
{
    fm_jnode *tuple, *kid = NULL;
    bool comma = false;
    FM_TRY(fm_jparse_node(p, FM_JN_TUPLE, &tuple));
    do {
        if (tuple_ends(p)) break;
        FM_TRY(fm_jparse_expression(p, with_cond, &kid));
        FM_TRY(fm_jparse_add(p, tuple, kid));
        comma = fm_jskip_op(p, ',') || (comma && tuple->n > 1);
    } while (p->tokens[p->i - 1].op == ',' && p->tokens[p->i - 1].type == FM_JT_OP);
    if (tuple->n == 0 && !parentheses) return fm_junexpected(p, "an expression");
    *out = tuple->n == 1 && !comma ? kid : tuple;
    return FM_OK;
}

/* ---- Postfix: attributes, items, calls, filters, tests ---- */

static fm_status parse_call_args(fm_jparser *p, fm_jnode *node)
{
    fm_jtake(p);
    for (bool first = true; !fm_jis_op(p, ')'); first = false) {
        fm_jnode *kid;
        if (!first) FM_TRY(fm_jexpect_op(p, ',', "',' or ')' in a call"));
        if (fm_jis_op(p, ')')) break;
        if (fm_jis_op(p, '*') || fm_jis_op(p, FM_J_POW))
            return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, fm_jpeek(p)->at, "* and ** in a call are not supported");
        const fm_jtoken *next = &p->tokens[p->i + 1];
        if (fm_jpeek(p)->type == FM_JT_NAME && next->type == FM_JT_OP && next->op == '=') {
            FM_TRY(fm_jparse_name(p, node, fm_jtake(p)->text));
            fm_jtake(p);
        } else if (node->n_names) {
            return fm_junexpected(p, "only name=value after a named argument");
        }
        FM_TRY(fm_jparse_expression(p, true, &kid));
        FM_TRY(fm_jparse_add(p, node, kid));
    }
    fm_jtake(p);
    return FM_OK;
}

static fm_status wrap(fm_jparser *p, fm_jkind kind, fm_jnode **node)
{
    fm_jnode *outer;
    FM_TRY(fm_jparse_node(p, kind, &outer));
    FM_TRY(fm_jparse_add(p, outer, *node));
    *node = outer;
    return FM_OK;
}

static fm_status parse_slice_part(fm_jparser *p, fm_jnode *slice)
{
    fm_jnode *part = NULL;
    if (!fm_jis_op(p, ':') && !fm_jis_op(p, ']')) FM_TRY(fm_jparse_expression(p, true, &part));
    return fm_jparse_add(p, slice, part);
}

static fm_status parse_key(fm_jparser *p, fm_jnode **out)
{
    fm_jnode *slice, *first = NULL;
    FM_TRY(fm_jparse_node(p, FM_JN_SLICE, &slice));
    if (!fm_jis_op(p, ':')) FM_TRY(fm_jparse_expression(p, true, &first));
    *out = first;
    if (!fm_jskip_op(p, ':')) return FM_OK;
    FM_TRY(fm_jparse_add(p, slice, first));
    FM_TRY(parse_slice_part(p, slice));
    if (fm_jskip_op(p, ':'))
        FM_TRY(parse_slice_part(p, slice));
    else
        FM_TRY(fm_jparse_add(p, slice, NULL));
    *out = slice;
    return FM_OK;
}

static fm_status parse_item(fm_jparser *p, fm_jnode **node)
{
    fm_jnode *key;
    FM_TRY(wrap(p, FM_JN_ITEM, node));
    fm_jtake(p);
    FM_TRY(parse_key(p, &key));
    if (fm_jis_op(p, ','))
        return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, fm_jpeek(p)->at, "an index of several values is not supported");
    FM_TRY(fm_jexpect_op(p, ']', "']'"));
    return fm_jparse_add(p, *node, key);
}

static fm_status parse_dot(fm_jparser *p, fm_jnode **node)
{
    FM_TRY(wrap(p, FM_JN_ATTR, node));
    fm_jtake(p);
    if (fm_jpeek(p)->type == FM_JT_INT) {
        fm_jnode *key;
        (*node)->kind = FM_JN_ITEM;
        FM_TRY(fm_jparse_primary(p, &key));
        return fm_jparse_add(p, *node, key);
    }
    const fm_jtoken *name = NULL;
    FM_TRY(fm_jexpect(p, FM_JT_NAME, "a name after '.'", &name));
    (*node)->name = name->text;
    return FM_OK;
}

static fm_status parse_postfix(fm_jparser *p, fm_jnode **node)
{
    for (;;) {
        if (fm_jis_op(p, '.')) {
            FM_TRY(parse_dot(p, node));
        } else if (fm_jis_op(p, '[')) {
            FM_TRY(parse_item(p, node));
        } else if (fm_jis_op(p, '(')) {
            FM_TRY(wrap(p, FM_JN_CALL, node));
            FM_TRY(parse_call_args(p, *node));
        } else {
            return FM_OK;
        }
    }
}

/* The row of a filter or test; a name that Jinja knows and this subset does not is another error than a misspelt one. */
static fm_status resolve(fm_jparser *p, fm_jnode *node, const fm_jtoken *name, const char *kind)
{
    node->name = name->text;
    node->fn = node->kind == FM_JN_TEST ? fm_j_test(name->text) : fm_j_filter(name->text);
    if (!node->fn) node->fn = node->kind == FM_JN_FILTER ? fm_j_seq_filter(name->text) : NULL;
    const int n = name->text.n < 60 ? (int)name->text.n : 60;
    if (!node->fn) return fm_jparse_fail(p, FM_ERR_FORMAT, name->at, "no %s named '%.*s'", kind, n, name->text.p);
    if (!node->fn->fn)
        return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, name->at, "the %s '%.*s' is not supported", kind, n, name->text.p);
    return FM_OK;
}

fm_status fm_jparse_filters(fm_jparser *p, fm_jnode **node, bool started)
{
    while (started || fm_jskip_op(p, '|')) {
        const fm_jtoken *name = NULL;
        started = false;
        FM_TRY(wrap(p, FM_JN_FILTER, node));
        FM_TRY(fm_jexpect(p, FM_JT_NAME, "a filter's name", &name));
        FM_TRY(resolve(p, *node, name, "filter"));
        if (fm_jis_op(p, '(')) FM_TRY(parse_call_args(p, *node));
    }
    return FM_OK;
}

static bool test_argument_follows(const fm_jparser *p)
{
    const fm_jtoken *t = fm_jpeek(p);
    if (t->type == FM_JT_STRING || t->type == FM_JT_INT || t->type == FM_JT_FLOAT) return true;
    if (t->type == FM_JT_OP) return t->op == '[' || t->op == '{';
    return t->type == FM_JT_NAME && !fm_jis_word(p, "else") && !fm_jis_word(p, "or") && !fm_jis_word(p, "and");
}

static fm_status parse_test(fm_jparser *p, fm_jnode **node)
{
    const fm_jtoken *name = NULL;
    fm_jtake(p);
    const bool negated = fm_jskip_word(p, "not");
    FM_TRY(wrap(p, FM_JN_TEST, node));
    fm_jnode *test = *node;
    FM_TRY(fm_jexpect(p, FM_JT_NAME, "a test's name", &name));
    FM_TRY(resolve(p, test, name, "test"));
    if (fm_jis_op(p, '(')) {
        FM_TRY(parse_call_args(p, test));
    } else if (test_argument_follows(p)) {
        fm_jnode *argument;
        if (fm_jis_word(p, "is")) return fm_junexpected(p, "no second test: write \"and x is ...\"");
        FM_TRY(fm_jparse_primary(p, &argument));
        FM_TRY(parse_postfix(p, &argument));
        FM_TRY(fm_jparse_add(p, test, argument));
    }
    return negated ? wrap(p, FM_JN_NOT, node) : FM_OK;
}

static fm_status parse_filter_expr(fm_jparser *p, fm_jnode **node)
{
    for (;;) {
        if (fm_jis_op(p, '|')) {
            FM_TRY(fm_jparse_filters(p, node, false));
        } else if (fm_jis_word(p, "is")) {
            FM_TRY(parse_test(p, node));
        } else if (fm_jis_op(p, '(')) {
            FM_TRY(wrap(p, FM_JN_CALL, node));
            FM_TRY(parse_call_args(p, *node));
        } else {
            return FM_OK;
        }
    }
}

/* ---- Operators ---- */

static fm_status parse_sign(fm_jparser *p, fm_jnode **out)
{
    fm_jnode *kid;
    FM_TRY(fm_jparse_node(p, fm_jis_op(p, '-') ? FM_JN_NEG : FM_JN_POS, out));
    fm_jtake(p);
    FM_TRY(parse_unary(p, false, &kid));
    return fm_jparse_add(p, *out, kid);
}

static fm_status parse_unary(fm_jparser *p, bool with_filter, fm_jnode **out)
{
    FM_TRY(fm_jparse_enter(p));
    if (fm_jis_op(p, '-') || fm_jis_op(p, '+'))
        FM_TRY(parse_sign(p, out));
    else
        FM_TRY(fm_jparse_primary(p, out));
    FM_TRY(parse_postfix(p, out));
    if (with_filter) FM_TRY(parse_filter_expr(p, out));
    p->depth--;
    return FM_OK;
}

typedef fm_status (*parse_fn)(fm_jparser *p, fm_jnode **out);

static int binary_op(const fm_jparser *p, const char *ops)
{
    const fm_jtoken *t = fm_jpeek(p);
    return t->type == FM_JT_OP && strchr(ops, t->op) ? t->op : 0;
}

static fm_status add_op(fm_jparser *p, fm_jnode *node, int op)
{
    unsigned char *ops = NULL;
    void *room;
    if (full(node->n - 1)) {
        FM_TRY(grow_array(p, node->ops, node->n - 1, 1, &room));
        node->ops = room;
    }
    room = NULL;
    memcpy(&ops, &node->ops, sizeof ops);
    ops[node->n - 1] = (unsigned char)op;
    return FM_OK;
}

/* next (op next)*, evaluated from the left; the node has n kids and n - 1 ops. */
static fm_status parse_chain(fm_jparser *p, fm_jkind kind, const char *ops, parse_fn next, fm_jnode **out)
{
    fm_jnode *chain = NULL, *kid;
    int op;
    FM_TRY(next(p, out));
    while ((op = binary_op(p, ops)) != 0) {
        if (!chain) {
            FM_TRY(wrap(p, kind, out));
            chain = *out;
        }
        FM_TRY(add_op(p, chain, op));
        fm_jtake(p);
        FM_TRY(next(p, &kid));
        FM_TRY(fm_jparse_add(p, chain, kid));
    }
    return FM_OK;
}

static fm_status parse_factor(fm_jparser *p, fm_jnode **out)
{
    return parse_unary(p, true, out);
}
static fm_status parse_pow(fm_jparser *p, fm_jnode **out)
{
    return parse_chain(p, FM_JN_MATH, "P", parse_factor, out);
}
static fm_status parse_product(fm_jparser *p, fm_jnode **out)
{
    return parse_chain(p, FM_JN_MATH, "*/F%", parse_pow, out);
}
static fm_status parse_concat(fm_jparser *p, fm_jnode **out)
{
    return parse_chain(p, FM_JN_CONCAT, "~", parse_product, out);
}
static fm_status parse_sum(fm_jparser *p, fm_jnode **out)
{
    return parse_chain(p, FM_JN_MATH, "+-", parse_concat, out);
}

static int compare_op(fm_jparser *p)
{
    const int op = binary_op(p, "ENLG<>");
    if (op) return op;
    if (fm_jis_word(p, "in")) return FM_J_IN;
    const fm_jtoken *next = &p->tokens[p->i + (fm_jpeek(p)->type != FM_JT_END)];
    return fm_jis_word(p, "not") && next->type == FM_JT_NAME && fm_view_is(next->text, "in") ? FM_J_NOT_IN : 0;
}

static fm_status parse_compare(fm_jparser *p, fm_jnode **out)
{
    fm_jnode *chain = NULL, *kid;
    int op;
    FM_TRY(parse_sum(p, out));
    while ((op = compare_op(p)) != 0) {
        if (!chain) {
            FM_TRY(wrap(p, FM_JN_COMPARE, out));
            chain = *out;
        }
        FM_TRY(add_op(p, chain, op));
        fm_jtake(p);
        if (op == FM_J_NOT_IN) fm_jtake(p);
        FM_TRY(parse_sum(p, &kid));
        FM_TRY(fm_jparse_add(p, chain, kid));
    }
    return FM_OK;
}

static fm_status parse_not(fm_jparser *p, fm_jnode **out)
{
    if (!fm_jis_word(p, "not")) return parse_compare(p, out);
    fm_jnode *kid;
    FM_TRY(fm_jparse_enter(p));
    FM_TRY(fm_jparse_node(p, FM_JN_NOT, out));
    fm_jtake(p);
    FM_TRY(parse_not(p, &kid));
    p->depth--;
    return fm_jparse_add(p, *out, kid);
}

static fm_status parse_words(fm_jparser *p, fm_jkind kind, const char *word, parse_fn next, fm_jnode **out)
{
    FM_TRY(next(p, out));
    if (!fm_jis_word(p, word)) return FM_OK;
    FM_TRY(wrap(p, kind, out));
    while (fm_jskip_word(p, word)) {
        fm_jnode *kid;
        FM_TRY(next(p, &kid));
        FM_TRY(fm_jparse_add(p, *out, kid));
    }
    return FM_OK;
}

static fm_status parse_and(fm_jparser *p, fm_jnode **out)
{
    return parse_words(p, FM_JN_AND, "and", parse_not, out);
}
static fm_status parse_or(fm_jparser *p, fm_jnode **out)
{
    return parse_words(p, FM_JN_OR, "or", parse_and, out);
}

/* kids: value, condition, value otherwise (NULL: undefined). */
fm_status fm_jparse_expression(fm_jparser *p, bool with_cond, fm_jnode **out)
{
    FM_TRY(fm_jparse_enter(p));
    FM_TRY(parse_or(p, out));
    while (with_cond && fm_jskip_word(p, "if")) {
        fm_jnode *cond, *other = NULL;
        FM_TRY(wrap(p, FM_JN_COND, out));
        FM_TRY(parse_or(p, &cond));
        if (fm_jskip_word(p, "else")) FM_TRY(fm_jparse_expression(p, true, &other));
        FM_TRY(fm_jparse_add(p, *out, cond));
        FM_TRY(fm_jparse_add(p, *out, other));
    }
    p->depth--;
    return FM_OK;
}
