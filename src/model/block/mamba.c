/* mamba.c - the Mamba-1 mixer, plain and with Falcon Mamba's norms on dt, B and C.  Spec falcon-mamba.md 2.1; the step numbers
 * below are that section's.  One forward for one token and for many. */
#include "model/block/block.h"

enum { NORM, IN_PROJ, IN_BIAS, CONV, CONV_BIAS, X_PROJ, DT_PROJ, DT_BIAS, A, SKIP, OUT_PROJ, OUT_BIAS, N_WEIGHTS };

#define MATRIX(n, h, g, r, c, s)                                                                                               \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = r, .cols = c, .kind = FM_WEIGHT_MATRIX, .shard = s                              \
    }
#define VECTOR(n, h, g, c, s, p)                                                                                               \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = FM_DIM_1, .cols = c, .kind = FM_WEIGHT_SMALL, .shard = s, .presence = p         \
    }
#define TABLE(n, h, g, r, c, m)                                                                                                \
    {                                                                                                                          \
        .name = n, .hf = h, .gguf = g, .rows = r, .cols = c, .kind = FM_WEIGHT_SMALL_T, .map = m, .shard = FM_SHARD_ROWS       \
    }

static const fm_weight_def weights[N_WEIGHTS] = {
    [NORM] = VECTOR("norm", "norm.weight", "attn_norm.weight", FM_DIM_MODEL, FM_SHARD_NONE, FM_ALWAYS),
    [IN_PROJ] = MATRIX("in_proj", "mixer.in_proj.weight", "ssm_in.weight", FM_DIM_2INNER, FM_DIM_MODEL, FM_SHARD_ROW_HALVES),
    [IN_BIAS] = VECTOR("in_proj.bias", "mixer.in_proj.bias", "ssm_in.bias", FM_DIM_2INNER, FM_SHARD_ROW_HALVES, FM_WITH_BIAS),
    [CONV] = TABLE("conv1d", "mixer.conv1d.weight", "ssm_conv1d.weight", FM_DIM_INNER, FM_DIM_CONV, FM_MAP_NONE),
    [CONV_BIAS] = VECTOR("conv1d.bias", "mixer.conv1d.bias", "ssm_conv1d.bias", FM_DIM_INNER, FM_SHARD_ROWS, FM_WITH_CONV_BIAS),
    [X_PROJ] = MATRIX("x_proj", "mixer.x_proj.weight", "ssm_x.weight", FM_DIM_RANK_2STATE, FM_DIM_INNER, FM_SHARD_COLS),
    [DT_PROJ] = MATRIX("dt_proj", "mixer.dt_proj.weight", "ssm_dt.weight", FM_DIM_INNER, FM_DIM_RANK, FM_SHARD_ROWS),
    [DT_BIAS] = VECTOR("dt_proj.bias", "mixer.dt_proj.bias", "ssm_dt.bias", FM_DIM_INNER, FM_SHARD_ROWS, FM_ALWAYS),
    [A] = TABLE("A", "mixer.A_log", "ssm_a", FM_DIM_INNER, FM_DIM_STATE, FM_MAP_A),
    [SKIP] = VECTOR("D", "mixer.D", "ssm_d", FM_DIM_INNER, FM_SHARD_ROWS, FM_ALWAYS),
    [OUT_PROJ] = MATRIX("out_proj", "mixer.out_proj.weight", "ssm_out.weight", FM_DIM_MODEL, FM_DIM_INNER, FM_SHARD_COLS),
    [OUT_BIAS] = VECTOR("out_proj.bias", "mixer.out_proj.bias", "ssm_out.bias", FM_DIM_MODEL, FM_SHARD_NONE, FM_WITH_BIAS),
};

static size_t conv_floats(const fm_config *c)
{
    return (c->d_conv - 1) * c->d_inner;
}

static size_t state_floats(const fm_config *c)
{
    return conv_floats(c) + c->d_state * c->d_inner;
}

/* Memory of a forward; of a few tokens each worker has its own n and normed_q. */
typedef struct scratch {
    float *n;          /* (T, d_model) normed input */
    float *xz;         /* (T, 2 d_inner) scan input | gate */
    float *u;          /* (T, d_inner) after convolution and SiLU; then the mixer's output */
    float *q;          /* (T, dt_rank + 2 d_state) dt | B | C */
    float *normed_q;   /* the same, normed */
    float *dt;         /* (T, d_inner) */
    float **conv, **h; /* (n_parts, n_seq) */
} scratch;

static scratch place(fm_arena *a, const fm_config *c, size_t T, size_t n_seq, unsigned n_parts)
{
    const size_t rows = fm_op_rows_count(T, n_parts), q = c->dt_rank + 2 * c->d_state;
    scratch s;
    s.n = FM_PUSH(a, float, rows * c->d_model);
    s.xz = FM_PUSH(a, float, T * 2 * c->d_inner);
    s.u = FM_PUSH(a, float, T * c->d_inner);
    s.q = FM_PUSH(a, float, T *q);
    s.normed_q = FM_PUSH(a, float, rows *q);
    s.dt = FM_PUSH(a, float, T * c->d_inner);
    s.conv = FM_PUSH(a, float *, n_parts *n_seq);
    s.h = FM_PUSH(a, float *, n_parts *n_seq);
    return s;
}

static void measure(fm_arena *a, const fm_config *c, size_t T, size_t n_seq, unsigned n_parts)
{
    place(a, c, T, n_seq, n_parts);
}

/* This worker's lists of where each sequence keeps this layer's window and h. */
static void find_state(scratch *s, const fm_ctx *c, const fm_layer *l, const fm_batch *b)
{
    const size_t n_seq = b->ragged->n_seq;
    s->conv += c->run.part * n_seq;
    s->h += c->run.part * n_seq;
    for (size_t i = 0; i < n_seq; i++) {
        s->conv[i] = b->state[i] + l->state_offset;
        s->h[i] = s->conv[i] + conv_floats(b->config);
    }
}

/* Step 8, Falcon only: dt, B and C each over its own width, without weights.  Gives the rows that go on. */
static fm_rows norm_dt_b_c(const fm_ctx *c, const fm_config *cfg, fm_rows q, float *normed)
{
    if (!cfg->mixer_norms) return q;
    const size_t rank = cfg->dt_rank, n = cfg->d_state, first[] = {0, rank, rank + n}, width[] = {rank, n, n};
    const fm_rows out = fm_op_rows(c, normed, q.n, q.d);
    for (size_t i = 0; i < 3; i++)
        fm_op_rmsnorm(c, fm_rows_cols(out, first[i], width[i]), fm_rows_cols(q, first[i], width[i]), NULL, cfg->mixer_rms_eps);
    return out;
}

/* Steps 1 and 2: x and z, each worker the channels that it owns. */
static void project_in(const fm_ctx *c, const fm_layer *l, const fm_config *cfg, fm_rows x, fm_rows n, fm_rows xz)
{
    const size_t inner = cfg->d_inner;
    const fm_tensor *W = &l->w[IN_PROJ];
    const float *bias = l->w[IN_BIAS].data;
    fm_op_rmsnorm(c, n, x, l->w[NORM].data, cfg->norm_eps);
    const fm_packed packed = fm_op_pack_rows(c, n, W);
    for (size_t half = 0; half < 2; half++) {
        const fm_tensor rows = fm_tensor_rows(W, half * inner, inner);
        fm_op_linear_channels(c, fm_rows_cols(xz, half * inner, inner), packed, &rows, bias ? bias + half * inner : NULL);
    }
}

static void forward(const fm_ctx *c, const fm_layer *l, const fm_batch *b, fm_arena arena, fm_rows x)
{
    const fm_config *cfg = b->config;
    const fm_tensor *w = l->w;
    const size_t T = b->n_tokens, inner = cfg->d_inner, rank = cfg->dt_rank;
    scratch s = place(&arena, cfg, T, b->ragged->n_seq, c->run.n_parts);
    find_state(&s, c, l, b);
    const fm_rows n = fm_op_rows(c, s.n, T, cfg->d_model), xz = fm_rows_of(s.xz, T, 2 * inner), u = fm_rows_of(s.u, T, inner),
                  raw = fm_rows_of(s.q, T, rank + 2 * cfg->d_state), dt = fm_rows_of(s.dt, T, inner);

    project_in(c, l, cfg, x, n, xz);   /* 1, 2 */
    fm_op_conv_silu(c, &(fm_conv_args){/* 4, 5 */
                                       .out = u.p,
                                       .out_stride = u.stride,
                                       .state = s.conv,
                                       .x = xz.p,
                                       .x_stride = xz.stride,
                                       .w = w[CONV].data,
                                       .bias = w[CONV_BIAS].data,
                                       .ragged = b->ragged,
                                       .d_inner = inner,
                                       .d_conv = cfg->d_conv});
    fm_op_linear(c, raw, fm_op_pack_channels(c, u, &w[X_PROJ]), &w[X_PROJ], NULL); /* 7 */
    const fm_rows q = norm_dt_b_c(c, cfg, raw, s.normed_q);                        /* 8 */
    fm_op_linear_channels(c, dt, fm_op_pack_rows(c, fm_rows_cols(q, 0, rank), &w[DT_PROJ]), &w[DT_PROJ], NULL);
    fm_op_scan(c, &(fm_scan_args){/* 9 - 13; the bias of dt is added there */
                                  .y = u.p,
                                  .y_stride = u.stride,
                                  .h = s.h,
                                  .u = u.p,
                                  .u_stride = u.stride,
                                  .dt = dt.p,
                                  .dt_stride = dt.stride,
                                  .dt_bias = w[DT_BIAS].data,
                                  .A = w[A].data,
                                  .B = q.p + rank,
                                  .C = q.p + rank + cfg->d_state,
                                  .bc_stride = q.stride,
                                  .skip = w[SKIP].data,
                                  .z = xz.p + inner,
                                  .z_stride = xz.stride,
                                  .ragged = b->ragged,
                                  .d_inner = inner,
                                  .d_state = cfg->d_state});
    fm_op_linear_add(c, x, fm_op_pack_channels(c, u, &w[OUT_PROJ]), &w[OUT_PROJ], w[OUT_BIAS].data); /* 14 */
}

const fm_block fm_block_mamba = {
    .name = "mamba",
    .weights = weights,
    .n_weights = N_WEIGHTS,
    .state_floats = state_floats,
    .scratch = measure,
    .forward = forward,
};
