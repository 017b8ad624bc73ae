/* ngram.h - guesses from what was written before: where did the last few tokens stand last time, and what followed?
 *
 * All memory is placed once; adding a token costs a fixed number of look-ups, whatever the history. */
#ifndef FM_RUNTIME_DRAFT_NGRAM_H
#define FM_RUNTIME_DRAFT_NGRAM_H

#include <stdint.h>

#include "base/arena.h"

enum { FM_NGRAM_MAX = 16, FM_NGRAM_LOOK = 32 }; /* longest n-gram that is indexed; longest agreement that is told apart */

typedef struct fm_ngram {
    size_t min, max; /* lengths that are indexed, longest first when looking */
    size_t cap;      /* tokens remembered: a power of two */
    uint64_t n;      /* tokens seen */
    int32_t *ring;   /* (cap) the last of them */
    uint64_t *ends;  /* (max - min + 1, 2 cap) where an n-gram ended last, by its hash; 0: nowhere */
    uint64_t match;  /* the guess: the token at this place comes again; 0: no guess */
    size_t length;   /* how many tokens before it agree with the last ones, at most FM_NGRAM_LOOK */
} fm_ngram;

void fm_ngram_place(fm_arena *a, fm_ngram *g);
void fm_ngram_clear(fm_ngram *g);
void fm_ngram_add(fm_ngram *g, int32_t id);
/* The token `i` places after the last one, if the past repeats; only with a match.  `guesses` holds those before it, since a
 * match near the end runs into them. */
int32_t fm_ngram_guess(const fm_ngram *g, const int32_t *guesses, size_t i);
static inline int32_t fm_ngram_at(const fm_ngram *g, uint64_t at)
{
    return g->ring[at & (g->cap - 1)];
}

#endif
