/* check_backward.c - gradients of the norm, the convolution and the scan against the reference, within bounds that errors.h
 * carries along the chain of each number; the same bits for any split; sequences without tokens and rows beyond a matrix left
 * alone. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/kernelcheck/errors.h"
#include "tests/kernelcheck/outputs.h"

/* Two to five parts. */
static void check_parts(kc *t, void (*call)(void *ctx, const fm_run *run), void *ctx, outputs *o, const outputs *begin,
                        const outputs *whole)
{
    for (unsigned n_parts = 2; n_parts <= 5; n_parts++) {
        *o = outputs_copy(t, begin);
        kc_parts(call, ctx, n_parts);
        outputs_same(t, o, whole, "parts change the bits");
    }
}

/* ---- RMSNorm ---- */

enum { NORM_G_X, NORM_RHO, NORM_G_W };

typedef struct norm_case {
    const fm_kernels *k;
    fm_rmsnorm_back_args a;
    outputs o;
} norm_case;

static void norm_call(void *ctx, const fm_run *run)
{
    norm_case *c = ctx;
    c->a.g_x = c->o.p[NORM_G_X], c->a.rho = c->o.p[NORM_RHO];
    c->k->rmsnorm_back(run, &c->a);
}

static void norm_call_gw(void *ctx, const fm_run *run)
{
    norm_case *c = ctx;
    c->a.rho = c->o.p[NORM_RHO];
    c->k->rmsnorm_gw(run, c->o.p[NORM_G_W], &c->a);
}

/* Both, with a barrier between. */
static outputs norm_run(kc *t, norm_case *c, const fm_kernels *k, const outputs *begin, unsigned n_parts)
{
    c->k = k;
    c->o = outputs_copy(t, begin);
    kc_parts(norm_call, c, n_parts);
    kc_parts(norm_call_gw, c, n_parts);
    return c->o;
}

/* With y = x rho: rho is within an ulp, since squares are summed in double; g_x = rho (w g - y mean(w g y)). */
static ef norm_rho(const norm_case *c, size_t r)
{
    double sum = 0.0;
    for (size_t i = 0; i < c->a.d; i++) sum += pow((double)c->a.x[r * c->a.x_stride + i], 2);
    const double rho = 1.0 / sqrt(sum / (double)c->a.d + (double)c->a.eps);
    return (ef){rho, 2.0 * ROUNDING * rho};
}

static ef norm_wg(const norm_case *c, size_t r, size_t i)
{
    const ef g = ef_of(c->a.g[r * c->a.g_stride + i]);
    return c->a.w ? ef_mul(ef_of(c->a.w[i]), g) : g;
}

static void norm_compare_row(kc *t, const norm_case *c, size_t r, const outputs *begin, const outputs *got, const outputs *ref)
{
    const ef rho = norm_rho(c, r);
    ef_sum dot = {0};
    for (size_t i = 0; i < c->a.d; i++)
        ef_sum_add(&dot, ef_mul(norm_wg(c, r, i), ef_mul(ef_of(c->a.x[r * c->a.x_stride + i]), rho)));
    ef mean = ef_sum_of(&dot);
    mean = ef_round(mean.v / (double)c->a.d, mean.e / (double)c->a.d);
    ef_check(t, got->p[NORM_RHO][r], ref->p[NORM_RHO][r], rho, "rho");
    for (size_t i = 0; i < c->a.d; i++) {
        const size_t at = r * c->a.g_x_stride + i;
        const ef y = ef_mul(ef_of(c->a.x[r * c->a.x_stride + i]), rho), pull = ef_mul(y, mean);
        ef g_x = ef_mul(rho, ef_add(norm_wg(c, r, i), (ef){-pull.v, pull.e}));
        if (c->a.add) g_x = ef_add(ef_of(begin->p[NORM_G_X][at]), g_x);
        ef_check(t, got->p[NORM_G_X][at], ref->p[NORM_G_X][at], g_x, "g_x");
    }
}

static void norm_compare_weights(kc *t, const norm_case *c, const outputs *begin, const outputs *got, const outputs *ref)
{
    for (size_t i = 0; i < c->a.d; i++) {
        ef_sum sum = {0};
        ef_sum_add(&sum, ef_of(begin->p[NORM_G_W][i]));
        for (size_t r = 0; r < c->a.n; r++)
            ef_sum_add(&sum, ef_mul(ef_of(c->a.g[r * c->a.g_stride + i]),
                                    ef_mul(ef_of(c->a.x[r * c->a.x_stride + i]), norm_rho(c, r))));
        ef_check(t, got->p[NORM_G_W][i], ref->p[NORM_G_W][i], ef_sum_of(&sum), "g_w");
    }
}

static void check_norm_case(kc *t, size_t n, size_t d, kc_kind kind, unsigned how)
{
    norm_case c = {
        .a = {.n = n, .d = d, .g_x_stride = d + 2, .g_stride = d + 1, .x_stride = d + 3, .eps = 1e-5f, .add = how & 1}};
    outputs begin = {.count = 0};
    const float *residual = kc_input(t, n * c.a.g_x_stride, KC_NORMAL);
    c.a.g = kc_input(t, (n - 1) * c.a.g_stride + d, KC_NORMAL);
    c.a.x = kc_input(t, (n - 1) * c.a.x_stride + d, kind);
    c.a.w = how & 2 ? kc_input(t, d, KC_NORMAL) : NULL;
    outputs_add(t, &begin, c.a.add ? residual : NULL, (n - 1) * c.a.g_x_stride + d);
    outputs_add(t, &begin, NULL, n);
    outputs_add(t, &begin, kc_input(t, d, KC_NORMAL), d);
    const outputs ref = norm_run(t, &c, &t->ref, &begin, 1), whole = norm_run(t, &c, &t->k, &begin, 1);
    for (size_t r = 0; r < n; r++) norm_compare_row(t, &c, r, &begin, &whole, &ref);
    norm_compare_weights(t, &c, &begin, &whole, &ref);
    for (unsigned n_parts = 2; n_parts <= 5; n_parts++) {
        const outputs parts = norm_run(t, &c, &t->k, &begin, n_parts);
        outputs_same(t, &parts, &whole, "parts change the bits");
    }
    kc_release(t);
}

static void check_norm(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++) check_norm_case(t, i % 3 ? 3 : 1, kc_sizes[i], KC_NORMAL, (unsigned)i % 4);
    for (size_t n = 1; n <= 20; n++) check_norm_case(t, n, 67, KC_NORMAL, (unsigned)n % 4);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_norm_case(t, 5, 101, (kc_kind)kind, 3);
}

/* ---- Ragged steps ---- */

enum { SEQ_MAX = 4, AT = 3 };

typedef struct layout {
    size_t n_seq, begin[SEQ_MAX + 1];
} layout;

static const layout layouts[] = {
    {4, {0, 7, 7, 8, 13}}, {1, {0, 1}}, {1, {0, 17}}, {3, {0, 0, 2, 2}}, {2, {0, 70, 135}},
};

static fm_ragged ragged_of(const layout *l)
{
    fm_ragged r = {.n_seq = l->n_seq, .begin = l->begin, .n_tokens = l->begin[l->n_seq]};
    for (size_t s = 0; s < l->n_seq; s++)
        if (l->begin[s + 1] - l->begin[s] > r.longest) r.longest = l->begin[s + 1] - l->begin[s];
    return r;
}

/* States in rows of a matrix, at an offset. */
static fm_states states_of(float *rows, size_t floats)
{
    return (fm_states){.rows = rows, .stride = floats + AT, .at = AT};
}

static float ragged_state(const fm_states *s, size_t seq, size_t i)
{
    return fm_states_exist(s) ? fm_state_of(s, seq)[i] : 0.0f;
}

/* ---- Convolution ---- */

enum { CONV_G_X, CONV_G_W, CONV_G_BIAS, CONV_G_STATE };

typedef struct conv_case {
    const fm_kernels *k;
    fm_conv_back_args a;
    fm_ragged ragged;
    outputs o;
    bool stateful;
} conv_case;

static void conv_call(void *ctx, const fm_run *run)
{
    conv_case *c = ctx;
    c->a.ragged = &c->ragged;
    c->a.g_x = c->o.p[CONV_G_X], c->a.g_w = c->o.p[CONV_G_W];
    c->a.g_bias = c->a.bias ? c->o.p[CONV_G_BIAS] : NULL;
    if (c->stateful) c->a.g_state = states_of(c->o.p[CONV_G_STATE], (c->a.d_conv - 1) * c->a.d_inner);
    c->k->conv_back(run, &c->a);
}

/* Input e of the window before the step followed by the step. */
static ef conv_input(const conv_case *c, size_t seq, size_t e, size_t ch)
{
    const size_t past = c->a.d_conv - 1;
    return ef_of(e < past ? ragged_state(&c->a.state, seq, e * c->a.d_inner + ch)
                          : c->a.x[(c->ragged.begin[seq] + e - past) * c->a.x_stride + ch]);
}

/* Gradient of the sum before silu. */
static ef conv_g_sum(const conv_case *c, size_t seq, size_t i, size_t ch)
{
    ef_sum sum = {0};
    if (c->a.bias) ef_sum_add(&sum, ef_of(c->a.bias[ch]));
    for (size_t k = 0; k < c->a.d_conv; k++)
        ef_sum_add(&sum, ef_mul(ef_of(c->a.w[k * c->a.d_inner + ch]), conv_input(c, seq, i + k, ch)));
    return ef_mul(ef_of(c->a.g[(c->ragged.begin[seq] + i) * c->a.g_stride + ch]), ef_silu_slope(ef_sum_of(&sum)));
}

static ef conv_g_input(const conv_case *c, const outputs *begin, size_t seq, size_t e, size_t ch)
{
    const size_t n = c->ragged.begin[seq + 1] - c->ragged.begin[seq], d = c->a.d_inner;
    const fm_states g_state = states_of(c->stateful ? begin->p[CONV_G_STATE] : NULL, (c->a.d_conv - 1) * d);
    ef_sum sum = {0};
    if (e >= n) ef_sum_add(&sum, ef_of(ragged_state(&g_state, seq, (e - n) * d + ch)));
    for (size_t k = 0; k < c->a.d_conv && k <= e; k++)
        if (e - k < n) ef_sum_add(&sum, ef_mul(ef_of(c->a.w[k * d + ch]), conv_g_sum(c, seq, e - k, ch)));
    return ef_sum_of(&sum);
}

static void conv_compare_weights(kc *t, const conv_case *c, size_t ch, const outputs *begin, const outputs *got,
                                 const outputs *ref)
{
    for (size_t k = 0; k <= c->a.d_conv; k++) { /* the last one is the bias */
        const bool bias = k == c->a.d_conv;
        const size_t out = bias ? CONV_G_BIAS : CONV_G_W, at = bias ? ch : k * c->a.d_inner + ch;
        ef_sum sum = {0};
        if (bias && !c->a.bias) continue;
        ef_sum_add(&sum, ef_of(begin->p[out][at]));
        for (size_t s = 0; s < c->ragged.n_seq; s++)
            for (size_t i = 0; i < c->ragged.begin[s + 1] - c->ragged.begin[s]; i++) {
                const ef g = conv_g_sum(c, s, i, ch);
                ef_sum_add(&sum, bias ? g : ef_mul(g, conv_input(c, s, i + k, ch)));
            }
        ef_check(t, got->p[out][at], ref->p[out][at], ef_sum_of(&sum), bias ? "g_bias" : "g_w");
    }
}

static void conv_compare_inputs(kc *t, const conv_case *c, size_t ch, const outputs *begin, const outputs *got,
                                const outputs *ref)
{
    const size_t past = c->a.d_conv - 1, stride = past * c->a.d_inner + AT;
    for (size_t s = 0; s < c->ragged.n_seq; s++) {
        const size_t n = c->ragged.begin[s + 1] - c->ragged.begin[s];
        for (size_t e = c->stateful ? 0 : past; e < past + n; e++) {
            const bool before = e < past;
            const size_t out = before ? CONV_G_STATE : CONV_G_X,
                         at = before ? s * stride + AT + e * c->a.d_inner + ch
                                     : (c->ragged.begin[s] + e - past) * c->a.g_x_stride + ch;
            ef_check(t, got->p[out][at], ref->p[out][at], conv_g_input(c, begin, s, e, ch), before ? "g_state" : "g_x");
        }
    }
}

static void check_conv_case(kc *t, size_t d, size_t d_conv, const layout *l, kc_kind kind, unsigned how)
{
    conv_case c = {.k = &t->ref, .ragged = ragged_of(l), .stateful = how & 1};
    const size_t T = c.ragged.n_tokens, floats = (d_conv - 1) * d, states = l->n_seq * (floats + AT);
    outputs begin = {.count = 0};
    c.a = (fm_conv_back_args){.g_x_stride = d + 2, .g_stride = d + 1, .x_stride = 2 * d, .d_inner = d, .d_conv = d_conv};
    c.a.g = kc_input(t, T * c.a.g_stride, KC_NORMAL);
    c.a.x = kc_input(t, T * c.a.x_stride, kind);
    c.a.w = kc_input(t, d_conv * d, KC_NORMAL);
    c.a.bias = how & 2 ? kc_input(t, d, KC_NORMAL) : NULL;
    if (c.stateful) c.a.state = states_of(kc_input(t, states, kind), floats);
    outputs_add(t, &begin, NULL, T * c.a.g_x_stride);
    outputs_add(t, &begin, kc_input(t, d_conv * d, KC_NORMAL), d_conv * d);
    outputs_add(t, &begin, kc_input(t, d, KC_NORMAL), d);
    outputs_add(t, &begin, kc_input(t, states, KC_NORMAL), states);
    const outputs ref = c.o = outputs_copy(t, &begin);
    kc_parts(conv_call, &c, 1);
    const outputs whole = c.o = outputs_copy(t, &begin);
    c.k = &t->k;
    kc_parts(conv_call, &c, 1);
    for (size_t ch = 0; ch < d; ch++) {
        conv_compare_weights(t, &c, ch, &begin, &whole, &ref);
        conv_compare_inputs(t, &c, ch, &begin, &whole, &ref);
    }
    check_parts(t, conv_call, &c, &c.o, &begin, &whole);
    kc_release(t);
}

static void check_conv(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++)
        check_conv_case(t, kc_sizes[i] < 1000 ? kc_sizes[i] : 200, 4, &layouts[i % 4], KC_NORMAL, (unsigned)i / 4 % 4);
    for (size_t d_conv = 1; d_conv <= 12; d_conv += d_conv < 6 ? 1 : 6)
        for (size_t i = 0; i < FM_COUNT(layouts); i++) check_conv_case(t, 75, d_conv, &layouts[i], KC_NORMAL, 3);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_conv_case(t, 101, 4, &layouts[0], (kc_kind)kind, 3);
}

/* ---- Scan ---- */

enum { SCAN_G_U, SCAN_G_DT, SCAN_G_Z, SCAN_G_BC, SCAN_G_A, SCAN_G_SKIP, SCAN_G_DT_BIAS, SCAN_G_H };

typedef struct scan_case {
    const fm_kernels *k;
    fm_scan_back_args a;
    fm_ragged ragged;
    outputs o;
    bool stateful;
} scan_case;

static void scan_call(void *ctx, const fm_run *run)
{
    scan_case *c = ctx;
    float *const *p = c->o.p;
    c->a.ragged = &c->ragged;
    c->a.g_u = p[SCAN_G_U], c->a.g_dt = p[SCAN_G_DT], c->a.g_z = c->a.z ? p[SCAN_G_Z] : NULL;
    c->a.g_bc_parts = p[SCAN_G_BC], c->a.g_A = p[SCAN_G_A], c->a.g_skip = p[SCAN_G_SKIP];
    c->a.g_dt_bias = c->a.dt_bias ? p[SCAN_G_DT_BIAS] : NULL;
    if (c->stateful) c->a.g_h = states_of(p[SCAN_G_H], c->a.d_state * c->a.d_inner);
    c->k->scan_back(run, &c->a);
}

/* What one channel's gradients are, sequence after sequence. */
typedef struct truth {
    const scan_case *c;
    const outputs *begin;
    size_t ch;
    ef *h, *decay, *delta, *carry; /* (longest + 1, d_state), (longest, d_state), (longest), (d_state) */
    ef_sum *g_A, *g_bc;            /* (d_state), (T, 2 d_state): of the channels of a block */
    ef_sum g_skip, g_dt_bias;
} truth;

static void *take(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (!p) abort();
    return p;
}

static truth truth_open(const scan_case *c, const outputs *begin)
{
    const size_t N = c->a.d_state, T = c->ragged.n_tokens, longest = c->ragged.longest;
    return (truth){.c = c,
                   .begin = begin,
                   .h = take((longest + 1) * N, sizeof(ef)),
                   .decay = take(longest * N, sizeof(ef)),
                   .delta = take(longest, sizeof(ef)),
                   .carry = take(N, sizeof(ef)),
                   .g_A = take(N, sizeof(ef_sum)),
                   .g_bc = take(T * 2 * N, sizeof(ef_sum))};
}

static void truth_close(truth *k)
{
    void *const owned[] = {k->h, k->decay, k->delta, k->carry, k->g_A, k->g_bc};
    for (size_t i = 0; i < FM_COUNT(owned); i++) free(owned[i]);
}

static ef truth_dt(const truth *k, size_t row)
{
    const fm_scan_back_args *a = &k->c->a;
    const ef dt = ef_of(a->dt[row * a->dt_stride + k->ch]);
    return a->dt_bias ? ef_add(dt, ef_of(a->dt_bias[k->ch])) : dt;
}

static void truth_forward(const truth *k, size_t seq)
{
    const fm_scan_back_args *a = &k->c->a;
    const size_t N = a->d_state, first = k->c->ragged.begin[seq], n_tokens = k->c->ragged.begin[seq + 1] - first;
    for (size_t n = 0; n < N; n++) k->h[n] = ef_of(ragged_state(&a->h, seq, n * a->d_inner + k->ch));
    for (size_t i = 0; i < n_tokens; i++) {
        const ef delta = k->delta[i] = ef_softplus(truth_dt(k, first + i));
        const ef du = ef_mul(delta, ef_of(a->u[(first + i) * a->u_stride + k->ch]));
        for (size_t n = 0; n < N; n++) {
            k->decay[i * N + n] = ef_exp(ef_mul(delta, ef_of(a->A[n * a->d_inner + k->ch])));
            k->h[(i + 1) * N + n] =
                ef_add(ef_mul(k->decay[i * N + n], k->h[i * N + n]), ef_mul(du, ef_of(a->B[(first + i) * a->bc_stride + n])));
        }
    }
}

/* What comes through the gate; *g_z is the gate's own. */
static ef truth_gate(const truth *k, size_t row, const ef *after, ef *g_z)
{
    const fm_scan_back_args *a = &k->c->a;
    const ef g = ef_of(a->g[row * a->g_stride + k->ch]);
    ef_sum y = {0};
    if (!a->z) return g;
    ef_sum_add(&y, ef_mul(ef_of(a->skip[k->ch]), ef_of(a->u[row * a->u_stride + k->ch])));
    for (size_t n = 0; n < a->d_state; n++) ef_sum_add(&y, ef_mul(ef_of(a->C[row * a->bc_stride + n]), after[n]));
    const ef z = ef_of(a->z[row * a->z_stride + k->ch]);
    *g_z = ef_mul(ef_mul(g, ef_sum_of(&y)), ef_silu_slope(z));
    return ef_mul(g, ef_silu(z));
}

typedef struct token_gradients {
    ef g_u, g_dt, g_z;
} token_gradients;

/* Token i of a sequence, at `row`. */
static token_gradients truth_token(truth *k, size_t row, size_t i)
{
    const fm_scan_back_args *a = &k->c->a;
    const size_t N = a->d_state;
    const ef *before = k->h + i * N, *after = before + N, u = ef_of(a->u[row * a->u_stride + k->ch]), delta = k->delta[i];
    token_gradients out = {0};
    const ef g_y = truth_gate(k, row, after, &out.g_z);
    ef_sum by_b = {0}, g_delta = {0};
    for (size_t n = 0; n < N; n++) {
        const ef B = ef_of(a->B[row * a->bc_stride + n]), C = ef_of(a->C[row * a->bc_stride + n]),
                 lambda = ef_add(ef_mul(g_y, C), k->carry[n]), next = ef_mul(k->decay[i * N + n], lambda),
                 past = ef_mul(next, before[n]);
        ef_sum_add(&k->g_bc[row * 2 * N + n], ef_mul(ef_mul(lambda, delta), u));
        ef_sum_add(&k->g_bc[row * 2 * N + N + n], ef_mul(g_y, after[n]));
        ef_sum_add(&by_b, ef_mul(lambda, B));
        ef_sum_add(&g_delta, ef_mul(past, ef_of(a->A[n * a->d_inner + k->ch])));
        ef_sum_add(&k->g_A[n], ef_mul(past, delta));
        k->carry[n] = next;
    }
    ef_sum_add(&g_delta, ef_mul(ef_sum_of(&by_b), u));
    out.g_dt = ef_mul(ef_sum_of(&g_delta), ef_sigmoid(truth_dt(k, row)));
    out.g_u = ef_add(ef_mul(g_y, ef_of(a->skip[k->ch])), ef_mul(delta, ef_sum_of(&by_b)));
    ef_sum_add(&k->g_skip, ef_mul(g_y, u));
    ef_sum_add(&k->g_dt_bias, out.g_dt);
    return out;
}

static void scan_compare_sequence(kc *t, truth *k, size_t seq, const outputs *got, const outputs *ref)
{
    const fm_scan_back_args *a = &k->c->a;
    const size_t N = a->d_state, first = k->c->ragged.begin[seq], n_tokens = k->c->ragged.begin[seq + 1] - first,
                 state = seq * (N * a->d_inner + AT) + AT + k->ch;
    truth_forward(k, seq);
    for (size_t n = 0; n < N; n++) k->carry[n] = ef_of(k->c->stateful ? k->begin->p[SCAN_G_H][state + n * a->d_inner] : 0.0f);
    for (size_t i = n_tokens; i-- > 0;) {
        const token_gradients g = truth_token(k, first + i, i);
        const size_t at_u = (first + i) * a->g_u_stride + k->ch, at_dt = (first + i) * a->g_dt_stride + k->ch,
                     at_z = (first + i) * a->g_z_stride + k->ch;
        ef_check(t, got->p[SCAN_G_U][at_u], ref->p[SCAN_G_U][at_u], g.g_u, "g_u");
        ef_check(t, got->p[SCAN_G_DT][at_dt], ref->p[SCAN_G_DT][at_dt], g.g_dt, "g_dt");
        if (a->z) ef_check(t, got->p[SCAN_G_Z][at_z], ref->p[SCAN_G_Z][at_z], g.g_z, "g_z");
    }
    for (size_t n = 0; n < N && k->c->stateful; n++)
        ef_check(t, got->p[SCAN_G_H][state + n * a->d_inner], ref->p[SCAN_G_H][state + n * a->d_inner], k->carry[n], "g_h");
}

static void scan_compare_channel(kc *t, truth *k, const outputs *got, const outputs *ref)
{
    const size_t N = k->c->a.d_state, d = k->c->a.d_inner, ch = k->ch;
    k->g_skip = k->g_dt_bias = (ef_sum){0};
    ef_sum_add(&k->g_skip, ef_of(k->begin->p[SCAN_G_SKIP][ch]));
    ef_sum_add(&k->g_dt_bias, ef_of(k->begin->p[SCAN_G_DT_BIAS][ch]));
    for (size_t n = 0; n < N; n++) {
        k->g_A[n] = (ef_sum){0};
        ef_sum_add(&k->g_A[n], ef_of(k->begin->p[SCAN_G_A][n * d + ch]));
    }
    for (size_t s = 0; s < k->c->ragged.n_seq; s++) scan_compare_sequence(t, k, s, got, ref);
    for (size_t n = 0; n < N; n++)
        ef_check(t, got->p[SCAN_G_A][n * d + ch], ref->p[SCAN_G_A][n * d + ch], ef_sum_of(&k->g_A[n]), "g_A");
    ef_check(t, got->p[SCAN_G_SKIP][ch], ref->p[SCAN_G_SKIP][ch], ef_sum_of(&k->g_skip), "g_skip");
    if (k->c->a.dt_bias)
        ef_check(t, got->p[SCAN_G_DT_BIAS][ch], ref->p[SCAN_G_DT_BIAS][ch], ef_sum_of(&k->g_dt_bias), "g_dt_bias");
}

static void scan_compare(kc *t, const scan_case *c, const outputs *begin, const outputs *got, const outputs *ref)
{
    const size_t width = c->ragged.n_tokens * 2 * c->a.d_state;
    truth k = truth_open(c, begin);
    for (size_t first = 0; first < c->a.d_inner; first += FM_CHANNEL_GRANULE) {
        const size_t at = first / FM_CHANNEL_GRANULE * width;
        memset(k.g_bc, 0, width * sizeof *k.g_bc);
        for (k.ch = first; k.ch < c->a.d_inner && k.ch < first + FM_CHANNEL_GRANULE; k.ch++)
            scan_compare_channel(t, &k, got, ref);
        for (size_t i = 0; i < width; i++)
            ef_check(t, got->p[SCAN_G_BC][at + i], ref->p[SCAN_G_BC][at + i], ef_sum_of(&k.g_bc[i]), "g_B and g_C");
    }
    truth_close(&k);
}

typedef struct scan_shape {
    size_t d_inner, d_state;
    const layout *layout;
    kc_kind kind;
    unsigned how; /* 1: states, 2: dt_bias, 4: gate */
} scan_shape;

static void scan_inputs(kc *t, scan_case *c, const scan_shape *o)
{
    const size_t d = o->d_inner, N = o->d_state, T = c->ragged.n_tokens;
    fm_scan_back_args *a = &c->a;
    *a = (fm_scan_back_args){.g_u_stride = d + 1, .g_dt_stride = d + 2, .g_z_stride = 2 * d, .g_stride = d + 3};
    a->u_stride = d + 4, a->dt_stride = d + 5, a->bc_stride = 2 * N + 3, a->z_stride = 2 * d, a->d_inner = d, a->d_state = N;
    float *A = kc_input(t, N * d, KC_NORMAL);
    for (size_t i = 0; i < N * d; i++) A[i] = -expf(A[i]);
    a->A = A;
    a->g = kc_input(t, T * a->g_stride, KC_NORMAL);
    a->u = kc_input(t, T * a->u_stride, o->kind);
    a->dt = kc_input(t, T * a->dt_stride, o->kind);
    a->dt_bias = o->how & 2 ? kc_input(t, d, KC_NORMAL) : NULL;
    a->B = kc_input(t, T * a->bc_stride, KC_NORMAL);
    a->C = kc_input(t, T * a->bc_stride, KC_NORMAL);
    a->skip = kc_input(t, d, KC_NORMAL);
    a->z = o->how & 4 ? kc_input(t, T * a->z_stride, o->kind) : NULL;
    if (c->stateful) a->h = states_of(kc_input(t, c->ragged.n_seq * (N * d + AT), o->kind), N * d);
}

static outputs scan_outputs(kc *t, const scan_case *c)
{
    const size_t d = c->a.d_inner, N = c->a.d_state, T = c->ragged.n_tokens,
                 blocks = (d + FM_CHANNEL_GRANULE - 1) / FM_CHANNEL_GRANULE, states = c->ragged.n_seq * (N * d + AT);
    outputs o = {.count = 0};
    outputs_add(t, &o, NULL, T * c->a.g_u_stride);
    outputs_add(t, &o, NULL, T * c->a.g_dt_stride);
    outputs_add(t, &o, NULL, T * c->a.g_z_stride);
    outputs_add(t, &o, NULL, blocks * T * 2 * N);
    outputs_add(t, &o, kc_input(t, N * d, KC_NORMAL), N * d);
    outputs_add(t, &o, kc_input(t, d, KC_NORMAL), d);
    outputs_add(t, &o, kc_input(t, d, KC_NORMAL), d);
    outputs_add(t, &o, kc_input(t, states, KC_NORMAL), states);
    return o;
}

static void check_scan_case(kc *t, const scan_shape *o)
{
    scan_case c = {.k = &t->ref, .ragged = ragged_of(o->layout), .stateful = o->how & 1};
    scan_inputs(t, &c, o);
    const outputs begin = scan_outputs(t, &c), ref = c.o = outputs_copy(t, &begin);
    c.a.scratch = kc_floats(t, t->ref.scan_back_floats(c.ragged.n_tokens, o->d_inner, o->d_state));
    kc_parts(scan_call, &c, 1);
    const outputs whole = c.o = outputs_copy(t, &begin);
    c.k = &t->k;
    c.a.scratch = kc_floats(t, t->k.scan_back_floats(c.ragged.n_tokens, o->d_inner, o->d_state));
    kc_parts(scan_call, &c, 1);
    scan_compare(t, &c, &begin, &whole, &ref);
    check_parts(t, scan_call, &c, &c.o, &begin, &whole);
    kc_release(t);
}

static void check_scan(kc *t)
{
    static const size_t d_states[] = {16, 8, 4, 1, 5};
    for (size_t i = 0; i < kc_n_sizes; i++)
        check_scan_case(t, &(scan_shape){kc_sizes[i] < 300 ? kc_sizes[i] : 140, d_states[i % FM_COUNT(d_states)],
                                         &layouts[i % 4], KC_NORMAL, (unsigned)i % 8});
    for (unsigned how = 0; how < 8; how++) check_scan_case(t, &(scan_shape){35, 16, &layouts[4], KC_NORMAL, how});
    check_scan_case(t, &(scan_shape){67, 40, &layouts[0], KC_NORMAL, 7});
    for (int kind = 0; kind < KC_KIND_COUNT; kind++)
        for (unsigned how = 6; how < 8; how++) check_scan_case(t, &(scan_shape){101, 16, &layouts[0], (kc_kind)kind, how});
}

const kc_op kc_op_norm_back = {.name = "norm_back", .check = check_norm};
const kc_op kc_op_conv_back = {.name = "conv_back", .check = check_conv};
const kc_op kc_op_scan_back = {.name = "scan_back", .check = check_scan};
