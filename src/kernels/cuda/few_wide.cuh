// few_wide.cuh - products of 17 to 64 columns with quantised weights: the bits of few.cuh, the weights still read once.
//
// Four warps have 64 rows and 32 or 64 columns (wgmma.cuh): codes go from a ring in shared memory through registers, where they are
// unpacked; the input of the same chunk lies in the ring beside them for all warps, asked for by a warp of its own.  The chunks that
// one warp of few.cuh takes are a `chain`, whose sum must stay by itself; a block walks chain after chain, and where rows are too few
// to fill a card the blocks of a cluster take different chains.  Sums of chains are added in their order.
#ifndef FM_KERNELS_CUDA_FEW_WIDE_CUH
#define FM_KERNELS_CUDA_FEW_WIDE_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/ring.cuh"

// FOURS: groups of four warps that multiply.  Two: the input is copied half as often, and one multiplies while the other puts its
// sums together.  One: a product of few rows is in more blocks.
template <class F, int NT, int FOURS> struct wide_ring {
    static constexpr int WARPS = 4 * FOURS, ROWS = 16 * WARPS, COLS = 8 * NT;
    static constexpr int CODES = 2 * F::SLOT, SUMS = WARPS * NT * 32 * (int)sizeof(float4);
    // A stage is the input of a chunk and then every warp's part of the codes.
    static constexpr int INPUT = COLS * FM_CHUNK + NT * F::SIDE, STAGE = (INPUT + WARPS * CODES + 1023) / 1024 * 1024;
    static constexpr int SHARED = 227 * 1024 / (3 - FOURS) - 2048; // for a block, with what aligns it and what the system keeps
    // Chains that a block can keep apart: the last one's sums lie in the ring, which is empty then.
    static constexpr int KEEP = (SHARED - 2 * SUMS) / STAGE >= 3 ? 2 : 1, CHAINS = KEEP + 1;
    static constexpr int FIT = (SHARED - KEEP * SUMS) / STAGE, STAGES = FIT > 4 ? 4 : FIT;
    static_assert(STAGES >= 2 && STAGES * STAGE >= SUMS, "a ring, in which sums have room when it is empty");
};

enum { WIDE_SUMS = 16 }; // chains of a cluster that keeps them apart, at most

struct wide_args {
    few_args p;      // cluster: share * split
    unsigned share;  // blocks that have different rows and the same chains: each copies a part of the input to all of them
    unsigned split;  // blocks that have the same rows and different chains
    unsigned chains; // of a block, at most; the chunks of chain c are c, c + step, ...
    unsigned step;   // chains in all
};

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

// A warp's codes: lane (g, t) copies what it will read, of rows g and g + 8; rows beyond the last repeat it.
template <class F, class R>
__device__ static inline void wide_ask_codes(uint8_t *stage, const few_args &p, const wide_walk &ask, const few_lane &l)
{
    const unsigned warp = threadIdx.x / 32, to = shared_address(stage + R::INPUT + warp * R::CODES);
    for (int i = 0; i < 2; i++) {
        const unsigned row = ask.group * R::ROWS + 16 * warp + 8 * i + l.g;
        F::ask(to + i * F::SLOT, p.w + (size_t)min(row, p.rows - 1) * p.w_stride, p, ask.chunk, l);
    }
}

// ---- The input of a chunk, copied in bulk: a fence before wgmma reads it would wait for the codes that are still on their way ----

// A block's part of a chunk's record goes to all who share it, each of whom waits for the whole.
__device__ static inline void wide_ask_input(unsigned to, unsigned full, const wide_args &a, const wide_part &w, unsigned chunk)
{
    const unsigned bytes = a.p.x_stride / a.share, of = w.rank % a.share, begin = of * bytes;
    const uint8_t *from = a.p.x + (size_t)chunk * a.p.x_stride + begin;
    ring_expect(full, a.p.x_stride);
    if (a.share == 1)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                     "l"(from), "r"(bytes), "r"(full)
                     : "memory");
    else
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                     "[%0], [%1], %2, [%3], %4;" ::"r"(to + begin),
                     "l"(from), "r"(bytes), "r"(full), "h"((uint16_t)(((1u << a.share) - 1) << (w.rank - of)))
                     : "memory");
}

// All the input that a block wants, in order; one thread.
template <class R>
__device__ static inline void wide_copy_input(const wide_args &a, const wide_part &w, unsigned ring, unsigned full,
                                              unsigned empty)
{
    wide_walk ask;
    ask.enter(w.group, w.first);
    unsigned stage = 0, turn = 0; // turn: how often the ring went round
    while (ask.group < w.end) {
        if (turn > 0) ring_await(empty + 8 * stage, turn - 1);
        wide_ask_input(ring + stage * R::STAGE, full + 8 * stage, a, w, ask.chunk);
        ask.next(a, w);
        if (++stage == R::STAGES) stage = 0, turn++;
    }
}

// ---- Turns: of two groups of four warps one has the tensor cores while the other unpacks codes or puts sums together, where left to
// themselves both do the same at the same time.  Barrier 2 is the first group's, 3 the second's. ----

template <bool TURNS> __device__ static inline void wide_take_turn()
{
    if constexpr (TURNS) asm volatile("bar.sync %0, 256;" ::"r"(2 + threadIdx.x / 128) : "memory");
}
template <bool TURNS> __device__ static inline void wide_give_turn()
{
    if constexpr (TURNS) asm volatile("bar.arrive %0, 256;" ::"r"(3 - threadIdx.x / 128) : "memory");
}

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

// What a lane adds its sums of eight columns to: 0 or the outputs' old values; and a bias after that.
struct wide_out {
    float *y[4]; // NULL: no such output
    float old[4];

    __device__ inline void open(const few_args &p, unsigned row, unsigned col)
    {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const unsigned r = row + k / 2 * 8, c = col + k % 2;
            y[k] = r < p.rows && c < p.n ? p.y + c * p.y_stride + r : NULL;
            old[k] = p.add && y[k] ? *y[k] : 0.0f;
        }
    }
    __device__ inline void put(const few_args &p, const float v[4], const float bias[2]) const
    {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float sum = p.bias ? v[k] + bias[k / 2] : v[k];
            if (y[k]) *y[k] = p.add ? sum + old[k] : sum;
        }
    }
};

// A lane's sums of 8 columns of all chains of a cluster, in order.  The chains of a block lie one after the other, `kept` floats of
// four apart, the last in `last`.  All are asked for at once: other blocks' memory is far.
__device__ static inline void wide_gather(float v[4], const wide_args &a, float4 *own, unsigned kept, float4 *last, unsigned of)
{
    float4 part[WIDE_SUMS];
#pragma unroll
    for (unsigned k = 0; k < WIDE_SUMS; k++) {
        if (k >= a.step) continue;
        const unsigned block = k / a.chains, i = k % a.chains;
        float4 *from = i + 1 == a.chains || k + 1 == a.step ? last : own + i * kept;
        part[k] = *cooperative_groups::this_cluster().map_shared_rank(from, block * a.share + of);
    }
    v[0] = v[1] = v[2] = v[3] = 0.0f;
#pragma unroll
    for (unsigned k = 0; k < WIDE_SUMS; k++)
        if (k < a.step) v[0] += part[k].x, v[1] += part[k].y, v[2] += part[k].z, v[3] += part[k].w;
}

// The outputs of a warp's rows, straight from the lanes that have their sums.  Where a cluster has the chains its blocks take the
// columns in turn.
template <class R>
__device__ static inline void wide_finish(const wide_args &a, float4 *own, float4 *last, const wide_part &w, unsigned group,
                                          const few_lane &l)
{
    constexpr int NT = R::COLS / 8;
    const few_args &p = a.p;
    const unsigned row = group * R::ROWS + threadIdx.x / 32 * 16 + l.g, turn = w.rank / a.share;
    float bias[2] = {0.0f, 0.0f};
    for (unsigned h = 0; h < 2; h++)
        if (p.bias && row + 8 * h < p.rows) bias[h] = p.bias[row + 8 * h];
    if (a.split > 1) {
        for (unsigned nt = turn; nt < NT; nt += a.split) {
            wide_out out;
            float v[4];
            out.open(p, row, 8 * nt + 2 * l.t);
            wide_gather(v, a, own + 32 * nt, R::SUMS / sizeof(float4), last + 32 * nt, w.rank % a.share);
            out.put(p, v, bias);
        }
        return;
    }
#pragma unroll 1
    for (int first = 0; first < NT; first += 4) { // old values of 32 columns are asked for at once
        wide_out out[4];
#pragma unroll
        for (int i = 0; i < 4; i++) out[i].open(p, row, 8 * (first + i) + 2 * l.t);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 sum = own[32 * (first + i)];
            const float v[4] = {sum.x, sum.y, sum.z, sum.w};
            out[i].put(p, v, bias);
        }
    }
}

// Between the warps that multiply.
template <int WARPS> __device__ static inline void wide_meet()
{
    asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory");
}
// Registers go from the four warps that copy to those that multiply.
template <int FOURS> __device__ static inline void wide_take_registers()
{
    if constexpr (FOURS == 2)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    else
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
}
__device__ static inline void wide_give_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
}

// ---- The kernel ----

// What a warp that multiplies does.  A stage's codes are asked for again one chunk after they were read, by the lanes that read them.
template <class F, int NT, int FOURS> struct wide_warp {
    using R = wide_ring<F, NT, FOURS>;
    static constexpr bool TURNS = FOURS == 2 && F::turns(NT);
    const wide_args &a;
    const wide_part &w;
    uint8_t *ring;
    unsigned full, empty;
    few_lane l;
    wide_walk ask;

    __device__ inline void ask_next(unsigned stage)
    {
        if (ask.group < w.end) {
            wide_ask_codes<F, R>(ring + stage * R::STAGE, a.p, ask, l);
            ask.next(a, w);
        }
        copy_commit();
    }

    __device__ inline void fill()
    {
        ask.enter(w.group, w.first);
        for (int i = 0; i < R::STAGES - 1; i++) ask_next(i);
    }

    __device__ inline void multiply()
    {
        const unsigned warp = threadIdx.x / 32, lane = warp * NT * 32 + l.lane;
        float4 *sums = (float4 *)(ring + R::STAGES * R::STAGE) + lane;
        wide_walk at;
        at.enter(w.group, w.first);
        unsigned stage = 0, turn = 0;
        if (threadIdx.x >= 128) wide_give_turn<TURNS>(); // the first group begins
        while (at.group < w.end) {
            const unsigned group = at.group, chain = at.chain;
            float y[NT][4] = {};
            while (at.group == group && at.chain == chain) {
                copy_wait<R::STAGES - 2>();
                __syncwarp(); // lanes read what others copied
                const uint8_t *here = ring + stage * R::STAGE;
                ring_await(full + 8 * stage, turn);
                F::template wide<NT, TURNS>(y, here + R::INPUT + warp * R::CODES, shared_address(here),
                                            here + R::COLS * FM_CHUNK, l,
                                            [&] { ask_next(stage == 0 ? R::STAGES - 1 : stage - 1); });
                __syncwarp();
                ring_release(empty + 8 * stage, a.share, w.rank - w.rank % a.share, l.lane);
                at.next(a, w);
                if (++stage == R::STAGES) stage = 0, turn++;
            }
            const bool apart = a.split > 1, last = apart && chain + 1 == w.last;
            if (last) wide_meet<R::WARPS>(); // its sums lie in the ring, after the only group
            float4 *to = last ? (float4 *)ring + lane : apart ? sums + (chain - w.first) * (R::SUMS / sizeof(float4)) : sums;
            wide_leave<NT>(to, y, apart || chain == w.first);
            if (at.group == group) continue;
            if (apart) ring_meet_cluster();
            wide_finish<R>(a, sums, to, w, group, l);
        }
    }
};

template <class F, int NT, int FOURS>
__global__ __launch_bounds__(128 * (FOURS + 1), 3 - FOURS) static void wide_kernel(const wide_args a)
{
    using R = wide_ring<F, NT, FOURS>;
    extern __shared__ uint8_t unaligned[];
    __shared__ uint64_t barriers[2 * R::STAGES];
    uint8_t *ring = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
    const unsigned warp = threadIdx.x / 32, full = shared_address(barriers), empty = full + 8 * R::STAGES;
    const wide_part w = wide_part_of<R>(a);
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    wide_warp<F, NT, FOURS> me = {a, w, ring, full, empty, l, {}};
    if (threadIdx.x == 32 * R::WARPS) ring_init(full, empty, R::STAGES, R::WARPS * a.share);
    if (warp < R::WARPS) me.fill();
    if (a.share > 1)
        ring_meet_cluster_relaxed();
    else
        __syncthreads();
    fm_pdl_wait();
    fm_pdl_trigger();
    if (warp < R::WARPS) {
        wide_take_registers<FOURS>();
        me.multiply();
    } else {
        wide_give_registers();
        if (threadIdx.x == 32 * R::WARPS) wide_copy_input<R>(a, w, shared_address(ring), full, empty);
        if (a.split > 1) ring_meet_cluster();
    }
    if (a.p.cluster > 1) ring_meet_cluster_relaxed(); // nobody leaves while others still read or copy
}

// How many clusters of so many blocks run at once.
template <class F, int NT, int FOURS> static unsigned wide_room(fm_stream *s, unsigned cluster)
{
    using R = wide_ring<F, NT, FOURS>;
    static unsigned room[9]; // one device per process
    if (room[cluster]) return room[cluster];
    FM_CUDA(s, cudaFuncSetAttribute(wide_kernel<F, NT, FOURS>, cudaFuncAttributeMaxDynamicSharedMemorySize, R::SHARED + 1024));
    cudaLaunchAttribute size;
    size.id = cudaLaunchAttributeClusterDimension;
    size.val.clusterDim.x = cluster, size.val.clusterDim.y = size.val.clusterDim.z = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3(cluster), c.blockDim = dim3(128 * (FOURS + 1));
    c.dynamicSmemBytes = R::SHARED + 1024;
    c.attrs = &size, c.numAttrs = 1;
    int n = 0;
    FM_CUDA(s, cudaOccupancyMaxActiveClusters(&n, wide_kernel<F, NT, FOURS>, &c));
    return room[cluster] = n > 0 ? (unsigned)n : 1;
}

// How many blocks share the chains of a group of rows: so that the last is done first, which counts in chains that one block walks
// after the other.  Where there are more groups than room, blocks that have all chains walk on to the next group.
template <class F, int NT, int FOURS> static unsigned wide_split(fm_stream *s, const wide_args &a)
{
    using R = wide_ring<F, NT, FOURS>;
    const unsigned groups = (a.p.rows + R::ROWS - 1) / R::ROWS;
    unsigned best = 1, least = ~0u;
    for (unsigned split = 1; split <= 8 && split <= a.step; split++) {
        const unsigned chains = (a.step + split - 1) / split, room = wide_room<F, NT, FOURS>(s, split);
        if (split > 1 && (chains > R::CHAINS || a.step > WIDE_SUMS || (split - 1) * chains >= a.step)) continue;
        const unsigned time = (groups + room - 1) / room * chains;
        if (time < least) best = split, least = time;
    }
    return best;
}

// Only speed depends on how the work is shared.
template <class F, int NT, int FOURS> static void wide_launch_with(fm_stream *s, const few_args &p, unsigned step)
{
    using R = wide_ring<F, NT, FOURS>;
    wide_args a = {p, 1, 1, 0, step};
    const unsigned groups = (p.rows + R::ROWS - 1) / R::ROWS;
    a.split = wide_split<F, NT, FOURS>(s, a);
    if (a.split == 1 && groups > (unsigned)s->n_sm / 2) a.share = 2;
    a.chains = (step + a.split - 1) / a.split;
    a.p.cluster = a.share * a.split;
    const unsigned sums = a.split > 1 ? a.chains - 1 : 1, rounds = (groups + a.share - 1) / a.share;
    const size_t shared = 1024 + (size_t)(R::STAGES * R::STAGE) + sums * R::SUMS;
    const unsigned room = wide_room<F, NT, FOURS>(s, a.p.cluster), clusters = a.split > 1 ? rounds : min(rounds, room);
    const fm_launch l = {s, clusters * a.p.cluster, 128 * (FOURS + 1), shared, a.p.cluster};
    fm_cuda_launch(&l, "linear", wide_kernel<F, NT, FOURS>, a);
}

// Groups of 64 rows where even they find room beside each other.
template <class F, int NT> static void wide_launch(fm_stream *s, const few_args &p)
{
    const few_cut cut = few_cut_of(p.rows, p.chunks, F::GROUP);
    const unsigned step = cut.split * cut.cluster;
    if ((p.rows + 63) / 64 * min(step, 8u) <= (unsigned)s->n_sm)
        wide_launch_with<F, NT, 1>(s, p, step);
    else
        wide_launch_with<F, NT, 2>(s, p, step);
}

#endif
