// pack.cuh - inputs of products as the kernels of few columns read them.
//
// Floats: rows of bf16 or f32 (linear.cuh).  Integers: records of 256 columns for groups of up to 64 tokens.  A record holds the
// bytes of every token, each lane's quads of two blocks in 16 bytes, and for every 8 tokens the floats that go with them, in the
// order of an mma's output: lane t of four has tokens 2 t and 2 t + 1.
#ifndef FM_KERNELS_CUDA_PACK_CUH
#define FM_KERNELS_CUDA_PACK_CUH

#include "kernels/cuda/format.cuh"
#include "kernels/cuda/launch.cuh"

extern "C" void fm_cuda_fill_pack(fm_kernels *k); // pack_x

// Tokens of a group that records have room for: those of the kernel that multiplies them.
__host__ __device__ static inline size_t fm_record_tokens(size_t n)
{
    return n <= 8 ? 8 : n <= 16 ? 16 : n <= 32 ? 32 : 64;
}

// Where lane 4 b + t puts its quads.  With more than 16 tokens that is where wgmma.cuh wants columns: panels of 128 bytes a token.
__device__ static inline void put_quads(uint8_t *record, size_t tokens, size_t token, int b, int t, const uint32_t quad[2])
{
    if (tokens <= 16) {
        *(uint2 *)(record + token * FM_CHUNK + b / 2 * 64 + t * 16 + b % 2 * 8) = make_uint2(quad[0], quad[1]);
        return;
    }
    uint8_t *row = record + (b / 4 * tokens + token) * 128 + t * 4;
    for (int h = 0; h < 2; h++) *(uint32_t *)(row + ((b % 4 * 2 + h) ^ (int)(token % 8)) * 16) = quad[h];
}

// A kernel's own records in shared memory have room for the tokens that exist, fewer than 8.
//
// Per 8 tokens, Q8_32: d [t][8 blocks][2], then d * sum of q likewise.  Q8_256: for each token and t the sums of groups of 16 4 t,
// 4 t + 2, 4 t + 1 and 4 t + 3, as halves (all are exact), then d of each token.
enum { FM_X32_FLOATS = 8 * 8 * 4, FM_X32_SIDE = 2 * FM_X32_FLOATS, FM_X256_SUMS = 8 * 32, FM_X256_SIDE = FM_X256_SUMS + 8 * 4 };

__host__ __device__ static inline size_t fm_record_bytes(bool wide, size_t tokens)
{
    return tokens * FM_CHUNK + (tokens + 7) / 8 * (wide ? FM_X256_SIDE : FM_X32_SIDE);
}

// ---- Records: a warp takes 256 columns of a token, lane 4 b + t the two quads of block b that lane t will multiply ----

// The largest of the lanes that share a block; magnitudes compare as integers, which puts Inf and NaN above every number.
__device__ static inline uint32_t block_max(uint32_t v, bool wide)
{
    for (int i = 1; i < (wide ? 32 : 4); i *= 2) v = max(v, __shfl_xor_sync(0xffffffffu, v, i));
    return v;
}

struct rounded {
    uint32_t quad[2];
    int sum[2]; // of a quad's bytes
    float d;
};

// What numbers of which the largest has these bits are multiplied with, and *d, what makes them of bytes again.  0: all are zeros, or too
// small to be told from them, or not all are finite.
__device__ static inline float round_scale(uint32_t top, float *d)
{
    *d = __uint_as_float(0x7fc00000u);
    if (top >= 0x7f800000u) return 0.0f;
    *d = __fdiv_rn(__uint_as_float(top), 127.0f);
    const float inverse = __fdiv_rn(1.0f, *d);
    if (inverse <= 3.0e38f) return inverse;
    *d = 0.0f;
    return 0.0f;
}

// Products of at most 127 end, rounded to even, in the lowest byte of their sum with 1.5 * 2^23: no conversion, of which there are few a
// clock.
__device__ static inline uint32_t round_quad(const float v[4], float inverse, int *sum)
{
    uint32_t q[4];
#pragma unroll
    for (int i = 0; i < 4; i++) q[i] = __float_as_uint(__fadd_rn(__fmul_rn(v[i], inverse), 12582912.0f));
    const uint32_t quad = __byte_perm(__byte_perm(q[0], q[1], 0x0040), __byte_perm(q[2], q[3], 0x0040), 0x5410),
                   found = inverse == 0.0f ? 0 : quad;
    *sum = __dp4a((int)found, 0x01010101, *sum);
    return found;
}

__device__ static inline uint32_t magnitude(float v)
{
    return __float_as_uint(v) & 0x7fffffffu;
}

__device__ static inline rounded round_block(const float v[8], bool wide)
{
    uint32_t top = 0;
    for (int i = 0; i < 8; i++) top = max(top, magnitude(v[i]));
    rounded o = {{0, 0}, {0, 0}, 0.0f};
    const float inverse = round_scale(block_max(top, wide), &o.d);
    for (int h = 0; h < 2; h++) o.quad[h] = round_quad(v + 4 * h, inverse, &o.sum[h]);
    return o;
}

// Sum over the four lanes of a block.
__device__ static inline int lanes4(int v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

__device__ static inline void side_32(uint8_t *side, const rounded *o, int token, int b)
{
    float *d = (float *)side + token / 2 * 16 + 2 * b + token % 2;
    d[0] = o->d;
    d[FM_X32_FLOATS / 4] = o->d * (float)o->sum[0];
}

__device__ static inline void side_256(uint8_t *side, const rounded *o, int token, int b)
{
    __half *sums = (__half *)side + token * 16 + b / 2 * 4 + b % 2; // groups 2 b and 2 b + 1 of 16, in the order of pack.cuh
    sums[0] = __int2half_rn(o->sum[0]);
    sums[2] = __int2half_rn(o->sum[1]);
    if (b == 0) ((float *)(side + FM_X256_SUMS))[token] = o->d;
}

// What lane 4 b + t packs of 256 columns; `aligned`: rows begin at multiples of 16 bytes.
__device__ static inline void pack_load(float v[8], const float *x, size_t cols, size_t chunk, bool aligned)
{
    const size_t c = chunk * FM_CHUNK + threadIdx.x % 32 / 4 * 32 + threadIdx.x % 4 * 4;
    if (aligned && c < cols) { // a block is whole
        *(float4 *)v = *(const float4 *)(x + c);
        *(float4 *)(v + 4) = *(const float4 *)(x + c + 16);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = c < cols ? x[c + i / 4 * 16 + i % 4] : 0.0f;
}

__device__ static inline void pack_load(float v[8], const __nv_bfloat16 *x, size_t cols, size_t chunk, bool)
{
    const size_t c = chunk * FM_CHUNK + threadIdx.x % 32 / 4 * 32 + threadIdx.x % 4 * 4;
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = c < cols ? __bfloat162float(x[c + i / 4 * 16 + i % 4]) : 0.0f;
}

// Into a record with room for `tokens`.
template <bool WIDE> __device__ static inline void put_rounded(uint8_t *record, size_t tokens, size_t token, rounded o)
{
    const int b = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    put_quads(record, tokens, token, b, t, o.quad);
    o.sum[0] = lanes4(o.sum[0]);
    o.sum[1] = lanes4(o.sum[1]);
    uint8_t *side = record + tokens * FM_CHUNK + token / 8 * (WIDE ? FM_X256_SIDE : FM_X32_SIDE);
    if (t) return;
    if (WIDE)
        side_256(side, &o, (int)token % 8, b);
    else {
        o.sum[0] += o.sum[1];
        side_32(side, &o, (int)token % 8, b);
    }
}

template <bool WIDE> __device__ static inline void pack_record(uint8_t *record, size_t tokens, size_t token, const float v[8])
{
    put_rounded<WIDE>(record, tokens, token, round_block(v, WIDE));
}

// Records of a step's rows as a kernel writes them: groups of so many rows, each with its chunks one after the other.
struct fm_records {
    uint8_t *p;
    unsigned tokens, chunks;

    template <bool WIDE> __device__ void put_rounded(size_t row, size_t chunk, const rounded &o) const
    {
        const unsigned group = (unsigned)row / tokens, token = (unsigned)row % tokens;
        ::put_rounded<WIDE>(p + ((size_t)group * chunks + chunk) * fm_record_bytes(WIDE, tokens), tokens, token, o);
    }
    // What a warp has of a row by pack_load().
    template <bool WIDE> __device__ void put(size_t row, size_t chunk, const float v[8]) const
    {
        put_rounded<WIDE>(row, chunk, round_block(v, WIDE));
    }
};

static inline fm_records fm_records_at(void *p, size_t n, size_t cols)
{
    return {(uint8_t *)p, (unsigned)fm_record_tokens(n), (unsigned)((cols + FM_CHUNK - 1) / FM_CHUNK)};
}

// ---- Kernels that make rows, by what they leave of them: FORM is that of records, or FM_X_BF16 for rows and nothing else ----

template <int F> struct fm_form {
    static constexpr int FORM = F;
};

template <typename G> static inline void fm_with_form(fm_xform form, G go)
{
    if (form == FM_X_Q8_256)
        go(fm_form<FM_X_Q8_256>());
    else if (form == FM_X_Q8_32)
        go(fm_form<FM_X_Q8_32>());
    else
        go(fm_form<FM_X_BF16>());
}

// Whoever makes records of more than 16 tokens lets the product that reads them begin before the wait, against the rule of
// launch.cuh: no kernel writes quantised weights.  For 32 and 64 that is worth 2.5 % of a step in Q8_0; the kernels of up to 16
// columns are in the way of the one in front when they come so early (Q4_K, 16 columns: 1 to 5 % of a step).
template <int FORM> __device__ static inline void fm_begin_for(const fm_records &r)
{
    fm_begin_early(FORM != FM_X_BF16 && r.tokens > 16);
}

// The same where up to 16 tokens of a step are rows of bf16: it is a product that comes next, of which only the weights are read early.
template <int FORM> __device__ static inline void fm_begin_for(const fm_records &r, size_t tokens)
{
    fm_begin_early(FORM == FM_X_BF16 ? tokens <= 16 : r.tokens > 16);
}

#endif
