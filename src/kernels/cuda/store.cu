// store.cu - weights from the layout of a file into that of format.cuh, and back out as dense rows.
#include "kernels/cuda/format.cuh"

// ---- Into the stored form: a warp takes 256 columns of a row, lane 4 b + t the quads of block b that lane t will multiply ----

// Byte i of 16 bits that may lie at an odd address.
__device__ static uint32_t half_bits(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}
__device__ static float half_float(uint32_t bits)
{
    return __half2float(__ushort_as_half((unsigned short)bits));
}

// The unsigned code of column j of a block of 32, or of 256 (spec falcon-mamba.md 4.4).
template <int T> __device__ static uint32_t raw_code(const uint8_t *s, int j)
{
    const int l = j % 32;
    if constexpr (T == FM_Q8_0)
        return s[2 + j];
    else if constexpr (T == FM_Q4_0 || T == FM_IQ4_NL)
        return s[2 + j % 16] >> j / 16 * 4 & 15;
    else if constexpr (T == FM_Q4_1)
        return s[4 + j % 16] >> j / 16 * 4 & 15;
    else if constexpr (T == FM_Q5_0)
        return (s[6 + j % 16] >> j / 16 * 4 & 15) | (s[2 + j / 8] >> j % 8 & 1) << 4;
    else if constexpr (T == FM_Q5_1)
        return (s[8 + j % 16] >> j / 16 * 4 & 15) | (s[4 + j / 8] >> j % 8 & 1) << 4;
    else if constexpr (T == FM_Q2_K)
        return s[16 + j / 128 * 32 + l] >> j % 128 / 32 * 2 & 3;
    else if constexpr (T == FM_Q3_K)
        return (s[32 + j / 128 * 32 + l] >> j % 128 / 32 * 2 & 3) | (s[l] >> j / 32 & 1) << 2;
    else if constexpr (T == FM_Q4_K)
        return s[16 + j / 64 * 32 + l] >> j / 32 % 2 * 4 & 15;
    else if constexpr (T == FM_Q5_K)
        return (s[48 + j / 64 * 32 + l] >> j / 32 % 2 * 4 & 15) | (s[16 + l] >> j / 32 & 1) << 4;
    else if constexpr (T == FM_Q6_K) {
        const int half = j / 128, part = j % 128 / 32;
        return (s[64 * half + 32 * (part % 2) + l] >> part / 2 * 4 & 15) | (s[128 + 32 * half + l] >> part * 2 & 3) << 4;
    } else if constexpr (T == FM_INT4_G128) // already two's complement, and in the order of the planes
        return s[4 + 4 * (j / 128 * 16 + l % 16 / 4 * 4 + j / 32 % 4) + l % 4] >> l / 16 * 4 & 15;
    else
        return s[8 + j / 32 * 16 + j % 16] >> j / 16 % 2 * 4 & 15; // IQ4_XS
}

// Sums what the lanes that share a word of a plane have for it; `lanes` lanes 4 apart.
__device__ static uint32_t shared_word(uint32_t v, int lanes)
{
    for (int i = 1; i < lanes; i *= 2) v |= __shfl_xor_sync(0xffffffffu, v, 4 * i);
    return v;
}

// The codes of a lane's two quads, spread into the words of the planes.
template <int T> __device__ static void store_codes(uint8_t *row, size_t n, size_t chunk, int b, int t, const uint32_t code[8])
{
    using P = fm_planes<T>;
    constexpr int low = P::F.lo, high = P::F.hi;
    uint32_t lo[2] = {0, 0}, hi = 0;
    for (int i = 0; i < 8; i++) {
        const uint32_t c = code[i] ^ (uint32_t)P::F.flip, u = c & ((1u << low) - 1), v = c >> low;
        const int quad = i / 4, at = i % 4;
        if (low == 8)
            lo[quad] |= u << 8 * at;
        else if (fm_is_paired(T))
            lo[quad] |= u << 8 * at;
        else if (low == 4)
            lo[0] |= u << (P::F.table ? 4 * i : 8 * at + 4 * quad);
        else
            lo[0] |= u << (8 * at + 2 * (b % 2 * 2 + quad));
        if (high == 2) hi |= v << (8 * at + 2 * (b % 2 * 2 + quad));
        if (high == 1) hi |= v << (8 * at + b % 4 * 2 + quad);
    }
    if (low == 2) lo[0] = shared_word(lo[0], 2);
    if (fm_is_paired(T)) { // each of two blocks has one of their words
        const uint32_t other = __shfl_xor_sync(0xffffffffu, b % 2 ? lo[0] : lo[1], 4);
        lo[0] = b % 2 ? other | lo[1] << 4 : lo[0] | other << 4;
    }
    if (high) hi = shared_word(hi, high == 2 ? 2 : 4);
    uint32_t *l = (uint32_t *)(row + chunk * P::LO), *h = (uint32_t *)(row + P::hi(n) + chunk * P::HI);
    if (low == 8) {
        l[b / 2 * 16 + 4 * t + b % 2 * 2] = lo[0];
        l[b / 2 * 16 + 4 * t + b % 2 * 2 + 1] = lo[1];
    } else if (low == 4)
        l[b / 4 * 16 + 4 * t + b % 4] = lo[0];
    else if (b % 2 == 0)
        l[4 * t + b / 2] = lo[0];
    if (high == 2 && b % 2 == 0) h[4 * t + b / 2] = hi;
    if (high == 1 && b % 4 == 0) h[2 * t + b / 4] = hi;
}

// d of 32 columns, with m beside it; `src` NULL: zeros.
template <int T> __device__ static void store_block_scale(uint8_t *sc, const uint8_t *src, int b)
{
    if (fm_format_of(T).sc == FM_SC_PAIR)
        ((uint32_t *)sc)[b] = src ? half_bits(src) | half_bits(src + 2) << 16 : 0;
    else
        ((uint16_t *)sc)[b] = (uint16_t)(src ? half_bits(src) : 0);
}

__device__ static void store_scales_k(uint32_t *sc, const uint8_t *s)
{
    uint32_t w[3] = {0, 0, 0};
    for (int g = 0; g < 4; g++) { // groups g and g + 4
        const uint32_t high = (s[12 + g] >> 4) | s[8 + g] >> 6 << 4;
        w[0] |= ((s[4 + g] & 63u) | (high & 3) << 6) << 8 * g;
        w[1] |= ((s[12 + g] & 15u) | (uint32_t)(s[4 + g] >> 6) << 4 | (high >> 2 & 3) << 6) << 8 * g;
        w[2] |= ((s[8 + g] & 63u) | (high >> 4) << 6) << 8 * g;
    }
    sc[0] = half_bits(s) | half_bits(s + 2) << 16;
    for (int i = 0; i < 3; i++) sc[1 + i] = w[i];
}

template <int T> __device__ static int byte_scale(const uint8_t *s, int g)
{
    if (T == FM_Q6_K) return (int8_t)s[192 + g];
    if (T == FM_Q3_K) return ((g < 8 ? s[96 + g] & 15 : s[96 + g - 8] >> 4) | (s[104 + g % 4] >> g / 4 * 2 & 3) << 4) - 32;
    return ((s[4 + g / 2] >> g % 2 * 4 & 15) | (half_bits(s + 2) >> 2 * g & 3) << 4) - 32; // IQ4_XS
}

template <int T> __device__ static void store_super_scales(uint8_t *row, size_t n, size_t chunk, const uint8_t *s)
{
    using P = fm_planes<T>;
    uint8_t *sc = row + P::sc(n) + chunk * P::SC, *d = row + P::d(n) + chunk * P::D;
    if constexpr (P::F.sc == FM_SC_K)
        store_scales_k((uint32_t *)sc, s);
    else if constexpr (P::F.sc == FM_SC_TWO)
        *(uint32_t *)sc = half_bits(s) | half_bits(s + 2) << 16;
    else if constexpr (P::F.sc == FM_SC_Q2) {
        for (int g = 0; g < 16; g++) sc[g] = s[g];
        *(uint32_t *)d = half_bits(s + 80) | half_bits(s + 82) << 16;
    } else {
        for (int g = 0; g < P::SC; g++) sc[g] = (uint8_t)byte_scale<T>(s, g);
        *(float *)d = half_float(half_bits(s + (T == FM_Q6_K ? 208 : T == FM_Q3_K ? 108 : 0))) * P::F.unit;
    }
}

template <int T>
__global__ static void store_kernel(uint8_t *out, const uint8_t *raw, size_t n_chunks, size_t blocks, unsigned bytes,
                                    size_t items)
{
    using P = fm_planes<T>;
    constexpr bool wide = P::F.sc != FM_SC_HALF && P::F.sc != FM_SC_PAIR;
    const size_t item = (size_t)blockIdx.x * 8 + threadIdx.x / 32, r = item / n_chunks, chunk = item % n_chunks;
    const int b = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if (item >= items) return;
    uint8_t *row = out + r * P::row(n_chunks);
    const size_t block = wide ? chunk : chunk * 8 + b;
    const uint8_t *src = block < blocks ? raw + (r * blocks + block) * bytes : NULL;
    uint32_t code[8];
    for (int i = 0; i < 8; i++) {
        const int j = (wide ? 32 * b : 0) + i / 4 * 16 + 4 * t + i % 4;
        code[i] = src ? raw_code<T>(src, j) : (uint32_t)P::F.flip;
    }
    store_codes<T>(row, n_chunks, chunk, b, t, code);
    if constexpr (!wide) {
        if (t == 0) store_block_scale<T>(row + P::sc(n_chunks) + chunk * P::SC, src, b);
    } else if (threadIdx.x % 32 == 0)
        store_super_scales<T>(row, n_chunks, chunk, src);
    const size_t end = n_chunks * (P::LO + P::HI + P::SC + P::D); // and zeros up to the row's multiple of 16
    if (chunk == 0 && end + threadIdx.x % 32 < P::row(n_chunks)) row[end + threadIdx.x % 32] = 0;
}

__global__ static void store_float_kernel(uint8_t *out, const uint8_t *raw, size_t row_bytes, size_t raw_bytes, size_t items)
{
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; // two bytes each
    if (i >= items) return;
    const size_t r = i / (row_bytes / 2), at = i % (row_bytes / 2) * 2;
    uint32_t v = 0;
    if (at < raw_bytes) v = half_bits(raw + r * raw_bytes + at);
    *(uint16_t *)(out + r * row_bytes + at) = (uint16_t)v;
}

// ---- Out of it ----

// The eight columns of lane (b, t), as the decoder of the type gives them, to the bit.
template <int T> __device__ static void decode(float v[8], const uint8_t *row, size_t n, size_t chunk, int b, int t)
{
    using P = fm_planes<T>;
    const uint32_t *lo = (const uint32_t *)(row + chunk * P::LO), *hi = (const uint32_t *)(row + P::hi(n) + chunk * P::HI);
    const uint8_t *sc = row + P::sc(n) + chunk * P::SC, *d = row + P::d(n) + chunk * P::D;
    for (int h = 0; h < 2; h++) {
        const int w = fm_lo_word<T>(b, h), g = 2 * b + h;
        const uint32_t low = lo[P::F.lo == 2 ? 4 * t + w : w / 4 * 16 + 4 * t + w % 4];
        const uint32_t high = P::F.hi == 0 ? 0 : hi[(P::F.hi == 2 ? 4 : 2) * t + fm_hi_word<T>(b)];
        const uint32_t quad = fm_quad<T>(low, high, b, h);
        float scale, min = 0.0f;
        if constexpr (P::F.sc == FM_SC_HALF)
            scale = half_float(((const uint16_t *)sc)[b]) * P::F.unit;
        else if constexpr (P::F.sc == FM_SC_TWO)
            scale = half_float(((const uint16_t *)sc)[b / 4]) * P::F.unit;
        else if constexpr (P::F.sc == FM_SC_PAIR) {
            scale = half_float(((const uint16_t *)sc)[2 * b]);
            min = -half_float(((const uint16_t *)sc)[2 * b + 1]);
        } else if constexpr (P::F.sc == FM_SC_K) {
            const uint32_t *s = (const uint32_t *)sc;
            const uint32_t mins = b < 4 ? s[3] & 0x3f3f3f3fu : fm_k_mins_high(s[1], s[2], s[3]);
            scale = half_float(s[0] & 0xffff) * (float)(s[1 + b / 4] >> b % 4 * 8 & 63);
            min = half_float(s[0] >> 16) * (float)(mins >> b % 4 * 8 & 63);
        } else if constexpr (P::F.sc == FM_SC_Q2) {
            scale = half_float(*(const uint32_t *)d & 0xffff) * (float)(sc[g] & 15);
            min = half_float(*(const uint32_t *)d >> 16) * (float)(sc[g] >> 4);
        } else
            scale = *(const float *)d * (float)(int8_t)sc[P::F.sc == FM_SC_EIGHT ? b : g];
        for (int i = 0; i < 4; i++) v[4 * h + i] = __fsub_rn(__fmul_rn(scale, (float)(int8_t)(quad >> 8 * i)), min);
    }
}

__device__ static void put4(float *out, const float *v)
{
    *(float4 *)out = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ static void put4(__nv_bfloat16 *out, const float *v)
{
    __nv_bfloat162 two[2] = {__floats2bfloat162_rn(v[0], v[1]), __floats2bfloat162_rn(v[2], v[3])};
    *(uint2 *)out = *(const uint2 *)two;
}
__device__ static void put1(float *out, float v)
{
    *out = v;
}
__device__ static void put1(__nv_bfloat16 *out, float v)
{
    *out = __float2bfloat16_rn(v);
}

typedef struct expand_args {
    void *out;
    size_t out_stride;
    const uint8_t *data;
    size_t stride, n, cols;
    const int32_t *ids;
} expand_args;

// Rows of columns that are no multiple of four, or that do not lie at multiples of 16 bytes, are written one by one.
template <int T, class OUT> __global__ static void expand_kernel(expand_args a, size_t n_chunks, bool vectors)
{
    const size_t item = (size_t)blockIdx.x * 8 + threadIdx.x / 32, r = item / n_chunks, chunk = item % n_chunks;
    const int b = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    if (r >= a.n) return;
    float v[8];
    decode<T>(v, a.data + (a.ids ? (size_t)a.ids[r] : r) * a.stride, n_chunks, chunk, b, t);
    OUT *out = (OUT *)a.out + r * a.out_stride;
    for (int h = 0; h < 2; h++) {
        const size_t c = chunk * FM_CHUNK + 32 * b + 16 * h + 4 * t;
        if (c >= a.cols) continue;
        if (vectors)
            put4(out + c, v + 4 * h);
        else
            for (int i = 0; i < 4; i++) put1(out + c + i, v[4 * h + i]);
    }
}

template <int T> __device__ static float float_at(const uint8_t *row, size_t c)
{
    if (T == FM_F32) return ((const float *)row)[c];
    return T == FM_F16 ? __half2float(((const __half *)row)[c]) : __bfloat162float(((const __nv_bfloat16 *)row)[c]);
}

template <int T, class OUT> __global__ static void expand_float_kernel(expand_args a)
{
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / a.cols, c = i % a.cols;
    if (r >= a.n) return;
    put1((OUT *)a.out + r * a.out_stride + c, float_at<T>(a.data + (a.ids ? (size_t)a.ids[r] : r) * a.stride, c));
}

template <int T, class OUT> static void expand(fm_stream *s, const expand_args *a)
{
    if constexpr (fm_is_float(T))
        expand_float_kernel<T, OUT><<<fm_blocks(a->n * a->cols, 256), 256, 0, s->stream>>>(*a);
    else {
        const size_t n_chunks = (a->cols + FM_CHUNK - 1) / FM_CHUNK;
        const bool vectors = a->out_stride % 4 == 0 && (size_t)a->out % 16 == 0;
        expand_kernel<T, OUT><<<fm_blocks(a->n * n_chunks, 8), 256, 0, s->stream>>>(*a, n_chunks, vectors);
    }
    FM_LAUNCHED(s, "expand");
}

// ---- The list of types ----

template <int T> static size_t row_bytes(size_t cols)
{
    if constexpr (fm_is_float(T))
        return (cols * (T == FM_F32 ? 4 : 2) + 15) / 16 * 16;
    else
        return fm_planes<T>::row(cols / FM_CHUNK + (cols % FM_CHUNK != 0));
}

template <int T> static void store(fm_stream *s, void *out, const void *raw, size_t rows, size_t cols)
{
    const fm_dtype_traits *traits = fm_dtype_get((fm_dtype)T);
    const size_t blocks = cols / traits->block, each = row_bytes<T>(cols);
    uint8_t *o = (uint8_t *)out;
    const uint8_t *r = (const uint8_t *)raw;
    if constexpr (fm_is_float(T)) {
        const size_t items = rows * (each / 2);
        store_float_kernel<<<fm_blocks(items, 256), 256, 0, s->stream>>>(o, r, each, cols * traits->bytes, items);
    } else {
        const size_t chunks = (cols + FM_CHUNK - 1) / FM_CHUNK, items = rows * chunks;
        store_kernel<T><<<fm_blocks(items, 8), 256, 0, s->stream>>>(o, r, chunks, blocks, (unsigned)traits->bytes, items);
    }
    FM_LAUNCHED(s, "store");
}

struct type_entry {
    size_t (*row_bytes)(size_t cols);
    void (*store)(fm_stream *s, void *out, const void *raw, size_t rows, size_t cols);
    void (*expand[2])(fm_stream *s, const expand_args *a); // to bf16, to f32
};

#define X(name, gguf, ftype, block, bytes)                                                                                     \
    {row_bytes<FM_##name>, store<FM_##name>, {expand<FM_##name, __nv_bfloat16>, expand<FM_##name, float>}},
static const type_entry types[FM_DTYPE_COUNT] = {FM_DTYPE_LIST(X)};
#undef X

// Larger rows than any model's would overflow the bytes: no kernel for them.
size_t fm_cuda_row_bytes(fm_dtype type, size_t cols)
{
    return cols > SIZE_MAX / 64 || cols == 0 ? 0 : types[type].row_bytes(cols);
}

void fm_cuda_store(fm_stream *s, void *out, const void *raw, fm_dtype type, size_t rows, size_t cols)
{
    if (rows && cols) types[type].store(s, out, raw, rows, cols);
}

void fm_cuda_expand(fm_stream *s, void *out, const fm_tensor *W, bool f32)
{
    const expand_args a = {out, W->cols, (const uint8_t *)W->data, W->stride, W->rows, W->cols, NULL};
    if (a.n && a.cols) types[W->type].expand[f32](s, &a);
}

void fm_cuda_expand_rows(fm_stream *s, float *out, size_t out_stride, const fm_tensor *W, const int32_t *ids, size_t n)
{
    const expand_args a = {out, out_stride, (const uint8_t *)W->data, W->stride, n, W->cols, ids};
    if (a.n && a.cols) types[W->type].expand[1](s, &a);
}
