/* help.c - what the tables say, for people (--help, the man page) and for bash. */
#include <stdio.h>
#include <string.h>

#include "cli/common.h"

#define HELP_COLUMN 30 /* where explanations begin */

static void pad_to(fm_str *out, size_t from, size_t column)
{
    if (out->n - from >= column) {
        fm_str_putc(out, '\n');
        from = out->n;
    }
    while (!out->failed && out->n - from < column) fm_str_putc(out, ' ');
}

void fm_help_overview(fm_str *out)
{
    fm_str_puts(out, "fmamba - Mamba language models, with the state as an object of its own\n\n"
                     "usage: fmamba COMMAND [arguments] [options]\n\n");
    for (size_t i = 0; fm_commands[i]; i++) fm_str_printf(out, "  %-15s %s\n", fm_commands[i]->name, fm_commands[i]->summary);
    fm_str_puts(out, "\n'fmamba help COMMAND' explains one.  Try:\n\n"
                     "  fmamba run                                    talk to the model that ships\n"
                     "  fmamba generate -p \"Once upon a time\" -n 100\n"
                     "  fmamba run -m falcon-mamba-7b-instruct.gguf\n");
}

/* "-m, --model PATH" */
static void put_spelling(fm_str *out, const fm_option *o)
{
    const char *a = o->aliases ? o->aliases : "";
    while (*a) {
        const size_t n = strcspn(a, " ");
        fm_str_printf(out, n <= 3 ? "-%.*s, " : "--%.*s, ", (int)n, a); /* -ngl, but --temperature */
        a += n + strspn(a + n, " ");
    }
    fm_str_printf(out, "--%s", o->name);
    if (o->value) fm_str_printf(out, " %s", o->value);
}

static void put_meaning(fm_str *out, const fm_option *o)
{
    fm_str_puts(out, o->help);
    if (o->kind == FM_OPT_FLAG && o->fallback)
        fm_str_printf(out, " (on; --no-%s)", o->name);
    else if (o->fallback)
        fm_str_printf(out, " (default: %s)", o->fallback);
}

void fm_help_command(fm_str *out, const fm_command *c)
{
    fm_str_printf(out, "fmamba %s - %s\n\nusage: fmamba %s %s\n", c->name, c->summary, c->name, c->usage);
    if (c->details) fm_str_printf(out, "\n%s\n", c->details);
    fm_str_puts(out, "\noptions:\n");
    for (const fm_opt *id = c->options; *id != FM_OPT_END; id++) {
        const size_t begin = out->n;
        fm_str_puts(out, "  ");
        put_spelling(out, fm_option_get(*id));
        fm_str_puts(out, "  ");
        pad_to(out, begin, HELP_COLUMN);
        put_meaning(out, fm_option_get(*id));
        fm_str_putc(out, '\n');
    }
    fm_str_puts(out, "\nEvery option may be set in the environment: FM_THREADS=4 is -t 4.  The command line wins.\n");
}

/* ---- The man page ---- */

/* Text as troff takes it: backslashes and dashes escaped, no line that begins with a dot. */
static void put_troff(fm_str *out, const char *text)
{
    bool line_begins = true;
    for (; *text; text++) {
        if (line_begins && (*text == '.' || *text == '\'')) fm_str_puts(out, "\\&");
        if (*text == '\\')
            fm_str_puts(out, "\\e");
        else if (*text == '-')
            fm_str_puts(out, "\\-");
        else if (*text == '|')
            fm_str_puts(out, "|\\:"); /* a line may end here */
        else if (line_begins && *text == '\n')
            fm_str_puts(out, ".PP\n");
        else if (!(line_begins && *text == ' '))
            fm_str_putc(out, *text);
        line_begins = *text == '\n' || (line_begins && *text == ' ');
    }
}

static void put_man_options(fm_str *out, const fm_opt *list)
{
    char variable[64];
    fm_str spelling = {0}, meaning = {0};
    for (; *list != FM_OPT_END; list++) {
        const fm_option *o = fm_option_get(*list);
        fm_str_reset(&spelling);
        fm_str_reset(&meaning);
        put_spelling(&spelling, o);
        put_meaning(&meaning, o);
        if (spelling.failed || meaning.failed) break;
        fm_str_puts(out, ".TP\n.B ");
        put_troff(out, spelling.p);
        fm_str_puts(out, "\n");
        put_troff(out, meaning.p);
        fm_str_printf(out, ".  %s\n", fm_option_variable(o, variable, sizeof variable));
    }
    out->failed = out->failed || spelling.failed || meaning.failed;
    fm_str_free(&spelling);
    fm_str_free(&meaning);
}

void fm_help_man(fm_str *out)
{
    fm_str_printf(out, ".TH FMAMBA 1 \"\" \"fmamba %s\" \"User Commands\"\n", fm_version());
    fm_str_puts(out,
                ".SH NAME\nfmamba \\- run Mamba language models\n"
                ".SH SYNOPSIS\n.B fmamba\n.I command\n[arguments] [options]\n"
                ".SH DESCRIPTION\nfmamba runs, inspects, converts and quantises Mamba language models such as Falcon Mamba.\n"
                "Each option may also be set by the environment variable named with it; the command line wins.\n"
                ".SH COMMANDS\n");
    for (size_t i = 0; fm_commands[i]; i++) {
        const fm_command *c = fm_commands[i];
        fm_str_printf(out, ".SS fmamba %s ", c->name);
        put_troff(out, c->usage);
        fm_str_putc(out, '\n');
        put_troff(out, c->summary);
        fm_str_puts(out, ".\n");
        if (c->details) {
            fm_str_puts(out, ".PP\n");
            put_troff(out, c->details);
            fm_str_putc(out, '\n');
        }
        put_man_options(out, c->options);
    }
    fm_str_puts(out, ".SH EXIT STATUS\n0 done, 1 failed (a sentence on standard error says why), 2 wrong command line.\n");
}

/* ---- bash ---- */

static void put_words(fm_str *out, const fm_opt *list)
{
    for (; *list != FM_OPT_END; list++) {
        const fm_option *o = fm_option_get(*list);
        fm_str_printf(out, " --%s", o->name);
        if (o->kind == FM_OPT_FLAG && o->fallback) fm_str_printf(out, " --no-%s", o->name);
    }
}

/* Options whose values are words: --type) f32 bf16. */
static void put_choices(fm_str *out, const fm_command *c)
{
    for (const fm_opt *id = c->options; *id != FM_OPT_END; id++) {
        const fm_option *o = fm_option_get(*id);
        if (o->kind != FM_OPT_STRING || !strchr(o->value, '|') || strchr(o->value, '(')) continue;
        fm_str_printf(out, "    %s:--%s) words=\"", c->name, o->name);
        for (const char *p = o->value; *p; p++) fm_str_putc(out, *p == '|' ? ' ' : *p);
        fm_str_puts(out, "\" ;;\n");
    }
}

void fm_help_completion(fm_str *out)
{
    fm_str_puts(out, "# bash completion for fmamba, made by 'fmamba help --completion'\n"
                     "_fmamba()\n{\n"
                     "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words=\n"
                     "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (size_t i = 0; fm_commands[i]; i++) fm_str_printf(out, i ? " %s" : "%s", fm_commands[i]->name);
    fm_str_puts(out,
                " --help --version\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n        return\n    fi\n"
                "    case ${COMP_WORDS[1]}:$previous in\n");
    for (size_t i = 0; fm_commands[i]; i++) put_choices(out, fm_commands[i]);
    fm_str_puts(out, "    esac\n    if [ -z \"$words\" ]; then\n        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; fm_commands[i]; i++) {
        const fm_command *c = fm_commands[i];
        fm_str_printf(out, "        %s) words=\"%s", c->name, c->verbs ? c->verbs : "");
        put_words(out, c->options);
        fm_str_puts(out, "\" ;;\n");
    }
    fm_str_puts(out, "        esac\n        case $current in\n        -*) ;;\n"
                     "        *) COMPREPLY=($(compgen -f -- \"$current\")) ;;\n        esac\n    fi\n"
                     "    COMPREPLY+=($(compgen -W \"$words\" -- \"$current\"))\n}\n"
                     "complete -o filenames -F _fmamba fmamba\n");
}
