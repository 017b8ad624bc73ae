/* block.h - a block (one layer's mixer with its norm and residual): weight table, state layout, forward.
 *
 * To add a mixer, write block/<name>.c exporting `const fm_block fm_block_<name>` and add a line to the list below.  The one
 * weight table drives loading, shape errors, saving, quantising, inspection: nothing about a tensor is written twice. */
#ifndef FM_MODEL_BLOCK_H
#define FM_MODEL_BLOCK_H

#include "base/arena.h"
#include "base/json.h"
#include "model/config.h"
#include "ops/backward.h"

typedef enum fm_weight_kind {
    FM_WEIGHT_MATRIX, /* (rows, cols) of any type, used as it lies in the file */
    FM_WEIGHT_SMALL,  /* f32 in memory: norms, biases, convolution, A */
    FM_WEIGHT_SMALL_T /* the same, transposed in memory: (cols, rows) */
} fm_weight_kind;

/* What a file stores differs from what the forward uses. */
typedef enum fm_weight_map {
    FM_MAP_NONE,
    FM_MAP_A /* HF stores A_log, GGUF stores A = -exp(A_log); memory holds A */
} fm_weight_map;

/* When a model has a tensor. */
typedef enum fm_presence { FM_ALWAYS, FM_WITH_BIAS, FM_WITH_CONV_BIAS, FM_MAYBE } fm_presence;

/* What a weight holds before training (spec training.md 3.1): uniform within 1 / sqrt(columns), unless said otherwise. */
typedef enum fm_init {
    FM_INIT_UNIFORM,
    FM_INIT_ONES,
    FM_INIT_ZEROS,
    FM_INIT_EMBEDDING, /* normal, sd 0.02 */
    FM_INIT_RESIDUAL,  /* uniform, divided by sqrt(n_layer): what is added to the residual stream */
    FM_INIT_A,         /* A_log of state n: log(n + 1) */
    FM_INIT_DT_BIAS    /* inverse softplus of a step drawn log-uniformly from 0.001 .. 0.1 */
} fm_init;

typedef enum fm_shard { FM_SHARD_NONE, FM_SHARD_ROWS, FM_SHARD_COLS, FM_SHARD_ROW_HALVES } fm_shard;

typedef struct fm_weight_def {
    const char *name;        /* ours, for messages and adapters: "in_proj" */
    const char *hf, *gguf;   /* names inside a layer (globals: whole names): "mixer.in_proj.weight", "ssm_in.weight" */
    const char *const *also; /* further HF spellings to accept, NULL-terminated; may be NULL */
    fm_dim rows, cols;       /* vectors: rows FM_DIM_1 */
    fm_weight_kind kind;
    fm_weight_map map;
    fm_shard shard;
    fm_presence presence;
    fm_init init;
} fm_weight_def;

/* What a configuration says about a weight: use_bias and use_conv_bias decide over biases. */
typedef enum fm_need { FM_NEEDED, FM_UNWANTED, FM_EITHER } fm_need;
fm_need fm_weight_needed(const fm_weight_def *def, const fm_config *c);

/* The shape of a weight in a Hugging Face file, slowest first; returns how many dimensions it has. */
unsigned fm_weight_dims(uint64_t dims[3], const fm_weight_def *def, const fm_config *c);

typedef struct fm_block fm_block;

/* One layer of a loaded model.  w[i] belongs to block->weights[i]; data is NULL for an optional weight that is absent. */
typedef struct fm_layer {
    const fm_block *block;
    fm_tensor *w;
    size_t state_offset; /* of this layer's memory in a sequence's state, in floats */
    size_t half_offset;  /* the same where states are bf16 */
    size_t first_weight; /* weights of the layers before this one */
} fm_layer;

/* Dropout of a training step (fm_dropout_args): p 0 is none. */
typedef struct fm_dropout {
    float p;
    uint64_t seed, step, first_row; /* of the rows of the batch */
} fm_dropout;

/* The stream of random numbers of a place in the step: 0 is the embedding, l + 1 layer l. */
static inline uint64_t fm_dropout_stream(const fm_dropout *d, size_t place)
{
    return d->step << 20 | place;
}

/* What a layer's scan works with, for whoever watches: rows of the step and the states after it. */
typedef struct fm_scan_view {
    fm_rows dt, B, C;     /* (T, d_inner) before bias and softplus; (T, d_state) each */
    const float *dt_bias; /* (d_inner) or NULL */
    fm_states h;          /* n_seq x (d_state, d_inner) */
} fm_scan_view;

typedef struct fm_scan_watcher {
    void (*look)(void *ctx, size_t layer, const fm_scan_view *v); /* by one worker while the others wait */
    void *ctx;
} fm_scan_watcher;

/* What a forward sees of the step: n_tokens rows, their sequences, one state pointer per sequence.  With `hold` the states stay
 * as they are; with a log what would have moved them is written there, of which a replay may take some. */
typedef struct fm_batch {
    const fm_config *config;
    const fm_ragged *ragged;
    float *const *state; /* (n_seq), start of each sequence's whole state */
    size_t n_tokens;
    bool hold;
    bool half;                      /* rows between the ops are bf16 (fm_rows_half()); never with a log */
    bool half_states;               /* what can be bf16 of a state is (fm_block.state_whole); never in training */
    float *log;                     /* (log_floats(log_tokens)) of this layer; NULL: none */
    size_t log_tokens;              /* room of the log */
    size_t log_first;               /* where a replay begins */
    const fm_scan_watcher *watcher; /* NULL: nobody watches */
    /* Training. */
    float *out; /* (n_tokens, d_model) where the layer's output goes, its input staying what it was; NULL: into the input */
    const fm_dropout *dropout; /* of what is added to the residual stream; NULL: none */
    size_t layer;              /* which layer runs: keys its dropout, told to the watcher */
    fm_arena *saved;           /* where the layer that runs keeps what its backward needs; NULL: inference */
} fm_batch;

/* What a backward is given: the batch of its forward, with `saved` as that left it. */
typedef struct fm_block_back {
    const fm_batch *batch;
    fm_rows x; /* (n_tokens, d_model) the layer's input, as its forward had it */
    float *const *g_w; /* (n_weights) gradients in the layout of the loaded weights, added to; NULL: not wanted */
    float *const
        *g_state;  /* (n_seq) gradient of the whole state: in, after the step; out, before it.  NULL: zero, not wanted */
    void *rounded; /* (n_tokens, d_model) as bf16: g_x once more, in and out; NULL: there is none */
    fm_arena scratch;
} fm_block_back;

struct fm_block {
    const fm_weight_def *weights;
    size_t n_weights;
    size_t (*state_floats)(const fm_config *c);
    size_t (*state_whole)(const fm_config *c); /* of these, from the first on, floats that are never bf16 */
    size_t (*log_floats)(const fm_config *c, size_t n_tokens);
    /* Scratch of a forward of `n_tokens` rows and `n_parts` workers, pushed on a measuring arena. */
    void (*scratch)(fm_arena *a, const fm_config *c, size_t n_tokens, unsigned n_parts);
    /* x (n_tokens, d_model), the residual stream, in and (without b->out) out.  Runs on every worker; `scratch` is placed anew by
     * each. */
    void (*forward)(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_arena scratch, fm_rows x);
    /* Moves the states of one sequence by n_tokens of the log, to the bits that a forward gives.  Reads no matrix and needs no
     * barrier. */
    void (*replay)(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_arena scratch);
    /* Training.  What a forward keeps, pushed on a measuring arena; scratch of a backward; and the backward itself, with g_x the
     * gradient of the layer's output in and of its input out.  n_states: sequences whose states move; 0 with `hold`.  What a pass
     * of fewer tokens keeps takes no more, though it may be f32 where this is `half`. */
    void (*saved)(fm_arena *a, const fm_config *c, size_t n_tokens, size_t n_states, unsigned n_parts, bool half);
    void (*back_scratch)(fm_arena *a, const fm_kernels *k, const fm_config *c, size_t n_tokens, unsigned n_parts, bool half);
    void (*backward)(const fm_ctx *c, const fm_layer *l, const fm_block_back *b, fm_rows g_x);
};

/* FM_INIT_DT_BIAS of u in [0, 1): the inverse of softplus at a step drawn log-uniformly from 0.001 .. 0.1. */
float fm_init_dt_bias(double u);

/* Floats of a layer's state where what can be bf16 is. */
size_t fm_block_half_floats(const fm_block *block, const fm_config *c);

/* The mixers, which architectures name. */
extern const fm_block fm_block_mamba;

#endif
