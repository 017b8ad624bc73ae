// pack.cu - rounding of product inputs: to bf16 rows, or to the int8 records of pack.cuh with the numbers of simd/pack.h.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pack.cuh"

struct pack_args {
    uint8_t *out;
    const void *x; // of float, or of bf16 (fm_pack_args.half)
    size_t x_stride, n, cols;
    bool aligned; // rows of x, to 16 bytes

    template <class IN> __device__ const IN *row(size_t r) const { return (const IN *)x + r * x_stride; }
};

static pack_args args_of(const fm_pack_args *p)
{
    return {(uint8_t *)p->out, p->x, p->x_stride, p->n, p->cols, ((size_t)p->x | p->x_stride * 4) % 16 == 0};
}

// ---- Rows ----

__device__ static void put2(float *o, float a, float b)
{
    *(float2 *)o = make_float2(a, b);
}
__device__ static void put2(__nv_bfloat16 *o, float a, float b)
{
    *(__nv_bfloat162 *)o = __floats2bfloat162_rn(a, b);
}

// A thread takes two columns of `stride`; zeros beyond cols.
template <class OUT, class IN> __global__ static void pack_rows_kernel(pack_args a, size_t stride)
{
    fm_begin();
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / (stride / 2), c = i % (stride / 2) * 2;
    if (r >= a.n) return;
    const IN *x = a.row<IN>(r);
    put2((OUT *)a.out + r * stride + c, c < a.cols ? (float)x[c] : 0.0f, c + 1 < a.cols ? (float)x[c + 1] : 0.0f);
}

static void rows_now(const fm_pack_args *p)
{
    const pack_args a = args_of(p);
    const size_t stride = fm_cuda_x_stride(p->cols), threads = p->n * (stride / 2);
    const fm_launch l = {p->stream, fm_blocks(threads, 256), 256, 0, 1};
    if (p->stream->o.f32)
        fm_cuda_launch(&l, "pack_x", pack_rows_kernel<float, float>, a, stride);
    else if (p->half)
        fm_cuda_launch(&l, "pack_x", pack_rows_kernel<__nv_bfloat16, __nv_bfloat16>, a, stride);
    else
        fm_cuda_launch(&l, "pack_x", pack_rows_kernel<__nv_bfloat16, float>, a, stride);
}

// ---- Records ----

template <bool WIDE, class IN> __global__ static void pack_records_kernel(pack_args a, fm_records out)
{
    fm_pdl_trigger(); // before the wait, against the rule of launch.cuh: no kernel writes quantised weights
    fm_pdl_wait();
    const size_t item = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, r = item / out.chunks,
                 chunk = item % out.chunks;
    if (r >= a.n) return;
    float v[8];
    pack_load(v, a.row<IN>(r), a.cols, chunk, a.aligned);
    out.put<WIDE>(r, chunk, v);
}

template <bool WIDE> static void records_now(const fm_pack_args *p)
{
    const pack_args a = args_of(p);
    const fm_records out = fm_records_at(p->out, p->n, p->cols);
    const fm_launch l = {p->stream, fm_blocks(p->n * out.chunks, 2), 64, 0, 1};
    fm_cuda_launch(&l, "pack_x", p->half ? pack_records_kernel<WIDE, __nv_bfloat16> : pack_records_kernel<WIDE, float>, a, out);
}

// ---- Now, or by the product ----

const fm_lazy_pack *fm_cuda_pack_source(const fm_stream *s, const void *pack)
{
    for (int i = 0; i < FM_CUDA_LAZY; i++)
        if (s->lazy[i].rows.out == pack && s->lazy[i].rows.n) return &s->lazy[i];
    return NULL;
}

// Puts `a` first in the list, in place of what was said of its memory before.
void fm_cuda_pack_later(fm_stream *s, const fm_lazy_pack *a)
{
    const fm_lazy_pack copy = *a;
    int i = 0;
    while (i < FM_CUDA_LAZY - 1 && s->lazy[i].rows.out != copy.rows.out) i++;
    for (; i > 0; i--) s->lazy[i] = s->lazy[i - 1];
    s->lazy[0] = copy;
}

void fm_cuda_pack_forget(fm_stream *s, const void *pack)
{
    for (int i = 0; i < FM_CUDA_LAZY; i++)
        if (s->lazy[i].rows.out == pack) s->lazy[i].rows.n = 0;
}

void fm_cuda_pack_now(const fm_lazy_pack *a, fm_xform form)
{
    const fm_lazy_pack lazy = *a; // it may be the one to be forgotten
    const fm_pack_args p = lazy.rows;
    fm_cuda_pack_forget(p.stream, p.out);
    if (lazy.normed)
        fm_cuda_norm_pack(p.stream, &lazy, form);
    else if (!fm_cuda_is_records(p.stream, form, p.n))
        rows_now(&p);
    else if (form == FM_X_Q8_256)
        records_now<true>(&p);
    else
        records_now<false>(&p);
}

void fm_cuda_pack_after(fm_stream *s, void *pack, fm_xform form, const float *x, size_t x_stride, size_t n, size_t cols)
{
    const fm_lazy_pack a = {{pack, x, x_stride, false, n, cols, 0, n, 0, cols, s}};
    fm_cuda_pack_now(&a, form);
}

// Blocks of a product that pack for themselves save a launch and the wait for it: 0.9 us of 2.2 for one column of bf16.  More columns,
// or rounding to integers, took each block longer than that.
template <int FORM> static void pack(const fm_pack_args *a)
{
    const bool floats = fm_cuda_is_floats((fm_xform)FORM);
    const fm_lazy_pack lazy = {*a};
    if (floats && a->n == 1 && !a->stream->o.f32)
        fm_cuda_pack_later(a->stream, &lazy);
    else
        fm_cuda_pack_now(&lazy, (fm_xform)FORM);
}

// ---- The table ----

// The largest of what a pack can hold whatever the stream's options: rows of f32, or records.
static size_t pack_bytes(fm_xform form, size_t n, size_t cols)
{
    if (cols > SIZE_MAX / 64 || n > SIZE_MAX / 64) return 0;
    const bool floats = fm_cuda_is_floats(form);
    const size_t stride = fm_cuda_x_stride(cols), tokens = fm_record_tokens(n), chunks = (cols + FM_CHUNK - 1) / FM_CHUNK;
    size_t rows, records = 0;
    if (__builtin_mul_overflow(stride * sizeof(float), n, &rows)) return 0;
    const size_t each = fm_record_bytes(form == FM_X_Q8_256, tokens);
    if (!floats && __builtin_mul_overflow((n + tokens - 1) / tokens * each, chunks, &records)) return 0;
    return rows > records ? rows : records;
}

extern "C" void fm_cuda_fill_pack(fm_kernels *k)
{
    k->pack_x_bytes = pack_bytes;
    k->pack_x[FM_X_F32] = pack<FM_X_F32>;
    k->pack_x[FM_X_BF16] = pack<FM_X_BF16>;
    k->pack_x[FM_X_Q8_32] = pack<FM_X_Q8_32>;
    k->pack_x[FM_X_Q8_256] = pack<FM_X_Q8_256>;
}
