/* gradients.c - see gradients.h. */
#include "train/gradients.h"

#include <string.h>

#include "train/tensors.h"

/* A tied head is the embedding, whose gradient holds both parts. */
static bool has_gradient(const fm_model *m, size_t i)
{
    return fm_model_weight_at(m, i).loaded->data && !(i == FM_GLOBAL_HEAD && m->config.tie);
}

static fm_status count_floats(fm_gradients *g, fm_error *err)
{
    for (size_t i = 0; i < g->n; i++) {
        const fm_tensor *t = fm_model_weight_at(g->m, i).loaded;
        g->counts[i] = has_gradient(g->m, i) ? t->rows * t->cols : 0;
        if (!fm_add(g->floats, fm_round_up(g->counts[i], 16), &g->floats))
            return fm_fail(err, FM_ERR_MEMORY, "%s: the gradients of its weights overflow memory", g->m->source.path);
    }
    return FM_OK;
}

static fm_status open_gradients(fm_gradients *g, fm_error *err)
{
    FM_TRY(fm_alloc((void **)&g->g, g->a, g->n, sizeof *g->g, "the list of gradients", err));
    FM_TRY(fm_alloc((void **)&g->counts, g->a, g->n, sizeof *g->counts, "the list of gradients", err));
    FM_TRY(count_floats(g, err));
    FM_TRY(fm_device_alloc(g->there, (void **)&g->memory, g->floats, sizeof(float), "the gradients", err));
    for (size_t i = 0, at = 0; i < g->n; at += fm_round_up(g->counts[i++], 16))
        g->g[i] = has_gradient(g->m, i) ? g->memory + at : NULL;
    return FM_OK;
}

fm_status fm_gradients_open(fm_gradients *g, const fm_model *m, const fm_allocator *a, fm_error *err)
{
    *g = (fm_gradients){.m = m, .a = a, .there = {m->device, a}, .n = fm_model_weight_count(m)};
    const fm_status status = open_gradients(g, err);
    if (status != FM_OK) fm_gradients_free(g);
    return status;
}

void fm_gradients_free(fm_gradients *g)
{
    fm_device_release(g->there, g->memory);
    fm_free(g->a, g->counts);
    fm_free(g->a, g->g);
    *g = (fm_gradients){0};
}

typedef struct settling {
    const fm_gradients *g;
    const fm_kernels *k;
} settling;

/* dA / d(A_log) = A, each worker a range of each. */
static void settle_share(void *ctx, unsigned part, unsigned n_parts)
{
    const settling *s = ctx;
    const fm_gradients *g = s->g;
    const fm_run run = {.part = part, .n_parts = n_parts, .stream = fm_device_stream(g->m->device)};
    for (size_t i = 0; i < g->n; i++) {
        const fm_model_weight w = fm_model_weight_at(g->m, i);
        if (w.def->map == FM_MAP_A && g->g[i]) s->k->decays_back(&run, g->g[i], w.loaded->data, g->counts[i]);
    }
}

void fm_gradients_settle(fm_gradients *g, const fm_kernels *k, fm_pool *pool)
{
    fm_pool_run(pool, settle_share, &(settling){g, k});
}

/* ---- One sequence ---- */

/* Everything that a pass over one sequence needs. */
typedef struct sequence {
    float *state, *loss;
    int32_t *targets;
    fm_pass pass;
} sequence;

static fm_status open_sequence(sequence *q, const fm_gradients *g, const fm_kernels *k, fm_pool *pool, size_t n, fm_error *err)
{
    FM_TRY(fm_device_alloc(g->there, (void **)&q->state, g->m->state_floats, sizeof(float), "a state", err));
    FM_TRY(fm_alloc((void **)&q->loss, g->a, n, sizeof(float), "the losses", err));
    FM_TRY(fm_alloc((void **)&q->targets, g->a, n, sizeof *q->targets, "the targets", err));
    return fm_pass_open(&q->pass, &(fm_backward){.m = g->m, .k = k, .pool = pool, .n_pieces = 1}, n, g->a, err);
}

static void close_sequence(sequence *q, const fm_gradients *g)
{
    fm_pass_free(&q->pass);
    fm_free(g->a, q->targets);
    fm_free(g->a, q->loss);
    fm_device_release(g->there, q->state);
}

static fm_status check_ids(const fm_model *m, const int32_t *ids, size_t n, fm_error *err)
{
    if (n < 2) return fm_fail(err, FM_ERR_ARGUMENT, "%zu tokens: a next-token loss needs at least two", n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->config.vocab)
            return fm_fail(err, FM_ERR_LIMIT, "token %zu is %d, expected 0 .. %zu: ids of another vocabulary?", i, (int)ids[i],
                           m->config.vocab - 1);
    return FM_OK;
}

static fm_status run_sequence(sequence *q, fm_gradients *g, const fm_kernels *k, fm_pool *pool, const int32_t *ids, size_t n,
                              fm_error *err)
{
    const fm_piece piece = {.tokens = ids, .n = n, .state = q->state};
    memcpy(q->targets, ids + 1, (n - 1) * sizeof *ids);
    q->targets[n - 1] = -1;
    return fm_pass_run(&q->pass,
                       &(fm_backward){.m = g->m,
                                      .k = k,
                                      .pool = pool,
                                      .pieces = &piece,
                                      .n_pieces = 1,
                                      .targets = q->targets,
                                      .scale = 1.0f / (float)(n - 1),
                                      .g = g->g,
                                      .loss = q->loss},
                       err);
}

fm_status fm_gradients_of(fm_gradients *g, double *loss, const fm_kernels *k, fm_pool *pool, const int32_t *ids, size_t n,
                          fm_error *err)
{
    sequence q = {0};
    FM_TRY(check_ids(g->m, ids, n, err));
    fm_status status = open_sequence(&q, g, k, pool, n, err);
    if (status == FM_OK) status = run_sequence(&q, g, k, pool, ids, n, err);
    if (status == FM_OK) {
        fm_gradients_settle(g, k, pool);
        double sum = 0.0;
        for (size_t i = 0; i + 1 < n; i++) sum += (double)q.loss[i];
        *loss = sum / (double)(n - 1);
    }
    close_sequence(&q, g);
    return status;
}

fm_status fm_gradients_write(const fm_gradients *g, double loss, const char *path, fm_error *err)
{
    const float value = (float)loss;
    const fm_tensor_file f = {
        .m = g->m, .sets = &(fm_tensor_set){"grad.", g->g, NULL}, .n_sets = 1, .type = FM_F32, .loss = &value, .a = g->a};
    return fm_tensors_write(&f, path, err);
}
