/* backward.c - forward with everything kept, the loss, and the layers from the last to the first, run by all workers together. */
#include <string.h>

#include "model/model.h"

/* Memory of a pass, shared between the workers. */
typedef struct space {
    float *x;       /* (T, d_model) residual stream, then its gradient */
    float *last;    /* (T, d_model) after the last layer */
    float *normed;  /* (T, d_model) after the final norm */
    float *g;       /* (T, d_model) gradient of normed */
    float *rho;     /* (T) */
    float *logits;  /* (FM_LOSS_ROWS, vocab) */
    float *copies;  /* transposed, of the head */
    size_t *begin;  /* (n_pieces + 1) */
    float **state;  /* (n_pieces) */
    float *zeros;   /* the state that all pieces begin with when they forget */
    float *inputs;  /* (n_layer, T, d_model) and the states before, when layers are run again */
    float *befores; /* (n_layer, n_pieces, state of a layer) */
    void *packed;
    size_t packed_bytes;
    fm_arena saved;     /* of all layers, or of one */
    size_t saved_bytes; /* of one layer */
    fm_arena blocks;    /* scratch of the layer that runs */
} space;

typedef struct job {
    const fm_backward *b;
    size_t T;
    space s;
    fm_ragged ragged;
} job;

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t product_bytes(const fm_tensor *W, const fm_kernels *k, size_t T, unsigned n_parts)
{
    const size_t forward = fm_op_packed_bytes(k, W, T, n_parts), back = fm_op_linear_back_packed(k, W, T, n_parts);
    return forward && back ? max_size(forward, back) : SIZE_MAX;
}

static size_t packed_bytes(const fm_model *m, const fm_kernels *k, size_t T, unsigned n_parts)
{
    size_t most = product_bytes(&m->globals[FM_GLOBAL_HEAD], k, T < FM_LOSS_ROWS ? T : FM_LOSS_ROWS, n_parts);
    for (size_t l = 0; l < m->config.n_layer; l++)
        for (size_t i = 0; i < m->layers[l].block->n_weights; i++)
            if (m->layers[l].block->weights[i].kind == FM_WEIGHT_MATRIX)
                most = max_size(most, product_bytes(&m->layers[l].w[i], k, T, n_parts));
    return most;
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
        block->back_scratch(&back, b->k, &m->config, T, n_parts);
        block->saved(&saved, &m->config, T, b->forget ? 0 : b->n_pieces, n_parts);
        most.scratch = max_size(most.scratch, max_size(forward.used, back.used));
        most.saved = max_size(most.saved, saved.used);
        most.state_floats = max_size(most.state_floats, block->state_floats(&m->config));
    }
    return most;
}

static fm_arena push_arena(fm_arena *a, size_t count, size_t bytes)
{
    void *p = fm_arena_push(a, count, bytes);
    return (fm_arena){.base = p, .size = p ? count * bytes : 0};
}

static space place(fm_arena *a, const fm_backward *b, size_t T, unsigned n_parts)
{
    const fm_model *m = b->m;
    const size_t d = m->config.d_model, rows = fm_op_rows_count(T, n_parts), n_layer = m->config.n_layer;
    const layer_needs needs = measure_layers(b, T, n_parts);
    space s = {.saved_bytes = needs.saved};
    s.x = FM_PUSH(a, float, T *d);
    s.last = FM_PUSH(a, float, T *d);
    s.normed = FM_PUSH(a, float, rows *d);
    s.g = FM_PUSH(a, float, T *d);
    s.rho = FM_PUSH(a, float, T);
    s.logits = FM_PUSH(a, float, FM_LOSS_ROWS * m->config.vocab);
    s.copies = FM_PUSH(a, float, fm_op_linear_back_floats(&m->globals[FM_GLOBAL_HEAD], FM_LOSS_ROWS));
    s.begin = FM_PUSH(a, size_t, b->n_pieces + 1);
    s.state = FM_PUSH(a, float *, b->n_pieces);
    s.zeros = FM_PUSH(a, float, b->forget ? m->state_floats : 0);
    s.inputs = FM_PUSH(a, float, b->recompute ? n_layer *T *d : 0);
    s.befores = FM_PUSH(a, float, b->recompute && !b->forget ? n_layer * b->n_pieces * needs.state_floats : 0);
    s.packed_bytes = packed_bytes(m, b->k, T, n_parts);
    s.packed = fm_arena_push(a, s.packed_bytes, 1);
    s.saved = push_arena(a, b->recompute ? 1 : n_layer, needs.saved);
    s.blocks = push_arena(a, 1, needs.scratch);
    return s;
}

size_t fm_backward_bytes(const fm_backward *b, size_t n_tokens)
{
    fm_arena a = {0};
    place(&a, b, n_tokens, fm_pool_threads(b->pool));
    return a.used == SIZE_MAX ? 0 : a.used;
}

static fm_rows rows_of(const job *j, float *p)
{
    return fm_rows_of(p, j->T, j->b->m->config.d_model);
}

static fm_arena saved_of(const job *j, size_t layer)
{
    return (fm_arena){.base = j->s.saved.base + (j->b->recompute ? 0 : layer * j->s.saved_bytes), .size = j->s.saved_bytes};
}

/* Copies of a layer's input and states, to begin again from; or back from there. */
static void keep_layer(const fm_ctx *c, const job *j, size_t layer, bool restore)
{
    const fm_layer *l = &j->b->m->layers[layer];
    const size_t floats = j->T * j->b->m->config.d_model, state = l->block->state_floats(&j->b->m->config);
    if (c->run.part == 0) {
        float *input = j->s.inputs + layer * floats;
        memcpy(restore ? j->s.last : input, restore ? input : j->s.x, floats * sizeof(float));
        for (size_t i = 0; i < j->b->n_pieces && !j->b->forget; i++) {
            float *before = j->s.befores + (layer * j->b->n_pieces + i) * state, *live = j->s.state[i] + l->state_offset;
            memcpy(restore ? live : before, restore ? before : live, state * sizeof(float));
        }
    }
    fm_op_meet(c);
}

static fm_batch batch_of(const job *j, size_t layer, fm_arena *saved)
{
    return (fm_batch){.config = &j->b->m->config,
                      .ragged = &j->ragged,
                      .state = j->s.state,
                      .n_tokens = j->T,
                      .hold = j->b->forget,
                      .dropout = j->b->dropout,
                      .layer = layer,
                      .saved = saved};
}

static void run_layer(const fm_ctx *c, const job *j, size_t layer, float *x)
{
    const fm_layer *l = &j->b->m->layers[layer];
    fm_arena saved = saved_of(j, layer);
    const fm_batch batch = batch_of(j, layer, &saved);
    l->block->forward(c, l, &batch, j->s.blocks, rows_of(j, x));
}

/* Of the embedding, or of its gradient. */
static void drop_embedding(const fm_ctx *c, const job *j)
{
    const fm_dropout *o = j->b->dropout;
    const size_t d = j->b->m->config.d_model;
    if (o)
        fm_op_dropout(c, &(fm_dropout_args){.out = j->s.x,
                                            .out_stride = d,
                                            .x = j->s.x,
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
    for (size_t i = 0; i < j->b->n_pieces; i++) {
        const fm_rows x = fm_rows_of(j->s.x + j->s.begin[i] * m->config.d_model, j->b->pieces[i].n, m->config.d_model);
        fm_op_embed(c, x, &m->globals[FM_GLOBAL_EMBED], j->b->pieces[i].tokens);
    }
    drop_embedding(c, j);
    for (size_t l = 0; l < m->config.n_layer; l++) {
        if (j->b->recompute) keep_layer(c, j, l, false);
        run_layer(c, j, l, j->s.x);
    }
}

/* Loss and the gradients of the head and the final norm; x becomes the gradient of the residual stream. */
static void head(const fm_ctx *c, const job *j)
{
    const fm_backward *b = j->b;
    const fm_model *m = b->m;
    const size_t d = m->config.d_model, vocab = m->config.vocab;
    const fm_tensor *W = &m->globals[FM_GLOBAL_HEAD];
    float *g_W = b->g[m->config.tie ? FM_GLOBAL_EMBED : FM_GLOBAL_HEAD];
    c->k->rmsnorm(&c->run, j->s.normed, d, j->s.x, d, m->globals[FM_GLOBAL_NORM].data, j->T, d, m->config.norm_eps);
    fm_op_meet(c);
    for (size_t first = 0; first < j->T; first += FM_LOSS_ROWS) {
        const size_t n = j->T - first < FM_LOSS_ROWS ? j->T - first : FM_LOSS_ROWS;
        const fm_rows x = fm_rows_of(j->s.normed + first * d, n, d), y = fm_rows_of(j->s.logits, n, vocab);
        fm_op_linear(c, y, fm_op_pack_rows(c, x, W), W, NULL);
        fm_op_xent(c, &(fm_xent_args){.logits = y.p,
                                      .loss = b->loss + first,
                                      .target = b->targets + first,
                                      .n = n,
                                      .vocab = vocab,
                                      .scale = b->scale,
                                      .z = b->z_loss});
        fm_op_linear_gx(c, fm_rows_of(j->s.g + first * d, n, d), y, W, false, j->s.copies);
        if (g_W) fm_op_linear_gw(c, g_W, NULL, y, x, j->s.copies);
    }
    if (c->run.part == 0) memcpy(j->s.last, j->s.x, j->T * d * sizeof(float));
    fm_op_meet(c);
    fm_op_rmsnorm_back(c, b->g[FM_GLOBAL_NORM],
                       &(fm_rmsnorm_back_args){.g_x = j->s.x,
                                               .g_x_stride = d,
                                               .rho = j->s.rho,
                                               .g = j->s.g,
                                               .g_stride = d,
                                               .x = j->s.last,
                                               .x_stride = d,
                                               .w = m->globals[FM_GLOBAL_NORM].data,
                                               .n = j->T,
                                               .d = d,
                                               .eps = m->config.norm_eps});
}

static void backward(const fm_ctx *c, const job *j)
{
    const fm_model *m = j->b->m;
    for (size_t l = m->config.n_layer; l-- > 0;) {
        const fm_layer *layer = &m->layers[l];
        if (j->b->recompute) {
            keep_layer(c, j, l, true);
            run_layer(c, j, l, j->s.last);
        }
        fm_arena saved = saved_of(j, l);
        const fm_batch batch = batch_of(j, l, &saved);
        const fm_block_back b = {.batch = &batch,
                                 .g_w = j->b->g + FM_GLOBAL_COUNT + layer->first_weight,
                                 .g_state = j->b->g_state,
                                 .scratch = j->s.blocks};
        layer->block->backward(c, layer, &b, rows_of(j, j->s.x));
    }
    drop_embedding(c, j);
    for (size_t i = 0; i < j->b->n_pieces && j->b->g[FM_GLOBAL_EMBED]; i++)
        fm_op_embed_back(c, j->b->g[FM_GLOBAL_EMBED],
                         fm_rows_of(j->s.x + j->s.begin[i] * m->config.d_model, j->b->pieces[i].n, m->config.d_model),
                         j->b->pieces[i].tokens);
}

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    const job *j = ctx;
    const fm_ctx c = {.k = j->b->k,
                      .pool = j->b->pool,
                      .run = {.part = part, .n_parts = n_parts},
                      .packed = j->s.packed,
                      .packed_bytes = j->s.packed_bytes};
    forward(&c, j);
    head(&c, j);
    backward(&c, j);
}

void fm_backward_run(const fm_backward *b, void *scratch, size_t scratch_bytes)
{
    size_t T = 0;
    for (size_t i = 0; i < b->n_pieces; i++) T += b->pieces[i].n;
    fm_arena a = {.base = scratch, .size = scratch_bytes};
    job j = {.b = b, .T = T, .s = place(&a, b, T, fm_pool_threads(b->pool))};
    size_t longest = 0;
    for (size_t i = 0, at = 0; i < b->n_pieces; i++) {
        longest = max_size(longest, b->pieces[i].n);
        j.s.begin[i] = at;
        j.s.state[i] = b->forget ? j.s.zeros : b->pieces[i].state;
        at += b->pieces[i].n;
        j.s.begin[i + 1] = at;
    }
    if (b->forget) memset(j.s.zeros, 0, b->m->state_floats * sizeof(float));
    j.ragged = (fm_ragged){b->n_pieces, j.s.begin, T, longest};
    fm_pool_run(b->pool, work, &j);
}
