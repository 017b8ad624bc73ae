/* sha256.c - SHA-256 (FIPS 180-4) in plain C, and with the x86 SHA instructions where the processor has them. */
#include "base/sha256.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#include <cpuid.h>
#endif
#endif

/* Shorter runs are not worth the question: where the compiler keeps no answer it takes microseconds in a virtual machine. */
#define ASK_BYTES 2048

static const uint32_t round_constant[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (24 - 8 * i));
}

/* The message schedule W of section 6.2.2, step 1. */
static void expand(uint32_t w[64], const unsigned char *p)
{
    for (int t = 0; t < 16; t++) w[t] = load_be32(p + 4 * t);
    for (int t = 16; t < 64; t++) {
        const uint32_t x = w[t - 15], y = w[t - 2];
        const uint32_t s0 = rotate(x, 7) ^ rotate(x, 18) ^ x >> 3;
        const uint32_t s1 = rotate(y, 17) ^ rotate(y, 19) ^ y >> 10;
        w[t] = s1 + w[t - 7] + s0 + w[t - 16];
    }
}

/* Round t of step 3.  Instead of the eight names moving down by one each round, v[] is read from a place that moves: after
 * eight rounds every name is back where it began. */
static inline void one_round(uint32_t v[8], int t, uint32_t wk)
{
    const uint32_t a = v[-t & 7], b = v[(1 - t) & 7], c = v[(2 - t) & 7];
    const uint32_t e = v[(4 - t) & 7], f = v[(5 - t) & 7], g = v[(6 - t) & 7];
    const uint32_t big0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const uint32_t big1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const uint32_t t1 = v[(7 - t) & 7] + big1 + ((e & f) ^ (~e & g)) + wk;
    v[(3 - t) & 7] += t1;
    v[(7 - t) & 7] = t1 + big0 + ((a & b) ^ (a & c) ^ (b & c));
}

/* One block, steps 1 to 4. */
static void compress(uint32_t h[8], const unsigned char *p)
{
    uint32_t w[64], v[8];
    expand(w, p);
    memcpy(v, h, sizeof(v));
    for (int t = 0; t < 64; t += 8) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) one_round(v, i, round_constant[t + i] + w[t + i]);
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

static void add_blocks_plain(uint32_t h[8], const unsigned char *p, size_t n_blocks)
{
    for (; n_blocks > 0; n_blocks--, p += 64) compress(h, p);
}

#if defined(__x86_64__)

/* GCC's runtime asks the processor once, when the program starts; clang does not know this name. */
static int has_sha_instructions(void)
{
#if defined(__clang__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_SSE4_1) == 0 || (c & bit_SSSE3) == 0) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA) != 0;
#else
    return __builtin_cpu_supports("sha") && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
#endif
}

/* The instructions keep the eight words as two vectors, ABEF and CDGH (highest word first), and do two rounds each. */
__attribute__((target("sha,sse4.1,ssse3"))) static void add_blocks_sha(uint32_t h[8], const unsigned char *p, size_t n_blocks)
{
    const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    __m128i abef = _mm_set_epi32((int)h[0], (int)h[1], (int)h[4], (int)h[5]);
    __m128i cdgh = _mm_set_epi32((int)h[2], (int)h[3], (int)h[6], (int)h[7]);
    for (; n_blocks > 0; n_blocks--, p += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last sixteen words of the schedule, four a vector */
        for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const __m128i k = _mm_loadu_si128((const __m128i *)(const void *)&round_constant[4 * i]);
            const __m128i now = w[i & 3], wk = _mm_add_epi32(now, k);
            const __m128i next = _mm_sha256rnds2_epu32(cdgh, abef, wk);
            cdgh = abef;
            abef = next;
            const __m128i after = _mm_sha256rnds2_epu32(cdgh, abef, _mm_shuffle_epi32(wk, 0x0E));
            cdgh = abef;
            abef = after;
            /* W[t..t+3] four vectors on, in the place of `now`: it takes W[t-15], W[t-7] and W[t-2]. */
            const __m128i w7 = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
            const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(i + 1) & 3]), w7);
            w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]);
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t x[4], y[4];
    _mm_storeu_si128((__m128i *)(void *)x, abef);
    _mm_storeu_si128((__m128i *)(void *)y, cdgh);
    const uint32_t out[8] = {x[3], x[2], y[3], y[2], x[1], x[0], y[1], y[0]};
    memcpy(h, out, sizeof(out));
}

static void add_blocks(uint32_t h[8], const unsigned char *p, size_t n_blocks)
{
    if (n_blocks >= ASK_BYTES / 64 && has_sha_instructions()) {
        add_blocks_sha(h, p, n_blocks);
    } else {
        add_blocks_plain(h, p, n_blocks);
    }
}

#else

static void add_blocks(uint32_t h[8], const unsigned char *p, size_t n_blocks)
{
    add_blocks_plain(h, p, n_blocks);
}

#endif

void fm_sha256_begin(fm_sha256 *s)
{
    *s = (fm_sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void fm_sha256_add(fm_sha256 *s, const void *p, size_t n)
{
    if (n == 0) return;
    const unsigned char *u = p;
    const size_t held = (size_t)(s->n % 64);
    s->n += n;
    if (held > 0) {
        const size_t part = n < 64 - held ? n : 64 - held;
        memcpy(s->block + held, u, part);
        u += part;
        n -= part;
        if (held + part < 64) return;
        add_blocks_plain(s->h, s->block, 1);
    }
    add_blocks(s->h, u, n / 64);
    memcpy(s->block, u + n / 64 * 64, n % 64);
}

void fm_sha256_end(fm_sha256 *s, unsigned char out[32])
{
    static const unsigned char padding[64] = {0x80};
    const uint64_t n_bits = s->n * 8;
    unsigned char length[8];
    store_be32(length, (uint32_t)(n_bits >> 32));
    store_be32(length + 4, (uint32_t)n_bits);
    fm_sha256_add(s, padding, (size_t)(119 - s->n % 64) % 64 + 1);
    fm_sha256_add(s, length, sizeof(length));
    for (int i = 0; i < 8; i++) store_be32(out + 4 * i, s->h[i]);
}

void fm_hex(char *out, const unsigned char *p, size_t n)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digit[p[i] >> 4];
        out[2 * i + 1] = digit[p[i] & 15];
    }
    out[2 * n] = '\0';
}
