// few_bulk.cuh - 3 to 16 columns with matrices of bf16, large ones and those of few rows: the sums of few_float.cuh, to the bit, of
// weights that the copy engine brings.
#ifndef FM_KERNELS_CUDA_FEW_BULK_CUH
#define FM_KERNELS_CUDA_FEW_BULK_CUH

#include "kernels/cuda/few.cuh"

// Rows that the blocks of a launch norm by turns (turn.cuh), each of LONG_THREADS.
struct few_norm {
    const float *x, *w; // x (n, cols); NULL: none
    size_t stride;
    unsigned n, cols;
    float eps;
    __nv_bfloat16 *to; // (n, cols) without a gap
    fm_turns *turns;   // of launches with this one's number of blocks
};

// y += x W^T of one group of columns; false: not such a product, nothing is done.
bool fm_cuda_few_bulk(fm_stream *s, const few_args *p, fm_dtype type);
// The same and, of its first v->d_inner rows, the convolution (fm_linear_conv_args): one token of each sequence, u and its pack as
// rows.  Nothing is added.  norm: of the input, or nothing.
bool fm_cuda_few_bulk_conv(fm_stream *s, const few_args *p, fm_dtype type, const few_norm &norm, const fm_conv_args *v);

#endif
