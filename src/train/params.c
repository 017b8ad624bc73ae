/* params.c - see params.h. */
#include "train/params.h"

#include <math.h>
#include <string.h>

#include "train/tensors.h"

#define ROUND_KEY 0x726f756e64696e67u /* apart from what the seed keys elsewhere */

bool fm_params_decays(const fm_params *p, size_t i)
{
    const fm_weight_def *def = fm_model_weight_at(p->m, i).def;
    return def->kind == FM_WEIGHT_MATRIX || def->cols == FM_DIM_CONV;
}

static void decode_weight(float *w, const fm_model_weight *from)
{
    const fm_tensor *t = from->loaded;
    for (size_t r = 0; r < t->rows; r++) fm_dtype_get(t->type)->decode(w + r * t->cols, fm_tensor_row(t, r), t->cols);
    for (size_t i = 0; from->def->map == FM_MAP_A && i < t->rows * t->cols; i++) w[i] = logf(-w[i]);
}

static fm_where where(const fm_params *p)
{
    return (fm_where){p->m ? p->m->device : NULL, p->a};
}

static bool is_decay(const fm_model_weight *w)
{
    return w->def->map == FM_MAP_A;
}

/* Masters of weight i, decoded on the host. */
static fm_status fill_master(fm_params *p, size_t i, size_t count, fm_error *err)
{
    const fm_model_weight w = fm_model_weight_at(p->m, i);
    fm_device *device = p->m->device;
    float *host = p->w[i];
    if (device) FM_TRY(fm_alloc((void **)&host, p->a, count, sizeof(float), "a weight", err));
    decode_weight(host, &w);
    if (!device) return FM_OK;
    fm_device_upload(device, p->w[i], host, count * sizeof(float));
    const fm_status status = fm_device_wait(device, err);
    fm_free(p->a, host);
    return status;
}

/* The model computes with the master itself or its bf16, but for A, whose memory is the model's own, or on a device the next of
 * `decays`. */
static void adopt(const fm_params *p, size_t i, float **decays)
{
    const fm_model_weight w = fm_model_weight_at(p->m, i);
    fm_tensor *t = (fm_tensor *)(uintptr_t)w.loaded; /* the model is ours now */
    if (p->halves && p->halves[i]) {
        *t = (fm_tensor){p->halves[i], FM_BF16, t->rows, t->cols, t->cols * sizeof(uint16_t)};
    } else if (!is_decay(&w)) {
        *t = (fm_tensor){p->w[i], FM_F32, t->rows, t->cols, t->cols * sizeof(float)};
    } else if (p->m->device) {
        t->data = *decays;
        *decays += t->rows * t->cols;
    }
}

static size_t count_decays(const fm_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (is_decay(&w)) n += w.loaded->rows * w.loaded->cols;
    }
    return n;
}

/* Rows on a device begin at multiples of 16 bytes, those of masters and of their copies where the last one ended. */
static fm_status check_rows(const fm_params *p, fm_error *err)
{
    const size_t step = p->kind == FM_PARAMS_F32 ? 4 : 8;
    for (size_t i = 0; i < p->n && p->m->device; i++) {
        const fm_model_weight w = fm_model_weight_at(p->m, i);
        if (w.def->kind == FM_WEIGHT_MATRIX && w.loaded->data && w.loaded->cols % step)
            return fm_fail(err, FM_ERR_UNSUPPORTED,
                           "%s has %zu columns: training on a device wants multiples of %zu; change the shape%s, or use "
                           "--device cpu",
                           w.def->name, w.loaded->cols, step,
                           step == 8 && w.loaded->cols % 4 == 0 ? ", optimizer.weights" : "");
    }
    return FM_OK;
}

static fm_status open_halves(fm_params *p, fm_error *err)
{
    if (p->kind == FM_PARAMS_F32) return FM_OK;
    FM_TRY(fm_alloc((void **)&p->halves, p->a, p->n, sizeof *p->halves, "the list of weights", err));
    return fm_device_alloc(where(p), (void **)&p->halves_block, p->floats, sizeof(uint16_t), "the weights in bf16", err);
}

static fm_status open_params(fm_params *p, const fm_gradients *g, fm_error *err)
{
    FM_TRY(check_rows(p, err));
    FM_TRY(fm_alloc((void **)&p->w, p->a, p->n, sizeof *p->w, "the list of weights", err));
    FM_TRY(fm_device_alloc(where(p), (void **)&p->memory, p->floats, sizeof(float), "the weights", err));
    if (p->m->device) FM_TRY(fm_device_alloc(where(p), (void **)&p->decays, count_decays(p->m), sizeof(float), "decays", err));
    FM_TRY(open_halves(p, err));
    float *decays = p->decays;
    for (size_t i = 0; i < p->n; i++) {
        if (!g->g[i]) continue;
        p->w[i] = p->memory + (g->g[i] - g->memory);
        if (p->halves && fm_model_weight_at(p->m, i).def->kind == FM_WEIGHT_MATRIX)
            p->halves[i] = p->halves_block + (g->g[i] - g->memory);
        FM_TRY(fill_master(p, i, g->counts[i], err));
        adopt(p, i, &decays);
    }
    return FM_OK;
}

fm_status fm_params_open(fm_params *p, fm_model *m, const fm_gradients *g, fm_params_kind kind, uint64_t seed, fm_error *err)
{
    *p = (fm_params){.m = m, .a = g->a, .n = g->n, .floats = g->floats, .kind = kind, .seed = seed};
    const fm_status status = open_params(p, g, err);
    if (status != FM_OK) {
        fm_params_free(p);
        return status;
    }
    if (m->config.tie) m->globals[FM_GLOBAL_HEAD] = m->globals[FM_GLOBAL_EMBED];
    return FM_OK;
}

void fm_params_free(fm_params *p)
{
    fm_free(p->a, p->w);
    fm_device_release(where(p), p->memory);
    fm_device_release(where(p), p->decays);
    fm_free(p->a, p->halves);
    fm_device_release(where(p), p->halves_block);
    *p = (fm_params){0};
}

typedef struct settling {
    const fm_params *p;
    const fm_kernels *k;
} settling;

static void round_weight(const settling *s, const fm_run *run, size_t i, size_t count)
{
    const fm_params *p = s->p;
    s->k->narrow(run, &(fm_narrow_args){.out = p->halves[i],
                                        .w = p->w[i],
                                        .n = count,
                                        .by_chance = p->kind == FM_PARAMS_BF16_STOCHASTIC,
                                        .seed = p->seed ^ ROUND_KEY,
                                        .stream = p->rounded << 20 | i});
}

/* Each worker a range of each weight that follows its master. */
static void settle_share(void *ctx, unsigned part, unsigned n_parts)
{
    const settling *s = ctx;
    const fm_params *p = s->p;
    const fm_run run = {.part = part, .n_parts = n_parts, .stream = fm_device_stream(p->m->device)};
    for (size_t i = 0; i < p->n; i++) {
        const fm_model_weight w = fm_model_weight_at(p->m, i);
        const size_t count = w.loaded->rows * w.loaded->cols;
        if (p->halves && p->halves[i]) {
            round_weight(s, &run, i, count);
        } else if (is_decay(&w) && p->w[i]) {
            s->k->decays(&run, (float *)(uintptr_t)w.loaded->data, p->w[i], count);
        }
    }
}

void fm_params_settle(fm_params *p, const fm_kernels *k, fm_pool *pool, uint64_t step)
{
    p->rounded = step;
    fm_pool_run(pool, settle_share, &(settling){p, k});
}

fm_status fm_params_write(const fm_params *p, const char *path, fm_error *err)
{
    const fm_tensor_set set = {"", p->w, (const uint16_t *const *)p->halves};
    const fm_tensor_file f = {.m = p->m, .sets = &set, .n_sets = 1, .type = FM_F32, .a = p->a};
    return fm_tensors_write(&f, path, err);
}
