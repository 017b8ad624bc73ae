// norm.cu - rmsnorm: squares summed in double, as everywhere, so that every table's scale agrees to one ulp of float.
//
// Limited by memory: a row is read once, 16 bytes a thread, and kept in registers until it is scaled.
#include "kernels/cuda/few_input.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/pack.cuh"

namespace
{

enum { WARP_ROWS = 4 };         // short rows of a block, one a warp
enum { SHORT = FM_CUDA_SHORT }; // floats of a short row, which a warp keeps whole

struct norm {
    float *out;
    const float *x, *w;
    size_t out_stride, x_stride, n, d;
    float eps;
    __nv_bfloat16 *packed; // (n, d) without a gap, or NULL; out may be NULL then
    fm_records records;    // in its place where FORM is one of integers; p NULL: of no run but the first
};

// Where a piece of numbers waits for the warps that round it.
template <int THREADS, int FORM, int N = KEPT> struct stage {
    float4 v[FORM == FM_X_BF16 ? 1 : N * THREADS];
};

template <int THREADS> __device__ void meet()
{
    if (THREADS == 32)
        __syncwarp();
    else
        __syncthreads();
}

// Rounds the piece that begins at column `first`: a warp takes 256 columns at a time, as pack_x does, and rounds all that it has at
// once, since each waits for its sums and divisions.
template <int THREADS, int FORM, int N>
__device__ void round_piece(const norm &a, size_t row, ptrdiff_t first, const float *piece)
{
    enum { WARPS = THREADS / 32, EACH = N * THREADS * 4 / FM_CHUNK / WARPS };
    constexpr bool WIDE = FORM == FM_X_Q8_256;
    const int warp = THREADS == 32 ? 0 : (int)threadIdx.x / 32;
    const ptrdiff_t left = (ptrdiff_t)a.d - first;
    rounded o[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float v[8];
        pack_load(v, piece, (size_t)left, (size_t)(warp + i * WARPS), true);
        o[i] = round_block(v, WIDE);
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const ptrdiff_t chunk = warp + i * WARPS;
        if (chunk * FM_CHUNK < left) a.records.template put_rounded<WIDE>(row, (size_t)(first / FM_CHUNK + chunk), o[i]);
    }
}

// FORM: of the pack, FM_X_BF16 where there is none.
template <int THREADS, bool ALIGNED, int FORM, int N>
__device__ void put_piece(const norm &a, size_t row, ptrdiff_t first, unsigned t, const piece<THREADS, N> &x,
                          const piece<THREADS, N> &w, float scale, stage<THREADS, FORM, N> *s)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        const ptrdiff_t i = first + x.column(t, j);
        if (i >= (ptrdiff_t)a.d) continue;
        const float4 v = scaled(x.v[j], scale, w.v[j]);
        if (FORM != FM_X_BF16) s->v[FORM == FM_X_BF16 ? 0 : t + j * THREADS] = v;
        if (FORM == FM_X_BF16 && a.packed) fm_store4_bf16(a.packed + row * a.d + i, v);
        if (a.out) fm_store4<ALIGNED>(a.out + row * a.out_stride + i, (ptrdiff_t)a.d - i, v);
    }
    if (FORM == FM_X_BF16 || !a.records.p) return;
    meet<THREADS>();
    round_piece<THREADS, FORM, N>(a, row, first, (const float *)s->v);
    meet<THREADS>(); // nobody overwrites what others still read
}

// w, the weights of the first piece, and the reciprocal of d are the caller's: nobody writes them just before, so they come while the row
// is waited for.
template <int THREADS, bool ALIGNED, int FORM, int N>
__device__ void norm_row(const norm &a, piece<THREADS, N> w, double reciprocal, size_t row, unsigned t,
                         stage<THREADS, FORM, N> *s)
{
    enum { COLS = piece<THREADS, N>::COLS };
    const float *x = a.x + row * a.x_stride;
    const ptrdiff_t d = (ptrdiff_t)a.d;
    piece<THREADS, N> v;
    v.template read<ALIGNED>(x, t, d);
    double sum = v.sum_squares();
    const bool whole = N > KEPT; // such pieces are all there is of a row
    for (ptrdiff_t i = COLS + 4 * (ptrdiff_t)t; !whole && i < d; i += 4 * THREADS)
        sum += squares(fm_load4<ALIGNED>(x + i, d - i));
    const float scale = norm_scale(THREADS == 32 ? fm_warp_sum(sum) : block_sum(sum), reciprocal, a.eps);
    put_piece<THREADS, ALIGNED, FORM, N>(a, row, 0, t, v, w, scale, s);
    for (ptrdiff_t i = COLS; !whole && i < d; i += COLS) {
        v.template read<ALIGNED>(x + i, t, d - i);
        w.read_weights(a.w ? a.w + i : NULL, t, d - i);
        put_piece<THREADS, ALIGNED, FORM, N>(a, row, i, t, v, w, scale, s);
    }
}

template <bool ALIGNED, int FORM> __global__ void __launch_bounds__(LONG_THREADS) norm_long(norm a)
{
    __shared__ stage<LONG_THREADS, FORM> s;
    piece<LONG_THREADS> w;
    w.read_weights(a.w, threadIdx.x, (ptrdiff_t)a.d);
    const double reciprocal = 1.0 / (double)a.d;
    fm_begin_for<FORM>(a.records);
    norm_row<LONG_THREADS, ALIGNED, FORM, KEPT>(a, w, reciprocal, blockIdx.x, threadIdx.x, &s);
}

template <bool ALIGNED, int FORM> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_short(norm a)
{
    __shared__ stage<32, FORM> s[WARP_ROWS];
    const size_t warp = threadIdx.x / 32, row = (size_t)blockIdx.x * WARP_ROWS + warp;
    piece<32> w;
    w.read_weights(a.w, threadIdx.x % 32, (ptrdiff_t)a.d);
    const double reciprocal = 1.0 / (double)a.d;
    fm_begin_for<FORM>(a.records);
    if (row < a.n) norm_row<32, ALIGNED, FORM, KEPT>(a, w, reciprocal, row, threadIdx.x % 32, s + warp);
}

// Rows between the two, which a warp keeps whole, with the weights, from one row to its next: of a block for each row a quarter has
// nothing to do, and all meet for their sum.
enum { MIDDLE = 1024, MIDDLE_KEPT = MIDDLE / 128, MIDDLE_BLOCKS = 8 /* of a multiprocessor */ };

template <bool ALIGNED, int FORM> __global__ void __launch_bounds__(32 * WARP_ROWS, MIDDLE_BLOCKS / 2) norm_middle(norm a)
{
    __shared__ stage<32, FORM, MIDDLE_KEPT> s[WARP_ROWS];
    const unsigned t = threadIdx.x % 32, warp = threadIdx.x / 32;
    piece<32, MIDDLE_KEPT> w;
    w.read_weights(a.w, t, (ptrdiff_t)a.d);
    const double reciprocal = 1.0 / (double)a.d;
    fm_begin_for<FORM>(a.records);
    for (size_t row = (size_t)blockIdx.x * WARP_ROWS + warp; row < a.n; row += (size_t)gridDim.x * WARP_ROWS)
        norm_row<32, ALIGNED, FORM, MIDDLE_KEPT>(a, w, reciprocal, row, t, s + warp);
}

template <int FORM> void queue_middle(fm_stream *s, const norm &a, bool aligned)
{
    const unsigned want = fm_blocks(a.n, WARP_ROWS), most = (unsigned)s->n_sm * MIDDLE_BLOCKS;
    fm_queue(s, "rmsnorm", aligned ? norm_middle<true, FORM> : norm_middle<false, FORM>, want < most ? want : most,
             32 * WARP_ROWS, a);
}

// Has `a` write this pack as well (NULL: none); gives the FORM of the kernel that does.
fm_xform take_pack(const fm_stream *s, norm *a, fm_xform form, void *packed)
{
    if (packed && fm_cuda_is_records(s, form, a->n)) {
        a->records = fm_records_at(packed, a->n, a->d);
        return form;
    }
    a->packed = (__nv_bfloat16 *)packed;
    return FM_X_BF16;
}

template <int FORM> void queue_norm(fm_stream *s, const norm &a)
{
    const bool aligned = fm_aligned(a.out, a.out_stride) && fm_aligned(a.x, a.x_stride);
    if (a.d > SHORT && a.d <= MIDDLE)
        queue_middle<FORM>(s, a, aligned);
    else if (a.d <= SHORT)
        fm_queue(s, "rmsnorm", aligned ? norm_short<true, FORM> : norm_short<false, FORM>, fm_blocks(a.n, WARP_ROWS),
                 32 * WARP_ROWS, a);
    else
        fm_queue(s, "rmsnorm", aligned ? norm_long<true, FORM> : norm_long<false, FORM>, (unsigned)a.n, LONG_THREADS, a);
}

void launch(fm_stream *s, norm a, fm_xform form, void *packed)
{
    if (a.n == 0) return;
    fm_with_form(take_pack(s, &a, form, packed), [&](auto f) { queue_norm<f.FORM>(s, a); });
}

void rmsnorm(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const float *w, size_t n,
             size_t d, float eps)
{
    launch(run->stream, norm{out, x, w, out_stride, x_stride, n, d, eps}, FM_X_BF16, NULL);
}

// Left to the product that reads the pack where it can do that, and if it cannot after all it has the rows normed: those of a block of
// LONG_THREADS that it keeps whole.
void rmsnorm_pack(const fm_run *run, fm_xform form, void *packed, const float *x, size_t x_stride, const float *w, size_t n,
                  size_t d, float eps)
{
    const fm_lazy_pack a = {{packed, x, x_stride, false, n, d, 0, n, 0, d, run->stream}, true, w, eps};
    const size_t most = fm_cuda_is_floats(form) ? (size_t)FM_CUDA_FEW : (size_t)FEW_NORMED_RECORDS;
    if (n > 0 && n <= most && !run->stream->o.f32 && d > MIDDLE && d <= FEW_NORMED_COLS && d % 4 == 0 &&
        fm_aligned(x, x_stride) && w && fm_aligned(w, 0))
        fm_cuda_pack_later(run->stream, &a);
    else
        fm_cuda_pack_now(&a, form);
}

// ---- Three runs of a row: a warp each ----

struct three {
    norm a;
    size_t d[3];
};

// This warp's run of a row, of which only the first is packed.
struct part {
    norm a;
    size_t row, at;

    __device__ explicit part(const three &t) : a(t.a)
    {
        const size_t warp = (size_t)blockIdx.x * WARP_ROWS + threadIdx.x / 32, i = warp % 3;
        row = warp / 3;
        at = i == 0 ? 0 : i == 1 ? t.d[0] : t.d[0] + t.d[1];
        a.d = i == 0 ? t.d[0] : i == 1 ? t.d[1] : t.d[2];
        a.out += at;
        if (i > 0) a.packed = NULL, a.records.p = NULL;
    }
};

template <bool ALIGNED, int FORM> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_three(three t)
{
    __shared__ stage<32, FORM> s[WARP_ROWS];
    part p(t);
    const double reciprocal = 1.0 / (double)p.a.d;
    fm_begin_for<FORM>(t.a.records, t.a.n);
    p.a.x += p.at;
    piece<32> ones;
    ones.read_weights(NULL, 0, 0);
    if (p.row < p.a.n) norm_row<32, ALIGNED, FORM, KEPT>(p.a, ones, reciprocal, p.row, threadIdx.x % 32, s + threadIdx.x / 32);
}

template <int FORM> void queue_three(fm_stream *s, const three &t)
{
    const bool aligned =
        fm_aligned(t.a.out, t.a.out_stride) && fm_aligned(t.a.x, t.a.x_stride) && t.d[0] % 4 == 0 && t.d[1] % 4 == 0;
    fm_queue(s, "rmsnorm", aligned ? norm_three<true, FORM> : norm_three<false, FORM>, fm_blocks(3 * t.a.n, WARP_ROWS),
             32 * WARP_ROWS, t);
}

void rmsnorm_three(const fm_run *run, float *out, size_t out_stride, fm_xform form, void *packed, const float *x,
                   size_t x_stride, const size_t d[3], size_t n, float eps)
{
    three t = {{out, x, NULL, out_stride, x_stride, n, d[0], eps}, {d[0], d[1], d[2]}};
    if (n == 0) return;
    if (d[0] > SHORT || d[1] > SHORT || d[2] > SHORT) { // a block takes such a row, and adds it up in another order
        for (size_t i = 0, at = 0; i < 3; at += d[i++])
            launch(run->stream, norm{out + at, x + at, NULL, out_stride, x_stride, n, d[i], eps}, form, i ? NULL : packed);
        return;
    }
    fm_with_form(take_pack(run->stream, &t.a, form, packed), [&](auto f) { queue_three<f.FORM>(run->stream, t); });
}

// ---- The same of sums of pieces, which are added in their order ----

struct pieces {
    three t; // t.a.x: the first piece
    float *y;
    size_t y_stride, step; // from one piece to the next
};

__device__ float4 sum_of(const pieces &p, size_t at)
{
    float4 v[FM_CUDA_PIECES];
#pragma unroll
    for (int i = 0; i < FM_CUDA_PIECES; i++) v[i] = *(const float4 *)(p.t.a.x + i * p.step + at);
#pragma unroll
    for (int i = 1; i < FM_CUDA_PIECES; i++)
        v[0] = {__fadd_rn(v[0].x, v[i].x), __fadd_rn(v[0].y, v[i].y), __fadd_rn(v[0].z, v[i].z), __fadd_rn(v[0].w, v[i].w)};
    return v[0];
}

// A warp a run of a row, in norm_row's order.
template <bool ALIGNED, int FORM> __global__ void __launch_bounds__(32 * WARP_ROWS) norm_pieces(pieces p)
{
    __shared__ stage<32, FORM> s[WARP_ROWS];
    const part r(p.t);
    const double reciprocal = 1.0 / (double)r.a.d;
    fm_begin_for<FORM>(p.t.a.records);
    const size_t all = p.t.d[0] + p.t.d[1] + p.t.d[2];
    const unsigned lane = threadIdx.x % 32;
    if (r.row >= r.a.n) return;
    piece<32> v, ones;
#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        const size_t c = (size_t)v.column(lane, j);
        v.v[j] = c < r.a.d ? sum_of(p, r.row * all + r.at + c) : float4{0.0f, 0.0f, 0.0f, 0.0f};
        if (p.y && c < r.a.d) fm_store4<ALIGNED>(p.y + r.row * p.y_stride + r.at + c, 4, v.v[j]);
    }
    ones.read_weights(NULL, 0, 0);
    const float scale = norm_scale(fm_warp_sum(v.sum_squares()), reciprocal, r.a.eps);
    put_piece<32, ALIGNED, FORM, KEPT>(r.a, r.row, 0, lane, v, ones, scale, s + threadIdx.x / 32);
}

template <int FORM> void queue_pieces(fm_stream *s, const pieces &p)
{
    const bool aligned = fm_aligned(p.t.a.out, p.t.a.out_stride) && fm_aligned(p.y, p.y_stride);
    fm_queue(s, "linear_three", aligned ? norm_pieces<true, FORM> : norm_pieces<false, FORM>, fm_blocks(3 * p.t.a.n, WARP_ROWS),
             32 * WARP_ROWS, p);
}

// Records, for products of few columns with quantised weights; and packs of bf16 rows that follow each other without a gap, for all
// others, not in f32.
bool packs(const fm_run *run, fm_xform form, bool half, const void *packed, size_t n, size_t cols)
{
    const bool rows = !run->stream->o.f32 && fm_cuda_x_stride(cols) == cols;
    if (fm_cuda_is_records(run->stream, form, n) ? half : !rows) return false;
    fm_cuda_pack_forget(run->stream, packed);
    return true;
}

// Rows whose packs have gaps stay f32: none of a model do.
bool half_rows(const fm_run *run, fm_xform form, size_t n, size_t d)
{
    return !run->stream->o.f32 && !fm_cuda_is_few(run->stream, form, n) && fm_cuda_x_stride(d) == d;
}

void norm_rows_packed(fm_stream *s, const fm_pack_args *r, const float *w, float eps, fm_xform form)
{
    launch(s, norm{NULL, r->x, w, 0, r->x_stride, r->n, r->cols, eps}, form, r->out);
}

} // namespace

void fm_cuda_norm_pack(fm_stream *s, const fm_lazy_pack *a, fm_xform form)
{
    const fm_pack_args *r = &a->rows;
    norm_rows_packed(s, r, a->w, a->eps, form);
}

void fm_cuda_norm_pieces(fm_stream *s, const fm_linear_three_args *a, const float *sums, size_t first, size_t n)
{
    const fm_linear_args *l = &a->product;
    pieces p = {
        {{a->out + first * a->out_stride, sums, NULL, a->out_stride, 0, n, a->d[0], a->eps}, {a->d[0], a->d[1], a->d[2]}},
        l->y ? l->y + first * l->y_stride : NULL,
        l->y_stride,
        n * l->W->rows};
    // Steps with records are done at once; others are rows.
    const fm_xform f = take_pack(s, &p.t.a, n < l->n ? FM_X_BF16 : a->form, a->packed);
    if (p.t.a.packed) p.t.a.packed += first * a->d[0];
    fm_with_form(f, [&](auto g) { queue_pieces<g.FORM>(s, p); });
}

extern "C" void fm_cuda_fill_norm(fm_kernels *k)
{
    k->rmsnorm = rmsnorm;
    k->rmsnorm_pack = rmsnorm_pack;
    k->rmsnorm_three = rmsnorm_three;
    k->packs = packs;
    k->half = half_rows;
}
