// few_input.cuh - inputs that the blocks of few.cuh make for themselves of rows that are still to be normed: no launch of its own for the
// norm of one token.
//
// What a norm costs every block, some 2 us, is less than a launch and the wait for its end cost all of them (docs/gpu-kernels.md).
#ifndef FM_KERNELS_CUDA_FEW_INPUT_CUH
#define FM_KERNELS_CUDA_FEW_INPUT_CUH

#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/pack.cuh"

// Tokens for which it is: with two the blocks take longer to round to records than a launch does.  Rows of more tokens are normed by
// turns where few_bulk.cu convolves as well.
enum { FEW_NORMED_ROWS = 2, FEW_NORMED_RECORDS = 1 };
enum { FEW_NORMED_COLS = 4 * KEPT * LONG_THREADS }; // of a row, at most

// A block of LONG_THREADS has a row at once, as norm_long of norm.cu.
typedef piece<LONG_THREADS> few_piece;

// A row of d floats at a place of 16 bytes, d a multiple of 4; zeros beyond it.
__device__ static inline void few_read(few_piece &v, const float *x, ptrdiff_t d)
{
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const ptrdiff_t c = few_piece::column(threadIdx.x, j);
        v.v[j] = c < d ? *(const float4 *)(x + c) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
}

__device__ static inline void few_scale(few_piece &v, const few_piece &w, float scale)
{
#pragma unroll
    for (int j = 0; j < KEPT; j++) v.v[j] = scaled(v.v[j], scale, w.v[j]);
}

__device__ static inline void few_norm_piece(few_piece &v, const few_piece &w, double reciprocal, float eps)
{
    few_scale(v, w, norm_scale(block_sum(v.sum_squares()), reciprocal, eps));
}

// To a row of bf16, `width` of them, zeros beyond d.
__device__ static inline void few_put_row(__nv_bfloat16 *to, const few_piece &v, ptrdiff_t width)
{
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const ptrdiff_t c = few_piece::column(threadIdx.x, j);
        if (c < width) fm_store4_bf16(to + c, v.v[j]);
    }
}

// Of vector j a warp has half a chunk, a thread a quad.
template <bool WIDE> __device__ static inline void few_tops(uint32_t top[KEPT], const few_piece &v)
{
    __shared__ uint32_t halves[KEPT][LONG_THREADS / 32];
    const unsigned warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        top[j] = max(max(magnitude(v.v[j].x), magnitude(v.v[j].y)), max(magnitude(v.v[j].z), magnitude(v.v[j].w)));
#pragma unroll
        for (int i = 1; i < (WIDE ? 32 : 8); i *= 2) top[j] = max(top[j], __shfl_xor_sync(0xffffffffu, top[j], i));
        if (WIDE && threadIdx.x % 32 == 0) halves[j][warp] = top[j];
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < KEPT; j++)
        if (WIDE) top[j] = max(halves[j][warp & ~1u], halves[j][warp | 1]);
}

// Records with room for one token, written as put_rounded() of pack.cuh writes.
template <bool WIDE>
__device__ static inline void few_put_records(uint8_t *to, unsigned stride, unsigned chunks, const few_piece &v)
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = warp % 2 * 4 + lane / 8, h = lane / 4 % 2,
                   t = lane % 4;
    uint32_t top[KEPT];
    few_tops<WIDE>(top, v);
    // Lanes that share a block have the same largest numbers: each divides for one of them.
    static_assert(KEPT == 4, "as many as lane % 4 tells");
    float its_d;
    const float its_inverse = round_scale(lane & 2 ? lane & 1 ? top[3] : top[2] : lane & 1 ? top[1] : top[0], &its_d);
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const unsigned chunk = 4 * j + warp / 2;
        if (chunk >= chunks) continue; // the whole warp
        uint8_t *record = to + chunk * stride, *side = record + FM_CHUNK;
        const float four[4] = {v.v[j].x, v.v[j].y, v.v[j].z, v.v[j].w};
        const float inverse = __shfl_sync(0xffffffffu, its_inverse, (lane & ~3u) | j),
                    d = __shfl_sync(0xffffffffu, its_d, (lane & ~3u) | j);
        int sum = 0;
        *(uint32_t *)(record + b / 2 * 64 + t * 16 + b % 2 * 8 + h * 4) = round_quad(four, inverse, &sum);
        sum = lanes4(sum);
        if (WIDE) {
            if (t == 0) ((__half *)side)[b / 2 * 4 + b % 2 + 2 * h] = __int2half_rn(sum);
            if (lane == 0 && warp % 2 == 0) *(float *)(side + FM_X256_SUMS) = d;
        } else {
            sum += __shfl_xor_sync(0xffffffffu, sum, 4);
            float *of = (float *)side + 2 * b;
            if (lane % 8 == 0) of[0] = d, of[FM_X32_FLOATS / 4] = d * (float)sum;
        }
    }
}

#endif
