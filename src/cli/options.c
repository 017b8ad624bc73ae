/* options.c - parses a command line and the environment against the table of options. */
#include "cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "cli/llama_options.h"

#define WORD_MAX ((size_t)48) /* longest name of an option */

/* ---- Words ---------------------------------------------------------------------------------------------------------- */

/* Underscores count as dashes, as llama.cpp's users write them; empty when it is too long to be a name. */
static fm_view dashed_name(char dashed[WORD_MAX], const char *word, size_t n)
{
    if (n > WORD_MAX) n = 0;
    for (size_t i = 0; i < n; i++) dashed[i] = word[i] == '_' ? '-' : word[i];
    return (fm_view){dashed, n};
}

static bool names_option(const fm_option *o, const char *word, size_t n)
{
    char dashed[WORD_MAX];
    const fm_view name = dashed_name(dashed, word, n);
    return fm_view_is(name, o->name) || fm_word_find(name, o->aliases, ' ', NULL);
}

bool fm_options_take(const fm_opt *list, fm_opt id)
{
    for (; *list != FM_OPT_END; list++)
        if (*list == id) return true;
    return false;
}

const char *fm_environment(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

const char *fm_option_variable(const fm_option *o, char *buf, size_t size)
{
    size_t n = (size_t)snprintf(buf, size, "FM_%s", o->name);
    if (n >= size) n = size - 1;
    for (size_t i = 0; i < n; i++) {
        if (buf[i] == '-') buf[i] = '_';
        if (buf[i] >= 'a' && buf[i] <= 'z') buf[i] = (char)(buf[i] - 'a' + 'A');
    }
    return buf;
}

/* ---- Values --------------------------------------------------------------------------------------------------------- */

static bool parse_switch(const char *text, bool *out)
{
    static const char yes[] = "on true 1 yes enabled", no[] = "off false 0 no disabled";
    if (fm_word_find(fm_view_of(text), yes, ' ', NULL))
        *out = true;
    else if (fm_word_find(fm_view_of(text), no, ' ', NULL))
        *out = false;
    else
        return false;
    return true;
}

static fm_status wrong_value(const char *spelled, const char *text, const fm_option *o, fm_error *err)
{
    if (o->kind == FM_OPT_FLAG) return fm_fail(err, FM_ERR_ARGUMENT, "%s: expected on or off, found '%s'", spelled, text);
    if (o->kind == FM_OPT_SEED_NUMBER)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s: expected a whole number from 0 to %llu, or -1, found '%s'", spelled,
                       (unsigned long long)UINT64_MAX, text);
    return fm_fail(err, FM_ERR_ARGUMENT, "%s: expected %s from %g to %g, found '%s'", spelled,
                   o->kind == FM_OPT_INT ? "a whole number" : "a number", o->min, o->max, text);
}

static fm_status set_number(fm_opt_value *v, const fm_option *o, const char *spelled, const char *text, fm_error *err)
{
    int64_t i;
    double f;
    if (o->kind == FM_OPT_INT) {
        if (!fm_parse_i64(fm_view_of(text), &i)) return wrong_value(spelled, text, o, err);
        f = (double)i;
    } else {
        if (!fm_parse_f64(fm_view_of(text), &f)) return wrong_value(spelled, text, o, err);
        i = 0;
    }
    if (f < o->min || f > o->max) return wrong_value(spelled, text, o, err);
    v->i = i;
    v->f = f;
    return FM_OK;
}

static fm_status set_seed(fm_opt_value *v, const fm_option *o, const char *spelled, const char *text, fm_error *err)
{
    if (!strcmp(text, "-1"))
        v->origin = FM_FROM_DEFAULT;
    else if (!fm_parse_u64(fm_view_of(text), &v->u))
        return wrong_value(spelled, text, o, err);
    return FM_OK;
}

static bool is_choice(const fm_option *o)
{
    return o->kind == FM_OPT_STRING && strchr(o->value, '|') && !strchr(o->value, '(');
}

static fm_status set_string(fm_opt_value *v, const fm_option *o, const char *spelled, const char *text, fm_error *err)
{
    if (is_choice(o) && !fm_word_find(fm_view_of(text), o->value, '|', NULL))
        return fm_fail(err, FM_ERR_ARGUMENT, "%s: expected %s, found '%s'", spelled, o->value, text);
    v->s = text;
    if (o->kind != FM_OPT_STRINGS) return FM_OK;
    size_t cap = v->n;
    void *grown = v->list;
    FM_TRY(fm_grow(&grown, &cap, v->n + 1, sizeof *v->list, NULL, "option values", err));
    v->list = grown;
    v->list[v->n++] = text;
    return FM_OK;
}

/* `spelled` is how the user named the option, for errors. */
static fm_status set_value(fm_opt_value *v, const fm_option *o, fm_opt_origin origin, const char *spelled, const char *text,
                           fm_error *err)
{
    v->origin = origin;
    switch (o->kind) {
    case FM_OPT_FLAG: return parse_switch(text, &v->flag) ? FM_OK : wrong_value(spelled, text, o, err);
    case FM_OPT_INT:
    case FM_OPT_FLOAT: return set_number(v, o, spelled, text, err);
    case FM_OPT_SEED_NUMBER: return set_seed(v, o, spelled, text, err);
    default: return set_string(v, o, spelled, text, err);
    }
}

/* ---- The command line ------------------------------------------------------------------------------------------------ */

typedef struct parser {
    fm_options *o;
    const fm_opt *list;
    int argc, i;
    char **argv;
} parser;

static fm_opt find_option(const fm_opt *list, const char *word, size_t n)
{
    for (; *list != FM_OPT_END; list++)
        if (names_option(fm_option_get(*list), word, n)) return *list;
    return FM_OPT_END;
}

static fm_status unknown_option(const fm_opt *list, const char *arg, fm_error *err)
{
    const char *names[FM_OPT_COUNT];
    size_t n = 0;
    char word[WORD_MAX];
    const char *body = arg + strspn(arg, "-");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(body, "="), body);
    for (const fm_opt *id = list; *id != FM_OPT_END; id++) names[n++] = fm_option_get(*id)->name;
    const char *near = fm_nearest(word, names, n);
    if (near) return fm_fail(err, FM_ERR_ARGUMENT, "unknown option '%s': did you mean --%s?", arg, near);
    for (int id = 0; id < FM_OPT_COUNT; id++)
        if (names_option(fm_option_get((fm_opt)id), word, strlen(word)))
            return fm_fail(err, FM_ERR_ARGUMENT, "'%s' is an option of other commands, not of this one", arg);
    return fm_fail(err, FM_ERR_ARGUMENT, "unknown option '%s'", arg);
}

static fm_status take_value(parser *p, fm_opt id, const char *spelled, const char *attached, fm_error *err)
{
    const fm_option *o = fm_option_get(id);
    if (!attached && o->kind == FM_OPT_FLAG) attached = "on";
    if (!attached && p->i + 1 >= p->argc)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s needs a value: %s %s", spelled, spelled, o->value);
    if (!attached) attached = p->argv[++p->i];
    return set_value(&p->o->v[id], o, FM_FROM_COMMAND_LINE, spelled, attached, err);
}

/* "-n128": a letter and its number in one word. */
static fm_opt letter_and_number(const fm_opt *list, const char *body)
{
    if (!body[0] || !strchr("0123456789.", body[1])) return FM_OPT_END;
    const fm_opt id = find_option(list, body, 1);
    if (id == FM_OPT_END) return id;
    const fm_opt_kind kind = fm_option_get(id)->kind;
    return kind == FM_OPT_INT || kind == FM_OPT_FLOAT || kind == FM_OPT_SEED_NUMBER ? id : FM_OPT_END;
}

/* Commands that compute answer to llama.cpp's options, too. */
static const fm_llama_option *find_llama(const fm_opt *list, const char *word, size_t n)
{
    char dashed[WORD_MAX];
    const fm_view name = dashed_name(dashed, word, n);
    return name.n && fm_options_take(list, FM_OPT_DEVICE) ? fm_llama_option_find(name.p, name.n) : NULL;
}

static fm_status answer_llama(parser *p, const fm_llama_option *o, const char *spelled, bool attached, fm_error *err)
{
    fm_options *to = p->o;
    const char *next = p->i + 1 < p->argc ? p->argv[p->i + 1] : NULL;
    if (o->answer == FM_LLAMA_REFUSED) return fm_fail(err, FM_ERR_ARGUMENT, "%s: %s", spelled, o->why);
    if (o->answer == FM_LLAMA_NOTED && to->n_noted < FM_COUNT(to->noted)) {
        to->noted[to->n_noted].arg = p->argv[p->i];
        to->noted[to->n_noted++].why = o->why;
    }
    if (!attached && fm_llama_option_takes(o, next)) {
        if (!next) return fm_fail(err, FM_ERR_ARGUMENT, "%s needs a value: %s N", spelled, spelled);
        p->i++;
    }
    return FM_OK;
}

static fm_status parse_option(parser *p, fm_error *err)
{
    const char *arg = p->argv[p->i], *body = arg + (arg[1] == '-' ? 2 : 1), *equals = strchr(body, '=');
    const size_t n = equals ? (size_t)(equals - body) : strlen(body);
    char spelled[WORD_MAX + 3];
    snprintf(spelled, sizeof spelled, "%.*s", (int)(equals ? equals - arg : (ptrdiff_t)strlen(arg)), arg);

    fm_opt id = find_option(p->list, body, n);
    if (id != FM_OPT_END) return take_value(p, id, spelled, equals ? equals + 1 : NULL, err);
    if (n > 3 && !equals && strncmp(body, "no-", 3) == 0) {
        id = find_option(p->list, body + 3, n - 3);
        if (id != FM_OPT_END && fm_option_get(id)->kind == FM_OPT_FLAG) return take_value(p, id, spelled, "off", err);
    }
    const fm_llama_option *llama = find_llama(p->list, body, n);
    if (llama) return answer_llama(p, llama, spelled, equals != NULL, err);
    id = arg[1] == '-' ? FM_OPT_END : letter_and_number(p->list, body);
    if (id != FM_OPT_END) return take_value(p, id, spelled, body + 1, err);
    return unknown_option(p->list, arg, err);
}

static fm_status parse_environment(fm_options *o, const fm_opt *list, fm_error *err)
{
    for (; *list != FM_OPT_END; list++) {
        const fm_option *row = fm_option_get(*list);
        fm_opt_value *v = &o->v[*list];
        char name[WORD_MAX + 4];
        const char *text = *list == FM_OPT_HELP ? NULL : fm_environment(fm_option_variable(row, name, sizeof name));
        if (v->origin == FM_FROM_NOWHERE && text) FM_TRY(set_value(v, row, FM_FROM_ENVIRONMENT, name, text, err));
    }
    return FM_OK;
}

static fm_status fill_defaults(fm_options *o, const fm_opt *list, fm_error *err)
{
    for (; *list != FM_OPT_END; list++) {
        const fm_option *row = fm_option_get(*list);
        fm_opt_value *v = &o->v[*list];
        if (v->origin == FM_FROM_NOWHERE && row->fallback)
            FM_TRY(set_value(v, row, FM_FROM_DEFAULT, row->name, row->fallback, err));
    }
    return FM_OK;
}

fm_status fm_options_parse(fm_options *o, const fm_opt *list, int argc, char **argv, fm_error *err)
{
    *o = (fm_options){0};
    void *operands;
    FM_TRY(fm_alloc(&operands, NULL, (size_t)argc + 1, sizeof *o->operands, "operands", err));
    o->operands = operands;
    parser p = {o, list, argc, 0, argv};
    bool only_operands = false;
    for (; p.i < argc; p.i++) {
        const char *arg = argv[p.i];
        if (only_operands || arg[0] != '-' || !arg[1])
            o->operands[o->n_operands++] = arg;
        else if (strcmp(arg, "--") == 0)
            only_operands = true;
        else
            FM_TRY(parse_option(&p, err));
    }
    if (o->v[FM_OPT_HELP].flag) return FM_OK; /* help works whatever the environment says */
    FM_TRY(parse_environment(o, list, err));
    return fill_defaults(o, list, err);
}

void fm_options_free(fm_options *o)
{
    for (size_t i = 0; i < FM_OPT_COUNT; i++) fm_free(NULL, o->v[i].list);
    fm_free(NULL, o->operands);
    *o = (fm_options){0};
}
