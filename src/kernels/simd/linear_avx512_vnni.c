/* linear_avx512_vnni.c - matrix products for AVX-512 with VNNI: the templates with that set's vectors, and its own products of
 * one token. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_float.h"
#include "kernels/simd/linear_gemv_vnni.h"
#include "kernels/simd/pack.h"

void fm_linear_fill_avx512_vnni(fm_kernels *k)
{
    pack_fill(k);
    linear_fill(k);
    gemv_fill(k);
}
