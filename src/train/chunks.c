/* chunks.c - see chunks.h. */
#include "train/chunks.h"

#include <string.h>

fm_status fm_chunks_open(fm_chunks *c, const char *path, bool whole, unsigned workers, const fm_allocator *a, fm_error *err)
{
    *c = (fm_chunks){.a = a, .want = workers * FM_CHUNKS_ROUND * FM_CHUNK_BYTES, .held = FM_CHUNKS_HELD};
    c->lines = fm_view_ends(fm_unpack_name(path), ".jsonl");
    c->whole = whole && !c->lines;
    return fm_unpack_open(&c->in, path, a, err);
}

void fm_chunks_close(fm_chunks *c)
{
    fm_unpack_close(&c->in);
    fm_free(c->a, c->text);
    fm_free(c->a, c->cuts);
    *c = (fm_chunks){.in.fd = -1};
}

/* Is the place before text[at] between two pieces, whatever stands around it?  No rule of any pre-tokeniser goes on from a letter
 * to a line end, or looks back. */
static bool is_seam(const fm_chunks *c, size_t at)
{
    const char before = c->text[at - 1];
    if (c->lines) return before == '\n';
    const char lower = (char)(before | 32);
    return c->text[at] == '\n' && lower >= 'a' && lower <= 'z';
}

/* Where the chunk that begins there ends; 0: not in the bytes that are there. */
static size_t chunk_end(const fm_chunks *c, size_t begin, bool last)
{
    const size_t n = c->n_text;
    if (last && (n - begin <= FM_CHUNK_BYTES || c->whole)) return n;
    if (c->whole || n - begin <= FM_CHUNK_BYTES) return 0;
    for (size_t at = begin + FM_CHUNK_BYTES; at < n; at++)
        if (is_seam(c, at)) return at;
    return last ? n : 0;
}

static fm_status find_cuts(fm_chunks *c, bool last, fm_error *err)
{
    for (size_t at = 0, end; at < c->n_text && (end = chunk_end(c, at, last)) > 0; at = end, c->n++) {
        FM_TRY(fm_grow((void **)&c->cuts, &c->cuts_cap, c->n + 2, sizeof *c->cuts, c->a, "the chunks of a file", err));
        c->cuts[c->n] = at;
        c->cuts[c->n + 1] = end;
    }
    return FM_OK;
}

/* Reads until there are c->want bytes or the file ends. */
static fm_status fill(fm_chunks *c, bool *last, fm_error *err)
{
    size_t got;
    FM_TRY(fm_grow((void **)&c->text, &c->cap, c->want, 1, c->a, "a piece of a file", err));
    FM_TRY(fm_unpack_read(&c->in, c->text + c->n_text, c->cap - c->n_text, &got, err));
    c->n_text += got;
    *last = c->n_text < c->cap;
    return FM_OK;
}

static void drop_done(fm_chunks *c)
{
    const size_t done = c->n ? c->cuts[c->n] : 0;
    if (done) memmove(c->text, c->text + done, c->n_text - done);
    c->n_text -= done;
    c->n = 0;
}

static fm_status fail_uncut(const fm_chunks *c, fm_error *err)
{
    if (c->whole)
        return fm_fail(
            err, FM_ERR_LIMIT,
            "%s: more than %zu bytes of text that must not be cut, as a special token ends in a letter or has a line "
            "end in it: give lines of JSON (.jsonl), a document each",
            c->in.path, c->n_text);
    return fm_fail(err, FM_ERR_LIMIT, "%s: %zu bytes without a line end%s: the most that is held at once; cut it into lines",
                   c->in.path, c->n_text, c->lines ? "" : " behind a letter");
}

fm_status fm_chunks_next(fm_chunks *c, fm_error *err)
{
    drop_done(c);
    for (;;) {
        bool last;
        FM_TRY(fill(c, &last, err));
        FM_TRY(find_cuts(c, last, err));
        if (c->n > 0 || last) return FM_OK;
        if (c->want >= c->held) return fail_uncut(c, err);
        c->want *= 2;
    }
}

bool fm_chunk_line(fm_view chunk, size_t *at, fm_view *line)
{
    while (*at < chunk.n) {
        const char *begin = chunk.p + *at, *end = memchr(begin, '\n', chunk.n - *at);
        *line = (fm_view){begin, end ? (size_t)(end - begin) : chunk.n - *at};
        *at += line->n + 1;
        if (line->n > 0) return true;
    }
    return false;
}
