// rows.cu - softmax, rows moved about, decays: each limited by memory.
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"

namespace
{

enum { THREADS = 256, BLOCKS_PER_SM = 16 };

// Blocks for n items of one thread each, in a loop where they are many.
unsigned grid_for(const fm_stream *s, size_t n)
{
    const size_t most = (size_t)s->n_sm * BLOCKS_PER_SM, want = (n + THREADS - 1) / THREADS;
    return (unsigned)(want < most ? want : most);
}

// ---- softmax: a block a row.  Threads sum every SOFTMAX_THREADS-th value, warps add threads, the block adds warps ----

enum { SOFTMAX_THREADS = 1024 };

struct softmax {
    float *out, *lse;
    const float *x;
    size_t x_stride, d;
};

// The same value in every thread.
template <typename F> __device__ float block_reduce(float v, F join)
{
    __shared__ float warps[SOFTMAX_THREADS / 32];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) v = join(v, __shfl_xor_sync(0xffffffffu, v, i));
    __syncthreads(); // the last reduction has been read
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = warps[threadIdx.x % 32];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) v = join(v, __shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

// A NaN is never the maximum, and makes the sum NaN.
__global__ void __launch_bounds__(SOFTMAX_THREADS) softmax_row(softmax a)
{
    fm_begin();
    const float *x = a.x + blockIdx.x * a.x_stride;
    float *out = a.out ? a.out + blockIdx.x * a.d : NULL;
    float max = -INFINITY, sum = 0.0f;
    for (size_t i = threadIdx.x; i < a.d; i += SOFTMAX_THREADS) max = fmaxf(max, x[i]);
    max = block_reduce(max, [](float p, float q) { return fmaxf(p, q); });
    for (size_t i = threadIdx.x; i < a.d; i += SOFTMAX_THREADS) {
        const float e = expf(x[i] - max);
        if (out) out[i] = e;
        sum += e;
    }
    sum = block_reduce(sum, [](float p, float q) { return p + q; });
    if (a.lse && threadIdx.x == 0) a.lse[blockIdx.x] = max + logf(sum);
    for (size_t i = threadIdx.x; i < a.d && out; i += SOFTMAX_THREADS) out[i] = __fdiv_rn(out[i], sum);
}

void softmax_entry(const fm_run *run, float *out, float *lse, const float *x, size_t x_stride, size_t n, size_t d)
{
    if (n == 0) return;
    fm_queue(run->stream, "softmax", softmax_row, (unsigned)n, SOFTMAX_THREADS, softmax{out, lse, x, x_stride, d});
}

// ---- Rows ----

void embed(const fm_run *run, float *out, size_t out_stride, const fm_tensor *table, const int32_t *ids, size_t n)
{
    if (n > 0) fm_cuda_expand_rows(run->stream, out, out_stride, table, ids, n);
}

struct rows {
    float *out;
    const float *x;
    const size_t *index;
    size_t out_stride, x_stride, n, d;
};

// `quads` vectors a row.
template <bool ALIGNED> __global__ void __launch_bounds__(THREADS) gather_rows(rows a, size_t quads)
{
    fm_begin();
    const size_t step = (size_t)gridDim.x * THREADS, all = a.n * quads;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < all; i += step) {
        const size_t r = i / quads, c = i % quads * 4, from = a.index ? a.index[r] : r;
        const ptrdiff_t left = (ptrdiff_t)(a.d - c);
        fm_store4<ALIGNED>(a.out + r * a.out_stride + c, left, fm_load4<ALIGNED>(a.x + from * a.x_stride + c, left));
    }
}

void gather(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const size_t *index, size_t n,
            size_t d)
{
    const size_t quads = (d + 3) / 4;
    const bool aligned = fm_aligned(out, out_stride) && fm_aligned(x, x_stride);
    if (n == 0 || d == 0) return;
    fm_queue(run->stream, "gather", aligned ? gather_rows<true> : gather_rows<false>, grid_for(run->stream, n * quads), THREADS,
             rows{out, x, index, out_stride, x_stride, n, d}, quads);
}

// ---- States: a sequence each blockIdx.y; where they lie is known here only ----

__global__ void __launch_bounds__(THREADS) copy_state(fm_states to, fm_states from, size_t floats)
{
    fm_begin();
    float *out = fm_cuda_state(to, blockIdx.y);
    const float *in = fm_cuda_state(from, blockIdx.y);
    const bool aligned = fm_is_aligned(out) && fm_is_aligned(in);
    const size_t step = (size_t)gridDim.x * THREADS * 4;
    for (size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * 4; i < floats; i += step) {
        const ptrdiff_t left = (ptrdiff_t)(floats - i);
        if (aligned)
            fm_store4<true>(out + i, left, fm_load4<true>(in + i, left));
        else
            fm_store4<false>(out + i, left, fm_load4<false>(in + i, left));
    }
}

void copy_states(const fm_run *run, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats)
{
    if (n_seq == 0 || floats == 0) return;
    if (n_seq > 65535) {
        fm_cuda_note(run->stream, cudaErrorInvalidValue, "copy_states: expected at most 65535 sequences a step");
        return;
    }
    fm_queue(run->stream, "copy_states", copy_state, dim3(grid_for(run->stream, (floats + 3) / 4), (unsigned)n_seq), THREADS,
             *to, *from, floats);
}

// ---- Decays ----

__global__ void __launch_bounds__(THREADS) decay(float *A, const float *w, size_t n)
{
    fm_begin();
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (size_t)gridDim.x * THREADS) A[i] = -expf(w[i]);
}

void decays(const fm_run *run, float *A, const float *w, size_t n)
{
    if (n > 0) fm_queue(run->stream, "decays", decay, grid_for(run->stream, n), THREADS, A, w, n);
}

} // namespace

extern "C" void fm_cuda_fill_rows(fm_kernels *k)
{
    k->softmax = softmax_entry;
    k->embed = embed;
    k->gather = gather;
    k->copy_states = copy_states;
    k->decays = decays;
}
