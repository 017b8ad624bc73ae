/* check_product.c - products of gradients against the reference, and the same bits for any number of parts.
 *
 * The reference rounds once; a sum of k products in float, in any order, is off by at most (k + 2) epsilon of the sum of
 * magnitudes, what stood there before counted in.  Each of its roundings may lose half a denormal besides. */
#include <stdio.h>

#include "tests/kernelcheck/kernelcheck.h"

typedef struct product_case {
    const fm_kernels *k;
    fm_product_args a;
    float *scratch[8]; /* a worker each */
} product_case;

static void call(void *ctx, const fm_run *run)
{
    const product_case *c = ctx;
    fm_product_args a = c->a;
    a.scratch = c->scratch[run->part];
    c->k->product(run, &a);
}

static product_case fresh(kc *t, const product_case *from, const fm_kernels *k, unsigned n_parts)
{
    product_case c = *from;
    c.k = k;
    c.a.out = kc_copy(t, from->a.out, c.a.m * c.a.out_stride);
    for (unsigned i = 0; i < n_parts; i++) c.scratch[i] = kc_floats(t, k->product_floats(c.a.m));
    return c;
}

static double magnitude(const product_case *c, size_t i, size_t j)
{
    const fm_product_args *a = &c->a;
    double sum = a->add ? fabs((double)a->out[i * a->out_stride + j]) : 0.0;
    for (size_t k = 0; k < a->k; k++)
        sum += fabs((double)(a->turned ? a->a[k * a->a_stride + i] : a->a[i * a->a_stride + k]) *
                    (double)a->b[k * a->b_stride + j]);
    return sum;
}

static void compare(kc *t, const product_case *input, const product_case *got, const product_case *want)
{
    const fm_product_args *a = &input->a;
    char where[96];
    snprintf(where, sizeof where, "m %zu n %zu k %zu%s%s", a->m, a->n, a->k, a->turned ? " turned" : "", a->add ? " add" : "");
    for (size_t i = 0; i < a->m; i++)
        for (size_t j = 0; j < a->n; j++) {
            const double terms = (double)a->k + 2.0, bound = terms * (FLT_EPSILON * magnitude(input, i, j) + 0x1p-149);
            kc_near(t, (double)got->a.out[i * a->out_stride + j], (double)want->a.out[i * a->out_stride + j], bound, where);
        }
}

static void check_case(kc *t, size_t m, size_t n, size_t k, unsigned how, kc_kind kind)
{
    const bool turned = how & 1, add = how & 2;
    const size_t a_rows = turned ? k : m, a_cols = turned ? m : k;
    product_case input = {.a = {.out = kc_input(t, m * (n + 3), kind),
                                .out_stride = n + 3,
                                .a = kc_input(t, a_rows * (a_cols + 1), kind),
                                .a_stride = a_cols + 1,
                                .b = kc_input(t, k * (n + 2), kind),
                                .b_stride = n + 2,
                                .m = m,
                                .n = n,
                                .k = k,
                                .turned = turned,
                                .add = add}};
    product_case ref = fresh(t, &input, &t->ref, 1), whole = fresh(t, &input, &t->k, 1);
    kc_parts(call, &ref, 1);
    kc_parts(call, &whole, 1);
    compare(t, &input, &whole, &ref);
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        product_case c = fresh(t, &input, &t->k, kc_part_counts[i]);
        kc_parts(call, &c, kc_part_counts[i]);
        kc_same(t, c.a.out, whole.a.out, m * (n + 3) * sizeof(float), "the split changes bits");
    }
    kc_release(t);
}

/* Sizes around a tile, a panel and a block of every table; 500 rows are more than one packed block. */
static void check(kc *t)
{
    static const size_t m[] = {1, 3, 5, 6, 7, 11, 12, 13, 23, 25, 50, 500}, n[] = {1, 4, 7, 15, 16, 17, 31, 32, 33, 48, 70},
                        k[] = {1, 2, 3, 4, 5, 16, 67, 255, 256, 257, 600};
    for (unsigned how = 0; how < 4; how++) {
        for (size_t i = 0; i < sizeof m / sizeof *m; i++) check_case(t, m[i], n[i % 11], k[(i * 7 + 3) % 11], how, KC_NORMAL);
        for (size_t i = 0; i < 11; i++) check_case(t, m[(i * 5 + 2) % 11], n[i], k[(i * 3 + 1) % 11], how, KC_NORMAL);
        for (size_t i = 0; i < 11; i++) check_case(t, m[(i * 3 + 6) % 11], n[(i * 7 + 5) % 11], k[i], how, KC_NORMAL);
        for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_case(t, 29, 37, 70, how, (kc_kind)kind);
    }
}

static void bench_shape(kc *t, size_t m, size_t n, size_t k, bool turned)
{
    product_case c = {.k = &t->k};
    char what[64];
    snprintf(what, sizeof what, "%zu x %zu x %zu%s", m, n, k, turned ? ", turned" : "");
    c.a = (fm_product_args){.out = kc_input(t, m * n, KC_NORMAL),
                            .out_stride = n,
                            .a = kc_input(t, m * k, KC_NORMAL),
                            .a_stride = turned ? m : k,
                            .b = kc_input(t, k * n, KC_NORMAL),
                            .b_stride = n,
                            .m = m,
                            .n = n,
                            .k = k,
                            .turned = turned};
    c.scratch[0] = kc_floats(t, t->k.product_floats(m));
    kc_time(t, what, 2.0 * (double)m * (double)n * (double)k, "GOP/s", call, &c);
    kc_release(t);
}

/* In_proj, dt_proj and the head of the model that ships, and in_proj of 130M: gradients of input and weights. */
static void bench(kc *t)
{
    static const size_t shapes[][3] = {{1024, 1024, 256}, {1024, 512, 16}, {256, 4096, 256}, {512, 3072, 768}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        bench_shape(t, shapes[i][0], shapes[i][2], shapes[i][1], false);
        bench_shape(t, shapes[i][1], shapes[i][2], shapes[i][0], true);
    }
}

const kc_op kc_op_product = {.name = "product", .check = check, .bench = bench};
