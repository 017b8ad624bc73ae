/* backward.c - forward with everything kept, the loss, and the layers from the last to the first, run by all workers together. */
#include <string.h>

#include "model/pass.h"

/* The lists that kernels read. */
typedef struct tables {
    fm_lists in;
    int32_t *targets; /* (T) */
    float **g_state;  /* (n_pieces) */
    size_t bytes;     /* of all, from in.ids on */
} tables;

/* Memory of a pass, shared between the workers. */
typedef struct space {
    float *g_x;     /* (T, d_model) gradient of the residual stream */
    float *inputs;  /* (n_layer, T, d_model) of the layers */
    float *last;    /* (T, d_model) after the last layer; then of layers that run again */
    fm_rows normed; /* (T, d_model) after the final norm; bf16 where rows of the layers are */
    fm_rows g;      /* (T, d_model) gradient of normed, likewise */
    void *rounded;  /* (T, d_model) the gradient of the residual stream as bf16, likewise; else NULL */
    float *rho;     /* (T) */
    float *logits;  /* (loss_rows, vocab) */
    float *loss;    /* (T) */
    float *decoded; /* the head as f32, or rounded to bf16 where rows are */
    float *zeros;   /* the state that all pieces begin with when they forget */
    float *befores; /* (n_layer, n_pieces, state of a layer) the states before them, when layers are run again */
    void *packed;
    size_t packed_bytes;
    fm_arena saved;     /* of all layers, or of one */
    size_t saved_bytes; /* of one layer */
    fm_arena blocks;    /* scratch of the layer that runs */
    tables t, host;     /* as kernels see them, and as the host fills them: the same on the CPU */
} space;

typedef struct job {
    const fm_backward *b;
    size_t T;
    space s;
    fm_ragged ragged;
} job;

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rows of logits whose loss is computed at once: a device wants many, as long as they take no more than 1 GiB. */
static size_t loss_rows(const fm_model *m)
{
    const size_t fit = ((size_t)1 << 28) / m->config.vocab;
    return m->device && fit > FM_LOSS_ROWS ? (fit < 4096 ? fit : 4096) : FM_LOSS_ROWS;
}

/* For the forward's product and for the backward's. */
static size_t product_bytes(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts)
{
    const size_t forward = fm_op_packed_bytes(k, W, n, n_parts), back = fm_op_linear_back_packed(k, W, n, n_parts);
    return forward && back ? fm_max(forward, back) : 0;
}

/* Whether rows between ops are bf16, forward and backward. */
static bool half_rows(const fm_backward *b, size_t T)
{
    return fm_rows_half(b->m, b->k, T);
}

/* Rows of each part of the loss: on a device parts of nearly one size, so that none is of a few rows; then the last one's. */
static size_t part_rows(const fm_model *m, size_t T)
{
    const size_t most = least(loss_rows(m), T), parts = most ? (T + most - 1) / most : 0;
    return m->device && parts ? (T + parts - 1) / parts : most;
}

static size_t last_rows(const fm_model *m, size_t T)
{
    const size_t each = part_rows(m, T);
    return each ? T - (T - 1) / each * each : 0;
}

/* Whether logits and their gradient are, too: where products of every part write such rows, and xent reads them. */
static bool half_logits(const fm_backward *b, size_t T)
{
    const fm_model *m = b->m;
    return half_rows(b, T) && m->config.vocab % 8 == 0 &&
           fm_op_half(b->k, m->device, m->globals[FM_GLOBAL_HEAD].type, last_rows(m, T), m->config.d_model);
}

/* The most that any layer needs of what its block measures. */
typedef struct layer_needs {
    size_t scratch, saved, state_floats;
} layer_needs;

static layer_needs measure_layers(const fm_backward *b, size_t T, unsigned n_parts)
{
    const fm_model *m = b->m;
    layer_needs most = {0};
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_block *block = m->layers[l].block;
        fm_arena forward = {0}, back = {0}, saved = {0};
        block->scratch(&forward, &m->config, T, n_parts);
        block->back_scratch(&back, b->k, &m->config, T, n_parts, half_rows(b, T));
        block->saved(&saved, &m->config, T, b->forget ? 0 : b->n_pieces, n_parts, half_rows(b, T));
        most.scratch = fm_max(most.scratch, fm_max(forward.used, back.used));
        most.saved = fm_max(most.saved, saved.used);
        most.state_floats = fm_max(most.state_floats, block->state_floats(&m->config));
    }
    return most;
}

static fm_arena push_arena(fm_arena *a, size_t count, size_t bytes)
{
    void *p = fm_arena_push(a, count, bytes);
    return (fm_arena){.base = p, .size = p ? count * bytes : 0};
}

static tables place_tables(fm_arena *a, size_t T, size_t n_seq)
{
    const size_t before = a->used;
    tables t = {.in = fm_lists_place(a, T, n_seq)};
    t.targets = FM_PUSH(a, int32_t, T);
    t.g_state = FM_PUSH(a, float *, n_seq);
    t.bytes = a->used - before;
    return t;
}

/* `host` is where the host's side goes, for a pass on a device. */
static space place(fm_arena *a, fm_arena *host, const fm_backward *b, size_t T, unsigned n_parts)
{
    const fm_model *m = b->m;
    const fm_tensor *head = &m->globals[FM_GLOBAL_HEAD];
    const size_t d = m->config.d_model, rows = fm_op_rows_count(T, n_parts), n_layer = m->config.n_layer;
    const bool half = half_rows(b, T);
    const layer_needs needs = measure_layers(b, T, n_parts);
    space s = {.saved_bytes = needs.saved};
    s.g_x = FM_PUSH(a, float, T *d);
    s.inputs = FM_PUSH(a, float, n_layer *T *d);
    s.last = FM_PUSH(a, float, T *d);
    s.normed = (fm_rows){FM_PUSH(a, float, rows *d), T, d, d, half};
    s.g = (fm_rows){FM_PUSH(a, float, T *d), T, d, d, half};
    s.rounded = half ? FM_PUSH(a, float, T *d) : NULL;
    s.rho = FM_PUSH(a, float, T);
    s.logits = FM_PUSH(a, float, least(T, loss_rows(m)) * m->config.vocab); /* no less than fewer tokens take */
    s.loss = FM_PUSH(a, float, T);
    s.decoded = FM_PUSH(a, float, m->device ? (head->rows * head->cols + 1) / 2 : fm_op_linear_back_floats(head));
    s.zeros = FM_PUSH(a, float, b->forget ? m->state_floats : 0);
    s.befores = FM_PUSH(a, float, b->recompute && !b->forget ? n_layer * b->n_pieces * needs.state_floats : 0);
    s.packed_bytes = fm_packed_most(m, &(fm_extent){b->k, T, b->n_pieces, n_parts}, least(T, loss_rows(m)), product_bytes);
    s.packed = fm_arena_push(a, s.packed_bytes, 1);
    s.saved = push_arena(a, b->recompute ? 1 : n_layer, needs.saved);
    s.blocks = push_arena(a, 1, needs.scratch);
    s.t = place_tables(a, T, b->n_pieces);
    s.host = m->device ? place_tables(host, T, b->n_pieces) : s.t;
    return s;
}

static fm_rows rows_of(const job *j, float *p)
{
    return fm_rows_of(p, j->T, j->b->m->config.d_model);
}

static fm_arena saved_of(const job *j, size_t layer)
{
    return (fm_arena){.base = j->s.saved.base + (j->b->recompute ? 0 : layer * j->s.saved_bytes), .size = j->s.saved_bytes};
}

/* The residual stream before a layer, or after the last one. */
static fm_rows stream_at(const job *j, size_t layer)
{
    const fm_config *c = &j->b->m->config;
    return rows_of(j, layer < c->n_layer ? j->s.inputs + layer * j->T * c->d_model : j->s.last);
}

/* A copy of a layer's states, to begin again from; or back from there. */
static void keep_states(const fm_ctx *c, const job *j, size_t layer, bool restore)
{
    const fm_layer *l = &j->b->m->layers[layer];
    const size_t n = j->b->n_pieces, floats = l->block->state_floats(&j->b->m->config);
    const fm_states before = {.rows = j->s.befores + layer * n * floats, .stride = floats},
                    live = {.list = j->s.t.in.state, .at = l->state_offset};
    if (j->b->forget) return;
    fm_op_copy_states(c, restore ? &live : &before, restore ? &before : &live, n, floats);
    fm_op_meet(c);
}

static fm_batch batch_of(const job *j, size_t layer, float *out, fm_arena *saved)
{
    return (fm_batch){.config = &j->b->m->config,
                      .ragged = &j->ragged,
                      .state = j->s.t.in.state,
                      .n_tokens = j->T,
                      .hold = j->b->forget,
                      .half = half_rows(j->b, j->T),
                      .out = out,
                      .dropout = j->b->dropout,
                      .layer = layer,
                      .saved = saved};
}

static void run_layer(const fm_ctx *c, const job *j, size_t layer, float *out)
{
    const fm_layer *l = &j->b->m->layers[layer];
    fm_arena saved = saved_of(j, layer);
    const fm_batch batch = batch_of(j, layer, out, &saved);
    l->block->forward(c, l, &batch, j->s.blocks, stream_at(j, layer));
}

/* Of the embedding, or of its gradient. */
static void drop_embedding(const fm_ctx *c, const job *j, float *x)
{
    const fm_dropout *o = j->b->dropout;
    const size_t d = j->b->m->config.d_model;
    if (o)
        fm_op_dropout(c, &(fm_dropout_args){.out = x,
                                            .out_stride = d,
                                            .x = x,
                                            .x_stride = d,
                                            .n = j->T,
                                            .d = d,
                                            .p = o->p,
                                            .seed = o->seed,
                                            .stream = fm_dropout_stream(o, 0),
                                            .first_row = o->first_row});
}

static void forward(const fm_ctx *c, const job *j)
{
    const fm_model *m = j->b->m;
    const fm_rows first = stream_at(j, 0);
    fm_op_embed(c, first, &m->globals[FM_GLOBAL_EMBED], j->s.t.in.ids);
    drop_embedding(c, j, first.p);
    for (size_t l = 0; l < m->config.n_layer; l++) {
        if (j->b->recompute) keep_states(c, j, l, false);
        run_layer(c, j, l, stream_at(j, l + 1).p);
    }
}

/* Rows first .. first + n - 1. */
static fm_rows some_rows(fm_rows x, size_t first, size_t n)
{
    fm_rows y = x;
    y.p = (float *)((unsigned char *)x.p + first * x.stride * fm_rows_element(x));
    y.n = n;
    return y;
}

/* The head as all parts of the loss multiply with it: a device would round it for each of them. */
static fm_tensor find_head(const fm_ctx *c, const job *j)
{
    fm_tensor W = j->b->m->globals[FM_GLOBAL_HEAD];
    if (half_logits(j->b, j->T) && W.type == FM_F32) fm_op_round(c, &W, j->s.decoded, &j->b->m->globals[FM_GLOBAL_HEAD]);
    return W;
}

/* Loss of some rows, and what it gives to the head and to what it was computed from. */
static void loss_of(const fm_ctx *c, const job *j, const fm_tensor *W, size_t first, size_t n)
{
    const fm_backward *b = j->b;
    const fm_model *m = b->m;
    const bool half = half_logits(b, j->T);
    const fm_rows x = some_rows(j->s.normed, first, n), y = {j->s.logits, n, W->rows, W->rows, half};
    fm_op_linear(c, y, fm_op_pack_rows(c, x, W), W, NULL);
    fm_op_xent(c, &(fm_xent_args){.logits = y.p,
                                  .loss = j->s.loss + first,
                                  .target = j->s.t.targets + first,
                                  .n = n,
                                  .vocab = W->rows,
                                  .scale = b->scale,
                                  .z = b->z_loss,
                                  .half = half});
    fm_op_linear_back(c, &(fm_linear_back){.g_x = some_rows(j->s.g, first, n),
                                           .g_y = y,
                                           .x = x,
                                           .W = W,
                                           .g_W = b->g[m->config.tie ? FM_GLOBAL_EMBED : FM_GLOBAL_HEAD],
                                           .decoded = j->s.decoded});
}

/* Each worker takes some of the rows, few as they may be. */
static void norm_rows(const fm_ctx *c, const job *j, const float *w)
{
    const fm_rows out = j->s.normed, x = rows_of(j, j->s.last);
    const float eps = j->b->m->config.norm_eps;
    if (out.half)
        fm_op_rmsnorm(c, out, x, w, eps);
    else
        c->k->rmsnorm(&c->run, out.p, out.stride, x.p, x.stride, w, x.n, x.d, eps);
    fm_op_meet(c);
}

/* Loss and the gradients of the head, the final norm and the residual stream. */
static void head(const fm_ctx *c, const job *j)
{
    const fm_backward *b = j->b;
    const fm_model *m = b->m;
    const size_t d = m->config.d_model, most = part_rows(m, j->T);
    const fm_tensor W = find_head(c, j), *norm = &m->globals[FM_GLOBAL_NORM];
    norm_rows(c, j, norm->data);
    for (size_t first = 0; first < j->T; first += most) loss_of(c, j, &W, first, least(j->T - first, most));
    fm_op_rmsnorm_back(c, b->g[FM_GLOBAL_NORM],
                       &(fm_rmsnorm_back_args){.g_x = j->s.g_x,
                                               .g_x_stride = d,
                                               .rho = j->s.rho,
                                               .g = j->s.g.p,
                                               .g_stride = d,
                                               .x = j->s.last,
                                               .x_stride = d,
                                               .w = norm->data,
                                               .n = j->T,
                                               .d = d,
                                               .eps = m->config.norm_eps,
                                               .half = j->s.g.half,
                                               .rounded = j->s.rounded});
}

static void backward(const fm_ctx *c, const job *j)
{
    const fm_model *m = j->b->m;
    for (size_t l = m->config.n_layer; l-- > 0;) {
        const fm_layer *layer = &m->layers[l];
        if (j->b->recompute) {
            keep_states(c, j, l, true);
            run_layer(c, j, l, j->s.last);
        }
        fm_arena saved = saved_of(j, l);
        const fm_batch batch = batch_of(j, l, NULL, &saved);
        const fm_block_back b = {.batch = &batch,
                                 .x = stream_at(j, l),
                                 .g_w = j->b->g + FM_GLOBAL_COUNT + layer->first_weight,
                                 .g_state = j->b->g_state ? j->s.t.g_state : NULL,
                                 .rounded = j->s.rounded,
                                 .scratch = j->s.blocks};
        layer->block->backward(c, layer, &b, rows_of(j, j->s.g_x));
    }
    drop_embedding(c, j, j->s.g_x);
    if (j->b->g[FM_GLOBAL_EMBED]) fm_op_embed_back(c, j->b->g[FM_GLOBAL_EMBED], rows_of(j, j->s.g_x), j->s.t.in.ids);
}

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    const job *j = ctx;
    fm_device *device = j->b->m->device;
    const fm_ctx c = {.k = j->b->k,
                      .pool = j->b->pool,
                      .device = device,
                      .run = {.part = part, .n_parts = n_parts, .stream = fm_device_stream(device)},
                      .packed = j->s.packed,
                      .packed_bytes = j->s.packed_bytes};
    fm_device_upload(device, j->s.t.in.ids, j->s.host.in.ids, device ? j->s.t.bytes : 0);
    forward(&c, j);
    if (j->b->states_only) return;
    head(&c, j);
    backward(&c, j);
}

static void fill_tables(job *j)
{
    const fm_backward *b = j->b;
    const tables *t = &j->s.host;
    j->ragged = fm_lists_fill(&t->in, &j->s.t.in, b->pieces, b->n_pieces);
    for (size_t i = 0; i < b->n_pieces && b->forget; i++) t->in.state[i] = j->s.zeros;
    if (b->g_state) memcpy(t->g_state, b->g_state, b->n_pieces * sizeof *b->g_state);
    if (b->targets) memcpy(t->targets, b->targets, j->T * sizeof *t->targets);
}

/* ---- Passes ---- */

static void measure(const fm_backward *like, size_t n_tokens, size_t *scratch, size_t *on_host)
{
    fm_arena a = {0}, host = {0};
    place(&a, &host, like, n_tokens, fm_pool_threads(like->pool));
    *scratch = a.used;
    *on_host = host.used;
}

size_t fm_pass_bytes(const fm_backward *like, size_t n_tokens)
{
    size_t scratch, host;
    measure(like, n_tokens, &scratch, &host);
    return scratch == SIZE_MAX ? 0 : scratch;
}

/* Rows of the product with weight i, and whether what comes back are rows of bf16. */
static size_t product_rows(const fm_backward *b, size_t i, size_t n_tokens, bool *half)
{
    const bool is_head = i == FM_GLOBAL_HEAD;
    *half = is_head && half_logits(b, n_tokens);
    return is_head ? least(n_tokens, loss_rows(b->m)) : n_tokens;
}

size_t fm_pass_work_bytes(const fm_backward *like, size_t n_tokens)
{
    const fm_model *m = like->m;
    size_t most = 0;
    if (!m->device) return 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        bool half;
        const size_t rows = product_rows(like, i, n_tokens, &half);
        if (w.def->kind == FM_WEIGHT_MATRIX) most = fm_max(most, fm_device_back_work_bytes(m->device, w.loaded, rows, half));
    }
    return most + fm_device_library_bytes(m->device, n_tokens);
}

static fm_status reserve_products(const fm_backward *b, size_t n_tokens, fm_error *err)
{
    const fm_model *m = b->m;
    for (size_t i = 0; i < fm_model_weight_count(m) && m->device; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        bool half;
        const size_t rows = product_rows(b, i, n_tokens, &half);
        if (w.def->kind == FM_WEIGHT_MATRIX && w.loaded->data)
            FM_TRY(fm_device_reserve_back(m->device, w.loaded, rows, half, err));
    }
    return FM_OK;
}

static fm_status open_pass(fm_pass *p, const fm_backward *like, size_t n_tokens, fm_error *err)
{
    static const char what[] = "a pass (a smaller micro batch, batch.recompute or batch.chunk takes less)";
    measure(like, n_tokens, &p->scratch_bytes, &p->host_bytes);
    if (p->scratch_bytes == SIZE_MAX || p->host_bytes == SIZE_MAX)
        return fm_fail(err, FM_ERR_MEMORY, "a pass over %zu tokens overflows memory: use a smaller micro batch", n_tokens);
    const fm_where there = {p->device, p->a};
    FM_TRY(fm_device_alloc(there, &p->scratch, p->scratch_bytes, 1, what, err));
    if (!p->device) return FM_OK;
    FM_TRY(fm_device_alloc_host(there, &p->host, p->host_bytes, 1, "a pass's lists", err));
    return reserve_products(like, n_tokens, err);
}

fm_status fm_pass_open(fm_pass *p, const fm_backward *like, size_t n_tokens, const fm_allocator *a, fm_error *err)
{
    *p = (fm_pass){.device = like->m->device, .a = a};
    const fm_status status = open_pass(p, like, n_tokens, err);
    if (status != FM_OK) fm_pass_free(p);
    return status;
}

void fm_pass_free(fm_pass *p)
{
    const fm_where there = {p->device, p->a};
    if (p->device) fm_device_release_host(there, p->host);
    fm_device_release(there, p->scratch);
    *p = (fm_pass){0};
}

fm_status fm_pass_run(fm_pass *p, const fm_backward *b, fm_error *err)
{
    fm_arena a = {.base = p->scratch, .size = p->scratch_bytes}, host = {.base = p->host, .size = p->host_bytes};
    job j = {.b = b, .T = fm_pieces_tokens(b->pieces, b->n_pieces)};
    j.s = place(&a, &host, b, j.T, fm_pool_threads(b->pool));
    fill_tables(&j);
    if (b->forget) fm_device_zero(p->device, j.s.zeros, b->m->state_floats * sizeof(float));
    fm_pool_run(b->pool, work, &j);
    if (!b->states_only) fm_device_download(p->device, b->loss, j.s.loss, j.T * sizeof(float));
    return fm_device_wait(p->device, err);
}
