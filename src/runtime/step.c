/* step.c - a step: spans are cut into chunks, each chunk is one pass over the layers, results go back span by span. */
#include <string.h>

#include "runtime/sampler/draw.h"
#include "runtime/sampler/internal.h"
#include "runtime/session.h"

typedef struct step {
    fm_session *s;
    const fm_span *spans;
    size_t n_spans, n_pieces, n_tokens, n_out;
    size_t n_ids;     /* of n_out: rows of which only an id is wanted, which a device can choose */
    bool drawn;       /* and not always the likeliest */
    bool rows_wanted; /* somebody wants the logits of more than the last token */
    bool watched;     /* somebody wants hidden states */
    bool held;        /* a trial: the sequence stays where it is */
    bool fetched;     /* logits are on their way from the device */
    bool not_finite;
} step;

/* ---- Before anything moves ---- */

static fm_status check_tokens(const fm_session *s, const fm_span *p, size_t i, fm_error *err)
{
    for (size_t t = 0; t < p->n; t++)
        if (p->tokens[t] < 0 || (size_t)p->tokens[t] >= s->m->config.vocab)
            return fm_fail(err, FM_ERR_LIMIT, "token %zu of span %zu is %d, expected 0 .. %zu: ids of another vocabulary?", t,
                           i, (int)p->tokens[t], s->m->config.vocab - 1);
    return FM_OK;
}

static fm_status check_choice(const fm_session *s, const fm_span *p, size_t i, fm_error *err)
{
    if (p->want != FM_WANT_LIKELIEST && p->want != FM_WANT_CHOSEN) return FM_OK;
    if (!p->id) return fm_fail(err, FM_ERR_ARGUMENT, "span %zu wants an id: it must bring a place for it", i);
    if (p->want == FM_WANT_LIKELIEST) return FM_OK;
    if (!p->sampler) return fm_fail(err, FM_ERR_ARGUMENT, "span %zu wants a chosen id: it must bring a sampler", i);
    if (p->sampler->vocab == s->m->config.vocab) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "span %zu: its sampler was opened for %zu tokens, the model has %zu", i,
                   p->sampler->vocab, s->m->config.vocab);
}

static fm_status check_span(const fm_session *s, const fm_span *p, size_t i, fm_error *err)
{
    if (!p->n) return fm_fail(err, FM_ERR_ARGUMENT, "span %zu is empty: a span brings at least one token", i);
    if (!p->tokens == !p->embeddings) return fm_fail(err, FM_ERR_ARGUMENT, "span %zu: expected either tokens or embeddings", i);
    if (p->want == FM_WANT_ALL && !p->on_logits)
        return fm_fail(err, FM_ERR_ARGUMENT, "span %zu wants all logits: it must bring on_logits to receive them", i);
    FM_TRY(check_choice(s, p, i, err));
    fm_sequence *q = fm_session_find(s, p->seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    if (q->in_step) return fm_fail(err, FM_ERR_ARGUMENT, "span %zu: its sequence appears twice in one step", i);
    q->in_step = true;
    return p->tokens ? check_tokens(s, p, i, err) : FM_OK;
}

static fm_status check_spans(const fm_session *s, const fm_span *spans, size_t n, fm_error *err)
{
    if (!n || n > s->n_seq)
        return fm_fail(err, FM_ERR_ARGUMENT, "a step of %zu spans: expected 1 .. %zu, the sequences of the session", n,
                       s->n_seq);
    fm_status status = FM_OK;
    for (size_t i = 0; i < n && status == FM_OK; i++) status = check_span(s, &spans[i], i, err);
    for (size_t i = 0; i < s->n_seq; i++) s->seqs[i].in_step = false;
    return status;
}

/* ---- Chunks ---- */

/* Only a chunk of more than one token per sequence can be stopped between layers, and must then be undone. */
static bool cancellable(const step *t)
{
    return t->s->cancel && t->n_tokens > t->n_pieces;
}

/* Logits on the device are fetched before the pass overwrites them, but for those that nobody can ask for any more. */
static void settle_others(const step *t)
{
    for (size_t i = 0; i < t->n_pieces && !cancellable(t) && !t->held; i++) {
        fm_point *p = &fm_session_find(t->s, t->spans[t->s->piece_span[i]].seq, NULL)->live;
        p->has_logits &= !p->there;
        p->there = NULL;
    }
    fm_session_settle(t->s);
}

/* Once it is known what the chunk holds: notes where to return to, and begins anew where that is asked. */
static void begin_pieces(const step *t)
{
    settle_others(t);
    for (size_t i = 0; i < t->n_pieces; i++) {
        const uint32_t span = t->s->piece_span[i];
        fm_sequence *q = fm_session_find(t->s, t->spans[span].seq, NULL);
        if (cancellable(t)) {
            fm_point_copy(t->s, &q->undo, &q->live);
            q->undo_marked = q->marked;
        }
        if (t->s->done[span] > 0 || !t->spans[span].reset) continue;
        fm_point_clear(t->s, &q->live);
        q->marked = false;
    }
}

/* Notes how the device chooses an id for this row, if only that is wanted and it can. */
static void want_id(step *t, const fm_span *p, fm_row_owner *o)
{
    fm_draw *d = t->s->draws ? &t->s->draws[t->n_out] : NULL;
    if (!d) return;
    *d = (fm_draw){.top_p = 1};
    o->id = p->want == FM_WANT_LIKELIEST || (p->want == FM_WANT_CHOSEN && fm_sampler_draw(p->sampler, p->choice, o->seen, d));
    t->n_ids += o->id;
    t->drawn |= o->id && d->temperature > 0;
}

/* Tokens of the sequence before the piece that comes next of this span. */
static uint64_t tokens_before(const step *t, uint32_t span)
{
    const fm_span *p = &t->spans[span];
    return p->reset && !t->s->done[span] ? 0 : fm_session_find(t->s, p->seq, NULL)->live.tokens;
}

/* Rows of this piece that want logits, or ids made of them. */
static void want_rows(step *t, uint32_t span, size_t begin, size_t n)
{
    fm_session *s = t->s;
    const fm_span *p = &t->spans[span];
    const uint64_t before = tokens_before(t, span);
    for (size_t i = 0; i < n; i++) {
        fm_row_owner o = {.span = span, .i = s->done[span] + i, .seen = before + i + 1};
        o.last = o.i + 1 == p->n;
        if (p->want == FM_WANT_NONE || (p->want != FM_WANT_ALL && !o.last)) continue;
        want_id(t, p, &o);
        t->rows_wanted |= p->want == FM_WANT_ALL;
        s->out_rows[t->n_out] = begin + i;
        s->owners[t->n_out++] = o;
    }
}

/* The device chooses ids where it can, unless many rows have to come to the host anyway. */
static bool ids_there(const step *t)
{
    return t->n_ids && !t->rows_wanted;
}

/* Fills the chunk from the spans in their order; false when nothing is left. */
static bool fill_chunk(step *t)
{
    fm_session *s = t->s;
    t->n_pieces = t->n_tokens = t->n_out = t->n_ids = 0;
    t->drawn = t->rows_wanted = t->fetched = false;
    for (uint32_t i = 0; i < t->n_spans && t->n_tokens < s->chunk; i++) {
        const fm_span *p = &t->spans[i];
        const size_t left = p->n - s->done[i], room = s->chunk - t->n_tokens, n = left < room ? left : room;
        if (!n) continue;
        fm_sequence *q = fm_session_find(s, p->seq, NULL);
        s->pieces[t->n_pieces] =
            (fm_piece){.tokens = p->tokens ? p->tokens + s->done[i] : NULL,
                       .embeddings = p->embeddings ? p->embeddings + s->done[i] * s->m->config.d_model : NULL,
                       .n = n,
                       .state = q->live.state,
                       .seen = (uint32_t)tokens_before(t, i)};
        s->piece_span[t->n_pieces++] = i;
        want_rows(t, i, t->n_tokens, n);
        t->n_tokens += n;
    }
    return t->n_tokens > 0;
}

/* Whether every number of the row is one: the exponent of infinities and NaNs is all ones. */
static bool finite_row(const float *row, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) { /* without a branch: the compiler takes many at once */
        uint32_t bits;
        memcpy(&bits, row + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* As the sampler sees them: nothing is infinite, and what is no number comes last. */
static int32_t likeliest(const float *row, size_t n)
{
    size_t best = 0;
    float most = -1e30f;
    for (size_t i = 0; i < n; i++) {
        const float v = row[i] < 1e30f ? row[i] : row[i] >= 1e30f ? 1e30f : -1e30f;
        if (v > most) most = v, best = i;
    }
    return (int32_t)best;
}

static fm_point *live_of(const step *t, const fm_row_owner *o)
{
    return &fm_session_find(t->s, t->spans[o->span].seq, NULL)->live;
}

/* Ids that the device chose; logits that are wanted beside them are put on their way. */
static void take_ids(void *ctx, size_t first, size_t n, const int32_t *ids, const float *rows)
{
    step *t = ctx;
    const size_t vocab = t->s->m->config.vocab;
    for (size_t i = 0; i < n; i++) {
        const fm_row_owner *o = &t->s->owners[first + i];
        fm_point *live = live_of(t, o);
        if (o->id) {
            *t->spans[o->span].id = ids[i] < 0 ? ~ids[i] : ids[i];
            t->not_finite |= ids[i] < 0;
            live->there = t->n_out <= FM_LOGIT_ROWS_DEVICE ? rows + i * vocab : NULL;
        } else {
            fm_device_download(t->s->m->device, live->logits, rows + i * vocab, vocab * sizeof(float));
            t->fetched = true;
        }
    }
}

/* What the host makes of the logits of a span's last token. */
static void choose(const step *t, const fm_row_owner *o, const float *row)
{
    const fm_span *p = &t->spans[o->span];
    if (p->want == FM_WANT_LIKELIEST) *p->id = likeliest(row, t->s->m->config.vocab);
    if (p->want == FM_WANT_CHOSEN) *p->id = fm_sampler_choose(p->sampler, row, p->choice, o->seen);
}

/* They have come. */
static void take_fetched(step *t)
{
    for (size_t i = 0; i < t->n_out; i++) {
        const fm_row_owner *o = &t->s->owners[i];
        if (o->id) continue;
        const float *row = live_of(t, o)->logits;
        t->not_finite |= !finite_row(row, t->s->m->config.vocab);
        choose(t, o, row);
    }
}

static void take_logits(void *ctx, size_t first, size_t n, const float *rows)
{
    step *t = ctx;
    const size_t vocab = t->s->m->config.vocab;
    const fm_row_owner *o = t->s->owners + first;
    for (size_t i = 0, run; i < n; i += run) {
        const fm_span *p = &t->spans[o[i].span];
        for (run = 1; i + run < n && o[i + run].span == o[i].span;) run++;
        if (p->want == FM_WANT_ALL) p->on_logits(p->ctx, o[i].i, run, rows + i * vocab);
        choose(t, &o[i + run - 1], rows + (i + run - 1) * vocab);
        if (o[i + run - 1].last && !t->held)
            memcpy(live_of(t, &o[i + run - 1])->logits, rows + (i + run - 1) * vocab, vocab * sizeof(float));
    }
    for (size_t i = 0; i < n && !t->held; i++) t->not_finite |= !finite_row(rows + i * vocab, vocab);
}

static void take_hidden(void *ctx, size_t layer, size_t n, const float *rows)
{
    const step *t = ctx;
    (void)n;
    for (size_t i = 0, at = 0; i < t->n_pieces; at += t->s->pieces[i++].n) {
        const uint32_t span = t->s->piece_span[i];
        const fm_span *p = &t->spans[span];
        if (p->on_hidden) p->on_hidden(p->ctx, layer, t->s->done[span], t->s->pieces[i].n, rows + at * t->s->m->config.d_model);
    }
}

static bool ask(void *ctx)
{
    const step *t = ctx;
    return t->s->cancel(t->s->cancel_ctx);
}

static void undo_chunk(const step *t)
{
    for (size_t i = 0; i < t->n_pieces; i++) {
        fm_sequence *q = fm_session_find(t->s, t->spans[t->s->piece_span[i]].seq, NULL);
        fm_point_copy(t->s, &q->live, &q->undo);
        q->marked = q->undo_marked;
    }
}

/* A device keeps the rows of which it chose ids, but only so many. */
static bool keeps_logits(const step *t, fm_want want)
{
    if (want == FM_WANT_LIKELIEST || want == FM_WANT_CHOSEN) return !ids_there(t) || t->n_out <= FM_LOGIT_ROWS_DEVICE;
    return want != FM_WANT_NONE;
}

static void finish_chunk(const step *t)
{
    for (size_t i = 0; i < t->n_pieces; i++) {
        const uint32_t span = t->s->piece_span[i];
        const fm_span *p = &t->spans[span];
        fm_sequence *q = fm_session_find(t->s, p->seq, NULL);
        t->s->done[span] += t->s->pieces[i].n;
        if (t->held) continue;
        q->live.tokens += t->s->pieces[i].n;
        q->live.has_logits = t->s->done[span] == p->n && keeps_logits(t, p->want);
    }
}

static fm_status fail_cancelled(fm_error *err)
{
    return fm_fail(err, FM_ERR_CANCELLED,
                   "the step was cancelled: its sequences stand where their last finished chunk left them");
}

static fm_status fail_not_finite(const fm_session *s, fm_error *err)
{
    FM_TRY(fm_model_check(s->m, err));
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s: the logits are not finite although every weight is: an input embedding or a loaded "
                   "state holds NaN or infinity, or the model overflows fp32",
                   s->m->source.path);
}

fm_status fm_step_check_logits(const fm_session *s, const float *row, fm_error *err)
{
    return finite_row(row, s->m->config.vocab) ? FM_OK : fail_not_finite(s, err);
}

static fm_status run_chunk(step *t, fm_error *err)
{
    fm_session *s = t->s;
    begin_pieces(t);
    const fm_forward f = {.m = s->m,
                          .k = &s->k,
                          .pool = s->pool,
                          .pieces = s->pieces,
                          .n_pieces = t->n_pieces,
                          .out_rows = s->out_rows,
                          .n_out = t->n_out,
                          .on_logits = take_logits,
                          .on_ids = ids_there(t) ? take_ids : NULL,
                          .draws = t->drawn ? s->draws : NULL,
                          .on_hidden = t->watched ? take_hidden : NULL,
                          .cancel = cancellable(t) ? ask : NULL,
                          .ctx = t,
                          .half_states = s->half_states,
                          .log = t->held ? s->trial.log : NULL,
                          .log_tokens = s->draft_max + 1,
                          .host = s->host,
                          .host_bytes = s->host_bytes,
                          .graphs = s->m->device ? &s->graphs : NULL};
    const fm_status status = fm_forward_run(&f, s->scratch, s->scratch_bytes, err);
    if (status == FM_ERR_CANCELLED) {
        undo_chunk(t);
        return fail_cancelled(err);
    }
    FM_TRY(status);
    if (t->fetched) FM_TRY(fm_device_wait(s->m->device, err));
    if (t->fetched) take_fetched(t);
    finish_chunk(t);
    return t->not_finite ? fail_not_finite(s, err) : FM_OK;
}

static fm_status run(step *t, fm_error *err)
{
    fm_session *s = t->s;
    for (size_t i = 0; i < t->n_spans; i++) {
        s->done[i] = 0;
        t->watched |= t->spans[i].on_hidden != NULL;
    }
    for (;;) {
        size_t left = 0;
        for (size_t i = 0; i < t->n_spans; i++) left |= t->spans[i].n - s->done[i];
        if (!left) return FM_OK;
        if (s->cancel && s->cancel(s->cancel_ctx)) return fail_cancelled(err);
        fill_chunk(t);
        FM_TRY(run_chunk(t, err));
    }
}

FM_API fm_status fm_step(fm_session *s, const fm_span *spans, size_t n_spans, fm_error *err)
{
    step t = {.s = s, .spans = spans, .n_spans = n_spans};
    fm_trial_end(s);
    FM_TRY(check_spans(s, spans, n_spans, err));
    return run(&t, err);
}

static void keep_rows(void *ctx, size_t first, size_t n, const float *rows)
{
    const fm_session *s = ctx;
    const size_t vocab = s->m->config.vocab;
    memcpy(s->trial.logits + first * vocab, rows, n * vocab * sizeof(float));
}

fm_status fm_step_held(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err)
{
    const fm_span span = {.seq = seq, .tokens = tokens, .n = n, .want = FM_WANT_ALL, .on_logits = keep_rows, .ctx = s};
    step t = {.s = s, .spans = &span, .n_spans = 1, .held = true};
    FM_TRY(check_spans(s, &span, 1, err));
    return run(&t, err);
}

FM_API fm_status fm_seq_append(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err)
{
    return fm_step(s, &(fm_span){.seq = seq, .tokens = tokens, .n = n}, 1, err);
}
