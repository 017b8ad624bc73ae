// few_bulk.cu - products of 3 to 16 columns with matrices of bf16 that the copy engine brings: what few.cuh does for fewer, to the same
// bits.
//
// In few.cuh every warp reads the columns of x for its own 16 rows, which is as much as it reads of the weights.  Here a block has 32 to
// 128 rows, and the copy engine brings their weights and the columns to stages in shared memory, which hold as much as there is room for.
// Two blocks of a cluster have different rows and the same columns: each copies half of them to both.
//
// The sums are few_float.cuh's: a lane takes the same 16 bytes of a row and of a column, so an instruction multiplies the same columns of
// k; chunk i of a row adds to chain i modulo `split`, and the chains are added in order.  A warp has 16 rows and all chains, or WAYS warps
// share the rows and the chains; a stage is a chunk for each way.
//
// Matrices of few rows, such as x_proj's, have so many chains that all chunks of one are in shared memory at once, and a cluster shares
// the chains of a row.
//
// What in_proj makes of x can be convolved where it is put away, to the bits of conv.cu: whoever has a channel of a token has its
// window.  Then its input may be rows that are still to be normed, which the blocks do by turns (turn.cuh), to the bits of norm.cu.
#include "kernels/cuda/few_bulk.cuh"

#include "kernels/cuda/boxes.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/turn.cuh"

namespace
{

enum { LINE = FM_BOX_LINE, CLUSTER = 2, ROOM = 214 * 1024, LEAST = 3 /* columns */, TAPS = 4 /* d_conv, Mamba's own */ };

// ---- Fragments ----

// Lane (g, t) of a fragment takes row or column `row_of(g)` of eight: in the order that `swizzle 128` has, the eight lanes that read
// shared memory at once then meet in no bank.
__device__ unsigned row_of(unsigned g)
{
    return g / 2 + g % 2 * 4;
}

// Stages begin at multiples of 1024 bytes, so it is a line's place in a stage that says how its pieces lie.
__device__ unsigned piece_of(unsigned line, unsigned piece)
{
    return line * LINE + (piece ^ line % 8) * 16;
}

// Where a lane's part of a stage lies: of its two rows, and of a column of each eight.
template <int NT> struct place {
    unsigned row[2], token[NT];
};

// c += 16 rows times the columns, of one chunk; half i of its 128 bytes feeds two instructions, as in few_float.cuh.
template <int NT> __device__ void multiply_chunk(float c[NT][4], const uint8_t *stage, const place<NT> &p)
{
    uint4 w[2][2], x[2][NT];
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int h = 0; h < 2; h++) w[i][h] = *(const uint4 *)(stage + (p.row[h] ^ i * 64));
#pragma unroll
        for (int nt = 0; nt < NT; nt++) x[i][nt] = *(const uint4 *)(stage + (p.token[nt] ^ i * 64));
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t a[4] = {w[i][0].x, w[i][1].x, w[i][0].y, w[i][1].y}, b[4] = {w[i][0].z, w[i][1].z, w[i][0].w, w[i][1].w};
#pragma unroll
        for (int nt = 0; nt < NT; nt++) mma_bf16(c[nt], a, x[i][nt].x, x[i][nt].y);
#pragma unroll
        for (int nt = 0; nt < NT; nt++) mma_bf16(c[nt], b, x[i][nt].z, x[i][nt].w);
    }
}

// Of sum i of a lane's 4 NT: its column, and its row of 16.
__device__ unsigned sum_column(int i, unsigned lane)
{
    return i / 4 * 8 + row_of(lane % 4 * 2 + i % 2);
}
__device__ unsigned sum_row(int i, unsigned lane)
{
    return row_of(lane / 4) + i % 4 / 2 * 8;
}

// ---- Large matrices: a ring of stages ----

// TILES: of 16 rows.  CHAINS: of each way.  NT: times 8 columns of x.  Some blocks of the next kernel have room beside a ring, so that
// they are there when it ends.
template <int TILES_, int WAYS_, int CHAINS_, int NT_> struct ring_of {
    static constexpr int TILES = TILES_, WAYS = WAYS_, CHAINS = CHAINS_, NT = NT_, SPLIT = WAYS * CHAINS;
    static constexpr int ROWS = 16 * TILES, TOKENS = 8 * NT, HALF = TOKENS / CLUSTER;
    static constexpr int WARPS = TILES * WAYS, COPIES = 32 * WARPS; // COPIES: the thread that does
    static constexpr int WEIGHTS = ROWS * LINE * WAYS, STAGE = WEIGHTS + TOKENS * LINE * WAYS;
    // Sums on their way out, [chain][column][row]; a warp that has all chains of its rows adds them up itself.
    static constexpr int LEFT = WAYS == 1 ? 1 : SPLIT, PITCH = ROWS + 8, SUMS = LEFT * TOKENS * PITCH * 4;
    static constexpr int STAGES = (ROOM - SUMS) / STAGE;
    static constexpr int BARRIERS = STAGES * STAGE + SUMS,
                         SHARED = BARRIERS + RING_BARRIERS * STAGES; // places in shared memory
    static constexpr int OUTS = ROWS * TOKENS / COPIES; // of a thread
    static_assert(STAGE % 1024 == 0 && ROWS * TOKENS % COPIES == 0 && STAGES > 2, "boxes and outputs come out even");
};

struct bulk_args {
    CUtensorMap weights, tokens;
    float *y;
    size_t y_stride;
    const float *bias;
    unsigned rows, n, chunks, stages, groups; // stages of a row; groups: rows of a cluster
    bool add;
};

// Rows that the blocks norm by turns.
struct norm_args {
    const float *x, *w; // x (n, cols); NULL: none
    size_t stride;
    unsigned n, cols;
    float eps;
    __nv_bfloat16 *to; // (n, cols) without a gap
    fm_turns *turns;   // of launches with this one's number of blocks
};

// Rows below d_inner, a whole number of blocks', are x of a convolution (fm_conv_args), column t that of sequence t.
struct conv_args : bulk_args {
    norm_args norm;
    fm_states state;
    const float *taps, *taps_bias;
    float *u;
    __nv_bfloat16 *packed; // (n, d_inner) without a gap
    size_t u_stride, d_inner;
    bool hold;
};

// What comes in: one thread.
template <class R> struct copier {
    const bulk_args &a;
    unsigned ring, full, empty, of; // of: which block of its cluster

    // The i-th of all stages that this block has.
    __device__ void weights(unsigned i, unsigned stage) const
    {
        const unsigned group = blockIdx.x / CLUSTER + i / a.stages * (gridDim.x / CLUSTER);
        fm_copy_box(ring + stage * R::STAGE, full + 8 * stage, &a.weights, 0, (group * CLUSTER + of) * R::ROWS,
                    i % a.stages * R::WAYS);
    }
    __device__ void tokens(unsigned i, unsigned stage) const
    {
        fm_share_box<CLUSTER>(ring + stage * R::STAGE + R::WEIGHTS + of * (R::HALF * LINE * R::WAYS), full + 8 * stage,
                              &a.tokens, 0, of * R::HALF, i % a.stages * R::WAYS);
    }
    template <class GATE> __device__ void all(unsigned stages, const GATE &gate) const
    {
        const unsigned first = min(stages, R::STAGES);
        for (unsigned i = 0; i < first; i++) {
            ring_expect(full + 8 * i, R::STAGE);
            weights(i, i);
        }
        gate.open();
        for (unsigned i = 0; i < first; i++) tokens(i, i);
        unsigned stage = 0, turn = 0;
        for (unsigned i = first; i < stages; i++) {
            ring_await(empty + 8 * stage, turn);
            ring_expect(full + 8 * stage, R::STAGE);
            weights(i, stage);
            tokens(i, stage);
            if (++stage == R::STAGES) stage = 0, turn++;
        }
    }
};

// ---- What the columns wait for ----

// The kernel in front.
template <class R> struct no_gate {
    static constexpr int BYTES = 0;

    __device__ no_gate(const bulk_args &, uint8_t *) {}
    __device__ void init() const {}
    __device__ void open() const { fm_begin(); }
    __device__ void pass(double *) const { fm_begin(); }
};

// Between the warps that sum.
template <class R> __device__ void meet()
{
    asm volatile("bar.sync 1, %0;" ::"n"(R::COPIES) : "memory");
}

// Rows that are normed first, where there are such, by the warps that sum; the first of their threads tells the copier by a barrier,
// behind which the block's turn lies.
template <class R> struct norm_gate {
    static constexpr int BYTES = 8 + sizeof(fm_turn);
    const norm_args &a;
    const unsigned barrier;
    fm_turn *const turn;

    __device__ norm_gate(const conv_args &args, uint8_t *at)
        : a(args.norm), barrier(shared_address(at)), turn((fm_turn *)(at + 8))
    {
    }

    __device__ void init() const { ring_init_barrier(barrier, 1); }

    // The copier, which leaves it to those who have the block's turn to let the next kernel begin.
    __device__ void open() const
    {
        fm_pdl_wait();
        if (!a.x) return;
        ring_await(barrier, 0);
        fm_turn_hand_over();
    }

    // The warps that sum; sums: a place for a norm's.
    __device__ void pass(double *sums) const
    {
        if (!a.x) return fm_begin();
        if (threadIdx.x == 0) *turn = fm_turn_take(a.turns);
        meet<R>();
        const fm_turn mine = *turn;
        if (mine.of < a.n)
            norm_rows(mine.of, sums);
        else
            fm_begin();
        if (threadIdx.x > 0) return;
        fm_turn_await(a.turns, mine.goal);
        ring_arrive(barrier);
    }

    __device__ void norm_rows(unsigned first, double *sums) const
    {
        static_assert((int)R::COPIES == (int)LONG_THREADS, "the threads of a norm");
        const double reciprocal = 1.0 / (double)a.cols;
        few_piece w;
        few_read(w, a.w, (ptrdiff_t)a.cols);
        fm_begin();
        for (unsigned row = first; row < a.n; row += gridDim.x) {
            few_piece v;
            few_read(v, a.x + row * a.stride, (ptrdiff_t)a.cols);
            few_scale(v, w, norm_scale(block_sum_in(sums, v.sum_squares(), meet<R>), reciprocal, a.eps));
            few_put_row(a.to + row * a.cols, v, (ptrdiff_t)a.cols);
            fm_turn_hand_over();
            meet<R>(); // all have written, and nobody's sums are overwritten
            if (threadIdx.x == 0) fm_turn_publish(a.turns, row, a.n);
        }
    }
};

template <class R> __device__ place<R::NT> place_in(unsigned tile, unsigned way, unsigned lane)
{
    const unsigned r = row_of(lane / 4), piece = lane % 4;
    place<R::NT> p;
#pragma unroll
    for (int h = 0; h < 2; h++) p.row[h] = piece_of(way * R::ROWS + tile * 16 + h * 8 + r, piece);
#pragma unroll
    for (int nt = 0; nt < R::NT; nt++) {
        const unsigned c = 8 * nt + r;
        p.token[nt] = piece_of(R::WEIGHTS / LINE + (c / R::HALF * R::WAYS + way) * R::HALF + c % R::HALF, piece);
    }
    return p;
}

// Where a warp is in the ring.
template <class R> struct reader {
    const uint8_t *ring;
    unsigned full, empty, stage, turn;

    __device__ const uint8_t *await() const
    {
        ring_await(full + 8 * stage, turn);
        return ring + stage * R::STAGE;
    }
    __device__ void release()
    {
        __syncwarp(); // all its lanes have read
        ring_release(empty + 8 * stage, CLUSTER, 0, threadIdx.x % 32);
        if (++stage == R::STAGES) stage = 0, turn++;
    }
};

// The chains of a warp's rows.
template <class R>
__device__ void multiply(float c[R::CHAINS][R::NT][4], const bulk_args &a, reader<R> &from, unsigned way, const place<R::NT> &p)
{
#pragma unroll
    for (int i = 0; i < R::CHAINS * R::NT * 4; i++) c[i / (R::NT * 4)][i / 4 % R::NT][i % 4] = 0.0f;
    for (unsigned i = 0; i < a.stages; i += R::CHAINS)
#pragma unroll
        for (int k = 0; k < R::CHAINS; k++) {
            if (i + k >= a.stages) break;
            const uint8_t *stage = from.await();
            if ((i + k) * R::WAYS + way < a.chunks) multiply_chunk<R::NT>(c[k], stage, p);
            from.release();
        }
}

template <class R> __device__ void leave(float *to, const float c[R::NT][4], unsigned tile, unsigned lane)
{
#pragma unroll
    for (int i = 0; i < R::NT * 4; i++) to[sum_column(i, lane) * R::PITCH + tile * 16 + sum_row(i, lane)] = c[i / 4][i % 4];
}

// Adds up in the order of few_finish() what is its own to add.
template <class R>
__device__ void put_away(float *sums, const float c[R::CHAINS][R::NT][4], unsigned tile, unsigned way, unsigned lane)
{
    if constexpr (R::WAYS > 1) {
#pragma unroll
        for (int k = 0; k < R::CHAINS; k++) leave<R>(sums + (k * R::WAYS + way) * R::TOKENS * R::PITCH, c[k], tile, lane);
        return;
    }
    float v[R::NT][4] = {};
#pragma unroll
    for (int k = 0; k < R::CHAINS; k++)
#pragma unroll
        for (int i = 0; i < R::NT * 4; i++) v[i / 4][i % 4] += c[k][i / 4][i % 4];
    leave<R>(sums, v, tile, lane);
}

// Where a thread's outputs are: one row, every so many columns.
template <class R> struct own_outputs {
    static constexpr int EVERY = R::COPIES / R::ROWS;
    unsigned in, row, token; // in: the row of the block's

    __device__ explicit own_outputs(unsigned first_row)
        : in(threadIdx.x % R::ROWS), row(first_row + in), token(threadIdx.x / R::ROWS)
    {
    }
    __device__ bool exists(const bulk_args &a, int k) const { return row < a.rows && token + k * EVERY < a.n; }
    __device__ float *at(const bulk_args &a, int k) const { return a.y + (token + k * EVERY) * a.y_stride + row; }
    __device__ float bias(const bulk_args &a) const { return a.bias && row < a.rows ? a.bias[row] : 0.0f; }
    __device__ float sum(const bulk_args &a, const float *sums, int k, float with) const
    {
        float v = 0.0f;
#pragma unroll
        for (int w = 0; w < R::LEFT; w++) v += sums[(w * R::TOKENS + token + k * EVERY) * R::PITCH + in];
        if (a.bias) v += with;
        return v;
    }
};

// What they are added to is asked for before the sums are made.
template <class R> struct outputs {
    typedef bulk_args args;
    typedef no_gate<R> gate;
    const own_outputs<R> own;
    float old[R::OUTS];

    __device__ outputs(const bulk_args &a, unsigned first_row) : own(first_row)
    {
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) old[k] = a.add && own.exists(a, k) ? *own.at(a, k) : 0.0f;
    }

    __device__ void finish(const bulk_args &a, const float *sums) const
    {
        const float bias = own.bias(a);
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) {
            const float v = own.sum(a, sums, k, bias);
            if (own.exists(a, k)) *own.at(a, k) = a.add ? v + old[k] : v;
        }
    }
};

// The outputs of a block are all of x, and go through the convolution, or of z.  Windows are asked for before the sums are made.
template <class R> struct convolved {
    typedef conv_args args;
    typedef norm_gate<R> gate;
    const own_outputs<R> own;
    float *window[R::OUTS], v[R::OUTS][TAPS - 1], w[TAPS], bias;

    __device__ bool is_x(const conv_args &a) const { return own.row < a.d_inner; }

    // Columns that do not exist repeat the last one and are not written.
    __device__ convolved(const conv_args &a, unsigned first_row) : own(first_row)
    {
        if (!is_x(a)) return;
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) window[k] = fm_cuda_state(a.state, min(own.token + k * own.EVERY, a.n - 1)) + own.row;
#pragma unroll
        for (int i = 0; i < TAPS; i++) w[i] = a.taps[i * a.d_inner + own.row];
        bias = a.taps_bias ? a.taps_bias[own.row] : 0.0f;
#pragma unroll
        for (int k = 0; k < R::OUTS; k++)
#pragma unroll
            for (int i = 0; i < TAPS - 1; i++) v[k][i] = window[k][i * a.d_inner];
    }

    __device__ void finish(const conv_args &a, const float *sums) const
    {
        const float in_bias = own.bias(a);
        float y[R::OUTS];
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) y[k] = own.sum(a, sums, k, in_bias);
        if (is_x(a))
            put_convolved(a, y);
        else
            put(a, y);
    }

    __device__ void put(const conv_args &a, const float z[R::OUTS]) const
    {
#pragma unroll
        for (int k = 0; k < R::OUTS; k++)
            if (own.exists(a, k)) *own.at(a, k) = z[k];
    }

    // All are computed before the first goes out, so that none waits for another.
    __device__ void put_convolved(const conv_args &a, const float x[R::OUTS]) const
    {
        float u[R::OUTS];
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) u[k] = fm_convolved(w, bias, v[k], x[k]);
#pragma unroll
        for (int k = 0; k < R::OUTS; k++) {
            if (!own.exists(a, k)) break;
            a.u[(own.token + k * own.EVERY) * a.u_stride + own.row] = u[k];
            a.packed[(own.token + k * own.EVERY) * a.d_inner + own.row] = __float2bfloat16_rn(u[k]);
            if (!a.hold) move_window(a, k, x[k]);
        }
    }

    __device__ void move_window(const conv_args &a, int k, float x) const
    {
        window[k][0] = v[k][1];
        window[k][a.d_inner] = v[k][2];
        window[k][2 * a.d_inner] = x;
    }
};

// What the warps do that sum: every so many groups of rows.
template <class R, class OUT>
__device__ void sum_groups(const typename OUT::args &a, uint8_t *ring, reader<R> from, unsigned of)
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, way = warp % R::WAYS, tile = warp / R::WAYS;
    const unsigned first = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;
    const place<R::NT> p = place_in<R>(tile, way, lane);
    float *sums = (float *)(ring + R::STAGES * R::STAGE);
    for (unsigned group = first; group < a.groups; group += step) {
        float c[R::CHAINS][R::NT][4];
        const OUT out(a, (group * CLUSTER + of) * R::ROWS);
        multiply<R>(c, a, from, way, p);
        if (group != first) meet<R>(); // nobody overwrites what others still read
        put_away<R>(sums, c, tile, way, lane);
        meet<R>();
        out.finish(a, sums);
    }
}

template <class R, class OUT>
__global__ __launch_bounds__(R::COPIES + 32, 1) void bulk_kernel(const __grid_constant__ typename OUT::args a)
{
    extern __shared__ __align__(1024) uint8_t ring[];
    const unsigned full = shared_address(ring) + R::BARRIERS, empty = full + 8 * R::STAGES;
    const unsigned of = blockIdx.x % CLUSTER, step = gridDim.x / CLUSTER;
    const typename OUT::gate gate(a, ring + R::SHARED);
    if (threadIdx.x == R::COPIES) {
        gate.init();
        ring_init(full, empty, R::STAGES, CLUSTER * R::WARPS);
    }
    ring_meet_cluster_relaxed();
    if (threadIdx.x == R::COPIES) {
        const copier<R> from = {a, shared_address(ring), full, empty, of};
        from.all((a.groups - blockIdx.x / CLUSTER + step - 1) / step * a.stages, gate);
    } else if (threadIdx.x < R::COPIES) {
        gate.pass((double *)(ring + R::STAGES * R::STAGE));
        sum_groups<R, OUT>(a, ring, {ring, full, empty, 0, 0}, of);
    }
    ring_meet_cluster_relaxed(); // nobody leaves while the other still tells it of stages
}

// ---- Matrices of few rows: a cluster has 16 of them, a warp a chain, all of whose chunks are asked for at once ----

enum { NARROW_ROWS = 16, NARROW_STAGES = 4 /* chunks of a chain: few_cut_narrow() */ };

struct narrow_args {
    CUtensorMap weights, tokens;
    float *y;
    size_t y_stride;
    const float *bias;
    unsigned rows, n, cluster, split;
    bool add;

    __device__ __host__ unsigned weight_bytes() const { return split * NARROW_ROWS * LINE; }
    template <int NT> __device__ __host__ unsigned stage_bytes() const { return weight_bytes() + split * 8 * NT * LINE; }
    // Sums that a block adds up: of every cluster-th column, [chain][column][row].
    template <int NT> __device__ __host__ unsigned outs() const { return 8 * NT / cluster * NARROW_ROWS; }
    // Behind the stages and all sums are the barriers.
    template <int NT> __device__ __host__ unsigned barriers() const
    {
        return NARROW_STAGES * stage_bytes<NT>() + cluster * split * outs<NT>() * (unsigned)sizeof(float);
    }
};

template <int NT> __device__ place<NT> narrow_place(const narrow_args &a, unsigned warp, unsigned lane)
{
    const unsigned r = row_of(lane / 4), piece = lane % 4;
    place<NT> p;
#pragma unroll
    for (int h = 0; h < 2; h++) p.row[h] = piece_of(warp * NARROW_ROWS + h * 8 + r, piece);
#pragma unroll
    for (int nt = 0; nt < NT; nt++) p.token[nt] = piece_of(a.weight_bytes() / LINE + (warp * NT + nt) * 8 + r, piece);
    return p;
}

// Each sum to the block that adds it up.
template <int NT>
__device__ void narrow_leave(const narrow_args &a, unsigned sums, const float c[NT][4], unsigned chain, unsigned lane)
{
#pragma unroll
    for (int i = 0; i < NT * 4; i++) {
        const unsigned token = sum_column(i, lane),
                       at = chain * a.outs<NT>() + token / a.cluster * NARROW_ROWS + sum_row(i, lane);
        ring_put(sums + 4 * at, token % a.cluster, c[i / 4][i % 4]);
    }
}

// In the order of few_finish().
template <int NT> __device__ void narrow_finish(const narrow_args &a, const float *sums, unsigned first_row, unsigned rank)
{
    const unsigned outs = a.outs<NT>(), chains = a.cluster * a.split;
    for (unsigned i = threadIdx.x; i < outs; i += blockDim.x) {
        const unsigned row = first_row + i % NARROW_ROWS, token = i / NARROW_ROWS * a.cluster + rank;
        if (row >= a.rows || token >= a.n) continue;
        float *y = a.y + token * a.y_stride + row;
        const float old = a.add ? *y : 0.0f, bias = a.bias ? a.bias[row] : 0.0f;
        float v = 0.0f;
#pragma unroll 8
        for (unsigned k = 0; k < chains; k++) v += sums[k * outs + i];
        if (a.bias) v += bias;
        *y = a.add ? v + old : v;
    }
}

// One thread asks for everything: weights before the wait, columns after it.
template <int NT> struct narrow_copier {
    const narrow_args &a;
    unsigned ring, full, first_row, rank;

    __device__ void weights() const
    {
        ring_init(full, full + 8 * NARROW_STAGES, NARROW_STAGES, 1); // none is filled again
        for (unsigned i = 0; i < NARROW_STAGES; i++) {
            ring_expect(full + 8 * i, a.stage_bytes<NT>());
            fm_copy_box(ring + i * a.stage_bytes<NT>(), full + 8 * i, &a.weights, 0, first_row,
                        (i * a.cluster + rank) * a.split);
        }
    }
    __device__ void tokens() const
    {
        for (unsigned i = 0; i < NARROW_STAGES; i++)
            fm_copy_box(ring + i * a.stage_bytes<NT>() + a.weight_bytes(), full + 8 * i, &a.tokens, 0, 0,
                        (i * a.cluster + rank) * a.split);
    }
};

template <int NT> __global__ __launch_bounds__(256, 1) void narrow_kernel(const __grid_constant__ narrow_args a)
{
    extern __shared__ __align__(1024) uint8_t ring[];
    const unsigned rank = blockIdx.x % a.cluster, first_row = blockIdx.x / a.cluster * NARROW_ROWS, stage = a.stage_bytes<NT>();
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, full = shared_address(ring) + a.barriers<NT>();
    float *sums = (float *)(ring + NARROW_STAGES * stage);
    const narrow_copier<NT> from = {a, shared_address(ring), full, first_row, rank};
    if (threadIdx.x == 0) from.weights();
    ring_reach_cluster_relaxed();
    fm_begin_early(true);
    if (threadIdx.x == 0) from.tokens();
    __syncthreads(); // the barriers are there
    const place<NT> p = narrow_place<NT>(a, warp, lane);
    float c[NT][4] = {};
#pragma unroll
    for (unsigned i = 0; i < NARROW_STAGES; i++) {
        ring_await(full + 8 * i, 0);
        multiply_chunk<NT>(c, ring + i * stage, p);
    }
    ring_join_cluster(); // all its blocks have begun
    narrow_leave<NT>(a, shared_address(sums), c, rank * a.split + warp, lane);
    ring_meet_cluster();
    narrow_finish<NT>(a, sums, first_row, rank);
}

// ---- Launches ----

// Rows in chunks, so many of either to a box.
bool map_chunks(fm_stream *s, CUtensorMap *map, const void *from, size_t stride, const few_args *p, unsigned rows,
                unsigned box_rows, unsigned box_chunks)
{
    const fm_boxes b = {3, {FM_BOX_COLS, rows, p->chunks}, {stride, LINE}, {FM_BOX_COLS, box_rows, box_chunks}};
    return fm_cuda_map(s, map, from, &b);
}

template <class R> bool fill_args(fm_stream *s, bulk_args *a, const few_args *p)
{
    a->y = p->y, a->y_stride = p->y_stride, a->bias = p->bias, a->add = p->add;
    a->rows = p->rows, a->n = p->n, a->chunks = p->chunks;
    a->stages = fm_blocks(p->chunks, R::WAYS);
    a->groups = fm_blocks(p->rows, CLUSTER * R::ROWS);
    return map_chunks(s, &a->weights, p->w, p->w_stride, p, p->rows, R::ROWS, R::WAYS) &&
           map_chunks(s, &a->tokens, p->x, p->x_stride, p, p->n, R::HALF, R::WAYS);
}

// Blocks of such a launch.
unsigned ring_blocks(const fm_stream *s, const bulk_args &a)
{
    return min(a.groups, (unsigned)s->n_sm / CLUSTER) * CLUSTER;
}

template <class R, class OUT> static void launch_ring(fm_stream *s, const typename OUT::args &a)
{
    enum { SHARED = R::SHARED + OUT::gate::BYTES };
    fm_cuda_allow_shared<bulk_kernel<R, OUT>>(s, SHARED);
    const fm_launch l = {s, ring_blocks(s, a), R::COPIES + 32, SHARED, CLUSTER};
    fm_cuda_launch(&l, "linear", bulk_kernel<R, OUT>, a);
}

template <class R> void launch_outputs(fm_stream *s, const few_args *p)
{
    bulk_args a = {};
    if (fill_args<R>(s, &a, p)) launch_ring<R, outputs<R>>(s, a);
}

norm_args norm_of(const fm_lazy_pack *lazy, fm_turns *turns)
{
    norm_args a = {};
    if (!lazy || !lazy->normed) return a;
    const fm_pack_args *r = &lazy->rows;
    a.x = (const float *)r->x, a.stride = r->x_stride, a.w = lazy->w, a.eps = lazy->eps;
    a.n = (unsigned)r->n, a.cols = (unsigned)r->cols;
    a.to = (__nv_bfloat16 *)r->out, a.turns = turns;
    return a;
}

template <class R> void launch_convolved(fm_stream *s, const few_args *p, const fm_lazy_pack *norm, const fm_conv_args *v)
{
    conv_args a = {};
    if (!fill_args<R>(s, &a, p)) return;
    a.norm = norm_of(norm, s->turns + ring_blocks(s, a));
    a.state = v->state, a.taps = v->w, a.taps_bias = v->bias;
    a.u = v->out, a.u_stride = v->out_stride, a.packed = (__nv_bfloat16 *)v->packed;
    a.d_inner = v->d_inner, a.hold = v->hold;
    launch_ring<R, convolved<R>>(s, a);
}

template <int TILES, int WAYS, int CHAINS> void launch(fm_stream *s, const few_args *p)
{
    if (p->n > 8)
        launch_outputs<ring_of<TILES, WAYS, CHAINS, 2>>(s, p);
    else
        launch_outputs<ring_of<TILES, WAYS, CHAINS, 1>>(s, p);
}

template <int TILES, int WAYS, int CHAINS>
void launch_conv(fm_stream *s, const few_args *p, const fm_lazy_pack *norm, const fm_conv_args *v)
{
    if (p->n > 8)
        launch_convolved<ring_of<TILES, WAYS, CHAINS, 2>>(s, p, norm, v);
    else
        launch_convolved<ring_of<TILES, WAYS, CHAINS, 1>>(s, p, norm, v);
}

template <int NT> static void launch_narrow(fm_stream *s, const few_args *p, few_cut cut)
{
    narrow_args a = {};
    if (!map_chunks(s, &a.weights, p->w, p->w_stride, p, p->rows, NARROW_ROWS, cut.split) ||
        !map_chunks(s, &a.tokens, p->x, p->x_stride, p, p->n, 8 * NT, cut.split))
        return;
    a.y = p->y, a.y_stride = p->y_stride, a.bias = p->bias, a.add = p->add;
    a.rows = p->rows, a.n = p->n, a.cluster = cut.cluster, a.split = cut.split;
    fm_cuda_allow_shared<narrow_kernel<NT>>(s, ROOM);
    const fm_launch l = {s, fm_blocks(p->rows, NARROW_ROWS) * cut.cluster, 32 * cut.split,
                         a.barriers<NT>() + RING_BARRIERS * NARROW_STAGES, cut.cluster};
    fm_cuda_launch(&l, "linear", narrow_kernel<NT>, a);
}

few_cut narrow_cut(const few_args *p)
{
    return few_cut_narrow(p->rows, p->chunks, NARROW_STAGES);
}

void narrow(fm_stream *s, const few_args *p)
{
    if (p->n > 8)
        launch_narrow<2>(s, p, narrow_cut(p));
    else
        launch_narrow<1>(s, p, narrow_cut(p));
}

// By how a product is cut, those of many rows to a block first.  Convolved is what in_proj of the 7B model is cut like.
const struct tile {
    unsigned split, rows;
    void (*launch)(fm_stream *s, const few_args *p);
    void (*convolve)(fm_stream *s, const few_args *p, const fm_lazy_pack *norm, const fm_conv_args *v); // NULL: there is none
} tiles[] = {{1, 128, launch<8, 1, 1>, NULL},
             {2, 128, launch<8, 1, 2>, NULL},
             {4, 128, launch<8, 1, 4>, launch_conv<8, 1, 4>},
             {8, 64, launch<4, 2, 4>, NULL},
             {8, 32, launch<2, 4, 2>, NULL}};

// NULL: none fills three quarters of the card.
const tile *tile_of(const fm_stream *s, const few_args *p)
{
    const few_cut cut = few_cut_of(p->rows, p->chunks, NARROW_STAGES);
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles && cut.cluster == 1; i++)
        if (tiles[i].split == cut.split && (size_t)p->rows * 4 >= (size_t)tiles[i].rows * 3 * (unsigned)s->n_sm)
            return &tiles[i];
    return NULL;
}

bool takes(const few_args *p, fm_dtype type)
{
    return type == FM_BF16 && p->n >= LEAST && p->cols % FM_BOX_COLS == 0 && fm_cuda_has_boxes(p->w, p->w_stride) &&
           fm_cuda_has_boxes(p->x, p->x_stride);
}

} // namespace

bool fm_cuda_few_bulk(fm_stream *s, const few_args *p, fm_dtype type)
{
    static_assert((int)NARROW_STAGES * (int)FM_BOX_COLS == (int)FM_CHUNK, "a chain of few rows has 256 columns");
    if (!takes(p, type)) return false;
    const bool few_rows = narrow_cut(p).split != 0;
    const tile *t = few_rows ? NULL : tile_of(s, p);
    if (few_rows)
        narrow(s, p);
    else if (t)
        t->launch(s, p);
    return few_rows || t;
}

bool fm_cuda_few_bulk_conv(fm_stream *s, const few_args *p, fm_dtype type, const fm_lazy_pack *norm, const fm_conv_args *v)
{
    const tile *t = takes(p, type) ? tile_of(s, p) : NULL;
    if (!t || !t->convolve || v->d_conv != TAPS || v->d_inner % t->rows != 0) return false;
    t->convolve(s, p, norm, v);
    return true;
}
