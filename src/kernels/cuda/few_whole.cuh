// few_whole.cuh - one column of a product small enough that the multiprocessors' shared memory holds all its weights at once: every one is
// asked for while the kernel in front works, and what is left for afterwards is arithmetic.
//
// A block has two tiles of 16 rows, one after the other, and eight warps share the chunks of both; what they are multiplied with stays in
// registers.  A block of few.cuh has one, two blocks are on a multiprocessor, and the second finds no room beside mix.cuh.  Sums are
// few.cuh's, and so are the bits.
#ifndef FM_KERNELS_CUDA_FEW_WHOLE_CUH
#define FM_KERNELS_CUDA_FEW_WHOLE_CUH

#include "kernels/cuda/few.cuh"

template <class F> struct whole_room {
    static constexpr int WARPS = 8, TILES = 2, CHUNKS = 4, ROWS = 16, COLS = 8; // CHUNKS: of a warp and tile, at most
    static constexpr int STAGE = 2 * F::SLOT, STAGES = TILES * CHUNKS,
                         SUMS = ROWS * COLS; // SUMS: of a warp and tile, few_leave()'s
    static constexpr size_t SHARED = (size_t)WARPS * (STAGES * STAGE + TILES * SUMS * sizeof(float));
    // Stages on their way at once: they saturate the memory, and more would be in the way of what the kernel in front reads.
    static constexpr int UNDER_WAY = 2;
};

template <class F> __device__ static inline void whole_ask(uint8_t *ring, const few_args &p, const few_lane &l)
{
    using R = whole_room<F>;
    const unsigned warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < R::TILES; i++) {
        few_walk at;
        at.enter(p, 0, (blockIdx.x * R::TILES + i) * R::ROWS, 0, l);
#pragma unroll
        for (int k = 0; k < R::CHUNKS; k++) {
            const unsigned chunk = warp + k * R::WARPS, to = shared_address(ring + (i * R::CHUNKS + k) * R::STAGE);
            if (i * R::CHUNKS + k >= R::UNDER_WAY) copy_wait<R::UNDER_WAY - 1>();
            if (chunk < p.chunks) {
                F::ask(to, at.row[0], p, chunk, l);
                F::ask(to + F::SLOT, at.row[1], p, chunk, l);
            }
            copy_commit();
        }
    }
}

// The sums of a row's warps in order, few_finish()'s; thread r has row r of the block's.
template <class R> __device__ static inline float whole_sum(const float *sums)
{
    const float *from = sums + threadIdx.x / R::ROWS * R::WARPS * R::SUMS + threadIdx.x % R::ROWS * R::COLS;
    float v = 0.0f;
#pragma unroll
    for (int w = 0; w < R::WARPS; w++) v += from[w * R::SUMS];
    return v;
}

template <class F> __global__ __launch_bounds__(256, 2) static void whole_kernel(const few_args p)
{
    using R = whole_room<F>;
    extern __shared__ uint8_t shared[];
    const unsigned warp = threadIdx.x / 32, row = blockIdx.x * R::TILES * R::ROWS + threadIdx.x;
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    uint8_t *ring = shared + warp * R::STAGES * R::STAGE;
    float *sums = (float *)(shared + R::WARPS * R::STAGES * R::STAGE);
    const bool finishes = threadIdx.x < R::TILES * R::ROWS && row < p.rows;
    whole_ask<F>(ring, p, l);
    fm_begin();
    typename F::column x[R::CHUNKS];
#pragma unroll
    for (int k = 0; k < R::CHUNKS; k++) x[k].read(p.x, p, min(warp + k * R::WARPS, p.chunks - 1), l);
    const float old = finishes && p.add ? p.y[row] : 0.0f;
#pragma unroll
    for (int i = 0; i < R::TILES; i++) {
        float y[1][4] = {};
        if (i + 1 < R::TILES)
            few_await<R::CHUNKS>();
        else
            few_await<0>();
#pragma unroll
        for (int k = 0; k < R::CHUNKS; k++)
            if (warp + k * R::WARPS < p.chunks) F::multiply_one(y[0], ring + (i * R::CHUNKS + k) * R::STAGE, x[k], l);
        few_leave<1>(sums + (i * R::WARPS + warp) * R::SUMS, y, l);
    }
    __syncthreads();
    if (!finishes) return;
    float v = whole_sum<R>(sums);
    if (p.bias) v += p.bias[row];
    p.y[row] = p.add ? v + old : v;
}

// A product that few.cuh would cut into `groups` tiles: of more than one and up to two to a multiprocessor.
template <class F> static bool whole_launch(fm_stream *s, const few_args &p, unsigned groups)
{
    if constexpr (!F::WHOLE)
        return false;
    else {
        using R = whole_room<F>;
        const unsigned sm = (unsigned)s->n_sm;
        if (p.cluster != 1 || p.split != R::WARPS || p.tiles != 1 || p.x_shared || p.chunks > R::WARPS * R::CHUNKS ||
            groups <= sm || groups > R::TILES * sm)
            return false;
        fm_cuda_allow_shared<whole_kernel<F>>(s, R::SHARED);
        const fm_launch l = {s, fm_blocks(p.rows, R::TILES * R::ROWS), 32 * R::WARPS, R::SHARED, 1};
        fm_cuda_launch(&l, "linear", whole_kernel<F>, p);
        return true;
    }
}

#endif
