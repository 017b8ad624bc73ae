/* trial.c - a step that may be taken back: the tokens of a draft are run with the states held, and what turns out right is
 * made up for later. */
#include <string.h>

#include "runtime/session.h"

size_t fm_trial_room(const fm_session *s)
{
    return s->draft_max < s->chunk ? s->draft_max : s->chunk - 1;
}

int32_t fm_trial_next(const fm_session *s, fm_seq seq)
{
    const fm_trial *t = &s->trial;
    return t->seq == seq && t->kept < t->n ? t->tokens[t->kept] : -1;
}

fm_status fm_trial_keep(fm_session *s, fm_error *err)
{
    fm_trial *t = &s->trial;
    fm_sequence *q = fm_session_find(s, t->seq, NULL);
    const size_t vocab = s->m->config.vocab;
    const float *row = t->logits + t->kept++ * vocab;
    FM_ASSERT(q && t->kept <= t->n);
    q->live.tokens++;
    q->live.there = NULL;
    q->live.has_logits = true;
    memcpy(q->live.logits, row, vocab * sizeof *row);
    return fm_step_check_logits(s, row, err);
}

fm_status fm_trial_begin(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err)
{
    fm_trial *t = &s->trial;
    fm_trial_end(s);
    FM_ASSERT(n >= 1 && n <= fm_trial_room(s) + 1);
    FM_TRY(fm_step_held(s, seq, tokens, n, err));
    memcpy(t->tokens, tokens, n * sizeof *tokens);
    t->seq = seq;
    t->n = n;
    t->kept = t->moved = 0;
    return fm_trial_keep(s, err);
}

void fm_trial_move(fm_session *s)
{
    fm_trial *t = &s->trial;
    if (!t->seq || t->moved == t->kept) return;
    const fm_point *live = &fm_session_find(s, t->seq, NULL)->live;
    const size_t n = t->kept - t->moved;
    const fm_piece piece = {.n = n, .state = live->state, .seen = (uint32_t)(live->tokens - n)};
    const fm_forward f = {.m = s->m,
                          .k = &s->k,
                          .pool = s->pool,
                          .pieces = &piece,
                          .n_pieces = 1,
                          .half_states = s->half_states,
                          .log = t->log,
                          .log_tokens = s->draft_max + 1,
                          .host = s->host,
                          .host_bytes = s->host_bytes};
    fm_session_settle(s);
    fm_forward_replay(&f, t->moved, s->scratch, s->scratch_bytes);
    t->moved = t->kept;
}

void fm_trial_end(fm_session *s)
{
    fm_trial_move(s);
    s->trial.seq = 0;
}
