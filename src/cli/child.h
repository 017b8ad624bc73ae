/* child.h - another program, run to its end without a shell: what it prints is collected, its time is bounded. */
#ifndef FM_CLI_CHILD_H
#define FM_CLI_CHILD_H

#include "cli/common.h"

/* Words of a command line, n of them, then NULL; the text of all lies in `text`. */
typedef struct fm_cli_words {
    char **v;
    size_t n, cap;
    fm_str text;
} fm_cli_words;

/* Splits as a shell would and does nothing else a shell does: blanks separate, '...' and "..." and \ quote, and no character
 * means a variable, a pattern, a pipe or a second command.  FM_ERR_ARGUMENT for an open quote. */
fm_status fm_cli_words_split(fm_cli_words *w, const char *command, fm_error *err);
fm_status fm_cli_words_add(fm_cli_words *w, const char *word, fm_error *err);
/* Does a word equal one of these, of which there are NULL-terminated many? */
bool fm_cli_words_have(const fm_cli_words *w, const char *const *options);
void fm_cli_words_free(fm_cli_words *w);

/* Runs v[0], found through PATH, with stdin empty; its stdout is appended to `out`.  Errors, each with the end of what the child
 * wrote to stderr: FM_ERR_IO when it cannot be started, fails, is killed or runs longer than timeout_s (its process group is then
 * killed); FM_ERR_LIMIT when it prints without end; FM_ERR_CANCELLED on Ctrl-C. */
fm_status fm_cli_child_run(fm_str *out, const fm_cli_words *w, double timeout_s, fm_error *err);

#endif
