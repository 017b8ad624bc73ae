/* float.c - F32, F16 and BF16 rows, little-endian.  Importance means nothing to them: each element is rounded by itself. */
#include "base/compiler.h"
#include "tensor/traits.h"

#include <string.h>

static void f32_decode(float *dst, const void *src, size_t n)
{
    memcpy(dst, src, n * sizeof *dst);
}

static void f32_encode(void *dst, const float *src, FM_UNUSED const float *importance, size_t n)
{
    memcpy(dst, src, n * sizeof *src);
}

/* Through memcpy: a row in a mapped file need not be aligned. */
static uint16_t get_u16(const void *row, size_t i)
{
    uint16_t h;
    memcpy(&h, (const uint8_t *)row + 2 * i, sizeof h);
    return h;
}

static void put_u16(void *row, size_t i, uint16_t h)
{
    memcpy((uint8_t *)row + 2 * i, &h, sizeof h);
}

static void f16_decode(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++) dst[i] = fm_f16_to_f32(get_u16(src, i));
}

static void f16_encode(void *dst, const float *src, FM_UNUSED const float *importance, size_t n)
{
    for (size_t i = 0; i < n; i++) put_u16(dst, i, fm_f32_to_f16(src[i]));
}

static void bf16_decode(float *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++) dst[i] = fm_bf16_to_f32(get_u16(src, i));
}

static void bf16_encode(void *dst, const float *src, FM_UNUSED const float *importance, size_t n)
{
    for (size_t i = 0; i < n; i++) put_u16(dst, i, fm_f32_to_bf16(src[i]));
}

const fm_dtype_traits fm_dtype_F32 = FM_DTYPE_TRAITS(F32, true, f32_decode, f32_encode);
const fm_dtype_traits fm_dtype_F16 = FM_DTYPE_TRAITS(F16, true, f16_decode, f16_encode);
const fm_dtype_traits fm_dtype_BF16 = FM_DTYPE_TRAITS(BF16, true, bf16_decode, bf16_encode);
