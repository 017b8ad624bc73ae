/* check_softmax.c - softmax and log-sum-exp against the reference.
 *
 * An exponential is within 2 ulp here and 1 in the reference; a sum of d positive terms in order is within d/2 epsilon, in lanes
 * of at least four within d/8 epsilon.  Bound: (5/8 d + 12) epsilon |out|, plus the steps of denormals. */
#include "tests/kernelcheck/kernelcheck.h"

typedef struct softmax_case {
    const fm_kernels *k;
    float *out, *lse;
    const float *x;
    size_t x_stride, n, d;
} softmax_case;

static void call(void *ctx, const fm_run *run)
{
    const softmax_case *c = ctx;
    c->k->softmax(run, c->out, c->lse, c->x, c->x_stride, c->n, c->d);
}

static void same_bits(kc *t, const softmax_case *whole)
{
    const size_t n_out = whole->n * whole->d;
    softmax_case c = *whole;
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        c.out = kc_floats(t, n_out);
        c.lse = kc_floats(t, c.n);
        kc_parts(call, &c, kc_part_counts[i]);
        kc_same(t, c.out, whole->out, n_out * sizeof(float), "parts change the bits");
        kc_same(t, c.lse, whole->lse, c.n * sizeof(float), "parts change the bits of lse");
    }
    c.out = NULL;
    c.lse = kc_floats(t, c.n);
    kc_parts(call, &c, 1);
    kc_same(t, c.lse, whole->lse, c.n * sizeof(float), "lse alone has other bits");
    for (size_t r = 0; r < c.n; r++) {
        softmax_case one = {.k = c.k, .n = 1, .d = c.d, .x_stride = c.d};
        one.out = kc_copy(t, whole->x + r * whole->x_stride, c.d);
        one.x = one.out;
        kc_parts(call, &one, 1);
        kc_same(t, one.out, whole->out + r * c.d, c.d * sizeof(float), "a row in place has other bits");
    }
}

static void check_case(kc *t, size_t n, size_t d, kc_kind kind)
{
    const size_t stride = d + d % 3;
    const double relative = (0.625 * (double)d + 12.0) * FLT_EPSILON;
    softmax_case c = {.k = &t->k, .n = n, .d = d, .x_stride = stride};
    c.x = kc_input(t, (n - 1) * stride + d, kind);
    c.out = kc_floats(t, n * d);
    c.lse = kc_floats(t, n);
    kc_parts(call, &c, 1);
    softmax_case ref = c;
    ref.k = &t->ref;
    ref.out = kc_floats(t, n * d);
    ref.lse = kc_floats(t, n);
    kc_parts(call, &ref, 1);
    for (size_t i = 0; i < n * d; i++) {
        const double want = (double)ref.out[i];
        kc_near(t, (double)c.out[i], want, relative * fabs(want) + 0x1p-147, "value");
    }
    for (size_t r = 0; r < n; r++) {
        const double want = (double)ref.lse[r];
        kc_near(t, (double)c.lse[r], want, relative + 2.0 * FLT_EPSILON * fabs(want), "lse");
    }
    same_bits(t, &c);
    kc_release(t);
}

/* A row of one value, of equal values and of -Inf but for one are known exactly. */
static void check_known(kc *t)
{
    const size_t d = 19;
    softmax_case c = {.k = &t->k, .n = 1, .d = d, .x_stride = d, .out = kc_floats(t, d)};
    float *x = kc_floats(t, d);
    for (size_t i = 0; i < d; i++) x[i] = i == 17 ? 3.0f : -INFINITY;
    c.x = x;
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < d; i++) kc_near(t, (double)c.out[i], i == 17, 0.0, "one finite value");
    for (size_t i = 0; i < d; i++) x[i] = -INFINITY;
    kc_parts(call, &c, 1);
    for (size_t i = 0; i < d; i++) kc_near(t, (double)c.out[i], NAN, 0.0, "no finite value");
    kc_release(t);
}

static void check(kc *t)
{
    for (size_t i = 0; i < kc_n_sizes; i++) check_case(t, 3, kc_sizes[i], i % 2 ? KC_LARGE : KC_NORMAL);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_case(t, 5, 37, (kc_kind)kind);
    check_case(t, 2, 65024, KC_NORMAL);
    check_known(t);
}

static void bench(kc *t)
{
    const size_t n = 4, d = 65024;
    softmax_case c = {.k = &t->k, .n = n, .d = d, .x_stride = d};
    c.x = kc_input(t, n * d, KC_NORMAL);
    c.out = kc_floats(t, n * d);
    c.lse = kc_floats(t, n);
    kc_time(t, "4 rows of 65024", 2.0 * sizeof(float) * (double)(n * d), "GB/s", call, &c);
}

const kc_op kc_op_softmax = {.name = "softmax", .check = check, .bench = bench};
