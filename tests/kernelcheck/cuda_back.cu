// cuda_back.cu - judges the backward's CUDA entries against the reference, and times them at real shapes.
//
//   cuda_back               checks, then times
//   cuda_back check         checks alone: small shapes, for compute-sanitizer
//   cuda_back check scan    those of the scan with what its forward keeps
//   cuda_back scan SHAPE    that shape's scan_back alone, a few times, for a profiler
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" { // the reference is C
#include "kernels/kernels.h"
}
#include "kernels/cuda/back.cuh"
#include "kernels/cuda/blas.cuh"

#ifdef FM_CHECK_ALONE // without stream.cu and the products of the forward
void fm_cuda_expand(fm_stream *, void *, const fm_tensor *, bool) {}
void fm_cuda_note(fm_stream *s, cudaError_t error, const char *what)
{
    if (error == cudaSuccess || s->error != cudaSuccess) return;
    s->error = error;
    printf("ERROR %s in %s\n", cudaGetErrorString(error), what);
}
#endif
static fm_stream stream;
static fm_kernels ref, gpu;
static const fm_run cpu_run = {0, 1, 0, NULL}, gpu_run = {0, 1, 0, &stream};
static int n_failed, n_checks;
static double worst;

static void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return;
    printf("FAILED %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

// ---- Memory on both sides ----

enum { BUFFERS = 64 };
static void *host_all[BUFFERS], *device_all[BUFFERS];
static size_t n_buffers;

typedef struct buf {
    float *h, *d; // the same numbers at first
    size_t n;
} buf;

static void release(void)
{
    for (size_t i = 0; i < n_buffers; i++) {
        free(host_all[i]);
        cudaFree(device_all[i]);
    }
    n_buffers = 0;
}

static buf take(size_t bytes)
{
    buf b = {(float *)calloc(bytes + 4, 1), NULL, bytes / 4};
    must(cudaMalloc(&b.d, bytes + 4), "cudaMalloc");
    host_all[n_buffers] = b.h;
    device_all[n_buffers++] = b.d;
    return b;
}

static void up(buf b)
{
    must(cudaMemcpy(b.d, b.h, b.n * 4, cudaMemcpyHostToDevice), "upload");
    must(cudaDeviceSynchronize(), "upload"); // the stream does not wait for copies of other streams
}

static uint64_t state = 88172645463325252u;
static double uniform(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

static float normal(void)
{
    return (float)(sqrt(-2.0 * log(1.0 - uniform())) * cos(6.283185307179586 * uniform()));
}

static buf random_buf(size_t n, float scale, float shift)
{
    buf b = take(n * 4);
    for (size_t i = 0; i < n; i++) b.h[i] = shift + scale * normal();
    up(b);
    return b;
}

static float *down(buf b)
{
    float *out = (float *)malloc(b.n * 4 + 4);
    must(cudaStreamSynchronize(stream.stream), "a kernel");
    must(cudaMemcpy(out, b.d, b.n * 4, cudaMemcpyDeviceToHost), "download");
    return out;
}

// Relative L2 distance; NaN is infinite.
static double distance(const float *got, const float *want, size_t n)
{
    double diff = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        diff += d * d;
        size += (double)want[i] * (double)want[i];
    }
    const double r = size > 0 ? sqrt(diff / size) : sqrt(diff);
    return r == r ? r : INFINITY;
}

static void judge(const char *what, const float *got, buf b, double bound)
{
    const double d = distance(got, b.h, b.n);
    n_checks++;
    if (d / (bound > 0 ? bound : 1) > worst) worst = d / (bound > 0 ? bound : 1);
    if (!(d <= bound)) {
        if (n_failed++ < 40) printf("FAIL %s: distance %.3g, bound %.3g\n", what, d, bound);
    }
}

static void near(const char *what, buf b, double bound)
{
    float *got = down(b);
    judge(what, got, b, bound);
    free(got);
}

// ---- Rows of bf16: the reference gets the same numbers as floats.  What is written so was rounded once, by 2^-8 of it at most ----

static const double ROUNDED = 1.0 / 256;

static float bf16(float v)
{
    return fm_bf16_to_f32(fm_f32_to_bf16(v));
}

static void halve(buf b)
{
    uint16_t *half = (uint16_t *)calloc(b.n, sizeof *half);
    for (size_t i = 0; i < b.n; i++) {
        half[i] = fm_f32_to_bf16(b.h[i]);
        b.h[i] = fm_bf16_to_f32(half[i]);
    }
    must(cudaMemcpy(b.d, half, b.n * sizeof *half, cudaMemcpyHostToDevice), "upload");
    must(cudaDeviceSynchronize(), "upload");
    free(half);
}

static buf random_rows(size_t n, float scale, float shift, bool half)
{
    buf b = random_buf(n, scale, shift);
    if (half) halve(b);
    return b;
}

// As near() for rows that may be bf16.
static void near_rows(const char *what, buf b, double bound, bool half)
{
    if (!half) {
        near(what, b, bound);
        return;
    }
    float *got = down(b);
    for (size_t i = b.n; i-- > 0;) got[i] = fm_bf16_to_f32(((const uint16_t *)got)[i]);
    judge(what, got, b, bound + ROUNDED);
    free(got);
}

// ---- Ragged steps ----

typedef struct steps {
    fm_ragged h, d;
} steps;

static steps ragged_of(const size_t *lengths, size_t n_seq)
{
    buf b = take((n_seq + 1) * sizeof(size_t));
    size_t *begin = (size_t *)b.h, longest = 0;
    for (size_t i = 0; i < n_seq; i++) {
        begin[i + 1] = begin[i] + lengths[i];
        longest = lengths[i] > longest ? lengths[i] : longest;
    }
    up(b);
    const fm_ragged h = {n_seq, begin, begin[n_seq], longest, NULL, NULL},
                    d = {n_seq, (const size_t *)b.d, begin[n_seq], longest, NULL, begin};
    return steps{h, d};
}

static steps equal_steps(size_t n_seq, size_t length)
{
    size_t *lengths = (size_t *)malloc(n_seq * sizeof(size_t));
    for (size_t i = 0; i < n_seq; i++) lengths[i] = length;
    const steps s = ragged_of(lengths, n_seq);
    free(lengths);
    return s;
}

// ---- Checks ----

#define BOTH(field, b) h.field = (b).h, d.field = (b).d

// at_once: g_w in the same call, and the new g_x as bf16 as well.
static void check_norm(size_t n, size_t dim, bool with_w, bool add, size_t gap, bool half, bool at_once)
{
    const size_t stride = dim + gap;
    buf g_x = random_buf(n * stride, 1, 0), rho = random_buf(n, 1, 0), g = random_rows(n * stride, 1, 0, half),
        x = random_buf(n * stride, 2, 0.3f), w = random_buf(dim, 1, 0), g_w = random_buf(dim, 1, 0),
        rounded = random_rows(n * dim, 1, 0, true);
    fm_rmsnorm_back_args h = {}, d;
    h.g_x_stride = h.g_stride = h.x_stride = stride;
    h.n = n, h.d = dim, h.eps = 1e-5f, h.add = add;
    d = h;
    BOTH(g_x, g_x), BOTH(rho, rho), BOTH(g, g), BOTH(x, x);
    if (with_w) BOTH(w, w);
    d.half = half;
    if (at_once) d.g_w = g_w.d, d.rounded = rounded.d;
    ref.rmsnorm_back(&cpu_run, &h);
    ref.rmsnorm_gw(&cpu_run, g_w.h, &h);
    gpu.rmsnorm_back(&gpu_run, &d);
    if (!at_once) gpu.rmsnorm_gw(&gpu_run, g_w.d, &d);
    near("rmsnorm_back g_x", g_x, 1e-6);
    near("rmsnorm_back rho", rho, 1e-6);
    near("rmsnorm_gw", g_w, 1e-5);
    for (size_t r = 0; r < n && at_once; r++) memcpy(rounded.h + r * dim, g_x.h + r * stride, dim * sizeof(float));
    if (at_once) near_rows("rmsnorm_back rounded", rounded, 1e-6, true);
    release();
}

// States of sequences, by list or by rows.
static void both_states(fm_states *h, fm_states *d, buf floats, size_t n_seq, size_t stride, bool list)
{
    *h = *d = fm_states{NULL, NULL, stride, 0};
    if (!list) {
        h->rows = floats.h, d->rows = floats.d;
        return;
    }
    buf of_h = take(n_seq * sizeof(float *)), of_d = take(n_seq * sizeof(float *));
    for (size_t i = 0; i < n_seq; i++) {
        ((float **)of_h.h)[i] = floats.h + i * stride;
        ((float **)of_d.h)[i] = floats.d + i * stride;
    }
    up(of_d);
    h->list = (float *const *)of_h.h, d->list = (float *const *)of_d.d;
}

static void check_conv(const size_t *lengths, size_t n_seq, size_t I, size_t K, bool states, bool list, bool half)
{
    const steps s = ragged_of(lengths, n_seq);
    const size_t T = s.h.n_tokens, stride = half ? I + 4 : I + 5, past = (K - 1) * I;
    buf g_x = random_rows(T * stride, 1, 0, half), g = random_rows(T * stride, 1, 0, half),
        x = random_rows(T * stride, 1, 0, half), w = random_buf(K * I, 0.5f, 0), bias = random_buf(I, 1, 0),
        g_w = random_buf(K * I, 1, 0), g_b = random_buf(I, 1, 0), st = random_buf(n_seq * past, 1, 0),
        g_st = random_buf(n_seq * past, 1, 0);
    fm_conv_back_args h = {}, d;
    h.g_x_stride = h.g_stride = h.x_stride = stride;
    h.d_inner = I, h.d_conv = K;
    d = h;
    BOTH(g_x, g_x), BOTH(g, g), BOTH(x, x), BOTH(w, w), BOTH(g_w, g_w);
    if (states) {
        both_states(&h.state, &d.state, st, n_seq, past, list);
        both_states(&h.g_state, &d.g_state, g_st, n_seq, past, list);
        BOTH(bias, bias), BOTH(g_bias, g_b);
    }
    h.ragged = &s.h, d.ragged = &s.d, d.half = half;
    ref.conv_back(&cpu_run, &h);
    gpu.conv_back(&gpu_run, &d);
    near_rows("conv_back g_x", g_x, 2e-6, half);
    near("conv_back g_w", g_w, 2e-5);
    near("conv_back g_bias", g_b, 2e-5);
    near("conv_back g_state", g_st, 2e-6);
    release();
}

#ifndef FM_CHECK_ALONE
extern "C" void fm_cuda_fill_scan(fm_kernels *k);

// The states that the forward keeps for this backward.
static float *keep_states(const fm_scan_back_args *b)
{
    const size_t T = b->ragged->n_tokens;
    fm_scan_args f = {};
    f.y = random_rows(T * b->d_inner, 1, 0, true).d, f.y_stride = b->d_inner;
    f.u = b->u, f.dt = b->dt, f.z = b->z, f.u_stride = b->u_stride, f.dt_stride = b->dt_stride, f.z_stride = b->z_stride;
    f.h = b->h, f.dt_bias = b->dt_bias, f.A = b->A, f.B = b->B, f.C = b->C, f.bc_stride = b->bc_stride, f.skip = b->skip;
    f.ragged = b->ragged, f.d_inner = b->d_inner, f.d_state = b->d_state, f.hold = f.half = true;
    f.kept = random_buf(fm_scan_kept_floats(T, b->d_inner, b->d_state), 1, 0).d;
    fm_cuda_fill_scan(&gpu);
    gpu.scan(&gpu_run, &f);
    return f.kept;
}
#else
static float *keep_states(const fm_scan_back_args *)
{
    return NULL;
}
#endif

enum rows_of { FLOATS, HALVES, KEPT }; // KEPT: halves in aligned places, and what the forward keeps

// A sum of halves over channels is of numbers cut to 11 bits, each 2^-10 of it too small at most: twice that for what cancels.
static void check_scan(const size_t *lengths, size_t n_seq, size_t I, size_t N, bool all, bool list, rows_of rows)
{
    const steps s = ragged_of(lengths, n_seq);
    const bool half = rows != FLOATS, kept = rows == KEPT;
    const size_t T = s.h.n_tokens,
                 stride = I + (kept   ? 8
                               : half ? 2
                                      : 3),
                 bc = 2 * N + (kept ? 4 : 5), blocks = (I + 63) / 64, H = N * I + 7, first = kept ? 0 : 1;
    const double cut = half ? 1.0 / 512 : 0.0,  // 2^-10 each,
        twice = half && N > 16 ? ROUNDED : 0.0; // the second 16 states add to what was rounded
    buf g_u = random_rows(T * stride, 1, 0, half), g_dt = random_rows(T * stride, 1, 0, half),
        g_z = random_rows(T * stride, 1, 0, half), parts = random_buf(blocks * T * 2 * N, 1, 0), g_A = random_buf(N * I, 1, 0),
        g_b = random_buf(I, 1, 0), g_skip = random_buf(I, 1, 0), g_h = random_buf(n_seq * H, 1, 0),
        g = random_rows(T * stride, 1, 0, half), hs = random_buf(n_seq * H, 1, 0), u = random_rows(T * stride, 1, 0, half),
        dt = random_buf(T * stride, 2, -2), dt_bias = random_buf(I, 1, 0), A = random_buf(N * I, 0, 0),
        BC = random_buf(T * bc, 1, 0), skip = random_buf(I, 1, 0), z = random_rows(T * stride, 2, 0, half),
        g_bc = random_buf(T * 2 * N, 1, 0);
    for (size_t i = 0; i < N * I; i++) A.h[i] = -(float)exp(1.5 * normal());
    for (size_t i = 0; i < T; i++) dt.h[i * stride + i % I] = i % 3 ? 25.0f : -60.0f; // both ends of softplus
    up(A), up(dt);
    if (half) halve(dt);
    fm_scan_back_args h = {}, d;
    h.g_u_stride = h.g_dt_stride = h.g_z_stride = h.g_stride = h.u_stride = h.dt_stride = h.z_stride = stride;
    h.bc_stride = bc, h.d_inner = I, h.d_state = N;
    d = h;
    BOTH(g_u, g_u), BOTH(g_dt, g_dt), BOTH(g_bc_parts, parts), BOTH(g_A, g_A), BOTH(g_skip, g_skip), BOTH(g, g), BOTH(u, u),
        BOTH(dt, dt), BOTH(A, A), BOTH(skip, skip);
    h.B = BC.h + first, h.C = h.B + N, d.B = BC.d + first, d.C = d.B + N;
    if (all) {
        BOTH(g_z, g_z), BOTH(z, z), BOTH(dt_bias, dt_bias), BOTH(g_dt_bias, g_b);
        both_states(&h.h, &d.h, hs, n_seq, H, list);
        both_states(&h.g_h, &d.g_h, g_h, n_seq, H, list);
    }
    h.ragged = &s.h, d.ragged = &s.d, d.half = half;
    h.scratch = take(4 * ref.scan_back_floats(T, I, N)).h;
    d.scratch = take(4 * gpu.scan_back_floats(T, I, N)).d;
    if (kept) d.kept = keep_states(&d);
    ref.scan_back(&cpu_run, &h);
    ref.sum_parts(&cpu_run, g_bc.h, 2 * N, parts.h, blocks, T, 2 * N);
    gpu.scan_back(&gpu_run, &d);
    gpu.sum_parts(&gpu_run, g_bc.d, 2 * N, parts.d, blocks, T, 2 * N);
    near_rows("scan_back g_u", g_u, 5e-6 + twice, half);
    near_rows("scan_back g_dt", g_dt, 5e-6 + twice, half);
    near_rows("scan_back g_z", g_z, 5e-6 + twice, half);
    near("scan_back parts", parts, 5e-6 + cut);
    near("scan_back g_bc", g_bc, 5e-6 + cut);
    near("scan_back g_A", g_A, 1e-5);
    near("scan_back g_dt_bias", g_b, 1e-5);
    near("scan_back g_skip", g_skip, 1e-5);
    near("scan_back g_h", g_h, 5e-6);
    release();
}

#ifndef FM_CHECK_ALONE
// What a scan keeps is what its backward would work out again, which it leaves at the begin of its scratch: the same recurrence with
// a softplus of its own.  A chunk that a sequence begins in has no state of its own.
static void check_kept(const size_t *lengths, size_t n_seq, size_t I, bool states)
{
    enum { N = FM_KEPT_STATES };
    const steps s = ragged_of(lengths, n_seq);
    const size_t T = s.h.n_tokens, floats = fm_scan_kept_floats(T, I, N), chunk = N * I;
    buf u = random_rows(T * I, 1, 0, true), dt = random_rows(T * I, 2, -2, true), z = random_rows(T * I, 2, 0, true),
        y = random_rows(T * I, 1, 0, true), bc = random_buf(T * 2 * N, 1, 0), A = random_buf(N * I, 0.5f, -2),
        bias = random_buf(I, 1, 0), skip = random_buf(I, 1, 0), h = random_buf(n_seq * N * I, states ? 1.0f : 0.0f, 0),
        kept = random_buf(floats, 0, 0), g_x = random_rows(3 * T * I, 1, 0, true),
        parts = random_buf((I + 63) / 64 * T * 2 * N, 1, 0), g_A = random_buf(N * I, 1, 0), g_v = random_buf(2 * I, 1, 0),
        scratch = random_buf(gpu.scan_back_floats(T, I, N), 0, 0);
    fm_scan_args f = {};
    f.y = y.d, f.u = u.d, f.dt = dt.d, f.z = z.d, f.y_stride = f.u_stride = f.dt_stride = f.z_stride = I;
    f.h.rows = h.d, f.h.stride = N * I, f.dt_bias = bias.d, f.A = A.d, f.B = bc.d, f.C = bc.d + N, f.bc_stride = 2 * N;
    f.skip = skip.d, f.ragged = &s.d, f.d_inner = I, f.d_state = N, f.hold = f.half = true, f.kept = kept.d;
    gpu.scan(&gpu_run, &f);
    fm_scan_back_args b = {};
    b.g_u = g_x.d, b.g_dt = (float *)((uint16_t *)g_x.d + T * I), b.g_z = (float *)((uint16_t *)g_x.d + 2 * T * I);
    b.g_u_stride = b.g_dt_stride = b.g_z_stride = b.g_stride = b.u_stride = b.dt_stride = b.z_stride = I;
    b.g_bc_parts = parts.d, b.g_A = g_A.d, b.g_dt_bias = g_v.d, b.g_skip = g_v.d + I, b.g = y.d, b.h = f.h;
    b.u = u.d, b.dt = dt.d, b.dt_bias = bias.d, b.A = A.d, b.B = bc.d, b.C = bc.d + N, b.bc_stride = 2 * N, b.skip = skip.d,
    b.z = z.d;
    b.ragged = &s.d, b.d_inner = I, b.d_state = N, b.scratch = scratch.d, b.half = true;
    gpu.scan_back(&gpu_run, &b);
    float *got = down(kept), *want = down(scratch);
    for (size_t i = 0; i * chunk < floats; i++) {
        const size_t row = i * FM_KEPT_ROWS;
        bool begins = row >= T;
        for (size_t q = 0; q < n_seq; q++) begins = begins || s.h.begin[q] == row;
        if (begins) memset(got + i * chunk, 0, chunk * 4), memset(want + i * chunk, 0, chunk * 4);
    }
    memcpy(kept.h, want, floats * 4);
    judge("scan kept", got, kept, 5e-6);
    free(got), free(want);
    float *once[] = {down(g_x), down(parts)}; // from what was kept: what differs by a rounding may round to a neighbour
    memcpy(parts.h, once[1], parts.n * 4);
    for (size_t i = g_x.n; i-- > 0;) g_x.h[i] = fm_bf16_to_f32(((const uint16_t *)once[0])[i]);
    b.kept = kept.d;
    gpu.scan_back(&gpu_run, &b);
    near_rows("scan_back from kept", g_x, 1e-5, true);
    near("scan_back parts from kept", parts, 1.0 / 512);
    free(once[0]), free(once[1]);
    release();
}
#endif

static void check_xent(size_t n, size_t vocab, float z, bool half)
{
    buf logits = random_rows(n * vocab, 4, 1, half), loss = random_buf(n, 1, 0), target = take(n * 4);
    for (size_t i = 0; i < n; i++) ((int32_t *)target.h)[i] = i % 5 == 3 ? -100 : (int32_t)(uniform() * (double)vocab);
    up(target);
    fm_xent_args h = {logits.h, loss.h, (const int32_t *)target.h, n, vocab, 0.01f, z, false}, d = h;
    d.logits = logits.d, d.loss = loss.d, d.target = (const int32_t *)target.d, d.half = half;
    ref.xent(&cpu_run, &h);
    gpu.xent(&gpu_run, &d);
    near_rows("xent gradient", logits, 2e-6, half);
    near("xent loss", loss, 1e-6);
    release();
}

static void check_sums(size_t n, size_t dim, size_t parts)
{
    buf p = random_buf(parts * n * dim, 1, 0), out = random_buf(n * (dim + 3), 1, 0), b = random_buf(dim, 1, 0);
    ref.sum_parts(&cpu_run, out.h, dim + 3, p.h, parts, n, dim);
    gpu.sum_parts(&gpu_run, out.d, dim + 3, p.d, parts, n, dim);
    near("sum_parts", out, 0);
    ref.sum_rows(&cpu_run, b.h, out.h, dim + 3, n, dim);
    gpu.sum_rows(&gpu_run, b.d, out.d, dim + 3, n, dim);
    near("sum_rows", b, 2e-5);
    release();
}

static void check_embed(size_t n, size_t dim, size_t vocab, size_t used)
{
    buf g_E = random_buf(vocab * dim, 1, 0), g = random_buf(n * (dim + 2), 1, 0), ids = take(n * 4);
    for (size_t i = 0; i < n; i++)
        ((int32_t *)ids.h)[i] = (int32_t)((size_t)(pow(uniform(), 3) * (double)used) * (vocab / used));
    up(ids);
    ref.embed_back(&cpu_run, g_E.h, g.h, dim + 2, (const int32_t *)ids.h, n, dim);
    gpu.embed_back(&gpu_run, g_E.d, g.d, dim + 2, (const int32_t *)ids.d, n, dim);
    near("embed_back", g_E, 0); // the same order: the same bits
    release();
}

static void check_optim(size_t n)
{
    buf w = random_buf(n, 1, 0), m = random_buf(n, 0.1f, 0), v = random_buf(n, 0, 0.01f), g = random_buf(n, 1, 0);
    fm_adamw_args h = {w.h, m.h, v.h, g.h, n, 0.7f, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 2.0f, 3.0f}, d = h;
    d.w = w.d, d.m = m.d, d.v = v.d, d.g = g.d;
    ref.adamw(&cpu_run, &h);
    gpu.adamw(&gpu_run, &d);
    near("adamw w", w, 1e-6);
    near("adamw m", m, 1e-6);
    near("adamw v", v, 1e-6);
    const size_t n_sums = (n + FM_SQUARES - 1) / FM_SQUARES;
    buf sums = take(8 * n_sums);
    ref.squares(&cpu_run, (double *)sums.h, g.h, n);
    gpu.squares(&gpu_run, (double *)sums.d, g.d, n);
    double *got = (double *)down(sums);
    for (size_t i = 0; i < n_sums; i++)
        if (fabs(got[i] - ((double *)sums.h)[i]) > 1e-13 * got[i] && n_failed++ < 40) printf("FAIL squares %zu\n", i);
    free(got);
    ref.decays_back(&cpu_run, w.h, g.h, n);
    gpu.decays_back(&gpu_run, w.d, g.d, n);
    near("decays_back", w, 1e-6);
    release();
}

static void check_dropout(size_t n, size_t dim, bool add)
{
    buf out = random_buf(n * (dim + 1), 1, 0), x = random_buf(n * (dim + 2), 1, 0);
    fm_dropout_args h = {out.h, dim + 1, x.h, dim + 2, n, dim, 0.1f, 0x123456789abcdefu, 77, (uint64_t)1 << 33, add}, d = h;
    d.out = out.d, d.x = x.d;
    ref.dropout(&cpu_run, &h);
    gpu.dropout(&gpu_run, &d);
    near("dropout", out, 0);
    release();
}

static buf weight(fm_tensor *h, fm_tensor *d, fm_dtype type, size_t rows, size_t cols)
{
    const size_t size = type == FM_F32 ? 4 : 2, stride = (cols * size + 15) / 16 * 16;
    buf b = take(rows * stride);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            const float v = 0.1f * normal();
            char *at = (char *)b.h + r * stride + c * size;
            if (type == FM_F32)
                *(float *)at = v;
            else
                *(uint16_t *)at = type == FM_F16 ? fm_f32_to_f16(v) : fm_f32_to_bf16(v);
        }
    up(b);
    *h = fm_tensor{b.h, type, rows, cols, stride};
    *d = fm_tensor{b.d, type, rows, cols, stride};
    return b;
}

static void check_transpose(fm_dtype type, size_t rows, size_t cols)
{
    fm_tensor h, d;
    weight(&h, &d, type, rows, cols);
    buf out = random_buf(cols * (rows + 2), 1, 0);
    ref.transpose(&cpu_run, out.h, rows + 2, &h);
    gpu.transpose(&gpu_run, out.d, rows + 2, &d);
    near("transpose", out, 0);
    release();
}

// What an operand is to the product.
static float rounded(float v)
{
    return stream.o.f32 ? v : bf16(v);
}

static void check_products(fm_dtype type, size_t n, size_t rows, size_t cols, bool add, bool half)
{
    fm_tensor W, dW;
    weight(&W, &dW, type, rows, cols);
    const size_t gs = half ? rows : rows + 3, xs = half ? cols : cols + 2;
    buf g_y = random_rows(n * gs, 1, 0, half), x = random_rows(n * xs, 1, 0, half), g_x = random_rows(n * xs, 1, 0, half),
        g_W = random_buf(rows * cols, 1, 0);
    float *Wt = (float *)malloc(rows * cols * 4);
    ref.transpose(&cpu_run, Wt, rows, &W);
    for (size_t t = 0; t < n; t++)
        for (size_t c = 0; c < cols; c++) {
            double sum = add ? g_x.h[t * xs + c] : 0.0;
            for (size_t r = 0; r < rows; r++) sum += (double)rounded(g_y.h[t * gs + r]) * (double)rounded(Wt[c * rows + r]);
            g_x.h[t * xs + c] = (float)sum;
        }
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) {
            double sum = g_W.h[r * cols + c];
            for (size_t t = 0; t < n; t++) sum += (double)rounded(g_y.h[t * gs + r]) * (double)rounded(x.h[t * xs + c]);
            g_W.h[r * cols + c] = (float)sum;
        }
    free(Wt);
    const fm_linear_gx_args a = {g_x.d, xs, g_y.d, gs, &dW, add, n, half, half};
    fm_linear_gw_args b = {g_W.d, g_y.d, gs, x.d, xs, n, rows, cols, true, half, half};
    gpu.linear_gx(&gpu_run, &a);
    gpu.linear_gw(&gpu_run, &b);
    near_rows("linear_gx", g_x, 2e-6, half);
    near("linear_gw", g_W, 2e-6);
    release();
}

static void check_rows(bool half)
{
    const size_t mixed[] = {5, 0, 1, 70, 33, 8, 16, 2, 3, 0, 129}, one[] = {1}, many[] = {1, 1, 1, 1, 2, 2, 2, 2, 2, 9, 0, 0};
    for (int i = 0; i < 4; i++) {
        for (int at_once = half; at_once < 2; at_once++) {
            check_norm(1, 16, i & 1, i & 2, 0, half, at_once), check_norm(67, 16, i & 1, i & 2, 9, half, at_once);
            check_norm(33, 100, i & 1, i & 2, 1, half, at_once), check_norm(5, 4096, i & 1, i & 2, 0, half, at_once);
            check_norm(700, 256, i & 1, i & 2, 4, half, at_once), check_norm(3, 5, i & 1, i & 2, 0, half, at_once);
            check_norm(9000, 768, i & 1, i & 2, 0, half, at_once), check_norm(70, 2048, i & 1, i & 2, 8, half, at_once);
        }
        const rows_of r = half ? HALVES : FLOATS;
        check_scan(mixed, 11, 64, 16, i & 1, i & 2, r), check_scan(mixed, 11, 100, 8, i & 1, i & 2, r);
        check_scan(one, 1, 192, 16, i & 1, i & 2, r), check_scan(many, 12, half ? 68 : 67, 24, i & 1, i & 2, r);
        check_conv(mixed, 11, 64, 4, i & 1, i & 2, half), check_conv(many, 12, half ? 332 : 333, 4, i & 1, i & 2, half);
        check_conv(mixed, 11, 130, 1 + i, i & 1, i & 2, half), check_conv(many, 12, 70, 7, i & 1, i & 2, half);
        if (!half) check_conv(one, 1, 1, 4, i & 1, i & 2, false);
    }
    check_xent(8, 32, 1e-3f, half), check_xent(20, 4096, 1e-4f, half), check_xent(6, 50280, 1e-4f, half),
        check_xent(6, 65024, 1e-4f, half);
}

// More sequences than a wave of blocks has walks, in windows of 32 tokens, which are joined where they fill it: documents, whole windows,
// empty ones.
static void check_joined_scan(size_t windows, rows_of rows)
{
    enum { WINDOWS_MOST = 36, DOCUMENTS = 3 };
    size_t lengths[WINDOWS_MOST * DOCUMENTS];
    for (size_t w = 0; w < windows; w++) {
        const size_t a = w * 7 % 33, b = (32 - a) * (w % 3) / 2;
        lengths[3 * w] = a, lengths[3 * w + 1] = b, lengths[3 * w + 2] = 32 - a - b;
    }
    check_scan(lengths, windows * DOCUMENTS, 640, 16, true, false, rows);
}

static void check_kept_scans(void)
{
    for (int r = FLOATS; r <= KEPT; r++) check_joined_scan(36, (rows_of)r);
    check_joined_scan(26, KEPT); // too few for a wave: apart
#ifndef FM_CHECK_ALONE
    const size_t uneven[] = {5, 1, 70, 33, 8, 16, 2, 129}, even[] = {64, 40};
    fm_cuda_fill_scan(&gpu);
    for (int list = 0; list < 2; list++) {
        check_scan(uneven, 8, 128, 16, true, list, KEPT), check_scan(even, 2, 64, 16, true, list, KEPT);
        check_scan(uneven, 8, 192, 16, true, list, KEPT);
    }
    check_kept(uneven, 8, 128, true), check_kept(even, 2, 64, false), check_kept(even, 2, 192, true);
#endif
}

static void report(void)
{
    must(cudaStreamSynchronize(stream.stream), "checks");
    if (stream.error != cudaSuccess) n_failed++;
    printf("%d checks, %d failed, worst %.2f of its bound\n", n_checks, n_failed, worst);
}

static void check_all(void)
{
    check_rows(false), check_rows(true);
    check_kept_scans();
    check_xent(7, 50, 0, false), check_xent(9, 33, 1e-3f, false), check_xent(1, 1, 0, false);
    check_sums(1, 1, 1), check_sums(67, 32, 3), check_sums(3000, 37, 2), check_sums(20, 100, 9);
    check_embed(1, 16, 8, 8), check_embed(5000, 40, 3000, 1000), check_embed(9000, 300, 2048, 2),
        check_embed(300, 256, 4096, 1);
    check_optim(1), check_optim(4099), check_optim(100000);
    check_dropout(1, 1, false), check_dropout(33, 67, true), check_dropout(5, 256, false);
    for (int t = FM_F32; t <= FM_BF16; t++) check_transpose((fm_dtype)t, 67, 33), check_transpose((fm_dtype)t, 1, 100);
    for (int i = 0; i < 4; i++) {
        stream.o.f32 = i & 1;
        for (int t = FM_F32; t <= FM_BF16; t++) {
            check_products((fm_dtype)t, 67, 48, 64, i & 2, false), check_products((fm_dtype)t, 17, 33, 100, i & 2, false);
            check_products((fm_dtype)t, 1, 16, 5, i & 2, false);
            if (!stream.o.f32) check_products((fm_dtype)t, 67, 48, 64, i & 2, true);
        }
        check_products(FM_F32, 300, 130, 70, i & 2, false);
    }
    stream.o.f32 = false;
}

// ---- Times ----

static cudaEvent_t ev[2];
static char *flush;
enum { FLUSH = 192 << 20, RUNS = 9 };

static bool half_times; // rows are bf16

template <class T> __global__ void fill(T *x, size_t n, float scale, float shift)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t v = i * 0x9E3779B97F4A7C15u + 12345;
        v ^= v >> 31, v *= 0xBF58476D1CE4E5B9u, v ^= v >> 29, v *= 0x94D049BB133111EBu, v ^= v >> 32;
        x[i] = (T)(shift + scale * ((float)(uint32_t)v * 4.6566129e-10f - 1.0f));
    }
}

static float *room(size_t n, float scale, float shift)
{
    float *p;
    must(cudaMalloc(&p, n * 4), "cudaMalloc");
    device_all[n_buffers] = p, host_all[n_buffers++] = NULL;
    fill<<<1024, 256, 0, stream.stream>>>(p, n, scale, shift);
    return p;
}

static float *room_rows(size_t n, float scale, float shift)
{
    float *p = room(n, scale, shift);
    if (half_times) fill<<<1024, 256, 0, stream.stream>>>((__nv_bfloat16 *)p, n, scale, shift);
    return p;
}

// Element i of rows.
static float *row_place(float *rows, size_t i)
{
    return half_times ? (float *)((__nv_bfloat16 *)rows + i) : rows + i;
}

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

// Median time in microseconds; the caches hold something else before each run.
template <class F> static double time_of(const char *what, double gb, double tflop, F call)
{
    float t[RUNS];
    call();
    for (int i = 0; i < RUNS; i++) {
        cudaMemsetAsync(flush, i, FLUSH, stream.stream);
        cudaEventRecord(ev[0], stream.stream);
        call();
        cudaEventRecord(ev[1], stream.stream);
        must(cudaEventSynchronize(ev[1]), what);
        cudaEventElapsedTime(&t[i], ev[0], ev[1]);
    }
    qsort(t, RUNS, sizeof *t, by_value);
    const double us = t[RUNS / 2] * 1e3;
    printf("  %-26s %9.1f us", what, us);
    if (gb > 0) printf(" %7.0f GB/s", gb / us * 1e6);
    if (tflop > 0) printf(" %7.1f TFLOP/s", tflop / us * 1e6);
    printf("\n");
    return us;
}

// The same call twice on zeros gives the same bits.
template <class F> static void same_twice(const char *what, float *out, size_t n, F call)
{
    char *got[2];
    for (int i = 0; i < 2; i++) {
        got[i] = (char *)malloc(n * 4);
        cudaMemsetAsync(out, 0, n * 4, stream.stream);
        call();
        must(cudaStreamSynchronize(stream.stream), what);
        must(cudaMemcpy(got[i], out, n * 4, cudaMemcpyDeviceToHost), what);
    }
    if (memcmp(got[0], got[1], n * 4) != 0) {
        n_failed++;
        printf("FAIL %s: other bits the second time\n", what);
    }
    free(got[0]), free(got[1]);
}

// Documents of uneven length in the place of equal rows.
static steps uneven_steps(size_t T, size_t most)
{
    size_t *lengths = (size_t *)malloc((T + 1) * sizeof(size_t)), n = 0;
    for (size_t left = T; left > 0; n++) {
        lengths[n] = 1 + (size_t)(uniform() * (double)most);
        if (lengths[n] > left) lengths[n] = left;
        left -= lengths[n];
    }
    const steps s = ragged_of(lengths, n);
    free(lengths);
    return s;
}

typedef struct shape {
    const char *name;
    size_t n_seq, length, d, I, N, rank, vocab, layers, loss_rows;
} shape;

static bool scan_alone;

static double time_product(const char *what, size_t T, size_t rows, size_t cols, float *g_y, float *x, float *g_x, float *W,
                           float *g_W)
{
    const fm_tensor w = {W, FM_F32, rows, cols, cols * 4};
    const fm_linear_gx_args a = {g_x, cols, g_y, rows, &w, false, T, half_times, half_times};
    fm_linear_gw_args b = {g_W, g_y, rows, x, cols, T, rows, cols, true, half_times, half_times};
    same_twice(what, g_W, rows * cols, [&] {
        gpu.linear_gx(&gpu_run, &a);
        gpu.linear_gw(&gpu_run, &b);
    });
    return time_of(what, 0, 4e-12 * (double)(T * rows) * (double)cols, [&] {
        gpu.linear_gx(&gpu_run, &a);
        gpu.linear_gw(&gpu_run, &b);
    });
}

static void time_shape(const shape *s)
{
    const size_t T = s->n_seq * s->length, I = s->I, N = s->N, q = s->rank + 2 * N, blocks = (I + 63) / 64, d = s->d;
    const double e9 = half_times ? 2e-9 : 4e-9, f32 = 4e-9, TI = (double)(T * I), Td = (double)(T * d);
    printf("%s: %zu x %zu tokens, rows of %s\n", s->name, s->n_seq, s->length, half_times ? "bf16" : "f32");
    const steps r = equal_steps(s->n_seq, s->length);
    float *xz = room_rows(T * 2 * I, 1, 0), *g_xz = room_rows(T * 2 * I, 1, 0), *u = room_rows(T * I, 1, 0),
          *dt = room_rows(T * I, 1, -3), *g = room_rows(T * I, 1, 0), *g_u = room_rows(T * I, 1, 0),
          *g_dt = room_rows(T * I, 1, 0), *n_rows = room_rows(T * d, 1, 0), *q_rows = room_rows(T * q, 1, 0),
          *bc = room(T * q, 1, 0), *A = room(N * I, 2, -4), *v = room(3 * I, 0.1f, 0), *g_A = room(N * I, 0, 0),
          *g_v = room(8 * I, 0, 0), *parts = room(blocks * T * 2 * N, 0, 0),
          *scratch = room(gpu.scan_back_floats(T, I, N), 0, 0), *x = room(T * d, 1, 0), *g_x = room(T * d, 1, 0),
          *rho = room(T, 1, 0), *W = room(2 * I * d, 0.02f, 0), *g_W = room(2 * I * d, 0, 0), *g_q = room(T * q, 1, 0);
    fm_scan_back_args b = {};
    b.g_u = g_u, b.g_dt = g_dt, b.g_z = row_place(g_xz, I), b.g_u_stride = b.g_dt_stride = I, b.g_z_stride = 2 * I;
    b.g_bc_parts = parts, b.g_A = g_A, b.g_dt_bias = g_v, b.g_skip = g_v + I, b.g = g, b.g_stride = I;
    b.u = u, b.dt = dt, b.dt_bias = v, b.A = A, b.B = bc + s->rank, b.C = bc + s->rank + N, b.skip = v + I,
    b.z = row_place(xz, I), b.half = half_times;
    b.u_stride = b.dt_stride = I, b.bc_stride = q, b.z_stride = 2 * I, b.ragged = &r.d, b.d_inner = I, b.d_state = N;
    b.scratch = scratch;
#ifndef FM_CHECK_ALONE
    if (half_times && fm_scan_kept_floats(T, I, N)) b.kept = room(fm_scan_kept_floats(T, I, N), 1, 0);
#endif
    double layer = 0;
    if (scan_alone) {
        gpu.scan_back(&gpu_run, &b);
        gpu.scan_back(&gpu_run, &b);
        must(cudaStreamSynchronize(stream.stream), "scan_back");
        release();
        return;
    }
    layer += time_of("scan_back", e9 * TI * 7, 0, [&] { gpu.scan_back(&gpu_run, &b); });
    const steps uneven = uneven_steps(T, s->length / 2);
    b.ragged = &uneven.d;
    time_of("scan_back, documents", e9 * TI * 7, 0, [&] { gpu.scan_back(&gpu_run, &b); });
    same_twice("scan_back", g_A, N * I, [&] { gpu.scan_back(&gpu_run, &b); });
    same_twice("scan_back parts", parts, T * 2 * N, [&] { gpu.scan_back(&gpu_run, &b); });
    b.ragged = &r.d;
    layer += time_of("sum_parts", f32 * (double)(blocks * T * 2 * N), 0,
                     [&] { gpu.sum_parts(&gpu_run, g_q, q, parts, blocks, T, 2 * N); });
    fm_conv_back_args c = {};
    c.g_x = g_xz, c.g_x_stride = 2 * I, c.g_w = g_v, c.g_bias = g_v + 4 * I, c.g = g_u, c.g_stride = I;
    c.x = xz, c.x_stride = 2 * I, c.w = W, c.bias = v, c.ragged = &r.d, c.d_inner = I, c.d_conv = 4, c.half = half_times;
    layer += time_of("conv_back", e9 * TI * 3, 0, [&] { gpu.conv_back(&gpu_run, &c); });
    fm_rmsnorm_back_args n = {g_x, d, rho, n_rows, d, x, d, W, T, d, 1e-5f, true, half_times, g_W, half_times ? g_u : NULL};
    layer += time_of("rmsnorm_back d_model", f32 * Td * 3 + e9 * Td, 0, [&] { gpu.rmsnorm_back(&gpu_run, &n); });
    fm_rmsnorm_back_args m = {g_q, q, rho, bc, q, bc, q, NULL, T, N, 1e-5f, false, false, NULL, NULL}, k = m;
    k.d = s->rank;
    layer += time_of("rmsnorm_back dt, B, C", f32 * (double)(T * q) * 3, 0, [&] {
        gpu.rmsnorm_back(&gpu_run, &k);
        gpu.rmsnorm_back(&gpu_run, &m);
        gpu.rmsnorm_back(&gpu_run, &m);
    });
    layer += time_product("out_proj gx + gw", T, d, I, n_rows, u, g, W, g_W);
    layer += time_product("dt_proj gx + gw", T, I, s->rank, g_dt, q_rows, g_q, W, g_W);
    layer += time_product("x_proj gx + gw", T, q, I, q_rows, u, g_u, W, g_W);
    layer += time_product("in_proj gx + gw", T, 2 * I, d, g_xz, n_rows, g_x, W, g_W);
    if (!half_times) time_of("sum_rows 2 d_inner", e9 * TI * 2, 0, [&] { gpu.sum_rows(&gpu_run, g_v, g_xz, 2 * I, T, 2 * I); });
    float *logits = room(s->loss_rows * s->vocab, 4, 0), *E = room(s->vocab * d, 0.02f, 0), *g_E = room(s->vocab * d, 0, 0),
          *M = room(s->vocab * d, 0, 0.1f), *V = room(s->vocab * d, 0, 0.1f), *loss = room(T, 0, 0);
    buf ids = take(T * 4);
    for (size_t i = 0; i < T; i++) ((int32_t *)ids.h)[i] = (int32_t)(pow(uniform(), 3) * (double)s->vocab);
    up(ids);
    const fm_xent_args xe = {logits, loss, (const int32_t *)ids.d, s->loss_rows, s->vocab, 1e-4f, 1e-4f, half_times};
    const double chunks = (double)T / (double)s->loss_rows;
    double rest = chunks * time_of("xent", (f32 + e9) * (double)(s->loss_rows * s->vocab), 0, [&] { gpu.xent(&gpu_run, &xe); });
    rest += chunks * time_product("head gx + gw", s->loss_rows, s->vocab, d, logits, n_rows, g_x, E, g_E);
    rest += time_of("embed_back", f32 * Td, 0, [&] { gpu.embed_back(&gpu_run, g_E, g_x, d, (const int32_t *)ids.d, T, d); });
    fm_adamw_args w = {E, M, V, g_E, s->vocab * d, 1, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 1};
    const double size = (double)(s->vocab * d),
                 all = 2 * size + (double)s->layers * (double)(3 * I * d + I * (q + s->rank + 24));
    const double adam = time_of("adamw of an embedding", f32 * size * 7, 0, [&] { gpu.adamw(&gpu_run, &w); });
    const double sq =
        time_of("squares of an embedding", f32 * size, 0, [&] { gpu.squares(&gpu_run, (double *)logits, g_E, w.n); });
    printf("  %s: backward of a layer %.0f us, of %zu layers %.2f ms, head and embedding %.2f ms, optimiser %.2f ms\n", s->name,
           layer, s->layers, layer * (double)s->layers / 1e3, rest / 1e3, (adam + sq) * all / size / 1e3);
    release();
}

static void time_limits(void)
{
    const size_t n = 8192;
    float *a = room(n * n, 1, 0), *b = room(n * n, 1, 0), *c = room(n * n, 1, 0);
    time_of("limit: copy", 2e-9 * (double)(n * n * 4), 0,
            [&] { cudaMemcpyAsync(a, b, n * n * 4, cudaMemcpyDeviceToDevice, stream.stream); });
    const fm_tensor W = {a, FM_F32, n, n, n * 4};
    const fm_linear_gx_args p = {c, n, b, n, &W, false, n};
    gpu.linear_gx(&gpu_run, &p); // leaves bf16 operands in the scratch
    fm_gemm g = {};
    g.c = c, g.ldc = g.lda = g.ldb = g.m = g.n = g.k = n, g.a = stream.work, g.b = (char *)stream.work + n * n * 2,
    g.b_t = true;
    time_of("limit: bf16 product 8192^3", 0, 2e-12 * (double)(n * n) * (double)n, [&] { fm_cuda_gemm(&stream, &g); });
    release();
}

int main(int argc, char **argv)
{
    cudaDeviceProp p;
    must(cudaGetDeviceProperties(&p, 0), "device");
    must(cudaStreamCreateWithFlags(&stream.stream, cudaStreamNonBlocking), "stream");
    stream.n_sm = p.multiProcessorCount;
    stream.work_bytes = (size_t)3 << 30;
    const bool check = argc > 1 && strcmp(argv[1], "check") == 0;
    if (check) stream.work_bytes = (size_t)64 << 20;
    must(cudaMalloc(&stream.work, stream.work_bytes), "work");
    fm_kernels_fill_ref(&ref);
    fm_cuda_fill_back(&gpu);
    printf("%s\n", p.name);
    scan_alone = argc > 2 && strcmp(argv[1], "scan") == 0;
    if (check && argc > 2 && strcmp(argv[2], "scan") == 0)
        check_kept_scans();
    else if (!scan_alone)
        check_all();
    if (!scan_alone) report();
    if (check) return n_failed != 0;
    cudaEventCreate(&ev[0]), cudaEventCreate(&ev[1]);
    must(cudaMalloc(&flush, FLUSH), "flush");
    if (!scan_alone) time_limits();
    const shape shapes[] = {{"tales", 32, 512, 256, 512, 16, 16, 4096, 12, 16384},
                            {"130M", 16, 2048, 768, 1536, 16, 48, 50280, 24, 4096},
                            {"7B", 4, 2048, 4096, 8192, 16, 256, 65024, 8, 4096}};
    for (size_t i = 0; i < 6; i++) {
        half_times = i % 2;
        if (!scan_alone || strcmp(argv[2], shapes[i / 2].name) == 0) time_shape(&shapes[i / 2]);
    }
    if (stream.error != cudaSuccess) n_failed++;
    return n_failed != 0;
}
