/* draw.h - how a device draws a token: what runtime/sampler does with its usual order of samplers when no others take part. */
#ifndef FM_KERNELS_DRAW_H
#define FM_KERNELS_DRAW_H

#include <stdint.h>

/* temperature, min_p, top_k, top_p, then the draw */
typedef struct fm_draw {
    float temperature;  /* 0: the likeliest */
    float min_p, top_p; /* 0, 1: off */
    int32_t top_k;      /* 0 or less: off */
    double random;      /* [0, 1) */
} fm_draw;

#endif
