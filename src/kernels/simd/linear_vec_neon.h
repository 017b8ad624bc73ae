/* linear_vec_neon.h - what the product templates need of NEON, with or without SDOT (see linear_vec_avx512.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_VEC_H
#define FM_KERNELS_SIMD_LINEAR_VEC_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

enum { LANES = 4, PANELS = 2, TOKENS = 4, TOKENS_SMALL = 4, F_ROWS = 4, F_TOKENS = 4 };

typedef uint32_t iv __attribute__((vector_size(16)));
typedef float fv __attribute__((vector_size(16)));

FM_INLINE iv iv_set1(uint32_t v) { return (iv)vdupq_n_u32(v); }
FM_INLINE fv fv_set1(float v) { return (fv)vdupq_n_f32(v); }

FM_INLINE fv fv_load(const void *p)
{
    fv v;
    memcpy(&v, p, sizeof v);
    return v;
}

FM_INLINE void fv_store(float *p, fv v) { vst1q_f32(p, (float32x4_t)v); }
FM_INLINE fv fv_fma(fv a, fv b, fv c) { return (fv)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
FM_INLINE fv fv_from_int(iv v) { return (fv)vcvtq_f32_s32((int32x4_t)v); }

FM_INLINE uint16x4_t load_halves(const void *p)
{
    uint16x4_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

FM_INLINE fv fv_load_f16(const void *p) { return (fv)vcvt_f32_f16(vreinterpret_f16_u16(load_halves(p))); }
FM_INLINE fv fv_load_bf16(const void *p) { return (fv)vshll_n_u16(load_halves(p), 16); }

/* The low half of every lane as an f16. */
FM_INLINE fv fv_from_half(iv v) { return (fv)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v))); }

FM_INLINE float fv_sum(fv v)
{
    const float32x2_t pair = vadd_f32(vget_low_f32((float32x4_t)v), vget_high_f32((float32x4_t)v));
    return vget_lane_f32(vpadd_f32(pair, pair), 0);
}

FM_INLINE iv iv_lookup(const int8_t *table16, iv index) { return (iv)vqtbl1q_s8(vld1q_s8(table16), (uint8x16_t)index); }

/* 16 bytes of every row at `off`: out[j] holds word j of all rows. */
FM_INLINE void iv_load_rows(iv out[4], const uint8_t *const *row, size_t off)
{
    const uint32x4_t a = (uint32x4_t)vld1q_u8(row[0] + off), b = (uint32x4_t)vld1q_u8(row[1] + off);
    const uint32x4_t c = (uint32x4_t)vld1q_u8(row[2] + off), d = (uint32x4_t)vld1q_u8(row[3] + off);
    const uint64x2_t ac0 = (uint64x2_t)vtrn1q_u32(a, b), ac1 = (uint64x2_t)vtrn2q_u32(a, b);
    const uint64x2_t bd0 = (uint64x2_t)vtrn1q_u32(c, d), bd1 = (uint64x2_t)vtrn2q_u32(c, d);
    out[0] = (iv)vtrn1q_u64(ac0, bd0);
    out[1] = (iv)vtrn1q_u64(ac1, bd1);
    out[2] = (iv)vtrn2q_u64(ac0, bd0);
    out[3] = (iv)vtrn2q_u64(ac1, bd1);
}

/* acc + sums of products of signed 16-bit pairs. */
FM_INLINE iv iv_dot16(iv acc, iv a, iv b)
{
    const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return acc + (iv)vpaddq_s32(low, high);
}

FM_INLINE iv iv_kept(iv sum)
{
    return sum;
}

/* Codes and inputs are both signed here, and every code fits. */
enum { DOT_CHAIN = 1, FULL_OFFSET = 0, FEW_FREE = 0 };
#define FEW_LONG  0
#define FEW_TWICE 0u

FM_INLINE iv dot_step(iv acc, iv w, iv x, bool first, bool full)
{
    const int8x16_t a = (int8x16_t)w, b = (int8x16_t)x;
    (void)first, (void)full;
#ifdef __ARM_FEATURE_DOTPROD
    return (iv)vdotq_s32((int32x4_t)acc, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return (iv)vpadalq_s16((int32x4_t)acc, vpaddq_s16(low, high)); /* 2 * 128 * 127 fits */
#endif
}

#endif
