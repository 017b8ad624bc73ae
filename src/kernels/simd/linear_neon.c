/* linear_neon.c - matrix products for NEON: the templates with that set's vectors. */
#include "kernels/simd/linear_vec_neon.h"

#include "kernels/simd/linear_float.h"
#include "kernels/simd/pack.h"

void fm_linear_fill_neon(fm_kernels *k)
{
    pack_fill(k);
    linear_fill(k);
}
