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
    bool f32;
} many;

/* To nearest even; what is not finite stays so. */
static float bf16_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7f800000) == 0x7f800000) return v;
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static void *to_device(const void *p, size_t bytes)
{
    fm_stream *s = kc_device();
    void *there = fm_stream_alloc(s, bytes);
    if (!there) abort();
    fm_stream_upload(s, there, p, bytes);
    return there;
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
        &(fm_linear_args){.y = y, .y_stride = rows, .x = packed, .W = &m->W, .bias = bias, .add = true, .n = n});
    fm_stream_download(s, out, y, bytes);
    const char *why = NULL;
    if (!fm_stream_wait(s, &why)) {
        fprintf(stderr, "kernelcheck: %s\n", why);
        exit(2);
    }
    fm_stream_free(s, x), fm_stream_free(s, y), fm_stream_free(s, bias), fm_stream_free(s, packed);
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
                const float x = m->x[i * cols + c], p = m->f32 ? w[c] : bf16_of(w[c]), q = m->f32 ? x : bf16_of(x);
                sum += (double)p * (double)q;
                S += fabs((double)p * (double)q);
            }
            const double bias = m->bias ? (double)m->bias[r] : 0.0, old = (double)m->y[i * rows + r], want = sum + bias + old;
            const double bound = FLT_EPSILON * (((double)cols + 2) * S + 2 * fabs(bias) + 2 * fabs(old)) + 0x1p-126;
            kc_near(t, (double)got[i * rows + r], want, bound, "value");
        }
    }
}

static void check_case(kc *t, fm_dtype type, size_t rows, size_t cols, size_t n, bool f32)
{
    fm_stream *s = kc_device();
    many m = {.x = kc_input(t, n * cols, KC_NORMAL), .y = kc_input(t, n * rows, KC_NORMAL), .n = n, .f32 = f32};
    size_t bytes = 0;
    float *row = kc_floats(t, cols);
    kc_true(t, fm_dtype_bytes(type, 1, cols, &bytes), "whole blocks");
    unsigned char *raw = kc_bytes(t, rows * bytes);
    for (size_t r = 0; r < rows; r++) {
        kc_fill(t, row, cols, KC_NORMAL);
        fm_dtype_get(type)->encode(raw + r * bytes, row, NULL, cols);
    }
    if (rows % 2) m.bias = kc_input(t, rows, KC_NORMAL);
    m.raw = (fm_tensor){raw, type, rows, cols, bytes};
    const size_t stored = fm_cuda_row_bytes(type, cols);
    void *W = fm_stream_alloc(s, rows * stored);
    m.W = (fm_tensor){W, type, rows, cols, stored};
    void *there = to_device(raw, rows * bytes);
    fm_cuda_store(s, W, there, type, rows, cols);
    float *got = product(t, &m, n);
    compare(t, &m, got);
    for (size_t few = 17; few < n; few *= 2) {
        float *head = product(t, &m, few);
        kc_same(t, head, got, few * rows * sizeof *got, "tokens of a shorter step have other bits");
        free(head);
    }
    free(got);
    fm_stream_free(s, there);
    fm_stream_free(s, W);
    kc_release(t);
}

static void check(kc *t)
{
    const bool f32 = kc_device_options().f32;
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        const size_t block = fm_dtype_get((fm_dtype)type)->block;
        check_case(t, (fm_dtype)type, 33, 256 * 2, 17, f32);
        check_case(t, (fm_dtype)type, 130, block == 1 ? 100 : 256, 150, f32);
    }
    check_case(t, FM_BF16, 17, 257, 19, f32);
    check_case(t, FM_F32, 512, 1024, 600, f32);
    check_case(t, FM_BF16, 512, 1024, 1100, f32);
    check_case(t, FM_BF16, 64, 2048, 300, f32); /* narrow: k is cut */
}

const kc_op kc_op_many = {.name = "many", .check = check};
