/* linear_avx512.c - matrix products for AVX-512 without VNNI: the templates with that set's vectors, and AVX2's products of one
 * token. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_float.h"
#include "kernels/simd/linear_gemv_avx2.h"
#include "kernels/simd/linear_stream.h"
#include "kernels/simd/pack.h"

void fm_linear_fill_avx512(fm_kernels *k)
{
    pack_fill(k);
    linear_fill(k);
    gemv_fill(k);
}

void fm_linear_stream_avx512(fm_kernels *k)
{
    linear_fill_stream(k);
}
