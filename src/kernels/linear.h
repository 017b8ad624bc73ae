/* linear.h - the matrix products of the op table: what the fillers share, and the layout of packed inputs.
 *
 * A quantised product is defined to the bit (docs/linear-kernels.md), so every table gives the same numbers for quantised
 * weights; tables differ only in how they sum products with float weights. */
#ifndef FM_KERNELS_LINEAR_H
#define FM_KERNELS_LINEAR_H

#include "base/compiler.h"
#include "kernels/kernels.h"

/* Inputs are packed in records of 256 columns, block-major: record (b, t) of an (n, cols) input lies at index b * n + t. */
enum { FM_X_COLS = FM_PACK_COLS };

/* FM_X_Q8_256: one block. */
typedef struct fm_x256 {
    int8_t q[256];
    int16_t sum16[16]; /* sums of q over runs of 16 */
    int16_t sum32[8];  /* and of 32 */
    float d;
} fm_x256;

/* FM_X_Q8_32: up to eight blocks; what lies beyond cols is zero. */
typedef struct fm_x32 {
    int8_t q[256];
    float d[8];
    float ds[8];     /* d * sum of q */
    int32_t nsum[8]; /* - sum of q */
} fm_x32;

/* FM_X_F32: rows of this many floats, zeros beyond cols. */
FM_INLINE size_t fm_x_f32_stride(size_t cols) { return (cols + 15) / 16 * 16; }

/* Each sets pack_x_bytes, pack_x and linear for every type.  neon_dotprod is neon with the 8-bit dot product instructions. */
void fm_linear_fill_ref(fm_kernels *k);
void fm_linear_fill_avx2(fm_kernels *k);
void fm_linear_fill_avx512(fm_kernels *k);
void fm_linear_fill_avx512_vnni(fm_kernels *k);
void fm_linear_fill_neon(fm_kernels *k);
void fm_linear_fill_neon_dotprod(fm_kernels *k);

/* The values of IQ4_NL and IQ4_XS codes (spec falcon-mamba.md 4.4). */
#define FM_IQ4_VALUES {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

#endif
