/* counts.h - distinct byte strings numbered in the order of their first arrival, with how often each came; and the counts of the
 * pieces that a pre-tokeniser cuts files into. */
#ifndef FM_TRAIN_COUNTS_H
#define FM_TRAIN_COUNTS_H

#include "base/pool.h"
#include "text/pretok.h"
#include "text/special.h"

typedef struct fm_count {
    size_t at, n; /* within the bytes */
    uint64_t hash, count;
} fm_count;

/* A hash table; zero-initialise, with `a`. */
typedef struct fm_counts {
    char *bytes; /* all strings, end to end */
    size_t n_bytes, bytes_cap;
    fm_count *entries; /* (n), by number */
    size_t n, cap;
    uint32_t *slots; /* number + 1, 0: empty; open addressing, n_slots is a power of two */
    size_t n_slots;
    const fm_allocator *a;
} fm_counts;

/* Counts `text` `times` more times; *index (may be NULL) is its number.
 * Errors  FM_ERR_MEMORY, FM_ERR_LIMIT (2^32 - 2 distinct strings). */
fm_status fm_counts_add(fm_counts *c, fm_view text, uint64_t times, uint32_t *index, fm_error *err);
static inline fm_view fm_counts_text(const fm_counts *c, size_t i)
{
    return (fm_view){c->bytes + c->entries[i].at, c->entries[i].n};
}
void fm_counts_free(fm_counts *c);

/* How a file is cut into pieces. */
typedef struct fm_cutter {
    fm_pretok pretok;
    const fm_trie *specials; /* what they match is left out, and what stands before and after are texts of their own */
    bool whole;              /* a special token has a line end in it: no other place to cut a text is certain */
    fm_pool *pool;
} fm_cutter;

/* Adds the pieces of a file: .jsonl, the "text" of every line; anything else is text, whose bytes need not be UTF-8.  The counts
 * are the same for any number of threads, the numbers of the pieces are not.  *n_bytes grows by the text there was.
 * The allocator of `out` is called by several threads. */
fm_status fm_counts_file(fm_counts *out, const char *path, const fm_cutter *cutter, uint64_t *n_bytes, fm_error *err);

#endif
