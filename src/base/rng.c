/* rng.c - Philox4x32-10 as published (rng.h): the counter is (counter, stream), the key is the seed, low words first. */
#include "base/rng.h"

#include <math.h>

#define TWO_PI 6.28318530717958647692

static uint32_t low(uint64_t v)
{
    return (uint32_t)v;
}

static uint32_t high(uint64_t v)
{
    return (uint32_t)(v >> 32);
}

void fm_rng_words(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c[4] = {low(counter), high(counter), low(stream), high(stream)};
    uint32_t k0 = low(seed), k1 = high(seed);
    for (int i = 0; i < FM_RNG_ROUNDS; i++) {
        fm_rng_round(&c[0], &c[1], &c[2], &c[3], k0, k1);
        k0 += FM_RNG_WEYL_0;
        k1 += FM_RNG_WEYL_1;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

/* 53 bits of two words: the numbers k / 2^53, all of them exact. */
static double unit(uint32_t a, uint32_t b)
{
    const uint64_t bits = (uint64_t)(a >> 5) << 26 | b >> 6;
    return (double)bits * 0x1p-53;
}

double fm_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t w[4];
    fm_rng_words(w, seed, stream, counter);
    return unit(w[0], w[1]);
}

float fm_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t w[4];
    fm_rng_words(w, seed, stream, counter);
    const double radius = sqrt(-2.0 * log(1.0 - unit(w[0], w[1]))); /* (0, 1]: never log 0 */
    return (float)(radius * cos(TWO_PI * unit(w[2], w[3])));
}
