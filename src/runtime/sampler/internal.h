/* internal.h - a sampler's parameters, its history and its scratch: what the samplers of this folder share. */
#ifndef FM_RUNTIME_SAMPLER_INTERNAL_H
#define FM_RUNTIME_SAMPLER_INTERNAL_H

#include "base/arena.h"
#include "base/str.h"
#include "fmamba.h"
#include "runtime/sampler/sampler.h"

#define FM_HISTORY_MAX 65536 /* tokens that windows of penalties and DRY can look back */
enum { FM_SAMPLERS_MAX = 32, FM_SAMPLER_EOS_MAX = 16, FM_BREAKER_MAX = 256 };

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

    /* DRY: strings that no repetition reaches across, and the end of the text in which they are looked for. */
    const fm_tokenizer *t;
    fm_view *breakers; /* (n_breakers) */
    size_t n_breakers;
    char tail[FM_BREAKER_MAX];
    size_t n_tail;
    uint64_t broken_at; /* tokens up to and with the one that completed the last breaker */

    /* Mirostat: its mu, log(sum(exp)) before the cut, and the token that was drawn (-1: none) with its surprise in bits. */
    double mu, norm, surprise;
    int32_t drawn;

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

/* Whether a sampler of the list does something in the choice to come. */
bool fm_sampler_takes_part(const struct fm_sampler *s, const fm_sampler_kind *kind);

/* bias.c: drops what is banned or not among the allowed ids, at least one of which has a finite logit before biases. */
void fm_sampler_keep_allowed(const struct fm_sampler *s, fm_candidates *c);

/* dry.c: where the breakers are.  `prepare` marks single tokens and remembers the strings for those that are spread over several
 * tokens, `follow` is told of each token of the text. */
fm_status fm_dry_check(const fm_sampling *p, fm_error *err);
void fm_dry_place(fm_arena *a, struct fm_sampler *s, const fm_sampling *p);
void fm_dry_prepare(struct fm_sampler *s, const fm_sampling *p, const fm_tokenizer *t);
void fm_dry_follow(struct fm_sampler *s, int32_t id);

/* mirostat.c: truncates before the draw, remembers what was drawn, and learns from it once it is accepted. */
void fm_mirostat_truncate(struct fm_sampler *s, fm_candidates *c);
void fm_mirostat_remember(struct fm_sampler *s, const fm_candidate *drawn);
void fm_mirostat_learn(struct fm_sampler *s, int32_t id);

extern const fm_sampler_kind fm_sampler_bias, fm_sampler_penalties, fm_sampler_dry, fm_sampler_temperature,
    fm_sampler_top_n_sigma, fm_sampler_min_p, fm_sampler_top_k, fm_sampler_typical, fm_sampler_top_p, fm_sampler_xtc;

#endif
