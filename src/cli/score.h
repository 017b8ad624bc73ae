/* score.h - how well a model predicts given tokens: one definition for `fmamba perplexity` and for held-out text in training. */
#ifndef FM_CLI_SCORE_H
#define FM_CLI_SCORE_H

#include "cli/common.h"

/* Fill the first part, then run spans through it; the sums grow. */
typedef struct fm_cli_score {
    fm_session *session;
    fm_seq seq;
    const fm_tokenizer *t; /* NULL: bytes are not counted */
    size_t vocab;

    double nll;             /* nats, summed */
    uint64_t n, bytes;      /* tokens scored, and of their text */
    const int32_t *targets; /* of the span that runs */
} fm_cli_score;

/* Runs n inputs whose rows are scored against targets (n): what each should have predicted; -1: not scored. */
fm_status fm_cli_score_span(fm_cli_score *s, const int32_t *inputs, const int32_t *targets, size_t n, bool reset,
                            fm_error *err);
/* Disjoint windows from a zero state; each of their positions predicts the next token, and what is left over is dropped.
 * `progress` (may be NULL) as everywhere. */
fm_status fm_cli_score_windows(fm_cli_score *s, const int32_t *ids, size_t n, size_t window, fm_progress_fn progress, void *ctx,
                               fm_error *err);
/* Nats per token and bits per byte; 0 tokens give 0, and text of unknown length infinity. */
double fm_cli_score_nats(const fm_cli_score *s);
double fm_cli_score_bits(const fm_cli_score *s);

#endif
