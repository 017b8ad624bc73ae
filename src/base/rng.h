/* rng.h - a counter-based generator: a value is a pure function of (seed, stream, counter), so that what is drawn does not
 * depend on who draws first.  Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). */
#ifndef FM_BASE_RNG_H
#define FM_BASE_RNG_H

#include <stdint.h>

/* Four independent 32-bit words for key (seed, stream's low word is part of the counter): see rng.c. */
void fm_rng_words(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter);

double fm_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter); /* [0, 1), 53 bits */
float fm_rng_normal(uint64_t seed, uint64_t stream, uint64_t counter);   /* mean 0, sd 1 (Box-Muller) */

#endif
