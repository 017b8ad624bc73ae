/* linear_avx2.c - matrix products for AVX2: the templates with that set's vectors. */
#include "kernels/simd/linear_vec_avx2.h"

#include "kernels/simd/linear_float.h"
#include "kernels/simd/linear_gemv_avx2.h"
#include "kernels/simd/linear_stream.h"
#include "kernels/simd/pack.h"

void fm_linear_fill_avx2(fm_kernels *k)
{
    pack_fill(k);
    linear_fill(k);
    gemv_fill(k);
}

void fm_linear_stream_avx2(fm_kernels *k)
{
    linear_fill_stream(k);
}
