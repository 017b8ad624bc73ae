/* bptt.c - see bptt.h. */
#include "train/bptt.h"

#include <string.h>

/* Some tokens in a row: the rest of a piece, whole pieces, the beginning of one. */
struct fm_bptt_chunk {
    size_t first, n_pieces; /* of the backward's */
    size_t skip;            /* tokens of the first piece that earlier chunks had */
    size_t at, n;           /* tokens */
    bool goes_on;           /* the last piece does, in the next chunk */
};

/* How much of everything there is. */
typedef struct sizes {
    size_t states, borders, chunks, scratch, bytes; /* floats of states and of borders */
} sizes;

/* A chunk ends when it is full or has its pieces. */
static size_t count_chunks(size_t n_tokens, size_t chunk)
{
    return n_tokens / chunk + n_tokens / FM_BPTT_PIECES + 2;
}

static fm_backward chunk_of(const fm_backward *b)
{
    fm_backward c = *b;
    c.n_pieces = FM_BPTT_PIECES;
    c.forget = false;
    return c;
}

static bool measure(sizes *s, const fm_backward *b, size_t n_tokens, size_t chunk, bool full)
{
    const fm_backward c = chunk_of(b);
    size_t all;
    s->chunks = count_chunks(n_tokens, chunk);
    s->scratch = fm_pass_bytes(&c, chunk);
    if (!s->scratch || !fm_mul(b->m->state_floats, FM_BPTT_PIECES, &s->states)) return false;
    s->borders = 0;
    if (full && !fm_mul(b->m->state_floats, n_tokens / chunk, &s->borders)) return false;
    if (!fm_add(s->borders, full ? 2 * s->states : s->states, &all) || !fm_mul(all, sizeof(float), &all)) return false;
    return fm_add(all, s->scratch, &all) && fm_add(all, s->chunks * sizeof(fm_bptt_chunk), &s->bytes);
}

size_t fm_bptt_bytes(const fm_backward *b, size_t n_tokens, size_t chunk, bool full)
{
    sizes s;
    return measure(&s, b, n_tokens, chunk, full) ? s.bytes : 0;
}

static fm_status allocate(fm_bptt *p, const fm_backward *b, const sizes *s, fm_error *err)
{
    const fm_backward c = chunk_of(b);
    FM_TRY(
        fm_device_alloc((fm_where){p->device, p->a}, (void **)&p->states, s->states, sizeof(float), "states of chunks", err));
    if (p->full)
        FM_TRY(fm_device_alloc((fm_where){p->device, p->a}, (void **)&p->g_states, s->states, sizeof(float),
                               "gradients of states", err));
    if (p->full)
        FM_TRY(fm_device_alloc((fm_where){p->device, p->a}, (void **)&p->borders, s->borders, sizeof(float),
                               "states at the borders of chunks (larger chunks or batch.truncate take less)", err));
    FM_TRY(fm_alloc((void **)&p->chunks, p->a, s->chunks, sizeof *p->chunks, "the list of chunks", err));
    return fm_pass_open(&p->pass, &c, p->chunk, p->a, err);
}

fm_status fm_bptt_open(fm_bptt *p, const fm_backward *b, size_t n_tokens, size_t chunk, bool full, const fm_allocator *a,
                       fm_error *err)
{
    sizes s;
    FM_ASSERT(chunk > 0);
    *p = (fm_bptt){.chunk = chunk, .full = full, .a = a, .device = b->m->device, .state_floats = b->m->state_floats};
    if (!measure(&s, b, n_tokens, chunk, full))
        return fm_fail(err, FM_ERR_MEMORY, "chunks of %zu of %zu tokens overflow memory: use smaller ones", chunk, n_tokens);
    p->bytes = s.bytes;
    const fm_status status = allocate(p, b, &s, err);
    if (status != FM_OK) fm_bptt_free(p);
    return status;
}

void fm_bptt_free(fm_bptt *p)
{
    fm_device_release((fm_where){p->device, p->a}, p->states);
    fm_device_release((fm_where){p->device, p->a}, p->g_states);
    fm_device_release((fm_where){p->device, p->a}, p->borders);
    fm_free(p->a, p->chunks);
    fm_pass_free(&p->pass);
    *p = (fm_bptt){0};
}

/* ---- Cutting ---- */

static void cut(fm_bptt *p, const fm_backward *b)
{
    size_t at = 0, skip = 0;
    p->n_chunks = 0;
    for (size_t i = 0; i < b->n_pieces;) {
        fm_bptt_chunk c = {.first = i, .skip = skip, .at = at};
        while (i < b->n_pieces && c.n < p->chunk && c.n_pieces < FM_BPTT_PIECES) {
            const size_t left = b->pieces[i].n - skip, room = p->chunk - c.n, n = left < room ? left : room;
            c.n += n;
            c.n_pieces++;
            c.goes_on = n < left;
            skip = c.goes_on ? skip + n : 0;
            if (!c.goes_on) i++;
        }
        at += c.n;
        p->chunks[p->n_chunks++] = c;
    }
}

/* ---- Running ---- */

/* One chunk as a backward of its own; pointers go to the caller's arrays. */
typedef struct pass {
    fm_backward b;
    fm_dropout dropout;
    fm_piece pieces[FM_BPTT_PIECES];
    float *g_state[FM_BPTT_PIECES];
} pass;

/* Piece k of a chunk: its first token and how many. */
static fm_piece piece_of(const fm_backward *b, const fm_bptt_chunk *c, size_t k, size_t before)
{
    const fm_piece *whole = &b->pieces[c->first + k];
    const size_t skip = k == 0 ? c->skip : 0, left = whole->n - skip, room = c->n - before;
    return (fm_piece){.tokens = whole->tokens + skip, .n = left < room ? left : room};
}

/* Pieces that begin in the chunk begin at zero; states[0] is the caller's when the first one goes on. */
static void prepare(pass *w, fm_bptt *p, const fm_backward *b, const fm_bptt_chunk *c)
{
    w->b = chunk_of(b);
    w->b.pieces = w->pieces;
    w->b.n_pieces = c->n_pieces;
    w->b.targets = b->targets + c->at;
    w->b.loss = b->loss + c->at;
    if (b->dropout) {
        w->dropout = *b->dropout;
        w->dropout.first_row += c->at;
        w->b.dropout = &w->dropout;
    }
    for (size_t k = 0, n = 0; k < c->n_pieces; n += w->pieces[k++].n) {
        float *state = p->states + k * p->state_floats;
        w->pieces[k] = piece_of(b, c, k, n);
        w->pieces[k].state = state;
        if (k > 0 || c->skip == 0) fm_device_zero(p->device, state, p->state_floats * sizeof *state);
    }
}

static void copy_state(const fm_bptt *p, float *to, const float *from)
{
    if (to != from) fm_device_copy(p->device, to, from, p->state_floats * sizeof *to);
}

static float *last_of(const fm_bptt *p, float *states, const fm_bptt_chunk *c)
{
    return states + (c->n_pieces - 1) * p->state_floats;
}

static fm_status run_truncated(fm_bptt *p, const fm_backward *b, fm_error *err)
{
    for (size_t i = 0; i < p->n_chunks; i++) {
        pass w;
        prepare(&w, p, b, &p->chunks[i]);
        FM_TRY(fm_pass_run(&p->pass, &w.b, err));
        if (p->chunks[i].goes_on) copy_state(p, p->states, last_of(p, p->states, &p->chunks[i]));
    }
    return FM_OK;
}

/* The states at borders within pieces, in order; *count says how many. */
static fm_status keep_borders(fm_bptt *p, const fm_backward *b, size_t *count, fm_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i + 1 < p->n_chunks; i++) {
        const fm_bptt_chunk *c = &p->chunks[i];
        pass w;
        if (!c->goes_on) continue; /* nobody asks for the states of this chunk */
        if (c->skip > 0) copy_state(p, p->states, p->borders + (n - 1) * p->state_floats);
        prepare(&w, p, b, c);
        w.b.states_only = true;
        FM_TRY(fm_pass_run(&p->pass, &w.b, err));
        copy_state(p, p->borders + n++ * p->state_floats, last_of(p, p->states, c));
    }
    *count = n;
    return FM_OK;
}

/* The gradient that the next chunk left of the state between them is in g_states[0]. */
static void prepare_gradients(pass *w, fm_bptt *p, const fm_bptt_chunk *c)
{
    float *last = last_of(p, p->g_states, c);
    if (c->goes_on) copy_state(p, last, p->g_states);
    for (size_t k = 0; k < c->n_pieces; k++) {
        w->g_state[k] = p->g_states + k * p->state_floats;
        if (w->g_state[k] != last || !c->goes_on) fm_device_zero(p->device, w->g_state[k], p->state_floats * sizeof(float));
    }
    w->b.g_state = w->g_state;
}

static fm_status run_full(fm_bptt *p, const fm_backward *b, fm_error *err)
{
    size_t border;
    FM_TRY(keep_borders(p, b, &border, err));
    for (size_t i = p->n_chunks; i-- > 0;) {
        const fm_bptt_chunk *c = &p->chunks[i];
        pass w;
        if (c->skip > 0) copy_state(p, p->states, p->borders + --border * p->state_floats);
        prepare(&w, p, b, c);
        prepare_gradients(&w, p, c);
        FM_TRY(fm_pass_run(&p->pass, &w.b, err));
    }
    return FM_OK;
}

fm_status fm_bptt_run(fm_bptt *p, const fm_backward *b, fm_error *err)
{
    cut(p, b);
    return p->full ? run_full(p, b, err) : run_truncated(p, b, err);
}
