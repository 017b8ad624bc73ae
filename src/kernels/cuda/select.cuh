// select.cuh - the norms of dt, B and C, dt_proj and the scan that takes what they make, for one token of each of up to 16 sequences, in
// one launch, with the bits of the launches that do these one after the other.
//
// Its limit is the memory of the states.  A block has 64 channels of up to 8 tokens, and brings their states to shared memory, with its
// rows of dt_proj, before the kernel waits for x_proj, while memory has little else to do; what is left after that are norms of 8 rows,
// which every block makes for itself, a product of 64 rows, the scan, and what it puts out.  Blocks are small, so that they find room
// beside those of the kernels in front.
//
// States are read before the wait: what wrote them stands in front of this layer (launch.cuh).
#ifndef FM_KERNELS_CUDA_SELECT_CUH
#define FM_KERNELS_CUDA_SELECT_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/scan.cuh"

enum { SELECT_CHANNELS = 64, SELECT_TOKENS = 8 }; // of a block
// States are summed by groups, as in scan_one.cuh.
enum { SELECT_STATES = 16, SELECT_GROUPS = 4, SELECT_GROUP = SELECT_STATES / SELECT_GROUPS };
enum { SELECT_THREADS = SELECT_CHANNELS * SELECT_GROUPS, SELECT_WARPS = SELECT_THREADS / 32 };
enum { SELECT_OUTS = SELECT_CHANNELS * SELECT_TOKENS / SELECT_THREADS }; // of a thread
enum { SELECT_BLOCKS = FM_CHUNK / SELECT_CHANNELS };                     // that have the channels of a record
enum { SELECT_RANK = 512 };                                              // dt_proj's columns, at most

struct select_args {
    few_args dt;    // its x, y and cut are not looked at
    unsigned ways;  // that share its rows
    const float *q; // (n, rank + 2 SELECT_STATES): dt | B | C
    unsigned rank;
    double rank_reciprocal; // 1 / rank
    const float *u, *z;
    const float *dt_bias, *A, *skip;
    fm_states h;
    size_t u_stride, z_stride, d_inner;
    float eps;
    bool norms, hold;
    fm_xform form;
    __nv_bfloat16 *rows; // (n, d_inner), or
    fm_records records;

    // Of dt_proj's rows, at most.
    __host__ __device__ unsigned chunks_of_way() const { return (dt.chunks + ways - 1) / ways; }
};

// Norms of a token's dt, B and C, by a warp, added up in the order of norm.cu.  Room for so many tokens: dt as dt_proj reads it, a record
// or a row every `stride` bytes, and B | C of each.
template <class F> struct select_norm {
    const select_args &a;
    uint8_t *x;
    unsigned stride, tokens;
    float *bc;

    static_assert((int)SELECT_RANK == (int)piece<32>::COLS, "a warp keeps a row whole");

    __device__ float scale_of(double sum, double reciprocal) const
    {
        return a.norms ? norm_scale(sum, reciprocal, a.eps) : 1.0f;
    }

    // B and C, each in four lanes.
    __device__ void put_bc(unsigned token, float4 v) const
    {
        const int lane = (int)threadIdx.x % 32;
        double sum = squares(v);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        const float scale = scale_of(sum, 1.0 / SELECT_STATES);
        if (lane < 2 * SELECT_STATES / 4)
            *(float4 *)(bc + token * 2 * SELECT_STATES + 4 * lane) = {v.x * scale, v.y * scale, v.z * scale, v.w * scale};
    }

    // Zeros beyond the rank.
    __device__ void put_dt(unsigned token, const float *row, const piece<32> &v, float scale) const
    {
        if constexpr (F::RECORDS)
            for (unsigned c = 0; c < a.dt.chunks; c++) {
                float of[8];
                pack_load(of, row, a.rank, c, true);
#pragma unroll
                for (int i = 0; i < 8; i++) of[i] *= scale;
                pack_record<F::SIDE == FM_X256_SIDE>(x + c * stride, tokens, token, of);
            }
        else
#pragma unroll
            for (int j = 0; j < KEPT; j++) {
                const unsigned c = (unsigned)v.column(threadIdx.x % 32, j);
                const float4 of = {v.v[j].x * scale, v.v[j].y * scale, v.v[j].z * scale, v.v[j].w * scale};
                if (c < a.dt.x_stride / 2) fm_store4_bf16((__nv_bfloat16 *)(x + token * stride) + c, of);
            }
    }

    // Row `from` of the step's as this token.
    __device__ void row(unsigned from, unsigned token) const
    {
        const int lane = (int)threadIdx.x % 32;
        const float *q = a.q + from * (a.rank + 2 * SELECT_STATES);
        piece<32> v;
        v.template read<true>(q, lane, a.rank);
        put_bc(token, fm_load4<true>(q + a.rank + 4 * lane, 2 * SELECT_STATES - 4 * lane));
        put_dt(token, q, v, scale_of(fm_warp_sum(v.sum_squares()), a.rank_reciprocal));
    }
};

// Places in a block's shared memory.  At 0 are dt_proj's weights; the groups' parts of the outputs take their place.
template <class F> struct select_room {
    static constexpr unsigned SUMS = 16 * SELECT_TOKENS * 4; // bytes of a tile and way
    static constexpr unsigned PARTS = SELECT_GROUPS * SELECT_TOKENS * SELECT_CHANNELS * 4;
    unsigned states, x, sums, steps, bc, out, list, all;

    __host__ __device__ static unsigned items(const select_args &a) { return SELECT_CHANNELS / 16 * a.ways; }
    // Bytes of a record of 8 tokens, or of a row: not all in the same bank.
    __host__ __device__ static unsigned x_stride(const select_args &a)
    {
        if constexpr (F::RECORDS) return SELECT_TOKENS * FM_CHUNK + F::SIDE;
        return a.dt.x_stride + 16;
    }
    __host__ __device__ explicit select_room(const select_args &a)
    {
        const unsigned weights = items(a) * a.chunks_of_way() * 2 * F::SLOT;
        states = weights > PARTS ? weights : PARTS;
        x = states + SELECT_TOKENS * SELECT_STATES * SELECT_CHANNELS * 4;
        sums = x + (F::RECORDS ? a.dt.chunks : SELECT_TOKENS) * x_stride(a);
        steps = sums + items(a) * SUMS;
        bc = steps + SELECT_TOKENS * SELECT_CHANNELS * 8;
        out = bc + SELECT_TOKENS * 2 * SELECT_STATES * 4;
        list = out + SELECT_TOKENS * SELECT_CHANNELS * 4;
        all = list + SELECT_TOKENS * sizeof(float *);
    }
};

// A thread has output channel threadIdx.x % 64 of every fourth token, and in the scan four states of a channel.
template <class F> struct select_block {
    typedef select_room<F> room;

    const select_args &a;
    uint8_t *shared;
    const room at;
    const unsigned first, tokens; // of the step's
    const unsigned warp, channel;
    const few_lane l;

    __device__ select_block(const select_args &args, uint8_t *memory)
        : a(args), shared(memory), at(args), first(blockIdx.y * SELECT_TOKENS),
          tokens(min(args.dt.n - first, (unsigned)SELECT_TOKENS)), warp(threadIdx.x / 32),
          channel(threadIdx.x % SELECT_CHANNELS), l{(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4}
    {
    }

    __device__ float *floats(unsigned place) const { return (float *)(shared + place); }
    __device__ size_t first_channel() const { return (size_t)blockIdx.x * SELECT_CHANNELS; }
    __device__ size_t own_channel() const { return first_channel() + channel; }
    __device__ unsigned own_token(int k) const { return threadIdx.x / SELECT_CHANNELS + k * SELECT_GROUPS; } // of the block's

    // ---- dt_proj: the ways of four tiles are dealt out to the warps ----

    __device__ uint8_t *stage(unsigned item, unsigned k) const { return shared + (item * a.chunks_of_way() + k) * 2 * F::SLOT; }

    __device__ void ask_weights() const
    {
        for (unsigned item = warp; item < room::items(a); item += SELECT_WARPS)
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.ways)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const size_t row = first_channel() + item % 4 * 16 + 8 * i + l.g;
                    F::ask(shared_address(stage(item, k)) + i * F::SLOT, a.dt.w + row * a.dt.w_stride, a.dt, chunk, l);
                }
    }

    static_assert((int)SELECT_WARPS == (int)SELECT_TOKENS, "a token to a warp");

    __device__ void norm() const
    {
        const select_norm<F> to = {a, shared + at.x, room::x_stride(a), SELECT_TOKENS, floats(at.bc)};
        if (warp < tokens) to.row(first + warp, warp);
    }

    // ---- dt_proj, what it is multiplied with and what the scan takes ----

    __device__ void multiply() const
    {
        few_args p = a.dt;
        p.n = tokens;
        p.x_stride = room::x_stride(a), p.x_tokens = SELECT_TOKENS;
        copy_wait<0>(); // states too, which others read
        for (unsigned item = warp; item < room::items(a); item += SELECT_WARPS) {
            float y[1][4] = {};
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.ways)
                F::template multiply<1, 1>(y, stage(item, k), typename F::tokens(shared + at.x, chunk, p), l);
            few_leave<1>(floats(at.sums) + item * (room::SUMS / 4), y, l);
        }
    }

    __device__ float dt_of(unsigned token) const
    {
        const float *from = floats(at.sums) + channel * SELECT_TOKENS + token;
        float v = 0.0f;
        for (unsigned w = 0; w < a.ways; w++) v = __fadd_rn(v, from[w * SELECT_CHANNELS * SELECT_TOKENS]);
        return v;
    }

    // ---- States, [token][state][channel]: rows of 64 floats ----

    static_assert(SELECT_THREADS / (SELECT_CHANNELS / 4) == SELECT_STATES, "a token's states are a vector to a thread");

    // Where the tokens' states lie, read once: for all the compiler knows, what is written later is the list.
    __device__ float **list() const
    {
        return (float **)(shared + at.list);
    }
    __device__ void read_list() const
    {
        if (threadIdx.x < tokens) list()[threadIdx.x] = fm_cuda_state(a.h, first + threadIdx.x);
    }

    // row(place in shared memory, that in memory, whether vectors are aligned)
    template <class ROW> __device__ void each_row(ROW row) const
    {
        const unsigned c = threadIdx.x % (SELECT_CHANNELS / 4) * 4, i = threadIdx.x / (SELECT_CHANNELS / 4);
        const size_t at_row = i * a.d_inner + first_channel() + c;
#pragma unroll
        for (unsigned t = 0; t < SELECT_TOKENS; t++) {
            if (t >= tokens) break;
            float *h = list()[t];
            row(floats(at.states) + (t * SELECT_STATES + i) * SELECT_CHANNELS + c, h + at_row, (size_t)h % 16 == 0);
        }
    }
    __device__ void ask_states() const
    {
        each_row([](float *here, const float *there, bool aligned) {
            if (aligned)
                copy_async<16>(shared_address(here), there);
            else
#pragma unroll
                for (int k = 0; k < 4; k++) copy_async<4>(shared_address(here + k), there + k);
        });
    }
    // Nobody reads them before the next step, so they leave L2 first.
    __device__ void write_states() const
    {
        if (a.hold) return;
        each_row([](const float *here, float *there, bool aligned) {
            const float4 v = *(const float4 *)here;
            if (aligned)
                __stcs((float4 *)there, v);
            else
                there[0] = v.x, there[1] = v.y, there[2] = v.z, there[3] = v.w;
        });
    }

    // ---- Scan ----

    struct inputs {
        float u[SELECT_OUTS], z[SELECT_OUTS];
    };

    __device__ void read_inputs(inputs &o) const
    {
#pragma unroll
        for (int k = 0; k < SELECT_OUTS; k++) {
            const bool has = own_token(k) < tokens;
            const size_t row = first + own_token(k);
            o.u[k] = has ? a.u[row * a.u_stride + own_channel()] : 0.0f;
            o.z[k] = has ? a.z[row * a.z_stride + own_channel()] : 0.0f;
        }
    }

    __device__ void put_steps(const inputs &in, float bias) const
    {
        float2 *steps = (float2 *)(shared + at.steps);
#pragma unroll
        for (int k = 0; k < SELECT_OUTS; k++)
            if (own_token(k) < tokens)
                steps[own_token(k) * SELECT_CHANNELS + channel] = step_of(in.u[k], dt_of(own_token(k)), bias);
    }

    __device__ void read_decays(float A[SELECT_GROUP]) const
    {
        const float *from = a.A + threadIdx.x / SELECT_CHANNELS * SELECT_GROUP * a.d_inner + own_channel();
#pragma unroll
        for (int k = 0; k < SELECT_GROUP; k++) A[k] = decay_of(from[k * a.d_inner]);
    }

    // Moves a group of the channel's states, of all tokens, and leaves what they give to the outputs.
    __device__ void move(const float A[SELECT_GROUP]) const
    {
        const unsigned group = threadIdx.x / SELECT_CHANNELS;
#pragma unroll
        for (unsigned t = 0; t < SELECT_TOKENS; t++) {
            if (t >= tokens) break;
            const float *B = floats(at.bc) + t * 2 * SELECT_STATES + group * SELECT_GROUP;
            const float4 b = *(const float4 *)B, c = *(const float4 *)(B + SELECT_STATES);
            const float bs[SELECT_GROUP] = {b.x, b.y, b.z, b.w}, cs[SELECT_GROUP] = {c.x, c.y, c.z, c.w};
            float *h = floats(at.states) + (t * SELECT_STATES + group * SELECT_GROUP) * SELECT_CHANNELS + channel;
            states<SELECT_GROUP, true> g;
#pragma unroll
            for (int k = 0; k < SELECT_GROUP; k++) g.a[k] = A[k], g.h[k] = h[k * SELECT_CHANNELS];
            g.move(((const float2 *)(shared + at.steps))[t * SELECT_CHANNELS + channel], bs, 0);
#pragma unroll
            for (int k = 0; k < SELECT_GROUP; k++) h[k * SELECT_CHANNELS] = g.h[k];
            floats(0)[(group * SELECT_TOKENS + t) * SELECT_CHANNELS + channel] = g.sum(cs, 0);
        }
    }

    // put(token, y), of the block's tokens.
    template <class PUT> __device__ void finish(const inputs &in, float skip, PUT put) const
    {
#pragma unroll
        for (int k = 0; k < SELECT_OUTS; k++) {
            if (own_token(k) >= tokens) break;
            const float *parts = floats(0) + own_token(k) * SELECT_CHANNELS + channel;
            float y = parts[0];
#pragma unroll
            for (int g = 1; g < SELECT_GROUPS; g++) y = __fadd_rn(y, parts[g * SELECT_TOKENS * SELECT_CHANNELS]);
            put(own_token(k), gated(true, __fmaf_rn(skip, in.u[k], y), in.z[k]));
        }
    }

    // ---- The pack of out_proj ----

    __device__ void put_row(unsigned token, float y) const
    {
        a.rows[(first + token) * a.d_inner + own_channel()] = __float2bfloat16_rn(y);
    }

    // Of a cluster, which has the channels of a record, block i has tokens i, i + SELECT_BLOCKS, ...
    __device__ void send(unsigned token, float y) const
    {
        const unsigned rank = blockIdx.x % SELECT_BLOCKS,
                       to = at.out + 4 * (token / SELECT_BLOCKS * FM_CHUNK + rank * SELECT_CHANNELS + channel);
        ring_put(shared_address(shared + to), token % SELECT_BLOCKS, y);
    }
    __device__ void put_records() const
    {
        const unsigned token = warp * SELECT_BLOCKS + blockIdx.x % SELECT_BLOCKS, chunk = blockIdx.x / SELECT_BLOCKS;
        if (token >= tokens) return;
        float v[8];
        pack_load(v, floats(at.out) + warp * FM_CHUNK, FM_CHUNK, 0, true);
        if (a.form == FM_X_Q8_256)
            a.records.template put<true>(first + token, chunk, v);
        else
            a.records.template put<false>(first + token, chunk, v);
    }
};

template <class F> __global__ void __launch_bounds__(SELECT_THREADS, 3) select_kernel(const select_args a)
{
    typedef select_block<F> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const block b(a, shared);
    float A[SELECT_GROUP];
    typename block::inputs in;
    b.read_list();
    b.ask_weights();
    __syncthreads();
    b.ask_states();
    copy_commit();
    b.read_decays(A);
    const float bias = a.dt_bias ? a.dt_bias[b.own_channel()] : 0.0f, skip = a.skip[b.own_channel()];
    if (!a.rows) ring_reach_cluster_relaxed();
    fm_begin();
    b.read_inputs(in);
    b.norm();
    __syncthreads();
    b.multiply();
    __syncthreads();
    b.put_steps(in, bias);
    __syncthreads();
    b.move(A);
    __syncthreads();
    if (a.rows) {
        b.finish(in, skip, [&](unsigned token, float y) { b.put_row(token, y); });
        b.write_states();
    } else {
        ring_join_cluster(); // all its blocks have begun
        b.finish(in, skip, [&](unsigned token, float y) { b.send(token, y); });
        ring_reach_cluster();
        b.write_states();
        ring_join_cluster_acquire();
        b.put_records();
    }
}

// ---- Launches ----

// Queues it, behind the product that makes q; false: dt_proj's weights leave no room.
typedef bool select_fn(fm_stream *s, const select_args *a, const fm_linear_args *x_proj);

template <class F> static bool select_of(fm_stream *s, const select_args *a, const fm_linear_args *x_proj)
{
    enum { SHARED = 226 * 1024 };
    const dim3 grid((unsigned)(a->d_inner / SELECT_CHANNELS), fm_blocks(a->dt.n, SELECT_TOKENS));
    const fm_launch l = {s, grid, SELECT_THREADS, select_room<F>(*a).all, a->rows ? 1u : (unsigned)SELECT_BLOCKS};
    if (l.shared > SHARED) return false;
    fm_cuda_allow_shared<select_kernel<F>>(s, SHARED);
    fm_cuda_linear_few(s, x_proj);
    fm_cuda_launch(&l, "scan", select_kernel<F>, *a);
    return true;
}

// Of weights of dt_proj; NULL: there is none for this type.
select_fn *fm_cuda_select_float(fm_dtype type);
select_fn *fm_cuda_select_quant(fm_dtype type);

#endif
