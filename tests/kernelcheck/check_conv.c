/* check_conv.c - convolution with carried windows against the reference, and the same bits however a sequence is cut.
 *
 * With S = |bias| + sum |w x|, either table's sum is within (d_conv + 1) / 2 epsilon S of the truth; silu has slope at most 1.1,
 * and is itself within 4 epsilon in each table, besides where its exponential leaves the range of float: |v| 2^-127 < 1e-36. */
#include <stdio.h>

#include "tests/kernelcheck/kernelcheck.h"

enum { SEQ_MAX = 5 };

typedef struct conv_case {
    const fm_kernels *k;
    fm_conv_args a;
    fm_ragged ragged;
    size_t begin[SEQ_MAX + 1];
    float *state[SEQ_MAX];
} conv_case;

static void call(void *ctx, const fm_run *run)
{
    conv_case *c = ctx;
    c->ragged = kc_ragged(c->begin, c->ragged.n_seq);
    c->a.ragged = &c->ragged;
    c->a.state = (fm_states){.list = kc_list(KC_LIST_STATES, c->state, sizeof c->state)};
    c->k->conv_silu(run, &c->a);
}

static size_t state_floats(const conv_case *c)
{
    return (c->a.d_conv - 1) * c->a.d_inner;
}
static size_t out_floats(const conv_case *c)
{
    return c->begin[c->ragged.n_seq] * c->a.out_stride;
}

/* The same case with its own output and its own copy of the states. */
static conv_case fresh(kc *t, const conv_case *from, const fm_kernels *k)
{
    conv_case c = *from;
    c.k = k;
    c.a.out = kc_floats(t, out_floats(from));
    for (size_t s = 0; s < c.ragged.n_seq; s++) c.state[s] = kc_copy(t, from->state[s], state_floats(from));
    return c;
}

static void same_case(kc *t, const conv_case *a, const conv_case *b, const char *where)
{
    kc_same(t, a->a.out, b->a.out, out_floats(a) * sizeof(float), where);
    for (size_t s = 0; s < a->ragged.n_seq; s++) kc_same(t, a->state[s], b->state[s], state_floats(a) * sizeof(float), where);
}

/* Sequence s of `from`, its tokens from to last - 1 only, on c's memory. */
static conv_case slice(const conv_case *from, size_t s, size_t first, size_t last)
{
    conv_case c = *from;
    const size_t row = from->begin[s] + first;
    c.ragged.n_seq = 1;
    c.begin[0] = 0;
    c.begin[1] = last - first;
    c.state[0] = from->state[s];
    c.a.x += row * c.a.x_stride;
    c.a.out += row * c.a.out_stride;
    return c;
}

/* Each sequence alone and cut after every token. */
static void check_cuts(kc *t, const conv_case *input, const conv_case *whole)
{
    const size_t n = input->begin[1] - input->begin[0];
    for (size_t cut = 0; cut <= n; cut++) {
        conv_case c = fresh(t, input, input->k);
        for (size_t s = 0; s < c.ragged.n_seq; s++) {
            const size_t n_tokens = c.begin[s + 1] - c.begin[s], at = cut < n_tokens ? cut : n_tokens;
            conv_case head = slice(&c, s, 0, at), tail = slice(&c, s, at, n_tokens);
            kc_parts(call, &head, 1);
            kc_parts(call, &tail, 1);
        }
        same_case(t, &c, whole, "cut or alone, a sequence has other bits");
    }
}

/* A held step writes the outputs of a plain one and no state. */
static void check_hold(kc *t, const conv_case *input, const conv_case *whole)
{
    conv_case c = fresh(t, input, input->k);
    c.a.hold = true;
    kc_parts(call, &c, 2);
    kc_same(t, c.a.out, whole->a.out, out_floats(&c) * sizeof(float), "held, the outputs have other bits");
    for (size_t s = 0; s < c.ragged.n_seq; s++)
        kc_same(t, c.state[s], input->state[s], state_floats(&c) * sizeof(float), "held, a state changed");
    c.a.hold = false;
    kc_parts(call, &c, 2);
    same_case(t, &c, whole, "after a held step, a plain one has other bits");
}

static double window_magnitude(const conv_case *c, size_t s, size_t i, size_t channel)
{
    double sum = c->a.bias ? fabs((double)c->a.bias[channel]) : 0.0;
    for (size_t k = 0; k < c->a.d_conv; k++) {
        const size_t past = c->a.d_conv - 1;
        const float *row =
            i + k < past ? c->state[s] + (i + k) * c->a.d_inner : c->a.x + (c->begin[s] + i + k - past) * c->a.x_stride;
        sum += fabs((double)c->a.w[k * c->a.d_inner + channel] * (double)row[channel]);
    }
    return sum;
}

static void compare(kc *t, const conv_case *input, const conv_case *got, const conv_case *ref)
{
    for (size_t s = 0; s < input->ragged.n_seq; s++) {
        for (size_t i = 0; i < input->begin[s + 1] - input->begin[s]; i++) {
            for (size_t ch = 0; ch < input->a.d_inner; ch++) {
                const size_t at = (input->begin[s] + i) * input->a.out_stride + ch;
                const double want = (double)ref->a.out[at], S = window_magnitude(input, s, i, ch);
                const double relative = 1.1 * (double)(input->a.d_conv + 1) * S + 8.0 * fabs(want);
                kc_near(t, (double)got->a.out[at], want, FLT_EPSILON * relative + 1e-36, "value");
            }
        }
        kc_same(t, got->state[s], ref->state[s], state_floats(input) * sizeof(float), "state after the step");
    }
}

static void check_case(kc *t, size_t d_inner, size_t d_conv, kc_kind kind, bool biased)
{
    conv_case in = {.k = &t->k, .ragged.n_seq = 4, .begin = {0, 9, 9, 10, 13}};
    in.a = (fm_conv_args){.d_inner = d_inner, .d_conv = d_conv, .x_stride = 2 * d_inner, .out_stride = d_inner};
    in.a.x = kc_input(t, 12 * in.a.x_stride + d_inner, kind);
    in.a.w = kc_input(t, d_conv * d_inner, KC_NORMAL);
    in.a.bias = biased ? kc_input(t, d_inner, KC_NORMAL) : NULL;
    for (size_t s = 0; s < in.ragged.n_seq; s++) in.state[s] = kc_input(t, state_floats(&in), kind);
    conv_case whole = fresh(t, &in, &t->k), ref = fresh(t, &in, &t->ref);
    kc_parts(call, &whole, 1);
    kc_parts(call, &ref, 1);
    compare(t, &in, &whole, &ref);
    kc_same(t, whole.state[1], in.state[1], state_floats(&in) * sizeof(float), "a sequence without tokens changed");
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        conv_case c = fresh(t, &in, &t->k);
        kc_parts(call, &c, kc_part_counts[i]);
        same_case(t, &c, &whole, "parts change the bits");
    }
    check_cuts(t, &in, &whole);
    check_hold(t, &in, &whole);
    kc_release(t);
}

/* Rows of bf16: the numbers of the same step in f32, rounded; the windows, which are f32, to the bit. */
static void check_half(kc *t, size_t d_inner, size_t d_conv, bool one_each)
{
    static const size_t begins[][SEQ_MAX] = {{0, 9, 9, 40, 43}, {0, 1, 2, 3, 4}};
    const size_t d = d_inner;
    conv_case in = {.k = &t->k, .ragged.n_seq = 4};
    memcpy(in.begin, begins[one_each], sizeof begins[0]);
    const size_t T = in.begin[4];
    in.a = (fm_conv_args){.d_inner = d, .d_conv = d_conv, .x_stride = 2 * d, .out_stride = d};
    float *x = kc_input(t, T * 2 * d, KC_NORMAL);
    for (size_t i = 0; i < T * 2 * d; i++) x[i] = kc_rounded(x[i]);
    in.a.x = x;
    in.a.w = kc_input(t, d_conv * d, KC_NORMAL);
    in.a.bias = kc_input(t, d, KC_NORMAL);
    for (size_t s = 0; s < in.ragged.n_seq; s++) in.state[s] = kc_input(t, state_floats(&in), KC_NORMAL);
    conv_case whole = fresh(t, &in, &t->k), half = fresh(t, &in, &t->k);
    half.a.half = true;
    half.a.x = kc_half(t, x, T * 2 * d);
    half.a.out = kc_bytes(t, T * d * sizeof(uint16_t));
    kc_parts(call, &whole, 1);
    kc_parts(call, &half, 1);
    kc_same(t, half.a.out, kc_half(t, whole.a.out, T * d), T * d * sizeof(uint16_t), "bf16: other bits than f32 rounded");
    for (size_t s = 0; s < in.ragged.n_seq; s++)
        kc_same(t, half.state[s], whole.state[s], state_floats(&in) * sizeof(float), "bf16: another state");
    kc_release(t);
}

/* A window of one and weights of 1 leave silu alone: against double, from where its exponential overflows upwards. */
static void check_silu(kc *t)
{
    enum { N = 8192 };
    float *x = kc_floats(t, N), *w = kc_floats(t, N);
    for (size_t i = 0; i < N; i++) {
        x[i] = -87.0f + 120.0f * (float)i / N;
        w[i] = 1.0f;
    }
    conv_case c = {.k = &t->k, .ragged.n_seq = 1, .begin = {0, 1}};
    c.a = (fm_conv_args){.out = kc_floats(t, N), .out_stride = N, .x = x, .x_stride = N, .w = w, .d_inner = N, .d_conv = 1};
    c.state[0] = kc_floats(t, 0);
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < N; i++) {
        const double want = (double)x[i] / (1.0 + exp(-(double)x[i]));
        const double least = kc_on_device() ? 1e-36 : 0.0; /* where its reciprocal would be a denormal */
        kc_near(t, (double)c.a.out[i], want, (kc_on_device() ? 3.0 : 2.5) * FLT_EPSILON * fabs(want) + least, "silu");
    }
    kc_release(t);
}

static void check(kc *t)
{
    check_silu(t);
    for (size_t i = 0; i < kc_n_sizes; i++) check_case(t, kc_sizes[i], 4, KC_NORMAL, i % 2);
    for (size_t d_conv = 1; d_conv <= 12; d_conv += d_conv < 6 ? 1 : 6) check_case(t, 75, d_conv, KC_NORMAL, true);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_case(t, 101, 4, (kc_kind)kind, true);
    for (size_t d = 128; d <= 640 && t->k.half; d += 512)
        for (size_t d_conv = 3; d_conv <= 4; d_conv++) {
            check_half(t, d, d_conv, false);
            check_half(t, d, d_conv, true);
        }
}

static void bench_case(kc *t, size_t T)
{
    const size_t d = 8192;
    char what[32];
    conv_case c = {.k = &t->k, .ragged.n_seq = 1, .begin = {0, T}};
    c.a = (fm_conv_args){.d_inner = d, .d_conv = 4, .x_stride = 2 * d, .out_stride = d};
    c.a.x = kc_input(t, T * c.a.x_stride, KC_NORMAL);
    c.a.out = kc_floats(t, T * d);
    c.a.w = kc_input(t, 4 * d, KC_NORMAL);
    c.a.bias = kc_input(t, d, KC_NORMAL);
    c.state[0] = kc_input(t, 3 * d, KC_NORMAL);
    snprintf(what, sizeof what, "%zu x 8192", T);
    kc_time(t, what, 2.0 * sizeof(float) * (double)(T * d), "GB/s", call, &c);
    kc_release(t);
}

static void bench(kc *t)
{
    static const size_t n_tokens[] = {1, 2, 16, 128, 512};
    for (size_t i = 0; i < FM_COUNT(n_tokens); i++) bench_case(t, n_tokens[i]);
}

const kc_op kc_op_conv = {.name = "conv", .check = check, .bench = bench};
