/* internal.h - a sampler's parameters, its history and its scratch: what the samplers of this folder share. */
#ifndef FM_RUNTIME_SAMPLER_INTERNAL_H
#define FM_RUNTIME_SAMPLER_INTERNAL_H

#include "fmamba.h"
#include "runtime/sampler/sampler.h"

#define FM_HISTORY_MAX 65536 /* tokens that windows of penalties and DRY can look back */
enum { FM_SAMPLERS_MAX = 32, FM_SAMPLER_EOS_MAX = 16 };

typedef struct fm_scored {
    double score, p;
    fm_candidate c;
} fm_scored;

struct fm_sampler {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    void *memory;
    fm_sampling p; /* numbers only: its lists are copied below */
    size_t vocab;
    const fm_sampler_kind *order[FM_SAMPLERS_MAX];
    size_t n_order;
    fm_candidates candidates;
    fm_scored *scored; /* (vocab) */

    fm_logit_bias *biases; /* (p.n_biases) */
    bool *allowed;         /* (vocab), or NULL: all */
    bool *breaker;         /* (vocab) tokens that DRY does not look across; NULL without DRY */
    int32_t eos[FM_SAMPLER_EOS_MAX];
    size_t n_eos;

    /* History: the last n_history of n_seen tokens, token i at ring[i % n_history]. */
    int32_t *ring;
    size_t n_history;
    uint64_t n_seen, n_generated;
    uint32_t *window;        /* (vocab) how often each is among the last repeat_last_n */
    uint32_t *generated;     /* (vocab) how often each was generated */
    uint32_t *match, *reach; /* DRY: (n_history) match lengths, (vocab) longest match that each token would extend */

    double mu;                 /* of mirostat */
    uint64_t choice, position; /* of the choice being made: the keys of its random numbers */
};

/* Random numbers of one choice: [0, 1), a function of (seed, choice, position, purpose). */
enum { FM_DRAW_TOKEN, FM_DRAW_XTC, FM_DRAWS };
double fm_sampler_random(const struct fm_sampler *s, unsigned purpose);

/* Token `back` places ago: 0 is the last one; back < n_seen and < n_history. */
static inline int32_t fm_sampler_recent(const struct fm_sampler *s, size_t back)
{
    return s->ring[(s->n_seen - 1 - back) % s->n_history];
}

/* mirostat.c: truncates before the draw, and learns from what was drawn. */
void fm_mirostat_truncate(struct fm_sampler *s, fm_candidates *c);
void fm_mirostat_learn(struct fm_sampler *s, double p);

extern const fm_sampler_kind fm_sampler_bias, fm_sampler_penalties, fm_sampler_dry, fm_sampler_temperature,
    fm_sampler_top_n_sigma, fm_sampler_min_p, fm_sampler_top_k, fm_sampler_typical, fm_sampler_top_p, fm_sampler_xtc;

#endif
