/* main.c - the program: finds the command, parses its options, runs it.
 *
 * Exit codes: 0 done, 1 it failed (a sentence on stderr says why, or that it was stopped), 2 the command line is wrong. */
#include <string.h>

#include "cli/common.h"

static int check_operands(const fm_cli *c)
{
    const fm_command *k = c->command;
    if (c->n_operands < k->min_operands) return fm_cli_usage(c, "too few arguments: fmamba %s %s", k->name, k->usage);
    if (c->n_operands > k->max_operands)
        return fm_cli_usage(c, "unexpected argument '%s': fmamba %s %s", c->operands[k->max_operands], k->name, k->usage);
    if (fm_cli_input_count(c) + (c->n_operands && fm_options_take(k->options, FM_OPT_SYSTEM)) > 1)
        return fm_cli_usage(c, "the input is given more than once: give one of a prompt, -p, -f and --ids");
    return FM_EXIT_OK;
}

static const char *path_of(const fm_cli *c, fm_opt id)
{
    return fm_options_take(c->command->options, id) ? fm_opt_str(&c->options, id) : NULL;
}

/* A state file may be its own successor. */
static bool is_read(const fm_cli *c, const char *out)
{
    static const fm_opt ins[] = {FM_OPT_MODEL, FM_OPT_FILE, FM_OPT_TOKENIZER, FM_OPT_DRAFT_MODEL};
    bool found = false;
    for (size_t i = 0; i < FM_COUNT(ins); i++) {
        const char *in = path_of(c, ins[i]);
        found |= in && fm_path_same(in, out);
    }
    for (size_t i = 0; i < c->n_operands && strcmp(c->command->name, "state") != 0; i++)
        found |= fm_path_same(c->operands[i], out);
    return found;
}

static int check_outputs(const fm_cli *c)
{
    static const fm_opt outs[] = {FM_OPT_OUT, FM_OPT_SAVE_STATE};
    for (size_t i = 0; i < FM_COUNT(outs); i++) {
        const char *out = path_of(c, outs[i]);
        if (out && is_read(c, out))
            return fm_cli_usage(c, "%s is read too, and would be lost: give the output another name", out);
    }
    return FM_EXIT_OK;
}

static int run_command(const fm_command *command, int argc, char **argv)
{
    fm_cli c = {.command = command};
    fm_error err = {0};
    int code;
    if (fm_options_parse(&c.options, command->options, argc, argv, &err) != FM_OK) {
        code = fm_cli_usage(&c, "%s", err.text);
    } else if (fm_opt_flag(&c.options, FM_OPT_HELP)) {
        fm_str text = {0};
        fm_help_command(&text, command);
        code = fm_cli_put(&text);
    } else {
        for (size_t i = 0; i < c.options.n_noted; i++)
            fm_cli_note("%s has no effect: %s", c.options.noted[i].arg, c.options.noted[i].why);
        c.operands = c.options.operands;
        c.n_operands = c.options.n_operands;
        code = check_operands(&c);
        if (code == FM_EXIT_OK) code = check_outputs(&c);
        if (code == FM_EXIT_OK) code = command->run(&c);
    }
    fm_options_free(&c.options);
    return fm_cli_finish(code);
}

/* The spellings that every program understands. */
static const char *command_name(const char *arg)
{
    if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0) return "version";
    if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0 || strcmp(arg, "-?") == 0) return "help";
    return arg;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fm_str text = {0};
        fm_help_overview(&text);
        fm_cli_put(&text);
        return fm_cli_finish(FM_EXIT_USAGE);
    }
    const char *name = command_name(argv[1]);
    const fm_command *command = fm_command_find(name);
    if (!command) return fm_command_unknown(name);
    return run_command(command, argc - 2, argv + 2);
}
