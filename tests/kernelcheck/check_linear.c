/* check_linear.c - matrix products against the reference: quantised weights to the bit, float weights within the error of a float
 * sum, and the same bits for a token alone, in any batch and in any split.
 *
 * A float sum of `cols` products in any order, with or without fused multiply-add, is within cols / 2 epsilon S of the truth, S =
 * sum |w x|, and by up to 2^-149 more per operation where numbers are denormal; the reference rounds its double once, bias and
 * addition once more each.  The table that multiplies pairs of bf16 rounds its inputs to bf16, by at most 2^-8 of each, and takes
 * denormals as zeros, before and after: what they would have added is allowed to be missing. */
#include <stdio.h>

#include "tests/kernelcheck/kernelcheck.h"

enum { ROWS_MAX = 33, TOKENS_MAX = 270 /* more than a group of any kernel, and a little */ };

typedef struct product {
    const fm_kernels *k;
    fm_linear_args a;
    fm_tensor W;
    const float *x; /* (n, cols) */
    void *packed;
    size_t packed_bytes;
} product;

static fm_xform form_of(const product *p)
{
    return fm_xform_of(p->W.type);
}

/* Even numbers of parts take columns, odd ones rows. */
static void pack(void *ctx, const fm_run *run)
{
    const product *p = ctx;
    fm_pack_args a = {.out = p->packed, .x = p->x, .x_stride = p->W.cols, .n = p->a.n, .cols = p->W.cols};
    a.row_end = a.n;
    a.col_end = a.cols;
    if (run->n_parts % 2) fm_run_range(run, a.n, 1, &a.row, &a.row_end);
    else fm_run_range(run, a.cols, FM_PACK_COLS, &a.col, &a.col_end);
    p->k->pack_x[form_of(p)](&a);
}

static void multiply(void *ctx, const fm_run *run)
{
    product *p = ctx;
    p->a.W = &p->W;
    p->a.x = p->packed;
    p->k->linear[p->W.type](run, &p->a);
}

/* The same product by another table, with its own packed input and its own copy of y. */
static product fresh(kc *t, const product *from, const fm_kernels *k)
{
    product p = *from;
    p.k = k;
    p.packed_bytes = k->pack_x_bytes(form_of(from), from->a.n, from->W.cols);
    p.packed = kc_bytes(t, p.packed_bytes);
    p.a.y = kc_copy(t, from->a.y, from->a.n * from->a.y_stride);
    return p;
}

static void run(product *p, unsigned n_parts)
{
    kc_parts(pack, p, n_parts);
    kc_parts(multiply, p, n_parts);
}

static size_t y_bytes(const product *p)
{
    return p->a.n * p->a.y_stride * sizeof(float);
}

static void check_splits(kc *t, const product *input, const product *whole)
{
    for (size_t i = 0; i < KC_N_PART_COUNTS; i++) {
        product p = fresh(t, input, input->k);
        run(&p, kc_part_counts[i]);
        kc_same(t, p.packed, whole->packed, p.packed_bytes, "packed in parts");
        kc_same(t, p.a.y, whole->a.y, y_bytes(&p), "in parts");
    }
}

/* Each token alone: the bits of decoding are those of prefill. */
static void check_tokens(kc *t, const product *input, const product *whole)
{
    for (size_t i = 0; i < input->a.n; i += input->a.n > 5 && i < input->a.n - 3 ? 7 : 1) {
        product one = *input;
        one.a.n = 1;
        one.x += i * input->W.cols;
        one.a.y += i * input->a.y_stride;
        product p = fresh(t, &one, input->k);
        run(&p, 1);
        kc_same(t, p.a.y, whole->a.y + i * input->a.y_stride, input->W.rows * sizeof(float), "a token alone");
    }
}

static bool multiplies_pairs(const product *p)
{
    return p->W.type == FM_BF16 && strcmp(p->k->name, "avx512+vnni+bf16") == 0;
}

/* What rounding x to bf16 and flushing of denormals may take from w x, with the two sums it goes into. */
static double lost_in_pair(double w, double x)
{
    const bool flushed = fabs(w) < 0x1p-126 || fabs(x) < 0x1.01p-126;
    return 2 * 0x1p-126 + fabs(w * x) * (flushed ? 1.0 : 0x1p-8);
}

static void compare(kc *t, const product *got, const product *ref)
{
    const bool is_float = fm_dtype_get(got->W.type)->is_float;
    float *w = kc_floats(t, got->W.cols);
    for (size_t r = 0; r < got->W.rows; r++) {
        fm_dtype_get(got->W.type)->decode(w, fm_tensor_row(&got->W, r), got->W.cols);
        for (size_t i = 0; i < got->a.n; i++) {
            double S = 0, lost = 0;
            for (size_t c = 0; c < got->W.cols; c++) {
                const double x = (double)got->x[i * got->W.cols + c];
                S += fabs((double)w[c] * x);
                if (multiplies_pairs(got)) lost += lost_in_pair((double)w[c], x);
            }
            const double want = (double)ref->a.y[i * ref->a.y_stride + r];
            const double bias = got->a.bias ? fabs((double)got->a.bias[r]) : 0.0;
            const double cols = (double)got->W.cols, relative = (0.5 * cols + 2.0) * S + bias + 2.0 * fabs(want);
            const double bound = is_float ? FLT_EPSILON * relative + (cols + 3.0) * 0x1p-149 + lost : 0.0;
            kc_near(t, (double)got->a.y[i * got->a.y_stride + r], want, bound, "value");
        }
    }
}

static product draw(kc *t, fm_dtype type, size_t rows, size_t cols, size_t n, kc_kind kind)
{
    product p = {.x = kc_input(t, n * cols, kind)};
    p.W = kc_matrix(t, type, rows, cols);
    p.a = (fm_linear_args){.y = kc_input(t, n * (rows + 3), KC_NORMAL), .y_stride = rows + 3, .n = n};
    return p;
}

static void check_case(kc *t, fm_dtype type, size_t rows, size_t cols, size_t n, kc_kind kind)
{
    product input = draw(t, type, rows, cols, n, kind);
    input.k = &t->k;
    if (kc_below(t, 2)) input.a.bias = kc_input(t, rows, KC_NORMAL);
    input.a.add = kc_below(t, 2);
    product ref = fresh(t, &input, &t->ref), got = fresh(t, &input, &t->k);
    run(&ref, 1);
    run(&got, 1);
    compare(t, &got, &ref);
    check_splits(t, &input, &got);
    check_tokens(t, &input, &got);
    kc_release(t);
}

/* Codes and inputs at their ends, where the integer sums of a group are largest: rows of ones with a minus one in every 32, and
 * the reverse, times ones and times minus ones. */
static void check_ends(kc *t, fm_dtype type, size_t n)
{
    const size_t cols = 2 * fm_dtype_get(type)->block, rows = 17;
    product input = draw(t, type, rows, cols, n, KC_NORMAL);
    float *row = kc_floats(t, cols), *x = kc_floats(t, n * cols);
    unsigned char *W = kc_bytes(t, rows * input.W.stride);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) row[c] = (c % 32 == 0) == (r % 2 == 0) ? -1.0f : 1.0f;
        fm_dtype_get(type)->encode(W + r * input.W.stride, row, NULL, cols);
    }
    for (size_t i = 0; i < n * cols; i++) x[i] = i / cols % 2 ? -1.0f : 1.0f;
    input.k = &t->k;
    input.W.data = W;
    input.x = x;
    product ref = fresh(t, &input, &t->ref), got = fresh(t, &input, &t->k);
    run(&ref, 1);
    run(&got, 1);
    compare(t, &got, &ref);
    kc_release(t);
}

static void check(kc *t)
{
    static const size_t rows[] = {1, 2, 15, 16, 17, ROWS_MAX}, tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 24, 33};
    static const size_t cols[] = {1, 3, 16, 33, 100, 257};
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        const fm_dtype_traits *traits = fm_dtype_get((fm_dtype)type);
        check_case(t, (fm_dtype)type, ROWS_MAX, traits->block * 2, TOKENS_MAX, KC_NORMAL);
        for (size_t n = 1; n <= 8; n++) check_ends(t, (fm_dtype)type, n);
        check_ends(t, (fm_dtype)type, TOKENS_MAX);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
                for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
                    const size_t width = traits->is_float ? cols[c] : traits->block * (c % 4 + 1 + (c > 3 ? 6 : 0));
                    check_case(t, (fm_dtype)type, rows[r], width, tokens[i], (kc_kind)((r + i + c) % KC_KIND_COUNT));
                }
    }
}

/* What a table could multiply with: tiles when it has them, and f32 where the instruction for bf16 is the slower one. */
static fm_peak_kind arithmetic(const kc *t, fm_dtype type)
{
    const kc_machine *m = t->machine;
    const fm_peak_kind kind = fm_peak_of(&m->peaks, type), tiles = kind == FM_PEAK_I8 ? FM_PEAK_AMX_I8 : FM_PEAK_AMX_BF16;
    if (kind != FM_PEAK_F32 && strstr(t->k.name, "amx") && m->peak[tiles] > m->peak[kind]) return tiles;
    return m->peak[kind] < m->peak[FM_PEAK_F32] ? FM_PEAK_F32 : kind;
}

static void bench_case(kc *t, fm_dtype type, size_t rows, size_t cols, size_t n)
{
    char what[48];
    product input = draw(t, type, rows, cols, n, KC_NORMAL);
    product p = fresh(t, &input, &t->k);
    run(&p, 1);
    snprintf(what, sizeof what, "%s %zux%zu, %zu tokens", fm_dtype_get(type)->name, rows, cols, n);
    const kc_work work = {.bytes = n == 1 ? (double)p.W.rows * (double)p.W.stride : 0.0,
                          .ops = 2.0 * (double)rows * (double)cols * (double)n,
                          .arithmetic = arithmetic(t, type)};
    kc_rate(t, what, &work, multiply, &p);
    kc_release(t);
}

/* Weights in cache; then the shapes of a small model, where the ends of sums count. */
static void bench(kc *t)
{
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        static const size_t tokens[] = {1, 2, 4, 8, 16, 32, 128, 512};
        for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) bench_case(t, (fm_dtype)type, 1024, 4096, tokens[i]);
    }
    for (int type = FM_F32; type <= FM_BF16; type++) {
        bench_case(t, (fm_dtype)type, 1536, 768, 512);
        bench_case(t, (fm_dtype)type, 768, 1536, 512);
    }
}

const kc_op kc_op_linear = {.name = "linear", .check = check, .bench = bench};
