// scan.cu - the selective scan: time in order for each (channel, state), which is what gives a token the same bits in any batch and
// any cut of its sequence.  Parallel are the channels and the states: 8192 channels of 16 states fill the card with one sequence.
//
// The limit of long sequences is the unit of exponentials (16 a clock and multiprocessor): d_state for the decays and 3 for
// softplus and silu, a channel and token.  A block takes 32 channels, a lane each; every warp takes S states of all of them, so
// that B and C are one broadcast and h never leaves its registers.  What is per channel (softplus, skip, gate) is done once a
// token, for the tiles before and after the one that is scanned, through shared memory: one barrier a tile.
//
// One token of each sequence: scan_one.cuh.
#include "kernels/cuda/scan_one.cuh"
#include "kernels/cuda/walks.cuh"

namespace
{

enum { LANES = 32, QUADS = LANES / 4 }; // channels of a block, also by fours
enum { TILE_MOST = 16, STATES_MOST = 256, WARPS_MOST = 16 };

// ---- Many tokens ----

// Four channels of a token as they come.
template <typename R> struct input {
    typename fm_four<R>::type u, dt, z;
};

template <typename R> __device__ void put_steps(float2 *to, const input<R> &in, float4 bias)
{
    const float4 u = fm_widened(in.u), dt = fm_widened(in.dt);
    const float2 s0 = step_of(u.x, dt.x, bias.x), s1 = step_of(u.y, dt.y, bias.y);
    const float2 s2 = step_of(u.z, dt.z, bias.z), s3 = step_of(u.w, dt.w, bias.w);
    ((float4 *)to)[0] = {s0.x, s0.y, s1.x, s1.y};
    ((float4 *)to)[1] = {s2.x, s2.y, s3.x, s3.y};
}

__device__ float4 add4(float4 a, float4 b)
{
    return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}

template <typename R> __device__ float4 finished(bool gate, float4 y, float4 skip, const input<R> &in)
{
    const float4 u = fm_widened(in.u), z = fm_widened(in.z);
    return {gated(gate, __fmaf_rn(skip.x, u.x, y.x), z.x), gated(gate, __fmaf_rn(skip.y, u.y, y.y), z.y),
            gated(gate, __fmaf_rn(skip.z, u.z, y.z), z.z), gated(gate, __fmaf_rn(skip.w, u.w, y.w), z.w)};
}

// Places in shared memory, two of each: for the tile that is scanned, and for the one before or after it.
struct places {
    float2 *step; // (tile, LANES)
    float *bc;    // (2, tile, states): B, then C
    float *parts; // (warps, tile, LANES) sums of each warp's states
};

template <int S> struct layout {
    int warps, tile, n_states; // states as shared memory has them: of all warps

    __host__ __device__ explicit layout(int n_warps)
        : warps(n_warps), tile(4 * n_warps < TILE_MOST ? 4 * n_warps : TILE_MOST), n_states(S * n_warps)
    {
    }
    __host__ __device__ size_t step_floats() const { return (size_t)tile * LANES * 2; }
    __host__ __device__ size_t bc_floats() const { return (size_t)tile * 2 * n_states; }
    __host__ __device__ size_t parts_floats() const { return (size_t)warps * tile * LANES; }
    __host__ __device__ size_t bytes() const { return 2 * sizeof(float) * (step_floats() + bc_floats() + parts_floats()); }
    __device__ places at(float *p, size_t tile_index) const
    {
        const size_t i = tile_index % 2;
        p += i * (step_floats() + bc_floats() + parts_floats());
        return {(float2 *)p, p + step_floats(), p + step_floats() + bc_floats()};
    }
};

__device__ void copy_async(float *to, const float *from, bool four)
{
    const unsigned p = (unsigned)__cvta_generic_to_shared(to);
    if (four)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(p), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(p), "l"(from) : "memory");
}

__device__ void await_copies()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// One block's sequence and channels; tiles are counted from the sequence's begin.
template <typename R, int S, bool OUT> struct walk {
    const scan<R> &a;
    const layout<S> l;
    float *shared;
    size_t first, n_tokens, n_tiles;
    size_t c;       // first channel of the block
    int slot, quad; // which token of a tile, and which four channels, this thread prepares and finishes
    float4 bias, skip;

    __device__ size_t channel() const { return c + 4 * quad; }
    __device__ ptrdiff_t left() const { return (ptrdiff_t)a.d_inner - (ptrdiff_t)channel(); }
    __device__ bool has(size_t tile) const { return slot < l.tile && tile * l.tile + slot < n_tokens; }
    __device__ size_t row(size_t tile) const { return first + tile * l.tile + slot; }

    __device__ input<R> load(size_t tile) const
    {
        input<R> in = {};
        if (!has(tile)) return in;
        in.u = fm_read4<false>(a.u + row(tile) * a.u_stride + channel(), left());
        in.dt = fm_read4<false>(a.dt + row(tile) * a.dt_stride + channel(), left());
        if (OUT && a.z) in.z = fm_read4<false>(a.z + row(tile) * a.z_stride + channel(), left());
        return in;
    }

    __device__ void fetch_bc(size_t tile) const
    {
        if (tile >= n_tiles) return;
        const size_t at = first + tile * l.tile,
                     n = n_tokens - tile * l.tile < (size_t)l.tile ? n_tokens - tile * l.tile : l.tile;
        const int step = a.bc_aligned ? 4 : 1, per_row = a.d_state / step, all = (int)n * per_row;
        float *B = l.at(shared, tile).bc, *C = B + l.tile * l.n_states;
        for (int i = (int)threadIdx.x; i < all; i += (int)blockDim.x) {
            const int t = i / per_row, k = i % per_row * step;
            copy_async(B + t * l.n_states + k, a.B + (at + t) * a.bc_stride + k, step == 4);
            if (OUT) copy_async(C + t * l.n_states + k, a.C + (at + t) * a.bc_stride + k, step == 4);
        }
    }

    __device__ void prepare(size_t tile, const input<R> &in) const
    {
        if (!has(tile)) return;
        float2 *to = l.at(shared, tile).step + slot * LANES + 4 * quad;
        put_steps(to, in, bias);
    }

    // Tokens t .. t + G - 1 of a tile: what they read comes first, so that the exponentials of all of them can be under way at once.
    template <int G, typename H> __device__ void scan_tokens(const places &p, int t, H &h, int warp, int lane) const
    {
        const int n = a.d_state - warp * S;
        const float *B = p.bc + t * l.n_states + warp * S, *C = B + l.tile * l.n_states;
        float *parts = p.parts + (warp * l.tile + t) * LANES + lane;
        float2 step[G];
        float b[G][S], c[G][S], y[G];
#pragma unroll
        for (int i = 0; i < G; i++) {
            step[i] = p.step[(t + i) * LANES + lane];
#pragma unroll
            for (int j = 0; j < S; j++) {
                b[i][j] = j < n ? B[i * l.n_states + j] : 0.0f;
                c[i][j] = OUT && j < n ? C[i * l.n_states + j] : 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < G; i++) {
            h.move(step[i], b[i], n);
            y[i] = h.sum(c[i], n);
            h.leave();
        }
#pragma unroll
        for (int i = 0; i < G && OUT; i++) parts[i * LANES] = y[i];
    }

    template <typename H> __device__ void scan_tile(size_t tile, H &h, int warp, int lane) const
    {
        enum { G = S <= 4 ? 8 : 2 };
        const places p = l.at(shared, tile);
        const size_t after = n_tokens - tile * l.tile;
        const int tokens = after < (size_t)l.tile ? (int)after : l.tile;
        int t = 0;
        for (; t + G <= tokens; t += G) scan_tokens<G>(p, t, h, warp, lane);
        for (; t < tokens; t++) scan_tokens<1>(p, t, h, warp, lane);
    }

    __device__ void finish(size_t tile, const input<R> &in) const
    {
        if (!has(tile)) return;
        const float *parts = l.at(shared, tile).parts + slot * LANES + 4 * quad;
        float4 y = *(const float4 *)parts;
        for (int w = 1; w < WARPS_MOST; w++) {
            if (w >= l.warps) break;
            y = add4(y, *(const float4 *)(parts + w * l.tile * LANES));
        }
        y = finished(a.z, y, skip, in);
        const float each[4] = {y.x, y.y, y.z, y.w};
        for (int i = 0; i < 4 && i < left(); i++) a.put(row(tile), channel() + i, each[i]);
    }

    // While tile k is scanned, k + 1 is prepared, k + 2 is read and k - 1 is finished; y may lie on u or z, since a thread reads
    // its places long before it writes them.
    template <typename H> __device__ void run(H &h, int warp, int lane) const
    {
        input<R> now = load(0), next = load(1), before = {};
        fetch_bc(0);
        prepare(0, now);
        await_copies();
        __syncthreads();
        for (size_t k = 0; k < n_tiles; k++) {
            const input<R> later = load(k + 2);
            fetch_bc(k + 1);
            if (OUT && k > 0) finish(k - 1, before);
            prepare(k + 1, next);
            scan_tile(k, h, warp, lane);
            await_copies();
            __syncthreads();
            before = now, now = next, next = later;
        }
        if (OUT) finish(n_tiles - 1, before);
    }
};

template <typename R, typename H, int S, bool OUT> __global__ void __launch_bounds__(WARPS_MOST * 32) scan_long(scan<R> a)
{
    extern __shared__ __align__(16) float shared[];
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    const size_t c = (size_t)blockIdx.x * LANES;
    const int n = c + lane < a.d_inner ? a.d_state - warp * S : 0;
    const size_t at = (size_t)warp * S * a.d_inner + c + lane;
    states<S, false, H> h;
    h.read_decays(a.A + at, a.d_inner, n); // weights: nobody writes them just before
    fm_begin();
    const size_t first = a.begin[blockIdx.y], n_tokens = a.begin[blockIdx.y + 1] - first;
    if (n_tokens == 0) return;
    H *state = fm_cuda_state_of<H>(a.h, blockIdx.y) + at;
    h.read(state, a.d_inner, n);
    h.begin(a.seen, blockIdx.y, c + lane, warp * S);
    walk<R, S, OUT> w = {a, layout<S>((int)blockDim.x / LANES), shared, first, n_tokens};
    w.n_tiles = (n_tokens + w.l.tile - 1) / w.l.tile;
    w.c = c;
    w.slot = (int)threadIdx.x / QUADS;
    w.quad = (int)threadIdx.x % QUADS;
    w.bias = fm_load4<false>(a.dt_bias + w.channel(), a.dt_bias ? w.left() : 0);
    w.skip = fm_load4<false>(a.skip + w.channel(), OUT ? w.left() : 0);
    w.run(h, warp, lane);
    if (!a.hold) h.write(state, a.d_inner, n);
}

// ---- Many tokens of whole vectors and 4 S states: the models there are ----

// The same walk with its work dealt out to two kinds of warps: four scan, each S states of 64 channels, two a lane, so that B and C
// are read from shared memory half as often (what it gives to registers, 128 bytes a clock, was the limit with one); four prepare
// and finish.  A multiprocessor so always has both kinds at work, with one block too.
//
// KEEP: for the backward, which is left the state before every FM_KEPT_ROWS-th row of the step.  Tiles then begin at such rows, the
// first one also of tokens that are not the sequence's, so that which states are kept is known when this is compiled.  Rows of bf16 then
// leave room for a third block, so that a training step's sequences are walked in one wave.
template <typename R, typename H, int S, bool KEEP> struct wide {
    enum { CHANNELS = 64, TILE = 16, WARPS = 4, STATES = WARPS * S, HELPERS = 128, THREADS = 256, ITEMS = 2 };
    enum { BLOCKS = KEEP && sizeof(R) == 2 ? 3 : 2, AHEAD = BLOCKS == 3 ? 1 : 3 }; // of a multiprocessor; tokens read ahead
    enum { STEPS = TILE * CHANNELS * 2, BC = 2 * TILE * STATES, PARTS = WARPS * TILE * CHANNELS, BUFFER = STEPS + BC + PARTS };

    const scan<R> &a;
    float *shared;
    unsigned first, n_tokens; // rows of the tiles, from that of the first tile on
    unsigned before;          // how many of these are not the sequence's
    unsigned n_tiles, c;

    // Barriers that one kind of warps passes and the other waits at, once a tile each.  In tile k, PREPARED: k + 1 may be read, and the
    // sums of k - 1 be written over; SCANNED, of k - 1: its sums may be read, and what it was made of be written over.  PREPARED is passed
    // in the last tile too: else a warp could pass SCANNED of the last two before another has passed the first of them.  The warps that
    // scan meet by themselves (SUMMED) before they pass SCANNED.  They need not, but racecheck orders what a warp did only by barriers
    // that the warp waits at, and reports the sums of a tile's last tokens without; it costs 0.4 % of the kernel.
    enum { PREPARED = 1, SCANNED, SUMMED };
    __device__ static void await(int barrier, int threads = THREADS)
    {
        asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
    }
    __device__ static void pass(int barrier)
    {
        asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"((int)THREADS) : "memory");
    }

    __device__ float *steps(unsigned tile) const { return shared + tile % 2 * BUFFER; }
    __device__ float *bc(unsigned tile) const { return steps(tile) + STEPS; }
    __device__ float *parts(unsigned tile) const { return bc(tile) + BC; }
    __device__ unsigned tokens(unsigned tile) const
    {
        const unsigned begin = tile * TILE;
        return begin >= n_tokens ? 0 : n_tokens - begin < TILE ? n_tokens - begin : TILE;
    }
    __device__ unsigned begin_of(unsigned tile) const { return KEEP && tile == 0 ? before : 0; }
    // ALL: that the tile is whole is known.
    template <bool ALL> __device__ bool has(unsigned tile, unsigned t) const
    {
        return ALL || (t >= begin_of(tile) && t < tokens(tile));
    }

    // ---- Helpers: thread i has token i / 16 of a tile, and the one 8 further, of four channels ----

    // Where its channels lie in row 0, and its states of B and C.
    struct helper {
        unsigned i, slot;
        const char *u, *dt, *z, *B, *C;
        float4 bias, skip;
        input<R> before[ITEMS], now[ITEMS], next[ITEMS], later[ITEMS]; // of four tiles
    };

    // Rows and strides in bytes are below 2^32 (fits_wide() looks): one wide product gives an address.
    __device__ static const char *row_of(const char *x, unsigned row, size_t stride_bytes)
    {
        return x + (size_t)row * (unsigned)stride_bytes;
    }

    template <bool ALL> __device__ void load(helper &p, unsigned tile) const
    {
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            const unsigned row = first + tile * TILE + p.slot + 8 * j;
            if (!has<ALL>(tile, p.slot + 8 * j)) continue;
            p.later[j].u = fm_read4<true>((const R *)row_of(p.u, row, a.u_stride * sizeof(R)), 4);
            p.later[j].dt = fm_read4<true>((const R *)row_of(p.dt, row, a.dt_stride * sizeof(R)), 4);
            p.later[j].z = fm_read4<true>((const R *)row_of(p.z, row, a.z_stride * sizeof(R)), 4);
        }
    }

    template <bool ALL> __device__ void fetch_bc(const helper &p, unsigned tile) const
    {
        static_assert(TILE * S <= HELPERS, "four floats of B and of C a thread");
        if (p.i >= TILE * S || !has<ALL>(tile, p.i / S)) return;
        const unsigned row = first + tile * TILE + p.i / S;
        copy_async(bc(tile) + 4 * p.i, (const float *)row_of(p.B, row, a.bc_stride * sizeof(float)), true);
        copy_async(bc(tile) + TILE * STATES + 4 * p.i, (const float *)row_of(p.C, row, a.bc_stride * sizeof(float)), true);
    }

    template <bool ALL> __device__ void prepare(const helper &p, const input<R> in[ITEMS], unsigned tile) const
    {
        float2 *to = (float2 *)steps(tile) + p.slot * CHANNELS + p.i % 16 * 4;
#pragma unroll
        for (int j = 0; j < ITEMS; j++)
            if (has<ALL>(tile, p.slot + 8 * j)) put_steps(to + 8 * j * CHANNELS, in[j], p.bias);
    }

    template <bool ALL> __device__ void finish(const helper &p, const input<R> in[ITEMS], unsigned tile) const
    {
#pragma unroll
        for (int j = 0; j < ITEMS; j++) {
            const unsigned slot = p.slot + 8 * j;
            if (!has<ALL>(tile, slot)) continue;
            const float *from = parts(tile) + slot * CHANNELS + p.i % 16 * 4;
            float4 y = *(const float4 *)from;
#pragma unroll
            for (int w = 1; w < WARPS; w++) y = add4(y, *(const float4 *)(from + w * TILE * CHANNELS));
            a.put4(first + tile * TILE + slot, c + p.i % 16 * 4, finished(true, y, p.skip, in[j]));
        }
    }

    __device__ void begin(helper &p, unsigned i) const
    {
        const unsigned at = c + i % 16 * 4;
        p.i = i, p.slot = i / 16;
        p.u = (const char *)(a.u + at), p.dt = (const char *)(a.dt + at), p.z = (const char *)(a.z + at);
        p.B = (const char *)(a.B + i % S * 4), p.C = (const char *)(a.C + i % S * 4);
        p.bias = fm_load4<true>(a.dt_bias + at, a.dt_bias ? 4 : 0);
        p.skip = *(const float4 *)(a.skip + at);
    }

    __device__ static void move(helper &p)
    {
#pragma unroll
        for (int j = 0; j < ITEMS; j++) p.before[j] = p.now[j], p.now[j] = p.next[j], p.next[j] = p.later[j];
    }

    // What helpers do while tile k is scanned.
    template <bool ALL> __device__ void turn(helper &p, unsigned k) const
    {
        load<ALL>(p, k + 2);
        if (k > 0) await(SCANNED);
        fetch_bc<ALL>(p, k + 1);
        if (k > 0) finish<ALL>(p, p.before, k - 1);
        prepare<ALL>(p, p.next, k + 1);
        await_copies();
        pass(PREPARED);
    }

    __device__ void help(unsigned i) const
    {
        helper p = {};
        begin(p, i);
        for (unsigned k = 0; k < 2; k++) {
            load<false>(p, k);
            move(p);
        }
        fetch_bc<false>(p, 0);
        prepare<false>(p, p.now, 0);
        await_copies();
        __syncthreads();
        for (unsigned k = 0; k < n_tiles; k++) {
            if (k > 1 && k + 3 < n_tiles) // not the first tile, nor the last
                turn<true>(p, k);
            else
                turn<false>(p, k);
            move(p);
        }
        await(SCANNED);
        finish<false>(p, p.before, n_tiles - 1);
    }

    // ---- Scanners ----

    struct token {
        float4 step; // of two channels
        float b[S], c[S];
    };

    __device__ token read(unsigned tile, int t, int warp, int lane) const
    {
        token k;
        const float *B = bc(tile) + t * STATES + warp * S;
        k.step = ((const float4 *)steps(tile))[t * LANES + lane];
#pragma unroll
        for (int i = 0; i < S; i++) k.b[i] = B[i], k.c[i] = B[TILE * STATES + i];
        return k;
    }

    typedef states<S, true, H> half;

    __device__ float2 scan_token(half h[2], const token &k) const
    {
        h[0].move({k.step.x, k.step.y}, k.b, S);
        h[1].move({k.step.z, k.step.w}, k.b, S);
        const float2 y = {h[0].sum(k.c, S), h[1].sum(k.c, S)};
        h[0].leave();
        h[1].leave();
        return y;
    }

    // The state after token t of a tile, if it is the last before a row that wants it.
    __device__ void keep(unsigned tile, int t, const half h[2], int warp, int lane) const
    {
        static_assert(TILE % FM_KEPT_ROWS == 0, "rows that want a state lie alike in all tiles");
        if (!KEEP || (t + 1) % FM_KEPT_ROWS != 0) return;
        const size_t at = (first + tile * TILE + (unsigned)t + 1) / FM_KEPT_ROWS * STATES + (unsigned)(warp * S);
        float *to = a.kept + at * a.d_inner + c + 2 * (size_t)lane;
#pragma unroll
        for (int i = 0; i < S; i++) *(float2 *)(to + i * a.d_inner) = {h[0].h[i], h[1].h[i]};
    }

    __device__ void read_first(token k[AHEAD + 1], unsigned tile, int warp, int lane) const
    {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) k[i] = read(tile, i, warp, lane);
    }

    // k: the first tokens of the tile, and when it is left those of the next.
    __device__ void scan_whole(unsigned tile, token k[AHEAD + 1], half h[2], int warp, int lane) const
    {
        static_assert(TILE % (AHEAD + 1) == 0, "a tile's first tokens lie where the one before has left room");
        float2 *to = (float2 *)parts(tile) + warp * TILE * LANES + lane;
#pragma unroll
        for (int t = 0; t < TILE; t++) {
            const int next = t + AHEAD;
            if (next == TILE) await(PREPARED);
            k[next % (AHEAD + 1)] = read(tile + next / TILE, next % TILE, warp, lane);
            to[t * LANES] = scan_token(h, k[t % (AHEAD + 1)]);
            keep(tile, t, h, warp, lane);
        }
    }

    __device__ void scan_part(unsigned tile, half h[2], int warp, int lane) const
    {
        float2 *to = (float2 *)parts(tile) + warp * TILE * LANES + lane;
        const int n = (int)tokens(tile);
        for (int t = (int)begin_of(tile); t < n; t++) {
            to[t * LANES] = scan_token(h, read(tile, t, warp, lane));
            keep(tile, t, h, warp, lane);
        }
    }

    // What is read behind the last tile is whatever lies there; nobody looks at it.
    __device__ void scan_all(half h[2], int warp, int lane) const
    {
        token k[AHEAD + 1];
        __syncthreads();
        read_first(k, 0, warp, lane);
        for (unsigned tile = 0; tile < n_tiles; tile++) {
            if (tokens(tile) - begin_of(tile) == TILE) {
                scan_whole(tile, k, h, warp, lane);
            } else {
                scan_part(tile, h, warp, lane);
                await(PREPARED);
                read_first(k, tile + 1, warp, lane);
            }
            await(SUMMED, THREADS - HELPERS);
            pass(SCANNED);
        }
    }
};

template <typename R, typename H, int S, bool KEEP> __device__ void scan_sequence(const scan<R> &a, float *shared, size_t seq)
{
    typedef wide<R, H, S, KEEP> walk;
    const unsigned first = (unsigned)a.begin[seq], end = (unsigned)a.begin[seq + 1];
    if (first == end) return;
    const unsigned from = KEEP ? first / walk::TILE * walk::TILE : first, rows = end - from;
    const walk w = {a, shared, from, rows, first - from, (rows + walk::TILE - 1) / walk::TILE, blockIdx.x * walk::CHANNELS};
    const int warp = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES;
    if (warp >= walk::WARPS) {
        w.help(threadIdx.x - walk::HELPERS);
        return;
    }
    const size_t at = (size_t)warp * S * a.d_inner + w.c + 2 * lane;
    H *state = fm_cuda_state_of<H>(a.h, seq) + at;
    states<S, true, H> h[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        h[i].read_decays(a.A + at + i, a.d_inner, S);
        h[i].read(state + i, a.d_inner, S);
        h[i].begin(a.seen, seq, w.c + 2 * lane + i, warp * S);
    }
    w.scan_all(h, warp, lane);
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (!a.hold) h[i].write(state + i, a.d_inner, S);
}

// With KEEP a block walks sequences one after the other: helpers are done with one before they come to the first meeting of the next.
template <typename R, typename H, int S, bool KEEP>
__global__ void __launch_bounds__(wide<R, H, S, KEEP>::THREADS, wide<R, H, S, KEEP>::BLOCKS) scan_wide(scan<R> a)
{
    extern __shared__ __align__(16) float shared[];
    fm_begin();
    if (!KEEP) {
        scan_sequence<R, H, S, KEEP>(a, shared, blockIdx.y);
        return;
    }
    const fm_walk w = fm_walk_of(a.begin, a.n_seq, a.walk_rows, blockIdx.y, gridDim.y);
    for (size_t seq = w.first; seq < w.end; seq += w.step) scan_sequence<R, H, S, KEEP>(a, shared, seq);
}

// ---- Launches ----

template <typename R, typename H, int S, bool OUT> void launch_long(fm_stream *s, const scan<R> &a)
{
    const unsigned warps = fm_blocks((size_t)a.d_state, S);
    fm_cuda_allow_shared<scan_long<R, H, S, OUT>>(s, layout<S>(WARPS_MOST).bytes());
    fm_queue_shared(s, "scan", scan_long<R, H, S, OUT>, dim3(fm_blocks(a.d_inner, LANES), (unsigned)a.n_seq), warps * LANES,
                    layout<S>((int)warps).bytes(), a);
}

// `seqs`: of blocks.
template <typename R, typename H, int S, bool KEEP> void launch_wide(fm_stream *s, const scan<R> &a, unsigned seqs)
{
    typedef wide<R, H, S, KEEP> w;
    const size_t bytes = 2 * w::BUFFER * sizeof(float);
    fm_cuda_allow_shared<scan_wide<R, H, S, KEEP>>(s, bytes);
    fm_queue_shared(s, "scan", scan_wide<R, H, S, KEEP>, dim3((unsigned)(a.d_inner / w::CHANNELS), seqs), w::THREADS, bytes, a);
}

// Many documents are walked by no more blocks than run at once.
template <typename R, int S> void launch_keep(fm_stream *s, scan<R> a, const fm_ragged *r)
{
    typedef wide<R, float, S, true> w;
    a.walk_rows = fm_walk_rows(r, a.d_inner / w::CHANNELS, (size_t)(w::BLOCKS * s->n_sm));
    launch_wide<R, float, S, true>(s, a, (unsigned)fm_walks(r, a.walk_rows));
}

template <typename H, int S, typename R> void launch(fm_stream *s, const scan<R> &a, const fm_ragged *r, bool aligned)
{
    enum { WIDE = S <= 4 ? S : 1 };
    const bool whole = WIDE == S && aligned && a.d_state == 4 * S && a.d_inner % wide<R, H, WIDE, false>::CHANNELS == 0;
    if (fm_is_one_each(r))
        launch_one<H, S>(s, a);
    else if (whole && a.kept)
        launch_keep<R, WIDE>(s, a, r);
    else if (whole)
        launch_wide<R, H, WIDE, false>(s, a, (unsigned)a.n_seq);
    else if (a.kept)
        fm_cuda_note(s, cudaErrorInvalidValue, "scan: states are kept of whole vectors in aligned places only");
    else if (a.out)
        launch_long<R, H, S, true>(s, a);
    else
        launch_long<R, H, S, false>(s, a);
}

// Rows and strides are 32 bits in the kernel of whole vectors.
bool fits_wide(const fm_scan_args *g)
{
    return (g->u_stride | g->dt_stride | g->z_stride | g->bc_stride | g->ragged->n_tokens) < (size_t)1 << 30;
}

// Whole vectors of everything, with a gate.
bool all_aligned(const fm_scan_args *g)
{
    return fits_wide(g) && (g->y || g->packed) && g->z && fm_aligned(g->y, g->y_stride) && fm_aligned(g->z, g->z_stride) &&
           fm_aligned(g->u, g->u_stride) && fm_aligned(g->dt, g->dt_stride) && fm_aligned(g->dt_bias, 0) &&
           fm_aligned(g->skip, 0);
}

template <typename R> scan<R> args_of(const fm_scan_args *g)
{
    const fm_ragged *r = g->ragged;
    const bool out = g->y || g->packed,
               bc_aligned = g->d_state % 4 == 0 && fm_aligned(g->B, g->bc_stride) && (!out || fm_aligned(g->C, 0));
    return {(R *)g->y,
            g->h,
            (const R *)g->u,
            (const R *)g->dt,
            (const R *)g->z,
            g->y_stride,
            g->u_stride,
            g->dt_stride,
            g->z_stride,
            g->dt_bias,
            g->A,
            g->skip,
            g->B,
            g->C,
            g->bc_stride,
            r->begin,
            r->seen,
            r->n_seq,
            g->d_inner,
            0,
            (int)g->d_state,
            g->hold,
            bc_aligned,
            out,
            (__nv_bfloat16 *)g->packed,
            fm_records_at(g->packed, r->n_tokens, g->d_inner),
            g->kept};
}

// States a warp: fixed by d_state, as the order of sums is.
template <typename R, typename H> void launch_any(fm_stream *s, const fm_scan_args *g)
{
    const scan<R> a = args_of<R>(g);
    const bool aligned = a.bc_aligned && all_aligned(g);
    if (g->d_state <= 8)
        launch<H, 2>(s, a, g->ragged, aligned);
    else if (g->d_state <= 64)
        launch<H, 4>(s, a, g->ragged, aligned);
    else
        launch<H, 16>(s, a, g->ragged, aligned);
}

template <typename R> void launch_rows(fm_stream *s, const fm_scan_args *g)
{
    g->half_h ? launch_any<R, __nv_bfloat16>(s, g) : launch_any<R, float>(s, g);
}

// The pack that comes with the rows, or behind them.
void launch_records(fm_stream *s, const fm_scan_args *g)
{
    fm_scan_args rows = *g;
    if (!g->half_h && fm_is_one_each(g->ragged) && (g->d_state == 8 || g->d_state == 16) && g->d_inner % FM_CHUNK == 0) {
        scan<float> a = args_of<float>(g);
        a.packed = NULL;
        if (g->alone) a.y = NULL;
        fm_with_form(g->form, [&](auto f) {
            if (g->d_state == 8)
                launch_step<float, 2, f.FORM>(s, a);
            else
                launch_step<float, 4, f.FORM>(s, a);
        });
        return;
    }
    rows.packed = NULL;
    launch_rows<float>(s, &rows);
    fm_cuda_pack_after(s, g->packed, g->form, g->y, g->y_stride, g->ragged->n_tokens, g->d_inner);
}

void scan_entry(const fm_run *run, const fm_scan_args *a)
{
    fm_scan_args b = *a;
    if (a->ragged->n_tokens == 0 || a->d_inner == 0) return;
    if (!a->y) b.packed = NULL;
    const bool records = b.packed && fm_cuda_is_records(run->stream, a->form, a->ragged->n_tokens);
    if (b.packed && !records && a->alone) b.y = NULL;
    if (a->d_state > STATES_MOST || a->ragged->n_seq > 65535)
        fm_cuda_note(run->stream, cudaErrorInvalidValue,
                     "scan: expected at most 256 states a channel and 65535 sequences a step");
    else if (a->half_h && (a->kept || !a->ragged->seen))
        fm_cuda_note(run->stream, cudaErrorInvalidValue,
                     "scan: states in bf16 need the tokens before them, and are never kept");
    else if (records)
        launch_records(run->stream, &b);
    else if (a->half)
        launch_rows<__nv_bfloat16>(run->stream, &b);
    else
        launch_rows<float>(run->stream, &b);
}

} // namespace

extern "C" void fm_cuda_fill_scan(fm_kernels *k)
{
    k->scan = scan_entry;
}
