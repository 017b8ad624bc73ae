/* device.c - see device.h. */
#include "ops/device.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/stream.h"

struct fm_device {
    fm_stream *stream;
    fm_gpu_info info;
};

static fm_status lost(const fm_device *d, const char *why, fm_error *err)
{
    return fm_fail(err, FM_ERR_DEVICE, "%s failed: %s; what it held is lost, start again (states saved before are good)",
                   d->info.name, why);
}

/* ---- Choosing ---- */

/* The device with most free memory, or -1 and why there is none. */
static int choose(const char **why)
{
    const int n = fm_gpu_count(why);
    size_t most = 0;
    int best = -1;
    for (int i = 0; i < n; i++) {
        fm_gpu_info info;
        if (!fm_gpu_describe(&info, i, why) || info.major < 9 || info.memory_free <= most) continue;
        most = info.memory_free;
        best = i;
    }
    if (best < 0 && !*why) *why = "no CUDA device of compute capability 9.0 (Hopper) was found";
    return best;
}

static fm_status open_gpu(fm_device **out, int index, const fm_device_options *o, fm_error *err)
{
    const char *why = NULL;
    const fm_stream_options options = {.f32 = o && o->f32, .invariant = o && o->invariant};
    fm_device *d;
    FM_TRY(fm_alloc((void **)&d, NULL, 1, sizeof *d, "a device", err));
    if (fm_gpu_describe(&d->info, index, &why)) d->stream = fm_stream_open(index, &options, &why);
    if (d->stream) {
        *out = d;
        return FM_OK;
    }
    fm_free(NULL, d);
    return fm_fail(err, FM_ERR_DEVICE, "cuda:%d cannot be used: %s; --device cpu works without", index, why);
}

static fm_status open_named(fm_device **out, const char *name, const fm_device_options *o, fm_error *err)
{
    const char *why = NULL;
    int index = -1;
    if (!strcmp(name, "cuda")) {
        index = choose(&why);
        if (index < 0) return fm_fail(err, FM_ERR_DEVICE, "no GPU can be used: %s; --device cpu works without", why);
    } else {
        char *end;
        const long n = strtol(name + strlen("cuda:"), &end, 10);
        const int count = fm_gpu_count(&why);
        if (*end || end == name + strlen("cuda:") || n < 0 || n >= count)
            return fm_fail(err, FM_ERR_DEVICE, "device %s: expected cuda:0 .. cuda:%d%s%s", name, count > 0 ? count - 1 : 0,
                           count > 0 ? "" : ", but there is none: ",
                           count > 0 ? ""
                           : why     ? why
                                     : "no CUDA device");
        index = (int)n;
    }
    return open_gpu(out, index, o, err);
}

static fm_status open_auto(fm_device **out, const fm_device_options *o, const char **note, fm_error *err)
{
    const char *why = NULL;
    const int index = choose(&why);
    if (note) *note = index < 0 ? why : NULL;
    return index < 0 ? FM_OK : open_gpu(out, index, o, err);
}

fm_status fm_device_plan(fm_device **out, const fm_device_options *o, fm_error *err)
{
    const char *why = NULL;
    const fm_stream_options options = {.f32 = o && o->f32, .invariant = o && o->invariant};
    fm_device *d;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&d, NULL, 1, sizeof *d, "a device", err));
    *d = (fm_device){.stream = fm_stream_plan(&options, &why), .info.name = "a GPU"};
    if (d->stream) {
        *out = d;
        return FM_OK;
    }
    fm_free(NULL, d);
    return fm_fail(err, FM_ERR_DEVICE, "what a GPU takes is not known: %s", why);
}

void fm_device_free(fm_device *d)
{
    if (!d) return;
    fm_stream_close(d->stream);
    fm_free(NULL, d);
}

/* ---- What it is ---- */

const char *fm_device_name(const fm_device *d)
{
    return d ? d->info.name : "cpu";
}

struct fm_stream *fm_device_stream(const fm_device *d)
{
    return d ? d->stream : NULL;
}

void fm_device_kernels(const fm_device *d, fm_kernels *out)
{
    (void)d;
    *out = (fm_kernels){0};
    fm_kernels_fill_cuda(out);
}

void fm_device_memory(const fm_device *d, size_t *bytes_free, size_t *bytes)
{
    fm_gpu_info info = d->info;
    const char *why;
    fm_gpu_describe(&info, info.index, &why);
    *bytes_free = info.memory_free;
    *bytes = info.memory;
}

size_t fm_device_in_use(const fm_device *d)
{
    size_t left, all;
    fm_device_memory(d, &left, &all);
    return left < d->info.memory_free ? d->info.memory_free - left : 0;
}

void fm_device_peaks(fm_device *d, double *read, double *bf16)
{
    const fm_gpu_peaks peaks = fm_cuda_peaks(d->stream);
    *read = peaks.read;
    *bf16 = peaks.bf16;
}

/* ---- Memory ---- */

static fm_status too_much(const fm_device *d, size_t bytes, const char *what, fm_error *err)
{
    size_t left, all;
    fm_device_memory(d, &left, &all);
    return fm_fail(err, FM_ERR_MEMORY,
                   "%s: %s takes %zu MiB, of %zu MiB in all %zu are free: use a smaller type (quantize), fewer sequences or a "
                   "smaller chunk, or --device cpu",
                   d->info.name, what, bytes >> 20, all >> 20, left >> 20);
}

fm_status fm_device_alloc(fm_where w, void **out, size_t count, size_t size, const char *what, fm_error *err)
{
    size_t bytes;
    if (!w.device) return fm_alloc(out, w.a, count, size, what, err);
    if (!fm_mul(count, size, &bytes)) return fm_fail(err, FM_ERR_MEMORY, "%s overflows memory", what);
    *out = fm_stream_alloc(w.device->stream, bytes);
    if (!*out) return too_much(w.device, bytes, what, err);
    fm_stream_zero(w.device->stream, *out, bytes);
    return FM_OK;
}

void fm_device_release(fm_where w, void *p)
{
    if (w.device)
        fm_stream_free(w.device->stream, p);
    else
        fm_free(w.a, p);
}

fm_status fm_device_alloc_host(fm_where w, void **out, size_t count, size_t size, const char *what, fm_error *err)
{
    size_t bytes;
    if (!w.device) return fm_alloc(out, w.a, count, size, what, err);
    if (!fm_mul(count, size, &bytes)) return fm_fail(err, FM_ERR_MEMORY, "%s overflows memory", what);
    *out = fm_stream_alloc_host(w.device->stream, bytes);
    if (!*out) return fm_fail(err, FM_ERR_MEMORY, "%s: %zu MiB of locked host memory are not to be had", what, bytes >> 20);
    memset(*out, 0, bytes);
    return FM_OK;
}

void fm_device_release_host(fm_where w, void *p)
{
    if (w.device)
        fm_stream_free_host(w.device->stream, p);
    else
        fm_free(w.a, p);
}

void fm_device_upload(fm_device *d, void *to, const void *from, size_t bytes)
{
    if (d)
        fm_stream_upload(d->stream, to, from, bytes);
    else if (bytes)
        memcpy(to, from, bytes);
}

void fm_device_copy(fm_device *d, void *to, const void *from, size_t bytes)
{
    if (d)
        fm_stream_copy(d->stream, to, from, bytes);
    else if (bytes)
        memcpy(to, from, bytes);
}

void fm_device_zero(fm_device *d, void *p, size_t bytes)
{
    if (d)
        fm_stream_zero(d->stream, p, bytes);
    else if (bytes)
        memset(p, 0, bytes);
}

fm_status fm_device_wait(fm_device *d, fm_error *err)
{
    const char *why = NULL;
    if (!d || fm_stream_wait(d->stream, &why)) return FM_OK;
    return lost(d, why, err);
}

void fm_device_download(fm_device *d, void *to, const void *from, size_t bytes)
{
    if (d)
        fm_stream_download(d->stream, to, from, bytes);
    else if (bytes)
        memcpy(to, from, bytes);
}

void fm_device_choose(fm_device *d, int32_t *ids, const float *logits, const fm_draw *draws, size_t n, size_t vocab)
{
    if (draws)
        fm_cuda_sample(d->stream, ids, logits, vocab, draws, n, vocab);
    else
        fm_cuda_argmax(d->stream, ids, logits, vocab, n, vocab);
}

/* ---- Weights ---- */

size_t fm_device_tensor_bytes(const fm_device *d, const fm_tensor *W)
{
    (void)d;
    size_t bytes;
    const size_t row = fm_cuda_row_bytes(W->type, W->cols);
    return row && fm_mul(row, W->rows, &bytes) ? bytes : 0;
}

size_t fm_device_work_bytes(const fm_device *d, const fm_tensor *W, size_t n)
{
    return fm_cuda_work_bytes(d->stream, W, n);
}

size_t fm_device_library_bytes(const fm_device *d, size_t n)
{
    return fm_cuda_library_bytes(d->stream, n);
}

static fm_status reserve(fm_device *d, size_t bytes, fm_error *err)
{
    return fm_stream_reserve(d->stream, bytes) ? FM_OK : too_much(d, bytes, "scratch of products", err);
}

fm_status fm_device_reserve(fm_device *d, const fm_tensor *W, size_t n, fm_error *err)
{
    return d ? reserve(d, fm_device_work_bytes(d, W, n), err) : FM_OK;
}

size_t fm_device_back_work_bytes(const fm_device *d, const fm_tensor *W, size_t n, bool half)
{
    const size_t forward = fm_device_work_bytes(d, W, n), back = fm_cuda_back_work_bytes(d->stream, W, n, half);
    return forward > back ? forward : back;
}

fm_status fm_device_reserve_back(fm_device *d, const fm_tensor *W, size_t n, bool half, fm_error *err)
{
    return d ? reserve(d, fm_device_back_work_bytes(d, W, n, half), err) : FM_OK;
}

/* ---- Recording ---- */

void fm_device_record_begin(fm_device *d)
{
    fm_stream_record_begin(d->stream);
}

fm_graph *fm_device_record_end(fm_device *d)
{
    return fm_stream_record_end(d->stream);
}

void fm_device_launch(fm_device *d, fm_graph *g)
{
    fm_graph_launch(d->stream, g);
}

size_t fm_device_graph_launches(const fm_graph *g)
{
    return g ? fm_graph_launches(g) : 0;
}

void fm_device_graph_free(fm_graph *g)
{
    if (g) fm_graph_free(g);
}

fm_status fm_device_open(fm_device **out, const char *name, const fm_device_options *o, const char **note, fm_error *err)
{
    *out = NULL;
    if (note) *note = NULL;
    if (!name || !strcmp(name, "cpu")) return FM_OK;
    if (!strcmp(name, "auto")) return open_auto(out, o, note, err);
    if (!strcmp(name, "cuda") || !strncmp(name, "cuda:", 5)) return open_named(out, name, o, err);
    return fm_fail(err, FM_ERR_ARGUMENT, "there is no device %s: expected cpu, cuda, cuda:0 ... or auto", name);
}
