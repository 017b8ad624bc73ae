/* cpu.c - what the processor can do, and how many of them this process may use. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "base/cpu.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)

#define XCR0_AVX    0x06u /* the system saves XMM and YMM */
#define XCR0_AVX512 0xE6u /* and the mask and ZMM registers */
#define XCR0_TILES  0x60000u

#define CPUID_AMX_TILE (1u << 24) /* leaf 7, edx */
#define CPUID_AMX_INT8 (1u << 25)

#define REQUEST_STATE 0x1023 /* ARCH_REQ_XCOMP_PERM of Linux 5.16 */
#define TILE_DATA     18

static unsigned read_xcr0(void)
{
    unsigned a = 0, d = 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static unsigned avx512_features(unsigned ebx, unsigned ecx)
{
    const unsigned need = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
    if ((ebx & need) != need) return 0;
    unsigned features = FM_CPU_AVX512;
    if ((ecx & bit_AVX512VNNI) != 0) features |= FM_CPU_AVX512_VNNI;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16) != 0) features |= FM_CPU_AVX512_BF16;
    return features;
}

/* Older kernels, filters of system calls, and alternate signal stacks too small for tiles refuse; then there are none. */
static unsigned amx_features(unsigned edx, unsigned xcr0)
{
    const unsigned need = CPUID_AMX_TILE | CPUID_AMX_INT8;
    if ((edx & need) != need || (xcr0 & XCR0_TILES) != XCR0_TILES) return 0;
    return syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0 ? FM_CPU_AMX_INT8 : 0;
}

/* AMD's family 19h is Zen 3 and Zen 4, of which the second has AVX-512; Zen 3 wants rows side by side. */
static unsigned stream_features(unsigned ebx)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx || c != signature_AMD_ecx || d != signature_AMD_edx) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    return family >= 0x19 && (ebx & bit_AVX512F) != 0 ? FM_CPU_STREAM : 0;
}

unsigned fm_cpu_features(void)
{
    const unsigned need = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need) != need) return 0;
    const unsigned xcr0 = read_xcr0();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_AVX2) == 0) return 0;
    unsigned features = FM_CPU_AVX2 | stream_features(b);
    if ((xcr0 & XCR0_AVX512) != XCR0_AVX512) return features;
    features |= avx512_features(b, c);
    if ((features & FM_CPU_AVX512_VNNI) != 0) features |= amx_features(d, xcr0);
    return features;
}

#elif defined(__aarch64__)

#define HWCAP_SDOT (1ul << 20) /* HWCAP_ASIMDDP of the kernel's list */

unsigned fm_cpu_features(void)
{
    const bool dot = (getauxval(AT_HWCAP) & HWCAP_SDOT) != 0;
    return dot ? FM_CPU_NEON | FM_CPU_DOTPROD : FM_CPU_NEON;
}

#else

unsigned fm_cpu_features(void)
{
    return 0;
}

#endif

/* What "auto" leaves alone: the dot product of bf16 pairs rounds its inputs to bf16, which is to be asked for by name.  (AMD's
 * has twice the rate of fp32 multiply-adds.  Intel's has half: 83 and 165 * 10^9 operations a second on an Emerald Rapids
 * core.) */
#define FM_CPU_BY_NAME FM_CPU_AVX512_BF16

/* What each table name needs, and all it may use. */
typedef struct cap {
    const char *table;
    unsigned needs, allows;
} cap;

enum { AVX2 = FM_CPU_AVX2 | FM_CPU_STREAM, AVX512 = AVX2 | FM_CPU_AVX512, VNNI = AVX512 | FM_CPU_AVX512_VNNI };

static const cap caps[] = {
    {"ref", 0, 0},
    {"avx2", FM_CPU_AVX2, AVX2},
    {"avx512", FM_CPU_AVX512, AVX512},
    {"avx512+vnni", FM_CPU_AVX512 | FM_CPU_AVX512_VNNI, VNNI},
    {"avx512+vnni+bf16", FM_CPU_AVX512 | FM_CPU_AVX512_VNNI | FM_CPU_AVX512_BF16, VNNI | FM_CPU_AVX512_BF16},
    {"avx512+vnni+amx", FM_CPU_AMX_INT8, VNNI | FM_CPU_AMX_INT8},
    {"neon", FM_CPU_NEON, FM_CPU_NEON},
    {"neon+dotprod", FM_CPU_NEON | FM_CPU_DOTPROD, FM_CPU_NEON | FM_CPU_DOTPROD},
};

static fm_status fail_table(const char *table, fm_error *err)
{
    char list[256] = "auto";
    for (size_t i = 0, n = strlen(list); i < FM_COUNT(caps) && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, ", %s", caps[i].table);
    return fm_fail(err, FM_ERR_ARGUMENT, "unknown kernel table \"%s\"; expected one of %s", table, list);
}

fm_status fm_cpu_cap(unsigned *out, const char *table, fm_error *err)
{
    *out = 0;
    const unsigned have = fm_cpu_features();
    if (table == NULL || strcmp(table, "auto") == 0) {
        *out = have & ~(unsigned)FM_CPU_BY_NAME;
        return FM_OK;
    }
    for (size_t i = 0; i < FM_COUNT(caps); i++) {
        if (strcmp(table, caps[i].table) != 0) continue;
        if ((have & caps[i].needs) != caps[i].needs) {
            return fm_fail(err, FM_ERR_UNSUPPORTED,
                           "this processor cannot run the \"%s\" kernels; "
                           "use \"auto\" or \"ref\"",
                           table);
        }
        *out = have & caps[i].allows;
        return FM_OK;
    }
    return fail_table(table, err);
}

/* A mask is for CPU_SETSIZE = 1024 processors; larger machines need a larger one. */
static unsigned affinity_count(void)
{
    cpu_set_t set[8];
    for (size_t n = 1; n <= FM_COUNT(set); n *= 2) {
        memset(set, 0, sizeof(set));
        if (sched_getaffinity(0, n * sizeof(set[0]), set) == 0) return (unsigned)CPU_COUNT_S(n * sizeof(set[0]), set);
    }
    return 1;
}

/* The first line of a small file of the system, cut to `n` bytes; an empty one when it cannot be read. */
static fm_view read_line(char *line, size_t n, const char *path)
{
    fm_view v = {line, 0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : read(fd, line, n); /* the system gives such files in one piece */
    if (fd >= 0) close(fd);
    while ((ssize_t)v.n < got && line[v.n] != '\n') v.n++;
    return v;
}

/* CPUs that quota microseconds of every period amount to, rounded up; 0: no limit. */
static unsigned quota_cpus(fm_view quota, fm_view period)
{
    uint64_t q = 0, p = 0;
    if (!fm_parse_u64(quota, &q) || !fm_parse_u64(period, &p) || q == 0 || p == 0) return 0;
    const uint64_t n = q / p + (q % p != 0 ? 1 : 0);
    return n < UINT32_MAX ? (unsigned)n : 0;
}

/* cgroup v2, "<quota or max> <period>". */
static unsigned cpu_max(const char *dir)
{
    char line[64], path[512];
    if (snprintf(path, sizeof path, "%s/cpu.max", dir) >= (int)sizeof path) return 0;
    const fm_view v = read_line(line, sizeof(line), path);
    const char *blank = v.n == 0 ? NULL : memchr(v.p, ' ', v.n);
    if (blank == NULL) return 0;
    const size_t n = (size_t)(blank - v.p);
    return quota_cpus((fm_view){v.p, n}, (fm_view){blank + 1, v.n - n - 1});
}

static unsigned smaller_limit(unsigned a, unsigned b)
{
    if (a == 0 || b == 0) return a + b;
    return a < b ? a : b;
}

/* Every directory from this process's own group up to the root may set a limit. */
static unsigned cgroup2_cpus(void)
{
    static const char root[] = "/sys/fs/cgroup";
    char line[256], dir[sizeof(root) + sizeof(line)];
    const fm_view v = read_line(line, sizeof(line), "/proc/self/cgroup");
    unsigned limit = cpu_max(root);
    if (!fm_view_starts(v, "0::/")) return limit;
    size_t n = sizeof(root) - 1;
    memcpy(dir, root, n);
    memcpy(dir + n, v.p + 3, v.n - 3);
    n += v.n - 3;
    while (n > sizeof(root)) {
        dir[n] = '\0';
        limit = smaller_limit(limit, cpu_max(dir));
        while (dir[n - 1] != '/') n--;
        n--;
    }
    return limit;
}

static unsigned cgroup1_cpus(void)
{
    char quota[64], period[64];
    const fm_view q = read_line(quota, sizeof(quota), "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    const fm_view p = read_line(period, sizeof(period), "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return quota_cpus(q, p); /* "-1", no limit, is no quota */
}

unsigned fm_cpu_count(void)
{
    const unsigned limit = smaller_limit(cgroup2_cpus(), cgroup1_cpus());
    const unsigned n = smaller_limit(affinity_count(), limit);
    return n == 0 ? 1 : n < FM_THREADS_MAX ? n : FM_THREADS_MAX;
}
