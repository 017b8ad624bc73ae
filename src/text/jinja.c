/* jinja.c - the template engine's entry points, and what all its files stand on: the pool, the tainted buffer, the limits.
 * Where to read next: jinja_internal.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/jinja_internal.h"

enum { CHUNK_BYTES = 16384, SOURCE_MAX = 4 << 20 };

struct fm_jchunk {
    fm_jchunk *next;
    size_t used, size;
    _Alignas(16) char data[];
};

static fm_status new_chunk(fm_jpool *p, size_t bytes, fm_error *err)
{
    const size_t size = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
    if (size > FM_JINJA_MEMORY_MAX - p->bytes)
        return fm_fail(err, FM_ERR_LIMIT, "template needs more than %zu bytes of memory; shorten the messages or the template",
                       (size_t)FM_JINJA_MEMORY_MAX);
    void *room;
    FM_TRY(fm_alloc(&room, p->a, 1, sizeof(fm_jchunk) + size, "template", err));
    fm_jchunk *c = room;
    c->size = size;
    /* A chunk of one large thing goes behind the current one, which may still have room. */
    if (size > CHUNK_BYTES && p->chunks) {
        c->next = p->chunks->next;
        p->chunks->next = c;
        c->used = size;
    } else {
        c->next = p->chunks;
        p->chunks = c;
    }
    p->bytes += size;
    return FM_OK;
}

fm_status fm_jpool_alloc(void **out, fm_jpool *p, size_t count, size_t size, fm_error *err)
{
    size_t bytes;
    *out = NULL;
    if (!fm_mul(count, size, &bytes) || bytes > FM_JINJA_MEMORY_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "template needs more than %zu bytes for one value", (size_t)FM_JINJA_MEMORY_MAX);
    bytes = fm_round_up(bytes ? bytes : 1, 16);
    fm_jchunk *c = p->chunks;
    if (!c || c->size - c->used < bytes) {
        FM_TRY(new_chunk(p, bytes, err));
        c = p->chunks;
        if (c->next && c->next->size == bytes && bytes > CHUNK_BYTES) {
            *out = c->next->data;
            return FM_OK;
        }
    }
    *out = c->data + c->used;
    c->used += bytes;
    return FM_OK;
}

void fm_jpool_free(fm_jpool *p)
{
    while (p->chunks) {
        fm_jchunk *next = p->chunks->next;
        fm_free(p->a, p->chunks);
        p->chunks = next;
    }
    p->bytes = 0;
}

/* ---- Errors and limits ---- */

static void line_column(fm_view source, uint32_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && i < source.n; i++) {
        if (source.p[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)source.p[i] & 0xC0) != 0x80) {
            ++*column;
        }
    }
}

static fm_status fail_at(const fm_jinja *t, fm_error *err, fm_status code, uint32_t at, const char *text)
{
    size_t line, column;
    line_column(t->source, at, &line, &column);
    return fm_fail(err, code, "template line %zu, column %zu: %s", line, column, text);
}

fm_status fm_jparse_fail(const fm_jparser *p, fm_status code, uint32_t at, const char *fmt, ...)
{
    char text[480];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return fail_at(p->t, p->err, code, at, text);
}

fm_status fm_j_fail(fm_jrender *r, fm_status code, const char *fmt, ...)
{
    char text[480];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return fail_at(r->t, r->err, code, r->at, text);
}

fm_status fm_j_type_error(fm_jrender *r, const char *what, fm_jval v)
{
    return fm_j_fail(r, FM_ERR_FORMAT, "%s, not %s", what, fm_j_type_name(v));
}

fm_status fm_j_undefined_error(fm_jrender *r, fm_jval v)
{
    const fm_view name = {v.s.p, v.s.n < 100 ? v.s.n : 100};
    if (v.why == FM_J_NO_NAME) return fm_j_fail(r, FM_ERR_FORMAT, "'%.*s' is undefined", (int)name.n, name.p);
    if (v.why == FM_J_NO_ATTRIBUTE)
        return fm_j_fail(r, FM_ERR_FORMAT, "there is no attribute or element '%.*s'", (int)name.n, name.p);
    return fm_j_fail(r, FM_ERR_FORMAT, "an undefined value is used");
}

fm_status fm_j_step(fm_jrender *r, size_t n)
{
    r->steps += n;
    if (r->steps <= FM_JINJA_STEPS_MAX) return FM_OK;
    return fm_j_fail(r, FM_ERR_LIMIT, "the template takes more than %d steps", FM_JINJA_STEPS_MAX);
}

fm_status fm_j_scan(fm_jrender *r, size_t bytes)
{
    r->scanned += bytes;
    const size_t steps = r->scanned / FM_J_SCAN;
    r->scanned %= FM_J_SCAN;
    return fm_j_step(r, steps);
}

fm_status fm_j_enter(fm_jrender *r)
{
    if (r->depth >= FM_J_NEST_MAX)
        return fm_j_fail(r, FM_ERR_LIMIT, "calls, expressions or values are nested deeper than %d", FM_J_NEST_MAX);
    r->depth++;
    return FM_OK;
}

fm_status fm_j_alloc(fm_jrender *r, void **out, size_t count, size_t size)
{
    return fm_jpool_alloc(out, &r->pool, count, size, r->err);
}

/* ---- The tainted buffer ---- */

static fm_status start_mask(fm_jbuf *b)
{
    void *mask;
    FM_TRY(fm_j_alloc(b->r, &mask, b->cap, 1));
    memset(mask, b->tainted, b->n);
    b->mask = mask;
    return FM_OK;
}

static fm_status reserve(fm_jbuf *b, size_t n)
{
    if (b->limit && n > b->limit - b->n)
        return fm_j_fail(b->r, FM_ERR_LIMIT, "the template writes more than %zu bytes", b->limit);
    if (n <= b->cap - b->n) return FM_OK;
    const size_t cap = b->n + n > 2 * b->cap ? b->n + n + 32 : 2 * b->cap;
    void *p, *mask = NULL;
    FM_TRY(fm_j_alloc(b->r, &p, cap, 1));
    if (b->mask) FM_TRY(fm_j_alloc(b->r, &mask, cap, 1));
    if (b->n) memcpy(p, b->p, b->n);
    if (b->n && mask) memcpy(mask, b->mask, b->n);
    b->p = p;
    b->mask = mask;
    b->cap = cap;
    return FM_OK;
}

/* Room for n more bytes of one taint; their place is b->p + b->n before the call. */
static fm_status claim(fm_jbuf *b, size_t n, bool tainted)
{
    FM_TRY(fm_j_scan(b->r, n));
    FM_TRY(reserve(b, n));
    if (b->n == 0) b->tainted = tainted;
    if (!b->mask && b->tainted != tainted) FM_TRY(start_mask(b));
    if (b->mask) memset(b->mask + b->n, tainted, n);
    b->n += n;
    return FM_OK;
}

fm_status fm_jbuf_put(fm_jbuf *b, const char *p, size_t n, bool tainted)
{
    if (n == 0) return FM_OK;
    FM_TRY(claim(b, n, tainted));
    memcpy(b->p + b->n - n, p, n);
    return FM_OK;
}

fm_status fm_jbuf_puts(fm_jbuf *b, const char *text)
{
    return fm_jbuf_put(b, text, strlen(text), false);
}

fm_status fm_jbuf_add(fm_jbuf *b, fm_jval string)
{
    const fm_jtext s = string.s;
    size_t i = 0;
    while (i < s.n) {
        size_t end = s.n;
        const bool tainted = s.mask ? s.mask[i] : string.tainted;
        if (s.mask)
            for (end = i + 1; end < s.n && s.mask[end] == s.mask[i];) end++;
        FM_TRY(fm_jbuf_put(b, s.p + i, end - i, tainted));
        i = end;
    }
    return FM_OK;
}

fm_jval fm_jbuf_value(const fm_jbuf *b)
{
    fm_jval v = fm_j_string((fm_view){b->p ? b->p : "", b->n}, b->tainted && b->n);
    v.s.mask = b->mask;
    return v;
}

/* ---- Parse ---- */

/* Newlines become \n and one at the very end goes, as Jinja does before it looks at anything. */
static fm_status normalise(fm_jinja *t, fm_view source, fm_error *err)
{
    void *room;
    size_t n = 0;
    FM_TRY(fm_jpool_alloc(&room, &t->pool, source.n + 1, 1, err));
    char *p = room;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\r' && i + 1 < source.n && source.p[i + 1] == '\n') continue;
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
    }
    if (n && p[n - 1] == '\n') n--;
    t->source = (fm_view){p, n};
    return FM_OK;
}

static fm_status parse(fm_jinja *t, fm_view source, fm_error *err)
{
    if (source.n > SOURCE_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "the template has %zu bytes, at most %d are read", source.n, (int)SOURCE_MAX);
    if (fm_utf8_valid(source.p, source.n) != source.n)
        return fm_fail(err, FM_ERR_FORMAT, "the template is not UTF-8 at byte %zu", fm_utf8_valid(source.p, source.n));
    FM_TRY(normalise(t, source, err));
    fm_jparser p = {.t = t, .err = err};
    fm_status status = fm_jlex(&p);
    if (status == FM_OK) status = fm_jparse_template(&p);
    fm_free(t->pool.a, p.tokens);
    return status;
}

fm_status fm_jinja_parse(fm_jinja **out, fm_view source, const fm_allocator *a, fm_error *err)
{
    void *room;
    *out = NULL;
    FM_TRY(fm_alloc(&room, a, 1, sizeof(fm_jinja), "template", err));
    fm_jinja *t = room;
    t->pool.a = a;
    const fm_status status = parse(t, source, err);
    if (status == FM_OK)
        *out = t;
    else
        fm_jinja_free(t);
    return status;
}

void fm_jinja_free(fm_jinja *t)
{
    if (!t) return;
    const fm_allocator *a = t->pool.a;
    fm_jpool_free(&t->pool);
    fm_free(a, t);
}

/* ---- Render ---- */

static fm_status add_run(fm_jinja_output *out, size_t n, bool tainted, fm_error *err)
{
    void *runs = out->runs;
    const fm_status status =
        fm_grow(&runs, &out->cap_runs, out->n_runs + 1, sizeof *out->runs, out->text.a, "template output", err);
    out->runs = runs;
    if (status == FM_OK) out->runs[out->n_runs++] = (fm_jinja_run){n, tainted};
    return status;
}

static fm_status copy_output(fm_jinja_output *out, const fm_jbuf *b, fm_error *err)
{
    fm_str_put(&out->text, b->n ? b->p : "", b->n);
    FM_TRY(fm_str_ok(&out->text, "template output", err));
    size_t begin = 0;
    while (begin < b->n) {
        size_t end = b->n;
        if (b->mask)
            for (end = begin + 1; end < b->n && b->mask[end] == b->mask[begin];) end++;
        FM_TRY(add_run(out, end - begin, b->mask ? b->mask[begin] : b->tainted, err));
        begin = end;
    }
    return FM_OK;
}

static fm_status render(fm_jrender *r, fm_view json, const char *const *trusted, size_t n_trusted, fm_jinja_output *out)
{
    fm_jbuf root = {.r = r, .limit = FM_JINJA_OUTPUT_MAX};
    r->out = &root;
    FM_TRY(fm_j_load_json(r, json, trusted, n_trusted));
    FM_TRY(fm_j_push_scope(r, NULL, &r->scope));
    FM_TRY(fm_j_exec(r, r->t->body));
    return copy_output(out, &root, r->err);
}

fm_status fm_jinja_render(const fm_jinja *t, fm_view variables_json, const char *const *trusted, size_t n_trusted,
                          fm_jinja_output *out, fm_error *err)
{
    fm_jrender r = {.t = t, .err = err, .pool.a = t->pool.a, .scratch.a = t->pool.a};
    *out = (fm_jinja_output){.text.a = t->pool.a};
    const fm_status status = render(&r, variables_json, trusted, n_trusted, out);
    fm_str_free(&r.scratch);
    fm_jpool_free(&r.pool);
    if (status != FM_OK) fm_jinja_output_free(out);
    return status;
}

void fm_jinja_output_free(fm_jinja_output *out)
{
    const fm_allocator *a = out->text.a;
    fm_free(a, out->runs);
    fm_str_free(&out->text);
    *out = (fm_jinja_output){.text.a = a};
}
