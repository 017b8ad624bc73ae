/* jinja.h - the bounded subset of Jinja that chat templates use.  Spec server.md section C, "Chat templates".
 *
 * A template is parsed once and rendered many times.  Values come from JSON text.  Every byte of the output carries a taint bit:
 * set when it came from a value (message contents), clear when the template itself wrote it, so that only the template's own
 * text can form special tokens.  Limits: FM_JINJA_STEPS_MAX steps, FM_JINJA_DEPTH_MAX nested calls and values,
 * FM_JINJA_OUTPUT_MAX bytes of output, FM_JINJA_MEMORY_MAX bytes of values. */
#ifndef FM_TEXT_JINJA_H
#define FM_TEXT_JINJA_H

#include "base/str.h"

#define FM_JINJA_STEPS_MAX  1000000
#define FM_JINJA_DEPTH_MAX  64
#define FM_JINJA_OUTPUT_MAX ((size_t)4 << 20)
#define FM_JINJA_MEMORY_MAX ((size_t)64 << 20)

typedef struct fm_jinja fm_jinja;

/* A run of output bytes with the same taint. */
typedef struct fm_jinja_run {
    size_t n;
    bool tainted;
} fm_jinja_run;

typedef struct fm_jinja_output {
    fm_str text;
    fm_jinja_run *runs; /* n_runs, their lengths add up to text.n */
    size_t n_runs, cap_runs;
} fm_jinja_output;

/* trim_blocks and lstrip_blocks are on and keep_trailing_newline off, as transformers sets them.
 * Errors  FM_ERR_FORMAT with line and column and what was expected; FM_ERR_UNSUPPORTED names a construct outside the subset. */
fm_status fm_jinja_parse(fm_jinja **out, fm_view source, const fm_allocator *a, fm_error *err);
void fm_jinja_free(fm_jinja *t);

/* Renders with the variables of a JSON object.  Strings of the top-level variables listed in `trusted` (n_trusted names, for
 * example bos_token) are not tainted; all others are.  raise_exception() gives FM_ERR_FORMAT with its message.  A
 * limit reached gives FM_ERR_LIMIT with its number.  Threads: a template may be rendered by several at once. */
fm_status fm_jinja_render(const fm_jinja *t, fm_view variables_json, const char *const *trusted, size_t n_trusted,
                          fm_jinja_output *out, fm_error *err);
void fm_jinja_output_free(fm_jinja_output *out);

#endif
