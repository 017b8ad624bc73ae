/* forward.c - one pass over the layers for a ragged chunk of tokens, run by all workers together.
 *
 * The layers live in block/; here are the embedding before them, the final norm and the head after them, and the points where a
 * pass can be watched or cancelled. */
#include <string.h>

#include "model/pass.h"

/* The lists that kernels read. */
typedef struct tables {
    fm_lists in;
    size_t *out_rows; /* (T) */
    fm_draw *draws;   /* (T) of these rows, on a device */
    size_t bytes;     /* of all, from in.ids on */
} tables;

/* Memory of a pass.  Everything is shared between the workers. */
typedef struct space {
    float *x;      /* (T, d_model) the residual stream */
    float *normed; /* (T, d_model) after the final norm, when somebody watches; else the rows that want logits */
    float *logits; /* (logit_rows, vocab) */
    int32_t *ids;  /* (logit_rows) one of each, on a device */
    tables t;
    void *packed;
    size_t packed_bytes;
    fm_arena blocks; /* what is left: scratch of the layer that runs */
    /* The host's side: the same as t on the CPU, and no rows. */
    tables host;
    float *rows; /* room for logits or hidden states on their way to the caller */
    int32_t *host_ids;
} space;

typedef struct job {
    const fm_forward *f;
    size_t T;
    space s;
    fm_ragged ragged;
    fm_batch batch;
    bool embeddings; /* some piece brings them */
    bool queued;     /* the caller fetches the logits: nothing may wait */
    bool cancelled;  /* written by worker 0 between barriers */
} job;

bool fm_rows_half(const fm_model *m, const fm_kernels *k, size_t n_tokens)
{
    const size_t d[] = {m->config.d_inner, m->config.d_model};
    if (m->config.use_bias || !k->half) return false;
    for (size_t w = 0; w < fm_model_weight_count(m); w++) {
        const fm_model_weight weight = fm_model_weight_at(m, w);
        if (weight.global || weight.def->kind != FM_WEIGHT_MATRIX) continue;
        for (size_t i = 0; i < FM_COUNT(d); i++)
            if (!fm_op_half(k, m->device, weight.loaded->type, n_tokens, d[i])) return false;
    }
    return true;
}

/* ---- Memory ---- */

/* Rows of logits computed at once: a device does better with many, and those that it never computes cost it memory. */
static size_t logit_rows(const fm_model *m, size_t T)
{
    return m->device ? (T < FM_LOGIT_ROWS_DEVICE ? T : FM_LOGIT_ROWS_DEVICE) : FM_LOGIT_ROWS;
}

static size_t block_bytes(const fm_model *m, size_t T, unsigned n_parts)
{
    size_t most = 0;
    for (size_t l = 0; l < m->config.n_layer; l++) {
        fm_arena a = {0};
        m->layers[l].block->scratch(&a, &m->config, T, n_parts);
        most = fm_max(most, a.used);
    }
    return most;
}

static tables place_tables(fm_arena *a, size_t T, size_t n_seq, bool device)
{
    const size_t before = a->used;
    tables t = {.in = fm_lists_place(a, T, n_seq)};
    t.out_rows = FM_PUSH(a, size_t, T);
    if (device) t.draws = FM_PUSH(a, fm_draw, T);
    t.bytes = a->used - before;
    return t;
}

/* `host` is where the host's side goes, for a pass on a device. */
static space place(fm_arena *a, fm_arena *host, const fm_model *m, fm_extent e)
{
    const size_t T = e.T, rows = logit_rows(m, T);
    space s;
    s.x = FM_PUSH(a, float, T * m->config.d_model);
    s.normed = FM_PUSH(a, float, fm_op_rows_count(fm_max(T, rows), e.n_parts) * m->config.d_model);
    s.logits = FM_PUSH(a, float, rows * m->config.vocab);
    s.ids = m->device ? FM_PUSH(a, int32_t, rows) : NULL;
    s.t = place_tables(a, T, e.n_pieces, m->device);
    s.packed_bytes = fm_packed_most(m, &e, rows, fm_op_packed_bytes);
    s.packed = fm_arena_push(a, s.packed_bytes, 1);
    const size_t bytes = block_bytes(m, T, e.n_parts);
    s.blocks = (fm_arena){.base = fm_arena_push(a, bytes, 1), .size = bytes};
    s.host = m->device ? place_tables(host, T, e.n_pieces, true) : s.t;
    s.rows = m->device ? FM_PUSH(host, float, fm_max(rows * m->config.vocab, T * m->config.d_model)) : NULL;
    s.host_ids = m->device ? FM_PUSH(host, int32_t, rows) : NULL;
    return s;
}

size_t fm_forward_bytes(const fm_model *m, const fm_kernels *k, size_t n_tokens, size_t n_seq, unsigned n_threads)
{
    fm_arena a = {0}, host = {0};
    place(&a, &host, m, (fm_extent){k, n_tokens, n_seq, n_threads});
    return a.used == SIZE_MAX ? 0 : a.used;
}

size_t fm_forward_host_bytes(const fm_model *m, const fm_kernels *k, size_t n_tokens, size_t n_seq)
{
    fm_arena a = {0}, host = {0};
    place(&a, &host, m, (fm_extent){k, n_tokens, n_seq, 1});
    return host.used == SIZE_MAX ? 0 : host.used;
}

/* The next matrix from weight *w on; NULL: there is none. */
static const fm_tensor *next_matrix(const fm_model *m, size_t *w)
{
    while (*w < fm_model_weight_count(m)) {
        const fm_model_weight weight = fm_model_weight_at(m, (*w)++);
        if (weight.def->kind == FM_WEIGHT_MATRIX && weight.loaded->data) return weight.loaded;
    }
    return NULL;
}

size_t fm_forward_work_bytes(const fm_model *m, size_t n_tokens)
{
    const size_t counts[] = {1, logit_rows(m, n_tokens), n_tokens};
    size_t most = 0;
    for (size_t i = 0; i < FM_COUNT(counts); i++) {
        size_t w = 0;
        for (const fm_tensor *W; (W = next_matrix(m, &w));) most = fm_max(most, fm_device_work_bytes(m->device, W, counts[i]));
    }
    return most + fm_device_library_bytes(m->device, n_tokens);
}

fm_status fm_forward_reserve(const fm_model *m, size_t n_tokens, fm_error *err)
{
    const size_t counts[] = {1, logit_rows(m, n_tokens), n_tokens};
    for (size_t i = 0; i < FM_COUNT(counts) && m->device; i++) {
        size_t w = 0;
        for (const fm_tensor *W; (W = next_matrix(m, &w));) FM_TRY(fm_device_reserve(m->device, W, counts[i], err));
    }
    return FM_OK;
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
    b.layer = l;
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
    const fm_tensor *table = &m->globals[FM_GLOBAL_EMBED];
    if (!j->embeddings) fm_op_embed(c, fm_rows_of(j->s.x, j->T, d), table, j->s.t.in.ids);
    for (size_t i = 0; i < j->f->n_pieces && j->embeddings; i++) {
        const fm_piece *p = &j->f->pieces[i];
        const size_t at = j->s.host.in.begin[i];
        if (p->tokens)
            fm_op_embed(c, fm_rows_of(j->s.x + at * d, p->n, d), table, j->s.t.in.ids + at);
        else
            fm_op_put(c, j->s.x + at * d, p->embeddings, p->n * d);
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
    if (c->run.part == 0)
        j->f->on_hidden(j->f->ctx, layer, j->T, fm_op_fetch(c, j->s.rows, rows, j->T * j->f->m->config.d_model));
    fm_op_meet(c);
}

/* Logits of n rows that want them. */
static void head_rows(const fm_ctx *c, const job *j, size_t first, size_t n)
{
    const fm_model *m = j->f->m;
    const size_t d = m->config.d_model;
    const fm_rows normed = fm_op_rows(c, j->s.normed, n, d);
    fm_op_gather(c, normed, fm_rows_of(j->s.x, j->T, d), j->s.t.out_rows + first);
    fm_op_rmsnorm(c, normed, normed, m->globals[FM_GLOBAL_NORM].data, m->config.norm_eps);
    const fm_packed packed = fm_op_pack_rows(c, normed, &m->globals[FM_GLOBAL_HEAD]);
    fm_op_linear(c, fm_rows_of(j->s.logits, n, m->config.vocab), packed, &m->globals[FM_GLOBAL_HEAD], NULL);
}

/* What is wanted of n rows of logits is put on its way to the host. */
static void bring_rows(const fm_ctx *c, const job *j, size_t first, size_t n)
{
    const size_t vocab = j->f->m->config.vocab;
    if (j->f->on_ids) {
        fm_device_choose(c->device, j->s.ids, j->s.logits, j->f->draws ? j->s.t.draws + first : NULL, n, vocab);
        fm_device_download(c->device, j->s.host_ids, j->s.ids, n * sizeof *j->s.ids);
    } else if (c->device) {
        fm_device_download(c->device, j->s.rows, j->s.logits, n * vocab * sizeof(float));
    }
}

/* The caller gets them, once the device was waited for. */
static void give_rows(const job *j, size_t first, size_t n)
{
    const fm_forward *f = j->f;
    if (f->on_ids)
        f->on_ids(f->ctx, first, n, j->s.host_ids, j->s.logits);
    else
        f->on_logits(f->ctx, first, n, f->m->device ? j->s.rows : j->s.logits);
}

/* A few rows at a time. */
static void head(const fm_ctx *c, const job *j)
{
    const fm_forward *f = j->f;
    const size_t most = logit_rows(f->m, j->T);
    for (size_t first = 0; first < f->n_out; first += most) {
        const size_t n = f->n_out - first < most ? f->n_out - first : most;
        head_rows(c, j, first, n);
        if (c->run.part == 0) {
            bring_rows(c, j, first, n);
            if (!j->queued) fm_device_wait(c->device, NULL);
            if (!j->queued) give_rows(j, first, n);
        }
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

static fm_ctx context(const job *j, unsigned part, unsigned n_parts)
{
    fm_device *device = j->f->m->device;
    return (fm_ctx){.k = j->f->k,
                    .pool = j->f->pool,
                    .device = device,
                    .run = {.part = part, .n_parts = n_parts, .stream = fm_device_stream(device)},
                    .packed = j->s.packed,
                    .packed_bytes = j->s.packed_bytes};
}

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    job *j = ctx;
    const fm_model *m = j->f->m;
    const fm_ctx c = context(j, part, n_parts);
    const fm_rows x = fm_rows_of(j->s.x, j->T, m->config.d_model);
    float *log = j->f->log;
    fm_device_upload(c.device, j->s.t.in.ids, j->s.host.in.ids, c.device ? j->s.t.bytes : 0);
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
    const fm_ctx c = context(j, part, n_parts);
    float *log = j->f->log;
    fm_device_upload(c.device, j->s.t.in.ids, j->s.host.in.ids, c.device ? j->s.t.bytes : 0);
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_batch batch = layer_batch(j, l, &log);
        m->layers[l].block->replay(&c, &m->layers[l], &batch, j->s.blocks);
    }
}

static void fill_tables(job *j)
{
    const fm_forward *f = j->f;
    j->ragged = fm_lists_fill(&j->s.host.in, &j->s.t.in, f->pieces, f->n_pieces);
    for (size_t i = 0; i < f->n_pieces; i++) j->embeddings |= f->pieces[i].embeddings != NULL;
    if (f->n_out) memcpy(j->s.host.out_rows, f->out_rows, f->n_out * sizeof *f->out_rows);
    if (f->n_out && f->draws) memcpy(j->s.host.draws, f->draws, f->n_out * sizeof *f->draws);
}

/* `j` stays in place. */
static void begin(job *j, const fm_forward *f, void *scratch, size_t scratch_bytes)
{
    fm_arena a = {.base = scratch, .size = scratch_bytes}, host = {.base = f->host, .size = f->host_bytes};
    *j = (job){.f = f, .T = fm_pieces_tokens(f->pieces, f->n_pieces)};
    j->s = place(&a, &host, f->m, (fm_extent){f->k, j->T, f->n_pieces, fm_pool_threads(f->pool)});
    fill_tables(j);
    j->batch = (fm_batch){.config = &f->m->config,
                          .ragged = &j->ragged,
                          .state = j->s.t.in.state,
                          .n_tokens = j->T,
                          .half = !f->log && fm_rows_half(f->m, f->k, j->T),
                          .half_states = f->half_states,
                          .log_tokens = f->log_tokens,
                          .watcher = f->watcher};
}

/* A step of decoding is the same launches for every token: recorded at the second of its kind and put on the queue at once from
 * then on.  The first has loaded the kernels, which a recording may not. */
static bool repeats(const job *j)
{
    const fm_forward *f = j->f;
    return f->graphs && j->T == f->n_pieces && !j->embeddings && !f->on_hidden && !f->log && f->n_out <= logit_rows(f->m, j->T);
}

static void run_queued(job *j)
{
    const fm_forward *f = j->f;
    const fm_outcome outcome = !f->on_ids ? FM_OUT_LOGITS : f->draws ? FM_OUT_DRAWN : FM_OUT_LIKELIEST;
    fm_graph **g = fm_graphs_find(f->graphs, j->T, f->n_out, outcome);
    j->queued = true;
    if (g && !*g) {
        fm_device_record_begin(f->m->device);
        work(j, 0, 1);
        *g = fm_device_record_end(f->m->device);
    }
    if (g && *g)
        fm_device_launch(f->m->device, *g);
    else
        work(j, 0, 1);
}

fm_status fm_forward_run(const fm_forward *f, void *scratch, size_t scratch_bytes, fm_error *err)
{
    job j;
    begin(&j, f, scratch, scratch_bytes);
    j.batch.hold = f->log != NULL;
    if (repeats(&j))
        run_queued(&j);
    else
        fm_pool_run(f->pool, work, &j);
    FM_TRY(fm_device_wait(f->m->device, err));
    if (j.queued && f->n_out) give_rows(&j, 0, f->n_out);
    return j.cancelled ? FM_ERR_CANCELLED : FM_OK;
}

void fm_forward_replay(const fm_forward *f, size_t first, void *scratch, size_t scratch_bytes)
{
    job j;
    begin(&j, f, scratch, scratch_bytes);
    j.batch.log_first = first;
    fm_pool_run(f->pool, work_replay, &j);
    fm_device_wait(f->m->device, NULL); /* the tables may change now; an error is found again by the next step */
}
