/* model.h - a loaded model: read-only weights that every session shares.
 *
 * The loader fills everything but the parts that belong to text (tokenizer, chat template, generation defaults), which the
 * runtime attaches; they are kept here so that one object owns all. */
#ifndef FM_MODEL_MODEL_H
#define FM_MODEL_MODEL_H

#include <pthread.h>

#include "model/arch/arch.h"
#include "ops/device.h"

/* The model's name by content: computed at the first call, by whichever thread asks first. */
typedef struct fm_identity {
    pthread_mutex_t lock;
    char text[65]; /* empty until asked for */
} fm_identity;

struct fm_model {
    fm_allocator allocator_copy;
    const fm_allocator *a; /* &allocator_copy, or NULL for malloc */
    fm_source source;
    const fm_arch *arch;
    fm_config config;
    fm_tensor globals[FM_GLOBAL_COUNT]; /* the head is the embedding when tied */
    fm_layer *layers;                   /* (n_layer) */
    bool head_differs;                  /* from the embedding, though the configuration ties them: it is used */
    size_t state_floats;                /* of one sequence, all layers */
    size_t half_state_floats;           /* the same where states are bf16 */
    void *memory;                       /* one block: layers, weight lists, small tensors in f32 */
    fm_device *device;                  /* where the weights are; NULL: the CPU */
    void *device_memory;                /* all of them, there */
    fm_tensor *on_host;                 /* on a device: every weight as it still lies on the host, for whoever reads it there */
    char *name;
    fm_identity *identity;
    fm_tensor_info *tensors; /* as the file lists them */
    fm_str tensor_names;

    /* Attached by the runtime. */
    struct fm_tokenizer *tokenizer;
    char *chat_template;
    int32_t eos[FM_EOS_MAX];
    size_t n_eos;
    float default_temperature, default_top_p; /* -1: not stated */
    int default_top_k;
};

/* Opens and checks, on the CPU; nothing of text.  Errors as fm_model_open(). */
fm_status fm_model_load(fm_model **out, const char *path, const fm_model_options *o, fm_error *err);
void fm_model_unload(fm_model *m); /* without the runtime's parts */

/* Opens o->device, which may be the CPU; takes the weights there; what they take there. */
fm_status fm_model_open_device(fm_model *m, const fm_model_options *o, fm_error *err);
fm_status fm_model_to_device(fm_model *m, const fm_model_options *o, fm_error *err);
fm_status fm_model_device_bytes(const fm_model *m, size_t *bytes, fm_error *err);

/* What passes over a model run with: the kernels of its device and the one thread that launches them, else those of a CPU as far
 * as `cpu` lets it (fm_cpu_cap()) and so many threads, 0 becoming all. */
fm_status fm_model_kernels(const fm_model *m, const char *cpu, fm_kernels *k, unsigned *threads, fm_error *err);

fm_status fm_model_list_tensors(fm_model *m, fm_error *err); /* tensors.c: fills m->tensors */

/* The same type, shape and bytes. */
bool fm_model_same_matrix(const fm_tensor *a, const fm_tensor *b);

/* Every weight of the model in the order of its tables: globals, then layer by layer. */
typedef struct fm_model_weight {
    const fm_weight_def *def;
    const fm_tensor *loaded; /* as the forward uses it, there; data NULL when absent */
    const fm_tensor *read;   /* the same where the host can read it */
    bool global;
    size_t layer;
} fm_model_weight;

size_t fm_model_weight_count(const fm_model *m);
fm_model_weight fm_model_weight_at(const fm_model *m, size_t i);
/* The name of a weight in this kind of file, and the tensor as it lies in the model's own source. */
void fm_model_weight_name(const fm_model_weight *w, fm_source_kind kind, fm_str *out);
fm_status fm_model_weight_source(const fm_model *m, const fm_model_weight *w, fm_source_tensor *out, bool *found,
                                 fm_error *err);

/* Reads every weight and names the first tensor that holds a NaN or an infinity (FM_ERR_FORMAT). */
fm_status fm_model_check(const fm_model *m, fm_error *err);

/* ---- The step ---- */

/* What a run of tokens of one sequence brings into a batch. */
typedef struct fm_piece {
    const int32_t *tokens;   /* (n), or NULL with embeddings */
    const float *embeddings; /* (n, d_model) */
    size_t n;
    float *state;  /* the sequence's, read and written */
    uint32_t seen; /* its tokens before these, modulo 2^32; states in bf16 round by it */
} fm_piece;

/* A sequence's state with all that can be bf16 (fm_forward.half_states), from f32, to nearest even; and back, where it lies. */
void fm_state_narrow(const fm_model *m, float *out, const float *state);
void fm_state_widen(const fm_model *m, float *state);

#define FM_LOGIT_ROWS        ((size_t)32) /* rows of logits computed at once */
#define FM_LOGIT_ROWS_DEVICE ((size_t)256)

/* Whether rows between the ops of a step of n tokens are bf16: on a device, unless activations are to be f32 or the tokens are
 * few; products that write such rows have no bias. */
bool fm_rows_half(const fm_model *m, const fm_kernels *k, size_t n_tokens);

/* What becomes of the rows of logits. */
typedef enum fm_outcome { FM_OUT_LOGITS, FM_OUT_LIKELIEST, FM_OUT_DRAWN } fm_outcome;

/* Recorded steps of a session (ops/device.h), by tokens, rows of logits and what becomes of those. */
typedef struct fm_graphs {
    struct {
        size_t n_tokens, n_out, steps;
        fm_outcome outcome;
        fm_graph *graph;
    } slots[16];
    size_t next; /* to be thrown out */
} fm_graphs;

/* The place of such a step's graph from its second time on; NULL at the first. */
fm_graph **fm_graphs_find(fm_graphs *g, size_t n_tokens, size_t n_out, fm_outcome outcome);
void fm_graphs_free(fm_graphs *g);

/* Everything one pass over the layers needs.  The caller owns all pointers. */
typedef struct fm_forward {
    const fm_model *m;
    const fm_kernels *k;
    fm_pool *pool;
    const fm_piece *pieces;
    size_t n_pieces;
    const size_t *out_rows; /* (n_out) which of the step's rows want logits, ascending */
    size_t n_out;
    /* Called by one worker while the others wait: rows (n, vocab) of logits of out_rows[first ...]. */
    void (*on_logits)(void *ctx, size_t first, size_t n, const float *rows);
    /* On a device, instead: an id of each row comes to the host, drawn as draws (n_out) say, the likeliest where that is NULL;
     * turned (~id) where a logit of the row is not finite.  `rows` stay there, until those of the next call.  NULL: logits do. */
    void (*on_ids)(void *ctx, size_t first, size_t n, const int32_t *ids, const float *rows);
    const fm_draw *draws;
    /* All rows (n_tokens, d_model): 0 the embedding, k after k blocks, n_layer + 1 after the final norm; NULL when not wanted. */
    void (*on_hidden)(void *ctx, size_t layer, size_t n, const float *rows);
    const fm_scan_watcher *watcher; /* of every layer's scan, whose rows lie where the model is; NULL: none */
    bool (*cancel)(void *ctx);      /* asked before each layer; NULL: cannot be cancelled */
    void *ctx;
    bool half_states;  /* on a device: pieces' states are as fm_state_narrow() makes them */
    float *log;        /* not NULL: states are held, and what would move them is written here (fm_log_floats()) */
    size_t log_tokens; /* for which the log has room */
    void *host;        /* on a device: fm_forward_host_bytes() of its locked memory on the host */
    size_t host_bytes;
    fm_graphs *graphs; /* on a device: where recorded steps are kept; NULL: none are */
} fm_forward;

/* Scratch for passes of at most n_tokens rows of n_seq sequences; 0 on overflow. */
size_t fm_forward_bytes(const fm_model *m, const fm_kernels *k, size_t n_tokens, size_t n_seq, unsigned n_threads);
size_t fm_forward_host_bytes(const fm_model *m, const fm_kernels *k, size_t n_tokens, size_t n_seq);
/* What the device's products and their libraries take beside it; the scratch of products, before the first pass. */
size_t fm_forward_work_bytes(const fm_model *m, size_t n_tokens);
fm_status fm_forward_reserve(const fm_model *m, size_t n_tokens, fm_error *err);
/* Runs the pass on all threads of the pool, or on the model's device, where scratch lies then.  FM_ERR_CANCELLED, without a
 * message: states are part way through the layers.  FM_ERR_DEVICE: they are lost. */
fm_status fm_forward_run(const fm_forward *f, void *scratch, size_t scratch_bytes, fm_error *err);

/* Floats of a log of so many tokens of one sequence, all layers: about 4 MiB a token for 7B.  0 on overflow. */
size_t fm_log_floats(const fm_model *m, size_t n_tokens);
/* Moves the state of f->pieces[0] by its n tokens, whose inputs are in the log from token `first` on: to the bits that a pass
 * gives, without reading a matrix.  Scratch as for fm_forward_run(). */
void fm_forward_replay(const fm_forward *f, size_t first, void *scratch, size_t scratch_bytes);

/* ---- Training ---- */

#define FM_LOSS_ROWS ((size_t)256) /* rows of logits whose loss is computed at once */

/* Loss of a ragged step and its gradient with respect to every weight.  The caller owns all pointers. */
typedef struct fm_backward {
    const fm_model *m;
    const fm_kernels *k;
    fm_pool *pool;
    const fm_piece *pieces; /* states move as in a forward */
    size_t n_pieces;
    bool forget;               /* every piece begins at zero and its end is forgotten: pieces have no states */
    const int32_t *targets;    /* (T) the id that each row should predict; negative: not scored */
    float scale;               /* of each scored token's loss: 1 / their number in the whole batch */
    float z_loss;              /* weight of lse^2; 0 for none */
    const fm_dropout *dropout; /* of the embedding and of what each layer adds; NULL: none */
    bool recompute;            /* keep only the input of each layer and run it again: less memory, the same bits */
    float *const *g; /* gradient of fm_model_weight_at(i) in its layout in memory, added to; NULL where there is no weight */
    float *const *g_state; /* (n_pieces) gradient of a sequence's state: in, after the step; out, before.  NULL: zero */
    float *loss;           /* (T) out */
    bool states_only;      /* only move the states, as the forward does: no loss, no gradients */
} fm_backward;

/* Memory of passes like `like`, of at most n_tokens tokens and like->n_pieces pieces; on the model's device where it has one. */
typedef struct fm_pass {
    void *scratch, *host;
    size_t scratch_bytes, host_bytes;
    fm_device *device;
    const fm_allocator *a;
} fm_pass;

size_t fm_pass_bytes(const fm_backward *like, size_t n_tokens); /* 0 on overflow */
/* What the device's products and their libraries take beside it; 0 on the CPU. */
size_t fm_pass_work_bytes(const fm_backward *like, size_t n_tokens);
fm_status fm_pass_open(fm_pass *p, const fm_backward *like, size_t n_tokens, const fm_allocator *a, fm_error *err);
void fm_pass_free(fm_pass *p);
/* On a device weights, gradients and states are there; tokens, targets and loss are the host's.  FM_ERR_DEVICE: all is lost. */
fm_status fm_pass_run(fm_pass *p, const fm_backward *b, fm_error *err);

#endif
