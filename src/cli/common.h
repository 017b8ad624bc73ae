/* common.h - what commands share: opening models and sessions as the options say, reading text and ids, talking to people.
 *
 * Failures inside a command are fm_status + fm_error as in the library; the command ends with `return fm_cli_fail(&err)`. */
#ifndef FM_CLI_COMMON_H
#define FM_CLI_COMMON_H

#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"

/* ---- Talking (terminal.c).  Results go to stdout, everything else to stderr. ---- */

int fm_cli_fail(const fm_error *err);                                    /* "fmamba: sentence"; gives FM_EXIT_FAILURE */
int fm_cli_usage(const fm_cli *c, const char *fmt, ...) FM_PRINTF(2, 3); /* and where help is; gives FM_EXIT_USAGE */
void fm_cli_note(const char *fmt, ...) FM_PRINTF(1, 2);                  /* "fmamba: note: ..." */
void fm_cli_log(void *ctx, const char *line); /* an fm_log_fn; ctx is the fm_cli: --verbose and --log decide */

/* Writes and releases s.  fm_cli_finish() flushes stdout; both give FM_EXIT_FAILURE, with a sentence, when it cannot be
 * written. */
int fm_cli_put(fm_str *s);
int fm_cli_finish(int code);

bool fm_cli_is_terminal(int fd);
/* From here on f is bold ("1"), dim ("2") or as usual ("0"): at a terminal only, and not with NO_COLOR, TERM=dumb, --no-color. */
void fm_cli_style(const fm_cli *c, FILE *f, const char *style);

/* A progress bar on stderr, only at a terminal.  fm_cli_progress is an fm_progress_fn whose ctx is the bar: false on Ctrl-C. */
typedef struct fm_cli_bar {
    const char *label;
    bool on;
    int drawn; /* permille drawn, -1 nothing yet */
} fm_cli_bar;

fm_cli_bar fm_cli_bar_begin(const char *label);
bool fm_cli_progress(void *bar, double fraction);
void fm_cli_bar_end(fm_cli_bar *bar); /* removes it */

/* Ctrl-C, SIGTERM and SIGHUP: after fm_cli_catch_interrupt() the first one sets a flag, the second one kills the program. */
void fm_cli_catch_interrupt(void);
bool fm_cli_release_interrupt(void);   /* the first one kills it again; gives whether they were caught */
void fm_cli_hold_interrupt(void);      /* they are caught again; what came before is not forgotten */
bool fm_cli_terminated(void);          /* it was not Ctrl-C: that flag stays */
bool fm_cli_interrupted(void *unused); /* an fm_session_options.cancel */
void fm_cli_clear_interrupt(void);

/* ---- Models and sessions (engine.c) ---- */

/* The path of the model: -m or FM_MODEL, else the one that ships: beside the program or below the data directory. */
fm_status fm_cli_model_path(fm_str *out, const fm_cli *c, fm_error *err);
fm_status fm_cli_shipped_path(fm_str *out, fm_error *err);
/* Opens it with --no-mmap, --mlock, --mixer-rms-eps, --device and room there for n_seq sequences, a bar meanwhile. */
fm_status fm_cli_model_open(fm_model **out, const fm_cli *c, size_t n_seq, fm_error *err);
/* The same of a file that is no user's choice. */
fm_status fm_cli_model_open_path(fm_model **out, const fm_cli *c, const char *path, size_t n_seq, fm_error *err);
/* With -t, --cpu, --chunk; cancelled by Ctrl-C. */
fm_session_options fm_cli_session_options(const fm_cli *c, size_t n_seq);
fm_status fm_cli_session_open(fm_session **out, const fm_model *m, const fm_cli *c, size_t n_seq, fm_error *err);
/* At a terminal or with --verbose: version, model, kernel table, threads; with `p` also the seed and sampling defaults.  On a GPU
 * also the memory that it takes there. */
void fm_cli_start_line(const fm_cli *c, const fm_model *m, const fm_session *s, const fm_sampling *p);
/* FM_ERR_LIMIT when `tokens` are more than the guard -c allows. */
fm_status fm_cli_check_guard(const fm_cli *c, uint64_t tokens, fm_error *err);
/* Tokens to generate after `seen` ones: -n, else `most`, as far as the guard leaves room.  -1: until it ends. */
int64_t fm_cli_predict(const fm_cli *c, int64_t most, uint64_t seen);
/* The tokenizer of the model, or FM_ERR_UNSUPPORTED saying that text needs one. */
fm_status fm_cli_tokenizer(const fm_tokenizer **out, const fm_cli *c, const fm_model *m, fm_error *err);
fm_status fm_cli_no_tokenizer(const fm_cli *c, fm_error *err); /* that failure: its sentence says why there is none */

/* One open model and session, for commands that need both. */
typedef struct fm_cli_engine {
    fm_model *model;
    fm_session *session;
    fm_seq seq; /* one sequence at the beginning of time */
} fm_cli_engine;

fm_status fm_cli_engine_open(fm_cli_engine *e, const fm_cli *c, fm_error *err);
void fm_cli_engine_close(fm_cli_engine *e); /* a zeroed one is fine */

/* ---- Drafts (draft.c) ---- */

typedef struct fm_cli_draft {
    fm_model *model; /* NULL: none */
    fm_draft *draft; /* NULL: plain decoding */
} fm_cli_draft;

/* What --spec-type and its companions ask for; nothing in commands without them. */
fm_status fm_cli_draft_open(fm_cli_draft *out, const fm_cli *c, const fm_model *target, fm_error *err);
void fm_cli_draft_close(fm_cli_draft *d);
size_t fm_cli_draft_max(const fm_cli *c); /* what the session must have room for; 0: no drafts */
fm_draft_options fm_cli_draft_options(const fm_cli *c);

void fm_cli_print_drafts(const fm_generated *end); /* a line on stderr */

/* "bench --spec-replay" (bench_spec.c): drafts beside plain decoding on a given text. */
int fm_cli_bench_spec(const fm_cli *c, const fm_model *m); /* an exit code */

/* ---- Input (input.c) ---- */

/* Where text comes from: the sources are --ids, -p, -f, else stdin ("-f -" too). */
typedef struct fm_cli_input {
    int32_t *ids; /* n of them, owned */
    size_t n;
    fm_str text;   /* what was tokenised */
    bool has_text; /* false: ids were given */
} fm_cli_input;

/* Was -p, -f or --ids given (in the environment or on the command line)? */
bool fm_cli_input_given(const fm_cli *c);
/* How many of them the command line has: more than one is a mistake. */
size_t fm_cli_input_count(const fm_cli *c);
/* Text of -p (escapes resolved with -e), -f or stdin.  FM_ERR_FORMAT where it is not UTF-8, unless --any-bytes. */
fm_status fm_cli_read_text(fm_str *out, const fm_cli *c, fm_error *err);
/* Ids of --ids, or of the text.  `t` may be NULL when ids are given; `begin`: at the beginning of a sequence, where BOS may
 * stand. Ids must be below `vocab` (0: not checked).  FM_ERR_ARGUMENT when there are none. */
fm_status fm_cli_read_input(fm_cli_input *in, const fm_cli *c, const fm_tokenizer *t, bool begin, size_t vocab, fm_error *err);
void fm_cli_input_free(fm_cli_input *in);

/* "1,2,3" or "[1, 2, 3]", or the path of a file with integers separated by commas or blanks, or a JSON array; "-" reads stdin. */
fm_status fm_cli_parse_ids(int32_t **ids, size_t *n, const char *text, fm_error *err);
/* fm_tokenize() into fresh memory (fm_free(NULL, ids)). */
fm_status fm_cli_tokenize(int32_t **ids, size_t *n, const fm_tokenizer *t, fm_view text, unsigned flags, fm_error *err);
/* Appends the text of ids to out, special tokens shown when `special`; bytes as they are, which may not be UTF-8. */
void fm_cli_detokenize(fm_str *out, const fm_tokenizer *t, const int32_t *ids, size_t n, bool special);
/* Resolves \n \t \r \\ \" \' \0 \xHH \uHHHH; anything else stays. */
void fm_cli_unescape(fm_str *out, const char *text);
/* "512" or "128,512,1024" into out (at most room): how many, or 0 when it is not that. */
size_t fm_cli_int_list(const char *text, size_t *out, size_t room);

/* ---- Sampling (sampling.c) ---- */

/* fm_sampling points into the lists here, so keep it in place. */
typedef struct fm_cli_sampling {
    fm_sampling p;
    fm_logit_bias *biases;
    const int32_t *eos; /* the model's; none with --ignore-eos */
    size_t n_eos;
    bool noted; /* where tokens are chosen */
} fm_cli_sampling;

/* The model's defaults with the options over them; a random seed when none is given. */
fm_status fm_cli_sampling_read(fm_cli_sampling *out, const fm_cli *c, const fm_model *m, fm_error *err);
void fm_cli_sampling_free(fm_cli_sampling *s);
/* Says once why the logits of a GPU come to the host, where they do. */
void fm_cli_note_host(fm_cli_sampling *s, const fm_model *m, const fm_sampler *sampler, const fm_generation *g);
const char *fm_cli_stop_name(fm_stop stop); /* "eos", "stop", "length", "cancelled" */

/* ---- States (engine.c) ---- */

/* Loads a state file into seq of e; with *mark (may be NULL) the earlier one it holds, or NULL.  --force where the command
 * has it. */
fm_status fm_cli_state_load(fm_cli_engine *e, const fm_cli *c, const char *path, fm_state **mark, fm_error *err);

#endif
