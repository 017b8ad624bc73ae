/* synth.c - fm_synth(): what the small tensors of a random model hold (spec falcon-mamba.md 2.7). */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "convert/internal.h"
#include "model/shape.h"

const char *fm_synth_shape(size_t i) { return fm_shape_name(i); }

/* Every weight of the tables that the configuration asks for. */
static bool has_weight(const fm_job *j, const fm_weight_def *def)
{
    if (def == &j->arch->globals[FM_GLOBAL_HEAD]) return !j->config.tie;
    return fm_weight_needed(def, &j->config) == FM_NEEDED;
}

static void add_item(fm_job *j, fm_model_weight w)
{
    if (!has_weight(j, w.def)) return;
    j->items[j->n++] = (fm_item){.w = w, .rows = fm_dim_of(&j->config, w.def->rows),
                                  .cols = fm_dim_of(&j->config, w.def->cols)};
}

static fm_status plan_items(fm_job *j, fm_error *err)
{
    size_t n = FM_GLOBAL_COUNT;
    const fm_config *c = &j->config;
    for (size_t l = 0; l < c->n_layer; l++) n += j->arch->block(c, l)->n_weights;
    FM_TRY(fm_alloc((void **)&j->items, j->a, n, sizeof *j->items, "the list of tensors", err));
    for (size_t i = 0; i < FM_GLOBAL_COUNT; i++) add_item(j, (fm_model_weight){.def = &j->arch->globals[i], .global = true});
    for (size_t l = 0; l < c->n_layer; l++) {
        const fm_block *b = j->arch->block(c, l);
        for (size_t i = 0; i < b->n_weights; i++) add_item(j, (fm_model_weight){.def = &b->weights[i], .layer = l});
    }
    return FM_OK;
}

/* A of a state as each kind of file stores it. */
static float first_A(float n, fm_source_kind to)
{
    return to == FM_SOURCE_GGUF ? -n : logf(n);
}

/* A small weight as training begins with it, but for what is uniform there: within a half, as of a convolution of 4. */
void fm_synth_small(float *dst, const fm_job *j, const fm_item *it)
{
    const fm_weight_def *def = it->w.def;
    const size_t n = it->rows * it->cols;
    const uint64_t stream = (uint64_t)(it - j->items);
    for (size_t i = 0; i < n; i++) {
        const double u = fm_rng_uniform(j->seed, stream, i);
        switch (def->init) {
        case FM_INIT_A: dst[i] = first_A((float)(i % it->cols + 1), j->to); break;
        case FM_INIT_DT_BIAS: dst[i] = fm_init_dt_bias(u); break;
        case FM_INIT_ONES: dst[i] = 1.0f; break;
        default: dst[i] = (float)(u - 0.5); break;
        }
    }
}

static fm_status plan(fm_job *j, const char *shape, fm_dtype type, const fm_convert_options *o, const char *out,
                      fm_error *err)
{
    *j = (fm_job){.o = o, .a = o->allocator, .name = shape, .to = fm_kind_of_path(out), .seed = j->seed};
    FM_TRY(fm_shape_find(shape, &j->arch, &j->config, err));
    if (o->mixer_rms_eps > 0 && j->config.mixer_norms) j->config.mixer_rms_eps = o->mixer_rms_eps;
    if (j->to == FM_SOURCE_HF && !fm_dtype_get(type)->is_float)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%s: a directory holds f32, f16 or bf16: give one of them, or a name ending in .gguf for %s",
                       out, fm_dtype_get(type)->name);
    FM_TRY(plan_items(j, err));
    fm_plan_quantize(j, type);
    return FM_OK;
}

fm_status fm_synth(const char *shape, const char *type, uint64_t seed, const char *out, const fm_convert_options *o,
                   fm_convert_result *result, fm_error *err)
{
    static const fm_convert_options none = {0};
    fm_job j = {.seed = seed};
    fm_dtype dtype;
    if (result) *result = (fm_convert_result){0};
    if (!fm_dtype_from_name(fm_view_of(type), &dtype)) return fm_dtype_fail(type, err);
    fm_status status = plan(&j, shape, dtype, o ? o : &none, out, err);
    if (status == FM_OK) status = fm_write_model(&j, out, err);
    if (result && status == FM_OK) *result = j.result;
    fm_job_free(&j);
    return status;
}
