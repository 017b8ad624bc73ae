/* check_train.c - the loss, the optimiser, products and sums of training against the reference.  What is defined in a fixed
 * order, one operation after the other, must have its bits. */
#include "tests/kernelcheck/errors.h"
#include "tests/kernelcheck/outputs.h"

/* ---- Cross entropy ---- */

enum { XENT_LOGITS, XENT_LOSS };

typedef struct xent_case {
    const fm_kernels *k;
    fm_xent_args a;
    outputs o;
} xent_case;

static void xent_call(void *ctx, const fm_run *run)
{
    xent_case *c = ctx;
    c->a.logits = c->o.p[XENT_LOGITS], c->a.loss = c->o.p[XENT_LOSS];
    c->k->xent(run, &c->a);
}

/* Of at most 1024 terms at a time the sum may be one of float, all of them positive. */
static ef xent_lse(const float *x, size_t n)
{
    double max = (double)x[0], sum = 0.0, error = 0.0;
    for (size_t i = 1; i < n; i++) max = fmax(max, (double)x[i]);
    for (size_t i = 0; i < n; i++) {
        const double d = (double)x[i] - max;
        const ef term = ef_exp((ef){d, ef_part(ROUNDING, d)});
        sum += term.v, error += term.e;
    }
    error += (double)(n < 1024 ? n : 1024) * ROUNDING * sum;
    const ef log_sum = ef_round(log(sum), error / sum + 2.0 * ROUNDING * fabs(log(sum)));
    return ef_add((ef){max, 0.0}, log_sum);
}

static void xent_compare(kc *t, const xent_case *c, size_t r, const float *x, const outputs *got, const outputs *ref)
{
    const size_t vocab = c->a.vocab, target = (size_t)c->a.target[r];
    const ef lse = xent_lse(x, vocab), z = ef_of(c->a.z), one = {1.0, 0.0};
    const ef scale = ef_mul(ef_of(c->a.scale), ef_add(one, ef_mul((ef){2.0 * z.v, 0.0}, lse)));
    ef loss = ef_add(lse, ef_of(-x[target]));
    loss = ef_add(loss, ef_mul(ef_mul(z, lse), lse));
    ef_check(t, got->p[XENT_LOSS][r], ref->p[XENT_LOSS][r], loss, "loss");
    for (size_t i = 0; i < vocab; i++) {
        const size_t at = r * vocab + i;
        ef g = ef_mul(scale, ef_exp(ef_add(ef_of(x[i]), (ef){-lse.v, lse.e})));
        if (i == target) g = ef_add(g, ef_of(-c->a.scale));
        ef_check(t, got->p[XENT_LOGITS][at], ref->p[XENT_LOGITS][at], g, "gradient");
    }
}

static void check_xent_case(kc *t, size_t n, size_t vocab, kc_kind kind, float z)
{
    xent_case c = {.k = &t->ref, .a = {.n = n, .vocab = vocab, .scale = 0.37f, .z = z}};
    int32_t *target = kc_bytes(t, n * sizeof *target);
    outputs begin = {.count = 0};
    for (size_t r = 0; r < n; r++) target[r] = r % 4 == 2 ? -1 : (int32_t)kc_below(t, vocab);
    c.a.target = target;
    outputs_add(t, &begin, kc_input(t, n * vocab, kind), n * vocab);
    outputs_add(t, &begin, NULL, n);
    const outputs ref = c.o = outputs_copy(t, &begin);
    kc_parts(xent_call, &c, 1);
    const outputs whole = c.o = outputs_copy(t, &begin);
    c.k = &t->k;
    kc_parts(xent_call, &c, 1);
    for (size_t r = 0; r < n; r++) {
        if (target[r] >= 0) xent_compare(t, &c, r, begin.p[XENT_LOGITS] + r * vocab, &whole, &ref);
        for (size_t i = 0; i < vocab && target[r] < 0; i++)
            kc_true(t, whole.p[XENT_LOGITS][r * vocab + i] == 0.0f && whole.p[XENT_LOSS][r] == 0.0f, "an ignored row counts");
    }
    for (unsigned n_parts = 2; n_parts <= 5; n_parts++) {
        c.o = outputs_copy(t, &begin);
        kc_parts(xent_call, &c, n_parts);
        outputs_same(t, &c.o, &whole, "parts change the bits");
    }
    kc_release(t);
}

static void check_xent(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++) check_xent_case(t, 1 + i % 5, kc_sizes[i], KC_NORMAL, i % 2 ? 1e-3f : 0.0f);
    check_xent_case(t, 3, 5003, KC_NORMAL, 1e-4f);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_xent_case(t, 4, 101, (kc_kind)kind, 0.0f);
}

/* ---- The optimiser ---- */

enum { ADAMW_W, ADAMW_M, ADAMW_V };

typedef struct adamw_case {
    const fm_kernels *k;
    fm_adamw_args a;
    outputs o;
} adamw_case;

static void adamw_call(void *ctx, const fm_run *run)
{
    adamw_case *c = ctx;
    c->a.w = c->o.p[ADAMW_W], c->a.m = c->o.p[ADAMW_M], c->a.v = c->o.p[ADAMW_V];
    c->k->adamw(run, &c->a);
}

static ef ef_sqrt(ef a)
{
    const double v = sqrt(a.v);
    return ef_round(v, a.v > 0.0 ? a.e / v : sqrt(a.e));
}

static void adamw_compare(kc *t, const adamw_case *c, size_t i, const outputs *begin, const outputs *got, const outputs *ref)
{
    const fm_adamw_args *a = &c->a;
    const ef g = ef_mul(ef_of(a->clip), ef_of(a->g[i])), w = ef_of(begin->p[ADAMW_W][i]), one = {1.0, 0.0};
    const ef m = ef_add(ef_mul(ef_of(a->beta1), ef_of(begin->p[ADAMW_M][i])), ef_mul(ef_add(one, ef_of(-a->beta1)), g));
    const ef v =
        ef_add(ef_mul(ef_of(a->beta2), ef_of(begin->p[ADAMW_V][i])), ef_mul(ef_mul(ef_add(one, ef_of(-a->beta2)), g), g));
    const ef root = ef_add(ef_sqrt(ef_mul(ef_of(a->c2), v)), ef_of(a->eps)), top = ef_mul(ef_of(a->c1), m);
    const ef step = ef_round(top.v / root.v, top.e / root.v + fabs(top.v) * root.e / (root.v * root.v));
    const ef move = ef_mul(ef_of(a->lr), ef_add(ef_mul(ef_of(a->decay), w), step));
    ef_check(t, got->p[ADAMW_M][i], ref->p[ADAMW_M][i], m, "m");
    ef_check(t, got->p[ADAMW_V][i], ref->p[ADAMW_V][i], v, "v");
    ef_check(t, got->p[ADAMW_W][i], ref->p[ADAMW_W][i], ef_add(w, (ef){-move.v, move.e}), "w");
}

static void check_adamw_case(kc *t, size_t n, kc_kind kind)
{
    adamw_case c = {.k = &t->ref, .a = {.n = n, .clip = 0.7f, .lr = 3e-3f, .beta1 = 0.9f, .beta2 = 0.95f}};
    c.a.eps = 1e-8f, c.a.decay = 0.1f, c.a.c1 = 1.9f, c.a.c2 = 3.7f;
    outputs begin = {.count = 0};
    c.a.g = kc_input(t, n, kind);
    outputs_add(t, &begin, kc_input(t, n, KC_NORMAL), n);
    outputs_add(t, &begin, kc_input(t, n, KC_NORMAL), n);
    outputs_add(t, &begin, kc_input(t, n, KC_NORMAL), n);
    for (size_t i = 0; i < n; i++) begin.p[ADAMW_V][i] *= begin.p[ADAMW_V][i];
    const outputs ref = c.o = outputs_copy(t, &begin);
    kc_parts(adamw_call, &c, 1);
    const outputs whole = c.o = outputs_copy(t, &begin);
    c.k = &t->k;
    kc_parts(adamw_call, &c, 1);
    for (size_t i = 0; i < n; i++) adamw_compare(t, &c, i, &begin, &whole, &ref);
    /* A device contracts products and sums; elsewhere each operation is rounded by itself.  A NaN may have any bits. */
    if (!kc_on_device() && kind == KC_NORMAL) outputs_same(t, &whole, &ref, "not the bits of the reference");
    for (unsigned n_parts = 2; n_parts <= 5; n_parts++) {
        c.o = outputs_copy(t, &begin);
        kc_parts(adamw_call, &c, n_parts);
        outputs_same(t, &c.o, &whole, "parts change the bits");
    }
    kc_release(t);
}

static void check_adamw(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++) check_adamw_case(t, kc_sizes[i], KC_NORMAL);
    check_adamw_case(t, 5003, KC_NORMAL);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_adamw_case(t, 101, (kc_kind)kind);
}

/* ---- Sums and moves, to the bit ---- */

typedef struct sums_case {
    const fm_kernels *k;
    size_t n, d;
    const float *x, *parts;
    fm_tensor W;
    outputs o;
    double *squares;
    fm_dropout_args dropout;
} sums_case;

enum { SUM_PARTS, SUM_ROWS, SUM_TRANSPOSED, SUM_DROPPED };
enum { N_PARTS = 3 };

static void sums_call(void *ctx, const fm_run *run)
{
    sums_case *c = ctx;
    c->k->sum_parts(run, c->o.p[SUM_PARTS], c->d + 1, c->parts, N_PARTS, c->n, c->d);
    c->k->sum_rows(run, c->o.p[SUM_ROWS], c->x, c->d + 2, c->n, c->d);
    c->k->transpose(run, c->o.p[SUM_TRANSPOSED], c->n + 1, &c->W);
    c->k->squares(run, c->squares, c->x, c->n * (c->d + 2));
    c->dropout.out = c->o.p[SUM_DROPPED];
    c->k->dropout(run, &c->dropout);
}

/* Squares are summed in double in any order; each of the others is one float operation after the other. */
static void sums_compare(kc *t, const sums_case *c, const double *squares)
{
    const size_t n = c->n * (c->d + 2);
    for (size_t s = 0; s * FM_SQUARES < n; s++) {
        kc_near(t, c->squares[s], squares[s], FM_SQUARES * 0x1p-52 * squares[s], "sum of squares");
        kc_true(t, squares[s] >= 0.0 || isnan(squares[s]), "a sum of squares is below zero");
    }
}

static void check_sums_case(kc *t, size_t n, size_t d, kc_kind kind)
{
    const size_t n_sums = n * (d + 2) / FM_SQUARES + 1;
    sums_case c = {.k = &t->ref, .n = n, .d = d};
    outputs begin = {.count = 0};
    c.x = kc_input(t, n * (d + 2), kind);
    c.parts = kc_input(t, N_PARTS * n * d, kind);
    c.W = (fm_tensor){c.x, FM_F32, n, d, (d + 2) * sizeof(float)};
    c.dropout = (fm_dropout_args){.out_stride = d + 1,
                                  .x = c.x,
                                  .x_stride = d + 2,
                                  .n = n,
                                  .d = d,
                                  .p = 0.3f,
                                  .seed = 7,
                                  .stream = 2,
                                  .first_row = 11,
                                  .add = n % 2};
    outputs_add(t, &begin, NULL, n * (d + 1));
    outputs_add(t, &begin, kc_input(t, d, KC_NORMAL), d);
    outputs_add(t, &begin, NULL, d * (n + 1));
    outputs_add(t, &begin, kc_input(t, n * (d + 1), KC_NORMAL), n * (d + 1));
    double *squares = c.squares = kc_bytes(t, n_sums * sizeof(double));
    const outputs ref = c.o = outputs_copy(t, &begin);
    kc_parts(sums_call, &c, 1);
    c.k = &t->k;
    for (unsigned n_parts = 1; n_parts <= 5; n_parts++) {
        c.squares = kc_bytes(t, n_sums * sizeof(double));
        c.o = outputs_copy(t, &begin);
        kc_parts(sums_call, &c, n_parts);
        outputs_same(t, &c.o, &ref, "not the bits of the reference");
        sums_compare(t, &c, squares);
    }
    kc_release(t);
}

static void check_sums(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++) check_sums_case(t, 1 + i % 19, kc_sizes[i], KC_NORMAL);
    check_sums_case(t, 70, 301, KC_NORMAL);
    for (int kind = 0; kind < KC_SPECIAL; kind++) check_sums_case(t, 5, 101, (kc_kind)kind); /* a NaN may have any bits */
}

/* ---- Masters as bf16, to the bit ---- */

typedef struct narrow_case {
    const fm_kernels *k;
    fm_narrow_args a;
} narrow_case;

static void narrow_call(void *ctx, const fm_run *run)
{
    const narrow_case *c = ctx;
    c->k->narrow(run, &c->a);
}

static void check_narrow_case(kc *t, size_t n, kc_kind kind, bool by_chance)
{
    narrow_case c = {.k = &t->ref, .a = {.n = n, .by_chance = by_chance, .seed = 77, .stream = (uint64_t)5 << 20 | 3}};
    const float *w = c.a.w = kc_input(t, n, kind);
    uint16_t *want = c.a.out = kc_bytes(t, n * sizeof *want);
    kc_parts(narrow_call, &c, 1);
    c.k = &t->k;
    for (unsigned n_parts = 1; n_parts <= 5; n_parts++) {
        const uint16_t *got = c.a.out = kc_bytes(t, n * sizeof *got);
        kc_parts(narrow_call, &c, n_parts);
        for (size_t i = 0; i < n; i++) /* a NaN may have any bits */
            kc_true(t, isnan(w[i]) ? isnan(fm_bf16_to_f32(got[i])) : got[i] == want[i], "not the bits of the reference");
    }
    kc_release(t);
}

static void check_narrow(kc *t)
{
    for (int by_chance = 0; by_chance < 2; by_chance++) {
        for (size_t i = 0; i < kc_n_sizes; i++) check_narrow_case(t, kc_sizes[i], KC_NORMAL, by_chance);
        check_narrow_case(t, 5003, KC_NORMAL, by_chance);
        for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_narrow_case(t, 101, (kc_kind)kind, by_chance);
    }
}

const kc_op kc_op_narrow = {.name = "narrow", .check = check_narrow};
const kc_op kc_op_xent = {.name = "xent", .check = check_xent};
const kc_op kc_op_adamw = {.name = "adamw", .check = check_adamw};
const kc_op kc_op_sums = {.name = "sums", .check = check_sums};
