/* init.c - see init.h. */
#include "train/init.h"

#include <math.h>

#include "base/rng.h"

typedef struct init {
    const fm_arch *arch;
    const fm_config *c;
    uint64_t seed;
    fm_st_writer w;
    fm_str name;
    float *row;
    const fm_allocator *a;
} init;

/* Weight i of the tables, globals first; false after the last. */
static bool weight_at(const init *t, size_t i, fm_model_weight *out)
{
    if (i < FM_GLOBAL_COUNT) {
        *out = (fm_model_weight){.def = &t->arch->globals[i], .global = true};
        return true;
    }
    i -= FM_GLOBAL_COUNT;
    for (size_t l = 0; l < t->c->n_layer; l++) {
        const fm_block *b = t->arch->block(t->c, l);
        if (i < b->n_weights) {
            *out = (fm_model_weight){.def = &b->weights[i], .layer = l};
            return true;
        }
        i -= b->n_weights;
    }
    return false;
}

static bool is_wanted(const init *t, const fm_model_weight *w)
{
    if (w->def == &t->arch->globals[FM_GLOBAL_HEAD]) return !t->c->tie;
    return fm_weight_needed(w->def, t->c) == FM_NEEDED;
}

/* Value (r, c) of a weight with `cols` columns: a function of its place alone. */
static float value(const init *t, const fm_weight_def *def, uint64_t stream, uint64_t at, size_t cols)
{
    const double u = fm_rng_uniform(t->seed, stream, at), bound = 1.0 / sqrt((double)cols);
    switch (def->init) {
    case FM_INIT_ONES: return 1.0f;
    case FM_INIT_ZEROS: return 0.0f;
    case FM_INIT_EMBEDDING: return 0.02f * fm_rng_normal(t->seed, stream, at);
    case FM_INIT_RESIDUAL: return (float)((2.0 * u - 1.0) * bound / sqrt((double)t->c->n_layer));
    case FM_INIT_A: return (float)log((double)(at % cols + 1));
    case FM_INIT_DT_BIAS: return fm_init_dt_bias(u);
    default: return (float)((2.0 * u - 1.0) * bound);
    }
}

static fm_status announce(init *t, const fm_model_weight *w, fm_error *err)
{
    uint64_t dims[3];
    const unsigned n = fm_weight_dims(dims, w->def, t->c);
    fm_model_weight_name(w, FM_SOURCE_HF, &t->name);
    FM_TRY(fm_str_ok(&t->name, "a tensor name", err));
    return fm_st_put_tensor(&t->w, t->name.p, FM_ST_F32, dims, n, err);
}

static fm_status write_weight(init *t, const fm_model_weight *w, uint64_t stream, fm_error *err)
{
    const size_t rows = fm_dim_of(t->c, w->def->rows), cols = fm_dim_of(t->c, w->def->cols);
    FM_TRY(fm_alloc((void **)&t->row, t->a, cols, sizeof *t->row, "a row", err));
    fm_status status = FM_OK;
    for (size_t r = 0; r < rows && status == FM_OK; r++) {
        for (size_t c = 0; c < cols; c++) t->row[c] = value(t, w->def, stream, (uint64_t)r * cols + c, cols);
        status = fm_st_write(&t->w, t->row, cols * sizeof *t->row, err);
    }
    fm_free(t->a, t->row);
    return status;
}

static fm_status fill(init *t, fm_error *err)
{
    fm_model_weight w;
    for (size_t i = 0; weight_at(t, i, &w); i++)
        if (is_wanted(t, &w)) FM_TRY(announce(t, &w, err));
    FM_TRY(fm_st_begin_data(&t->w, err));
    for (size_t i = 0; weight_at(t, i, &w); i++)
        if (is_wanted(t, &w)) FM_TRY(write_weight(t, &w, i, err));
    return fm_st_commit(&t->w, err);
}

static fm_status write_weights(init *t, const char *dir, fm_error *err)
{
    char *path = fm_path_join(dir, "model.safetensors", t->a, err);
    if (!path) return FM_ERR_MEMORY;
    fm_status status = fm_st_create(&t->w, path, t->a, err);
    if (status == FM_OK) {
        status = fill(t, err);
        fm_st_abort(&t->w);
    }
    fm_free(t->a, path);
    return status;
}

static void put_config(fm_str *out, const init *t)
{
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "architectures");
    fm_jsonw_array(&w);
    fm_jsonw_cstr(&w, t->arch->hf_class);
    fm_jsonw_end(&w, ']');
    fm_jsonw_key(&w, "model_type"), fm_jsonw_cstr(&w, t->arch->hf_type);
    t->arch->put_json(&w, t->c);
    fm_jsonw_key(&w, "torch_dtype"), fm_jsonw_cstr(&w, "float32");
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
}

static fm_status write_config(const init *t, const char *dir, fm_error *err)
{
    fm_str text = {.a = t->a};
    put_config(&text, t);
    fm_status status = fm_str_ok(&text, "config.json", err);
    if (status == FM_OK) status = fm_file_write(dir, "config.json", (fm_view){text.p, text.n}, t->a, err);
    fm_str_free(&text);
    return status;
}

fm_status fm_init_write(const fm_arch *arch, const fm_config *c, uint64_t seed, const char *dir, const fm_allocator *a,
                        fm_error *err)
{
    init t = {.arch = arch, .c = c, .seed = seed, .name = {.a = a}, .a = a};
    fm_status status = write_config(&t, dir, err);
    if (status == FM_OK) status = write_weights(&t, dir, err);
    fm_str_free(&t.name);
    return status;
}
