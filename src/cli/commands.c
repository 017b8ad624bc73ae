/* commands.c - the list of commands.  A new one is a file cmd_<name>.c and a line here. */
#include <string.h>

#include "cli/common.h"

#define FM_COMMANDS(X)                                                                                                         \
    X(run)                                                                                                                     \
    X(generate)                                                                                                                \
    X(tokenize)                                                                                                                \
    X(detokenize)                                                                                                              \
    X(logits)                                                                                                                  \
    X(perplexity)                                                                                                              \
    X(gradients)                                                                                                               \
    X(train)                                                                                                                   \
    X(train_tokenizer)                                                                                                         \
    X(shard)                                                                                                                   \
    X(plot)                                                                                                                    \
    X(inspect)                                                                                                                 \
    X(state)                                                                                                                   \
    X(convert)                                                                                                                 \
    X(quantize)                                                                                                                \
    X(synth)                                                                                                                   \
    X(bench)                                                                                                                   \
    X(version)                                                                                                                 \
    X(help)

#define X(name) extern const fm_command fm_command_##name;
FM_COMMANDS(X)
#undef X

const fm_command *const fm_commands[] = {
#define X(name) &fm_command_##name,
    FM_COMMANDS(X)
#undef X
        NULL,
};

const fm_command *fm_command_find(const char *name)
{
    for (size_t i = 0; fm_commands[i]; i++)
        if (strcmp(fm_commands[i]->name, name) == 0) return fm_commands[i];
    return NULL;
}

int fm_command_unknown(const char *name)
{
    const char *names[FM_COUNT(fm_commands)];
    size_t n = 0;
    while (fm_commands[n]) names[n] = fm_commands[n]->name, n++;
    const char *near = fm_nearest(name, names, n);
    fm_error err;
    if (near)
        fm_fail(&err, FM_ERR_ARGUMENT, "there is no command '%s': did you mean '%s'?", name, near);
    else
        fm_fail(&err, FM_ERR_ARGUMENT, "there is no command '%s': see 'fmamba help'", name);
    fm_cli_fail(&err);
    return FM_EXIT_USAGE;
}
