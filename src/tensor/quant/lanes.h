/* lanes.h - four floats side by side: each trial of a scale search is a lane, so that the sums of one trial keep their order
 * while four trials run at once. */
#ifndef FM_TENSOR_QUANT_LANES_H
#define FM_TENSOR_QUANT_LANES_H

#include <stdint.h>

enum { FM_LANES = 4 };

typedef float fm_lanes __attribute__((vector_size(16)));
typedef int32_t fm_lane_mask __attribute__((vector_size(16)));

/* All ones where a comparison holds, so it selects bit by bit. */
static inline fm_lanes fm_lanes_pick(fm_lane_mask mask, fm_lanes yes, fm_lanes no)
{
    return (fm_lanes)((mask & (fm_lane_mask)yes) | (~mask & (fm_lane_mask)no));
}

static inline fm_lanes fm_lanes_all(float v)
{
    return (fm_lanes){v, v, v, v};
}

/* To the nearest integer, halves to even, |v| < 2^22. */
static inline fm_lanes fm_lanes_round(fm_lanes v)
{
    return (v + 0x1.8p23f) - 0x1.8p23f;
}

#endif
