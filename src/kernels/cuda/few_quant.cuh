// few_quant.cuh - few columns, quantised weights: exact integer sums of codes and inputs, put together as floats block by block.
#ifndef FM_KERNELS_CUDA_FEW_QUANT_CUH
#define FM_KERNELS_CUDA_FEW_QUANT_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/few_narrow.cuh"
#include "kernels/cuda/few_whole.cuh"
#include "kernels/cuda/few_wide.cuh"

// Where the parts of a chunk of eight rows lie in a slot of the ring: codes by loads of 32 lanes; what goes with them row by row, once for
// the four lanes that read it, copied in pieces by the first of them.
template <int T> struct few_slot {
    using P = fm_planes<T>;
    static constexpr int LO = 0, LO_LOADS = P::LO / 64, HI = LO + LO_LOADS * 512, SC = HI + P::HI * 8, D = SC + P::SC * 8,
                         BYTES = (D + P::D * 8 + 15) / 16 * 16;
    static constexpr int PIECE = P::SC < 16 ? P::SC : 16, PIECES = P::SC / PIECE;
};

template <int T>
__device__ static inline void few_ask_codes(unsigned to, const uint8_t *row, size_t n, unsigned chunk, const few_lane &l)
{
    using P = fm_planes<T>;
    using S = few_slot<T>;
#pragma unroll
    for (int i = 0; i < S::LO_LOADS; i++) copy_async<16>(to + i * 512 + l.lane * 16, row + chunk * P::LO + i * 64 + l.t * 16);
    if constexpr (P::HI == 64) copy_async<16>(to + S::HI + l.lane * 16, row + P::hi(n) + chunk * 64 + l.t * 16);
    if constexpr (P::HI == 32) copy_async<8>(to + S::HI + l.lane * 8, row + P::hi(n) + chunk * 32 + l.t * 8);
    if (l.t < S::PIECES)
        copy_async<S::PIECE>(to + S::SC + l.g * P::SC + l.t * S::PIECE, row + P::sc(n) + chunk * P::SC + l.t * S::PIECE);
    if constexpr (P::D != 0)
        if (l.t == 0) copy_async<4>(to + S::D + l.g * 4, row + P::d(n) + chunk * 4);
}

// A chunk of the input of up to 16 tokens: their bytes, what goes with them, and of blocks 2 i and 2 i + 1 the words that a lane
// multiplies: words 2 (b % 2) and 2 (b % 2) + 1 meet the quads of b.
struct few_record {
    const uint8_t *bytes, *side;
    unsigned n;

    __device__ inline few_record(const uint8_t *x, unsigned chunk, const few_args &p)
        : bytes(x + chunk * p.x_stride), side(bytes + p.x_tokens * FM_CHUNK), n(p.n)
    {
    }
    template <int NT> __device__ inline void read(uint32_t q[NT][4], const few_lane &l, int i) const
    {
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const uint8_t *token = bytes + min(8 * nt + l.g, (int)n - 1) * FM_CHUNK + l.t * 16;
            *(uint4 *)q[nt] = *(const uint4 *)(token + 64 * i);
        }
    }
};

// What the formats of quantised weights have in common for few.cuh.
template <int T> struct few_quantised {
    static constexpr fm_format F = fm_format_of(T);
    static constexpr int SLOT = few_slot<T>::BYTES, GROUP = 1, RESIDENT = 2;
    static constexpr bool RECORDS = true;

    typedef few_record tokens;

    __device__ static inline void ask(unsigned to, const uint8_t *row, const few_args &p, unsigned chunk, const few_lane &l)
    {
        few_ask_codes<T>(to, row, p.chunks, chunk, l);
    }
};

// What a lane holds of one row's chunk.
template <int T> struct few_codes {
    using P = fm_planes<T>;
    using S = few_slot<T>;
    uint32_t lo[4 * S::LO_LOADS], hi[P::HI ? P::HI / 16 : 1], sc[P::SC / 4], d;

    __device__ inline void read(const uint8_t *slot, const few_lane &l)
    {
#pragma unroll
        for (int i = 0; i < S::LO_LOADS; i++) *(uint4 *)(lo + 4 * i) = *(const uint4 *)(slot + i * 512 + l.lane * 16);
        if constexpr (P::HI == 64)
            *(uint4 *)hi = *(const uint4 *)(slot + S::HI + l.lane * 16);
        else if constexpr (P::HI == 32)
            *(uint2 *)hi = *(const uint2 *)(slot + S::HI + l.lane * 8);
        else
            hi[0] = 0;
        read_scales(slot + S::SC + l.g * P::SC);
        if constexpr (P::D != 0) d = *(const uint32_t *)(slot + S::D + l.g * 4);
    }
    __device__ inline void read_scales(const uint8_t *own)
    {
#pragma unroll
        for (int i = 0; i < P::SC / 16; i++) *(uint4 *)(sc + 4 * i) = *(const uint4 *)(own + 16 * i);
        if constexpr (P::SC == 8) *(uint2 *)sc = *(const uint2 *)own;
        if constexpr (P::SC == 4) sc[0] = *(const uint32_t *)own;
    }
    // Where words are paired, the quad as it lies there: unsigned, and 16 times as large for an odd block.
    __device__ inline uint32_t quad_there(int b, int h) const
    {
        return lo[fm_lo_word<T>(b, h)] & (b % 2 ? 0xf0f0f0f0u : 0x0f0f0f0fu);
    }
    __device__ inline uint32_t quad(int b, int h) const
    {
        return fm_quad<T>(lo[fm_lo_word<T>(b, h)], hi[P::HI ? fm_hi_word<T>(b) : 0], b, h);
    }
};

// Block b of two rows as an operand.
template <int T> __device__ static inline void few_rows_of(uint32_t a[4], const few_codes<T> &r0, const few_codes<T> &r1, int b)
{
    a[0] = r0.quad(b, 0), a[1] = r1.quad(b, 0), a[2] = r0.quad(b, 1), a[3] = r1.quad(b, 1);
}

// ---- One column: the instruction's eight columns are the eight blocks of the chunk.  Of product b the sums of column b are wanted, which
// is two of them to a lane: those of blocks 2 t and 2 t + 1. ----

// What a lane multiplies of a record: its part of block g.
__device__ static inline uint2 few_own_block(const uint8_t *record, const few_lane &l)
{
    return *(const uint2 *)(record + l.g / 2 * 64 + l.t * 16 + l.g % 2 * 8);
}

// The products of a stage's rows, which come to r; where words are paired those of an odd block are 16 times as large.
template <int T>
__device__ static inline void few_products(int c[8][4], few_codes<T> r[2], const uint8_t *stage, uint2 own, const few_lane &l)
{
    r[0].read(stage, l);
    r[1].read(stage + few_slot<T>::BYTES, l);
#pragma unroll
    for (int b = 0; b < 8; b++)
        if constexpr (fm_is_paired(T)) {
            const uint32_t a[4] = {r[0].quad_there(b, 0), r[1].quad_there(b, 0), r[0].quad_there(b, 1), r[1].quad_there(b, 1)};
            mma_u8_32(c[b], a, own.x, own.y);
        } else {
            uint32_t a[4];
            few_rows_of(a, r[0], r[1], b);
            mma_s8_32(c[b], a, own.x, own.y, 0);
        }
}

// v[t]
__device__ static inline int few_pick(int v0, int v1, int v2, int v3, int t)
{
    const int low = t & 1 ? v1 : v0, high = t & 1 ? v3 : v2;
    return t & 2 ? high : low;
}

// The lane's two sums of row i.
template <int T> __device__ static inline int2 few_own_sums(const int c[8][4], int i, const few_lane &l)
{
    const int even = few_pick(c[0][2 * i], c[2][2 * i], c[4][2 * i], c[6][2 * i], l.t),
              odd = few_pick(c[1][2 * i + 1], c[3][2 * i + 1], c[5][2 * i + 1], c[7][2 * i + 1], l.t);
    return {even, fm_is_paired(T) ? odd >> 4 : odd};
}

// A half of a word, as a float.
__device__ static inline float few_half(const uint32_t *words, int i)
{
    return __half2float(__ushort_as_half((unsigned short)(words[i / 2] >> i % 2 * 16)));
}

#endif
