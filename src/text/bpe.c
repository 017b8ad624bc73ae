/* bpe.c - byte-pair merging with a linked list of symbols and a heap of candidate pairs.
 * A candidate is not removed when a neighbour's merge makes it wrong: it remembers the two ids it was found with, and is
 * dropped when they are no longer there.  At most three candidates per symbol are ever pushed. */
#include "text/bpe.h"

#define NONE UINT32_MAX

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Fibonacci hashing after folding; the upper bits are the good ones. */
static size_t slot_of(const fm_bpe *b, uint64_t pair)
{
    const uint64_t h = (pair ^ pair >> 29) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 20) & (b->n_slots - 1);
}

static const fm_bpe_slot *find(const fm_bpe *b, int32_t left, int32_t right)
{
    const uint64_t pair = pair_of(left, right);
    size_t i = slot_of(b, pair);
    while (b->slots[i].rank != 0 && b->slots[i].pair != pair) i = (i + 1) & (b->n_slots - 1);
    return &b->slots[i];
}

fm_status fm_bpe_index(fm_bpe *b, const fm_allocator *a, fm_error *err)
{
    size_t want;
    if (!fm_mul(b->n_merges, 2, &want) || b->n_merges >= UINT32_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "%zu merges are more than a tokenizer can have", b->n_merges);
    b->n_slots = 16;
    while (b->n_slots < want) b->n_slots *= 2;
    FM_TRY(fm_alloc((void **)&b->slots, a, b->n_slots, sizeof *b->slots, "the table of merges", err));
    for (size_t i = 0; i < b->n_merges; i++) {
        const fm_merge *m = &b->merges[i];
        fm_bpe_slot *slot = &b->slots[find(b, m->left, m->right) - b->slots];
        if (slot->rank != 0) continue;
        *slot = (fm_bpe_slot){pair_of(m->left, m->right), (uint32_t)i + 1, m->merged};
    }
    return FM_OK;
}

void fm_bpe_free(fm_bpe *b, const fm_allocator *a)
{
    fm_free(a, b->merges);
    fm_free(a, b->slots);
}

static bool before(const fm_bpe_candidate *a, const fm_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static fm_status heap_push(fm_bpe_work *w, fm_bpe_candidate c, fm_error *err)
{
    FM_TRY(fm_grow((void **)&w->heap, &w->heap_cap, w->heap_n + 1, sizeof *w->heap, w->a, "the merge queue", err));
    size_t i = w->heap_n++;
    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return FM_OK;
}

static fm_bpe_candidate heap_pop(fm_bpe_work *w)
{
    const fm_bpe_candidate top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->heap_n; i = child) {
        if (child + 1 < w->heap_n && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* Queues the pair whose left symbol is `at`, if it can merge. */
static fm_status consider(const fm_bpe *b, fm_bpe_work *w, uint32_t at, fm_error *err)
{
    if (at == NONE || w->symbols[at].next == NONE) return FM_OK;
    const int32_t left = w->symbols[at].id, right = w->symbols[w->symbols[at].next].id;
    const fm_bpe_slot *slot = find(b, left, right);
    if (slot->rank == 0) return FM_OK;
    return heap_push(w, (fm_bpe_candidate){slot->rank, at, left, right, slot->merged}, err);
}

static fm_status spread(const fm_bpe *b, fm_bpe_work *w, fm_view piece, fm_error *err)
{
    w->n = w->heap_n = 0;
    if (piece.n > INT32_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "a word of %zu bytes is too long to encode; break the text up", piece.n);
    FM_TRY(fm_grow((void **)&w->symbols, &w->cap, piece.n, sizeof *w->symbols, w->a, "the symbols of a word", err));
    for (size_t i = 0; i < piece.n; i++) {
        const int32_t id = b->byte_id[(unsigned char)piece.p[i]];
        if (id < 0) continue;
        w->symbols[w->n] = (fm_bpe_symbol){id, (uint32_t)w->n - 1, (uint32_t)w->n + 1};
        w->n++;
    }
    if (w->n > 0) w->symbols[w->n - 1].next = NONE;
    return FM_OK;
}

fm_status fm_bpe_merge(const fm_bpe *b, fm_bpe_work *w, fm_view piece, fm_error *err)
{
    FM_TRY(spread(b, w, piece, err));
    for (uint32_t i = 0; i < w->n; i++) FM_TRY(consider(b, w, i, err));
    while (w->heap_n > 0) {
        const fm_bpe_candidate c = heap_pop(w);
        fm_bpe_symbol *s = &w->symbols[c.at];
        if (s->id != c.left || s->next == NONE || w->symbols[s->next].id != c.right) continue;
        fm_bpe_symbol *gone = &w->symbols[s->next];
        s->id = c.merged;
        s->next = gone->next;
        gone->id = -1;
        gone->next = NONE;
        if (s->next != NONE) w->symbols[s->next].prev = c.at;
        FM_TRY(consider(b, w, s->prev, err));
        FM_TRY(consider(b, w, c.at, err));
    }
    return FM_OK;
}

void fm_bpe_work_free(fm_bpe_work *w)
{
    fm_free(w->a, w->symbols);
    fm_free(w->a, w->heap);
    *w = (fm_bpe_work){.a = w->a};
}
