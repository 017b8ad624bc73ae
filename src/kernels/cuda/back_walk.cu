// back_walk.cu - backward of the scan as training has it: rows of bf16 with a gate, 16 states a channel, states kept by the forward.
//
// The walk is back_scan.cu's; this is its inner loop, and what feeds it, without what other shapes ask for.  A warp has 16 channels, a
// lane four states of two of them: lane = pair % 4 + 4 q + 16 (pair / 4), states 4 q ...  A warp reads the rows of its own channels and
// passes through shared memory what only the lane works out whose token it is; the block meets once a chunk, for B and C and for the
// sums over channels.
//
// Sums over channels are products: lambda (states x channels) by delta u (channels x tokens), h by g_y.  A lane's states and channels
// are as mma.m16n8k8 wants its left side, and what a lane knows of its own token and pair is what the right side wants of it: of each
// token's product all columns but that token's are 0, so that the tokens of four add up to one matrix.
//
// Its limit is none of the units but what a warp waits for itself, with three warps a scheduler for all registers there are: fewer
// instructions and fewer readings of shared memory changed nothing, see docs/gpu-kernels.md.
#include "kernels/cuda/back_scan.cuh"

enum {
    FOUR = EACH,        // tokens whose sums are made together
    PAIRS_PER_WARP = 8, // of channels
    DECAYS = 3,         // tokens of a chunk, its last, whose decays are not worked out twice: more do not fit into registers
    PARTS = 2 * WARPS,  // of a sum over the block's channels
    UNITS = CHUNK * 2 * STATES / 4
};

enum { U, DT, G, Z, INPUTS };

struct pair_of {
    float2 delta, other; // other: delta u, or g_y
};

// What a thread fetches and writes, of chunk 0, and where to.  It waits in shared memory, since all registers are taken, each kind in a
// row of its own: side by side a thread's 64 bytes meet their neighbours' in the same banks, which made a layer 8 % slower.
struct feeds {
    ulonglong2 rows[THREADS];  // addresses of 8 channels of a row of two inputs
    ulonglong2 parts[THREADS]; // of 4 states of a row of B or C, and of 4 channels of two states
    uint4 to[THREADS];         // where the row, B or C and the two states go, of even chunks
    uint2 steps[THREADS];      // bytes to the next chunk's rows
    char *sums[THREADS];       // of the sums that the thread writes
};

struct room {
    unsigned rows[2][WARPS][INPUTS][CHUNK][PAIRS_PER_WARP]; // pairs of bf16, of this chunk and the next
    float kept[WARPS][STATES][2 * PAIRS_PER_WARP];          // the state at the chunk's begin, see kept_place()
    float bc[2][CHUNK][2 * STATES];                         // B | C, likewise of two chunks
    pair_of ahead[WARPS][CHUNK][PAIRS_PER_WARP], back[WARPS][CHUNK][PAIRS_PER_WARP];
    float2 by_y[CHUNK / FOUR][THREADS], by_v[CHUNK / FOUR][THREADS]; // each thread its own
    float4 g_bc[2][PARTS][UNITS];                                    // see store_sums()
    feeds f;
};

// What a thread knows about its place.
struct place {
    unsigned warp, q, half, pair; // half: of the warp's channels; pair: in the warp
    unsigned c;                   // the first of its two channels
    unsigned first, end;          // rows of the sequence
};

__device__ static inline bool holds(const place &p, unsigned row)
{
    return row >= p.first && row < p.end;
}

// ---- Reading ahead ----

__device__ static inline void fetch(unsigned to, const void *from, bool in)
{
    const unsigned bytes = in ? 16 : 0; // the rest is filled with zeros
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ static inline void fetched()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// States lie so that a lane's four are apart by as many rows as there are lanes of its channels, and pairs so that none of them meet
// in a bank.
__device__ static inline float *kept_place(room &m, const place &p, unsigned state, unsigned pair)
{
    return &m.kept[p.warp][state % EACH * EACH + state / EACH][(pair ^ (state / EACH & 2) * 2) * 2];
}

// Of a unit of g_B | g_C, see store_sums(): its row in a chunk, the first of two, and its first state.
struct unit {
    unsigned row, state, is_c;
};

__device__ static inline unit unit_of(unsigned i)
{
    return {i / 32 * FOUR + i / 4 % 2 * 2, i % 4 * EACH + i / 8 % 2 * 2, i / 16 % 2};
}

__device__ static void place_feed(room &m, const scan_back &v, const place &p)
{
    const unsigned me = threadIdx.x, lane = me % 32, c = p.c - 2 * p.pair, t = lane / 2 % CHUNK,
                   of_bc = p.warp * 2 + lane / 8 % 2;
    const bool second = lane / 16, is_c = lane & 4;
    const unsigned x = second ? v.dt_stride : v.u_stride, y = second ? v.z_stride : v.g_stride,
                   channel = 2 * (c + lane % 2 * 8);
    const unit of = unit_of(me % UNITS);
    const float *bc = (is_c ? v.a.C : v.a.B) + lane % 4 * 4, *kept = v.kept + at(lane / 4, v.d_inner, c + lane % 4 * 4);
    m.f.rows[me] = make_ulonglong2((size_t)(second ? v.a.dt : v.a.u) + at(t, x, channel),
                                   (size_t)(second ? v.a.z : v.a.g) + at(t, y, channel));
    m.f.parts[me] = make_ulonglong2((size_t)bc + at(of_bc, v.bc_stride, 0), (size_t)kept);
    m.f.steps[me] = make_uint2(CHUNK * x, CHUNK * y);
    m.f.to[me] = make_uint4(
        shared_address(&m.rows[0][p.warp][second][t][lane % 2 * 4]), shared_address(&m.bc[0][of_bc][lane % 8 * 4]),
        shared_address(kept_place(m, p, lane / 4, lane % 4 * 2)), shared_address(kept_place(m, p, lane / 4 + 8, lane % 4 * 2)));
    m.f.sums[me] =
        (char *)(v.a.g_bc_parts + ((size_t)blockIdx.x * v.n_tokens + of.row) * (2 * STATES) + of.is_c * STATES + of.state);
}

// A chunk that the sequence begins in has no kept state: what lies there is fetched and not looked at.
__device__ static inline void fetch_all(room &m, const scan_back &v, const place &p, unsigned chunk)
{
    const unsigned me = threadIdx.x, lane = me % 32, odd = chunk % 2, row = chunk * CHUNK, states = 4 * v.d_inner;
    const ulonglong2 rows = m.f.rows[me], parts = m.f.parts[me];
    const uint4 to = m.f.to[me];
    const uint2 steps = m.f.steps[me];
    const bool in = holds(p, row + lane / 2 % CHUNK), in_bc = holds(p, row + p.warp * 2 + lane / 8 % 2);
    const size_t x = rows.x + (size_t)chunk * steps.x, y = rows.y + (size_t)chunk * steps.y,
                 bc = parts.x + (size_t)chunk * (CHUNK * v.bc_stride), kept = parts.y + (size_t)chunk * (STATES * states),
                 too = kept + (size_t)8 * states;
    const unsigned rows_to = to.x + odd * (unsigned)sizeof m.rows[0];
    fetch(rows_to, (const void *)x, in);
    fetch(rows_to + (unsigned)(G * sizeof m.rows[0][0][0]), (const void *)y, in);
    fetch(to.z, (const void *)kept, true);
    fetch(to.w, (const void *)too, true);
    if (lane < 16) fetch(to.y + odd * (unsigned)sizeof m.bc[0], (const void *)bc, in_bc);
}

// Where a state of the two channels lies in a matrix of states; NULL: it does not exist.
__device__ static inline float *state_at(const fm_states &s, const scan_back &v, const place &p, size_t seq, int i)
{
    return !s.list && !s.rows ? NULL : fm_cuda_state(s, seq) + at(EACH * p.q + i, v.d_inner, p.c);
}

__device__ static inline float2 read_state(const fm_states &s, const scan_back &v, const place &p, size_t seq, int i)
{
    const float *x = state_at(s, v, p, seq, i); // which may lie on 4 bytes
    return x ? make_float2(x[0], x[1]) : make_float2(0.0f, 0.0f);
}

// ---- What is one number a token and channel, worked out by the lane whose token it is ----

__device__ static inline float2 row_pair(const room &m, const place &p, unsigned chunk, int input, unsigned t)
{
    return widened(m.rows[chunk % 2][p.warp][input][t][p.pair]);
}

// Of one token, and what goes to its place.
struct shared_token {
    float2 u, dt, g, z, delta, g_y, by_y, by_v;
};

__device__ static inline void read_token(shared_token &s, const room &m, const place &p, unsigned chunk, unsigned t)
{
    s.u = row_pair(m, p, chunk, U, t), s.dt = row_pair(m, p, chunk, DT, t);
    s.g = row_pair(m, p, chunk, G, t), s.z = row_pair(m, p, chunk, Z, t);
}

// What is outside the sequence was fetched as zeros, and moves no sum.
__device__ static inline void work_out(shared_token &s, float2 bias, bool holds)
{
    const float in = holds ? 1.0f : 0.0f;
    s.delta.x = in * softplus(s.dt.x + bias.x, &s.by_v.x), s.delta.y = in * softplus(s.dt.y + bias.y, &s.by_v.y);
    s.by_v.x *= in, s.by_v.y *= in;
    s.by_y.x = gate(s.z.x, s.g.x, &s.g_y.x), s.by_y.y = gate(s.z.y, s.g.y, &s.g_y.y);
}

__device__ static inline void put_token(room &m, const place &p, const shared_token &s, unsigned j)
{
    const unsigned t = j * FOUR + p.q;
    m.ahead[p.warp][t][p.pair] = {s.delta, {s.delta.x * s.u.x, s.delta.y * s.u.y}};
    m.back[p.warp][t][p.pair] = {s.delta, s.g_y};
    m.by_y[j][threadIdx.x] = s.by_y;
    m.by_v[j][threadIdx.x] = s.by_v;
}

// All of the lane's tokens at once and without a branch, so that what one waits for the others fill.
__device__ static inline void share(room &m, const place &p, unsigned chunk, float2 bias)
{
    shared_token s[CHUNK / FOUR];
#pragma unroll
    for (int j = 0; j < CHUNK / FOUR; j++) read_token(s[j], m, p, chunk, j * FOUR + p.q);
#pragma unroll
    for (int j = 0; j < CHUNK / FOUR; j++) work_out(s[j], bias, holds(p, chunk * CHUNK + j * FOUR + p.q));
#pragma unroll
    for (int j = 0; j < CHUNK / FOUR; j++) put_token(m, p, s[j], j);
}

// ---- Sums over channels ----

// As a tensor core would cut it to 11 bits, but rounded.
__device__ static inline unsigned rounded(float x)
{
    return __float_as_uint(x) + 0x1000u;
}

// A pair's numbers of its own token, of four, as the right side of products of any of these tokens.
struct right_side {
    unsigned x, y;
};

__device__ static inline right_side right_of(float2 own)
{
    return {rounded(own.x), rounded(own.y)};
}

// Two matrices of 16 rows (states 4 q, 4 q + 1 | 4 q + 2, 4 q + 3 of both halves) and 8 columns (four tokens of both halves).
struct products {
    float d[2][4];
};

__device__ static inline void clear(products &s)
{
#pragma unroll
    for (int i = 0; i < 8; i++) s.d[i / 4][i % 4] = 0.0f;
}

// Adds what a token's states, times the right side, give to its column.
__device__ static inline void add_token(products &s, const float2 *x, right_side own, bool mine)
{
    const unsigned r0 = mine ? own.x : 0, r1 = mine ? own.y : 0;
#pragma unroll
    for (int i = 0; i < 2; i++)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(s.d[i][0]), "+f"(s.d[i][1]), "+f"(s.d[i][2]), "+f"(s.d[i][3])
            : "r"(__float_as_uint(x[2 * i].x)), "r"(__float_as_uint(x[2 * i + 1].x)), "r"(__float_as_uint(x[2 * i].y)),
              "r"(__float_as_uint(x[2 * i + 1].y)), "r"(r0), "r"(r1));
}

// The halves' sums of four tokens: of B or C a unit each of (states 2 i, 2 i + 1 of q) x (tokens 2 k, 2 k + 1).  A lane has columns 2 t
// and 2 t + 1, which are of its own half where t / 2 is.
__device__ static inline void store_sums(room &m, const place &p, unsigned chunk, int four, int is_c, const products &s)
{
    const unsigned t = p.pair % 4;
    float4 *to = &m.g_bc[chunk % 2][2 * p.warp + p.half][(four * 2 + is_c) * 16 + t % 2 * 4 + p.q];
    if (t / 2 != p.half) return;
#pragma unroll
    for (int i = 0; i < 2; i++) to[i * 8] = make_float4(s.d[i][0], s.d[i][1], s.d[i][2], s.d[i][3]);
}

// The block's share of g_B and g_C of a chunk, by two of its warps, which take turns.
__device__ static inline void write_bc(const room &m, const place &p, unsigned chunk)
{
    const unsigned i = threadIdx.x % UNITS, row = chunk * CHUNK + unit_of(i).row;
    if (p.warp / 2 != chunk % 2) return;
    float4 sum = m.g_bc[chunk % 2][0][i];
#pragma unroll
    for (int w = 1; w < PARTS; w++) {
        const float4 x = m.g_bc[chunk % 2][w][i];
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    char *to = m.f.sums[threadIdx.x] + (size_t)chunk * (CHUNK * 2 * STATES * sizeof(float));
    if (holds(p, row)) *(float2 *)to = make_float2(sum.x, sum.z);
    if (holds(p, row + 1)) *(float2 *)(to + 2 * STATES * sizeof(float)) = make_float2(sum.y, sum.w);
}

// ---- A chunk ----

// What a lane carries from one token to the one before, and sums over all.
struct channels {
    float2 A[EACH], carry[EACH], g_A[EACH]; // A in units of log2; carry: decay x lambda of the token after
    float2 bias, skip, g_bias, g_skip;
};

// Replays a chunk from h[0], and adds up g_C.
__device__ static inline void replay(room &m, const place &p, const channels &k, float2 (&h)[CHUNK + 1][EACH],
                                     float2 (&decays)[DECAYS][EACH], unsigned chunk)
{
#pragma unroll
    for (int four = 0; four < CHUNK / FOUR; four++) {
        const right_side own = right_of(m.back[p.warp][four * FOUR + p.q][p.pair].other);
        products g_C;
        clear(g_C);
#pragma unroll
        for (int j = 0; j < FOUR; j++) {
            const int t = four * FOUR + j;
            const pair_of in = m.ahead[p.warp][t][p.pair];
            const float4 b = ((const float4 *)m.bc[chunk % 2][t])[p.q];
            const float B[EACH] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                const float2 decay = decay_by(in.delta, k.A[i]);
                h[t + 1][i].x = decay.x * h[t][i].x + in.other.x * B[i];
                h[t + 1][i].y = decay.y * h[t][i].y + in.other.y * B[i];
                if (t >= CHUNK - DECAYS) decays[t - (CHUNK - DECAYS)][i] = decay;
            }
            add_token(g_C, h[t + 1], own, p.q == (unsigned)j);
        }
        store_sums(m, p, chunk, four, 1, g_C);
    }
}

// The sums over states of a token, this lane's part.
struct token_sums {
    float2 y, by_B, by_A;
};

// Goes back through token t, and adds up g_B.
__device__ static inline token_sums back_token(const room &m, const place &p, channels &k, products &g_B, right_side own,
                                               const float2 *decays, const float2 *before, const float2 *after, const float *bc,
                                               int t)
{
    const float4 b4 = ((const float4 *)bc)[p.q], c4 = ((const float4 *)bc)[EACH + p.q];
    const float B[EACH] = {b4.x, b4.y, b4.z, b4.w}, C[EACH] = {c4.x, c4.y, c4.z, c4.w};
    const pair_of in = m.back[p.warp][t][p.pair];
    token_sums s = {};
    float2 lambda[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float2 decay = decays ? decays[i] : decay_by(in.delta, k.A[i]);
        lambda[i].x = back_state(k.carry[i].x, k.g_A[i].x, s.y.x, s.by_B.x, s.by_A.x, k.A[i].x, B[i], C[i], decay.x,
                                 before[i].x, after[i].x, in.delta.x, in.other.x);
        lambda[i].y = back_state(k.carry[i].y, k.g_A[i].y, s.y.y, s.by_B.y, s.by_A.y, k.A[i].y, B[i], C[i], decay.y,
                                 before[i].y, after[i].y, in.delta.y, in.other.y);
    }
    add_token(g_B, lambda, own, p.q == (unsigned)t % FOUR);
    return s;
}

// x where `take`, else y, with the other lane's number of the same token added; lanes are `apart`.
__device__ static inline float give(float x, float y, bool take, int apart)
{
    return (take ? x : y) + __shfl_xor_sync(0xffffffffu, take ? y : x, apart);
}

__device__ static inline float2 give(float2 x, float2 y, bool take, int apart)
{
    return make_float2(give(x.x, y.x, take, apart), give(x.y, y.y, take, apart));
}

__device__ static inline token_sums give(const token_sums &x, const token_sums &y, bool take, int apart)
{
    return {give(x.y, y.y, take, apart), give(x.by_B, y.by_B, take, apart), give(x.by_A, y.by_A, take, apart)};
}

// A pair of bf16 without a branch, behind which nothing of the tokens before could begin.
__device__ static inline void write(float *rows, unsigned row, unsigned stride, const place &p, float x, float y, bool in)
{
    const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
    asm volatile(
        "{ .reg .pred in; setp.ne.u32 in, %2, 0; @in st.global.b32 [%0], %1; }" ::"l"((char *)rows + at(row, stride, 2 * p.c)),
        "r"(*(const unsigned *)&v), "r"((unsigned)in)
        : "memory");
}

// Writes what the inputs of the lane's own of four tokens get, from the sums over all of its channel's states.
__device__ static inline void finish(const room &m, const scan_back &v, const place &p, channels &k, const token_sums &s,
                                     unsigned chunk, int four)
{
    const unsigned t = four * FOUR + p.q, row = chunk * CHUNK + t;
    const float2 u = row_pair(m, p, chunk, U, t), by_y = m.by_y[four][threadIdx.x], by_v = m.by_v[four][threadIdx.x];
    const pair_of in = m.back[p.warp][t][p.pair];
    const float2 g_v = make_float2((s.by_A.x * 0.69314718056f + s.by_B.x * u.x) * by_v.x,
                                   (s.by_A.y * 0.69314718056f + s.by_B.y * u.y) * by_v.y);
    k.g_bias.x += g_v.x, k.g_bias.y += g_v.y;
    k.g_skip.x += in.other.x * u.x, k.g_skip.y += in.other.y * u.y;
    const bool is = holds(p, row);
    write(v.a.g_z, row, v.g_z_stride, p, by_y.x * (s.y.x + k.skip.x * u.x), by_y.y * (s.y.y + k.skip.y * u.y), is);
    write(v.a.g_dt, row, v.g_dt_stride, p, g_v.x, g_v.y, is);
    write(v.a.g_u, row, v.g_u_stride, p, in.other.x * k.skip.x + in.delta.x * s.by_B.x,
          in.other.y * k.skip.y + in.delta.y * s.by_B.y, is);
}

// Four tokens, back from their last.
__device__ static inline void back_four(room &m, const scan_back &v, const place &p, channels &k,
                                        const float2 (&h)[CHUNK + 1][EACH], const float2 (&decays)[DECAYS][EACH],
                                        unsigned chunk, int four)
{
    const right_side own = right_of(m.ahead[p.warp][four * FOUR + p.q][p.pair].other);
    products g_B;
    token_sums s[FOUR];
    clear(g_B);
#pragma unroll
    for (int j = FOUR - 1; j >= 0; j--) {
        const int t = four * FOUR + j;
        s[j] = back_token(m, p, k, g_B, own, t >= CHUNK - DECAYS ? decays[t - (CHUNK - DECAYS)] : NULL, h[t], h[t + 1],
                          m.bc[chunk % 2][t], t);
        if (j % 2 == 0) s[j] = give(s[j + 1], s[j], p.q & 1, 4);
    }
    store_sums(m, p, chunk, four, 0, g_B);
    finish(m, v, p, k, give(s[2], s[0], p.q & 2, 8), chunk, four);
}

// The states before a chunk: as kept, or as the sequence begins with.
__device__ static inline void begin_chunk(float2 (&h)[EACH], room &m, const scan_back &v, const place &p, size_t seq,
                                          bool first)
{
    if (first) {
#pragma unroll
        for (int i = 0; i < EACH; i++) h[i] = read_state(v.a.h, v, p, seq, i);
        return;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) h[i] = *(const float2 *)kept_place(m, p, EACH * p.q + i, p.pair);
}

__device__ static void walk_sequence(room &m, const scan_back &v, const place &p, channels &k, size_t seq)
{
    const unsigned first = p.first / CHUNK, last = (p.end - 1) / CHUNK;
    fetch_all(m, v, p, last);
#pragma unroll
    for (int i = 0; i < EACH; i++) k.carry[i] = read_state(v.a.g_h, v, p, seq, i);
    for (unsigned chunk = last + 1; chunk-- > first;) {
        float2 h[CHUNK + 1][EACH], decays[DECAYS][EACH];
        fetched();
        __syncwarp(); // a warp reads what its lanes fetched
        share(m, p, chunk, k.bias);
        begin_chunk(h[0], m, v, p, seq, chunk == first);
        __syncthreads(); // B and C are there, and g_B and g_C of the chunk after
        if (chunk < last) write_bc(m, p, chunk + 1);
        if (chunk > first) fetch_all(m, v, p, chunk - 1);
        replay(m, p, k, h, decays, chunk);
#pragma unroll
        for (int four = CHUNK / FOUR - 1; four >= 0; four--) back_four(m, v, p, k, h, decays, chunk, four);
        __syncwarp(); // before what the chunk before shares
    }
    __syncthreads();
    write_bc(m, p, first);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float *at = state_at(v.a.g_h, v, p, seq, i);
        if (at) at[0] = k.carry[i].x, at[1] = k.carry[i].y;
    }
    __syncthreads(); // before the next sequence takes the room
}

// The lanes' tokens together, in the order of lanes.
__device__ static inline float2 join_lanes(float2 v)
{
    v.x += __shfl_xor_sync(0xffffffffu, v.x, 4), v.y += __shfl_xor_sync(0xffffffffu, v.y, 4);
    v.x += __shfl_xor_sync(0xffffffffu, v.x, 8), v.y += __shfl_xor_sync(0xffffffffu, v.y, 8);
    return v;
}

__device__ static inline float2 pair_of_floats(const float *x)
{
    return make_float2(x[0], x[1]);
}

__device__ static void begin_channels(channels &k, const scan_back &v, const place &p)
{
    const float2 zero = make_float2(0.0f, 0.0f);
    k.bias = v.a.dt_bias ? pair_of_floats(v.a.dt_bias + p.c) : zero;
    k.skip = pair_of_floats(v.a.skip + p.c);
    k.g_bias = k.g_skip = zero;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const float2 A = pair_of_floats(v.a.A + at(EACH * p.q + i, v.d_inner, p.c));
        k.A[i] = make_float2(decay_of(A.x), decay_of(A.y));
        k.g_A[i] = zero;
    }
}

__device__ static void write_sums(const channels &k, const scan_back &v, const place &p)
{
    const float2 g_bias = join_lanes(k.g_bias), g_skip = join_lanes(k.g_skip);
    float *sums = v.sums + (size_t)blockIdx.y * SUMS * v.d_inner + p.c;
#pragma unroll
    for (int i = 0; i < EACH; i++) *(float2 *)(sums + at(EACH * p.q + i, v.d_inner, 0)) = k.g_A[i];
    if (p.q != 0) return;
    *(float2 *)(sums + at(STATES, v.d_inner, 0)) = g_bias;
    *(float2 *)(sums + at(STATES + 1, v.d_inner, 0)) = g_skip;
}

// Block (x, y): channels of x, sequences of walk y.
__global__ void __launch_bounds__(THREADS, 3) scan_back_walk(scan_back v)
{
    extern __shared__ __align__(16) char shared[];
    room &m = *(room *)shared;
    place p;
    const unsigned lane = threadIdx.x % 32;
    p.warp = threadIdx.x / 32, p.q = lane / 4 % 4, p.half = lane / 16, p.pair = lane % 4 + 4 * p.half;
    p.c = blockIdx.x * CHANNELS + 2 * (p.warp * PAIRS_PER_WARP + p.pair);
    place_feed(m, v, p);
    channels k;
    begin_channels(k, v, p);
    const fm_walk w = walk_of(v);
    for (size_t seq = w.first; seq < w.end; seq += w.step) {
        p.first = (unsigned)v.begin[seq], p.end = (unsigned)v.begin[seq + 1];
        if (p.first < p.end) walk_sequence(m, v, p, k, seq);
    }
    write_sums(k, v, p);
}

// ---- Launch ----

bool fm_cuda_walk_fits(const fm_scan_back_args *a)
{
    const uintptr_t p = (uintptr_t)a->g | (uintptr_t)a->u | (uintptr_t)a->dt | (uintptr_t)a->z | (uintptr_t)a->B |
                        (uintptr_t)a->C | (uintptr_t)a->kept;
    const size_t strides = a->g_stride | a->u_stride | a->dt_stride | a->z_stride | a->bc_stride;
    return a->half && a->kept && a->z && a->d_state == STATES && a->d_inner % CHANNELS == 0 && p % 16 == 0 &&
           strides % 8 == 0 && (uintptr_t)a->g_bc_parts % sizeof(float2) == 0;
}

void fm_cuda_walk(fm_stream *s, const scan_back *v, dim3 blocks)
{
    fm_cuda_allow_shared<scan_back_walk>(s, sizeof(room));
    scan_back_walk<<<blocks, THREADS, sizeof(room), s->stream>>>(*v);
}
