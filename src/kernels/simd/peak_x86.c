/* peak_x86.c - peak arithmetic of AVX2, AVX-512 and AMX.  Each function names its own instructions: with a file of flags for
 * each of six loops there would be more build than code. */
#define _GNU_SOURCE /* syscall */
#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/cpu.h"
#include "kernels/peak.h"

/* Two units of latency 5 need 10 sums in flight; 12 and two operands fit the 16 registers every x86 has.  The empty assembler
 * keeps the compiler from multiplying once for all rounds. */
enum { SUMS = 12 };

#define PEAK(name, isa, vec, first, step)                                                                                      \
    static __attribute__((target(isa))) void name(size_t rounds)                                                               \
    {                                                                                                                          \
        vec sum[SUMS], a = (first), b = (first);                                                                               \
        __asm__ volatile("" : "+x"(a), "+x"(b));                                                                               \
        _Pragma("GCC unroll 12") for (size_t i = 0; i < SUMS; i++) sum[i] = a;                                                 \
        while (rounds-- > 0) {                                                                                                 \
            _Pragma("GCC unroll 12") for (size_t i = 0; i < SUMS; i++)                                                         \
            {                                                                                                                  \
                __asm__ volatile("" : "+x"(a));                                                                                \
                sum[i] = (step);                                                                                               \
            }                                                                                                                  \
        }                                                                                                                      \
        _Pragma("GCC unroll 12") for (size_t i = 0; i < SUMS; i++) __asm__ volatile("" : : "x"(sum[i]));                       \
    }

PEAK(fma_256, "avx2,fma", __m256, _mm256_set1_ps(0.5f), _mm256_fmadd_ps(a, b, sum[i]))
PEAK(maddubs_256, "avx2", __m256i, _mm256_set1_epi16(1),
     _mm256_add_epi32(sum[i], _mm256_madd_epi16(b, _mm256_maddubs_epi16(a, b))))
PEAK(fma_512, "avx512f", __m512, _mm512_set1_ps(0.5f), _mm512_fmadd_ps(a, b, sum[i]))
PEAK(maddubs_512, "avx512bw", __m512i, _mm512_set1_epi16(1),
     _mm512_add_epi32(sum[i], _mm512_madd_epi16(b, _mm512_maddubs_epi16(a, b))))
PEAK(vnni_512, "avx512f,avx512vnni", __m512i, _mm512_set1_epi8(1), _mm512_dpbusd_epi32(sum[i], a, b))
PEAK(bf16_512, "avx512f,avx512bf16", __m512, _mm512_set1_ps(0.5f), _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)b))

static __attribute__((target("avx512f"))) uint64_t read_512(const void *p, size_t n)
{
    const char *at = p;
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    for (const char *end = at + n; at < end; at += 256) {
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) sum[k] = _mm512_add_epi64(sum[k], _mm512_load_si512(at + 64 * k));
    }
    uint64_t lanes[8], total = 0; /* unsigned: what was read may be anything */
    _mm512_storeu_si512(lanes, _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3])));
    for (size_t k = 0; k < 8; k++) total += lanes[k];
    return total;
}

/* ---- AMX: four tiles of sums, fed by two and two, are what the unit can have in flight. ---- */

#define TILE_STATE 18 /* of the processor's list of states, which a process must ask the system for */

static bool amx_usable(unsigned bit)
{
    const long arch_req_xcomp_perm = 0x1023;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & (1u << 24)) == 0 || (d & bit) == 0) return false;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, TILE_STATE) == 0;
}

typedef struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static __attribute__((target("amx-tile"))) void begin_tiles(void)
{
    static const int8_t ones[1024] = {1};
    tile_config c = {.palette = 1};
    for (size_t i = 0; i < 8; i++) c.row_bytes[i] = 64, c.rows[i] = 16;
    __asm__ volatile("" : : "r"(&c) : "memory"); /* gcc 12 believes that the next line reads 8 bytes of it */
    _tile_loadconfig(&c);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
}

static __attribute__((target("amx-tile,amx-int8"))) void amx_i8(size_t rounds)
{
    begin_tiles();
    while (rounds-- > 0) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_release();
}

static __attribute__((target("amx-tile,amx-bf16"))) void amx_bf16(size_t rounds)
{
    begin_tiles();
    while (rounds-- > 0) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}

/* ---- The table ---- */

static fm_peak of_vectors(const char *how, unsigned lanes, void (*run)(size_t rounds))
{
    return (fm_peak){how, 2.0 * SUMS * lanes, run};
}

static void fill_avx512(fm_peaks *p, unsigned features)
{
    p->read = read_512;
    p->kind[FM_PEAK_F32] = of_vectors("vfmadd zmm", 16, fma_512);
    p->kind[FM_PEAK_I8] = of_vectors("vpmaddubsw zmm", 64, maddubs_512);
    if (features & FM_CPU_AVX512_VNNI) p->kind[FM_PEAK_I8] = of_vectors("vpdpbusd zmm", 64, vnni_512);
    if (features & FM_CPU_AVX512_BF16) p->kind[FM_PEAK_BF16] = of_vectors("vdpbf16ps zmm", 32, bf16_512);
}

void fm_peaks_fill_x86(fm_peaks *p, unsigned features)
{
    if (features & FM_CPU_AVX2) {
        p->kind[FM_PEAK_F32] = of_vectors("vfmadd ymm", 8, fma_256);
        p->kind[FM_PEAK_I8] = of_vectors("vpmaddubsw ymm", 32, maddubs_256);
    }
    if (features & FM_CPU_AVX512) fill_avx512(p, features);
    if ((features & FM_CPU_AVX512_BF16) && amx_usable(1u << 22))
        p->kind[FM_PEAK_AMX_BF16] = (fm_peak){"tdpbf16ps", 4 * 2.0 * 16 * 16 * 32, amx_bf16};
    if ((features & FM_CPU_AVX512_VNNI) && amx_usable(1u << 25))
        p->kind[FM_PEAK_AMX_I8] = (fm_peak){"tdpbusd", 4 * 2.0 * 16 * 16 * 64, amx_i8};
}
