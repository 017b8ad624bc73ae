/* memory.c - what a model and its session take on a device, before anything is there: said by inspect, asked before loading. */
#include "runtime/session.h"

fm_status fm_device_bytes_of(const fm_model *m, const fm_model_options *how, const fm_session_options *o, fm_device_bytes *out,
                             fm_error *err)
{
    fm_model planned = *m; /* the weights as the host has them, the sizes as a device would */
    const fm_device_options options = {.f32 = how->f32_activations, .invariant = how->invariant};
    if (m->device) return fm_session_device_bytes(m, o, out, err);
    FM_TRY(fm_device_plan(&planned.device, &options, err));
    const fm_status status = fm_session_device_bytes(&planned, o, out, err);
    fm_device_free(planned.device);
    return status;
}

size_t fm_device_bytes_sum(const fm_device_bytes *b)
{
    size_t sum;
    return fm_add(b->weights, b->states, &sum) && fm_add(sum, b->scratch, &sum) ? sum : SIZE_MAX;
}

/* The largest type of matrices, smaller than what they have, in which the weights fit into `bytes`; vectors stay in f32. */
static const char *fitting_type(const fm_model *m, size_t bytes, size_t now)
{
    static const struct {
        const char *name;
        double bits;
    } types[] = {{"BF16", 16}, {"Q8_0", 8.5}, {"Q4_K", 4.5}};
    double matrices = 0, vectors = 0;
    for (size_t i = 0; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        const double n = w.loaded->data ? (double)w.loaded->rows * (double)w.loaded->cols : 0;
        *(w.def->kind == FM_WEIGHT_MATRIX ? &matrices : &vectors) += n;
    }
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        const double then = matrices * types[i].bits * (1.05 / 8) + 4 * vectors; /* some matrices stay larger */
        if (then <= (double)bytes && then < (double)now) return types[i].name;
    }
    return NULL;
}

static fm_status fail_room(const fm_model *m, const fm_session_options *o, const fm_device_bytes *need, fm_error *err)
{
    size_t left, all;
    fm_device_memory(m->device, &left, &all);
    const size_t rest = need->states + need->scratch;
    const char *type = rest < left ? fitting_type(m, left - rest, need->weights) : NULL;
    return fm_fail(
        err, FM_ERR_MEMORY,
        "%s takes %zu MiB (weights %zu, states of %zu sequences %zu, steps of %zu tokens %zu), but of the %zu MiB of %s "
        "only %zu are free: %s%s, or use --device cpu",
        m->source.path, fm_device_bytes_sum(need) >> 20, need->weights >> 20, fm_session_n_seq(o), need->states >> 20,
        fm_session_chunk(o), need->scratch >> 20, all >> 20, fm_device_name(m->device), left >> 20,
        type ? type : "take fewer sequences, a smaller chunk (-b) or a smaller model",
        type ? " would fit; quantize it, take fewer sequences or a smaller chunk (-b)" : "");
}

fm_status fm_device_check_room(const fm_model *m, const fm_session_options *o, fm_error *err)
{
    fm_device_bytes need;
    size_t left, all;
    FM_TRY(fm_session_device_bytes(m, o, &need, err));
    fm_device_memory(m->device, &left, &all);
    return fm_device_bytes_sum(&need) <= left ? FM_OK : fail_room(m, o, &need, err);
}
