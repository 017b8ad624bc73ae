/* device.c - a loaded model's weights go to a GPU, once; what lay in the file stays mapped for whoever asks the source. */
#include <string.h>

#include "base/cpu.h"
#include "model/model.h"

enum { ALIGN = 256 };

/* A tied head is the embedding. */
static bool has_place(const fm_model *m, size_t i, const fm_tensor *t)
{
    return t->data && !(i == FM_GLOBAL_HEAD && m->config.tie);
}

/* Bytes of a weight on the device; 0: there is no kernel for its type. */
static size_t weight_bytes(const fm_model *m, const fm_model_weight *w)
{
    const fm_tensor *t = w->loaded;
    const size_t bytes =
        w->def->kind == FM_WEIGHT_MATRIX ? fm_device_tensor_bytes(m->device, t) : t->rows * t->cols * sizeof(float);
    return fm_round_up(bytes, ALIGN);
}

fm_status fm_model_device_bytes(const fm_model *m, size_t *sum, fm_error *err)
{
    *sum = 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (!has_place(m, i, w.loaded)) continue;
        const size_t bytes = weight_bytes(m, &w);
        if (!bytes)
            return fm_fail(err, FM_ERR_UNSUPPORTED,
                           "%s: %s is %s, for which %s has no kernels: quantize to Q8_0, Q4_K or Q4_0, or use --device cpu",
                           m->source.path, w.def->name, fm_dtype_get(w.loaded->type)->name, fm_device_name(m->device));
        if (!fm_add(*sum, bytes, sum)) return fm_fail(err, FM_ERR_MEMORY, "%s: its weights overflow memory", m->source.path);
    }
    return FM_OK;
}

static fm_status move_weight(fm_model *m, fm_load *l, const fm_model_weight *w, unsigned char *place, fm_error *err)
{
    fm_tensor *t = (fm_tensor *)(uintptr_t)w->loaded; /* the model is ours while it loads */
    const fm_tensor host = *t;
    if (w->def->kind == FM_WEIGHT_MATRIX) return fm_load_tensor(l, t, place, &host, err);
    fm_device_upload(m->device, place, host.data, host.rows * host.cols * sizeof(float));
    t->data = place;
    return FM_OK;
}

static fm_status move_weights(fm_model *m, fm_load *l, size_t bytes, const fm_model_options *o, fm_error *err)
{
    unsigned char *place = m->device_memory;
    size_t done = 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (!has_place(m, i, w.loaded)) continue;
        const size_t n = weight_bytes(m, &w);
        FM_TRY(move_weight(m, l, &w, place + done, err));
        done += n;
        if (o->progress && !o->progress(o->ctx, (double)done / (double)bytes))
            return fm_fail(err, FM_ERR_CANCELLED, "%s: loading was cancelled", m->source.path);
    }
    if (m->config.tie) m->globals[FM_GLOBAL_HEAD] = m->globals[FM_GLOBAL_EMBED];
    return FM_OK;
}

fm_status fm_model_open_device(fm_model *m, const fm_model_options *o, fm_error *err)
{
    const fm_device_options how = {.f32 = o->f32_activations, .invariant = o->invariant};
    const char *note = NULL;
    FM_TRY(fm_device_open(&m->device, o->device, &how, &note, err));
    if (note && o->log) o->log(o->ctx, note);
    return FM_OK;
}

static fm_status keep_host_view(fm_model *m, fm_error *err)
{
    const size_t n = fm_model_weight_count(m);
    fm_tensor *t;
    FM_TRY(fm_alloc((void **)&t, m->a, n, sizeof *t, "the list of weights", err));
    for (size_t i = 0; i < n; i++) t[i] = *fm_model_weight_at(m, i).loaded;
    m->on_host = t;
    return FM_OK;
}

fm_status fm_model_to_device(fm_model *m, const fm_model_options *o, fm_error *err)
{
    size_t bytes;
    fm_load *l;
    FM_TRY(fm_model_device_bytes(m, &bytes, err));
    FM_TRY(fm_device_alloc((fm_where){m->device, m->a}, &m->device_memory, bytes, 1, "the weights", err));
    FM_TRY(keep_host_view(m, err));
    FM_TRY(fm_load_begin(&l, m->device, err));
    const fm_status moved = move_weights(m, l, bytes, o, err), ended = fm_load_end(l, moved == FM_OK ? err : NULL);
    return moved == FM_OK ? ended : moved;
}

fm_status fm_model_kernels(const fm_model *m, const char *cpu, fm_kernels *k, unsigned *threads, fm_error *err)
{
    unsigned features;
    FM_TRY(fm_cpu_cap(&features, cpu, err));
    if (m->device) {
        fm_device_kernels(m->device, k);
        *threads = 1;
        return FM_OK;
    }
    fm_kernels_for(k, features);
    if (!*threads) *threads = fm_cpu_count();
    return FM_OK;
}
