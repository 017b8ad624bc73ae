/* weights.c - walking a model's weights by its tables: names, sources, the check for numbers that are none. */
#include <math.h>
#include <string.h>

#include "model/model.h"

size_t fm_model_weight_count(const fm_model *m)
{
    const fm_layer *last = &m->layers[m->config.n_layer - 1];
    return FM_GLOBAL_COUNT + last->first_weight + last->block->n_weights;
}

/* The last layer whose first weight is not behind weight i. */
static size_t layer_of(const fm_model *m, size_t i)
{
    size_t begin = 0, end = m->config.n_layer;
    while (end - begin > 1) {
        const size_t middle = begin + (end - begin) / 2;
        if (m->layers[middle].first_weight <= i)
            begin = middle;
        else
            end = middle;
    }
    return begin;
}

static fm_model_weight weight_at(const fm_model *m, size_t i)
{
    if (i < FM_GLOBAL_COUNT) return (fm_model_weight){.def = &m->arch->globals[i], .loaded = &m->globals[i], .global = true};
    i -= FM_GLOBAL_COUNT;
    const size_t l = layer_of(m, i);
    const fm_layer *layer = &m->layers[l];
    i -= layer->first_weight;
    FM_ASSERT(i < layer->block->n_weights);
    return (fm_model_weight){.def = &layer->block->weights[i], .loaded = &layer->w[i], .layer = l};
}

fm_model_weight fm_model_weight_at(const fm_model *m, size_t i)
{
    fm_model_weight w = weight_at(m, i);
    w.read = m->on_host ? &m->on_host[i] : w.loaded;
    return w;
}

void fm_model_weight_name(const fm_model_weight *w, fm_source_kind kind, fm_str *out)
{
    fm_str_reset(out);
    const char *name = kind == FM_SOURCE_HF ? w->def->hf : w->def->gguf;
    if (w->global)
        fm_str_puts(out, name);
    else
        fm_str_printf(out, kind == FM_SOURCE_HF ? "backbone.layers.%zu.%s" : "blk.%zu.%s", w->layer, name);
}

/* The spellings an HF file may use for a weight (spec 3): variant 0 is the usual one. */
static bool hf_spelling(const fm_model_weight *w, size_t variant, fm_str *out)
{
    const fm_weight_def *def = w->def;
    fm_str_reset(out);
    if (w->global) {
        const char *name = variant == 0 ? def->hf : def->also ? def->also[variant - 1] : NULL;
        if (name) fm_str_puts(out, name);
        return name != NULL;
    }
    if (variant >= 4) return false;
    fm_str_printf(out, "%s.layers.%zu.", variant / 2 ? "model" : "backbone", w->layer);
    const bool bare = variant % 2 == 1 && fm_view_starts(fm_view_of(def->hf), "mixer.");
    fm_str_puts(out, def->hf + (bare ? strlen("mixer.") : 0));
    return true;
}

static fm_status find_hf(const fm_model *m, const fm_model_weight *w, fm_str *name, fm_source_tensor *out, bool *found,
                         fm_error *err)
{
    for (size_t v = 0; hf_spelling(w, v, name); v++) {
        FM_TRY(fm_str_ok(name, "tensor name", err));
        FM_TRY(fm_source_find(&m->source, name->p, out, found, err));
        if (*found) return FM_OK;
    }
    return FM_OK;
}

fm_status fm_model_weight_source(const fm_model *m, const fm_model_weight *w, fm_source_tensor *out, bool *found, fm_error *err)
{
    fm_str name = {.a = m->a};
    fm_status status;
    *found = false;
    if (m->source.kind == FM_SOURCE_HF) {
        status = find_hf(m, w, &name, out, found, err);
    } else {
        fm_model_weight_name(w, FM_SOURCE_GGUF, &name);
        status = fm_str_ok(&name, "tensor name", err);
        if (status == FM_OK) status = fm_source_find(&m->source, name.p, out, found, err);
    }
    fm_str_free(&name);
    out->name = w->def->name;
    return status;
}

/* First row that decodes to something not finite, or rows. */
static size_t bad_row(const fm_tensor *t, float *row)
{
    for (size_t r = 0; r < t->rows; r++) {
        fm_dtype_get(t->type)->decode(row, fm_tensor_row(t, r), t->cols);
        for (size_t i = 0; i < t->cols; i++)
            if (!isfinite(row[i])) return r;
    }
    return t->rows;
}

static fm_status check_weight(const fm_model *m, const fm_model_weight *w, fm_error *err)
{
    float *row;
    if (!w->read->data) return FM_OK;
    FM_TRY(fm_alloc((void **)&row, m->a, w->read->cols, sizeof(float), "a row", err));
    const size_t bad = bad_row(w->read, row);
    fm_free(m->a, row);
    if (bad == w->read->rows) return FM_OK;
    fm_str name = {.a = m->a};
    fm_model_weight_name(w, m->source.kind, &name);
    fm_fail(err, FM_ERR_FORMAT, "%s: tensor %s (%s) holds NaN or infinity in row %zu: the file is damaged, get it again",
            m->source.path, name.p ? name.p : w->def->name, fm_dtype_get(w->read->type)->name, bad);
    fm_str_free(&name);
    return FM_ERR_FORMAT;
}

fm_status fm_model_check(const fm_model *m, fm_error *err)
{
    const size_t n = fm_model_weight_count(m);
    for (size_t i = 0; i < n; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        FM_TRY(check_weight(m, &w, err));
    }
    return FM_OK;
}
