/* rng.h - a counter-based generator: a value is a pure function of (seed, stream, counter), so that what is drawn does not
 * depend on who draws first.  Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
#ifndef FM_BASE_RNG_H
#define FM_BASE_RNG_H

#include <stdint.h>

/* One of the FM_RNG_ROUNDS rounds on the four words of a counter; the key moves on by the Weyl constants after each. */
#define FM_RNG_ROUNDS       10
#define FM_RNG_MULTIPLIER_0 0xD2511F53u
#define FM_RNG_MULTIPLIER_1 0xCD9E8D57u
#define FM_RNG_WEYL_0       0x9E3779B9u /* golden ratio */
#define FM_RNG_WEYL_1       0xBB67AE85u /* sqrt(3) - 1 */

static inline void fm_rng_round(uint32_t *c0, uint32_t *c1, uint32_t *c2, uint32_t *c3, uint32_t k0, uint32_t k1)
{
    const uint64_t a = (uint64_t)FM_RNG_MULTIPLIER_0 * *c0, b = (uint64_t)FM_RNG_MULTIPLIER_1 * *c2;
    *c0 = (uint32_t)(b >> 32) ^ *c1 ^ k0;
    *c1 = (uint32_t)b;
    *c2 = (uint32_t)(a >> 32) ^ *c3 ^ k1;
    *c3 = (uint32_t)a;
}

/* Four independent 32-bit words for key (seed, stream's low word is part of the counter): see rng.c. */
void fm_rng_words(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter);

double fm_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter); /* [0, 1), 53 bits */
float fm_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);   /* mean 0, sd 1 (Box-Muller) */

#endif
