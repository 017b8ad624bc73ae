// cuda_few.cu - products of few columns on a GPU against the reference table, and against the memory of the card.
//
// usage: cuda_few [check | small | bulk | limit | speed | tune | chain | profile]...
//
// check: every type, odd shapes, 1 to 16 columns, and 64 of quantised weights; bulk: what few_bulk.cu takes, which is part of it.
// Expanded weights are the decoder's to the bit; outputs lie within the error of a float sum of what the reference sums exactly; a
// column's bits are those it has alone.  The others print times: medians over replayed graphs, weights in turn so that no cache holds
// them, beside a plain reading kernel.
// It is compiled with the kernels themselves, all with FM_CUDA_TUNE, which lets it choose what few.cuh otherwise decides.
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/few.cuh"

#define _Static_assert static_assert
extern "C" {
#include "kernels/ref/linear_ref.h"
void fm_cuda_fill_few(fm_kernels *k);
void fm_cuda_fill_pack(fm_kernels *k);
}

bool fm_cuda_pdl = true;
few_cut fm_cuda_cut = {1, 0};
unsigned fm_cuda_blocks;

void fm_cuda_note(fm_stream *s, cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return;
    if (s->error == cudaSuccess) printf("ERROR %s: %s\n", what, cudaGetErrorString(error));
    s->error = error;
}
void fm_cuda_linear_many(fm_stream *s, const fm_linear_args *)
{
    fm_cuda_note(s, cudaErrorNotSupported, "many");
}

static fm_stream S;
static fm_kernels K, R;
static size_t n_checks, n_failed;
static double worst[FM_DTYPE_COUNT];

static void fail(const char *what, fm_dtype t, size_t rows, size_t cols, size_t n, double got, double want, double bound)
{
    if (n_failed++ < 20)
        printf("FAIL %s %s %zux%zu n %zu: got %.9g, want %.9g, bound %.3g\n", what, fm_dtype_get(t)->name, rows, cols, n, got,
               want, bound);
}

static void open_stream(void)
{
    cudaDeviceProp p;
    S.error = cudaSuccess;
    FM_CUDA(&S, cudaStreamCreateWithFlags(&S.stream, cudaStreamNonBlocking));
    FM_CUDA(&S, cudaGetDeviceProperties(&p, 0));
    S.n_sm = p.multiProcessorCount;
    printf("%s, %d multiprocessors, L2 %d MiB\n", p.name, S.n_sm, p.l2CacheSize >> 20);
    fm_kernels_fill_ref(&R);
    fm_cuda_fill_few(&K);
    fm_cuda_fill_pack(&K);
}

static uint64_t rng_state = 88172645463325252ull;
static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    return rng_state ^= rng_state << 17;
}
static float uniform(void)
{
    return (float)((double)(rng() >> 11) * 0x1p-53);
}
static float normal(void)
{
    return sqrtf(-2.0f * logf(1.0f - uniform())) * cosf(6.2831853f * uniform());
}

static void *device(size_t bytes)
{
    void *p = NULL;
    FM_CUDA(&S, cudaMalloc(&p, bytes + 256));
    FM_CUDA(&S, cudaMemset(p, 0xff, bytes + 256)); // NaN where nothing is written
    FM_CUDA(&S, cudaDeviceSynchronize());
    return p;
}
static void *upload(const void *from, size_t bytes)
{
    void *p = device(bytes);
    FM_CUDA(&S, cudaMemcpyAsync(p, from, bytes, cudaMemcpyHostToDevice, S.stream));
    return p;
}

// ---- A product on both sides ----

typedef struct product {
    fm_dtype type;
    size_t rows, cols, n;
    unsigned char *raw; // as in a file
    size_t raw_bytes;
    float *x, *y, *bias, *decoded;
    void *d_W, *d_x, *d_pack, *d_y, *d_bias;
    fm_tensor W;
    bool add;
} product;

static void *encode_rows(fm_dtype type, size_t rows, size_t cols, size_t *raw_bytes)
{
    fm_dtype_bytes(type, 1, cols, raw_bytes);
    unsigned char *raw = (unsigned char *)malloc(rows * *raw_bytes);
    float *row = (float *)malloc(cols * sizeof *row);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) row[c] = normal();
        fm_dtype_get(type)->encode(raw + r * *raw_bytes, row, NULL, cols);
    }
    free(row);
    return raw;
}

static void pack(product *p, float *x, size_t n)
{
    fm_pack_args a = {};
    a.out = p->d_pack, a.x = x, a.x_stride = p->cols, a.n = n, a.cols = p->cols;
    a.row_end = n, a.col_end = p->cols, a.stream = &S;
    K.pack_x[fm_xform_of(p->type)](&a);
}

static void multiply(product *p, size_t column, size_t n)
{
    const fm_run run = {0, 1, 0, &S};
    fm_linear_args a = {};
    pack(p, (float *)p->d_x + column * p->cols, n);
    a.y = (float *)p->d_y + column * (p->rows + 3), a.y_stride = p->rows + 3, a.x = p->d_pack, a.W = &p->W;
    a.bias = (const float *)p->d_bias, a.add = p->add, a.n = n;
    K.linear[p->type](&run, &a);
}

static product draw(fm_dtype type, size_t rows, size_t cols, size_t n, int kind)
{
    product p = {};
    p.type = type, p.rows = rows, p.cols = cols, p.n = n, p.add = rng() & 1;
    p.raw = (unsigned char *)encode_rows(type, rows, cols, &p.raw_bytes);
    p.x = (float *)malloc(n * cols * 4), p.y = (float *)malloc(n * (rows + 3) * 4),
    p.decoded = (float *)malloc(rows * cols * 4);
    for (size_t i = 0; i < n * cols; i++) p.x[i] = kind == 1 ? 0.0f : normal() * (kind == 2 ? 1e4f : 1.0f);
    if (kind == 3) p.x[rng() % (n * cols)] = INFINITY;
    for (size_t i = 0; i < n * (rows + 3); i++) p.y[i] = normal();
    if (rng() & 1) {
        p.bias = (float *)malloc(rows * 4);
        for (size_t i = 0; i < rows; i++) p.bias[i] = normal();
        p.d_bias = upload(p.bias, rows * 4);
    }
    for (size_t r = 0; r < rows; r++) fm_dtype_get(type)->decode(p.decoded + r * cols, p.raw + r * p.raw_bytes, cols);
    const size_t stride = fm_cuda_row_bytes(type, cols);
    void *raw = upload(p.raw, rows * p.raw_bytes);
    p.d_W = device(rows * stride);
    fm_cuda_store(&S, p.d_W, raw, type, rows, cols);
    FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    cudaFree(raw);
    p.W = (fm_tensor){p.d_W, type, rows, cols, stride};
    p.d_x = upload(p.x, n * cols * 4), p.d_y = upload(p.y, n * (rows + 3) * 4);
    p.d_pack = device(K.pack_x_bytes(fm_xform_of(type), n, cols));
    return p;
}

static void release(product *p)
{
    free(p->raw), free(p->x), free(p->y), free(p->bias), free(p->decoded);
    cudaFree(p->d_W), cudaFree(p->d_x), cudaFree(p->d_y), cudaFree(p->d_pack), cudaFree(p->d_bias);
}

static float *fetch(const product *p)
{
    float *y = (float *)malloc(p->n * (p->rows + 3) * 4);
    FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    FM_CUDA(&S, cudaMemcpy(y, p->d_y, p->n * (p->rows + 3) * 4, cudaMemcpyDeviceToHost));
    return y;
}

// ---- Checks ----

static void check_expand(const product *p)
{
    const size_t items = p->rows * p->cols;
    float *f = (float *)malloc(items * 4);
    uint16_t *h = (uint16_t *)malloc(items * 2);
    void *d = device(items * 4);
    fm_cuda_expand(&S, d, &p->W, true);
    FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    FM_CUDA(&S, cudaMemcpy(f, d, items * 4, cudaMemcpyDeviceToHost));
    fm_cuda_expand(&S, d, &p->W, false);
    FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    FM_CUDA(&S, cudaMemcpy(h, d, items * 2, cudaMemcpyDeviceToHost));
    n_checks++;
    for (size_t i = 0; i < items; i++)
        if (memcmp(&f[i], &p->decoded[i], 4) || h[i] != fm_f32_to_bf16(p->decoded[i])) {
            fail("expand", p->type, p->rows, p->cols, i, (double)f[i], (double)p->decoded[i], 0);
            break;
        }
    cudaFree(d), free(f), free(h);
}

// What is summed, and the sum of its magnitudes.
typedef struct sums {
    double value, size;
} sums;

static sums sum_floats(const product *p, size_t r, const float *x)
{
    sums s = {0, 0};
    const bool f32 = S.o.f32;
    for (size_t c = 0; c < p->cols; c++) {
        float w = p->decoded[r * p->cols + c], v = x[c];
        if (!f32) v = fm_bf16_to_f32(fm_f32_to_bf16(v));
        if (!f32 && p->type == FM_F32) w = fm_bf16_to_f32(fm_f32_to_bf16(w));
        s.value += (double)w * (double)v;
        s.size += fabs((double)w * (double)v);
    }
    return s;
}

// The reference's records of one token (linear.h).
static sums sum_codes(const product *p, size_t r, const void *packed)
{
    const fm_dtype_traits *traits = fm_dtype_get(p->type);
    const bool wide = traits->block == 256;
    sums s = {0, 0};
    for (size_t c = 0; c < p->cols; c += 256) {
        const size_t blocks = p->cols - c < 256 ? (p->cols - c) / 32 : 8;
        fm_codes w = {};
        fm_codes_read(&w, p->type, p->raw + r * p->raw_bytes + c / traits->block * traits->bytes, blocks);
        const fm_x256 *x256 = (const fm_x256 *)packed + c / 256;
        const fm_x32 *x32 = (const fm_x32 *)packed + c / 256;
        for (size_t j = 0; j < 32 * blocks; j++) {
            const size_t b = j / 32, g = j / 16;
            const double q = (double)w.q[j] * (double)(wide ? x256->q[j] : x32->q[j]), x = wide ? x256->q[j] : x32->q[j];
            const double d = p->type == FM_INT4_G128 ? (double)w.d32[j / 128] * (double)x256->d
                             : wide                  ? (double)w.d * w.scale[g] * (double)x256->d
                                                     : (double)w.d32[b] * (double)x32->d[b];
            const double m = wide ? -(double)w.m * w.min[g] * (double)x256->d : (double)w.m32[b] * (double)x32->d[b];
            const bool has_min =
                p->type == FM_Q4_1 || p->type == FM_Q5_1 || p->type == FM_Q2_K || p->type == FM_Q4_K || p->type == FM_Q5_K;
            s.value += d * q + (has_min ? m * x : 0.0);
            s.size += fabs(d * q) + (has_min ? fabs(m * x) : 0.0);
        }
    }
    return s;
}

static void compare(const product *p, const float *got)
{
    const bool floats = fm_dtype_get(p->type)->is_float;
    void *packed = malloc(R.pack_x_bytes(fm_xform_of(p->type), 1, p->cols));
    for (size_t i = 0; i < p->n; i++) {
        fm_pack_args a = {};
        a.out = packed, a.x = p->x + i * p->cols, a.x_stride = p->cols, a.n = 1, a.cols = p->cols, a.row_end = 1,
        a.col_end = p->cols;
        R.pack_x[fm_xform_of(p->type)](&a);
        for (size_t r = 0; r < p->rows; r++) {
            const sums s = floats ? sum_floats(p, r, p->x + i * p->cols) : sum_codes(p, r, packed);
            const double bias = p->bias ? (double)p->bias[r] : 0.0, old = (double)p->y[i * (p->rows + 3) + r];
            const double want = s.value + bias + (p->add ? old : 0.0), v = (double)got[i * (p->rows + 3) + r];
            const double steps = floats ? (double)p->cols / 2 : (double)p->cols / 32 + 4;
            const double bound = FLT_EPSILON * (steps * s.size + fabs(bias) + 2 * fabs(want)) + 1e-37, error = fabs(v - want);
            n_checks++;
            if (isfinite(want) ? error <= bound : !isfinite(v)) {
                if (isfinite(want) && error / bound > worst[p->type]) worst[p->type] = error / bound;
            } else
                fail("value", p->type, p->rows, p->cols, p->n, v, want, bound);
        }
    }
    free(packed);
}

static void check_alone(product *p, const float *together)
{
    FM_CUDA(&S, cudaMemcpyAsync(p->d_y, p->y, p->n * (p->rows + 3) * 4, cudaMemcpyHostToDevice, S.stream));
    for (size_t i = 0; i < p->n; i++) multiply(p, i, 1);
    float *alone = fetch(p);
    n_checks++;
    if (memcmp(alone, together, p->n * (p->rows + 3) * 4)) fail("alone", p->type, p->rows, p->cols, p->n, 0, 0, 0);
    free(alone);
}

// The first columns of as many, in groups of every size that few_bulk.cu takes.
static void check_groups(product *p, const float *together)
{
    const size_t row = p->rows + 3;
    for (size_t n = 2; n < p->n; n++) {
        FM_CUDA(&S, cudaMemcpyAsync(p->d_y, p->y, p->n * row * 4, cudaMemcpyHostToDevice, S.stream));
        multiply(p, 0, n);
        float *group = fetch(p);
        n_checks++;
        if (memcmp(group, together, n * row * 4)) fail("group", p->type, p->rows, p->cols, n, 0, 0, 0);
        if (memcmp(group + n * row, p->y + n * row, (p->n - n) * row * 4)) fail("beyond", p->type, p->rows, p->cols, n, 0, 0, 0);
        free(group);
    }
}

static void check_case(fm_dtype type, size_t rows, size_t cols, size_t n, int kind)
{
    product p = draw(type, rows, cols, n, kind);
    check_expand(&p);
    multiply(&p, 0, n);
    float *together = fetch(&p);
    compare(&p, together);
    check_alone(&p, together);
    if (type == FM_BF16 && n == 16) check_groups(&p, together);
    free(together);
    release(&p);
}

// Matrices that few_bulk.cu takes, by how their rows are cut: rows that do not fill the last block, chunks that leave the last stage
// part, and more blocks than run at once.
static void check_bulk(void)
{
    const struct {
        size_t rows, cols;
    } large[] = {{3333, 1088},  {4097, 2048}, {6401, 1152}, {12801, 448}, {17001, 320}, {33001, 192}, {64101, 128}, {64101, 64},
                 {288, 8192},   {77, 1536},   {160, 4096},  {193, 5120},  {290, 16384}}; // the latter of few rows
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) check_case(FM_BF16, large[i].rows, large[i].cols, 16, 0);
    check_case(FM_BF16, 3333, 1088, 16, 3); // one that is not finite
    check_case(FM_BF16, 3333, 1096, 16, 0); // rows that are no whole number of chunks: not taken
    check_case(FM_BF16, 8200, 256, 16, 0);  // short ones, neither
    S.o.invariant = true;
    check_case(FM_BF16, 3500, 1024, 41, 0);
    S.o.invariant = false;
}

static void check_type(fm_dtype type, bool small)
{
    const size_t block = fm_dtype_get(type)->block, unit = block == 1 ? 1 : block;
    const size_t few[] = {1, 2, 7, 8, 9, 16};
    const size_t odd[] = {1, 3, 48, 130, 333};
    for (size_t i = 0; i < 6; i++) {
        const size_t cols = block == 1 ? odd[i % 5] : unit * (1 + i);
        check_case(type, i == 0 ? 1 : 5 + 14 * i, cols, few[i], (int)(i % 4));
    }
    check_case(type, 67, block == 1 ? 1096 : 1024 + 256, 5, 0);
    if (small) return;
    check_case(type, 80, 2048, 16, 0);
    check_case(type, 1100, 768, 9, 0);
    check_case(type, 288, 8192, 3, 0);
    if (type == FM_BF16 && !S.o.f32) check_bulk();
    if (block == 1) return;
    const size_t wide[] = {17, 24, 32, 33, 57, 64};
    for (size_t i = 0; i < 6; i++) check_case(type, 1 + 67 * i, unit * (i + 1), wide[i], (int)(i % 4));
    check_case(type, 288, 8192, 16, 0);  // of few rows: 16 chains
    check_case(type, 288, 8192, 64, 0);  // the same in four groups of tokens
    check_case(type, 150, 8192, 20, 0);  // in two, the last of few tokens
    check_case(type, 1000, 2048, 40, 0); // a chain to each warp
    check_case(type, 40, 2304, 33, 0);   // one of nine chunks in a round of its own
    check_case(type, 40, 2304, 7, 0);
    check_case(type, 600, 8192, 64, 0);  // 16 chains, two to each block of a cluster
    check_case(type, 600, 8192, 20, 0);  // the same, half the blocks without columns to put
    check_case(type, 1100, 2048, 40, 0); // a chain to each
    check_case(type, 4100, 2048, 33, 0); // chains that do not come out even: three blocks, where four have no room
    check_case(type, 17000, 256, 18, 0); // blocks that walk
    check_case(type, 33, 33024, 21, 0);  // more chains than can be kept apart
    S.o.invariant = true;
    check_case(type, 50, 512, 137, 0);
    S.o.invariant = false;
}

// TYPES in the environment: names, with anything between, of the only types to check and to time.
static bool wanted(fm_dtype type)
{
    const char *only = getenv("TYPES");
    return !only || strstr(only, fm_dtype_get(type)->name);
}

static int check(bool small)
{
    for (int type = 0; type < FM_DTYPE_COUNT; type++)
        if (wanted((fm_dtype)type)) check_type((fm_dtype)type, small);
    for (int type = 0; type < FM_DTYPE_COUNT; type++) printf("%s %.3f  ", fm_dtype_get((fm_dtype)type)->name, worst[type]);
    S.o.f32 = true;
    for (int type = FM_F32; type <= FM_BF16; type++) {
        if (!wanted((fm_dtype)type)) continue;
        worst[type] = 0;
        check_type((fm_dtype)type, small);
        printf("f32 %s %.3f  ", fm_dtype_get((fm_dtype)type)->name, worst[type]);
    }
    S.o.f32 = false;
    printf("(largest error / bound)\n%zu checks, %zu failed\n", n_checks, n_failed);
    return n_failed || S.error != cudaSuccess;
}

static int bulk(void)
{
    check_bulk();
    printf("%zu checks, %zu failed\n", n_checks, n_failed);
    return n_failed || S.error != cudaSuccess;
}

// ---- Times ----

enum { POOL = 1 << 30 };

__global__ static void read_kernel(const uint4 *p, size_t n, uint32_t *out)
{
    uint32_t v = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 7 * step < n; i += 8 * step) {
        uint4 a[8];
#pragma unroll
        for (int k = 0; k < 8; k++) a[k] = __ldcs(p + i + k * step);
#pragma unroll
        for (int k = 0; k < 8; k++) v ^= a[k].x ^ a[k].y ^ a[k].z ^ a[k].w;
    }
    if (v == 0x12345678) *out = v;
}

// Median microseconds of a graph that `record` fills.
template <class F> static double graph_us(F record, int runs)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t a, b;
    FM_CUDA(&S, cudaStreamBeginCapture(S.stream, cudaStreamCaptureModeThreadLocal));
    record();
    FM_CUDA(&S, cudaStreamEndCapture(S.stream, &graph));
    FM_CUDA(&S, cudaGraphInstantiate(&exec, graph, 0));
    cudaEventCreate(&a), cudaEventCreate(&b);
    float t[64];
    for (int i = -2; i < runs; i++) {
        FM_CUDA(&S, cudaEventRecord(a, S.stream));
        FM_CUDA(&S, cudaGraphLaunch(exec, S.stream));
        FM_CUDA(&S, cudaEventRecord(b, S.stream));
        FM_CUDA(&S, cudaEventSynchronize(b));
        float ms = 0;
        cudaEventElapsedTime(&ms, a, b);
        if (i >= 0) t[i] = ms * 1000;
    }
    for (int i = 0; i < runs; i++)
        for (int j = i + 1; j < runs; j++)
            if (t[j] < t[i]) {
                const float v = t[i];
                t[i] = t[j], t[j] = v;
            }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph), cudaEventDestroy(a), cudaEventDestroy(b);
    return (double)t[runs / 2];
}

static double read_limit; // bytes per microsecond
static void measure_limit(void)
{
    const size_t bytes = (size_t)4 << 30;
    void *p = device(bytes);
    uint32_t *out = (uint32_t *)device(4);
    for (int per_sm = 4; per_sm <= 16; per_sm *= 2) {
        const double us =
            graph_us([&] { read_kernel<<<S.n_sm * per_sm, 256, 0, S.stream>>>((const uint4 *)p, bytes / 16, out); }, 9);
        if ((double)bytes / us > read_limit) read_limit = (double)bytes / us;
    }
    cudaFree(p), cudaFree(out);
    printf("read limit %.0f GB/s\n", read_limit / 1000);
}

// Rows of real codes, repeated.
static void fill(void *to, fm_dtype type, size_t rows, size_t cols)
{
    const size_t some = 64, stride = fm_cuda_row_bytes(type, cols);
    size_t raw_bytes;
    void *raw = encode_rows(type, some, cols, &raw_bytes), *d = upload(raw, some * raw_bytes);
    fm_cuda_store(&S, to, d, type, some, cols);
    for (size_t done = some; done < rows; done *= 2)
        FM_CUDA(&S, cudaMemcpyAsync((char *)to + done * stride, to, (rows - done < done ? rows - done : done) * stride,
                                    cudaMemcpyDeviceToDevice, S.stream));
    FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    cudaFree(d), free(raw);
}

typedef struct shape {
    const char *name;
    size_t rows, cols;
} shape;
static const shape shapes[] = {
    {"in", 16384, 4096}, {"x", 288, 8192}, {"dt", 8192, 256}, {"out", 4096, 8192}, {"head", 65024, 4096}};

static product bench_product(fm_dtype type, const shape *h, void *pool, size_t copies)
{
    product p = {};
    p.type = type, p.rows = h->rows, p.cols = h->cols, p.n = 64;
    const size_t stride = fm_cuda_row_bytes(type, h->cols);
    fill(pool, type, h->rows * copies, h->cols);
    p.W = (fm_tensor){pool, type, h->rows, h->cols, stride};
    float *x = (float *)malloc(p.n * h->cols * 4);
    for (size_t i = 0; i < p.n * h->cols; i++) x[i] = normal();
    p.d_x = upload(x, p.n * h->cols * 4), p.d_y = device(p.n * (h->rows + 3) * 4);
    p.d_pack = device(K.pack_x_bytes(fm_xform_of(type), p.n, h->cols));
    free(x);
    return p;
}

// Microseconds of one product of n columns, weights in turn over `copies`.
static double product_us(product *p, size_t copies, size_t n)
{
    const fm_run run = {0, 1, 0, &S};
    const size_t bytes = p->rows * p->W.stride, times = copies * (1 + 300000000 / (bytes * copies));
    pack(p, (float *)p->d_x, n);
    const double us = graph_us(
        [&] {
            for (size_t i = 0; i < times; i++) {
                fm_tensor W = p->W;
                W.data = (const char *)W.data + i % copies * bytes;
                fm_linear_args a = {};
                a.y = (float *)p->d_y, a.y_stride = p->rows + 3, a.x = p->d_pack, a.W = &W, a.n = n;
                K.linear[p->type](&run, &a);
            }
        },
        7);
    return us / (double)times;
}

static size_t copies_of(fm_dtype type, const shape *h)
{
    return 1 + 256000000 / (h->rows * fm_cuda_row_bytes(type, h->cols));
}

static void speed_type(fm_dtype type, void *pool)
{
    const size_t columns[] = {1, 8, 16, 32, 64}, n_columns = fm_dtype_get(type)->is_float ? 3 : 5;
    for (size_t i = 0; i < 5; i++) {
        const size_t copies = copies_of(type, &shapes[i]), bytes = shapes[i].rows * fm_cuda_row_bytes(type, shapes[i].cols);
        product p = bench_product(type, &shapes[i], pool, copies);
        printf("%-6s %-4s", fm_dtype_get(type)->name, shapes[i].name);
        for (size_t k = 0; k < n_columns; k++) {
            const double us = product_us(&p, copies, columns[k]);
            printf("  n%-2zu %7.2f us %3.0f%%", columns[k], us, 100 * (double)bytes / us / read_limit);
        }
        printf("\n");
        release(&p);
    }
}

static void speed(void *pool)
{
    for (int type = 0; type < FM_DTYPE_COUNT; type++)
        if (wanted((fm_dtype)type)) speed_type((fm_dtype)type, pool);
}

static void tune_shape(fm_dtype type, const shape *h, void *pool, bool clusters)
{
    const size_t copies = copies_of(type, h), bytes = h->rows * fm_cuda_row_bytes(type, h->cols);
    product p = bench_product(type, h, pool, copies);
    printf("tune %-5s %-4s", fm_dtype_get(type)->name, h->name);
    for (fm_cuda_cut.cluster = 1; fm_cuda_cut.cluster <= (clusters ? 8u : 1u); fm_cuda_cut.cluster *= 2)
        for (fm_cuda_cut.split = clusters ? 4 : 1; fm_cuda_cut.split <= 8; fm_cuda_cut.split *= 2)
            for (fm_cuda_blocks = clusters ? 1 : 2; fm_cuda_blocks <= (clusters ? 1u : 2u); fm_cuda_blocks++) {
                const double us = product_us(&p, copies, 1), us8 = product_us(&p, copies, 8), us16 = product_us(&p, copies, 16);
                printf(" %u/%u/%u %.1f %.1f(%.0f%%) %.1f", fm_cuda_cut.cluster, fm_cuda_cut.split, fm_cuda_blocks, us, us8,
                       100 * (double)bytes / us8 / read_limit, us16);
            }
    fm_cuda_cut = {1, 0};
    fm_cuda_blocks = 0;
    printf("\n");
    release(&p);
}

static void tune(void *pool)
{
    const fm_dtype types[] = {FM_BF16, FM_Q8_0, FM_Q4_0, FM_Q4_K};
    for (size_t t = 0; t < 4; t++)
        for (size_t i = 0; i < 5; i++) tune_shape(types[t], &shapes[i], pool, i == 1);
}

// Plain launches, for a profiler.
static void profile_product(fm_dtype type, const shape *h, void *pool)
{
    const size_t columns[] = {8, 16, 32, 64}, n_columns = fm_dtype_get(type)->is_float ? 2 : 4;
    product p = bench_product(type, h, pool, 1);
    for (size_t k = 0; k < n_columns; k++) {
        const fm_run run = {0, 1, 0, &S};
        pack(&p, (float *)p.d_x, columns[k]);
        fm_linear_args a = {};
        a.y = (float *)p.d_y, a.y_stride = p.rows + 3, a.x = p.d_pack, a.W = &p.W, a.n = columns[k];
        K.linear[p.type](&run, &a);
        FM_CUDA(&S, cudaStreamSynchronize(S.stream));
    }
    release(&p);
}

static void profile(void *pool)
{
    for (int type = 0; type < FM_DTYPE_COUNT; type++)
        if (wanted((fm_dtype)type))
            profile_product((fm_dtype)type, &shapes[0], pool), profile_product((fm_dtype)type, &shapes[3], pool);
}

// ---- A step: the products of 64 layers and the head, and a small kernel in front of each, as a layer has them ----

enum { WITH_PDL = 1, WITH_LAZY = 2, WITH_SMALL = 4 };

typedef struct chain {
    product p[5];
    char *all;
    size_t at[5], layer, total, n;
    float *small_x;
    void *small_y;
} chain;

static void chain_product(chain *c, size_t i, const char *data, int mode)
{
    const fm_run run = {0, 1, 0, &S};
    product *q = &c->p[i];
    fm_tensor W = q->W;
    W.data = data;
    fm_pack_args a = {};
    if (mode & WITH_SMALL) {
        a.out = c->small_y, a.x = c->small_x, a.x_stride = 8192, a.n = c->n, a.cols = 8192, a.stream = &S;
        const fm_lazy_pack small = {a};
        fm_cuda_pack_now(&small, FM_X_F32);
    }
    a.out = q->d_pack, a.x = (float *)q->d_x, a.x_stride = q->cols, a.n = c->n, a.cols = q->cols, a.stream = &S;
    const fm_lazy_pack rows = {a};
    if (mode & WITH_LAZY)
        K.pack_x[fm_xform_of(q->type)](&a);
    else
        fm_cuda_pack_now(&rows, fm_xform_of(q->type));
    fm_linear_args l = {};
    l.y = (float *)q->d_y, l.y_stride = q->rows, l.x = q->d_pack, l.W = &W, l.n = c->n;
    K.linear[q->type](&run, &l);
}

static void chain_step(chain *c, int mode)
{
    for (size_t k = 0; k < 64; k++)
        for (size_t i = 0; i < 4; i++) chain_product(c, i, c->all + k * c->layer + c->at[i], mode);
    chain_product(c, 4, c->all + 64 * c->layer, mode);
}

static void chain_type(fm_dtype type)
{
    chain c = {};
    for (size_t i = 0; i < 4; i++) c.at[i] = c.layer, c.layer += shapes[i].rows * fm_cuda_row_bytes(type, shapes[i].cols);
    c.total = 64 * c.layer + shapes[4].rows * fm_cuda_row_bytes(type, shapes[4].cols);
    c.all = (char *)device(c.total);
    c.small_x = (float *)device(16 * 8192 * 4), c.small_y = device(16 * 8192 * 4);
    for (size_t i = 0; i < 4; i++) c.p[i] = bench_product(type, &shapes[i], c.all + c.at[i], 1);
    for (size_t k = 1; k < 64; k++) FM_CUDA(&S, cudaMemcpyAsync(c.all + k * c.layer, c.all, c.layer, cudaMemcpyDeviceToDevice, S.stream));
    c.p[4] = bench_product(type, &shapes[4], c.all + 64 * c.layer, 1);
    const size_t columns[] = {1, 8, 16};
    const int modes[] = {0, WITH_PDL, WITH_PDL | WITH_LAZY, WITH_PDL | WITH_SMALL, WITH_PDL | WITH_LAZY | WITH_SMALL};
    for (size_t k = 0; k < 3; k++)
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
            if ((columns[k] > 1 || !fm_is_float(type)) && modes[m] & WITH_LAZY) continue;
            c.n = columns[k];
            fm_cuda_pdl = modes[m] & WITH_PDL;
            const double us = graph_us([&] { chain_step(&c, modes[m]); }, 15);
            printf("chain %-5s n %-2zu%s%s%s: %8.1f us, %3.0f%% of read, %7.1f tok/s\n", fm_dtype_get(type)->name, c.n,
                   modes[m] & WITH_PDL ? " pdl" : "", modes[m] & WITH_LAZY ? " lazy" : "",
                   modes[m] & WITH_SMALL ? " small" : "", us, 100 * (double)c.total / us / read_limit, 1e6 * (double)c.n / us);
        }
    fm_cuda_pdl = true;
    for (size_t i = 0; i < 5; i++) c.p[i].d_W = NULL, release(&c.p[i]);
    cudaFree(c.all), cudaFree(c.small_x), cudaFree(c.small_y);
}

int main(int argc, char **argv)
{
    open_stream();
    int rc = 0;
    void *pool = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "check")) rc |= check(false);
        if (!strcmp(argv[i], "small")) rc |= check(true);
        if (!strcmp(argv[i], "bulk")) rc |= bulk();
        if (!strcmp(argv[i], "limit")) measure_limit();
        if (!strcmp(argv[i], "chain")) chain_type(FM_BF16), chain_type(FM_Q8_0), chain_type(FM_Q4_0), chain_type(FM_Q4_K);
        if (strcmp(argv[i], "speed") && strcmp(argv[i], "tune") && strcmp(argv[i], "profile")) continue;
        if (!pool) pool = device(POOL);
        if (!strcmp(argv[i], "profile"))
            profile(pool);
        else if (!strcmp(argv[i], "speed"))
            speed(pool);
        else
            tune(pool);
    }
    return rc || S.error != cudaSuccess;
}
