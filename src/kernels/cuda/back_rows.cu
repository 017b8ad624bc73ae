// back_rows.cu - backward of what works on rows: norms, cross entropy, the embedding, and sums of rows and of parts.
#include "kernels/cuda/back.cuh"

// ---- Norm: with y = x rho and f = w g, g_x = rho (f - y mean(f y)) ----

enum { NORM_THREADS = 256 };

// THREADS threads a row.  Sums in double, as in the reference.
template <int THREADS> __global__ void __launch_bounds__(NORM_THREADS) norm_back(fm_rmsnorm_back_args a)
{
    __shared__ double room[2][NORM_THREADS / 32];
    const size_t row = (size_t)blockIdx.x * (NORM_THREADS / THREADS) + threadIdx.x / THREADS;
    const bool in = row < a.n; // all lanes of a warp take part in its sums
    const unsigned lane = threadIdx.x % THREADS;
    const float *x = a.x + row * a.x_stride, *g = a.g + row * a.g_stride;
    double squares = 0.0, dot = 0.0;
    for (size_t i = lane; in && i < a.d; i += THREADS) {
        const float v = x[i], f = a.w ? a.w[i] * g[i] : g[i];
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
        const float v = rho * ((a.w ? a.w[i] * g[i] : g[i]) - x[i] * rho * mean);
        g_x[i] = a.add ? g_x[i] + v : v;
    }
    if (lane == 0) a.rho[row] = rho;
}

template <int THREADS> static void launch_norm_back(fm_stream *s, const fm_rmsnorm_back_args *a)
{
    norm_back<THREADS><<<fm_blocks(a->n, NORM_THREADS / THREADS), NORM_THREADS, 0, s->stream>>>(*a);
    FM_LAUNCHED(s, "rmsnorm_back");
}

static void rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    if (a->n == 0) return;
    if (a->d <= 16)
        launch_norm_back<16>(run->stream, a);
    else if (a->d <= 1024)
        launch_norm_back<32>(run->stream, a);
    else
        launch_norm_back<NORM_THREADS>(run->stream, a);
}

struct normed_rows {
    const float *g, *x, *rho;
    size_t g_stride, x_stride;
    __device__ float operator()(size_t r, size_t c) const { return g[r * g_stride + c] * (x[r * x_stride + c] * rho[r]); }
};

static void rmsnorm_gw(const fm_run *run, float *g_w, const fm_rmsnorm_back_args *a)
{
    fm_add_columns(run->stream, g_w, normed_rows{a->g, a->x, a->rho, a->g_stride, a->x_stride}, a->n, a->d, "rmsnorm_gw");
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

template <int THREADS> __device__ static float block_lse(lse v)
{
    __shared__ lse room[THREADS / 32];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1)
        v = join(v, lse{__shfl_xor_sync(0xffffffffu, v.max, i), __shfl_xor_sync(0xffffffffu, v.sum, i)});
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    v = room[0];
    for (int i = 1; i < THREADS / 32; i++) v = join(v, room[i]);
    return v.max + logf(v.sum);
}

// V is float or float4; a row is `count` of them.
template <class V> __device__ static inline float &item(V &v, int i)
{
    return ((float *)&v)[i];
}

// A block a row.  The second reading finds it in the caches: a row of 65,536 is 256 KiB and few blocks run at once.
template <int THREADS, class V> __global__ void __launch_bounds__(THREADS) xent_rows(fm_xent_args a)
{
    enum { WIDTH = sizeof(V) / sizeof(float) };
    float *logits = a.logits + (size_t)blockIdx.x * a.vocab;
    V *x = (V *)logits;
    const unsigned count = (unsigned)(a.vocab / WIDTH);
    const int32_t target = a.target[blockIdx.x];
    if (target < 0) {
        for (unsigned i = threadIdx.x; i < count; i += THREADS) x[i] = V{};
        if (threadIdx.x == 0) a.loss[blockIdx.x] = 0.0f;
        return;
    }
    lse seen = {-INFINITY, 0.0f};
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        V v = x[i];
        lse now = {item(v, 0), 0.0f};
        for (int j = 1; j < WIDTH; j++) now.max = fmaxf(now.max, item(v, j));
        now.max = fmaxf(now.max, seen.max);
        const float from = now.max == -INFINITY ? 0.0f : now.max;
        now.sum = seen.sum * __expf(seen.max - from);
        for (int j = 0; j < WIDTH; j++) now.sum += __expf(item(v, j) - from);
        seen = now;
    }
    const float all = block_lse<THREADS>(seen), at = logits[target];
    const float scale = a.scale * (1.0f + 2.0f * a.z * all);
    __syncthreads(); // everybody has read the target's logit
    for (unsigned i = threadIdx.x; i < count; i += THREADS) {
        V v = x[i];
        for (int j = 0; j < WIDTH; j++) {
            item(v, j) = scale * __expf(item(v, j) - all);
            if ((int32_t)(i * WIDTH + j) == target) item(v, j) -= a.scale;
        }
        x[i] = v;
    }
    if (threadIdx.x == 0) a.loss[blockIdx.x] = all - at + a.z * all * all;
}

template <class V> static void launch_xent(fm_stream *s, const fm_xent_args *a)
{
    if (a->vocab <= 8192)
        xent_rows<256, V><<<(unsigned)a->n, 256, 0, s->stream>>>(*a);
    else
        xent_rows<1024, V><<<(unsigned)a->n, 1024, 0, s->stream>>>(*a);
    FM_LAUNCHED(s, "xent");
}

static void xent(const fm_run *run, const fm_xent_args *a)
{
    if (a->n == 0) return;
    if (a->vocab % 4 == 0 && (uintptr_t)a->logits % sizeof(float4) == 0)
        launch_xent<float4>(run->stream, a);
    else
        launch_xent<float>(run->stream, a);
}

// ---- Embedding: each block owns the ids of one remainder and some columns, and adds rows in the order of the tokens ----

enum { EMBED_BLOCKS = 512, EMBED_THREADS = 256, EMBED_EACH = 16, EMBED_TILE = EMBED_THREADS * EMBED_EACH };

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
#pragma unroll 32
                for (unsigned j = 0; j < m.n_same; j++) sum += from[m.same[j] * g_stride];
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
