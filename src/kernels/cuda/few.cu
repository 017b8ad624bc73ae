// few.cu - products of the table: few columns or many; few columns of floats in f32.
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/few_bulk.cuh"

// ---- Weights of floats and inputs that stay f32: a warp to a row, fused multiply-adds ----

struct f32_args {
    float *y;
    size_t y_stride;
    const float *x;
    size_t x_stride;
    const uint8_t *w;
    size_t w_stride;
    const float *bias;
    unsigned rows, cols, n;
    bool add;
};

template <int T> struct f32_vector; // 16 bytes of a row
template <> struct f32_vector<FM_F32> {
    enum { N = 4 };
    __device__ static inline void widen(float *o, uint4 v) { *(uint4 *)o = v; }
};
template <> struct f32_vector<FM_F16> {
    enum { N = 8 };
    __device__ static inline void widen(float *o, uint4 v)
    {
        const __half2 *h = (const __half2 *)&v;
#pragma unroll
        for (int i = 0; i < 4; i++) *(float2 *)(o + 2 * i) = __half22float2(h[i]);
    }
};
template <> struct f32_vector<FM_BF16> {
    enum { N = 8 };
    __device__ static inline void widen(float *o, uint4 v)
    {
        const __nv_bfloat162 *h = (const __nv_bfloat162 *)&v;
#pragma unroll
        for (int i = 0; i < 4; i++) *(float2 *)(o + 2 * i) = __bfloat1622float2(h[i]);
    }
};

// Lane l takes vectors l, l + 32, ...; a column's sum runs through them, then through the lanes, whatever N is.  Inputs are padded
// with zeros beyond a vector, and so are rows of weights.
template <int T, int N> __global__ __launch_bounds__(256) static void f32_kernel(const f32_args p)
{
    using V = f32_vector<T>;
    fm_begin();
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= p.rows) return;
    const uint8_t *w = p.w + row * p.w_stride;
    float sum[N] = {};
#pragma unroll 4
    for (unsigned c = lane * V::N; c < p.cols; c += 32 * V::N) {
        float f[V::N];
        V::widen(f, __ldcs((const uint4 *)(w + c * (16 / V::N))));
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float *x = p.x + min(j, (int)p.n - 1) * p.x_stride + c;
#pragma unroll
            for (int i = 0; i < V::N; i++) sum[j] = fmaf(f[i], x[i], sum[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        float v = fm_warp_sum(sum[j]);
        if (lane || j >= (int)p.n) continue;
        float *y = p.y + j * p.y_stride + row;
        if (p.bias) v += p.bias[row];
        *y = p.add ? v + *y : v;
    }
}

template <int T> static void f32_launch(fm_stream *s, const f32_args *p)
{
    const fm_launch l = {s, fm_blocks(p->rows, 8), 256, 0, 1};
    if (p->n <= 1)
        fm_cuda_launch(&l, "linear", f32_kernel<T, 1>, *p);
    else if (p->n <= 4)
        fm_cuda_launch(&l, "linear", f32_kernel<T, 4>, *p);
    else
        fm_cuda_launch(&l, "linear", f32_kernel<T, 16>, *p);
}

// ---- Groups of up to 16 columns ----

static void few_f32(fm_stream *s, const fm_linear_args *a)
{
    f32_args p = {a->y,         a->y_stride, (const float *)a->x,  fm_cuda_x_stride(a->W->cols), (const uint8_t *)a->W->data,
                  a->W->stride, a->bias,     (unsigned)a->W->rows, (unsigned)a->W->cols,         0,
                  a->add};
    for (size_t t = 0; t < a->n; t += FM_CUDA_FEW) {
        p.n = (unsigned)(a->n - t < FM_CUDA_FEW ? a->n - t : FM_CUDA_FEW);
        if (a->W->type == FM_F32)
            f32_launch<FM_F32>(s, &p);
        else if (a->W->type == FM_F16)
            f32_launch<FM_F16>(s, &p);
        else
            f32_launch<FM_BF16>(s, &p);
        p.x += FM_CUDA_FEW * p.x_stride;
        p.y += FM_CUDA_FEW * p.y_stride;
    }
}

few_args fm_cuda_few_args(const fm_linear_args *a, size_t *group)
{
    const bool floats = fm_is_float(a->W->type);
    const size_t cols = a->W->cols, width = few_width(a->W->type), chunks = (cols + width - 1) / width;
    few_args p = {};
    p.y = a->y, p.y_stride = a->y_stride;
    p.x = (const uint8_t *)a->x;
    p.w = (const uint8_t *)a->W->data, p.w_stride = a->W->stride;
    p.bias = a->bias, p.add = a->add;
    p.rows = (unsigned)a->W->rows, p.cols = (unsigned)cols;
    p.chunks = (unsigned)chunks;
    p.x_tokens = (unsigned)fm_record_tokens(a->n);
    if (floats) {
        p.x_tokens = FM_CUDA_FEW;
        p.x_stride = (unsigned)fm_cuda_x_stride(cols) * 2;
        p.row_bytes = (unsigned)(cols * (a->W->type == FM_F32 ? 4 : 2));
        *group = FM_CUDA_FEW * p.x_stride;
    } else {
        p.x_stride = (unsigned)fm_record_bytes(fm_xform_of(a->W->type) == FM_X_Q8_256, p.x_tokens);
        *group = chunks * p.x_stride;
    }
    return p;
}

few_args fm_cuda_few_within(const fm_tensor *W, size_t n)
{
    size_t group;
    fm_linear_args a = {};
    a.W = W, a.n = n;
    few_args p = fm_cuda_few_args(&a, &group);
    p.n = (unsigned)n;
    return p;
}

// Warps of a block of such a product.
static unsigned few_warps(const fm_stream *s, const few_args *p, fm_dtype type)
{
    const few_cut cut = few_cut_of(p->rows, p->chunks, FM_CHUNK / few_width(type));
    return cut.split * few_tiles(p->rows, cut, (unsigned)s->n_sm);
}

// Has the blocks pack for themselves where that was put off, if they have the room, and for a norm the threads; else packs now.  A row
// of floats that is packed already they copy.
static few_source few_pack_source(fm_stream *s, few_args *p, const fm_linear_args *a)
{
    enum { ROOM = 32 * 1024 };
    const fm_lazy_pack *lazy = fm_cuda_pack_source(s, a->x);
    if (!lazy) {
        if (fm_is_float(a->W->type) && a->n == 1 && p->x_stride <= ROOM) p->x_shared = p->x_stride;
        return {};
    }
    const fm_xform form = fm_xform_of(a->W->type);
    const fm_pack_args *from = &lazy->rows;
    const bool floats = fm_cuda_is_floats(form);
    const size_t record = FM_CHUNK + (form == FM_X_Q8_256 ? FM_X256_SIDE : FM_X32_SIDE), // of one token
        bytes = floats ? a->n * p->x_stride : p->chunks * record;
    const bool threads = !lazy->normed || few_warps(s, p, a->W->type) == LONG_THREADS / 32,
               many = lazy->normed && a->n > FEW_NORMED_ROWS; // of records, never
    if (bytes > ROOM || from->n != a->n || many || !threads) {
        fm_cuda_pack_now(lazy, form);
        return {};
    }
    p->x_shared = (unsigned)bytes;
    if (!floats) p->x_stride = (unsigned)record, p->x_tokens = 1;
    return {from->x, from->x_stride, (size_t)from->x % 16 == 0, lazy->normed, lazy->w, lazy->eps};
}

void fm_cuda_linear_few(fm_stream *s, const fm_linear_args *a)
{
    const fm_dtype type = a->W->type;
    if (a->n == 0 || a->W->rows == 0) return;
    if (fm_is_float(type) && s->o.f32) {
        few_f32(s, a);
        return;
    }
    const fm_xform form = fm_xform_of(type);
    few_fn *fn = type == FM_INT4_G128  ? fm_cuda_few_128(type)
                 : form == FM_X_Q8_32  ? fm_cuda_few_32(type)
                 : form == FM_X_Q8_256 ? fm_cuda_few_256(type)
                                       : fm_cuda_few_float(type);
    size_t group;
    few_args p = fm_cuda_few_args(a, &group);
    const size_t columns = p.x_tokens;
    const few_source from = few_pack_source(s, &p, a);
    for (size_t t = 0; t < a->n; t += columns) {
        p.n = (unsigned)(a->n - t < columns ? a->n - t : columns);
        if (!fm_cuda_few_bulk(s, &p, type)) fn(s, &p, &from, a->n < columns ? a->n : columns);
        p.x += group;
        p.y += columns * p.y_stride;
    }
}

// ---- The table ----

// Few tokens are added where they are to be: what they are added to is copied there.
static void bring_old(fm_stream *s, const fm_linear_args *a)
{
    const size_t row = a->W->rows * sizeof(float), pitch = a->y_stride * sizeof(float);
    if (a->add && a->old && a->n > 0)
        FM_CUDA(s, cudaMemcpy2DAsync(a->y, pitch, a->old, pitch, row, a->n, cudaMemcpyDeviceToDevice, s->stream));
}

static void linear(const fm_run *run, const fm_linear_args *a)
{
    fm_stream *s = run->stream;
    if (!fm_cuda_is_few(s, fm_xform_of(a->W->type), a->n)) {
        fm_cuda_linear_many(s, a);
        return;
    }
    bring_old(s, a);
    fm_cuda_linear_few(s, a);
}

// One token of each of few sequences, rows of f32, and u's pack rows of bf16.
static bool convolves(const fm_stream *s, const fm_conv_args *v)
{
    const fm_ragged *r = v->ragged;
    return !s->o.f32 && fm_is_one_each(r) && r->n_seq <= FM_CUDA_FEW && !v->half && v->packed && fm_cuda_is_floats(v->form);
}

// Of as many columns as that takes nothing but norms is put off.
static bool linear_conv(const fm_run *run, const fm_linear_conv_args *m)
{
    fm_stream *s = run->stream;
    if (!convolves(s, &m->conv)) return false;
    size_t group;
    few_args p = fm_cuda_few_args(&m->product, &group);
    p.n = (unsigned)m->product.n;
    const fm_lazy_pack *norm = fm_cuda_pack_source(s, m->product.x);
    if (!fm_cuda_few_bulk_conv(s, &p, m->product.W->type, norm, &m->conv)) return false;
    fm_cuda_pack_forget(s, m->product.x);
    fm_cuda_pack_forget(s, m->conv.packed);
    return true;
}

extern "C" void fm_cuda_fill_few(fm_kernels *k)
{
    for (int t = 0; t < FM_DTYPE_COUNT; t++) k->linear[t] = linear;
    k->linear_conv = linear_conv;
}
