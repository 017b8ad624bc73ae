/* iq4.c - the table of IQ4, its nearest entry, and the search for a group's scale. */
#include "tensor/quant/iq4.h"

#include "tensor/quant/codes.h"
#include "tensor/quant/lanes.h"
#include "tensor/quant/search.h"

#include <math.h>
#include <string.h>

enum { N = FM_IQ4_GROUP, ENTRIES = 16, SIDE = 7, TRIALS = 16 /* the plain one and SIDE on either side of -127 / peak */ };

static const float table[ENTRIES] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Where entry k + 1 takes over from entry k: half-way, the upper one on a tie. */
static inline float border(size_t k)
{
    return 0.5f * (table[k] + table[k + 1]);
}

void fm_iq4_decode(float *dst, const uint8_t *q, float scale)
{
    for (size_t i = 0; i < N / 2; i++) {
        dst[i] = scale * table[q[i] & 15];
        dst[i + N / 2] = scale * table[q[i] >> 4];
    }
}

/* The nearest entries themselves.  Sums of whole numbers this small are exact. */
static inline fm_lanes nearest4(fm_lanes v)
{
    fm_lanes entry = fm_lanes_all(table[0]);
    for (size_t k = 0; k + 1 < ENTRIES; k++) {
        fm_lanes step = fm_lanes_all(table[k + 1] - table[k]);
        entry += (fm_lanes)((v >= fm_lanes_all(border(k))) & (fm_lane_mask)step);
    }
    return entry;
}

void fm_iq4_codes(uint8_t *q, const float *x, float inverse)
{
    uint8_t codes[N];
    for (size_t i = 0; i < N; i += FM_LANES) {
        fm_lanes v;
        fm_lane_mask code = {0};
        memcpy(&v, x + i, sizeof v);
        v *= inverse;
        for (size_t k = 0; k + 1 < ENTRIES; k++) code -= v >= fm_lanes_all(border(k));
        for (size_t j = 0; j < FM_LANES; j++) codes[i + j] = (uint8_t)code[j];
    }
    fm_pack_nibbles(q, codes, N / 2);
}

/* Weighted sums of x * entry and entry^2 for four inverse scales. */
static void try4(const float *x, const float *weight, const float *inverse, float *xe, float *ee)
{
    fm_lanes inv, sum_xe = fm_lanes_all(0.0f), sum_ee = sum_xe;
    memcpy(&inv, inverse, sizeof inv);
    for (size_t i = 0; i < N; i++) {
        fm_lanes entry = nearest4(inv * x[i]), we = weight[i] * entry;
        sum_xe += we * x[i];
        sum_ee += we * entry;
    }
    memcpy(xe, &sum_xe, sizeof sum_xe);
    memcpy(ee, &sum_ee, sizeof sum_ee);
}

float fm_iq4_fit(const float *x, const float *importance, float sigma2)
{
    float weight[N], inverse[TRIALS], xe[TRIALS], ee[TRIALS], peak = fm_peak(x, N);
    if (fabsf(peak) < FM_TINY_GROUP) return 0.0f;
    if (importance) {
        fm_importance_weights(weight, x, importance, N, sigma2);
    } else {
        for (size_t i = 0; i < N; i++) weight[i] = x[i] * x[i];
    }
    inverse[0] = 1.0f / (-peak / table[0]);
    for (int k = 1; k < TRIALS; k++) inverse[k] = ((float)(k - 1 - SIDE) + table[0]) / peak;
    for (size_t k = 0; k < TRIALS; k += FM_LANES) try4(x, weight, inverse + k, xe + k, ee + k);
    float scale = ee[0] > 0.0f ? xe[0] / ee[0] : 0.0f, best = scale * xe[0];
    for (size_t k = 1; k < TRIALS; k++) {
        if (!(ee[k] > 0.0f && xe[k] * xe[k] > best * ee[k])) continue;
        scale = xe[k] / ee[k];
        best = scale * xe[k];
    }
    return scale;
}
