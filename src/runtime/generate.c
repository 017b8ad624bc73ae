/* generate.c - the loop: choose a token, say it, append it.  All memory is taken before the first token. */
#include "runtime/draft/draft.h"
#include "runtime/logprob.h"
#include "runtime/sampler/internal.h"
#include "runtime/session.h"
#include "runtime/stopper.h"
#include "text/tokenizer.h"

enum { TOP_MAX = 20 };

typedef struct loop {
    fm_session *s;
    fm_seq seq;
    fm_sampler *sampler;
    const fm_generation *g;
    fm_generated *out;
    fm_stopper stopper;
    fm_detok detok;
    fm_str text;  /* of one token */
    int32_t next; /* chosen with the last step; -1: not yet */
    int32_t top_ids[TOP_MAX];
    double top_logprobs[TOP_MAX];
} loop;

/* ---- Log-probabilities of the raw logits ---- */

/* The n likeliest, best first, lower ids first on ties. */
static size_t find_top(loop *l, const float *logits, size_t vocab, fm_log_norm norm)
{
    size_t n = 0;
    for (size_t id = 0; id < vocab; id++) {
        const double p = fm_log_softmax(logits[id], norm);
        size_t at = n;
        while (at > 0 && p > l->top_logprobs[at - 1]) at--;
        if (at == l->g->n_top) continue;
        if (n < l->g->n_top) n++;
        for (size_t i = n - 1; i > at; i--) {
            l->top_ids[i] = l->top_ids[i - 1];
            l->top_logprobs[i] = l->top_logprobs[i - 1];
        }
        l->top_ids[at] = (int32_t)id;
        l->top_logprobs[at] = p;
    }
    return n;
}

static void rate(loop *l, fm_token_event *e)
{
    const size_t vocab = l->s->m->config.vocab;
    if (!l->g->want_logprob && !l->g->n_top) return;
    const float *logits = fm_seq_logits(l->s, l->seq);
    const fm_log_norm norm = fm_log_norm_of(logits, vocab);
    e->logprob = fm_log_softmax(logits[e->id], norm);
    e->n_top = find_top(l, logits, vocab, norm);
    e->top_ids = l->top_ids;
    e->top_logprobs = l->top_logprobs;
}

/* ---- Text ---- */

/* The text of a token, less what is held back; true when it completes a stop string. */
static bool say(loop *l, fm_token_event *e)
{
    fm_view certain;
    if (!l->g->tokenizer) return false;
    fm_str_reset(&l->text);
    fm_detok_add(&l->detok, l->g->tokenizer, e->id, l->g->special, &l->text);
    const long stop = fm_stopper_add(&l->stopper, (fm_view){l->text.p, l->text.n}, &certain);
    e->text = certain.p;
    e->text_n = certain.n;
    if (stop >= 0) l->out->stop_string = (size_t)stop;
    return stop >= 0;
}

/* What was held back when the end came without a stop string; it has no token. */
static void say_rest(loop *l)
{
    if (!l->g->tokenizer || !l->g->on_token) return;
    fm_view certain;
    fm_str_reset(&l->text);
    fm_detok_flush(&l->detok, &l->text);
    const long stop = fm_stopper_add(&l->stopper, (fm_view){l->text.p, l->text.n}, &certain);
    if (stop < 0) { /* in one event: what just became certain and what never will */
        l->stopper.given = 0;
        certain = fm_stopper_flush(&l->stopper);
    }
    const fm_token_event e = {.id = -1, .i = l->out->n, .choice = l->g->choice, .text = certain.p, .text_n = certain.n};
    if (certain.n) l->g->on_token(l->g->ctx, &e);
}

/* ---- The loop ---- */

static bool ends(const fm_generation *g, int32_t id)
{
    for (size_t i = 0; i < g->n_eos && !g->ignore_eos; i++)
        if (g->eos[i] == id) return true;
    return false;
}

/* On a device the next token is chosen in the step, so that logits need not come to the host; nobody else may want them. */
static bool chooses_ahead(const loop *l, size_t more)
{
    return l->s->m->device && more && !l->g->want_logprob && !l->g->n_top;
}

static fm_status append(loop *l, int32_t id, size_t more, fm_error *err)
{
    if (l->g->draft) return fm_draft_append(l->g->draft, l->s, l->seq, id, more, err);
    const bool ahead = chooses_ahead(l, more);
    const fm_span span = {.seq = l->seq,
                          .tokens = &id,
                          .n = 1,
                          .want = ahead ? FM_WANT_CHOSEN : FM_WANT_LAST,
                          .id = &l->next,
                          .sampler = l->sampler,
                          .choice = l->g->choice};
    return fm_step(l->s, &span, 1, err);
}

/* A token that was given out belongs to the sequence, whatever the session's callback says meanwhile.  At most `more` tokens
 * follow it. */
static fm_status append_said(loop *l, int32_t id, size_t more, fm_error *err)
{
    bool (*const cancel)(void *ctx) = l->s->cancel;
    l->s->cancel = NULL;
    l->next = -1;
    const fm_status status = append(l, id, more, err);
    l->s->cancel = cancel;
    return status;
}

static int32_t choose(const loop *l)
{
    if (l->next >= 0) return l->next;
    return fm_sampler_choose(l->sampler, fm_seq_logits(l->s, l->seq), l->g->choice, fm_seq_tokens(l->s, l->seq));
}

/* One token; *going says whether another one follows. */
static fm_status advance(loop *l, bool *going, fm_error *err)
{
    fm_token_event e = {.i = l->out->n, .choice = l->g->choice};
    *going = false;
    if (l->s->cancel && l->s->cancel(l->s->cancel_ctx)) {
        l->out->stop = FM_STOP_CANCELLED;
        return FM_OK;
    }
    e.id = choose(l);
    if (ends(l->g, e.id)) {
        l->out->stop = FM_STOP_EOS;
        return FM_OK;
    }
    rate(l, &e);
    const bool stopped = say(l, &e);
    const bool wanted = !l->g->on_token || l->g->on_token(l->g->ctx, &e);
    fm_sampler_accept(l->sampler, e.id, false);
    l->out->n++;
    FM_TRY(append_said(l, e.id, stopped || !wanted ? 0 : l->g->n - l->out->n, err));
    if (stopped)
        l->out->stop = FM_STOP_STRING;
    else if (!wanted)
        l->out->stop = FM_STOP_CANCELLED;
    else
        *going = l->out->n != l->g->n;
    return FM_OK;
}

/* The most text that one token can give: its bytes and those held back before, each of which may become a U+FFFD. */
static size_t longest_text(const fm_tokenizer *t, bool special)
{
    const size_t vocab = t ? fm_tokenizer_vocab(t) : 0;
    size_t longest = 0;
    for (size_t id = 0; id < vocab; id++) {
        size_t n;
        fm_token_text(t, (int32_t)id, special, &n);
        longest = n > longest ? n : longest;
    }
    return 3 * (longest + sizeof((fm_detok *)0)->tail);
}

static fm_status run(loop *l, fm_error *err)
{
    const size_t room = longest_text(l->g->tokenizer, l->g->special);
    FM_TRY(fm_stopper_init(&l->stopper, l->g->stops, l->g->n_stops, room, l->g->allocator, err));
    fm_str_reserve(&l->text, room);
    FM_TRY(fm_str_ok(&l->text, "the text of a token", err));
    for (bool going = true; going;) FM_TRY(advance(l, &going, err));
    if (l->out->stop != FM_STOP_STRING) say_rest(l);
    return FM_OK;
}

FM_API fm_status fm_generate(fm_session *s, fm_seq seq, fm_sampler *sampler, const fm_generation *g, fm_generated *out,
                             fm_error *err)
{
    *out = (fm_generated){0};
    if (!fm_session_find(s, seq, err)) return FM_ERR_ARGUMENT;
    if (g->n_top > TOP_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "%zu alternatives per token, expected 0 .. %d", g->n_top, TOP_MAX);
    if (g->n_stops && !g->tokenizer)
        return fm_fail(err, FM_ERR_ARGUMENT, "stop strings are looked for in text: give a tokenizer too, or no stop strings");
    if (sampler->vocab != s->m->config.vocab)
        return fm_fail(err, FM_ERR_ARGUMENT, "the sampler was opened for %zu tokens, the model has %zu", sampler->vocab,
                       s->m->config.vocab);
    if (!fm_seq_logits(s, seq))
        return fm_fail(err, FM_ERR_ARGUMENT, "the sequence has no logits to go on from: append a prompt to it first");
    if (g->draft) FM_TRY(fm_draft_check(g->draft, s, err));
    loop l = {.s = s, .seq = seq, .sampler = sampler, .g = g, .out = out, .text = {.a = g->allocator}, .next = -1};
    const fm_status status = run(&l, err);
    if (g->draft) fm_draft_end(g->draft, s, out);
    fm_stopper_deinit(&l.stopper);
    fm_str_free(&l.text);
    return status;
}
