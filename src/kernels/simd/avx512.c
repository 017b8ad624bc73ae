/* avx512.c - the tables for AVX-512: with its F, BW, DQ, VL and CD parts, and with the 8-bit dot products of VNNI besides. */
#include "kernels/simd/vec_avx512.h"

#include "kernels/linear.h"
#include "kernels/simd/backward.h"
#include "kernels/simd/elementwise.h"

void fm_kernels_fill_avx512(fm_kernels *k)
{
    fill_elementwise(k, "avx512");
    fill_backward(k);
    fm_linear_fill_avx512(k);
}

void fm_kernels_fill_avx512_vnni(fm_kernels *k)
{
    k->name = "avx512+vnni";
    fm_linear_fill_avx512_vnni(k);
}
