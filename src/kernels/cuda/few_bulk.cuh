// few_bulk.cuh - 3 to 16 columns with matrices of bf16, large ones and those of few rows: the sums of few_float.cuh, to the bit, of
// weights that the copy engine brings.
#ifndef FM_KERNELS_CUDA_FEW_BULK_CUH
#define FM_KERNELS_CUDA_FEW_BULK_CUH

#include "kernels/cuda/few.cuh"

// y += x W^T of one group of columns; false: not such a product, nothing is done.
bool fm_cuda_few_bulk(fm_stream *s, const few_args *p, fm_dtype type);
// The same and, of its first v->d_inner rows, the convolution (fm_linear_conv_args): one token of each sequence, u and its pack as
// rows.  Nothing is added.  norm: what was put off of the pack p->x, or NULL.
bool fm_cuda_few_bulk_conv(fm_stream *s, const few_args *p, fm_dtype type, const fm_lazy_pack *norm, const fm_conv_args *v);

#endif
