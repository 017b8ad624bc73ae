/* super.c - see super.h.  The order of float operations is that of ggml's reference writers. */
#include "tensor/quant/super.h"

#include <math.h>

enum { GROUP_MAX = 32 };

static void plain_weights(float *weight, const float *x, const fm_affine_kind *kind)
{
    const float rms = kind->by_magnitude ? 0.0f : sqrtf(fm_sum_squares(x, kind->group) / (float)kind->group);
    for (size_t i = 0; i < kind->group; i++) weight[i] = rms + fabsf(x[i]);
}

typedef struct group_fit {
    float scale, min, weight; /* weight: the sum over its elements */
} group_fit;

static group_fit fit_group(uint8_t *codes, const float *x, const float *importance, const fm_affine_kind *kind, float sigma2)
{
    float weight[GROUP_MAX];
    group_fit f;
    if (importance) fm_importance_weights(weight, x, importance, kind->group, sigma2);
    else plain_weights(weight, x, kind);
    f.scale = fm_fit_affine(x, weight, kind->group, importance ? &kind->important : &kind->plain, codes, &f.min);
    f.weight = fm_sum(weight, kind->group);
    return f;
}

/* Integers 0 .. top for n non-negative floats, relative to the largest. */
static uint16_t round_to_largest(uint8_t *out, const float *v, size_t n, int top)
{
    float max = 0.0f;
    for (size_t i = 0; i < n; i++) max = v[i] > max ? v[i] : max;
    const float inverse = max > 0.0f ? (float)top / max : 0.0f;
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)fm_clamp_int(fm_round_even(inverse * v[i]), 0, top);
    return fm_finite_half(max > 0.0f ? max / (float)top : 0.0f);
}

static void choose_codes(fm_affine_super *s, const float *x, const fm_affine_kind *kind)
{
    for (size_t g = 0; g < FM_SUPER / kind->group; g++) {
        const float d = fm_as_half(s->d) * (float)s->scale[g], m = fm_as_half(s->dmin) * (float)s->min[g];
        if (d == 0.0f) continue;
        for (size_t i = g * kind->group; i < (g + 1) * kind->group; i++)
            s->codes[i] = (uint8_t)fm_clamp_int(fm_round_even((x[i] + m) / d), 0, kind->plain.levels);
    }
}

void fm_super_fit_affine(fm_affine_super *s, const float *x, const float *importance, const fm_affine_kind *kind)
{
    const size_t groups = FM_SUPER / kind->group;
    float scale[FM_GROUPS_MAX], min[FM_GROUPS_MAX], weight[FM_GROUPS_MAX];
    const float sigma2 = importance ? fm_sum_squares(x, FM_SUPER) * (kind->sigma / FM_SUPER) : 0.0f;
    for (size_t g = 0; g < groups; g++) {
        const size_t at = g * kind->group;
        const group_fit f = fit_group(s->codes + at, x + at, importance ? importance + at : NULL, kind, sigma2);
        scale[g] = f.scale, min[g] = f.min, weight[g] = f.weight;
    }
    if (importance) {
        s->d = fm_finite_half(fm_fit_positive(scale, weight, groups, kind->top, s->scale));
        s->dmin = fm_finite_half(fm_fit_positive(min, weight, groups, kind->top, s->min));
    } else {
        s->d = round_to_largest(s->scale, scale, groups, kind->top);
        s->dmin = round_to_largest(s->min, min, groups, kind->top);
    }
    choose_codes(s, x, kind);
}

void fm_super_signed_codes(uint8_t *codes, const float *x, float step, int half)
{
    if (step == 0.0f) return;
    for (size_t i = 0; i < 16; i++) codes[i] = (uint8_t)(fm_clamp_int(fm_round_even(x[i] / step), -half, half - 1) + half);
}
