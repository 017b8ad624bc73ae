// few_narrow.cuh - products of up to 64 columns with quantised matrices of few rows, such as x_proj's: the bits of few.cuh, in the time of
// one chain.
//
// The weights are few, and what counts is how long the input takes to become sums.  A block has 32 rows and two of the chains of few.cuh,
// the blocks of a cluster have the others; a warp has 16 rows and 8 or 16 columns of one chain.  Codes are there before the wait, a chain's
// input comes all at once, and sums go to the block that adds those of a token up, chain after chain.
#ifndef FM_KERNELS_CUDA_FEW_NARROW_CUH
#define FM_KERNELS_CUDA_FEW_NARROW_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/ring.cuh"

enum { NARROW_TILES = 2, NARROW_CHAINS = 2 /* of a block */, NARROW_CLUSTER = 8, NARROW_STAGES = 8, NARROW_ROOM = 226 * 1024 };

struct narrow_args {
    few_args p;      // cluster: blocks that share the chains
    unsigned chains; // chunk i is of chain i modulo that
    unsigned deep;   // chunks of a chain, at most
    unsigned groups; // of the tokens that a record has room for, one to a warp
    bool early;      // the next kernel may come before the wait (launch.cuh)

    __device__ __host__ unsigned stages() const { return NARROW_CHAINS * deep; }
    __device__ __host__ unsigned warps() const { return NARROW_CHAINS * NARROW_TILES * groups; }
    // Tokens whose sums a block adds up: every cluster-th.
    __device__ __host__ unsigned tokens() const { return p.x_tokens / p.cluster; }
};

// Where things lie: a record to each stage, then codes of every stage and tile, then sums [chain][token][row], then barriers.
template <class F> struct narrow_room {
    static constexpr unsigned CODES = 2 * F::SLOT, ROWS = 16 * NARROW_TILES;

    __device__ __host__ static unsigned codes(const narrow_args &a, unsigned stage, unsigned tile)
    {
        return a.stages() * a.p.x_stride + (stage * NARROW_TILES + tile) * CODES;
    }
    __device__ __host__ static unsigned sums(const narrow_args &a) { return codes(a, a.stages(), 0); }
    __device__ __host__ static unsigned barriers(const narrow_args &a)
    {
        return sums(a) + a.chains * a.tokens() * ROWS * (unsigned)sizeof(float);
    }
    __host__ static unsigned bytes(const narrow_args &a) { return barriers(a) + RING_BARRIERS * NARROW_STAGES; }
};

// A chunk of a group of tokens.  Tokens that do not exist are what the record happens to have there: nobody writes their sums.
struct narrow_tokens {
    const uint8_t *bytes, *side;
    unsigned room; // tokens of the record

    // Up to 16 lie one after the other, more of them as wgmma.cuh wants them (put_quads of pack.cuh).
    template <int NT> __device__ inline void read(uint32_t q[NT][4], const few_lane &l, int i) const
    {
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
            if (room <= 16)
                *(uint4 *)q[nt] = *(const uint4 *)(bytes + (8 * nt + l.g) * FM_CHUNK + l.t * 16 + 64 * i);
            else
#pragma unroll
                for (int w = 0; w < 4; w++)
                    q[nt][w] = *(const uint32_t *)(bytes + (i / 2 * room + 8 * nt + l.g) * 128 + ((i % 2 * 4 + w) ^ l.g) * 16 +
                                                   4 * l.t);
    }
};

// What a warp does: chain, tile and tokens of its block's.
template <class F, int NT> struct narrow_warp {
    using room = narrow_room<F>;
    const narrow_args &a;
    uint8_t *shared;
    unsigned full, rank, first_row; // of the block
    unsigned group, tile, chain;
    few_lane l;

    __device__ inline unsigned chunk_of(unsigned stage) const
    {
        return rank * NARROW_CHAINS + stage / a.deep + stage % a.deep * a.chains;
    }

    // Eight rows of a tile and a chunk are one warp's to copy.
    __device__ inline void ask_codes(unsigned warp) const
    {
        for (unsigned i = warp; i < a.stages() * NARROW_TILES * 2; i += a.warps()) {
            const unsigned half = i % 2, of = i / 2 % NARROW_TILES, stage = i / 2 / NARROW_TILES,
                           row = first_row + 16 * of + 8 * half + l.g;
            if (chunk_of(stage) < a.p.chunks)
                F::ask(shared_address(shared) + room::codes(a, stage, of) + half * F::SLOT,
                       a.p.w + min(row, a.p.rows - 1) * a.p.w_stride, a.p, chunk_of(stage), l);
        }
        copy_commit();
    }
    // One thread.
    __device__ inline void ask_input() const
    {
        for (unsigned i = 0; i < a.stages(); i++) {
            if (chunk_of(i) >= a.p.chunks) continue;
            ring_expect(full + 8 * i, a.p.x_stride);
            ring_copy(shared_address(shared) + i * a.p.x_stride, full + 8 * i, a.p.x + (size_t)chunk_of(i) * a.p.x_stride,
                      a.p.x_stride);
        }
    }

    __device__ inline void multiply(float y[NT][4]) const
    {
        for (unsigned k = 0; k < a.deep; k++) {
            const unsigned stage = chain * a.deep + k;
            if (chunk_of(stage) >= a.p.chunks) break;
            ring_await(full + 8 * stage, 0);
            const uint8_t *record = shared + stage * a.p.x_stride;
            const narrow_tokens x = {record + group * (8 * NT) * 128, record + a.p.x_tokens * FM_CHUNK + group * NT * F::SIDE,
                                     a.p.x_tokens};
            F::template multiply<NT, 1>(y, shared + room::codes(a, stage, tile), x, l);
        }
    }

    // Each sum to the block that adds it up.
    __device__ inline void leave(const float y[NT][4]) const
    {
        const unsigned sums = shared_address(shared) + room::sums(a), c = rank * NARROW_CHAINS + chain;
#pragma unroll
        for (int i = 0; i < 4 * NT; i++) {
            const unsigned token = group * (8 * NT) + i / 4 * 8 + 2 * l.t + i % 2, row = tile * 16 + i % 4 / 2 * 8 + l.g;
            ring_put(sums + 4 * ((c * a.tokens() + token / a.p.cluster) * room::ROWS + row), token % a.p.cluster,
                     y[i / 4][i % 4]);
        }
    }

    // In the order of few_finish().
    __device__ inline void finish() const
    {
        const few_args &p = a.p;
        const float *sums = (const float *)(shared + room::sums(a));
        for (unsigned i = threadIdx.x; i < a.tokens() * room::ROWS; i += blockDim.x) {
            const unsigned row = first_row + i % room::ROWS, token = i / room::ROWS * p.cluster + rank;
            if (row >= p.rows || token >= p.n) continue;
            float *y = p.y + token * p.y_stride + row;
            const float old = p.add ? *y : 0.0f, bias = p.bias ? p.bias[row] : 0.0f;
            float v = 0.0f;
#pragma unroll 8
            for (unsigned c = 0; c < a.chains; c++) v += sums[c * a.tokens() * room::ROWS + i];
            if (p.bias) v += bias;
            *y = p.add ? v + old : v;
        }
    }
};

template <class F, int NT> __global__ __launch_bounds__(NT == 1 ? 128 : 512, 1) static void narrow_kernel(const narrow_args a)
{
    extern __shared__ __align__(1024) uint8_t narrow_shared[];
    const unsigned warp = threadIdx.x / 32, full = shared_address(narrow_shared) + narrow_room<F>::barriers(a);
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    const narrow_warp<F, NT> me = {a,
                                   narrow_shared,
                                   full,
                                   blockIdx.x % a.p.cluster,
                                   blockIdx.x / a.p.cluster * narrow_room<F>::ROWS,
                                   warp % a.groups,
                                   warp / a.groups % NARROW_TILES,
                                   warp / a.groups / NARROW_TILES,
                                   l};
    if (threadIdx.x == 0) ring_init(full, full + 8 * NARROW_STAGES, NARROW_STAGES, 1); // none is filled again
    ring_reach_cluster_relaxed();
    me.ask_codes(warp);
    fm_begin_early(a.early);
    if (threadIdx.x == 0) me.ask_input();
    copy_wait<0>();
    __syncthreads(); // codes that others copied, and the barriers
    float y[NT][4] = {};
    me.multiply(y);
    ring_join_cluster(); // all its blocks have begun
    me.leave(y);
    ring_meet_cluster();
    me.finish();
}

template <class F, int NT> static void narrow_launch_with(fm_stream *s, const narrow_args &a, unsigned blocks, unsigned shared)
{
    fm_cuda_allow_shared<narrow_kernel<F, NT>>(s, NARROW_ROOM);
    const fm_launch l = {s, blocks, 32 * a.warps(), shared, a.p.cluster};
    fm_cuda_launch(&l, "linear", narrow_kernel<F, NT>, a);
}

template <class F> static bool narrow_launch(fm_stream *s, const few_args &p)
{
    const few_cut cut = few_cut_of(p.rows, p.chunks, F::GROUP);
    narrow_args a = {p, cut.split * cut.cluster, 0, p.x_tokens <= 16 ? 1 : p.x_tokens / 16, p.x_tokens <= 16};
    a.deep = (p.chunks + a.chains - 1) / a.chains;
    a.p.cluster = a.chains / NARROW_CHAINS;
    const unsigned blocks = fm_blocks(p.rows, narrow_room<F>::ROWS) * a.p.cluster, shared = narrow_room<F>::bytes(a);
    if (p.x_shared || a.chains % NARROW_CHAINS || a.p.cluster > NARROW_CLUSTER || a.stages() > NARROW_STAGES ||
        blocks > (unsigned)s->n_sm || shared > NARROW_ROOM)
        return false;
    if constexpr (F::NARROW <= 8)
        if (p.x_tokens <= 8) {
            narrow_launch_with<F, 1>(s, a, blocks, shared);
            return true;
        }
    narrow_launch_with<F, 2>(s, a, blocks, shared);
    return true;
}

#endif
