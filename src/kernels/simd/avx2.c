/* avx2.c - the table for AVX2 with FMA and F16C. */
#include "kernels/simd/vec_avx2.h"

#include "kernels/linear.h"
#include "kernels/simd/backward.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/optim.h"

void fm_kernels_fill_avx2(fm_kernels *k)
{
    fill_elementwise(k, "avx2");
    fill_backward(k);
    fill_optim(k);
    fm_linear_fill_avx2(k);
}
