/* avx512.c - the tables for AVX-512: with its F, BW, DQ, VL and CD parts, and with VNNI (8-bit dot
 * products) and BF16 (dot products of pairs) besides. */
#include "kernels/simd/vec_avx512.h"

#include "kernels/linear.h"
#include "kernels/simd/backward.h"
#include "kernels/simd/elementwise.h"
#include "kernels/simd/optim.h"

void fm_kernels_fill_avx512(fm_kernels *k)
{
    fill_elementwise(k, "avx512");
    fill_backward(k);
    fill_optim(k);
    fm_linear_fill_avx512(k);
}

void fm_kernels_fill_avx512_vnni(fm_kernels *k)
{
    k->name = "avx512+vnni";
    fm_linear_fill_avx512_vnni(k);
}

void fm_kernels_fill_avx512_bf16(fm_kernels *k)
{
    k->name = "avx512+vnni+bf16";
    fm_linear_fill_avx512_bf16(k);
}
