/* bench_device.c - times the kernels of a device's table on the shapes of the 7B model, in the device's memory.
 *
 * A recording of many calls is put on the queue at once: what is timed is kernels and the gaps between them, as in a step.
 * Calls take turns on copies of their memory that together are larger than L2, so that numbers come from memory as they do in a
 * model of 64 layers.  Rates count each input read and each output written once, and are judged by a copy measured first. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "tests/kernelcheck/kernelcheck.h"

enum { D_MODEL = 4096, D_INNER = 8192, D_CONV = 4, D_STATE = 16, WIDTH_Q = 288, VOCAB = 65024 };
enum { NOISE = 1 << 20, BUFFERS_MAX = 32, REPLAYS = 7, TURNS_MAX = 64 };
static const double TURN_BYTES = 300e6; /* what all turns together touch, at least */

typedef struct bench {
    fm_stream *s;
    const fm_kernels *k;
    double copy_rate; /* bytes read and written a second */
    float *noise;     /* (NOISE) on the host */
    void *buffers[BUFFERS_MAX];
    size_t n_buffers, turns;
    double bytes, flops; /* of a call; no flops: judged by its bytes */
    size_t tokens;
    char what[64];
    const char *op;
} bench;

static void stop(const char *why)
{
    fprintf(stderr, "kernelcheck --bench: %s\n", why ? why : "out of the device's memory");
    exit(2);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void await(const bench *b)
{
    const char *why = NULL;
    if (!fm_stream_wait(b->s, &why)) stop(why);
}

/* ---- Memory ---- */

static void *place(bench *b, size_t bytes)
{
    void *p = b->n_buffers < BUFFERS_MAX ? fm_stream_alloc(b->s, bytes) : NULL;
    if (!p) stop(NULL);
    return b->buffers[b->n_buffers++] = p;
}

/* n floats of noise: scale * normal + shift. */
static float *noise(bench *b, size_t n, float scale, float shift)
{
    float *p = place(b, n * sizeof(float)), *block = malloc(NOISE * sizeof(float));
    if (!block) stop("out of memory");
    for (size_t i = 0; i < NOISE; i++) block[i] = scale * b->noise[i] + shift;
    for (size_t i = 0; i < n; i += NOISE) fm_stream_upload(b->s, p + i, block, (n - i < NOISE ? n - i : NOISE) * sizeof(float));
    await(b);
    free(block);
    return p;
}

static void *uploaded(bench *b, const void *from, size_t bytes)
{
    void *p = place(b, bytes);
    fm_stream_upload(b->s, p, from, bytes);
    await(b);
    return p;
}

static void release(bench *b)
{
    while (b->n_buffers > 0) fm_stream_free(b->s, b->buffers[--b->n_buffers]);
}

/* ---- Time ---- */

typedef void (*turn_call)(bench *b, void *ctx, size_t turn);

static void turns_for(bench *b, double bytes)
{
    const double n = TURN_BYTES / bytes + 1;
    b->bytes = bytes;
    b->turns = n > TURNS_MAX ? TURNS_MAX : (size_t)n;
}

static double replay(bench *b, turn_call call, void *ctx, size_t n)
{
    double best = INFINITY;
    fm_stream_record_begin(b->s);
    for (size_t i = 0; i < n; i++) call(b, ctx, i % b->turns);
    fm_graph *g = fm_stream_record_end(b->s);
    if (!g) await(b);
    if (!g) stop("a recording failed");
    for (int i = 0; i < REPLAYS; i++) {
        const double begin = seconds();
        fm_graph_launch(b->s, g);
        await(b);
        if (i > 0) best = fmin(best, seconds() - begin);
    }
    fm_graph_free(g);
    return best / (double)n;
}

/* The time of a long recording less that of a short one, so that putting it on the queue does not count. */
static void report(bench *b, turn_call call, void *ctx)
{
    for (size_t i = 0; i < 2; i++) call(b, ctx, i % b->turns);
    await(b);
    const double once = replay(b, call, ctx, 4), fit = 4e-3 / once;
    const size_t n = fit < 4 ? 4 : fit > 400 ? 400 : (size_t)fit;
    const double many = replay(b, call, ctx, 2 * n) * (double)(2 * n), few = replay(b, call, ctx, n) * (double)n;
    const double t = (many - few) / (double)n;
    printf("%-11s %-26s %9.2f us", b->op, b->what, t * 1e6);
    if (b->flops > 0)
        printf(" %8.0f TFLOP/s", b->flops / t * 1e-12);
    else
        printf(" %8.0f GB/s %5.1f %%", b->bytes / t * 1e-9, 100.0 * b->bytes / t / b->copy_rate);
    if (b->tokens > 1) printf(" %8.2f ns a token", t * 1e9 / (double)b->tokens);
    putchar('\n');
    fflush(stdout);
    b->flops = 0;
    release(b);
}

/* ---- Kernels ---- */

static fm_run run_of(const bench *b)
{
    return (fm_run){.n_parts = 1, .stream = b->s};
}

/* A pack that a kernel is to write as well; p NULL: none. */
typedef struct pack_place {
    void *p;
    fm_xform form;
} pack_place;

static const fm_xform NO_PACK = FM_XFORM_COUNT;

static pack_place place_pack(bench *b, fm_xform form, size_t n, size_t cols)
{
    const fm_run run = run_of(b);
    if (form == NO_PACK || !b->k->packs || !b->k->packs(&run, form, false, NULL, n, cols)) return (pack_place){NULL, FM_X_BF16};
    return (pack_place){place(b, b->k->pack_x_bytes(form, n, cols)), form};
}

static const char *pack_name(fm_xform form)
{
    static const char *const names[] = {
        [FM_X_F32] = " f32", [FM_X_BF16] = " bf16", [FM_X_Q8_32] = " q8_32", [FM_X_Q8_256] = " q8_256", [FM_XFORM_COUNT] = ""};
    return names[form];
}

typedef struct norm_bench {
    float *x, *out, *w;
    size_t n, d, stride;
    pack_place pack; /* in the place of out */
} norm_bench;

static void norm_turn(bench *b, void *ctx, size_t turn)
{
    const norm_bench *c = ctx;
    const fm_run run = run_of(b);
    const size_t at = turn * c->n * c->stride;
    if (c->pack.p)
        b->k->rmsnorm_pack(&run, c->pack.form, c->pack.p, c->x + at, c->stride, c->w, c->n, c->d, 1e-5f);
    else
        b->k->rmsnorm(&run, c->out + at, c->stride, c->x + at, c->stride, c->w, c->n, c->d, 1e-5f);
}

static void three_turn(bench *b, void *ctx, size_t turn)
{
    const norm_bench *c = ctx;
    const fm_run run = run_of(b);
    const size_t at = turn * c->n * c->stride, d[3] = {256, D_STATE, D_STATE};
    b->k->rmsnorm_three(&run, c->out + at, c->stride, c->pack.form, c->pack.p, c->x + at, c->stride, d, c->n, 1e-5f);
}

static void bench_three(bench *b, size_t n, fm_xform form)
{
    norm_bench c = {.n = n, .stride = WIDTH_Q};
    turns_for(b, 8.0 * (double)(n * WIDTH_Q));
    c.x = noise(b, b->turns * n * WIDTH_Q, 1.0f, 0.0f);
    c.out = noise(b, b->turns * n * WIDTH_Q, 1.0f, 0.0f);
    c.pack = place_pack(b, form, n, 256);
    b->tokens = n;
    snprintf(b->what, sizeof b->what, "%zu x 256 + 16 + 16%s", n, pack_name(form));
    report(b, three_turn, &c);
}

static void bench_norm(bench *b, size_t n, size_t d, size_t stride, fm_xform form)
{
    norm_bench c = {.n = n, .d = d, .stride = stride};
    turns_for(b, 8.0 * (double)(n * d));
    c.x = noise(b, b->turns * n * stride, 1.0f, 0.0f);
    c.out = noise(b, b->turns * n * stride, 1.0f, 0.0f);
    c.w = stride == d ? noise(b, d, 1.0f, 0.0f) : NULL;
    c.pack = place_pack(b, form, n, d);
    b->tokens = n;
    snprintf(b->what, sizeof b->what, "%zu x %zu%s", n, d, pack_name(form));
    report(b, norm_turn, &c);
}

/* A step of n_seq sequences of n tokens each. */
static fm_ragged step_of(bench *b, size_t n_seq, size_t n)
{
    size_t *begin = malloc((n_seq + 1) * sizeof *begin);
    uint32_t *seen = calloc(n_seq, sizeof *seen);
    if (!begin || !seen) stop("out of memory");
    for (size_t s = 0; s <= n_seq; s++) begin[s] = s * n;
    const fm_ragged r = {.n_seq = n_seq,
                         .begin = uploaded(b, begin, (n_seq + 1) * sizeof *begin),
                         .n_tokens = n_seq * n,
                         .longest = n,
                         .seen = uploaded(b, seen, n_seq * sizeof *seen)};
    free(begin);
    free(seen);
    return r;
}

/* A kernel of a step: one of the two. */
typedef struct step_bench {
    fm_conv_args conv;
    fm_scan_args scan;
    fm_ragged r;
    size_t state; /* floats of all sequences */
} step_bench;

static void conv_turn(bench *b, void *ctx, size_t turn)
{
    const step_bench *c = ctx;
    const fm_run run = run_of(b);
    fm_conv_args a = c->conv;
    a.ragged = &c->r;
    a.state.rows += turn * c->state;
    a.x += turn * c->r.n_tokens * a.x_stride;
    a.out += turn * c->r.n_tokens * a.out_stride;
    b->k->conv_silu(&run, &a);
}

static void bench_conv(bench *b, size_t n_seq, size_t n, fm_xform form)
{
    const size_t T = n_seq * n, state = (D_CONV - 1) * D_INNER;
    step_bench c = {.state = n_seq * state};
    turns_for(b, 4.0 * (double)(2 * T * D_INNER + 2 * n_seq * state));
    c.conv = (fm_conv_args){.out_stride = D_INNER, .x_stride = 2 * D_INNER, .d_inner = D_INNER, .d_conv = D_CONV};
    c.conv.x = noise(b, b->turns * T * c.conv.x_stride, 1.0f, 0.0f);
    c.conv.out = noise(b, b->turns * T * D_INNER, 1.0f, 0.0f);
    c.conv.w = noise(b, D_CONV * D_INNER, 1.0f, 0.0f);
    c.conv.bias = noise(b, D_INNER, 1.0f, 0.0f);
    c.conv.state = (fm_states){.rows = noise(b, b->turns * c.state, 1.0f, 0.0f), .stride = state};
    const pack_place pack = place_pack(b, form, T, D_INNER);
    c.conv.packed = pack.p;
    c.conv.form = pack.form;
    c.r = step_of(b, n_seq, n);
    b->tokens = T;
    snprintf(b->what, sizeof b->what, "%zu x %zu tokens%s", n_seq, n, pack_name(form));
    report(b, conv_turn, &c);
}

static void scan_turn(bench *b, void *ctx, size_t turn)
{
    const step_bench *c = ctx;
    const fm_run run = run_of(b);
    const size_t T = c->r.n_tokens;
    fm_scan_args a = c->scan;
    a.ragged = &c->r;
    a.h.rows += turn * c->state;
    a.A += turn * a.d_state * D_INNER;
    if (a.y) a.y += turn * T * a.y_stride;
    a.u += turn * T * a.u_stride, a.dt += turn * T * a.dt_stride, a.z += turn * T * a.z_stride;
    a.B += turn * T * a.bc_stride, a.C += turn * T * a.bc_stride;
    b->k->scan(&run, &a);
}

/* Packed: the pack in the place of y.  half_h: states in bf16. */
static void bench_scan(bench *b, size_t n_seq, size_t n, size_t d_state, fm_xform form, bool half_h)
{
    const size_t T = n_seq * n, D = D_INNER, state = half_h ? d_state * D / 2 : d_state * D;
    step_bench c = {.state = n_seq * state};
    turns_for(b, 4.0 * (double)(4 * T * D + d_state * D + 2 * n_seq * state + 2 * d_state * T));
    c.scan =
        (fm_scan_args){.y_stride = D, .u_stride = D, .dt_stride = D, .z_stride = 2 * D, .bc_stride = WIDTH_Q, .d_inner = D};
    c.scan.d_state = d_state;
    c.scan.u = noise(b, b->turns * T * D, 1.0f, 0.0f);
    c.scan.y = noise(b, b->turns * T * D, 1.0f, 0.0f);
    c.scan.dt = noise(b, b->turns * T * D, 1.0f, -4.0f);
    c.scan.z = noise(b, b->turns * T * 2 * D, 1.0f, 0.0f);
    c.scan.dt_bias = noise(b, D, 0.1f, 0.0f);
    c.scan.skip = noise(b, D, 1.0f, 0.0f);
    c.scan.A = noise(b, b->turns * d_state * D, 1.0f, -8.0f);
    c.scan.B = noise(b, b->turns * T * WIDTH_Q, 1.0f, 0.0f);
    c.scan.C = c.scan.B + d_state;
    c.scan.h = (fm_states){.rows = noise(b, b->turns * c.state, 1.0f, 0.0f), .stride = state};
    const pack_place pack = place_pack(b, form, T, D);
    c.scan.packed = pack.p;
    c.scan.form = pack.form;
    c.scan.alone = true;
    c.r = step_of(b, n_seq, n);
    c.scan.half_h = half_h; /* what the noise is as bf16 does not matter */
    b->tokens = T;
    snprintf(b->what, sizeof b->what, "%zu x %zu tokens, %zu%s%s", n_seq, n, d_state, pack_name(form),
             half_h ? " bf16 states" : "");
    report(b, scan_turn, &c);
}

typedef struct rows_bench {
    float *x, *out, *lse;
    size_t n, d;
} rows_bench;

static void softmax_turn(bench *b, void *ctx, size_t turn)
{
    const rows_bench *c = ctx;
    const fm_run run = run_of(b);
    b->k->softmax(&run, c->out + turn * c->n * c->d, c->lse, c->x + turn * c->n * c->d, c->d, c->n, c->d);
}

static void gather_turn(bench *b, void *ctx, size_t turn)
{
    const rows_bench *c = ctx;
    const fm_run run = run_of(b);
    b->k->gather(&run, c->out + turn * c->n * c->d, c->d, c->x + turn * c->n * c->d, c->d, NULL, c->n, c->d);
}

static void copy_states_turn(bench *b, void *ctx, size_t turn)
{
    const rows_bench *c = ctx;
    const fm_run run = run_of(b);
    const fm_states to = {.rows = c->out + turn * c->n * c->d, .stride = c->d};
    const fm_states from = {.rows = c->x + turn * c->n * c->d, .stride = c->d};
    b->k->copy_states(&run, &to, &from, c->n, c->d);
}

static void bench_rows(bench *b, turn_call call, size_t n, size_t d)
{
    rows_bench c = {.n = n, .d = d};
    turns_for(b, 8.0 * (double)(n * d));
    c.x = noise(b, b->turns * n * d, 1.0f, 0.0f);
    c.out = noise(b, b->turns * n * d, 1.0f, 0.0f);
    c.lse = noise(b, n, 1.0f, 0.0f);
    b->tokens = n;
    snprintf(b->what, sizeof b->what, "%zu x %zu", n, d);
    report(b, call, &c);
}

/* ---- Choosing ---- */

typedef struct choice_bench {
    float *logits;
    int32_t *ids;
    fm_draw *draws; /* NULL: the likeliest */
    size_t n;
} choice_bench;

static void choose_turn(bench *b, void *ctx, size_t turn)
{
    const choice_bench *c = ctx;
    const float *logits = c->logits + turn * c->n * VOCAB;
    if (c->draws)
        fm_cuda_sample(b->s, c->ids, logits, VOCAB, c->draws, c->n, VOCAB);
    else
        fm_cuda_argmax(b->s, c->ids, logits, VOCAB, c->n, VOCAB);
}

/* Logits of standard deviation `spread`: 4 is a sure model, 0.5 one that knows nothing.  d NULL: the likeliest. */
static void bench_choice(bench *b, size_t n, float spread, const fm_draw *d)
{
    choice_bench c = {.n = n};
    fm_draw *draws = malloc(n * sizeof *draws);
    if (!draws) stop("out of memory");
    turns_for(b, 4.0 * (double)(n * VOCAB));
    c.logits = noise(b, b->turns * n * VOCAB, spread, 0.0f);
    c.ids = place(b, n * sizeof *c.ids);
    for (size_t i = 0; d && i < n; i++) draws[i] = *d, draws[i].random = ((double)i + 0.5) / (double)n;
    if (d) c.draws = uploaded(b, draws, n * sizeof *draws);
    free(draws);
    snprintf(b->what, sizeof b->what, "%zu sd %g k %d p %g", n, (double)spread, d ? d->top_k : 1, d ? (double)d->top_p : 0.0);
    report(b, choose_turn, &c);
}

/* ---- Products of many tokens ---- */

typedef struct many_bench {
    fm_linear_args a;
    fm_tensor W; /* the first turn's */
    fm_pack_args pack;
    size_t weight_bytes;
} many_bench;

static void many_turn(bench *b, void *ctx, size_t turn)
{
    const many_bench *c = ctx;
    const fm_run run = run_of(b);
    fm_linear_args a = c->a;
    fm_tensor W = c->W;
    W.data = (const char *)W.data + turn * c->weight_bytes;
    a.W = &W;
    b->k->linear[W.type](&run, &a);
}

static void pack_turn(bench *b, void *ctx, size_t turn)
{
    const many_bench *c = ctx;
    (void)turn;
    b->k->pack_x[fm_xform_of(c->W.type)](&c->pack);
}

/* A matrix as it lies in a file: some rows of noise, again and again. */
static void *raw_weights(bench *b, fm_dtype type, size_t rows, size_t cols)
{
    enum { DIFFERENT = 16 };
    size_t bytes = 0;
    fm_dtype_bytes(type, 1, cols, &bytes);
    unsigned char *block = malloc(DIFFERENT * bytes), *p = place(b, rows * bytes);
    if (!block) stop("out of memory");
    for (size_t r = 0; r < DIFFERENT; r++) fm_dtype_get(type)->encode(block + r * bytes, b->noise + r * 999, NULL, cols);
    for (size_t r = 0; r < rows; r += DIFFERENT)
        fm_stream_upload(b->s, p + r * bytes, block, (rows - r < DIFFERENT ? rows - r : DIFFERENT) * bytes);
    await(b);
    free(block);
    return p;
}

static void bench_many(bench *b, fm_dtype type, size_t rows, size_t cols, size_t n)
{
    const size_t stored = fm_cuda_row_bytes(type, cols);
    const fm_xform form = fm_xform_of(type);
    many_bench c = {.weight_bytes = rows * stored};
    turns_for(b, (double)c.weight_bytes);
    if (b->turns > 6) b->turns = 6;
    void *raw = raw_weights(b, type, rows, cols);
    unsigned char *W = place(b, b->turns * c.weight_bytes);
    for (size_t i = 0; i < b->turns; i++) fm_cuda_store(b->s, W + i * c.weight_bytes, raw, type, rows, cols);
    c.W = (fm_tensor){W, type, rows, cols, stored};
    if (!fm_stream_reserve(b->s, fm_cuda_work_bytes(b->s, &c.W, n))) stop(NULL);
    c.pack = (fm_pack_args){
        .out = place(b, b->k->pack_x_bytes(form, n, cols)), .x = noise(b, n * cols, 1.0f, 0.0f), .x_stride = cols};
    c.pack.n = c.pack.row_end = n;
    c.pack.cols = c.pack.col_end = cols;
    c.pack.stream = b->s;
    c.a = (fm_linear_args){.y = noise(b, n * rows, 1.0f, 0.0f), .y_stride = rows, .x = c.pack.out, .n = n};
    pack_turn(b, &c, 0);
    b->tokens = n;
    b->flops = 2.0 * (double)rows * (double)cols * (double)n;
    snprintf(b->what, sizeof b->what, "%s %zu x %zu, %zu", fm_dtype_get(type)->name, rows, cols, n);
    report(b, many_turn, &c);
}

static void bench_pack(bench *b, fm_dtype type, size_t cols, size_t n)
{
    const fm_xform form = fm_xform_of(type);
    many_bench c = {.W.type = type};
    b->bytes = (double)n * (double)cols * 6.0;
    b->turns = 1;
    c.pack = (fm_pack_args){
        .out = place(b, b->k->pack_x_bytes(form, n, cols)), .x = noise(b, n * cols, 1.0f, 0.0f), .x_stride = cols};
    c.pack.n = c.pack.row_end = n;
    c.pack.cols = c.pack.col_end = cols;
    c.pack.stream = b->s;
    b->tokens = n;
    snprintf(b->what, sizeof b->what, "pack for %s, %zu x %zu", fm_dtype_get(type)->name, n, cols);
    report(b, pack_turn, &c);
}

static void all_narrow(bench *b)
{
    bench_many(b, FM_BF16, WIDTH_Q, D_INNER, 512);
    bench_many(b, FM_BF16, WIDTH_Q, D_INNER, 2048);
    bench_many(b, FM_BF16, WIDTH_Q, D_INNER, 8192);
}

static void all_many(bench *b)
{
    static const size_t shapes[][2] = {{D_INNER, D_MODEL}, {WIDTH_Q, D_INNER}, {D_INNER, 256}, {D_MODEL, D_INNER}},
                        n[] = {64, 256, 512, 2048, 8192};
    for (size_t i = 0; i < FM_COUNT(shapes); i++)
        for (size_t j = 0; j < FM_COUNT(n); j++) bench_many(b, FM_BF16, shapes[i][0], shapes[i][1], n[j]);
    bench_many(b, FM_BF16, 8192, 8192, 8192);
    bench_many(b, FM_Q4_K, D_INNER, D_MODEL, 2048);
    bench_many(b, FM_Q4_K, D_INNER, D_MODEL, 64);
    bench_many(b, FM_F32, D_INNER, D_MODEL, 2048);
    bench_pack(b, FM_BF16, D_MODEL, 2048);
    bench_pack(b, FM_BF16, D_INNER, 2048);
}

/* The limit that rates are judged by: a plain copy of 1 GiB by the device's kernel. */
static void measure_copy(bench *b)
{
    rows_bench c = {.n = 65536, .d = D_MODEL};
    b->turns = 1;
    c.x = noise(b, c.n * c.d, 1.0f, 0.0f);
    c.out = noise(b, c.n * c.d, 1.0f, 0.0f);
    b->copy_rate = 8.0 * (double)(c.n * c.d) / replay(b, gather_turn, &c, 4);
    printf("a copy: %.0f GB/s read and written\n", b->copy_rate * 1e-9);
    release(b);
}

/* ---- All ---- */

static void all_norms(bench *b)
{
    static const size_t n[] = {1, 16, 64, 512, 2048, 8192};
    for (size_t i = 0; i < FM_COUNT(n); i++) bench_norm(b, n[i], D_MODEL, D_MODEL, NO_PACK);
    bench_norm(b, 1, 256, WIDTH_Q, NO_PACK);
    bench_norm(b, 2048, 256, WIDTH_Q, NO_PACK);
    bench_norm(b, 2048, D_STATE, WIDTH_Q, NO_PACK);
    bench_three(b, 1, NO_PACK);
    bench_three(b, 2048, NO_PACK);
    for (size_t i = 0; i < 3; i++) {
        bench_pack(b, FM_Q4_K, D_MODEL, n[i]);
        bench_pack(b, FM_Q4_K, 256, n[i]);
        if (n[i] > 1) { /* the pack of one normed token is left to its product */
            bench_norm(b, n[i], D_MODEL, D_MODEL, FM_X_Q8_256);
            bench_norm(b, n[i], D_MODEL, D_MODEL, FM_X_Q8_32);
        }
        bench_three(b, n[i], NO_PACK);
        bench_three(b, n[i], FM_X_Q8_256);
    }
}

static void all_convs(bench *b)
{
    static const size_t n_seq[] = {1, 4, 16, 64, 256}, n[] = {16, 512, 2048, 8192};
    for (size_t i = 0; i < FM_COUNT(n_seq); i++) bench_conv(b, n_seq[i], 1, NO_PACK);
    for (size_t i = 0; i < FM_COUNT(n); i++) bench_conv(b, 1, n[i], NO_PACK);
    bench_conv(b, 16, 128, NO_PACK);
    bench_conv(b, 1, 2048, FM_X_BF16);
    for (size_t i = 0; i < 4; i++) {
        bench_pack(b, FM_Q4_K, D_INNER, n_seq[i]);
        bench_conv(b, n_seq[i], 1, FM_X_Q8_256);
        bench_conv(b, n_seq[i], 1, FM_X_Q8_32);
    }
    bench_conv(b, 1, 64, NO_PACK);
    bench_conv(b, 1, 64, FM_X_Q8_256);
}

static void all_scans(bench *b)
{
    static const size_t n_seq[] = {1, 4, 16, 64, 256}, n[] = {16, 512, 2048, 8192};
    for (size_t i = 0; i < FM_COUNT(n_seq); i++) bench_scan(b, n_seq[i], 1, D_STATE, NO_PACK, false);
    for (size_t i = 0; i < FM_COUNT(n); i++) bench_scan(b, 1, n[i], D_STATE, NO_PACK, false);
    bench_scan(b, 4, 512, D_STATE, NO_PACK, false);
    bench_scan(b, 16, 128, D_STATE, NO_PACK, false);
    bench_scan(b, 1, 2048, D_STATE, FM_X_BF16, false);
    for (size_t i = 0; i < 4; i++) {
        bench_scan(b, n_seq[i], 1, D_STATE, FM_X_Q8_256, false);
        bench_scan(b, n_seq[i], 1, D_STATE, FM_X_Q8_32, false);
    }
    bench_scan(b, 24, 1, D_STATE, FM_X_Q8_256, false);
    bench_scan(b, 33, 1, D_STATE, FM_X_Q8_256, false);
    bench_scan(b, 1, 2048, 8, NO_PACK, false);
    bench_scan(b, 1, 2048, 64, NO_PACK, false);
    for (size_t i = 0; i < FM_COUNT(n_seq); i++) bench_scan(b, n_seq[i], 1, D_STATE, NO_PACK, true);
    for (size_t i = 0; i < FM_COUNT(n); i++) bench_scan(b, 1, n[i], D_STATE, NO_PACK, true);
}

static void all_rows(bench *b)
{
    b->op = "softmax";
    bench_rows(b, softmax_turn, 16, VOCAB);
    b->op = "gather";
    bench_rows(b, gather_turn, 2048, D_MODEL);
    b->op = "copy_states";
    bench_rows(b, copy_states_turn, 64, (D_CONV - 1 + D_STATE) * D_INNER);
}

static void all_choices(bench *b)
{
    static const fm_draw draws[] = {{0.8f, 0, 0.95f, 0, 0}, {1, 0, 1, 40, 0}, {1, 0, 1, 0, 0}, {1, 0.05f, 0.95f, 40, 0}};
    bench_choice(b, 1, 4, NULL);
    bench_choice(b, 64, 4, NULL);
    for (size_t i = 0; i < FM_COUNT(draws); i++) bench_choice(b, 1, 4, &draws[i]);
    bench_choice(b, 1, 0.5f, &draws[0]);
    bench_choice(b, 64, 4, &draws[0]);
}

void kc_bench_device(fm_stream *s, const fm_kernels *k, const char *only)
{
    static const struct {
        const char *name;
        void (*run)(bench *b);
    } all[] = {{"rmsnorm", all_norms}, {"conv", all_convs},    {"scan", all_scans},    {"rows", all_rows},
               {"many", all_many},     {"narrow", all_narrow}, {"sample", all_choices}};
    bench *b = calloc(1, sizeof *b);
    if (!b || !(b->noise = malloc(NOISE * sizeof(float)))) stop("out of memory");
    b->s = s;
    b->k = k;
    for (size_t i = 0; i < NOISE; i++) b->noise[i] = fm_rng_normal(1, 2, i);
    measure_copy(b);
    for (size_t i = 0; i < FM_COUNT(all); i++) {
        b->op = all[i].name;
        if (!only || strcmp(only, all[i].name) == 0) all[i].run(b);
    }
    free(b->noise);
    free(b);
}
