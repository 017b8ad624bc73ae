// back_conv.cu - backward of the convolution and its SiLU (ref/conv.c), a thread a channel, or two where rows are bf16.
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

// ---- One channel a thread, or two that lie side by side in rows of bf16 ----

template <class T> struct channels_of;
template <> struct channels_of<float> {
    enum { V = 1 };
    typedef float raw;
};
template <> struct channels_of<__nv_bfloat16> {
    enum { V = 2 };
    typedef __nv_bfloat162 raw; // widening it is a use, which waits for it
};

template <int V> struct values {
    float v[V];
};

__device__ static inline values<1> widen(float x)
{
    return values<1>{{x}};
}
__device__ static inline values<2> widen(__nv_bfloat162 x)
{
    const float2 v = __bfloat1622float2(x);
    return values<2>{{v.x, v.y}};
}

template <class T> __device__ static inline typename channels_of<T>::raw fetch(const T *x, size_t i)
{
    return *(const typename channels_of<T>::raw *)(x + i);
}

template <class T> __device__ static inline values<channels_of<T>::V> load(const T *x, size_t i)
{
    return widen(fetch(x, i));
}

__device__ static inline void store(float *x, size_t i, values<1> v)
{
    x[i] = v.v[0];
}
__device__ static inline void store(__nv_bfloat16 *x, size_t i, values<2> v)
{
    *(__nv_bfloat162 *)(x + i) = __floats2bfloat162_rn(v.v[0], v.v[1]);
}

// Input of a row at or before the begin of its sequence's rows in this step: a carried one, or 0.
template <class T>
__device__ static values<channels_of<T>::V> conv_input(const fm_conv_back_args &a, size_t seq, size_t first, ptrdiff_t row,
                                                       size_t c)
{
    enum { V = channels_of<T>::V };
    if (row >= (ptrdiff_t)first) return load((const T *)a.x, (size_t)row * a.x_stride + c);
    const ptrdiff_t at = row - (ptrdiff_t)first + (ptrdiff_t)(a.d_conv - 1);
    values<V> v = {};
    if (at < 0 || (!a.state.list && !a.state.rows)) return v;
#pragma unroll
    for (int i = 0; i < V; i++) v.v[i] = fm_cuda_state(a.state, seq)[(size_t)at * a.d_inner + c + i];
    return v;
}

// What a thread holds of a channel; weights are K, the first K - d_conv of them 0.
template <int K> struct conv_channel {
    float w[K], g_w[K], bias, g_bias;
    float x[K], g[K]; // inputs and gradients of sums of rows i, i - 1, ...
};

template <int K> __device__ static inline void push(float (&v)[K], float first)
{
#pragma unroll
    for (int j = K - 1; j > 0; j--) v[j] = v[j - 1];
    v[0] = first;
}

// A row's input and gradient come in; `inside`: of the sequence, `mine`: of the rows whose weights' gradients are this block's.
template <int K> __device__ static inline void conv_take(conv_channel<K> &k, float x, float g, bool inside, bool mine)
{
    push(k.x, x);
    float sum = k.bias;
#pragma unroll
    for (int j = 0; j < K; j++) sum += k.w[j] * k.x[K - 1 - j];
    push(k.g, inside ? through_silu(g, sum) : 0.0f);
    const float own = mine ? k.g[0] : 0.0f;
    k.g_bias += own;
#pragma unroll
    for (int j = 0; j < K; j++) k.g_w[j] += own * k.x[K - 1 - j];
}

// A piece of a sequence that a block walks, in rows: from .. to - 1 are its own, and it looks at those below last.
struct piece {
    unsigned from, to, last, end; // end: of the sequence
};

// Inputs and gradients of N rows on their way.
template <class T, int N> struct coming {
    typename channels_of<T>::raw x[N], g[N];

    template <bool ALL>
    __device__ void fetch_rows(const T *x_row, size_t x_stride, const T *g_row, size_t g_stride, unsigned left)
    {
#pragma unroll
        for (int j = 0; j < N; j++) {
            x[j] = g[j] = typename channels_of<T>::raw();
            if (!ALL && j >= left) continue;
            x[j] = fetch(x_row, j * x_stride);
            g[j] = fetch(g_row, j * g_stride);
        }
    }
};

// Takes N rows from `row` on and writes what is complete then: the gradients of N inputs from `row` - K + 1 on.  ALL: all of them are
// this block's, and no window of states is near.
template <int K, class T, int V, int N, bool ALL>
__device__ static inline void conv_batch(const fm_conv_back_args &a, conv_channel<K> (&k)[V], const coming<T, N> &in,
                                         const piece &p, unsigned row, T *g_x_row, const float *tail)
{
    const unsigned past = (unsigned)a.d_conv - 1;
#pragma unroll
    for (int j = 0; j < N; j++, row++) {
        const values<V> x = widen(in.x[j]), g = widen(in.g[j]);
#pragma unroll
        for (int i = 0; i < V; i++) conv_take(k[i], x.v[i], g.v[i], ALL || row < p.end, ALL || row < p.to);
        if (!ALL && (row < p.from + K - 1 || row >= p.to + K - 1)) continue;
        // Row r = row - (K - 1): the sum of r + d_conv - 1 - k has met it with weight k, here w[k + K - d_conv].
        const unsigned r = row - (K - 1);
        const float *behind = !ALL && tail && r + past >= p.end ? tail + (size_t)(r + past - p.end) * a.d_inner : NULL;
        values<V> g_x;
#pragma unroll
        for (int i = 0; i < V; i++) {
            g_x.v[i] = behind ? behind[i] : 0.0f;
#pragma unroll
            for (int m = 0; m < K; m++) g_x.v[i] += k[i].w[m] * k[i].g[m];
        }
        store(g_x_row, j * a.g_x_stride, g_x);
    }
}

// Rows p.from .. p.to - 1 of one sequence, in batches: rows are asked for while those before them are worked on.
template <int K, class T, int V>
__device__ static void conv_piece(const conv_walk &v, conv_channel<K> (&k)[V], size_t seq, const piece &p, size_t c)
{
    const fm_conv_back_args &a = v.a;
    const size_t first = v.begin[seq], past = a.d_conv - 1;
    enum { N = K <= 4 ? 4 : 1 };
#pragma unroll
    for (int j = 0; j < K; j++) {
        values<V> x = {};
        if (j < K - 1 && (size_t)j < past) x = conv_input<T>(a, seq, first, (ptrdiff_t)p.from - 1 - j, c);
#pragma unroll
        for (int i = 0; i < V; i++) k[i].x[j] = x.v[i], k[i].g[j] = 0.0f;
    }
    const T *x_row = (const T *)a.x + p.from * a.x_stride + c, *g_row = (const T *)a.g + p.from * a.g_stride + c;
    T *g_x_row = (T *)a.g_x + c + ((ptrdiff_t)p.from - (K - 1)) * (ptrdiff_t)a.g_x_stride; // of what a batch completes
    const float *tail = a.g_state.list || a.g_state.rows ? fm_cuda_state(a.g_state, seq) + c : NULL;
    coming<T, N> now, next;
    next.template fetch_rows<false>(x_row, a.x_stride, g_row, a.g_stride, p.last - p.from);
    for (unsigned at = p.from; at < p.to + K - 1; at += N) {
        now = next;
        x_row += N * a.x_stride, g_row += N * a.g_stride;
        if (at + 2 * N <= p.last)
            next.template fetch_rows<true>(x_row, a.x_stride, g_row, a.g_stride, N);
        else
            next.template fetch_rows<false>(x_row, a.x_stride, g_row, a.g_stride, at + N < p.last ? p.last - at - N : 0);
        if (at >= p.from + K - 1 && at + N <= p.to && (!tail || at + N <= p.end - past))
            conv_batch<K, T, V, N, true>(a, k, now, p, at, g_x_row, tail);
        else
            conv_batch<K, T, V, N, false>(a, k, now, p, at, g_x_row, tail);
        g_x_row += N * a.g_x_stride;
    }
}

// The sequence that owns a row: begin[low] <= row < begin[low + 1], where none in between is empty.
__device__ static inline size_t conv_sequence(const conv_walk &v, size_t row)
{
    size_t low = 0, high = v.n_seq;
    while (high - low > 1) {
        const size_t mid = (low + high) / 2;
        if (v.begin[mid] <= row)
            low = mid;
        else
            high = mid;
    }
    return low;
}

template <int K, class T> __global__ void __launch_bounds__(CONV_THREADS) conv_rows(conv_walk v)
{
    enum { V = channels_of<T>::V };
    const fm_conv_back_args &a = v.a;
    const size_t c = ((size_t)blockIdx.x * CONV_THREADS + threadIdx.x) * V, first = blockIdx.y * v.per;
    const size_t last = first + v.per < v.n_tokens ? first + v.per : v.n_tokens;
    const int pad = K - (int)a.d_conv;
    if (c >= a.d_inner) return;
    conv_channel<K> k[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
        k[i].bias = a.bias ? a.bias[c + i] : 0.0f;
        k[i].g_bias = 0.0f;
#pragma unroll
        for (int j = 0; j < K; j++) {
            k[i].w[j] = j >= pad ? a.w[(size_t)(j - pad) * a.d_inner + c + i] : 0.0f;
            k[i].g_w[j] = 0.0f;
        }
    }
    for (size_t row = first, seq = conv_sequence(v, first); row < last; seq++) {
        const size_t end = v.begin[seq + 1], to = end < last ? end : last;
        if (end <= row) continue;
        const piece p = {(unsigned)row, (unsigned)to, (unsigned)(end < to + K - 1 ? end : to + K - 1), (unsigned)end};
        conv_piece<K, T, V>(v, k, seq, p, c);
        row = to;
    }
    float *part = v.part + (size_t)blockIdx.y * (a.d_conv + 1) * a.d_inner + c;
#pragma unroll
    for (int i = 0; i < V; i++) {
#pragma unroll
        for (int j = 0; j < K; j++)
            if (j >= pad) part[(size_t)(j - pad) * a.d_inner + i] = k[i].g_w[j];
        part[a.d_conv * a.d_inner + i] = k[i].g_bias;
    }
}

// ---- Gradients of the windows before the step: only where somebody wants them, so plainly ----

template <class T>
__device__ static float conv_sum_back(const fm_conv_back_args &a, size_t seq, size_t first, size_t t, size_t c, int i)
{
    float sum = a.bias ? a.bias[c + i] : 0.0f;
    for (size_t k = 0; k < a.d_conv; k++)
        sum += a.w[k * a.d_inner + c + i] *
               conv_input<T>(a, seq, first, (ptrdiff_t)(first + t + k) - (ptrdiff_t)(a.d_conv - 1), c).v[i];
    return through_silu(load((const T *)a.g, (first + t) * a.g_stride + c).v[i], sum);
}

// After conv_rows, which has read what comes from behind.  A thread a channel of a sequence: it reads all before it writes.
template <class T> __global__ void __launch_bounds__(CONV_THREADS) conv_windows(conv_walk v)
{
    enum { V = channels_of<T>::V };
    const fm_conv_back_args &a = v.a;
    const size_t channel = (size_t)blockIdx.x * CONV_THREADS + threadIdx.x, seq = blockIdx.y, c = channel / V * V;
    const size_t first = v.begin[seq], n = v.begin[seq + 1] - first, past = a.d_conv - 1;
    if (channel >= a.d_inner || n == 0) return;
    float *g_state = fm_cuda_state(a.g_state, seq) + channel, before[FM_CONV_MAX], sums[FM_CONV_MAX];
    for (size_t t = 0; t < past && t < n; t++) sums[t] = conv_sum_back<T>(a, seq, first, t, c, (int)(channel - c));
    for (size_t e = 0; e < past; e++) {
        before[e] = e >= n ? g_state[(e - n) * a.d_inner] : 0.0f;
        for (size_t k = 0; k <= e; k++)
            if (e - k < n) before[e] += a.w[k * a.d_inner + channel] * sums[e - k];
    }
    for (size_t e = 0; e < past; e++) g_state[e * a.d_inner] = before[e];
}

template <class T> static void launch_conv(fm_stream *s, const conv_walk &v)
{
    const fm_conv_back_args *a = &v.a;
    const unsigned parts = fm_blocks(v.n_tokens, (unsigned)v.per);
    const size_t row = (a->d_conv + 1) * a->d_inner;
    const dim3 blocks(fm_blocks(a->d_inner, CONV_THREADS * channels_of<T>::V), parts);
    if (a->d_conv <= 4)
        conv_rows<4, T><<<blocks, CONV_THREADS, 0, s->stream>>>(v);
    else
        conv_rows<FM_CONV_MAX, T><<<blocks, CONV_THREADS, 0, s->stream>>>(v);
    FM_LAUNCHED(s, "conv_back");
    fm_add_parts(s, a->g_w, v.part, parts, row, a->d_conv * a->d_inner, "conv_back");
    fm_add_parts(s, a->g_bias, v.part + a->d_conv * a->d_inner, parts, row, a->d_inner, "conv_back");
    if (a->d_conv < 2 || !fm_states_exist(&a->g_state)) return;
    conv_windows<T><<<dim3(fm_blocks(a->d_inner, CONV_THREADS), (unsigned)a->ragged->n_seq), CONV_THREADS, 0, s->stream>>>(v);
    FM_LAUNCHED(s, "conv_back");
}

static void conv_back(const fm_run *run, const fm_conv_back_args *a)
{
    fm_stream *s = run->stream;
    const size_t T = a->ragged->n_tokens, per = fm_part_rows(T, a->d_conv + 1);
    const size_t pairs = (uintptr_t)a->g_x | (uintptr_t)a->g | (uintptr_t)a->x;
    if (T == 0 || a->d_inner == 0) return;
    const conv_walk v = {*a, a->ragged->begin, a->ragged->n_seq, T, per, (float *)s->work};
    if (!a->half)
        launch_conv<float>(s, v);
    else if (pairs % 4 == 0 && (a->g_x_stride | a->g_stride | a->x_stride | a->d_inner) % 2 == 0)
        launch_conv<__nv_bfloat16>(s, v);
    else
        fm_cuda_note(s, cudaErrorInvalidValue, "conv_back: rows of bf16 want pairs of channels in aligned places");
}

extern "C" void fm_cuda_fill_back_conv(fm_kernels *k)
{
    k->conv_back = conv_back;
}
