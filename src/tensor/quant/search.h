/* search.h - the searches for a block's scale: given numbers and weights, find the scale (and offset) whose rounded multiples
 * come nearest, in weighted squares.
 *
 * Each search tries a fixed list of inverse scales and keeps the first best one.  The order of every float operation is that of
 * ggml's reference writers, so that the bits agree; trials run four abreast.  n <= 32 everywhere. */
#ifndef FM_TENSOR_QUANT_SEARCH_H
#define FM_TENSOR_QUANT_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Below this largest magnitude a group counts as zero. */
#define FM_TINY_GROUP 1e-15f

/* How an affine search walks: inverse scales (levels + first + k * step) / (max - min), k = 0 .. trials - 1. */
typedef struct fm_affine_plan {
    int levels; /* largest code */
    float first, step;
    int trials;
    bool absolute; /* weigh |error| instead of its square */
} fm_affine_plan;

/* The plan of every affine format when columns have importance. */
#define FM_AFFINE_PLAN_IMPORTANCE(LEVELS)                                                                                      \
    {                                                                                                                          \
        (LEVELS), -0.9f, 0.05f, 37, false                                                                                      \
    }

/* x[i] ~ scale * codes[i] - *offset, codes 0 .. plan->levels, *offset >= 0.  Returns the scale. */
float fm_fit_affine(const float *x, const float *weight, size_t n, const fm_affine_plan *plan, uint8_t *codes, float *offset);

/* x[i] ~ scale * (codes[i] - half), codes 0 .. 2 half - 1.  A tiny group gives 0 and codes of 0. */
float fm_fit_signed(const float *x, const float *weight, size_t n, int half, uint8_t *codes);

/* The same by exchanging single codes while that helps, at most five sweeps, with weights x^2. */
float fm_fit_signed_exchange(const float *x, size_t n, int half, uint8_t *codes);

/* x[i] ~ scale * codes[i] for x >= 0, codes 0 .. levels. */
float fm_fit_positive(const float *x, const float *weight, size_t n, int levels, uint8_t *codes);

/* The element of largest magnitude, sign kept, the first on ties; 0 when there is none. */
float fm_peak(const float *x, size_t n);

float fm_sum_squares(const float *x, size_t n);
float fm_sum(const float *x, size_t n);

/* weight[i] = importance[i] * sqrt(sigma2 + x[i]^2): an error costs more where the column matters and the element is large. */
void fm_importance_weights(float *weight, const float *x, const float *importance, size_t n, float sigma2);

#endif
