/* iq4.h - codes into a fixed table of 16 unevenly spaced values, shared by IQ4_NL and IQ4_XS. */
#ifndef FM_TENSOR_QUANT_IQ4_H
#define FM_TENSOR_QUANT_IQ4_H

#include <stddef.h>
#include <stdint.h>

enum { FM_IQ4_GROUP = 32 };

/* dst[i] = scale * table[code i], 32 elements in 16 bytes. */
void fm_iq4_decode(float *dst, const uint8_t *q, float scale);

/* The scale that fits 32 numbers best, errors weighted by x^2, or by importance * sqrt(sigma2 + x^2) where that is given. */
float fm_iq4_fit(const float *x, const float *importance, float sigma2);

/* The nearest table entry of every inverse * x[i], packed. */
void fm_iq4_codes(uint8_t *q, const float *x, float inverse);

#endif
