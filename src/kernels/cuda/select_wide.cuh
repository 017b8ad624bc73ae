// select_wide.cuh - what select.cuh does for up to 16 sequences, for one token of each of 17 to 64, with quantised weights.
//
// A block has the 256 channels of a record and walks over up to 16 tokens.  One warp has the copy engine bring their states to a ring in
// shared memory, as many as there is room for before the kernel waits for x_proj.  Sixteen others norm a token each and multiply with 16
// rows of dt_proj each; then half of them take every second token, a thread a channel with all its states.
#ifndef FM_KERNELS_CUDA_SELECT_WIDE_CUH
#define FM_KERNELS_CUDA_SELECT_WIDE_CUH

#include "kernels/cuda/select.cuh"

enum { WIDE_CHANNELS = (int)FM_CHUNK, WIDE_TOKENS = 16, WIDE_TILES = WIDE_CHANNELS / 16 }; // of a block
enum { WIDE_TEAMS = 2, WIDE_TEAM = WIDE_CHANNELS, WIDE_WORKERS = WIDE_TEAMS * WIDE_TEAM, WIDE_WARPS = WIDE_WORKERS / 32 };
enum { WIDE_ROW = WIDE_CHANNELS * 4, WIDE_STATES = SELECT_STATES * WIDE_ROW }; // bytes: of one state, of a token
enum { WIDE_PITCH = WIDE_TOKENS + 2 };                                         // floats: of a row of dt_proj's sums

struct select_wide_args : select_args {
    unsigned share;  // tokens of a block
    unsigned stages; // of the ring: as many, or fewer
};

// Places in a block's shared memory.  At 0 is the ring.
template <class F> struct select_wide_room {
    unsigned x_stride, weights, x, sums, bc, out, all;

    // Ways of tiles of weights.
    __host__ __device__ static unsigned items(const select_args &a) { return WIDE_TILES * a.ways; }
    __host__ __device__ select_wide_room(const select_args &a, unsigned stages)
    {
        x_stride = WIDE_TOKENS * FM_CHUNK + WIDE_TOKENS / 8 * F::SIDE;
        weights = stages * WIDE_STATES;
        x = weights + items(a) * a.chunks_of_way() * 2 * F::SLOT;
        sums = x + a.dt.chunks * x_stride;
        bc = sums + items(a) * 16 * WIDE_PITCH * 4;
        out = bc + WIDE_TOKENS * 2 * SELECT_STATES * 4;
        all = out + WIDE_TEAMS * 2 * WIDE_CHANNELS * 4;
    }
};

// Between the threads of a team, or (WIDE_TEAMS) all that work.
__device__ static inline void select_wide_meet(unsigned team)
{
    asm volatile("bar.sync %0, %1;" ::"r"(1 + team), "r"(team < WIDE_TEAMS ? (unsigned)WIDE_TEAM : (unsigned)WIDE_WORKERS)
                 : "memory");
}

template <class F> struct select_wide_block {
    typedef select_wide_room<F> room;

    const select_wide_args &a;
    uint8_t *shared;
    const room at;
    const unsigned first, tokens; // of the step's
    const unsigned full, empty;   // barriers of the ring

    __device__ select_wide_block(const select_wide_args &args, uint8_t *memory, const uint64_t *barriers)
        : a(args), shared(memory), at(args, args.stages), first(blockIdx.y * args.share),
          tokens(min(args.dt.n - first, args.share)), full(shared_address(barriers)), empty(full + 8 * WIDE_TOKENS)
    {
    }

    __device__ float *floats(unsigned place) const { return (float *)(shared + place); }
    __device__ size_t first_channel() const { return (size_t)blockIdx.x * WIDE_CHANNELS; }

    // ---- States come in, [state][channel]: a warp ----

    // Every lane is a filler; where vectors are aligned the first asks for the copies of the others.
    __device__ void bring(unsigned token, unsigned stage) const
    {
        const unsigned lane = threadIdx.x % 32, there = full + 8 * stage;
        const float *from = fm_cuda_state(a.h, first + token) + first_channel();
        uint8_t *to = shared + stage * WIDE_STATES;
        const bool aligned = (size_t)from % 16 == 0;
        if (aligned && lane == 0) ring_expect(there, WIDE_STATES);
        __syncwarp();
        if (aligned && lane < SELECT_STATES)
            ring_copy(shared_address(to) + lane * WIDE_ROW, there, from + lane * a.d_inner, WIDE_ROW);
        for (unsigned i = lane; !aligned && i < SELECT_STATES * WIDE_CHANNELS; i += 32)
            ((float *)to)[i] = from[i / WIDE_CHANNELS * a.d_inner + i % WIDE_CHANNELS];
        if (!aligned || lane > 0) ring_arrive(there);
    }
    __device__ void bring_all() const
    {
        for (unsigned i = 0; i < tokens; i++) {
            const unsigned stage = i % a.stages, turn = i / a.stages;
            if (turn > 0) ring_await(empty + 8 * stage, turn - 1);
            bring(i, stage);
        }
    }

    // ---- dt_proj: the ways of sixteen tiles are dealt out to the warps; sums lie [way][row][token] ----

    __device__ uint8_t *stage(unsigned item, unsigned k) const
    {
        return shared + at.weights + (item * a.chunks_of_way() + k) * 2 * F::SLOT;
    }

    __device__ void ask_weights(unsigned warp, const few_lane &l) const
    {
        for (unsigned item = warp; item < room::items(a); item += WIDE_WARPS)
            for (unsigned k = 0, chunk = item / WIDE_TILES; chunk < a.dt.chunks; k++, chunk += a.ways)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const size_t row = first_channel() + item % WIDE_TILES * 16 + 8 * i + l.g;
                    F::ask(shared_address(stage(item, k)) + i * F::SLOT, a.dt.w + row * a.dt.w_stride, a.dt, chunk, l);
                }
        copy_commit();
    }

    __device__ void norm(unsigned warp) const
    {
        const select_norm<F> to = {a, shared + at.x, at.x_stride, WIDE_TOKENS, floats(at.bc)};
        if (warp < tokens) to.row(first + warp, warp);
    }

    __device__ void multiply(unsigned warp, const few_lane &l) const
    {
        few_args p = a.dt;
        p.n = tokens;
        p.x_stride = at.x_stride, p.x_tokens = WIDE_TOKENS;
        for (unsigned item = warp; item < room::items(a); item += WIDE_WARPS) {
            float y[2][4] = {}, *to = floats(at.sums) + (item * 16 + l.g) * WIDE_PITCH + 2 * l.t;
            for (unsigned k = 0, chunk = item / WIDE_TILES; chunk < a.dt.chunks; k++, chunk += a.ways)
                F::template multiply<2, 1>(y, stage(item, k), typename F::tokens(shared + at.x, chunk, p), l);
#pragma unroll
            for (int i = 0; i < 8; i++) to[i % 4 / 2 * 8 * WIDE_PITCH + i / 4 * 8 + i % 2] = y[i / 4][i % 4];
        }
    }

    __device__ float dt_of(unsigned channel, unsigned token) const
    {
        const float *from = floats(at.sums) + channel * WIDE_PITCH + token;
        float v = 0.0f;
        for (unsigned w = 0; w < a.ways; w++) v = __fadd_rn(v, from[w * WIDE_CHANNELS * WIDE_PITCH]);
        return v;
    }

    // ---- Scan ----

    // A token's states, of all threads of a team.
    __device__ void take(float h[SELECT_STATES], unsigned token, unsigned channel) const
    {
        const unsigned stage = token % a.stages;
        const float *from = (const float *)(shared + stage * WIDE_STATES) + channel;
        ring_await(full + 8 * stage, token / a.stages);
#pragma unroll
        for (int i = 0; i < SELECT_STATES; i++) h[i] = from[i * WIDE_CHANNELS];
        __syncwarp(); // all its lanes have read
        ring_release(empty + 8 * stage, 1, 0, threadIdx.x % 32);
    }

    // Moves them, and returns what they give to the output.
    __device__ float move(float h[SELECT_STATES], const float A[SELECT_STATES], float2 step, unsigned token) const
    {
        const float *B = floats(at.bc) + token * 2 * SELECT_STATES, *C = B + SELECT_STATES;
        float y = 0.0f;
#pragma unroll
        for (int w = 0; w < SELECT_GROUPS; w++) {
            states<SELECT_GROUP, true> part;
#pragma unroll
            for (int i = 0; i < SELECT_GROUP; i++) part.a[i] = A[w * SELECT_GROUP + i], part.h[i] = h[w * SELECT_GROUP + i];
            part.move(step, B + w * SELECT_GROUP, 0);
            const float sum = part.sum(C + w * SELECT_GROUP, 0);
            y = w == 0 ? sum : __fadd_rn(y, sum);
#pragma unroll
            for (int i = 0; i < SELECT_GROUP; i++) h[w * SELECT_GROUP + i] = part.h[i];
        }
        return y;
    }

    // Nobody reads them before the next step, so they leave L2 first.
    __device__ void leave(const float h[SELECT_STATES], unsigned token, unsigned channel) const
    {
        float *to = fm_cuda_state(a.h, first + token) + first_channel() + channel;
        if (a.hold) return;
#pragma unroll
        for (int i = 0; i < SELECT_STATES; i++) __stcs(to + i * a.d_inner, h[i]);
    }

    // Outputs wait for a warp that rounds them as pack_x does.  Warps take turns, and two turns have places of their
    // own, so that the others go on meanwhile.
    __device__ void put(unsigned team, unsigned turn, unsigned token, unsigned channel, float y) const
    {
        float *v = floats(at.out) + (team * 2 + turn % 2) * WIDE_CHANNELS, of[8];
        v[channel] = y;
        select_wide_meet(team);
        if (channel / 32 != turn % (WIDE_TEAM / 32)) return;
        pack_load(of, v, WIDE_CHANNELS, 0, true);
        if (a.form == FM_X_Q8_256)
            a.records.template put<true>(first + token, blockIdx.x, of);
        else
            a.records.template put<false>(first + token, blockIdx.x, of);
    }

    struct inputs {
        float u, z;
    };
    __device__ inputs inputs_of(unsigned token, size_t c) const
    {
        if (token >= tokens) return {0.0f, 0.0f};
        return {a.u[(first + token) * a.u_stride + c], a.z[(first + token) * a.z_stride + c]};
    }

    __device__ void walk(unsigned team, unsigned channel, const float A[SELECT_STATES], float bias, float skip,
                         inputs then) const
    {
        float h[SELECT_STATES];
        for (unsigned token = team, turn = 0; token < tokens; token += WIDE_TEAMS, turn++) {
            const inputs in = then;
            then = inputs_of(token + WIDE_TEAMS, first_channel() + channel);
            const float2 step = step_of(in.u, dt_of(channel, token), bias);
            take(h, token, channel);
            const float y = move(h, A, step, token);
            leave(h, token, channel);
            put(team, turn, token, channel, gated(true, __fmaf_rn(skip, in.u, y), in.z));
        }
    }
};

// ---- The kernel ----

template <class F> __device__ static inline void select_wide_work(const select_wide_block<F> &b)
{
    const select_wide_args &a = b.a;
    const unsigned team = threadIdx.x / WIDE_TEAM, channel = threadIdx.x % WIDE_CHANNELS, warp = threadIdx.x / 32;
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    const size_t c = b.first_channel() + channel;
    float A[SELECT_STATES];
    b.ask_weights(warp, l);
    if (team == 0)
#pragma unroll
        for (int i = 0; i < SELECT_STATES; i++) fm_prefetch(a.A + i * a.d_inner + c);
    const float bias = a.dt_bias ? a.dt_bias[c] : 0.0f, skip = a.skip[c];
    fm_begin();
    const auto then = b.inputs_of(team, c);
    b.norm(warp);
    select_wide_meet(WIDE_TEAMS);
    b.multiply(warp, l);
#pragma unroll
    for (int i = 0; i < SELECT_STATES; i++) A[i] = decay_of(a.A[i * a.d_inner + c]); // the product leaves no registers before
    select_wide_meet(WIDE_TEAMS);
    b.walk(team, channel, A, bias, skip, then);
}

template <class F> __global__ void __launch_bounds__(WIDE_WORKERS + 32, 1) select_wide_kernel(const select_wide_args a)
{
    extern __shared__ __align__(128) uint8_t wide_shared[];
    __shared__ uint64_t barriers[2 * WIDE_TOKENS];
    const select_wide_block<F> b(a, wide_shared, barriers);
    if (threadIdx.x == WIDE_WORKERS) ring_init(b.full, b.empty, WIDE_TOKENS, WIDE_TEAM / 32, 32);
    __syncthreads();
    if (threadIdx.x >= WIDE_WORKERS)
        b.bring_all();
    else
        select_wide_work<F>(b);
}

// ---- Launches ----

// A select_fn; false also where a block would have too many tokens.
template <class F> static bool select_wide_of(fm_stream *s, const select_args *a, const fm_linear_args *x_proj)
{
    enum { SHARED = 226 * 1024, LEAST = 2 /* stages */ };
    const unsigned groups = (unsigned)(a->d_inner / WIDE_CHANNELS), rest = select_wide_room<F>(*a, 0).all;
    select_wide_args p = {*a};
    p.share = fm_blocks(a->dt.n, max(1u, (unsigned)s->n_sm / groups));
    if (p.share > WIDE_TOKENS || rest + LEAST * WIDE_STATES > SHARED) return false;
    p.stages = min((SHARED - rest) / WIDE_STATES, p.share);
    const dim3 grid(groups, fm_blocks(a->dt.n, p.share));
    const fm_launch l = {s, grid, WIDE_WORKERS + 32, select_wide_room<F>(p, p.stages).all, 1};
    fm_cuda_allow_shared<select_wide_kernel<F>>(s, SHARED);
    fm_cuda_linear_few(s, x_proj);
    fm_cuda_launch(&l, "scan", select_wide_kernel<F>, p);
    return true;
}

#endif
