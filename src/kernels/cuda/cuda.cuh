// cuda.cuh - what the .cu files of this folder share: the stream behind fm_stream, launches, reductions of fixed order.
#ifndef FM_KERNELS_CUDA_CUDA_CUH
#define FM_KERNELS_CUDA_CUDA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" { // and what it includes: C
#include "kernels/cuda/stream.h"
}

// Packs of one column for weights of floats, and of normed rows of one or two tokens, are made by the products that read them
// (few.cu): which pack is of which rows.  Those least recently used make room: a step has two packs at a time (ops.h).
enum { FM_CUDA_LAZY = 8 };

struct fm_lazy_pack {
    fm_pack_args rows; // n 0: none
    bool normed;       // the rows are to be normed first, with weights w
    const float *w;
    float eps;
};

enum { FM_CUDA_MIX_BYTES = 4 << 20 };

// What launches of as many blocks count together (turn.cuh).
struct fm_turns {
    unsigned taken, published;
};

struct fm_stream {
    cudaStream_t stream;
    cudaStream_t side; // for capture forks and copies; may stay unused
    int device, n_sm;
    size_t l2;
    fm_stream_options o;
    void *work; // scratch of products, fm_stream_reserve
    size_t work_bytes;
    void *mix;                       // scratch of mix.cu: FM_CUDA_MIX_BYTES, its meetings first
    fm_turns *turns;                 // of turn.cuh, by the number of blocks: up to n_sm
    void *blas;                      // cublasLtHandle_t, opened at the first large product
    fm_lazy_pack lazy[FM_CUDA_LAZY]; // the latest first
    bool recording;
    cudaError_t error;                  // the first one
    char message[256];                  // which call met it
    cudaEvent_t marks[FM_STREAM_MARKS]; // NULL: never made
};

// Keeps the first error: of a call that returned one, or of the launch just made.
void fm_cuda_note(fm_stream *s, cudaError_t error, const char *what);
#define FM_CUDA(s, call)     fm_cuda_note((s), (call), #call)
#define FM_LAUNCHED(s, what) fm_cuda_note((s), cudaGetLastError(), (what))

extern "C" void fm_cuda_blas_close(fm_stream *s); // blas.cu

static inline unsigned fm_blocks(size_t n, unsigned threads)
{
    return (unsigned)((n + threads - 1) / threads);
}

// fm_states on the device: passed to kernels by value.
__device__ static inline float *fm_cuda_state(const fm_states &s, size_t seq)
{
    return (s.list ? s.list[seq] : s.rows + seq * s.stride) + s.at;
}

__device__ static inline unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

// Sum over a warp, the same order always; every lane gets it.
__device__ static inline float fm_warp_sum(float v)
{
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

// Lets blocks of a kernel have up to so much dynamic shared memory.  Once is enough: there is one device per process.
template <auto KERNEL> static void fm_cuda_allow_shared(fm_stream *s, size_t bytes)
{
    static bool done;
    if (!done) FM_CUDA(s, cudaFuncSetAttribute(KERNEL, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
    done = true;
}

#endif
