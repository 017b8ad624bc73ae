/* peak_neon.c - peak arithmetic of 64-bit ARM. */
#include <arm_neon.h>

#include "base/cpu.h"
#include "kernels/peak.h"

enum { SUMS = 12 }; /* as in peak_x86.c */

#define PEAK(name, isa, vec, wide, first, step)                                                                                \
    static isa void name(size_t rounds)                                                                                        \
    {                                                                                                                          \
        wide sum[SUMS] = {{0}};                                                                                                \
        vec a = (first), b = (first);                                                                                          \
        while (rounds-- > 0) {                                                                                                 \
            _Pragma("GCC unroll 12") for (size_t i = 0; i < SUMS; i++)                                                         \
            {                                                                                                                  \
                __asm__ volatile("" : "+w"(a), "+w"(b));                                                                       \
                sum[i] = (step);                                                                                               \
            }                                                                                                                  \
        }                                                                                                                      \
        _Pragma("GCC unroll 12") for (size_t i = 0; i < SUMS; i++) __asm__ volatile("" : : "w"(sum[i]));                       \
    }

#define BASELINE
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))

PEAK(fma_128, BASELINE, float32x4_t, float32x4_t, vdupq_n_f32(0.5f), vfmaq_f32(sum[i], a, b))
PEAK(dot_128, DOTPROD, int8x16_t, int32x4_t, vdupq_n_s8(1), vdotq_s32(sum[i], a, b))

void fm_peaks_fill_neon(fm_peaks *p, unsigned features)
{
    if (features & FM_CPU_NEON) p->kind[FM_PEAK_F32] = (fm_peak){"fmla", 2.0 * SUMS * 4, fma_128};
    if (features & FM_CPU_DOTPROD) p->kind[FM_PEAK_I8] = (fm_peak){"sdot", 2.0 * SUMS * 16, dot_128};
}
