/* data.c - see data.h. */
#include "train/data.h"

#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"

#define FILE_BYTES_MAX ((size_t)64 << 30)

/* ---- Order ---- */

enum { ROUNDS = 4 };

static uint64_t feistel(uint64_t i, unsigned half_bits, uint64_t key)
{
    const uint64_t mask = ((uint64_t)1 << half_bits) - 1;
    uint64_t left = i >> half_bits, right = i & mask;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint32_t w[4];
        fm_rng_words(w, key, round, right);
        const uint64_t next = left ^ (((uint64_t)w[1] << 32 | w[0]) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint64_t fm_permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half_bits = 1;
    FM_ASSERT(i < n && n <= (uint64_t)1 << 62);
    while ((uint64_t)1 << (2 * half_bits) < n) half_bits++;
    do i = feistel(i, half_bits, key);
    while (i >= n); /* the walk returns to i itself at the latest */
    return i;
}

static uint64_t n_windows(const fm_data *d, size_t source)
{
    return d->sources[source]->n ? (d->sources[source]->n - 1) / d->length : 0;
}

fm_status fm_data_check(const fm_data *d, fm_error *err)
{
    for (size_t i = 0; i < d->n_sources; i++)
        if (n_windows(d, i) == 0)
            return fm_fail(err, FM_ERR_ARGUMENT,
                           "source %zu has %zu tokens, a window takes %zu and the one after them: give more text or a shorter "
                           "sequence",
                           i + 1, d->sources[i]->n, d->length);
    return FM_OK;
}

/* The source whose share of what was taken is furthest below its weight; the first on ties. */
static size_t choose_source(const fm_data *d, const fm_cursor *c)
{
    size_t best = 0;
    for (size_t i = 1; i < d->n_sources; i++)
        if (((double)c->taken[i] + 1.0) * d->weights[best] < ((double)c->taken[best] + 1.0) * d->weights[i]) best = i;
    return best;
}

const int32_t *fm_data_next(const fm_data *d, fm_cursor *c)
{
    const size_t s = choose_source(d, c);
    const uint64_t n = n_windows(d, s), taken = c->taken[s]++, epoch = taken / n;
    uint32_t key[4];
    fm_rng_words(key, d->seed, s, epoch);
    const uint64_t window = fm_permute(taken % n, n, (uint64_t)key[1] << 32 | key[0]);
    return d->sources[s]->ids + window * d->length;
}

/* ---- Files ---- */

static fm_status reserve(fm_tokens *t, size_t *room, size_t more, fm_error *err)
{
    size_t want;
    if (!fm_add(t->n, more, &want)) return fm_fail(err, FM_ERR_MEMORY, "too many tokens");
    if (want <= *room) return FM_OK;
    want = want > *room * 2 ? want : *room * 2;
    int32_t *p;
    FM_TRY(fm_alloc((void **)&p, t->a, want, sizeof *p, "the tokens", err));
    if (t->n) memcpy(p, t->ids, t->n * sizeof *p);
    fm_free(t->a, t->ids);
    t->ids = p;
    *room = want;
    return FM_OK;
}

static fm_status append(fm_tokens *t, size_t *room, const fm_tokenizer *tok, fm_view text, unsigned flags, fm_error *err)
{
    size_t n = 0;
    const fm_status counted = fm_tokenize(tok, text.p, text.n, flags, NULL, &n, err);
    if (counted != FM_OK && counted != FM_ERR_LIMIT) return counted;
    FM_TRY(reserve(t, room, n + 1, err));
    FM_TRY(fm_tokenize(tok, text.p, text.n, flags, t->ids + t->n, &n, err));
    t->n += n;
    t->n_bytes += text.n;
    return FM_OK;
}

fm_status fm_jsonl_text(fm_str *out, fm_view line, const char *path, fm_error *err)
{
    fm_json j = fm_json_begin(line.p, line.n, path);
    fm_view key, raw = {NULL, 0};
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (fm_view_is(key, "text"))
                fm_json_string(&j, &raw);
            else
                fm_json_skip(&j);
        }
    FM_TRY(fm_json_finish(&j, err));
    if (!raw.p) return fm_fail(err, FM_ERR_FORMAT, "%s: a line has no \"text\": expected {\"text\": \"...\"} in each", path);
    fm_json_unescape(out, raw);
    return fm_str_ok(out, "a document", err);
}

static fm_status append_line(fm_tokens *t, size_t *room, const fm_tokenizer *tok, fm_view line, const char *path, fm_error *err)
{
    fm_str text = {.a = t->a};
    fm_status status = fm_jsonl_text(&text, line, path, err);
    if (status == FM_OK) status = append(t, room, tok, (fm_view){text.p, text.n}, 0, err);
    if (status == FM_OK && fm_tokenizer_eos(tok) >= 0) t->ids[t->n++] = fm_tokenizer_eos(tok);
    fm_str_free(&text);
    return status;
}

static fm_status append_lines(fm_tokens *t, size_t *room, const fm_tokenizer *tok, fm_view text, const char *path,
                              fm_error *err)
{
    for (size_t at = 0; at < text.n;) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        const size_t n = end ? (size_t)(end - text.p) - at : text.n - at;
        if (n > 0) FM_TRY(append_line(t, room, tok, (fm_view){text.p + at, n}, path, err));
        at += n + 1;
    }
    return FM_OK;
}

static fm_status check_ids(const fm_tokens *t, size_t vocab, const char *path, fm_error *err)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->ids[i] < 0 || (size_t)t->ids[i] >= vocab)
            return fm_fail(err, FM_ERR_SHAPE,
                           "%s: token %zu is %d, expected 0 .. %zu: tokenizer and model do not belong together", path, i,
                           (int)t->ids[i], vocab - 1);
    return FM_OK;
}

fm_status fm_tokens_read(fm_tokens *out, const char *path, const fm_tokenizer *t, size_t vocab, const fm_allocator *a,
                         fm_error *err)
{
    fm_map map;
    size_t room = 0;
    *out = (fm_tokens){.a = a};
    FM_TRY(fm_map_open(&map, path, FM_MAP_SHARED, err));
    const fm_view text = {(const char *)map.p, map.n};
    fm_status status = FM_OK;
    if (map.n > FILE_BYTES_MAX)
        status = fm_fail(err, FM_ERR_LIMIT, "%s: %zu bytes of text, at most %zu are read at once", path, map.n, FILE_BYTES_MAX);
    else if (fm_view_ends(fm_view_of(path), ".jsonl"))
        status = append_lines(out, &room, t, text, path, err);
    else
        status = append(out, &room, t, text, FM_PARSE_SPECIAL, err);
    fm_map_close(&map);
    if (status == FM_OK) status = check_ids(out, vocab, path, err);
    if (status != FM_OK) fm_tokens_free(out);
    return status;
}

void fm_tokens_free(fm_tokens *t)
{
    fm_free(t->a, t->ids);
    *t = (fm_tokens){0};
}
