/* linear.h - the matrix products of the op table: what the fillers share, and the layout of packed inputs.
 *
 * A quantised product is defined to the bit (docs/linear-kernels.md), so every table gives the same numbers for quantised
 * weights; tables differ only in how they sum products with float weights. */
#ifndef FM_KERNELS_LINEAR_H
#define FM_KERNELS_LINEAR_H

#include "base/compiler.h"
#include "kernels/kernels.h"

/* Inputs are packed in records of 256 columns, block-major: record (b, t) of an (n, cols) input lies at index b * n + t.  A
 * record is whole cache lines and begins with its bytes, so that 64 of them never lie in two lines where records are aligned. */
enum { FM_X_COLS = FM_PACK_COLS };

/* FM_X_Q8_256: one block. */
typedef struct fm_x256 {
    int8_t q[256];
    int16_t sum16[16]; /* sums of q over runs of 16 */
    int16_t sum32[8];  /* and of 32 */
    float d;
    uint8_t unused[12];
} fm_x256;

/* FM_X_Q8_32: up to eight blocks; what lies beyond cols is zero. */
typedef struct fm_x32 {
    int8_t q[256];
    float d[8];
    float ds[8];     /* d * sum of q */
    int32_t nsum[8]; /* - sum of q */
    uint8_t unused[32];
} fm_x32;

_Static_assert(sizeof(fm_x256) == 320 && sizeof(fm_x32) == 384, "whole cache lines");

/* FM_X_F32 and FM_X_BF16: rows of this many floats, zeros beyond cols, in the reference, whose bf16 lie in floats.  Other tables
 * have layouts of their own (simd/linear_words.h), which fit into as many floats for as many tokens. */
FM_INLINE size_t fm_x_f32_stride(size_t cols)
{
    return (cols + 15) / 16 * 16;
}

/* From FM_X_MANY tokens on, float products take tiles of tokens; FM_X_TILE is a multiple of every table's. */
enum { FM_X_MANY = 16, FM_X_TILE = 12 };

/* Each sets pack_x_bytes, pack_x and linear for every type; avx512_bf16 those for weights BF16 alone, amx those of quantised
 * ones.  neon_dotprod is neon with the 8-bit dot product instructions. */
void fm_linear_fill_ref(fm_kernels *k);
void fm_linear_fill_avx2(fm_kernels *k);
void fm_linear_fill_avx512(fm_kernels *k);
void fm_linear_fill_avx512_vnni(fm_kernels *k);
void fm_linear_fill_avx512_bf16(fm_kernels *k);
void fm_linear_fill_amx(fm_kernels *k);
void fm_linear_fill_neon(fm_kernels *k);
void fm_linear_fill_neon_dotprod(fm_kernels *k);

/* After the filler of the same name, for cores that read one ascending stream best (FM_CPU_STREAM): products of one token with
 * F32 and F16 take short rows one after the other, to the same bits. */
void fm_linear_stream_avx2(fm_kernels *k);
void fm_linear_stream_avx512(fm_kernels *k);

/* The products of avx512_vnni for any quantised type: what the table amx does with too few tokens for tiles. */
void fm_linear_few_avx512_vnni(const fm_run *run, const fm_linear_args *a);

/* The values of IQ4_NL and IQ4_XS codes (spec falcon-mamba.md 4.4). */
#define FM_IQ4_VALUES                                                                                                          \
    {                                                                                                                          \
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113                                               \
    }

#endif
