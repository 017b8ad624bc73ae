/* vec_neon.h - the vector layer in aarch64 NEON: 4 floats.  Contracts as in vec_avx512.h. */
#ifndef FM_KERNELS_SIMD_VEC_NEON_H
#define FM_KERNELS_SIMD_VEC_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

enum { VLEN = 4, VREGISTERS = 32 };
typedef float32x4_t vf;
typedef size_t vtail;

FM_INLINE vf vset(float a) { return vdupq_n_f32(a); }
FM_INLINE vf vload(const float *p) { return vld1q_f32(p); }
FM_INLINE void vstore(float *p, vf a) { vst1q_f32(p, a); }

FM_INLINE vtail vtail_of(size_t n) { return n; }
FM_INLINE vf vload_tail(const float *p, vtail t)
{
    float lanes[4] = {0.0f};
    memcpy(lanes, p, t * sizeof(float));
    return vld1q_f32(lanes);
}

FM_INLINE void vstore_tail(float *p, vf a, vtail t)
{
    float lanes[4];
    vst1q_f32(lanes, a);
    memcpy(p, lanes, t * sizeof(float));
}

FM_INLINE vf vtail_select(vtail t, vf inside, vf outside)
{
    static const uint32_t lane[4] = {0, 1, 2, 3};
    return vbslq_f32(vcltq_u32(vld1q_u32(lane), vdupq_n_u32((uint32_t)t)), inside, outside);
}

FM_INLINE vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
FM_INLINE vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
FM_INLINE vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
FM_INLINE vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
FM_INLINE vf vsqrt(vf a) { return vsqrtq_f32(a); }
FM_INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
FM_INLINE vf vfnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
FM_INLINE vf vabs(vf a) { return vabsq_f32(a); }
FM_INLINE vf vmin(vf a, vf b) { return vminq_f32(a, b); }
FM_INLINE vf vmax(vf a, vf b) { return vmaxq_f32(a, b); }
FM_INLINE vf vround(vf a) { return vrndnq_f32(a); }

FM_INLINE vf vpow2(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

FM_INLINE vf vscale(vf a, vf n)
{
    const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(a, vpow2(half)), vpow2(vsubq_s32(whole, half)));
}

FM_INLINE vf vsplit(vf t, vf *n)
{
    const vf cut = vmin(vset(200.0f), vmax(vset(-200.0f), t));
    *n = vround(cut);
    return vsub(cut, *n);
}

/* Adding 1.5 * 2^23 rounds to a whole number, which *n then has in its low bits: on top of the exponent they scale. */
enum { VNEAR_FASTER = 1 };
FM_INLINE vf vsplit_near(vf t, vf *n)
{
    const vf whole = vset(12582912.0f);
    *n = vadd(t, whole);
    return vsub(t, vsub(*n, whole));
}

FM_INLINE vf vscale_near(vf a, vf n)
{
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(vreinterpretq_s32_f32(n), 23)));
}

FM_INLINE bool vall_le(vf a, vf b)
{
    return vminvq_u32(vcleq_f32(a, b)) != 0;
}

/* 64-bit lanes: products of their low halves. */
typedef uint64_t vwide __attribute__((vector_size(16)));
FM_INLINE vwide vwide_product(vwide a, vwide b) { return (vwide)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b)); }

FM_INLINE float vsum(vf a)
{
    const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(b, b), 0);
}

FM_INLINE float vmax_lane(vf a) { return vmaxvq_f32(a); }

typedef struct vsquares {
    float64x2_t lo, hi;
} vsquares;

FM_INLINE vsquares vsquares_zero(void)
{
    return (vsquares){vdupq_n_f64(0.0), vdupq_n_f64(0.0)};
}

FM_INLINE vsquares vsquares_add(vsquares s, vf a)
{
    const float64x2_t lo = vcvt_f64_f32(vget_low_f32(a)), hi = vcvt_high_f64_f32(a);
    return (vsquares){vfmaq_f64(s.lo, lo, lo), vfmaq_f64(s.hi, hi, hi)};
}

FM_INLINE double vsquares_sum(vsquares s) { return vaddvq_f64(vaddq_f64(s.lo, s.hi)); }

#endif
