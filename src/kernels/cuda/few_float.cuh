// few_float.cuh - few columns, weights of floats: bf16 fragments of weights and inputs, sums in f32.
#ifndef FM_KERNELS_CUDA_FEW_FLOAT_CUH
#define FM_KERNELS_CUDA_FEW_FLOAT_CUH

#include "kernels/cuda/few.cuh"

// A chunk is 128 bytes of a row.  In bf16 and f16 lane t has columns 8 t .. + 7 of each 32, the operands of two instructions; in f32 columns
// 4 t .. + 3 of each 16.  Inputs are read in the same order, so the columns of an instruction are others than its own, but pairs.
template <int T> struct few_float {
    static constexpr int BYTES = 128, COLS = BYTES / (T == FM_F32 ? 4 : 2), LOADS = BYTES / 64, SLOT = LOADS * 512,
                         GROUP = FM_CHUNK / COLS, RESIDENT = 3;
    static constexpr bool RECORDS = false, ONE = false;

    __device__ static inline void ask(unsigned to, const uint8_t *row, const few_args &p, unsigned chunk, const few_lane &l)
    {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const unsigned at = chunk * BYTES + i * 64 + l.t * 16;
            const bool exists = at < p.row_bytes;
            copy_async_if(to + i * 512 + l.lane * 16, row + (exists ? at : 0), exists);
        }
    }

    // Four columns to a thread, eight times before the first is stored.
    __device__ static inline void pack(uint8_t *to, const few_args &p, const few_source &from)
    {
        enum { BATCH = 8 };
        const unsigned width = p.x_stride / 2, step = blockDim.x * 4; // columns, zeros beyond those that exist
        for (unsigned begin = threadIdx.x * 4; begin < width; begin += BATCH * step) {
            float v[BATCH][4];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                const unsigned c = begin + k * step;
                if (from.aligned && c + 4 <= p.cols)
                    *(float4 *)v[k] = *(const float4 *)(from.x + c);
                else
#pragma unroll
                    for (int i = 0; i < 4; i++) v[k][i] = c + i < p.cols ? from.x[c + i] : 0.0f;
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                if (begin + k * step >= width) break;
                const uint32_t w[2] = {bits(__floats2bfloat162_rn(v[k][0], v[k][1])),
                                       bits(__floats2bfloat162_rn(v[k][2], v[k][3]))};
                *(uint2 *)(to + (begin + k * step) * 2) = make_uint2(w[0], w[1]);
            }
        }
    }

    // A chunk of the input, row after row.
    struct tokens {
        const uint8_t *x;
        unsigned stride, n;

        __device__ inline tokens(const uint8_t *rows, unsigned chunk, const few_args &p)
            : x(rows + chunk * (COLS * 2)), stride(p.x_stride), n(p.n)
        {
        }
    };
    // The input of the instructions that load i feeds: columns in the order of the weights.
    template <int NT> struct input {
        uint32_t x[NT][4];
        __device__ inline void read(const tokens &rows, const few_lane &l, int i)
        {
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const uint8_t *from = rows.x + min(8 * nt + l.g, (int)rows.n - 1) * rows.stride;
                if constexpr (T == FM_F32)
                    *(uint2 *)x[nt] = *(const uint2 *)(from + 32 * i + 8 * l.t);
                else
                    *(uint4 *)x[nt] = *(const uint4 *)(from + 64 * i + 16 * l.t);
            }
        }
    };

    template <int NT, int STAGES>
    __device__ static inline void multiply(float y[NT][4], const uint8_t *stage, const tokens &x, const few_lane &l)
    {
        input<NT> in[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; i++) in[i].read(x, l, i);
        copy_wait<STAGES - 1>();
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const uint8_t *slot = stage + i * 512 + l.lane * 16;
            const uint4 r0 = *(const uint4 *)slot, r1 = *(const uint4 *)(slot + SLOT);
            if constexpr (T == FM_F32) {
                const uint32_t a[4] = {pair(r0.x, r0.y), pair(r1.x, r1.y), pair(r0.z, r0.w), pair(r1.z, r1.w)};
                step<NT>(y, a, in[i], 0);
            } else {
                const uint32_t a[4] = {r0.x, r1.x, r0.y, r1.y}, b[4] = {r0.z, r1.z, r0.w, r1.w};
                step<NT>(y, a, in[i], 0);
                step<NT>(y, b, in[i], 1);
            }
        }
    }

    __device__ static inline uint32_t bits(__nv_bfloat162 v)
    {
        return *(const uint32_t *)&v;
    }
    __device__ static inline uint32_t pair(uint32_t a, uint32_t b)
    {
        return bits(__floats2bfloat162_rn(__uint_as_float(a), __uint_as_float(b)));
    }

    // The i-th instruction of a load.  A half is the sum of two bf16, exactly, and takes two.
    template <int NT> __device__ static inline void step(float y[NT][4], const uint32_t a[4], const input<NT> &x, int i)
    {
        if constexpr (T == FM_F16) {
            uint32_t high[4], low[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float2 v = __half22float2(*(const __half2 *)&a[k]);
                const __nv_bfloat162 h = __floats2bfloat162_rn(v.x, v.y);
                const float2 f = __bfloat1622float2(h);
                high[k] = bits(h);
                low[k] = bits(__floats2bfloat162_rn(v.x - f.x, v.y - f.y));
            }
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                mma_bf16(y[nt], low, x.x[nt][2 * i], x.x[nt][2 * i + 1]);
                mma_bf16(y[nt], high, x.x[nt][2 * i], x.x[nt][2 * i + 1]);
            }
        } else {
#pragma unroll
            for (int nt = 0; nt < NT; nt++) mma_bf16(y[nt], a, x.x[nt][2 * i], x.x[nt][2 * i + 1]);
        }
    }
};

#endif
