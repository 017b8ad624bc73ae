/* jinja_lex.c - cuts a template into text and the tokens of its tags, and takes away the white space around tags:
 * "-" in a tag, trim_blocks (one newline behind a block or comment), lstrip_blocks (blanks between line start and one). */
#include <string.h>

#include "text/jinja_internal.h"

typedef struct lexer {
    fm_jparser *p;
    const char *s;
    size_t n, i;
    bool line_start; /* what was cut off last ended a line */
} lexer;

static fm_status emit(lexer *l, fm_jtok type, int op, size_t from, size_t to)
{
    fm_jparser *p = l->p;
    void *room = p->tokens;
    const fm_status status =
        fm_grow(&room, &p->cap_tokens, p->n_tokens + 1, sizeof *p->tokens, p->t->pool.a, "template", p->err);
    p->tokens = room;
    if (status != FM_OK) return status;
    p->tokens[p->n_tokens++] = (fm_jtoken){
        .type = (unsigned char)type, .op = (unsigned char)op, .at = (uint32_t)from, .text = {l->s + from, to - from}};
    return FM_OK;
}

static bool looking_at(const lexer *l, size_t i, const char *what)
{
    const size_t n = strlen(what);
    return n <= l->n - i && memcmp(l->s + i, what, n) == 0;
}

static size_t skip_space(const lexer *l, size_t i)
{
    return i + fm_j_spaces_before((fm_view){l->s + i, l->n - i});
}

/* Steps over the two characters that end a tag, with the sign before them; false when no end is here. */
static bool tag_end(lexer *l, const char *end, bool trim)
{
    size_t i = l->i;
    const char sign = i < l->n ? l->s[i] : 0;
    if (sign == '-' || sign == '+') i++;
    if (!looking_at(l, i, end) || (sign == '+' && end[0] == '}')) return false;
    i += 2;
    if (sign == '-')
        i = skip_space(l, i);
    else if (trim && sign != '+' && i < l->n && l->s[i] == '\n')
        i++;
    l->line_start = l->s[i - 1] == '\n';
    l->i = i;
    return true;
}

/* Text before a tag at `to` whose sign is `sign`. */
static fm_status emit_text(lexer *l, size_t from, size_t to, char sign, bool lstrip)
{
    const fm_view text = {l->s + from, to - from};
    if (sign == '-') {
        to -= fm_j_spaces_behind(text);
    } else if (lstrip && sign != '+') {
        size_t begin = to;
        while (begin > from && l->s[begin - 1] != '\n') begin--;
        const fm_view rest = {l->s + begin, to - begin};
        if ((begin > from || l->line_start) && fm_j_spaces_before(rest) == rest.n) to = begin;
    }
    return to > from ? emit(l, FM_JT_TEXT, 0, from, to) : FM_OK;
}

static fm_status lex_comment(lexer *l, size_t begin)
{
    for (; l->i < l->n; l->i++)
        if (tag_end(l, "#}", true)) return FM_OK;
    return fm_jparse_fail(l->p, FM_ERR_FORMAT, (uint32_t)begin, "a comment begins here but has no end; add \"#}\"");
}

static size_t sign_at(const lexer *l, size_t i)
{
    return i < l->n && (l->s[i] == '-' || l->s[i] == '+');
}

/* {% raw %} after its opening: everything up to {% endraw %} is text. */
static fm_status lex_raw(lexer *l, size_t begin)
{
    const size_t from = l->i;
    for (size_t at = from; at < l->n; at++) {
        if (!looking_at(l, at, "{%")) continue;
        const char sign = sign_at(l, at + 2) ? l->s[at + 2] : 0;
        l->i = skip_space(l, at + 2 + sign_at(l, at + 2));
        if (!looking_at(l, l->i, "endraw")) continue;
        l->i = skip_space(l, l->i + 6);
        const bool line_start = l->line_start;
        if (!tag_end(l, "%}", true)) continue;
        const bool after = l->line_start;
        l->line_start = line_start;
        FM_TRY(emit_text(l, from, at, sign, true));
        l->line_start = after;
        return FM_OK;
    }
    return fm_jparse_fail(l->p, FM_ERR_FORMAT, (uint32_t)begin, "a raw block begins here but has no end; add {%% endraw %%}");
}

static bool raw_begins(lexer *l)
{
    const size_t back = l->i;
    l->i = skip_space(l, l->i);
    if (looking_at(l, l->i, "raw")) {
        l->i = skip_space(l, l->i + 3);
        if (l->i < l->n && l->s[l->i] != '+' && tag_end(l, "%}", false)) return true;
    }
    l->i = back;
    return false;
}

static bool name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (unsigned char)c >= 0x80;
}

static bool digit(const lexer *l, size_t i)
{
    return i < l->n && l->s[i] >= '0' && l->s[i] <= '9';
}

static size_t digits(const lexer *l, size_t i)
{
    while (digit(l, i) || (i < l->n && l->s[i] == '_' && digit(l, i + 1))) i++;
    return i;
}

static size_t exponent(const lexer *l, size_t i)
{
    if (i >= l->n || (l->s[i] | 32) != 'e') return i;
    const size_t from = i + 1 + sign_at(l, i + 1);
    return digit(l, from) ? digits(l, from) : i;
}

static fm_status lex_number(lexer *l)
{
    const size_t from = l->i;
    const char mark = from + 1 < l->n ? (char)(l->s[from + 1] | 32) : 0;
    size_t to = digits(l, from);
    bool real = false;
    if (l->s[from] == '0' && (mark == 'x' || mark == 'o' || mark == 'b')) {
        for (to = from + 2; to < l->n && name_byte(l->s[to]);) to++;
    } else {
        const bool chained = from > 0 && l->s[from - 1] == '.';
        if (!chained && to < l->n && l->s[to] == '.' && digit(l, to + 1)) {
            to = digits(l, to + 1);
            real = true;
        }
        const size_t end = chained ? to : exponent(l, to);
        real |= end > to;
        to = end;
    }
    l->i = to;
    return emit(l, real ? FM_JT_FLOAT : FM_JT_INT, 0, from, to);
}

static fm_status lex_string(lexer *l)
{
    const size_t from = l->i;
    const char quote = l->s[from];
    size_t i = from + 1;
    while (i < l->n && l->s[i] != quote) i += l->s[i] == '\\' ? 2 : 1;
    if (i >= l->n)
        return fm_jparse_fail(l->p, FM_ERR_FORMAT, (uint32_t)from, "a string begins here but has no end; add %c", quote);
    l->i = i + 1;
    return emit(l, FM_JT_STRING, 0, from + 1, i);
}

static fm_status lex_op(lexer *l, int *nesting)
{
    static const struct {
        char text[3];
        char op;
    } pairs[] = {{"**", FM_J_POW}, {"//", FM_J_FLOOR}, {"==", FM_J_EQ}, {"!=", FM_J_NE}, {"<=", FM_J_LE}, {">=", FM_J_GE}};
    const size_t at = l->i;
    for (size_t k = 0; k < FM_COUNT(pairs); k++) {
        if (!looking_at(l, at, pairs[k].text)) continue;
        l->i += 2;
        return emit(l, FM_JT_OP, pairs[k].op, at, at + 2);
    }
    const char c = l->s[at];
    if (c == 0 || !strchr("+-*/%~[](){}<>=.:|,;", c))
        return fm_jparse_fail(l->p, FM_ERR_FORMAT, (uint32_t)at, "unexpected character '%.*s'", (int)1, l->s + at);
    if (strchr("([{", c)) ++*nesting;
    if (strchr(")]}", c) && *nesting > 0) --*nesting;
    l->i++;
    return emit(l, FM_JT_OP, c, at, at + 1);
}

static fm_status lex_token(lexer *l, int *nesting)
{
    const char c = l->s[l->i];
    if (c >= '0' && c <= '9') return lex_number(l);
    if (c == '"' || c == '\'') return lex_string(l);
    if (!name_byte(c)) return lex_op(l, nesting);
    const size_t from = l->i;
    while (l->i < l->n && name_byte(l->s[l->i])) l->i++;
    return emit(l, FM_JT_NAME, 0, from, l->i);
}

/* The inside of a tag whose opening begins at `begin`. */
static fm_status lex_tag(lexer *l, size_t begin, bool block)
{
    const char *end = block ? "%}" : "}}";
    int nesting = 0;
    FM_TRY(emit(l, block ? FM_JT_BLOCK_BEGIN : FM_JT_VAR_BEGIN, 0, begin, begin + 2));
    for (;;) {
        l->i = skip_space(l, l->i);
        if (l->i >= l->n)
            return fm_jparse_fail(l->p, FM_ERR_FORMAT, (uint32_t)begin, "a tag begins here but has no end; add \"%s\"", end);
        const size_t at = l->i;
        if (nesting == 0 && tag_end(l, end, block)) return emit(l, block ? FM_JT_BLOCK_END : FM_JT_VAR_END, 0, at, at + 2);
        FM_TRY(lex_token(l, &nesting));
    }
}

static size_t find_tag(const lexer *l)
{
    size_t i = l->i;
    while (i + 1 < l->n && !(l->s[i] == '{' && strchr("{%#", l->s[i + 1]) && l->s[i + 1])) i++;
    return i + 1 < l->n ? i : l->n;
}

fm_status fm_jlex(fm_jparser *p)
{
    lexer l = {.p = p, .s = p->t->source.p, .n = p->t->source.n, .line_start = true};
    while (l.i < l.n) {
        const size_t from = l.i, at = find_tag(&l);
        if (at == l.n) {
            FM_TRY(emit(&l, FM_JT_TEXT, 0, from, at));
            break;
        }
        const char kind = l.s[at + 1];
        const size_t sign = sign_at(&l, at + 2);
        FM_TRY(emit_text(&l, from, at, sign ? l.s[at + 2] : 0, kind != '{'));
        l.line_start = false;
        l.i = at + 2 + sign;
        if (kind == '#')
            FM_TRY(lex_comment(&l, at));
        else if (kind == '%' && raw_begins(&l))
            FM_TRY(lex_raw(&l, at));
        else
            FM_TRY(lex_tag(&l, at, kind == '%'));
    }
    return emit(&l, FM_JT_END, 0, l.n, l.n);
}
