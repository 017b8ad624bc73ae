// many.cu - products of many tokens: cuBLASLt on rows of bf16, or of f32 when the stream says so.
//
// Weights that are not of that type are expanded into the stream's scratch, as many rows at a time as it has room for, and never
// kept.  F32 weights too are rounded to bf16 by default: mixed precision, with the masters as they are.
//
// The algorithm is chosen for the shape of the weights and the power of two above n; none of them splits k, but for narrow products,
// which one plan serves for all n.  That a token's bits then do not depend on n is no promise of cuBLASLt: without a split its kernels
// of Hopper add k up in one order whatever their tiles, which kernelcheck holds it to (steps of 17 to 1100 tokens, every type).
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/linear.cuh"

namespace
{

// Products with few rows of weights have too few tiles to fill a card: k is cut, in the same pieces for every n, which take scratch
// for no more tokens at a time than this.
enum { NARROW_ROWS = 512, NARROW_COLS = 2048, NARROW_PLAN = 512, NARROW_MOST = 1024 };
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

// Rows first .. first + rows - 1 of W, which lie at `weights`, ld elements apart.
void multiply(fm_stream *s, const fm_linear_args *a, const void *weights, size_t ld, size_t first, size_t rows)
{
    fm_gemm g = {};
    const bool narrow = a->W->rows <= NARROW_ROWS && a->W->cols >= NARROW_COLS;
    g.ldc = a->y_stride;
    g.lda = fm_cuda_x_stride(a->W->cols);
    g.b = weights;
    g.ldb = ld;
    g.b_t = true;
    g.f32 = s->o.f32;
    g.add = a->add;
    g.split = narrow;
    g.bias = a->bias ? a->bias + first : NULL;
    g.n = rows;
    g.k = a->W->cols;
    g.plan_m = narrow ? NARROW_PLAN : plan_for(a->n);
    for (size_t t = 0, most = narrow ? NARROW_MOST : a->n; t < a->n; t += most) {
        g.m = a->n - t < most ? a->n - t : most;
        g.c = a->y + t * a->y_stride + first;
        g.a = (const char *)a->x + t * g.lda * element(s);
        fm_cuda_gemm(s, &g);
    }
}

} // namespace

extern "C" size_t fm_cuda_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n)
{
    if (fm_cuda_is_few(s, n) || is_direct(s, W->type)) return 0;
    return panel_rows(s, W) * W->cols * element(s);
}

void fm_cuda_linear_many(fm_stream *s, const fm_linear_args *a)
{
    const fm_tensor *W = a->W;
    if (a->n == 0 || W->rows == 0) return;
    if (is_direct(s, W->type)) {
        multiply(s, a, W->data, W->stride / element(s), 0, W->rows);
        return;
    }
    const size_t panel = panel_rows(s, W);
    if (panel * W->cols * element(s) > s->work_bytes) {
        fm_cuda_note(s, cudaErrorMemoryAllocation, "a product of many tokens: fm_cuda_work_bytes() were not reserved");
        return;
    }
    for (size_t first = 0; first < W->rows; first += panel) {
        const size_t left = W->rows - first, rows = left < panel ? left : panel;
        const fm_tensor part = fm_tensor_rows(W, first, rows);
        fm_cuda_expand(s, s->work, &part, s->o.f32);
        multiply(s, a, s->work, W->cols, first, rows);
    }
}
