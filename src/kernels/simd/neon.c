/* neon.c - the table for aarch64. */
#include "kernels/simd/vec_neon.h"

#include "kernels/linear.h"
#include "kernels/simd/backward.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/optim.h"

void fm_kernels_fill_neon(fm_kernels *k)
{
    fill_elementwise(k, "neon");
    fill_backward(k);
    fill_optim(k);
    fm_linear_fill_neon(k);
}
