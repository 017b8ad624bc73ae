// forward.cuh - what the kernels of the forward share, and the fillers of its entries, one per file.
#ifndef FM_KERNELS_CUDA_FORWARD_CUH
#define FM_KERNELS_CUDA_FORWARD_CUH

#include "kernels/cuda/launch.cuh"

extern "C" {
void fm_cuda_fill_norm(fm_kernels *k);
void fm_cuda_fill_conv(fm_kernels *k);
void fm_cuda_fill_scan(fm_kernels *k);
void fm_cuda_fill_mix(fm_kernels *k);
void fm_cuda_fill_select(fm_kernels *k);
void fm_cuda_fill_rows(fm_kernels *k); // softmax embed gather copy_states decays
}

// ---- Launches as launch.cuh has them, one block to a cluster ----

template <typename... P, typename... A>
static inline void fm_queue_shared(fm_stream *s, const char *what, void (*kernel)(P...), dim3 grid, unsigned threads,
                                   size_t shared, A... args)
{
    const fm_launch l = {s, grid, threads, shared, 1};
    fm_cuda_launch(&l, what, kernel, args...);
}

template <typename... P, typename... A>
static inline void fm_queue(fm_stream *s, const char *what, void (*kernel)(P...), dim3 grid, unsigned threads, A... args)
{
    fm_queue_shared(s, what, kernel, grid, threads, 0, args...);
}

// A hint: the line of p comes into L2.  Never a read, so that it may stand before fm_pdl_wait().
__device__ static inline void fm_prefetch(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// ---- Four floats at once where they lie on 16 bytes, else one by one ----

static inline bool fm_aligned(const void *p, size_t stride)
{
    return (uintptr_t)p % 16 == 0 && stride % 4 == 0;
}

__device__ static inline bool fm_is_aligned(const void *p)
{
    return (size_t)p % 16 == 0;
}

// p[0 .. 3], of which the first n exist (n may be more than 4 or less than 1); what does not is 0.
template <bool ALIGNED> __device__ static inline float4 fm_load4(const float *p, ptrdiff_t n)
{
    if (ALIGNED && n >= 4) return *(const float4 *)p;
    float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    if (n > 0) v.x = p[0];
    if (n > 1) v.y = p[1];
    if (n > 2) v.z = p[2];
    if (n > 3) v.w = p[3];
    return v;
}

template <bool ALIGNED> __device__ static inline void fm_store4(float *p, ptrdiff_t n, float4 v)
{
    if (ALIGNED && n >= 4) {
        *(float4 *)p = v;
        return;
    }
    if (n > 0) p[0] = v.x;
    if (n > 1) p[1] = v.y;
    if (n > 2) p[2] = v.z;
    if (n > 3) p[3] = v.w;
}

// The same four, rounded as pack_x rounds, to a place of 8 bytes.
__device__ static inline void fm_store4_bf16(__nv_bfloat16 *p, float4 v)
{
    union {
        __nv_bfloat162 pair[2];
        uint2 bits;
    } b;
    b.pair[0] = __floats2bfloat162_rn(v.x, v.y);
    b.pair[1] = __floats2bfloat162_rn(v.z, v.w);
    *(uint2 *)p = b.bits;
}

// ---- Rows of floats or of bf16 by the same names; those of bf16 are whole vectors at places of 8 bytes ----

// Four of them as they come: widening would wait for them, so it is left to whoever wants them.
template <typename R> struct fm_four;
template <> struct fm_four<float> {
    typedef float4 type;
};
template <> struct fm_four<__nv_bfloat16> {
    typedef uint2 type;
};

template <bool ALIGNED> __device__ static inline float4 fm_read4(const float *p, ptrdiff_t n)
{
    return fm_load4<ALIGNED>(p, n);
}
template <bool ALIGNED> __device__ static inline uint2 fm_read4(const __nv_bfloat16 *p, ptrdiff_t n)
{
    return n > 0 ? *(const uint2 *)p : make_uint2(0, 0);
}

__device__ static inline float4 fm_widened(float4 v)
{
    return v;
}
__device__ static inline float4 fm_widened(uint2 v)
{
    return {__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
            __uint_as_float(v.y & 0xffff0000u)};
}

template <bool ALIGNED> __device__ static inline float4 fm_load4(const __nv_bfloat16 *p, ptrdiff_t n)
{
    return fm_widened(fm_read4<ALIGNED>(p, n));
}

template <bool ALIGNED> __device__ static inline void fm_store4(__nv_bfloat16 *p, ptrdiff_t n, float4 v)
{
    if (n > 0) fm_store4_bf16(p, v);
}

__device__ static inline float fm_load1(const float *p)
{
    return *p;
}
__device__ static inline float fm_load1(const __nv_bfloat16 *p)
{
    return __bfloat162float(*p);
}
__device__ static inline void fm_store1(float *p, float v)
{
    *p = v;
}
__device__ static inline void fm_store1(__nv_bfloat16 *p, float v)
{
    *p = __float2bfloat16_rn(v);
}

// ---- Functions ----

// Within 1 ulp; 0 where it would be a denormal.
__device__ static inline float fm_reciprocal(float v)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

// v / (1 + e^-v).  expf is within 1 ulp, the sum within half, the reciprocal within 1, the product within half: 3 epsilon in all.
// From v = -87.3 down, where the reciprocal would be a denormal, it is -0, wrong by less than 1e-36.
__device__ static inline float fm_silu(float v)
{
    return __fmul_rn(v, fm_reciprocal(__fadd_rn(1.0f, expf(-v))));
}

// The convolution with four taps and silu, of the input x after those of the window v, the oldest first: conv.cu's order.
__device__ static inline float fm_convolved(const float w[4], float bias, const float v[3], float x)
{
    return fm_silu(__fmaf_rn(w[3], x, __fmaf_rn(w[2], v[2], __fmaf_rn(w[1], v[1], __fmaf_rn(w[0], v[0], bias)))));
}

#endif
