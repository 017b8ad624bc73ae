/* super.h - what the formats of 256 elements with integer group scales share: fitting the groups, rounding their scales to small
 * integers, and choosing the codes again for the scales that were stored. */
#ifndef FM_TENSOR_QUANT_SUPER_H
#define FM_TENSOR_QUANT_SUPER_H

#include "tensor/quant/codes.h"
#include "tensor/quant/search.h"

enum { FM_GROUPS_MAX = 16 };

/* Q2_K, Q4_K, Q5_K: element = d * scale[g] * code - dmin * min[g]. */
typedef struct fm_affine_kind {
    size_t group;      /* elements per group: 16 or 32 */
    int top;           /* largest integer scale and minimum */
    bool by_magnitude; /* without importance an element weighs |x|, else |x| + the group's root mean square */
    float sigma;       /* with importance: sigma2 = sigma * mean square */
    fm_affine_plan plain, important;
} fm_affine_kind;

typedef struct fm_affine_super {
    uint8_t codes[FM_SUPER], scale[FM_GROUPS_MAX], min[FM_GROUPS_MAX];
    uint16_t d, dmin; /* halves */
} fm_affine_super;

void fm_super_fit_affine(fm_affine_super *s, const float *x, const float *importance, const fm_affine_kind *kind);

/* codes of 16 elements around `half` for a stored step d * scale; a step of 0 keeps them. */
void fm_super_signed_codes(uint8_t *codes, const float *x, float step, int half);

/* A number as a half stores it. */
static inline float fm_as_half(uint16_t h)
{
    return fm_f16_to_f32(h);
}

#endif
