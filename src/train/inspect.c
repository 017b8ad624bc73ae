/* inspect.c - see inspect.h. */
#include "train/inspect.h"

#include <math.h>

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
    const fm_config *config;
    fm_layer_spread *out;
    size_t looks;
} look;

static void look_at(void *ctx, size_t layer, const fm_scan_view *v)
{
    look *l = ctx;
    fm_layer_spread *s = &l->out[layer];
    for (size_t r = 0; r < v->dt.n; r++)
        for (size_t i = 0; i < v->dt.d; i++)
            add(&s->dt, softplus((double)v->dt.p[r * v->dt.stride + i] + (v->dt_bias ? (double)v->dt_bias[i] : 0.0)));
    add_rows(&s->B, v->B);
    add_rows(&s->C, v->C);
    add_rows(&s->h, fm_rows_of(fm_state_of(&v->h, 0), l->config->d_state, l->config->d_inner));
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

static fm_status run_window(const fm_trainer *t, look *l, float *state, void *scratch, size_t bytes, fm_error *err)
{
    const size_t length = fm_data_length(t->data, &t->cursor);
    const fm_scan_watcher watcher = {look_at, l};
    FM_TRY(fm_data_window(t->data, &t->cursor, 0, t->windows, err));
    for (size_t at = 0, n; at < length; at += n) {
        n = length - at < FM_SPREAD_TOKENS ? length - at : FM_SPREAD_TOKENS;
        const fm_piece piece = {.tokens = t->windows + at, .n = n, .state = state};
        const fm_forward f = {.m = t->g.m, .k = &t->k, .pool = t->pool, .pieces = &piece, .n_pieces = 1, .watcher = &watcher};
        FM_TRY(fm_forward_run(&f, scratch, bytes, err));
    }
    return FM_OK;
}

fm_status fm_trainer_spread(const fm_trainer *t, fm_layer_spread *out, fm_error *err)
{
    const fm_model *m = t->g.m;
    if (m->device) return fm_fail(err, FM_ERR_UNSUPPORTED, "run.stats_every looks at the host's memory: use --device cpu");
    const size_t bytes = fm_forward_bytes(m, &t->k, FM_SPREAD_TOKENS, 1, fm_pool_threads(t->pool));
    look l = {&m->config, out, 0};
    float *state;
    void *scratch = NULL;
    FM_TRY(fm_alloc((void **)&state, t->a, m->state_floats, sizeof *state, "a state", err));
    fm_status status = fm_alloc(&scratch, t->a, bytes, 1, "a forward pass", err);
    for (size_t i = 0; i < m->config.n_layer; i++) begin(&out[i].dt), begin(&out[i].B), begin(&out[i].C), begin(&out[i].h);
    if (status == FM_OK) status = run_window(t, &l, state, scratch, bytes, err);
    const double tokens = (double)fm_data_length(t->data, &t->cursor), inner = (double)m->config.d_inner,
                 states = (double)m->config.d_state;
    for (size_t i = 0; i < m->config.n_layer && status == FM_OK; i++) {
        end(&out[i].dt, tokens * inner);
        end(&out[i].B, tokens * states), end(&out[i].C, tokens * states);
        end(&out[i].h, (double)l.looks * inner * states);
    }
    fm_free(t->a, scratch);
    fm_free(t->a, state);
    return status;
}
