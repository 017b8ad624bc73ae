/* test_linear.c - every table's products against the reference, against products in double of decoded weights, and against
 * themselves under every split and number of tokens.  Weights and inputs end at pages that must not be touched. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kernels/linear.h"

enum { N = 40, ROWS_MAX = 67 };

typedef struct table {
    const char *name;
    unsigned needs;
    void (*fill)(fm_kernels *k);
} table;

#if defined(__x86_64__)
/* Only products with BF16 weights differ. */
static void fill_bf16(fm_kernels *k)
{
    fm_linear_fill_avx512_vnni(k);
    fm_linear_fill_avx512_bf16(k);
}

static void fill_avx2_stream(fm_kernels *k)
{
    fm_linear_fill_avx2(k);
    fm_linear_stream_avx2(k);
}

static void fill_avx512_stream(fm_kernels *k)
{
    fm_linear_fill_avx512(k);
    fm_linear_stream_avx512(k);
}
#endif

static const table tables[] = {
    {"ref", 0, fm_linear_fill_ref},
#if defined(__x86_64__)
    {"avx2", FM_CPU_AVX2, fm_linear_fill_avx2},
    {"avx512", FM_CPU_AVX512, fm_linear_fill_avx512},
    {"avx512+vnni", FM_CPU_AVX512_VNNI, fm_linear_fill_avx512_vnni},
    {"avx512+vnni+bf16", FM_CPU_AVX512_BF16, fill_bf16},
    {"avx512+vnni+amx", FM_CPU_AMX_INT8, fm_linear_fill_amx},
    {"avx2, row by row", FM_CPU_AVX2, fill_avx2_stream},
    {"avx512, row by row", FM_CPU_AVX512, fill_avx512_stream},
#elif defined(__aarch64__)
    {"neon", FM_CPU_NEON, fm_linear_fill_neon},
    {"neon+dotprod", FM_CPU_DOTPROD, fm_linear_fill_neon_dotprod},
#endif
};

static uint64_t seed = 1;

static uint32_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static float draw_float(void)
{
    return (float)draw() / 1073741824.0f - 1.0f;
}

/* Memory that ends exactly where a forbidden page begins. */
typedef struct guarded {
    void *base, *p;
    size_t mapped;
} guarded;

static guarded guarded_new(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + page - 1) / page * page;
    guarded g = {.mapped = used + page};
    g.base = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.base != MAP_FAILED);
    assert_int_equal(mprotect((char *)g.base + used, page, PROT_NONE), 0);
    g.p = (char *)g.base + used - bytes;
    return g;
}

static void guarded_free(guarded *g)
{
    munmap(g->base, g->mapped);
}

/* Where a block keeps its f16 scales; -1 for none. */
static void scale_offsets(fm_dtype type, int at[2])
{
    at[0] = 0, at[1] = -1;
    if (type == FM_Q4_1 || type == FM_Q5_1 || type == FM_Q4_K || type == FM_Q5_K ||
        type == FM_INT4_G128)
        at[1] = 2;
    if (type == FM_Q2_K) at[0] = 80, at[1] = 82;
    if (type == FM_Q3_K) at[0] = 108;
    if (type == FM_Q6_K) at[0] = 208;
}

/* Random codes of every value, with scales that keep sums moderate. */
static void fill_row(uint8_t *row, fm_dtype type, size_t cols)
{
    const fm_dtype_traits *t = fm_dtype_get(type);
    for (size_t b = 0; b < cols / t->block; b++, row += t->bytes) {
        int at[2];
        if (t->is_float) {
            const float v = draw_float();
            const uint16_t h = type == FM_F16 ? fm_f32_to_f16(v) : fm_f32_to_bf16(v);
            memcpy(row, type == FM_F32 ? (const void *)&v : (const void *)&h, t->bytes);
            continue;
        }
        for (size_t i = 0; i < t->bytes; i++) row[i] = (uint8_t)draw();
        scale_offsets(type, at);
        for (int i = 0; i < 2; i++) {
            const uint16_t h = fm_f32_to_f16(draw_float() * 0.01f);
            if (at[i] >= 0) memcpy(row + at[i], &h, sizeof h);
        }
    }
}

/* One product: its weights, inputs and the reference's answer. */
typedef struct product {
    fm_tensor W;
    guarded w, x;
    float *bias;
    size_t n;
} product;

static product product_new(fm_dtype type, size_t rows, size_t cols, size_t n)
{
    product p = {.W = {.type = type, .rows = rows, .cols = cols}, .n = n};
    size_t bytes;
    assert_true(fm_dtype_bytes(type, 1, cols, &bytes));
    const size_t gap = rows % 2 ? 4 : 0;
    p.W.stride = bytes + gap;
    p.w = guarded_new(p.W.stride * (rows - 1) + bytes);
    p.W.data = p.w.p;
    for (size_t r = 0; r < rows; r++) fill_row((uint8_t *)p.w.p + r * p.W.stride, type, cols);
    p.x = guarded_new(n * cols * sizeof(float));
    for (size_t i = 0; i < n * cols; i++) ((float *)p.x.p)[i] = draw_float() * (float)(1 + draw() % 3);
    p.bias = malloc(rows * sizeof *p.bias);
    assert_non_null(p.bias);
    for (size_t r = 0; r < rows; r++) p.bias[r] = draw_float();
    return p;
}

static void product_free(product *p)
{
    guarded_free(&p->w);
    guarded_free(&p->x);
    free(p->bias);
}

typedef struct how {
    size_t first, n; /* tokens */
    unsigned parts;
    bool bias, add;
} how;

static void pack(const fm_kernels *k, fm_xform form, void *out, const float *x, size_t n, size_t cols)
{
    k->pack_x[form](&(fm_pack_args){.out = out, .x = x, .x_stride = cols, .n = n, .cols = cols, .row_end = n, .col_end = cols});
}

/* y (n, rows) by one table. */
static void compute(const fm_kernels *k, const product *p, how h, float *y)
{
    const fm_xform form = fm_xform_of(p->W.type);
    guarded packed = guarded_new(k->pack_x_bytes(form, h.n, p->W.cols));
    const float *x = (const float *)p->x.p + h.first * p->W.cols;
    const fm_linear_args a = {
        .y = y, .y_stride = p->W.rows, .x = packed.p, .W = &p->W, .n = h.n, .bias = h.bias ? p->bias : NULL, .add = h.add};
    pack(k, form, packed.p, x, h.n, p->W.cols);
    for (unsigned i = 0; i < h.parts; i++) k->linear[p->W.type](&(fm_run){.part = i, .n_parts = h.parts}, &a);
    guarded_free(&packed);
}

/* Largest error allowed against double: rounding of inputs by half a step per block, and of the float sum. */
static void check_exact(const product *p, const float *y, const char *name)
{
    const size_t cols = p->W.cols, block = fm_xform_of(p->W.type) == FM_X_Q8_32 ? 32 : 256;
    const bool rounded = !fm_dtype_get(p->W.type)->is_float, bf16 = p->W.type == FM_BF16;
    float *w = malloc(cols * sizeof *w);
    assert_non_null(w);
    for (size_t r = 0; r < p->W.rows; r++) {
        fm_dtype_get(p->W.type)->decode(w, fm_tensor_row(&p->W, r), cols);
        for (size_t t = 0; t < p->n; t++) {
            const float *x = (const float *)p->x.p + t * cols;
            double sum = 0, bound = 0;
            for (size_t b = 0; b < cols; b += block) {
                double top = 0, size = 0, wtop = 0;
                const size_t end = b + block < cols ? b + block : cols;
                for (size_t j = b; j < end; j++) {
                    sum += (double)w[j] * (double)x[j];
                    top = fmax(top, fabs((double)x[j]));
                    wtop = fmax(wtop, fabs((double)w[j]));
                    size += fabs((double)w[j]);
                }
                if (bf16) bound += wtop * top * (double)(end - b) * 0x1p-8;
                if (rounded) bound += size * top / 127 * 0.5001;
                bound += 0x1p-24 * (double)(end - b) * wtop * top * (rounded ? 8.0 : (double)cols / 4 + 8);
            }
            if (fabs(sum - (double)y[t * p->W.rows + r]) > bound)
                fail_msg("%s %s (%zu,%zu) row %zu token %zu: %g, expected %g +- %g", name, fm_dtype_get(p->W.type)->name,
                         p->W.rows, cols, r, t, (double)y[t * p->W.rows + r], sum, bound);
        }
    }
    free(w);
}

static void check_equal(const product *p, const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n * p->W.rows; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0 && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("%s %s (%zu,%zu) token %zu row %zu: %.9g, expected %.9g", what, fm_dtype_get(p->W.type)->name, p->W.rows,
                     p->W.cols, i / p->W.rows, i % p->W.rows, (double)a[i], (double)b[i]);
}

static void check_schedules(const fm_kernels *k, const product *p, const float *whole)
{
    static const unsigned parts[] = {2, 3, 7};
    float *y = malloc(N * ROWS_MAX * sizeof *y);
    assert_non_null(y);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        compute(k, p, (how){0, p->n, parts[i], false, false}, y);
        check_equal(p, y, whole, p->n, "parts");
    }
    for (size_t n = 1; n <= p->n; n += n < 13 ? 1 : 9) {
        compute(k, p, (how){0, n, 1, false, false}, y);
        check_equal(p, y, whole, n, "tokens");
    }
    for (size_t t = 0; t < p->n; t++) {
        compute(k, p, (how){t, 1, 1, false, false}, y);
        check_equal(p, y, whole + t * p->W.rows, 1, "one token");
    }
    compute(k, p, (how){0, p->n, 1, true, false}, y);
    compute(k, p, (how){0, p->n, 2, true, true}, y);
    for (size_t i = 0; i < p->n * p->W.rows; i++) {
        const float one = whole[i] + p->bias[i % p->W.rows];
        const float two = one + one;
        assert_memory_equal(&y[i], &two, sizeof two);
    }
    free(y);
}

static void check_product(fm_dtype type, size_t rows, size_t cols)
{
    product p = product_new(type, rows, cols, N);
    float *want = malloc(N * ROWS_MAX * sizeof *want), *got = malloc(N * ROWS_MAX * sizeof *got);
    assert_true(want && got);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        fm_kernels k = {0};
        if ((fm_cpu_features() & tables[i].needs) != tables[i].needs) continue;
        tables[i].fill(&k);
        memset(got, 0xff, N * ROWS_MAX * sizeof *got);
        compute(&k, &p, (how){0, N, 1, false, false}, got);
        check_exact(&p, got, tables[i].name);
        if (i == 0) memcpy(want, got, N * rows * sizeof *want);
        if (!fm_dtype_get(type)->is_float) check_equal(&p, got, want, N, tables[i].name);
        check_schedules(&k, &p, got);
    }
    free(want);
    free(got);
    product_free(&p);
}

static void test_products(void **state)
{
    static const size_t rows[] = {1, 3, 16, 33, 67}, blocks[] = {1, 2, 3, 9}, cols[] = {1, 3, 7, 16, 33, 301};
    (void)state;
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        const fm_dtype_traits *t = fm_dtype_get((fm_dtype)type);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            if (t->is_float)
                for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) check_product((fm_dtype)type, rows[r], cols[c]);
            else
                for (size_t b = 0; b < (t->block == 32 ? 4u : 3u); b++)
                    check_product((fm_dtype)type, rows[r], blocks[b] * t->block);
        }
    }
}

/* More tokens than a token group, more columns than one pass. */
static void test_many_tokens(void **state)
{
    static const fm_dtype types[] = {FM_F32, FM_F16, FM_BF16, FM_Q8_0, FM_Q4_K, FM_INT4_G128};
    (void)state;
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        product p = product_new(types[i], 17, i < 3 ? 2300 : 1024, 301);
        float *y = malloc(301 * 17 * sizeof *y), *one = malloc(17 * sizeof *one);
        assert_true(y && one);
        for (size_t j = 0; j < sizeof tables / sizeof *tables; j++) {
            fm_kernels k = {0};
            if ((fm_cpu_features() & tables[j].needs) != tables[j].needs) continue;
            tables[j].fill(&k);
            compute(&k, &p, (how){0, 301, 3, false, false}, y);
            for (size_t t = 0; t < 301; t++) {
                compute(&k, &p, (how){t, 1, 1, false, false}, one);
                check_equal(&p, one, y + t * 17, 1, tables[j].name);
            }
        }
        free(y);
        free(one);
        product_free(&p);
    }
}

/* Tokens: 0 zero, 1 with a NaN, 2 with an Inf, 3 too small to scale, 4 ordinary; row 1 has a NaN scale. */
static void check_strange(const fm_kernels *k, fm_dtype type)
{
    const fm_dtype_traits *traits = fm_dtype_get(type);
    product p = product_new(type, 2, 256, 5);
    float *x = p.x.p, y[10];
    memset(x, 0, 256 * sizeof *x);
    x[256 + 40] = NAN;
    x[512 + 200] = -INFINITY;
    for (int i = 0; i < 256; i++) x[768 + i] = 1e-44f;
    if (!traits->is_float) {
        int at[2];
        const uint16_t nan_half = 0x7e00;
        scale_offsets(type, at);
        memcpy((uint8_t *)p.w.p + p.W.stride + at[0], &nan_half, sizeof nan_half);
    }
    compute(k, &p, (how){0, 5, 1, false, false}, y);
    assert_true(y[0] == 0.0f && isnan(y[2]) && (traits->is_float || isnan(y[4])) && !isfinite(y[4]));
    assert_true(fabsf(y[6]) < 1e-38f && isfinite(y[8]));
    if (!traits->is_float)
        for (int t = 0; t < 5; t++) assert_true(isnan(y[2 * t + 1]));
    product_free(&p);
}

static void test_strange_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        fm_kernels k = {0};
        if ((fm_cpu_features() & tables[i].needs) != tables[i].needs) continue;
        tables[i].fill(&k);
        for (int type = 0; type < FM_DTYPE_COUNT; type++) check_strange(&k, (fm_dtype)type);
    }
}

/* Inputs whose quotients lie halfway between integers round to even, and every table packs the same bytes. */
static void test_packing(void **state)
{
    (void)state;
    float x[512];
    fm_x256 o[2];
    for (int i = 0; i < 256; i++) x[i] = (float)(i % 128) - 0.5f, x[i + 256] = draw_float();
    x[0] = 127.0f;
    fm_kernels ref = {0};
    fm_linear_fill_ref(&ref);
    pack(&ref, FM_X_Q8_256, o, x, 2, 256);
    assert_true(o[0].d == 1.0f);
    assert_int_equal(o[0].q[1], 0);
    assert_int_equal(o[0].q[2], 2);
    assert_int_equal(o[0].q[127], 126);
    for (size_t i = 1; i < sizeof tables / sizeof *tables; i++) {
        fm_kernels k = {0};
        fm_x256 got[2];
        if ((fm_cpu_features() & tables[i].needs) != tables[i].needs) continue;
        tables[i].fill(&k);
        pack(&k, FM_X_Q8_256, got, x, 2, 256);
        assert_memory_equal(got, o, sizeof o);
        assert_int_equal(k.pack_x_bytes(FM_X_F32, 3, 7), 3 * 16 * 4);
        assert_int_equal(k.pack_x_bytes(FM_X_Q8_256, SIZE_MAX / 4, 4096), 0);
        assert_int_equal(k.pack_x_bytes(FM_X_F32, 1, SIZE_MAX), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_many_tokens),
        cmocka_unit_test(test_strange_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
