/* draft.c - drafts: the history that guesses come from, how many of them are tried, and what became of them. */
#include "runtime/draft/draft.h"

#include "base/clock.h"

enum { NGRAM_LONGEST = 5, NGRAM_SHORTEST = 2, GUESSES = 15 }; /* 15 guesses and the token before them fill a tile of 16 */
#define HISTORY ((size_t)1 << 16)

/* ---- Look-ups and their odds ---- */

/* Agreements of 1, 2, 3, 4, 5-6, 7-8, 9-12, 13-16, 17-24, 25-31 and at least 32 tokens. */
static size_t class_of(size_t length)
{
    static const size_t longest[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 31};
    size_t class = 0;
    while (class < FM_COUNT(longest) && length > longest[class]) class ++;
    return class;
}

/* Low, so that text without repetition is left alone from the start; a few hits change it. */
static const float ngram_odds[FM_ODDS] = {0.05f, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.75f, 0.8f, 0.85f, 0};

/* As guesses come true the agreement grows. */
static double ngram_chance(const void *ctx, size_t i)
{
    const fm_draft *d = ctx;
    return fm_odds_of(&d->odds, class_of(d->ngram.length + i));
}

/* A token is part of the history now: what was thought of it is judged. */
static void note(fm_draft *d, int32_t id)
{
    if (!d->no_ngram && d->ngram.match)
        fm_odds_learn(&d->odds, class_of(d->ngram.length), fm_ngram_at(&d->ngram, d->ngram.match) == id);
    fm_ngram_add(&d->ngram, id);
}

static size_t look_up(const fm_draft *d, int32_t *guesses, size_t room)
{
    if (d->no_ngram || !d->ngram.match) return 0;
    const size_t n = d->fixed ? room : fm_policy_length(&d->costs, 0, room, ngram_chance, d);
    for (size_t i = 0; i < n; i++) guesses[i] = fm_ngram_guess(&d->ngram, guesses, i);
    return n;
}

/* ---- The append that checks guesses ---- */

static fm_status guess(fm_draft *d, int32_t *guesses, size_t room, size_t *n, fm_error *err)
{
    *n = 0;
    if (room < d->min) return FM_OK;
    *n = look_up(d, guesses, room);
    if (*n < d->min) *n = 0;
    if (*n || !d->model.s) return FM_OK;
    FM_TRY(fm_draft_model_guess(d, guesses, room, n, err));
    if (*n < d->min) *n = 0;
    return FM_OK;
}

/* What the last step cost is known when its states are made up for. */
static void close_step(fm_draft *d, fm_session *s)
{
    if (!d->n_tried) return;
    const double begun = fm_clock_s();
    fm_trial_end(s);
    fm_costs_learn(&d->costs, d->n_tried, d->spent + fm_clock_s() - begun);
    d->n_tried = 0;
}

static fm_status step(fm_draft *d, fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err)
{
    const double begun = fm_clock_s();
    FM_TRY(n == 1 ? fm_seq_append(s, seq, tokens, 1, err) : fm_trial_begin(s, seq, tokens, n, err));
    d->n_tried = n;
    d->spent = fm_clock_s() - begun;
    d->n_drafted += n - 1;
    return FM_OK;
}

fm_status fm_draft_append(fm_draft *d, fm_session *s, fm_seq seq, int32_t id, size_t room, fm_error *err)
{
    int32_t tokens[1 + FM_DRAFT_MAX] = {id};
    size_t n;
    note(d, id);
    fm_draft_model_note(&d->model, id);
    if (fm_trial_next(s, seq) == id) {
        d->n_accepted++;
        return fm_trial_keep(s, err);
    }
    close_step(d, s);
    room = room < d->max ? room : d->max;
    room = room < fm_trial_room(s) ? room : fm_trial_room(s);
    FM_TRY(guess(d, tokens + 1, room, &n, err));
    return step(d, s, seq, tokens, 1 + n, err);
}

fm_status fm_draft_check(fm_draft *d, const fm_session *s, fm_error *err)
{
    if (d->vocab != s->m->config.vocab)
        return fm_fail(err, FM_ERR_ARGUMENT, "the draft was opened for %zu tokens, the model has %zu", d->vocab,
                       s->m->config.vocab);
    if (!fm_trial_room(s))
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "the session has no room for drafts: open it with draft_max > 0 and chunks of more than one token");
    d->n_drafted = d->n_accepted = 0;
    return FM_OK;
}

void fm_draft_end(fm_draft *d, fm_session *s, fm_generated *out)
{
    close_step(d, s);
    out->drafted = d->n_drafted;
    out->accepted = d->n_accepted;
}

/* ---- The object ---- */

static void place(fm_arena *a, fm_draft *d)
{
    fm_ngram_place(a, &d->ngram);
    d->pending = FM_PUSH(a, int32_t, FM_DRAFT_PENDING);
}

static fm_status read_options(fm_draft *d, const fm_model *target, const fm_draft_options *o, fm_error *err)
{
    const size_t history = o->history ? o->history : HISTORY;
    d->max = o->max ? o->max : GUESSES;
    d->min = o->min ? o->min : 1;
    d->ngram.max = o->ngram_max ? o->ngram_max : NGRAM_LONGEST;
    d->ngram.min = o->ngram_min ? o->ngram_min : d->ngram.max < NGRAM_SHORTEST ? d->ngram.max : NGRAM_SHORTEST;
    d->no_ngram = o->no_ngram;
    d->fixed = o->fixed;
    d->vocab = fm_model_get_info(target).vocab;
    if (d->max > FM_DRAFT_MAX || d->min > d->max)
        return fm_fail(err, FM_ERR_ARGUMENT, "drafts of %zu .. %zu tokens, expected at most %d and not fewer than the least",
                       d->min, d->max, FM_DRAFT_MAX);
    if (d->ngram.max > FM_NGRAM_MAX || d->ngram.min > d->ngram.max)
        return fm_fail(err, FM_ERR_ARGUMENT, "n-grams of %zu .. %zu tokens, expected 1 <= shortest <= longest <= %d",
                       d->ngram.min, d->ngram.max, FM_NGRAM_MAX);
    if (history > (size_t)1 << 28)
        return fm_fail(err, FM_ERR_LIMIT, "a history of %zu tokens, expected at most %zu", history, (size_t)1 << 28);
    for (d->ngram.cap = 64; d->ngram.cap < history;) d->ngram.cap *= 2;
    return FM_OK;
}

static fm_status open_draft(fm_draft *d, const fm_model *target, const fm_draft_options *o, fm_error *err)
{
    FM_TRY(read_options(d, target, o, err));
    fm_arena a = {0};
    place(&a, d);
    FM_TRY(fm_alloc(&d->memory, d->a, a.used, 1, "a draft's history", err));
    a = (fm_arena){.base = d->memory, .size = a.used};
    place(&a, d);
    fm_ngram_clear(&d->ngram);
    fm_odds_init(&d->odds, ngram_odds);
    fm_costs_init(&d->costs);
    return o->model ? fm_draft_model_open(d, target, o, err) : FM_OK;
}

FM_API fm_status fm_draft_open(fm_draft **out, const fm_model *target, const fm_draft_options *options, fm_error *err)
{
    static const fm_draft_options none = {0};
    const fm_draft_options *o = options ? options : &none;
    fm_draft *d;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&d, o->allocator, 1, sizeof *d, "a draft", err));
    if (o->allocator) {
        d->allocator_copy = *o->allocator;
        d->a = &d->allocator_copy;
    }
    const fm_status status = open_draft(d, target, o, err);
    if (status != FM_OK)
        fm_draft_free(d);
    else
        *out = d;
    return status;
}

FM_API void fm_draft_free(fm_draft *d)
{
    if (!d) return;
    const fm_allocator copy = d->allocator_copy;
    const fm_allocator *a = d->a ? &copy : NULL;
    fm_session_free(d->model.s);
    fm_free(a, d->memory);
    fm_free(a, d);
}

/* ---- The history ---- */

static fm_status check_ids(const fm_draft *d, const int32_t *ids, size_t n, fm_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= d->vocab)
            return fm_fail(err, FM_ERR_LIMIT, "token %zu of the history is %d, expected 0 .. %zu", i, (int)ids[i],
                           d->vocab - 1);
    return FM_OK;
}

/* How many of the first ids are the history's; of a history that was partly forgotten, either all or none. */
static size_t common(const fm_ngram *g, const int32_t *ids, size_t n)
{
    const uint64_t oldest = g->n > g->cap ? g->n - g->cap : 0;
    uint64_t same = oldest;
    while (same < g->n && same < n && fm_ngram_at(g, same) == ids[same]) same++;
    return oldest && same < g->n ? 0 : (size_t)same;
}

FM_API fm_status fm_draft_begin(fm_draft *d, const int32_t *ids, size_t n, fm_error *err)
{
    FM_TRY(check_ids(d, ids, n, err));
    const size_t same = common(&d->ngram, ids, n);
    const bool grown = same == d->ngram.n;
    if (!grown) fm_ngram_clear(&d->ngram);
    for (size_t i = grown ? same : 0; i < n; i++) note(d, ids[i]);
    return d->model.s ? fm_draft_model_begin(d, same, grown, err) : FM_OK;
}
