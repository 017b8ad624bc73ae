/* check_mix.c - a layer's middle at once, or all of it behind the convolution, and its begin, against the same device's entries
 * one by one: the same bits. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/kernelcheck/kernelcheck.h"

enum { D_CONV = 4, D_STATE = 16, SPARE = 7 }; /* floats in front of a sequence's states */

typedef struct shape {
    fm_dtype type; /* of x_proj and dt_proj */
    fm_xform out;
    size_t inner, rank, n;
    bool norms, hold;
} shape;

typedef struct layer {
    shape s;
    fm_tensor x_proj, dt_proj;
    float *taps, *bias, *dt_bias, *A, *skip, *xz;
    const size_t *begin;
    size_t state; /* floats of a sequence */
} layer;

/* What a step leaves. */
typedef struct result {
    float *states;
    void *packed;
    size_t packed_bytes;
} result;

static void wait(void)
{
    const char *why = NULL;
    if (fm_stream_wait(kc_device(), &why)) return;
    fprintf(stderr, "kernelcheck: %s\n", why);
    exit(2);
}

static void *room(size_t bytes)
{
    void *p = fm_stream_alloc(kc_device(), bytes);
    if (!p) abort();
    fm_stream_zero(kc_device(), p, bytes);
    return p;
}

static float *vector(kc *t, size_t n, double scale, double shift)
{
    float *host = kc_input(t, n, KC_NORMAL), *p = room(n * sizeof *p);
    for (size_t i = 0; i < n; i++) host[i] = (float)(scale * (double)host[i] + shift);
    fm_stream_upload(kc_device(), p, host, n * sizeof *p);
    wait();
    return p;
}

static fm_tensor matrix(kc *t, fm_dtype type, size_t rows, size_t cols)
{
    fm_stream *s = kc_device();
    size_t bytes = 0;
    kc_true(t, fm_dtype_bytes(type, 1, cols, &bytes), "whole blocks");
    unsigned char *raw = kc_bytes(t, rows * bytes), *there = room(rows * bytes);
    float *row = kc_floats(t, cols);
    for (size_t r = 0; r < rows; r++) {
        kc_fill(t, row, cols, KC_NORMAL);
        for (size_t i = 0; i < cols; i++) row[i] *= 0.05f;
        fm_dtype_get(type)->encode(raw + r * bytes, row, NULL, cols);
    }
    fm_stream_upload(s, there, raw, rows * bytes);
    const size_t stored = fm_cuda_row_bytes(type, cols);
    void *W = room(rows * stored);
    fm_cuda_store(s, W, there, type, rows, cols);
    wait();
    fm_stream_free(s, there);
    return (fm_tensor){W, type, rows, cols, stored};
}

/* Where the rows of n sequences of one token each begin. */
static const size_t *begins_of(kc *t, size_t n)
{
    size_t *begin = kc_bytes(t, (n + 1) * sizeof *begin), *there = room((n + 1) * sizeof *there);
    for (size_t i = 0; i <= n; i++) begin[i] = i;
    fm_stream_upload(kc_device(), there, begin, (n + 1) * sizeof *begin);
    return there;
}

static layer layer_of(kc *t, const shape *s)
{
    const size_t I = s->inner;
    layer l = {.s = *s, .state = SPARE + (D_CONV - 1 + D_STATE) * I};
    l.x_proj = matrix(t, s->type, s->rank + 2 * D_STATE, I);
    l.dt_proj = matrix(t, s->type, I, s->rank);
    l.taps = vector(t, D_CONV * I, 0.5, 0.0);
    l.bias = s->rank % 32 ? NULL : vector(t, I, 0.2, 0.0);
    l.dt_bias = vector(t, I, 1.0, -2.0);
    l.A = vector(t, D_STATE * I, 0.5, -2.0);
    l.skip = vector(t, I, 1.0, 0.0);
    l.xz = vector(t, s->n * 2 * I, 1.0, 0.0);
    l.begin = begins_of(t, s->n);
    return l;
}

static void free_layer(const layer *l)
{
    void *all[] = {(void *)(uintptr_t)l->x_proj.data,
                   (void *)(uintptr_t)l->dt_proj.data,
                   l->taps,
                   l->bias,
                   l->dt_bias,
                   l->A,
                   l->skip,
                   l->xz,
                   (void *)(uintptr_t)l->begin};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fm_stream_free(kc_device(), all[i]);
}

static fm_mix_args args_of(const layer *l, const fm_ragged *r, const result *o)
{
    const size_t I = l->s.inner;
    const fm_states window = {.rows = o->states, .stride = l->state, .at = SPARE},
                    h = {.rows = o->states, .stride = l->state, .at = SPARE + (D_CONV - 1) * I};
    return (fm_mix_args){.conv = {.state = window,
                                  .x = l->xz,
                                  .x_stride = 2 * I,
                                  .w = l->taps,
                                  .bias = l->bias,
                                  .ragged = r,
                                  .d_inner = I,
                                  .d_conv = D_CONV,
                                  .hold = l->s.hold},
                         .scan = {.h = h,
                                  .dt_bias = l->dt_bias,
                                  .A = l->A,
                                  .skip = l->skip,
                                  .z = l->xz + I,
                                  .z_stride = 2 * I,
                                  .ragged = r,
                                  .d_inner = I,
                                  .d_state = D_STATE,
                                  .hold = l->s.hold},
                         .x_proj = &l->x_proj,
                         .dt_proj = &l->dt_proj,
                         .norms = l->s.norms,
                         .eps = 1e-6f,
                         .out_form = l->s.out,
                         .packed = o->packed};
}

static void pack(const fm_kernels *k, void *out, fm_xform form, const float *x, size_t stride, size_t n, size_t cols)
{
    k->pack_x[form](&(fm_pack_args){
        .out = out, .x = x, .x_stride = stride, .n = n, .cols = cols, .row_end = n, .col_end = cols, .stream = kc_device()});
}

/* y (n, rows) = x (n, cols) W^T. */
static void multiply(const fm_kernels *k, const fm_run *run, float *y, const float *x, size_t x_stride, const fm_tensor *W,
                     size_t n)
{
    const fm_xform form = fm_xform_of(W->type);
    void *packed = room(k->pack_x_bytes(form, n, W->cols));
    if (!fm_stream_reserve(kc_device(), fm_cuda_work_bytes(kc_device(), W, n))) abort();
    pack(k, packed, form, x, x_stride, n, W->cols);
    k->linear[W->type](run, &(fm_linear_args){.y = y, .y_stride = W->rows, .x = packed, .W = W, .n = n});
    wait();
    fm_stream_free(kc_device(), packed);
}

/* q: dt | B | C, normed; the scan's other inputs are in m. */
static void end_one_by_one(const fm_kernels *k, const fm_run *run, fm_mix_args m, float *q, float *y)
{
    const size_t I = m.dt_proj->rows, n = m.conv.ragged->n_tokens;
    float *dt = room(n * I * sizeof *dt);
    multiply(k, run, dt, q, m.x_proj->rows, m.dt_proj, n);
    m.scan.y = y, m.scan.y_stride = I;
    m.scan.dt = dt, m.scan.dt_stride = I;
    k->scan(run, &m.scan);
    pack(k, m.packed, m.out_form, y, I, n, I);
    /* The pack of one token of floats is put off until somebody multiplies with it. */
    if (n == 1 && m.out_form < FM_X_Q8_32) {
        float *two = room(2 * I * sizeof *two);
        fm_stream_copy(kc_device(), two, y, I * sizeof *y);
        pack(k, m.packed, m.out_form, two, I, 2, I);
        wait();
        fm_stream_free(kc_device(), two);
    }
    wait();
    fm_stream_free(kc_device(), dt);
}

static void one_by_one(const fm_kernels *k, const fm_run *run, const layer *l, fm_mix_args m)
{
    const size_t I = l->s.inner, n = l->s.n, q = l->x_proj.rows, widths[3] = {l->s.rank, D_STATE, D_STATE};
    float *u = room(n * I * sizeof *u), *raw = room(n * q * sizeof *raw), *out = raw, *y = room(n * I * sizeof *y);
    m.conv.out = u, m.conv.out_stride = I;
    k->conv_silu(run, &m.conv);
    multiply(k, run, raw, u, I, m.x_proj, n);
    if (m.norms) k->rmsnorm_three(run, out = room(n * q * sizeof *out), q, FM_X_F32, NULL, raw, q, widths, n, m.eps);
    m.scan.u = u, m.scan.u_stride = I;
    m.scan.B = out + l->s.rank, m.scan.C = out + l->s.rank + D_STATE, m.scan.bc_stride = q;
    end_one_by_one(k, run, m, out, y);
    float *all[] = {u, raw, out == raw ? NULL : out, y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fm_stream_free(kc_device(), all[i]);
}

static result result_of(const fm_kernels *k, const layer *l, const float *states)
{
    const size_t bytes = k->pack_x_bytes(l->s.out, l->s.n < 2 ? 2 : l->s.n, l->s.inner);
    const result r = {room(l->s.n * l->state * sizeof(float)), room(bytes), bytes};
    fm_stream_upload(kc_device(), r.states, states, l->s.n * l->state * sizeof(float));
    return r;
}

static void *host_copy(kc *t, const void *there, size_t bytes)
{
    void *p = kc_bytes(t, bytes);
    fm_stream_download(kc_device(), p, there, bytes);
    wait();
    return p;
}

/* Two steps by `how` and one by one: what they leave. */
typedef bool way(const fm_kernels *k, const fm_run *run, const layer *l, const fm_mix_args *m);

static bool all_at_once(const fm_kernels *k, const fm_run *run, const layer *l, const fm_mix_args *m)
{
    (void)l;
    return k->mix(run, m);
}

/* All but the convolution. */
static bool in_two(const fm_kernels *k, const fm_run *run, const layer *l, const fm_mix_args *m)
{
    const size_t I = l->s.inner, n = l->s.n, q = l->x_proj.rows;
    const fm_xform form = fm_xform_of(l->s.type);
    float *u = room(n * I * sizeof *u), *raw = room(n * q * sizeof *raw);
    void *packed = room(k->pack_x_bytes(form, n, I));
    fm_conv_args conv = m->conv;
    fm_scan_args scan = m->scan;
    conv.out = u, conv.out_stride = I;
    scan.u = u, scan.u_stride = I;
    scan.packed = m->packed, scan.form = m->out_form;
    k->conv_silu(run, &conv);
    pack(k, packed, form, u, I, n, I);
    if (!fm_stream_reserve(kc_device(), fm_cuda_work_bytes(kc_device(), m->x_proj, n))) abort();
    const bool done = k->select(run, &(fm_select_args){.x_proj = {.y = raw, .y_stride = q, .x = packed, .W = m->x_proj, .n = n},
                                                       .dt_proj = m->dt_proj,
                                                       .norms = m->norms,
                                                       .eps = m->eps,
                                                       .scan = scan});
    wait();
    fm_stream_free(kc_device(), u);
    fm_stream_free(kc_device(), raw);
    fm_stream_free(kc_device(), packed);
    return done;
}

static void check_case(kc *t, const shape *s, way *how)
{
    const layer l = layer_of(t, s);
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged ragged = {.n_seq = s->n, .begin = l.begin, .n_tokens = s->n, .longest = 1};
    const size_t floats = s->n * l.state;
    const float *states = kc_input(t, floats, KC_NORMAL);
    result a = result_of(&t->k, &l, states), b = result_of(&t->k, &l, states);
    char where[96];
    snprintf(where, sizeof where, "%s, %zu channels, rank %zu, %zu tokens", fm_dtype_get(s->type)->name, s->inner, s->rank,
             s->n);
    for (int step = 0; step < 2; step++) {
        const fm_mix_args m = args_of(&l, &ragged, &b);
        kc_true(t, how(&t->k, &run, &l, &m), where);
        one_by_one(&t->k, &run, &l, args_of(&l, &ragged, &a));
    }
    kc_same(t, host_copy(t, a.states, floats * sizeof(float)), host_copy(t, b.states, floats * sizeof(float)),
            floats * sizeof(float), where);
    const bool two = s->n == 1 && s->out < FM_X_Q8_32; /* rows, of which there is one */
    const size_t bytes = two ? a.packed_bytes / 2 : a.packed_bytes;
    kc_same(t, host_copy(t, a.packed, bytes), host_copy(t, b.packed, bytes), bytes, where);
    void *all[] = {a.states, a.packed, b.states, b.packed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) fm_stream_free(kc_device(), all[i]);
    free_layer(&l);
    kc_release(t);
}

static void check_refused(kc *t, const shape *s, way *how)
{
    const layer l = layer_of(t, s);
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged ragged = {.n_seq = s->n, .begin = l.begin, .n_tokens = s->n, .longest = 1};
    result r = {room(s->n * l.state * sizeof(float)), room(t->k.pack_x_bytes(s->out, s->n, s->inner)), 0};
    const fm_mix_args m = args_of(&l, &ragged, &r);
    kc_true(t, !how(&t->k, &run, &l, &m), "a step that the kernel is not for");
    fm_stream_free(kc_device(), r.states);
    fm_stream_free(kc_device(), r.packed);
    free_layer(&l);
    kc_release(t);
}

/* ---- The begin: in_proj, and the convolution of the first half of what it makes ---- */

typedef struct front {
    fm_tensor W; /* (2 d_inner, cols) */
    float *in_bias, *taps, *bias, *norm;
    fm_xform form; /* of u's pack */
} front;

/* Memory of a step: what it is given and what it leaves. */
typedef struct begun {
    float *xz, *u, *states, **list;
    void *packed;
} begun;

typedef struct begin_case {
    size_t n;
    bool in_bias, bias, hold, listed, normed; /* normed: the product's input is left to be normed by it */
} begin_case;

/* What the host has of it is released with the first case. */
static front front_of(kc *t, fm_dtype type, fm_xform form, size_t inner, size_t cols)
{
    return (front){.W = matrix(t, type, 2 * inner, cols),
                   .in_bias = vector(t, 2 * inner, 0.2, 0.0),
                   .taps = vector(t, D_CONV * inner, 0.5, 0.0),
                   .bias = vector(t, inner, 0.2, 0.0),
                   .norm = vector(t, cols, 1.0, 0.0),
                   .form = form};
}

static void free_front(const front *f)
{
    void *all[] = {(void *)(uintptr_t)f->W.data, f->in_bias, f->taps, f->bias, f->norm};
    for (size_t i = 0; i < FM_COUNT(all); i++) fm_stream_free(kc_device(), all[i]);
}

static size_t window_floats(const front *f)
{
    return SPARE + (D_CONV - 1) * f->W.rows / 2;
}

/* States by their numbers, and by a list, in which the last comes first. */
static begun begun_of(kc *t, const front *f, size_t n, const float *states)
{
    const size_t I = f->W.rows / 2, bytes = n * window_floats(f) * sizeof(float);
    const begun b = {room(n * 2 * I * sizeof(float)), room(n * I * sizeof(float)), room(bytes), room(n * sizeof(float *)),
                     room(t->k.pack_x_bytes(f->form, n, I))};
    float **list = kc_bytes(t, n * sizeof *list);
    for (size_t i = 0; i < n; i++) list[i] = b.states + (n - 1 - i) * window_floats(f);
    fm_stream_upload(kc_device(), b.list, list, n * sizeof *list);
    fm_stream_upload(kc_device(), b.states, states, bytes);
    wait();
    return b;
}

static void free_begun(const begun *b)
{
    void *all[] = {b->xz, b->u, b->states, b->list, b->packed};
    for (size_t i = 0; i < FM_COUNT(all); i++) fm_stream_free(kc_device(), all[i]);
}

static fm_linear_conv_args begin_args(const front *f, const begin_case *s, const fm_ragged *r, const begun *b, const void *x)
{
    const size_t I = f->W.rows / 2;
    fm_states state = {.rows = b->states, .stride = window_floats(f), .at = SPARE};
    if (s->listed) state = (fm_states){.list = b->list, .at = SPARE};
    return (fm_linear_conv_args){
        .product =
            {.y = b->xz, .y_stride = 2 * I, .x = x, .W = &f->W, .bias = s->in_bias ? f->in_bias : NULL, .n = r->n_tokens},
        .conv = {.out = b->u,
                 .out_stride = I,
                 .state = state,
                 .x = b->xz,
                 .x_stride = 2 * I,
                 .w = f->taps,
                 .bias = s->bias ? f->bias : NULL,
                 .ragged = r,
                 .d_inner = I,
                 .d_conv = D_CONV,
                 .hold = s->hold,
                 .packed = b->packed,
                 .form = f->form}};
}

static void same_there(kc *t, const void *a, const void *b, size_t bytes, const char *where)
{
    kc_same(t, host_copy(t, a, bytes), host_copy(t, b, bytes), bytes, where);
}

/* The input of both ways' products: rows, or, of one, rows that are still to be normed. */
static void pack_inputs(kc *t, const front *f, const begin_case *s, const float *x, float *normed, void *const packed[2])
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_xform form = fm_xform_of(f->W.type);
    const size_t cols = f->W.cols, n = s->n;
    if (s->normed) {
        t->k.rmsnorm(&run, normed, cols, x, cols, f->norm, n, cols, 1e-5f);
        kc_true(t, t->k.packs(&run, form, false, packed[1], n, cols), "rows of which the norm makes a pack");
        t->k.rmsnorm_pack(&run, form, packed[1], x, cols, f->norm, n, cols, 1e-5f);
    } else {
        pack(&t->k, packed[1], form, x, cols, n, cols);
    }
    pack(&t->k, packed[0], form, s->normed ? normed : x, cols, n, cols);
}

/* Another input each time, then one step into `a` by two entries and into `b` by one. */
static void begin_both(kc *t, const front *f, const begin_case *s, const fm_ragged *r, const begun *a, const begun *b)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const size_t cols = f->W.cols, n = s->n, bytes = t->k.pack_x_bytes(fm_xform_of(f->W.type), n, cols);
    float *x = vector(t, n * cols, 1.0, 0.0), *normed = room(n * cols * sizeof *normed);
    void *packed[2] = {room(bytes), room(bytes)};
    pack_inputs(t, f, s, x, normed, packed);
    const fm_linear_conv_args two = begin_args(f, s, r, a, packed[0]), one = begin_args(f, s, r, b, packed[1]);
    t->k.linear[f->W.type](&run, &two.product);
    t->k.conv_silu(&run, &two.conv);
    wait();
    kc_true(t, t->k.linear_conv(&run, &one), "a step that the kernel is for");
    wait();
    same_there(t, packed[0], packed[1], bytes, "the input of a product that makes it itself");
    void *all[] = {x, normed, packed[0], packed[1]};
    for (size_t i = 0; i < FM_COUNT(all); i++) fm_stream_free(kc_device(), all[i]);
}

/* Of b's rows the first half is as it was, zeros. */
static void same_gates(kc *t, const float *a, const float *b, size_t n, size_t inner, const char *where)
{
    const size_t half = inner * sizeof(float);
    const float *p = host_copy(t, a, 2 * n * half), *q = host_copy(t, b, 2 * n * half);
    const void *zeros = memset(kc_bytes(t, half), 0, half);
    for (size_t i = 0; i < n; i++) {
        kc_same(t, p + (2 * i + 1) * inner, q + (2 * i + 1) * inner, half, where);
        kc_same(t, zeros, q + 2 * i * inner, half, where);
    }
}

static void check_begin_case(kc *t, const front *f, const begin_case *s)
{
    const size_t I = f->W.rows / 2, n = s->n, floats = n * window_floats(f);
    const fm_ragged ragged = {.n_seq = n, .begin = begins_of(t, n), .n_tokens = n, .longest = 1};
    const float *states = kc_input(t, floats, KC_NORMAL);
    const begun a = begun_of(t, f, n, states), b = begun_of(t, f, n, states);
    char where[96];
    snprintf(where, sizeof where, "in_proj of %s, %zu columns and %zu channels of %zu tokens", fm_dtype_get(f->W.type)->name,
             f->W.cols, I, n);
    for (int step = 0; step < 2; step++) begin_both(t, f, s, &ragged, &a, &b);
    same_gates(t, a.xz, b.xz, n, I, where);
    same_there(t, a.u, b.u, n * I * sizeof(float), where);
    same_there(t, a.packed, b.packed, t->k.pack_x_bytes(f->form, n, I), where);
    same_there(t, a.states, b.states, floats * sizeof(float), where);
    free_begun(&a);
    free_begun(&b);
    fm_stream_free(kc_device(), (void *)(uintptr_t)ragged.begin);
    kc_release(t);
}

/* n sequences with `more` tokens in the last one beside its first; `change` makes the step another one. */
static void check_begin_refused(kc *t, const front *f, size_t n, size_t more, void (*change)(fm_linear_conv_args *a))
{
    const size_t all = n + more;
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged ragged = {.n_seq = n, .begin = begins_of(t, n), .n_tokens = all, .longest = 1 + more};
    const begun b = begun_of(t, f, all, kc_input(t, all * window_floats(f), KC_NORMAL));
    void *x = room(t->k.pack_x_bytes(fm_xform_of(f->W.type), all, f->W.cols));
    fm_linear_conv_args a = begin_args(f, &(begin_case){.n = all}, &ragged, &b, x);
    if (change) change(&a);
    kc_true(t, !t->k.linear_conv(&run, &a), "a step that the kernel is not for");
    wait();
    free_begun(&b);
    fm_stream_free(kc_device(), x);
    fm_stream_free(kc_device(), (void *)(uintptr_t)ragged.begin);
    kc_release(t);
}

static void make_half(fm_linear_conv_args *a)
{
    a->conv.half = true;
}

static void make_records(fm_linear_conv_args *a)
{
    a->conv.form = FM_X_Q8_32;
}

static void make_short(fm_linear_conv_args *a)
{
    a->conv.d_conv = D_CONV - 1;
}

static void check_begin_refusals(kc *t)
{
    const front f = front_of(t, FM_BF16, FM_X_BF16, 8192, 256);
    check_begin_refused(t, &f, 2, 0, NULL);
    check_begin_refused(t, &f, 17, 0, NULL);
    check_begin_refused(t, &f, 4, 1, NULL);
    check_begin_refused(t, &f, 4, 0, make_half);
    check_begin_refused(t, &f, 4, 0, make_records);
    check_begin_refused(t, &f, 4, 0, make_short);
    if (kc_device_options().f32) check_begin_refused(t, &f, 4, 0, NULL);
    free_front(&f);
    static const struct {
        fm_dtype type;
        fm_xform form;
        size_t inner;
    } others[] = {{FM_BF16, FM_X_BF16, 256}, {FM_BF16, FM_X_BF16, 8256}, {FM_F16, FM_X_F32, 8192}, {FM_Q8_0, FM_X_BF16, 8192}};
    for (size_t i = 0; i < FM_COUNT(others); i++) {
        const front other = front_of(t, others[i].type, others[i].form, others[i].inner, 256);
        check_begin_refused(t, &other, 4, 0, NULL);
        free_front(&other);
    }
}

/* A row that is left to be normed has more than 1024 and up to 4096 columns, else the norm has a launch. */
static void check_begin_shape(kc *t, size_t inner, size_t cols, size_t i)
{
    static const size_t tokens[] = {3, 4, 8, 9, 16};
    const front f = front_of(t, FM_BF16, FM_X_BF16, inner, cols);
    for (size_t k = 0; k < 3 * FM_COUNT(tokens); k++)
        check_begin_case(t, &f,
                         &(begin_case){.n = tokens[k / 3],
                                       .in_bias = (k + i) % 3 == 0,
                                       .bias = (k + i) % 4 != 0,
                                       .hold = k % 5 == 2,
                                       .listed = k % 2 == 1,
                                       .normed = k % 3 > 0});
    free_front(&f);
}

/* What few_bulk.cu takes of the least rows with a norm, and without; a shape in which some blocks have rows twice; and 7B's. */
static void check_begin(kc *t)
{
    static const size_t shapes[][2] = {{8192, 256}, {8064, 1280}, {6400, 256}, {8704, 1408}, {8192, 4096}};
    check_begin_refusals(t);
    const size_t n_shapes = kc_device_options().f32 ? 0 : kc_is_quick() ? 2 : FM_COUNT(shapes);
    for (size_t k = 0; k < n_shapes; k++) check_begin_shape(t, shapes[k][0], shapes[k][1], k);
}

/* More sequences than a product of few columns takes. */
static void check_wide(kc *t, fm_dtype type, fm_xform out, size_t i)
{
    static const size_t sizes[][2] = {{8192, 256}, {1536, 512}, {256, 256}}, tokens[] = {17, 30, 33, 64};
    const size_t n_sizes = kc_is_quick() ? 1 : FM_COUNT(sizes), n_tokens = kc_is_quick() ? 2 : FM_COUNT(tokens);
    for (size_t k = 0; k < n_sizes; k++)
        for (size_t j = 0; j < n_tokens; j++) {
            const shape s = {type, out, sizes[k][0], sizes[k][1], tokens[j], (i + j + k) % 4 != 0, (i + j + k) % 5 == 0};
            (kc_device_options().f32 ? check_refused : check_case)(t, &s, in_two);
        }
}

static void check(kc *t)
{
    static const struct {
        fm_dtype type;
        fm_xform out;
    } types[] = {{FM_BF16, FM_X_BF16},   {FM_F16, FM_X_F32},     {FM_F16, FM_X_BF16},
                 {FM_Q8_0, FM_X_Q8_32},  {FM_Q4_0, FM_X_Q8_256}, {FM_IQ4_NL, FM_X_BF16},
                 {FM_Q4_K, FM_X_Q8_256}, {FM_Q6_K, FM_X_Q8_32},  {FM_INT4_G128, FM_X_Q8_256}};
    static const size_t floats[][2] = {{8192, 256}, {256, 256}, {1536, 48}, {2048, 256}},
                        quants[][2] = {{8192, 256}, {4096, 256}}, tokens[] = {1, 2, 3, 4, 5, 8, 11, 16};
    const size_t n_tokens = kc_is_quick() ? 4 : FM_COUNT(tokens);
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        const bool quant = fm_xform_of(types[i].type) >= FM_X_Q8_32;
        const size_t n_sizes = kc_is_quick() ? 1 : quant ? FM_COUNT(quants) : FM_COUNT(floats);
        for (size_t k = 0; k < n_sizes; k++)
            for (size_t j = 0; j < n_tokens; j++) {
                const size_t *size = quant ? quants[k] : floats[k], n = tokens[j];
                const shape s = {types[i].type, types[i].out, size[0], size[1], n, (n + i + k) % 4 != 0, (n + k + i) % 5 == 0};
                void (*checked)(kc *, const shape *, way *) = kc_device_options().f32 ? check_refused : check_case;
                if (n <= 2) checked(t, &s, all_at_once);
                checked(t, &s, in_two);
            }
        if (quant && types[i].out >= FM_X_Q8_32) check_wide(t, types[i].type, types[i].out, i);
    }
    const shape refused[] = {{FM_BF16, FM_X_BF16, 256, 48, 3, true, false},
                             {FM_BF16, FM_X_BF16, 128, 48, 1, true, false},
                             {FM_BF16, FM_X_Q8_32, 256, 48, 1, true, false},
                             {FM_Q8_0, FM_X_Q8_32, 768, 64, 1, true, false},
                             {FM_Q5_K, FM_X_Q8_256, 8192, 256, 1, true, false}};
    for (size_t i = 0; i < FM_COUNT(refused); i++) check_refused(t, &refused[i], all_at_once);
    const shape two_refused[] = {
        {FM_BF16, FM_X_BF16, 128, 48, 17, true, false},     {FM_BF16, FM_X_BF16, 96, 48, 4, true, false},
        {FM_Q8_0, FM_X_Q8_32, 128, 64, 4, true, false},     {FM_Q8_0, FM_X_Q8_32, 256, 64, 65, true, false},
        {FM_IQ4_NL, FM_X_BF16, 8192, 256, 17, true, false}, {FM_Q5_K, FM_X_Q8_256, 8192, 256, 4, true, false}};
    for (size_t i = 0; i < FM_COUNT(two_refused); i++) check_refused(t, &two_refused[i], in_two);
    check_begin(t);
}

const kc_op kc_op_mix = {"mix", check, NULL};
