// norm.cu - rmsnorm: squares summed in double, as everywhere, so that every table's scale agrees to one ulp of float.
//
// Limited by memory: a row is read once, 16 bytes a thread, and kept in registers until it is scaled.
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"

namespace
{

enum { KEPT = 4 };              // vectors of a row that a thread keeps; of longer rows the rest is read again
enum { WARP_ROWS = 4 };         // short rows of a block, one a warp
enum { SHORT = FM_CUDA_SHORT }; // floats of a short row, which a warp keeps whole
enum { LONG_THREADS = 256 };    // of a block for one long row

struct norm {
    float *out;
    const float *x, *w;
    size_t out_stride, x_stride, n, d;
    float eps;
    __nv_bfloat16 *packed; // (n, d) without a gap, or NULL; out may be NULL then
};

__device__ double warp_sum(double v)
{
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) v += __shfl_xor_sync(0xffffffffu, v, i);
    return v;
}

// Over the block: warps first, then their sums in order.  Every thread gets it.
__device__ double block_sum(double v)
{
    __shared__ double sums[LONG_THREADS / 32];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    double all = 0.0;
#pragma unroll
    for (int i = 0; i < LONG_THREADS / 32; i++) all += sums[i];
    return all;
}

__device__ double squares(float4 v)
{
    const double x = (double)v.x, y = (double)v.y, z = (double)v.z, w = (double)v.w;
    return __fma_rn(x, x, __fma_rn(y, y, __fma_rn(z, z, __dmul_rn(w, w))));
}

// Four weights from column i on, of which `left` exist; ones where there are none.
__device__ float4 weights_at(const float *w, ptrdiff_t i, ptrdiff_t left)
{
    if (!w) return {1.0f, 1.0f, 1.0f, 1.0f};
    return fm_is_aligned(w) ? fm_load4<true>(w + i, left) : fm_load4<false>(w + i, left);
}

__device__ float4 scaled(float4 v, float scale, float4 w)
{
    return {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w};
}

// THREADS threads share a row: thread t takes vectors t, t + THREADS, ...  An order fixed by d, whatever the alignment.
template <bool ALIGNED> __device__ void put(const norm &a, size_t row, ptrdiff_t i, float4 v)
{
    if (a.packed) fm_store4_bf16(a.packed + row * a.d + i, v);
    if (a.out) fm_store4<ALIGNED>(a.out + row * a.out_stride + i, (ptrdiff_t)a.d - i, v);
}

// The weights of the vectors that a thread keeps: nobody writes them just before, so they come while the row is waited for.
template <int THREADS> struct kept_weights {
    float4 w[KEPT];

    __device__ kept_weights(const norm &a, unsigned t)
    {
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            const ptrdiff_t i = 4 * (ptrdiff_t)(t + j * THREADS);
            w[j] = weights_at(a.w, i, (ptrdiff_t)a.d - i);
        }
    }
};

template <int THREADS, bool ALIGNED>
__device__ void norm_row(const norm &a, const kept_weights<THREADS> &kept, size_t row, unsigned t)
{
    const float *x = a.x + row * a.x_stride;
    const ptrdiff_t d = (ptrdiff_t)a.d;
    float4 v[KEPT];
    double sum = 0.0;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const ptrdiff_t i = 4 * (ptrdiff_t)(t + j * THREADS);
        v[j] = fm_load4<ALIGNED>(x + i, d - i);
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++) sum += squares(v[j]);
    for (ptrdiff_t i = 4 * (ptrdiff_t)(t + KEPT * THREADS); i < d; i += 4 * THREADS)
        sum += squares(fm_load4<ALIGNED>(x + i, d - i));
    sum = THREADS == 32 ? warp_sum(sum) : block_sum(sum);
    const float scale = (float)(1.0 / sqrt(sum / (double)a.d + (double)a.eps));
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const ptrdiff_t i = 4 * (ptrdiff_t)(t + j * THREADS);
        if (i < d) put<ALIGNED>(a, row, i, scaled(v[j], scale, kept.w[j]));
    }
    for (ptrdiff_t i = 4 * (ptrdiff_t)(t + KEPT * THREADS); i < d; i += 4 * THREADS)
        put<ALIGNED>(a, row, i, scaled(fm_load4<ALIGNED>(x + i, d - i), scale, weights_at(a.w, i, d - i)));
}

template <bool ALIGNED> __global__ void __launch_bounds__(LONG_THREADS) norm_long(norm a)
{
    const kept_weights<LONG_THREADS> kept(a, threadIdx.x);
    fm_begin();
    norm_row<LONG_THREADS, ALIGNED>(a, kept, blockIdx.x, threadIdx.x);
}

template <bool ALIGNED> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_short(norm a)
{
    const kept_weights<32> kept(a, threadIdx.x % 32);
    fm_begin();
    const size_t row = (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32;
    if (row < a.n) norm_row<32, ALIGNED>(a, kept, row, threadIdx.x % 32);
}

void launch(const fm_run *run, const norm &a)
{
    const bool aligned = fm_aligned(a.out, a.out_stride) && fm_aligned(a.x, a.x_stride);
    if (a.n == 0) return;
    if (a.d <= SHORT)
        fm_queue(run->stream, "rmsnorm", aligned ? norm_short<true> : norm_short<false>, fm_blocks(a.n, WARP_ROWS),
                 32 * WARP_ROWS, a);
    else
        fm_queue(run->stream, "rmsnorm", aligned ? norm_long<true> : norm_long<false>, (unsigned)a.n, LONG_THREADS, a);
}

void rmsnorm(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const float *w, size_t n,
             size_t d, float eps)
{
    launch(run, norm{out, x, w, out_stride, x_stride, n, d, eps, NULL});
}

void rmsnorm_pack(const fm_run *run, void *packed, const float *x, size_t x_stride, const float *w, size_t n, size_t d,
                  float eps)
{
    launch(run, norm{NULL, x, w, 0, x_stride, n, d, eps, (__nv_bfloat16 *)packed});
}

// ---- Three runs of a row: a warp each ----

struct three {
    norm a;
    size_t d[3];
};

template <bool ALIGNED> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_three(three t)
{
    fm_begin();
    const size_t warp = (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32, row = warp / 3, i = warp % 3;
    const size_t at = i == 0 ? 0 : i == 1 ? t.d[0] : t.d[0] + t.d[1];
    norm a = t.a;
    a.out += at;
    a.x += at;
    a.d = i == 0 ? t.d[0] : i == 1 ? t.d[1] : t.d[2];
    if (i > 0) a.packed = NULL;
    if (row < a.n) norm_row<32, ALIGNED>(a, kept_weights<32>(a, threadIdx.x % 32), row, threadIdx.x % 32);
}

void rmsnorm_three(const fm_run *run, float *out, size_t out_stride, void *packed, const float *x, size_t x_stride,
                   const size_t d[3], size_t n, float eps)
{
    const three t = {{out, x, NULL, out_stride, x_stride, n, 0, eps, (__nv_bfloat16 *)packed}, {d[0], d[1], d[2]}};
    const bool aligned = fm_aligned(out, out_stride) && fm_aligned(x, x_stride) && d[0] % 4 == 0 && d[1] % 4 == 0;
    if (d[0] > SHORT || d[1] > SHORT || d[2] > SHORT) { // a block takes such a row, and adds it up in another order
        for (size_t i = 0, at = 0; i < 3; at += d[i++])
            launch(run, norm{out + at, x + at, NULL, out_stride, x_stride, n, d[i], eps, i ? NULL : t.a.packed});
    } else if (n > 0) {
        fm_queue(run->stream, "rmsnorm", aligned ? norm_three<true> : norm_three<false>, fm_blocks(3 * n, WARP_ROWS),
                 32 * WARP_ROWS, t);
    }
}

// ---- The same of sums of pieces, which are added in their order ----

struct pieces {
    three t; // t.a.x: the first piece
    float *y;
    size_t y_stride, step; // from one piece to the next
};

__device__ float4 sum_of(const pieces &p, size_t at)
{
    float4 v[FM_CUDA_PIECES];
#pragma unroll
    for (int i = 0; i < FM_CUDA_PIECES; i++) v[i] = *(const float4 *)(p.t.a.x + i * p.step + at);
#pragma unroll
    for (int i = 1; i < FM_CUDA_PIECES; i++)
        v[0] = {__fadd_rn(v[0].x, v[i].x), __fadd_rn(v[0].y, v[i].y), __fadd_rn(v[0].z, v[i].z), __fadd_rn(v[0].w, v[i].w)};
    return v[0];
}

// A warp a run of a row, in norm_row's order.
template <bool ALIGNED> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_pieces(pieces p)
{
    fm_begin();
    const size_t warp = (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32, row = warp / 3, i = warp % 3,
                 lane = threadIdx.x % 32;
    const size_t at = i == 0 ? 0 : i == 1 ? p.t.d[0] : p.t.d[0] + p.t.d[1], all = p.t.d[0] + p.t.d[1] + p.t.d[2];
    norm a = p.t.a;
    a.d = i == 0 ? p.t.d[0] : i == 1 ? p.t.d[1] : p.t.d[2];
    a.out += at;
    if (i > 0) a.packed = NULL;
    if (row >= a.n) return;
    float4 v[KEPT];
    double sum = 0.0;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const size_t c = 4 * (lane + j * 32);
        v[j] = c < a.d ? sum_of(p, row * all + at + c) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        if (p.y && c < a.d) fm_store4<ALIGNED>(p.y + row * p.y_stride + at + c, 4, v[j]);
        sum += squares(v[j]);
    }
    sum = warp_sum(sum);
    const float scale = (float)(1.0 / sqrt(sum / (double)a.d + (double)a.eps));
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const size_t c = 4 * (lane + j * 32);
        if (c < a.d) put<ALIGNED>(a, row, (ptrdiff_t)c, scaled(v[j], scale, {1.0f, 1.0f, 1.0f, 1.0f}));
    }
}

// Packs of bf16 rows that follow each other without a gap: products of many tokens, and of few with weights of floats; not in f32.
bool packs(const fm_run *run, fm_xform form, const void *packed, size_t n, size_t cols)
{
    const bool floats = form == FM_X_F32 || form == FM_X_BF16;
    if ((!floats && fm_cuda_is_few(run->stream, form, n)) || run->stream->o.f32 || fm_cuda_x_stride(cols) != cols) return false;
    fm_cuda_pack_forget(run->stream, packed);
    return true;
}

// Rows whose packs have gaps stay f32: none of a model do.
bool half_rows(const fm_run *run, fm_xform form, size_t n, size_t d)
{
    return !run->stream->o.f32 && !fm_cuda_is_few(run->stream, form, n) && fm_cuda_x_stride(d) == d;
}

} // namespace

void fm_cuda_norm_pieces(fm_stream *s, const fm_linear_three_args *a, const float *sums, size_t first, size_t n)
{
    const fm_linear_args *l = &a->product;
    __nv_bfloat16 *packed = (__nv_bfloat16 *)a->packed;
    pieces p = {
        {{a->out + first * a->out_stride, sums, NULL, a->out_stride, 0, n, 0, a->eps, packed ? packed + first * a->d[0] : NULL},
         {a->d[0], a->d[1], a->d[2]}},
        l->y ? l->y + first * l->y_stride : NULL,
        l->y_stride,
        n * l->W->rows};
    const bool aligned = fm_aligned(a->out, a->out_stride) && fm_aligned(l->y, l->y_stride);
    fm_queue(s, "linear_three", aligned ? norm_pieces<true> : norm_pieces<false>, fm_blocks(3 * n, WARP_ROWS), 32 * WARP_ROWS,
             p);
}

extern "C" void fm_cuda_fill_norm(fm_kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->rmsnorm_pack = rmsnorm_pack;
    k->rmsnorm_three = rmsnorm_three;
    k->packs = packs;
    k->half = half_rows;
}
