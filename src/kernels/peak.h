/* peak.h - what this machine can do at most: loops that multiply and add in registers or read memory, and nothing else.
 *
 * `fmamba bench --roofline` and `kernelcheck --bench` time them to say which fraction of it a kernel reaches.  A loop runs on one
 * core; the caller runs it on as many as it wants to know about. */
#ifndef FM_KERNELS_PEAK_H
#define FM_KERNELS_PEAK_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

/* The arithmetic that products are made of.  AMX stands alone: what it can do is no measure for kernels that do without. */
typedef enum fm_peak_kind {
    FM_PEAK_F32,
    FM_PEAK_BF16,
    FM_PEAK_I8,
    FM_PEAK_AMX_BF16,
    FM_PEAK_AMX_I8,
    FM_PEAK_COUNT
} fm_peak_kind;

typedef struct fm_peak {
    const char *how; /* the instruction: "vpdpbusd zmm"; NULL: the machine has none of this kind */
    double ops;      /* operations of a round; a multiplication and its addition are two */
    void (*run)(size_t rounds);
} fm_peak;

typedef struct fm_peaks {
    fm_peak kind[FM_PEAK_COUNT];
    /* The sum of n bytes as 64-bit words: one stream that only goes up, the fastest way to read.  n is a multiple of 256 and p is
     * aligned to 64. */
    uint64_t (*read)(const void *p, size_t n);
} fm_peaks;

/* The loops that these features (base/cpu.h) allow. */
void fm_peaks_for(fm_peaks *out, unsigned features);

/* The arithmetic in which weights of this type are multiplied, AMX aside: int8 for quantised ones, bf16 where the machine has
 * it. */
fm_peak_kind fm_peak_of(const fm_peaks *p, fm_dtype weights);

/* The same for printing: "f32", "bf16", "int8", "amx-bf16", "amx-int8". */
const char *fm_peak_name(fm_peak_kind kind);

void fm_peaks_fill_x86(fm_peaks *p, unsigned features);
void fm_peaks_fill_neon(fm_peaks *p, unsigned features);

#endif
