// scan.cuh - the arithmetic of the selective scan, the same in every kernel that walks it.
//
// Errors.  t = delta (A log2 e) has the roundings of A log2 e and of the product: |delta A| epsilon of the decay in all, beside what
// delta brings; ex2.approx adds 2 ulp, and makes a denormal decay 0.  softplus: see softplus().
#ifndef FM_KERNELS_CUDA_SCAN_CUH
#define FM_KERNELS_CUDA_SCAN_CUH

#include "kernels/cuda/forward.cuh"
#include "kernels/dither.h"

__device__ static inline float ex2(float t)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(t));
    return y;
}

// log1p(e) / e for e in [0, 1], within 2.4e-8.
__device__ static inline float log1p_share(float e)
{
    float p = -0.004466211423277855f;
    p = __fmaf_rn(p, e, 0.025224054232239723f);
    p = __fmaf_rn(p, e, -0.06675772368907928f);
    p = __fmaf_rn(p, e, 0.11561845242977142f);
    p = __fmaf_rn(p, e, -0.15847565233707428f);
    p = __fmaf_rn(p, e, 0.198541060090065f);
    p = __fmaf_rn(p, e, -0.24986526370048523f);
    p = __fmaf_rn(p, e, 0.3333284258842468f);
    p = __fmaf_rn(p, e, -0.4999999701976776f);
    return __fmaf_rn(p, e, 1.0f);
}

// log(1 + e^v) = max(v, 0) + log1p(e), e = e^-|v| in [0, 1].  With the roundings e log1p_share(e) is within 1.2 epsilon (tried at 170000
// places); expf is within 1 ulp and the sum within half: 3 epsilon.
__device__ static inline float softplus(float v)
{
    const float e = expf(-fabsf(v));
    return __fadd_rn(fmaxf(v, 0.0f), __fmul_rn(e, log1p_share(e)));
}

// What all states of a channel share: the step and what comes in by it.
__device__ static inline float2 step_of(float u, float dt, float bias)
{
    const float delta = softplus(__fadd_rn(dt, bias));
    return {delta, __fmul_rn(delta, u)};
}

// States lie in memory as H, float or __nv_bfloat16, and are float in registers.
template <typename H> __device__ static inline H *fm_cuda_state_of(const fm_states &s, size_t seq)
{
    return (H *)fm_cuda_state(s, seq);
}

__device__ static inline void put_state(float *p, float h)
{
    *p = h;
}
__device__ static inline void put_state(__nv_bfloat16 *p, float h) // which is one, since it was rounded
{
    *(unsigned short *)p = (unsigned short)(__float_as_uint(h) >> 16);
}

// How states of a channel round as a token leaves them: those of bf16 by dither.h, by which token of the sequence it is.
template <typename H> struct rounding {
    __device__ void begin(const uint32_t *, size_t, size_t, int) {}
    template <int S> __device__ void round(float (&)[S]) {}
};

template <> struct rounding<__nv_bfloat16> {
    uint32_t word; // of the first two, at the next token

    __device__ void begin(const uint32_t *seen, size_t seq, size_t channel, int first) // state
    {
        word = fm_dither_word((uint32_t)channel, (uint32_t)first, seen[seq]);
    }
    template <int S> __device__ void round(float (&h)[S])
    {
#pragma unroll
        for (int i = 0; i < S; i++) h[i] = rounded(h[i], word + i / 2 * FM_DITHER_PAIR, i);
        word += FM_DITHER_TOKEN;
    }

  private:
    // fm_dither(), in fewer instructions: arithmetic makes but one NaN, of which the upper half is one as well.
    __device__ static float rounded(float h, uint32_t word, int i)
    {
        uint32_t bits = __float_as_uint(h);
        if (h == h) bits += i % 2 ? word & 0xffffu : word >> 16;
        return __uint_as_float(bits & 0xffff0000u);
    }
};

// A log2 e, which is what states are moved with.
__device__ static inline float decay_of(float A)
{
    return __fmul_rn(A, 1.44269504f);
}

// S states of a channel, and what the first n of them (n may be more) give to y.
// FULL: all S exist, in every lane.
template <int S, bool FULL, typename H = float> struct states : rounding<H> {
    float a[S], h[S]; // A log2 e

    __device__ void read_decays(const float *A, size_t stride, int n)
    {
#pragma unroll
        for (int i = 0; i < S; i++) a[i] = FULL || i < n ? decay_of(A[i * stride]) : 0.0f;
    }
    __device__ void read(const H *p, size_t stride, int n)
    {
#pragma unroll
        for (int i = 0; i < S; i++) h[i] = FULL || i < n ? (float)p[i * stride] : 0.0f;
    }
    __device__ void write(H *p, size_t stride, int n) const
    {
#pragma unroll
        for (int i = 0; i < S; i++)
            if (FULL || i < n) put_state(p + i * stride, h[i]);
    }
    __device__ void leave() // the token that moved them
    {
        this->round(h);
    }
    __device__ void move(float2 step, const float *B, int n)
    {
#pragma unroll
        for (int i = 0; i < S; i++)
            if (FULL || i < n) h[i] = __fmaf_rn(ex2(__fmul_rn(step.x, a[i])), h[i], __fmul_rn(step.y, B[i]));
    }
    __device__ float sum(const float *C, int n) const
    {
        float y = __fmul_rn(C[0], h[0]); // n >= 1
#pragma unroll
        for (int i = 1; i < S; i++)
            if (FULL || i < n) y = __fmaf_rn(C[i], h[i], y);
        return y;
    }
};

__device__ static inline float gated(bool gate, float y, float z)
{
    return gate ? __fmul_rn(y, fm_silu(z)) : y;
}

#endif
