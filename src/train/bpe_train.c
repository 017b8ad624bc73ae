/* bpe_train.c - see bpe_train.h.
 *
 * A token is a number: the 256 letters in the order of their characters, then what merges make; in the vocabulary the special
 * tokens stand before them.  A word is a piece of text as tokens.  Every pair of neighbours has a count; the heap holds pairs
 * with the count they had and the words they came in, and an entry whose count has changed goes back with the right one.  As in
 * BpeTrainer, the count of a pair that was merged stays as it was and grows when a merge that spells an old token makes the
 * pair anew. */
#include "train/bpe_train.h"

#include <string.h>

#include "base/file.h"
#include "base/utf8.h"
#include "text/alphabet.h"
#include "text/write_json.h"
#include "train/counts.h"

#define VOCAB_MAX ((size_t)1 << 24)
enum { LETTERS = 256 };

typedef struct word {
    size_t at, n; /* within the symbols */
    uint64_t count;
} word;

/* Words, each at most once, in their order. */
typedef struct places {
    uint32_t *words;
    size_t n, cap;
} places;

typedef struct pair {
    uint64_t key; /* left << 32 | right */
    int64_t count;
    places found;  /* since it was last put into the heap */
    uint32_t rank; /* + 1 of its merge; 0: none */
} pair;

typedef struct candidate {
    int64_t count;
    uint64_t key;
    size_t pair, places;
} candidate;

typedef struct merge {
    uint32_t left, right;
    bool undone; /* by a later one of the same pair */
} merge;

typedef struct learner {
    const fm_bpe_options *o;
    const fm_allocator *a;
    fm_trie specials;
    fm_pool *pool;
    fm_counts pieces, tokens;
    uint64_t n_bytes;
    word *words; /* (pieces.n) */
    uint32_t *symbols;
    pair *pairs;
    size_t n_pairs, pairs_cap;
    uint32_t *slots; /* of pairs: number + 1, 0: empty */
    size_t n_slots;
    size_t *dirty; /* pairs with places not yet in the heap */
    size_t n_dirty, dirty_cap;
    candidate *heap;
    size_t n_heap, heap_cap;
    places *lists; /* of the heap, by age */
    size_t n_lists, lists_cap;
    merge *merges;
    size_t n_merges, merges_cap;
} learner;

/* ---- Special tokens ---- */

/* Spelled as bytes that its own text does not have, or as one letter: a token of the text would be the same. */
static bool is_spelling(fm_view v)
{
    bool ascii = true;
    for (size_t i = 0; i < v.n;) {
        uint32_t cp;
        i += fm_utf8_decode(&cp, v.p + i, v.n - i);
        if (fm_alphabet_byte(cp) < 0) return false;
        ascii = ascii && cp < 128;
    }
    return !ascii || v.n == 1;
}

static fm_status add_special(learner *l, size_t i, fm_error *err)
{
    const fm_view v = fm_view_of(l->o->specials[i]);
    int32_t id;
    if (v.n == 0 || fm_utf8_valid(v.p, v.n) != v.n)
        return fm_fail(err, FM_ERR_ARGUMENT, "special token %zu is empty or not UTF-8", i);
    if (is_spelling(v))
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "the special token \"%s\" is spelled like bytes of text in a byte-level vocabulary: choose one like "
                       "<|endoftext|>",
                       v.p);
    if (fm_trie_match(&l->specials, v, &id) == v.n)
        return fm_fail(err, FM_ERR_ARGUMENT, "the special token \"%s\" is given twice", v.p);
    return fm_trie_add(&l->specials, v, (int32_t)i, l->a, err);
}

static fm_status read_options(learner *l, fm_error *err)
{
    const fm_bpe_options *o = l->o;
    for (size_t i = 0; i < o->n_specials; i++) FM_TRY(add_special(l, i, err));
    if (o->n_specials > VOCAB_MAX || o->vocab < LETTERS + o->n_specials || o->vocab > VOCAB_MAX)
        return fm_fail(
            err, FM_ERR_ARGUMENT,
            "a vocabulary of %zu tokens: expected at least %zu, the 256 bytes and %zu special tokens, and at most %zu",
            o->vocab, LETTERS + o->n_specials, o->n_specials, VOCAB_MAX);
    return fm_pool_open(&l->pool, o->threads, l->a, err);
}

/* ---- Words ---- */

static fm_status read_pieces(learner *l, fm_error *err)
{
    fm_cutter cutter = {.pretok = l->o->pretok, .specials = &l->specials, .pool = l->pool};
    for (size_t i = 0; i < l->o->n_specials; i++) cutter.whole |= strchr(l->o->specials[i], '\n') != NULL;
    l->pieces.a = l->tokens.a = l->a;
    for (size_t i = 0; i < l->o->n_files; i++) FM_TRY(fm_counts_file(&l->pieces, l->o->files[i], &cutter, &l->n_bytes, err));
    if (l->pieces.n == 0) return fm_fail(err, FM_ERR_ARGUMENT, "there is no text to learn from: the files are empty");
    return FM_OK;
}

static fm_status add_letters(learner *l, uint32_t of_byte[LETTERS], fm_error *err)
{
    for (uint32_t cp = 0; cp < FM_ALPHABET_END; cp++) {
        const int byte = fm_alphabet_byte(cp);
        const char letter = (char)byte;
        if (byte >= 0) FM_TRY(fm_counts_add(&l->tokens, (fm_view){&letter, 1}, 0, &of_byte[byte], err));
    }
    return FM_OK;
}

static fm_status make_words(learner *l, fm_error *err)
{
    uint32_t of_byte[LETTERS];
    FM_TRY(add_letters(l, of_byte, err));
    FM_TRY(fm_alloc((void **)&l->words, l->a, l->pieces.n, sizeof *l->words, "the pieces of text", err));
    FM_TRY(fm_alloc((void **)&l->symbols, l->a, l->pieces.n_bytes, sizeof *l->symbols, "the pieces of text", err));
    for (size_t i = 0; i < l->pieces.n; i++) {
        const fm_count *e = &l->pieces.entries[i];
        l->words[i] = (word){.at = e->at, .n = e->n, .count = e->count};
    }
    for (size_t i = 0; i < l->pieces.n_bytes; i++) l->symbols[i] = of_byte[(unsigned char)l->pieces.bytes[i]];
    return FM_OK;
}

/* ---- Pairs ---- */

static size_t pair_slot(const learner *l, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    size_t i = (size_t)((h ^ h >> 29) >> 8) & (l->n_slots - 1);
    while (l->slots[i] != 0 && l->pairs[l->slots[i] - 1].key != key) i = (i + 1) & (l->n_slots - 1);
    return i;
}

static fm_status more_slots(learner *l, fm_error *err)
{
    size_t n = l->n_slots ? l->n_slots : 512;
    uint32_t *slots;
    if (l->n_pairs >= UINT32_MAX - 1 || !fm_mul(n, 2, &n))
        return fm_fail(err, FM_ERR_LIMIT, "the text has more than 2^32 - 2 distinct pairs");
    FM_TRY(fm_alloc((void **)&slots, l->a, n, sizeof *slots, "pairs of tokens", err));
    fm_free(l->a, l->slots);
    l->slots = slots;
    l->n_slots = n;
    for (size_t i = 0; i < l->n_pairs; i++) slots[pair_slot(l, l->pairs[i].key)] = (uint32_t)i + 1;
    return FM_OK;
}

static fm_status find_pair(learner *l, uint64_t key, size_t *index, fm_error *err)
{
    if (l->n_slots <= 2 * l->n_pairs) FM_TRY(more_slots(l, err));
    uint32_t *slot = &l->slots[pair_slot(l, key)];
    if (*slot == 0) {
        FM_TRY(fm_grow((void **)&l->pairs, &l->pairs_cap, l->n_pairs + 1, sizeof *l->pairs, l->a, "pairs of tokens", err));
        l->pairs[l->n_pairs++] = (pair){.key = key};
        *slot = (uint32_t)l->n_pairs;
    }
    *index = *slot - 1;
    return FM_OK;
}

static uint64_t key_of(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

/* One more of the pair in word w, which the heap has to know. */
static fm_status add_pair(learner *l, uint64_t key, uint32_t w, fm_error *err)
{
    size_t i;
    FM_TRY(find_pair(l, key, &i, err));
    pair *p = &l->pairs[i];
    p->count += (int64_t)l->words[w].count;
    if (p->found.n > 0 && p->found.words[p->found.n - 1] == w) return FM_OK;
    if (p->found.n == 0) {
        FM_TRY(fm_grow((void **)&l->dirty, &l->dirty_cap, l->n_dirty + 1, sizeof *l->dirty, l->a, "pairs of tokens", err));
        l->dirty[l->n_dirty++] = i;
    }
    FM_TRY(
        fm_grow((void **)&p->found.words, &p->found.cap, p->found.n + 1, sizeof *p->found.words, l->a, "pairs of tokens", err));
    p->found.words[p->found.n++] = w;
    return FM_OK;
}

static fm_status remove_pair(learner *l, uint64_t key, uint32_t w, fm_error *err)
{
    size_t i;
    FM_TRY(find_pair(l, key, &i, err));
    l->pairs[i].count -= (int64_t)l->words[w].count;
    return FM_OK;
}

/* ---- The heap ---- */

/* The more frequent, then the smaller ids, then what came first. */
static bool before(const candidate *x, const candidate *y)
{
    if (x->count != y->count) return x->count > y->count;
    return x->key != y->key ? x->key < y->key : x->places < y->places;
}

static void sift_down(learner *l)
{
    candidate *h = l->heap;
    const candidate c = h[0];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child) {
        if (child + 1 < l->n_heap && before(&h[child + 1], &h[child])) child++;
        if (!before(&h[child], &c)) break;
        h[i] = h[child];
    }
    h[i] = c;
}

static fm_status push(learner *l, candidate c, fm_error *err)
{
    FM_TRY(fm_grow((void **)&l->heap, &l->heap_cap, l->n_heap + 1, sizeof *l->heap, l->a, "pairs of tokens", err));
    size_t i = l->n_heap++;
    for (; i > 0 && before(&c, &l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = c;
    return FM_OK;
}

static void pop(learner *l)
{
    l->heap[0] = l->heap[--l->n_heap];
    if (l->n_heap > 0) sift_down(l);
}

/* Puts what add_pair() found into the heap. */
static fm_status push_found(learner *l, fm_error *err)
{
    for (size_t i = 0; i < l->n_dirty; i++) {
        pair *p = &l->pairs[l->dirty[i]];
        if (p->count > 0) {
            FM_TRY(fm_grow((void **)&l->lists, &l->lists_cap, l->n_lists + 1, sizeof *l->lists, l->a, "pairs of tokens", err));
            FM_TRY(push(l, (candidate){.count = p->count, .key = p->key, .pair = l->dirty[i], .places = l->n_lists}, err));
            l->lists[l->n_lists++] = p->found;
        } else {
            fm_free(l->a, p->found.words);
        }
        p->found = (places){0};
    }
    l->n_dirty = 0;
    return FM_OK;
}

/* The pair to merge next, with its count as it is now; false when there is none that comes often enough. */
static bool take(learner *l, candidate *c)
{
    while (l->n_heap > 0) {
        *c = l->heap[0];
        const int64_t now = l->pairs[c->pair].count;
        if (c->count == now) {
            pop(l);
            return now >= 1 && (uint64_t)now >= l->o->min_frequency;
        }
        l->heap[0].count = now;
        sift_down(l);
    }
    return false;
}

/* ---- Merging ---- */

static fm_status count_all(learner *l, fm_error *err)
{
    for (size_t w = 0; w < l->pieces.n; w++) {
        const uint32_t *s = l->symbols + l->words[w].at;
        for (size_t i = 0; i + 1 < l->words[w].n; i++) FM_TRY(add_pair(l, key_of(s[i], s[i + 1]), (uint32_t)w, err));
    }
    return push_found(l, err);
}

/* From left to right, and what that does to the pairs around. */
static fm_status merge_word(learner *l, uint32_t w, uint64_t key, uint32_t merged, fm_error *err)
{
    const uint32_t left = (uint32_t)(key >> 32), right = (uint32_t)key;
    uint32_t *s = l->symbols + l->words[w].at;
    const size_t n = l->words[w].n;
    size_t to = 0;
    for (size_t i = 0; i < n; i++, to++) {
        if (s[i] != left || i + 1 == n || s[i + 1] != right) {
            s[to] = s[i];
            continue;
        }
        if (to > 0) {
            FM_TRY(remove_pair(l, key_of(s[to - 1], left), w, err));
            FM_TRY(add_pair(l, key_of(s[to - 1], merged), w, err));
        }
        if (i + 2 < n) {
            FM_TRY(remove_pair(l, key_of(right, s[i + 2]), w, err));
            FM_TRY(add_pair(l, key_of(merged, s[i + 2]), w, err));
        }
        s[to] = merged;
        i++;
    }
    l->words[w].n = to;
    return FM_OK;
}

/* The token that both make, which other merges may have made before. */
static fm_status join(learner *l, uint64_t key, uint32_t *merged, fm_error *err)
{
    const fm_view left = fm_counts_text(&l->tokens, (size_t)(key >> 32)),
                  right = fm_counts_text(&l->tokens, (size_t)(uint32_t)key);
    fm_str both = {.a = l->a};
    fm_str_put(&both, left.p, left.n);
    fm_str_put(&both, right.p, right.n);
    fm_status status = fm_str_ok(&both, "a token", err);
    if (status == FM_OK) status = fm_counts_add(&l->tokens, (fm_view){both.p, both.n}, 0, merged, err);
    fm_str_free(&both);
    return status;
}

static fm_status note_merge(learner *l, pair *p, fm_error *err)
{
    if (l->n_merges >= UINT32_MAX - 1) return fm_fail(err, FM_ERR_LIMIT, "too many merges");
    FM_TRY(fm_grow((void **)&l->merges, &l->merges_cap, l->n_merges + 1, sizeof *l->merges, l->a, "the merges", err));
    if (p->rank != 0) l->merges[p->rank - 1].undone = true;
    l->merges[l->n_merges++] = (merge){.left = (uint32_t)(p->key >> 32), .right = (uint32_t)p->key};
    p->rank = (uint32_t)l->n_merges;
    return FM_OK;
}

static fm_status merge_pair(learner *l, const candidate *c, fm_error *err)
{
    uint32_t merged;
    FM_TRY(join(l, c->key, &merged, err));
    FM_TRY(note_merge(l, &l->pairs[c->pair], err));
    places *where = &l->lists[c->places];
    for (size_t i = 0; i < where->n; i++) FM_TRY(merge_word(l, where->words[i], c->key, merged, err));
    fm_free(l->a, where->words);
    *where = (places){0};
    return push_found(l, err);
}

static fm_status merge_all(learner *l, fm_error *err)
{
    const size_t want = l->o->vocab - l->o->n_specials;
    candidate c;
    FM_TRY(count_all(l, err));
    while (l->tokens.n < want && take(l, &c)) {
        FM_TRY(merge_pair(l, &c, err));
        if (l->o->progress != NULL && !l->o->progress(l->o->ctx, (double)l->tokens.n / (double)want))
            return fm_fail(err, FM_ERR_CANCELLED, "cancelled");
    }
    return FM_OK;
}

/* ---- The vocabulary ---- */

static void put_spelling(fm_str *out, fm_view bytes)
{
    char utf8[4];
    for (size_t i = 0; i < bytes.n; i++)
        fm_str_put(out, utf8, fm_utf8_encode(utf8, fm_alphabet_char((unsigned char)bytes.p[i])));
}

/* Texts end to end; their lengths are kept in the views until the texts stop moving. */
static fm_status put_texts(fm_bpe_vocab *b, const learner *l, fm_error *err)
{
    const size_t k = l->o->n_specials;
    fm_str text = {.a = l->a};
    for (size_t i = 0, begin = 0; i < k + l->tokens.n; begin = text.n, i++) {
        if (i < k)
            fm_str_puts(&text, l->o->specials[i]);
        else
            put_spelling(&text, fm_counts_text(&l->tokens, i - k));
        b->tokens[i].n = text.n - begin;
        b->types[i] = i < k ? FM_TOKEN_CONTROL : FM_TOKEN_NORMAL;
    }
    b->text = text.p;
    FM_TRY(fm_str_ok(&text, "the vocabulary", err));
    for (size_t i = 0, at = 0; i < k + l->tokens.n; at += b->tokens[i++].n) b->tokens[i].p = b->text + at;
    return FM_OK;
}

static void put_merges(fm_bpe_vocab *b, const learner *l)
{
    const fm_view *letters = b->tokens + l->o->n_specials;
    for (size_t i = 0; i < l->n_merges; i++) {
        if (l->merges[i].undone) continue;
        b->merges[2 * b->v.n_merges] = letters[l->merges[i].left];
        b->merges[2 * b->v.n_merges + 1] = letters[l->merges[i].right];
        b->v.n_merges++;
    }
}

static fm_status make_vocab(fm_bpe_vocab *b, const learner *l, fm_error *err)
{
    static const char *const names[] = {
        [FM_PRETOK_FALCON] = "falcon", [FM_PRETOK_GPT2] = "gpt-2", [FM_PRETOK_LLAMA3] = "llama-bpe"};
    const size_t n = l->o->n_specials + l->tokens.n;
    FM_TRY(fm_alloc((void **)&b->tokens, l->a, n, sizeof *b->tokens, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&b->types, l->a, n, sizeof *b->types, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&b->merges, l->a, l->n_merges, 2 * sizeof *b->merges, "the merges", err));
    FM_TRY(put_texts(b, l, err));
    put_merges(b, l);
    b->n_bytes = l->n_bytes;
    b->n_pieces = l->pieces.n;
    b->v.tokens = b->tokens;
    b->v.types = b->types;
    b->v.n_tokens = n;
    b->v.merges = b->merges;
    b->v.pretok = l->o->pretok;
    b->v.pretok_name = names[l->o->pretok];
    b->v.ignore_merges = l->o->pretok == FM_PRETOK_LLAMA3; /* as the name says in a GGUF */
    b->v.bos = b->v.unk = b->v.pad = -1;
    b->v.eos = l->o->n_specials > 0 ? 0 : -1;
    return FM_OK;
}

static void learner_free(learner *l)
{
    for (size_t i = 0; i < l->n_pairs; i++) fm_free(l->a, l->pairs[i].found.words);
    for (size_t i = 0; i < l->n_lists; i++) fm_free(l->a, l->lists[i].words);
    void *const parts[] = {l->words, l->symbols, l->pairs, l->slots, l->dirty, l->heap, l->lists, l->merges};
    for (size_t i = 0; i < FM_COUNT(parts); i++) fm_free(l->a, parts[i]);
    fm_counts_free(&l->pieces);
    fm_counts_free(&l->tokens);
    fm_trie_free(&l->specials, l->a);
    fm_pool_free(l->pool);
}

fm_status fm_bpe_train(fm_bpe_vocab *out, const fm_bpe_options *o, const fm_allocator *a, fm_error *err)
{
    learner l = {.o = o, .a = a, .pieces.a = a, .tokens.a = a};
    *out = (fm_bpe_vocab){.a = a};
    fm_status status = read_options(&l, err);
    if (status == FM_OK) status = read_pieces(&l, err);
    if (status == FM_OK) status = make_words(&l, err);
    if (status == FM_OK) status = merge_all(&l, err);
    if (status == FM_OK) status = make_vocab(out, &l, err);
    learner_free(&l);
    if (status != FM_OK) fm_bpe_vocab_free(out);
    return status;
}

void fm_bpe_vocab_free(fm_bpe_vocab *b)
{
    void *const parts[] = {b->tokens, b->merges, b->types, b->text};
    for (size_t i = 0; i < FM_COUNT(parts); i++) fm_free(b->a, parts[i]);
    *b = (fm_bpe_vocab){.a = b->a};
}

/* ---- Files ---- */

fm_status fm_bpe_save(const fm_bpe_vocab *b, const char *dir, fm_error *err)
{
    fm_str text = {.a = b->a};
    fm_status status = fm_dir_make(dir, err);
    if (status == FM_OK) status = fm_vocab_write_json(&text, &b->v, err);
    if (status == FM_OK) status = fm_file_write(dir, "tokenizer.json", (fm_view){text.p, text.n}, b->a, err);
    fm_str_reset(&text);
    if (status == FM_OK) status = fm_vocab_write_config(&text, &b->v, (fm_view){NULL, 0}, err);
    if (status == FM_OK) status = fm_file_write(dir, "tokenizer_config.json", (fm_view){text.p, text.n}, b->a, err);
    fm_str_free(&text);
    return status;
}
