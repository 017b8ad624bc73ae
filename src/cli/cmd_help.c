/* cmd_help.c - help on the program or a command, the manual page, the completion. */
#include "cli/common.h"

static int run(const fm_cli *c)
{
    fm_str out = {0};
    if (fm_opt_flag(&c->options, FM_OPT_MAN))
        fm_help_man(&out);
    else if (fm_opt_flag(&c->options, FM_OPT_COMPLETION))
        fm_help_completion(&out);
    else if (!c->n_operands)
        fm_help_overview(&out);
    else {
        const fm_command *command = fm_command_find(c->operands[0]);
        if (!command) return fm_command_unknown(c->operands[0]);
        fm_help_command(&out, command);
    }
    return fm_cli_put(&out);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_MAN, FM_OPT_COMPLETION, FM_OPT_END};

const fm_command fm_command_help = {
    .name = "help",
    .summary = "explain the program or a command",
    .usage = "[COMMAND | --man | --completion]",
    .options = options,
    .max_operands = 1,
    .run = run,
};
