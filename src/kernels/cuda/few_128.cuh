// few_128.cuh - few columns, weights with a float scale for each 128: i[g] = sum(qw qx), then v = fma(d[1], i[1], d[0] i[0]) and
// y = fma(v, dx, y).  A sum stays in the tensor cores over all 128 columns.
#ifndef FM_KERNELS_CUDA_FEW_128_CUH
#define FM_KERNELS_CUDA_FEW_128_CUH

#include "kernels/cuda/few_quant.cuh"
#include "kernels/cuda/few_wide_codes.cuh"

template <int T> struct few_128 : few_quantised<T> {
    using few_quantised<T>::F, few_quantised<T>::SLOT;
    static constexpr bool ONE = true, WHOLE = true;
    static constexpr int SIDE = FM_X256_SIDE, NARROW = 17;

    // v = what the sums of 128 columns come to, on top of those before; as they are, or from FM_MAGIC.
    template <int NT, bool MAGIC>
    __device__ static inline void scale(float v[NT][4], const int sum[NT][4], uint32_t sc0, uint32_t sc1, int g)
    {
        const float d0 = few_half(&sc0, g) * F.unit, d1 = few_half(&sc1, g) * F.unit;
#pragma unroll
        for (int k = 0; k < 4 * NT; k++) {
            const int i = sum[k / 4][k % 4];
            v[k / 4][k % 4] = fmaf(k % 4 < 2 ? d0 : d1, MAGIC ? magic_float(i) : (float)i, v[k / 4][k % 4]);
        }
    }
    template <int NT>
    __device__ static inline void finish(float y[NT][4], const float v[NT][4], const uint8_t *side, const few_lane &l)
    {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const float2 d = ((const float2 *)(side + nt * FM_X256_SIDE + FM_X256_SUMS))[l.t];
#pragma unroll
            for (int k = 0; k < 4; k++) y[nt][k] = fmaf(v[nt][k], k % 2 ? d.y : d.x, y[nt][k]);
        }
    }
    template <int NT> __device__ static inline void start(int sum[NT][4])
    {
#pragma unroll
        for (int k = 0; k < 4 * NT; k++) sum[k / 4][k % 4] = FM_MAGIC;
    }

    // sum += blocks 2 i and 2 i + 1.
    template <int NT>
    __device__ static inline void blocks(int sum[NT][4], const few_codes<T> &r0, const few_codes<T> &r1,
                                         const uint32_t q[NT][4], int i)
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t a[4];
            few_rows_of(a, r0, r1, 2 * i + h);
#pragma unroll
            for (int nt = 0; nt < NT; nt++) mma_s8_32_add(sum[nt], a, q[nt][2 * h], q[nt][2 * h + 1]);
        }
    }

    // One column (few_products): a lane's two blocks are half of one group of 128, its neighbour's the other half.
    struct column {
        uint2 own;
        float d;
        __device__ inline void read(const uint8_t *x, const few_args &p, unsigned chunk, const few_lane &l)
        {
            const uint8_t *record = x + chunk * p.x_stride;
            own = few_own_block(record, l);
            d = *(const float *)(record + p.x_tokens * FM_CHUNK + FM_X256_SUMS);
        }
    };
    __device__ static inline void multiply_one(float y[4], const uint8_t *stage, const column &x, const few_lane &l)
    {
        few_codes<T> r[2];
        int c[8][4];
        few_products<T>(c, r, stage, x.own, l);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int2 sums = few_own_sums<T>(c, i, l);
            int half = sums.x + sums.y;
            half += __shfl_xor_sync(0xffffffffu, half, 1); // of the lane's 128 columns
            const int other = __shfl_xor_sync(0xffffffffu, half, 2);
            float v = few_half(r[i].sc, 0) * F.unit * (float)(l.t < 2 ? half : other);
            v = fmaf(few_half(r[i].sc, 1) * F.unit, (float)(l.t < 2 ? other : half), v);
            y[2 * i] = fmaf(v, x.d, y[2 * i]);
        }
    }

    // With 8 columns the input is asked for before the wait, with 16 there are no registers for that.
    template <int NT, int STAGES, class X>
    __device__ static inline void multiply(float y[NT][4], const uint8_t *stage, const X &x, const few_lane &l)
    {
        uint32_t q[4][NT][4];
        float v[NT][4] = {};
        if constexpr (NT == 1)
#pragma unroll
            for (int i = 0; i < 4; i++) x.template read<NT>(q[i], l, i);
        few_await<STAGES - 1>();
        few_codes<T> r0, r1;
        r0.read(stage, l);
        r1.read(stage + SLOT, l);
#pragma unroll
        for (int g = 0; g < 2; g++) {
            int sum[NT][4];
            start<NT>(sum);
#pragma unroll
            for (int i = 2 * g; i < 2 * g + 2; i++) {
                if constexpr (NT > 1) x.template read<NT>(q[i], l, i);
                blocks<NT>(sum, r0, r1, q[i], i);
            }
            scale<NT, true>(v, sum, r0.sc[0], r1.sc[0], g);
        }
        finish<NT>(y, v, x.side, l);
    }

    // sum = the products of group g; its rows stay in `a` until they are done.
    template <int NT>
    __device__ static inline void group(int sum[NT][4], uint32_t a[4][4], const few_codes<T> &r0, const few_codes<T> &r1,
                                        unsigned x, int g)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) few_rows_of(a[i], r0, r1, 4 * g + i);
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < 4; i++) wgmma_bytes<NT, true>(sum, a[i], wgmma_columns(x + g * NT * 1024, i), i > 0);
        wgmma_commit();
    }

    using WIDE = wide_codes<T>;
    template <int NT> struct wide_rest {
        float v[NT][4];
    };
    template <int NT>
    __device__ static inline void wide_settle_all(float y[NT][4], const wide_rest<NT> &r, const uint8_t *side,
                                                  const few_lane &l)
    {
        finish<NT>(y, r.v, side, l);
    }

    template <int NT, class R, class SETTLED, class NEXT>
    __device__ static inline void wide(float y[NT][4], wide_rest<NT> &rest, typename WIDE::held &c, const uint8_t *here,
                                       const uint8_t *before, const uint8_t *after, const few_lane &l, SETTLED settled,
                                       NEXT next)
    {
        int first[NT][4], second[NT][4];
        uint32_t a[4][4], o[4][4];
        const uint32_t sc[2] = {c.r[0].sc[0], c.r[1].sc[0]};
        group<NT>(first, a, c.r[0], c.r[1], shared_address(here) + R::INPUT, 0);
        wide_settle_all<NT>(y, rest, before + R::BESIDE, l);
        c.template read_again<R>(here, l); // unpacked while the first group is multiplied
        group<NT>(second, o, c.r[0], c.r[1], shared_address(here) + R::INPUT, 1);
        settled();
        next();
        c.template read<R>(after, l);
#pragma unroll
        for (int k = 0; k < 4 * NT; k++) rest.v[k / 4][k % 4] = 0.0f;
        wgmma_wait<1, NT>(first);
        scale<NT, false>(rest.v, first, sc[0], sc[1], 0);
        wgmma_wait<0, NT>(second);
        scale<NT, false>(rest.v, second, sc[0], sc[1], 1);
    }
};

#endif
