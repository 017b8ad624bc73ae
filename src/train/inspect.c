/* inspect.c - see inspect.h. */
#include "train/inspect.h"

#include <math.h>
#include <string.h>

#include "train/internal.h"

static bool is_finite(const float *v, size_t n)
{
    for (size_t i = 0; v && i < n; i++)
        if (!isfinite(v[i])) return false;
    return true;
}

static void name_it(const fm_trainer *t, const char *what, size_t i, fm_str *out)
{
    const fm_model_weight w = fm_model_weight_at(t->g.m, i);
    fm_str name = {.a = out->a};
    fm_model_weight_name(&w, FM_SOURCE_HF, &name);
    fm_str_printf(out, "%s %s", what, name.p ? name.p : "");
    fm_str_free(&name);
}

/* Weight k on the way back: head, final norm, the layers from the last weight to the first, the embedding. */
static size_t backwards(size_t k, size_t n)
{
    if (k < 2) return FM_GLOBAL_HEAD - k;
    return k + 1 < n ? n + 1 - k : FM_GLOBAL_EMBED;
}

void fm_trainer_find_damage(const fm_trainer *t, fm_str *out)
{
    if (t->g.m->device) return; /* what lies there is not looked at */
    for (size_t i = 0; i < t->g.n; i++)
        if (!is_finite(t->p.w[i], t->g.counts[i])) {
            name_it(t, "the weight", i, out);
            return;
        }
    for (size_t k = 0; k < t->g.n; k++) {
        const size_t i = backwards(k, t->g.n);
        if (is_finite(t->g.g[i], t->g.counts[i])) continue;
        name_it(t, "the gradient of", i, out);
        return;
    }
}

/* ---- Spreads ---- */

/* Sums are in the mean and the rms until the end. */
static void add(fm_spread *s, double v)
{
    s->least = fmin(s->least, v);
    s->most = fmax(s->most, v);
    s->mean += v;
    s->rms += v * v;
}

static void add_rows(fm_spread *s, fm_rows x)
{
    for (size_t r = 0; r < x.n; r++)
        for (size_t i = 0; i < x.d; i++) add(s, (double)x.p[r * x.stride + i]);
}

static double softplus(double x)
{
    return x > 20.0 ? x : log1p(exp(x));
}

typedef struct look {
    const fm_model *m;
    fm_layer_spread *out;
    size_t looks;
    fm_piece piece; /* the tokens at hand, and the sequence's state, there */
    /* On a device: what is looked at comes to the host, as it is and as f32; the first wait that failed. */
    void *raw;
    float *wide;
    fm_status status;
    fm_error *err;
} look;

/* The most numbers that are looked at together. */
static size_t look_floats(const fm_config *c)
{
    const size_t rows = FM_SPREAD_TOKENS * (c->d_inner + c->dt_rank + 2 * c->d_state), states = c->d_state * c->d_inner;
    return rows > states ? rows : states;
}

/* Rows where the host can read them. */
static fm_rows bring(look *l, fm_rows x)
{
    fm_device *device = l->m->device;
    const size_t n = (x.n - 1) * x.stride + x.d;
    if (!device) return x;
    FM_ASSERT(n <= look_floats(&l->m->config));
    fm_device_download(device, l->raw, x.p, n * fm_rows_element(x));
    if (l->status == FM_OK) l->status = fm_device_wait(device, l->err);
    if (x.half) fm_dtype_get(FM_BF16)->decode(l->wide, l->raw, n);
    x.p = x.half ? l->wide : l->raw;
    x.half = false;
    return x;
}

/* States after the tokens at hand: lists of them may lie where the host cannot read. */
static fm_rows states_of(look *l, const fm_states *h)
{
    return bring(l, fm_rows_of(l->piece.state + h->at, l->m->config.d_state, l->m->config.d_inner));
}

static void add_dt(fm_spread *s, fm_rows dt, const float *bias)
{
    for (size_t r = 0; r < dt.n; r++)
        for (size_t i = 0; i < dt.d; i++) add(s, softplus((double)dt.p[r * dt.stride + i] + (bias ? (double)bias[i] : 0.0)));
}

/* The bias of dt, which on a device is rows of one. */
static const float *bring_bias(look *l, const float *bias, float *room)
{
    const size_t d = l->m->config.d_inner;
    if (!bias || !l->m->device) return bias;
    memcpy(room, bring(l, fm_rows_of((float *)(uintptr_t)bias, 1, d)).p, d * sizeof *room);
    return room;
}

static void look_at(void *ctx, size_t layer, const fm_scan_view *v)
{
    look *l = ctx;
    fm_layer_spread *s = &l->out[layer];
    const float *bias = bring_bias(l, v->dt_bias, l->wide + look_floats(&l->m->config));
    add_dt(&s->dt, bring(l, v->dt), bias);
    add_rows(&s->B, bring(l, v->B));
    add_rows(&s->C, bring(l, v->C));
    add_rows(&s->h, states_of(l, &v->h));
    l->looks += layer == 0;
}

static void begin(fm_spread *s)
{
    *s = (fm_spread){.least = HUGE_VAL, .most = -HUGE_VAL};
}

static void end(fm_spread *s, double n)
{
    s->mean /= n;
    s->rms = sqrt(s->rms / n);
}

/* Memory of passes over FM_SPREAD_TOKENS tokens: where the model is, and beside it on the host. */
typedef struct room {
    float *state;
    void *scratch, *host;
    size_t scratch_bytes, host_bytes;
} room;

static fm_status open_room(room *r, look *l, const fm_trainer *t, fm_error *err)
{
    const fm_model *m = l->m;
    const fm_where there = {m->device, t->a};
    r->scratch_bytes = fm_forward_bytes(m, &t->k, FM_SPREAD_TOKENS, 1, fm_pool_threads(t->pool));
    FM_TRY(fm_device_alloc(there, (void **)&r->state, m->state_floats, sizeof *r->state, "a state", err));
    FM_TRY(fm_device_alloc(there, &r->scratch, r->scratch_bytes, 1, "a forward pass", err));
    if (!m->device) return FM_OK;
    r->host_bytes = fm_forward_host_bytes(m, &t->k, FM_SPREAD_TOKENS, 1);
    FM_TRY(fm_device_alloc_host(there, &r->host, r->host_bytes, 1, "a pass's lists", err));
    const size_t floats = look_floats(&m->config);
    FM_TRY(fm_device_alloc_host(there, &l->raw, floats, sizeof(float), "numbers to look at", err));
    FM_TRY(fm_alloc((void **)&l->wide, t->a, floats + m->config.d_inner, sizeof(float), "numbers to look at", err));
    return fm_forward_reserve(m, FM_SPREAD_TOKENS, err);
}

static void close_room(room *r, look *l, const fm_trainer *t)
{
    const fm_where there = {l->m->device, t->a};
    fm_free(t->a, l->wide);
    if (l->m->device) fm_device_release_host(there, l->raw);
    if (l->m->device) fm_device_release_host(there, r->host);
    fm_device_release(there, r->scratch);
    fm_device_release(there, r->state);
}

static fm_status run_window(const fm_trainer *t, look *l, const room *r, fm_error *err)
{
    const size_t length = fm_data_length(t->data, &t->cursor);
    const fm_scan_watcher watcher = {look_at, l};
    FM_TRY(fm_data_window(t->data, &t->cursor, 0, t->windows, err));
    for (size_t at = 0, n; at < length; at += n) {
        n = length - at < FM_SPREAD_TOKENS ? length - at : FM_SPREAD_TOKENS;
        l->piece = (fm_piece){.tokens = t->windows + at, .n = n, .state = r->state};
        const fm_forward f = {.m = l->m,
                              .k = &t->k,
                              .pool = t->pool,
                              .pieces = &l->piece,
                              .n_pieces = 1,
                              .watcher = &watcher,
                              .host = r->host,
                              .host_bytes = r->host_bytes};
        FM_TRY(fm_forward_run(&f, r->scratch, r->scratch_bytes, err));
        FM_TRY(l->status);
    }
    return FM_OK;
}

static void end_layer(fm_layer_spread *s, const look *l, double tokens)
{
    const double inner = (double)l->m->config.d_inner, states = (double)l->m->config.d_state;
    end(&s->dt, tokens * inner);
    end(&s->B, tokens * states);
    end(&s->C, tokens * states);
    end(&s->h, (double)l->looks * inner * states);
}

fm_status fm_trainer_spread(const fm_trainer *t, fm_layer_spread *out, fm_error *err)
{
    const size_t n_layer = t->g.m->config.n_layer;
    look l = {.m = t->g.m, .out = out, .err = err};
    room r = {0};
    for (size_t i = 0; i < n_layer; i++) begin(&out[i].dt), begin(&out[i].B), begin(&out[i].C), begin(&out[i].h);
    fm_status status = open_room(&r, &l, t, err);
    if (status == FM_OK) status = run_window(t, &l, &r, err);
    for (size_t i = 0; i < n_layer && status == FM_OK; i++) end_layer(&out[i], &l, (double)fm_data_length(t->data, &t->cursor));
    close_room(&r, &l, t);
    return status;
}
