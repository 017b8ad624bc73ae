/* dry.c - DRY ("don't repeat yourself"): a token that would extend a suffix of the text that was already seen, of length n, loses
 * multiplier * base^(n - allowed_length).  Matches do not cross breakers, and breakers are not punished. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "runtime/sampler/internal.h"

static size_t window_of(const struct fm_sampler *s)
{
    size_t n = s->n_seen < s->n_history ? (size_t)s->n_seen : s->n_history;
    if (s->p.dry_penalty_last_n >= 0 && n > (size_t)s->p.dry_penalty_last_n) n = (size_t)s->p.dry_penalty_last_n;
    return n;
}

/* Tokens after the last breaker: no match is longer. */
static size_t match_limit(const struct fm_sampler *s, size_t n)
{
    size_t limit = 0;
    while (limit < n && !s->breaker[fm_sampler_recent(s, limit)]) limit++;
    return limit;
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

static void apply(struct fm_sampler *s, fm_candidates *c)
{
    if (s->p.dry_multiplier == 0.0f || !s->breaker) return;
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

const fm_sampler_kind fm_sampler_dry = {.name = "dry", .apply = apply};
