/* forward.c - one pass over the layers for a ragged chunk of tokens, run by all workers together.
 *
 * The layers live in block/; here are the embedding before them, the final norm and the head after them, and the points where a
 * pass can be watched or cancelled. */
#include <string.h>

#include "model/model.h"

/* Memory of a pass.  Everything is shared between the workers. */
typedef struct space {
    float *x;      /* (T, d_model) the residual stream */
    float *normed; /* (T, d_model) after the final norm, when somebody watches; else the rows that want logits */
    float *logits; /* (FM_LOGIT_ROWS, vocab) */
    size_t *begin; /* (n_pieces + 1) */
    float **state; /* (n_pieces) */
    void *packed;
    size_t packed_bytes;
    fm_arena blocks; /* what is left: scratch of the layer that runs */
} space;

typedef struct job {
    const fm_forward *f;
    size_t T;
    space s;
    fm_ragged ragged;
    fm_batch batch;
    bool cancelled; /* written by worker 0 between barriers */
} job;

/* ---- Memory ---- */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t product_bytes(const fm_tensor *W, const fm_kernels *k, size_t T, unsigned n_parts)
{
    const size_t bytes = fm_op_packed_bytes(k, W, T, n_parts);
    return bytes ? bytes : SIZE_MAX;
}

/* Packed inputs of any product; saturates on overflow. */
static size_t packed_bytes(const fm_model *m, const fm_kernels *k, size_t T, unsigned n_parts)
{
    size_t most = product_bytes(&m->globals[FM_GLOBAL_HEAD], k, T < FM_LOGIT_ROWS ? T : FM_LOGIT_ROWS, n_parts);
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_layer *layer = &m->layers[l];
        for (size_t i = 0; i < layer->block->n_weights; i++)
            if (layer->block->weights[i].kind == FM_WEIGHT_MATRIX)
                most = max_size(most, product_bytes(&layer->w[i], k, T, n_parts));
    }
    return most;
}

static size_t block_bytes(const fm_model *m, size_t T, unsigned n_parts)
{
    size_t most = 0;
    for (size_t l = 0; l < m->config.n_layer; l++) {
        fm_arena a = {0};
        m->layers[l].block->scratch(&a, &m->config, T, n_parts);
        most = max_size(most, a.used);
    }
    return most;
}

static space place(fm_arena *a, const fm_model *m, const fm_kernels *k, size_t T, size_t n_seq, unsigned n_parts)
{
    space s;
    s.x = FM_PUSH(a, float, T * m->config.d_model);
    s.normed = FM_PUSH(a, float, fm_op_rows_count(max_size(T, FM_LOGIT_ROWS), n_parts) * m->config.d_model);
    s.logits = FM_PUSH(a, float, FM_LOGIT_ROWS * m->config.vocab);
    s.begin = FM_PUSH(a, size_t, n_seq + 1);
    s.state = FM_PUSH(a, float *, n_seq);
    s.packed_bytes = packed_bytes(m, k, T, n_parts);
    s.packed = fm_arena_push(a, s.packed_bytes, 1);
    const size_t bytes = block_bytes(m, T, n_parts);
    s.blocks = (fm_arena){.base = fm_arena_push(a, bytes, 1), .size = bytes};
    return s;
}

size_t fm_forward_bytes(const fm_model *m, const fm_kernels *k, size_t n_tokens, size_t n_seq, unsigned n_threads)
{
    fm_arena a = {0};
    place(&a, m, k, n_tokens, n_seq, n_threads);
    return a.used == SIZE_MAX ? 0 : a.used;
}

size_t fm_log_floats(const fm_model *m, size_t n_tokens)
{
    size_t n = 0;
    for (size_t l = 0; l < m->config.n_layer; l++)
        if (!fm_add(n, m->layers[l].block->log_floats(&m->config, n_tokens), &n)) return 0;
    return n;
}

/* The step as layer l sees it; *log goes from layer to layer. */
static fm_batch layer_batch(const job *j, size_t l, float **log)
{
    fm_batch b = j->batch;
    b.log = *log;
    if (*log) *log += j->f->m->layers[l].block->log_floats(b.config, b.log_tokens);
    return b;
}

/* ---- The pass ---- */

/* Residual stream before layer 0: embedding rows, or rows the caller brings. */
static void embed(const fm_ctx *c, const job *j)
{
    const fm_model *m = j->f->m;
    const size_t d = m->config.d_model;
    for (size_t i = 0; i < j->f->n_pieces; i++) {
        const fm_piece *p = &j->f->pieces[i];
        const fm_rows x = fm_rows_of(j->s.x + j->s.begin[i] * d, p->n, d);
        if (p->tokens) {
            fm_op_embed(c, x, &m->globals[FM_GLOBAL_EMBED], p->tokens);
        } else {
            if (c->run.part == 0) memcpy(x.p, p->embeddings, p->n * d * sizeof(float));
            fm_op_meet(c);
        }
    }
}

/* Worker 0 asks, everybody obeys. */
static bool cancelled(const fm_ctx *c, job *j)
{
    if (!j->f->cancel) return false;
    if (c->run.part == 0) j->cancelled = j->f->cancel(j->f->ctx);
    fm_op_meet(c);
    const bool stop = j->cancelled;
    fm_op_meet(c);
    return stop;
}

static void watch(const fm_ctx *c, const job *j, size_t layer, const float *rows)
{
    if (!j->f->on_hidden) return;
    if (c->run.part == 0) j->f->on_hidden(j->f->ctx, layer, j->T, rows);
    fm_op_meet(c);
}

/* Logits of the rows that want them, a few rows at a time. */
static void head(const fm_ctx *c, const job *j)
{
    const fm_forward *f = j->f;
    const fm_model *m = f->m;
    const size_t d = m->config.d_model, vocab = m->config.vocab;
    const fm_rows x = fm_rows_of(j->s.x, j->T, d);
    for (size_t first = 0; first < f->n_out; first += FM_LOGIT_ROWS) {
        const size_t n = f->n_out - first < FM_LOGIT_ROWS ? f->n_out - first : FM_LOGIT_ROWS;
        const fm_rows normed = fm_op_rows(c, j->s.normed, n, d);
        fm_op_gather(c, normed, x, f->out_rows + first);
        fm_op_rmsnorm(c, normed, normed, m->globals[FM_GLOBAL_NORM].data, m->config.norm_eps);
        const fm_packed packed = fm_op_pack_rows(c, normed, &m->globals[FM_GLOBAL_HEAD]);
        fm_op_linear(c, fm_rows_of(j->s.logits, n, vocab), packed, &m->globals[FM_GLOBAL_HEAD], NULL);
        if (c->run.part == 0) f->on_logits(f->ctx, first, n, j->s.logits);
        fm_op_meet(c);
    }
}

static void watch_last(const fm_ctx *c, const job *j)
{
    const fm_model *m = j->f->m;
    if (!j->f->on_hidden) return;
    watch(c, j, m->config.n_layer, j->s.x);
    const fm_rows x = fm_rows_of(j->s.x, j->T, m->config.d_model), normed = fm_op_rows(c, j->s.normed, j->T, m->config.d_model);
    fm_op_rmsnorm(c, normed, x, m->globals[FM_GLOBAL_NORM].data, m->config.norm_eps);
    fm_op_meet_rows(c, j->T);
    watch(c, j, m->config.n_layer + 1, normed.p);
}

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    job *j = ctx;
    const fm_model *m = j->f->m;
    const fm_ctx c = {.k = j->f->k,
                      .pool = j->f->pool,
                      .run = {.part = part, .n_parts = n_parts},
                      .packed = j->s.packed,
                      .packed_bytes = j->s.packed_bytes};
    const fm_rows x = fm_rows_of(j->s.x, j->T, m->config.d_model);
    float *log = j->f->log;
    embed(&c, j);
    for (size_t l = 0; l < m->config.n_layer; l++) {
        if (cancelled(&c, j)) return;
        watch(&c, j, l, j->s.x);
        const fm_batch batch = layer_batch(j, l, &log);
        m->layers[l].block->forward(&c, &m->layers[l], &batch, j->s.blocks, x);
    }
    watch_last(&c, j);
    head(&c, j);
}

/* The states follow the log, layer by layer; a worker's channels are its own all the way. */
static void work_replay(void *ctx, unsigned part, unsigned n_parts)
{
    const job *j = ctx;
    const fm_model *m = j->f->m;
    const fm_ctx c = {.k = j->f->k, .pool = j->f->pool, .run = {.part = part, .n_parts = n_parts}};
    float *log = j->f->log;
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_batch batch = layer_batch(j, l, &log);
        m->layers[l].block->replay(&c, &m->layers[l], &batch, j->s.blocks);
    }
}

/* `j` stays in place. */
static void begin(job *j, const fm_forward *f, void *scratch, size_t scratch_bytes)
{
    fm_arena a = {.base = scratch, .size = scratch_bytes};
    *j = (job){.f = f};
    for (size_t i = 0; i < f->n_pieces; i++) j->T += f->pieces[i].n;
    j->s = place(&a, f->m, f->k, j->T, f->n_pieces, fm_pool_threads(f->pool));
    size_t longest = 0;
    for (size_t i = 0, at = 0; i < f->n_pieces; i++) {
        longest = max_size(longest, f->pieces[i].n);
        j->s.begin[i] = at;
        j->s.state[i] = f->pieces[i].state;
        at += f->pieces[i].n;
        j->s.begin[i + 1] = at;
    }
    j->ragged = (fm_ragged){f->n_pieces, j->s.begin, j->T, longest};
    j->batch = (fm_batch){
        .config = &f->m->config, .ragged = &j->ragged, .state = j->s.state, .n_tokens = j->T, .log_tokens = f->log_tokens};
}

bool fm_forward_run(const fm_forward *f, void *scratch, size_t scratch_bytes)
{
    job j;
    begin(&j, f, scratch, scratch_bytes);
    j.batch.hold = f->log != NULL;
    fm_pool_run(f->pool, work, &j);
    return !j.cancelled;
}

void fm_forward_replay(const fm_forward *f, size_t first, void *scratch, size_t scratch_bytes)
{
    job j;
    begin(&j, f, scratch, scratch_bytes);
    j.batch.log_first = first;
    fm_pool_run(f->pool, work_replay, &j);
}
