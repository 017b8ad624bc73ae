// many.cu - products of many tokens: by batch.cu or cuBLASLt on rows of bf16, or of f32 when the stream says so.
//
// Weights that are not of that type are expanded into the stream's scratch, as many rows at a time as it has room for, and never
// kept.  F32 weights too are rounded to bf16 by default: mixed precision, with the masters as they are.
//
// The algorithm is chosen for the shape of the weights and the power of two above n; none of them splits k but narrow products, which
// cut it into the same pieces for all n.  That a token's bits then do not depend on n is no promise of cuBLASLt: without a split its
// kernels of Hopper add k up in one order whatever their tiles, and so does batch.cu; kernelcheck holds both to it (steps of 17 to 1100
// tokens, every type).
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"

namespace
{

// Products with few rows of weights have too few tiles to fill a card: k is cut into PIECES, which are products of their own, for so
// many tokens at a time; then their sums are added in order.
enum { NARROW_ROWS = 512, NARROW_COLS = 2048, NARROW_MOST = 2048, PIECES = FM_CUDA_PIECES, PIECE_COLS = 64, SUM_THREADS = 128 };
enum { PLAN_LEAST = 32, PLAN_MOST = 8192 };
const size_t PANEL_MOST = (size_t)64 << 20; // bytes of expanded weights: most of it is still in L2 when it is multiplied

bool is_direct(const fm_stream *s, fm_dtype type)
{
    return type == (s->o.f32 ? FM_F32 : FM_BF16);
}

size_t element(const fm_stream *s)
{
    return s->o.f32 ? sizeof(float) : sizeof(__nv_bfloat16);
}

// Rows expanded at a time.
size_t panel_rows(const fm_stream *s, const fm_tensor *W)
{
    const size_t fit = PANEL_MOST / (W->cols * element(s)) / 256 * 256, least = fit ? fit : 256;
    return W->rows < least ? W->rows : least;
}

size_t plan_for(size_t n)
{
    size_t plan = PLAN_LEAST;
    while (plan < n && plan < PLAN_MOST) plan *= 2;
    return plan;
}

bool is_narrow(const fm_tensor *W)
{
    return W->rows <= NARROW_ROWS && W->rows % 4 == 0 && W->cols >= NARROW_COLS && W->cols % (PIECES * PIECE_COLS) == 0;
}

// Sums of all pieces for as many tokens as are multiplied at a time.
size_t piece_bytes(const fm_tensor *W, size_t n)
{
    return is_narrow(W) ? PIECES * (n < NARROW_MOST ? n : NARROW_MOST) * W->rows * sizeof(float) : 0;
}

size_t panel_bytes(const fm_stream *s, const fm_tensor *W)
{
    return is_direct(s, W->type) ? 0 : panel_rows(s, W) * W->cols * element(s);
}

// Rows of weights, ld elements apart, that are rows `first` and on of the product.
struct panel {
    const void *weights;
    size_t ld, first, rows;
    bool expanded; // just now
};

fm_gemm gemm_of(const fm_stream *s, const fm_linear_args *a, const panel &p)
{
    fm_gemm g = {};
    g.lda = fm_cuda_x_stride(a->W->cols);
    g.a = a->x;
    g.b = p.weights;
    g.ldb = p.ld;
    g.b_t = true;
    g.f32 = s->o.f32;
    g.m = a->n;
    g.n = p.rows;
    g.k = a->W->cols;
    g.plan_m = plan_for(a->n);
    return g;
}

void gemm(fm_stream *s, const fm_gemm *g, const panel &p)
{
    if (fm_cuda_batch_takes(g))
        fm_cuda_batch(s, g, p.expanded);
    else
        fm_cuda_gemm(s, g);
}

size_t out_element(const fm_linear_args *a)
{
    return a->half ? sizeof(__nv_bfloat16) : sizeof(float);
}

void multiply(fm_stream *s, const fm_linear_args *a, const panel &p)
{
    fm_gemm g = gemm_of(s, a, p);
    g.c = (char *)a->y + p.first * out_element(a);
    g.ldc = a->y_stride;
    g.add = a->add;
    g.old = a->old ? a->old + p.first : NULL;
    g.half = a->half;
    g.bias = a->bias ? a->bias + p.first : NULL;
    gemm(s, &g, p);
}

// ---- Narrow products ----

// y (n, rows) = the sum of the pieces (PIECES, n, rows) (+ bias) (+ the old one).
template <typename R> struct sum {
    R *y;
    const R *old;
    const float *pieces, *bias;
    size_t y_stride, n, rows;
    bool add;
};

__device__ float4 add4(float4 a, float4 b)
{
    return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}

template <bool ALIGNED, typename R> __global__ void __launch_bounds__(SUM_THREADS) sum_pieces(sum<R> a)
{
    const size_t i = ((size_t)blockIdx.x * SUM_THREADS + threadIdx.x) * 4, all = a.n * a.rows;
    fm_begin();
    if (i >= all) return;
    float4 v[PIECES];
#pragma unroll
    for (int p = 0; p < PIECES; p++) v[p] = *(const float4 *)(a.pieces + p * all + i);
#pragma unroll
    for (int p = 1; p < PIECES; p++) v[0] = add4(v[0], v[p]);
    const size_t row = i / a.rows, c = i % a.rows;
    R *y = a.y + row * a.y_stride + c;
    if (a.bias) v[0] = add4(v[0], fm_load4<false>(a.bias + c, 4));
    if (a.add) v[0] = add4(v[0], fm_load4<ALIGNED>(a.old + row * a.y_stride + c, 4));
    fm_store4<ALIGNED>(y, 4, v[0]);
}

// Of n tokens from `token` on.
template <typename R>
void queue_sum(fm_stream *s, const fm_linear_args *a, const panel &p, const float *pieces, size_t token, size_t n)
{
    const size_t at = token * a->y_stride + p.first;
    const R *old = (const R *)(a->old ? a->old : a->y);
    const sum<R> args = {(R *)a->y + at, old + at, pieces,  a->bias ? a->bias + p.first : NULL,
                         a->y_stride,    n,        p.rows, a->add};
    fm_queue(s, "linear", fm_aligned(a->y, a->y_stride) && fm_aligned(old, a->y_stride) ? sum_pieces<true, R> : sum_pieces<false, R>,
             fm_blocks(n * p.rows / 4, SUM_THREADS), SUM_THREADS, args);
}

// three: the norms as well, or NULL.
void multiply_narrow(fm_stream *s, const fm_linear_args *a, const panel &p, float *pieces, const fm_linear_three_args *three)
{
    fm_gemm g = gemm_of(s, a, p);
    g.c = pieces;
    g.ldc = p.rows;
    g.pieces = PIECES;
    g.plan_m = plan_for(a->n < NARROW_MOST ? a->n : NARROW_MOST);
    for (size_t t = 0; t < a->n; t += NARROW_MOST) {
        g.m = a->n - t < NARROW_MOST ? a->n - t : NARROW_MOST;
        g.a = (const char *)a->x + t * g.lda * element(s);
        g.c_piece = g.m * p.rows;
        gemm(s, &g, p);
        if (three)
            fm_cuda_norm_pieces(s, three, pieces, t, g.m);
        else if (a->half)
            queue_sum<__nv_bfloat16>(s, a, p, pieces, t, g.m);
        else
            queue_sum<float>(s, a, p, pieces, t, g.m);
    }
}

// Panels of the weights in turn.
void linear(fm_stream *s, const fm_linear_args *a, const fm_linear_three_args *three)
{
    const fm_tensor *W = a->W;
    if (a->n == 0 || W->rows == 0) return;
    if (panel_bytes(s, W) + piece_bytes(W, a->n) > s->work_bytes) {
        fm_cuda_note(s, cudaErrorMemoryAllocation, "a product of many tokens: fm_cuda_work_bytes() were not reserved");
        return;
    }
    const size_t most = is_direct(s, W->type) ? W->rows : panel_rows(s, W);
    float *pieces = (float *)((char *)s->work + panel_bytes(s, W));
    for (size_t first = 0; first < W->rows; first += most) {
        const size_t left = W->rows - first, rows = left < most ? left : most;
        panel p = {W->data, W->stride / element(s), first, rows, false};
        if (!is_direct(s, W->type)) {
            const fm_tensor part = fm_tensor_rows(W, first, rows);
            fm_cuda_expand(s, s->work, &part, s->o.f32);
            p.weights = s->work;
            p.ld = W->cols;
            p.expanded = true;
        }
        if (is_narrow(W))
            multiply_narrow(s, a, p, pieces, three);
        else
            multiply(s, a, p);
    }
}

bool has_three(const fm_run *run, const fm_tensor *W, size_t n, const size_t d[3])
{
    const fm_stream *s = run->stream;
    const bool one_panel = is_direct(s, W->type) || panel_rows(s, W) >= W->rows;
    const bool short_runs = d[0] <= FM_CUDA_SHORT && d[1] <= FM_CUDA_SHORT && d[2] <= FM_CUDA_SHORT;
    return !fm_cuda_is_few(s, fm_xform_of(W->type), n) && is_narrow(W) && one_panel && short_runs && d[0] % 4 == 0 && d[1] % 4 == 0 && d[2] % 4 == 0;
}

void linear_three(const fm_run *run, const fm_linear_three_args *a)
{
    linear(run->stream, &a->product, a);
}

} // namespace

extern "C" size_t fm_cuda_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n)
{
    return fm_cuda_is_few(s, fm_xform_of(W->type), n) ? 0 : panel_bytes(s, W) + piece_bytes(W, n);
}

void fm_cuda_linear_many(fm_stream *s, const fm_linear_args *a)
{
    linear(s, a, NULL);
}

extern "C" void fm_cuda_fill_many(fm_kernels *k)
{
    k->has_three = has_three;
    k->linear_three = linear_three;
}
