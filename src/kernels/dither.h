/* dither.h - how a state in bf16 rounds, after every token.
 *
 * A state that decays slowly changes by less than half a step of bf16 from token to token: rounded to nearest it would never move
 * again.  So it rounds up with the probability of what is cut off, and the "random" number is a function of the token's place in
 * its sequence, the channel and the state, so that the bits depend on neither batch nor cut.  From token to token it goes on by
 * the golden ratio, which spreads the numbers of neighbours evenly: one token's error is made up for by the next ones', better
 * than chance would (docs/gpu-kernels.md has figures). */
#ifndef FM_KERNELS_DITHER_H
#define FM_KERNELS_DITHER_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FM_DITHER static __host__ __device__ inline
#else
#define FM_DITHER static inline
#endif

/* A word has the numbers of two states, 16 bits each: what it grows by from token to token and from pair to pair. */
#define FM_DITHER_TOKEN 0x9e3779b1u
#define FM_DITHER_PAIR  0xc2b2ae35u

/* Of states `state` and `state` + 1 of a channel, at a sequence's token number `token`; `state` is even. */
FM_DITHER uint32_t fm_dither_word(uint32_t channel, uint32_t state, uint32_t token)
{
    uint32_t x = channel * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return (x ^ x >> 16) + state / 2 * FM_DITHER_PAIR + token * FM_DITHER_TOKEN;
}

/* The bits of a float, rounded to those of a bf16 in the upper half; the lower one is zero.  `state` says which of the word's
 * two it is.  Infinities stay what they are, and what is no number stays none. */
FM_DITHER uint32_t fm_dither_bits(uint32_t bits, uint32_t word, uint32_t state)
{
    const uint32_t up = state % 2 ? word & 0xffffu : word >> 16;
    return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + up) & 0xffff0000u;
}

FM_DITHER float fm_dither(float h, uint32_t word, uint32_t state)
{
    uint32_t bits;
    memcpy(&bits, &h, sizeof bits);
    bits = fm_dither_bits(bits, word, state);
    memcpy(&h, &bits, sizeof h);
    return h;
}

#endif
