/* mamba.c - the Mamba-1 mixer, plain and with Falcon Mamba's norms on dt, B and C.  Spec falcon-mamba.md 2.1; the step numbers
 * below are that section's.  One forward for one token and for many. */
#include <string.h>

#include "model/block/block.h"

enum { NORM, IN_PROJ, IN_BIAS, CONV, CONV_BIAS, X_PROJ, DT_PROJ, DT_BIAS, A, SKIP, OUT_PROJ, OUT_BIAS, N_WEIGHTS };

/* Rows of the weight table: name, Hugging Face's, GGUF's, sizes, how it is cut and how it begins. */
#define MATRIX(n, h, g, r, c, s, i)                                                                                            \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = FM_DIM_##r, .cols = FM_DIM_##c, .kind = FM_WEIGHT_MATRIX,                       \
        .shard = FM_SHARD_##s, .init = FM_INIT_##i                                                                             \
    }
#define VECTOR(n, h, g, c, s, p, i)                                                                                            \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = FM_DIM_1, .cols = FM_DIM_##c, .kind = FM_WEIGHT_SMALL, .shard = FM_SHARD_##s,   \
        .presence = FM_##p, .init = FM_INIT_##i                                                                                \
    }
#define TABLE(n, h, g, r, c, m, i)                                                                                             \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = FM_DIM_##r, .cols = FM_DIM_##c, .kind = FM_WEIGHT_SMALL_T, .map = FM_MAP_##m,   \
        .shard = FM_SHARD_ROWS, .init = FM_INIT_##i                                                                            \
    }

static const fm_weight_def weights[N_WEIGHTS] = {
    [NORM] = VECTOR("norm", "norm.weight", "attn_norm.weight", MODEL, NONE, ALWAYS, ONES),
    [IN_PROJ] = MATRIX("in_proj", "mixer.in_proj.weight", "ssm_in.weight", 2INNER, MODEL, ROW_HALVES, UNIFORM),
    [IN_BIAS] = VECTOR("in_proj.bias", "mixer.in_proj.bias", "ssm_in.bias", 2INNER, ROW_HALVES, WITH_BIAS, ZEROS),
    [CONV] = TABLE("conv1d", "mixer.conv1d.weight", "ssm_conv1d.weight", INNER, CONV, NONE, UNIFORM),
    [CONV_BIAS] = VECTOR("conv1d.bias", "mixer.conv1d.bias", "ssm_conv1d.bias", INNER, ROWS, WITH_CONV_BIAS, ZEROS),
    [X_PROJ] = MATRIX("x_proj", "mixer.x_proj.weight", "ssm_x.weight", RANK_2STATE, INNER, COLS, UNIFORM),
    [DT_PROJ] = MATRIX("dt_proj", "mixer.dt_proj.weight", "ssm_dt.weight", INNER, RANK, ROWS, UNIFORM),
    [DT_BIAS] = VECTOR("dt_proj.bias", "mixer.dt_proj.bias", "ssm_dt.bias", INNER, ROWS, ALWAYS, DT_BIAS),
    [A] = TABLE("A", "mixer.A_log", "ssm_a", INNER, STATE, A, A),
    [SKIP] = VECTOR("D", "mixer.D", "ssm_d", INNER, ROWS, ALWAYS, ONES),
    [OUT_PROJ] = MATRIX("out_proj", "mixer.out_proj.weight", "ssm_out.weight", MODEL, INNER, COLS, RESIDUAL),
    [OUT_BIAS] = VECTOR("out_proj.bias", "mixer.out_proj.bias", "ssm_out.bias", MODEL, NONE, WITH_BIAS, ZEROS),
};

static size_t conv_floats(const fm_config *c)
{
    return (c->d_conv - 1) * c->d_inner;
}

static size_t state_floats(const fm_config *c)
{
    return conv_floats(c) + c->d_state * c->d_inner;
}

/* The layer's part of every sequence's state, from its window on. */
static fm_states states_of(const fm_layer *l, const fm_batch *b)
{
    return (fm_states){.list = b->state, .at = b->half_states ? l->half_offset : l->state_offset};
}

static fm_states h_of(const fm_layer *l, const fm_batch *b)
{
    fm_states h = states_of(l, b);
    h.at += conv_floats(b->config);
    return h;
}

/* Memory of a forward; of a few tokens each worker has its own n and normed_q, of which the first is as good as any. */
typedef struct scratch {
    float *n;        /* (T, d_model) normed input, as xz */
    float *xz;       /* (T, 2 d_inner) scan input | gate; bf16 when the batch is half, as are u and dt */
    float *u;        /* (T, d_inner) after convolution and SiLU; then the mixer's output */
    float *q;        /* (T, dt_rank + 2 d_state) dt | B | C */
    float *normed_q; /* the same, normed */
    float *dt;       /* (T, d_inner) */
} scratch;

/* Rows of bf16 take half of the room, but no less than the most rows that a smaller step keeps in f32 (of quantised weights). */
enum { WHOLE_ROWS = 64 };

static float *push_rows(fm_arena *a, size_t n, size_t d, bool half)
{
    const size_t least = n < WHOLE_ROWS ? n : WHOLE_ROWS, halved = (n + 1) / 2;
    return FM_PUSH(a, float, (!half ? n : halved > least ? halved : least) * d);
}

static scratch place(fm_arena *a, const fm_config *c, size_t T, unsigned n_parts, bool half)
{
    const size_t rows = fm_op_rows_count(T, n_parts), q = c->dt_rank + 2 * c->d_state;
    scratch s;
    s.n = push_rows(a, rows, c->d_model, half);
    s.xz = push_rows(a, T, 2 * c->d_inner, half);
    s.u = push_rows(a, T, c->d_inner, half);
    s.q = FM_PUSH(a, float, T *q);
    s.normed_q = FM_PUSH(a, float, rows *q);
    s.dt = push_rows(a, T, c->d_inner, half);
    return s;
}

/* Room for f32: a step with a log is never half. */
static void measure(fm_arena *a, const fm_config *c, size_t T, unsigned n_parts)
{
    place(a, c, T, n_parts, false);
}

/* What backward needs: the forward's memory, its output before out_proj, and the states it began with. */
typedef struct saved {
    scratch s;
    float *out;    /* (T, d_model) what is added to x, with dropout; then its gradient */
    float *y;      /* (T, d_inner), as u */
    float *before; /* (n_seq, state_floats) */
    float *kept;   /* states that the scan's backward begins at, when the batch is half; NULL: none */
} saved;

static saved place_saved(fm_arena *a, const fm_config *c, size_t T, size_t n_states, unsigned n_parts, bool half)
{
    saved v;
    v.s = place(a, c, T, n_parts, half);
    v.out = FM_PUSH(a, float, T * c->d_model);
    v.y = push_rows(a, T, c->d_inner, half);
    v.before = FM_PUSH(a, float, n_states *state_floats(c));
    const size_t kept = half && c->dt_rank % 4 == 0 ? fm_scan_kept_floats(T, c->d_inner, c->d_state) : 0;
    v.kept = kept ? FM_PUSH(a, float, kept) : NULL; /* B and C are read as vectors then */
    return v;
}

static void measure_saved(fm_arena *a, const fm_config *c, size_t T, size_t n_states, unsigned n_parts, bool half)
{
    place_saved(a, c, T, n_states, n_parts, half);
}

/* Where the forward of this batch kept, or is to keep, what backward needs. */
static saved find_saved(const fm_ctx *c, const fm_batch *b)
{
    fm_arena a = {.base = b->saved->base, .size = b->saved->size};
    return place_saved(&a, b->config, b->n_tokens, b->hold ? 0 : b->ragged->n_seq, c->run.n_parts, b->half);
}

/* Where the states of the step began: with `hold` where they still are. */
static fm_states states_before(const fm_batch *b, const fm_layer *l, const saved *v)
{
    if (b->hold) return states_of(l, b);
    return (fm_states){.rows = v->before, .stride = state_floats(b->config)};
}

/* Rows of the step, T of them, between its ops. */
static fm_rows between(const fm_batch *b, float *p, size_t d)
{
    return (fm_rows){p, b->n_tokens, d, d, b->half};
}

/* Steps 7 and 8, of which the norms, each of dt, B and C over its own width and without weights, are Falcon's only.  *q: the rows
 * of the product, then those that go on; gives their dt as dt_proj reads it. */
static fm_packed project_dt_b_c(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_packed u, fm_rows *q, float *normed)
{
    const fm_config *cfg = b->config;
    const fm_tensor *W = &l->w[X_PROJ], *next = &l->w[DT_PROJ];
    const fm_rows raw = *q;
    if (!cfg->mixer_norms) {
        fm_op_linear(c, raw, u, W, NULL);
        return fm_op_pack_rows(c, fm_rows_cols(raw, 0, cfg->dt_rank), next);
    }
    *q = fm_op_rows(c, normed, raw.n, raw.d);
    return fm_op_linear_three_pack(c, &(fm_linear_three){.x = u,
                                                         .W = W,
                                                         .next = next,
                                                         .y = raw,
                                                         .out = *q,
                                                         .d = {cfg->dt_rank, cfg->d_state, cfg->d_state},
                                                         .eps = cfg->mixer_rms_eps,
                                                         .keep = b->saved != NULL});
}

/* In training the states of the layer are kept as they are before anything moves; gives where y goes. */
static float *save_states(const fm_ctx *c, const fm_layer *l, const fm_batch *b, const saved *v)
{
    if (b->hold) return v->y;
    const fm_states before = states_before(b, l, v), live = states_of(l, b);
    fm_op_copy_states(c, &before, &live, b->ragged->n_seq, state_floats(b->config));
    fm_op_meet(c);
    return v->y;
}

/* to = (to +) what dropout leaves of `from`. */
static void drop(const fm_ctx *c, const fm_batch *b, fm_rows to, fm_rows from, bool add)
{
    fm_op_dropout(c, &(fm_dropout_args){.out = to.p,
                                        .out_stride = to.stride,
                                        .x = from.p,
                                        .x_stride = from.stride,
                                        .n = to.n,
                                        .d = to.d,
                                        .p = b->dropout->p,
                                        .seed = b->dropout->seed,
                                        .stream = fm_dropout_stream(b->dropout, b->layer + 1),
                                        .first_row = b->dropout->first_row,
                                        .add = add});
}

/* What moves the states (fm_batch.log): rows of x before the convolution, of dt before its bias, and B. */
typedef struct inputs {
    fm_rows x, dt, B; /* (log_tokens, d_inner), the same, (log_tokens, d_state) */
} inputs;

static size_t log_floats(const fm_config *c, size_t n_tokens)
{
    return fm_round_up(n_tokens * (2 * c->d_inner + c->d_state), FM_ALIGN / sizeof(float));
}

static inputs log_rows(const fm_batch *b, size_t first, size_t n)
{
    const size_t inner = b->config->d_inner, N = b->config->d_state, plane = b->log_tokens * inner;
    FM_ASSERT(first + n <= b->log_tokens);
    return (inputs){fm_rows_of(b->log + first * inner, n, inner), fm_rows_of(b->log + plane + first * inner, n, inner),
                    fm_rows_of(b->log + 2 * plane + first * N, n, N)};
}

/* Step 1: the norm that a backward looks at again is kept in n, as is one that is its own pack. */
static fm_packed norm_in(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_rows x, fm_rows n)
{
    const float *w = l->w[NORM].data, eps = b->config->norm_eps;
    if (!b->saved && !n.half) return fm_op_rmsnorm_pack(c, n, x, w, eps, &l->w[IN_PROJ]);
    fm_op_rmsnorm(c, n, x, w, eps);
    return fm_op_pack_rows(c, n, &l->w[IN_PROJ]);
}

/* Step 2: x and z, each worker the channels that it owns.  A device makes both at once where they lie side by side. */
static void project_in(const fm_ctx *c, const fm_layer *l, size_t inner, fm_packed packed, const fm_rows out[2])
{
    const fm_tensor *W = &l->w[IN_PROJ];
    const float *bias = l->w[IN_BIAS].data;
    const fm_rows both = {out[0].p, out[0].n, 2 * inner, out[0].stride, out[0].half}, z = fm_rows_cols(both, inner, inner);
    if (c->device && out[1].p == z.p && out[1].stride == z.stride) {
        fm_op_linear_channels(c, both, packed, W, bias);
        return;
    }
    for (size_t half = 0; half < 2; half++) {
        const fm_tensor rows = fm_tensor_rows(W, half * inner, inner);
        fm_op_linear_channels(c, out[half], packed, &rows, bias ? bias + half * inner : NULL);
    }
}

/* Steps 4 and 5. */
static fm_conv_args conv_args(const fm_layer *l, const fm_batch *b, fm_rows u, fm_rows x)
{
    return (fm_conv_args){.out = u.p,
                          .out_stride = u.stride,
                          .state = states_of(l, b),
                          .x = x.p,
                          .x_stride = x.stride,
                          .w = l->w[CONV].data,
                          .bias = l->w[CONV_BIAS].data,
                          .ragged = b->ragged,
                          .d_inner = b->config->d_inner,
                          .d_conv = b->config->d_conv,
                          .hold = b->hold,
                          .half = b->half};
}

/* Steps 9 to 13; the bias of dt is added there. */
static fm_scan_args scan_args(const fm_layer *l, const fm_batch *b, fm_scan_args a)
{
    a.h = h_of(l, b);
    a.dt_bias = l->w[DT_BIAS].data;
    a.A = l->w[A].data;
    a.skip = l->w[SKIP].data;
    a.ragged = b->ragged;
    a.d_inner = b->config->d_inner;
    a.d_state = b->config->d_state;
    a.hold = b->hold;
    a.half = b->half;
    a.half_h = b->half_states;
    return a;
}

static void show_scan(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_scan_view v)
{
    if (!b->watcher) return;
    v.dt_bias = l->w[DT_BIAS].data;
    v.h = h_of(l, b);
    fm_op_meet(c);
    if (c->run.part == 0) b->watcher->look(b->watcher->ctx, b->layer, &v);
    fm_op_meet(c);
}

/* Step 14.  With dropout the product goes through `room` (T, d_model). */
static void add_out(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_rows x, fm_packed y, float *room)
{
    const fm_tensor *W = &l->w[OUT_PROJ];
    const float *bias = l->w[OUT_BIAS].data;
    const fm_rows out = b->out ? fm_rows_of(b->out, x.n, x.d) : x;
    if (!b->dropout) {
        fm_op_linear_add(c, out, x, y, W, bias);
        return;
    }
    const fm_rows dropped = fm_rows_of(room, x.n, x.d);
    if (b->out) fm_op_copy(c, out, x);
    fm_op_linear(c, dropped, y, W, bias);
    drop(c, b, out, dropped, true);
}

/* Rows of a forward between its steps. */
typedef struct middle {
    fm_rows in, z, u, q, dt, y;
    float *normed_q, *kept;
} middle;

/* Whether anybody looks at rows between the steps. */
static bool is_looked_at(const fm_batch *b)
{
    return b->saved || b->log || b->watcher;
}

/* Steps 7 to 13, the input of step 14. */
static fm_packed select_in_steps(const fm_ctx *c, const fm_layer *l, const fm_batch *b, const middle *m, fm_packed packed_u)
{
    const fm_config *cfg = b->config;
    const size_t rank = cfg->dt_rank;
    fm_rows q = m->q;
    const fm_packed packed_dt = project_dt_b_c(c, l, b, packed_u, &q, m->normed_q); /* 7, 8 */
    const fm_rows B = fm_rows_cols(q, rank, cfg->d_state), C = fm_rows_cols(q, rank + cfg->d_state, cfg->d_state);
    if (b->log) fm_op_copy(c, log_rows(b, 0, b->n_tokens).B, B);
    const fm_scan_args scan = scan_args(l, b, /* 9 - 13 */
                                        (fm_scan_args){.y = m->y.p,
                                                       .y_stride = m->y.stride,
                                                       .u = m->u.p,
                                                       .u_stride = m->u.stride,
                                                       .B = B.p,
                                                       .C = C.p,
                                                       .bc_stride = q.stride,
                                                       .dt = m->dt.p,
                                                       .dt_stride = m->dt.stride,
                                                       .z = m->z.p,
                                                       .z_stride = m->z.stride,
                                                       .kept = m->kept});
    fm_op_linear_channels(c, m->dt, packed_dt, &l->w[DT_PROJ], NULL);
    const fm_packed packed = fm_op_scan_pack(c, &scan, &l->w[OUT_PROJ], b->saved != NULL);
    show_scan(c, l, b, (fm_scan_view){.dt = m->dt, .B = B, .C = C});
    return packed;
}

/* The same, in fewer launches where there is a kernel for it and nobody wants what lies between. */
static fm_packed select_from(const fm_ctx *c, const fm_layer *l, const fm_batch *b, const middle *m, fm_packed packed_u)
{
    const fm_select_args a = {
        .x_proj = {.y = m->q.p, .y_stride = m->q.stride, .W = &l->w[X_PROJ]},
        .dt_proj = &l->w[DT_PROJ],
        .norms = b->config->mixer_norms,
        .eps = b->config->mixer_rms_eps,
        .scan = scan_args(l, b, (fm_scan_args){.u = m->u.p, .u_stride = m->u.stride, .z = m->z.p, .z_stride = m->z.stride})};
    fm_packed y;
    if (!is_looked_at(b) && fm_op_select(c, packed_u, &a, &l->w[OUT_PROJ], &y)) return y;
    return select_in_steps(c, l, b, m, packed_u);
}

/* Steps 4 to 13, likewise. */
static fm_packed mix(const fm_ctx *c, const fm_layer *l, const fm_batch *b, const middle *m)
{
    const fm_mix_args a = {.conv = conv_args(l, b, m->u, m->in),
                           .scan = scan_args(l, b, (fm_scan_args){.z = m->z.p, .z_stride = m->z.stride}),
                           .x_proj = &l->w[X_PROJ],
                           .dt_proj = &l->w[DT_PROJ],
                           .norms = b->config->mixer_norms,
                           .eps = b->config->mixer_rms_eps};
    fm_packed y;
    if (!is_looked_at(b) && fm_op_mix(c, &a, &l->w[OUT_PROJ], &y)) return y;
    return select_from(c, l, b, m, fm_op_conv_silu_pack(c, &a.conv, &l->w[X_PROJ]));
}

/* Steps 2 to 13, of which 2 to 5 at once on the same terms. */
static fm_packed project_and_mix(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_packed n, const middle *m)
{
    const fm_linear_conv_args a = {
        .product = {.y = m->in.p, .y_stride = m->in.stride, .W = &l->w[IN_PROJ], .bias = l->w[IN_BIAS].data},
        .conv = conv_args(l, b, m->u, m->in)};
    fm_packed u;
    if (!is_looked_at(b) && fm_op_linear_conv_pack(c, n, &a, &l->w[X_PROJ], &u)) return select_from(c, l, b, m, u);
    project_in(c, l, b->config->d_inner, n, (fm_rows[2]){m->in, m->z}); /* 2 */
    return mix(c, l, b, m);
}

static void forward(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_arena arena, fm_rows x)
{
    const fm_config *cfg = b->config;
    const size_t T = b->n_tokens, inner = cfg->d_inner;
    saved v = {0};
    if (b->saved) v = find_saved(c, b);
    const scratch s = b->saved ? v.s : place(&arena, cfg, T, c->run.n_parts, b->half);
    const fm_rows n = b->half ? between(b, s.n, cfg->d_model) : fm_op_rows(c, s.n, T, cfg->d_model),
                  xz = between(b, s.xz, 2 * inner);
    const inputs log = b->log ? log_rows(b, 0, T) : (inputs){.x = {0}};
    const middle m = {.in = b->log ? log.x : fm_rows_cols(xz, 0, inner),
                      .z = fm_rows_cols(xz, inner, inner),
                      .u = between(b, s.u, inner),
                      .q = fm_rows_of(s.q, T, cfg->dt_rank + 2 * cfg->d_state),
                      .dt = b->log ? log.dt : between(b, s.dt, inner),
                      .y = between(b, b->saved ? save_states(c, l, b, &v) : s.u, inner),
                      .normed_q = s.normed_q,
                      .kept = v.kept};
    const fm_packed y = project_and_mix(c, l, b, norm_in(c, l, b, x, n), &m); /* 1 - 13 */
    add_out(c, l, b, x, y, v.out);                                            /* 14 */
}

static void replay(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_arena arena)
{
    const inputs log = log_rows(b, b->log_first, b->n_tokens);
    const scratch s = place(&arena, b->config, b->n_tokens, c->run.n_parts, b->half);
    const fm_rows u = fm_rows_of(s.u, b->n_tokens, b->config->d_inner);
    const fm_conv_args conv = conv_args(l, b, u, log.x);
    const fm_scan_args scan = scan_args(l, b,
                                        (fm_scan_args){.u = u.p,
                                                       .u_stride = u.stride,
                                                       .dt = log.dt.p,
                                                       .dt_stride = log.dt.stride,
                                                       .B = log.B.p,
                                                       .bc_stride = log.B.stride});
    fm_op_conv_silu(c, &conv);
    fm_op_scan(c, &scan);
}

/* ---- Backward (spec 8), from the last step to the first ---- */

typedef struct back {
    const fm_config *cfg;
    saved v;
    bool half;
    fm_rows g_y;    /* (T, d_inner) of the gated output; half, as all of these rows, when the batch is */
    fm_rows g_u;    /* (T, d_inner) after convolution and SiLU */
    fm_rows g_xz;   /* (T, 2 d_inner) */
    fm_rows g_dt;   /* (T, d_inner) */
    fm_rows g_n;    /* (T, d_model) */
    float *g_nq;    /* (T, dt_rank + 2 d_state) after the norms */
    float *g_q;     /* (T, dt_rank + 2 d_state) before */
    float *rho;     /* (T) */
    float *decoded; /* a matrix as f32 */
    float *scan;    /* of its backward */
    fm_states conv, h, g_conv, g_h;
} back;

/* Room for any of the matrices as f32: what they are loaded as is not known here. */
static size_t decoded_floats(const fm_config *c)
{
    const size_t I = c->d_inner, d = c->d_model, q = c->dt_rank + 2 * c->d_state, sizes[] = {2 * I * d, q * I, I * c->dt_rank};
    size_t most = 0;
    for (size_t i = 0; i < FM_COUNT(sizes); i++) most = sizes[i] > most ? sizes[i] : most;
    return most;
}

static fm_rows push_gradient(fm_arena *a, size_t T, size_t d, bool half)
{
    return (fm_rows){push_rows(a, T, d, half), T, d, d, half};
}

static back place_back(fm_arena *a, const fm_kernels *k, const fm_config *c, size_t T, unsigned n_parts, bool half)
{
    const size_t I = c->d_inner, q = c->dt_rank + 2 * c->d_state;
    back b = {.cfg = c, .half = half};
    b.g_y = push_gradient(a, T, I, half);
    b.g_u = push_gradient(a, T, I, half);
    b.g_xz = push_gradient(a, T, 2 * I, half);
    b.g_dt = push_gradient(a, T, I, half);
    b.g_n = push_gradient(a, T, c->d_model, half);
    b.g_nq = FM_PUSH(a, float, T *q);
    b.g_q = FM_PUSH(a, float, T *q);
    b.rho = FM_PUSH(a, float, T);
    b.decoded = FM_PUSH(a, float, decoded_floats(c));
    b.scan = FM_PUSH(a, float, fm_op_scan_back_floats(k, T, I, c->d_state, n_parts));
    return b;
}

static void measure_back(fm_arena *a, const fm_kernels *k, const fm_config *c, size_t T, unsigned n_parts, bool half)
{
    place_back(a, k, c, T, n_parts, half);
}

/* Where the states began and where their gradients are. */
static void find_back_state(back *k, const fm_layer *l, const fm_block_back *b)
{
    k->conv = k->h = states_before(b->batch, l, &k->v);
    k->h.at += conv_floats(k->cfg);
    if (!b->g_state) return;
    k->g_conv = k->g_h = (fm_states){.list = b->g_state, .at = l->state_offset};
    k->g_h.at += conv_floats(k->cfg);
}

/* One product's backward: the gradient of its output and its input as it was; the gradient of its input goes to g_x. */
typedef struct product {
    int weight, bias; /* bias -1: none */
    fm_rows g_y, x, g_x;
    bool add; /* to g_x */
} product;

static void product_back(const fm_ctx *c, const fm_layer *l, const fm_block_back *b, const back *k, product p)
{
    fm_op_linear_back(c, &(fm_linear_back){.g_x = p.g_x,
                                           .g_y = p.g_y,
                                           .x = p.x,
                                           .W = &l->w[p.weight],
                                           .g_W = b->g_w[p.weight],
                                           .g_bias = p.bias >= 0 ? b->g_w[p.bias] : NULL,
                                           .add = p.add,
                                           .decoded = k->decoded});
}

static void scan_back(const fm_ctx *c, const fm_layer *l, const fm_block_back *b, const back *k)
{
    const fm_config *cfg = k->cfg;
    const size_t T = b->batch->n_tokens, I = cfg->d_inner, N = cfg->d_state, rank = cfg->dt_rank, q = rank + 2 * N;
    const fm_tensor *w = l->w;
    const float *normed = cfg->mixer_norms ? k->v.s.normed_q : k->v.s.q;
    const fm_rows g_bc = fm_rows_cols(fm_rows_of(k->g_nq, T, q), rank, 2 * N), g_z = fm_rows_cols(k->g_xz, I, I),
                  z = fm_rows_cols(between(b->batch, k->v.s.xz, 2 * I), I, I);
    fm_op_scan_back(c, g_bc,
                    &(fm_scan_back_args){.g_u = k->g_u.p,
                                         .g_u_stride = I,
                                         .g_dt = k->g_dt.p,
                                         .g_dt_stride = I,
                                         .g_z = g_z.p,
                                         .g_z_stride = g_z.stride,
                                         .g_A = b->g_w[A],
                                         .g_dt_bias = b->g_w[DT_BIAS],
                                         .g_skip = b->g_w[SKIP],
                                         .g_h = k->g_h,
                                         .g = k->g_y.p,
                                         .g_stride = I,
                                         .h = k->h,
                                         .u = k->v.s.u,
                                         .u_stride = I,
                                         .dt = k->v.s.dt,
                                         .dt_stride = I,
                                         .dt_bias = w[DT_BIAS].data,
                                         .A = w[A].data,
                                         .B = normed + rank,
                                         .C = normed + rank + N,
                                         .bc_stride = q,
                                         .skip = w[SKIP].data,
                                         .z = z.p,
                                         .z_stride = z.stride,
                                         .ragged = b->batch->ragged,
                                         .d_inner = I,
                                         .d_state = N,
                                         .half = k->half,
                                         .kept = k->v.kept},
                    k->scan);
}

/* Gives the gradient of x_proj's output. */
static fm_rows norms_back(const fm_ctx *c, const back *k, size_t T)
{
    const fm_config *cfg = k->cfg;
    const size_t rank = cfg->dt_rank, n = cfg->d_state, q = rank + 2 * n, first[] = {0, rank, rank + n}, width[] = {rank, n, n};
    if (!cfg->mixer_norms) return fm_rows_of(k->g_nq, T, q);
    for (size_t i = 0; i < 3; i++)
        fm_op_rmsnorm_back(c, NULL,
                           &(fm_rmsnorm_back_args){.g_x = k->g_q + first[i],
                                                   .g_x_stride = q,
                                                   .rho = k->rho,
                                                   .g = k->g_nq + first[i],
                                                   .g_stride = q,
                                                   .x = k->v.s.q + first[i],
                                                   .x_stride = q,
                                                   .n = T,
                                                   .d = width[i],
                                                   .eps = cfg->mixer_rms_eps});
    return fm_rows_of(k->g_q, T, q);
}

static void conv_back(const fm_ctx *c, const fm_layer *l, const fm_block_back *b, const back *k)
{
    const size_t I = k->cfg->d_inner;
    fm_op_conv_back(c, &(fm_conv_back_args){.g_x = k->g_xz.p,
                                            .g_x_stride = k->g_xz.stride,
                                            .g_w = b->g_w[CONV],
                                            .g_bias = b->g_w[CONV_BIAS],
                                            .g_state = k->g_conv,
                                            .g = k->g_u.p,
                                            .g_stride = I,
                                            .state = k->conv,
                                            .x = k->v.s.xz,
                                            .x_stride = 2 * I,
                                            .w = l->w[CONV].data,
                                            .bias = l->w[CONV_BIAS].data,
                                            .ragged = b->batch->ragged,
                                            .d_inner = I,
                                            .d_conv = k->cfg->d_conv,
                                            .half = k->half});
}

/* Step 14 from behind: the gradient of what was added to the residual stream, with dropout in memory of its own. */
static fm_rows out_gradient(const fm_ctx *c, const fm_block_back *b, const back *k, fm_rows g_x)
{
    if (b->batch->dropout) {
        const fm_rows g_out = fm_rows_of(k->v.out, g_x.n, g_x.d);
        drop(c, b->batch, g_out, g_x, false);
        return g_out;
    }
    return b->rounded ? (fm_rows){b->rounded, g_x.n, g_x.d, g_x.d, true} : g_x;
}

static void backward(const fm_ctx *c, const fm_layer *l, const fm_block_back *b, fm_rows g_x)
{
    const fm_config *cfg = b->batch->config;
    const size_t T = b->batch->n_tokens, I = cfg->d_inner, rank = cfg->dt_rank, d = cfg->d_model;
    fm_arena arena = b->scratch;
    back k = place_back(&arena, c->k, cfg, T, c->run.n_parts, b->batch->half);
    k.v = find_saved(c, b->batch);
    find_back_state(&k, l, b);
    const fm_rows u = between(b->batch, k.v.s.u, I), y = between(b->batch, k.v.y, I), n = between(b->batch, k.v.s.n, d),
                  normed = fm_rows_of(cfg->mixer_norms ? k.v.s.normed_q : k.v.s.q, T, rank + 2 * cfg->d_state);
    const fm_rows g_dt_in = fm_rows_cols(fm_rows_of(k.g_nq, T, normed.d), 0, rank), dt_in = fm_rows_cols(normed, 0, rank);

    product_back(c, l, b, &k, (product){OUT_PROJ, OUT_BIAS, out_gradient(c, b, &k, g_x), y, k.g_y, false}); /* 14 */
    scan_back(c, l, b, &k);                                                                                 /* 13 - 9 */
    product_back(c, l, b, &k, (product){DT_PROJ, -1, k.g_dt, dt_in, g_dt_in, false});                       /* 9 */
    const fm_rows g_q = norms_back(c, &k, T);                                                               /* 8 */
    product_back(c, l, b, &k, (product){X_PROJ, -1, g_q, u, k.g_u, true});                                  /* 7 */
    conv_back(c, l, b, &k);                                                                                 /* 5, 4 */
    product_back(c, l, b, &k, (product){IN_PROJ, IN_BIAS, k.g_xz, n, k.g_n, false});                        /* 2 */
    fm_op_rmsnorm_back(c, b->g_w[NORM],                                                                     /* 1 */
                       &(fm_rmsnorm_back_args){.g_x = g_x.p,
                                               .g_x_stride = g_x.stride,
                                               .rho = k.rho,
                                               .g = k.g_n.p,
                                               .g_stride = d,
                                               .x = b->x.p,
                                               .x_stride = b->x.stride,
                                               .w = l->w[NORM].data,
                                               .n = T,
                                               .d = d,
                                               .eps = cfg->norm_eps,
                                               .add = true,
                                               .half = k.half,
                                               .rounded = b->rounded});
}

const fm_block fm_block_mamba = {
    .weights = weights,
    .n_weights = N_WEIGHTS,
    .state_floats = state_floats,
    .state_whole = conv_floats,
    .log_floats = log_floats,
    .scratch = measure,
    .forward = forward,
    .replay = replay,
    .saved = measure_saved,
    .back_scratch = measure_back,
    .backward = backward,
};
