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

static fm_status count_bytes(const fm_model *m, size_t *sum, fm_error *err)
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

/* Said before anything is copied, with the number of bits a weight could have. */
static fm_status check_room(const fm_model *m, size_t bytes, fm_error *err)
{
    size_t left, all;
    fm_device_memory(m->device, &left, &all);
    if (bytes <= left) return FM_OK;
    double weights = 0.0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_tensor *t = fm_model_weight_at(m, i).loaded;
        weights += (double)t->rows * (double)t->cols;
    }
    const double bits = 8.0 * (double)left / weights;
    return fm_fail(
        err, FM_ERR_MEMORY,
        "%s takes %zu MiB, but of the %zu MiB of %s only %zu are free: %s would fit; quantize it, or use --device cpu",
        m->source.path, bytes >> 20, all >> 20, fm_device_name(m->device), left >> 20,
        bits > 17  ? "BF16"
        : bits > 9 ? "Q8_0"
        : bits > 5 ? "Q4_K"
                   : "nothing");
}

static fm_status move_weight(fm_model *m, const fm_model_weight *w, unsigned char *place, fm_error *err)
{
    fm_tensor *t = (fm_tensor *)(uintptr_t)w->loaded; /* the model is ours while it loads */
    const fm_tensor host = *t;
    if (w->def->kind == FM_WEIGHT_MATRIX) return fm_device_store(m->device, t, place, &host, err);
    fm_device_upload(m->device, place, host.data, host.rows * host.cols * sizeof(float));
    t->data = place;
    return FM_OK;
}

static fm_status move_weights(fm_model *m, size_t bytes, const fm_model_options *o, fm_error *err)
{
    unsigned char *place = m->device_memory;
    size_t done = 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (!has_place(m, i, w.loaded)) continue;
        const size_t n = weight_bytes(m, &w);
        FM_TRY(move_weight(m, &w, place + done, err));
        done += n;
        if (o->progress && !o->progress(o->ctx, (double)done / (double)bytes))
            return fm_fail(err, FM_ERR_CANCELLED, "%s: loading was cancelled", m->source.path);
    }
    if (m->config.tie) m->globals[FM_GLOBAL_HEAD] = m->globals[FM_GLOBAL_EMBED];
    return fm_device_wait(m->device, err);
}

fm_status fm_model_to_device(fm_model *m, const fm_model_options *o, fm_error *err)
{
    const fm_device_options how = {.f32 = o->f32_activations, .invariant = o->invariant};
    const char *note = NULL;
    size_t bytes;
    FM_TRY(fm_device_open(&m->device, o->device, &how, &note, err));
    if (note && o->log) o->log(o->ctx, note);
    if (!m->device) return FM_OK;
    FM_TRY(count_bytes(m, &bytes, err));
    FM_TRY(check_room(m, bytes, err));
    FM_TRY(fm_device_alloc((fm_where){m->device, m->a}, &m->device_memory, bytes, 1, "the weights", err));
    return move_weights(m, bytes, o, err);
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
