/* state.c - snapshots of sequences: taken from a session, put into another. */
#include "runtime/state.h"

#include <string.h>

#include "runtime/session.h"

fm_status fm_state_new(fm_state **out, uint64_t state_floats, uint64_t vocab, const fm_allocator *a, fm_error *err)
{
    fm_state *st;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&st, a, 1, sizeof *st, "a state", err));
    if (a) {
        st->allocator_copy = *a;
        st->a = &st->allocator_copy;
    }
    st->state_floats = state_floats;
    st->sizes[FM_STATE_VOCAB] = vocab;
    fm_status status = fm_alloc((void **)&st->state, st->a, state_floats, sizeof(float), "a state", err);
    if (status == FM_OK) status = fm_alloc((void **)&st->logits, st->a, vocab, sizeof(float), "a state's logits", err);
    if (status != FM_OK)
        fm_state_free(st);
    else
        *out = st;
    return status;
}

FM_API void fm_state_free(fm_state *st)
{
    if (!st) return;
    const fm_allocator copy = st->allocator_copy;
    const fm_allocator *a = st->a ? &copy : NULL;
    fm_free(a, st->state);
    fm_free(a, st->logits);
    fm_free(a, st);
}

/* At most room - 1 bytes; the rest is cut, which only shortens what people read. */
static void put_text(char *dst, size_t room, const char *text)
{
    const size_t n = strlen(text) < room ? strlen(text) : room - 1;
    memcpy(dst, text, n);
    dst[n] = 0;
}

static void describe(fm_state *st, const fm_model *m)
{
    const fm_model_info i = fm_model_get_info(m);
    put_text(st->arch, sizeof st->arch, i.arch);
    put_text(st->name, sizeof st->name, i.name);
    put_text(st->weight_type, sizeof st->weight_type, i.type);
    const uint64_t sizes[FM_STATE_SIZES] = {i.d_model, i.d_inner, i.d_state, i.d_conv, i.n_layer, i.vocab};
    memcpy(st->sizes, sizes, sizeof sizes);
}

FM_API fm_status fm_state_take(fm_state **out, fm_session *s, fm_seq seq, fm_error *err)
{
    *out = NULL;
    fm_sequence *q = fm_session_read(s, seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    fm_state *st;
    FM_TRY(fm_state_new(&st, s->m->state_floats, s->m->config.vocab, s->a, err));
    const fm_status status = fm_model_id(s->m, st->model_id, err);
    if (status != FM_OK) {
        fm_state_free(st);
        return status;
    }
    describe(st, s->m);
    fm_point_settle(s, &q->live);
    st->tokens = q->live.tokens;
    st->has_logits = q->live.has_logits;
    fm_device_download(s->m->device, st->state, q->live.state, s->state_floats * sizeof(float));
    if (st->has_logits) memcpy(st->logits, q->live.logits, s->m->config.vocab * sizeof(float));
    const fm_status copied = fm_device_wait(s->m->device, err);
    if (s->half_states) fm_state_widen(s->m, st->state);
    if (copied == FM_OK)
        *out = st;
    else
        fm_state_free(st);
    return copied;
}

/* The shapes are compared even where the ids are the same: a file may say anything. */
static fm_status check_same_model(const fm_session *s, const fm_state *st, bool force, fm_error *err)
{
    fm_state ours = {0};
    char id[65];
    FM_TRY(fm_model_id(s->m, id, err));
    describe(&ours, s->m);
    if (strcmp(ours.arch, st->arch) || memcmp(ours.sizes, st->sizes, sizeof ours.sizes) ||
        st->state_floats != s->m->state_floats)
        return fm_fail(err, FM_ERR_MISMATCH,
                       "the state is of %s (%s, %s, %llu layers of width %llu), the model is %s (%s, %s, %zu layers "
                       "of width %zu): a state only continues in the model that made it",
                       st->name, st->arch, st->weight_type, (unsigned long long)st->sizes[FM_STATE_N_LAYER],
                       (unsigned long long)st->sizes[FM_STATE_D_MODEL], ours.name, ours.arch, ours.weight_type,
                       s->m->config.n_layer, s->m->config.d_model);
    if (force || !strcmp(id, st->model_id)) return FM_OK;
    return fm_fail(err, FM_ERR_MISMATCH,
                   "the state was made by %s in %s (id %.12s), the model is %s in %s (id %.12s) of the same "
                   "shapes: open the model that made it, or force it (--force) upon this one",
                   st->name, st->weight_type, st->model_id, ours.name, ours.weight_type, id);
}

FM_API fm_status fm_state_put(fm_session *s, fm_seq seq, const fm_state *st, bool force, fm_error *err)
{
    fm_sequence *q = fm_session_change(s, seq, err);
    if (!q) return FM_ERR_ARGUMENT;
    FM_TRY(check_same_model(s, st, force, err));
    if (s->half_states) fm_state_narrow(s->m, s->narrowed, st->state);
    fm_device_upload(s->m->device, q->live.state, s->half_states ? s->narrowed : st->state, s->state_floats * sizeof(float));
    if (st->has_logits) memcpy(q->live.logits, st->logits, s->m->config.vocab * sizeof(float));
    q->live.tokens = st->tokens;
    q->live.there = NULL;
    q->live.has_logits = st->has_logits;
    q->marked = false;
    return fm_device_wait(s->m->device, err);
}

FM_API fm_state_info fm_state_get_info(const fm_state *st)
{
    fm_state_info i = {.model_name = st->name,
                       .arch = st->arch,
                       .weight_type = st->weight_type,
                       .tokens = st->tokens,
                       .type = st->type,
                       .state_bytes = st->state_floats * sizeof(float),
                       .vocab = st->sizes[FM_STATE_VOCAB],
                       .has_logits = st->has_logits};
    memcpy(i.model_id, st->model_id, sizeof i.model_id);
    return i;
}
