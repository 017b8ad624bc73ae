/* tokenizer.c - a vocabulary in memory: built once, then only read.  Encoding is in encode.c, streaming decoding in detok.c,
 * tokenizer.json in vocab_json.c.
 *
 * Tokens are kept twice, as spelled and as bytes.  Control and user-defined tokens are added tokens: verbatim text, found by
 * the tries.  All others are byte sequences, found by the hash table, out of which merges make bigger ones. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/utf8.h"
#include "text/tokenizer_internal.h"

static bool is_plain(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

/* The bytes that are not printable, in order, are spelled U+0100, U+0101 ...: 0-32, 127-160, 173. */
uint32_t fm_alphabet_char(unsigned char byte)
{
    if (is_plain(byte)) return byte;
    if (byte <= 32) return 0x100u + byte;
    return byte == 173 ? 0x143u : 0x121u + byte - 127u;
}

int fm_alphabet_byte(uint32_t cp)
{
    if (cp < 256) return is_plain(cp) ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 127);
    return cp == 0x143 ? 173 : -1;
}

/* What a token spells; false (and the spelling itself) when it leaves the alphabet.  `out` has room for v.n bytes. */
static bool spell_to_bytes(char *out, size_t *n_out, fm_view v)
{
    size_t n = 0;
    for (size_t i = 0; i < v.n;) {
        uint32_t cp;
        i += fm_utf8_decode(&cp, v.p + i, v.n - i);
        const int byte = fm_alphabet_byte(cp);
        if (byte < 0) {
            memcpy(out, v.p, v.n);
            *n_out = v.n;
            return false;
        }
        out[n++] = (char)byte;
    }
    *n_out = n;
    return true;
}

static uint64_t hash_more(uint64_t h, fm_view v)
{
    for (size_t i = 0; i < v.n; i++) h = (h ^ (unsigned char)v.p[i]) * 0x100000001B3u;
    return h;
}

static size_t hash_of(fm_view left, fm_view right)
{
    uint64_t h = hash_more(hash_more(0xCBF29CE484222325u, left), right);
    h ^= h >> 32;
    return (size_t)(h * 0x9E3779B97F4A7C15u >> 24);
}

static fm_view bytes_of(const fm_tokenizer *t, size_t id)
{
    return (fm_view){t->bytes + t->bytes_at[id], t->bytes_at[id + 1] - t->bytes_at[id]};
}

static size_t lookup_slot(const fm_tokenizer *t, fm_view left, fm_view right)
{
    size_t i = hash_of(left, right) & (t->n_lookup - 1);
    for (; t->lookup[i] != 0; i = (i + 1) & (t->n_lookup - 1)) {
        const fm_view v = bytes_of(t, t->lookup[i] - 1);
        if (v.n == left.n + right.n && memcmp(v.p, left.p, left.n) == 0 &&
            (right.n == 0 || memcmp(v.p + left.n, right.p, right.n) == 0))
            break;
    }
    return i;
}

int32_t fm_tokenizer_lookup(const fm_tokenizer *t, fm_view left, fm_view right)
{
    if (left.n > t->longest || right.n > t->longest - left.n || left.n == 0) return -1;
    return (int32_t)t->lookup[lookup_slot(t, left, right)] - 1;
}

static void add_lookup(fm_tokenizer *t, size_t id)
{
    const fm_view bytes = bytes_of(t, id);
    if (bytes.n == 0) return;
    uint32_t *slot = &t->lookup[lookup_slot(t, bytes, (fm_view){NULL, 0})];
    if (*slot == 0) *slot = (uint32_t)id + 1;
    if (bytes.n > t->longest) t->longest = bytes.n;
}

static bool is_added(const fm_tokenizer *t, size_t id)
{
    return t->types[id] == FM_TOKEN_CONTROL || t->types[id] == FM_TOKEN_USER_DEFINED;
}

/* "[PAD50300]" at 50300: what converters fill a vocabulary up with.  Not text that anybody means. */
static bool is_filler(const fm_tokenizer *t, size_t id, fm_view v)
{
    uint64_t number;
    return t->types[id] == FM_TOKEN_USER_DEFINED && fm_view_starts(v, "[PAD") && fm_view_ends(v, "]") &&
           fm_parse_u64((fm_view){v.p + 4, v.n - 5}, &number) && number == id;
}

static fm_status add_token(fm_tokenizer *t, const fm_vocab *v, size_t id, fm_error *err)
{
    const fm_view text = v->tokens[id];
    const int32_t type = v->types != NULL ? v->types[id] : FM_TOKEN_NORMAL;
    if (type < 0 || type > FM_TOKEN_BYTE)
        return fm_fail(err, FM_ERR_FORMAT, "token %zu has type %d, expected 0 to %d", id, (int)type, FM_TOKEN_BYTE);
    t->types[id] = (uint8_t)type;
    t->added[id] = v->added != NULL ? v->added[id] : type == FM_TOKEN_CONTROL ? FM_ADDED_RAW : 0;
    if (text.n > 0) memcpy(t->spelled + t->spelled_at[id], text.p, text.n);
    t->spelled_at[id + 1] = t->spelled_at[id] + text.n;
    char *bytes = t->bytes + t->bytes_at[id];
    size_t n;
    if (is_added(t, id)) {
        /* Letters outside ASCII are not what they spell. */
        const bool ordinary = t->added[id] & FM_ADDED_ORDINARY && spell_to_bytes(bytes, &n, text) && n == text.n;
        if (text.n > 0) memcpy(bytes, text.p, text.n);
        t->bytes_at[id + 1] = t->bytes_at[id] + text.n;
        if (ordinary) add_lookup(t, id);
        if (is_filler(t, id, text)) return FM_OK;
        fm_trie *trie = &t->tries[(t->added[id] & FM_ADDED_RAW) == 0][type == FM_TOKEN_CONTROL];
        return fm_trie_add(trie, text, (int32_t)id, t->a, err);
    }
    const bool spelled = spell_to_bytes(bytes, &n, text);
    t->bytes_at[id + 1] = t->bytes_at[id] + n;
    if (spelled) add_lookup(t, id);
    return FM_OK;
}

static fm_status add_tokens(fm_tokenizer *t, const fm_vocab *v, fm_error *err)
{
    size_t total = 0;
    if (v->n_tokens == 0 || v->n_tokens > FM_VOCAB_MAX)
        return fm_fail(err, FM_ERR_FORMAT, "a vocabulary has 1 to %zu tokens, this one has %zu", FM_VOCAB_MAX, v->n_tokens);
    for (size_t i = 0; i < v->n_tokens; i++)
        if (!fm_add(total, v->tokens[i].n, &total))
            return fm_fail(err, FM_ERR_LIMIT, "the tokens are too long to hold in memory");
    t->n = v->n_tokens;
    t->n_lookup = 16;
    while (t->n_lookup < 2 * t->n) t->n_lookup *= 2;
    FM_TRY(fm_alloc((void **)&t->spelled, t->a, total, 1, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->bytes, t->a, total, 1, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->spelled_at, t->a, t->n + 1, sizeof *t->spelled_at, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->bytes_at, t->a, t->n + 1, sizeof *t->bytes_at, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->types, t->a, t->n, 1, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->added, t->a, t->n, 1, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&t->lookup, t->a, t->n_lookup, sizeof *t->lookup, "the vocabulary", err));
    for (size_t i = 0; i < t->n; i++) FM_TRY(add_token(t, v, i, err));
    for (unsigned b = 0; b < 256; b++) {
        const char byte = (char)b;
        t->bpe.byte_id[b] = fm_tokenizer_lookup(t, (fm_view){&byte, 1}, (fm_view){NULL, 0});
    }
    return FM_OK;
}

/* Room for the two sides of a merge as bytes, which are never longer than their spelling. */
typedef struct sides {
    char *p;
    size_t cap;
} sides;

static fm_status add_merge(fm_tokenizer *t, size_t i, const fm_view side[2], sides *s, fm_error *err)
{
    fm_view bytes[2];
    size_t total;
    bool good = fm_add(side[0].n, side[1].n, &total);
    if (good) FM_TRY(fm_grow((void **)&s->p, &s->cap, total + 1, 1, t->a, "a merge", err));
    fm_merge *m = &t->bpe.merges[i];
    *m = (fm_merge){-1, -1, -1};
    for (int k = 0; good && k < 2; k++) {
        bytes[k].p = s->p + (k == 0 ? 0 : side[0].n);
        good = spell_to_bytes(s->p + (k == 0 ? 0 : side[0].n), &bytes[k].n, side[k]) && bytes[k].n > 0;
    }
    if (good) {
        m->left = fm_tokenizer_lookup(t, bytes[0], (fm_view){NULL, 0});
        m->right = fm_tokenizer_lookup(t, bytes[1], (fm_view){NULL, 0});
        m->merged = fm_tokenizer_lookup(t, bytes[0], bytes[1]);
    }
    if (m->left >= 0 && m->right >= 0 && m->merged >= 0) return FM_OK;
    return fm_fail(
        err, FM_ERR_FORMAT,
        "merge %zu (\"%.*s\" with \"%.*s\") needs tokens that the vocabulary does not have; vocabulary and merges must "
        "be of the same tokenizer",
        i, (int)(side[0].n < 40 ? side[0].n : 40), side[0].p, (int)(side[1].n < 40 ? side[1].n : 40), side[1].p);
}

static fm_status add_merges(fm_tokenizer *t, const fm_vocab *v, fm_error *err)
{
    if (v->n_merges > FM_VOCAB_MAX)
        return fm_fail(err, FM_ERR_FORMAT, "a vocabulary has at most %zu merges, this one has %zu", FM_VOCAB_MAX, v->n_merges);
    FM_TRY(fm_alloc((void **)&t->bpe.merges, t->a, v->n_merges, sizeof *t->bpe.merges, "the merges", err));
    t->bpe.n_merges = v->n_merges;
    sides s = {NULL, 0};
    fm_status status = FM_OK;
    for (size_t i = 0; status == FM_OK && i < v->n_merges; i++) status = add_merge(t, i, v->merges + 2 * i, &s, err);
    fm_free(t->a, s.p);
    return status != FM_OK ? status : fm_bpe_index(&t->bpe, t->a, err);
}

static fm_status check_id(const fm_tokenizer *t, int32_t id, const char *what, fm_error *err)
{
    if (id >= -1 && (id < 0 || (size_t)id < t->n)) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "the %s token is %d, but the vocabulary has ids 0 to %zu", what, (int)id, t->n - 1);
}

static fm_status build(fm_tokenizer *t, const fm_vocab *v, fm_error *err)
{
    FM_TRY(add_tokens(t, v, err));
    FM_TRY(add_merges(t, v, err));
    FM_TRY(check_id(t, v->bos, "BOS", err));
    FM_TRY(check_id(t, v->eos, "EOS", err));
    FM_TRY(check_id(t, v->unk, "unknown", err));
    FM_TRY(check_id(t, v->pad, "padding", err));
    const char *name = v->pretok_name != NULL ? v->pretok_name : "gpt-2";
    t->pretok_name = fm_strdup(t->a, name, strlen(name), err);
    if (t->pretok_name == NULL) return FM_ERR_MEMORY;
    t->pretok = v->pretok;
    t->ignore_merges = v->ignore_merges;
    t->add_bos = v->add_bos;
    t->add_eos = v->add_eos;
    t->nfc = v->nfc;
    t->bos = v->bos;
    t->eos = v->eos;
    t->unk = v->unk;
    t->pad = v->pad;
    return FM_OK;
}

fm_status fm_tokenizer_build(fm_tokenizer **out, const fm_vocab *v, const fm_allocator *a, fm_error *err)
{
    fm_tokenizer *t;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&t, a, 1, sizeof *t, "the tokenizer", err));
    if (a != NULL) {
        t->allocator = *a;
        t->a = &t->allocator;
    }
    const fm_status status = build(t, v, err);
    if (status != FM_OK)
        fm_tokenizer_free(t);
    else
        *out = t;
    return status;
}

void fm_tokenizer_free(fm_tokenizer *t)
{
    if (t == NULL) return;
    const fm_allocator a = t->allocator; /* t->a points into what is freed last */
    const fm_allocator *use = t->a != NULL ? &a : NULL;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) fm_trie_free(&t->tries[i][k], use);
    fm_bpe_free(&t->bpe, use);
    void *const parts[] = {t->spelled, t->bytes, t->spelled_at, t->bytes_at, t->types, t->added, t->lookup, t->pretok_name};
    for (size_t i = 0; i < FM_COUNT(parts); i++) fm_free(use, parts[i]);
    fm_free(use, t);
}

static bool is_id(const fm_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n;
}

bool fm_tokenizer_is_special(const fm_tokenizer *t, int32_t id)
{
    return is_id(t, id) && t->types[id] == FM_TOKEN_CONTROL;
}

const char *fm_token_text(const fm_tokenizer *t, int32_t id, bool special, size_t *n)
{
    *n = 0;
    if (!is_id(t, id) || (!special && fm_tokenizer_is_special(t, id))) return "";
    const fm_view v = bytes_of(t, (size_t)id);
    *n = v.n;
    return v.p;
}

int32_t fm_tokenizer_find_view(const fm_tokenizer *t, fm_view text)
{
    for (int i = 0; i < 4; i++) {
        int32_t id;
        if (text.n > 0 && fm_trie_match(&t->tries[i / 2][1 - i % 2], text, &id) == text.n) return id;
    }
    return fm_tokenizer_lookup(t, text, (fm_view){NULL, 0});
}

int32_t fm_tokenizer_find(const fm_tokenizer *t, const char *text)
{
    return fm_tokenizer_find_view(t, fm_view_of(text));
}

size_t fm_tokenizer_vocab(const fm_tokenizer *t)
{
    return t->n;
}
int32_t fm_tokenizer_bos(const fm_tokenizer *t)
{
    return t->bos;
}
int32_t fm_tokenizer_eos(const fm_tokenizer *t)
{
    return t->eos;
}
int32_t fm_tokenizer_unk(const fm_tokenizer *t)
{
    return t->unk;
}
int32_t fm_tokenizer_pad(const fm_tokenizer *t)
{
    return t->pad;
}
bool fm_tokenizer_add_bos(const fm_tokenizer *t)
{
    return t->add_bos;
}
bool fm_tokenizer_add_eos(const fm_tokenizer *t)
{
    return t->add_eos;
}
const char *fm_tokenizer_pretok_name(const fm_tokenizer *t)
{
    return t->pretok_name;
}
size_t fm_tokenizer_merges(const fm_tokenizer *t)
{
    return t->bpe.n_merges;
}

void fm_tokenizer_spell(const fm_tokenizer *t, int32_t id, fm_view *token, int32_t *type)
{
    FM_ASSERT(is_id(t, id));
    *token = (fm_view){t->spelled + t->spelled_at[id], t->spelled_at[id + 1] - t->spelled_at[id]};
    *type = t->types[id];
}

void fm_tokenizer_merge(const fm_tokenizer *t, size_t i, fm_view *left, fm_view *right)
{
    FM_ASSERT(i < t->bpe.n_merges);
    int32_t type;
    fm_tokenizer_spell(t, t->bpe.merges[i].left, left, &type);
    fm_tokenizer_spell(t, t->bpe.merges[i].right, right, &type);
}

size_t fm_tokenizer_eog(const fm_tokenizer *t, int32_t *ids, size_t max)
{
    static const char *const names[] = {"<|endoftext|>", "<|end_of_text|>", "<|im_end|>",      "<|eot_id|>", "<|eom_id|>",
                                        "<|end|>",       "<end_of_turn>",   "<|end_of_turn|>", "<EOT>",      "</s>"};
    size_t n = 0;
    for (size_t i = 0; i < FM_COUNT(names) && n < max; i++) {
        const int32_t id = fm_tokenizer_find(t, names[i]);
        if (id >= 0) ids[n++] = id;
    }
    return n;
}
