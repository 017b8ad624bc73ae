// norm.cuh - what every kernel that norms rows has in common: squares in double, summed over a warp in one order.
#ifndef FM_KERNELS_CUDA_NORM_CUH
#define FM_KERNELS_CUDA_NORM_CUH

#include "kernels/cuda/forward.cuh"

enum { KEPT = 4 };           // vectors of a row that a thread keeps; of longer rows the rest is read again
enum { LONG_THREADS = 256 }; // of a block for one long row

__device__ static inline double fm_warp_sum(double v)
{
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

__device__ static inline double squares(float4 v)
{
    const double x = (double)v.x, y = (double)v.y, z = (double)v.z, w = (double)v.w;
    return __fma_rn(x, x, __fma_rn(y, y, __fma_rn(z, z, __dmul_rn(w, w))));
}

// 1 / rms of numbers whose squares come to `sum`; of how many this is the reciprocal, worked out while they are on their way.  A step of
// Newton's takes what the unit of floats gives, within 2^-22, to 2^-42; everybody waits for it, and it is half of what rsqrt() takes.
__device__ static inline float norm_scale(double sum, double reciprocal, float eps)
{
    const double mean = __fma_rn(sum, reciprocal, (double)eps);
    if (!(mean > 1e-37 && mean < 1e37)) return (float)rsqrt(mean);
    float near;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"((float)mean));
    const double r = (double)near;
    return (float)__fma_rn(__dmul_rn(0.5, r), __fma_rn(-mean, __dmul_rn(r, r), 1.0), r);
}

// Over so many warps: each first, then their sums by twos.  Every thread gets it; sums: a place for them; meet(): all threads have come.
template <class MEET> __device__ static inline double block_sum_in(double *sums, double v, MEET meet)
{
    v = fm_warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    meet();
    double all[LONG_THREADS / 32];
#pragma unroll
    for (int i = 0; i < LONG_THREADS / 32; i++) all[i] = sums[i];
#pragma unroll
    for (int step = 1; step < LONG_THREADS / 32; step *= 2)
#pragma unroll
        for (int i = 0; i < LONG_THREADS / 32; i += 2 * step) all[i] += all[i + step];
    return all[0];
}

__device__ static inline double block_sum(double v)
{
    __shared__ double sums[LONG_THREADS / 32];
    return block_sum_in(sums, v, [] { __syncthreads(); });
}

// Four weights from column i on, of which `left` exist; ones where there are none.
__device__ static inline float4 weights_at(const float *w, ptrdiff_t i, ptrdiff_t left)
{
    if (!w) return {1.0f, 1.0f, 1.0f, 1.0f};
    return fm_is_aligned(w) ? fm_load4<true>(w + i, left) : fm_load4<false>(w + i, left);
}

__device__ static inline float4 scaled(float4 v, float scale, float4 w)
{
    return {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w};
}

// A piece of a row is what its threads keep: thread t of THREADS has vectors t, t + THREADS, ...  An order fixed by d, whatever the
// alignment.
template <int THREADS, int N = KEPT> struct piece {
    enum { COLS = 4 * N * THREADS };
    float4 v[N];

    __device__ static ptrdiff_t column(unsigned t, int j) { return 4 * (ptrdiff_t)(t + j * THREADS); }

    template <bool ALIGNED> __device__ void read(const float *x, unsigned t, ptrdiff_t left)
    {
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = fm_load4<ALIGNED>(x + column(t, j), left - column(t, j));
    }
    __device__ void read_weights(const float *w, unsigned t, ptrdiff_t left)
    {
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = weights_at(w, column(t, j), left - column(t, j));
    }
    __device__ double sum_squares() const
    {
        double sum = 0.0;
#pragma unroll
        for (int j = 0; j < N; j++) sum += squares(v[j]);
        return sum;
    }
};

#endif
