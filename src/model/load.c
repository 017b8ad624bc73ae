/* load.c - from an open source to a checked model.  Matrices stay where they lie in the mapped file; norms, biases, convolution
 * and A (a thousandth of the weights) are copied as f32 in the layout the kernels want. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

/* Bounds that keep every product of sizes below 2^63: d <= 2^24, layers <= 2^16, state <= 2^12. */
#define DIM_MAX   ((size_t)1 << 24)
#define LAYER_MAX ((size_t)1 << 16)
#define STATE_MAX ((size_t)1 << 12)

static fm_status check_config(const fm_model *m, fm_error *err)
{
    const fm_config *c = &m->config;
    const struct {
        const char *name;
        size_t v, max;
    } sizes[] = {{"d_model", c->d_model, DIM_MAX},   {"d_inner", c->d_inner, DIM_MAX},
                 {"d_state", c->d_state, STATE_MAX}, {"d_conv", c->d_conv, 64},
                 {"dt_rank", c->dt_rank, DIM_MAX},   {"n_layer", c->n_layer, LAYER_MAX},
                 {"vocab", c->vocab, DIM_MAX},       {"pad_vocab_size_multiple", c->pad_vocab_multiple, 1 << 16}};
    for (size_t i = 0; i < FM_COUNT(sizes); i++)
        if (sizes[i].v == 0 || sizes[i].v > sizes[i].max)
            return fm_fail(err, FM_ERR_FORMAT, "%s: %s is %zu, expected 1 .. %zu: the configuration is damaged", m->source.path,
                           sizes[i].name, sizes[i].v, sizes[i].max);
    const float eps[2] = {c->norm_eps, c->mixer_norms ? c->mixer_rms_eps : c->norm_eps};
    for (size_t i = 0; i < 2; i++)
        if (!(eps[i] >= 0.0f && eps[i] < 1.0f))
            return fm_fail(err, FM_ERR_FORMAT, "%s: a norm epsilon is %g, expected 0 .. 1: the configuration is damaged",
                           m->source.path, (double)eps[i]);
    return FM_OK;
}

static const char *weight_full_name(const fm_model *m, const fm_model_weight *w, fm_str *s)
{
    fm_model_weight_name(w, m->source.kind, s);
    return s->p ? s->p : w->def->name;
}

static fm_status fail_missing(const fm_model *m, const fm_model_weight *w, fm_error *err)
{
    fm_str name = {.a = m->a};
    fm_fail(err, FM_ERR_SHAPE, "%s: tensor %s (%s, %s) is missing: the checkpoint is incomplete or not %s", m->source.path,
            weight_full_name(m, w, &name), fm_dim_name(w->def->rows), fm_dim_name(w->def->cols), m->arch->name);
    fm_str_free(&name);
    return FM_ERR_SHAPE;
}

static fm_status fail_unwanted(const fm_model *m, const fm_model_weight *w, fm_error *err)
{
    fm_str name = {.a = m->a};
    fm_fail(err, FM_ERR_SHAPE,
            "%s: there is a tensor %s, but the configuration says that the model has none: they do not belong "
            "together",
            m->source.path, weight_full_name(m, w, &name));
    fm_str_free(&name);
    return FM_ERR_SHAPE;
}

static void put_shape(fm_str *out, const fm_source_tensor *t)
{
    for (size_t i = 0; i < t->n_dims; i++) fm_str_printf(out, "%s%zu", i ? ", " : "", t->dims[i]);
}

/* A matrix (rows, cols) may carry axes of size 1 (conv1d: [d_inner, 1, d_conv], or with the last two swapped). */
static bool shape_fits(const fm_source_tensor *t, size_t rows, size_t cols)
{
    size_t kept[4] = {1, 1, 1, 1}, n = 0;
    for (size_t i = 0; i < t->n_dims; i++)
        if (t->dims[i] != 1) kept[n++] = t->dims[i];
    size_t want[2], n_want = 0;
    if (rows != 1) want[n_want++] = rows;
    if (cols != 1) want[n_want++] = cols;
    return n == n_want && (n < 1 || kept[0] == want[0]) && (n < 2 || kept[1] == want[1]);
}

static fm_status fail_shape(const fm_model *m, const fm_model_weight *w, const fm_source_tensor *t, fm_error *err)
{
    fm_str name = {.a = m->a}, shape = {.a = m->a};
    put_shape(&shape, t);
    fm_fail(err, FM_ERR_SHAPE,
            "%s: tensor %s is (%s), expected (%s = %zu, %s = %zu) by the configuration: file and "
            "configuration do not belong together",
            m->source.path, weight_full_name(m, w, &name), shape.p ? shape.p : "?", fm_dim_name(w->def->rows),
            fm_dim_of(&m->config, w->def->rows), fm_dim_name(w->def->cols), fm_dim_of(&m->config, w->def->cols));
    fm_str_free(&name);
    fm_str_free(&shape);
    return FM_ERR_SHAPE;
}

/* ---- Small tensors, in f32 ---- */

static bool aligned_for(const fm_tensor *t)
{
    const size_t align = t->type == FM_F32 ? 4 : 2; /* every block format begins with 2-byte fields or bytes */
    return (uintptr_t)t->data % align == 0;
}

enum { COPY_ROWS = 16 }; /* at once: what they give one row of a turned tensor is a cache line */

static void turn_rows(float *dst, size_t dst_stride, const float *rows, size_t n, size_t cols)
{
    for (size_t i = 0; i < cols; i++)
        for (size_t r = 0; r < n; r++) dst[i * dst_stride + r] = rows[r * cols + i];
}

/* dst = src decoded; for FM_WEIGHT_SMALL_T dst is (cols, rows).  `rows` has room for COPY_ROWS rows. */
static void copy_small(float *dst, const fm_tensor *src, const fm_weight_def *def, fm_source_kind kind, float *rows)
{
    const bool log_a = def->map == FM_MAP_A && kind == FM_SOURCE_HF;
    const size_t cols = src->cols;
    for (size_t r = 0, n; r < src->rows; r += n) {
        n = src->rows - r < COPY_ROWS ? src->rows - r : COPY_ROWS;
        for (size_t i = 0; i < n; i++) fm_dtype_get(src->type)->decode(rows + i * cols, fm_tensor_row(src, r + i), cols);
        for (size_t i = 0; log_a && i < n * cols; i++) rows[i] = -expf(rows[i]);
        if (def->kind == FM_WEIGHT_SMALL_T)
            turn_rows(dst + r, src->rows, rows, n, cols);
        else
            memcpy(dst + r * cols, rows, n * cols * sizeof *dst);
    }
}

static bool all_finite(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(p[i])) return false;
    return true;
}

static fm_status fail_small(const fm_model *m, const fm_model_weight *w, fm_status status, const char *what, fm_error *err)
{
    fm_str name = {.a = m->a};
    fm_fail(err, status, "%s: tensor %s %s", m->source.path, weight_full_name(m, w, &name), what);
    fm_str_free(&name);
    return status;
}

static fm_status place_small(fm_model *m, const fm_model_weight *w, const fm_source_tensor *t, fm_tensor *out, fm_arena *arena,
                             fm_error *err)
{
    const fm_weight_def *def = w->def;
    const size_t rows = fm_dim_of(&m->config, def->rows), cols = fm_dim_of(&m->config, def->cols);
    float *dst = FM_PUSH(arena, float, rows *cols), *some;
    if (!arena->base) return FM_OK;
    fm_tensor src = t->t;
    if (!fm_dtype_get(src.type)->is_float)
        return fail_small(m, w, FM_ERR_UNSUPPORTED,
                          "is quantised, which small tensors never "
                          "are: expected F32, F16 or BF16",
                          err);
    src.rows = rows, src.cols = cols;
    src.stride = cols * fm_dtype_get(src.type)->bytes;
    FM_TRY(fm_alloc((void **)&some, m->a, cols, COPY_ROWS * sizeof(float), "some rows", err));
    copy_small(dst, &src, def, m->source.kind, some);
    fm_free(m->a, some);
    if (!all_finite(dst, rows * cols))
        return fail_small(m, w, FM_ERR_FORMAT, "holds NaN or infinity: the file is damaged, get it again", err);
    const bool t_kind = def->kind == FM_WEIGHT_SMALL_T;
    *out = (fm_tensor){dst, FM_F32, t_kind ? cols : rows, t_kind ? rows : cols, (t_kind ? rows : cols) * sizeof(float)};
    return FM_OK;
}

/* A matrix is used where it lies; only one that is not aligned for its type (odd safetensors headers) is copied.  Axes of size 1
 * may have made other rows of it, which do not matter as long as no block of a quantised type lies across two of ours. */
static fm_status place_matrix(const fm_model *m, const fm_model_weight *w, const fm_source_tensor *t, fm_tensor *out,
                              fm_arena *arena, fm_error *err)
{
    const fm_dtype_traits *type = fm_dtype_get(t->t.type);
    const size_t rows = fm_dim_of(&m->config, w->def->rows), cols = fm_dim_of(&m->config, w->def->cols);
    if (!type->is_float && (t->t.rows != rows || t->t.cols != cols)) return fail_shape(m, w, t, err);
    fm_tensor view = t->t;
    view.rows = rows;
    view.cols = cols;
    if (type->is_float) view.stride = cols * type->bytes;
    if (!aligned_for(&view)) {
        unsigned char *dst = FM_PUSH(arena, unsigned char, rows *view.stride);
        if (arena->base) memcpy(dst, view.data, rows * view.stride);
        view.data = dst;
    }
    if (arena->base) *out = view;
    return FM_OK;
}

static fm_status place_weight(fm_model *m, const fm_model_weight *w, fm_tensor *out, fm_arena *arena, fm_error *err)
{
    fm_source_tensor t;
    bool found;
    FM_TRY(fm_model_weight_source(m, w, &t, &found, err));
    if (!found) return fm_weight_needed(w->def, &m->config) == FM_NEEDED ? fail_missing(m, w, err) : FM_OK;
    if (fm_weight_needed(w->def, &m->config) == FM_UNWANTED) return fail_unwanted(m, w, err);
    if (!shape_fits(&t, fm_dim_of(&m->config, w->def->rows), fm_dim_of(&m->config, w->def->cols)))
        return fail_shape(m, w, &t, err);
    if (w->def->kind != FM_WEIGHT_MATRIX) return place_small(m, w, &t, out, arena, err);
    return place_matrix(m, w, &t, out, arena, err);
}

/* ---- The whole ---- */

static fm_status place_layers(fm_model *m, fm_arena *arena, fm_error *err)
{
    const fm_config *c = &m->config;
    fm_layer *layers = FM_PUSH(arena, fm_layer, c->n_layer);
    size_t state = 0, half = 0, n_weights = 0;
    for (size_t l = 0; l < c->n_layer; l++) {
        const fm_block *block = m->arch->block(c, l);
        fm_tensor *w = FM_PUSH(arena, fm_tensor, block->n_weights);
        if (arena->base) layers[l] = (fm_layer){block, w, state, half, n_weights};
        state += block->state_floats(c);
        half += fm_block_half_floats(block, c);
        n_weights += block->n_weights;
        for (size_t i = 0; i < block->n_weights; i++) {
            const fm_model_weight mw = {.def = &block->weights[i], .layer = l};
            FM_TRY(place_weight(m, &mw, w ? &w[i] : NULL, arena, err));
        }
    }
    m->layers = layers;
    m->state_floats = state;
    m->half_state_floats = half;
    return FM_OK;
}

bool fm_model_same_matrix(const fm_tensor *a, const fm_tensor *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->stride == b->stride &&
           memcmp(a->data, b->data, a->rows * a->stride) == 0;
}

/* A head that lies in the file is the embedding again where the configuration ties them, or the model was stored wrongly: then it
 * is used, as transformers does from 5 on. */
static fm_status place_globals(fm_model *m, fm_arena *arena, fm_error *err)
{
    for (size_t i = 0; i < FM_GLOBAL_COUNT; i++) {
        const fm_model_weight w = {.def = &m->arch->globals[i], .global = true};
        FM_TRY(place_weight(m, &w, &m->globals[i], arena, err));
    }
    fm_config *c = &m->config;
    fm_tensor *head = &m->globals[FM_GLOBAL_HEAD];
    if (!arena->base) return FM_OK;
    if (!head->data && c->tie_stated && !c->tie) {
        const fm_model_weight w = {.def = &m->arch->globals[FM_GLOBAL_HEAD], .global = true};
        return fail_missing(m, &w, err);
    }
    m->head_differs = head->data && c->tie_stated && c->tie && !fm_model_same_matrix(head, &m->globals[FM_GLOBAL_EMBED]);
    c->tie = !head->data || (c->tie_stated && c->tie && !m->head_differs);
    if (c->tie) *head = m->globals[FM_GLOBAL_EMBED];
    return FM_OK;
}

/* The embedding may be padded beyond the stated vocabulary (state-spaces: 50277 ids, 50280 rows). */
static fm_status adopt_vocab(fm_model *m, fm_error *err)
{
    const fm_model_weight w = {.def = &m->arch->globals[FM_GLOBAL_EMBED], .global = true};
    fm_source_tensor t;
    bool found;
    FM_TRY(fm_model_weight_source(m, &w, &t, &found, err));
    if (found && t.n_dims == 2 && t.dims[0] > m->config.vocab &&
        t.dims[0] == fm_round_up(m->config.vocab, m->config.pad_vocab_multiple))
        m->config.vocab = t.dims[0]; /* <= DIM_MAX + 2^16 */
    return FM_OK;
}

static int by_address(const void *a, const void *b)
{
    const void *const *x = a, *const *y = b;
    return (uintptr_t)*x < (uintptr_t)*y ? -1 : (uintptr_t)*x > (uintptr_t)*y;
}

/* The data of every tensor that a table names, ascending; returns how many. */
static fm_status list_known(const fm_model *m, const void **known, size_t *n_known, fm_error *err)
{
    const size_t n = fm_model_weight_count(m);
    for (size_t i = 0; i < n; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        fm_source_tensor t;
        bool found;
        FM_TRY(fm_model_weight_source(m, &w, &t, &found, err));
        if (found) known[(*n_known)++] = t.t.data;
    }
    qsort(known, *n_known, sizeof *known, by_address);
    return FM_OK;
}

static fm_status fail_extra(const fm_model *m, const void *const *known, size_t n_known, fm_error *err)
{
    const size_t n = fm_source_count(&m->source);
    for (size_t i = 0; i < n; i++) {
        fm_source_tensor t;
        bool found;
        FM_TRY(fm_source_find(&m->source, m->tensors[i].name, &t, &found, err));
        if (found && bsearch(&t.t.data, known, n_known, sizeof *known, by_address)) continue;
        return fm_fail(err, FM_ERR_SHAPE,
                       "%s: %zu of its %zu tensors are not known to architecture %s (a model of %zu layers), the first is %s: "
                       "file and configuration do not belong together",
                       m->source.path, n - n_known, n, m->arch->name, m->config.n_layer,
                       fm_quote_of(fm_view_of(m->tensors[i].name)).text);
    }
    return FM_OK;
}

/* A tensor that no table names would be silently left out of the model: refuse, naming the first. */
static fm_status check_extra(const fm_model *m, fm_error *err)
{
    const void **known;
    size_t n_known = 0;
    FM_TRY(fm_alloc((void **)&known, m->a, fm_model_weight_count(m), sizeof *known, "the list of tensors", err));
    fm_status status = list_known(m, known, &n_known, err);
    if (status == FM_OK && n_known != fm_source_count(&m->source)) status = fail_extra(m, known, n_known, err);
    fm_free(m->a, known);
    return status;
}

static fm_status place_all(fm_model *m, fm_error *err)
{
    fm_arena arena = {0};
    FM_TRY(place_globals(m, &arena, err));
    FM_TRY(place_layers(m, &arena, err));
    FM_TRY(fm_alloc(&m->memory, m->a, arena.used, 1, "the model's small tensors", err));
    arena = (fm_arena){.base = m->memory, .size = arena.used};
    FM_TRY(place_globals(m, &arena, err));
    FM_TRY(place_layers(m, &arena, err));
    return check_extra(m, err);
}

static void override_eps(fm_model *m, const fm_model_options *o)
{
    if (!(o->mixer_rms_eps > 0.0f) || !m->config.mixer_norms) return;
    m->config.mixer_rms_eps = o->mixer_rms_eps;
    m->config.mixer_rms_eps_source = "set by the user";
}

/* general.name of a GGUF file, else the last part of the path. */
static fm_status name_model(fm_model *m, fm_error *err)
{
    fm_view v = {0};
    if (m->source.kind == FM_SOURCE_GGUF) FM_TRY(fm_gguf_get_string(&m->source.gguf, "general.name", &v, NULL, err));
    if (!v.n) {
        v = fm_view_of(m->source.path);
        while (v.n > 1 && v.p[v.n - 1] == '/') v.n--;
        for (size_t i = v.n; i-- > 0;)
            if (v.p[i] == '/' && i + 1 < v.n) {
                v = (fm_view){v.p + i + 1, v.n - i - 1};
                break;
            }
    }
    m->name = fm_strdup(m->a, v.p, v.n, err);
    return m->name ? FM_OK : FM_ERR_MEMORY;
}

static fm_status warn_head(const fm_model *m, const fm_model_options *o, fm_error *err)
{
    const fm_model_weight w = {.def = &m->arch->globals[FM_GLOBAL_HEAD], .global = true};
    fm_str name = {.a = m->a}, line = {.a = m->a};
    if (!m->head_differs || !o->log) return FM_OK;
    fm_str_printf(&line,
                  "warning: %s: the configuration ties the head to the embedding, but %s is there and differs: it is used; "
                  "\"tie_word_embeddings\": false would say so",
                  m->source.path, weight_full_name(m, &w, &name));
    const fm_status status = fm_str_ok(&line, "a warning", err);
    if (status == FM_OK) o->log(o->ctx, line.p);
    fm_str_free(&name);
    fm_str_free(&line);
    return status;
}

static fm_status load(fm_model *m, const char *path, const fm_model_options *o, fm_error *err)
{
    FM_TRY(fm_alloc((void **)&m->identity, m->a, 1, sizeof *m->identity, "a model", err));
    pthread_mutex_init(&m->identity->lock, NULL);
    FM_TRY(fm_source_open(&m->source, path, (fm_map_mode){o->no_mmap, o->progress, o->ctx}, m->a, err));
    FM_TRY(fm_arch_find(&m->arch, &m->source, err));
    FM_TRY(m->arch->read_config(&m->config, &m->source, err));
    override_eps(m, o);
    FM_TRY(check_config(m, err));
    FM_TRY(adopt_vocab(m, err));
    FM_TRY(fm_model_list_tensors(m, err));
    FM_TRY(place_all(m, err));
    FM_TRY(name_model(m, err));
    FM_TRY(warn_head(m, o, err));
    return o->mlock ? fm_source_lock(&m->source, err) : FM_OK;
}

fm_status fm_model_load(fm_model **out, const char *path, const fm_model_options *o, fm_error *err)
{
    static const fm_model_options none = {0};
    if (!o) o = &none;
    *out = NULL;
    fm_model *m;
    FM_TRY(fm_alloc((void **)&m, o->allocator, 1, sizeof *m, "a model", err));
    if (o->allocator) {
        m->allocator_copy = *o->allocator;
        m->a = &m->allocator_copy;
    }
    m->default_temperature = m->default_top_p = -1;
    m->default_top_k = -1;
    const fm_status status = load(m, path, o, err);
    if (status != FM_OK)
        fm_model_unload(m);
    else
        *out = m;
    return status;
}

void fm_model_unload(fm_model *m)
{
    if (!m) return;
    fm_allocator copy = m->allocator_copy;
    const fm_allocator *a = m->a ? &copy : NULL;
    fm_device_release((fm_where){m->device, m->a}, m->device_memory);
    fm_device_free(m->device);
    fm_free(m->a, m->on_host);
    fm_free(m->a, m->memory);
    fm_free(m->a, m->name);
    fm_free(m->a, m->tensors);
    fm_str_free(&m->tensor_names);
    if (m->identity) pthread_mutex_destroy(&m->identity->lock);
    fm_free(m->a, m->identity);
    fm_source_close(&m->source);
    fm_free(a, m);
}
