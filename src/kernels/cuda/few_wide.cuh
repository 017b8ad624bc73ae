// few_wide.cuh - products of 17 to 64 columns with quantised weights: the bits of few.cuh, the weights still read once.
//
// Four warps have 64 rows and 32 or 64 columns (wgmma.cuh): codes go from a ring in shared memory through registers, where they are
// unpacked; the input of the same chunk lies in the ring beside them.  A block has two groups of four, one of which multiplies while the
// other puts its sums together, and four more warps, which copy codes and input.  The chunks that
// one warp of few.cuh takes are a `chain`, whose sum must stay by itself; a block walks chain after chain, and where rows are too few
// to fill a card the blocks of a cluster take different chains.  Sums of chains are added in their order.
//
// A warp puts the sums of a chunk together while the products of the next are under way, and reads the codes of the one after that
// before they are done: tensor cores wait only while sums leave their registers.
#ifndef FM_KERNELS_CUDA_FEW_WIDE_CUH
#define FM_KERNELS_CUDA_FEW_WIDE_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/ring.cuh"

template <class F, int NT> struct wide_ring {
    static constexpr int WARPS = 8, ROWS = 16 * WARPS, COLS = 8 * NT; // WARPS: that multiply
    static constexpr int CODES = ROWS * F::WIDE::ROW, SUMS = WARPS * NT * 32 * (int)sizeof(float4);
    // A stage is the codes of a chunk, its input and what goes with that.
    static constexpr int INPUT = CODES, BESIDE = INPUT + COLS * FM_CHUNK, STAGE = (BESIDE + NT * F::SIDE + 1023) / 1024 * 1024;
    static constexpr int SHARED = 226 * 1024; // for a block, beside its barriers; there are 227
    // Chains that a block can keep apart: the last one's sums lie in the ring, which is empty then.
    static constexpr int KEEP = (SHARED - 2 * SUMS) / STAGE >= 3 ? 2 : 1, CHAINS = KEEP + 1;
    static constexpr int FIT = (SHARED - KEEP * SUMS) / STAGE, STAGES = FIT > 4 ? 4 : FIT;
    // Stages whose codes are asked for before the input is, which waits behind them where all blocks begin at once.
    static constexpr int AHEAD = 2;
    static_assert(STAGES >= 2 && STAGES * STAGE >= SUMS, "a ring, in which sums have room when it is empty");
    static constexpr int BARRIER_BYTES = RING_BARRIERS * STAGES;
    static_assert(CODES % 1024 == 0, "panels of the input begin at multiples of 1024");
    static_assert(SHARED + BARRIER_BYTES <= 227 * 1024, "what a block may have");
};

enum { WIDE_SUMS = 16 /* chains of a cluster that keeps them apart, at most */, WIDE_THREADS = 384 };

struct wide_args {
    few_args p;      // cluster: share * split
    unsigned share;  // blocks that have different rows and the same chains: each copies a part of the input to all of them
    unsigned split;  // blocks that have the same rows and different chains
    unsigned chains; // of a block, at most; the chunks of chain c are c, c + step, ...
    unsigned step;   // chains in all
};

// Where a block's barriers are: behind the ring and the sums.
template <class R> __host__ __device__ static inline unsigned wide_barriers(const wide_args &a)
{
    return R::STAGES * R::STAGE + (a.split > 1 ? a.chains - 1 : 1) * R::SUMS;
}

// What a block does: groups `group`, group + step, ... up to `end`, chains `first` to last - 1.  Blocks that share their input do the
// same number of groups, some perhaps beyond the last row.
struct wide_part {
    unsigned rank, group, group_step, end, first, last;
};
template <class R> __device__ static inline wide_part wide_part_of(const wide_args &a)
{
    const unsigned rank = blockIdx.x % a.p.cluster, of = rank % a.share, groups = (a.p.rows + R::ROWS - 1) / R::ROWS;
    const unsigned first = rank / a.share * a.chains;
    return {rank,
            blockIdx.x / a.p.cluster * a.share + of,
            gridDim.x / a.p.cluster * a.share,
            (groups + a.share - 1) / a.share * a.share,
            first,
            min(first + a.chains, a.step)};
}

// Which of eight rows lane group g has: two groups that read side by side have rows four apart.
__device__ static inline int wide_place(int g)
{
    return g % 2 * 4 + g / 2;
}

// Where a block is: group of rows, chain and chunk.
struct wide_walk {
    unsigned group, chain, chunk;

    __device__ inline void enter(unsigned to, unsigned first)
    {
        group = to;
        chain = chunk = first;
    }
    __device__ inline void next(const wide_args &a, const wide_part &w)
    {
        chunk += a.step;
        if (chunk < a.p.chunks) return;
        chain++;
        chunk = chain;
        if (chain == w.last) enter(group + w.group_step, w.first);
    }
};

// ---- What comes in.  The input is copied in bulk: a fence before wgmma reads it would wait for the codes that are on their way. ----

// A block's part of a chunk's record goes to all who share it, each of whom waits for the whole.
__device__ static inline void wide_ask_input(unsigned to, unsigned full, const wide_args &a, const wide_part &w, unsigned chunk)
{
    const unsigned bytes = a.p.x_stride / a.share, of = w.rank % a.share, begin = of * bytes;
    const uint8_t *from = a.p.x + (size_t)chunk * a.p.x_stride + begin;
    ring_expect(full, a.p.x_stride);
    if (a.share == 1)
        ring_copy(to, full, from, bytes);
    else
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                     "[%0], [%1], %2, [%3], %4;" ::"r"(to + begin),
                     "l"(from), "r"(bytes), "r"(full), "h"((uint16_t)(((1u << a.share) - 1) << (w.rank - of)))
                     : "memory");
}

// Brings all that a block wants, in order; codes before the kernel in front has ended, which makes the input.  128 threads.
template <class F, class R> struct wide_copier {
    const wide_args &a;
    const wide_part &w;
    unsigned ring, full, empty;
    wide_walk codes, input;

    __device__ inline void ask_codes(unsigned stage)
    {
        F::WIDE::template ask<R::ROWS>(ring + stage * R::STAGE, a.p, codes.chunk, codes.group * R::ROWS);
        ring_arrive_copied(full + 8 * stage);
        codes.next(a, w);
    }
    __device__ inline void ask_input(unsigned stage)
    {
        if (threadIdx.x % 128 == 0) wide_ask_input(ring + stage * R::STAGE + R::INPUT, full + 8 * stage, a, w, input.chunk);
        input.next(a, w);
    }
    __device__ inline void begin()
    {
        codes.enter(w.group, w.first);
        input = codes;
#pragma unroll 1
        for (unsigned i = 0; i < R::AHEAD && codes.group < w.end; i++) ask_codes(i);
    }
    __device__ inline void go_on()
    {
        unsigned stage = 0, turn = 0; // turn: how often the ring went round
#pragma unroll 1
        for (unsigned i = 0; input.group < w.end; i++) {
            if (turn > 0) ring_await(empty + 8 * stage, turn - 1);
            ask_input(stage);
            if (i >= R::AHEAD) ask_codes(stage);
            if (++stage == R::STAGES) stage = 0, turn++;
        }
    }
};

// ---- Sums ----

// Puts a lane's sums of a chain away, on top of those of the chains before it unless it is the first.
template <int NT> __device__ static inline void wide_leave(float4 *sums, const float y[NT][4], bool first)
{
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        float4 old = {0.0f, 0.0f, 0.0f, 0.0f};
        if (!first) old = sums[32 * nt];
        sums[32 * nt] = make_float4(old.x + y[nt][0], old.y + y[nt][1], old.z + y[nt][2], old.w + y[nt][3]);
    }
}

// The outputs of a lane that are worked on at once: four of 8 columns each, of two rows; every `split`th eight columns from `first` on.
struct wide_out {
    float *y;
    size_t stride;
    unsigned row, col, rows, n, split;

    __device__ wide_out(const wide_args &a, unsigned row_, unsigned first, unsigned t)
        : stride(a.p.y_stride), row(row_), col(8 * first + 2 * t), rows(a.p.rows), n(a.p.n), split(a.split)
    {
        y = a.p.y + col * stride + row;
    }
    __device__ inline bool has(int i, int k) const { return row + k / 2 * 8 < rows && col + 8 * i * split + k % 2 < n; }
    __device__ inline float *at(int i, int k) const { return y + (8 * i * split + k % 2) * stride + k / 2 * 8; }

    __device__ inline void read(float old[4][4]) const
    {
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (has(i / 4, i % 4)) old[i / 4][i % 4] = *at(i / 4, i % 4);
    }
    __device__ inline void write(const float v[4][4]) const
    {
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (has(i / 4, i % 4)) *at(i / 4, i % 4) = v[i / 4][i % 4];
    }
};

// Adds the sums of all chains of a cluster to v, in order, of up to EIGHTS times 8 columns.  The chains of a block lie one after the
// other, `kept` floats of four apart, the last in `last`.  Those of CHAINS are asked for at once: other blocks' memory is far.
template <int CHAINS, int EIGHTS>
__device__ static inline void wide_gather(float v[4][4], const wide_args &a, float4 *own, unsigned kept, float4 *last,
                                          const wide_part &w, unsigned left)
{
#pragma unroll 1
    for (unsigned first = 0; first < a.step; first += CHAINS) {
        float4 part[CHAINS][EIGHTS];
#pragma unroll
        for (unsigned j = 0; j < CHAINS; j++) {
            const unsigned k = first + j, block = k / a.chains, i = k % a.chains;
            float4 *from = i + 1 == a.chains || k + 1 == a.step ? last : own + i * kept;
            if (k < a.step) from = cooperative_groups::this_cluster().map_shared_rank(from, block * a.share + w.rank % a.share);
#pragma unroll
            for (unsigned c = 0; c < EIGHTS; c++)
                part[j][c] = k < a.step && c < left ? from[32 * c * a.split] : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
#pragma unroll
        for (int j = 0; j < CHAINS * EIGHTS; j++) {
            float *sum = v[j % EIGHTS];
            const float4 p = part[j / EIGHTS][j % EIGHTS];
            sum[0] += p.x, sum[1] += p.y, sum[2] += p.z, sum[3] += p.w;
        }
    }
}

// The outputs of a warp's rows, straight from the lanes that have their sums.  Where a cluster has the chains its blocks take the
// columns in turn, once all have left theirs.  Zeros are added in place of what there is not: no sum here is -0.
template <class R>
__device__ static inline void wide_finish(const wide_args &a, float4 *own, float4 *last, const wide_part &w, unsigned group,
                                          const few_lane &l)
{
    constexpr unsigned NT = R::COLS / 8;
    const few_args &p = a.p;
    const unsigned row = group * R::ROWS + threadIdx.x / 32 * 16 + l.g;
    float bias[2] = {0.0f, 0.0f};
    for (unsigned h = 0; h < 2; h++)
        if (p.bias && row + 8 * h < p.rows) bias[h] = p.bias[row + 8 * h];
    const unsigned begin = w.rank / a.share;
    if (begin >= NT) ring_meet_cluster(); // it has no columns, but others wait for its sums
#pragma unroll 1
    for (unsigned first = begin; first < NT; first += 4 * a.split) {
        const wide_out out(a, row, first, l.t);
        const unsigned left = (NT - first + a.split - 1) / a.split; // eights of columns
        float old[4][4] = {}, v[4][4] = {};
        if (p.add) out.read(old);
        if (a.split > 1) {
            ring_meet_cluster();
            if (left > 2)
                wide_gather<8, 4>(v, a, own + 32 * first, R::SUMS / sizeof(float4), last + 32 * first, w, left);
            else
                wide_gather<16, 2>(v, a, own + 32 * first, R::SUMS / sizeof(float4), last + 32 * first, w, left);
        } else
#pragma unroll
            for (unsigned i = 0; i < 4; i++) *(float4 *)v[i] = own[32 * (first + i)];
#pragma unroll
        for (int i = 0; i < 16; i++) v[i / 4][i % 4] = v[i / 4][i % 4] + bias[i % 4 / 2] + old[i / 4][i % 4];
        out.write(v);
    }
}

// Between the warps that multiply.
template <int WARPS> __device__ static inline void wide_meet()
{
    asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");
}
// Registers go from the four warps that copy to those that multiply.
__device__ static inline void wide_take_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
}
__device__ static inline void wide_give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
}

// ---- The kernel ----

// What a warp that multiplies does.
template <class F, int NT> struct wide_warp {
    using R = wide_ring<F, NT>;
    const wide_args &a;
    const wide_part &w;
    uint8_t *ring;
    unsigned full, empty;
    few_lane l;
    unsigned stage, turn; // of the next chunk; turn: how often the ring went round
    float4 *sums;         // a lane's of the first chain

    // Waits for a stage.
    __device__ inline void await(unsigned stage, unsigned turn) const { ring_await(full + 8 * stage, turn); }
    __device__ inline void give_back(unsigned stage) const
    {
        __syncwarp();
        ring_release(empty + 8 * stage, a.share, w.rank - w.rank % a.share, l.lane);
    }

    // Where the sums of a chain lie.  Those of the last that is kept apart lie in the ring, after the only group.
    __device__ inline float4 *sums_of(unsigned chain) const
    {
        if (a.split == 1) return sums;
        return chain + 1 == w.last ? (float4 *)ring + (sums - (float4 *)(ring + R::STAGES * R::STAGE))
                                   : sums + (chain - w.first) * (R::SUMS / sizeof(float4));
    }
    __device__ inline void leave(float y[NT][4], unsigned chain) const
    {
        wide_leave<NT>(sums_of(chain), y, a.split > 1 || chain == w.first);
#pragma unroll
        for (int k = 0; k < 4 * NT; k++) y[k / 4][k % 4] = 0.0f;
    }

    // All chains of a group of rows; leaves all sums but those of the last chain.
    __device__ inline void group(float y[NT][4])
    {
        unsigned chain = w.first, chunk = chain, before = stage; // the first has none before it: zeros times its own numbers
        typename F::template wide_rest<NT> rest = {};            // of the chunk before
        typename F::WIDE::held codes;
        await(stage, turn);
        codes.template read<R>(ring + stage * R::STAGE, l);
        for (bool more = true; more;) {
            const unsigned here = stage, ended = chunk == chain && chain > w.first;
            if (++stage == R::STAGES) stage = 0, turn++;
            const unsigned last = chain - ended;
            chunk += a.step;
            if (chunk >= a.p.chunks) chunk = ++chain;
            more = chain < w.last;
            const uint8_t *next = ring + stage * R::STAGE;
            F::template wide<NT, R>(
                y, rest, codes, ring + here * R::STAGE, ring + before * R::STAGE, next, l,
                [&] {
                    if (before != here) give_back(before);
                    if (ended) leave(y, last);
                },
                [&] {
                    if (more) await(stage, turn);
                });
            before = here;
        }
        F::template wide_settle_all<NT>(y, rest, ring + before * R::STAGE + R::BESIDE, l);
        give_back(before);
    }

    __device__ inline void multiply()
    {
        for (unsigned g = w.group; g < w.end; g += w.group_step) {
            float y[NT][4] = {};
            group(y);
            if (a.split > 1) wide_meet<R::WARPS>();
            leave(y, w.last - 1);
            wide_finish<R>(a, sums, sums_of(w.last - 1), w, g, l);
        }
    }
};

template <class F, int NT> __global__ __launch_bounds__(WIDE_THREADS, 1) static void wide_kernel(const wide_args a)
{
    using R = wide_ring<F, NT>;
    extern __shared__ __align__(1024) uint8_t ring[];
    const unsigned warp = threadIdx.x / 32, full = shared_address(ring) + wide_barriers<R>(a), empty = full + 8 * R::STAGES;
    const wide_part w = wide_part_of<R>(a);
    wide_copier<F, R> copier = {a, w, shared_address(ring), full, empty, {}, {}};
    if (threadIdx.x == 0) ring_init(full, empty, R::STAGES, R::WARPS * a.share, 1 + 128);
    __syncthreads();
    if (warp >= R::WARPS) copier.begin();
    if (a.share > 1) ring_meet_cluster_relaxed();
    fm_begin();
    if (warp < R::WARPS) {
        wide_take_registers();
        const int lane = (int)threadIdx.x % 32;
        const few_lane l = {lane, wide_place(lane / 4), lane % 4};
        float4 *sums = (float4 *)(ring + R::STAGES * R::STAGE) + warp * NT * 32 + l.lane;
        wide_warp<F, NT> me = {a, w, ring, full, empty, l, 0, 0, sums};
        me.multiply();
    } else {
        wide_give_registers();
        copier.go_on();
        if (a.split > 1) ring_meet_cluster();
    }
    if (a.p.cluster > 1) ring_meet_cluster_relaxed(); // nobody leaves while others still read or copy
}

// ---- Launches ----

// How many clusters of so many blocks run at once.
template <class F, int NT> static unsigned wide_room(fm_stream *s, unsigned cluster)
{
    using R = wide_ring<F, NT>;
    static unsigned room[9]; // one device per process
    if (room[cluster]) return room[cluster];
    fm_cuda_allow_shared<wide_kernel<F, NT>>(s, R::SHARED + R::BARRIER_BYTES);
    const fm_launch l = {s, cluster, WIDE_THREADS, R::SHARED + R::BARRIER_BYTES, cluster};
    return room[cluster] = max(1u, fm_cuda_resident(&l, wide_kernel<F, NT>));
}

// How many blocks share the chains of a group of rows: so that the last is done first, which counts in chains that one block walks
// after the other.  Where there are more groups than room, blocks that have all chains walk on to the next group.
template <class F, int NT> static unsigned wide_split(fm_stream *s, const wide_args &a)
{
    using R = wide_ring<F, NT>;
    const unsigned groups = (a.p.rows + R::ROWS - 1) / R::ROWS;
    unsigned best = 1, least = ~0u;
    for (unsigned split = 1; split <= 8 && split <= a.step; split++) {
        const unsigned chains = (a.step + split - 1) / split, room = wide_room<F, NT>(s, split);
        if (split > 1 && (chains > R::CHAINS || a.step > WIDE_SUMS || (split - 1) * chains >= a.step)) continue;
        const unsigned time = (groups + room - 1) / room * chains;
        if (time < least) best = split, least = time;
    }
    return best;
}

// Only speed depends on how the work is shared.
template <class F, int NT> static void wide_launch(fm_stream *s, const few_args &p)
{
    using R = wide_ring<F, NT>;
    const few_cut cut = few_cut_of(p.rows, p.chunks, F::GROUP);
    const unsigned step = cut.split * cut.cluster;
    wide_args a = {p, 1, 1, 0, step};
    const unsigned groups = (p.rows + R::ROWS - 1) / R::ROWS;
    a.split = wide_split<F, NT>(s, a);
    if (a.split == 1 && groups > (unsigned)s->n_sm / 2) a.share = 2;
    a.chains = (step + a.split - 1) / a.split;
    a.p.cluster = a.share * a.split;
    const unsigned rounds = (groups + a.share - 1) / a.share;
    const unsigned room = wide_room<F, NT>(s, a.p.cluster), clusters = a.split > 1 ? rounds : min(rounds, room);
    const fm_launch l = {s, clusters * a.p.cluster, WIDE_THREADS, wide_barriers<R>(a) + R::BARRIER_BYTES, a.p.cluster};
    fm_cuda_launch(&l, "linear", wide_kernel<F, NT>, a);
}

#endif
