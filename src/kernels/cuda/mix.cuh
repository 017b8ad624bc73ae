// mix.cuh - the middle of a layer for one token of each of one or two sequences, in one launch: convolution and SiLU, x_proj, the
// norms of dt, B and C, dt_proj, scan and gate, with the bits of the kernels that do these one by one.
//
// What limits it is not memory, of which a layer's middle reads little, but the way from one step to the next: a launch of its own
// for each is 2 to 4 us.  Here weights, windows, decays and states are on their way before the kernel waits for in_proj, and the
// blocks meet once, between x_proj and its norms.
//
// A block has 64 channels.  A cluster has the channels of one `way` of x_proj (few.cuh), what a warp there sums by itself: four
// chunks of 64 columns of weights of floats, two of 256 of quantised ones.  Each of its blocks convolves them all, so that nobody
// waits for another, and multiplies the way with some of the rows.  The sums of all ways lie in memory for everybody; each block
// adds up its part of the rows, and those of a cluster exchange what came out.
//
// A sum goes into memory beside the number of the launch, in eight bytes that are written at once: whoever wants it asks until he
// finds that number, and nobody has to be told that others are done.
//
// Blocks that meet must all be on the card.  A launch alone is (fm_cuda_resident), and the card deals out the blocks of one launch
// before those of the next.  Two such kernels of two processes that run at the same time, as MPS lets them, could wait for each other:
// then both end with an error.
#ifndef FM_KERNELS_CUDA_MIX_CUH
#define FM_KERNELS_CUDA_MIX_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/scan.cuh"

enum { MIX_CHANNELS = 64, MIX_WARPS = 8, MIX_THREADS = 32 * MIX_WARPS };
enum { MIX_TAPS = 4, MIX_STATES = 16 };
enum { MIX_GROUPS = 4, MIX_GROUP = MIX_STATES / MIX_GROUPS }; // states are summed by groups, as in scan_one.cuh
enum { MIX_TOKENS = 2 };                                      // of a step
enum { MIX_ROWS = 512 };                                      // of x_proj, at most
static const long long MIX_PATIENCE = 20000000000;            // clocks to wait for other blocks, some ten seconds

struct mix_args {
    few_args x, dt; // x_proj and dt_proj; their x, y and cut are not looked at
    const float *in, *taps, *bias;
    const float *z, *dt_bias, *A, *skip;
    fm_states window, h;
    size_t in_stride, z_stride, d_inner;
    uint64_t *parts;                 // (ways, n, rows of x_proj): a float, and above it the launch that left it
    unsigned *launch;                // [0]: the number of the last launch, [1]: blocks that have left this one
    uint8_t *out;                    // the pack of out_proj
    unsigned out_stride, out_tokens; // bytes of a row of bf16, or of a record, and tokens that that has room for
    fm_xform out_form;
    unsigned rank, ways, dt_ways;
    float eps;
    double rank_reciprocal;
    bool norms, hold;
};

// How a format shares x_proj.
template <class F> struct mix_way {
    static constexpr unsigned WIDTH = F::RECORDS ? FM_CHUNK : 64; // columns of a chunk
    static constexpr unsigned CHUNKS = F::RECORDS ? 2 : 4, CHANNELS = WIDTH * CHUNKS, CLUSTER = CHANNELS / MIX_CHANNELS;
};

// Places in a block's shared memory, of which a multiprocessor has to have room for two blocks' (fm_cuda_resident).  What begins at 0
// takes the place of x_proj's weights once they are multiplied; the inputs of both products take the same place.
template <class FX, class FD, int N> struct mix_room {
    typedef mix_way<FX> W;
    static constexpr unsigned ROW = W::CHANNELS * 2 + 16; // bytes of a row of bf16: not all in the same bank
    static constexpr unsigned SUMS = 16 * 8 * 4;          // of a tile and way of dt_proj
    unsigned dt, pack, u, q, y, barriers, all;

    __host__ __device__ static unsigned tiles(const mix_args &a) { return (a.x.rows + 15) / 16; }
    __host__ __device__ static unsigned pairs(const mix_args &a) // of sums, which a block adds up
    {
        return (a.x.rows / 2 + W::CLUSTER - 1) / W::CLUSTER;
    }
    __host__ __device__ static unsigned items(const mix_args &a) { return MIX_CHANNELS / 16 * a.dt_ways; }
    __host__ __device__ static unsigned chunks_of_way(const mix_args &a) { return (a.dt.chunks + a.dt_ways - 1) / a.dt_ways; }
    __host__ __device__ static unsigned dt_row(const mix_args &a) { return a.dt.chunks * 128 + 16; }
    __host__ __device__ static unsigned larger(unsigned a, unsigned b) { return a > b ? a : b; }
    __host__ __device__ static unsigned whole(unsigned bytes) { return (bytes + 15) / 16 * 16; }

    __host__ __device__ explicit mix_room(const mix_args &a)
    {
        const unsigned weights = (tiles(a) + W::CLUSTER - 1) / W::CLUSTER * W::CHUNKS * 2 * FX::SLOT;
        dt = whole(larger(weights, larger(a.ways * N * pairs(a) * 8, items(a) * SUMS)));
        pack = dt + items(a) * chunks_of_way(a) * 2 * FD::SLOT;
        u = pack + whole(larger(FX::RECORDS ? W::CHUNKS * a.x.x_stride : N * ROW,
                                FD::RECORDS ? a.dt.chunks * a.dt.x_stride : N * dt_row(a)));
        q = u + N * W::CHANNELS * 4;
        y = q + whole(N * a.x.rows * 4);
        barriers = y + (FX::RECORDS ? FM_CHUNK * 4 : 0);
        all = barriers + 16;
    }
};

template <class FX, class FD, int N> struct mix_block {
    typedef mix_room<FX, FD, N> room;
    typedef mix_way<FX> W;
    enum { EACH = W::CHANNELS / MIX_THREADS }; // channels that a thread convolves

    const mix_args &a;
    uint8_t *shared;
    const room at;
    const unsigned rank, way, warp;
    const few_lane l;

    __device__ mix_block(const mix_args &args, uint8_t *memory)
        : a(args), shared(memory), at(args), rank(blockIdx.x % W::CLUSTER), way(blockIdx.x / W::CLUSTER),
          warp(threadIdx.x / 32), l{(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4}
    {
    }

    __device__ float *floats(unsigned place) const { return (float *)(shared + place); }
    // Channel i of the way; the block's own are from rank * MIX_CHANNELS on.
    __device__ size_t channel(unsigned i) const { return (size_t)(way + a.ways * (i / W::WIDTH)) * W::WIDTH + i % W::WIDTH; }
    __device__ unsigned tile() const { return warp * W::CLUSTER + rank; } // of x_proj's rows

    // ---- What blocks of a cluster leave in one another's shared memory: floats, counted by a barrier there ----

    enum barrier { SUMS, OUTPUTS };

    __device__ unsigned barrier_at(barrier b) const { return shared_address(shared + at.barriers) + 8 * b; }
    __device__ void init_barrier(barrier b, unsigned floats) const
    {
        ring_init_barrier(barrier_at(b), 1);
        ring_expect(barrier_at(b), 4 * floats);
    }
    __device__ void init_barriers() const
    {
        if (threadIdx.x > 0) return;
        init_barrier(SUMS, N * a.x.rows);
        init_barrier(OUTPUTS, FM_CHUNK);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __device__ void send(float *to, unsigned block, float v, barrier b) const
    {
        unsigned there, counted;
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(to)), "r"(block));
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counted) : "r"(barrier_at(b)), "r"(block));
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(there),
                     "r"(__float_as_uint(v)), "r"(counted)
                     : "memory");
    }
    __device__ void await(barrier b) const { ring_await(barrier_at(b), 0); }
    // Blocks may send when all of the cluster have come here and done what is before it.
    __device__ static void arrive() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
    __device__ static void await_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

    // ---- Weights ----

    template <class F> __device__ static void ask(uint8_t *to, const few_args &p, size_t first_row, unsigned chunk, few_lane l)
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
            for (unsigned k = 0; k < W::CHUNKS; k++)
                ask<FX>(shared + (warp * W::CHUNKS + k) * 2 * FX::SLOT, a.x, 16 * tile(), way + a.ways * k, l);
        copy_commit();
        const unsigned per = room::chunks_of_way(a);
        const size_t first = channel(rank * MIX_CHANNELS);
        for (unsigned item = warp; item < room::items(a); item += MIX_WARPS)
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.dt_ways)
                ask<FD>(shared + at.dt + (item * per + k) * 2 * FD::SLOT, a.dt, first + item % 4 * 16, chunk, l);
        copy_commit();
    }

    // ---- Convolution: thread i has channels i, i + MIX_THREADS, ... of the way ----

    struct window {
        float v[EACH][N][MIX_TAPS - 1], w[EACH][MIX_TAPS], bias[EACH];
    };

    __device__ void read_window(window &o) const
    {
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const size_t c = channel(threadIdx.x + e * MIX_THREADS);
#pragma unroll
            for (int k = 0; k < MIX_TAPS; k++) o.w[e][k] = a.taps[k * a.d_inner + c];
            o.bias[e] = a.bias ? a.bias[c] : 0.0f;
#pragma unroll
            for (int t = 0; t < N; t++)
#pragma unroll
                for (int k = 0; k < MIX_TAPS - 1; k++) o.v[e][t][k] = (fm_cuda_state(a.window, t) + c)[k * a.d_inner];
        }
    }

    // The window moves on.
    __device__ void convolve(window &o) const
    {
        float x[EACH][N];
#pragma unroll
        for (int e = 0; e < EACH; e++)
#pragma unroll
            for (int t = 0; t < N; t++) x[e][t] = a.in[t * a.in_stride + channel(threadIdx.x + e * MIX_THREADS)];
#pragma unroll
        for (int e = 0; e < EACH; e++)
#pragma unroll
            for (int t = 0; t < N; t++) {
                float *v = o.v[e][t];
                const float *w = o.w[e], in = x[e][t];
                const float u = fm_convolved(w, o.bias[e], v, in);
                const unsigned i = threadIdx.x + e * MIX_THREADS;
                floats(at.u)[t * W::CHANNELS + i] = u;
                if (!FX::RECORDS) *(__nv_bfloat16 *)(shared + at.pack + t * room::ROW + 2 * i) = __float2bfloat16_rn(u);
                v[0] = v[1], v[1] = v[2], v[2] = in;
            }
    }

    // Of the block's own channels, once the whole cluster has read them.
    __device__ void write_window(const window &o) const
    {
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const unsigned i = threadIdx.x + e * MIX_THREADS;
            if (a.hold || i / MIX_CHANNELS != rank) continue;
#pragma unroll
            for (int t = 0; t < N; t++)
#pragma unroll
                for (int k = 0; k < MIX_TAPS - 1; k++) (fm_cuda_state(a.window, t) + channel(i))[k * a.d_inner] = o.v[e][t][k];
        }
    }

    // ---- x_proj: this way's part of a tile ----

    // 256 numbers of a row, from chunk * 256 on, as a record's token.
    template <class F>
    __device__ static void put_record(uint8_t *record, const few_args &p, unsigned token, const float *row, size_t cols,
                                      unsigned chunk)
    {
        float v[8];
        pack_load(v, row, cols, chunk, true);
        pack_record<F::SIDE == FM_X256_SIDE>(record + chunk * p.x_stride, p.x_tokens, token, v);
    }

    __device__ void pack_u() const
    {
        if constexpr (FX::RECORDS) {
            static_assert(N * W::CHUNKS <= MIX_WARPS, "a record to a warp");
            const unsigned t = warp / W::CHUNKS, chunk = warp % W::CHUNKS;
            if (t < N) put_record<FX>(shared + at.pack, a.x, t, floats(at.u) + t * W::CHANNELS, W::CHANNELS, chunk);
            __syncthreads();
        }
    }

    __device__ void multiply_x(unsigned number) const
    {
        if (tile() >= room::tiles(a)) return;
        few_args p = a.x;
        p.n = N;
        if constexpr (!FX::RECORDS) p.x_stride = room::ROW;
        const uint8_t *w = shared + warp * W::CHUNKS * 2 * FX::SLOT;
        float y[1][4] = {};
#pragma unroll
        for (unsigned k = 0; k < W::CHUNKS; k++)
            few_multiply<FX, 2, N == 1>(y, w + k * 2 * FX::SLOT, shared + at.pack, k, p, l);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned t = 2 * l.t + i % 2, row = 16 * tile() + i / 2 * 8 + l.g;
            if (t >= N || row >= a.x.rows) continue;
            const uint64_t part = (uint64_t)number << 32 | __float_as_uint(y[0][i]);
            uint64_t *to = a.parts + ((size_t)way * N + t) * a.x.rows + row;
            asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(part) : "memory");
        }
    }

    // ---- Its rows: sums of all ways in their order ----

    struct pair {
        uint64_t v[2];
        __device__ void ask(const uint64_t *from)
        {
            asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v[0]), "=l"(v[1]) : "l"(from) : "memory");
        }
        __device__ bool is_of(unsigned number) const { return v[0] >> 32 == number && v[1] >> 32 == number; }
        __device__ float2 floats() const { return {__uint_as_float((unsigned)v[0]), __uint_as_float((unsigned)v[1])}; }
    };
    enum { LANES = 64, AHEAD = 8 }; // threads that a way's pairs are dealt out to; ways that a thread asks for at once

    // Every part of this block's rows, of all ways, as floats in shared memory.
    __device__ void gather(unsigned number) const
    {
        const unsigned pairs = room::pairs(a), i = threadIdx.x % LANES, row = 2 * (rank * pairs + i);
        static_assert(MIX_ROWS / 2 / W::CLUSTER <= LANES, "a pair to a thread");
        if (i >= pairs || row >= a.x.rows) return;
        const size_t step = (size_t)N * a.x.rows;
#pragma unroll
        for (int t = 0; t < N; t++)
            for (unsigned w = threadIdx.x / LANES; w < a.ways; w += AHEAD * MIX_THREADS / LANES) {
                const uint64_t *from = a.parts + w * step + t * a.x.rows + row;
                pair part[AHEAD] = {};
                const long long begun = clock64();
                for (bool all = false; !all;) {
#pragma unroll
                    for (int k = 0; k < AHEAD; k++)
                        if (w + 4 * k < a.ways && !part[k].is_of(number)) part[k].ask(from + 4 * k * step);
                    all = true;
#pragma unroll
                    for (int k = 0; k < AHEAD; k++) all = all && (w + 4 * k >= a.ways || part[k].is_of(number));
                    if (clock64() - begun > MIX_PATIENCE) __trap();
                }
#pragma unroll
                for (int k = 0; k < AHEAD; k++)
                    if (w + 4 * k < a.ways) ((float2 *)shared)[((w + 4 * k) * N + t) * pairs + i] = part[k].floats();
            }
    }

    // Adds them up, for all blocks of the cluster.
    __device__ void add_ways() const
    {
        const unsigned width = 2 * room::pairs(a), row = rank * width + threadIdx.x % (2 * LANES),
                       t = threadIdx.x / (2 * LANES);
        static_assert(2 * LANES * N <= MIX_THREADS, "a sum to a thread");
        if (t >= N || threadIdx.x % (2 * LANES) >= width || row >= a.x.rows) return;
        const float *from = (const float *)shared + t * width + threadIdx.x % (2 * LANES);
        float v = 0.0f;
#pragma unroll 8
        for (unsigned w = 0; w < a.ways; w++) v = __fadd_rn(v, from[w * N * width]);
#pragma unroll
        for (unsigned k = 0; k < W::CLUSTER; k++) send(floats(at.q) + t * a.x.rows + row, k, v, SUMS);
    }

    // ---- Norms: a run of a token to a warp, in norm.cu's order ----

    __device__ void norm() const
    {
        static_assert(3 * N <= MIX_WARPS, "a run to a warp");
        const unsigned t = warp / 3, run = warp % 3;
        if (t >= N) return;
        float *row = floats(at.q) + t * a.x.rows;
        const bool first = run == 0;
        if (a.norms)
            norm_run(row + (first ? 0 : a.rank + (run - 1) * MIX_STATES), first ? a.rank : (unsigned)MIX_STATES,
                     first ? a.rank_reciprocal : 1.0 / MIX_STATES);
        __syncwarp();
        if (run == 0) pack_dt(t, row);
    }

    __device__ void norm_run(float *row, unsigned d, double reciprocal) const
    {
        enum { KEPT = MIX_ROWS / 128 };
        float4 v[KEPT];
        double sum = 0.0;
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            const unsigned i = 4 * (l.lane + 32 * j);
            v[j] = i < d ? *(const float4 *)(row + i) : float4{0.0f, 0.0f, 0.0f, 0.0f};
            sum += squares(v[j]);
        }
        const float scale = norm_scale(fm_warp_sum(sum), reciprocal, a.eps);
#pragma unroll
        for (int j = 0; j < KEPT; j++) {
            const unsigned i = 4 * (l.lane + 32 * j);
            if (i < d) *(float4 *)(row + i) = {v[j].x * scale, v[j].y * scale, v[j].z * scale, v[j].w * scale};
        }
    }

    // Zeros beyond the rank.
    __device__ void pack_dt(unsigned t, const float *row) const
    {
        if constexpr (FD::RECORDS)
            for (unsigned chunk = 0; chunk < a.dt.chunks; chunk++)
                put_record<FD>(shared + at.pack, a.dt, t, row, a.rank, chunk);
        else
            for (unsigned c = 2 * l.lane; c < a.dt.chunks * 64; c += 64)
                *(__nv_bfloat162 *)(shared + at.pack + t * room::dt_row(a) + 2 * c) =
                    c < a.rank ? __floats2bfloat162_rn(row[c], row[c + 1]) : __floats2bfloat162_rn(0.0f, 0.0f);
    }

    // ---- dt_proj: the ways of four tiles are dealt out to the warps ----

    __device__ void multiply_dt() const
    {
        few_args p = a.dt;
        p.n = N;
        if constexpr (!FD::RECORDS) p.x_stride = room::dt_row(a);
        const unsigned per = room::chunks_of_way(a);
        copy_wait<0>();
        for (unsigned item = warp; item < room::items(a); item += MIX_WARPS) {
            float y[1][4] = {};
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.dt_ways)
                few_multiply<FD, 1, N == 1>(y, shared + at.dt + (item * per + k) * 2 * FD::SLOT, shared + at.pack, chunk, p, l);
            few_leave<1>((float *)(shared + item * room::SUMS), y, l);
        }
    }

    __device__ float dt_of(unsigned t, unsigned c) const
    {
        const float *from = (const float *)shared + c * 8 + t;
        float v = 0.0f;
        for (unsigned w = 0; w < a.dt_ways; w++) v = __fadd_rn(v, from[w * MIX_CHANNELS * 8]);
        return v;
    }

    // ---- Scan: lanes 4 c .. 4 c + 3 have the groups of a channel's states; the t-th of them begins and ends token t ----

    struct hand {
        float h[N][MIX_GROUP], A[MIX_GROUP], dt_bias, skip;
    };

    __device__ unsigned scanned() const
    {
        return threadIdx.x / MIX_GROUPS;
    } // channel of the block
    __device__ size_t scanned_channel() const
    {
        return channel(rank * MIX_CHANNELS + scanned());
    }
    __device__ size_t first_state() const
    {
        return (threadIdx.x % MIX_GROUPS * MIX_GROUP) * a.d_inner + scanned_channel();
    }

    __device__ void read_hand(hand &o) const
    {
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) {
            o.A[k] = a.A[k * a.d_inner + first_state()];
#pragma unroll
            for (int t = 0; t < N; t++) o.h[t][k] = (fm_cuda_state(a.h, t) + first_state())[k * a.d_inner];
        }
        o.dt_bias = a.dt_bias ? a.dt_bias[scanned_channel()] : 0.0f;
        o.skip = a.skip[scanned_channel()];
    }

    __device__ float read_z() const
    {
        const unsigned t = threadIdx.x % MIX_GROUPS;
        return t < N ? a.z[t * a.z_stride + scanned_channel()] : 0.0f;
    }

    // What this lane's states give to the output of token t, once they are moved.
    __device__ float scan_token(hand &o, int t, float2 step) const
    {
        const float *B = floats(at.q) + t * a.x.rows + a.rank + threadIdx.x % MIX_GROUPS * MIX_GROUP;
        const float4 b = *(const float4 *)B, c = *(const float4 *)(B + MIX_STATES);
        const float bs[MIX_GROUP] = {b.x, b.y, b.z, b.w}, cs[MIX_GROUP] = {c.x, c.y, c.z, c.w};
        states<MIX_GROUP, true> g;
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) g.a[k] = decay_of(o.A[k]), g.h[k] = o.h[t][k];
        g.move(step, bs, 0);
#pragma unroll
        for (int k = 0; k < MIX_GROUP; k++) o.h[t][k] = g.h[k];
        return g.sum(cs, 0);
    }

    // The lane's output of its token, if it has one.
    __device__ float scan(hand &o, float z) const
    {
        const unsigned own = threadIdx.x % MIX_GROUPS;
        float u = 0.0f, y = 0.0f;
        float2 step = {0.0f, 0.0f};
        if (own < N) {
            u = floats(at.u)[own * W::CHANNELS + rank * MIX_CHANNELS + scanned()];
            step = step_of(u, dt_of(own, scanned()), o.dt_bias);
        }
#pragma unroll
        for (int t = 0; t < N; t++) {
            const float2 of = {__shfl_sync(0xffffffffu, step.x, t, MIX_GROUPS),
                               __shfl_sync(0xffffffffu, step.y, t, MIX_GROUPS)};
            const float part = scan_token(o, t, of);
            float sum = __shfl_sync(0xffffffffu, part, 0, MIX_GROUPS);
#pragma unroll
            for (int k = 1; k < MIX_GROUPS; k++) sum = __fadd_rn(sum, __shfl_sync(0xffffffffu, part, k, MIX_GROUPS));
            if ((unsigned)t == own) y = sum;
        }
        return gated(true, __fmaf_rn(o.skip, u, y), z);
    }

    __device__ void write_states(const hand &o) const
    {
        if (a.hold) return;
#pragma unroll
        for (int t = 0; t < N; t++)
#pragma unroll
            for (int k = 0; k < MIX_GROUP; k++) (fm_cuda_state(a.h, t) + first_state())[k * a.d_inner] = o.h[t][k];
    }

    // ---- The pack of out_proj ----

    __device__ bool records() const
    {
        return a.out_form == FM_X_Q8_32 || a.out_form == FM_X_Q8_256;
    }

    // Rows of bf16 go out; of records the block that packs the token gets the channels of its 256.
    __device__ void put(float y) const
    {
        enum { BLOCKS = FM_CHUNK / MIX_CHANNELS };
        const unsigned t = threadIdx.x % MIX_GROUPS;
        if (t >= N) return;
        if (!records())
            *(__nv_bfloat16 *)(a.out + t * a.out_stride + 2 * scanned_channel()) = __float2bfloat16_rn(y);
        else if (FX::RECORDS)
            send(floats(at.y) + rank % BLOCKS * MIX_CHANNELS + scanned(), rank / BLOCKS * BLOCKS + t, y, OUTPUTS);
    }

    __device__ void put_records() const
    {
        const unsigned t = rank % MIX_GROUPS;
        const size_t chunk = channel(rank * MIX_CHANNELS) / FM_CHUNK;
        if (t >= N || warp > 0) return;
        await(OUTPUTS);
        float v[8];
        pack_load(v, floats(at.y), FM_CHUNK, 0, true);
        if (a.out_form == FM_X_Q8_256)
            pack_record<true>(a.out + chunk * a.out_stride, a.out_tokens, t, v);
        else
            pack_record<false>(a.out + chunk * a.out_stride, a.out_tokens, t, v);
    }

    // ---- Launches are numbered from 1, so that nothing in fresh memory is of one ----

    __device__ unsigned number() const
    {
        const unsigned last = *(volatile unsigned *)a.launch;
        return last + 1 ? last + 1 : 1;
    }
    // By a warp that has nothing to do meanwhile.
    __device__ void leave(unsigned number) const
    {
        if (threadIdx.x < MIX_THREADS - 1 || atomicAdd(a.launch + 1, 1) < gridDim.x - 1) return;
        a.launch[0] = number;
        a.launch[1] = 0;
    }
};

template <class FX, class FD, int N> __global__ void __launch_bounds__(MIX_THREADS, 2) mix_kernel(const mix_args a)
{
    typedef mix_block<FX, FD, N> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const block b(a, shared);
    typename block::window window;
    typename block::hand hand;
    const unsigned number = b.number();
    b.init_barriers();
    b.ask_weights();
    b.read_window(window);
    b.read_hand(hand);
    fm_pdl_wait();
    const float z = b.read_z();
    b.convolve(window);
    b.arrive(); // what is read of a window has come by now, since it was used
    __syncthreads();
    b.pack_u();
    b.multiply_x(number);
    fm_pdl_trigger(); // what the next kernel then reads ahead would be in the way of the steps before
    b.await_cluster();
    b.write_window(window);
    __syncthreads();
    b.gather(number);
    __syncthreads();
    b.add_ways();
    b.leave(number);
    b.await(block::SUMS);
    b.norm();
    __syncthreads();
    b.multiply_dt();
    __syncthreads();
    b.put(b.scan(hand, z));
    b.write_states(hand);
    if (b.records()) b.put_records();
}

// ---- Launches ----

// Queues it; false: blocks of this size would not all be on the card at once.
typedef bool mix_fn(fm_stream *s, const mix_args *a);

template <class FX, class FD, int N> static bool mix_launch(fm_stream *s, const mix_args *a)
{
    enum { SHARED = 227 * 1024, CLUSTER = mix_way<FX>::CLUSTER };
    const unsigned shared = mix_room<FX, FD, N>(*a).all;
    const fm_launch l = {s, CLUSTER * a->ways, MIX_THREADS, shared, CLUSTER};
    if (shared > SHARED) return false;
    fm_cuda_allow_shared<mix_kernel<FX, FD, N>>(s, SHARED);
    static unsigned known, resident; // of a launch of `known` bytes
    if (known != shared) resident = fm_cuda_resident(&l, mix_kernel<FX, FD, N>);
    known = shared;
    if (resident < a->ways) return false;
    fm_cuda_launch(&l, "mix", mix_kernel<FX, FD, N>, *a);
    return true;
}

template <class FX, class FD> static bool mix_of(fm_stream *s, const mix_args *a)
{
    return a->x.n > 1 ? mix_launch<FX, FD, 2>(s, a) : mix_launch<FX, FD, 1>(s, a);
}

// Of weights of x_proj and dt_proj; NULL: there is none for these types.
mix_fn *fm_cuda_mix_float(fm_dtype x, fm_dtype dt);
mix_fn *fm_cuda_mix_quant(fm_dtype x, fm_dtype dt);

#endif
