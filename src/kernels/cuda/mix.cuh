// mix.cuh - the middle of a layer for one token of each of a few sequences, in one launch: convolution and SiLU, x_proj, the norms of
// dt, B and C, dt_proj, scan and gate, with the bits of the kernels that do these one by one.
//
// What limits it is not memory, of which a layer's middle reads little, but the way from one step to the next: a launch of its own
// for each is 2 to 4 us.  Here weights, windows, decays and states are on their way before the kernel waits for in_proj, and the
// blocks meet once, between x_proj and its norms; with more than two tokens once more.
//
// For weights of floats only: with quantised ones the kernels one by one are as fast (docs/gpu.md).
//
// A block has 64 channels.  A cluster of four has the channels of one `way` of x_proj (few.cuh), what a warp there sums by itself: the
// chunks w, w + ways, ... of 64 columns.  The four exchange what they convolved, multiply the way with a tile of rows to a warp, and
// leave the sums to everybody.
//
// Blocks that meet must all be on the card.  A launch alone is (fm_cuda_resident), and the card deals out the blocks of one launch
// before those of the next.  Two such kernels of two processes that run at the same time, as MPS lets them, could wait for each other:
// then both end with an error.
#ifndef FM_KERNELS_CUDA_MIX_CUH
#define FM_KERNELS_CUDA_MIX_CUH

#include "kernels/cuda/few_float.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/scan.cuh"

enum { MIX_CLUSTER = 4, MIX_CHANNELS = 64, MIX_WAY = MIX_CLUSTER * MIX_CHANNELS, MIX_WARPS = 8, MIX_THREADS = 32 * MIX_WARPS };
enum { MIX_TAPS = 4, MIX_STATES = 16 };
enum { MIX_GROUPS = 4, MIX_GROUP = MIX_STATES / MIX_GROUPS }; // states are summed by groups, as in scan_one.cuh
enum { MIX_TOKENS = 16, MIX_FASTER = 2 }; // of a step; and so many with which it is no slower than the kernels one by one
enum { MIX_ALONE = 2 };                   // tokens whose rows every block norms for itself
static const long long MIX_PATIENCE = 20000000000; // clocks to wait for other blocks, some ten seconds
enum { MIX_ROWS = 512 };                           // of x_proj, at most: a tile of 16 to each warp of a cluster

struct mix_args {
    few_args x, dt; // x_proj and dt_proj; their x, y and cut are not looked at
    const float *in, *taps, *bias;
    const float *z, *dt_bias, *A, *skip;
    fm_states window, h;
    size_t in_stride, z_stride, d_inner;
    float *parts;       // (ways, n, rows of x_proj)
    float *normed;      // (n, rows of x_proj)
    unsigned *met;      // [0]: blocks that have come to meetings, [1]: that have left the last one; zeros before and after
    __nv_bfloat16 *out; // the pack of out_proj
    size_t out_stride;
    unsigned n, rank, ways, dt_ways;
    float eps;
    bool norms, hold;
};

// Places in a block's shared memory, of which a multiprocessor has to have room for two blocks' (fm_cuda_resident).  What begins at 0
// takes the place of x_proj's weights once they are multiplied; the inputs of both products take the same place.
template <class F, int NT> struct mix_room {
    static constexpr unsigned ROW = MIX_WAY * 2 + 16; // bytes of a row of bf16: not all in the same bank
    static constexpr unsigned SUMS = 16 * 8 * NT * 4; // of a tile and way of dt_proj
    unsigned raw, sums, step, y, dt, pack, u, z, q, all;

    __host__ __device__ static unsigned tiles(const mix_args &a) { return (a.x.rows + 15) / 16; }
    __host__ __device__ static unsigned items(const mix_args &a) { return MIX_CHANNELS / 16 * a.dt_ways; }
    __host__ __device__ static unsigned chunks_of_way(const mix_args &a) { return (a.dt.chunks + a.dt_ways - 1) / a.dt_ways; }
    __host__ __device__ static unsigned dt_row(const mix_args &a) { return a.dt.chunks * 128 + 16; }
    __host__ __device__ static unsigned larger(unsigned a, unsigned b) { return a > b ? a : b; }
    __host__ __device__ static unsigned whole(unsigned bytes) { return (bytes + 15) / 16 * 16; }

    __host__ __device__ explicit mix_room(const mix_args &a)
    {
        const unsigned weights = (tiles(a) + MIX_CLUSTER - 1) / MIX_CLUSTER * MIX_CLUSTER * 2 * F::SLOT;
        raw = sums = 0;
        step = sums + items(a) * SUMS;
        y = step + a.n * MIX_CHANNELS * 8;
        dt = whole(larger(larger(weights, y + a.n * MIX_CHANNELS * 4), MIX_ALONE * a.x.rows * 4));
        pack = dt + items(a) * chunks_of_way(a) * 2 * F::SLOT;
        u = pack + whole(larger(a.n * ROW, a.n * dt_row(a)));
        z = u + a.n * MIX_CHANNELS * 4;
        q = z + a.n * MIX_CHANNELS * 4;
        all = q + whole(a.n * a.x.rows * 4);
    }
};

template <class F, int NT> struct mix_block {
    typedef mix_room<F, NT> room;
    enum { TURNS = 2 * NT, BATCH = 2 * NT }; // tokens of a thread that convolves; tokens whose states it has in hand

    const mix_args &a;
    uint8_t *shared;
    const room at;
    const unsigned rank, way, warp;
    const few_lane l;

    __device__ mix_block(const mix_args &args, uint8_t *memory)
        : a(args), shared(memory), at(args), rank(blockIdx.x % MIX_CLUSTER), way(blockIdx.x / MIX_CLUSTER),
          warp(threadIdx.x / 32), l{(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4}
    {
    }

    __device__ float *floats(unsigned place) const { return (float *)(shared + place); }
    __device__ size_t channel() const // the block's first
    {
        return (size_t)(way + a.ways * rank) * MIX_CHANNELS;
    }
    __device__ unsigned tile() const { return warp * MIX_CLUSTER + rank; } // of x_proj's rows

    // ---- Weights ----

    __device__ static void ask(uint8_t *to, const few_args &p, size_t first_row, unsigned chunk, few_lane l)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t row = min(first_row + 8 * i + l.g, (size_t)p.rows - 1);
            F::ask(shared_address(to) + i * F::SLOT, p.w + row * p.w_stride, p, chunk, l);
        }
    }

    __device__ void ask_weights() const
    {
        if (tile() < room::tiles(a))
#pragma unroll
            for (unsigned k = 0; k < MIX_CLUSTER; k++)
                ask(shared + (warp * MIX_CLUSTER + k) * 2 * F::SLOT, a.x, 16 * tile(), way + a.ways * k, l);
        copy_commit();
        const unsigned per = room::chunks_of_way(a);
        for (unsigned item = warp; item < room::items(a); item += MIX_WARPS)
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.dt_ways)
                ask(shared + at.dt + (item * per + k) * 2 * F::SLOT, a.dt, channel() + item % 4 * 16, chunk, l);
        copy_commit();
    }

    // ---- Convolution: thread i has channel i % 64 of tokens i / 64, i / 64 + 4, ... ----

    struct window {
        float v[TURNS][MIX_TAPS - 1], w[MIX_TAPS], bias, dt_bias, skip;
    };

    __device__ unsigned token(int turn) const
    {
        return threadIdx.x / MIX_CHANNELS + 4 * turn;
    }

    __device__ void read_window(window &o) const
    {
        const size_t c = channel() + threadIdx.x % MIX_CHANNELS;
#pragma unroll
        for (int k = 0; k < MIX_TAPS; k++) o.w[k] = a.taps[k * a.d_inner + c];
        o.bias = a.bias ? a.bias[c] : 0.0f;
        o.dt_bias = a.dt_bias ? a.dt_bias[c] : 0.0f;
        o.skip = a.skip[c];
#pragma unroll
        for (int i = 0; i < TURNS; i++) {
            if (token(i) >= a.n) break;
            const float *from = fm_cuda_state(a.window, token(i)) + c;
#pragma unroll
            for (int k = 0; k < MIX_TAPS - 1; k++) o.v[i][k] = from[k * a.d_inner];
        }
    }

    __device__ float *own_u(unsigned t) const
    {
        return floats(at.u) + t * MIX_CHANNELS;
    }

    // Rows of bf16 go to all four blocks of the cluster.
    __device__ void share_u(unsigned t, unsigned j, float u) const
    {
        uint8_t *half = shared + at.pack + t * room::ROW + 2 * (rank * MIX_CHANNELS + j);
        own_u(t)[j] = u;
#pragma unroll
        for (unsigned k = 0; k < MIX_CLUSTER; k++)
            *cooperative_groups::this_cluster().map_shared_rank((__nv_bfloat16 *)half, k) = __float2bfloat16_rn(u);
    }

    __device__ void convolve(const window &o) const
    {
        const unsigned j = threadIdx.x % MIX_CHANNELS;
        const size_t c = channel() + j;
        float x[TURNS], z[TURNS];
#pragma unroll
        for (int i = 0; i < TURNS; i++) {
            x[i] = token(i) < a.n ? a.in[token(i) * a.in_stride + c] : 0.0f;
            z[i] = token(i) < a.n ? a.z[token(i) * a.z_stride + c] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < TURNS; i++) {
            if (token(i) >= a.n) break;
            const float *v = o.v[i];
            const float u = fm_silu(
                __fmaf_rn(o.w[3], x[i], __fmaf_rn(o.w[2], v[2], __fmaf_rn(o.w[1], v[1], __fmaf_rn(o.w[0], v[0], o.bias)))));
            floats(at.z)[token(i) * MIX_CHANNELS + j] = z[i];
            share_u(token(i), j, u);
            if (a.hold) continue;
            float *state = fm_cuda_state(a.window, token(i)) + c;
            state[0] = v[1], state[a.d_inner] = v[2], state[2 * a.d_inner] = x[i];
        }
    }

    // Zeros beyond the rank.
    __device__ void pack_dt() const
    {
        for (unsigned t = warp; t < a.n; t += MIX_WARPS)
            for (unsigned c = 2 * l.lane; c < a.dt.chunks * 64; c += 64) {
                const bool real = c < a.rank;
                const float *from = floats(at.q) + t * a.x.rows + c;
                *(__nv_bfloat162 *)(shared + at.pack + t * room::dt_row(a) + 2 * c) =
                    __floats2bfloat162_rn(real ? from[0] : 0.0f, real ? from[1] : 0.0f);
            }
    }

    // ---- x_proj: this way's part of a tile ----

    __device__ void multiply_x() const
    {
        if (tile() >= room::tiles(a)) return;
        few_args p = a.x;
        p.x_stride = room::ROW;
        const uint8_t *w = shared + warp * MIX_CLUSTER * 2 * F::SLOT;
        float y[NT][4] = {};
#pragma unroll
        for (unsigned k = 0; k < MIX_CLUSTER; k++)
            F::template multiply<NT, 2>(y, w + k * 2 * F::SLOT, shared + at.pack, k, p, l);
#pragma unroll
        for (int i = 0; i < 4 * NT; i++) {
            const unsigned t = i / 4 * 8 + 2 * l.t + i % 2, row = 16 * tile() + i % 4 / 2 * 8 + l.g;
            if (t < a.n && row < a.x.rows) a.parts[((size_t)way * a.n + t) * a.x.rows + row] = y[i / 4][i % 4];
        }
    }

    // ---- Its rows: sums of all ways in their order, normed ----

    __device__ float2 sum_of_ways(unsigned t, unsigned c) const
    {
        enum { AHEAD = 16 };
        const float *from = a.parts + (size_t)t * a.x.rows + c;
        const size_t step = (size_t)a.n * a.x.rows;
        float2 v = {0.0f, 0.0f};
        for (unsigned w = 0; w < a.ways; w += AHEAD) {
            float2 part[AHEAD];
#pragma unroll
            for (unsigned i = 0; i < AHEAD; i++)
                if (w + i < a.ways) part[i] = __ldcg((const float2 *)(from + (w + i) * step));
#pragma unroll
            for (unsigned i = 0; i < AHEAD; i++)
                if (w + i < a.ways) v = {__fadd_rn(v.x, part[i].x), __fadd_rn(v.y, part[i].y)};
        }
        return v;
    }

    // Token `first` and those after it, n in all, to rows of `to`.
    __device__ void norm_tokens(float *to, unsigned first, unsigned n) const
    {
        const unsigned rows = a.x.rows, pairs = rows / 2;
        float *raw = floats(at.raw);
        for (unsigned i = threadIdx.x; i < n * pairs; i += MIX_THREADS)
            *(float2 *)(raw + i / pairs * rows + i % pairs * 2) = sum_of_ways(first + i / pairs, i % pairs * 2);
        __syncthreads();
        for (unsigned i = warp; i < 3 * n; i += MIX_WARPS) {
            const unsigned run = i % 3, begin = run == 0 ? 0 : a.rank + (run - 1) * MIX_STATES;
            norm_run(to + i / 3 * rows + begin, raw + i / 3 * rows + begin, run == 0 ? a.rank : MIX_STATES);
        }
    }

    // As norm.cu does a short row.
    __device__ void norm_run(float *to, const float *from, unsigned d) const
    {
        enum { KEPT = MIX_ROWS / 128 };
        float4 v[KEPT];
        double sum = 0.0;
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            const ptrdiff_t i = 4 * (l.lane + 32 * j);
            v[j] = fm_load4<false>(from + i, (ptrdiff_t)d - i);
            sum += squares(v[j]);
        }
        const float scale = a.norms ? norm_scale(fm_warp_sum(sum), (double)d, a.eps) : 1.0f;
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            const ptrdiff_t i = 4 * (l.lane + 32 * j);
            fm_store4<false>(to + i, (ptrdiff_t)d - i, {v[j].x * scale, v[j].y * scale, v[j].z * scale, v[j].w * scale});
        }
    }

    // Blocks that have all come here have all written what comes before it.
    __device__ void meet(unsigned target, bool last) const
    {
        __syncthreads();
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(a.met) : "memory");
            const long long begun = clock64();
            unsigned come;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(come) : "l"(a.met) : "memory");
                if (clock64() - begun > MIX_PATIENCE) __trap();
            } while (come < target);
            if (last && atomicAdd(a.met + 1, 1) == gridDim.x - 1) a.met[0] = a.met[1] = 0;
        }
        __syncthreads();
    }

    __device__ void norm_all() const
    {
        const bool alone = a.n <= MIX_ALONE;
        meet(gridDim.x, alone);
        if (alone) {
            norm_tokens(floats(at.q), 0, a.n);
        } else {
            for (unsigned t = blockIdx.x; t < a.n; t += gridDim.x) {
                norm_tokens(a.normed + t * a.x.rows, t, 1);
                __syncthreads();
            }
            meet(2 * gridDim.x, true);
            for (unsigned i = 2 * threadIdx.x; i < a.n * a.x.rows; i += 2 * MIX_THREADS)
                *(float2 *)(floats(at.q) + i) = __ldcg((const float2 *)(a.normed + i));
        }
        __syncthreads();
    }

    // ---- dt_proj: the ways of four tiles are dealt out to the warps ----

    __device__ void multiply_dt() const
    {
        few_args p = a.dt;
        p.x_stride = room::dt_row(a);
        const unsigned per = room::chunks_of_way(a);
        copy_wait<0>();
        for (unsigned item = warp; item < room::items(a); item += MIX_WARPS) {
            float y[NT][4] = {};
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.dt_ways)
                F::template multiply<NT, 1>(y, shared + at.dt + (item * per + k) * 2 * F::SLOT, shared + at.pack, chunk, p, l);
            few_leave<NT>(floats(at.sums + item * room::SUMS), y, l);
        }
        __syncthreads();
    }

    __device__ float dt_of(unsigned t, unsigned c) const
    {
        const float *from = floats(at.sums) + c * 8 * NT + t;
        float v = 0.0f;
        for (unsigned w = 0; w < a.dt_ways; w++) v = __fadd_rn(v, from[w * MIX_CHANNELS * 8 * NT]);
        return v;
    }

    // Dealt out as the convolution.
    __device__ void make_steps(float bias) const
    {
        const unsigned j = threadIdx.x % MIX_CHANNELS;
        for (unsigned t = token(0); t < a.n; t += 4)
            ((float2 *)(shared + at.step))[t * MIX_CHANNELS + j] = step_of(own_u(t)[j], dt_of(t, j), bias);
        __syncthreads();
    }

    // ---- Scan: lanes 4 c .. 4 c + 3 have the groups of a channel's states ----

    typedef states<MIX_GROUP, true> group;

    struct hand {
        float h[BATCH][MIX_GROUP];
    };

    __device__ unsigned scanned() const
    {
        return threadIdx.x / MIX_GROUPS;
    } // channel of the block
    __device__ size_t first_state() const
    {
        return (threadIdx.x % MIX_GROUPS * MIX_GROUP) * a.d_inner + channel() + scanned();
    }

    __device__ void read_states(hand &o, unsigned t) const
    {
#pragma unroll
        for (unsigned i = 0; i < BATCH; i++) {
            if (t + i >= a.n) break;
            const float *from = fm_cuda_state(a.h, t + i) + first_state();
#pragma unroll
            for (int k = 0; k < MIX_GROUP; k++) o.h[i][k] = from[k * a.d_inner];
        }
    }

    __device__ void write_states(const hand &o, unsigned t) const
    {
#pragma unroll
        for (unsigned i = 0; i < BATCH; i++) {
            if (t + i >= a.n || a.hold) break;
            float *to = fm_cuda_state(a.h, t + i) + first_state();
#pragma unroll
            for (int k = 0; k < MIX_GROUP; k++) to[k * a.d_inner] = o.h[i][k];
        }
    }

    __device__ void read_decays(float A[MIX_GROUP]) const
    {
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) A[k] = a.A[k * a.d_inner + first_state()];
    }

    // What this lane's states give to the output of token t, once they are moved.
    __device__ float scan_token(float h[MIX_GROUP], const float A[MIX_GROUP], unsigned t) const
    {
        const float *B = floats(at.q) + t * a.x.rows + a.rank + threadIdx.x % MIX_GROUPS * MIX_GROUP;
        const float4 b = *(const float4 *)B, c = *(const float4 *)(B + MIX_STATES);
        const float bs[MIX_GROUP] = {b.x, b.y, b.z, b.w}, cs[MIX_GROUP] = {c.x, c.y, c.z, c.w};
        group g;
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) g.a[k] = decay_of(A[k]), g.h[k] = h[k];
        g.move(((const float2 *)(shared + at.step))[t * MIX_CHANNELS + scanned()], bs, 0);
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) h[k] = g.h[k];
        return g.sum(cs, 0);
    }

    // Tokens of a batch side by side: none waits for another.
    __device__ void scan(hand &next, const float A[MIX_GROUP]) const
    {
        for (unsigned t0 = 0; t0 < a.n; t0 += BATCH) {
            hand now = next;
            float y[BATCH];
            read_states(next, t0 + BATCH);
#pragma unroll
            for (unsigned i = 0; i < BATCH; i++) {
                const float part = scan_token(now.h[i], A, min(t0 + i, a.n - 1));
                y[i] = part;
#pragma unroll
                for (int k = 1; k < MIX_GROUPS; k++) y[i] = __fadd_rn(y[i], __shfl_down_sync(0xffffffffu, part, k, MIX_GROUPS));
            }
#pragma unroll
            for (unsigned i = 0; i < BATCH; i++)
                if (threadIdx.x % MIX_GROUPS == 0 && t0 + i < a.n) floats(at.y)[(t0 + i) * MIX_CHANNELS + scanned()] = y[i];
            write_states(now, t0);
        }
        __syncthreads();
    }

    __device__ void put(float skip) const
    {
        const unsigned j = threadIdx.x % MIX_CHANNELS;
        for (unsigned t = token(0); t < a.n; t += 4) {
            const unsigned at_j = t * MIX_CHANNELS + j;
            const float y = gated(true, __fmaf_rn(skip, own_u(t)[j], floats(at.y)[at_j]), floats(at.z)[at_j]);
            a.out[t * a.out_stride + channel() + j] = __float2bfloat16_rn(y);
        }
    }
};

template <class F, int NT> __global__ void __launch_bounds__(MIX_THREADS, 2) mix_kernel(const mix_args a)
{
    typedef mix_block<F, NT> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const block b(a, shared);
    const auto cluster = cooperative_groups::this_cluster();
    auto begun = cluster.barrier_arrive(); // nobody writes into the memory of a block that has not begun
    typename block::window window;
    typename block::hand h = {};
    float A[MIX_GROUP];
    b.ask_weights();
    b.read_window(window);
    b.read_decays(A);
    b.read_states(h, 0);
    cluster.barrier_wait(std::move(begun));
    fm_begin();
    b.convolve(window);
    cluster.sync();
    b.multiply_x();
    b.norm_all();
    b.pack_dt();
    __syncthreads();
    b.multiply_dt();
    b.make_steps(window.dt_bias);
    b.scan(h, A);
    b.put(window.skip);
}

// ---- Launches ----

// Queues it; false: blocks of this size would not all be on the card at once.
typedef bool mix_fn(fm_stream *s, const mix_args *a);

template <class F, int NT> static bool mix_launch(fm_stream *s, const mix_args *a)
{
    enum { SHARED = 227 * 1024 };
    const unsigned shared = mix_room<F, NT>(*a).all;
    const fm_launch l = {s, MIX_CLUSTER * a->ways, MIX_THREADS, shared, MIX_CLUSTER};
    static bool ready; // one device per process
    if (shared > SHARED) return false;
    if (!ready) FM_CUDA(s, cudaFuncSetAttribute(mix_kernel<F, NT>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED));
    ready = true;
    static unsigned known, resident; // of a launch of `known` bytes
    if (known != shared) resident = fm_cuda_resident(&l, mix_kernel<F, NT>);
    known = shared;
    if (resident < a->ways) return false;
    fm_cuda_launch(&l, "mix", mix_kernel<F, NT>, *a);
    return true;
}

template <class F> static bool mix_of(fm_stream *s, const mix_args *a)
{
    return a->n > 8 ? mix_launch<F, 2>(s, a) : mix_launch<F, 1>(s, a);
}

#endif
