// back_scan.cuh - what the kernels of the scan's backward share: sizes, arguments, which sequences a block walks.
#ifndef FM_KERNELS_CUDA_BACK_SCAN_CUH
#define FM_KERNELS_CUDA_BACK_SCAN_CUH

#include "kernels/cuda/back.cuh"
#include "kernels/cuda/scan.cuh"
#include "kernels/cuda/walks.cuh"

enum {
    CHANNELS = FM_CHANNEL_GRANULE,
    STATES = 16,
    EACH = 4, // states of a lane, and lanes of a channel
    PAIRS = CHANNELS / 2,
    THREADS = PAIRS * STATES / EACH,
    WARPS = THREADS / 32,
    CHUNK = 8,
    SUMS = STATES + 2 // of a channel over tokens: g_A, g_dt_bias, g_skip
};

typedef struct scan_back {
    fm_scan_back_args a;
    const size_t *begin;
    size_t n_seq, n_tokens;
    size_t walk_rows; // walks.cuh
    unsigned first_state, d_inner, d_state;
    unsigned g_u_stride, g_dt_stride, g_z_stride, g_stride, u_stride, dt_stride, z_stride, bc_stride; // in bytes
    float *kept; // (chunks, STATES, d_inner)
    float *sums; // (walks, SUMS, d_inner)
} scan_back;

// Rows, channels and strides in bytes are below 2^32 (scan_back_entry looks): one wide product gives an address.
__device__ static inline size_t at(unsigned row, unsigned stride, unsigned c)
{
    return (size_t)row * stride + c;
}

// e^-v, to 2 ulp and |v| epsilon.
__device__ static inline float exp_of_minus(float v)
{
    return ex2(-1.44269504089f * v);
}

// softplus of v, and its slope.
__device__ static inline float softplus(float v, float *slope)
{
    const float e = exp_of_minus(fabsf(v)), r = fm_reciprocal(1.0f + e);
    *slope = v >= 0.0f ? r : e * r;
    return e * log1p_share(e) + fmaxf(v, 0.0f);
}

// Of y silu(z): the factor of y in the gradient of z, and the gradient of y.
__device__ static inline float gate(float z, float g, float *g_y)
{
    const float open = fm_reciprocal(1.0f + exp_of_minus(z)), silu = z * open;
    *g_y = g * silu;
    return g * (silu * (1.0f - open) + open);
}

// Of a state of two channels; A in units of log2, decay_of()'s.
__device__ static inline float2 decay_by(float2 delta, float2 A)
{
    return make_float2(ex2(delta.x * A.x), ex2(delta.y * A.y));
}

// One state of one channel, back through a token: gives lambda.
__device__ static inline float back_state(float &carry, float &g_A, float &y, float &by_B, float &by_A, float A, float B,
                                          float C, float decay, float before, float after, float delta, float g_y)
{
    const float lambda = g_y * C + carry;
    carry = decay * lambda;
    const float past = carry * before;
    y += C * after;
    by_B += lambda * B;
    by_A += past * A;
    g_A += past * delta;
    return lambda;
}

// One pair of bf16 as floats.
__device__ static inline float2 widened(unsigned bits)
{
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

__device__ static inline fm_walk walk_of(const scan_back &v)
{
    return fm_walk_of(v.begin, v.n_seq, v.walk_rows, blockIdx.y, gridDim.y);
}

// The kernel of what training has; whether it takes these.
bool fm_cuda_walk_fits(const fm_scan_back_args *a);
void fm_cuda_walk(fm_stream *s, const scan_back *v, dim3 blocks);

#endif
