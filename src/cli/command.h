/* command.h - what a command is.  To add one: write cmd_<name>.c, and one line in the list of commands.c. */
#ifndef FM_CLI_COMMAND_H
#define FM_CLI_COMMAND_H

#include "base/str.h"
#include "cli/options.h"

/* Exit codes of the program. */
enum { FM_EXIT_OK = 0, FM_EXIT_FAILURE = 1, FM_EXIT_USAGE = 2 };

typedef struct fm_command fm_command;

/* What a command is run with. */
typedef struct fm_cli {
    const fm_command *command;
    fm_options options;
    const char *const *operands; /* options.operands */
    size_t n_operands;
} fm_cli;

struct fm_command {
    const char *name;
    const char *summary;   /* one line, no full stop */
    const char *usage;     /* after "fmamba NAME ": "IN OUT [options]" */
    const char *details;   /* paragraphs for --help and the man page; NULL: none */
    const char *verbs;     /* words its first operand may be, separated by blanks ("create append"); NULL: not a verb */
    const fm_opt *options; /* ends with FM_OPT_END */
    size_t min_operands, max_operands;
    int (*run)(const fm_cli *c); /* gives an exit code */
};

/* All commands in the order of help; NULL ends the list. */
extern const fm_command *const fm_commands[];

const fm_command *fm_command_find(const char *name); /* NULL: none */
/* Prints "no such command" with the nearest one; gives FM_EXIT_USAGE. */
int fm_command_unknown(const char *name);

/* help.c: derived from the tables. */
void fm_help_overview(fm_str *out);
void fm_help_command(fm_str *out, const fm_command *c);
void fm_help_man(fm_str *out);
void fm_help_completion(fm_str *out);

#endif
