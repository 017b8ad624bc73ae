// back_conv.cu - backward of the convolution and its SiLU (ref/conv.c), a thread a channel.
//
// A block walks a run of rows, whatever sequences they belong to.  The gradient of an input needs the sums of the d_conv - 1 rows
// after it, so the walk goes that far past its end and computes those sums twice.  Weights take their share in parts of rows.
#include "kernels/cuda/back.cuh"

enum { CONV_THREADS = 128 };

typedef struct conv_walk {
    fm_conv_back_args a;
    const size_t *begin;
    size_t n_seq, n_tokens, per;
    float *part; // (parts, d_conv + 1, d_inner): of the weights and the bias
} conv_walk;

__device__ static inline float sigmoid(float v)
{
    return __fdividef(1.0f, 1.0f + __expf(-v)); // within 4e-7
}

// Gradient of the sum before SiLU.
__device__ static inline float through_silu(float g, float sum)
{
    const float s = sigmoid(sum);
    return g * (s * (1.0f + sum * (1.0f - s)));
}

// Input of a row at or before the begin of its sequence's rows in this step: a carried one, or 0.
__device__ static float conv_input(const fm_conv_back_args &a, size_t seq, size_t first, ptrdiff_t row, size_t c)
{
    if (row >= (ptrdiff_t)first) return a.x[(size_t)row * a.x_stride + c];
    const ptrdiff_t at = row - (ptrdiff_t)first + (ptrdiff_t)(a.d_conv - 1);
    if (at < 0 || (!a.state.list && !a.state.rows)) return 0.0f;
    return fm_cuda_state(a.state, seq)[(size_t)at * a.d_inner + c];
}

// What a thread holds of its channel; weights are K, the first K - d_conv of them 0.
template <int K> struct conv_channel {
    float w[K], g_w[K], bias, g_bias;
};

template <int K> __device__ static inline void push(float (&v)[K], float first)
{
#pragma unroll
    for (int j = K - 1; j > 0; j--) v[j] = v[j - 1];
    v[0] = first;
}

// Rows from .. to - 1 of one sequence.
template <int K>
__device__ static void conv_piece(const conv_walk &v, conv_channel<K> &k, size_t seq, size_t from, size_t to, size_t c)
{
    const fm_conv_back_args &a = v.a;
    const size_t first = v.begin[seq], end = v.begin[seq + 1], past = a.d_conv - 1;
    const bool tail = a.g_state.list || a.g_state.rows;
    enum { AHEAD = K <= 4 ? 4 : 1 }; // rows asked for together, so that one wait serves them all
    float x[K], g[K];                // inputs and gradients of sums of rows i, i - 1, ...
#pragma unroll
    for (int j = 0; j < K; j++) {
        x[j] = j < K - 1 && (size_t)j < past ? conv_input(a, seq, first, (ptrdiff_t)from - 1 - j, c) : 0.0f;
        g[j] = 0.0f;
    }
    const float *x_row = a.x + from * a.x_stride + c, *g_row = a.g + from * a.g_stride + c;
    float *g_x_row = a.g_x + from * a.g_x_stride + c;
    for (size_t at = from; at < to + K - 1; at += AHEAD, x_row += AHEAD * a.x_stride, g_row += AHEAD * a.g_stride) {
        float xs[AHEAD], gs[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const bool in = at + j < end && at + j < to + K - 1;
            xs[j] = in ? x_row[j * a.x_stride] : 0.0f;
            gs[j] = in ? g_row[j * a.g_stride] : 0.0f;
        }
#pragma unroll
        for (int ahead = 0; ahead < AHEAD; ahead++) {
            const size_t i = at + ahead;
            push(x, xs[ahead]);
            float sum = k.bias;
#pragma unroll
            for (int j = 0; j < K; j++) sum += k.w[j] * x[K - 1 - j];
            push(g, i < end ? through_silu(gs[ahead], sum) : 0.0f);
            const float mine = i < to ? g[0] : 0.0f; // the rows after are another block's
            k.g_bias += mine;
#pragma unroll
            for (int j = 0; j < K; j++) k.g_w[j] += mine * x[K - 1 - j];
            if (i < from + K - 1 || i >= to + K - 1) continue;
            // Row r = i - (K - 1): the sum of r + d_conv - 1 - k has met it with weight k, here w[k + K - d_conv].
            const size_t e = i - (K - 1) - first + past; // input e of the window before the step and the step
            float g_x = tail && e >= end - first ? fm_cuda_state(a.g_state, seq)[(e - (end - first)) * a.d_inner + c] : 0.0f;
#pragma unroll
            for (int j = 0; j < K; j++) g_x += k.w[j] * g[j];
            *g_x_row = g_x;
            g_x_row += a.g_x_stride;
        }
    }
}

template <int K> __global__ void __launch_bounds__(CONV_THREADS) conv_rows(conv_walk v)
{
    const fm_conv_back_args &a = v.a;
    const size_t c = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x, first = blockIdx.y * v.per;
    const size_t last = first + v.per < v.n_tokens ? first + v.per : v.n_tokens;
    const int pad = K - (int)a.d_conv;
    if (c >= a.d_inner) return;
    conv_channel<K> k;
    k.bias = a.bias ? a.bias[c] : 0.0f;
    k.g_bias = 0.0f;
#pragma unroll
    for (int j = 0; j < K; j++) {
        k.w[j] = j >= pad ? a.w[(size_t)(j - pad) * a.d_inner + c] : 0.0f;
        k.g_w[j] = 0.0f;
    }
    size_t low = 0, high = v.n_seq; // begin[low] <= first < begin[high]
    while (high - low > 1) {
        const size_t mid = (low + high) / 2;
        if (v.begin[mid] <= first)
            low = mid;
        else
            high = mid;
    }
    for (size_t row = first, seq = low; row < last; seq++) {
        const size_t end = v.begin[seq + 1], to = end < last ? end : last;
        if (end <= row) continue;
        conv_piece<K>(v, k, seq, row, to, c);
        row = to;
    }
    float *part = v.part + (size_t)blockIdx.y * (a.d_conv + 1) * a.d_inner + c;
#pragma unroll
    for (int j = 0; j < K; j++)
        if (j >= pad) part[(size_t)(j - pad) * a.d_inner] = k.g_w[j];
    part[a.d_conv * a.d_inner] = k.g_bias;
}

// ---- Gradients of the windows before the step: only where somebody wants them, so plainly ----

__device__ static float conv_sum_back(const fm_conv_back_args &a, size_t seq, size_t first, size_t t, size_t c)
{
    float sum = a.bias ? a.bias[c] : 0.0f;
    for (size_t k = 0; k < a.d_conv; k++)
        sum += a.w[k * a.d_inner + c] * conv_input(a, seq, first, (ptrdiff_t)(first + t + k) - (ptrdiff_t)(a.d_conv - 1), c);
    return through_silu(a.g[(first + t) * a.g_stride + c], sum);
}

// After conv_rows, which has read what comes from behind.  A thread a channel of a sequence: it reads all before it writes.
__global__ void __launch_bounds__(CONV_THREADS) conv_windows(conv_walk v)
{
    const fm_conv_back_args &a = v.a;
    const size_t c = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x, seq = blockIdx.y;
    const size_t first = v.begin[seq], n = v.begin[seq + 1] - first, past = a.d_conv - 1;
    if (c >= a.d_inner || n == 0) return;
    float *g_state = fm_cuda_state(a.g_state, seq) + c, before[FM_CONV_MAX], sums[FM_CONV_MAX];
    for (size_t t = 0; t < past && t < n; t++) sums[t] = conv_sum_back(a, seq, first, t, c);
    for (size_t e = 0; e < past; e++) {
        before[e] = e >= n ? g_state[(e - n) * a.d_inner] : 0.0f;
        for (size_t k = 0; k <= e; k++)
            if (e - k < n) before[e] += a.w[k * a.d_inner + c] * sums[e - k];
    }
    for (size_t e = 0; e < past; e++) g_state[e * a.d_inner] = before[e];
}

static void add_parts(fm_stream *s, float *out, const float *part, size_t parts, size_t stride, size_t d)
{
    if (!out) return;
    fm_sum_columns<<<fm_blocks(d, FM_SUM_LANES), dim3(FM_SUM_LANES, FM_SUM_ROWS), 0, s->stream>>>(
        out, (float *)NULL, fm_plain_rows{part, stride}, parts, d, parts);
    FM_LAUNCHED(s, "conv_back");
}

static void conv_back(const fm_run *run, const fm_conv_back_args *a)
{
    fm_stream *s = run->stream;
    const size_t T = a->ragged->n_tokens, row = (a->d_conv + 1) * a->d_inner, per = fm_part_rows(T, a->d_conv + 1);
    if (T == 0 || a->d_inner == 0) return;
    conv_walk v = {*a, a->ragged->begin, a->ragged->n_seq, T, per, (float *)s->work};
    const unsigned parts = fm_blocks(T, (unsigned)per), channels = fm_blocks(a->d_inner, CONV_THREADS);
    if (a->d_conv <= 4)
        conv_rows<4><<<dim3(channels, parts), CONV_THREADS, 0, s->stream>>>(v);
    else
        conv_rows<FM_CONV_MAX><<<dim3(channels, parts), CONV_THREADS, 0, s->stream>>>(v);
    FM_LAUNCHED(s, "conv_back");
    add_parts(s, a->g_w, v.part, parts, row, a->d_conv * a->d_inner);
    add_parts(s, a->g_bias, v.part + a->d_conv * a->d_inner, parts, row, a->d_inner);
    if (a->d_conv < 2 || !fm_states_exist(&a->g_state)) return;
    conv_windows<<<dim3(channels, (unsigned)a->ragged->n_seq), CONV_THREADS, 0, s->stream>>>(v);
    FM_LAUNCHED(s, "conv_back");
}

extern "C" void fm_cuda_fill_back_conv(fm_kernels *k)
{
    k->conv_back = conv_back;
}
