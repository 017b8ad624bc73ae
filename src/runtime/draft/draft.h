/* draft.h - what guesses the next tokens, and the append that checks guesses (speculative decoding, docs/speculative.md). */
#ifndef FM_RUNTIME_DRAFT_DRAFT_H
#define FM_RUNTIME_DRAFT_DRAFT_H

#include "runtime/draft/ngram.h"
#include "runtime/draft/policy.h"
#include "runtime/session.h"

enum { FM_DRAFT_MAX = 64 };

#define FM_DRAFT_PENDING ((size_t)512) /* tokens that a draft model reads at once */

/* A smaller model that guesses greedily.  Its sequence has seen the history's first n_seen tokens, which its mark remembers, and
 * then n_ahead guesses of its own. */
typedef struct fm_draft_model {
    fm_session *s;     /* NULL: none */
    fm_seq seq, begun; /* begun: as the last fm_draft_begin() left it, n_begun tokens */
    uint64_t n_seen, n_begun;
    int32_t ahead[FM_DRAFT_MAX], guesses[FM_DRAFT_MAX];
    float sure[FM_DRAFT_MAX]; /* of each guess: its probability */
    size_t n_ahead, n_guesses;
    size_t judged;        /* guesses whose truth is known */
    fm_odds odds;         /* by how sure it was */
    double one;           /* seconds of a step */
    unsigned rest, pause; /* tokens to go without guesses, and how many it will be next time */
} fm_draft_model;

struct fm_draft {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    void *memory;
    size_t max, min, vocab;
    bool no_ngram, fixed;
    fm_ngram ngram; /* its ring is the history, also when nothing is looked up in it */
    fm_odds odds;   /* of look-ups, by the length of the agreement */
    fm_costs costs;
    fm_draft_model model;
    int32_t *pending; /* (FM_DRAFT_PENDING) what the draft model has not seen */
    size_t n_tried;   /* tokens of the step whose cost is not complete yet */
    double spent;     /* seconds on it so far */
    uint64_t n_drafted, n_accepted;
};

/* As fm_seq_append() of one token, by a step that also checks at most `room` guesses of what follows; when `id` is a guess that
 * was checked before, nothing is computed.  The logits and, to whoever asks, the state are those of plain appends. */
fm_status fm_draft_append(fm_draft *d, fm_session *s, fm_seq seq, int32_t id, size_t room, fm_error *err);

/* Around the appends of one generation. */
fm_status fm_draft_check(fm_draft *d, const fm_session *s, fm_error *err);
void fm_draft_end(fm_draft *d, fm_session *s, fm_generated *out);

/* ---- The draft model (model.c) ---- */

fm_status fm_draft_model_open(fm_draft *d, const fm_model *target, const fm_draft_options *o, fm_error *err);
/* The history was replaced by one that has the first `same` tokens in common with it; `grown`: all of it. */
fm_status fm_draft_model_begin(fm_draft *d, size_t same, bool grown, fm_error *err);
/* What may follow the history: at most `room` <= FM_DRAFT_MAX guesses that are worth checking. */
fm_status fm_draft_model_guess(fm_draft *d, int32_t *out, size_t room, size_t *n, fm_error *err);
void fm_draft_model_note(fm_draft_model *m, int32_t id); /* the token that came */

#endif
