/* sampler.h - one file per sampler, one line in the list of sampler.c.  Definitions: docs/sampling.md, after spec/server.md A7.
 *
 * A sampler sees the candidates (logits of the tokens still in play) and changes or drops some.  Order is the user's. */
#ifndef FM_RUNTIME_SAMPLER_H
#define FM_RUNTIME_SAMPLER_H

#include "base/alloc.h"

typedef struct fm_candidate {
    int32_t id;
    float logit; /* finite */
} fm_candidate;

/* The candidates of one choice, never none.  All arrays have room for the whole vocabulary; `n` are in play, in id order unless
 * `sorted`: the first `sorted` of them are the likeliest, best first (descending logit, ascending id on ties). */
typedef struct fm_candidates {
    fm_candidate *c;
    size_t n, sorted;
    double *p; /* after fm_candidates_softmax(): probabilities, in the order of c */
} fm_candidates;

/* Puts the k likeliest in front, in order. */
void fm_candidates_sort(fm_candidates *c, size_t k);
void fm_candidates_softmax(fm_candidates *c); /* fills p, in double */
float fm_candidates_max(const fm_candidates *c);
/* Keeps those with a logit of at least `least`, in their order; the likeliest always stays. */
void fm_candidates_keep(fm_candidates *c, float least);

/* Heapsort: qsort() of the C library may allocate, and choosing must not. */
void fm_sort_in_place(void *base, size_t n, size_t size, int (*order)(const void *a, const void *b));

struct fm_sampler; /* internal.h */

typedef struct fm_sampler_kind {
    const char *name; /* as users write it in an order list */
    void (*apply)(struct fm_sampler *s, fm_candidates *c);
    bool (*idle)(const struct fm_sampler *s); /* now it would change nothing, whatever the candidates; NULL: never */
    bool truncates;                           /* top_k, top_p, typical: mirostat does this in their place */
} fm_sampler_kind;

#endif
