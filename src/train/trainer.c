/* trainer.c - steps of training; see trainer.h.  Checkpoints are in checkpoint.c. */
#include "train/trainer.h"

#include <math.h>
#include <string.h>

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

static fm_device *device_of(const fm_trainer *t)
{
    return t->g.m ? t->g.m->device : NULL;
}

static fm_where where(const fm_trainer *t)
{
    return (fm_where){device_of(t), t->a};
}

static fm_status open_moments(fm_trainer *t, fm_error *err)
{
    const size_t floats = t->g.floats;
    FM_TRY(fm_device_alloc(where(t), (void **)&t->moments, floats, 2 * sizeof(float), "the optimiser's moments", err));
    t->bytes += floats * 2 * sizeof(float);
    FM_TRY(get(t, (void **)&t->m1, t->g.n, sizeof *t->m1, "the list of moments", err));
    FM_TRY(get(t, (void **)&t->m2, t->g.n, sizeof *t->m2, "the list of moments", err));
    FM_TRY(get(t, (void **)&t->squares, floats / FM_SQUARES + 1, sizeof(double), "sums of squares", err));
    if (device_of(t))
        FM_TRY(fm_device_alloc(where(t), (void **)&t->device_squares, floats / FM_SQUARES + 1, sizeof(double),
                               "sums of squares", err));
    for (size_t i = 0; i < t->g.n; i++) {
        if (!t->g.g[i]) continue;
        t->m1[i] = t->moments + (t->g.g[i] - t->g.memory);
        t->m2[i] = t->m1[i] + floats;
    }
    return FM_OK;
}

static fm_status open_batch(fm_trainer *t, fm_error *err)
{
    size_t n, step;
    if (!fm_mul(t->o.length, t->o.micro_batch, &n) || !n)
        return fm_fail(err, FM_ERR_ARGUMENT, "a micro batch of %zu windows of %zu tokens: expected at least one token",
                       t->o.micro_batch, t->o.length);
    if (!fm_mul(t->o.length + 1, fm_schedule_most(&t->o.schedule), &step)) step = SIZE_MAX;
    FM_TRY(get(t, (void **)&t->windows, step, sizeof *t->windows, "the windows of a step", err));
    FM_TRY(get(t, (void **)&t->ids, n, sizeof *t->ids, "a batch", err));
    FM_TRY(get(t, (void **)&t->targets, n, sizeof *t->targets, "a batch", err));
    FM_TRY(get(t, (void **)&t->loss, n, sizeof *t->loss, "a batch", err));
    FM_TRY(get(t, (void **)&t->pieces, n, sizeof *t->pieces, "a batch", err));
    const fm_backward b = {
        .m = t->g.m, .k = &t->k, .pool = t->pool, .n_pieces = n, .forget = true, .recompute = t->o.recompute};
    if (t->o.chunk && t->o.chunk < n) {
        FM_TRY(fm_bptt_open(&t->bptt, &b, n, t->o.chunk, !t->o.truncate, t->a, err));
        t->bytes += t->bptt.bytes;
        return FM_OK;
    }
    FM_TRY(fm_pass_open(&t->pass, &b, n, t->a, err));
    t->bytes += t->pass.scratch_bytes;
    return FM_OK;
}

/* The model was opened on the CPU, from where its weights are read. */
static fm_status open_device(fm_trainer *t, fm_model *m, fm_error *err)
{
    const fm_device_options o = {.f32 = t->o.f32_activations};
    if (m->device)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s is on a device already: training takes it there itself", m->source.path);
    FM_TRY(fm_device_open(&m->device, t->o.device, &o, NULL, err));
    return FM_OK;
}

static fm_status open_trainer(fm_trainer *t, fm_model *m, fm_error *err)
{
    unsigned threads = t->o.threads;
    const double limits[] = {t->o.loss_z, t->o.norm_z};
    FM_TRY(fm_data_check(t->data, fm_schedule_most(&t->o.schedule), err));
    FM_TRY(fm_outliers_open(&t->outliers, t->o.outlier_window, limits, t->a, err));
    FM_TRY(open_device(t, m, err));
    FM_TRY(fm_model_kernels(m, t->o.cpu, &t->k, &threads, err));
    FM_TRY(fm_pool_open(&t->pool, threads, t->a, err));
    FM_TRY(fm_gradients_open(&t->g, m, t->a, err));
    FM_TRY(fm_params_open(&t->p, m, &t->g, t->o.weights, t->o.seed, err));
    fm_params_settle(&t->p, &t->k, t->pool, 0);
    t->bytes += t->g.floats * (2 * sizeof(float) + (t->p.halves ? sizeof(uint16_t) : 0));
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
    void *const owned[] = {t->pieces, t->loss, t->targets, t->ids, t->windows, t->squares, t->m2, t->m1};
    for (size_t i = 0; i < FM_COUNT(owned); i++) fm_free(t->a, owned[i]);
    fm_outliers_free(&t->outliers);
    fm_device_release(where(t), t->moments);
    fm_device_release(where(t), t->device_squares);
    fm_pass_free(&t->pass);
    fm_bptt_free(&t->bptt);
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

static int32_t *window_of(const fm_trainer *t, size_t index)
{
    return t->windows + index * (t->o.length + 1);
}

/* Reads the windows of a step, and counts their tokens that are scored. */
static fm_status read_windows(fm_trainer *t, uint32_t batch, size_t *scored, fm_error *err)
{
    const size_t length = fm_data_length(t->data, &t->cursor);
    *scored = 0;
    for (uint32_t b = 0; b < batch; b++) {
        int32_t *window = window_of(t, b);
        FM_TRY(fm_data_window(t->data, &t->cursor, b, window, err));
        for (size_t i = 0; i < length; i++) *scored += is_scored(t, window[i]);
    }
    return FM_OK;
}

/* Puts a window of the step behind the n tokens there are. */
static void add_window(fm_trainer *t, size_t index, size_t *n, size_t *n_pieces)
{
    const size_t length = fm_data_length(t->data, &t->cursor);
    const int32_t *window = window_of(t, index);
    for (size_t i = 0; i < length; i++, ++*n) {
        const bool begins = i == 0 || !is_scored(t, window[i - 1]);
        t->ids[*n] = window[i];
        t->targets[*n] = is_scored(t, window[i]) ? window[i + 1] : -1;
        if (begins) t->pieces[(*n_pieces)++] = (fm_piece){.tokens = t->ids + *n};
        t->pieces[*n_pieces - 1].n++;
    }
}

/* Sum of the losses of `windows` windows, the first of which is number `done` of the step; their gradients are added. */
static fm_status micro_batch(fm_trainer *t, size_t windows, size_t done, float scale, double *sum, fm_error *err)
{
    const fm_dropout dropout = {t->o.dropout, t->o.seed, t->step, (uint64_t)done * fm_data_length(t->data, &t->cursor)};
    size_t n = 0, n_pieces = 0;
    for (size_t w = 0; w < windows; w++) add_window(t, done + w, &n, &n_pieces);
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
    FM_TRY(t->pass.scratch ? fm_pass_run(&t->pass, &b, err) : fm_bptt_run(&t->bptt, &b, err));
    for (size_t i = 0; i < n; i++) *sum += (double)t->loss[i];
    return FM_OK;
}

static fm_run run_of(const fm_trainer *t, unsigned part, unsigned n_parts)
{
    return (fm_run){.part = part, .n_parts = n_parts, .stream = fm_device_stream(device_of(t))};
}

static void sum_squares(void *ctx, unsigned part, unsigned n_parts)
{
    const fm_trainer *t = ctx;
    double *sums = t->device_squares ? t->device_squares : t->squares;
    const fm_run run = run_of(t, part, n_parts);
    t->k.squares(&run, sums, t->g.memory, t->g.floats);
}

static fm_status gradient_norm(fm_trainer *t, double *norm, fm_error *err)
{
    const size_t n = (t->g.floats + FM_SQUARES - 1) / FM_SQUARES;
    double sum = 0.0;
    fm_pool_run(t->pool, sum_squares, t);
    if (t->device_squares) fm_device_download(device_of(t), t->squares, t->device_squares, n * sizeof(double));
    FM_TRY(fm_device_wait(device_of(t), err));
    for (size_t i = 0; i < n; i++) sum += t->squares[i];
    *norm = sqrt(sum);
    return FM_OK;
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
        const fm_run run = run_of(t, part, n_parts);
        t->k.adamw(&run, &a);
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
    fm_params_settle(&t->p, &t->k, t->pool, t->step + 1);
}

/* Looks at what the step found, and says whether the weights may follow it. */
static bool judge(fm_trainer *t, fm_train_step *s)
{
    double z[FM_OUTLIER_SERIES] = {0};
    s->finite = isfinite(s->loss) && isfinite(s->grad_norm);
    if (s->finite) s->outlier = fm_outliers_judge(&t->outliers, (const double[]){s->loss, s->grad_norm}, z);
    s->loss_z = z[0], s->norm_z = z[1];
    s->in_a_row = t->outliers.in_a_row;
    return s->finite && (!s->outlier || t->o.outlier_action == FM_OUTLIER_NOTE);
}

/* Loss and gradients of the batch. */
static fm_status run_batch(fm_trainer *t, fm_train_step *s, fm_error *err)
{
    size_t scored;
    double sum = 0.0;
    FM_TRY(read_windows(t, s->batch, &scored, err));
    fm_device_zero(device_of(t), t->g.memory, t->g.floats * sizeof(float));
    for (size_t done = 0, n; done < s->batch; done += n) {
        n = s->batch - done < t->o.micro_batch ? s->batch - done : t->o.micro_batch;
        FM_TRY(micro_batch(t, n, done, scored ? 1.0f / (float)scored : 0.0f, &sum, err));
    }
    fm_gradients_settle(&t->g, &t->k, t->pool);
    s->loss = scored ? sum / (double)scored : 0.0;
    return gradient_norm(t, &s->grad_norm, err);
}

fm_train_step fm_trainer_step(fm_trainer *t)
{
    fm_train_step s = {.batch = fm_schedule_batch(&t->o.schedule, t->tokens)};
    s.rate = fm_schedule_rate(&t->o.schedule, t->tokens, s.batch);
    s.status = run_batch(t, &s, &t->error);
    if (s.status != FM_OK) return s;
    s.moved = judge(t, &s);
    if (s.moved) optimise(t, &s);
    s.step = ++t->step;
    s.tokens = t->tokens += (uint64_t)s.batch * fm_data_length(t->data, &t->cursor);
    fm_data_advance(t->data, &t->cursor, s.batch, t->tokens);
    return s;
}

const char *fm_trainer_error(const fm_trainer *t)
{
    return t->error.text;
}
