// format.cuh - how stored weights lie on the device, and how codes come out of them.
//
// Quantised rows are cut into chunks of 256 columns, zeros beyond the last, and each kind of field has a plane of its own in the
// row, chunk after chunk: codes (lo), their further bits (hi), scales (sc), and one float or pair of halves per chunk (d).  So
// every access is an aligned vector, and a row is one piece that can be found by its number.
//
// Inside a chunk codes lie as an mma reads them: columns 32 b + 4 t .. + 3 and 32 b + 16 + 4 t .. + 3 are the two `quads` of block
// b that lane t of four multiplies.  Quads are four bytes of a register, code times a power of two that `unit` takes out again:
// two's complement that fills the top bits of a byte costs no sign extension.
#ifndef FM_KERNELS_CUDA_FORMAT_CUH
#define FM_KERNELS_CUDA_FORMAT_CUH

#include "kernels/cuda/linear.cuh"

enum { FM_CHUNK = 256 };

// What stands beside the codes of a chunk.
enum fm_scale_kind {
    FM_SC_HALF,  // 8 halves: d of 32 columns
    FM_SC_PAIR,  // 8 pairs of halves: d and m of 32 columns
    FM_SC_K,     // d, dmin (halves), then 8 scales and 8 mins of 6 bits in three words, scales_k()
    FM_SC_BYTES, // 16 bytes: signed scale of 16 columns; d: float
    FM_SC_EIGHT, // 8 bytes: signed scale of 32 columns; d: float
    FM_SC_TWO,   // 2 halves: d of 128 columns
    FM_SC_Q2     // 16 bytes: scale | min << 4 of 16 columns; d: d and dmin (halves)
};

struct fm_format {
    int lo, hi;       // bits per code in either plane
    bool table;       // codes of the IQ4 table
    int flip;         // a signed code is the unsigned one with this bit turned
    fm_scale_kind sc; // what stands beside
    float unit;       // a quad's byte times this is the code
};

__host__ __device__ constexpr fm_format fm_format_of(int type)
{
    switch (type) {
    case FM_Q8_0: return {8, 0, false, 0, FM_SC_HALF, 1.0f};
    case FM_Q4_0: return {4, 0, false, 8, FM_SC_HALF, 1.0f / 16};
    case FM_Q4_1: return {4, 0, false, 0, FM_SC_PAIR, 1.0f};
    case FM_Q5_0: return {4, 1, false, 16, FM_SC_HALF, 1.0f / 8};
    case FM_Q5_1: return {4, 1, false, 0, FM_SC_PAIR, 1.0f};
    case FM_Q2_K: return {2, 0, false, 0, FM_SC_Q2, 1.0f};
    case FM_Q3_K: return {2, 1, false, 4, FM_SC_BYTES, 1.0f / 32};
    case FM_Q4_K: return {4, 0, false, 0, FM_SC_K, 1.0f};
    case FM_Q5_K: return {4, 1, false, 0, FM_SC_K, 1.0f};
    case FM_Q6_K: return {4, 2, false, 32, FM_SC_BYTES, 1.0f / 4};
    case FM_IQ4_NL: return {4, 0, true, 0, FM_SC_HALF, 1.0f};
    case FM_INT4_G128: return {4, 0, false, 0, FM_SC_TWO, 1.0f / 16};
    default: return {4, 0, true, 0, FM_SC_EIGHT, 1.0f}; // IQ4_XS
    }
}

__host__ __device__ constexpr int fm_scale_bytes(fm_scale_kind k)
{
    return k == FM_SC_PAIR ? 32 : k == FM_SC_EIGHT ? 8 : k == FM_SC_TWO ? 4 : 16;
}
__host__ __device__ constexpr int fm_d_bytes(fm_scale_kind k)
{
    return k == FM_SC_BYTES || k == FM_SC_EIGHT || k == FM_SC_Q2 ? 4 : 0;
}

// Bytes of a chunk in each plane, and where a plane of a row of n chunks begins.
template <int T> struct fm_planes {
    static constexpr fm_format F = fm_format_of(T);
    static constexpr int LO = F.lo * 32, HI = F.hi * 32, SC = fm_scale_bytes(F.sc), D = fm_d_bytes(F.sc);
    __host__ __device__ static constexpr size_t hi(size_t n) { return n * LO; }
    __host__ __device__ static constexpr size_t sc(size_t n) { return n * (LO + HI); }
    __host__ __device__ static constexpr size_t d(size_t n) { return n * (LO + HI + SC); }
    __host__ __device__ static constexpr size_t row(size_t n) { return (n * (LO + HI + SC + D) + 15) / 16 * 16; }
};

__host__ __device__ constexpr bool fm_is_float(int type)
{
    return type == FM_F32 || type == FM_F16 || type == FM_BF16;
}

// Whether a word has the quads h of blocks b and b + 1, in the low and in the high halves of its bytes, instead of both quads of a block.
// Then the instruction of block b + 1 takes the high halves as they lie, and its sums are 16 times what they are to be.
__host__ __device__ constexpr bool fm_is_paired(int type)
{
    return type == FM_Q4_K;
}

// IQ4_values[] of four indices each, in bytes: the tables of two permutations of bytes, and a choice between them.
__device__ static inline uint32_t fm_iq4_quad(uint32_t nibbles)
{
    const uint32_t low = __byte_perm(0xbfad9881u, 0xf6eaddcfu, nibbles & 0x7777u);
    const uint32_t high = __byte_perm(0x26190d01u, 0x71594535u, nibbles & 0x7777u);
    return __byte_perm(low, high, 0x3210u | (nibbles & 0x8888u) >> 1);
}

// The further bits of quad s of its word, at the top of each byte.
template <int BITS> __device__ static inline uint32_t fm_top_bits(uint32_t word, int s)
{
    return BITS == 2 ? word << (6 - 2 * s) & 0xc0c0c0c0u : word << (7 - s) & 0x80808080u;
}

// Quad h of block b.  `lo`: for 8 bits the quad itself, for 4 the word of the block, for 2 that of two blocks; `hi`: the word of two
// blocks (2 bits) or four (1 bit).
template <int T> __device__ static inline uint32_t fm_quad(uint32_t lo, uint32_t hi, int b, int h)
{
    constexpr fm_format F = fm_format_of(T);
    const int s2 = b % 2 * 2 + h, s1 = b % 4 * 2 + h;
    if constexpr (F.lo == 8)
        return lo;
    else if constexpr (F.table)
        return fm_iq4_quad(h ? lo >> 16 : lo);
    else if constexpr (T == FM_Q4_0 || T == FM_INT4_G128)
        return (h ? lo : lo << 4) & 0xf0f0f0f0u;
    else if constexpr (T == FM_Q5_0)
        return ((h ? lo >> 1 : lo << 3) & 0x78787878u) | fm_top_bits<1>(hi, s1);
    else if constexpr (T == FM_Q6_K)
        return ((h ? lo >> 2 : lo << 2) & 0x3c3c3c3cu) | fm_top_bits<2>(hi, s2);
    else if constexpr (T == FM_Q3_K)
        return (s2 < 3 ? lo << (5 - 2 * s2) : lo >> 1) & 0x60606060u | fm_top_bits<1>(hi, s1);
    else if constexpr (T == FM_Q2_K)
        return lo >> 2 * s2 & 0x03030303u;
    else if constexpr (fm_is_paired(T))
        return (b % 2 ? lo >> 4 : lo) & 0x0f0f0f0fu;
    else {
        const uint32_t low = (h ? lo >> 4 : lo) & 0x0f0f0f0fu;
        return F.hi ? low | (s1 < 4 ? hi << (4 - s1) : hi >> (s1 - 4)) & 0x10101010u : low;
    }
}

// Which word of a lane's own codes block b is in, and of its further bits.
template <int T> __host__ __device__ constexpr int fm_lo_word(int b, int h)
{
    return fm_format_of(T).lo == 8 ? 2 * b + h : fm_is_paired(T) ? b / 2 * 2 + h : fm_format_of(T).lo == 4 ? b : b / 2;
}
template <int T> __host__ __device__ constexpr int fm_hi_word(int b)
{
    return fm_format_of(T).hi == 2 ? b / 2 : b / 4;
}

// Six-bit fields of a K type: w0 and w1 hold scales 0-3 and 4-7 in the low six bits of their bytes, w2 mins 0-3; the top bits are
// mins 4-7, two bits from each word.
__device__ static inline uint32_t fm_k_mins_high(uint32_t w0, uint32_t w1, uint32_t w2)
{
    return (w0 >> 6 & 0x03030303u) | (w1 >> 4 & 0x0c0c0c0cu) | (w2 >> 2 & 0x30303030u);
}

#endif
