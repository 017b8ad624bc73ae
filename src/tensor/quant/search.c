/* search.c - scale searches with the trials in lanes. */
#include "tensor/quant/search.h"

#include "base/compiler.h"
#include "tensor/quant/codes.h"
#include "tensor/quant/lanes.h"

#include <math.h>
#include <string.h>

enum { GROUP_MAX = 32, SWEEPS = 5 };

float fm_peak(const float *x, size_t n)
{
    float peak = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    }
    return peak;
}

float fm_sum_squares(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

float fm_sum(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

void fm_importance_weights(float *weight, const float *x, const float *importance, size_t n, float sigma2)
{
    for (size_t i = 0; i < n; i++) weight[i] = importance[i] * sqrtf(sigma2 + x[i] * x[i]);
}

/* ---- affine ---- */

/* A group between trials.  A trial that is better than all before it moves the minimum that later trials start from. */
typedef struct affine_group {
    const float *x, *weight;
    size_t n;
    const fm_affine_plan *plan;
    float min, max;          /* of the group, min at most 0; min then follows the best trial */
    float sum_weight, sum_x; /* weighted */
} affine_group;

typedef struct affine_fit {
    float inverse, base; /* what gave the codes: round(inverse * (x - base)) */
    float scale, min, error;
} affine_fit;

static affine_group affine_measure(const float *x, const float *weight, size_t n, const fm_affine_plan *plan)
{
    affine_group g = {x, weight, n, plan, x[0], x[0], weight[0], weight[0] * x[0]};
    for (size_t i = 1; i < n; i++) {
        if (x[i] < g.min) g.min = x[i];
        if (x[i] > g.max) g.max = x[i];
        g.sum_weight += weight[i];
        g.sum_x += weight[i] * x[i];
    }
    if (g.min > 0.0f) g.min = 0.0f;
    return g;
}

static int affine_code(const affine_fit *f, float x, int levels)
{
    return fm_clamp_int(fm_round_even(f->inverse * (x - f->base)), 0, levels);
}

/* The fit to begin with: the whole range, unrefined. */
static affine_fit affine_range(const affine_group *g)
{
    const float inverse = (float)g->plan->levels / (g->max - g->min);
    affine_fit fit = {inverse, g->min, 1.0f / inverse, g->min, 0.0f};
    for (size_t i = 0; i < g->n; i++) {
        const float diff = fit.scale * (float)affine_code(&fit, g->x[i], g->plan->levels) + g->min - g->x[i];
        fit.error += g->weight[i] * (g->plan->absolute ? fabsf(diff) : diff * diff);
    }
    return fit;
}

/* Codes of element i in four trials. */
static inline fm_lanes affine_codes4(const affine_group *g, fm_lanes inverse, size_t i)
{
    const fm_lanes top = fm_lanes_all((float)g->plan->levels), zero = fm_lanes_all(0.0f);
    fm_lanes code = fm_lanes_round(inverse * (g->x[i] - g->min));
    code = fm_lanes_pick(code < zero, zero, code);
    return fm_lanes_pick(code > top, top, code);
}

/* The weighted error of four trials. */
static fm_lanes affine_error4(const affine_group *g, fm_lanes inverse, fm_lanes scale, fm_lanes min)
{
    fm_lanes error = fm_lanes_all(0.0f);
    if (g->plan->absolute) {
        for (size_t i = 0; i < g->n; i++) {
            fm_lanes diff = scale * affine_codes4(g, inverse, i) + min - g->x[i];
            error += g->weight[i] * (fm_lanes)((fm_lane_mask)diff & 0x7fffffff);
        }
        return error;
    }
    for (size_t i = 0; i < g->n; i++) {
        fm_lanes diff = scale * affine_codes4(g, inverse, i) + min - g->x[i];
        error += g->weight[i] * (diff * diff);
    }
    return error;
}

/* Trials k .. k + 3 from the group's minimum: least squares over scale and minimum for the codes of each.  One whose
 * equations are singular gets an infinite error. */
static void affine_try4(const affine_group *g, int k, affine_fit *out)
{
    const fm_affine_plan *plan = g->plan;
    float inverse[FM_LANES];
    fm_lanes inv, codes = fm_lanes_all(0.0f), squares = codes, products = codes;
    for (int j = 0; j < FM_LANES; j++)
        inverse[j] = (plan->first + plan->step * (float)(k + j) + (float)plan->levels) / (g->max - g->min);
    memcpy(&inv, inverse, sizeof inv);
    for (size_t i = 0; i < g->n; i++) {
        fm_lanes code = affine_codes4(g, inv, i), wc = g->weight[i] * code;
        codes += wc;
        squares += wc * code;
        products += wc * g->x[i];
    }
    fm_lanes det = g->sum_weight * squares - codes * codes;
    fm_lanes scale = (g->sum_weight * products - g->sum_x * codes) / det;
    fm_lanes min = (squares * g->sum_x - codes * products) / det;
    fm_lane_mask above = min > 0.0f;
    scale = fm_lanes_pick(above, products / squares, scale);
    min = fm_lanes_pick(above, fm_lanes_all(0.0f), min);
    fm_lanes error = affine_error4(g, inv, scale, min);
    error = fm_lanes_pick(det > 0.0f, error, fm_lanes_all(INFINITY));
    for (size_t j = 0; j < FM_LANES; j++) out[j] = (affine_fit){inverse[j], g->min, scale[j], min[j], error[j]};
}

/* Goes on from trial k; returns the trial to go on with: behind the first that is better than `best`, which it becomes. */
static int affine_advance(affine_group *g, int k, affine_fit *best)
{
    affine_fit fits[FM_LANES];
    affine_try4(g, k, fits);
    for (int j = 0; j < FM_LANES && k + j < g->plan->trials; j++) {
        if (!(fits[j].error < best->error)) continue;
        *best = fits[j];
        g->min = best->min;
        return k + j + 1;
    }
    return k + FM_LANES;
}

float fm_fit_affine(const float *x, const float *weight, size_t n, const fm_affine_plan *plan, uint8_t *codes, float *offset)
{
    affine_group g = affine_measure(x, weight, n, plan);
    *offset = -g.min;
    if (g.max <= g.min) {
        memset(codes, 0, n);
        return 0.0f;
    }
    affine_fit best = affine_range(&g);
    for (int k = 0; k < plan->trials;) k = affine_advance(&g, k, &best);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)affine_code(&best, x[i], plan->levels);
    *offset = -best.min;
    return best.scale;
}

/* ---- signed ---- */

/* Sums over (x, code) from which the best scale follows: xc / cc, explaining xc^2 / cc of the weighted squares. */
typedef struct sums {
    float xc, cc;
} sums;

static int signed_code(float inverse, float x, int half)
{
    return fm_clamp_int(fm_round_even(inverse * x), -half, half - 1);
}

static void signed_try4(const float *x, const float *weight, size_t n, int half, const float *inverse, sums *out)
{
    fm_lanes inv, xc = fm_lanes_all(0.0f), cc = xc;
    fm_lanes low = fm_lanes_all((float)-half), top = fm_lanes_all((float)(half - 1));
    memcpy(&inv, inverse, sizeof inv);
    for (size_t i = 0; i < n; i++) {
        fm_lanes code = fm_lanes_round(inv * x[i]);
        code = fm_lanes_pick(code > top, top, code);
        code = fm_lanes_pick(code < low, low, code);
        xc += weight[i] * x[i] * code;
        cc += weight[i] * code * code;
    }
    for (size_t k = 0; k < FM_LANES; k++) out[k] = (sums){xc[k], cc[k]};
}

float fm_fit_signed(const float *x, const float *weight, size_t n, int half, uint8_t *codes)
{
    enum { TRIALS = 20 }; /* the plain one, nine on either side, and one to fill the lanes */
    float peak = fm_peak(x, n), inverse[TRIALS] = {0};
    if (fabsf(peak) < FM_TINY_GROUP) {
        memset(codes, 0, n);
        return 0.0f;
    }
    inverse[0] = (float)-half / peak;
    for (int k = 1; k <= 18; k++) {
        int step = k <= 9 ? k - 10 : k - 9;
        inverse[k] = -((float)half + 0.1f * (float)step) / peak;
    }
    sums s[TRIALS];
    for (size_t k = 0; k < TRIALS; k += FM_LANES) signed_try4(x, weight, n, half, inverse + k, s + k);
    float scale = s[0].cc != 0.0f ? s[0].xc / s[0].cc : 0.0f;
    float best = scale * s[0].xc, chosen = inverse[0];
    for (size_t k = 1; k < TRIALS - 1; k++) {
        if (!(s[k].cc > 0.0f && s[k].xc * s[k].xc > best * s[k].cc)) continue;
        scale = s[k].xc / s[k].cc;
        best = scale * s[k].xc;
        chosen = inverse[k];
    }
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(signed_code(chosen, x[i], half) + half);
    return scale;
}

/* ---- exchange of single codes ---- */

typedef struct code_range {
    int low, top;
} code_range;

/* One pass: with the other codes held, each element's best code under the scale they imply, taken when it explains more. */
static bool exchange_sweep(const float *x, const float *weight, size_t n, code_range range, int *codes, sums *s)
{
    bool changed = false;
    for (size_t i = 0; i < n; i++) {
        float w = weight[i], c = (float)codes[i];
        sums rest = {s->xc - w * x[i] * c, s->cc - w * c * c};
        if (!(rest.xc > 0.0f) || (range.low == 0 && !(rest.cc > 0.0f))) continue;
        int code = fm_clamp_int(fm_round_even(x[i] * rest.cc / rest.xc), range.low, range.top);
        if (code == codes[i]) continue;
        c = (float)code;
        rest.xc += w * x[i] * c;
        rest.cc += w * c * c;
        if (!(rest.cc > 0.0f && rest.xc * rest.xc * s->cc > s->xc * s->xc * rest.cc)) continue;
        codes[i] = code;
        *s = rest;
        changed = true;
    }
    return changed;
}

static float exchange(const float *x, const float *weight, size_t n, code_range range, int *codes)
{
    sums s = {0.0f, 0.0f};
    for (size_t i = 0; i < n; i++) {
        float c = (float)codes[i];
        s.xc += weight[i] * x[i] * c;
        s.cc += weight[i] * c * c;
    }
    for (int sweep = 0; sweep < SWEEPS && exchange_sweep(x, weight, n, range, codes, &s); sweep++) {
    }
    return s.cc > 0.0f ? s.xc / s.cc : 0.0f;
}

float fm_fit_signed_exchange(const float *x, size_t n, int half, uint8_t *codes)
{
    float peak = fm_peak(x, n), weight[GROUP_MAX] = {0};
    int c[GROUP_MAX];
    FM_ASSERT(n <= GROUP_MAX);
    if (fabsf(peak) < FM_TINY_GROUP) {
        memset(codes, 0, n);
        return 0.0f;
    }
    const float inverse = (float)-half / peak;
    for (size_t i = 0; i < n; i++) {
        weight[i] = x[i] * x[i];
        c[i] = signed_code(inverse, x[i], half);
    }
    float scale = exchange(x, weight, n, (code_range){-half, half - 1}, c);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)(c[i] + half);
    return scale;
}

/* ---- positive ---- */

static int positive_code(float inverse, float x, int levels)
{
    return fm_clamp_int(fm_round_even(inverse * x), 0, levels);
}

static float positive_error(const float *x, const float *weight, size_t n, int levels, float inverse)
{
    float error = 0.0f, scale = 1.0f / inverse;
    for (size_t i = 0; i < n; i++) {
        float diff = x[i] - scale * (float)positive_code(inverse, x[i], levels);
        error += weight[i] * diff * diff;
    }
    return error;
}

float fm_fit_positive(const float *x, const float *weight, size_t n, int levels, uint8_t *codes)
{
    float max = 0.0f;
    int c[GROUP_MAX];
    FM_ASSERT(n <= GROUP_MAX);
    for (size_t i = 0; i < n; i++) max = max > x[i] ? max : x[i];
    if (max < FM_TINY_GROUP) {
        memset(codes, 0, n);
        return 0.0f;
    }
    float best = (float)levels / max, least = positive_error(x, weight, n, levels, best);
    for (int k = -4; k <= 4; k++) {
        float inverse = (0.1f * (float)k + (float)levels) / max;
        float error = positive_error(x, weight, n, levels, inverse);
        if (!(error < least)) continue;
        least = error;
        best = inverse;
    }
    for (size_t i = 0; i < n; i++) c[i] = positive_code(best, x[i], levels);
    float scale = exchange(x, weight, n, (code_range){0, levels}, c);
    for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)c[i];
    return scale;
}
