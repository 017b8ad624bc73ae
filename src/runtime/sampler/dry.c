/* dry.c - DRY ("don't repeat yourself"): a token that would extend a suffix of the text that was already seen, of length n, loses
 * multiplier * base^(n - allowed_length).  Matches do not cross breakers, and tokens that hold a breaker are not punished. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/sampler/internal.h"

/* ---- Breakers ---- */

static const char *const usual[] = {"\n", ":", "\"", "*"};

static fm_view given_breaker(const fm_sampling *p, size_t i)
{
    return fm_view_of(p->dry_breakers ? p->dry_breakers[i] : usual[i]);
}

static size_t count_given(const fm_sampling *p)
{
    return p->dry_breakers ? p->n_dry_breakers : FM_COUNT(usual);
}

fm_status fm_dry_check(const fm_sampling *p, fm_error *err)
{
    for (size_t i = 0; i < count_given(p); i++)
        if (given_breaker(p, i).n > FM_BREAKER_MAX)
            return fm_fail(err, FM_ERR_LIMIT, "DRY's breaker %zu has %zu bytes, expected at most %d", i, given_breaker(p, i).n,
                           FM_BREAKER_MAX);
    return FM_OK;
}

void fm_dry_place(fm_arena *a, struct fm_sampler *s, const fm_sampling *p)
{
    const size_t n = count_given(p);
    s->breaker = FM_PUSH(a, bool, s->vocab);
    s->match = FM_PUSH(a, uint32_t, s->n_history);
    s->reach = FM_PUSH(a, uint32_t, s->vocab);
    s->breakers = FM_PUSH(a, fm_view, n);
    s->n_breakers = 0;
    for (size_t i = 0; i < n; i++) {
        const fm_view given = given_breaker(p, i);
        char *copy = FM_PUSH(a, char, given.n);
        if (!a->base || !given.n) continue; /* the first call only counts */
        memcpy(copy, given.p, given.n);
        s->breakers[s->n_breakers++] = (fm_view){copy, given.n};
    }
}

static bool contains(fm_view text, fm_view part)
{
    for (size_t i = 0; i + part.n <= text.n; i++)
        if (!memcmp(text.p + i, part.p, part.n)) return true;
    return false;
}

static fm_view text_of(const struct fm_sampler *s, int32_t id)
{
    fm_view text = {NULL, 0};
    if (s->t) text.p = fm_token_text(s->t, id, true, &text.n);
    return text;
}

void fm_dry_prepare(struct fm_sampler *s, const fm_sampling *p, const fm_tokenizer *t)
{
    if (p->dry_multiplier == 0.0f) return;
    s->t = t;
    for (size_t id = 0; id < s->vocab; id++)
        for (size_t i = 0; i < s->n_breakers; i++) s->breaker[id] |= contains(text_of(s, (int32_t)id), s->breakers[i]);
}

/* Whether `text`, put behind the tail, completes this breaker: its first k bytes end the tail, the others begin the text. */
static bool completes(const struct fm_sampler *s, fm_view text, fm_view breaker)
{
    for (size_t k = 1; k < breaker.n && k <= s->n_tail; k++)
        if (breaker.n - k <= text.n && !memcmp(s->tail + s->n_tail - k, breaker.p, k) &&
            !memcmp(text.p, breaker.p + k, breaker.n - k))
            return true;
    return false;
}

static void extend_tail(struct fm_sampler *s, fm_view text)
{
    const size_t taken = text.n < FM_BREAKER_MAX ? text.n : FM_BREAKER_MAX;
    const size_t kept = s->n_tail + taken <= FM_BREAKER_MAX ? s->n_tail : FM_BREAKER_MAX - taken;
    if (!taken) return;
    memmove(s->tail, s->tail + s->n_tail - kept, kept);
    memcpy(s->tail + kept, text.p + text.n - taken, taken);
    s->n_tail = kept + taken;
}

void fm_dry_follow(struct fm_sampler *s, int32_t id)
{
    if (!s->breaker) return;
    const fm_view text = text_of(s, id);
    bool broken = s->breaker[id];
    for (size_t i = 0; i < s->n_breakers && !broken; i++) broken = completes(s, text, s->breakers[i]);
    if (broken) s->broken_at = s->n_seen;
    extend_tail(s, text);
}

/* ---- Matches ---- */

static size_t window_of(const struct fm_sampler *s)
{
    size_t n = s->n_seen < s->n_history ? (size_t)s->n_seen : s->n_history;
    if (s->p.dry_penalty_last_n >= 0 && n > (size_t)s->p.dry_penalty_last_n) n = (size_t)s->p.dry_penalty_last_n;
    return n;
}

/* Tokens after the last breaker: no match is longer. */
static size_t match_limit(const struct fm_sampler *s, size_t n)
{
    const uint64_t since = s->n_seen - s->broken_at;
    return since < n ? (size_t)since : n;
}

/* match[i]: how long the text ending i tokens ago agrees with the text's end (the Z function of the reversed window). */
static void find_matches(const struct fm_sampler *s, size_t n)
{
    uint32_t *z = s->match;
    size_t left = 0, right = 0;
    for (size_t i = 1; i < n; i++) {
        size_t k = i < right ? (z[i - left] < right - i ? z[i - left] : right - i) : 0;
        while (i + k < n && fm_sampler_recent(s, k) == fm_sampler_recent(s, i + k)) k++;
        z[i] = (uint32_t)k;
        if (i + k > right) left = i, right = i + k;
    }
}

static bool idle(const struct fm_sampler *s)
{
    return s->p.dry_multiplier == 0.0f || !s->breaker;
}

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    const size_t n = window_of(s), limit = n ? match_limit(s, n) : 0, allowed = (size_t)s->p.dry_allowed_length;
    if (n <= allowed || limit < allowed) return;
    find_matches(s, n);
    for (size_t i = 1; i < n; i++) { /* the token after the match stands one place nearer to the end */
        const uint32_t length = s->match[i] < limit ? s->match[i] : (uint32_t)limit;
        const int32_t next = fm_sampler_recent(s, i - 1);
        if (length >= allowed && !s->breaker[next] && length > s->reach[next]) s->reach[next] = length;
    }
    const double most = s->p.dry_base > 1.0f ? log((double)FLT_MAX) / log((double)s->p.dry_base) : (double)limit;
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t length = s->reach[c->c[i].id];
        if (!length) continue;
        const double exponent = fmin((double)(length - allowed), most);
        const double penalty = (double)s->p.dry_multiplier * pow((double)s->p.dry_base, exponent);
        c->c[i].logit -= (float)fmin(penalty, (double)FLT_MAX / 4);
    }
    for (size_t i = 0; i + 1 < n; i++) s->reach[fm_sampler_recent(s, i)] = 0;
    c->sorted = 0;
}

const fm_sampler_kind fm_sampler_dry = {.name = "dry", .apply = apply, .idle = idle};
