// few_256.cuh - few columns, weights in super-blocks of 256: i = sum of scale * sum(qw qx), k = sum of min * sum(qx) over its groups,
// then y = fma(fma(-m, k, d i), dx, y).  k is one instruction: minima and sums are halves, exactly, and so is what comes out.
#ifndef FM_KERNELS_CUDA_FEW_256_CUH
#define FM_KERNELS_CUDA_FEW_256_CUH

#include "kernels/cuda/few_quant.cuh"
#include "kernels/cuda/few_wide_codes.cuh"

template <int T> struct few_256 : few_quantised<T> {
    using few_quantised<T>::F, few_quantised<T>::SLOT;
    static constexpr bool MIN = F.sc == FM_SC_K || F.sc == FM_SC_Q2, HALVES = F.sc == FM_SC_BYTES || F.sc == FM_SC_Q2;
    static constexpr int SIDE = FM_X256_SIDE, NARROW = 3;

    // What goes with the input of a chunk.
    template <int NT> struct beside {
        uint2 sums[MIN ? NT : 1];
        float2 d[NT];
        __device__ inline void read(const uint8_t *side, const few_lane &l)
        {
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                if constexpr (MIN) sums[nt] = *(const uint2 *)(side + nt * FM_X256_SIDE + l.g * 32 + l.t * 8);
                d[nt] = ((const float2 *)(side + nt * FM_X256_SIDE + FM_X256_SUMS))[l.t];
            }
        }
    };

    // Scales of a row as bytes, in order of their groups; d, and what the minima are multiplied with.
    struct scales {
        uint32_t byte[4];
        float d, m;
    };
    static constexpr bool SIGNED = F.sc == FM_SC_BYTES || F.sc == FM_SC_EIGHT;

    __device__ static inline int scale_at(const scales &s, int g)
    {
        const uint32_t word = s.byte[g / 4] >> g % 4 * 8;
        return SIGNED ? (int)(int8_t)word : (int)(uint8_t)word;
    }

    __device__ static inline scales scales_of(const few_codes<T> &r)
    {
        scales s = {};
        if constexpr (F.sc == FM_SC_K) {
            s.byte[0] = r.sc[1] & 0x3f3f3f3fu;
            s.byte[1] = r.sc[2] & 0x3f3f3f3fu;
            s.d = few_half(r.sc, 0);
            s.m = few_half(r.sc, 1);
        } else if constexpr (F.sc == FM_SC_Q2) {
#pragma unroll
            for (int i = 0; i < 4; i++) s.byte[i] = r.sc[i] & 0x0f0f0f0fu;
            s.d = few_half(&r.d, 0);
            s.m = few_half(&r.d, 1);
        } else {
#pragma unroll
            for (int i = 0; i < fm_planes<T>::SC / 4; i++) s.byte[i] = r.sc[i];
            s.d = __uint_as_float(r.d);
        }
        return s;
    }

    // Two minima as halves: 1024 + v has v in its low byte.
    __device__ static inline uint32_t two_minima(uint32_t bytes, uint32_t which)
    {
        const uint32_t h = __byte_perm(bytes, 0x64646464u, which);
        const __half2 v = __hsub2(*(const __half2 *)&h, __float2half2_rn(1024.0f));
        return *(const uint32_t *)&v;
    }
    // Those of the groups whose sums lane t holds: first and second word of an operand's row.
    __device__ static inline void minima_of(uint32_t out[2], const few_codes<T> &r, const few_lane &l)
    {
        if constexpr (F.sc == FM_SC_K) {
            const uint32_t bytes = l.t < 2 ? r.sc[3] & 0x3f3f3f3fu : fm_k_mins_high(r.sc[1], r.sc[2], r.sc[3]);
            out[0] = out[1] = two_minima(bytes, 0x4140u + l.t % 2 * 0x0202u);
        } else if constexpr (F.sc == FM_SC_Q2) {
            const uint32_t word = l.t < 2    ? (l.t ? r.sc[1] : r.sc[0])
                                  : l.t == 2 ? r.sc[2]
                                             : r.sc[3],
                           bytes = word >> 4 & 0x0f0f0f0fu;
            out[0] = two_minima(bytes, 0x4240u);
            out[1] = two_minima(bytes, 0x4341u);
        }
    }

    // Minima as an operand's rows.
    __device__ static inline void minima_of(uint32_t a[4], const few_codes<T> &r0, const few_codes<T> &r1, const few_lane &l)
    {
        uint32_t m[2][2] = {};
        minima_of(m[0], r0, l);
        minima_of(m[1], r1, l);
        a[0] = m[0][0], a[1] = m[1][0], a[2] = m[0][1], a[3] = m[1][1];
    }

    // What the integer sum of a super-block comes to, before the input's scale.
    __device__ static inline float value(const scales &s, int sum, float k)
    {
        const float v = s.d * (float)sum;
        return MIN ? fmaf(-s.m, k, v) : v;
    }

    // acc += scale * sum of one block of 32 columns.  No sum of a super-block reaches 2^30.
    template <int NT>
    __device__ static inline void block(int acc[NT][4], const few_codes<T> &r0, const few_codes<T> &r1, const scales &s0,
                                        const scales &s1, const uint32_t q[NT][4], int b)
    {
        const int w = b % 2 * 2;
#pragma unroll
        for (int h = 0; h < (HALVES ? 2 : 1); h++) {
            const int g = HALVES ? 2 * b + h : b, f0 = scale_at(s0, g), f1 = scale_at(s1, g);
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                int c[4];
                if constexpr (HALVES)
                    mma_s8_16(c, r0.quad(b, h), r1.quad(b, h), q[nt][w + h]);
                else {
                    uint32_t a[4];
                    few_rows_of(a, r0, r1, b);
                    mma_s8_32(c, a, q[nt][w], q[nt][w + 1], 0);
                }
#pragma unroll
                for (int k = 0; k < 4; k++) acc[nt][k] += (k < 2 ? f0 : f1) * c[k];
            }
        }
    }

    // y += what the integer sums of a super-block come to.
    template <int NT>
    __device__ static inline void finish(float y[NT][4], const int acc[NT][4], const few_codes<T> &r0, const few_codes<T> &r1,
                                         const scales &s0, const scales &s1, const beside<NT> &x, const few_lane &l)
    {
        uint32_t a[4];
        if constexpr (MIN) minima_of(a, r0, r1, l);
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            float k[4] = {};
            if constexpr (MIN) mma_f16(k, a, x.sums[nt].x, x.sums[nt].y);
#pragma unroll
            for (int i = 0; i < 4; i++)
                y[nt][i] = fmaf(value(i < 2 ? s0 : s1, acc[nt][i], k[i]), i % 2 ? x.d[nt].y : x.d[nt].x, y[nt][i]);
        }
    }

    // One column (few_products): a lane scales the sums of two blocks instead of all.
    static constexpr bool ONE = !HALVES, WHOLE = F.lo == 4 && F.hi == 0;
    struct column {
        uint2 own, sums; // block g; what minima are multiplied with
        float d;
        __device__ inline void read(const uint8_t *x, const few_args &p, unsigned chunk, const few_lane &l)
        {
            const uint8_t *record = x + chunk * p.x_stride, *side = record + p.x_tokens * FM_CHUNK;
            own = few_own_block(record, l);
            if constexpr (MIN) sums = *(const uint2 *)(side + l.t * 8);
            d = *(const float *)(side + FM_X256_SUMS);
        }
    };
    __device__ static inline void multiply_one(float y[4], const uint8_t *stage, const column &x, const few_lane &l)
    {
        few_codes<T> r[2];
        int c[8][4];
        few_products<T>(c, r, stage, x.own, l);
        float k[4] = {};
        if constexpr (MIN) {
            uint32_t a[4];
            minima_of(a, r[0], r[1], l);
            mma_f16(k, a, x.sums.x, x.sums.y);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const scales s = scales_of(r[i]);
            const uint32_t two = (l.t < 2 ? s.byte[0] : s.byte[1]) >> l.t % 2 * 16; // those of blocks 2 t and 2 t + 1
            const int f0 = SIGNED ? (int)(int8_t)two : (int)(two & 255),
                      f1 = SIGNED ? (int)(int8_t)(two >> 8) : (int)(two >> 8 & 255);
            const int2 sums = few_own_sums<T>(c, i, l);
            const float v = value(s, lanes4(f0 * sums.x + f1 * sums.y), k[2 * i]);
            y[2 * i] = fmaf(v, x.d, y[2 * i]);
        }
    }

    // With 8 columns the input is asked for before the wait, with 16 there are no registers for that.
    template <int NT, int STAGES, class X>
    __device__ static inline void multiply(float y[NT][4], const uint8_t *stage, const X &x, const few_lane &l)
    {
        uint32_t q[4][NT][4];
        beside<NT> side;
        side.read(x.side, l);
        if constexpr (NT == 1)
#pragma unroll
            for (int i = 0; i < 4; i++) x.template read<NT>(q[i], l, i);
        few_await<STAGES - 1>();
        few_codes<T> r0, r1;
        r0.read(stage, l);
        r1.read(stage + SLOT, l);
        const scales s0 = scales_of(r0), s1 = scales_of(r1);
        int acc[NT][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if constexpr (NT > 1) x.template read<NT>(q[i], l, i);
            block<NT>(acc, r0, r1, s0, s1, q[i], 2 * i);
            block<NT>(acc, r0, r1, s0, s1, q[i], 2 * i + 1);
        }
        finish<NT>(y, acc, r0, r1, s0, s1, side, l);
    }

    // ---- More columns: scales are multiplied into the codes, so that sums stay in the tensor cores over all 256 columns.  What
    // does not fit a byte takes two products: value = low + HIGH * high. ----

    static constexpr int HIGH = F.sc == FM_SC_K ? 8 : F.sc == FM_SC_Q2 ? 0 : 256;

    // Three bits of the scale of group g, of which a word has four: they are masked together.
    __device__ static inline uint32_t three_bits(const scales &s, int g, int first)
    {
        return __byte_perm(s.byte[g / 4] >> first & 0x07070707u, 0, 0x4440 | g % 4);
    }

    // Four codes times their group's scale.  Signed ones: 16-bit lanes of product + 0x8080, whose bytes are low + 128 and
    // high + 128.
    __device__ static inline void times(uint32_t *low, uint32_t *high, uint32_t quad, const scales &s, int g)
    {
        if constexpr (F.sc == FM_SC_K)
            *low = quad * three_bits(s, g, 0), *high = quad * three_bits(s, g, 3);
        else if constexpr (F.sc == FM_SC_Q2)
            *low = quad * scale_at(s, g);
        else {
            const int scale = scale_at(s, g);
            const uint32_t code = quad ^ 0x80808080u, begin = 0x80808080u - (uint32_t)(scale * (128 << 16 | 128));
            const uint32_t even = (code & 0x00ff00ffu) * scale + begin, odd = (code >> 8 & 0x00ff00ffu) * scale + begin;
            *low = __byte_perm(even, odd, 0x6240) ^ 0x80808080u;
            *high = __byte_perm(even, odd, 0x7351) ^ 0x80808080u;
        }
    }
    __device__ static inline void rows_of(uint32_t low[4], uint32_t high[4], const few_codes<T> &r0, const few_codes<T> &r1,
                                          const scales &s0, const scales &s1, int b)
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int g = HALVES ? 2 * b + h : b;
            times(low + 2 * h, high + 2 * h, r0.quad(b, h), s0, g);
            times(low + 2 * h + 1, high + 2 * h + 1, r1.quad(b, h), s1, g);
        }
    }

    using WIDE = wide_codes<T>;
    using P = fm_planes<T>;
    template <int NT> struct wide_rest {
        float v[NT][4];
    };

    // y += what the sums of a chunk come to, of eight columns.
    template <int NT>
    __device__ static inline void wide_settle(float y[4], const wide_rest<NT> &r, const uint8_t *side, const few_lane &l,
                                              int nt)
    {
        const float2 d = ((const float2 *)(side + nt * FM_X256_SIDE + FM_X256_SUMS))[l.t];
#pragma unroll
        for (int i = 0; i < 4; i++) y[i] = fmaf(r.v[nt][i], i % 2 ? d.y : d.x, y[i]);
    }
    template <int NT>
    __device__ static inline void wide_settle_all(float y[NT][4], const wide_rest<NT> &r, const uint8_t *side,
                                                  const few_lane &l)
    {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) wide_settle<NT>(y[nt], r, side, l, nt);
    }

    // A batch of blocks is under way while the rows of the next are made.  `here`, `before` and `after` are stages of the ring, of which
    // settled() says that nobody needs the one before any more, and next() that the one after is there.
    template <int NT, class R, class SETTLED, class NEXT>
    __device__ static inline void wide(float y[NT][4], wide_rest<NT> &rest, typename WIDE::held &c, const uint8_t *here,
                                       const uint8_t *before, const uint8_t *after, const few_lane &l, SETTLED settled,
                                       NEXT next)
    {
        constexpr int BATCH = 2, HALF = 4;
        const scales s0 = scales_of(c.r[0]), s1 = scales_of(c.r[1]);
        int sum[NT][4], high[HIGH ? NT : 1][4];
        float k[NT][4] = {};
        uint32_t a[2 * BATCH][2][4], minima[4];
        if constexpr (MIN) minima_of(minima, c.r[0], c.r[1], l);
#pragma unroll
        for (int b = 0; b < 8; b++) {
            const int batch = b / BATCH * BATCH;
            // The second half is unpacked while the first is multiplied.
            if (b == HALF && P::LO == 128) c.template read_again<R>(here, l);
            if (b == batch) {
#pragma unroll
                for (int i = b; i < b + BATCH; i++)
                    rows_of(a[i % (2 * BATCH)][0], a[i % (2 * BATCH)][1], c.r[0], c.r[1], s0, s1, i);
                wgmma_begin();
            }
            const uint64_t columns = wgmma_columns(shared_address(here) + R::INPUT + b / 4 * NT * 1024, b % 4);
            wgmma_bytes<NT, SIGNED>(sum, a[b % (2 * BATCH)][0], columns, b > 0);
            if constexpr (HIGH) wgmma_bytes<NT, SIGNED>(high, a[b % (2 * BATCH)][1], columns, b > 0);
            if (b + 1 < batch + BATCH) continue;
            wgmma_commit();
#pragma unroll
            for (int nt = batch * NT / HALF; b < HALF && nt < (b + 1) * NT / HALF; nt++)
                wide_settle<NT>(y[nt], rest, before + R::BESIDE, l, nt);
            if (batch == HALF) settled();
            if (batch > 0 && b < 7) wgmma_wait_rows<1>();
        }
        next();
        c.template read<R>(after, l);
        // These stand in line behind the products, so they come last.
#pragma unroll
        for (int nt = 0; nt < NT && MIN; nt++) {
            const uint8_t *sums = here + R::BESIDE + nt * FM_X256_SIDE + l.lane * 8;
            mma_f16(k[nt], minima, *(const uint32_t *)sums, *(const uint32_t *)(sums + 4));
        }
        wgmma_wait<0, NT>(sum);
        if constexpr (HIGH) wgmma_wait<0, NT>(high);
#pragma unroll
        for (int i = 0; i < 4 * NT; i++) {
            const int nt = i / 4, j = i % 4;
            int all = sum[nt][j];
            if constexpr (HIGH) all += HIGH * high[nt][j];
            rest.v[nt][j] = value(j < 2 ? s0 : s1, all, k[nt][j]);
        }
    }
};

#endif
