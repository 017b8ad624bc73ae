/* trainer.c - steps of training; see trainer.h.  Checkpoints are in checkpoint.c. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "train/internal.h"

fm_train_options fm_train_defaults(void)
{
    return (fm_train_options){.schedule = {.peak = 1e-3, .final = 1.0 / 256, .batch_begin = 1, .batch_end = 8},
                              .length = 512,
                              .micro_batch = 1,
                              .eos = -1,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .clip = 1.0f};
}

/* ---- Opening ---- */

static fm_status get(fm_trainer *t, void **out, size_t count, size_t size, const char *what, fm_error *err)
{
    size_t bytes = 0;
    FM_TRY(fm_alloc(out, t->a, count, size, what, err));
    if (fm_mul(count, size, &bytes)) t->bytes += bytes;
    return FM_OK;
}

static fm_status open_moments(fm_trainer *t, fm_error *err)
{
    const size_t floats = t->g.floats;
    FM_TRY(get(t, (void **)&t->moments, floats, 2 * sizeof(float), "the optimiser's moments", err));
    FM_TRY(get(t, (void **)&t->m1, t->g.n, sizeof *t->m1, "the list of moments", err));
    FM_TRY(get(t, (void **)&t->m2, t->g.n, sizeof *t->m2, "the list of moments", err));
    FM_TRY(get(t, (void **)&t->squares, floats / FM_SQUARES + 1, sizeof(double), "sums of squares", err));
    for (size_t i = 0; i < t->g.n; i++) {
        if (!t->g.g[i]) continue;
        t->m1[i] = t->moments + (t->g.g[i] - t->g.memory);
        t->m2[i] = t->m1[i] + floats;
    }
    return FM_OK;
}

static fm_status open_batch(fm_trainer *t, fm_error *err)
{
    size_t n;
    if (!fm_mul(t->o.length, t->o.micro_batch, &n) || !n)
        return fm_fail(err, FM_ERR_ARGUMENT, "a micro batch of %zu windows of %zu tokens: expected at least one token",
                       t->o.micro_batch, t->o.length);
    FM_TRY(get(t, (void **)&t->ids, n, sizeof *t->ids, "a batch", err));
    FM_TRY(get(t, (void **)&t->targets, n, sizeof *t->targets, "a batch", err));
    FM_TRY(get(t, (void **)&t->loss, n, sizeof *t->loss, "a batch", err));
    FM_TRY(get(t, (void **)&t->pieces, n, sizeof *t->pieces, "a batch", err));
    const fm_backward b = {
        .m = t->g.m, .k = &t->k, .pool = t->pool, .n_pieces = n, .forget = true, .recompute = t->o.recompute};
    t->scratch_bytes = fm_backward_bytes(&b, n);
    if (!t->scratch_bytes)
        return fm_fail(err, FM_ERR_MEMORY, "a pass over %zu tokens overflows memory: use a smaller micro batch", n);
    return get(t, &t->scratch, t->scratch_bytes, 1, "a pass (a smaller micro batch or recomputation takes less)", err);
}

static fm_status open_trainer(fm_trainer *t, fm_model *m, fm_error *err)
{
    unsigned features;
    FM_TRY(fm_data_check(t->data, err));
    FM_TRY(fm_cpu_cap(&features, t->o.cpu, err));
    fm_kernels_for(&t->k, features);
    FM_TRY(fm_pool_open(&t->pool, t->o.threads, t->a, err));
    FM_TRY(fm_gradients_open(&t->g, m, t->a, err));
    FM_TRY(fm_params_open(&t->p, m, &t->g, err));
    t->bytes += 2 * t->g.floats * sizeof(float);
    FM_TRY(open_moments(t, err));
    return open_batch(t, err);
}

fm_status fm_trainer_open(fm_trainer **out, fm_model *m, const fm_data *data, const fm_train_options *o, const fm_allocator *a,
                          fm_error *err)
{
    fm_trainer *t;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&t, a, 1, sizeof *t, "a trainer", err));
    t->o = *o;
    t->data = data;
    t->a = a;
    const fm_status status = open_trainer(t, m, err);
    if (status == FM_OK)
        *out = t;
    else
        fm_trainer_free(t);
    return status;
}

void fm_trainer_free(fm_trainer *t)
{
    if (!t) return;
    void *const owned[] = {t->scratch, t->pieces, t->loss, t->targets, t->ids, t->squares, t->m2, t->m1, t->moments};
    for (size_t i = 0; i < FM_COUNT(owned); i++) fm_free(t->a, owned[i]);
    fm_params_free(&t->p);
    fm_gradients_free(&t->g);
    if (t->pool) fm_pool_free(t->pool);
    fm_free(t->a, t);
}

size_t fm_trainer_bytes(const fm_trainer *t)
{
    return t->bytes;
}

uint64_t fm_trainer_tokens(const fm_trainer *t)
{
    return t->tokens;
}

/* ---- A step ---- */

/* Is the token of a window scored?  The end token does not predict the next document. */
static bool is_scored(const fm_trainer *t, int32_t id)
{
    return t->o.carry || id != t->o.eos;
}

/* Puts a window (length + 1 ids) behind the n tokens there are. */
static void add_window(fm_trainer *t, const int32_t *window, size_t *n, size_t *n_pieces)
{
    for (size_t i = 0; i < t->o.length; i++, ++*n) {
        const bool begins = i == 0 || !is_scored(t, window[i - 1]);
        t->ids[*n] = window[i];
        t->targets[*n] = is_scored(t, window[i]) ? window[i + 1] : -1;
        if (begins) t->pieces[(*n_pieces)++] = (fm_piece){.tokens = t->ids + *n};
        t->pieces[*n_pieces - 1].n++;
    }
}

/* How many tokens of the batch that `cursor` points at are scored. */
static size_t count_scored(const fm_trainer *t, fm_cursor cursor, uint32_t batch)
{
    size_t scored = 0;
    for (uint32_t b = 0; b < batch; b++) {
        const int32_t *window = fm_data_next(t->data, &cursor);
        for (size_t i = 0; i < t->o.length; i++) scored += is_scored(t, window[i]);
    }
    return scored;
}

/* Sum of the losses of `windows` windows, the first of which is number `done` of the step; their gradients are added. */
static double micro_batch(fm_trainer *t, size_t windows, size_t done, float scale)
{
    const fm_dropout dropout = {t->o.dropout, t->o.seed, t->step, (uint64_t)done * t->o.length};
    size_t n = 0, n_pieces = 0;
    double sum = 0.0;
    for (size_t w = 0; w < windows; w++) add_window(t, fm_data_next(t->data, &t->cursor), &n, &n_pieces);
    const fm_backward b = {.m = t->g.m,
                           .k = &t->k,
                           .pool = t->pool,
                           .pieces = t->pieces,
                           .n_pieces = n_pieces,
                           .forget = true,
                           .targets = t->targets,
                           .scale = scale,
                           .z_loss = t->o.z_loss,
                           .dropout = t->o.dropout > 0.0f ? &dropout : NULL,
                           .recompute = t->o.recompute,
                           .g = t->g.g,
                           .loss = t->loss};
    fm_backward_run(&b, t->scratch, t->scratch_bytes);
    for (size_t i = 0; i < n; i++) sum += (double)t->loss[i];
    return sum;
}

static void sum_squares(void *ctx, unsigned part, unsigned n_parts)
{
    const fm_trainer *t = ctx;
    t->k.squares(&(fm_run){.part = part, .n_parts = n_parts}, t->squares, t->g.memory, t->g.floats);
}

static double gradient_norm(fm_trainer *t)
{
    double sum = 0.0;
    fm_pool_run(t->pool, sum_squares, t);
    for (size_t i = 0; i < (t->g.floats + FM_SQUARES - 1) / FM_SQUARES; i++) sum += t->squares[i];
    return sqrt(sum);
}

typedef struct update {
    fm_trainer *t;
    fm_adamw_args a;
} update;

static void move_weights(void *ctx, unsigned part, unsigned n_parts)
{
    const update *u = ctx;
    const fm_trainer *t = u->t;
    for (size_t i = 0; i < t->g.n; i++) {
        fm_adamw_args a = u->a;
        if (!t->g.g[i]) continue;
        a.w = t->p.w[i], a.m = t->m1[i], a.v = t->m2[i], a.g = t->g.g[i], a.n = t->g.counts[i];
        if (!fm_params_decays(&t->p, i)) a.decay = 0.0f;
        t->k.adamw(&(fm_run){.part = part, .n_parts = n_parts}, &a);
    }
}

static void optimise(fm_trainer *t, const fm_train_step *s)
{
    const double n = (double)(t->step + 1), clip = (double)t->o.clip;
    update u = {.t = t,
                .a = {.clip = clip > 0.0 && s->grad_norm > clip ? (float)(clip / s->grad_norm) : 1.0f,
                      .lr = (float)s->rate,
                      .beta1 = t->o.beta1,
                      .beta2 = t->o.beta2,
                      .eps = t->o.eps,
                      .decay = t->o.weight_decay,
                      .c1 = (float)(1.0 / (1.0 - pow((double)t->o.beta1, n))),
                      .c2 = (float)(1.0 / (1.0 - pow((double)t->o.beta2, n)))}};
    fm_pool_run(t->pool, move_weights, &u);
    fm_params_settle(&t->p);
}

fm_train_step fm_trainer_step(fm_trainer *t)
{
    fm_train_step s = {.batch = fm_schedule_batch(&t->o.schedule, t->tokens)};
    s.rate = fm_schedule_rate(&t->o.schedule, t->tokens, s.batch);
    const size_t scored = count_scored(t, t->cursor, s.batch);
    double sum = 0.0;
    memset(t->g.memory, 0, t->g.floats * sizeof(float));
    for (size_t done = 0, n; done < s.batch; done += n) {
        n = s.batch - done < t->o.micro_batch ? s.batch - done : t->o.micro_batch;
        sum += micro_batch(t, n, done, scored ? 1.0f / (float)scored : 0.0f);
    }
    fm_gradients_settle(&t->g);
    s.loss = scored ? sum / (double)scored : 0.0;
    s.grad_norm = gradient_norm(t);
    s.finite = isfinite(s.loss) && isfinite(s.grad_norm);
    if (s.finite) optimise(t, &s);
    s.step = ++t->step;
    s.tokens = t->tokens += (uint64_t)s.batch * t->o.length;
    return s;
}
