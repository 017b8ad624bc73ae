// few_32.cuh - few columns, weights in blocks of 32: y = fma(dw dx, sum(qw qx), y), then with minima y = fma(m, dx sum(qx), y).
#ifndef FM_KERNELS_CUDA_FEW_32_CUH
#define FM_KERNELS_CUDA_FEW_32_CUH

#include "kernels/cuda/few_quant.cuh"
#include "kernels/cuda/few_wide_codes.cuh"

template <int T> struct few_32 : few_quantised<T> {
    using few_quantised<T>::F, few_quantised<T>::SLOT;
    static constexpr bool MIN = F.sc == FM_SC_PAIR;
    static constexpr bool ONE = !MIN, WHOLE = false; // for a whole product the registers do not suffice
    static constexpr int SIDE = FM_X32_SIDE, NARROW = 9;

    // Of blocks 2 i and 2 i + 1: bytes; d and d * sum, words 2 (b % 2) and 2 (b % 2) + 1 for tokens 2 t and 2 t + 1.
    template <int NT> struct input {
        uint32_t q[NT][4];
        float d[NT][4], s[MIN ? NT : 1][4];
        template <class X> __device__ inline void read(const X &x, const few_lane &l, int i)
        {
            x.template read<NT>(q, l, i);
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const float4 *side = (const float4 *)(x.side + nt * FM_X32_SIDE) + 4 * l.t + i;
                *(float4 *)d[nt] = side[0];
                if constexpr (MIN) *(float4 *)s[nt] = side[FM_X32_FLOATS / 16];
            }
        }
    };

    // y += one block of 32 columns.
    template <int NT>
    __device__ static inline void block(float y[NT][4], const few_codes<T> &r0, const few_codes<T> &r1, const input<NT> &x,
                                        int b)
    {
        const int w = b % 2 * 2;
        uint32_t a[4];
        few_rows_of(a, r0, r1, b);
        const float d0 = few_half(r0.sc, MIN ? 2 * b : b) * F.unit, d1 = few_half(r1.sc, MIN ? 2 * b : b) * F.unit;
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            int c[4];
            mma_s8_32(c, a, x.q[nt][w], x.q[nt][w + 1], FM_MAGIC);
#pragma unroll
            for (int k = 0; k < 4; k++) y[nt][k] = fmaf((k < 2 ? d0 : d1) * x.d[nt][w + k % 2], magic_float(c[k]), y[nt][k]);
            if constexpr (MIN) {
                const float m0 = few_half(r0.sc, 2 * b + 1), m1 = few_half(r1.sc, 2 * b + 1);
#pragma unroll
                for (int k = 0; k < 4; k++) y[nt][k] = fmaf(k < 2 ? m0 : m1, x.s[nt][w + k % 2], y[nt][k]);
            }
        }
    }

    // One column: what every lane multiplies is its part t.
    struct column {
        uint4 q[4];
        float d[8];
        __device__ inline void read(const uint8_t *x, const few_args &p, unsigned chunk, const few_lane &l)
        {
            const uint8_t *record = x + chunk * p.x_stride;
            const float4 *side = (const float4 *)(record + p.x_tokens * FM_CHUNK);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                q[i] = *(const uint4 *)(record + 64 * i + l.t * 16);
                const float4 two = side[i]; // of the first token and the second
                d[2 * i] = two.x, d[2 * i + 1] = two.z;
            }
        }
    };
    __device__ static inline void multiply_one(float y[4], const uint8_t *stage, const column &x, const few_lane &l)
    {
        few_codes<T> r[2];
        r[0].read(stage, l);
        r[1].read(stage + SLOT, l);
#pragma unroll
        for (int b = 0; b < 8; b++) {
            uint32_t a[4];
            few_rows_of(a, r[0], r[1], b);
            const uint4 q = x.q[b / 2];
            int c[4];
            mma_s8_32(c, a, b % 2 ? q.z : q.x, b % 2 ? q.w : q.y, FM_MAGIC);
#pragma unroll
            for (int i = 0; i < 2; i++)
                y[2 * i] = fmaf(few_half(r[i].sc, b) * F.unit * x.d[b], magic_float(c[2 * i]), y[2 * i]);
        }
    }

    // With 8 columns the input is asked for before the wait, with 16 there are no registers for that.
    template <int NT, int STAGES, class X>
    __device__ static inline void multiply(float y[NT][4], const uint8_t *stage, const X &x, const few_lane &l)
    {
        input<NT> in[4];
        if constexpr (NT == 1)
#pragma unroll
            for (int i = 0; i < 4; i++) in[i].read(x, l, i);
        few_await<STAGES - 1>();
        few_codes<T> r0, r1;
        r0.read(stage, l);
        r1.read(stage + SLOT, l);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (NT > 1) in[i].read(x, l, i);
            block<NT>(y, r0, r1, in[i], 2 * i);
            block<NT>(y, r0, r1, in[i], 2 * i + 1);
        }
    }

    // ---- More columns.  A sum of integers becomes a float by one instruction, so that products need not begin at FM_MAGIC. ----

    using WIDE = wide_codes<T>;
    struct wide_scales {
        float d[2], m[2]; // of two rows
    };
    template <int NT> struct wide_rest {
        float sum[NT][4]; // of the last block
        wide_scales s;
    };

    __device__ static inline wide_scales wide_scales_of(const typename WIDE::held &c, int b)
    {
        wide_scales s = {};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            s.d[i] = few_half(c.r[i].sc, MIN ? 2 * b : b) * F.unit;
            if constexpr (MIN) s.m[i] = few_half(c.r[i].sc, 2 * b + 1);
        }
        return s;
    }

    // y += what the sums of block b come to.
    template <int NT, class SUM>
    __device__ static inline void scale(float y[NT][4], const SUM c[NT][4], const wide_scales &s, const uint8_t *side,
                                        const few_lane &l, int b)
    {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const float2 *of = (const float2 *)(side + nt * FM_X32_SIDE) + 8 * l.t + b;
            const float2 d = of[0];
#pragma unroll
            for (int k = 0; k < 4; k++) y[nt][k] = fmaf(s.d[k / 2] * (k % 2 ? d.y : d.x), (float)c[nt][k], y[nt][k]);
            if constexpr (MIN) {
                const float2 sum = of[FM_X32_FLOATS / 8];
#pragma unroll
                for (int k = 0; k < 4; k++) y[nt][k] = fmaf(s.m[k / 2], k % 2 ? sum.y : sum.x, y[nt][k]);
            }
        }
    }
    template <int NT>
    __device__ static inline void wide_settle_all(float y[NT][4], const wide_rest<NT> &r, const uint8_t *side,
                                                  const few_lane &l)
    {
        scale<NT>(y, r.sum, r.s, side, l, 7);
    }

    template <int NT>
    __device__ static inline void product(int c[NT][4], uint32_t a[4], const few_codes<T> &r0, const few_codes<T> &r1,
                                          unsigned x, int b)
    {
        few_rows_of(a, r0, r1, b);
        wgmma_begin();
        wgmma_bytes<NT, true>(c, a, wgmma_columns(x + b / 4 * NT * 1024, b % 4), false);
        wgmma_commit();
    }

    // One product is under way while the sums of the one before are scaled.
    template <int NT, class R, class SETTLED, class NEXT>
    __device__ static inline void wide(float y[NT][4], wide_rest<NT> &rest, typename WIDE::held &c, const uint8_t *here,
                                       const uint8_t *before, const uint8_t *after, const few_lane &l, SETTLED settled,
                                       NEXT next)
    {
        int even[NT][4], odd[NT][4]; // not one array: the compiler has to see that nobody touches the one that is under way
        uint32_t a[4], o[4];
        product<NT>(even, a, c.r[0], c.r[1], shared_address(here) + R::INPUT, 0);
        wide_settle_all<NT>(y, rest, before + R::BESIDE, l);
        settled();
#pragma unroll
        for (int b = 0; b < 8; b += 2) {
            product<NT>(odd, o, c.r[0], c.r[1], shared_address(here) + R::INPUT, b + 1);
            wgmma_wait<1, NT>(even);
            scale<NT>(y, even, wide_scales_of(c, b), here + R::BESIDE, l, b);
            if (b + 2 == 8) break;
            product<NT>(even, a, c.r[0], c.r[1], shared_address(here) + R::INPUT, b + 2);
            wgmma_wait<1, NT>(odd);
            scale<NT>(y, odd, wide_scales_of(c, b + 1), here + R::BESIDE, l, b + 1);
        }
        rest.s = wide_scales_of(c, 7);
        next();
        wgmma_wait<0, NT>(odd);
        c.template read<R>(after, l);
#pragma unroll
        for (int k = 0; k < 4 * NT; k++) rest.sum[k / 4][k % 4] = (float)odd[k / 4][k % 4];
    }
};

#endif
