// optim.cu - the optimiser's step, the norm of gradients and dropout (ref/optim.c), all at the speed of memory.
#include "kernels/cuda/back.cuh"

enum { FLAT = 256 };

// ---- AdamW ----

__device__ static inline void adamw_one(const fm_adamw_args &a, float &w, float &m, float &v, float g)
{
    g *= a.clip;
    m = a.beta1 * m + (1.0f - a.beta1) * g;
    v = a.beta2 * v + (1.0f - a.beta2) * g * g;
    w -= a.lr * (a.decay * w + a.c1 * m / (sqrtf(a.c2 * v) + a.eps));
}

__global__ void __launch_bounds__(FLAT) adamw_floats(fm_adamw_args a, size_t first)
{
    const size_t i = first + (size_t)blockIdx.x * FLAT + threadIdx.x;
    if (i < a.n) adamw_one(a, a.w[i], a.m[i], a.v[i], a.g[i]);
}

// Four elements a thread.
__global__ void __launch_bounds__(FLAT) adamw_quads(fm_adamw_args a)
{
    const size_t i = (size_t)blockIdx.x * FLAT + threadIdx.x;
    if (i >= a.n / 4) return;
    float4 w = ((float4 *)a.w)[i], m = ((float4 *)a.m)[i], v = ((float4 *)a.v)[i];
    const float4 g = ((const float4 *)a.g)[i];
    adamw_one(a, w.x, m.x, v.x, g.x);
    adamw_one(a, w.y, m.y, v.y, g.y);
    adamw_one(a, w.z, m.z, v.z, g.z);
    adamw_one(a, w.w, m.w, v.w, g.w);
    ((float4 *)a.w)[i] = w;
    ((float4 *)a.m)[i] = m;
    ((float4 *)a.v)[i] = v;
}

static bool quads_fit(const void *a, const void *b, const void *c, const void *d)
{
    return (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) % sizeof(float4)) == 0;
}

static void adamw(const fm_run *run, const fm_adamw_args *a)
{
    fm_stream *s = run->stream;
    const size_t quads = quads_fit(a->w, a->m, a->v, a->g) ? a->n / 4 : 0;
    if (quads) adamw_quads<<<fm_blocks(quads, FLAT), FLAT, 0, s->stream>>>(*a);
    if (4 * quads < a->n) adamw_floats<<<fm_blocks(a->n - 4 * quads, FLAT), FLAT, 0, s->stream>>>(*a, 4 * quads);
    FM_LAUNCHED(s, "adamw");
}

// ---- Squares: a block a sum ----

// Thread t takes floats t, t + FLAT, ... of its block's; then warps in a tree, and the warps in their order.
__global__ void __launch_bounds__(FLAT) squares_of(double *sums, const float *x, size_t n)
{
    __shared__ double room[FLAT / 32];
    const size_t first = (size_t)blockIdx.x * FM_SQUARES;
    double sum = 0.0;
#pragma unroll
    for (int i = 0; i < FM_SQUARES / FLAT; i++) {
        const size_t at = first + i * FLAT + threadIdx.x;
        const double v = at < n ? (double)x[at] : 0.0;
        sum += v * v;
    }
    sum = fm_group_sum<FLAT>(sum, room);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

static void squares(const fm_run *run, double *sums, const float *x, size_t n)
{
    if (n == 0) return;
    squares_of<<<fm_blocks(n, FM_SQUARES), FLAT, 0, run->stream->stream>>>(sums, x, n);
    FM_LAUNCHED(run->stream, "squares");
}

// ---- Dropout: fm_rng_words of base/rng.c, word for word ----

__device__ static uint4 rng_words(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
    for (int i = 0; i < 10; i++) {
        const uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

// A thread takes the values of one counter.  Products and sums are rounded apart, as on the CPU.
__global__ void __launch_bounds__(FLAT) drop(fm_dropout_args a, uint32_t below, float scale)
{
    const size_t per_row = (a.d + 3) / 4, i = (size_t)blockIdx.x * FLAT + threadIdx.x, r = i / per_row, q = i % per_row;
    if (r >= a.n) return;
    const uint4 words = rng_words(a.seed, a.stream, (a.first_row + r) * per_row + q);
    const uint32_t w[4] = {words.x, words.y, words.z, words.w};
    const float *x = a.x + r * a.x_stride + 4 * q;
    float *out = a.out + r * a.out_stride + 4 * q;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (4 * q + j >= a.d) return;
        const float v = w[j] >= below ? __fmul_rn(x[j], scale) : 0.0f;
        out[j] = a.add ? __fadd_rn(out[j], v) : v;
    }
}

static void dropout(const fm_run *run, const fm_dropout_args *a)
{
    const size_t counters = a->n * ((a->d + 3) / 4);
    if (counters == 0) return;
    const uint32_t below = (uint32_t)((double)a->p * 4294967296.0);
    drop<<<fm_blocks(counters, FLAT), FLAT, 0, run->stream->stream>>>(*a, below, 1.0f / (1.0f - a->p));
    FM_LAUNCHED(run->stream, "dropout");
}

// ---- Masters as bf16 (ref/optim.c): a thread takes a draw's eight ----

__device__ static inline uint32_t narrow_one(float v, bool by_chance, uint32_t chance)
{
    const uint32_t up = (__float_as_uint(v) + (chance & 0xffffu)) >> 16;
    const uint32_t near = __bfloat16_as_ushort(__float2bfloat16_rn(v));
    return !by_chance || (up & 0x7f80u) == 0x7f80u ? near : up & 0xffffu;
}

__global__ void __launch_bounds__(FLAT) narrow_draws(fm_narrow_args a, bool aligned)
{
    const size_t draw = (size_t)blockIdx.x * FLAT + threadIdx.x, first = draw * FM_NARROW_DRAW;
    if (first >= a.n) return;
    const uint4 words = a.by_chance ? rng_words(a.seed, a.stream, draw) : make_uint4(0, 0, 0, 0);
    const uint32_t w[4] = {words.x, words.y, words.z, words.w};
    const bool whole = aligned && first + FM_NARROW_DRAW <= a.n;
    alignas(16) float v[FM_NARROW_DRAW] = {};
    uint32_t pairs[FM_NARROW_DRAW / 2];
    if (whole) {
        ((float4 *)v)[0] = *(const float4 *)(a.w + first);
        ((float4 *)v)[1] = *(const float4 *)(a.w + first + 4);
    } else {
#pragma unroll
        for (int j = 0; j < FM_NARROW_DRAW; j++)
            if (first + j < a.n) v[j] = a.w[first + j];
    }
#pragma unroll
    for (int j = 0; j < FM_NARROW_DRAW / 2; j++)
        pairs[j] = narrow_one(v[2 * j], a.by_chance, w[j]) | narrow_one(v[2 * j + 1], a.by_chance, w[j] >> 16) << 16;
    if (whole) {
        *(uint4 *)(a.out + first) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        return;
    }
#pragma unroll
    for (int j = 0; j < FM_NARROW_DRAW; j++)
        if (first + j < a.n) a.out[first + j] = (uint16_t)(pairs[j / 2] >> (j % 2 ? 16 : 0));
}

static void narrow(const fm_run *run, const fm_narrow_args *a)
{
    const size_t draws = (a->n + FM_NARROW_DRAW - 1) / FM_NARROW_DRAW;
    if (draws == 0) return;
    narrow_draws<<<fm_blocks(draws, FLAT), FLAT, 0, run->stream->stream>>>(*a, ((uintptr_t)a->w | (uintptr_t)a->out) % 16 == 0);
    FM_LAUNCHED(run->stream, "narrow");
}

extern "C" void fm_cuda_fill_optim(fm_kernels *k)
{
    k->adamw = adamw;
    k->narrow = narrow;
    k->squares = squares;
    k->dropout = dropout;
}
