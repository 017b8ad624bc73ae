// norm.cuh - what every kernel that norms rows has in common: squares in double, summed over a warp in one order.
#ifndef FM_KERNELS_CUDA_NORM_CUH
#define FM_KERNELS_CUDA_NORM_CUH

#include "kernels/cuda/forward.cuh"

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

// 1 / rms of d numbers whose squares come to `sum`.
__device__ static inline float norm_scale(double sum, double d, float eps)
{
    return (float)(1.0 / sqrt(sum / d + (double)eps));
}

#endif
