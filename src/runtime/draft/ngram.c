#include "runtime/draft/ngram.h"

#include <string.h>

static size_t slots(const fm_ngram *g)
{
    return (g->max - g->min + 1) * 2 * g->cap;
}

void fm_ngram_place(fm_arena *a, fm_ngram *g)
{
    g->ring = FM_PUSH(a, int32_t, g->cap);
    g->ends = FM_PUSH(a, uint64_t, slots(g));
}

void fm_ngram_clear(fm_ngram *g)
{
    memset(g->ends, 0, slots(g) * sizeof *g->ends);
    g->n = g->match = 0;
    g->length = 0;
}

/* How many tokens before place `at` are the last tokens; those that were forgotten do not count. */
static size_t agreement(const fm_ngram *g, uint64_t at)
{
    const uint64_t oldest = g->n > g->cap ? g->n - g->cap : 0;
    size_t n = 0;
    while (n < FM_NGRAM_LOOK && at > oldest + n && fm_ngram_at(g, at - 1 - n) == fm_ngram_at(g, g->n - 1 - n)) n++;
    return n;
}

/* The latest place that the longest indexed n-gram of the end was at before; the index learns where it stands now.  A hash that
 * belongs to other tokens costs a guess, not a wrong one: agreement() decides. */
static void look_up(fm_ngram *g, uint64_t *match, size_t *length)
{
    uint64_t hash = 0x9E3779B97F4A7C15u;
    *match = 0;
    *length = 0;
    for (size_t n = 1; n <= g->max && n <= g->n; n++) {
        hash = (hash ^ (uint32_t)fm_ngram_at(g, g->n - n)) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
        if (n < g->min) continue;
        uint64_t *end = &g->ends[(n - g->min) * 2 * g->cap + (hash & (2 * g->cap - 1))];
        const size_t agrees = *end ? agreement(g, *end) : 0;
        if (agrees >= n) {
            *match = *end;
            *length = agrees;
        }
        *end = g->n;
    }
}

/* A guess that came true goes on where it was, unless a later place agrees for longer. */
void fm_ngram_add(fm_ngram *g, int32_t id)
{
    const bool hit = g->match && fm_ngram_at(g, g->match) == id;
    const uint64_t next = g->match + 1;
    const size_t kept = g->length < FM_NGRAM_LOOK ? g->length + 1 : FM_NGRAM_LOOK;
    g->ring[g->n++ & (g->cap - 1)] = id;
    look_up(g, &g->match, &g->length);
    if (!hit || g->length > kept || g->n - next >= g->cap) return;
    g->match = next;
    g->length = kept;
}

int32_t fm_ngram_guess(const fm_ngram *g, const int32_t *guesses, size_t i)
{
    const uint64_t at = g->match + i;
    return at < g->n ? fm_ngram_at(g, at) : guesses[at - g->n];
}
