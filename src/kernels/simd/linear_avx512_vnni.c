/* linear_avx512_vnni.c - products with quantised weights for AVX-512 with VNNI: the templates with that set's vectors, and its
 * own products of one token.  Floats gain nothing by it, so the rest is what avx512 has. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_gemv_vnni.h"

void fm_linear_fill_avx512_vnni(fm_kernels *k)
{
    fm_linear_fill_avx512(k);
    gemv_fill(k);
}

void fm_linear_few_avx512_vnni(const fm_run *run, const fm_linear_args *a)
{
    gemv[a->W->type](run, a);
}
