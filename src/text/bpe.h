/* bpe.h - byte-pair merging on ids: the table of merges, and the merging of one piece of text. */
#ifndef FM_TEXT_BPE_H
#define FM_TEXT_BPE_H

#include "base/str.h"

typedef struct fm_merge {
    int32_t left, right, merged;
} fm_merge;

typedef struct fm_bpe_slot {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank; /* + 1; 0: empty */
    int32_t merged;
} fm_bpe_slot;

/* Read-only once built, so threads may share it. */
typedef struct fm_bpe {
    int32_t byte_id[256]; /* -1: a byte without a token, which encoding leaves out */
    fm_merge *merges;     /* (n_merges), by rank */
    size_t n_merges;
    fm_bpe_slot *slots; /* open addressing; n_slots is a power of two */
    size_t n_slots;
} fm_bpe;

/* Builds the hash table from merges[], which the caller has filled.  Of a pair given twice the first counts. */
fm_status fm_bpe_index(fm_bpe *b, const fm_allocator *a, fm_error *err);
void fm_bpe_free(fm_bpe *b, const fm_allocator *a);

/* Scratch of fm_bpe_merge(), grown as needed and reused from piece to piece; zero-initialise. */
typedef struct fm_bpe_symbol {
    int32_t id;
    uint32_t prev, next;
} fm_bpe_symbol;

typedef struct fm_bpe_candidate {
    uint32_t rank, at;   /* of the left symbol */
    int32_t left, right; /* what stood there when it was found */
    int32_t merged;
} fm_bpe_candidate;

typedef struct fm_bpe_work {
    fm_bpe_symbol *symbols;
    size_t n, cap;
    fm_bpe_candidate *heap;
    size_t heap_n, heap_cap;
    const fm_allocator *a;
} fm_bpe_work;

/* Merges one piece, lowest rank first, leftmost first on ties: O(n log n).  The result is w->symbols from the first one on
 * along `next`, until UINT32_MAX; w->n is 0 when no byte has a token.
 * Errors  FM_ERR_MEMORY, FM_ERR_LIMIT (2^31 bytes or more). */
fm_status fm_bpe_merge(const fm_bpe *b, fm_bpe_work *w, fm_view piece, fm_error *err);
void fm_bpe_work_free(fm_bpe_work *w);

#endif
