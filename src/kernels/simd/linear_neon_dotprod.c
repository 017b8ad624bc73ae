/* linear_neon_dotprod.c - matrix products for NEON with the 8-bit dot product: the templates with that set's vectors. */
#include "kernels/simd/linear_vec_neon.h"

#include "kernels/simd/linear_float.h"
#include "kernels/simd/pack.h"

void fm_linear_fill_neon_dotprod(fm_kernels *k)
{
    pack_fill(k);
    linear_fill(k);
}
