/* score.c - see score.h. */
#include "cli/score.h"

#include <math.h>

static void score_token(fm_cli_score *s, const float *logits, int32_t id)
{
    size_t bytes = 0;
    if (s->t) fm_token_text(s->t, id, true, &bytes);
    s->nll -= fm_logprob(logits, s->vocab, id);
    s->bytes += bytes;
    s->n++;
}

static void on_logits(void *ctx, size_t first, size_t n, const float *rows)
{
    fm_cli_score *s = ctx;
    for (size_t i = 0; i < n; i++)
        if (s->targets[first + i] >= 0) score_token(s, rows + i * s->vocab, s->targets[first + i]);
}

fm_status fm_cli_score_span(fm_cli_score *s, const int32_t *inputs, const int32_t *targets, size_t n, bool reset, fm_error *err)
{
    s->targets = targets;
    const fm_span span = {
        .seq = s->seq, .tokens = inputs, .n = n, .reset = reset, .want = FM_WANT_ALL, .on_logits = on_logits, .ctx = s};
    return fm_step(s->session, &span, 1, err);
}

fm_status fm_cli_score_windows(fm_cli_score *s, const int32_t *ids, size_t n, size_t window, fm_progress_fn progress, void *ctx,
                               fm_error *err)
{
    for (size_t at = 0; at + window < n; at += window) {
        FM_TRY(fm_cli_score_span(s, ids + at, ids + at + 1, window, true, err));
        if (progress && !progress(ctx, (double)(at + window) / (double)n))
            return fm_fail(err, FM_ERR_CANCELLED, "stopped after %zu of %zu tokens", at + window, n);
    }
    return FM_OK;
}

double fm_cli_score_nats(const fm_cli_score *s)
{
    return s->n ? s->nll / (double)s->n : 0.0;
}

double fm_cli_score_bits(const fm_cli_score *s)
{
    return s->bytes ? s->nll / log(2) / (double)s->bytes : HUGE_VAL;
}
