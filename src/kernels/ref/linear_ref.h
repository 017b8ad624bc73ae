/* linear_ref.h - what the files of the reference product show each other. */
#ifndef FM_KERNELS_REF_LINEAR_REF_H
#define FM_KERNELS_REF_LINEAR_REF_H

#include "kernels/linear.h"

/* 256 columns of one row as integers.  K types and IQ4_XS: w = d * scale[j / 16] * q - m * min[j / 16].  Types with blocks of 32:
 * w = d32 * q + m32.  INT4_G128: w = d32[j / 128] * q. */
typedef struct fm_codes {
    int8_t q[256];
    int16_t scale[16], min[16];
    float d, m;
    float d32[8], m32[8];
} fm_codes;

/* Reads one super-block, or `blocks` (<= 8) blocks of 32. */
void fm_codes_read(fm_codes *o, fm_dtype type, const uint8_t *src, size_t blocks);

void fm_pack_fill_ref(fm_kernels *k);

#endif
