/* info.c - what a model says about itself, and its name by content. */
#include <string.h>

#include "base/sha256.h"
#include "model/model.h"

#define MATRIX_HEAD_BYTES ((size_t)4096)

/* The type that holds most of the matrix bytes. */
static const char *main_type(const fm_model *m)
{
    size_t bytes[FM_DTYPE_COUNT] = {0}, best = 0;
    const size_t n = fm_model_weight_count(m);
    for (size_t i = 0; i < n; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (w.def->kind == FM_WEIGHT_MATRIX && w.loaded->data && !w.global)
            bytes[w.loaded->type] += w.loaded->rows * w.loaded->stride;
    }
    for (size_t t = 1; t < FM_DTYPE_COUNT; t++)
        if (bytes[t] > bytes[best]) best = t;
    return fm_dtype_get((fm_dtype)best)->name;
}

FM_API const char *fm_model_device(const fm_model *m)
{
    return fm_device_name(m->device);
}

FM_API fm_model_info fm_model_get_info(const fm_model *m)
{
    const fm_config *c = &m->config;
    fm_model_info i = {.arch = m->arch->name,
                       .name = m->name,
                       .type = main_type(m),
                       .format = m->source.kind == FM_SOURCE_HF ? "safetensors" : "gguf",
                       .d_model = c->d_model,
                       .d_inner = c->d_inner,
                       .d_state = c->d_state,
                       .d_conv = c->d_conv,
                       .dt_rank = c->dt_rank,
                       .n_layer = c->n_layer,
                       .vocab = c->vocab,
                       .state_bytes = m->state_floats * sizeof(float),
                       .trained_length = c->trained_length,
                       .norm_eps = c->norm_eps,
                       .mixer_rms_eps = c->mixer_norms ? c->mixer_rms_eps : 0.0f,
                       .mixer_rms_eps_source = c->mixer_norms ? c->mixer_rms_eps_source : "no norms on dt, B, C",
                       .tied_head = c->tie};
    const size_t n = fm_model_weight_count(m);
    for (size_t w = 0; w < n; w++) {
        const fm_model_weight mw = fm_model_weight_at(m, w);
        if (mw.loaded->data && !(c->tie && mw.global && w == FM_GLOBAL_HEAD)) i.n_params += mw.loaded->rows * mw.loaded->cols;
    }
    for (size_t t = 0; t < fm_model_tensor_count(m); t++) i.weight_bytes += m->tensors[t].bytes;
    return i;
}

/* ---- Identity ---- */

static void hash_config(fm_sha256 *h, const fm_model *m)
{
    const fm_config *c = &m->config;
    const uint64_t sizes[] = {c->d_model, c->d_inner, c->d_state, c->d_conv, c->dt_rank, c->n_layer, c->vocab, c->mixer_norms};
    const float eps[] = {c->norm_eps, c->mixer_norms ? c->mixer_rms_eps : 0.0f};
    fm_sha256_add(h, m->arch->name, strlen(m->arch->name) + 1);
    fm_sha256_add(h, sizes, sizeof sizes);
    fm_sha256_add(h, eps, sizeof eps);
}

static void hash_weight(fm_sha256 *h, const fm_model_weight *w)
{
    const fm_tensor *t = w->read;
    const uint64_t head[] = {w->layer, fm_dtype_get(t->type)->gguf, t->data ? t->rows : 0, t->data ? t->cols : 0};
    fm_sha256_add(h, w->def->name, strlen(w->def->name) + 1);
    fm_sha256_add(h, head, sizeof head);
    if (!t->data) return;
    const size_t bytes = t->rows * t->stride;
    fm_sha256_add(h, t->data, w->def->kind == FM_WEIGHT_MATRIX && bytes > MATRIX_HEAD_BYTES ? MATRIX_HEAD_BYTES : bytes);
}

static void name_by_content(const fm_model *m, char id[65])
{
    fm_sha256 h;
    unsigned char digest[32];
    fm_sha256_begin(&h);
    hash_config(&h, m);
    const size_t n = fm_model_weight_count(m);
    for (size_t i = 0; i < n; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        hash_weight(&h, &w);
    }
    fm_sha256_end(&h, digest);
    fm_hex(id, digest, sizeof digest);
}

FM_API fm_status fm_model_id(const fm_model *m, char out[65], fm_error *err)
{
    (void)err;
    fm_identity *id = m->identity;
    pthread_mutex_lock(&id->lock);
    if (!id->text[0]) name_by_content(m, id->text);
    memcpy(out, id->text, sizeof id->text);
    pthread_mutex_unlock(&id->lock);
    return FM_OK;
}
