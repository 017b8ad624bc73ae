/* counts.c - see counts.h.  A file comes in chunks of about a mebibyte; each thread counts every n-th of them in a table of its
 * own, and the tables are added up. */
#include "train/counts.h"

#include <string.h>

#include "train/chunks.h"
#include "train/tokenize.h"

/* ---- The table ---- */

static uint64_t hash_of(fm_view v)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < v.n; i++) h = (h ^ (unsigned char)v.p[i]) * 0x100000001B3u;
    return (h ^ h >> 32) * 0x9E3779B97F4A7C15u;
}

static size_t find_slot(const fm_counts *c, fm_view v, uint64_t hash)
{
    size_t i = (size_t)(hash >> 20) & (c->n_slots - 1);
    for (; c->slots[i] != 0; i = (i + 1) & (c->n_slots - 1)) {
        const fm_count *e = &c->entries[c->slots[i] - 1];
        if (e->hash == hash && e->n == v.n && (v.n == 0 || memcmp(c->bytes + e->at, v.p, v.n) == 0)) break;
    }
    return i;
}

/* At most half full. */
static fm_status make_room(fm_counts *c, fm_error *err)
{
    if (c->n >= UINT32_MAX - 1) return fm_fail(err, FM_ERR_LIMIT, "the text has more than 2^32 - 2 distinct pieces");
    if (c->n_slots > 2 * c->n) return FM_OK;
    size_t n = c->n_slots ? c->n_slots : 512;
    uint32_t *slots;
    if (!fm_mul(n, 2, &n)) return fm_fail(err, FM_ERR_MEMORY, "too many pieces of text");
    FM_TRY(fm_alloc((void **)&slots, c->a, n, sizeof *slots, "the pieces of text", err));
    fm_free(c->a, c->slots);
    c->slots = slots;
    c->n_slots = n;
    for (size_t i = 0; i < c->n; i++) {
        size_t at = (size_t)(c->entries[i].hash >> 20) & (n - 1);
        while (slots[at] != 0) at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)i + 1;
    }
    return FM_OK;
}

static fm_status append(fm_counts *c, fm_view text, uint64_t hash, fm_error *err)
{
    size_t end;
    if (!fm_add(c->n_bytes, text.n, &end)) return fm_fail(err, FM_ERR_MEMORY, "too many pieces of text");
    FM_TRY(fm_grow((void **)&c->bytes, &c->bytes_cap, end + 1, 1, c->a, "the pieces of text", err));
    FM_TRY(fm_grow((void **)&c->entries, &c->cap, c->n + 1, sizeof *c->entries, c->a, "the pieces of text", err));
    if (text.n > 0) memcpy(c->bytes + c->n_bytes, text.p, text.n);
    c->entries[c->n++] = (fm_count){.at = c->n_bytes, .n = text.n, .hash = hash};
    c->n_bytes = end;
    return FM_OK;
}

fm_status fm_counts_add(fm_counts *c, fm_view text, uint64_t times, uint32_t *index, fm_error *err)
{
    FM_TRY(make_room(c, err));
    const uint64_t hash = hash_of(text);
    uint32_t *slot = &c->slots[find_slot(c, text, hash)];
    if (*slot == 0) {
        FM_TRY(append(c, text, hash, err));
        *slot = (uint32_t)c->n;
    }
    c->entries[*slot - 1].count += times;
    if (index != NULL) *index = *slot - 1;
    return FM_OK;
}

void fm_counts_free(fm_counts *c)
{
    fm_free(c->a, c->bytes);
    fm_free(c->a, c->entries);
    fm_free(c->a, c->slots);
    *c = (fm_counts){.a = c->a};
}

/* ---- Files ---- */

/* What one thread counts; the chunk it stopped at, and why. */
typedef struct part {
    fm_counts counts;
    uint64_t n_bytes;
    size_t failed_at;
    fm_status status;
    fm_error err;
} part;

typedef struct counting {
    const fm_cutter *cutter;
    const char *path;
    fm_chunks chunks;
    part *parts;
} counting;

static fm_status count_span(part *p, const fm_cutter *cutter, fm_view span)
{
    fm_pieces pieces = fm_pieces_begin(cutter->pretok, span);
    p->n_bytes += span.n;
    for (fm_view piece; fm_pieces_next(&pieces, &piece);) FM_TRY(fm_counts_add(&p->counts, piece, 1, NULL, &p->err));
    return FM_OK;
}

/* What stands between special tokens. */
static fm_status count_text(part *p, const fm_cutter *cutter, fm_view text)
{
    size_t begin = 0, at = 0;
    while (at < text.n) {
        int32_t id;
        const size_t n = fm_trie_match(cutter->specials, (fm_view){text.p + at, text.n - at}, &id);
        if (n > 0 && at > begin) FM_TRY(count_span(p, cutter, (fm_view){text.p + begin, at - begin}));
        at += n > 0 ? n : 1;
        if (n > 0) begin = at;
    }
    return begin < text.n ? count_span(p, cutter, (fm_view){text.p + begin, text.n - begin}) : FM_OK;
}

static fm_status count_lines(part *p, const counting *c, fm_view chunk)
{
    fm_str text = {.a = p->counts.a};
    fm_status status = FM_OK;
    fm_view line;
    for (size_t at = 0; status == FM_OK && fm_chunk_line(chunk, &at, &line);) {
        fm_str_reset(&text);
        status = fm_jsonl_text(&text, line, c->path, &p->err);
        if (status == FM_OK) status = count_text(p, c->cutter, (fm_view){text.p, text.n});
    }
    fm_str_free(&text);
    return status;
}

static void count_part(void *ctx, unsigned index, unsigned n_parts)
{
    counting *c = ctx;
    part *p = &c->parts[index];
    for (size_t i = index; i < c->chunks.n && p->status == FM_OK; i += n_parts) {
        const fm_view text = fm_chunk(&c->chunks, i);
        p->status = c->chunks.lines ? count_lines(p, c, text) : count_text(p, c->cutter, text);
        p->failed_at = i;
    }
}

/* The failure that comes first in the file. */
static fm_status first_failure(const counting *c, unsigned n_parts, fm_error *err)
{
    const part *first = NULL;
    for (unsigned i = 0; i < n_parts; i++)
        if (c->parts[i].status != FM_OK && (first == NULL || c->parts[i].failed_at < first->failed_at)) first = &c->parts[i];
    if (first == NULL) return FM_OK;
    if (err != NULL) *err = first->err;
    return first->status;
}

static fm_status add_up(fm_counts *out, const fm_counts *c, fm_error *err)
{
    for (size_t i = 0; i < c->n; i++) FM_TRY(fm_counts_add(out, fm_counts_text(c, i), c->entries[i].count, NULL, err));
    return FM_OK;
}

static fm_status count_rounds(counting *c, unsigned n_parts, fm_error *err)
{
    do {
        FM_TRY(fm_chunks_next(&c->chunks, err));
        fm_pool_run(c->cutter->pool, count_part, c);
        FM_TRY(first_failure(c, n_parts, err));
    } while (c->chunks.n > 0);
    return FM_OK;
}

static fm_status count_chunks(counting *c, fm_counts *out, uint64_t *n_bytes, fm_error *err)
{
    const unsigned n_parts = fm_pool_threads(c->cutter->pool);
    FM_TRY(fm_alloc((void **)&c->parts, out->a, n_parts, sizeof *c->parts, "the counts of a file", err));
    for (unsigned i = 0; i < n_parts; i++) c->parts[i].counts.a = out->a;
    fm_status status = count_rounds(c, n_parts, err);
    for (unsigned i = 0; i < n_parts; i++) {
        if (status == FM_OK) status = add_up(out, &c->parts[i].counts, err);
        *n_bytes += c->parts[i].n_bytes;
        fm_counts_free(&c->parts[i].counts);
    }
    return status;
}

fm_status fm_counts_file(fm_counts *out, const char *path, const fm_cutter *cutter, uint64_t *n_bytes, fm_error *err)
{
    counting c = {.cutter = cutter, .path = path};
    FM_TRY(fm_chunks_open(&c.chunks, path, cutter->whole, fm_pool_threads(cutter->pool), out->a, err));
    const fm_status status = count_chunks(&c, out, n_bytes, err);
    fm_free(out->a, c.parts);
    fm_chunks_close(&c.chunks);
    return status;
}
