// conv.cu - causal depthwise convolution with carried windows, then silu.
//
// Limited by memory: x read once and out written once.  The rows of a step are cut into tiles, and a thread walks one tile for its
// channels with the window in registers.  Whoever has the first token of a sequence reads and writes its state; the tokens that
// look into the state belong to that thread, though they lie in the next tile, so that nobody else reads what it overwrites.
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/pack.cuh"

namespace
{

enum { WIDE = 4 /* channels of a thread, and the d_conv that has a kernel of its own */, THREADS = 64, TILE_MOST = 16 };
enum { GRID_MOST = 65535 };  // blocks across
enum { AHEAD = 8 };          // rows that a thread reads at once
enum { BLOCKS_PER_SM = 16 }; // what tiles are made small for

// R: float or __nv_bfloat16.
template <typename R> struct conv {
    R *out;
    fm_states state;
    const R *x;
    const float *w, *bias;
    const size_t *begin;
    size_t out_stride, x_stride, n_seq, n_tokens, d_inner, d_conv, tile;
    bool hold, one_each;   // one_each: row s is all of sequence s
    __nv_bfloat16 *packed; // (n_tokens, d_inner) without a gap, or NULL
    fm_records records;    // in its place where FORM is one of integers
};

// The sequence of a row: the last one that begins at or before it, which the warp finds together, 32 places at a time.
template <typename R> __device__ size_t find_seq(const conv<R> &a, size_t row)
{
    size_t lo = 0, n = a.n_seq; // it is one of lo .. lo + n - 1
    while (n > 1) {
        const size_t step = (n + 31) / 32, at = lo + threadIdx.x % 32 * step;
        const unsigned votes = __ballot_sync(0xffffffffu, at < lo + n && a.begin[at] <= row); // lane 0 always votes
        const size_t first = lo + (size_t)(31 - __clz((int)votes)) * step, left = lo + n - first;
        n = left < step ? left : step;
        lo = first;
    }
    return lo;
}

// Rows that one thread walks for one sequence, with the state when the first of them is the sequence's.
struct span {
    size_t begin, end;   // of the rows
    size_t first, after; // of the sequence
    float *state;
};

// The part of sequence `seq` that the tile of rows row .. last - 1 does; it may be empty.
template <typename R> __device__ span span_of(const conv<R> &a, size_t seq, size_t row, size_t last)
{
    const size_t past = a.d_conv - 1;
    span s = {};
    s.begin = s.first = a.one_each ? seq : a.begin[seq];
    s.after = a.one_each ? seq + 1 : a.begin[seq + 1];
    s.end = s.after < last ? s.after : last;
    if (s.first < row) {
        s.begin = s.first + past > row ? s.first + past : row;
    } else if (s.first < s.after) {
        if (s.end < s.first + past) s.end = s.after < s.first + past ? s.after : s.first + past;
        if (past > 0) s.state = fm_cuda_state(a.state, seq);
    }
    return s;
}

// Calls walk(span) for what this block's tile does of each sequence.
template <typename R, typename F> __device__ void for_spans(const conv<R> &a, F walk)
{
    const size_t row = blockIdx.y * a.tile, last = row + a.tile < a.n_tokens ? row + a.tile : a.n_tokens;
    for (size_t seq = a.one_each ? row : find_seq(a, row); seq < a.n_seq; seq++) {
        const span s = span_of(a, seq, row, last);
        if (s.first >= last) break;
        if (s.begin < s.end) walk(s);
    }
}

// ---- d_conv 4, four channels a thread ----

__device__ float4 fma4(float4 a, float4 b, float4 c)
{
    return {__fmaf_rn(a.x, b.x, c.x), __fmaf_rn(a.y, b.y, c.y), __fmaf_rn(a.z, b.z, c.z), __fmaf_rn(a.w, b.w, c.w)};
}

__device__ float4 silu4(float4 v)
{
    return {fm_silu(v.x), fm_silu(v.y), fm_silu(v.z), fm_silu(v.w)};
}

struct window { // the three inputs before the next one, oldest first
    float4 v[WIDE - 1];
};

template <bool ALIGNED, typename R> __device__ window load_window(const R *oldest, size_t stride, ptrdiff_t left)
{
    window w;
#pragma unroll
    for (int k = 0; k < WIDE - 1; k++) w.v[k] = fm_load4<ALIGNED>(oldest + k * stride, left);
    return w;
}

template <bool ALIGNED> __device__ void store_window(float *oldest, size_t stride, ptrdiff_t left, window w)
{
#pragma unroll
    for (int k = 0; k < WIDE - 1; k++) fm_store4<ALIGNED>(oldest + k * stride, left, w.v[k]);
}

// The states' places are known here only: an unaligned one costs its own accesses, not those of the rows.
template <bool ALIGNED, typename R> __device__ window before_span(const conv<R> &a, const span &s, size_t c, ptrdiff_t left)
{
    if (!s.state) return load_window<ALIGNED>(a.x + (s.begin - (WIDE - 1)) * a.x_stride + c, a.x_stride, left);
    if (ALIGNED && fm_is_aligned(s.state)) return load_window<true>(s.state + c, a.d_inner, left);
    return load_window<false>(s.state + c, a.d_inner, left);
}

template <bool ALIGNED, typename R> __device__ void carry(const conv<R> &a, const span &s, size_t c, ptrdiff_t left, window v)
{
    if (s.after > s.end) v = load_window<ALIGNED>(a.x + (s.after - (WIDE - 1)) * a.x_stride + c, a.x_stride, left);
    if (ALIGNED && fm_is_aligned(s.state))
        store_window<true>(s.state + c, a.d_inner, left, v);
    else
        store_window<false>(s.state + c, a.d_inner, left, v);
}

// The output of a row whose input is x, which the window then ends with.
template <bool ALIGNED, typename R>
__device__ float4 put_next(const conv<R> &a, const float4 w[WIDE], float4 bias, window &v, size_t row, size_t c, ptrdiff_t left,
                           float4 x)
{
    const float4 out = silu4(fma4(w[3], x, fma4(w[2], v.v[2], fma4(w[1], v.v[1], fma4(w[0], v.v[0], bias)))));
    v.v[0] = v.v[1], v.v[1] = v.v[2], v.v[2] = x;
    fm_store4<ALIGNED>(a.out + row * a.out_stride + c, left, out);
    if (a.packed) fm_store4_bf16(a.packed + row * a.d_inner + c, out);
    return out;
}

// A block's channels of so many rows are a record of each, which a warp rounds as pack_x does.
template <int FORM, int ROWS> struct stage {
    float4 v[FORM == FM_X_BF16 ? 1 : ROWS * THREADS];

    __device__ void put(int row, float4 out)
    {
        if (FORM != FM_X_BF16) v[FORM == FM_X_BF16 ? 0 : row * THREADS + (int)threadIdx.x] = out;
    }
    // Of n rows (n may be more than ROWS), the first of which is `row` of the step.
    template <typename R> __device__ void round(const conv<R> &a, size_t row, size_t n) const
    {
        static_assert(THREADS * WIDE == FM_CHUNK, "a block has the channels of a record");
        if (FORM == FM_X_BF16) return;
        __syncthreads();
        for (unsigned i = threadIdx.x / 32; i < ROWS && i < n; i += THREADS / 32) {
            float x[8];
            pack_load(x, (const float *)(v + (FORM == FM_X_BF16 ? 0 : i * THREADS)), FM_CHUNK, 0, true);
            a.records.template put<FORM == FM_X_Q8_256>(row + i, blockIdx.x, x);
        }
        if (ROWS > 1) __syncthreads(); // nobody overwrites what others still read
    }
};

// What is written might be what is read next, for all the compiler knows: so AHEAD rows are read before the first is written.
template <bool ALIGNED, int FORM, typename R> __global__ void __launch_bounds__(THREADS) conv_4(conv<R> a)
{
    __shared__ stage<FORM, AHEAD> rows;
    const size_t c = ((size_t)blockIdx.x * THREADS + threadIdx.x) * WIDE;
    const ptrdiff_t left = (ptrdiff_t)a.d_inner - (ptrdiff_t)c; // of the weights, not written on the device, before the wait
    float4 w[WIDE];
#pragma unroll
    for (int k = 0; k < WIDE; k++) w[k] = fm_load4<ALIGNED>(a.w + k * a.d_inner + c, left);
    const float4 bias = fm_load4<ALIGNED>(a.bias + c, a.bias ? left : 0);
    fm_begin_for<FORM>(a.records);
    for_spans(a, [&](const span &s) {
        if (left <= 0) return;
        window v = before_span<ALIGNED>(a, s, c, left);
        for (size_t row = s.begin; row < s.end; row += AHEAD) {
            typename fm_four<R>::type x[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                x[i] = fm_read4<ALIGNED>(a.x + (row + i) * a.x_stride + c, row + i < s.end ? left : 0);
#pragma unroll
            for (int i = 0; i < AHEAD; i++)
                if (row + i < s.end) rows.put(i, put_next<ALIGNED>(a, w, bias, v, row + i, c, left, fm_widened(x[i])));
            rows.round(a, row, s.end - row);
        }
        if (s.state && !a.hold) carry<ALIGNED>(a, s, c, left, v);
    });
}

// One token of each sequence.  Windows, which the kernel in front does not write, come before the wait.
template <bool ALIGNED, int FORM, typename R> __global__ void __launch_bounds__(THREADS) conv_one(conv<R> a)
{
    __shared__ stage<FORM, 1> rows;
    const size_t c = ((size_t)blockIdx.x * THREADS + threadIdx.x) * WIDE, seq = blockIdx.y;
    const ptrdiff_t left = (ptrdiff_t)a.d_inner - (ptrdiff_t)c;
    if (left <= 0) return; // whoever returns does not hold up the next kernel
    float4 w[WIDE];
#pragma unroll
    for (int k = 0; k < WIDE; k++) w[k] = fm_load4<ALIGNED>(a.w + k * a.d_inner + c, left);
    const float4 bias = fm_load4<ALIGNED>(a.bias + c, a.bias ? left : 0);
    float *state = fm_cuda_state(a.state, seq) + c;
    const bool whole = ALIGNED && fm_is_aligned(state);
    window v = whole ? load_window<true>(state, a.d_inner, left) : load_window<false>(state, a.d_inner, left);
    fm_begin_for<FORM>(a.records, a.n_seq);
    rows.put(0, put_next<ALIGNED>(a, w, bias, v, seq, c, left, fm_load4<ALIGNED>(a.x + seq * a.x_stride + c, left)));
    rows.round(a, seq, 1);
    if (a.hold) return;
    if (whole)
        store_window<true>(state, a.d_inner, left, v);
    else
        store_window<false>(state, a.d_inner, left, v);
}

// ---- Any d_conv, a channel a thread ----

// Input i of the window before the sequence followed by its tokens.
template <typename R> __device__ float input(const conv<R> &a, const span &s, size_t i, size_t c)
{
    const size_t past = a.d_conv - 1;
    return i < past ? s.state[i * a.d_inner + c] : fm_load1(a.x + (s.first + i - past) * a.x_stride + c);
}

template <typename R> __global__ void __launch_bounds__(THREADS) conv_any(conv<R> a)
{
    const size_t c = (size_t)blockIdx.x * THREADS + threadIdx.x, past = a.d_conv - 1;
    fm_begin();
    for_spans(a, [&](const span &s) {
        if (c >= a.d_inner) return;
        for (size_t row = s.begin; row < s.end; row++) {
            float sum = a.bias ? a.bias[c] : 0.0f;
            for (size_t k = 0; k < a.d_conv; k++)
                sum = __fmaf_rn(a.w[k * a.d_inner + c], input(a, s, row - s.first + k, c), sum);
            fm_store1(a.out + row * a.out_stride + c, fm_silu(sum));
            if (a.packed) a.packed[row * a.d_inner + c] = __float2bfloat16_rn(fm_silu(sum));
        }
        for (size_t i = 0; i < past && s.state && !a.hold; i++)
            s.state[i * a.d_inner + c] = input(a, s, s.after - s.first + i, c);
    });
}

bool all_aligned(const fm_conv_args *g)
{
    return fm_aligned(g->out, g->out_stride) && fm_aligned(g->x, g->x_stride) && fm_aligned(g->w, g->d_inner) &&
           fm_aligned(g->bias, 0);
}

// FORM: records are made of whole vectors in aligned places only.
template <typename R, int FORM> void launch(fm_stream *s, const fm_conv_args *g)
{
    enum { LEAST = FORM != FM_X_BF16 };
    const fm_ragged *r = g->ragged;
    conv<R> a = {(R *)g->out,
                 g->state,
                 (const R *)g->x,
                 g->w,
                 g->bias,
                 r->begin,
                 g->out_stride,
                 g->x_stride,
                 r->n_seq,
                 r->n_tokens,
                 g->d_inner,
                 g->d_conv,
                 1,
                 g->hold,
                 fm_is_one_each(r),
                 FORM == FM_X_BF16 ? (__nv_bfloat16 *)g->packed : NULL,
                 fm_records_at(g->packed, r->n_tokens, g->d_inner)};
    const bool wide = a.d_conv == WIDE;
    const unsigned blocks = fm_blocks(a.d_inner, wide ? THREADS * WIDE : THREADS);
    const size_t fit = a.n_tokens * blocks / ((size_t)s->n_sm * BLOCKS_PER_SM), most = wide ? TILE_MOST : 4 * TILE_MOST;
    a.tile = fit < 1 ? 1 : fit > most ? most : fit;
    while (fm_blocks(a.n_tokens, (unsigned)a.tile) > GRID_MOST) a.tile *= 2;
    const dim3 grid(blocks, fm_blocks(a.n_tokens, (unsigned)a.tile));
    const bool aligned = all_aligned(g);
    if (!wide)
        fm_queue(s, "conv_silu", conv_any<R>, grid, THREADS, a);
    else if (a.one_each && a.n_seq <= GRID_MOST)
        fm_queue(s, "conv_silu", aligned ? conv_one<true, FORM, R> : conv_one<LEAST, FORM, R>, dim3(blocks, (unsigned)a.n_seq),
                 THREADS, a);
    else
        fm_queue(s, "conv_silu", aligned ? conv_4<true, FORM, R> : conv_4<LEAST, FORM, R>, grid, THREADS, a);
}

// The pack that comes with the rows, or behind them.
void launch_records(fm_stream *s, const fm_conv_args *a)
{
    fm_conv_args rows = *a;
    rows.packed = NULL;
    const bool fits = a->d_conv == WIDE && a->d_inner % FM_CHUNK == 0 && all_aligned(a);
    if (fits && a->form == FM_X_Q8_256) return launch<float, FM_X_Q8_256>(s, a);
    if (fits) return launch<float, FM_X_Q8_32>(s, a);
    launch<float, FM_X_BF16>(s, &rows);
    fm_cuda_pack_after(s, a->packed, a->form, a->out, a->out_stride, a->ragged->n_tokens, a->d_inner);
}

void conv_silu(const fm_run *run, const fm_conv_args *a)
{
    if (a->ragged->n_tokens == 0 || a->d_inner == 0) return;
    if (a->packed && fm_cuda_is_records(run->stream, a->form, a->ragged->n_tokens))
        launch_records(run->stream, a);
    else if (a->half)
        launch<__nv_bfloat16, FM_X_BF16>(run->stream, a);
    else
        launch<float, FM_X_BF16>(run->stream, a);
}

} // namespace

extern "C" void fm_cuda_fill_conv(fm_kernels *k)
{
    k->conv_silu = conv_silu;
}
