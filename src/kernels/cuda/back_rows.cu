// back_rows.cu - backward of what works on rows: norms, cross entropy, the embedding, and sums of rows and of parts.
#include "kernels/cuda/back.cuh"

// ---- Norm: with y = x rho and f = w g, g_x = rho (f - y mean(f y)) ----

enum { NORM_THREADS = 256 };

// x[i] of rows of f32, or of bf16 when half.
__device__ static inline float number(const float *x, size_t i, bool half)
{
    return half ? __bfloat162float(((const __nv_bfloat16 *)x)[i]) : x[i];
}

// THREADS threads a row.  Sums in double, as in the reference.
template <int THREADS> __global__ void __launch_bounds__(NORM_THREADS) norm_back(fm_rmsnorm_back_args a)
{
    __shared__ double room[2][NORM_THREADS / 32];
    const size_t row = (size_t)blockIdx.x * (NORM_THREADS / THREADS) + threadIdx.x / THREADS;
    const bool in = row < a.n; // all lanes of a warp take part in its sums
    const unsigned lane = threadIdx.x % THREADS;
    const float *x = a.x + row * a.x_stride;
    const size_t g_row = row * a.g_stride;
    double squares = 0.0, dot = 0.0;
    for (size_t i = lane; in && i < a.d; i += THREADS) {
        const float v = x[i], g = number(a.g, g_row + i, a.half), f = a.w ? a.w[i] * g : g;
        squares += (double)v * (double)v;
        dot += (double)f * (double)v;
    }
    squares = fm_group_sum<THREADS>(squares, room[0]);
    dot = fm_group_sum<THREADS>(dot, room[1]);
    if (!in) return;
    const float rho = (float)(1.0 / sqrt(squares / (double)a.d + (double)a.eps));
    const float mean = (float)(dot * (double)rho / (double)a.d);
    float *g_x = a.g_x + row * a.g_x_stride;
    for (size_t i = lane; i < a.d; i += THREADS) {
        const float g = number(a.g, g_row + i, a.half), v = rho * ((a.w ? a.w[i] * g : g) - x[i] * rho * mean);
        const float all = a.add ? g_x[i] + v : v;
        g_x[i] = all;
        if (a.rounded) ((__nv_bfloat16 *)a.rounded)[row * a.d + i] = __float2bfloat16_rn(all);
    }
    if (lane == 0) a.rho[row] = rho;
}

struct normed_rows {
    const float *g, *x, *rho;
    size_t g_stride, x_stride;
    bool half;
    __device__ float operator()(size_t r, size_t c) const
    {
        return number(g, r * g_stride + c, half) * (x[r * x_stride + c] * rho[r]);
    }
};

template <int THREADS> static void launch_norm_back(fm_stream *s, const fm_rmsnorm_back_args *a)
{
    norm_back<THREADS><<<fm_blocks(a->n, NORM_THREADS / THREADS), NORM_THREADS, 0, s->stream>>>(*a);
    FM_LAUNCHED(s, "rmsnorm_back");
}

static void rmsnorm_gw(const fm_run *run, float *g_w, const fm_rmsnorm_back_args *a)
{
    fm_add_columns(run->stream, g_w, normed_rows{a->g, a->x, a->rho, a->g_stride, a->x_stride, a->half}, a->n, a->d,
                   "rmsnorm_gw");
}

static void norm_back_any(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    fm_stream *s = run->stream;
    if (a->d <= 16)
        launch_norm_back<16>(s, a);
    else if (a->d <= 1024)
        launch_norm_back<32>(s, a);
    else
        launch_norm_back<NORM_THREADS>(s, a);
    if (a->g_w) rmsnorm_gw(run, a->g_w, a);
}

// ---- The same for rows that threads hold in registers, with g_w on the way: every number is read once ----

// Four values of each of KEPT vectors of a row; thread t of THREADS has vectors t, t + THREADS, ...
template <int KEPT> struct held {
    float4 v[KEPT];
};

__device__ static inline float4 load_four(const float *x, size_t i, bool half)
{
    if (!half) return *(const float4 *)(x + i);
    const uint2 bits = *(const uint2 *)((const __nv_bfloat16 *)x + i);
    const float2 a = __bfloat1622float2(*(const __nv_bfloat162 *)&bits.x),
                 b = __bfloat1622float2(*(const __nv_bfloat162 *)&bits.y);
    return make_float4(a.x, a.y, b.x, b.y);
}

__device__ static inline uint2 round_four(float4 v)
{
    const __nv_bfloat162 a = __floats2bfloat162_rn(v.x, v.y), b = __floats2bfloat162_rn(v.z, v.w);
    return make_uint2(*(const unsigned *)&a, *(const unsigned *)&b);
}

__device__ static inline float dot_four(float4 a, float4 b)
{
    return (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
}

// Four products are summed in f32, their sums in double.
template <int THREADS, int KEPT>
__device__ static void norm_back_row(const fm_rmsnorm_back_args &a, const held<KEPT> &w, held<KEPT> &g_w, size_t row,
                                     double *room)
{
    const unsigned lane = threadIdx.x % THREADS;
    const float *x_row = a.x + row * a.x_stride,
                *g_row = a.half ? (const float *)((const __nv_bfloat16 *)a.g + row * a.g_stride) : a.g + row * a.g_stride;
    float *g_x_row = a.g_x + row * a.g_x_stride;
    held<KEPT> x, g, old;
    double squares = 0.0, dot = 0.0;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const size_t i = 4 * (lane + (size_t)k * THREADS);
        x.v[k] = g.v[k] = old.v[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i >= a.d) continue;
        x.v[k] = load_four(x_row, i, false);
        g.v[k] = load_four(g_row, i, a.half);
        if (a.add) old.v[k] = load_four(g_x_row, i, false);
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const float4 f = make_float4(w.v[k].x * g.v[k].x, w.v[k].y * g.v[k].y, w.v[k].z * g.v[k].z, w.v[k].w * g.v[k].w);
        squares += (double)dot_four(x.v[k], x.v[k]);
        dot += (double)dot_four(f, x.v[k]);
    }
    squares = fm_group_sum<THREADS>(squares, room);
    dot = fm_group_sum<THREADS>(dot, room + NORM_THREADS / 32);
    const float rho = (float)(1.0 / sqrt(squares / (double)a.d + (double)a.eps));
    const float mean = (float)(dot * (double)rho / (double)a.d);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const size_t i = 4 * (lane + (size_t)k * THREADS);
        if (i >= a.d) continue;
        const float4 y = make_float4(x.v[k].x * rho, x.v[k].y * rho, x.v[k].z * rho, x.v[k].w * rho), u = g.v[k], o = old.v[k];
        g_w.v[k].x += u.x * y.x, g_w.v[k].y += u.y * y.y, g_w.v[k].z += u.z * y.z, g_w.v[k].w += u.w * y.w;
        const float4 v = make_float4(o.x + rho * (w.v[k].x * u.x - y.x * mean), o.y + rho * (w.v[k].y * u.y - y.y * mean),
                                     o.z + rho * (w.v[k].z * u.z - y.z * mean), o.w + rho * (w.v[k].w * u.w - y.w * mean));
        *(float4 *)(g_x_row + i) = v;
        if (a.rounded) *(uint2 *)((__nv_bfloat16 *)a.rounded + row * a.d + i) = round_four(v);
    }
    if (lane == 0) a.rho[row] = rho;
}

// A block takes `per` rows, each group of THREADS every so-manyth of them; the groups' g_w are added in their order.  part: (parts, d).
template <int THREADS, int KEPT>
__global__ void __launch_bounds__(NORM_THREADS, 2) norm_back_held(fm_rmsnorm_back_args a, float *part, size_t per)
{
    enum { GROUPS = NORM_THREADS / THREADS, WIDTH = THREADS * KEPT };
    __shared__ double room[2 * NORM_THREADS / 32];
    __shared__ float4 sums[GROUPS > 1 ? GROUPS * WIDTH : 1];
    const unsigned lane = threadIdx.x % THREADS, group = threadIdx.x / THREADS;
    const size_t first = blockIdx.x * per, last = first + per < a.n ? first + per : a.n;
    held<KEPT> w, g_w;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const size_t i = 4 * (lane + (size_t)k * THREADS);
        w.v[k] = a.w && i < a.d ? *(const float4 *)(a.w + i) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        g_w.v[k] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    for (size_t row = first + group; row < last; row += GROUPS) norm_back_row<THREADS, KEPT>(a, w, g_w, row, room);
    if (!part) return;
    if (GROUPS > 1) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) sums[group * WIDTH + lane + k * THREADS] = g_w.v[k];
        __syncthreads();
    }
#pragma unroll
    for (int k = 0; k < (WIDTH + NORM_THREADS - 1) / NORM_THREADS; k++) {
        const unsigned v = threadIdx.x + k * NORM_THREADS;
        if (v >= WIDTH || 4 * v >= a.d) break;
        float4 sum = GROUPS > 1 ? sums[v] : g_w.v[k];
        for (int i = 1; i < GROUPS; i++) {
            const float4 more = sums[i * WIDTH + v];
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
        }
        *(float4 *)(part + blockIdx.x * a.d + 4 * v) = sum;
    }
}

template <int THREADS, int KEPT> static void launch_held(fm_stream *s, const fm_rmsnorm_back_args *a)
{
    const size_t per = fm_part_rows(a->n, 1), parts = (a->n + per - 1) / per;
    float *part = a->g_w ? (float *)s->work : NULL;
    norm_back_held<THREADS, KEPT><<<(unsigned)parts, NORM_THREADS, 0, s->stream>>>(*a, part, per);
    FM_LAUNCHED(s, "rmsnorm_back");
    if (part) fm_add_parts(s, a->g_w, part, parts, a->d, a->d, "rmsnorm_back");
}

// Whether rows are whole vectors of four that a block can hold.
static bool can_hold(const fm_rmsnorm_back_args *a)
{
    const uintptr_t at = (uintptr_t)a->g_x | (uintptr_t)a->x | (uintptr_t)a->w | (uintptr_t)a->g | (uintptr_t)a->rounded;
    const size_t strides = a->g_x_stride | a->x_stride | a->g_stride | a->d;
    return at % sizeof(float4) == 0 && strides % 4 == 0 && a->d >= 64 && a->d <= 4096;
}

static void rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    fm_stream *s = run->stream;
    if (a->n == 0) return;
    if (can_hold(a) && a->d <= 256)
        launch_held<32, 2>(s, a);
    else if (can_hold(a) && a->d <= 768)
        launch_held<32, 6>(s, a);
    else if (can_hold(a) && a->d <= 2048)
        launch_held<NORM_THREADS, 2>(s, a);
    else if (can_hold(a))
        launch_held<NORM_THREADS, 4>(s, a);
    else
        norm_back_any(run, a);
}

static void sum_rows(const fm_run *run, float *g_b, const float *g, size_t g_stride, size_t n, size_t d)
{
    fm_add_columns(run->stream, g_b, fm_plain_rows{g, g_stride}, n, d, "sum_rows");
}

// ---- Parts ----

enum { FLAT = 256 }; // threads of a block that works on elements

__global__ void __launch_bounds__(FLAT)
    add_parts(float *out, size_t out_stride, const float *parts, size_t n_parts, size_t n, size_t d)
{
    const size_t i = (size_t)blockIdx.x * FLAT + threadIdx.x, size = n * d;
    if (i >= size) return;
    float sum = parts[i];
#pragma unroll 8
    for (size_t p = 1; p < n_parts; p++) sum += parts[p * size + i];
    out[i / d * out_stride + i % d] = sum;
}

static void sum_parts(const fm_run *run, float *out, size_t out_stride, const float *parts, size_t n_parts, size_t n, size_t d)
{
    if (n == 0 || d == 0) return;
    add_parts<<<fm_blocks(n * d, FLAT), FLAT, 0, run->stream->stream>>>(out, out_stride, parts, n_parts, n, d);
    FM_LAUNCHED(run->stream, "sum_parts");
}

// ---- Cross entropy: d(lse) = p, d(z lse^2) = 2 z lse p ----

// Exponentials are 2^-22 and |x - max| 2^-23 off, relatively: nothing where the gradient is large.
//
// max and sum of exp(x - max) of some values.  Nothing seen: (-inf, 0).
struct lse {
    float max, sum;
};

// A maximum of -inf takes nothing off: all its terms are 0.
__device__ static lse join(lse a, lse b)
{
    const float max = fmaxf(a.max, b.max), from = max == -INFINITY ? 0.0f : max;
    return lse{max, a.sum * __expf(a.max - from) + b.sum * __expf(b.max - from)};
}

template <int THREADS> __device__ static lse block_join(lse v)
{
    __shared__ lse room[THREADS / 32];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1)
        v = join(v, lse{__shfl_xor_sync(0xffffffffu, v.max, i), __shfl_xor_sync(0xffffffffu, v.sum, i)});
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    v = room[0];
    for (int i = 1; i < THREADS / 32; i++) v = join(v, room[i]);
    __syncthreads(); // before the next one
    return v;
}

// V is float or float4; a row is `count` of them.
template <class V> __device__ static inline float &item(V &v, int i)
{
    return ((float *)&v)[i];
}

enum {
    XENT_TILE = 4,
    XENT_KEPT = 216 << 10
}; // values of a thread between two barriers; bytes of a row that shared memory holds

template <class V> __device__ static inline V gradient(V v, size_t i, int32_t target, float lse, float scale, float at_target)
{
    enum { WIDTH = sizeof(V) / sizeof(float) };
    for (int j = 0; j < WIDTH; j++) {
        item(v, j) = scale * __expf(item(v, j) - lse);
        if ((int32_t)(i * WIDTH + j) == target) item(v, j) -= at_target;
    }
    return v;
}

template <class V> __device__ static inline float largest(V v, float max)
{
    for (int j = 0; j < (int)(sizeof(V) / sizeof(float)); j++) max = fmaxf(max, item(v, j));
    return max;
}

template <class V> __device__ static inline float sum_above(V v, float max)
{
    float sum = 0.0f;
    for (int j = 0; j < (int)(sizeof(V) / sizeof(float)); j++) sum += __expf(item(v, j) - max);
    return sum;
}

// Calls use(i, x[i]) for what a thread has of a row, a tile of it read before the first is used.
template <int THREADS, class V, class F> __device__ static inline void for_tiles(const V *x, unsigned count, F use)
{
    for (unsigned first = threadIdx.x; first < count; first += XENT_TILE * THREADS) {
        V v[XENT_TILE];
#pragma unroll
        for (int k = 0; k < XENT_TILE; k++)
            if (first + k * THREADS < count) v[k] = x[first + k * THREADS];
#pragma unroll
        for (int k = 0; k < XENT_TILE; k++)
            if (first + k * THREADS < count) use(first + k * THREADS, v[k]);
    }
}

// What a thread sees of a row that it copies to shared memory: its sum comes when all are there, so that nothing holds up the reading.
template <int THREADS, class V> __device__ static lse see_and_keep(V *row, const V *x, unsigned count)
{
    lse seen = {-INFINITY, 0.0f};
    for_tiles<THREADS>(x, count, [&](unsigned i, V v) {
        row[i] = v;
        seen.max = largest(v, seen.max);
    });
    const float from = seen.max == -INFINITY ? 0.0f : seen.max;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += THREADS) seen.sum += sum_above(row[i], from);
    return seen;
}

// The same of a row that stays where it is.
template <int THREADS, class V> __device__ static lse see(const V *x, unsigned count)
{
    lse seen = {-INFINITY, 0.0f};
    for_tiles<THREADS>(x, count, [&](unsigned, V v) {
        const float max = largest(v, seen.max), from = max == -INFINITY ? 0.0f : max;
        seen = lse{max, seen.sum * __expf(seen.max - from) + sum_above(v, from)};
    });
    return seen;
}

// A block a row, whose second reading finds it in `row`: shared memory where that is large enough, else the caches.
template <int THREADS, class V> __global__ void __launch_bounds__(THREADS, 1) xent_rows(fm_xent_args a, bool keep)
{
    enum { WIDTH = sizeof(V) / sizeof(float) };
    extern __shared__ float4 kept[];
    float *logits = a.logits + (size_t)blockIdx.x * a.vocab;
    V *x = (V *)logits, *row = keep ? (V *)kept : x;
    const unsigned count = (unsigned)(a.vocab / WIDTH);
    const int32_t target = a.target[blockIdx.x];
    if (target < 0) {
        for (unsigned i = threadIdx.x; i < count; i += THREADS) x[i] = V{};
        if (threadIdx.x == 0) a.loss[blockIdx.x] = 0.0f;
        return;
    }
    const lse seen = block_join<THREADS>(keep ? see_and_keep<THREADS>(row, x, count) : see<THREADS>(x, count));
    const float all = seen.max + logf(seen.sum), at = logits[target];
    const float scale = a.scale * (1.0f + 2.0f * a.z * all);
    __syncthreads(); // everybody has read the target's logit
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += THREADS) x[i] = gradient(row[i], i, target, all, scale, a.scale);
    if (threadIdx.x == 0) a.loss[blockIdx.x] = all - at + a.z * all * all;
}

template <int THREADS, class V> static void launch_xent(fm_stream *s, const fm_xent_args *a)
{
    const size_t bytes = a->vocab * sizeof(float);
    const bool keep = bytes <= XENT_KEPT;
    if (keep) fm_cuda_allow_shared<xent_rows<THREADS, V>>(s, XENT_KEPT);
    xent_rows<THREADS, V><<<(unsigned)a->n, THREADS, keep ? bytes : 0, s->stream>>>(*a, keep);
    FM_LAUNCHED(s, "xent");
}

// ---- The same of rows of bf16, whose gradient takes their place: a thread meets nothing but its own numbers, eight at a time ----

enum { HALVES_THREADS = 512, EIGHT = 8 };

struct eight {
    float v[EIGHT];
};

__device__ static inline eight widened(uint4 bits)
{
    const unsigned pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    eight e;
#pragma unroll
    for (int j = 0; j < 4; j++)
        e.v[2 * j] = __uint_as_float(pairs[j] << 16), e.v[2 * j + 1] = __uint_as_float(pairs[j] & 0xffff0000u);
    return e;
}

__device__ static inline uint4 rounded(const eight &e)
{
    const uint2 a = round_four(make_float4(e.v[0], e.v[1], e.v[2], e.v[3])),
                b = round_four(make_float4(e.v[4], e.v[5], e.v[6], e.v[7]));
    return make_uint4(a.x, a.y, b.x, b.y);
}

// What a thread sees of a row, which it leaves in `row` where that is elsewhere.
__device__ static lse see_halves(uint4 *row, const uint4 *x, unsigned count)
{
    lse seen = {-INFINITY, 0.0f};
    for (unsigned first = threadIdx.x; first < count; first += XENT_TILE * HALVES_THREADS) {
        uint4 v[XENT_TILE];
#pragma unroll
        for (int k = 0; k < XENT_TILE; k++)
            if (first + k * HALVES_THREADS < count) v[k] = x[first + k * HALVES_THREADS];
#pragma unroll
        for (int k = 0; k < XENT_TILE; k++) {
            if (first + k * HALVES_THREADS >= count) continue;
            const eight e = widened(v[k]);
            if (row != x) row[first + k * HALVES_THREADS] = v[k];
#pragma unroll
            for (int j = 0; j < EIGHT; j++) seen.max = fmaxf(seen.max, e.v[j]);
        }
    }
    const float from = seen.max == -INFINITY ? 0.0f : seen.max;
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += HALVES_THREADS) {
        const eight e = widened(row[i]);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) seen.sum += __expf(e.v[j] - from);
    }
    return seen;
}

__global__ void __launch_bounds__(HALVES_THREADS, 2) xent_halves(fm_xent_args a, bool keep)
{
    extern __shared__ uint4 kept_halves[];
    __nv_bfloat16 *logits = (__nv_bfloat16 *)a.logits + (size_t)blockIdx.x * a.vocab;
    uint4 *x = (uint4 *)logits, *row = keep ? kept_halves : x;
    const unsigned count = (unsigned)(a.vocab / EIGHT);
    const int32_t target = a.target[blockIdx.x];
    if (target < 0) {
        for (unsigned i = threadIdx.x; i < count; i += HALVES_THREADS) x[i] = make_uint4(0, 0, 0, 0);
        if (threadIdx.x == 0) a.loss[blockIdx.x] = 0.0f;
        return;
    }
    const float at = __bfloat162float(logits[target]); // before the others write: they meet for their sums
    const lse seen = block_join<HALVES_THREADS>(see_halves(row, x, count));
    const float all = seen.max + logf(seen.sum), scale = a.scale * (1.0f + 2.0f * a.z * all);
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += HALVES_THREADS) {
        eight e = widened(row[i]);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            e.v[j] = scale * __expf(e.v[j] - all);
            if ((int32_t)(i * EIGHT + j) == target) e.v[j] -= a.scale;
        }
        x[i] = rounded(e);
    }
    if (threadIdx.x == 0) a.loss[blockIdx.x] = all - at + a.z * all * all;
}

static void launch_halves(fm_stream *s, const fm_xent_args *a)
{
    const size_t bytes = a->vocab * sizeof(__nv_bfloat16);
    const bool keep = bytes <= XENT_KEPT;
    if (keep) fm_cuda_allow_shared<xent_halves>(s, XENT_KEPT);
    xent_halves<<<(unsigned)a->n, HALVES_THREADS, keep ? bytes : 0, s->stream>>>(*a, keep);
    FM_LAUNCHED(s, "xent");
}

static void xent(const fm_run *run, const fm_xent_args *a)
{
    fm_stream *s = run->stream;
    const bool wide = a->vocab % 4 == 0 && (uintptr_t)a->logits % sizeof(float4) == 0;
    if (a->n == 0) return;
    if (a->half && (a->vocab % EIGHT || (uintptr_t)a->logits % sizeof(uint4)))
        fm_cuda_note(s, cudaErrorInvalidValue, "xent: logits in bf16 want a vocabulary that is a multiple of eight");
    else if (a->half)
        launch_halves(s, a);
    else if (wide && a->vocab <= 8192)
        launch_xent<256, float4>(s, a);
    else if (wide)
        launch_xent<1024, float4>(s, a);
    else if (a->vocab <= 8192)
        launch_xent<256, float>(s, a);
    else
        launch_xent<1024, float>(s, a);
}

// ---- Embedding: each block owns the ids of one remainder and some columns, and adds rows in the order of the tokens ----

enum {
    EMBED_AHEAD = 32 /* rows asked for together */,
    EMBED_BLOCKS = 512,
    EMBED_THREADS = 256,
    EMBED_EACH = 16,
    EMBED_TILE = EMBED_THREADS * EMBED_EACH
};

struct embed_room {
    int32_t id[EMBED_TILE];     // of this block, in the order of tokens; -1: done
    uint16_t token[EMBED_TILE]; // within the tile
    uint16_t same[EMBED_TILE];  // tokens of the id at hand
    unsigned count[EMBED_THREADS / 32];
    unsigned n_same;
};

// Collects this block's tokens of a tile, in their order; gives how many.
__device__ static unsigned embed_collect(embed_room &m, const int32_t *ids, unsigned n)
{
    int32_t id[EMBED_EACH];
    unsigned mine = 0, at = threadIdx.x * EMBED_EACH;
#pragma unroll
    for (int i = 0; i < EMBED_EACH; i++) {
        id[i] = at + i < n ? ids[at + i] : -1;
        if (id[i] >= 0 && id[i] % EMBED_BLOCKS != blockIdx.x) id[i] = -1;
        mine += id[i] >= 0;
    }
    unsigned before = mine; // inclusive over the warp
    for (int i = 1; i < 32; i <<= 1) {
        const unsigned v = __shfl_up_sync(0xffffffffu, before, i);
        if (threadIdx.x % 32 >= i) before += v;
    }
    __syncthreads(); // the tile before is done
    if (threadIdx.x % 32 == 31) m.count[threadIdx.x / 32] = before;
    __syncthreads();
    unsigned total = 0, place = before - mine;
    for (unsigned i = 0; i < EMBED_THREADS / 32; i++) {
        if (i < threadIdx.x / 32) place += m.count[i];
        total += m.count[i];
    }
#pragma unroll
    for (int i = 0; i < EMBED_EACH; i++) {
        if (id[i] < 0) continue;
        m.id[place] = id[i];
        m.token[place++] = (uint16_t)(at + i);
    }
    __syncthreads();
    return total;
}

// The first warp takes the tokens of an id off the list.
__device__ static void embed_take(embed_room &m, unsigned from, unsigned total)
{
    if (threadIdx.x < 32) {
        const int32_t id = m.id[from];
        unsigned n = 0;
        __syncwarp();
        for (unsigned i = from; i < total; i += 32) {
            const bool hit = i + threadIdx.x < total && m.id[i + threadIdx.x] == id;
            const unsigned all = __ballot_sync(0xffffffffu, hit);
            if (hit) {
                m.same[n + __popc(all & ((1u << threadIdx.x) - 1))] = m.token[i + threadIdx.x];
                m.id[i + threadIdx.x] = -1;
            }
            n += __popc(all);
        }
        if (threadIdx.x == 0) m.n_same = n;
    }
    __syncthreads();
}

__global__ void __launch_bounds__(EMBED_THREADS)
    embed_rows(float *g_E, const float *g, size_t g_stride, const int32_t *ids, size_t n, size_t d)
{
    __shared__ embed_room m;
    const size_t c = (size_t)blockIdx.y * EMBED_THREADS + threadIdx.x;
    for (size_t tile = 0; tile < n; tile += EMBED_TILE) {
        const unsigned total = embed_collect(m, ids + tile, (unsigned)(n - tile < EMBED_TILE ? n - tile : (size_t)EMBED_TILE));
        for (unsigned i = 0; i < total; i++) {
            const int32_t id = m.id[i]; // the same for all: marked only between barriers
            if (id < 0) continue;
            __syncthreads();
            embed_take(m, i, total);
            if (c < d) {
                float *to = g_E + (size_t)id * d + c, sum = *to;
                const float *from = g + tile * g_stride + c;
                for (unsigned j = 0; j < m.n_same; j += EMBED_AHEAD) {
                    float v[EMBED_AHEAD];
#pragma unroll
                    for (unsigned k = 0; k < EMBED_AHEAD; k++) v[k] = j + k < m.n_same ? from[m.same[j + k] * g_stride] : 0.0f;
#pragma unroll
                    for (unsigned k = 0; k < EMBED_AHEAD; k++)
                        if (j + k < m.n_same) sum += v[k];
                }
                *to = sum;
            }
            __syncthreads();
        }
    }
}

static void embed_back(const fm_run *run, float *g_E, const float *g, size_t g_stride, const int32_t *ids, size_t n, size_t d)
{
    if (n == 0 || d == 0) return;
    embed_rows<<<dim3(EMBED_BLOCKS, fm_blocks(d, EMBED_THREADS)), EMBED_THREADS, 0, run->stream->stream>>>(g_E, g, g_stride,
                                                                                                           ids, n, d);
    FM_LAUNCHED(run->stream, "embed_back");
}

// ---- Transposed copies, decays ----

enum { TILE = 32, TILE_ROWS = 8 };

__device__ static inline float as_float(float v)
{
    return v;
}
__device__ static inline float as_float(__half v)
{
    return __half2float(v);
}
__device__ static inline float as_float(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}

template <class T>
__global__ void __launch_bounds__(TILE *TILE_ROWS)
    transpose_tiles(float *out, size_t out_stride, const char *W, size_t stride, size_t rows, size_t cols)
{
    __shared__ float tile[TILE][TILE + 1];
    const size_t c0 = (size_t)blockIdx.x * TILE, r0 = (size_t)blockIdx.y * TILE;
    for (size_t i = threadIdx.y; i < TILE && r0 + i < rows; i += TILE_ROWS)
        if (c0 + threadIdx.x < cols) tile[i][threadIdx.x] = as_float(((const T *)(W + (r0 + i) * stride))[c0 + threadIdx.x]);
    __syncthreads();
    for (size_t j = threadIdx.y; j < TILE && c0 + j < cols; j += TILE_ROWS)
        if (r0 + threadIdx.x < rows) out[(c0 + j) * out_stride + r0 + threadIdx.x] = tile[threadIdx.x][j];
}

static void transpose(const fm_run *run, float *out, size_t out_stride, const fm_tensor *W)
{
    fm_stream *s = run->stream;
    if (W->rows == 0 || W->cols == 0) return;
    const dim3 blocks(fm_blocks(W->cols, TILE), fm_blocks(W->rows, TILE)), threads(TILE, TILE_ROWS);
    const char *data = (const char *)W->data;
    if (W->type == FM_F32)
        transpose_tiles<float><<<blocks, threads, 0, s->stream>>>(out, out_stride, data, W->stride, W->rows, W->cols);
    else if (W->type == FM_F16)
        transpose_tiles<__half><<<blocks, threads, 0, s->stream>>>(out, out_stride, data, W->stride, W->rows, W->cols);
    else if (W->type == FM_BF16)
        transpose_tiles<__nv_bfloat16><<<blocks, threads, 0, s->stream>>>(out, out_stride, data, W->stride, W->rows, W->cols);
    else
        fm_cuda_note(s, cudaErrorNotSupported, "transpose: floats only");
    FM_LAUNCHED(s, "transpose");
}

__global__ void __launch_bounds__(FLAT) scale_decays(float *g, const float *A, size_t n)
{
    const size_t i = (size_t)blockIdx.x * FLAT + threadIdx.x;
    if (i < n) g[i] *= A[i];
}

static void decays_back(const fm_run *run, float *g, const float *A, size_t n)
{
    if (n == 0) return;
    scale_decays<<<fm_blocks(n, FLAT), FLAT, 0, run->stream->stream>>>(g, A, n);
    FM_LAUNCHED(run->stream, "decays_back");
}

extern "C" void fm_cuda_fill_back_rows(fm_kernels *k)
{
    k->rmsnorm_back = rmsnorm_back;
    k->rmsnorm_gw = rmsnorm_gw;
    k->sum_rows = sum_rows;
    k->sum_parts = sum_parts;
    k->xent = xent;
    k->embed_back = embed_back;
    k->transpose = transpose;
    k->decays_back = decays_back;
}
