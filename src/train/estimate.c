/* estimate.c - see estimate.h.  A model is laid out with the sizes of its tensors and no data, and asked what a pass takes. */
#include "train/estimate.h"

#include <string.h>

#include "train/internal.h"

enum { CHUNK = 256 }; /* where the options name none */

static fm_dtype matrices_of(const fm_train_options *o)
{
    return o->weights == FM_PARAMS_F32 ? FM_F32 : FM_BF16;
}

static fm_tensor sized(const fm_weight_def *def, const fm_config *c, fm_dtype matrices)
{
    const size_t rows = fm_dim_of(c, def->rows), cols = fm_dim_of(c, def->cols);
    const fm_dtype type = def->kind == FM_WEIGHT_MATRIX ? matrices : FM_F32;
    return (fm_tensor){.type = type, .rows = rows, .cols = cols, .stride = cols * fm_dtype_get(type)->bytes};
}

/* ---- A model of sizes ---- */

static size_t count_weights(const fm_arch *arch, const fm_config *c)
{
    size_t n = 0;
    for (size_t l = 0; l < c->n_layer; l++) n += arch->block(c, l)->n_weights;
    return n;
}

static void lay_out_layers(fm_model *m, fm_tensor *w, fm_dtype matrices)
{
    size_t n = 0;
    for (size_t l = 0; l < m->config.n_layer; l++) {
        const fm_block *block = m->arch->block(&m->config, l);
        m->layers[l] = (fm_layer){.block = block, .w = w + n, .state_offset = m->state_floats, .first_weight = n};
        for (size_t i = 0; i < block->n_weights; i++) w[n + i] = sized(&block->weights[i], &m->config, matrices);
        m->state_floats += block->state_floats(&m->config);
        n += block->n_weights;
    }
}

/* A GPU that is named is asked for nothing but sizes; `auto` has to look whether there is one. */
static fm_status plan_device(fm_device **out, const fm_train_options *o, fm_error *err)
{
    const fm_device_options how = {.f32 = o->f32_activations};
    *out = NULL;
    if (o->device && !strcmp(o->device, "auto")) {
        fm_device *found;
        FM_TRY(fm_device_open(&found, o->device, &how, NULL, err));
        if (!found) return FM_OK;
        fm_device_free(found);
    } else if (!o->device || !strcmp(o->device, "cpu")) {
        return FM_OK;
    }
    return fm_device_plan(out, &how, err);
}

static fm_status open_outline(fm_model *m, const fm_arch *arch, const fm_config *c, fm_dtype matrices, const fm_allocator *a,
                              fm_error *err)
{
    fm_tensor *w;
    *m = (fm_model){.arch = arch, .config = *c, .a = a};
    FM_TRY(fm_alloc((void **)&m->layers, a, c->n_layer, sizeof *m->layers, "an outline of the model", err));
    const fm_status status = fm_alloc((void **)&w, a, count_weights(arch, c), sizeof *w, "an outline of the model", err);
    if (status != FM_OK) {
        fm_free(a, m->layers);
        return status;
    }
    m->memory = w;
    for (size_t i = 0; i < FM_GLOBAL_COUNT; i++) m->globals[i] = sized(&arch->globals[i], c, matrices);
    lay_out_layers(m, w, matrices);
    return FM_OK;
}

static void close_outline(fm_model *m)
{
    fm_device_free(m->device);
    fm_free(m->a, m->memory);
    fm_free(m->a, m->layers);
}

/* ---- Counting ---- */

double fm_forward_flops(const fm_config *c)
{
    const double d = (double)c->d_model, di = (double)c->d_inner, N = (double)c->d_state, R = (double)c->dt_rank;
    const double per_channel = 6 * d + 4 * R + 11 * N + 2 * (double)c->d_conv + 15;
    return (double)c->n_layer * di * per_channel + 2 * d * (double)c->vocab;
}

/* Floats of a weight as fm_gradients pads them. */
static bool add_weight(fm_estimate *e, const fm_weight_def *def, const fm_config *c, size_t *floats)
{
    size_t n;
    if (!fm_mul(fm_dim_of(c, def->rows), fm_dim_of(c, def->cols), &n) || n > SIZE_MAX - 16) return false;
    e->n_params += n;
    return fm_add(*floats, fm_round_up(n, 16), floats);
}

static bool count_floats(fm_estimate *e, const fm_arch *arch, const fm_config *c, size_t *floats)
{
    *floats = 0;
    for (size_t i = 0; i < FM_GLOBAL_COUNT; i++)
        if ((i != FM_GLOBAL_HEAD || !c->tie) && !add_weight(e, &arch->globals[i], c, floats)) return false;
    for (size_t l = 0; l < c->n_layer; l++) {
        const fm_block *b = arch->block(c, l);
        for (size_t i = 0; i < b->n_weights; i++)
            if (fm_weight_needed(&b->weights[i], c) == FM_NEEDED && !add_weight(e, &b->weights[i], c, floats)) return false;
    }
    return true;
}

/* A of all layers, which on a device lies apart from its master. */
static size_t count_decays(const fm_arch *arch, const fm_config *c)
{
    size_t n = 0;
    for (size_t l = 0; l < c->n_layer; l++) {
        const fm_block *b = arch->block(c, l);
        for (size_t i = 0; i < b->n_weights; i++)
            if (b->weights[i].map == FM_MAP_A) n += fm_dim_of(c, b->weights[i].rows) * fm_dim_of(c, b->weights[i].cols);
    }
    return n;
}

static bool count_weights_bytes(fm_estimate *e, const fm_model *m, fm_dtype matrices)
{
    size_t floats, all;
    if (!count_floats(e, m->arch, &m->config, &floats) || !fm_mul(floats, 5 * sizeof(float), &all)) return false;
    e->weights = e->gradients = floats * sizeof(float);
    e->moments = 2 * e->weights;
    if (matrices == FM_BF16) e->weights += floats * sizeof(uint16_t); /* what the masters are rounded to */
    if (m->device) e->weights += count_decays(m->arch, &m->config) * sizeof(float);
    e->rest = (floats / FM_SQUARES + 1) * sizeof(double);
    if (!m->device) e->rest += count_weights(m->arch, &m->config) * 2 * sizeof(float *);
    return true;
}

/* A pass with what products and libraries of a device take beside it. */
static size_t whole_pass(size_t bytes, const fm_backward *b, size_t n)
{
    size_t all;
    return bytes && fm_add(bytes, fm_pass_work_bytes(b, n), &all) ? all : 0;
}

static bool count_passes(fm_estimate *e, const fm_backward *like, const fm_train_options *o)
{
    size_t n, batch, step;
    if (!fm_mul(o->length, o->micro_batch, &n) || !n) return false;
    fm_backward b = *like;
    b.n_pieces = n;
    b.recompute = false;
    e->pass[FM_TRAIN_KEEP] = whole_pass(fm_pass_bytes(&b, n), &b, n);
    b.recompute = true;
    e->pass[FM_TRAIN_RECOMPUTE] = whole_pass(fm_pass_bytes(&b, n), &b, n);
    b.recompute = o->recompute;
    e->chunk = o->chunk ? o->chunk : CHUNK;
    if (e->chunk < n) {
        e->pass[FM_TRAIN_CHUNKS] = whole_pass(fm_bptt_bytes(&b, n, e->chunk, true), &b, e->chunk);
        e->pass[FM_TRAIN_TRUNCATED] = whole_pass(fm_bptt_bytes(&b, n, e->chunk, false), &b, e->chunk);
    }
    e->mode = o->chunk && o->chunk < n ? (o->truncate ? FM_TRAIN_TRUNCATED : FM_TRAIN_CHUNKS)
                                       : (o->recompute ? FM_TRAIN_RECOMPUTE : FM_TRAIN_KEEP);
    if (b.m->device) return true; /* windows are the host's */
    return fm_mul(n, 3 * sizeof(int32_t) + sizeof(fm_piece), &batch) && fm_add(e->rest, batch, &e->rest) &&
           fm_mul(fm_schedule_most(&o->schedule), (o->length + 1) * sizeof(int32_t), &step) && fm_add(e->rest, step, &e->rest);
}

size_t fm_estimate_total(const fm_estimate *e, fm_train_mode mode)
{
    size_t all = e->weights + e->gradients + e->moments + e->rest;
    return e->pass[mode] && fm_add(all, e->pass[mode], &all) ? all : 0;
}

static fm_status estimate(fm_estimate *e, const fm_model *m, const fm_train_options *o, const fm_allocator *a, fm_error *err)
{
    unsigned threads = o->threads;
    fm_kernels k;
    fm_pool *pool;
    FM_TRY(fm_model_kernels(m, o->cpu, &k, &threads, err));
    FM_TRY(fm_pool_open(&pool, threads, a, err));
    const fm_backward b = {.m = m, .k = &k, .pool = pool, .forget = true};
    const bool fits = count_weights_bytes(e, m, matrices_of(o)) && count_passes(e, &b, o);
    fm_pool_free(pool);
    e->total = fits ? fm_estimate_total(e, e->mode) : 0;
    if (e->total) return FM_OK;
    return fm_fail(err, FM_ERR_MEMORY, "%zu windows of %zu tokens at once overflow memory: use batch.micro=1 or batch.chunk",
                   o->micro_batch, o->length);
}

fm_status fm_estimate_make(fm_estimate *e, const fm_arch *arch, const fm_config *c, const fm_train_options *o,
                           const fm_allocator *a, fm_error *err)
{
    fm_model m;
    *e = (fm_estimate){.forward_flops = fm_forward_flops(c)};
    FM_TRY(open_outline(&m, arch, c, matrices_of(o), a, err));
    fm_status status = plan_device(&m.device, o, err);
    e->on_device = m.device != NULL;
    if (status == FM_OK) status = estimate(e, &m, o, a, err);
    close_outline(&m);
    return status;
}

const char *fm_train_mode_keys(fm_train_mode mode)
{
    static const char *const keys[FM_TRAIN_MODES] = {"batch.recompute=false", "batch.recompute=true", "batch.chunk",
                                                     "batch.chunk with batch.truncate=true"};
    return keys[mode];
}
