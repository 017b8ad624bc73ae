/* gradients.c - see gradients.h. */
#include "train/gradients.h"

#include <string.h>

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
    FM_TRY(fm_alloc((void **)&g->memory, g->a, g->floats, sizeof(float), "the gradients", err));
    for (size_t i = 0, at = 0; i < g->n; at += fm_round_up(g->counts[i++], 16))
        g->g[i] = has_gradient(g->m, i) ? g->memory + at : NULL;
    return FM_OK;
}

fm_status fm_gradients_open(fm_gradients *g, const fm_model *m, const fm_allocator *a, fm_error *err)
{
    *g = (fm_gradients){.m = m, .a = a, .n = fm_model_weight_count(m)};
    const fm_status status = open_gradients(g, err);
    if (status != FM_OK) fm_gradients_free(g);
    return status;
}

void fm_gradients_free(fm_gradients *g)
{
    fm_free(g->a, g->memory);
    fm_free(g->a, g->counts);
    fm_free(g->a, g->g);
    *g = (fm_gradients){0};
}

/* ---- One sequence ---- */

/* Everything that a pass over one sequence needs. */
typedef struct pass {
    float *state, *loss;
    int32_t *targets;
    void *scratch;
    size_t scratch_bytes;
} pass;

static fm_status open_pass(pass *p, const fm_gradients *g, const fm_kernels *k, fm_pool *pool, size_t n, fm_error *err)
{
    p->scratch_bytes = fm_backward_bytes(g->m, k, n, 1, fm_pool_threads(pool), false);
    if (!p->scratch_bytes) return fm_fail(err, FM_ERR_MEMORY, "a backward pass over %zu tokens overflows memory: use fewer", n);
    FM_TRY(fm_alloc((void **)&p->state, g->a, g->m->state_floats, sizeof(float), "a state", err));
    FM_TRY(fm_alloc((void **)&p->loss, g->a, n, sizeof(float), "the losses", err));
    FM_TRY(fm_alloc((void **)&p->targets, g->a, n, sizeof *p->targets, "the targets", err));
    return fm_alloc(&p->scratch, g->a, p->scratch_bytes, 1, "a backward pass", err);
}

static void close_pass(pass *p, const fm_allocator *a)
{
    fm_free(a, p->scratch);
    fm_free(a, p->targets);
    fm_free(a, p->loss);
    fm_free(a, p->state);
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

fm_status fm_gradients_of(fm_gradients *g, double *loss, const fm_kernels *k, fm_pool *pool, const int32_t *ids, size_t n,
                          fm_error *err)
{
    pass p = {0};
    FM_TRY(check_ids(g->m, ids, n, err));
    const fm_status status = open_pass(&p, g, k, pool, n, err);
    if (status == FM_OK) {
        memcpy(p.targets, ids + 1, (n - 1) * sizeof *ids);
        p.targets[n - 1] = -1;
        const fm_piece piece = {.tokens = ids, .n = n, .state = p.state};
        const fm_backward b = {.m = g->m,
                               .k = k,
                               .pool = pool,
                               .pieces = &piece,
                               .n_pieces = 1,
                               .targets = p.targets,
                               .scale = 1.0f / (float)(n - 1),
                               .g = g->g,
                               .loss = p.loss};
        fm_backward_run(&b, p.scratch, p.scratch_bytes);
        double sum = 0.0;
        for (size_t i = 0; i + 1 < n; i++) sum += (double)p.loss[i];
        *loss = sum / (double)(n - 1);
    }
    close_pass(&p, g->a);
    return status;
}

/* ---- The file ---- */

static fm_status announce(fm_st_writer *w, const fm_gradients *g, size_t i, fm_str *name, fm_error *err)
{
    const fm_model_weight weight = fm_model_weight_at(g->m, i);
    fm_str plain = {.a = g->a};
    uint64_t dims[3];
    unsigned n = 0;
    if (weight.def->rows != FM_DIM_1) dims[n++] = fm_dim_of(&g->m->config, weight.def->rows);
    if (weight.def->cols == FM_DIM_CONV) dims[n++] = 1; /* PyTorch's axis of input channels per group */
    dims[n++] = fm_dim_of(&g->m->config, weight.def->cols);
    fm_model_weight_name(&weight, FM_SOURCE_HF, &plain);
    fm_str_reset(name);
    fm_str_printf(name, "grad.%s", plain.p ? plain.p : "");
    fm_str_free(&plain);
    FM_TRY(fm_str_ok(name, "a tensor name", err));
    return fm_st_put_tensor(w, name->p, FM_ST_F32, dims, n, err);
}

/* One row of the checkpoint's layout.  With A = -exp(A_log), the gradient of A_log is that of A times A. */
static void file_row(float *row, const fm_gradients *g, size_t i, size_t r, size_t cols)
{
    const fm_model_weight w = fm_model_weight_at(g->m, i);
    const bool turned = w.def->kind == FM_WEIGHT_SMALL_T;
    const size_t stride = turned ? w.loaded->cols : 1, first = turned ? r : r * cols;
    const float *A = w.def->map == FM_MAP_A ? w.loaded->data : NULL;
    for (size_t c = 0; c < cols; c++) row[c] = g->g[i][first + c * stride] * (A ? A[first + c * stride] : 1.0f);
}

static fm_status write_tensor(fm_st_writer *w, const fm_gradients *g, size_t i, fm_error *err)
{
    const fm_weight_def *def = fm_model_weight_at(g->m, i).def;
    const size_t rows = fm_dim_of(&g->m->config, def->rows), cols = fm_dim_of(&g->m->config, def->cols);
    float *row;
    FM_TRY(fm_alloc((void **)&row, g->a, cols, sizeof *row, "a row", err));
    fm_status status = FM_OK;
    for (size_t r = 0; r < rows && status == FM_OK; r++) {
        file_row(row, g, i, r, cols);
        status = fm_st_write(w, row, cols * sizeof *row, err);
    }
    fm_free(g->a, row);
    return status;
}

static fm_status fill_file(fm_st_writer *w, const fm_gradients *g, double loss, fm_str *name, fm_error *err)
{
    const float value = (float)loss;
    FM_TRY(fm_st_put_tensor(w, "loss", FM_ST_F32, (const uint64_t[]){1}, 1, err));
    for (size_t i = 0; i < g->n; i++)
        if (g->g[i]) FM_TRY(announce(w, g, i, name, err));
    FM_TRY(fm_st_begin_data(w, err));
    FM_TRY(fm_st_write(w, &value, sizeof value, err));
    for (size_t i = 0; i < g->n; i++)
        if (g->g[i]) FM_TRY(write_tensor(w, g, i, err));
    return fm_st_commit(w, err);
}

fm_status fm_gradients_write(const fm_gradients *g, double loss, const char *path, fm_error *err)
{
    fm_st_writer w;
    fm_str name = {.a = g->a};
    FM_TRY(fm_st_create(&w, path, g->a, err));
    const fm_status status = fill_file(&w, g, loss, &name, err);
    fm_st_abort(&w);
    fm_str_free(&name);
    return status;
}
