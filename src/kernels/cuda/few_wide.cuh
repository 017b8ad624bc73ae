// few_wide.cuh - products of 17 to 64 columns with quantised weights: the bits of few.cuh, the weights still read once.
//
// Four warps have 64 rows and 32 or 64 columns (wgmma.cuh): codes go from a ring in shared memory through registers, where they are
// unpacked, the input of the same chunk lies in the ring beside them for all warps of the block.  The chunks that one warp of
// few.cuh takes are a `chain`, whose sum must stay by itself; a block walks chain after chain, and where rows are too few to fill a
// card the blocks of a cluster take different chains.  Sums of chains are added in their order.
#ifndef FM_KERNELS_CUDA_FEW_WIDE_CUH
#define FM_KERNELS_CUDA_FEW_WIDE_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/wgmma.cuh"

// FOURS: groups of four warps in a block.  One: two blocks share a multiprocessor, and a cluster finds room in more places.  Two:
// the input is copied half as often.
template <class F, int NT, int FOURS> struct wide_ring {
    static constexpr int WARPS = 4 * FOURS, ROWS = 16 * WARPS, COLS = 8 * NT;
    static constexpr int PITCH = COLS + 2; // floats of a row of sums: neighbours in other banks
    static constexpr int CODES = 2 * F::SLOT, SUMS = ROWS * PITCH * (int)sizeof(float);
    // A stage is the input of a chunk and then every warp's part of the codes.
    static constexpr int INPUT = COLS * FM_CHUNK + NT * F::SIDE, STAGE = (INPUT + WARPS * CODES + 1023) / 1024 * 1024;
    static constexpr int SHARED = 227 * 1024 / (3 - FOURS) - 2048; // for a block, with what aligns it and what the system keeps
    static constexpr int FIT = (SHARED - SUMS) / STAGE, STAGES = FIT > 4 ? 4 : FIT;
    static_assert(STAGES >= 2 && STAGES * STAGE >= SUMS, "a ring, in which sums have room when it is empty");
};

enum { WIDE_CHAINS = 2, WIDE_SUMS = 8 * WIDE_CHAINS }; // chains of a block that keeps them apart, and of a cluster

struct wide_args {
    few_args p;
    unsigned chains; // of a block; the chunks of chain c are c, c + step, ...
    unsigned step;   // chains in all
};

// Where a block is: group of rows, chain and chunk.
struct wide_walk {
    unsigned group, chain, chunk;

    __device__ inline void enter(unsigned to, unsigned first)
    {
        group = to;
        chain = chunk = first;
    }
    __device__ inline void next(const wide_args &a, unsigned first, unsigned group_step)
    {
        chunk += a.step;
        if (chunk < a.p.chunks) return;
        chain++;
        chunk = chain;
        if (chain == first + a.chains) enter(group + group_step, first);
    }
};

// A warp's codes: lane (g, t) copies what it will read, of rows g and g + 8.
template <class F, class R>
__device__ static inline void wide_ask_codes(uint8_t *stage, const few_args &p, const wide_walk &ask, const few_lane &l)
{
    const unsigned warp = threadIdx.x / 32, to = shared_address(stage + R::INPUT + warp * R::CODES);
    for (int i = 0; i < 2; i++) {
        const unsigned row = ask.group * R::ROWS + 16 * warp + 8 * i + l.g;
        F::ask(to + i * F::SLOT, p.w + (size_t)min(row, p.rows - 1) * p.w_stride, p, ask.chunk, l);
    }
}

// ---- The input of a chunk, copied as a whole: what so comes needs no fence before wgmma reads it, which would wait for the codes
// that are still on their way.  `full` tells that a stage is there, `empty` that every warp is done with it; a stage's turns are
// counted from 0, and of each barrier only the last two can be told apart. ----

__device__ static inline void wide_barriers_init(unsigned full, unsigned empty, int stages, unsigned warps)
{
    for (int i = 0; i < stages; i++) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * i) : "memory");
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(empty + 8 * i), "r"(warps) : "memory");
    }
}
__device__ static inline void wide_arrive(unsigned barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ static inline void wide_await(unsigned barrier, unsigned turn)
{
    asm volatile("{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra again;}" ::"r"(barrier),
                 "r"(turn & 1)
                 : "memory");
}
__device__ static inline void wide_ask_input(unsigned to, unsigned full, const few_args &p, unsigned chunk)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(p.x_stride) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                 "l"(p.x + (size_t)chunk * p.x_stride), "r"(p.x_stride), "r"(full)
                 : "memory");
}

// Puts a warp's sums of a chain away, on top of those of the chains before it unless it is the first.
template <int NT, int PITCH>
__device__ static inline void wide_leave(float *sums, const float y[NT][4], bool first, const few_lane &l)
{
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 *at = (float2 *)(sums + (8 * h + l.g) * PITCH + 8 * nt + 2 * l.t);
            const float2 old = first ? make_float2(0.0f, 0.0f) : *at;
            *at = make_float2(old.x + y[nt][2 * h], old.y + y[nt][2 * h + 1]);
        }
}

// As few_finish: the blocks of a cluster share the outputs, two columns at a time.  The chains of a block lie one after the other,
// the last in `last`; a block on its own has added them up there.  All are asked for at once: other blocks' memory is far.
template <class R>
__device__ static inline void wide_finish(const wide_args &a, float *own, float *last, unsigned first_row, unsigned rank)
{
    const few_args &p = a.p;
    const unsigned kept = p.cluster > 1 ? a.chains : 1, total = p.cluster * kept;
    for (unsigned i = threadIdx.x + rank * blockDim.x; i < R::ROWS * ((p.n + 1) / 2); i += blockDim.x * p.cluster) {
        const unsigned r = i % R::ROWS, col = i / R::ROWS * 2, row = first_row + r, at = r * R::PITCH + col;
        if (row >= p.rows) continue;
        float2 part[WIDE_SUMS], v = {0.0f, 0.0f};
#pragma unroll
        for (unsigned k = 0; k < WIDE_SUMS; k++) {
            if (k >= total) continue;
            const unsigned block = kept > 1 ? k / 2 : k;
            float *from = (kept > 1 && k % 2 == 0 ? own : last) + at;
            if (p.cluster > 1) from = cooperative_groups::this_cluster().map_shared_rank(from, block);
            part[k] = *(const float2 *)from;
        }
#pragma unroll
        for (unsigned k = 0; k < WIDE_SUMS; k++)
            if (k < total) v.x += part[k].x, v.y += part[k].y;
        const float bias = p.bias ? p.bias[row] : 0.0f;
#pragma unroll
        for (unsigned j = 0; j < 2 && col + j < p.n; j++) {
            float *y = p.y + (col + j) * p.y_stride + row;
            const float sum = p.bias ? (j ? v.y : v.x) + bias : (j ? v.y : v.x);
            *y = p.add ? sum + *y : sum;
        }
    }
}

// A stage is filled again one chunk after it was used: codes by the lanes that read them, the input by the first thread when
// every warp is done with it.
template <class F, int NT, int FOURS>
__global__ __launch_bounds__(128 * FOURS, 3 - FOURS) static void wide_kernel(const wide_args a)
{
    using R = wide_ring<F, NT, FOURS>;
    constexpr int STAGES = R::STAGES;
    extern __shared__ uint8_t unaligned[];
    __shared__ uint64_t barriers[2 * STAGES];
    uint8_t *ring = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
    const few_args &p = a.p;
    const unsigned warp = threadIdx.x / 32, full = shared_address(barriers), empty = full + 8 * STAGES;
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    float *sums = (float *)(ring + STAGES * R::STAGE);
    const unsigned rank = blockIdx.x % p.cluster, first = rank * a.chains, group_step = gridDim.x / p.cluster;
    const unsigned groups = (p.rows + R::ROWS - 1) / R::ROWS;
    const bool apart = p.cluster > 1, asks = threadIdx.x == 0;
    wide_walk ask, at;
    ask.enter(blockIdx.x / p.cluster, first);
    at = ask;
    const auto ask_codes = [&](unsigned stage) { wide_ask_codes<F, R>(ring + stage * R::STAGE, p, ask, l); };
    if (asks) wide_barriers_init(full, empty, STAGES, R::WARPS);
    unsigned chunks[STAGES - 1];
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
        chunks[i] = ask.group < groups ? ask.chunk : p.chunks;
        if (chunks[i] < p.chunks) {
            ask_codes(i);
            ask.next(a, first, group_step);
        }
        copy_commit();
    }
    fm_pdl_wait();
    fm_pdl_trigger();
    if (asks) {
        wgmma_publish(); // the barriers
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++)
            if (chunks[i] < p.chunks) wide_ask_input(shared_address(ring + i * R::STAGE), full + 8 * i, p, chunks[i]);
    }
    __syncthreads();
    unsigned stage = 0, turn = 0; // turn: how often the ring went round
    while (at.group < groups) {
        const unsigned group = at.group, chain = at.chain;
        float y[NT][4] = {};
        while (at.group == group && at.chain == chain) {
            const unsigned before = stage == 0 ? STAGES - 1 : stage - 1;
            copy_wait<STAGES - 2>();
            if (ask.group < groups) {
                ask_codes(before);
                // The stage's first use needs nobody's leave: it is the one that the begin left out.
                if (asks && (stage > 0 || turn > 0)) wide_await(empty + 8 * before, stage > 0 ? turn : turn - 1);
                if (asks) wide_ask_input(shared_address(ring + before * R::STAGE), full + 8 * before, p, ask.chunk);
                ask.next(a, first, group_step);
            }
            copy_commit();
            __syncwarp();
            wide_await(full + 8 * stage, turn);
            const uint8_t *here = ring + stage * R::STAGE;
            F::template wide<NT>(y, here + R::INPUT + warp * R::CODES, shared_address(here), here + R::COLS * FM_CHUNK, l);
            __syncwarp();
            if (l.lane == 0) wide_arrive(empty + 8 * stage);
            at.next(a, first, group_step);
            if (++stage == STAGES) stage = 0, turn++;
        }
        const bool last = apart && chain + 1 == first + a.chains; // its sums lie in the ring, after the only group
        if (last) __syncthreads();
        float *to = last ? (float *)ring : sums + (apart ? chain - first : 0) * (R::SUMS / sizeof(float));
        wide_leave<NT, R::PITCH>(to + 16 * warp * R::PITCH, y, apart || chain == first, l);
        if (at.group == group) continue;
        few_meet(p.cluster);
        wide_finish<R>(a, sums, apart ? (float *)ring : sums, group * R::ROWS, rank);
        if (apart || at.group < groups) few_meet(p.cluster); // nobody overwrites what others still read, or leaves
    }
}

template <class F, int NT, int FOURS> static void wide_launch_with(fm_stream *s, const wide_args *a)
{
    using R = wide_ring<F, NT, FOURS>;
    const unsigned groups = (a->p.rows + R::ROWS - 1) / R::ROWS, sm = (unsigned)s->n_sm;
    const unsigned sums = a->p.cluster > 1 ? a->chains - 1 : 1;
    const size_t shared = 1024 + (size_t)(R::STAGES * R::STAGE) + sums * R::SUMS;
    static bool ready; // one device per process
    if (!ready)
        FM_CUDA(s,
                cudaFuncSetAttribute(wide_kernel<F, NT, FOURS>, cudaFuncAttributeMaxDynamicSharedMemorySize, R::SHARED + 1024));
    ready = true;
    const unsigned blocks = a->p.cluster > 1 ? groups * a->p.cluster : min(groups, sm * (3 - FOURS));
    const fm_launch l = {s, blocks, 32 * R::WARPS, shared, a->p.cluster};
    fm_cuda_launch(&l, "linear", wide_kernel<F, NT, FOURS>, *a);
}

// How the blocks share the chains: as many as there is room for on the card, if a block then has one or two; else every block
// walks all of them.  Only speed depends on it.
template <class F, int NT> static void wide_launch(fm_stream *s, const few_args &p)
{
    using R = wide_ring<F, NT, 1>;
    wide_args a = {p, 0, 0};
    const few_cut cut = few_cut_of(p.rows, p.chunks, F::GROUP);
    const unsigned groups = (p.rows + R::ROWS - 1) / R::ROWS, room = 2 * (unsigned)s->n_sm;
    unsigned cluster = 1;
    a.step = cut.split * cut.cluster;
    while (cluster < 8 && cluster < a.step && 2 * cluster * groups <= room) cluster *= 2;
    if (a.step / cluster > WIDE_CHAINS) cluster = 1;
    a.p.cluster = cluster;
    a.chains = a.step / cluster;
    if (cluster == 1 && 2 * groups > room)
        wide_launch_with<F, NT, 2>(s, &a);
    else
        wide_launch_with<F, NT, 1>(s, &a);
}

#endif
