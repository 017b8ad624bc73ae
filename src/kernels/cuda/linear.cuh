// linear.cuh - products on a GPU: how weights and inputs lie, and the two ways to multiply them.
//
// Few columns (n <= FM_CUDA_FEW, of quantised weights n <= FM_CUDA_WIDE, or any n with o.invariant): weights are streamed once from
// memory through the tensor cores, few.cuh, few_bulk.cu and few_wide.cuh.
// Many: on rows of bf16 (o.f32: of f32), many.cu; by batch.cu up to 64 of bf16, else by cuBLASLt.  Quantised weights are expanded into
// stream->work first.
#ifndef FM_KERNELS_CUDA_LINEAR_CUH
#define FM_KERNELS_CUDA_LINEAR_CUH

#include "kernels/cuda/cuda.cuh"

enum { FM_CUDA_FEW = 16, FM_CUDA_WIDE = 64 };

// Whether the inputs of such a product are numbers that stay floats.
static inline bool fm_cuda_is_floats(fm_xform form)
{
    return form == FM_X_F32 || form == FM_X_BF16;
}

// Whether a product of n columns takes the kernels of few.
static inline bool fm_cuda_is_few(const fm_stream *s, fm_xform form, size_t n)
{
    return n <= (fm_cuda_is_floats(form) ? FM_CUDA_FEW : FM_CUDA_WIDE) || s->o.invariant;
}

// Whether the inputs of such a product are the records of pack.cuh; else they are rows.
static inline bool fm_cuda_is_records(const fm_stream *s, fm_xform form, size_t n)
{
    return !fm_cuda_is_floats(form) && fm_cuda_is_few(s, form, n);
}

// What pack_x makes for a product of many columns: n rows of bf16 (o.f32: of f32), so many elements from one to the next, zeros
// beyond cols.  A multiple of 128 elements, so rows lie at multiples of 256 bytes.  The base is that of the pack.
static inline size_t fm_cuda_x_stride(size_t cols)
{
    return (cols + 127) / 128 * 128;
}

// The rows of which `pack` is to be a pack, or NULL: it is one.  And making it one after all.
const fm_lazy_pack *fm_cuda_pack_source(const fm_stream *s, const void *pack);
void fm_cuda_pack_later(fm_stream *s, const fm_lazy_pack *a);
void fm_cuda_pack_now(const fm_lazy_pack *a, fm_xform form);
void fm_cuda_norm_pack(fm_stream *s, const fm_lazy_pack *a, fm_xform form); // norm.cu
void fm_cuda_pack_forget(fm_stream *s, const void *pack); // whoever writes one himself
// The pack of n rows by a launch of its own, behind a kernel that makes them and has no way to pack them itself.
void fm_cuda_pack_after(fm_stream *s, void *pack, fm_xform form, const float *x, size_t x_stride, size_t n, size_t cols);

// y = x W^T (+ bias) (+ y) of packed inputs; the table's linear[type] takes one or the other.
void fm_cuda_linear_few(fm_stream *s, const fm_linear_args *a);
void fm_cuda_linear_many(fm_stream *s, const fm_linear_args *a);
extern "C" void fm_cuda_fill_few(fm_kernels *k);  // linear, linear_conv
extern "C" void fm_cuda_fill_many(fm_kernels *k); // has_three, linear_three

// Products of up to 64 rows that fm_gemm describes (blas.cuh), to the bits of fm_cuda_gemm; fresh: the kernel in front wrote the weights.
bool fm_cuda_batch_takes(const struct fm_gemm *g);
void fm_cuda_batch(fm_stream *s, const struct fm_gemm *g, bool fresh);

// Sums of `pieces` products, n rows without a gap each, normed as rmsnorm_three norms them; the sums themselves go to y unless it is
// NULL.  Runs of columns begin at multiples of 4 and are short.
void fm_cuda_norm_pieces(fm_stream *s, const fm_linear_three_args *a, const float *pieces, size_t first, size_t n);
enum { FM_CUDA_PIECES = 8, FM_CUDA_SHORT = 512 };

// Stored rows as dense ones: out is (W->rows, W->cols) of bf16 to nearest even, or of f32; rows follow each other without a gap.
void fm_cuda_expand(fm_stream *s, void *out, const fm_tensor *W, bool f32);
// Rows ids[i] (on the device; NULL: i) of a stored table as f32: what embed does.  out (n, W->cols) at out_stride floats.
void fm_cuda_expand_rows(fm_stream *s, float *out, size_t out_stride, const fm_tensor *W, const int32_t *ids, size_t n);

#endif
