/* tokenize.c - see tokenize.h. */
#include "train/tokenize.h"

#include <string.h>

#include "base/json.h"
#include "text/tokenizer.h"

/* The ids of one chunk; memory stays from round to round. */
typedef struct piece {
    int32_t *ids;
    size_t n, room;
    size_t n_bytes, n_lines; /* of text; done */
    fm_view line;            /* the one that failed */
    fm_status status;
    fm_error err;
} piece;

typedef struct job {
    const fm_tokenizing *o;
    const char *path;
    fm_chunks chunks;
    piece *pieces; /* (n_pieces), one for each chunk of a round */
    size_t n_pieces;
    uint64_t n_lines, n_ids; /* of earlier rounds */
} job;

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

/* ---- One chunk, by one worker ---- */

static fm_status reserve(piece *p, size_t more, const fm_allocator *a, fm_error *err)
{
    size_t need;
    if (!fm_add(p->n, more, &need)) return fm_fail(err, FM_ERR_MEMORY, "too many tokens");
    return fm_grow((void **)&p->ids, &p->room, need, sizeof *p->ids, a, "the tokens of a piece of text", err);
}

/* A token is hardly ever shorter than a byte of text, but normalising may lengthen the text. */
static fm_status append(piece *p, const fm_tokenizing *o, fm_view text, unsigned flags, fm_error *err)
{
    FM_TRY(reserve(p, text.n + 1, o->a, err));
    size_t n = p->room - p->n;
    fm_status status = fm_tokenize(o->t, text.p, text.n, flags, p->ids + p->n, &n, err);
    if (status == FM_ERR_LIMIT) {
        FM_TRY(reserve(p, n, o->a, err));
        status = fm_tokenize(o->t, text.p, text.n, flags, p->ids + p->n, &n, err);
    }
    if (status != FM_OK) return status;
    p->n += n;
    p->n_bytes += text.n;
    return FM_OK;
}

static fm_status append_document(piece *p, const job *j, fm_view line, fm_str *text)
{
    const int32_t eos = fm_tokenizer_eos(j->o->t);
    fm_str_reset(text);
    p->line = line;
    FM_TRY(fm_jsonl_text(text, line, j->path, &p->err));
    FM_TRY(append(p, j->o, (fm_view){text->p, text->n}, 0, &p->err));
    FM_TRY(reserve(p, 1, j->o->a, &p->err));
    if (eos >= 0) p->ids[p->n++] = eos;
    p->n_lines++;
    return FM_OK;
}

static fm_status append_lines(piece *p, const job *j, fm_view chunk)
{
    fm_str text = {.a = j->o->a};
    fm_status status = FM_OK;
    fm_view line;
    for (size_t at = 0; status == FM_OK && fm_chunk_line(chunk, &at, &line);) status = append_document(p, j, line, &text);
    fm_str_free(&text);
    return status;
}

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    const job *j = ctx;
    for (size_t i = part; i < j->chunks.n; i += n_parts) {
        piece *p = &j->pieces[i];
        const fm_view chunk = fm_chunk(&j->chunks, i);
        p->n = p->n_bytes = p->n_lines = 0;
        p->line = (fm_view){NULL, 0};
        p->status = j->chunks.lines ? append_lines(p, j, chunk) : append(p, j->o, chunk, FM_PARSE_SPECIAL, &p->err);
    }
}

/* ---- The whole, in order ---- */

static uint64_t count_line_ends(const char *from, const char *to)
{
    uint64_t n = 0;
    for (const char *p = from; (p = memchr(p, '\n', (size_t)(to - p))); p++) n++;
    return n;
}

/* Says the failure again with the number of its line, which only the round knows. */
static fm_status fail_line(const job *j, const piece *p, fm_error *err)
{
    fm_str where = {.a = j->o->a}, ignored = {.a = j->o->a};
    fm_str_printf(&where, "%s:%llu", j->path,
                  (unsigned long long)(j->n_lines + count_line_ends(j->chunks.text, p->line.p) + 1));
    fm_status status = fm_str_ok(&where, "a place", err);
    if (status == FM_OK) status = fm_jsonl_text(&ignored, p->line, where.p, err);
    fm_str_free(&where);
    fm_str_free(&ignored);
    return status;
}

static fm_status fail_piece(const job *j, const piece *p, fm_error *err)
{
    if (p->status == FM_ERR_FORMAT && p->line.p) FM_TRY(fail_line(j, p, err));
    if (err) *err = p->err;
    return p->status;
}

static fm_status check_ids(const job *j, const piece *p, fm_error *err)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->ids[i] < 0 || (size_t)p->ids[i] >= j->o->vocab)
            return fm_fail(err, FM_ERR_SHAPE,
                           "%s: token %llu is %d, expected 0 .. %zu: tokenizer and model do not belong together", j->path,
                           (unsigned long long)(j->n_ids + i), (int)p->ids[i], j->o->vocab - 1);
    return FM_OK;
}

static fm_status make_pieces(job *j, fm_error *err)
{
    return fm_grow((void **)&j->pieces, &j->n_pieces, j->chunks.n, sizeof *j->pieces, j->o->a, "the chunks of a file", err);
}

static fm_status run_round(job *j, fm_token_sink sink, fm_error *err)
{
    FM_TRY(make_pieces(j, err));
    fm_pool_run(j->o->pool, work, j);
    for (size_t i = 0; i < j->chunks.n; i++) {
        const piece *p = &j->pieces[i];
        if (p->status != FM_OK) return fail_piece(j, p, err);
        FM_TRY(check_ids(j, p, err));
        FM_TRY(sink.put(sink.ctx, p->ids, p->n, p->n_bytes, err));
        j->n_ids += p->n;
    }
    if (j->chunks.n > 0) j->n_lines += count_line_ends(j->chunks.text, j->chunks.text + j->chunks.cuts[j->chunks.n]);
    return FM_OK;
}

/* Would a cut behind a letter change what is matched?  Only a special token that ends in a letter (it may take the blanks behind
 * it along) or has a line end in it. */
static bool needs_whole_text(const fm_tokenizer *t)
{
    for (size_t id = 0; id < fm_tokenizer_vocab(t); id++) {
        fm_view text;
        int32_t type;
        fm_tokenizer_spell(t, (int32_t)id, &text, &type);
        if ((type != FM_TOKEN_CONTROL && type != FM_TOKEN_USER_DEFINED) || text.n == 0) continue;
        const char last = (char)(text.p[text.n - 1] | 32);
        if ((last >= 'a' && last <= 'z') || memchr(text.p, '\n', text.n)) return true;
    }
    return false;
}

fm_status fm_tokenize_file(const fm_tokenizing *o, const char *path, fm_token_sink sink, fm_error *err)
{
    job j = {.o = o, .path = path};
    FM_TRY(fm_chunks_open(&j.chunks, path, needs_whole_text(o->t), fm_pool_threads(o->pool), o->a, err));
    fm_status status;
    do {
        status = fm_chunks_next(&j.chunks, err);
        if (status == FM_OK) status = run_round(&j, sink, err);
    } while (status == FM_OK && j.chunks.n > 0);
    for (size_t i = 0; i < j.n_pieces; i++) fm_free(o->a, j.pieces[i].ids);
    fm_free(o->a, j.pieces);
    fm_chunks_close(&j.chunks);
    return status;
}
