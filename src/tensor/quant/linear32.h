/* linear32.h - the four plain formats of 32 elements: Q4_0, Q4_1, Q5_0, Q5_1.
 *
 * A block is f16 d; f16 m (if has_min); u8 h[4] (if has_fifth); u8 q[16].  With a minimum w = d * code + m, without one
 * w = d * (code - half), half = 8 or 16. */
#ifndef FM_TENSOR_QUANT_LINEAR32_H
#define FM_TENSOR_QUANT_LINEAR32_H

#include "tensor/traits.h"

typedef struct fm_linear32 {
    bool has_min, has_fifth;
} fm_linear32;

void fm_linear32_decode(const fm_linear32 *format, float *dst, const void *src, size_t n);
void fm_linear32_encode(const fm_linear32 *format, void *dst, const float *src, const float *importance, size_t n);

#endif
