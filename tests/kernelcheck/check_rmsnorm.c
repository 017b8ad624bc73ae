/* check_rmsnorm.c - rmsnorm against the reference.
 *
 * Squares are summed in double, where no order of summation moves the scale by more than one ulp of float; then one or two
 * products.  Bound: 3 epsilon |out|, and two steps of a denormal. */
#include "tests/kernelcheck/kernelcheck.h"

typedef struct norm_case {
    const fm_kernels *k;
    float *out;
    const float *x, *w;
    size_t out_stride, x_stride, n, d;
    float eps;
} norm_case;

static void call(void *ctx, const fm_run *run)
{
    const norm_case *c = ctx;
    c->k->rmsnorm(run, c->out, c->out_stride, c->x, c->x_stride, c->w, c->n, c->d, c->eps);
}

static size_t span(size_t n, size_t d, size_t stride)
{
    return (n - 1) * stride + d;
}

/* In parts, in place, and row by row: the bits of `whole`. */
static void same_bits(kc *t, const norm_case *whole)
{
    const size_t n_out = span(whole->n, whole->d, whole->out_stride);
    norm_case c = *whole;
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        c.out = kc_floats(t, n_out);
        kc_parts(call, &c, kc_part_counts[i]);
        kc_same(t, c.out, whole->out, n_out * sizeof(float), "parts change the bits");
    }
    c.out = kc_copy(t, whole->x, span(whole->n, whole->d, whole->x_stride));
    c.out_stride = whole->x_stride;
    c.x = c.out;
    kc_parts(call, &c, 1);
    for (size_t r = 0; r < c.n; r++) {
        const float *row = whole->out + r * whole->out_stride;
        kc_same(t, c.out + r * c.out_stride, row, c.d * sizeof(float), "in place changes the bits");
        norm_case one = *whole;
        one.n = 1;
        one.x = whole->x + r * whole->x_stride;
        one.out = kc_floats(t, c.d);
        kc_parts(call, &one, 1);
        kc_same(t, one.out, row, c.d * sizeof(float), "a row alone has other bits");
    }
}

static void check_case(kc *t, size_t n, size_t d, kc_kind kind, bool weighted)
{
    const size_t x_stride = d + d % 3, out_stride = d + d % 2;
    norm_case c = {.k = &t->k, .n = n, .d = d, .x_stride = x_stride, .out_stride = out_stride, .eps = 1e-5f};
    c.x = kc_input(t, span(n, d, x_stride), kind);
    c.w = weighted ? kc_input(t, d, KC_NORMAL) : NULL;
    c.out = kc_floats(t, span(n, d, out_stride));
    kc_parts(call, &c, 1);
    norm_case ref = c;
    ref.k = &t->ref;
    ref.out = kc_floats(t, span(n, d, out_stride));
    kc_parts(call, &ref, 1);
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < d; i++) {
            const double want = (double)ref.out[r * out_stride + i];
            kc_near(t, (double)c.out[r * out_stride + i], want, 3.0 * FLT_EPSILON * fabs(want) + 0x1p-148, "value");
        }
    }
    same_bits(t, &c);
    kc_release(t);
}

/* Three runs of columns at once: the bits of three calls, and of the pack of the first run. */
typedef struct three_case {
    const fm_kernels *k;
    float *out;
    const float *x;
    size_t stride, d[3], n;
    fm_xform form;
    void *packed;
} three_case;

static void call_three(void *ctx, const fm_run *run)
{
    const three_case *c = ctx;
    c->k->rmsnorm_three(run, c->out, c->stride, c->form, c->packed, c->x, c->stride, c->d, c->n, 1e-6f);
}

typedef struct pack_case {
    void (*pack_x)(const fm_pack_args *a);
    fm_pack_args a;
} pack_case;

static void call_pack(void *ctx, const fm_run *run)
{
    pack_case *c = ctx;
    c->a.stream = run->stream;
    c->pack_x(&c->a);
}

static void check_three(kc *t, fm_xform form, size_t n, size_t a, size_t b)
{
    const size_t stride = a + 2 * b + b % 4;
    three_case c = {
        .k = &t->k, .stride = stride, .d = {a, b, b}, .n = n, .form = form, .x = kc_input(t, n * stride, KC_NORMAL)};
    if (!t->k.rmsnorm_three) return;
    c.out = kc_floats(t, n * stride);
    const size_t bytes = t->k.pack_x_bytes(form, n, a);
    unsigned char *packed = kc_bytes(t, bytes), *want = kc_bytes(t, bytes);
    if (t->k.packs(&(fm_run){.n_parts = 1, .stream = kc_device()}, form, false, packed, n, a)) c.packed = packed;
    kc_parts(call_three, &c, 1);
    float *out = kc_floats(t, n * stride);
    for (size_t i = 0, at = 0; i < 3; at += c.d[i++]) {
        norm_case one = {
            .k = &t->k, .out = out + at, .x = c.x + at, .out_stride = stride, .x_stride = stride, .n = n, .eps = 1e-6f};
        one.d = c.d[i];
        kc_parts(call, &one, 1);
    }
    kc_same(t, c.out, out, n * stride * sizeof(float), "three at once");
    if (!c.packed || (form == FM_X_BF16 && n == 1)) { /* the pack of one row is made later */
        kc_release(t);
        return;
    }
    pack_case p = {t->k.pack_x[form],
                   {.out = want, .x = c.out, .x_stride = stride, .n = n, .cols = a, .row_end = n, .col_end = a}};
    kc_parts(call_pack, &p, 1);
    kc_same(t, packed, want, bytes, "pack of the first of three");
    kc_release(t);
}

static void check(kc *t)
{
    check_three(t, FM_X_BF16, 5, 256, 16);
    check_three(t, FM_X_BF16, 3, 47, 5);
    check_three(t, FM_X_BF16, 2, 600, 8);
    for (size_t n = 1; n <= 65; n += n < 3 || n > 62 ? 1 : 15) {
        check_three(t, FM_X_Q8_256, n, 256, 16);
        check_three(t, FM_X_Q8_256, n, 512, 9);
        check_three(t, FM_X_Q8_256, n, 768, 16);
        check_three(t, FM_X_Q8_32, n, 96, 5);
    }
    for (size_t i = 0; i < kc_n_sizes; i++) check_case(t, 3, kc_sizes[i], KC_NORMAL, i % 2);
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) {
        check_case(t, 5, 37, (kc_kind)kind, true);
        check_case(t, 1, 256, (kc_kind)kind, false);
    }
    check_case(t, 9, 4096, KC_LARGE, true);
}

static void bench(kc *t)
{
    const size_t n = 16, d = 4096;
    norm_case c = {.k = &t->k, .n = n, .d = d, .x_stride = d, .out_stride = d, .eps = 1e-5f};
    c.x = kc_input(t, n * d, KC_NORMAL);
    c.w = kc_input(t, d, KC_NORMAL);
    c.out = kc_floats(t, n * d);
    kc_time(t, "16 rows of 4096", 2.0 * sizeof(float) * (double)(n * d), "GB/s", call, &c);
}

const kc_op kc_op_rmsnorm = {.name = "rmsnorm", .check = check, .bench = bench};
