// back_scan.cu - backward of the selective scan (ref/scan.c; spec falcon-mamba.md 8): a lane takes four states of two channels.
//
// A block owns FM_CHANNEL_GRANULE channels.  It walks a sequence forward once and keeps the state at every CHUNK tokens in memory,
// then walks the chunks from the last to the first: each is replayed with its states in registers, and gone back through.  Chunks
// end at multiples of CHUNK of the step's rows, so that a chunk's begin that is not a sequence's belongs to one sequence alone and
// what is kept does not grow with the number of sequences.  Rows of a chunk outside the sequence are tokens with delta = u = g = 0,
// which change nothing.
//
// What is one number a token and channel (softplus, gate, what is written) is worked out once, by the lane whose token it is, and
// passed through shared memory.  Sums over states (3 numbers a token) and over channels (2 d_state) exchange halves between lanes
// until each lane holds the sum that it writes.  Two channels a lane share the reading of B and C and the sums over channels.
//
// States beyond 16 take further launches, since all that joins states is a sum: y, g_u and g_delta.
//
// Refused: all 16 states of a channel in a lane, whose chunk is 70 KiB of straight code that runs once per chunk; four states of
// one channel, which waits for shared memory: 7 readings of 16 bytes a token.
#include "kernels/cuda/back.cuh"

enum {
    CHANNELS = FM_CHANNEL_GRANULE,
    STATES = 16,
    EACH = 4, // states of a lane, and lanes of a channel
    PAIRS = CHANNELS / 2,
    THREADS = PAIRS * STATES / EACH,
    WARPS = THREADS / 32,
    CHUNK = 8,
    MINE = CHUNK / EACH, // tokens of a chunk whose own numbers a lane works out
    SUMS = STATES + 2,   // of a channel over tokens: g_A, g_dt_bias, g_skip
    WALKS = 4096         // times 32 channels: what fills the largest of devices
};

typedef struct scan_back {
    fm_scan_back_args a;
    const size_t *begin;
    size_t n_seq, n_tokens;
    unsigned first_state, d_inner, d_state;
    unsigned g_u_stride, g_dt_stride, g_z_stride, g_stride, u_stride, dt_stride, z_stride, bc_stride;
    float *kept; // (chunks, STATES, d_inner)
    float *sums; // (walks, SUMS, d_inner)
} scan_back;

enum { U, DT, G, Z, INPUTS };
enum { OWN_U, BY_Y, BY_V, OWN }; // what a lane needs of its own tokens when their sums come

struct room {
    float bc[2][CHUNK][2 * STATES];          // B | C of this chunk and the next
    float g_bc[2][WARPS][CHUNK][2 * STATES]; // g_B | g_C of each warp's channels
    float4 moves[CHUNK][PAIRS];              // delta, delta u of both channels; each warp its own
    float2 g_y[CHUNK][PAIRS];
    float2 in[INPUTS][MINE][THREADS]; // each thread reads what it fetched itself
    float2 state[EACH][THREADS];      // at the chunk's begin; the same
    float2 own[OWN][MINE][THREADS];   // the same
};

// What a thread knows about its place.
struct place {
    unsigned c;          // the first of its two channels
    unsigned live;       // how many of them exist
    unsigned q;          // which lane of them: states 4 q .., and tokens q, q + 4 of a chunk
    unsigned pair;       // in the block
    unsigned first, end; // rows of the sequence
};

// Rows, channels and strides are below 2^32 (scan_back_entry looks): one wide product gives an address.
__device__ static inline size_t at(unsigned row, unsigned stride, unsigned c)
{
    return (size_t)row * stride + c;
}

__device__ static inline bool holds(const place &p, unsigned row)
{
    return row >= p.first && row < p.end;
}

// ---- Reading: WIDE when every pair lies in an aligned place ----

template <int BYTES> __device__ static inline void fetch(void *to, const float *from, bool in)
{
    const unsigned bytes = in ? BYTES : 0, at = (unsigned)__cvta_generic_to_shared(to); // the rest is filled with zeros
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(bytes) : "memory");
}

// x[at], x[at + 1] of the two channels, or zeros.
template <bool WIDE> __device__ static inline void fetch_pair(float2 *to, const float *x, size_t at, const place &p, bool in)
{
    if (WIDE) {
        fetch<8>(to, in && p.live ? x + at : x, in && p.live);
    } else {
        fetch<4>(&to->x, in && p.live ? x + at : x, in && p.live);
        fetch<4>(&to->y, in && p.live > 1 ? x + at + 1 : x, in && p.live > 1);
    }
}

__device__ static inline void fetched()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

template <bool WIDE> __device__ static inline float2 read_pair(const float *x, const place &p)
{
    if (!p.live) return make_float2(0.0f, 0.0f);
    if (WIDE) return *(const float2 *)x;
    return make_float2(x[0], p.live > 1 ? x[1] : 0.0f);
}

template <bool WIDE> __device__ static inline void write_pair(float *to, float2 v, const place &p)
{
    if (WIDE && p.live) *(float2 *)to = v;
    if (!WIDE && p.live) to[0] = v.x;
    if (!WIDE && p.live > 1) to[1] = v.y;
}

// B and C of a chunk, by the whole block; states that do not exist are 0.
__device__ static inline void fetch_bc(room &m, const scan_back &v, const place &p, unsigned chunk)
{
#pragma unroll
    for (unsigned i = threadIdx.x; i < CHUNK * 2 * STATES; i += THREADS) {
        const unsigned t = i / 32, j = i % 32;
        const unsigned row = chunk * CHUNK + t, n = v.first_state + j % STATES;
        const bool in = holds(p, row) && n < v.d_state;
        fetch<4>(&m.bc[chunk % 2][t][j], (j < STATES ? v.a.B : v.a.C) + (in ? at(row, v.bc_stride, n) : 0), in);
    }
}

template <bool WIDE>
__device__ static inline void fetch_input(room &m, const place &p, unsigned chunk, int which, const float *x, unsigned stride)
{
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const unsigned row = chunk * CHUNK + j * EACH + p.q;
        fetch_pair<WIDE>(&m.in[which][j][threadIdx.x], x, at(row, stride, p.c), p, holds(p, row));
    }
}

template <bool WIDE> __device__ static inline void fetch_forward(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    fetch_bc(m, v, p, chunk);
    fetch_input<WIDE>(m, p, chunk, U, v.a.u, v.u_stride);
    fetch_input<WIDE>(m, p, chunk, DT, v.a.dt, v.dt_stride);
}

__device__ static inline size_t kept_at(const scan_back &v, const place &p, unsigned chunk, int i)
{
    return at(chunk * STATES + EACH * p.q + i, v.d_inner, p.c);
}

template <bool WIDE> __device__ static inline void fetch_back(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    fetch_forward<WIDE>(m, v, p, chunk);
    fetch_input<WIDE>(m, p, chunk, G, v.a.g, v.g_stride);
    if (v.a.z) fetch_input<WIDE>(m, p, chunk, Z, v.a.z, v.z_stride);
    if (chunk > p.first / CHUNK)
#pragma unroll
        for (int i = 0; i < EACH; i++) fetch_pair<WIDE>(&m.state[i][threadIdx.x], v.kept, kept_at(v, p, chunk, i), p, true);
}

// Where a state of the two channels lies in a matrix of states; NULL: it does not exist.
__device__ static inline float *state_at(const fm_states &s, const scan_back &v, const place &p, size_t seq, int i)
{
    const unsigned n = v.first_state + EACH * p.q + i;
    if (!p.live || n >= v.d_state || (!s.list && !s.rows)) return NULL;
    return fm_cuda_state(s, seq) + at(n, v.d_inner, p.c);
}

__device__ static inline float2 read_state(const fm_states &s, const scan_back &v, const place &p, size_t seq, int i)
{
    const float *at = state_at(s, v, p, seq, i);
    return at ? read_pair<false>(at, p) : make_float2(0.0f, 0.0f);
}

// ---- Arithmetic ----

__device__ static inline float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ static inline float sigmoid(float v)
{
    return __fdividef(1.0f, 1.0f + exp2_fast(-1.44269504089f * v));
}

// max(v, 0) + log(1 + e), e = exp(-|v|) in [0, 1]: 2 artanh(s) with s = e / (2 + e) <= 1/3, whose series ends below 2^-25.
__device__ static inline float softplus(float v)
{
    const float e = exp2_fast(-1.44269504089f * fabsf(v)), s = __fdividef(e, 2.0f + e), t = s * s;
    float sum = 2.0f / 15.0f;
    sum = sum * t + 2.0f / 13.0f;
    sum = sum * t + 2.0f / 11.0f;
    sum = sum * t + 2.0f / 9.0f;
    sum = sum * t + 2.0f / 7.0f;
    sum = sum * t + 2.0f / 5.0f;
    sum = sum * t + 2.0f / 3.0f;
    sum = sum * t + 2.0f;
    return fmaxf(v, 0.0f) + s * sum;
}

// h after a token from h before it; A in units of log2; moves: delta, delta u of both channels.
__device__ static inline void step(float2 *after, const float2 *before, const float2 *A, const float *bc, unsigned q,
                                   float4 moves)
{
    const float4 b = ((const float4 *)bc)[q];
    const float B[EACH] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        after[i].x = exp2_fast(moves.x * A[i].x) * before[i].x + moves.y * B[i];
        after[i].y = exp2_fast(moves.z * A[i].y) * before[i].y + moves.w * B[i];
    }
}

__device__ static inline float pass(float v, int lanes)
{
    return __shfl_xor_sync(0xffffffffu, v, lanes);
}

// Eight numbers summed over the eight pairs of a warp: the lane of pair l gets number l.
__device__ static inline float sum_pairs(float *v, unsigned pair)
{
    const bool four = pair & 4, two = pair & 2, one = pair & 1;
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = (four ? v[i + 4] : v[i]) + pass(four ? v[i] : v[i + 4], 4);
#pragma unroll
    for (int i = 0; i < 2; i++) v[i] = (two ? v[i + 2] : v[i]) + pass(two ? v[i] : v[i + 2], 2);
    return (one ? v[1] : v[0]) + pass(one ? v[0] : v[1], 1);
}

// Numbers of four tokens summed over the four lanes of a channel: lane q gets token q's.
__device__ static inline float sum_lanes(float v0, float v1, float v2, float v3, unsigned q)
{
    const bool two = q & 2, one = q & 1;
    const float a = (two ? v2 : v0) + pass(two ? v0 : v2, 16), b = (two ? v3 : v1) + pass(two ? v1 : v3, 16);
    return (one ? b : a) + pass(one ? a : b, 8);
}

__device__ static inline float2 sum_lanes(const float2 *v, unsigned q)
{
    return make_float2(sum_lanes(v[0].x, v[1].x, v[2].x, v[3].x, q), sum_lanes(v[0].y, v[1].y, v[2].y, v[3].y, q));
}

// ---- Forward: the states at the begins of chunks ----

__device__ static inline float2 delta_of(float2 dt, float2 bias, bool in)
{
    return in ? make_float2(softplus(dt.x + bias.x), softplus(dt.y + bias.y)) : make_float2(0.0f, 0.0f);
}

__device__ static inline void share_forward(room &m, const place &p, unsigned chunk, float2 bias)
{
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const unsigned t = j * EACH + p.q;
        const float2 u = m.in[U][j][threadIdx.x], delta = delta_of(m.in[DT][j][threadIdx.x], bias, holds(p, chunk * CHUNK + t));
        m.moves[t][p.pair] = make_float4(delta.x, delta.x * u.x, delta.y, delta.y * u.y);
    }
}

template <bool WIDE>
__device__ static void keep_states(room &m, const scan_back &v, const place &p, size_t seq, const float2 *A, float2 bias)
{
    const unsigned first = p.first / CHUNK, last = (p.end - 1) / CHUNK;
    float2 h[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) h[i] = read_state(v.a.h, v, p, seq, i);
    if (first < last) fetch_forward<WIDE>(m, v, p, first);
    for (unsigned chunk = first; chunk < last; chunk++) {
        fetched();
        share_forward(m, p, chunk, bias);
        __syncthreads();
        if (chunk + 1 < last) fetch_forward<WIDE>(m, v, p, chunk + 1);
#pragma unroll
        for (int t = 0; t < CHUNK; t++) step(h, h, A, m.bc[chunk % 2][t], p.q, m.moves[t][p.pair]);
#pragma unroll
        for (int i = 0; i < EACH; i++) write_pair<WIDE>(v.kept + kept_at(v, p, chunk + 1, i), h[i], p);
        __syncwarp(); // before the moves of the next chunk
    }
}

// ---- Backward ----

// What a lane carries from one token to the one before, and sums over all.
struct channels {
    float2 A[EACH], carry[EACH], g_A[EACH]; // A in units of log2; carry: decay x lambda of the token after
    float2 bias, skip, g_bias, g_skip;
};

__device__ static inline float gate(float z, float g, float *g_y)
{
    const float open = sigmoid(z);
    *g_y = g * (z * open);
    return g * (open * (1.0f + z * (1.0f - open)));
}

// Works out the lane's own tokens.
__device__ static inline void share_back(room &m, const scan_back &v, const place &p, unsigned chunk, float2 bias)
{
    const unsigned me = threadIdx.x;
    share_forward(m, p, chunk, bias);
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const float2 dt = m.in[DT][j][me], g = m.in[G][j][me];
        const float x = dt.x + bias.x, y = dt.y + bias.y;
        float2 g_y = g, by_y = g;
        if (v.a.z) {
            const float2 z = m.in[Z][j][me];
            by_y = make_float2(gate(z.x, g.x, &g_y.x), gate(z.y, g.y, &g_y.y));
        }
        m.g_y[j * EACH + p.q][p.pair] = g_y;
        m.own[OWN_U][j][me] = m.in[U][j][me];
        m.own[BY_Y][j][me] = by_y;
        m.own[BY_V][j][me] = make_float2(x > 20.0f ? 1.0f : sigmoid(x), y > 20.0f ? 1.0f : sigmoid(y));
    }
}

// The sums over states of four tokens, this lane's part.
struct token_sums {
    float2 y[EACH], by_B[EACH], by_A[EACH];
};

// One state of one channel, back through a token: gives lambda.
__device__ static inline float back_state(float &carry, float &g_A, float &y, float &by_B, float &by_A, float A, float B,
                                          float C, float before, float after, float delta, float g_y)
{
    const float lambda = g_y * C + carry;
    carry = exp2_fast(delta * A) * lambda;
    const float past = carry * before;
    y += C * after;
    by_B += lambda * B;
    by_A += past * A;
    g_A += past * delta;
    return lambda;
}

// Goes back through a token, the j-th of four; the warp's share of g_B | g_C goes to g_bc.
__device__ static inline void back_token(float *g_bc, channels &k, token_sums &sums, int j, const float2 *before,
                                         const float2 *after, const float *bc, const place &p, float4 moves, float2 g_y)
{
    const float4 b4 = ((const float4 *)bc)[p.q], c4 = ((const float4 *)bc)[EACH + p.q];
    const float B[EACH] = {b4.x, b4.y, b4.z, b4.w}, C[EACH] = {c4.x, c4.y, c4.z, c4.w};
    float v[2 * EACH];
    sums.y[j] = sums.by_B[j] = sums.by_A[j] = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float x = back_state(k.carry[i].x, k.g_A[i].x, sums.y[j].x, sums.by_B[j].x, sums.by_A[j].x, k.A[i].x, B[i], C[i],
                                   before[i].x, after[i].x, moves.x, g_y.x);
        const float y = back_state(k.carry[i].y, k.g_A[i].y, sums.y[j].y, sums.by_B[j].y, sums.by_A[j].y, k.A[i].y, B[i], C[i],
                                   before[i].y, after[i].y, moves.z, g_y.y);
        v[i] = x * moves.y + y * moves.w;
        v[EACH + i] = g_y.x * after[i].x + g_y.y * after[i].y;
    }
    const unsigned pair = threadIdx.x % 8;
    const float sum = sum_pairs(v, pair); // numbers 0 .. 3 are of g_B, 4 .. 7 of g_C
    g_bc[pair / EACH * STATES + EACH * p.q + pair % EACH] = sum;
}

// `more`: the states before these have written theirs.
template <bool WIDE> __device__ static inline void write(float *to, float x, float y, const place &p, bool more)
{
    const float2 old = more ? read_pair<WIDE>(to, p) : make_float2(0.0f, 0.0f);
    write_pair<WIDE>(to, make_float2(old.x + x, old.y + y), p);
}

// Writes what the inputs of the lane's own of four tokens get.
template <bool WIDE>
__device__ static inline void finish_token(const room &m, const scan_back &v, const place &p, channels &k,
                                           const token_sums &sums, unsigned chunk, int j)
{
    const fm_scan_back_args &a = v.a;
    const bool more = v.first_state > 0;
    const float2 y = sum_lanes(sums.y, p.q), by_B = sum_lanes(sums.by_B, p.q), by_A = sum_lanes(sums.by_A, p.q);
    const unsigned t = j * EACH + p.q, me = threadIdx.x;
    const unsigned row = chunk * CHUNK + t;
    const float2 u = m.own[OWN_U][j][me], by_y = m.own[BY_Y][j][me], by_v = m.own[BY_V][j][me], g_y = m.g_y[t][p.pair];
    const float4 moves = m.moves[t][p.pair];
    if (!holds(p, row)) return;
    const float skip_x = more ? 0.0f : k.skip.x, skip_y = more ? 0.0f : k.skip.y;
    const float2 g_v =
        make_float2((by_A.x * 0.69314718056f + by_B.x * u.x) * by_v.x, (by_A.y * 0.69314718056f + by_B.y * u.y) * by_v.y);
    k.g_bias.x += g_v.x, k.g_bias.y += g_v.y;
    k.g_skip.x += g_y.x * u.x, k.g_skip.y += g_y.y * u.y;
    if (a.z)
        write<WIDE>(a.g_z + at(row, v.g_z_stride, p.c), by_y.x * (y.x + skip_x * u.x), by_y.y * (y.y + skip_y * u.y), p, more);
    write<WIDE>(a.g_dt + at(row, v.g_dt_stride, p.c), g_v.x, g_v.y, p, more);
    write<WIDE>(a.g_u + at(row, v.g_u_stride, p.c), g_y.x * skip_x + moves.x * by_B.x, g_y.y * skip_y + moves.z * by_B.y, p,
                more);
}

// The block's share of g_B and g_C of a chunk.
__device__ static inline void write_bc(const room &m, const scan_back &v, const place &p, unsigned chunk)
{
    const unsigned N = v.d_state;
    float *parts = v.a.g_bc_parts + (size_t)blockIdx.x * v.n_tokens * 2 * N;
#pragma unroll
    for (unsigned i = threadIdx.x; i < CHUNK * 2 * STATES; i += THREADS) {
        const unsigned t = i / 32, j = i % 32;
        const unsigned row = chunk * CHUNK + t, n = v.first_state + j % STATES;
        float sum = m.g_bc[chunk % 2][0][t][j];
#pragma unroll
        for (int w = 1; w < WARPS; w++) sum += m.g_bc[chunk % 2][w][t][j];
        if (holds(p, row) && n < N) parts[at(row, 2 * N, j < STATES ? n : N + n)] = sum;
    }
}

// Replays a chunk from h[0] and goes back through it.
template <bool WIDE>
__device__ static inline void back_chunk(room &m, const scan_back &v, const place &p, channels &k, float2 (&h)[CHUNK + 1][EACH],
                                         unsigned chunk)
{
    const float(*bc)[2 * STATES] = m.bc[chunk % 2];
#pragma unroll
    for (int t = 0; t < CHUNK; t++) step(h[t + 1], h[t], k.A, bc[t], p.q, m.moves[t][p.pair]);
#pragma unroll
    for (int four = MINE - 1; four >= 0; four--) {
        token_sums sums;
#pragma unroll
        for (int j = EACH - 1; j >= 0; j--) {
            const int t = four * EACH + j;
            back_token(m.g_bc[chunk % 2][threadIdx.x / 32][t], k, sums, j, h[t], h[t + 1], bc[t], p, m.moves[t][p.pair],
                       m.g_y[t][p.pair]);
        }
        finish_token<WIDE>(m, v, p, k, sums, chunk, four);
    }
}

template <bool WIDE> __device__ static void back_sequence(room &m, const scan_back &v, const place &p, channels &k, size_t seq)
{
    const unsigned first = p.first / CHUNK, last = (p.end - 1) / CHUNK;
    __syncthreads(); // the walk forward is done with B, and what it kept is there
    fetch_back<WIDE>(m, v, p, last);
#pragma unroll
    for (int i = 0; i < EACH; i++) k.carry[i] = read_state(v.a.g_h, v, p, seq, i);
    for (unsigned chunk = last + 1; chunk-- > first;) {
        float2 h[CHUNK + 1][EACH];
        fetched();
        share_back(m, v, p, chunk, k.bias);
#pragma unroll
        for (int i = 0; i < EACH; i++) h[0][i] = chunk == first ? read_state(v.a.h, v, p, seq, i) : m.state[i][threadIdx.x];
        __syncthreads(); // B and C are there, and g_B and g_C of the chunk after
        if (chunk < last) write_bc(m, v, p, chunk + 1);
        if (chunk > first) fetch_back<WIDE>(m, v, p, chunk - 1);
        back_chunk<WIDE>(m, v, p, k, h, chunk);
        __syncwarp(); // before the moves of the chunk before
    }
    __syncthreads();
    write_bc(m, v, p, first);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float *at = state_at(v.a.g_h, v, p, seq, i);
        if (at) write_pair<false>(at, k.carry[i], p);
    }
}

// The lanes' tokens together, in the order of lanes.
__device__ static inline float2 join_lanes(float2 v)
{
    v.x += pass(v.x, 8), v.y += pass(v.y, 8);
    v.x += pass(v.x, 16), v.y += pass(v.y, 16);
    return v;
}

// Block (x, y): channels of x, sequences y, y + walks, ...
template <bool WIDE> __global__ void __launch_bounds__(THREADS, 4) scan_back_blocks(scan_back v)
{
    __shared__ __align__(16) room m;
    const fm_scan_back_args &a = v.a;
    const float2 zero = make_float2(0.0f, 0.0f);
    place p;
    p.q = threadIdx.x / 8 % EACH;
    p.pair = threadIdx.x / 32 * 8 + threadIdx.x % 8;
    p.c = blockIdx.x * CHANNELS + 2 * p.pair;
    p.live = p.c + 1 < v.d_inner ? 2 : p.c < v.d_inner;
    channels k;
    k.bias = a.dt_bias ? read_pair<false>(a.dt_bias + p.c, p) : zero;
    k.skip = read_pair<false>(a.skip + p.c, p);
    k.g_bias = k.g_skip = zero;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const size_t n = v.first_state + EACH * p.q + i;
        const float2 A = n < v.d_state ? read_pair<false>(a.A + n * a.d_inner + p.c, p) : zero;
        k.A[i] = make_float2(A.x * 1.44269504089f, A.y * 1.44269504089f);
        k.g_A[i] = zero;
    }
    for (size_t seq = blockIdx.y; seq < v.n_seq; seq += gridDim.y) {
        p.first = (unsigned)v.begin[seq], p.end = (unsigned)v.begin[seq + 1];
        if (p.first == p.end) continue;
        keep_states<WIDE>(m, v, p, seq, k.A, k.bias);
        back_sequence<WIDE>(m, v, p, k, seq);
        __syncthreads(); // before the next sequence takes the room
    }
    const float2 g_bias = join_lanes(k.g_bias), g_skip = join_lanes(k.g_skip);
    float *sums = v.sums + (size_t)blockIdx.y * SUMS * a.d_inner + p.c;
#pragma unroll
    for (int i = 0; i < EACH; i++) write_pair<false>(sums + (EACH * p.q + i) * a.d_inner, k.g_A[i], p);
    if (p.q != 0) return;
    write_pair<false>(sums + STATES * a.d_inner, g_bias, p);
    write_pair<false>(sums + (STATES + 1) * a.d_inner, g_skip, p);
}

// ---- Launches ----

static size_t most_walks(size_t d_inner)
{
    const size_t warps = (d_inner + 31) / 32, walks = WALKS / warps;
    return walks < 16 ? 16 : walks;
}

static size_t scan_back_floats(size_t n_tokens, size_t d_inner, size_t d_state)
{
    (void)d_state;
    return ((n_tokens / CHUNK + 1) * STATES + most_walks(d_inner) * SUMS) * d_inner;
}

static void add_sums(fm_stream *s, const scan_back *v, float *out, size_t at, size_t rows, size_t walks)
{
    const size_t I = v->a.d_inner, d = rows * I;
    if (!out || d == 0) return;
    fm_sum_columns<<<fm_blocks(d, FM_SUM_LANES), dim3(FM_SUM_LANES, FM_SUM_ROWS), 0, s->stream>>>(
        out, (float *)NULL, fm_plain_rows{v->sums + at * I, SUMS * I}, walks, d, walks);
    FM_LAUNCHED(s, "scan_back");
}

static bool pairs_are_aligned(const fm_scan_back_args *a)
{
    const uintptr_t p = (uintptr_t)a->g_u | (uintptr_t)a->g_dt | (uintptr_t)a->g_z | (uintptr_t)a->g | (uintptr_t)a->u |
                        (uintptr_t)a->dt | (uintptr_t)a->z | (uintptr_t)a->scratch;
    const size_t strides =
        a->g_u_stride | a->g_dt_stride | a->g_z_stride | a->g_stride | a->u_stride | a->dt_stride | a->z_stride;
    return p % sizeof(float2) == 0 && strides % 2 == 0 && a->d_inner % 2 == 0;
}

static scan_back describe(const fm_scan_back_args *a)
{
    scan_back v = {};
    v.a = *a;
    v.begin = a->ragged->begin;
    v.n_seq = a->ragged->n_seq;
    v.n_tokens = a->ragged->n_tokens;
    v.d_inner = (unsigned)a->d_inner, v.d_state = (unsigned)a->d_state;
    v.g_u_stride = (unsigned)a->g_u_stride, v.g_dt_stride = (unsigned)a->g_dt_stride, v.g_z_stride = (unsigned)a->g_z_stride;
    v.g_stride = (unsigned)a->g_stride, v.u_stride = (unsigned)a->u_stride, v.dt_stride = (unsigned)a->dt_stride;
    v.z_stride = (unsigned)a->z_stride, v.bc_stride = (unsigned)a->bc_stride;
    v.kept = a->scratch;
    v.sums = v.kept + (v.n_tokens / CHUNK + 1) * STATES * a->d_inner;
    return v;
}

// Row numbers times STATES / CHUNK, and strides, are 32 bits in the kernel.
static bool fits(const fm_scan_back_args *a)
{
    const size_t strides = a->g_u_stride | a->g_dt_stride | a->g_z_stride | a->g_stride | a->u_stride | a->dt_stride |
                           a->z_stride | a->bc_stride | a->d_inner | a->ragged->n_tokens;
    return strides < (size_t)1 << 30;
}

static void scan_back_entry(const fm_run *run, const fm_scan_back_args *a)
{
    fm_stream *s = run->stream;
    const size_t I = a->d_inner, most = most_walks(I), walks = a->ragged->n_seq < most ? a->ragged->n_seq : most;
    if (a->ragged->n_tokens == 0 || I == 0) return;
    if (!fits(a)) {
        fm_cuda_note(s, cudaErrorInvalidValue, "scan_back: a step of 2^30 tokens or channels; take fewer tokens a step");
        return;
    }
    scan_back v = describe(a);
    const dim3 blocks(fm_blocks(I, CHANNELS), (unsigned)walks);
    for (size_t n = 0; n < a->d_state; n += STATES) {
        v.first_state = (unsigned)n;
        if (pairs_are_aligned(a))
            scan_back_blocks<true><<<blocks, THREADS, 0, s->stream>>>(v);
        else
            scan_back_blocks<false><<<blocks, THREADS, 0, s->stream>>>(v);
        FM_LAUNCHED(s, "scan_back");
        add_sums(s, &v, a->g_A ? a->g_A + n * I : NULL, 0, a->d_state - n < STATES ? a->d_state - n : (size_t)STATES, walks);
        add_sums(s, &v, a->g_dt_bias, STATES, 1, walks);
        add_sums(s, &v, n == 0 ? a->g_skip : NULL, STATES + 1, 1, walks);
    }
}

extern "C" void fm_cuda_fill_back_scan(fm_kernels *k)
{
    k->scan_back = scan_back_entry;
    k->scan_back_floats = scan_back_floats;
}
