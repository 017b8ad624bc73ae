// blas.cuh - large products by cuBLASLt, which is loaded at the first one so that a program built with CUDA starts anywhere.
//
// Matrices are row-major here.  What a plan chose for a shape it keeps, so that equal calls give equal bits; nothing is summed by
// atomics.  Nothing is allocated while the stream records if fm_cuda_blas_open came before.
#ifndef FM_KERNELS_CUDA_BLAS_CUH
#define FM_KERNELS_CUDA_BLAS_CUH

#include "kernels/cuda/cuda.cuh"

// C (m, n) = op(A) (m, k) op(B) (k, n) (+ bias) (+ the old C when add); f32 sums; C f32, or bf16 when half, then without bias.  ld counts elements from one row of what
// is stored to the next.  The usual products: y = x W^T has b_t; g_x = g_y W neither; g_W = g_y^T x has a_t.
typedef struct fm_gemm {
    void *c;
    size_t ldc;
    const void *old;   // what is added instead of the old C, laid out like it; NULL: that itself
    const void *a, *b; // bf16, or f32 when f32: then nothing is rounded, to TF32 neither
    size_t lda, ldb;
    bool a_t, b_t; // stored (k, m), stored (n, k)
    bool f32, add, half;
    bool split;    // k may be cut into pieces summed in a fixed order; which pieces depends on the whole shape
    size_t pieces; // 0, or: k is cut into so many equal ones, and C is a list of their products, c_piece elements apart
    size_t c_piece;
    const float *bias; // (n) or NULL
    size_t m, n, k;
    size_t plan_m; // m that the algorithm is chosen for, so that a row's bits do not depend on m; 0: m itself
} fm_gemm;

extern "C" bool fm_cuda_blas_open(fm_stream *s); // false: noted as the stream's error, which says what was looked for
void fm_cuda_blas_close(fm_stream *s);
extern "C" void fm_cuda_gemm(fm_stream *s, const fm_gemm *g); // any of m, n, k may be 0

// bf16 matrices want rows of a multiple of 16 bytes.
static inline size_t fm_bf16_ld(size_t cols)
{
    return (cols + 7) / 8 * 8;
}

#endif
