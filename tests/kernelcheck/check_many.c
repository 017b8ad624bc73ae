/* check_many.c - products of many tokens on a device, which round inputs and weights to bf16, or nothing (fm_stream_options.f32).
 *
 * The truth is summed in double from what was rounded.  A sum of `cols` products in f32, in any order, is within cols epsilon S
 * of it where every addition may cut off instead of rounding, S = sum |w x|; then bias and old y round once each.  Rows of equal
 * inputs in steps of different lengths must have the same bits, whatever plan each length took. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/kernelcheck/kernelcheck.h"

typedef struct many {
    fm_tensor raw, W;          /* on the host as in a file; on the device as stored */
    const float *x, *bias, *y; /* on the host: (n, cols), (rows) or NULL, (n, rows) before the product */
    size_t n;
    bool f32, half; /* half: y is bf16, without bias and old y */
} many;

static void *to_device(const void *p, size_t bytes)
{
    fm_stream *s = kc_device();
    void *there = fm_stream_alloc(s, bytes);
    if (!there) abort();
    fm_stream_upload(s, there, p, bytes);
    return there;
}

/* Numbers of bf16 in the place of the floats they are widened to. */
static void widen(float *p, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const char *)p + i * sizeof half, sizeof half);
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(p + i, &bits, sizeof bits);
    }
}

/* y of the first n tokens, on the host; the caller frees it. */
static float *product(const kc *t, const many *m, size_t n)
{
    fm_stream *s = kc_device();
    const fm_xform form = fm_xform_of(m->W.type);
    const size_t cols = m->W.cols, rows = m->W.rows, bytes = n * rows * sizeof(float);
    float *x = to_device(m->x, n * cols * sizeof *x), *y = to_device(m->y, bytes), *out = malloc(bytes);
    float *bias = m->bias ? to_device(m->bias, rows * sizeof *bias) : NULL;
    void *packed = fm_stream_alloc(s, t->k.pack_x_bytes(form, n, cols));
    if (!packed || !out || !fm_stream_reserve(s, fm_cuda_work_bytes(s, &m->W, n))) abort();
    t->k.pack_x[form](&(fm_pack_args){
        .out = packed, .x = x, .x_stride = cols, .n = n, .cols = cols, .row_end = n, .col_end = cols, .stream = s});
    t->k.linear[m->W.type](
        &(fm_run){.n_parts = 1, .stream = s},
        &(fm_linear_args){
            .y = y, .y_stride = rows, .x = packed, .W = &m->W, .bias = bias, .add = !m->half, .half = m->half, .n = n});
    fm_stream_download(s, out, y, bytes);
    const char *why = NULL;
    if (!fm_stream_wait(s, &why)) {
        fprintf(stderr, "kernelcheck: %s\n", why);
        exit(2);
    }
    fm_stream_free(s, x), fm_stream_free(s, y), fm_stream_free(s, bias), fm_stream_free(s, packed);
    if (m->half) widen(out, n * rows);
    return out;
}

static void compare(kc *t, const many *m, const float *got)
{
    const size_t rows = m->W.rows, cols = m->W.cols;
    float *w = kc_floats(t, cols);
    for (size_t r = 0; r < rows; r++) {
        fm_dtype_get(m->raw.type)->decode(w, fm_tensor_row(&m->raw, r), cols);
        for (size_t i = 0; i<m->n; i += m->n> 40 ? 13 : 1) {
            double sum = 0, S = 0;
            for (size_t c = 0; c < cols; c++) {
                const float x = m->x[i * cols + c], p = m->f32 ? w[c] : kc_rounded(w[c]), q = m->f32 ? x : kc_rounded(x);
                sum += (double)p * (double)q;
                S += fabs((double)p * (double)q);
            }
            const double bias = m->bias ? (double)m->bias[r] : 0.0, old = m->half ? 0.0 : (double)m->y[i * rows + r];
            const double want = sum + bias + old;
            const double f32 = FLT_EPSILON * (((double)cols + 2) * S + 2 * fabs(bias) + 2 * fabs(old)) + 0x1p-126;
            const double bound = f32 + (m->half ? 0x1p-8 * (fabs(want) + f32) : 0.0);
            kc_near(t, (double)got[i * rows + r], want, bound, "value");
        }
    }
}

/* The fewest tokens that take these kernels: up to 64 of quantised weights have the bits of few. */
static size_t many_of(fm_dtype type)
{
    return fm_dtype_get(type)->is_float ? 17 : 65;
}

static void check_case(kc *t, fm_dtype type, size_t rows, size_t cols, size_t n, bool half)
{
    fm_stream *s = kc_device();
    many m = {.x = kc_input(t, n * cols, KC_NORMAL), .y = kc_input(t, n * rows, KC_NORMAL), .n = n};
    m.f32 = kc_device_options().f32;
    m.half = half;
    m.raw = kc_matrix(t, type, rows, cols);
    if (rows % 2) m.bias = kc_input(t, rows, KC_NORMAL);
    const size_t stored = fm_cuda_row_bytes(type, cols);
    void *W = fm_stream_alloc(s, rows * stored);
    m.W = (fm_tensor){W, type, rows, cols, stored};
    void *there = to_device(m.raw.data, rows * m.raw.stride);
    fm_cuda_store(s, W, there, type, rows, cols);
    float *got = product(t, &m, n);
    compare(t, &m, got);
    for (size_t few = many_of(type); few < n; few *= 2) {
        float *head = product(t, &m, few);
        kc_same(t, head, got, few * rows * sizeof *got, "tokens of a shorter step have other bits");
        free(head);
    }
    free(got);
    fm_stream_free(s, there);
    fm_stream_free(s, W);
    kc_release(t);
}

/* A product and three norms at once: y, the normed rows and the pack of the first run have the bits of two calls. */
typedef struct three {
    float *y, *out; /* (n, rows) */
    void *packed;   /* (n, d[0]) of bf16 */
} three;

static three three_place(fm_stream *s, size_t n, size_t rows)
{
    return (three){fm_stream_alloc(s, n * rows * sizeof(float)), fm_stream_alloc(s, n * rows * sizeof(float)),
                   fm_stream_alloc(s, n * rows * sizeof(float))};
}

static void three_same(kc *t, const three *a, const three *b, size_t n, size_t rows, size_t first)
{
    fm_stream *s = kc_device();
    const void *from[2][3] = {{a->y, a->out, a->packed}, {b->y, b->out, b->packed}};
    const size_t bytes[3] = {n * rows * sizeof(float), n * rows * sizeof(float), n * first * sizeof(uint16_t)};
    const char *why;
    for (size_t i = 0; i < 3; i++) {
        unsigned char *host[2] = {malloc(bytes[i]), malloc(bytes[i])};
        if (!host[0] || !host[1]) abort();
        for (size_t k = 0; k < 2; k++) fm_stream_download(s, host[k], from[k][i], bytes[i]);
        kc_true(t, fm_stream_wait(s, &why), "a product and its norms");
        kc_same(t, host[0], host[1], bytes[i], "a product and its norms at once have other bits");
        free(host[0]), free(host[1]);
    }
}

static void check_three(kc *t, size_t first, size_t state, size_t cols, size_t n)
{
    fm_stream *s = kc_device();
    const size_t rows = first + 2 * state, d[3] = {first, state, state};
    const fm_run run = {.n_parts = 1, .stream = s};
    float *w = kc_input(t, rows * cols, KC_NORMAL);
    fm_tensor W = {to_device(kc_half(t, w, rows * cols), rows * cols * 2), FM_BF16, rows, cols, cols * 2};
    if (!t->k.has_three || !t->k.has_three(&run, &W, n, d)) kc_true(t, false, "expected both at once for this shape");
    const void *x = to_device(kc_half(t, kc_input(t, n * cols, KC_NORMAL), n * cols), n * cols * 2);
    three two = three_place(s, n, rows), one = three_place(s, n, rows);
    fm_linear_three_args a = {
        .product = {.y = two.y, .y_stride = rows, .x = x, .W = &W, .n = n}, .out_stride = rows, .eps = 1e-6f};
    memcpy(a.d, d, sizeof d);
    if (!fm_stream_reserve(s, fm_cuda_work_bytes(s, &W, n))) abort();
    t->k.linear[FM_BF16](&run, &a.product);
    t->k.rmsnorm_three(&run, two.out, rows, FM_X_BF16, two.packed, two.y, rows, d, n, a.eps);
    a.product.y = one.y, a.out = one.out, a.packed = one.packed;
    t->k.linear_three(&run, &a);
    three_same(t, &one, &two, n, rows, first);
    void *all[] = {two.y, two.out, two.packed, one.y, one.out, one.packed, (void *)(uintptr_t)x, (void *)(uintptr_t)W.data};
    for (size_t i = 0; i < FM_COUNT(all); i++) fm_stream_free(s, all[i]);
    kc_release(t);
}

static void check(kc *t)
{
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        const size_t block = fm_dtype_get((fm_dtype)type)->block;
        check_case(t, (fm_dtype)type, 33, 256 * 2, many_of((fm_dtype)type), false);
        check_case(t, (fm_dtype)type, 130, block == 1 ? 100 : 256, 150, false);
    }
    check_case(t, FM_BF16, 17, 257, 19, false);
    check_case(t, FM_F32, 512, 1024, 600, false);
    check_case(t, FM_BF16, 512, 1024, 1100, false);
    check_case(t, FM_BF16, 64, 2048, 300, false); /* narrow: k is cut */
    check_case(t, FM_BF16, 516, 4104, 70, false); /* more stages than a ring has, the last not whole */
    if (kc_device_options().f32 || kc_device_options().invariant) return;
    check_three(t, 256, 16, 2048, 70);
    check_three(t, 384, 64, 2048, 2050);
    check_case(t, FM_BF16, 512, 1024, 1100, true);
    check_case(t, FM_BF16, 130, 256, 150, true);
    check_case(t, FM_Q4_K, 512, 256, 70, true);
    check_case(t, FM_F32, 256, 128, 33, true);
}

const kc_op kc_op_many = {.name = "many", .check = check};
