/* none.c - stream.h in a program built without CUDA: there is no device, so nobody comes to ask for more. */
#include "kernels/cuda/stream.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

/* A call that only the owner of a device can make. */
#define NEVER FM_ASSERT(!"a device in a program without CUDA")

int fm_gpu_count(const char **why)
{
    *why = "this program was built without CUDA: build it where nvcc is";
    return -1;
}

bool fm_gpu_describe(fm_gpu_info *out, int index, const char **why)
{
    NEVER;
    return false;
}

fm_stream *fm_stream_open(int device, const fm_stream_options *o, const char **why)
{
    NEVER;
    return NULL;
}

fm_stream *fm_stream_plan(const fm_stream_options *o, const char **why)
{
    fm_gpu_count(why);
    return NULL;
}

void fm_stream_close(fm_stream *s)
{
    NEVER;
}

bool fm_stream_wait(fm_stream *s, const char **why)
{
    NEVER;
    return false;
}

void *fm_stream_alloc(fm_stream *s, size_t bytes)
{
    NEVER;
    return NULL;
}

void fm_stream_free(fm_stream *s, void *p)
{
    NEVER;
}

void *fm_stream_alloc_host(fm_stream *s, size_t bytes)
{
    NEVER;
    return NULL;
}

void fm_stream_free_host(fm_stream *s, void *p)
{
    NEVER;
}

void fm_stream_upload(fm_stream *s, void *to, const void *from, size_t bytes)
{
    NEVER;
}

void fm_stream_download(fm_stream *s, void *to, const void *from, size_t bytes)
{
    NEVER;
}

void fm_stream_copy(fm_stream *s, void *to, const void *from, size_t bytes)
{
    NEVER;
}

void fm_stream_zero(fm_stream *s, void *p, size_t bytes)
{
    NEVER;
}

void fm_stream_mark(fm_stream *s, unsigned which)
{
    NEVER;
}

void fm_stream_reach(fm_stream *s, unsigned which)
{
    NEVER;
}

void fm_stream_record_begin(fm_stream *s)
{
    NEVER;
}

fm_graph *fm_stream_record_end(fm_stream *s)
{
    NEVER;
    return NULL;
}

void fm_graph_launch(fm_stream *s, fm_graph *g)
{
    NEVER;
}

void fm_graph_free(fm_graph *g)
{
    NEVER;
}

size_t fm_graph_launches(const fm_graph *g)
{
    NEVER;
    return 0;
}

bool fm_stream_reserve(fm_stream *s, size_t bytes)
{
    NEVER;
    return false;
}

size_t fm_cuda_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n)
{
    NEVER;
    return 0;
}

size_t fm_cuda_library_bytes(const fm_stream *s, size_t n)
{
    NEVER;
    return 0;
}

size_t fm_cuda_back_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n, bool half)
{
    NEVER;
    return 0;
}

size_t fm_cuda_row_bytes(fm_dtype type, size_t cols)
{
    NEVER;
    return 0;
}

void fm_cuda_store(fm_stream *s, void *out, const void *raw, fm_dtype type, size_t rows, size_t cols)
{
    NEVER;
}

bool fm_stream_register(fm_stream *s, void *p, size_t bytes)
{
    NEVER;
    return false;
}

void fm_stream_unregister(fm_stream *s, void *p)
{
    NEVER;
}

fm_gpu_peaks fm_cuda_peaks(fm_stream *s)
{
    NEVER;
    return (fm_gpu_peaks){0};
}

void fm_cuda_argmax(fm_stream *s, int32_t *ids, const float *logits, size_t stride, size_t n, size_t vocab)
{
    NEVER;
}

void fm_cuda_sample(fm_stream *s, int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, size_t n,
                    size_t vocab)
{
    NEVER;
}

void fm_kernels_fill_cuda(fm_kernels *k)
{
    NEVER;
}
