/* model.c - a small model of the same vocabulary writes on greedily; the large one checks what it wrote. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "runtime/draft/draft.h"

enum { ANY = FM_ODDS - 1, PAUSE_MAX = 256 };

/* By how sure the model was; the last class is the first guess of a round, however sure. */
static const float first_odds[FM_ODDS] = {0.1f, 0.2f, 0.25f, 0.3f, 0.4f, 0.45f, 0.5f, 0.6f, 0.7f, 0.8f, 0.9f, 0.6f};

static size_t class_of(float sure)
{
    const float class = sure * ANY;
    return class >= ANY ? ANY - 1 : class > 0 ? (size_t) class : 0;
}

/* ---- Opening: the vocabulary must be the same ---- */

static fm_status check_tokens(const fm_tokenizer *a, const fm_tokenizer *b, size_t vocab, fm_error *err)
{
    for (size_t id = 0; a && b && id < vocab; id++) {
        size_t n, m;
        const char *x = fm_token_text(a, (int32_t)id, true, &n), *y = fm_token_text(b, (int32_t)id, true, &m);
        if (n == m && (n == 0 || !memcmp(x, y, n))) continue;
        return fm_fail(err, FM_ERR_MISMATCH,
                       "the draft model has another vocabulary: token %zu is \"%.*s\", the model's is \"%.*s\"; take a smaller "
                       "model of the same family",
                       id, (int)(m < 40 ? m : 40), m ? y : "", (int)(n < 40 ? n : 40), n ? x : "");
    }
    return FM_OK;
}

static fm_status check_vocabulary(const fm_model *target, const fm_model *m, fm_error *err)
{
    const size_t want = fm_model_get_info(target).vocab, have = fm_model_get_info(m).vocab;
    if (want != have)
        return fm_fail(err, FM_ERR_MISMATCH,
                       "the draft model has %zu tokens, the model has %zu: a draft needs a model of the same vocabulary", have,
                       want);
    return check_tokens(fm_model_tokenizer(target), fm_model_tokenizer(m), want, err);
}

fm_status fm_draft_model_open(fm_draft *d, const fm_model *target, const fm_draft_options *o, fm_error *err)
{
    fm_draft_model *m = &d->model;
    const fm_session_options so = {
        .allocator = d->a, .n_seq = 2, .chunk = FM_DRAFT_PENDING, .threads = o->threads, .cpu = o->cpu};
    FM_TRY(check_vocabulary(target, o->model, err));
    FM_TRY(fm_session_open(&m->s, o->model, &so, err));
    fm_odds_init(&m->odds, first_odds);
    m->pause = 1;
    FM_TRY(fm_seq_new(m->s, &m->seq, err));
    return fm_seq_new(m->s, &m->begun, err);
}

/* ---- Following the history ---- */

/* Guesses that came true need not be read again; others are taken back. */
static fm_status settle(fm_draft *d, fm_error *err)
{
    fm_draft_model *m = &d->model;
    size_t n = 0;
    while (n < m->n_ahead && m->n_seen + n < d->ngram.n && fm_ngram_at(&d->ngram, m->n_seen + n) == m->ahead[n]) n++;
    if (n < m->n_ahead)
        FM_TRY(fm_seq_rewind(m->s, m->seq, err));
    else
        m->n_seen += n;
    m->n_ahead = 0;
    return FM_OK;
}

/* The model reads what was written since; what was forgotten meanwhile it never learns. */
static fm_status catch_up(fm_draft *d, fm_error *err)
{
    fm_draft_model *m = &d->model;
    const fm_ngram *g = &d->ngram;
    FM_TRY(settle(d, err));
    if (g->n - m->n_seen > g->cap) m->n_seen = g->n - g->cap;
    while (m->n_seen < g->n) {
        const uint64_t left = g->n - m->n_seen;
        const size_t n = left < FM_DRAFT_PENDING ? (size_t)left : FM_DRAFT_PENDING;
        for (size_t i = 0; i < n; i++) d->pending[i] = fm_ngram_at(g, m->n_seen + i);
        FM_TRY(fm_seq_append(m->s, m->seq, d->pending, n, err));
        m->n_seen += n;
    }
    return FM_OK;
}

/* Where the last begin left off is kept: the next choice of the same prompt starts there. */
static fm_status remember(fm_draft_model *m, fm_error *err)
{
    if (m->n_begun == m->n_seen) return FM_OK;
    fm_seq_free(m->s, m->begun);
    m->n_begun = m->n_seen;
    return fm_seq_fork(m->s, m->seq, &m->begun, err);
}

static fm_status go_back(fm_draft_model *m, size_t same, fm_error *err)
{
    m->n_ahead = 0;
    m->n_seen = 0;
    if (m->n_begun > same) return fm_seq_reset(m->s, m->seq, err);
    fm_seq_free(m->s, m->seq);
    m->n_seen = m->n_begun;
    return fm_seq_fork(m->s, m->begun, &m->seq, err);
}

fm_status fm_draft_model_begin(fm_draft *d, size_t same, bool grown, fm_error *err)
{
    fm_draft_model *m = &d->model;
    m->n_guesses = m->judged = 0;
    if (!grown) FM_TRY(go_back(m, same, err));
    FM_TRY(catch_up(d, err));
    return remember(m, err);
}

/* ---- Guessing ---- */

/* The likeliest token, and its probability. */
static int32_t likeliest(const fm_session *s, const float *logits, size_t vocab, float *sure)
{
    const fm_run alone = {.n_parts = 1};
    float lse;
    size_t best = 0;
    for (size_t id = 1; id < vocab; id++)
        if (logits[id] > logits[best]) best = id;
    s->k.softmax(&alone, NULL, &lse, logits, vocab, 1, vocab);
    *sure = expf(logits[best] - lse);
    return (int32_t)best;
}

static double chance(const void *ctx, size_t i)
{
    const fm_draft_model *m = ctx;
    return fm_odds_of(&m->odds, class_of(m->sure[i]));
}

/* Whether another guess is likely enough to be worth its step and its place among those that are checked. */
static bool worth_more(const fm_draft *d, double all, size_t n)
{
    const double each = d->costs.one > 0 ? d->model.one / d->costs.one : 0;
    return d->fixed || all > each + fm_costs_of(&d->costs, n + 2) - fm_costs_of(&d->costs, n + 1);
}

/* Guesses, one step of the small model each but for the first, which comes from what it read. */
static fm_status write_on(fm_draft *d, size_t room, fm_error *err)
{
    fm_draft_model *m = &d->model;
    double all = 1;
    FM_TRY(fm_seq_mark(m->s, m->seq, err));
    for (m->n_guesses = 0; m->n_guesses < room && worth_more(d, all, m->n_guesses);) {
        const double begun = fm_clock_s();
        const size_t i = m->n_guesses;
        if (i) FM_TRY(fm_seq_append(m->s, m->seq, &m->guesses[i - 1], 1, err));
        if (i) m->ahead[m->n_ahead++] = m->guesses[i - 1];
        m->guesses[i] = likeliest(m->s, fm_seq_logits(m->s, m->seq), d->vocab, &m->sure[i]);
        m->n_guesses++;
        all *= chance(m, i);
        if (i) m->one += (m->one > 0 ? 0.1 : 1) * (fm_clock_s() - begun - m->one);
    }
    return FM_OK;
}

/* A model that is mostly wrong is asked ever more seldom. */
static bool rests(fm_draft *d)
{
    fm_draft_model *m = &d->model;
    if (d->fixed) return false;
    if (d->costs.one == 0) return true;
    if (m->rest) {
        m->rest--;
        return true;
    }
    if (worth_more(d, fm_odds_of(&m->odds, ANY), 0)) {
        m->pause = 1;
        return false;
    }
    m->rest = m->pause;
    m->pause = m->pause < PAUSE_MAX ? 2 * m->pause : PAUSE_MAX;
    return false;
}

fm_status fm_draft_model_guess(fm_draft *d, int32_t *out, size_t room, size_t *n, fm_error *err)
{
    fm_draft_model *m = &d->model;
    *n = 0;
    m->n_guesses = m->judged = 0;
    if (rests(d)) return FM_OK;
    FM_TRY(catch_up(d, err));
    FM_TRY(write_on(d, room, err));
    *n = d->fixed ? m->n_guesses : fm_policy_length(&d->costs, 0, m->n_guesses, chance, m);
    for (size_t i = 0; i < *n; i++) out[i] = m->guesses[i];
    return FM_OK;
}

void fm_draft_model_note(fm_draft_model *m, int32_t id)
{
    if (m->judged >= m->n_guesses) return;
    const size_t i = m->judged++;
    const bool right = m->guesses[i] == id;
    fm_odds_learn(&m->odds, class_of(m->sure[i]), right);
    if (i == 0) fm_odds_learn(&m->odds, ANY, right);
    if (!right) m->judged = m->n_guesses;
}
