/* peak.c - the loops any machine has, and which of the better ones it gets. */
#include "kernels/peak.h"

#include "base/compiler.h"

enum { SUMS = 12 };

static void multiply_scalar(size_t rounds)
{
    float sum[SUMS] = {0}, a = 0.5f, b = 0.25f;
    while (rounds-- > 0) {
#pragma GCC unroll 12
        for (size_t i = 0; i < SUMS; i++) {
            __asm__ volatile("" : "+r"(a));
            sum[i] += a * b;
        }
    }
    __asm__ volatile("" : : "r"(sum) : "memory");
}

typedef uint64_t words __attribute__((vector_size(64)));

static uint64_t read_words(const void *p, size_t n)
{
    const words *v = p;
    words sum[4] = {{0}};
    for (size_t i = 0; i < n / sizeof *v; i += FM_COUNT(sum)) {
#pragma GCC unroll 4
        for (size_t k = 0; k < FM_COUNT(sum); k++) sum[k] += v[i + k];
    }
    uint64_t total = 0;
    for (size_t lane = 0; lane < 8; lane++) total += sum[0][lane] + sum[1][lane] + sum[2][lane] + sum[3][lane];
    return total;
}

void fm_peaks_for(fm_peaks *out, unsigned features)
{
    *out = (fm_peaks){.read = read_words};
    out->kind[FM_PEAK_F32] = (fm_peak){"scalar", 2.0 * SUMS, multiply_scalar};
#if defined(__x86_64__)
    fm_peaks_fill_x86(out, features);
#elif defined(__aarch64__)
    fm_peaks_fill_neon(out, features);
#else
    (void)features;
#endif
}

fm_peak_kind fm_peak_of(const fm_peaks *p, fm_dtype weights)
{
    if (!fm_dtype_get(weights)->is_float) return p->kind[FM_PEAK_I8].how ? FM_PEAK_I8 : FM_PEAK_F32;
    return weights == FM_BF16 && p->kind[FM_PEAK_BF16].how ? FM_PEAK_BF16 : FM_PEAK_F32;
}

const char *fm_peak_name(fm_peak_kind kind)
{
    static const char *const names[FM_PEAK_COUNT] = {"f32", "bf16", "int8", "amx-bf16", "amx-int8"};
    return names[kind];
}
