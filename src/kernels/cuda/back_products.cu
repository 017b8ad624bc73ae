// back_products.cu - g_x = g_y W and g_W += g_y^T x by cuBLASLt, and the whole backward's entry into the table.
//
// By default both sides are rounded to bf16 in the stream's scratch and summed in f32; masters and gradients stay f32.  With
// stream->o.f32 nothing is rounded, and what is f32 already is multiplied where it lies.
#include "kernels/cuda/back.cuh"
#include "kernels/cuda/blas.cuh"

enum { FLAT = 256, EIGHT = 8 };

// Stored rows as dense ones of bf16 or f32 (linear.cuh).
void fm_cuda_expand(fm_stream *s, void *out, const fm_tensor *W, bool f32);

static size_t up256(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

// ---- Rows as operands ----

template <class T> __device__ static inline float widen(T v)
{
    return (float)v;
}

__device__ static inline void narrow(__nv_bfloat16 *to, float v)
{
    *to = __float2bfloat16_rn(v);
}
__device__ static inline void narrow(float *to, float v)
{
    *to = v;
}

// Eight columns a thread; columns beyond `cols` become 0.
template <class From, class To>
__global__ void __launch_bounds__(FLAT)
    convert_rows(To *out, const char *x, size_t x_bytes, size_t rows, size_t cols, size_t ld, bool aligned)
{
    const size_t per_row = ld / EIGHT, i = (size_t)blockIdx.x * FLAT + threadIdx.x, r = i / per_row, c = i % per_row * EIGHT;
    if (r >= rows) return;
    const From *from = (const From *)(x + r * x_bytes) + c;
    alignas(16) From in[EIGHT];
    alignas(16) To v[EIGHT];
    if (aligned && c + EIGHT <= cols) {
#pragma unroll
        for (int j = 0; j < (int)(sizeof in / 16); j++) ((uint4 *)in)[j] = ((const uint4 *)from)[j];
    } else {
#pragma unroll
        for (int j = 0; j < EIGHT; j++) in[j] = c + j < cols ? from[j] : From(0.0f);
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++) narrow(&v[j], widen(in[j]));
#pragma unroll
    for (int j = 0; j < (int)(sizeof v / 16); j++) ((uint4 *)(out + r * ld + c))[j] = ((const uint4 *)v)[j];
}

template <class From, class To>
static void convert(fm_stream *s, To *out, const void *x, size_t x_bytes, size_t rows, size_t cols, size_t ld)
{
    if (rows == 0 || cols == 0) return;
    const bool aligned = x_bytes % 16 == 0 && (uintptr_t)x % 16 == 0;
    convert_rows<From, To>
        <<<fm_blocks(rows * (ld / EIGHT), FLAT), FLAT, 0, s->stream>>>(out, (const char *)x, x_bytes, rows, cols, ld, aligned);
    FM_LAUNCHED(s, "operands of a product");
}

// A matrix as cuBLASLt reads it.
typedef struct operand {
    const void *p;
    size_t ld;
} operand;

static size_t operand_bytes(bool f32, size_t rows, size_t cols)
{
    return up256(rows * fm_bf16_ld(cols) * (f32 ? sizeof(float) : sizeof(uint16_t)));
}

// Rows that are bf16 are multiplied where they lie.
static operand operand_of_rows(fm_stream *s, void *room, const float *x, size_t stride, size_t rows, size_t cols, bool half)
{
    if (s->o.f32 || half) return operand{x, stride};
    const size_t ld = fm_bf16_ld(cols);
    convert<float>(s, (__nv_bfloat16 *)room, x, stride * sizeof(float), rows, cols, ld);
    return operand{room, ld};
}

// A weight that lies there in the wanted type is taken as it is.
static operand operand_of_weight(fm_stream *s, void *room, const fm_tensor *W)
{
    const size_t ld = fm_bf16_ld(W->cols);
    if (W->type == FM_F32 && s->o.f32) return operand{W->data, W->stride / sizeof(float)};
    if (W->type == FM_BF16 && !s->o.f32 && W->stride % 16 == 0) return operand{W->data, W->stride / sizeof(uint16_t)};
    if (W->type == FM_F32)
        convert<float>(s, (__nv_bfloat16 *)room, W->data, W->stride, W->rows, W->cols, ld);
    else if (W->type == FM_BF16 && s->o.f32)
        convert<__nv_bfloat16>(s, (float *)room, W->data, W->stride, W->rows, W->cols, ld);
    else if (W->type == FM_BF16)
        convert<__nv_bfloat16>(s, (__nv_bfloat16 *)room, W->data, W->stride, W->rows, W->cols, ld);
    else if (W->type == FM_F16 && s->o.f32)
        convert<__half>(s, (float *)room, W->data, W->stride, W->rows, W->cols, ld);
    else if (W->type == FM_F16)
        convert<__half>(s, (__nv_bfloat16 *)room, W->data, W->stride, W->rows, W->cols, ld);
    else
        fm_cuda_expand(s, room, W, s->o.f32); // blocks are of at least 32: rows without a gap are rows of ld
    return operand{room, ld};
}

// ---- The two products ----

// What linear_gx leaves at the begin of the scratch for linear_gw: g_y, where it was not bf16.
static size_t rounded_bytes(const fm_stream *s, size_t n, size_t rows, bool half)
{
    return s->o.f32 || half ? 0 : operand_bytes(false, n, rows);
}

// Scratch: g_y first, which linear_gw finds there again; then W, or x.
static void linear_gx(const fm_run *run, const fm_linear_gx_args *a)
{
    fm_stream *s = run->stream;
    const size_t rows = a->W->rows, cols = a->W->cols;
    const operand g = operand_of_rows(s, s->work, a->g_y, a->g_y_stride, a->n, rows, a->half_y);
    const operand w = operand_of_weight(s, (char *)s->work + rounded_bytes(s, a->n, rows, a->half_y), a->W);
    fm_gemm p = {};
    p.c = a->g_x, p.ldc = a->g_x_stride;
    p.a = g.p, p.lda = g.ld;
    p.b = w.p, p.ldb = w.ld;
    p.m = a->n, p.n = cols, p.k = rows;
    p.f32 = s->o.f32, p.add = a->add, p.half = a->half_x, p.split = true;
    fm_cuda_gemm(s, &p);
}

static void linear_gw(const fm_run *run, const fm_linear_gw_args *a)
{
    fm_stream *s = run->stream;
    operand g = {s->work, fm_bf16_ld(a->rows)};
    if (!a->same_g_y || s->o.f32 || a->half_y) g = operand_of_rows(s, s->work, a->g_y, a->g_y_stride, a->n, a->rows, a->half_y);
    const operand x = operand_of_rows(s, (char *)s->work + rounded_bytes(s, a->n, a->rows, a->half_y), a->x, a->x_stride, a->n,
                                      a->cols, a->half_x);
    fm_gemm p = {};
    p.c = a->g_W, p.ldc = a->cols;
    p.a = g.p, p.lda = g.ld, p.a_t = true;
    p.b = x.p, p.ldb = x.ld;
    p.m = a->rows, p.n = a->cols, p.k = a->n;
    p.f32 = s->o.f32, p.add = true, p.split = true;
    fm_cuda_gemm(s, &p);
}

// Weights of floats that products round anyway, once for all of them.
static void round_weight(const fm_run *run, void *out, const fm_tensor *W)
{
    if (W->type == FM_F32 && W->cols % EIGHT == 0)
        convert<float>(run->stream, (__nv_bfloat16 *)out, W->data, W->stride, W->rows, W->cols, W->cols);
    else
        fm_cuda_expand(run->stream, out, W, false);
}

extern "C" size_t fm_cuda_back_work_bytes(const fm_stream *s, const fm_tensor *W, size_t n, bool half)
{
    const size_t rows = W->rows, cols = W->cols, widest = rows > cols ? rows : cols,
                 sums = widest * FM_PART_FLOATS * sizeof(float);
    size_t products = 0;
    if (!s->o.f32) {
        const size_t w = operand_bytes(false, rows, cols), x = operand_bytes(false, n, cols);
        products = rounded_bytes(s, n, rows, half) + (w > x ? w : x);
    } else if (W->type != FM_F32) {
        products = operand_bytes(true, rows, cols);
    }
    return products > sums ? products : sums;
}

extern "C" void fm_cuda_fill_back(fm_kernels *k)
{
    fm_cuda_fill_back_rows(k);
    fm_cuda_fill_back_conv(k);
    fm_cuda_fill_back_scan(k);
    fm_cuda_fill_optim(k);
    k->linear_gx = linear_gx;
    k->linear_gw = linear_gw;
    k->round = round_weight;
}
