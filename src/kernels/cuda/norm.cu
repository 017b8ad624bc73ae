// norm.cu - rmsnorm: squares summed in double, as everywhere, so that every table's scale agrees to one ulp of float.
//
// Limited by memory: a row is read once, 16 bytes a thread, and kept in registers until it is scaled.
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"

namespace
{

enum { KEPT = 4 };           // vectors of a row that a thread keeps; of longer rows the rest is read again
enum { WARP_ROWS = 4 };      // short rows of a block, one a warp
enum { SHORT = 512 };        // floats of a short row
enum { LONG_THREADS = 256 }; // of a block for one long row

struct norm {
    float *out;
    const float *x, *w;
    size_t out_stride, x_stride, n, d;
    float eps;
    __nv_bfloat16 *packed; // (n, d) without a gap, instead of out; or NULL
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

__device__ float4 scaled(float4 v, float scale, const float *w, size_t i, ptrdiff_t left)
{
    v = {v.x * scale, v.y * scale, v.z * scale, v.w * scale};
    if (!w) return v;
    const float4 f = fm_is_aligned(w) ? fm_load4<true>(w + i, left) : fm_load4<false>(w + i, left);
    return {v.x * f.x, v.y * f.y, v.z * f.z, v.w * f.w};
}

// THREADS threads share a row: thread t takes vectors t, t + THREADS, ...  An order fixed by d, whatever the alignment.
template <bool ALIGNED> __device__ void put(const norm &a, size_t row, ptrdiff_t i, float4 v)
{
    if (a.packed)
        fm_store4_bf16(a.packed + row * a.d + i, v);
    else
        fm_store4<ALIGNED>(a.out + row * a.out_stride + i, (ptrdiff_t)a.d - i, v);
}

template <int THREADS, bool ALIGNED> __device__ void norm_row(const norm &a, size_t row, unsigned t)
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
        if (i < d) put<ALIGNED>(a, row, i, scaled(v[j], scale, a.w, (size_t)i, d - i));
    }
    for (ptrdiff_t i = 4 * (ptrdiff_t)(t + KEPT * THREADS); i < d; i += 4 * THREADS)
        put<ALIGNED>(a, row, i, scaled(fm_load4<ALIGNED>(x + i, d - i), scale, a.w, (size_t)i, d - i));
}

template <bool ALIGNED> __global__ void __launch_bounds__(LONG_THREADS) norm_long(norm a)
{
    fm_begin();
    norm_row<LONG_THREADS, ALIGNED>(a, blockIdx.x, threadIdx.x);
}

template <bool ALIGNED> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_short(norm a)
{
    fm_begin();
    const size_t row = (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32;
    if (row < a.n) norm_row<32, ALIGNED>(a, row, threadIdx.x % 32);
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
    if (row < a.n) norm_row<32, ALIGNED>(a, row, threadIdx.x % 32);
}

void rmsnorm_three(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const size_t d[3],
                   size_t n, float eps)
{
    const three t = {{out, x, NULL, out_stride, x_stride, n, 0, eps, NULL}, {d[0], d[1], d[2]}};
    const bool aligned = fm_aligned(out, out_stride) && fm_aligned(x, x_stride) && d[0] % 4 == 0 && d[1] % 4 == 0;
    if (d[0] > SHORT || d[1] > SHORT || d[2] > SHORT) { // a block takes such a row, and adds it up in another order
        for (size_t i = 0, at = 0; i < 3; at += d[i++])
            rmsnorm(run, out + at, out_stride, x + at, x_stride, NULL, n, d[i], eps);
    } else if (n > 0) {
        fm_queue(run->stream, "rmsnorm", aligned ? norm_three<true> : norm_three<false>, fm_blocks(3 * n, WARP_ROWS),
                 32 * WARP_ROWS, t);
    }
}

// Packs of bf16 rows that follow each other without a gap: products of many tokens, and of few with weights of floats; not in f32.
bool packs(const fm_run *run, fm_xform form, const void *packed, size_t n, size_t cols)
{
    const bool floats = form == FM_X_F32 || form == FM_X_BF16;
    if ((!floats && fm_cuda_is_few(run->stream, n)) || run->stream->o.f32 || fm_cuda_x_stride(cols) != cols) return false;
    fm_cuda_pack_forget(run->stream, packed);
    return true;
}

} // namespace

extern "C" void fm_cuda_fill_norm(fm_kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->rmsnorm_pack = rmsnorm_pack;
    k->rmsnorm_three = rmsnorm_three;
    k->packs = packs;
}
