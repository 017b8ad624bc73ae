/* check_scan.c - the selective scan against the reference, and the same bits however a sequence is cut.
 *
 * The bound is carried along with the recurrence in double.  softplus is within 4 epsilon, so the exponent delta A within
 * 6 epsilon |delta A| with its roundings, and the decay within (6 |delta A| + 4) epsilon, relative; its denormals add a step of
 * 2^-149; a device makes it 0 below 2^-126.  delta B u is within 6 epsilon, and the sum rounds once more.  What stood in the
 * state before is decayed with it.
 * The output adds (d_state + 2) epsilon of the sum of magnitudes, and the gate 10 epsilon, 1e-36 where its exponential leaves
 * the range of float.  Two tables are compared, so everything counts once for each: the factor 2 is in `SIDES`. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/dither.h"
#include "tests/kernelcheck/kernelcheck.h"

enum { SEQ_MAX = 67, SIDES = 2 }; /* more sequences than a device has groups that walk them */

typedef struct scan_case {
    const fm_kernels *k;
    fm_scan_args a;
    fm_ragged ragged;
    size_t begin[SEQ_MAX + 1];
    float *h[SEQ_MAX];
    uint32_t seen[SEQ_MAX]; /* with states in bf16 */
    size_t skew;            /* floats that states lie off a place of 16 bytes */
} scan_case;

static void call(void *ctx, const fm_run *run)
{
    scan_case *c = ctx;
    c->ragged = kc_ragged(c->begin, c->ragged.n_seq);
    c->ragged.seen = kc_list(KC_LIST_SEEN, c->seen, sizeof c->seen);
    c->a.ragged = &c->ragged;
    c->a.h = (fm_states){.list = kc_list(KC_LIST_STATES, c->h, sizeof c->h)};
    c->k->scan(run, &c->a);
}

static size_t state_floats(const scan_case *c)
{
    return c->a.d_state * c->a.d_inner;
}
static size_t y_floats(const scan_case *c)
{
    return c->begin[c->ragged.n_seq] * c->a.y_stride;
}

static scan_case fresh(kc *t, const scan_case *from, const fm_kernels *k)
{
    scan_case c = *from;
    c.k = k;
    c.a.y = kc_floats(t, y_floats(from));
    for (size_t s = 0; s < c.ragged.n_seq; s++) c.h[s] = kc_copy(t, from->h[s] - c.skew, state_floats(from) + c.skew) + c.skew;
    return c;
}

static void same_case(kc *t, const scan_case *a, const scan_case *b, const char *where)
{
    kc_same(t, a->a.y, b->a.y, y_floats(a) * sizeof(float), where);
    for (size_t s = 0; s < a->ragged.n_seq; s++) kc_same(t, a->h[s], b->h[s], state_floats(a) * sizeof(float), where);
}

/* Tokens first to last - 1 of sequence s, on c's memory. */
static scan_case slice(const scan_case *from, size_t s, size_t first, size_t last)
{
    scan_case c = *from;
    const size_t row = from->begin[s] + first;
    c.ragged.n_seq = 1;
    c.begin[0] = 0;
    c.begin[1] = last - first;
    c.h[0] = from->h[s];
    c.seen[0] = from->seen[s] + (uint32_t)first;
    c.a.y += row * c.a.y_stride;
    c.a.u += row * c.a.u_stride;
    c.a.dt += row * c.a.dt_stride;
    c.a.B += row * c.a.bc_stride;
    c.a.C += row * c.a.bc_stride;
    if (c.a.z) c.a.z += row * c.a.z_stride;
    return c;
}

static void check_cuts(kc *t, const scan_case *input, const scan_case *whole)
{
    const size_t n = input->begin[1] - input->begin[0];
    for (size_t cut = 0; cut <= n; cut += n > 24 ? 7 : 1) { /* of long ones not everywhere: their memory is kept */
        scan_case c = fresh(t, input, input->k);
        for (size_t s = 0; s < c.ragged.n_seq; s++) {
            const size_t n_tokens = c.begin[s + 1] - c.begin[s], at = cut < n_tokens ? cut : n_tokens;
            scan_case head = slice(&c, s, 0, at), tail = slice(&c, s, at, n_tokens);
            kc_parts(call, &head, 1);
            kc_parts(call, &tail, 1);
        }
        same_case(t, &c, whole, "cut or alone, a sequence has other bits");
    }
}

/* y in the place of u, then in the place of z. */
static void check_aliases(kc *t, const scan_case *input, const scan_case *whole)
{
    scan_case c = fresh(t, input, input->k);
    c.a.y = kc_copy(t, input->a.u, y_floats(input));
    c.a.u = c.a.y;
    kc_parts(call, &c, 1);
    same_case(t, &c, whole, "y in the place of u changes the bits");
    if (!input->a.z) return;
    c = fresh(t, input, input->k);
    c.a.y = kc_copy(t, input->a.z, y_floats(input));
    c.a.z = c.a.y;
    kc_parts(call, &c, 1);
    same_case(t, &c, whole, "y in the place of z changes the bits");
}

/* A held step writes the outputs of a plain one and no state; one without y moves the states and needs no C, skip and z. */
static void check_hold(kc *t, const scan_case *input, const scan_case *whole)
{
    scan_case c = fresh(t, input, input->k);
    c.a.hold = true;
    kc_parts(call, &c, 2);
    kc_same(t, c.a.y, whole->a.y, y_floats(&c) * sizeof(float), "held, the outputs have other bits");
    for (size_t s = 0; s < c.ragged.n_seq; s++)
        kc_same(t, c.h[s], input->h[s], state_floats(&c) * sizeof(float), "held, a state changed");
    float *y = c.a.y;
    c.a.hold = false;
    c.a.y = NULL;
    c.a.C = c.a.skip = c.a.z = NULL;
    kc_parts(call, &c, 2);
    c.a.y = y;
    same_case(t, &c, whole, "without y, the states have other bits");
}

/* The truth in double and the bound of one channel, token by token. */
typedef struct channel {
    double *h, *error; /* (d_state) each */
    double y, y_error;
} channel;

static void channel_step(channel *s, const fm_scan_args *a, size_t row, size_t c)
{
    const double eps = FLT_EPSILON, step = kc_on_device() ? 0x1p-126 : 0x1p-148, u = (double)a->u[row * a->u_stride + c];
    const float v = a->dt[row * a->dt_stride + c] + (a->dt_bias ? a->dt_bias[c] : 0.0f);
    const double delta = v > 20.0f ? (double)v : log1p(exp((double)v));
    double y = 0.0, magnitude = 0.0, error = 0.0;
    for (size_t n = 0; n < a->d_state; n++) {
        const double t = delta * (double)a->A[n * a->d_inner + c], decay = exp(t), decay_error = (6.0 * fabs(t) + 4.0) * eps;
        const double in = delta * u * (double)a->B[row * a->bc_stride + n], C = (double)a->C[row * a->bc_stride + n];
        s->error[n] = decay * (1.0 + decay_error) * s->error[n] + fabs(s->h[n]) * (decay * decay_error + step) +
                      6.0 * eps * fabs(in) + 0x1p-147;
        s->h[n] = decay * s->h[n] + in;
        s->error[n] += eps * fabs(s->h[n]);
        y += C * s->h[n];
        magnitude += fabs(C * s->h[n]);
        error += fabs(C) * s->error[n];
    }
    y += (double)a->skip[c] * u;
    magnitude += fabs((double)a->skip[c] * u);
    error += (double)(a->d_state + 2) * eps * magnitude;
    const double z = a->z ? (double)a->z[row * a->z_stride + c] : 0.0, gate = a->z ? z / (1.0 + exp(-z)) : 1.0;
    s->y = y * gate;
    s->y_error = error * fabs(gate) + 10.0 * eps * fabs(s->y) + 1e-36 * (fabs(y) + 1.0);
}

/* A device's decay is 0 where the reference's is a denormal, which makes NaN of an infinite state: lost is lost. */
static bool both_lost(double got, double want, double bound)
{
    return kc_on_device() && isinf(bound) && isnan(got) && isinf(want);
}

/* got against ref, within SIDES times the bound, unless the bound is not finite (then the reference decides alone). */
static void compare(kc *t, const scan_case *in, const scan_case *got, const scan_case *ref)
{
    double *work = calloc(2 * in->a.d_state, sizeof *work);
    if (!work) abort();
    for (size_t s = 0; s < in->ragged.n_seq; s++) {
        for (size_t c = 0; c < in->a.d_inner; c++) {
            channel state = {.h = work, .error = work + in->a.d_state};
            for (size_t n = 0; n < in->a.d_state; n++) {
                state.h[n] = (double)in->h[s][n * in->a.d_inner + c];
                state.error[n] = 0.0;
            }
            for (size_t row = in->begin[s]; row < in->begin[s + 1]; row++) {
                const size_t at = row * in->a.y_stride + c;
                channel_step(&state, &in->a, row, c);
                if (both_lost((double)got->a.y[at], (double)ref->a.y[at], state.y_error)) continue;
                kc_near(t, (double)got->a.y[at], (double)ref->a.y[at], SIDES * state.y_error, "y");
            }
            for (size_t n = 0; n < in->a.d_state; n++) {
                const size_t at = n * in->a.d_inner + c;
                if (both_lost((double)got->h[s][at], (double)ref->h[s][at], state.error[n])) continue;
                kc_near(t, (double)got->h[s][at], (double)ref->h[s][at], SIDES * state.error[n], "h");
            }
        }
    }
    free(work);
}

typedef struct shape {
    size_t d_inner, d_state;
    kc_kind kind;
    bool gated, biased;
    size_t extra; /* tokens of the first sequence beyond 7 */
    bool whole;   /* rows lie at multiples of 16 bytes */
} shape;

static scan_case make(kc *t, const shape *p, size_t n_tokens)
{
    scan_case c = {.k = &t->k};
    const size_t d = p->d_inner, n = p->d_state;
    c.a = (fm_scan_args){.d_inner = d, .d_state = n, .y_stride = d, .u_stride = d, .dt_stride = d + 3, .z_stride = d};
    c.a.bc_stride = 2 * n + 1;
    if (p->whole) c.a.dt_stride = d + 4, c.a.bc_stride = 2 * n + 4;
    c.a.u = kc_input(t, n_tokens * d, p->kind);
    c.a.dt = kc_input(t, (n_tokens - 1) * c.a.dt_stride + d, p->kind);
    c.a.dt_bias = p->biased ? kc_input(t, d, KC_NORMAL) : NULL;
    float *A = kc_input(t, n * d, KC_NORMAL);
    for (size_t i = 0; i < n * d; i++) A[i] = -expf(2.0f * A[i]);
    c.a.A = A;
    const float *bc = kc_input(t, (n_tokens - 1) * c.a.bc_stride + 2 * n, KC_NORMAL);
    c.a.B = bc;
    c.a.C = bc + n;
    c.a.skip = kc_input(t, d, KC_NORMAL);
    c.a.z = p->gated ? kc_input(t, n_tokens * d, p->kind) : NULL;
    return c;
}

/* Gives what the kernel made of it. */
static scan_case check_input(kc *t, const scan_case *in)
{
    scan_case whole = fresh(t, in, &t->k), ref = fresh(t, in, &t->ref);
    kc_parts(call, &whole, 1);
    kc_parts(call, &ref, 1);
    compare(t, in, &whole, &ref);
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        scan_case c = fresh(t, in, &t->k);
        kc_parts(call, &c, kc_part_counts[i]);
        same_case(t, &c, &whole, "parts change the bits");
    }
    check_cuts(t, in, &whole);
    check_aliases(t, in, &whole);
    check_hold(t, in, &whole);
    return whole;
}

static void check_case(kc *t, const shape *p)
{
    scan_case in = make(t, p, 12 + p->extra);
    in.ragged.n_seq = 4;
    const size_t begin[] = {0, 7 + p->extra, 7 + p->extra, 8 + p->extra, 12 + p->extra};
    memcpy(in.begin, begin, sizeof begin);
    for (size_t s = 0; s < in.ragged.n_seq; s++) in.h[s] = kc_input(t, state_floats(&in), p->kind);
    const scan_case whole = check_input(t, &in);
    kc_same(t, whole.h[1], in.h[1], state_floats(&in) * sizeof(float), "a sequence without tokens changed");
    kc_release(t);
}

/* One token of each of n_seq sequences. */
static void take_one_each(scan_case *c, size_t n_seq)
{
    c->ragged.n_seq = n_seq;
    for (size_t s = 0; s <= n_seq; s++) c->begin[s] = s;
}

static void check_many_sequences(kc *t, const shape *p, size_t skew)
{
    scan_case in = make(t, p, SEQ_MAX);
    take_one_each(&in, SEQ_MAX);
    in.skew = skew;
    for (size_t s = 0; s < SEQ_MAX; s++) in.h[s] = kc_input(t, state_floats(&in) + skew, p->kind) + skew;
    check_input(t, &in);
    kc_release(t);
}

/* Rows of bf16: the numbers of the same step in f32, rounded, also where y lies on u; the states, which are f32, to the bit.
 * n_each: one token of each of so many sequences; 0: four of uneven length. */
static void check_half(kc *t, size_t d_inner, size_t d_state, size_t n_each)
{
    static const size_t uneven[] = {0, 40, 40, 41, 60};
    const size_t d = d_inner, T = n_each ? n_each : uneven[4], bytes = T * d * sizeof(uint16_t);
    scan_case in = make(t, &(shape){d, d_state, KC_NORMAL, true, true, 0, true}, T);
    float *rows[3];
    for (size_t k = 0; k < FM_COUNT(rows); k++) {
        rows[k] = kc_input(t, T * d, KC_NORMAL);
        for (size_t i = 0; i < T * d; i++) rows[k][i] = kc_rounded(rows[k][i]);
    }
    in.ragged.n_seq = 4;
    memcpy(in.begin, uneven, sizeof uneven);
    if (n_each) take_one_each(&in, n_each);
    in.a.u = rows[0], in.a.dt = rows[1], in.a.z = rows[2];
    in.a.dt_stride = d;
    for (size_t s = 0; s < in.ragged.n_seq; s++) in.h[s] = kc_input(t, state_floats(&in), KC_NORMAL);
    scan_case whole = fresh(t, &in, &t->k), half = fresh(t, &in, &t->k);
    half.a.half = true;
    half.a.y = kc_half(t, rows[0], T * d);
    half.a.u = half.a.y;
    half.a.dt = kc_half(t, rows[1], T * d);
    half.a.z = kc_half(t, rows[2], T * d);
    kc_parts(call, &whole, 1);
    kc_parts(call, &half, 1);
    kc_same(t, half.a.y, kc_half(t, whole.a.y, T * d), bytes, "bf16: other bits than f32 rounded");
    for (size_t s = 0; s < in.ragged.n_seq; s++)
        kc_same(t, half.h[s], whole.h[s], state_floats(&in) * sizeof(float), "bf16: another state");
    kc_release(t);
}

/* ---- States in bf16 ---- */

static scan_case fresh_half_h(kc *t, const scan_case *from)
{
    scan_case c = fresh(t, from, from->k);
    c.a.half_h = true;
    for (size_t s = 0; s < c.ragged.n_seq; s++) c.h[s] = kc_half(t, from->h[s], state_floats(from));
    return c;
}

static void same_half_h(kc *t, const scan_case *got, const scan_case *want, const char *where)
{
    kc_same(t, got->a.y, want->a.y, y_floats(got) * sizeof(float), where);
    for (size_t s = 0; s < got->ragged.n_seq; s++)
        kc_same(t, got->h[s], want->h[s], state_floats(got) * sizeof(uint16_t), where);
}

/* What they are to be: states in f32 go token by token, and round between. */
static scan_case token_by_token(kc *t, const scan_case *input)
{
    scan_case c = fresh(t, input, input->k);
    const size_t d = c.a.d_inner;
    for (size_t s = 0; s < c.ragged.n_seq; s++) {
        for (size_t i = 0; i < c.begin[s + 1] - c.begin[s]; i++) {
            scan_case one = slice(&c, s, i, i + 1);
            kc_parts(call, &one, 1);
            for (size_t k = 0; k < state_floats(&c); k++) {
                const uint32_t state = (uint32_t)(k / d);
                const uint32_t word = fm_dither_word((uint32_t)(k % d), state & ~1u, one.seen[0]);
                c.h[s][k] = fm_dither(c.h[s][k], word, state);
            }
        }
        c.h[s] = kc_half(t, c.h[s], state_floats(&c));
    }
    return c;
}

static void check_half_h(kc *t, const shape *p, bool one_each)
{
    static const size_t begins[][SEQ_MAX] = {{0, 22, 22, 23, 30}, {0, 1, 2, 3, 4}};
    static const uint32_t seen[SEQ_MAX] = {0, 5, 1000003, UINT32_MAX - 3};
    scan_case in = make(t, p, begins[one_each][4]);
    in.ragged.n_seq = 4;
    memcpy(in.begin, begins[one_each], sizeof begins[0]);
    memcpy(in.seen, seen, sizeof seen);
    for (size_t s = 0; s < in.ragged.n_seq; s++) {
        in.h[s] = kc_input(t, state_floats(&in), p->kind);
        for (size_t i = 0; i < state_floats(&in); i++) in.h[s][i] = kc_rounded(in.h[s][i]);
    }
    const scan_case want = token_by_token(t, &in);
    scan_case whole = fresh_half_h(t, &in), cut = fresh_half_h(t, &in), held = fresh_half_h(t, &in);
    kc_parts(call, &whole, 1);
    same_half_h(t, &whole, &want, "states in bf16: not those of f32, rounded after every token");
    for (size_t s = 0; s < cut.ragged.n_seq; s++) {
        const size_t n = cut.begin[s + 1] - cut.begin[s], at = n < 9 ? n / 2 : 9;
        scan_case head = slice(&cut, s, 0, at), tail = slice(&cut, s, at, n);
        kc_parts(call, &head, 1);
        kc_parts(call, &tail, 1);
    }
    same_half_h(t, &cut, &want, "states in bf16: cut or alone, a sequence has other bits");
    held.a.hold = true;
    kc_parts(call, &held, 1);
    kc_same(t, held.a.y, want.a.y, y_floats(&held) * sizeof(float), "states in bf16: held, the outputs have other bits");
    held.a.hold = false;
    float *y = held.a.y;
    held.a.y = NULL;
    kc_parts(call, &held, 1);
    held.a.y = y;
    same_half_h(t, &held, &want, "states in bf16: held and then moved without y, they have other bits");
    kc_release(t);
}

/* A state that adds a tenth of a step of bf16 each time, and one that loses as much, stay within three steps of where they would
 * be; chance would stray by seven, and to nearest they would not move. */
static void check_drift(kc *t)
{
    enum { N = 64, TOKENS = 500 };
    const float step = 0x1p-7f / 10.0f;
    for (uint32_t c = 0; c < N; c++) {
        float up = 1.0f, down = 2.0f - 0x1p-7f;
        for (uint32_t i = 0; i < TOKENS; i++) {
            const uint32_t word = fm_dither_word(c, 4, i);
            up = fm_dither(up + step, word, 4);
            down = fm_dither(down - step, word, 5);
        }
        kc_near(t, (double)up, 1.0 + TOKENS * (double)step, 0x3p-7, "a state that grows slowly");
        kc_near(t, (double)down, 2.0 - 0x1p-7 - TOKENS * (double)step, 0x3p-7, "a state that shrinks slowly");
    }
}

static void check_half_states(kc *t)
{
    if (!kc_on_device() && t->k.scan != t->ref.scan) return;
    check_drift(t);
    for (int one_each = 0; one_each < 2; one_each++) {
        for (size_t n = 1; n <= 20; n += n < 8 ? 7 : 4)
            check_half_h(t, &(shape){37, n, KC_NORMAL, true, true, 0, false}, one_each);
        for (size_t n = 8; n <= 16; n += 8) check_half_h(t, &(shape){128, n, KC_NORMAL, true, true, 0, true}, one_each);
        check_half_h(t, &(shape){64, 70, KC_NORMAL, true, false, 0, true}, one_each);
        check_half_h(t, &(shape){64, 16, KC_SPECIAL, true, true, 0, true}, one_each);
        check_half_h(t, &(shape){64, 16, KC_TINY, false, true, 0, true}, one_each);
    }
}

/* Exponents out of range, exactly: a decay of 2^-inf forgets, one of 1 keeps to the bit. */
static void check_limits(kc *t)
{
    static const float dt[] = {-INFINITY, -200.0f, -104.0f, -88.0f, 19.9f, 20.1f, 3e4f, 1e30f};
    enum { N = FM_COUNT(dt) };
    scan_case in = {.k = &t->k, .ragged.n_seq = 1, .begin = {0, 1}};
    float *zero = kc_floats(t, N), *A = kc_floats(t, N), *one = kc_floats(t, 1);
    for (size_t i = 0; i < N; i++) zero[i] = 0.0f, A[i] = -2.0f;
    one[0] = 1.0f;
    in.a = (fm_scan_args){
        .d_inner = N, .d_state = 1, .u = zero, .dt = kc_copy(t, dt, N), .A = A, .B = one, .C = one, .skip = zero};
    in.a.y_stride = N;
    in.h[0] = kc_input(t, N, KC_NORMAL);
    in.a.y = kc_floats(t, N);
    scan_case c = fresh(t, &in, &t->k);
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < N; i++) {
        if (dt[i] < -20.0f) kc_near(t, (double)c.h[0][i], (double)in.h[0][i], 0.0, "a decay of 1 must keep the state");
        if (dt[i] > 1e4f) kc_near(t, (double)c.h[0][i], 0.0, 0.0, "a decay of 0 must forget the state");
    }
    kc_release(t);
}

/* The decay and softplus alone, against double: with h = 1 and u = 0 the new state is the decay; with h = 0 and u = B = 1 it is
 * softplus(dt).  delta A is at most 2, so its roundings make 3 epsilon of the decay. */
static void check_functions(kc *t)
{
    enum { N = 4096 };
    float *A = kc_floats(t, N), *dt = kc_floats(t, N), *u = kc_floats(t, N), *skip = kc_floats(t, N), *one = kc_floats(t, 1);
    one[0] = 1.0f;
    for (size_t i = 0; i < N; i++) {
        A[i] = -2.0f / 32.0f * (float)i / N;
        dt[i] = 32.0f;
        u[i] = skip[i] = 0.0f;
    }
    scan_case c = {.k = &t->k, .ragged.n_seq = 1, .begin = {0, 1}};
    c.a = (fm_scan_args){.d_inner = N, .d_state = 1, .u = u, .dt = dt, .A = A, .B = one, .C = one, .skip = skip};
    c.a.y_stride = N;
    c.a.y = kc_floats(t, N);
    c.h[0] = kc_floats(t, N);
    for (size_t i = 0; i < N; i++) c.h[0][i] = 1.0f;
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < N; i++) {
        const double want = exp(32.0 * (double)A[i]), roundings = 1.5 * 32.0 * fabs((double)A[i]);
        kc_near(t, (double)c.h[0][i], want, (2.1 + roundings) * FLT_EPSILON * want, "decay");
        dt[i] = -100.0f + 125.0f * (float)i / N;
        u[i] = 1.0f;
        c.h[0][i] = 0.0f;
    }
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < N; i++) {
        const double want = log1p(exp((double)dt[i]));
        kc_near(t, (double)c.h[0][i], want, (kc_on_device() ? 3.0 : 2.2) * FLT_EPSILON * want + 0x1p-149, "softplus");
    }
    kc_release(t);
}

static void check(kc *t)
{
    check_functions(t);
    for (size_t i = 0; i < kc_n_sizes; i++)
        check_case(t, &(shape){kc_sizes[i] < 1000 ? kc_sizes[i] : 200, 16, KC_NORMAL, i % 3 != 0, i % 2 != 0, 0, false});
    for (size_t n = 1; n <= 40; n += n < 20 ? 3 : 10) check_case(t, &(shape){41, n, KC_NORMAL, true, true, 0, false});
    check_case(t, &(shape){21, 150, KC_NORMAL, true, true, 0, false});
    /* Longer and wider than any block of a kernel. */
    check_case(t, &(shape){101, 16, KC_NORMAL, true, true, 12, false});
    check_case(t, &(shape){37, 70, KC_NORMAL, true, false, 28, false});
    check_case(t, &(shape){2121, 3, KC_NORMAL, false, true, 0, false});
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) {
        check_case(t, &(shape){101, 16, (kc_kind)kind, true, true, 0, false});
        check_case(t, &(shape){101, 8, (kc_kind)kind, false, false, 0, false});
    }
    /* Whole vectors, and more tiles than a kernel has in hand. */
    for (size_t extra = 0; extra < 80; extra += 13) {
        check_case(t, &(shape){64, 16, KC_NORMAL, true, true, extra, true});
        check_case(t, &(shape){128, 8, KC_NORMAL, true, false, extra, true});
    }
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_case(t, &(shape){128, 16, (kc_kind)kind, true, true, 30, true});
    for (size_t n = 8; n <= 24 && t->k.half; n += 8) {
        check_half(t, 128, n, 0);
        check_half(t, 384, n, 4);
        check_half(t, 256, n, SEQ_MAX);
    }
    for (size_t n = 8; n <= 16; n += 8)
        for (size_t skew = 0; skew < 2; skew++) check_many_sequences(t, &(shape){512, n, KC_NORMAL, true, true, 0, true}, skew);
    check_many_sequences(t, &(shape){256, 16, KC_SPECIAL, true, true, 0, true}, 0);
    check_many_sequences(t, &(shape){256, 16, KC_TINY, false, false, 0, false}, 1);
    check_half_states(t);
    check_limits(t);
}

/* As in a model, A = -1 .. -d_state and steps of some hundredths, so that no decay is a denormal (which would cost an assist).
 * In turn on `n_layers` layers of states and A: with many, as a step over a model finds them, in memory. */
typedef struct scan_layers {
    scan_case c;
    float **h, **A;
    size_t n_layers, next;
} scan_layers;

static void call_layer(void *ctx, const fm_run *run)
{
    scan_layers *l = ctx;
    l->c.h[0] = l->h[l->next];
    l->c.a.A = l->A[l->next];
    call(&l->c, run);
    l->next = (l->next + 1) % l->n_layers;
}

static void bench_case(kc *t, size_t n_tokens, size_t n_layers, size_t d_state)
{
    enum { LAYERS_MAX = 64 };
    float *h[LAYERS_MAX], *A[LAYERS_MAX];
    char what[64];
    scan_layers l = {.h = h, .A = A, .n_layers = n_layers};
    l.c = make(t, &(shape){8192, d_state, KC_NORMAL, true, true, 0, false}, n_tokens);
    l.c.a.dt_stride = l.c.a.u_stride;
    l.c.a.z_stride = 2 * l.c.a.u_stride;
    l.c.a.z = kc_input(t, n_tokens * l.c.a.z_stride, KC_NORMAL);
    float *dt = kc_input(t, n_tokens * l.c.a.dt_stride, KC_NORMAL);
    for (size_t i = 0; i < n_tokens * l.c.a.dt_stride; i++) dt[i] -= 4.0f;
    l.c.a.dt = dt;
    l.c.ragged.n_seq = 1;
    l.c.begin[1] = n_tokens;
    l.c.a.y = kc_floats(t, y_floats(&l.c));
    for (size_t i = 0; i < n_layers; i++) {
        h[i] = i == 0 ? kc_input(t, state_floats(&l.c), KC_NORMAL) : kc_copy(t, h[0], state_floats(&l.c));
        A[i] = kc_floats(t, state_floats(&l.c));
        for (size_t j = 0; j < state_floats(&l.c); j++) A[i][j] = -1.0f - (float)(j / l.c.a.d_inner);
    }
    snprintf(what, sizeof what, "%zu x 8192 x %zu, %zu layers", n_tokens, d_state, n_layers);
    kc_time(t, what, (double)(d_state * 8192 * n_tokens), "Gstate/s", call_layer, &l);
    kc_release(t);
}

static void bench(kc *t)
{
    static const size_t n_tokens[] = {1, 2, 4, 16, 128, 512};
    if (strcmp(t->k.name, "ref") == 0) return;
    bench_case(t, 1, 64, 16);
    for (size_t i = 0; i < FM_COUNT(n_tokens); i++) bench_case(t, n_tokens[i], 1, 16);
    bench_case(t, 128, 1, 8);
    bench_case(t, 128, 1, 64);
}

const kc_op kc_op_scan = {.name = "scan", .check = check, .bench = bench};
