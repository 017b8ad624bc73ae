/* cpu.h - what this processor can do, as feature bits. */
#ifndef FM_BASE_CPU_H
#define FM_BASE_CPU_H

#include "base/error.h"

enum {
    FM_CPU_AVX2 = 1u << 0,   /* with FMA and F16C */
    FM_CPU_AVX512 = 1u << 1, /* F, BW, DQ, VL, CD */
    FM_CPU_AVX512_VNNI = 1u << 2,
    FM_CPU_AVX512_BF16 = 1u << 3,
    FM_CPU_NEON = 1u << 4,     /* aarch64 baseline */
    FM_CPU_DOTPROD = 1u << 5,  /* aarch64 SDOT/UDOT */
    FM_CPU_AMX_INT8 = 1u << 6, /* tiles of bytes; only where VNNI is too */
    /* No instructions but a manner: a core reads one ascending stream as fast as memory gives it, and prefetches into the second
     * level do nothing by themselves.  AMD from Zen 4 on, not Zen 3 (docs/linear-kernels.md); only where AVX2 is. */
    FM_CPU_STREAM = 1u << 7,
};

/* Features of this machine (operating system support included).  Tiles need a permission of Linux, which this asks for where
 * the processor has them: it holds for the whole process and its children, and makes their signal frames 8 KiB larger. */
unsigned fm_cpu_features(void);

/* The features a table name allows on this machine: "ref" none, "avx2", "avx512", "avx512+vnni", "avx512+vnni+bf16",
 * "avx512+vnni+amx", "neon", "neon+dotprod" what they say; NULL or "auto" all but the bf16 dot products, which round inputs.
 * *out is 0 and err filled when the name is unknown or the machine lacks it. */
fm_status fm_cpu_cap(unsigned *out, const char *table, fm_error *err);

#define FM_THREADS_MAX 1024u /* of a pool */

/* CPUs this process may use: affinity mask and cgroup cpu.max, 1 .. FM_THREADS_MAX. */
unsigned fm_cpu_count(void);

#endif
