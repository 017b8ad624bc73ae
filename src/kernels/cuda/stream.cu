// stream.cu - see stream.h: devices, memory, the queue, recorded graphs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

// ---- Devices ----

static const char *explain(cudaError_t e)
{
    if (e == cudaErrorInsufficientDriver) return "the driver is older than this program needs (CUDA 13.0)";
    if (e == cudaErrorNoDevice) return "no CUDA device was found";
    return cudaGetErrorString(e);
}

int fm_gpu_count(const char **why)
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    *why = e == cudaSuccess ? NULL : explain(e);
    return e == cudaSuccess ? n : -1;
}

bool fm_gpu_describe(fm_gpu_info *out, int index, const char **why)
{
    cudaDeviceProp p;
    size_t left = 0, all = 0;
    cudaError_t e = cudaSetDevice(index);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&p, index);
    if (e == cudaSuccess) e = cudaMemGetInfo(&left, &all);
    *why = e == cudaSuccess ? NULL : explain(e);
    if (e != cudaSuccess) return false;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    out->index = index;
    out->major = p.major;
    out->minor = p.minor;
    out->n_sm = p.multiProcessorCount;
    out->memory = all;
    out->memory_free = left;
    out->l2 = (size_t)p.l2CacheSize;
    cudaDriverGetVersion(&out->driver);
    cudaRuntimeGetVersion(&out->runtime);
    return true;
}

// ---- The queue ----

void fm_cuda_note(fm_stream *s, cudaError_t error, const char *what)
{
    if (error == cudaSuccess || s->error != cudaSuccess) return;
    s->error = error;
    snprintf(s->message, sizeof s->message, "%s (%s) in %s", cudaGetErrorName(error), cudaGetErrorString(error), what);
}

static cudaError_t open_queue(fm_stream *s)
{
    cudaDeviceProp p;
    cudaError_t e = cudaSetDevice(s->device);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&p, s->device);
    if (e != cudaSuccess) return e;
    s->n_sm = p.multiProcessorCount;
    s->l2 = (size_t)p.l2CacheSize;
    e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = cudaMalloc(&s->mix, FM_CUDA_MIX_BYTES);
    if (e == cudaSuccess) e = cudaMemsetAsync(s->mix, 0, FM_CUDA_MIX_BYTES, s->stream);
    const size_t turns = ((size_t)s->n_sm + 1) * sizeof *s->turns;
    if (e == cudaSuccess) e = cudaMalloc(&s->turns, turns);
    if (e == cudaSuccess) e = cudaMemsetAsync(s->turns, 0, turns, s->stream);
    return e;
}

fm_stream *fm_stream_open(int device, const fm_stream_options *o, const char **why)
{
    fm_stream *s = (fm_stream *)calloc(1, sizeof *s);
    *why = "out of memory";
    if (!s) return NULL;
    s->device = device;
    if (o) s->o = *o;
    const cudaError_t e = open_queue(s);
    if (e == cudaSuccess) return s;
    *why = explain(e);
    free(s);
    return NULL;
}

fm_stream *fm_stream_plan(const fm_stream_options *o, const char **why)
{
    fm_stream *s = (fm_stream *)calloc(1, sizeof *s);
    *why = s ? NULL : "out of memory";
    if (!s) return NULL;
    s->device = -1;
    if (o) s->o = *o;
    return s;
}

void fm_stream_close(fm_stream *s)
{
    if (!s) return;
    if (s->device < 0) {
        free(s);
        return;
    }
    cudaStreamSynchronize(s->stream);
    fm_cuda_blas_close(s);
    cudaFree(s->work);
    cudaFree(s->mix);
    cudaFree(s->turns);
    for (int i = 0; i < FM_STREAM_MARKS; i++)
        if (s->marks[i]) cudaEventDestroy(s->marks[i]);
    cudaStreamDestroy(s->stream);
    free(s);
}

bool fm_stream_wait(fm_stream *s, const char **why)
{
    FM_CUDA(s, cudaStreamSynchronize(s->stream));
    if (why) *why = s->error == cudaSuccess ? NULL : s->message;
    return s->error == cudaSuccess;
}

// ---- Memory ----

// A failed allocation is no error of the queue: whoever asked says what would help.
void *fm_stream_alloc(fm_stream *s, size_t bytes)
{
    void *p = NULL;
    cudaSetDevice(s->device);
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess) return p;
    cudaGetLastError();
    return NULL;
}

void fm_stream_free(fm_stream *s, void *p)
{
    if (p) FM_CUDA(s, cudaFree(p));
}

void *fm_stream_alloc_host(fm_stream *s, size_t bytes)
{
    void *p = NULL;
    cudaSetDevice(s->device);
    if (cudaMallocHost(&p, bytes ? bytes : 1) == cudaSuccess) return p;
    cudaGetLastError();
    return NULL;
}

void fm_stream_free_host(fm_stream *s, void *p)
{
    if (p) FM_CUDA(s, cudaFreeHost(p));
}

void fm_stream_upload(fm_stream *s, void *to, const void *from, size_t bytes)
{
    if (bytes) FM_CUDA(s, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, s->stream));
}

void fm_stream_download(fm_stream *s, void *to, const void *from, size_t bytes)
{
    if (bytes) FM_CUDA(s, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, s->stream));
}

void fm_stream_copy(fm_stream *s, void *to, const void *from, size_t bytes)
{
    if (bytes) FM_CUDA(s, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s->stream));
}

void fm_stream_zero(fm_stream *s, void *p, size_t bytes)
{
    if (bytes) FM_CUDA(s, cudaMemsetAsync(p, 0, bytes, s->stream));
}

bool fm_stream_reserve(fm_stream *s, size_t bytes)
{
    if (bytes <= s->work_bytes) return true;
    FM_CUDA(s, cudaStreamSynchronize(s->stream));
    cudaFree(s->work);
    s->work = fm_stream_alloc(s, bytes);
    s->work_bytes = s->work ? bytes : 0;
    return s->work != NULL;
}

void fm_stream_mark(fm_stream *s, unsigned which)
{
    if (!s->marks[which]) FM_CUDA(s, cudaEventCreateWithFlags(&s->marks[which], cudaEventDisableTiming));
    if (s->marks[which]) FM_CUDA(s, cudaEventRecord(s->marks[which], s->stream));
}

void fm_stream_reach(fm_stream *s, unsigned which)
{
    if (s->marks[which]) FM_CUDA(s, cudaEventSynchronize(s->marks[which]));
}

// ---- Recording ----

struct fm_graph {
    cudaGraphExec_t exec;
    size_t launches;
};

void fm_stream_record_begin(fm_stream *s)
{
    s->recording = true;
    FM_CUDA(s, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal));
}

static size_t count_kernels(cudaGraph_t graph)
{
    size_t n = 0, kernels = 0;
    if (cudaGraphGetNodes(graph, NULL, &n) != cudaSuccess) return 0;
    cudaGraphNode_t *nodes = (cudaGraphNode_t *)malloc(n * sizeof *nodes);
    if (nodes && cudaGraphGetNodes(graph, nodes, &n) == cudaSuccess)
        for (size_t i = 0; i < n; i++) {
            cudaGraphNodeType type;
            if (cudaGraphNodeGetType(nodes[i], &type) == cudaSuccess) kernels += type == cudaGraphNodeTypeKernel;
        }
    free(nodes);
    return kernels;
}

fm_graph *fm_stream_record_end(fm_stream *s)
{
    cudaGraph_t graph = NULL;
    fm_graph *g = NULL;
    s->recording = false;
    FM_CUDA(s, cudaStreamEndCapture(s->stream, &graph));
    if (!graph) return NULL;
    if (s->error == cudaSuccess) g = (fm_graph *)calloc(1, sizeof *g);
    if (g) {
        g->launches = count_kernels(graph);
        FM_CUDA(s, cudaGraphInstantiate(&g->exec, graph, 0));
    }
    cudaGraphDestroy(graph);
    if (g && s->error != cudaSuccess) {
        free(g);
        g = NULL;
    }
    return g;
}

void fm_graph_launch(fm_stream *s, fm_graph *g)
{
    FM_CUDA(s, cudaGraphLaunch(g->exec, s->stream));
}

void fm_graph_free(fm_graph *g)
{
    if (!g) return;
    cudaGraphExecDestroy(g->exec);
    free(g);
}

size_t fm_graph_launches(const fm_graph *g)
{
    return g->launches;
}
