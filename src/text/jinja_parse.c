/* jinja_parse.c - parses the statements of a template: if, for, set, macro, call, filter, with, break, continue and generation.
 * What the kids and names of each node are stands beside the function that makes it. */
#include "text/jinja_internal.h"

static fm_status parse_body(fm_jparser *p, const char *const *ends, fm_jnode **out);

static fm_status block_end(fm_jparser *p)
{
    return fm_jexpect(p, FM_JT_BLOCK_END, "the end of the tag", NULL);
}

/* A body up to {% end %}, of which the word is still ahead; takes it along. */
static fm_status parse_until(fm_jparser *p, const char *end, fm_jnode **out)
{
    const char *const ends[] = {end, NULL};
    FM_TRY(block_end(p));
    FM_TRY(parse_body(p, ends, out));
    fm_jtake(p);
    return block_end(p);
}

static bool reserved(fm_view name)
{
    static const char *const words[] = {"true", "false", "none", "True", "False", "None", "and",
                                        "or",   "not",   "in",   "is",   "if",    "else"};
    for (size_t i = 0; i < FM_COUNT(words); i++)
        if (fm_view_is(name, words[i])) return true;
    return false;
}

static fm_status parse_target_name(fm_jparser *p, fm_view *out)
{
    if (fm_jpeek(p)->type == FM_JT_NAME && reserved(fm_jpeek(p)->text))
        return fm_junexpected(p, "a name that can be assigned to");
    const fm_jtoken *name;
    FM_TRY(fm_jexpect(p, FM_JT_NAME, "a name to assign to", &name));
    *out = name->text;
    return FM_OK;
}

/* One name, or several separated by commas, perhaps in parentheses: node->names, FM_JF_TUPLE. */
static fm_status parse_targets(fm_jparser *p, fm_jnode *node)
{
    const bool open = fm_jskip_op(p, '(');
    fm_view name;
    do {
        if (node->n_names && fm_jpeek(p)->type != FM_JT_NAME) break;
        if (node->n_names && fm_jis_word(p, "in")) break;
        if (fm_jis_op(p, '('))
            return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, fm_jpeek(p)->at, "unpacking within unpacking is not supported");
        FM_TRY(parse_target_name(p, &name));
        FM_TRY(fm_jparse_name(p, node, name));
        if (fm_jis_op(p, ',')) node->flags |= FM_JF_TUPLE;
    } while (fm_jskip_op(p, ','));
    return open ? fm_jexpect_op(p, ')', "')'") : FM_OK;
}

/* kids: condition, body, condition, body ..., and the body of else when their number is odd. */
static fm_status parse_if(fm_jparser *p, fm_jnode *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    bool more = true;
    while (more) {
        fm_jnode *cond, *body;
        FM_TRY(fm_jparse_tuple(p, true, false, &cond));
        FM_TRY(block_end(p));
        FM_TRY(parse_body(p, ends, &body));
        FM_TRY(fm_jparse_add(p, node, cond));
        FM_TRY(fm_jparse_add(p, node, body));
        more = fm_jskip_word(p, "elif");
    }
    if (fm_jskip_word(p, "else")) {
        fm_jnode *other;
        FM_TRY(parse_until(p, "endif", &other));
        return fm_jparse_add(p, node, other);
    }
    fm_jtake(p);
    return block_end(p);
}

/* names: the targets; kids: what to loop over, body, body of else or NULL, condition or NULL. */
static fm_status parse_for(fm_jparser *p, fm_jnode *node)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    fm_jnode *over, *body, *other = NULL, *cond = NULL;
    FM_TRY(parse_targets(p, node));
    if (!fm_jskip_word(p, "in")) return fm_junexpected(p, "'in'");
    FM_TRY(fm_jparse_tuple(p, false, false, &over));
    if (fm_jskip_word(p, "if")) FM_TRY(fm_jparse_expression(p, true, &cond));
    if (fm_jis_word(p, "recursive"))
        return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, fm_jpeek(p)->at, "recursive loops are not supported; use a macro");
    FM_TRY(block_end(p));
    p->loops++;
    FM_TRY(parse_body(p, ends, &body));
    p->loops--;
    if (fm_jskip_word(p, "else")) {
        FM_TRY(parse_until(p, "endfor", &other));
    } else {
        fm_jtake(p);
        FM_TRY(block_end(p));
    }
    FM_TRY(fm_jparse_add(p, node, over));
    FM_TRY(fm_jparse_add(p, node, body));
    FM_TRY(fm_jparse_add(p, node, other));
    return fm_jparse_add(p, node, cond);
}

/* A set: kids: the value.  With FM_JF_ATTRIBUTE node->name is the namespace and names[0] the attribute.  A set block: kids: the
 * body, then the filters around it or NULL. */
static fm_status parse_set(fm_jparser *p, fm_jnode *node)
{
    fm_jnode *kid, *filters = NULL;
    const fm_jtoken *next = &p->tokens[p->i + 1];
    if (fm_jpeek(p)->type == FM_JT_NAME && next->type == FM_JT_OP && next->op == '.') {
        const fm_jtoken *name;
        node->flags |= FM_JF_ATTRIBUTE;
        node->name = fm_jtake(p)->text;
        fm_jtake(p);
        FM_TRY(fm_jexpect(p, FM_JT_NAME, "a name after '.'", &name));
        FM_TRY(fm_jparse_name(p, node, name->text));
    } else {
        FM_TRY(parse_targets(p, node));
    }
    if (fm_jskip_op(p, '=')) {
        FM_TRY(fm_jparse_tuple(p, true, false, &kid));
        FM_TRY(block_end(p));
        return fm_jparse_add(p, node, kid);
    }
    node->kind = FM_JN_SET_BLOCK;
    if (node->n_names != 1 || (node->flags & FM_JF_TUPLE)) return fm_junexpected(p, "'='");
    FM_TRY(fm_jparse_filters(p, &filters, false));
    FM_TRY(parse_until(p, "endset", &kid));
    FM_TRY(fm_jparse_add(p, node, kid));
    return fm_jparse_add(p, node, filters);
}

/* names: the parameters; kids: the body, then the default values of the last parameters. */
static fm_status parse_parameters(fm_jparser *p, fm_jnode *node)
{
    FM_TRY(fm_jparse_add(p, node, NULL));
    FM_TRY(fm_jexpect_op(p, '(', "'(' and the parameters"));
    while (!fm_jis_op(p, ')')) {
        fm_view name;
        fm_jnode *value;
        if (node->n_names) FM_TRY(fm_jexpect_op(p, ',', "',' or ')' among the parameters"));
        FM_TRY(parse_target_name(p, &name));
        FM_TRY(fm_jparse_name(p, node, name));
        if (fm_jskip_op(p, '=')) {
            FM_TRY(fm_jparse_expression(p, true, &value));
            FM_TRY(fm_jparse_add(p, node, value));
        } else if (node->n > 1) {
            return fm_junexpected(p, "a default value: an earlier parameter has one");
        }
    }
    fm_jtake(p);
    return FM_OK;
}

static fm_status parse_macro_body(fm_jparser *p, fm_jnode *node, const char *end)
{
    const unsigned loops = p->loops;
    const unsigned char used = p->used;
    p->loops = 0;
    p->used = 0;
    FM_TRY(parse_until(p, end, &node->kids[0]));
    node->flags |= p->used;
    p->loops = loops;
    p->used = used;
    return FM_OK;
}

static fm_status parse_macro(fm_jparser *p, fm_jnode *node)
{
    FM_TRY(parse_target_name(p, &node->name));
    FM_TRY(parse_parameters(p, node));
    return parse_macro_body(p, node, "endmacro");
}

/* kids: the call, and a macro without name that is its caller(). */
static fm_status parse_call(fm_jparser *p, fm_jnode *node)
{
    fm_jnode *macro, *call;
    FM_TRY(fm_jparse_node(p, FM_JN_MACRO, &macro));
    macro->name = FM_VIEW("caller");
    if (fm_jis_op(p, '('))
        FM_TRY(parse_parameters(p, macro));
    else
        FM_TRY(fm_jparse_add(p, macro, NULL));
    FM_TRY(fm_jparse_expression(p, true, &call));
    if (call->kind != FM_JN_CALL) return fm_jparse_fail(p, FM_ERR_FORMAT, call->at, "expected a call after 'call'");
    FM_TRY(parse_macro_body(p, macro, "endcall"));
    FM_TRY(fm_jparse_add(p, node, call));
    return fm_jparse_add(p, node, macro);
}

/* kids: the filters, around nothing, and the body. */
static fm_status parse_filter(fm_jparser *p, fm_jnode *node)
{
    fm_jnode *filters = NULL, *body;
    FM_TRY(fm_jparse_filters(p, &filters, true));
    FM_TRY(parse_until(p, "endfilter", &body));
    FM_TRY(fm_jparse_add(p, node, filters));
    return fm_jparse_add(p, node, body);
}

/* names and their values in kids; the body is the last kid. */
static fm_status parse_with(fm_jparser *p, fm_jnode *node)
{
    fm_jnode *kid;
    while (fm_jpeek(p)->type != FM_JT_BLOCK_END) {
        fm_view name;
        if (node->n) FM_TRY(fm_jexpect_op(p, ',', "',' between assignments"));
        FM_TRY(parse_target_name(p, &name));
        FM_TRY(fm_jparse_name(p, node, name));
        FM_TRY(fm_jexpect_op(p, '=', "'='"));
        FM_TRY(fm_jparse_expression(p, true, &kid));
        FM_TRY(fm_jparse_add(p, node, kid));
    }
    FM_TRY(parse_until(p, "endwith", &kid));
    return fm_jparse_add(p, node, kid);
}

/* {% generation %} marks what training learns from; here it is only a scope. */
static fm_status parse_generation(fm_jparser *p, fm_jnode *node)
{
    fm_jnode *body;
    FM_TRY(parse_until(p, "endgeneration", &body));
    return fm_jparse_add(p, node, body);
}

static fm_status parse_jump(fm_jparser *p, fm_jnode *node)
{
    if (p->loops == 0) return fm_jparse_fail(p, FM_ERR_FORMAT, node->at, "break and continue belong into a loop");
    return block_end(p);
}

static const struct {
    const char *word;
    fm_jkind kind;
    fm_status (*parse)(fm_jparser *p, fm_jnode *node);
} statements[] = {
    {"if", FM_JN_IF, parse_if},
    {"for", FM_JN_FOR, parse_for},
    {"set", FM_JN_SET, parse_set},
    {"macro", FM_JN_MACRO, parse_macro},
    {"call", FM_JN_CALL_BLOCK, parse_call},
    {"filter", FM_JN_FILTER_BLOCK, parse_filter},
    {"with", FM_JN_WITH, parse_with},
    {"generation", FM_JN_WITH, parse_generation},
    {"break", FM_JN_BREAK, parse_jump},
    {"continue", FM_JN_CONTINUE, parse_jump},
};

static const char *const foreign[] = {"include", "import", "from", "extends", "block", "do", "autoescape", "trans", "debug"};

static fm_status parse_statement(fm_jparser *p, fm_jnode **out)
{
    const fm_jtoken *word;
    FM_TRY(fm_jparse_enter(p));
    FM_TRY(fm_jexpect(p, FM_JT_NAME, "a statement", &word));
    for (size_t i = 0; i < FM_COUNT(statements); i++) {
        if (!fm_view_is(word->text, statements[i].word)) continue;
        FM_TRY(fm_jparse_node(p, statements[i].kind, out));
        (*out)->at = word->at;
        FM_TRY(statements[i].parse(p, *out));
        p->depth--;
        return FM_OK;
    }
    const int n = word->text.n < 40 ? (int)word->text.n : 40;
    for (size_t i = 0; i < FM_COUNT(foreign); i++)
        if (fm_view_is(word->text, foreign[i]))
            return fm_jparse_fail(p, FM_ERR_UNSUPPORTED, word->at, "the statement '%s' is not supported", foreign[i]);
    return fm_jparse_fail(p, FM_ERR_FORMAT, word->at, "no statement begins with '%.*s' here", n, word->text.p);
}

static fm_status parse_text(fm_jparser *p, fm_jnode **out)
{
    FM_TRY(fm_jparse_node(p, FM_JN_TEXT, out));
    (*out)->value = fm_j_string(fm_jtake(p)->text, false);
    return FM_OK;
}

static fm_status parse_output(fm_jparser *p, fm_jnode **out)
{
    fm_jnode *kid;
    FM_TRY(fm_jparse_node(p, FM_JN_OUTPUT, out));
    fm_jtake(p);
    FM_TRY(fm_jparse_tuple(p, true, false, &kid));
    FM_TRY(fm_jparse_add(p, *out, kid));
    return fm_jexpect(p, FM_JT_VAR_END, "the end of the tag", NULL);
}

static bool is_one_of(const fm_jparser *p, const char *const *words)
{
    for (; words && *words; words++)
        if (fm_jis_word(p, *words)) return true;
    return false;
}

static const char *last(const char *const *words)
{
    while (words[1]) words++;
    return words[0];
}

/* Statements up to one of the words that end them, which is then the next token; `ends` NULL: up to the end of the template. */
static fm_status parse_body(fm_jparser *p, const char *const *ends, fm_jnode **out)
{
    FM_TRY(fm_jparse_node(p, FM_JN_BODY, out));
    for (;;) {
        fm_jnode *kid;
        const fm_jtoken *t = fm_jpeek(p);
        if (t->type == FM_JT_END) {
            if (!ends) return FM_OK;
            return fm_jparse_fail(p, FM_ERR_FORMAT, t->at, "the template ends within a block; add {%% %s %%}", last(ends));
        }
        if (t->type == FM_JT_TEXT) {
            FM_TRY(parse_text(p, &kid));
        } else if (t->type == FM_JT_VAR_BEGIN) {
            FM_TRY(parse_output(p, &kid));
        } else {
            fm_jtake(p);
            if (is_one_of(p, ends)) return FM_OK;
            FM_TRY(parse_statement(p, &kid));
        }
        FM_TRY(fm_jparse_add(p, *out, kid));
    }
}

fm_status fm_jparse_template(fm_jparser *p)
{
    fm_jnode *body;
    FM_TRY(parse_body(p, NULL, &body));
    p->t->body = body;
    return FM_OK;
}
