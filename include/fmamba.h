/* fmamba.h - run Mamba language models (Falcon Mamba 7B and its relatives), with the recurrent state as an object of its own.
 *
 * fm_model      read-only weights; share one between threads and sessions freely (on a GPU, see fm_model_open()).
 * fm_session    sequences in time: their recurrent states, last logits and all scratch memory; one thread at a time.
 * fm_seq        a handle to one sequence of a session, never an array position; a stale handle is an error, not a crash.
 * fm_state      a detached snapshot of a sequence: save it, load it, put it into any session of the same model.
 * fm_tokenizer  text to ids and back; belongs to a model, or opened alone from a vocabulary file; read-only.
 * fm_sampler    from logits to a token.   fm_chat: from messages to a prompt.   fm_generate(): the loop around all of them.
 *
 * The promise that the rest is built on: the logits of a token are the same bits whether it came by decode or by prefill, in
 * any chunking, in any batch, from a live, forked or restored state, with any number of threads (one kernel table assumed).
 *
 * Calls that can fail return fm_status and fill *err (which may be NULL) with one sentence that says what was expected, what
 * was found and what to do.  Unless said otherwise a failed call changes nothing and sets its outputs to NULL or 0.
 * The library never prints, never exits, never reads the environment, and allocates only through the allocator it is given (but
 * for what a GPU's driver and queue keep); fm_step() and sampling allocate nothing.  All sizes are in bytes, all ids are int32_t,
 * all floats IEEE binary32.
 * "x_free(NULL)" is always fine.  Structs are plain data: zero-initialise them, zero means the default; only fm_sampling, whose
 * numbers all mean something at 0, begins with fm_sampling_defaults(). */
#ifndef FMAMBA_H
#define FMAMBA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0

#if defined(__GNUC__)
#define FM_API __attribute__((visibility("default")))
#else
#define FM_API
#endif

/* ---- Errors ---------------------------------------------------------------------------------------------------------- */

typedef enum fm_status {
    FM_OK = 0,
    FM_ERR_ARGUMENT = -1,    /* a call that the contract does not allow */
    FM_ERR_IO = -2,          /* a file or directory could not be opened, read, written */
    FM_ERR_FORMAT = -3,      /* bytes that are not what they claim to be: cut off, altered, not valid */
    FM_ERR_SHAPE = -4,       /* a tensor is missing, extra, or of another shape than the configuration says */
    FM_ERR_UNSUPPORTED = -5, /* well-formed, but nothing this version can use */
    FM_ERR_MEMORY = -6,      /* an allocation failed */
    FM_ERR_LIMIT = -7,       /* a number beyond its bound: token id, batch, sequence count */
    FM_ERR_CANCELLED = -8,   /* the caller's callback said stop */
    FM_ERR_MISMATCH = -9,    /* a state of another model or quantisation */
    FM_ERR_DEVICE = -10      /* no such device, a driver too old, or a device lost on the way */
} fm_status;

typedef struct fm_error {
    fm_status code;
    char text[640]; /* terminated; empty when code is FM_OK */
} fm_error;

FM_API const char *fm_version(void);                 /* "0.1.0" */
FM_API const char *fm_status_name(fm_status status); /* "FM_ERR_IO" */

/* ---- Common options --------------------------------------------------------------------------------------------------- */

/* alloc returns at least `bytes` bytes aligned to `align` (a power of two <= 4096), or NULL; free gets what alloc gave. */
typedef struct fm_allocator {
    void *(*alloc)(void *ctx, size_t bytes, size_t align);
    void (*free)(void *ctx, void *p);
    void *ctx;
} fm_allocator;

/* Called now and then with a fraction done in [0, 1]; returns false to cancel (the call then fails with FM_ERR_CANCELLED). */
typedef bool (*fm_progress_fn)(void *ctx, double fraction);

/* One line, no newline: something worth telling that is not an error. */
typedef void (*fm_log_fn)(void *ctx, const char *line);

/* ---- Model ------------------------------------------------------------------------------------------------------------- */

typedef struct fm_model fm_model;
typedef struct fm_session_options fm_session_options;

typedef struct fm_model_options {
    const fm_allocator *allocator; /* NULL: malloc */
    bool no_mmap;                  /* read the weights into anonymous memory instead of mapping the file */
    bool mlock;                    /* pin the weights in memory */
    bool no_tokenizer;             /* do not look for one: everything that takes ids works without */
    float mixer_rms_eps;           /* > 0 overrides the epsilon of the norms on dt, B, C (spec: falcon-mamba.md 2.1 step 8) */
    const char *device;            /* NULL or "cpu"; "cuda" (most free memory), "cuda:N", "auto": cuda where there is one */
    bool f32_activations;          /* on a GPU: activations enter products in f32, without TF32; default bf16 */
    bool invariant;                /* on a GPU: a token's bits do not depend on how many tokens a step has (slower) */
    const fm_session_options *session; /* on a GPU: the largest to come, without room for which nothing is loaded */
    fm_progress_fn progress;           /* with no_mmap or a GPU: how much was read */
    fm_log_fn log;
    void *ctx; /* of progress and log */
} fm_model_options;

/* Opens a Hugging Face directory (config.json, *.safetensors) or a GGUF file (the first part of a split one).  Mapping a file
 * reads only its headers and its one-dimensional tensors, so a 7B model opens in milliseconds.
 * With a device the weights are copied there, and sessions of this model run there, on one queue: of all threads that have
 * sessions of it, one at a time may be in a call on one of them.
 * Errors  FM_ERR_IO, FM_ERR_FORMAT, FM_ERR_SHAPE, FM_ERR_UNSUPPORTED, FM_ERR_MEMORY, FM_ERR_CANCELLED, FM_ERR_DEVICE.
 * Owner   the caller, fm_model_free(); a model must outlive its sessions. */
FM_API fm_status fm_model_open(fm_model **out, const char *path, const fm_model_options *options, fm_error *err);
FM_API void fm_model_free(fm_model *m);

/* What a model is.  Strings are valid as long as the model.  Shapes as the checkpoint names them. */
typedef struct fm_model_info {
    const char *arch;          /* "falcon_mamba", "mamba" */
    const char *name;          /* from the file, or the last part of its path */
    const char *format, *type; /* "gguf" or "safetensors"; type of most matrices: "Q4_K", "BF16" ... */
    size_t d_model, d_inner, d_state, d_conv, dt_rank, n_layer, vocab;
    size_t n_params, weight_bytes, state_bytes; /* state_bytes: of one sequence, fp32 */
    size_t trained_length;                      /* reported, never enforced; 0 when unknown */
    float norm_eps, mixer_rms_eps;              /* mixer_rms_eps 0 when the architecture has no such norms */
    const char *mixer_rms_eps_source;           /* where that number came from, for people */
    bool tied_head;
} fm_model_info;

FM_API fm_model_info fm_model_get_info(const fm_model *m);
FM_API const char *fm_model_device(const fm_model *m); /* "cpu", or what the driver calls the GPU */

typedef struct fm_tensor_info {
    const char *name, *type; /* name as in the file */
    size_t n_dims, dims[4];  /* slowest first, as PyTorch prints a shape */
    size_t bytes;
} fm_tensor_info;

FM_API size_t fm_model_tensor_count(const fm_model *m);
FM_API fm_tensor_info fm_model_tensor(const fm_model *m, size_t i); /* i < count, else all zero */

/* SHA-256 over configuration, tensor table, all small tensors and the first 4 KiB of each matrix, as 64 hex digits.  Computed at
 * the first call and kept.  Threads: safe. */
FM_API fm_status fm_model_id(const fm_model *m, char out[65], fm_error *err);

/* Sampling defaults that came with the model (generation_config.json): -1 where it says nothing. */
typedef struct fm_generation_defaults {
    float temperature, top_p;
    int top_k;
    const int32_t *eos; /* ids that end a generation, n_eos of them */
    size_t n_eos;
} fm_generation_defaults;

FM_API fm_generation_defaults fm_model_generation_defaults(const fm_model *m);

/* ---- Tokenizer ------------------------------------------------------------------------------------------------------- */

typedef struct fm_tokenizer fm_tokenizer;

/* From a GGUF file (vocabulary-only files too, of any architecture), a tokenizer.json, or a directory with one. */
FM_API fm_status fm_tokenizer_open(fm_tokenizer **out, const char *path, const fm_allocator *a, fm_error *err);
FM_API void fm_tokenizer_free(fm_tokenizer *t);                   /* not for one that belongs to a model */
FM_API const fm_tokenizer *fm_model_tokenizer(const fm_model *m); /* NULL when the model came without one */

enum { FM_PARSE_SPECIAL = 1, FM_ADD_SPECIAL = 2 }; /* text of special tokens becomes those tokens; BOS/EOS as the model asks */

/* Ids of n bytes of text (any bytes: what is not valid UTF-8 is encoded byte by byte).  *n_ids: in, room in ids; out, how many
 * there are.  ids may be NULL to count.  FM_ERR_LIMIT when the room is too small (*n_ids then says what is needed). */
FM_API fm_status fm_tokenize(const fm_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t *ids, size_t *n_ids,
                             fm_error *err);

/* The bytes of one token (not terminated, may be part of a UTF-8 sequence), valid as long as t.  Special tokens give their text
 * when `special`, else nothing.  An id out of range gives nothing. */
FM_API const char *fm_token_text(const fm_tokenizer *t, int32_t id, bool special, size_t *n);
FM_API size_t fm_tokenizer_vocab(const fm_tokenizer *t);
FM_API int32_t fm_tokenizer_bos(const fm_tokenizer *t); /* -1: none */
FM_API int32_t fm_tokenizer_eos(const fm_tokenizer *t);
FM_API int32_t fm_tokenizer_find(const fm_tokenizer *t, const char *text); /* id of exactly this token, or -1 */
FM_API bool fm_tokenizer_is_special(const fm_tokenizer *t, int32_t id);

/* ---- Session, sequences, steps --------------------------------------------------------------------------------------- */

typedef struct fm_session fm_session;
typedef struct fm_sampler fm_sampler;
typedef uint64_t fm_seq; /* 0 is never a sequence */

struct fm_session_options {
    const fm_allocator *allocator; /* NULL: malloc */
    size_t n_seq;                  /* sequences at once, default 1 */
    size_t chunk;                  /* most tokens computed at once, default 512; a longer step is cut, with the same bits */
    size_t draft_max; /* room to check drafts of up to so many tokens (at most 64) in fm_generate(); default none */
    unsigned threads; /* default: the CPUs this process may use */
    const char *cpu;  /* kernel table: NULL or "auto", "ref", "avx2", "avx512", "avx512+vnni", "avx512+vnni+bf16",
                                      "avx512+vnni+amx", "neon", "neon+dotprod" */
    bool bf16_states; /* on a GPU only: states are bf16 from token to token, half the memory (docs/gpu.md); default f32 */
    bool (*cancel)(void *ctx); /* asked between layers of chunks longer than one token, and before each chunk */
    void *ctx;
};

/* Exactly the bytes fm_session_open() allocates for these options, all it will ever allocate; 0 when they overflow. */
FM_API size_t fm_session_bytes(const fm_model *m, const fm_session_options *options);
FM_API fm_status fm_session_open(fm_session **out, const fm_model *m, const fm_session_options *options, fm_error *err);
FM_API void fm_session_free(fm_session *s);
FM_API const char *fm_session_kernels(const fm_session *s); /* "avx512+vnni" */
FM_API unsigned fm_session_threads(const fm_session *s);

/* A new sequence at the beginning of time (zero state).  FM_ERR_LIMIT when all n_seq are in use. */
FM_API fm_status fm_seq_new(fm_session *s, fm_seq *out, fm_error *err);
FM_API void fm_seq_free(fm_session *s, fm_seq seq);
/* A copy that goes its own way: O(state), whatever the number of tokens behind it. */
FM_API fm_status fm_seq_fork(fm_session *s, fm_seq from, fm_seq *out, fm_error *err);
/* Remembers this point of the sequence; rewind returns to it (to the beginning when there is no mark).  A sequence has one
 * mark; for more, fork. */
FM_API fm_status fm_seq_mark(fm_session *s, fm_seq seq, fm_error *err);
FM_API fm_status fm_seq_rewind(fm_session *s, fm_seq seq, fm_error *err);
FM_API fm_status fm_seq_reset(fm_session *s, fm_seq seq, fm_error *err); /* back to the beginning, mark forgotten */
FM_API uint64_t fm_seq_tokens(const fm_session *s, fm_seq seq);          /* tokens seen; 0 for a stale handle */

typedef enum fm_want {
    FM_WANT_LAST = 0,  /* logits of the span's last token, read with fm_seq_logits() */
    FM_WANT_NONE,      /* only the state moves; the sequence has no logits afterwards */
    FM_WANT_ALL,       /* logits of every token, delivered to on_logits; the last token's are kept too */
    FM_WANT_LIKELIEST, /* the id with the largest logit after the last token, the lowest of equals */
    FM_WANT_CHOSEN     /* the id that the span's sampler chooses after the last token, which it is to have accepted */
} fm_want;

/* One sequence's part of a step: n tokens to append to it.  A sequence may appear once per step.
 * Of spans that want an id the logits stay where they are, on a GPU: it chooses where it can (fm_sampler_host_reason()), and
 * fm_seq_logits() fetches them only when it is called.  A step of more than 256 such spans keeps none there. */
typedef struct fm_span {
    fm_seq seq;
    const int32_t *tokens;   /* (n), or NULL when embeddings are given */
    const float *embeddings; /* (n, d_model) instead of tokens */
    size_t n;                /* > 0 */
    bool reset;              /* start this sequence anew before its first token: a document boundary */
    fm_want want;
    /* Rows (n_rows, vocab) of the tokens first .. first + n_rows - 1 of this span; chunk by chunk, in order. */
    void (*on_logits)(void *ctx, size_t first, size_t n_rows, const float *rows);
    /* Rows (n_rows, d_model): layer 0 is the embedding, layer k = 1 .. n_layer the residual stream after k blocks, layer
     * n_layer + 1 is after the final norm.  (transformers' output_hidden_states of Mamba models are layers 1 .. n_layer + 1.) */
    void (*on_hidden)(void *ctx, size_t layer, size_t first, size_t n_rows, const float *rows);
    void *ctx;
    int32_t *id;         /* FM_WANT_LIKELIEST, FM_WANT_CHOSEN: where it goes */
    fm_sampler *sampler; /* FM_WANT_CHOSEN: as fm_sampler_choose() with this choice, the position being the tokens seen */
    uint64_t choice;
} fm_span;

/* Runs one step: each span appends its tokens to its sequence and yields what it asks for.  Ragged: spans may differ in length,
 * nothing is padded.  Cost is linear in the tokens and independent of what came before.  Allocates nothing.
 * Errors  FM_ERR_LIMIT (token id out of range), FM_ERR_ARGUMENT (stale or repeated sequence, n = 0): nothing was changed.
 *         FM_ERR_CANCELLED: every sequence stands where its last finished chunk left it (fm_seq_tokens() says where).
 *         FM_ERR_FORMAT (a logit is not a finite number: the weights are damaged), FM_ERR_DEVICE (it was lost): sequences may
 *         have moved; rewind, reset or free them. */
FM_API fm_status fm_step(fm_session *s, const fm_span *spans, size_t n_spans, fm_error *err);

/* Appends tokens to one sequence: fm_step() with one span that wants the last logits. */
FM_API fm_status fm_seq_append(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err);

/* Logits (vocab) after the sequence's last token, or NULL when it has none.  Valid until the sequence changes. */
FM_API const float *fm_seq_logits(const fm_session *s, fm_seq seq);

/* ---- States ------------------------------------------------------------------------------------------------------------ */

typedef struct fm_state fm_state;

/* Snapshot of a sequence (recurrent memory, tokens seen, last logits).  Computes the model's id if nobody has yet. */
FM_API fm_status fm_state_take(fm_state **out, fm_session *s, fm_seq seq, fm_error *err);
/* Makes a sequence what the snapshot was.  FM_ERR_MISMATCH when it is of another model; `force` accepts the same shapes in
 * another quantisation. */
FM_API fm_status fm_state_put(fm_session *s, fm_seq seq, const fm_state *st, bool force, fm_error *err);
FM_API void fm_state_free(fm_state *st);

typedef enum fm_state_type { FM_STATE_F32 = 0, FM_STATE_BF16 = 1 } fm_state_type; /* fp32 keeps the bits; bf16 does not */

/* Writes beside the target, syncs, renames.  `mark` (may be NULL) is an earlier snapshot to rewind to, kept in the same file. */
FM_API fm_status fm_state_save(const fm_state *st, const fm_state *mark, const char *path, fm_state_type type, fm_error *err);
/* Reads and checks the file: FM_ERR_FORMAT when cut off or altered.  *mark (may be NULL) gets the snapshot to rewind to, or
 * NULL.  Layout: docs/formats/state.md. */
FM_API fm_status fm_state_load(fm_state **out, fm_state **mark, const char *path, const fm_allocator *a, fm_error *err);

typedef struct fm_state_info {
    char model_id[65];
    const char *model_name, *arch, *weight_type; /* valid as long as the state */
    uint64_t tokens;
    fm_state_type type; /* as it was stored */
    size_t state_bytes, vocab;
    bool has_logits;
} fm_state_info;

FM_API fm_state_info fm_state_get_info(const fm_state *st);

/* ---- Sampling ------------------------------------------------------------------------------------------------------------ */

typedef struct fm_logit_bias {
    int32_t id;
    float bias; /* -INFINITY bans */
} fm_logit_bias;

/* Definitions and ranges: docs/sampling.md.  Fill with fm_sampling_defaults(), then change. */
typedef struct fm_sampling {
    uint64_t seed;
    /* Ordered, separated by ';'; NULL: "bias;penalties;dry;temperature;top_n_sigma;min_p;top_k;typical;top_p;xtc". */
    const char *samplers;
    float temperature; /* 0: the likeliest token, lowest id on ties */
    float dynatemp_range, dynatemp_exponent;
    int top_k;
    float top_p, min_p, typical_p, top_n_sigma;
    float xtc_probability, xtc_threshold;
    float repeat_penalty, presence_penalty, frequency_penalty;
    int repeat_last_n; /* window of repeat_penalty: 0 none, -1 everything */
    float dry_multiplier, dry_base;
    int dry_allowed_length, dry_penalty_last_n;
    const char *const *dry_breakers; /* n_dry_breakers strings; NULL: \n : " * */
    size_t n_dry_breakers;
    int mirostat; /* 0 off, 1 or 2 */
    float mirostat_tau, mirostat_eta;
    const fm_logit_bias *biases;
    size_t n_biases;
    const int32_t *allowed; /* when n_allowed > 0 only these ids */
    size_t n_allowed;
    size_t min_tokens; /* no end-of-generation token before so many */
} fm_sampling;

/* Temperature 0.8, top_p 0.95, everything else off; a model's own defaults replace them (m may be NULL). */
FM_API fm_sampling fm_sampling_defaults(const fm_model *m);

/* Copies what it needs from `p`.  `t` (may be NULL) shows DRY where the breakers are; with DRY on it must outlive the sampler. */
FM_API fm_status fm_sampler_open(fm_sampler **out, const fm_sampling *p, size_t vocab, const fm_tokenizer *t,
                                 const fm_allocator *a, fm_error *err);
FM_API void fm_sampler_free(fm_sampler *s);
FM_API void fm_sampler_set_eos(fm_sampler *s, const int32_t *eos, size_t n_eos); /* what min_tokens masks; up to 16 are kept */
FM_API void fm_sampler_reset(fm_sampler *s);
/* Tells the sampler of a token it did not choose: `prompt` for prompt tokens, which penalties of generated text ignore. */
FM_API void fm_sampler_accept(fm_sampler *s, int32_t id, bool prompt);
/* Chooses from logits (vocab), which stay as they are.  Random numbers are a function of (seed, choice, position) only.  Does not
 * accept the token.  Allocates nothing. */
FM_API int32_t fm_sampler_choose(fm_sampler *s, const float *logits, uint64_t choice, uint64_t position);
/* What a GPU lacks for this sampler's choices ("penalties"), so that the logits of each token come to the host; NULL: nothing, as
 * it has temperature, min_p, top_k and top_p in this order. */
FM_API const char *fm_sampler_host_reason(const fm_sampler *s);
/* log-softmax of raw logits at id, computed in double; never NaN: a logit that is no number counts as -INFINITY. */
FM_API double fm_logprob(const float *logits, size_t vocab, int32_t id);

/* ---- Drafts -------------------------------------------------------------------------------------------------------------- */

/* Speculative decoding: something cheap guesses the next tokens, and the model checks all guesses in one step, which costs little
 * more than a step of one token where decoding is bound by memory.  Those that the sampler would have chosen anyway are kept.
 * The promise at the top of this file, and random numbers that depend on the position only, make the outcome exactly that without
 * drafts: ids, log-probabilities, state and sampler, for any sampling; only the time differs.  docs/speculative.md. */
typedef struct fm_draft fm_draft;

typedef struct fm_draft_options {
    const fm_allocator *allocator;
    size_t max, min;             /* tokens guessed at once, default 15 and 1; also bounded by the session's draft_max */
    size_t ngram_max, ngram_min; /* guesses follow the last place where the last 5 .. 2 (defaults; 1 .. 16) tokens stood */
    size_t history;              /* tokens looked back, default 65536 */
    bool no_ngram;               /* only the model guesses */
    const fm_model *model;       /* a smaller model of the same vocabulary that guesses where nothing was found; NULL: none */
    unsigned threads;            /* of its session, as in fm_session_options */
    const char *cpu;
    bool fixed; /* always try `max` guesses, instead of as many as their record and the measured times of steps say pays */
} fm_draft_options;

/* For one sequence of `target` at a time; the draft model must outlive it.  Takes all its memory here.
 * Errors  FM_ERR_MISMATCH: the draft model has another vocabulary; FM_ERR_ARGUMENT, FM_ERR_LIMIT, FM_ERR_MEMORY. */
FM_API fm_status fm_draft_open(fm_draft **out, const fm_model *target, const fm_draft_options *options, fm_error *err);
FM_API void fm_draft_free(fm_draft *d);
/* Tells what the sequence has seen (its prompt, say), to be called before fm_generate(), which goes on from there.  What these n
 * ids share with the history is not read again.  Nothing but speed depends on it. */
FM_API fm_status fm_draft_begin(fm_draft *d, const int32_t *ids, size_t n, fm_error *err);

/* ---- Generation ---------------------------------------------------------------------------------------------------------- */

typedef enum fm_stop { FM_STOP_LENGTH = 0, FM_STOP_EOS, FM_STOP_STRING, FM_STOP_CANCELLED } fm_stop;

/* One token.  At the end there may be one more event, with id -1, for text that was held back. */
typedef struct fm_token_event {
    int32_t id;
    uint64_t i; /* 0 for the first generated token */
    size_t choice;
    double logprob;         /* of the raw logits; only when n_top > 0 or want_logprob */
    const int32_t *top_ids; /* the n_top likeliest, best first */
    const double *top_logprobs;
    size_t n_top;
    const char *text; /* text that became certain with this token: whole UTF-8, no part of a stop string */
    size_t text_n;
} fm_token_event;

typedef struct fm_generation {
    size_t n;                      /* most tokens to generate; 0: until it stops */
    const fm_tokenizer *tokenizer; /* NULL: ids only, no text, and stop strings are refused */
    const char *const *stops;      /* n_stops strings that end the text and are left out of it */
    size_t n_stops;
    const int32_t *eos; /* n_eos ids that end it */
    size_t n_eos;
    bool ignore_eos, special; /* special: show special tokens in the text */
    bool want_logprob;
    size_t n_top;    /* 0..20 alternatives per token */
    size_t choice;   /* keys the random numbers: the same seed gives each choice its own text */
    fm_draft *draft; /* NULL: plain decoding; else the session needs draft_max */
    bool (*on_token)(void *ctx, const fm_token_event *e); /* false stops it; may be NULL */
    void *ctx;
    const fm_allocator *allocator;
} fm_generation;

typedef struct fm_generated {
    fm_stop stop;
    size_t n;                   /* tokens generated, the one that ended it not counted */
    size_t stop_string;         /* which, with FM_STOP_STRING */
    uint64_t drafted, accepted; /* guesses that were checked, and that came true */
} fm_generated;

/* Continues `seq` from its logits, token by token.  The end token is not appended to the sequence; every token given to on_token
 * is, also when it is the last or the session's `cancel`, asked before each choice, stops what follows.
 * n choices of one prompt: fork the sequence and call this once per fork with its own `choice`. */
FM_API fm_status fm_generate(fm_session *s, fm_seq seq, fm_sampler *sampler, const fm_generation *g, fm_generated *out,
                             fm_error *err);

/* ---- Chat ------------------------------------------------------------------------------------------------------------------ */

typedef struct fm_message {
    const char *role;    /* "system", "user", "assistant", ... */
    const char *content; /* never parsed for special tokens */
} fm_message;

typedef struct fm_chat fm_chat;

FM_API const char *fm_model_chat_template(const fm_model *m); /* the model's own, as it came; NULL: none */

/* A template (Jinja subset, docs/chat-templates.md).  `source` NULL: the model's own, else ChatML.  Names of built-in ones:
 * "chatml", "falcon3". */
FM_API fm_status fm_chat_open(fm_chat **out, const fm_model *m, const char *source, fm_error *err);
FM_API void fm_chat_free(fm_chat *c);
/* Ids of the rendered prompt; as fm_tokenize() for *n_ids.  Only the template's own text may form special tokens. */
FM_API fm_status fm_chat_tokenize(const fm_chat *c, const fm_message *messages, size_t n, bool generation_prompt, int32_t *ids,
                                  size_t *n_ids, fm_error *err);
/* The rendered text, terminated, to be released with fm_text_free(). */
FM_API fm_status fm_chat_render(const fm_chat *c, const fm_message *messages, size_t n, bool generation_prompt, char **out,
                                fm_error *err);
FM_API void fm_text_free(char *text);

#ifdef __cplusplus
}
#endif
#endif
