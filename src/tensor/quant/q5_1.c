/* q5_1.c - 32 elements of 5 bits with a scale and a minimum (see linear32.h). */
#include "tensor/quant/linear32.h"

static const fm_linear32 format = {.has_min = true, .has_fifth = true};

static void decode(float *dst, const void *src, size_t n)
{
    fm_linear32_decode(&format, dst, src, n);
}

static void encode(void *dst, const float *src, const float *importance, size_t n)
{
    fm_linear32_encode(&format, dst, src, importance, n);
}

const fm_dtype_traits fm_dtype_Q5_1 = FM_DTYPE_TRAITS(Q5_1, false, decode, encode);
