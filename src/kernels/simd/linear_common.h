/* linear_common.h - what the product templates share (after an instruction set's linear_vec_<isa>.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_COMMON_H
#define FM_KERNELS_SIMD_LINEAR_COMMON_H

#include "kernels/linear.h"
#include "kernels/simd/unroll.h"

enum { GRANULE = 16 };

FM_INLINE uint32_t word_at(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Which of two NaNs a sum hands on is the compiler's choice, tile by tile, so every NaN leaves as the same one. */
static void finish_rows(const fm_linear_args *a, size_t r, size_t rows, size_t t, const float *v)
{
    float *y = a->y + t * a->y_stride + r;
    for (size_t i = 0; i < rows; i++) {
        float s = v[i];
        if (a->bias) s += a->bias[r + i];
        if (a->add) s += y[i];
        y[i] = s == s ? s : __builtin_nanf("");
    }
}

#endif
