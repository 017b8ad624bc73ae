/* unroll.h - loops whose indices must become constants, since only then do the vectors they index stay in registers. */
#ifndef FM_KERNELS_SIMD_UNROLL_H
#define FM_KERNELS_SIMD_UNROLL_H

#ifdef FM_ROLLED /* with sanitizers, which would take minutes over the unrolled code */
#define UNROLL
#elif defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* sanitizers keep some loops rolled */
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#endif
