/* test_finite_differences.c - every gradient of the reference, compiled as double, against central differences of its forward:
 * odd sizes, padded rows, ragged steps with an empty sequence, states in and out, and what is optional left out. */
#include "unit/ref_double.h"

#include "kernels/ref/ref.h"
#include "unit/differences.h"

_Static_assert(sizeof(fm_real) == sizeof(double), "ref_double.h comes first");

static const fm_run all = {.part = 0, .n_parts = 1};

/* ---- Memory and numbers ---- */

static double memory[1 << 18];
static size_t memory_used;

static double *take(size_t n)
{
    double *p = memory + memory_used;
    assert_true(n <= FM_COUNT(memory) - memory_used);
    memory_used += n;
    for (size_t i = 0; i < n; i++) p[i] = NAN;
    return p;
}

static double *draw(size_t n, double mean, double sd)
{
    double *p = take(n);
    for (size_t i = 0; i < n; i++) p[i] = mean + sd * (double)fm_rng_normal(11, memory_used, i);
    return p;
}

static double *copy(const double *from, size_t n)
{
    double *p = take(n);
    memcpy(p, from, n * sizeof *p);
    return p;
}

/* Gradients of weights are added to what is there: they begin at START, which comes off again. */
#define START 0.5

static double *begin_sum(size_t n)
{
    double *p = take(n);
    for (size_t i = 0; i < n; i++) p[i] = START;
    return p;
}

static void end_sum(double *p, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] -= START;
}

typedef struct matrix {
    const double *p;
    size_t stride;
} matrix;

/* sum of c x, over rows. */
static void add_dot(dif_value *v, matrix c, matrix x, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < cols; i++) {
            const double term = c.p[r * c.stride + i] * x.p[r * x.stride + i];
            v->sum += term;
            v->size += fabs(term);
        }
}

/* ---- RMSNorm ---- */

enum { PAD = 3 };

typedef struct norm_case {
    double *x, *w, *c, *out;
    size_t n, d;
} norm_case;

static const float norm_eps = 1e-2f; /* so large that its part in the gradient is seen */

static dif_value norm_loss(void *ctx)
{
    const norm_case *k = ctx;
    dif_value v = {0};
    fm_ref_rmsnorm(&all, k->out, k->d + 1, k->x, k->d + PAD, k->w, k->n, k->d, norm_eps);
    add_dot(&v, (matrix){k->c, k->d + 2}, (matrix){k->out, k->d + 1}, k->n, k->d);
    return v;
}

static void check_norm(size_t n, size_t d, bool weighted, bool add)
{
    memory_used = 0;
    norm_case k = {.n = n, .d = d};
    k.x = draw(n * (d + PAD), 0.2, 1.0), k.c = draw(n * (d + 2), 0.0, 1.0), k.out = take(n * (d + 1));
    k.w = weighted ? draw(d, 1.0, 0.3) : NULL;
    double *g_x = begin_sum(n * d), *g_w = begin_sum(d);
    const fm_rmsnorm_back_args a = {.g_x = g_x,
                                    .g_x_stride = d,
                                    .rho = take(n),
                                    .g = k.c,
                                    .g_stride = d + 2,
                                    .x = k.x,
                                    .x_stride = d + PAD,
                                    .w = k.w,
                                    .n = n,
                                    .d = d,
                                    .eps = norm_eps,
                                    .add = add};
    fm_ref_rmsnorm_back(&all, &a);
    fm_ref_rmsnorm_gw(&all, g_w, &a);
    if (add) end_sum(g_x, n * d);
    end_sum(g_w, d);
    const dif_problem p = {weighted ? "rmsnorm" : "rmsnorm without weight", norm_loss, &k};
    const dif_input in[] = {{"x", k.x, d + PAD, g_x, d, n, d}, {"w", k.w, d, g_w, d, 1, d}};
    dif_check(&p, in, weighted ? 2 : 1);
}

static void rmsnorm(void **state)
{
    (void)state;
    static const size_t widths[] = {1, 2, 7, 16, 33};
    for (size_t i = 0; i < FM_COUNT(widths); i++)
        for (unsigned how = 0; how < 4; how++) check_norm(1 + i, widths[i], how & 1, how & 2);
}

/* ---- Ragged steps ---- */

enum { SEQ_MAX = 5 };

/* Sequences of n_tokens[] tokens; a state each: before the step in a matrix of rows, after it and as gradients in lists, both at
 * an offset. */
typedef struct steps {
    size_t n_seq, T, begin[SEQ_MAX + 1];
    fm_ragged ragged;
    double *first[SEQ_MAX], *last[SEQ_MAX], *c[SEQ_MAX], *g[SEQ_MAX]; /* before, after, weights of these, gradients */
    double *last_list[SEQ_MAX], *g_list[SEQ_MAX];
    fm_states before, after, gradients;
    size_t floats;
} steps;

enum { AT = 2 };

static void steps_open(steps *s, const size_t *n_tokens, size_t floats, bool stateless)
{
    const size_t stride = floats + AT + 1;
    *s = (steps){.n_seq = SEQ_MAX, .floats = floats};
    double *rows = draw(SEQ_MAX * stride, 0.0, stateless ? 0.0 : 1.0);
    for (size_t i = 0; i < SEQ_MAX; i++) {
        s->begin[i + 1] = s->begin[i] + n_tokens[i];
        s->ragged.longest = n_tokens[i] > s->ragged.longest ? n_tokens[i] : s->ragged.longest;
        s->first[i] = rows + i * stride + AT;
        s->last_list[i] = take(stride), s->last[i] = s->last_list[i] + AT;
        s->c[i] = draw(floats, 0.0, stateless ? 0.0 : 1.0);
        s->g_list[i] = take(stride), s->g[i] = s->g_list[i] + AT;
        memcpy(s->g[i], s->c[i], floats * sizeof(double));
    }
    s->T = s->ragged.n_tokens = s->begin[SEQ_MAX];
    s->ragged.n_seq = SEQ_MAX, s->ragged.begin = s->begin;
    s->after = (fm_states){.list = s->last_list, .at = AT};
    if (stateless) return;
    s->before = (fm_states){.rows = rows, .stride = stride, .at = AT};
    s->gradients = (fm_states){.list = s->g_list, .at = AT};
}

static void steps_begin(const steps *s)
{
    for (size_t i = 0; i < s->n_seq; i++) memcpy(s->last[i], s->first[i], s->floats * sizeof(double));
}

static void steps_end(const steps *s, dif_value *v)
{
    for (size_t i = 0; i < s->n_seq; i++) add_dot(v, (matrix){s->c[i], 0}, (matrix){s->last[i], 0}, 1, s->floats);
}

static void steps_check(const steps *s, const dif_problem *p)
{
    for (size_t i = 0; i < s->n_seq && s->floats > 0; i++) {
        const dif_input in = {"the state before", s->first[i], s->floats, s->g[i], s->floats, 1, s->floats};
        dif_check(p, &in, 1);
    }
}

/* ---- Convolution ---- */

typedef struct conv_case {
    fm_conv_args a;
    steps s;
    double *c; /* weights of the outputs */
} conv_case;

static dif_value conv_loss(void *ctx)
{
    conv_case *k = ctx;
    dif_value v = {0};
    steps_begin(&k->s);
    fm_ref_conv_silu(&all, &k->a);
    add_dot(&v, (matrix){k->c, k->a.d_inner}, (matrix){k->a.out, k->a.out_stride}, k->s.T, k->a.d_inner);
    steps_end(&k->s, &v);
    return v;
}

static void conv_open(conv_case *k, size_t d, size_t d_conv, bool biased, bool stateless)
{
    static const size_t n_tokens[] = {9, 0, 1, 2, 5};
    memory_used = 0;
    steps_open(&k->s, n_tokens, (d_conv - 1) * d, stateless);
    k->a = (fm_conv_args){.out = take(k->s.T * (d + 1)),
                          .out_stride = d + 1,
                          .state = k->s.after,
                          .x = draw(k->s.T * (d + PAD), 0.0, 1.0),
                          .x_stride = d + PAD,
                          .w = draw(d_conv * d, 0.0, 0.7),
                          .bias = biased ? draw(d, 0.0, 0.5) : NULL,
                          .ragged = &k->s.ragged,
                          .d_inner = d,
                          .d_conv = d_conv};
    k->c = draw(k->s.T * d, 0.0, 1.0);
}

static void check_conv(size_t d, size_t d_conv, bool biased, bool stateless)
{
    static conv_case k;
    conv_open(&k, d, d_conv, biased, stateless);
    double *g_x = take(k.s.T * (d + 2)), *g_w = begin_sum(d_conv * d), *g_bias = begin_sum(d);
    fm_ref_conv_back(&all, &(fm_conv_back_args){.g_x = g_x,
                                                .g_x_stride = d + 2,
                                                .g_w = g_w,
                                                .g_bias = biased ? g_bias : NULL,
                                                .g_state = k.s.gradients,
                                                .g = k.c,
                                                .g_stride = d,
                                                .state = k.s.before,
                                                .x = k.a.x,
                                                .x_stride = k.a.x_stride,
                                                .w = k.a.w,
                                                .bias = k.a.bias,
                                                .ragged = &k.s.ragged,
                                                .d_inner = d,
                                                .d_conv = d_conv});
    end_sum(g_w, d_conv * d);
    end_sum(g_bias, d);
    const dif_problem p = {"convolution", conv_loss, &k};
    const dif_input in[] = {{"x", (double *)(uintptr_t)k.a.x, k.a.x_stride, g_x, d + 2, k.s.T, d},
                            {"w", (double *)(uintptr_t)k.a.w, d, g_w, d, d_conv, d},
                            {"bias", (double *)(uintptr_t)k.a.bias, d, g_bias, d, 1, d}};
    dif_check(&p, in, biased ? 3 : 2);
    if (!stateless) steps_check(&k.s, &p);
}

static void convolution(void **state)
{
    (void)state;
    for (size_t d_conv = 1; d_conv <= 5; d_conv++)
        for (unsigned how = 0; how < 4; how++) check_conv(d_conv % 2 ? 3 : 67, d_conv, how & 1, how & 2);
}

/* ---- Scan ---- */

typedef struct scan_case {
    fm_scan_args a;
    steps s;
    double *c;
} scan_case;

static dif_value scan_loss(void *ctx)
{
    scan_case *k = ctx;
    dif_value v = {0};
    steps_begin(&k->s);
    fm_ref_scan(&all, &k->a);
    add_dot(&v, (matrix){k->c, k->a.d_inner}, (matrix){k->a.y, k->a.y_stride}, k->s.T, k->a.d_inner);
    steps_end(&k->s, &v);
    return v;
}

typedef struct scan_shape {
    size_t d_inner, d_state;
    size_t n_tokens[SEQ_MAX];
    bool stateless, biased, gated;
} scan_shape;

/* Half a row of dt lies above 20, where softplus is the identity, and so far above that no difference crosses over. */
static void scan_open(scan_case *k, const scan_shape *o)
{
    const size_t d = o->d_inner, N = o->d_state;
    memory_used = 0;
    steps_open(&k->s, o->n_tokens, N * d, o->stateless);
    const size_t T = k->s.T;
    double *A = draw(N * d, 0.0, 0.5), *dt = draw(T * (d + 2), -1.0, 1.0);
    for (size_t i = 0; i < N * d; i++) A[i] = -exp(A[i]);
    for (size_t i = 0; i < d / 2; i++) dt[i] += 30.0;
    k->a = (fm_scan_args){.y = take(T * (d + 1)),
                          .y_stride = d + 1,
                          .h = k->s.after,
                          .u = draw(T * (d + PAD), 0.0, 1.0),
                          .u_stride = d + PAD,
                          .dt = dt,
                          .dt_stride = d + 2,
                          .dt_bias = o->biased ? draw(d, -0.5, 0.5) : NULL,
                          .A = A,
                          .B = draw(T * (2 * N + 1), 0.0, 1.0),
                          .C = draw(T * (2 * N + 1), 0.0, 1.0),
                          .bc_stride = 2 * N + 1,
                          .skip = draw(d, 1.0, 0.3),
                          .z = o->gated ? draw(T * (d + 4), 0.0, 1.5) : NULL,
                          .z_stride = d + 4,
                          .ragged = &k->s.ragged,
                          .d_inner = d,
                          .d_state = N};
    k->c = draw(T * d, 0.0, 1.0);
}

typedef struct scan_gradients {
    double *u, *dt, *z, *bc, *A, *dt_bias, *skip;
} scan_gradients;

static scan_gradients scan_back(scan_case *k, const scan_shape *o)
{
    const size_t d = o->d_inner, N = o->d_state, T = k->s.T, blocks = (d + FM_CHANNEL_GRANULE - 1) / FM_CHANNEL_GRANULE;
    scan_gradients g = {.u = take(T * d),
                        .dt = take(T * d),
                        .z = take(T * d),
                        .bc = take(T * 2 * N),
                        .A = begin_sum(N * d),
                        .dt_bias = begin_sum(d),
                        .skip = begin_sum(d)};
    const fm_scan_args *f = &k->a;
    const fm_scan_back_args a = {.g_u = g.u,
                                 .g_dt = g.dt,
                                 .g_z = o->gated ? g.z : NULL,
                                 .g_u_stride = d,
                                 .g_dt_stride = d,
                                 .g_z_stride = d,
                                 .g_bc_parts = take(blocks * T * 2 * N),
                                 .g_A = g.A,
                                 .g_dt_bias = o->biased ? g.dt_bias : NULL,
                                 .g_skip = g.skip,
                                 .g_h = k->s.gradients,
                                 .g = k->c,
                                 .g_stride = d,
                                 .h = k->s.before,
                                 .u = f->u,
                                 .dt = f->dt,
                                 .dt_bias = f->dt_bias,
                                 .A = f->A,
                                 .B = f->B,
                                 .C = f->C,
                                 .skip = f->skip,
                                 .z = f->z,
                                 .u_stride = f->u_stride,
                                 .dt_stride = f->dt_stride,
                                 .bc_stride = f->bc_stride,
                                 .z_stride = f->z_stride,
                                 .ragged = f->ragged,
                                 .d_inner = d,
                                 .d_state = N,
                                 .scratch = take(fm_ref_scan_back_floats(T, d, N))};
    fm_ref_scan_back(&all, &a);
    fm_ref_sum_parts(&all, g.bc, 2 * N, a.g_bc_parts, blocks, T, 2 * N);
    end_sum(g.A, N * d);
    end_sum(g.dt_bias, d);
    end_sum(g.skip, d);
    return g;
}

static void check_scan(const scan_shape *o)
{
    static scan_case k;
    scan_open(&k, o);
    const scan_gradients g = scan_back(&k, o);
    const size_t d = o->d_inner, N = o->d_state, T = k.s.T;
    const fm_scan_args *a = &k.a;
    const dif_problem p = {"scan", scan_loss, &k};
    const dif_input in[] = {{"u", (double *)(uintptr_t)a->u, a->u_stride, g.u, d, T, d},
                            {"dt", (double *)(uintptr_t)a->dt, a->dt_stride, g.dt, d, T, d},
                            {"A", (double *)(uintptr_t)a->A, d, g.A, d, N, d},
                            {"B", (double *)(uintptr_t)a->B, a->bc_stride, g.bc, 2 * N, T, N},
                            {"C", (double *)(uintptr_t)a->C, a->bc_stride, g.bc + N, 2 * N, T, N},
                            {"skip", (double *)(uintptr_t)a->skip, d, g.skip, d, 1, d},
                            {"dt_bias", (double *)(uintptr_t)a->dt_bias, d, g.dt_bias, d, 1, d},
                            {"z", (double *)(uintptr_t)a->z, a->z_stride, g.z, d, T, d}};
    dif_check(&p, in, 6);
    if (o->biased) dif_check(&p, &in[6], 1);
    if (o->gated) dif_check(&p, &in[7], 1);
    if (!o->stateless) steps_check(&k.s, &p);
}

/* More than one block of channels, and sequences longer than the distance between kept states. */
static void scan(void **state)
{
    (void)state;
    static const scan_shape shapes[] = {
        {.d_inner = 1, .d_state = 1, .n_tokens = {1, 0, 0, 0, 0}, .biased = true, .gated = true},
        {.d_inner = 5, .d_state = 4, .n_tokens = {17, 0, 1, 3, 2}, .biased = true, .gated = true},
        {.d_inner = 5, .d_state = 3, .n_tokens = {4, 0, 1, 0, 2}, .gated = true},
        {.d_inner = 7, .d_state = 8, .n_tokens = {3, 1, 0, 0, 6}, .biased = true},
        {.d_inner = 6, .d_state = 16, .n_tokens = {5, 0, 2, 1, 0}, .stateless = true, .biased = true, .gated = true},
        {.d_inner = 67, .d_state = 2, .n_tokens = {3, 0, 1, 4, 0}, .biased = true, .gated = true},
        {.d_inner = 2, .d_state = 2, .n_tokens = {131, 0, 64, 1, 65}, .biased = true, .gated = true},
    };
    for (size_t i = 0; i < FM_COUNT(shapes); i++) check_scan(&shapes[i]);
}

/* ---- Cross entropy ---- */

typedef struct xent_case {
    double *x, *logits, *loss;
    int32_t target[8];
    size_t n, vocab;
    float scale, z;
} xent_case;

static fm_xent_args xent_args(const xent_case *k)
{
    memcpy(k->logits, k->x, k->n * k->vocab * sizeof(double));
    return (fm_xent_args){
        .logits = k->logits, .loss = k->loss, .target = k->target, .n = k->n, .vocab = k->vocab, .scale = k->scale, .z = k->z};
}

static dif_value xent_loss(void *ctx)
{
    const xent_case *k = ctx;
    const fm_xent_args a = xent_args(k);
    dif_value v = {0};
    fm_ref_xent(&all, &a);
    for (size_t r = 0; r < k->n; r++) {
        v.sum += (double)k->scale * k->loss[r];
        v.size += (double)k->scale * (fabs(k->loss[r]) + 10.0); /* the loss is a difference of logits */
    }
    return v;
}

/* Of the rows, every third is ignored. */
static void check_xent(size_t n, size_t vocab, float z)
{
    memory_used = 0;
    xent_case k = {.n = n, .vocab = vocab, .scale = 0.3f, .z = z};
    k.x = draw(n * vocab, 1.0, 2.0), k.logits = take(n * vocab), k.loss = take(n);
    for (size_t r = 0; r < n; r++) k.target[r] = r % 3 == 2 ? -1 : (int32_t)(r * 5 % vocab);
    const fm_xent_args a = xent_args(&k);
    fm_ref_xent(&all, &a);
    const double *g = copy(k.logits, n * vocab);
    for (size_t r = 2; r < n; r += 3) {
        assert_true(k.loss[r] == 0.0);
        for (size_t i = 0; i < vocab; i++) assert_true(g[r * vocab + i] == 0.0);
    }
    const dif_problem p = {z > 0.0f ? "cross entropy with z" : "cross entropy", xent_loss, &k};
    const dif_input in = {"logits", k.x, vocab, g, vocab, n, vocab};
    dif_check(&p, &in, 1);
}

static void cross_entropy(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 17, 50};
    for (size_t i = 0; i < FM_COUNT(sizes); i++) {
        check_xent(1 + i, sizes[i], 0.0f);
        check_xent(5, sizes[i], 0.01f);
    }
}

/* ---- Dropout ---- */

typedef struct dropout_case {
    fm_dropout_args a;
    double *c, *start;
} dropout_case;

static dif_value dropout_loss(void *ctx)
{
    const dropout_case *k = ctx;
    dif_value v = {0};
    memcpy(k->a.out, k->start, k->a.n * k->a.out_stride * sizeof(double));
    fm_ref_dropout(&all, &k->a);
    add_dot(&v, (matrix){k->c, k->a.d}, (matrix){k->a.out, k->a.out_stride}, k->a.n, k->a.d);
    return v;
}

/* The gradient is the same dropout of the gradient. */
static void check_dropout(size_t n, size_t d, bool add)
{
    memory_used = 0;
    dropout_case k = {.a = {.out = take(n * (d + 1)),
                            .out_stride = d + 1,
                            .x = draw(n * (d + PAD), 0.0, 1.0),
                            .x_stride = d + PAD,
                            .n = n,
                            .d = d,
                            .p = 0.4f,
                            .seed = 3,
                            .stream = 9,
                            .first_row = 5,
                            .add = add}};
    k.c = draw(n * d, 0.0, 1.0), k.start = draw(n * (d + 1), 0.0, 1.0);
    double *g = take(n * d);
    fm_dropout_args back = k.a;
    back.out = g, back.out_stride = d, back.x = k.c, back.x_stride = d, back.add = false;
    fm_ref_dropout(&all, &back);
    const dif_problem p = {"dropout", dropout_loss, &k};
    const dif_input in = {"x", (double *)(uintptr_t)k.a.x, k.a.x_stride, g, d, n, d};
    dif_check(&p, &in, 1);
}

static void dropout(void **state)
{
    (void)state;
    for (size_t d = 1; d < 12; d++) check_dropout(3, d, d % 2);
}

/* ---- Decays ---- */

typedef struct decay_case {
    double w[37], A[37], c[37];
} decay_case;

static dif_value decay_loss(void *ctx)
{
    decay_case *k = ctx;
    dif_value v = {0};
    fm_ref_decays(&all, k->A, k->w, FM_COUNT(k->w));
    add_dot(&v, (matrix){k->c, 0}, (matrix){k->A, 0}, 1, FM_COUNT(k->c));
    return v;
}

static void decays(void **state)
{
    (void)state;
    enum { N = 37 };
    static decay_case k;
    double g[N];
    memory_used = 0;
    memcpy(k.w, draw(N, 0.0, 1.0), sizeof k.w);
    memcpy(k.c, draw(N, 0.0, 1.0), sizeof k.c);
    memcpy(g, k.c, sizeof g);
    fm_ref_decays(&all, k.A, k.w, N);
    fm_ref_decays_back(&all, g, k.A, N);
    const dif_problem p = {"decays", decay_loss, &k};
    dif_check(&p, &(dif_input){"A_log", k.w, N, g, N, 1, N}, 1);
}

/* ---- The judge itself ---- */

/* One part in a million more is too much. */
static void a_wrong_gradient_is_seen(void **state)
{
    (void)state;
    static scan_case k;
    const scan_shape o = {.d_inner = 5, .d_state = 4, .n_tokens = {17, 0, 1, 3, 2}, .biased = true, .gated = true};
    scan_open(&k, &o);
    const scan_gradients g = scan_back(&k, &o);
    const dif_problem p = {"scan", scan_loss, &k};
    const dif_input in = {"A", (double *)(uintptr_t)k.a.A, 5, g.A, 5, 4, 5};
    assert_true(dif_error(&p, &in) <= 1.0);
    for (size_t i = 0; i < 20; i++) g.A[i] *= 1.0 + 1e-6;
    assert_true(dif_error(&p, &in) > 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm),
        cmocka_unit_test(convolution),
        cmocka_unit_test(scan),
        cmocka_unit_test(cross_entropy),
        cmocka_unit_test(dropout),
        cmocka_unit_test(decays),
        cmocka_unit_test(a_wrong_gradient_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
