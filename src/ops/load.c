/* load.c - weights go to a device: several threads read them into locked memory, from which copies run at the speed of the bus;
 * while one piece is on its way and laid out there, the next one is read. */
#include <string.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "kernels/cuda/stream.h"
#include "ops/device.h"

enum { PIECE_BYTES = 32 << 20, N_PLACES = 2, READERS_MOST = 8 };

struct fm_load {
    fm_device *d;
    fm_pool *pool;
    unsigned char *host[N_PLACES]; /* locked */
    void *raw[N_PLACES];           /* the same on the device, as it lies in the file */
    size_t place_bytes;
    uint64_t n_sent;
    const unsigned char *from; /* what is being read, and to where */
    unsigned char *to;
    size_t bytes;
};

static fm_where there(const fm_load *l)
{
    return (fm_where){.device = l->d};
}

static void release_places(fm_load *l)
{
    for (size_t i = 0; i < N_PLACES; i++) {
        fm_device_release_host(there(l), l->host[i]);
        fm_device_release(there(l), l->raw[i]);
        l->host[i] = NULL, l->raw[i] = NULL;
    }
}

static fm_status open_places(fm_load *l, size_t bytes, fm_error *err)
{
    if (bytes <= l->place_bytes) return FM_OK;
    FM_TRY(fm_device_wait(l->d, err));
    release_places(l);
    l->place_bytes = bytes;
    for (size_t i = 0; i < N_PLACES; i++) {
        FM_TRY(fm_device_alloc_host(there(l), (void **)&l->host[i], bytes, 1, "room for weights on their way", err));
        FM_TRY(fm_device_alloc(there(l), &l->raw[i], bytes, 1, "room for weights on their way", err));
    }
    return FM_OK;
}

fm_status fm_load_begin(fm_load **out, fm_device *d, fm_error *err)
{
    fm_load *l;
    const unsigned cpus = fm_cpu_count();
    *out = NULL;
    FM_TRY(fm_alloc((void **)&l, NULL, 1, sizeof *l, "a load", err));
    *l = (fm_load){.d = d};
    const fm_status status = fm_pool_open(&l->pool, cpus < READERS_MOST ? cpus : READERS_MOST, NULL, err);
    if (status == FM_OK)
        *out = l;
    else
        fm_free(NULL, l);
    return status;
}

fm_status fm_load_end(fm_load *l, fm_error *err)
{
    if (!l) return FM_OK;
    const fm_status status = fm_device_wait(l->d, err);
    release_places(l);
    fm_pool_free(l->pool);
    fm_free(NULL, l);
    return status;
}

/* Each thread a part of whole pages. */
static void read_part(void *ctx, unsigned part, unsigned n_parts)
{
    const fm_load *l = ctx;
    const fm_run run = {.part = part, .n_parts = n_parts};
    size_t begin, end;
    fm_run_range(&run, l->bytes, 4096, &begin, &end);
    if (begin < end) memcpy(l->to + begin, l->from + begin, end - begin);
}

/* n rows from row r on, to `out`. */
static void send(fm_load *l, void *out, const fm_tensor *W, size_t r, size_t n)
{
    fm_stream *s = fm_device_stream(l->d);
    const unsigned place = (unsigned)(l->n_sent++ % N_PLACES);
    fm_stream_reach(s, place);
    l->from = fm_tensor_row(W, r);
    l->to = l->host[place];
    l->bytes = n * W->stride;
    fm_pool_run(l->pool, read_part, l);
    fm_stream_upload(s, l->raw[place], l->to, l->bytes);
    fm_stream_mark(s, place);
    fm_cuda_store(s, out, l->raw[place], W->type, n, W->cols);
}

fm_status fm_load_tensor(fm_load *l, fm_tensor *out, void *place, const fm_tensor *W, fm_error *err)
{
    const size_t row = fm_cuda_row_bytes(W->type, W->cols), each = W->stride < PIECE_BYTES ? PIECE_BYTES / W->stride : 1;
    FM_ASSERT(row > 0); /* as fm_device_tensor_bytes() said */
    FM_TRY(open_places(l, each * W->stride > PIECE_BYTES ? each * W->stride : PIECE_BYTES, err));
    for (size_t r = 0; r < W->rows; r += each)
        send(l, (unsigned char *)place + r * row, W, r, W->rows - r < each ? W->rows - r : each);
    *out = (fm_tensor){place, W->type, W->rows, W->cols, row};
    return FM_OK;
}
