/* session.c - opening sessions and moving sequences between points in time; the steps themselves are in step.c. */
#include <string.h>

#include "runtime/session.h"

#define CHUNK_DEFAULT ((size_t)512)
#define CHUNK_MAX     ((size_t)1 << 20)
#define SEQ_MAX       ((size_t)1 << 20)
#define DRAFT_LIMIT   ((size_t)64)

/* ---- Layout: the same code measures and places ---- */

/* Where things go: on the CPU both are one arena. */
typedef struct places {
    fm_arena *host, *device;
} places;

static fm_point place_point(places to, const fm_session *s)
{
    fm_point p = {0};
    p.state = FM_PUSH(to.device, float, s->state_floats);
    p.logits = FM_PUSH(to.host, float, s->m->config.vocab);
    return p;
}

static void place_sequences(places to, fm_session *s)
{
    fm_sequence *seqs = FM_PUSH(to.host, fm_sequence, s->n_seq);
    for (size_t i = 0; i < s->n_seq; i++) {
        fm_sequence q = {0};
        q.live = place_point(to, s);
        q.mark = place_point(to, s);
        if (s->cancel) q.undo = place_point(to, s);
        if (seqs) seqs[i] = q;
    }
    s->seqs = seqs;
    s->narrowed = s->half_states ? FM_PUSH(to.host, float, s->state_floats) : NULL;
}

static void place_trial(places to, fm_session *s)
{
    const size_t n = s->draft_max + 1, log = fm_log_floats(s->m, n);
    if (!s->draft_max) return;
    s->trial.tokens = FM_PUSH(to.host, int32_t, n);
    s->trial.logits = FM_PUSH(to.host, float, n * s->m->config.vocab);
    s->trial.log = FM_PUSH(to.device, float, log ? log : SIZE_MAX);
}

static void place(places to, fm_session *s, unsigned n_threads)
{
    place_sequences(to, s);
    place_trial(to, s);
    s->pieces = FM_PUSH(to.host, fm_piece, s->n_seq);
    s->piece_span = FM_PUSH(to.host, uint32_t, s->n_seq);
    s->done = FM_PUSH(to.host, size_t, s->n_seq);
    s->out_rows = FM_PUSH(to.host, size_t, s->chunk);
    s->owners = FM_PUSH(to.host, fm_row_owner, s->chunk);
    s->draws = s->m->device ? FM_PUSH(to.host, fm_draw, s->chunk) : NULL;
    const size_t n = s->n_seq < s->chunk ? s->n_seq : s->chunk;
    s->scratch_bytes = fm_forward_bytes(s->m, &s->k, s->chunk, n, n_threads);
    s->scratch = fm_arena_push(to.device, s->scratch_bytes ? s->scratch_bytes : SIZE_MAX, 1);
    s->host_bytes = s->m->device ? fm_forward_host_bytes(s->m, &s->k, s->chunk, n) : 0;
}

/* Bytes on the host and on the device; SIZE_MAX: too many. */
static void measure(fm_session *s, unsigned n_threads, size_t *host_bytes, size_t *device_bytes)
{
    fm_arena host = {0}, device = {0};
    place((places){&host, s->m->device ? &device : &host}, s, n_threads);
    *host_bytes = host.used;
    *device_bytes = device.used;
}

size_t fm_session_n_seq(const fm_session_options *o)
{
    return o && o->n_seq ? o->n_seq : 1;
}

size_t fm_session_chunk(const fm_session_options *o)
{
    return o && o->chunk ? o->chunk : CHUNK_DEFAULT;
}

static fm_status configure(fm_session *s, const fm_model *m, const fm_session_options *o, unsigned *threads, fm_error *err)
{
    s->m = m;
    s->n_seq = fm_session_n_seq(o);
    s->chunk = fm_session_chunk(o);
    s->draft_max = o->draft_max;
    s->cancel = o->cancel;
    s->cancel_ctx = o->ctx;
    if (s->n_seq > SEQ_MAX || s->chunk > CHUNK_MAX)
        return fm_fail(err, FM_ERR_LIMIT,
                       "a session of %zu sequences and chunks of %zu tokens: at most %zu and %zu are possible", s->n_seq,
                       s->chunk, SEQ_MAX, CHUNK_MAX);
    if (s->draft_max > DRAFT_LIMIT)
        return fm_fail(err, FM_ERR_LIMIT, "drafts of %zu tokens: at most %zu are possible", s->draft_max, DRAFT_LIMIT);
    if (o->bf16_states && !m->device)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "states in bf16, but %s is on the CPU, whose states are f32: take it to a GPU (--device cuda), or leave "
                       "the states in f32 (--states f32)",
                       m->source.path);
    s->half_states = o->bf16_states;
    s->state_floats = o->bf16_states ? m->half_state_floats : m->state_floats;
    *threads = o->threads;
    return fm_model_kernels(m, o->cpu, &s->k, threads, err);
}

FM_API size_t fm_session_bytes(const fm_model *m, const fm_session_options *options)
{
    static const fm_session_options none = {0};
    const fm_session_options *o = options ? options : &none;
    fm_session s = {0};
    unsigned threads;
    if (configure(&s, m, o, &threads, NULL) != FM_OK) return 0;
    size_t host, device;
    measure(&s, threads, &host, &device);
    size_t bytes = fm_alloc_bytes(host);
    if (host == SIZE_MAX || device == SIZE_MAX || !bytes) return 0;
    if (!fm_add(bytes, fm_alloc_bytes(sizeof s) + fm_pool_bytes(threads), &bytes)) return 0;
    return bytes;
}

fm_status fm_session_device_bytes(const fm_model *m, const fm_session_options *options, fm_device_bytes *out, fm_error *err)
{
    static const fm_session_options none = {0};
    fm_session s = {0};
    size_t host, device;
    unsigned threads;
    FM_TRY(configure(&s, m, options ? options : &none, &threads, err));
    measure(&s, threads, &host, &device);
    if (device == SIZE_MAX) return fm_fail(err, FM_ERR_MEMORY, "%s: such a session overflows memory", m->source.path);
    *out = (fm_device_bytes){.states = device - s.scratch_bytes, .scratch = s.scratch_bytes};
    if (!fm_add(out->scratch, fm_forward_work_bytes(m, s.chunk), &out->scratch)) out->scratch = SIZE_MAX;
    return fm_model_device_bytes(m, &out->weights, err);
}

static fm_status open_on_device(fm_session *s, size_t bytes, fm_error *err)
{
    const fm_where there = {s->m->device, s->a};
    FM_TRY(fm_device_alloc(there, &s->device_memory, bytes, 1, "a session's states and scratch", err));
    FM_TRY(fm_device_alloc_host(there, &s->host, s->host_bytes, 1, "a session's room for copies", err));
    return fm_forward_reserve(s->m, s->chunk, err);
}

static fm_status open_session(fm_session *s, const fm_model *m, const fm_session_options *o, fm_error *err)
{
    unsigned threads;
    FM_TRY(configure(s, m, o, &threads, err));
    FM_TRY(fm_pool_open(&s->pool, threads, s->a, err));
    size_t host_bytes, device_bytes;
    measure(s, threads, &host_bytes, &device_bytes);
    FM_TRY(fm_alloc(&s->memory, s->a, host_bytes, 1, "a session", err));
    if (m->device) FM_TRY(open_on_device(s, device_bytes, err));
    fm_arena host = {.base = s->memory, .size = host_bytes}, device = {.base = s->device_memory, .size = device_bytes};
    place((places){&host, m->device ? &device : &host}, s, threads);
    return FM_OK;
}

FM_API fm_status fm_session_open(fm_session **out, const fm_model *m, const fm_session_options *options, fm_error *err)
{
    static const fm_session_options none = {0};
    const fm_session_options *o = options ? options : &none;
    fm_session *s;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&s, o->allocator, 1, sizeof *s, "a session", err));
    if (o->allocator) {
        s->allocator_copy = *o->allocator;
        s->a = &s->allocator_copy;
    }
    const fm_status status = open_session(s, m, o, err);
    if (status != FM_OK)
        fm_session_free(s);
    else
        *out = s;
    return status;
}

FM_API void fm_session_free(fm_session *s)
{
    if (!s) return;
    const fm_allocator copy = s->allocator_copy;
    const fm_allocator *a = s->a ? &copy : NULL;
    if (s->pool) fm_pool_free(s->pool);
    fm_graphs_free(&s->graphs);
    const fm_where there = {s->m ? s->m->device : NULL, a};
    fm_device_release_host(there, s->host);
    fm_device_release(there, s->device_memory);
    fm_free(a, s->memory);
    fm_free(a, s);
}

FM_API const char *fm_session_kernels(const fm_session *s)
{
    return s->k.name;
}

size_t fm_session_launches(const fm_session *s)
{
    for (size_t i = 0; i < FM_COUNT(s->graphs.slots); i++)
        if (s->graphs.slots[i].n_tokens == 1) return fm_device_graph_launches(s->graphs.slots[i].graph);
    return 0;
}

FM_API unsigned fm_session_threads(const fm_session *s)
{
    return fm_pool_threads(s->pool);
}

/* ---- Points ---- */

void fm_point_settle(const fm_session *s, fm_point *p)
{
    if (!p->there) return;
    fm_device_download(s->m->device, p->logits, p->there, s->m->config.vocab * sizeof(float));
    fm_device_wait(s->m->device, NULL);
    p->there = NULL;
}

void fm_session_settle(const fm_session *s)
{
    for (size_t i = 0; i < s->n_seq; i++)
        if (s->seqs[i].used) fm_point_settle(s, &s->seqs[i].live);
}

void fm_point_copy(const fm_session *s, fm_point *to, fm_point *from)
{
    fm_point_settle(s, from);
    to->there = NULL;
    fm_device_copy(s->m->device, to->state, from->state, s->state_floats * sizeof(float));
    if (from->has_logits) memcpy(to->logits, from->logits, s->m->config.vocab * sizeof(float));
    to->tokens = from->tokens;
    to->has_logits = from->has_logits;
}

void fm_point_clear(const fm_session *s, fm_point *p)
{
    fm_device_zero(s->m->device, p->state, s->state_floats * sizeof(float));
    p->tokens = 0;
    p->there = NULL;
    p->has_logits = false;
}

/* ---- Sequences ---- */

fm_sequence *fm_session_find(const fm_session *s, fm_seq seq, fm_error *err)
{
    const uint32_t slot = (uint32_t)seq, generation = (uint32_t)(seq >> 32);
    fm_sequence *q = slot >= 1 && slot <= s->n_seq ? &s->seqs[slot - 1] : NULL;
    if (q && q->used && q->generation == generation) return q;
    fm_fail(err, FM_ERR_ARGUMENT, "no such sequence in this session: the handle was freed, or is of another session");
    return NULL;
}

fm_sequence *fm_session_read(fm_session *s, fm_seq seq, fm_error *err)
{
    fm_trial_move(s);
    return fm_session_find(s, seq, err);
}

fm_sequence *fm_session_change(fm_session *s, fm_seq seq, fm_error *err)
{
    fm_trial_end(s);
    return fm_session_find(s, seq, err);
}

FM_API fm_status fm_seq_new(fm_session *s, fm_seq *out, fm_error *err)
{
    *out = 0;
    for (size_t i = 0; i < s->n_seq; i++) {
        fm_sequence *q = &s->seqs[i];
        if (q->used) continue;
        q->used = true;
        q->marked = false;
        q->generation++;
        fm_point_clear(s, &q->live);
        *out = (fm_seq)q->generation << 32 | (i + 1);
        return FM_OK;
    }
    return fm_fail(err, FM_ERR_LIMIT,
                   "all %zu sequences of the session are in use: free one, or open the session with a larger n_seq", s->n_seq);
}

FM_API void fm_seq_free(fm_session *s, fm_seq seq)
{
    fm_sequence *q = fm_session_change(s, seq, NULL);
    if (q) q->used = false;
}

FM_API fm_status fm_seq_fork(fm_session *s, fm_seq from, fm_seq *out, fm_error *err)
{
    *out = 0;
    fm_sequence *q = fm_session_read(s, from, err);
    if (!q) return FM_ERR_ARGUMENT;
    FM_TRY(fm_seq_new(s, out, err));
    fm_point_copy(s, &fm_session_find(s, *out, NULL)->live, &q->live);
    return FM_OK;
}

FM_API fm_status fm_seq_mark(fm_session *s, fm_seq seq, fm_error *err)
{
    fm_sequence *q = fm_session_read(s, seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    fm_point_copy(s, &q->mark, &q->live);
    q->marked = true;
    return FM_OK;
}

FM_API fm_status fm_seq_rewind(fm_session *s, fm_seq seq, fm_error *err)
{
    fm_sequence *q = fm_session_change(s, seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    if (q->marked)
        fm_point_copy(s, &q->live, &q->mark);
    else
        fm_point_clear(s, &q->live);
    return FM_OK;
}

FM_API fm_status fm_seq_reset(fm_session *s, fm_seq seq, fm_error *err)
{
    fm_sequence *q = fm_session_change(s, seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    fm_point_clear(s, &q->live);
    q->marked = false;
    return FM_OK;
}

FM_API uint64_t fm_seq_tokens(const fm_session *s, fm_seq seq)
{
    const fm_sequence *q = fm_session_find(s, seq, NULL);
    return q ? q->live.tokens : 0;
}

FM_API const float *fm_seq_logits(const fm_session *s, fm_seq seq)
{
    fm_sequence *q = fm_session_find(s, seq, NULL);
    if (!q || !q->live.has_logits) return NULL;
    fm_point_settle(s, &q->live);
    return q->live.logits;
}
