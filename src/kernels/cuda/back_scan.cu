// back_scan.cu - backward of the selective scan (ref/scan.c; spec falcon-mamba.md 8): a lane takes four states of two channels.
//
// A block owns FM_CHANNEL_GRANULE channels.  Unless the scan kept the state at every CHUNK tokens in memory, it walks a sequence
// forward once and does so; then it walks the chunks from the last to the first: each is replayed with its states in registers, and gone back through.  Chunks
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
#include "kernels/cuda/back_scan.cuh"

enum {
    MINE = CHUNK / EACH, // tokens of a chunk whose own numbers a lane works out
    WALKS = 4096,        // times 32 channels: what fills the largest of devices
    WAVE = 384           // blocks that it runs three to a multiprocessor; joined walks are no more, see most_walks()
};

enum { U, DT, G, Z, INPUTS };
enum { OWN_U, BY_Y, BY_V, OWN }; // what a lane needs of its own tokens when their sums come

struct room {
    float bc[2][CHUNK][2 * STATES];              // B | C of this chunk and the next
    float g_bc[2][2 * WARPS][CHUNK][2 * STATES]; // g_B | g_C of each warp's channels, or of each half of them (GROUPS)
    float4 moves[CHUNK][PAIRS];                  // delta, delta u of both channels; each warp its own
    float2 g_y[CHUNK][PAIRS];
    float2 in[INPUTS][MINE]
             [THREADS];             // each thread reads what it fetched itself: floats, or a pair of bf16 in the first of them
    float2 state[EACH][THREADS];    // at the chunk's begin; the same
    float2 own[OWN][MINE][THREADS]; // the same
};

// What a thread knows about its place.
struct place {
    unsigned c;          // the first of its two channels
    unsigned live;       // how many of them exist
    unsigned q;          // which lane of them: states 4 q .., and tokens q, q + 4 of a chunk
    unsigned pair;       // in the block
    unsigned first, end; // rows of the sequence
};

__device__ static inline bool holds(const place &p, unsigned row)
{
    return row >= p.first && row < p.end;
}

// ---- Reading: pairs that lie anywhere, or in aligned places, or are of bf16 (and aligned).  States are f32 always ----

enum { ANYWHERE, ALIGNED, HALVES };

__host__ __device__ static constexpr bool is_half(int pairs_are)
{
    return pairs_are == HALVES;
}

// How pairs of f32 lie where those of the rows lie so.
__host__ __device__ static constexpr int floats(int pairs_are)
{
    return pairs_are == ANYWHERE ? ANYWHERE : ALIGNED;
}

template <int BYTES> __device__ static inline void fetch(void *to, const float *from, bool in)
{
    const unsigned bytes = in ? BYTES : 0, at = (unsigned)__cvta_generic_to_shared(to); // the rest is filled with zeros
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(bytes) : "memory");
}

// The pair at x in a row of rows; its channel's place is what at() adds to the row's.
template <int PAIRS_ARE> __device__ static inline float *pair_at(const float *x, unsigned row, unsigned stride, const place &p)
{
    return (float *)((char *)x + at(row, stride, p.c * (is_half(PAIRS_ARE) ? 2 : 4)));
}

// x[0], x[1] of the two channels, or zeros; where nothing is wanted x may be anything.
template <int PAIRS_ARE> __device__ static inline void fetch_pair(float2 *to, const float *x, const place &p, bool in)
{
    if (is_half(PAIRS_ARE)) {
        fetch<4>(to, x, in && p.live);
    } else if (PAIRS_ARE == ALIGNED) {
        fetch<8>(to, x, in && p.live);
    } else {
        fetch<4>(&to->x, x, in && p.live);
        fetch<4>(&to->y, x + 1, in && p.live > 1);
    }
}

__device__ static inline void fetched()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// What fetch_pair brought.
template <int PAIRS_ARE> __device__ static inline float2 fetched_pair(const float2 &from)
{
    return is_half(PAIRS_ARE) ? widened(*(const unsigned *)&from) : from;
}

template <int PAIRS_ARE> __device__ static inline float2 read_pair(const float *x, const place &p)
{
    if (!p.live) return make_float2(0.0f, 0.0f);
    if (is_half(PAIRS_ARE)) return widened(*(const unsigned *)x);
    if (PAIRS_ARE == ALIGNED) return *(const float2 *)x;
    return make_float2(x[0], p.live > 1 ? x[1] : 0.0f);
}

template <int PAIRS_ARE> __device__ static inline void write_pair(float *x, float2 v, const place &p)
{
    if (!p.live) return;
    if (is_half(PAIRS_ARE))
        *(__nv_bfloat162 *)x = __floats2bfloat162_rn(v.x, v.y);
    else if (PAIRS_ARE == ALIGNED)
        *(float2 *)x = v;
    else
        x[0] = v.x;
    if (PAIRS_ARE == ANYWHERE && p.live > 1) x[1] = v.y;
}

// B and C of a chunk, by the whole block; states that do not exist are 0.
template <int PAIRS_ARE> __device__ static inline void fetch_bc(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    const unsigned j = threadIdx.x % 32, n = v.first_state + j % STATES;
    const float *from = (j < STATES ? v.a.B : v.a.C) + n;
#pragma unroll
    for (unsigned i = 0; i < CHUNK / WARPS; i++) {
        const unsigned t = threadIdx.x / 32 + i * WARPS, row = chunk * CHUNK + t;
        fetch<4>(&m.bc[chunk % 2][t][j], (const float *)((const char *)from + at(row, v.bc_stride, 0)),
                 holds(p, row) && n < v.d_state);
    }
}

template <int PAIRS_ARE>
__device__ static inline void fetch_input(room &m, const place &p, unsigned chunk, int which, const float *x, unsigned stride)
{
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const unsigned row = chunk * CHUNK + j * EACH + p.q;
        fetch_pair<PAIRS_ARE>(&m.in[which][j][threadIdx.x], pair_at<PAIRS_ARE>(x, row, stride, p), p, holds(p, row));
    }
}

template <int PAIRS_ARE>
__device__ static inline void fetch_forward(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    fetch_bc<PAIRS_ARE>(m, v, p, chunk);
    fetch_input<PAIRS_ARE>(m, p, chunk, U, v.a.u, v.u_stride);
    fetch_input<PAIRS_ARE>(m, p, chunk, DT, v.a.dt, v.dt_stride);
}

__device__ static inline float *kept_at(const scan_back &v, const place &p, unsigned chunk, int i)
{
    return v.kept + at(chunk * STATES + EACH * p.q + i, v.d_inner, p.c);
}

template <int PAIRS_ARE> __device__ static inline void fetch_back(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    fetch_forward<PAIRS_ARE>(m, v, p, chunk);
    fetch_input<PAIRS_ARE>(m, p, chunk, G, v.a.g, v.g_stride);
    if (v.a.z) fetch_input<PAIRS_ARE>(m, p, chunk, Z, v.a.z, v.z_stride);
    if (chunk > p.first / CHUNK)
#pragma unroll
        for (int i = 0; i < EACH; i++)
            fetch_pair<floats(PAIRS_ARE)>(&m.state[i][threadIdx.x], kept_at(v, p, chunk, i), p, true);
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
    return at ? read_pair<ANYWHERE>(at, p) : make_float2(0.0f, 0.0f);
}

// ---- Arithmetic ----

// h after a token from h before it; A in units of log2; moves: delta, delta u of both channels.
__device__ static inline void step(float2 *after, const float2 *before, const float2 *A, const float *bc, unsigned q,
                                   float4 moves)
{
    const float4 b = ((const float4 *)bc)[q];
    const float B[EACH] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float2 decay = decay_by(make_float2(moves.x, moves.z), A[i]);
        after[i].x = decay.x * before[i].x + moves.y * B[i];
        after[i].y = decay.y * before[i].y + moves.w * B[i];
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

// The same by tensor cores, which take the first 11 bits of what they add.  The pairs of a warp's lanes 4 i .. 4 i + 3 are four of
// one q: an mma sums two numbers over each such quad, into rows i and i + 8 of the column that its right side names.  Numbers k and
// k + 4 take column k, so that lane 4 i + t has numbers 2 t, 2 t + 1, 2 t + 4 and 2 t + 5 of quad i when t < 2.
__device__ static inline void sum_quads(float *v)
{
    const unsigned i = threadIdx.x % 32 / 4;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (unsigned k = 0; k < 4; k++)
        asm("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(__float_as_uint(v[k])), "r"(__float_as_uint(v[k + 4])), "r"(i == k ? 0x3f800000u : 0u));
    v[0] = sum[0], v[1] = sum[1], v[2] = sum[2], v[3] = sum[3];
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
    float2 slope;
    return in ? make_float2(softplus(dt.x + bias.x, &slope.x), softplus(dt.y + bias.y, &slope.y)) : make_float2(0.0f, 0.0f);
}

template <int PAIRS_ARE> __device__ static inline void share_forward(room &m, const place &p, unsigned chunk, float2 bias)
{
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const unsigned t = j * EACH + p.q;
        const float2 u = fetched_pair<PAIRS_ARE>(m.in[U][j][threadIdx.x]);
        const float2 delta = delta_of(fetched_pair<PAIRS_ARE>(m.in[DT][j][threadIdx.x]), bias, holds(p, chunk * CHUNK + t));
        m.moves[t][p.pair] = make_float4(delta.x, delta.x * u.x, delta.y, delta.y * u.y);
    }
}

template <int PAIRS_ARE>
__device__ static void keep_states(room &m, const scan_back &v, const place &p, size_t seq, const float2 *A, float2 bias)
{
    const unsigned first = p.first / CHUNK, last = (p.end - 1) / CHUNK;
    float2 h[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) h[i] = read_state(v.a.h, v, p, seq, i);
    if (first < last) fetch_forward<PAIRS_ARE>(m, v, p, first);
    for (unsigned chunk = first; chunk < last; chunk++) {
        fetched();
        share_forward<PAIRS_ARE>(m, p, chunk, bias);
        __syncthreads();
        if (chunk + 1 < last) fetch_forward<PAIRS_ARE>(m, v, p, chunk + 1);
#pragma unroll
        for (int t = 0; t < CHUNK; t++) step(h, h, A, m.bc[chunk % 2][t], p.q, m.moves[t][p.pair]);
#pragma unroll
        for (int i = 0; i < EACH; i++) write_pair<floats(PAIRS_ARE)>(kept_at(v, p, chunk + 1, i), h[i], p);
        __syncwarp(); // before the moves of the next chunk
    }
}

// ---- Backward ----

// What a lane carries from one token to the one before, and sums over all.
struct channels {
    float2 A[EACH], carry[EACH], g_A[EACH]; // A in units of log2; carry: decay x lambda of the token after
    float2 bias, skip, g_bias, g_skip;
};

// Works out the lane's own tokens, without a branch, so that what one of them waits for the others fill.  What is outside the
// sequence was fetched as zeros, and moves no sum.
template <int PAIRS_ARE>
__device__ static inline void share_back(room &m, const scan_back &v, const place &p, unsigned chunk, float2 bias)
{
    const unsigned me = threadIdx.x;
#pragma unroll
    for (int j = 0; j < MINE; j++) {
        const unsigned t = j * EACH + p.q;
        const float2 u = fetched_pair<PAIRS_ARE>(m.in[U][j][me]), dt = fetched_pair<PAIRS_ARE>(m.in[DT][j][me]),
                     g = fetched_pair<PAIRS_ARE>(m.in[G][j][me]);
        const float in = holds(p, chunk * CHUNK + t) ? 1.0f : 0.0f;
        float2 g_y = g, by_y = g, by_v;
        const float x = in * softplus(dt.x + bias.x, &by_v.x), y = in * softplus(dt.y + bias.y, &by_v.y);
        if (v.a.z) {
            const float2 z = fetched_pair<PAIRS_ARE>(m.in[Z][j][me]);
            by_y = make_float2(gate(z.x, g.x, &g_y.x), gate(z.y, g.y, &g_y.y));
        }
        m.moves[t][p.pair] = make_float4(x, x * u.x, y, y * u.y);
        m.g_y[t][p.pair] = g_y;
        m.own[OWN_U][j][me] = u;
        m.own[BY_Y][j][me] = by_y;
        m.own[BY_V][j][me] = make_float2(in * by_v.x, in * by_v.y);
    }
}

// Who has a sum of g_bc of his own: a warp, or each of its quads' halves, which are the second of them WARPS further on.
enum { HALF = WARPS * CHUNK * 2 * STATES };

// The sums over states of four tokens, this lane's part.
struct token_sums {
    float2 y[EACH], by_B[EACH], by_A[EACH];
};

// Goes back through a token, the j-th of four; the warp's share of g_B | g_C goes to g_bc.
template <int PAIRS_ARE>
__device__ static inline void back_token(float *g_bc, channels &k, token_sums &sums, int j, const float2 *before,
                                         const float2 *after, const float *bc, const place &p, float4 moves, float2 g_y)
{
    const float4 b4 = ((const float4 *)bc)[p.q], c4 = ((const float4 *)bc)[EACH + p.q];
    const float B[EACH] = {b4.x, b4.y, b4.z, b4.w}, C[EACH] = {c4.x, c4.y, c4.z, c4.w};
    float v[2 * EACH];
    sums.y[j] = sums.by_B[j] = sums.by_A[j] = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float2 decay = decay_by(make_float2(moves.x, moves.z), k.A[i]);
        const float x = back_state(k.carry[i].x, k.g_A[i].x, sums.y[j].x, sums.by_B[j].x, sums.by_A[j].x, k.A[i].x, B[i], C[i],
                                   decay.x, before[i].x, after[i].x, moves.x, g_y.x);
        const float y = back_state(k.carry[i].y, k.g_A[i].y, sums.y[j].y, sums.by_B[j].y, sums.by_A[j].y, k.A[i].y, B[i], C[i],
                                   decay.y, before[i].y, after[i].y, moves.z, g_y.y);
        v[i] = x * moves.y + y * moves.w;
        v[EACH + i] = g_y.x * after[i].x + g_y.y * after[i].y;
    }
    // Numbers 0 .. 3 are of g_B, 4 .. 7 of g_C.
    const unsigned lane = threadIdx.x % 32, pair = lane % 8, t = lane % 4;
    if (is_half(PAIRS_ARE)) {
        sum_quads(v);
        float *to = g_bc + lane / 4 % 2 * HALF + lane / 8 * EACH + 2 * t;
        if (t < 2) *(float2 *)to = make_float2(v[0], v[1]), *(float2 *)(to + STATES) = make_float2(v[2], v[3]);
    } else {
        g_bc[pair / EACH * STATES + EACH * p.q + pair % EACH] = sum_pairs(v, pair);
    }
}

// `more`: the states before these have written theirs.
template <int PAIRS_ARE> __device__ static inline void write(float *to, float x, float y, const place &p, bool in, bool more)
{
    if (!in) return;
    const float2 old = more ? read_pair<PAIRS_ARE>(to, p) : make_float2(0.0f, 0.0f);
    write_pair<PAIRS_ARE>(to, make_float2(old.x + x, old.y + y), p);
}

// Writes what the inputs of the lane's own of four tokens get.
template <int PAIRS_ARE>
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
    const float skip_x = more ? 0.0f : k.skip.x, skip_y = more ? 0.0f : k.skip.y;
    const float2 g_v =
        make_float2((by_A.x * 0.69314718056f + by_B.x * u.x) * by_v.x, (by_A.y * 0.69314718056f + by_B.y * u.y) * by_v.y);
    k.g_bias.x += g_v.x, k.g_bias.y += g_v.y;
    k.g_skip.x += g_y.x * u.x, k.g_skip.y += g_y.y * u.y;
    const bool in = holds(p, row);
    if (a.z)
        write<PAIRS_ARE>(pair_at<PAIRS_ARE>(a.g_z, row, v.g_z_stride, p), by_y.x * (y.x + skip_x * u.x),
                         by_y.y * (y.y + skip_y * u.y), p, in, more);
    write<PAIRS_ARE>(pair_at<PAIRS_ARE>(a.g_dt, row, v.g_dt_stride, p), g_v.x, g_v.y, p, in, more);
    write<PAIRS_ARE>(pair_at<PAIRS_ARE>(a.g_u, row, v.g_u_stride, p), g_y.x * skip_x + moves.x * by_B.x,
                     g_y.y * skip_y + moves.z * by_B.y, p, in, more);
}

// The block's share of g_B and g_C of a chunk.
template <int PAIRS_ARE>
__device__ static inline void write_bc(const room &m, const scan_back &v, const place &p, unsigned chunk)
{
    const unsigned N = v.d_state, j = threadIdx.x % 32;
    const unsigned n = v.first_state + j % STATES;
    float *parts = v.a.g_bc_parts + (size_t)blockIdx.x * v.n_tokens * 2 * N + (j < STATES ? n : N + n);
#pragma unroll
    for (unsigned i = 0; i < CHUNK / WARPS; i++) {
        const unsigned t = threadIdx.x / 32 + i * WARPS, row = chunk * CHUNK + t;
        float sum = m.g_bc[chunk % 2][0][t][j];
#pragma unroll
        for (int w = 1; w < (is_half(PAIRS_ARE) ? 2 * WARPS : WARPS); w++) sum += m.g_bc[chunk % 2][w][t][j];
        if (holds(p, row) && n < v.d_state) parts[at(row, 2 * N, 0)] = sum;
    }
}

// Replays a chunk from h[0] and goes back through it.
template <int PAIRS_ARE>
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
            back_token<PAIRS_ARE>(m.g_bc[chunk % 2][threadIdx.x / 32][t], k, sums, j, h[t], h[t + 1], bc[t], p,
                                  m.moves[t][p.pair], m.g_y[t][p.pair]);
        }
        finish_token<PAIRS_ARE>(m, v, p, k, sums, chunk, four);
    }
}

template <int PAIRS_ARE>
__device__ static void back_sequence(room &m, const scan_back &v, const place &p, channels &k, size_t seq)
{
    const unsigned first = p.first / CHUNK, last = (p.end - 1) / CHUNK;
    __syncthreads(); // the walk forward is done with B, and what it kept is there
    fetch_back<PAIRS_ARE>(m, v, p, last);
#pragma unroll
    for (int i = 0; i < EACH; i++) k.carry[i] = read_state(v.a.g_h, v, p, seq, i);
    for (unsigned chunk = last + 1; chunk-- > first;) {
        float2 h[CHUNK + 1][EACH];
        fetched();
        share_back<PAIRS_ARE>(m, v, p, chunk, k.bias);
#pragma unroll
        for (int i = 0; i < EACH; i++) h[0][i] = chunk == first ? read_state(v.a.h, v, p, seq, i) : m.state[i][threadIdx.x];
        __syncthreads(); // B and C are there, and g_B and g_C of the chunk after
        if (chunk < last) write_bc<PAIRS_ARE>(m, v, p, chunk + 1);
        if (chunk > first) fetch_back<PAIRS_ARE>(m, v, p, chunk - 1);
        back_chunk<PAIRS_ARE>(m, v, p, k, h, chunk);
        __syncwarp(); // before the moves of the chunk before
    }
    __syncthreads();
    write_bc<PAIRS_ARE>(m, v, p, first);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float *at = state_at(v.a.g_h, v, p, seq, i);
        if (at) write_pair<ANYWHERE>(at, k.carry[i], p);
    }
}

// The lanes' tokens together, in the order of lanes.
__device__ static inline float2 join_lanes(float2 v)
{
    v.x += pass(v.x, 8), v.y += pass(v.y, 8);
    v.x += pass(v.x, 16), v.y += pass(v.y, 16);
    return v;
}

// Block (x, y): channels of x, sequences of walk y.
template <int PAIRS_ARE> __global__ void __launch_bounds__(THREADS, 4) scan_back_blocks(scan_back v)
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
    k.bias = a.dt_bias ? read_pair<ANYWHERE>(a.dt_bias + p.c, p) : zero;
    k.skip = read_pair<ANYWHERE>(a.skip + p.c, p);
    k.g_bias = k.g_skip = zero;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const unsigned n = v.first_state + EACH * p.q + i;
        const float2 A = n < v.d_state ? read_pair<ANYWHERE>(a.A + n * a.d_inner + p.c, p) : zero;
        k.A[i] = make_float2(A.x * 1.44269504089f, A.y * 1.44269504089f);
        k.g_A[i] = zero;
    }
    const fm_walk w = walk_of(v);
    for (size_t seq = w.first; seq < w.end; seq += w.step) {
        p.first = (unsigned)v.begin[seq], p.end = (unsigned)v.begin[seq + 1];
        if (p.first == p.end) continue;
        if (!a.kept) keep_states<PAIRS_ARE>(m, v, p, seq, k.A, k.bias);
        back_sequence<PAIRS_ARE>(m, v, p, k, seq);
        __syncthreads(); // before the next sequence takes the room
    }
    const float2 g_bias = join_lanes(k.g_bias), g_skip = join_lanes(k.g_skip);
    float *sums = v.sums + (size_t)blockIdx.y * SUMS * a.d_inner + p.c;
#pragma unroll
    for (int i = 0; i < EACH; i++) write_pair<ANYWHERE>(sums + (EACH * p.q + i) * a.d_inner, k.g_A[i], p);
    if (p.q != 0) return;
    write_pair<ANYWHERE>(sums + STATES * a.d_inner, g_bias, p);
    write_pair<ANYWHERE>(sums + (STATES + 1) * a.d_inner, g_skip, p);
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
    const size_t I = v->a.d_inner;
    fm_add_parts(s, out, v->sums + at * I, walks, SUMS * I, rows * I, "scan_back");
}

// How pairs lie; -1: halves where none can.
static int pairs_of(const fm_scan_back_args *a)
{
    const uintptr_t p = (uintptr_t)a->g_u | (uintptr_t)a->g_dt | (uintptr_t)a->g_z | (uintptr_t)a->g | (uintptr_t)a->u |
                        (uintptr_t)a->dt | (uintptr_t)a->z;
    const size_t strides =
        a->g_u_stride | a->g_dt_stride | a->g_z_stride | a->g_stride | a->u_stride | a->dt_stride | a->z_stride | a->d_inner;
    const size_t pair = a->half ? sizeof(__nv_bfloat162) : sizeof(float2);
    const bool aligned = p % pair == 0 && (uintptr_t)a->scratch % sizeof(float2) == 0 && strides % 2 == 0;
    if (!a->half) return aligned ? ALIGNED : ANYWHERE;
    return !aligned ? -1 : HALVES;
}

static scan_back describe(const fm_scan_back_args *a)
{
    scan_back v = {};
    v.a = *a;
    v.begin = a->ragged->begin;
    v.n_seq = a->ragged->n_seq;
    v.n_tokens = a->ragged->n_tokens;
    v.d_inner = (unsigned)a->d_inner, v.d_state = (unsigned)a->d_state;
    const unsigned size = a->half ? sizeof(__nv_bfloat16) : sizeof(float);
    v.g_u_stride = (unsigned)a->g_u_stride * size, v.g_dt_stride = (unsigned)a->g_dt_stride * size;
    v.g_z_stride = (unsigned)a->g_z_stride * size, v.g_stride = (unsigned)a->g_stride * size;
    v.u_stride = (unsigned)a->u_stride * size, v.dt_stride = (unsigned)a->dt_stride * size;
    v.z_stride = (unsigned)a->z_stride * size, v.bc_stride = (unsigned)(a->bc_stride * sizeof(float));
    static_assert((int)CHUNK == (int)FM_KEPT_ROWS && (int)STATES == (int)FM_KEPT_STATES,
                  "what a scan keeps is what is walked from");
    v.kept = a->kept ? (float *)a->kept : a->scratch; // which is written only where nothing was kept
    v.sums = a->scratch + (v.n_tokens / CHUNK + 1) * STATES * a->d_inner;
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
    const size_t I = a->d_inner, most = most_walks(I);
    if (a->ragged->n_tokens == 0 || I == 0) return;
    const int pairs = pairs_of(a);
    if (!fits(a) || pairs < 0) {
        fm_cuda_note(s, cudaErrorInvalidValue,
                     pairs < 0 ? "scan_back: rows of bf16 want pairs of channels in aligned places"
                               : "scan_back: a step of 2^30 tokens or channels; take fewer tokens a step");
        return;
    }
    scan_back v = describe(a);
    v.walk_rows = fm_walk_rows(a->ragged, fm_blocks(I, CHANNELS), WAVE);
    const size_t all = fm_walks(a->ragged, v.walk_rows), walks = all < most ? all : most;
    const dim3 blocks(fm_blocks(I, CHANNELS), (unsigned)walks);
    for (size_t first = 0; first < a->d_state; first += STATES) {
        const size_t states = a->d_state - first < STATES ? a->d_state - first : (size_t)STATES;
        v.first_state = (unsigned)first;
        if (fm_cuda_walk_fits(a))
            fm_cuda_walk(s, &v, blocks);
        else if (pairs == HALVES)
            scan_back_blocks<HALVES><<<blocks, THREADS, 0, s->stream>>>(v);
        else if (pairs == ALIGNED)
            scan_back_blocks<ALIGNED><<<blocks, THREADS, 0, s->stream>>>(v);
        else
            scan_back_blocks<ANYWHERE><<<blocks, THREADS, 0, s->stream>>>(v);
        FM_LAUNCHED(s, "scan_back");
        add_sums(s, &v, a->g_A ? a->g_A + first * I : NULL, 0, states, walks);
        add_sums(s, &v, a->g_dt_bias, STATES, 1, walks);
        add_sums(s, &v, first == 0 ? a->g_skip : NULL, STATES + 1, 1, walks);
    }
}

extern "C" void fm_cuda_fill_back_scan(fm_kernels *k)
{
    k->scan_back = scan_back_entry;
    k->scan_back_floats = scan_back_floats;
}
