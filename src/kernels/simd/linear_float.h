/* linear_float.h - products with F32, F16 and BF16 weights by fused multiply-add of widened columns, and the fillers of the
 * product templates (after linear_vec_<isa>.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_FLOAT_H
#define FM_KERNELS_SIMD_LINEAR_FLOAT_H

#include "kernels/simd/linear_product.h"
#include "kernels/simd/linear_quant.h"
#include "kernels/simd/linear_words.h"

static void linear_f32(const fm_run *run, const fm_linear_args *a)
{
    linear_words(run, a, WORD_F32);
}

static void linear_f16(const fm_run *run, const fm_linear_args *a)
{
    linear_words(run, a, WORD_F16);
}

static void linear_bf16(const fm_run *run, const fm_linear_args *a)
{
    linear_words(run, a, WORD_BF16);
}

static void pack_words_f32(const fm_pack_args *a)
{
    pack_words(a, WORD_F32);
}

/* After pack_fill: inputs of float products have a layout of their own. */
static void linear_fill(fm_kernels *k)
{
    for (int t = 0; t < FM_DTYPE_COUNT; t++)
        if (quant_kinds[t].unpack) k->linear[t] = linear_quant;
    k->linear[FM_F32] = linear_f32;
    k->linear[FM_F16] = linear_f16;
    k->linear[FM_BF16] = linear_bf16;
    k->pack_x[FM_X_F32] = pack_words_f32;
    k->pack_x[FM_X_BF16] = pack_words_f32;
    k->product = product;
    k->product_floats = product_floats;
}

#endif
