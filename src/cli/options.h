/* options.h - every option of every command, in one table (option_table.c).
 *
 * Parsing, --help, the man page, bash completion and the environment variables FM_<NAME> all come from that table, so that they
 * cannot disagree.  A command lists the options it takes; a letter may mean different options in different commands.  Values
 * are looked up in this order: command line, environment, default.  The environment is read nowhere else. */
#ifndef FM_CLI_OPTIONS_H
#define FM_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "fmamba.h"

/* One row each in option_table.c, in the same order. */
typedef enum fm_opt {
    FM_OPT_HELP,
    FM_OPT_VERBOSE,
    FM_OPT_LOG,
    FM_OPT_COLOR,
    FM_OPT_MODEL,
    FM_OPT_MMAP,
    FM_OPT_MLOCK,
    FM_OPT_MIXER_RMS_EPS,
    FM_OPT_THREADS,
    FM_OPT_CPU,
    FM_OPT_DEVICE,
    FM_OPT_ACTIVATIONS,
    FM_OPT_INVARIANT,
    FM_OPT_STATES,
    FM_OPT_CHUNK,
    FM_OPT_CTX_SIZE,
    FM_OPT_PROMPT,
    FM_OPT_FILE,
    FM_OPT_IDS,
    FM_OPT_ESCAPE,
    FM_OPT_PARSE_SPECIAL,
    FM_OPT_ANY_BYTES,
    FM_OPT_JSON,
    FM_OPT_CSV,
    FM_OPT_OUT,
    FM_OPT_FORCE,
    FM_OPT_SEED,
    FM_OPT_TEMP,
    FM_OPT_TOP_K,
    FM_OPT_TOP_P,
    FM_OPT_MIN_P,
    FM_OPT_TYPICAL,
    FM_OPT_TOP_N_SIGMA,
    FM_OPT_XTC_PROBABILITY,
    FM_OPT_XTC_THRESHOLD,
    FM_OPT_REPEAT_PENALTY,
    FM_OPT_REPEAT_LAST_N,
    FM_OPT_PRESENCE_PENALTY,
    FM_OPT_FREQUENCY_PENALTY,
    FM_OPT_DRY_MULTIPLIER,
    FM_OPT_DRY_BASE,
    FM_OPT_DRY_ALLOWED_LENGTH,
    FM_OPT_DRY_PENALTY_LAST_N,
    FM_OPT_DRY_BREAKER,
    FM_OPT_DYNATEMP_RANGE,
    FM_OPT_DYNATEMP_EXP,
    FM_OPT_MIROSTAT,
    FM_OPT_MIROSTAT_LR,
    FM_OPT_MIROSTAT_ENT,
    FM_OPT_LOGIT_BIAS,
    FM_OPT_SAMPLERS,
    FM_OPT_MIN_TOKENS,
    FM_OPT_N_PREDICT,
    FM_OPT_IGNORE_EOS,
    FM_OPT_STOP,
    FM_OPT_SPECIAL,
    FM_OPT_ECHO,
    FM_OPT_CHOICES,
    FM_OPT_LOGPROBS,
    FM_OPT_STATE,
    FM_OPT_SAVE_STATE,
    FM_OPT_SPEC_TYPE,
    FM_OPT_DRAFT_MODEL,
    FM_OPT_DRAFT_MAX,
    FM_OPT_DRAFT_MIN,
    FM_OPT_DRAFT_ADAPT,
    FM_OPT_SYSTEM,
    FM_OPT_CHAT_TEMPLATE,
    FM_OPT_CONVERSATION,
    FM_OPT_SINGLE_TURN,
    FM_OPT_HIDDEN,
    FM_OPT_WINDOW,
    FM_OPT_RESET,
    FM_OPT_TENSORS,
    FM_OPT_TOKEN_TEXT,
    FM_OPT_STATE_TYPE,
    FM_OPT_MARK,
    FM_OPT_FLOAT_TYPE,
    FM_OPT_QUANT_TYPE,
    FM_OPT_SHARD_SIZE,
    FM_OPT_SHARD_TOKENS,
    FM_OPT_IMATRIX,
    FM_OPT_SHAPE,
    FM_OPT_NAME,
    FM_OPT_TOKENIZER,
    FM_OPT_BENCH_PROMPT,
    FM_OPT_BENCH_GEN,
    FM_OPT_BATCH,
    FM_OPT_SPEC_REPLAY,
    FM_OPT_REPEATS,
    FM_OPT_SET,
    FM_OPT_DECAY_FROM,
    FM_OPT_ESTIMATE,
    FM_OPT_EXPLAIN,
    FM_OPT_QUIET,
    FM_OPT_STATS_EVERY,
    FM_OPT_SWEEP,
    FM_OPT_SWEEP_NORMS,
    FM_OPT_VOCAB_SIZE,
    FM_OPT_SPECIAL_TOKEN,
    FM_OPT_PRETOKENIZER,
    FM_OPT_MIN_FREQUENCY,
    FM_OPT_ROOFLINE,
    FM_OPT_PEER,
    FM_OPT_PEER_BATCHED,
    FM_OPT_PEER_TIMEOUT,
    FM_OPT_MAN,
    FM_OPT_COMPLETION,
    FM_OPT_COUNT,
    FM_OPT_END = FM_OPT_COUNT /* ends a command's list */
} fm_opt;

/* What several commands share; a command's list is these and its own, then FM_OPT_END. */
#define FM_OPTS_COMMON FM_OPT_HELP, FM_OPT_VERBOSE, FM_OPT_LOG, FM_OPT_COLOR
#define FM_OPTS_MODEL  FM_OPT_MODEL, FM_OPT_MMAP, FM_OPT_MLOCK, FM_OPT_MIXER_RMS_EPS
#define FM_OPTS_ENGINE FM_OPT_THREADS, FM_OPT_CPU, FM_OPT_DEVICE, FM_OPT_ACTIVATIONS, FM_OPT_INVARIANT, FM_OPT_CHUNK
#define FM_OPTS_DRAFT  FM_OPT_SPEC_TYPE, FM_OPT_DRAFT_MODEL, FM_OPT_DRAFT_MAX, FM_OPT_DRAFT_MIN, FM_OPT_DRAFT_ADAPT
#define FM_OPTS_TEXT   FM_OPT_PROMPT, FM_OPT_FILE, FM_OPT_ESCAPE, FM_OPT_PARSE_SPECIAL, FM_OPT_ANY_BYTES
#define FM_OPTS_SAMPLING                                                                                                       \
    FM_OPT_SEED, FM_OPT_TEMP, FM_OPT_TOP_K, FM_OPT_TOP_P, FM_OPT_MIN_P, FM_OPT_TYPICAL, FM_OPT_TOP_N_SIGMA,                    \
        FM_OPT_XTC_PROBABILITY, FM_OPT_XTC_THRESHOLD, FM_OPT_REPEAT_PENALTY, FM_OPT_REPEAT_LAST_N, FM_OPT_PRESENCE_PENALTY,    \
        FM_OPT_FREQUENCY_PENALTY, FM_OPT_DRY_MULTIPLIER, FM_OPT_DRY_BASE, FM_OPT_DRY_ALLOWED_LENGTH,                           \
        FM_OPT_DRY_PENALTY_LAST_N, FM_OPT_DRY_BREAKER, FM_OPT_DYNATEMP_RANGE, FM_OPT_DYNATEMP_EXP, FM_OPT_MIROSTAT,            \
        FM_OPT_MIROSTAT_LR, FM_OPT_MIROSTAT_ENT, FM_OPT_LOGIT_BIAS, FM_OPT_SAMPLERS, FM_OPT_MIN_TOKENS

typedef enum fm_opt_kind {
    FM_OPT_FLAG, /* --x, --no-x, --x=on|off */
    FM_OPT_INT,
    FM_OPT_SEED_NUMBER, /* all of 64 bits; -1: as if it were not given */
    FM_OPT_FLOAT,
    FM_OPT_STRING,
    FM_OPT_PATH,
    FM_OPT_STRINGS /* may be given several times */
} fm_opt_kind;

/* One row of the table. */
typedef struct fm_option {
    const char *name;    /* long name, without dashes */
    const char *aliases; /* separated by blanks; one letter or several ("m", "ngl"), with one dash or two; may be NULL */
    fm_opt_kind kind;
    const char *value;    /* what to call the value in help: "N", "FILE"; for a choice the words: "f32|bf16" */
    const char *fallback; /* the default as text; NULL: unset */
    double min, max;      /* of numbers */
    const char *help;     /* one sentence, no full stop */
} fm_option;

typedef enum fm_opt_origin { FM_FROM_NOWHERE, FM_FROM_DEFAULT, FM_FROM_ENVIRONMENT, FM_FROM_COMMAND_LINE } fm_opt_origin;

typedef struct fm_opt_value {
    fm_opt_origin origin;
    bool flag;
    int64_t i;
    uint64_t u;
    double f;
    const char *s;
    const char **list; /* FM_OPT_STRINGS: n of them; s is the last one */
    size_t n;
} fm_opt_value;

#define FM_OPT_NOTES_MAX 16 /* more are accepted in silence */

/* The parsed command line. */
typedef struct fm_options {
    fm_opt_value v[FM_OPT_COUNT];
    const char **operands; /* what is not an option, in order */
    size_t n_operands;
    /* Options of llama.cpp that change nothing, as they were typed and with the reason. */
    struct {
        const char *arg, *why;
    } noted[FM_OPT_NOTES_MAX];
    size_t n_noted;
} fm_options;

const fm_option *fm_option_get(fm_opt id);
/* Is `id` in a command's list? */
bool fm_options_take(const fm_opt *list, fm_opt id);

/* Parses argv[0..argc) with the options of `list`, then the environment, then defaults.  Strings are argv's or the environment's.
 * Errors  FM_ERR_ARGUMENT with a sentence that suggests the nearest option; FM_ERR_MEMORY. */
fm_status fm_options_parse(fm_options *o, const fm_opt *list, int argc, char **argv, fm_error *err);
void fm_options_free(fm_options *o);

/* Values.  Unset numbers are 0, unset strings NULL, unset flags false. */
static inline bool fm_opt_flag(const fm_options *o, fm_opt id)
{
    return o->v[id].flag;
}
static inline int64_t fm_opt_int(const fm_options *o, fm_opt id)
{
    return o->v[id].i;
}
static inline uint64_t fm_opt_u64(const fm_options *o, fm_opt id)
{
    return o->v[id].u;
}
static inline double fm_opt_float(const fm_options *o, fm_opt id)
{
    return o->v[id].f;
}
static inline const char *fm_opt_str(const fm_options *o, fm_opt id)
{
    return o->v[id].s;
}
/* Given on the command line or in the environment. */
static inline bool fm_opt_given(const fm_options *o, fm_opt id)
{
    return o->v[id].origin >= FM_FROM_ENVIRONMENT;
}

/* The environment variable of an option ("FM_TOP_K"), in buf. */
const char *fm_option_variable(const fm_option *o, char *buf, size_t size);
/* Conventions of other programs: NO_COLOR, TERM, COLUMNS, HOME, EDITOR, XDG_*; NULL when unset or empty. */
const char *fm_environment(const char *name);

#endif
