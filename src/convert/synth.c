/* synth.c - fm_synth(): the shapes of known models, and what their small tensors hold in a random one (spec falcon-mamba.md
 * 1.1, 1.3, 2.7). */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "convert/internal.h"

static const struct shape {
    const char *name, *arch;
    size_t d_model, d_inner, d_state, dt_rank, n_layer, vocab;
    float mixer_rms_eps;
    bool tied;
} shapes[] = {
    {"falcon-mamba-7b", "falcon_mamba", 4096, 8192, 16, 256, 64, 65024, 1e-6f, false},
    {"falcon3-mamba-7b", "falcon_mamba", 4096, 8192, 16, 256, 64, 65024, 1e-5f, false},
    {"mamba-7b-rw", "mamba", 4096, 8192, 16, 256, 64, 50432, 0, false},
    {"mamba-130m", "mamba", 768, 1536, 16, 48, 24, 50280, 0, true},
    {"mamba-370m", "mamba", 1024, 2048, 16, 64, 48, 50280, 0, true},
    {"mamba-790m", "mamba", 1536, 3072, 16, 96, 48, 50280, 0, true},
    {"mamba-1.4b", "mamba", 2048, 4096, 16, 128, 48, 50280, 0, true},
    {"mamba-2.8b", "mamba", 2560, 5120, 16, 160, 64, 50280, 0, true},
    {"tiny", "falcon_mamba", 256, 512, 16, 32, 4, 1024, 1e-6f, false},
};

const char *fm_synth_shape(size_t i) { return i < FM_COUNT(shapes) ? shapes[i].name : NULL; }

static const struct shape *find_shape(const char *name)
{
    for (size_t i = 0; i < FM_COUNT(shapes); i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

static fm_status fail_shape(const char *name, fm_error *err)
{
    fm_str list = {0};
    for (size_t i = 0; i < FM_COUNT(shapes); i++) fm_str_printf(&list, "%s%s", i ? ", " : "", shapes[i].name);
    fm_fail(err, FM_ERR_ARGUMENT, "\"%s\" is not a shape: expected one of %s", name, list.p ? list.p : "");
    fm_str_free(&list);
    return FM_ERR_ARGUMENT;
}

static fm_config config_of(const struct shape *s)
{
    return (fm_config){.d_model = s->d_model, .d_inner = s->d_inner, .d_state = s->d_state, .d_conv = 4, .dt_rank = s->dt_rank,
                       .n_layer = s->n_layer, .vocab = s->vocab, .norm_eps = 1e-5f, .mixer_norms = s->mixer_rms_eps > 0,
                       .mixer_rms_eps = s->mixer_rms_eps, .use_conv_bias = true, .tie_stated = true, .tie = s->tied,
                       .pad_vocab_multiple = 1, .bos = 0, .eos = {0}, .n_eos = 1};
}

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

/* Inverse of softplus at a step drawn log-uniformly from 0.001 .. 0.1. */
static float dt_bias(double u)
{
    const double dt = exp(u * log(100.0) + log(0.001));
    return (float)(dt + log(-expm1(-dt)));
}

void fm_synth_small(float *dst, const fm_job *j, const fm_item *it)
{
    const fm_weight_def *def = it->w.def;
    const size_t n = it->rows * it->cols;
    const uint64_t stream = (uint64_t)(it - j->items);
    const bool norm_or_skip = strcmp(def->name, "norm") == 0 || strcmp(def->name, "norm_f") == 0 || strcmp(def->name, "D") == 0;
    for (size_t i = 0; i < n; i++) {
        const double u = fm_rng_uniform(j->seed, stream, i);
        if (def->map == FM_MAP_A) {
            const float a = (float)(i % it->cols + 1);
            dst[i] = j->to == FM_SOURCE_GGUF ? -a : logf(a);
        } else if (strcmp(def->name, "dt_proj.bias") == 0) {
            dst[i] = dt_bias(u);
        } else {
            dst[i] = norm_or_skip ? 1.0f : (float)(u - 0.5); /* the convolution: uniform within K^-0.5 */
        }
    }
}

static fm_status plan(fm_job *j, const struct shape *s, fm_dtype type, const fm_convert_options *o, const char *out,
                      fm_error *err)
{
    *j = (fm_job){.o = o, .a = o->allocator, .arch = fm_arch_by_name(s->arch), .config = config_of(s), .name = s->name,
                  .to = fm_kind_of_path(out), .seed = j->seed};
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
    const struct shape *s = find_shape(shape);
    fm_job j = {.seed = seed};
    fm_dtype dtype;
    if (result) *result = (fm_convert_result){0};
    if (!s) return fail_shape(shape, err);
    if (!fm_dtype_from_name(fm_view_of(type), &dtype))
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "\"%s\" is not a type: expected q4_k, q8_0, bf16 or another that quantize knows", type);
    fm_status status = plan(&j, s, dtype, o ? o : &none, out, err);
    if (status == FM_OK) status = fm_write_model(&j, out, err);
    if (result && status == FM_OK) *result = j.result;
    fm_job_free(&j);
    return status;
}
