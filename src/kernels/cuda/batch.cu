// batch.cu - products of 17 to 64 tokens with weights of bf16: what cuBLASLt does for more, to the same bits.
//
// A block multiplies 64 or 128 rows of weights by 32 or 64 tokens.  The copy engine brings 64 columns of both to a stage; k runs in
// order into one sum, sixteen columns an instruction.  That is the order of cuBLASLt's kernels of Hopper without a split of k, which
// kernelcheck holds both to.  Two blocks of a cluster have different rows and the same tokens: each copies half of them to both.
// Weights that the kernel in front did not write are asked for before it has ended.
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/boxes.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/ring.cuh"

namespace
{

enum { COLS = FM_BOX_COLS, LINE = FM_BOX_LINE, CLUSTER = 2, MOST = 64 }; // columns of a stage; tokens that are taken

// FOURS: groups of four warps, each with 64 rows.  A warp of its own asks for what they multiply.
template <int FOURS_, int TOKENS_> struct ring_of {
    static constexpr int FOURS = FOURS_, TOKENS = TOKENS_, COPIES = 128 * FOURS; // COPIES: the thread that does
    static constexpr int ROWS = 64 * FOURS, WEIGHTS = ROWS * LINE, HALF = TOKENS / CLUSTER * LINE,
                         STAGE = WEIGHTS + TOKENS * LINE;
    static constexpr int STAGES = 226 * 1024 / STAGE > 12 ? 12 : 226 * 1024 / STAGE;
    static constexpr int BARRIERS = STAGES * STAGE, SHARED = BARRIERS + RING_BARRIERS * STAGES; // places in shared memory
    static constexpr int PITCH = 68; // floats of a token's 64 rows on their way out
    static_assert(FOURS * TOKENS * PITCH * (int)sizeof(float) <= STAGES * STAGE, "sums go out through the ring");
};

struct batch_args {
    CUtensorMap weights, tokens;
    void *y;
    const float *old; // NULL: not added
    size_t y_stride, y_piece;
    unsigned rows, n, stages; // stages of a piece of k
    unsigned token_tiles;
    bool half, aligned, fresh; // fresh: the kernel in front wrote the weights
};

struct tile {
    unsigned row, token, piece, of; // of: which block of its cluster
};

template <class R> __device__ tile tile_of(const batch_args &a)
{
    const unsigned cluster = blockIdx.x / CLUSTER, of = blockIdx.x % CLUSTER;
    return {(cluster / a.token_tiles * CLUSTER + of) * R::ROWS, cluster % a.token_tiles * R::TOKENS, blockIdx.y, of};
}

// ---- What comes in: one thread ----

template <class R> struct copier {
    const batch_args &a;
    const tile &t;
    unsigned ring, full, empty;

    __device__ unsigned column(unsigned i) const { return (t.piece * a.stages + i) * COLS; }
    __device__ void weights(unsigned i, unsigned stage) const
    {
        fm_copy_box(ring + stage * R::STAGE, full + 8 * stage, &a.weights, column(i), t.row);
    }
    __device__ void tokens(unsigned i, unsigned stage) const
    {
        fm_share_box<CLUSTER>(ring + stage * R::STAGE + R::WEIGHTS + t.of * R::HALF, full + 8 * stage, &a.tokens, column(i),
                              t.token + t.of * (R::TOKENS / CLUSTER));
    }
    __device__ void all() const
    {
        const unsigned first = min(a.stages, R::STAGES);
        for (unsigned i = 0; i < first; i++) {
            ring_expect(full + 8 * i, R::STAGE);
            if (!a.fresh) weights(i, i);
        }
        fm_begin();
        for (unsigned i = 0; i < first; i++) {
            if (a.fresh) weights(i, i);
            tokens(i, i);
        }
        unsigned stage = 0, turn = 0;
        for (unsigned i = first; i < a.stages; i++) {
            ring_await(empty + 8 * stage, turn);
            ring_expect(full + 8 * stage, R::STAGE);
            weights(i, stage);
            tokens(i, stage);
            if (++stage == R::STAGES) stage = 0, turn++;
        }
    }
};

// ---- Sums ----

// A stage is given back when the products of the one after it are queued.
template <class R>
__device__ void multiply(float c[R::TOKENS / 8][4], const batch_args &a, unsigned ring, unsigned full, unsigned empty)
{
    const unsigned mine = threadIdx.x / 128 * 64 * LINE, lane = threadIdx.x % 32;
    unsigned stage = 0, turn = 0, before = 0;
    for (unsigned i = 0; i < a.stages; i++) {
        ring_await(full + 8 * stage, turn);
        const unsigned here = ring + stage * R::STAGE;
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < COLS / 16; k++)
            wgmma_bf16<R::TOKENS / 8>(c, wgmma_columns(here + mine, k), wgmma_columns(here + R::WEIGHTS, k), i > 0 || k > 0);
        wgmma_commit();
        if (i > 0) {
            wgmma_wait_rows<1>();
            ring_release(empty + 8 * before, CLUSTER, 0, lane);
        }
        before = stage;
        if (++stage == R::STAGES) stage = 0, turn++;
    }
    wgmma_wait<0, R::TOKENS / 8>(c);
}

// Through shared memory, so that a token's rows go out side by side.
template <class R> __device__ void put_away(float *to, const float c[R::TOKENS / 8][4])
{
    const unsigned row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, token = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < R::TOKENS / 8; i++)
#pragma unroll
        for (int k = 0; k < 4; k++) to[(8 * i + token + k % 2) * R::PITCH + row + k / 2 * 8] = c[i][k];
}

// Where a thread's outputs are: four rows of every eighth token.
struct place {
    unsigned first, row, token; // of the sums, of y
    ptrdiff_t left;             // rows that exist from there on

    __device__ static place of(const batch_args &a, const tile &t)
    {
        const unsigned first = threadIdx.x % 16 * 4, row = t.row + threadIdx.x / 128 * 64 + first;
        return {first, row, t.token + threadIdx.x % 128 / 16, (ptrdiff_t)a.rows - row};
    }
};

// What the sums are added to is asked for before they are made: nothing has to wait for it, nor a load for the store before it.
template <class R> struct old_rows {
    float4 of[R::TOKENS / 8];

    __device__ old_rows(const batch_args &a, const place &p)
    {
#pragma unroll
        for (int i = 0; i < R::TOKENS / 8; i++) {
            of[i] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (!a.old || p.token + 8 * i >= a.n) continue;
            const float *from = a.old + (p.token + 8 * i) * a.y_stride + p.row;
            of[i] = a.aligned ? fm_load4<true>(from, p.left) : fm_load4<false>(from, p.left);
        }
    }
};

template <bool ALIGNED, class OUT> __device__ void store(OUT *y, ptrdiff_t left, float4 v)
{
    const float each[4] = {v.x, v.y, v.z, v.w};
    if (ALIGNED && left >= 4)
        fm_store4<true>(y, 4, v);
    else
        for (int i = 0; i < 4 && i < left; i++) fm_store1(y + i, each[i]);
}

template <class R, bool ALIGNED, class OUT>
__device__ void finish(const batch_args &a, const tile &t, const place &p, const float *sums, const old_rows<R> &old)
{
    OUT *y = (OUT *)a.y + t.piece * a.y_piece + p.row;
#pragma unroll
    for (int i = 0; i < R::TOKENS / 8; i++) {
        float4 v = *(const float4 *)(sums + (p.token - t.token + 8 * i) * R::PITCH + p.first);
        if (a.old) v = {v.x + old.of[i].x, v.y + old.of[i].y, v.z + old.of[i].z, v.w + old.of[i].w};
        if (p.token + 8 * i < a.n) store<ALIGNED>(y + (p.token + 8 * i) * a.y_stride, p.left, v);
    }
}

template <class R>
__device__ void finish_any(const batch_args &a, const tile &t, const place &p, const float *sums, const old_rows<R> &old)
{
    if (a.half && a.aligned)
        finish<R, true, __nv_bfloat16>(a, t, p, sums, old);
    else if (a.half)
        finish<R, false, __nv_bfloat16>(a, t, p, sums, old);
    else if (a.aligned)
        finish<R, true, float>(a, t, p, sums, old);
    else
        finish<R, false, float>(a, t, p, sums, old);
}

// ---- The kernel ----

template <class R> __global__ __launch_bounds__(R::COPIES + 32, 1) void batch_kernel(const __grid_constant__ batch_args a)
{
    extern __shared__ __align__(1024) uint8_t ring[];
    const unsigned full = shared_address(ring) + R::BARRIERS, empty = full + 8 * R::STAGES;
    const tile t = tile_of<R>(a);
    if (threadIdx.x == R::COPIES) ring_init(full, empty, R::STAGES, CLUSTER * 4 * R::FOURS);
    ring_meet_cluster_relaxed();
    if (threadIdx.x == R::COPIES) {
        const copier<R> from = {a, t, shared_address(ring), full, empty};
        from.all();
    } else if (threadIdx.x < R::COPIES) {
        float c[R::TOKENS / 8][4];
        float *sums = (float *)ring + threadIdx.x / 128 * R::TOKENS * R::PITCH;
        fm_begin();
        const place p = place::of(a, t);
        const old_rows<R> old(a, p);
        multiply<R>(c, a, shared_address(ring), full, empty);
        asm volatile("bar.sync 1, %0;" ::"n"(R::COPIES) : "memory"); // nobody reads stages any more
        put_away<R>(sums, c);
        asm volatile("bar.sync %0, 128;" ::"r"(2 + threadIdx.x / 128) : "memory");
        finish_any<R>(a, t, p, sums, old);
    }
    ring_meet_cluster_relaxed(); // nobody leaves while the other still tells it of stages
}

// ---- Launches ----

// Rows of `ld` elements, so many of them to a box.
bool map_rows(fm_stream *s, CUtensorMap *map, const void *from, size_t rows, size_t cols, size_t ld, unsigned box)
{
    const fm_boxes b = {2, {cols, rows}, {ld * sizeof(__nv_bfloat16)}, {COLS, box}};
    return fm_cuda_map(s, map, from, &b);
}

template <class R> static void launch(fm_stream *s, const fm_gemm *g, batch_args a)
{
    const size_t pieces = g->pieces ? g->pieces : 1, pairs = (g->n + CLUSTER * R::ROWS - 1) / (CLUSTER * R::ROWS);
    if (!map_rows(s, &a.weights, g->b, g->n, g->k, g->ldb, R::ROWS) ||
        !map_rows(s, &a.tokens, g->a, g->m, g->k, g->lda, R::TOKENS / CLUSTER))
        return;
    a.token_tiles = fm_blocks(g->m, R::TOKENS);
    a.stages = fm_blocks(g->k / pieces, COLS);
    fm_cuda_allow_shared<batch_kernel<R>>(s, R::SHARED);
    const fm_launch l = {s, dim3((unsigned)pairs * a.token_tiles * CLUSTER, (unsigned)pieces), R::COPIES + 32, R::SHARED,
                         CLUSTER};
    fm_cuda_launch(&l, "linear", batch_kernel<R>, a);
}

// What a multiprocessor reads, of all the blocks that it has in turn.
size_t cost(const fm_stream *s, const fm_gemm *g, size_t rows, size_t tokens)
{
    const size_t pieces = g->pieces ? g->pieces : 1, pairs = (g->n + CLUSTER * rows - 1) / (CLUSTER * rows),
                 clusters = pairs * ((g->m + tokens - 1) / tokens) * pieces, room = (size_t)s->n_sm / CLUSTER;
    return (clusters + room - 1) / room * (rows + tokens);
}

typedef void launch_fn(fm_stream *s, const fm_gemm *g, batch_args a);
const struct {
    unsigned rows, tokens;
    launch_fn *launch;
} tiles[] = {{128, 64, launch<ring_of<2, 64>>},
             {64, 64, launch<ring_of<1, 64>>},
             {128, 32, launch<ring_of<2, 32>>},
             {64, 32, launch<ring_of<1, 32>>}};

} // namespace

bool fm_cuda_batch_takes(const fm_gemm *g)
{
    return g->m <= MOST && g->b_t && !g->a_t && !g->f32 && !g->bias && !(g->half && g->add) && g->k > 0 &&
           fm_cuda_has_boxes(g->a, g->lda * sizeof(__nv_bfloat16)) && fm_cuda_has_boxes(g->b, g->ldb * sizeof(__nv_bfloat16));
}

void fm_cuda_batch(fm_stream *s, const fm_gemm *g, bool fresh)
{
    if (g->m == 0 || g->n == 0) return;
    batch_args a = {};
    a.y = g->c, a.y_stride = g->ldc, a.y_piece = g->c_piece;
    a.old = !g->add ? NULL : g->old ? (const float *)g->old : (const float *)g->c;
    a.rows = (unsigned)g->n, a.n = (unsigned)g->m;
    a.half = g->half, a.fresh = fresh;
    a.aligned = fm_aligned(g->c, g->ldc) && fm_aligned(a.old, g->ldc) && g->c_piece % 4 == 0;
    size_t best = 0;
    for (size_t i = 1; i < sizeof tiles / sizeof *tiles; i++)
        if (cost(s, g, tiles[i].rows, tiles[i].tokens) < cost(s, g, tiles[best].rows, tiles[best].tokens)) best = i;
    tiles[best].launch(s, g, a);
}
