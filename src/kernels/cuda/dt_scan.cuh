// dt_scan.cuh - dt_proj and the scan that takes what it makes, for one token of each of up to 16 sequences, in one launch, with the bits
// of the two that do it one after the other.
//
// Its limit is the memory of the states.  A block has 64 channels of up to 8 tokens, and brings their states to shared memory, with its
// rows of dt_proj, before the kernel waits for the norms of dt, while memory has little else to do; what is left after that is a product
// of 64 rows, the scan, and what both put out.  Blocks are small, so that they find room beside those of the kernels in front.
//
// States are read before the wait: what wrote them stands in front of this layer (launch.cuh).
#ifndef FM_KERNELS_CUDA_DT_SCAN_CUH
#define FM_KERNELS_CUDA_DT_SCAN_CUH

#include "kernels/cuda/few.cuh"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/scan.cuh"

enum { DT_CHANNELS = 64, DT_TOKENS = 8 };                                 // of a block
enum { DT_STATES = 16, DT_GROUPS = 4, DT_GROUP = DT_STATES / DT_GROUPS }; // states are summed by groups, as in scan_one.cuh
enum { DT_THREADS = DT_CHANNELS * DT_GROUPS, DT_WARPS = DT_THREADS / 32 };
enum { DT_OUTS = DT_CHANNELS * DT_TOKENS / DT_THREADS }; // of a thread
enum { DT_BLOCKS = FM_CHUNK / DT_CHANNELS };             // that have the channels of a record

struct dt_scan_args {
    few_args dt;   // its y and cut are not looked at
    unsigned ways; // that share its rows
    const float *u, *z, *B, *C;
    const float *dt_bias, *A, *skip;
    fm_states h;
    size_t u_stride, z_stride, bc_stride, d_inner;
    bool hold;
    fm_xform form;
    __nv_bfloat16 *rows; // (n, d_inner), or
    fm_records records;
};

// Places in a block's shared memory.  At 0 are dt_proj's weights; the groups' parts of the outputs take their place.
template <class F> struct dt_room {
    static constexpr unsigned SUMS = 16 * DT_TOKENS * 4; // bytes of a tile and way
    static constexpr unsigned PARTS = DT_GROUPS * DT_TOKENS * DT_CHANNELS * 4;
    unsigned states, x, sums, steps, bc, out, list, all;

    __host__ __device__ static unsigned items(const dt_scan_args &a) { return DT_CHANNELS / 16 * a.ways; }
    // Chunks of a way, at most.
    __host__ __device__ static unsigned chunks(const dt_scan_args &a) { return (a.dt.chunks + a.ways - 1) / a.ways; }
    // Bytes of a record of 8 tokens, or of a row: not all in the same bank.
    __host__ __device__ static unsigned x_stride(const dt_scan_args &a)
    {
        if constexpr (F::RECORDS) return DT_TOKENS * FM_CHUNK + F::SIDE;
        return a.dt.x_stride + 16;
    }
    __host__ __device__ explicit dt_room(const dt_scan_args &a)
    {
        const unsigned weights = items(a) * chunks(a) * 2 * F::SLOT;
        states = weights > PARTS ? weights : PARTS;
        x = states + DT_TOKENS * DT_STATES * DT_CHANNELS * 4;
        sums = x + (F::RECORDS ? a.dt.chunks : DT_TOKENS) * x_stride(a);
        steps = sums + items(a) * SUMS;
        bc = steps + DT_TOKENS * DT_CHANNELS * 8;
        out = bc + DT_TOKENS * 2 * DT_STATES * 4;
        list = out + DT_TOKENS * DT_CHANNELS * 4;
        all = list + DT_TOKENS * sizeof(float *);
    }
};

// A thread has output channel threadIdx.x % 64 of every fourth token, and in the scan four states of a channel.
template <class F> struct dt_block {
    typedef dt_room<F> room;

    const dt_scan_args &a;
    uint8_t *shared;
    const room at;
    const unsigned first, tokens; // of the step's
    const unsigned warp, channel;
    const few_lane l;

    __device__ dt_block(const dt_scan_args &args, uint8_t *memory)
        : a(args), shared(memory), at(args), first(blockIdx.y * DT_TOKENS), tokens(min(args.dt.n - first, (unsigned)DT_TOKENS)),
          warp(threadIdx.x / 32),
          channel(threadIdx.x % DT_CHANNELS), l{(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4}
    {
    }

    __device__ float *floats(unsigned place) const { return (float *)(shared + place); }
    __device__ size_t first_channel() const { return (size_t)blockIdx.x * DT_CHANNELS; }
    __device__ size_t own_channel() const { return first_channel() + channel; }
    __device__ unsigned own_token(int k) const { return threadIdx.x / DT_CHANNELS + k * DT_GROUPS; } // of the block's

    // ---- dt_proj: the ways of four tiles are dealt out to the warps ----

    __device__ uint8_t *stage(unsigned item, unsigned k) const { return shared + (item * room::chunks(a) + k) * 2 * F::SLOT; }

    __device__ void ask_weights() const
    {
        for (unsigned item = warp; item < room::items(a); item += DT_WARPS)
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.ways)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const size_t row = first_channel() + item % 4 * 16 + 8 * i + l.g;
                    F::ask(shared_address(stage(item, k)) + i * F::SLOT, a.dt.w + row * a.dt.w_stride, a.dt, chunk, l);
                }
    }

    // The input of the block's tokens.
    __device__ void copy(unsigned to, const uint8_t *from, unsigned bytes) const
    {
        for (unsigned i = 16 * threadIdx.x; i < bytes; i += 16 * DT_THREADS)
            *(uint4 *)(shared + to + i) = *(const uint4 *)(from + i);
    }
    __device__ void read_x() const
    {
        const unsigned stride = room::x_stride(a);
        if constexpr (F::RECORDS) {
            for (unsigned c = 0; c < a.dt.chunks; c++) {
                const uint8_t *record = a.dt.x + c * a.dt.x_stride;
                copy(at.x + c * stride, record + first * FM_CHUNK, tokens * FM_CHUNK);
                copy(at.x + c * stride + DT_TOKENS * FM_CHUNK, record + a.dt.x_tokens * FM_CHUNK + blockIdx.y * F::SIDE,
                     F::SIDE);
            }
        } else {
            const unsigned pieces = a.dt.x_stride / 16;
            for (unsigned i = threadIdx.x; i < tokens * pieces; i += DT_THREADS)
                *(uint4 *)(shared + at.x + i / pieces * stride + i % pieces * 16) =
                    *(const uint4 *)(a.dt.x + (first + i / pieces) * a.dt.x_stride + i % pieces * 16);
        }
    }

    __device__ void multiply() const
    {
        few_args p = a.dt;
        p.n = tokens;
        p.x_stride = room::x_stride(a), p.x_tokens = DT_TOKENS;
        copy_wait<0>(); // states too, which others read
        for (unsigned item = warp; item < room::items(a); item += DT_WARPS) {
            float y[1][4] = {};
            for (unsigned k = 0, chunk = item / 4; chunk < a.dt.chunks; k++, chunk += a.ways)
                F::template multiply<1, 1>(y, stage(item, k), shared + at.x, chunk, p, l);
            few_leave<1>(floats(at.sums) + item * (room::SUMS / 4), y, l);
        }
    }

    __device__ float dt_of(unsigned token) const
    {
        const float *from = floats(at.sums) + channel * DT_TOKENS + token;
        float v = 0.0f;
        for (unsigned w = 0; w < a.ways; w++) v = __fadd_rn(v, from[w * DT_CHANNELS * DT_TOKENS]);
        return v;
    }

    // ---- States, [token][state][channel]: rows of 64 floats ----

    static_assert(DT_THREADS / (DT_CHANNELS / 4) == DT_STATES, "a token's states are a vector to a thread");

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
        const unsigned c = threadIdx.x % (DT_CHANNELS / 4) * 4, i = threadIdx.x / (DT_CHANNELS / 4);
        const size_t at_row = i * a.d_inner + first_channel() + c;
#pragma unroll
        for (unsigned t = 0; t < DT_TOKENS; t++) {
            if (t >= tokens) break;
            float *h = list()[t];
            row(floats(at.states) + (t * DT_STATES + i) * DT_CHANNELS + c, h + at_row, (size_t)h % 16 == 0);
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
    __device__ void write_states() const
    {
        if (a.hold) return;
        each_row([](const float *here, float *there, bool aligned) {
            const float4 v = *(const float4 *)here;
            if (aligned)
                *(float4 *)there = v;
            else
                there[0] = v.x, there[1] = v.y, there[2] = v.z, there[3] = v.w;
        });
    }

    // ---- Scan ----

    struct inputs {
        float u[DT_OUTS], z[DT_OUTS], bc;
    };

    static_assert(DT_TOKENS * 2 * DT_STATES == DT_THREADS, "a thread has one of B and C");
    __device__ void read_inputs(inputs &o) const
    {
#pragma unroll
        for (int k = 0; k < DT_OUTS; k++) {
            const bool has = own_token(k) < tokens;
            const size_t row = first + own_token(k);
            o.u[k] = has ? a.u[row * a.u_stride + own_channel()] : 0.0f;
            o.z[k] = has ? a.z[row * a.z_stride + own_channel()] : 0.0f;
        }
        const unsigned token = threadIdx.x / (2 * DT_STATES), k = threadIdx.x % (2 * DT_STATES);
        o.bc = token < tokens ? (k < DT_STATES ? a.B : a.C - DT_STATES)[(first + token) * a.bc_stride + k] : 0.0f;
    }

    __device__ void put_steps(const inputs &in, float bias) const
    {
        float2 *steps = (float2 *)(shared + at.steps);
        floats(at.bc)[threadIdx.x] = in.bc;
#pragma unroll
        for (int k = 0; k < DT_OUTS; k++)
            if (own_token(k) < tokens)
                steps[own_token(k) * DT_CHANNELS + channel] = step_of(in.u[k], dt_of(own_token(k)), bias);
    }

    __device__ void read_decays(float A[DT_GROUP]) const
    {
        const float *from = a.A + threadIdx.x / DT_CHANNELS * DT_GROUP * a.d_inner + own_channel();
#pragma unroll
        for (int k = 0; k < DT_GROUP; k++) A[k] = decay_of(from[k * a.d_inner]);
    }

    // Moves a group of the channel's states, of all tokens, and leaves what they give to the outputs.
    __device__ void move(const float A[DT_GROUP]) const
    {
        const unsigned group = threadIdx.x / DT_CHANNELS;
#pragma unroll
        for (unsigned t = 0; t < DT_TOKENS; t++) {
            if (t >= tokens) break;
            const float *B = floats(at.bc) + t * 2 * DT_STATES + group * DT_GROUP;
            const float4 b = *(const float4 *)B, c = *(const float4 *)(B + DT_STATES);
            const float bs[DT_GROUP] = {b.x, b.y, b.z, b.w}, cs[DT_GROUP] = {c.x, c.y, c.z, c.w};
            float *h = floats(at.states) + (t * DT_STATES + group * DT_GROUP) * DT_CHANNELS + channel;
            states<DT_GROUP, true> g;
#pragma unroll
            for (int k = 0; k < DT_GROUP; k++) g.a[k] = A[k], g.h[k] = h[k * DT_CHANNELS];
            g.move(((const float2 *)(shared + at.steps))[t * DT_CHANNELS + channel], bs, 0);
#pragma unroll
            for (int k = 0; k < DT_GROUP; k++) h[k * DT_CHANNELS] = g.h[k];
            floats(0)[(group * DT_TOKENS + t) * DT_CHANNELS + channel] = g.sum(cs, 0);
        }
    }

    // put(token, y), of the block's tokens.
    template <class PUT> __device__ void finish(const inputs &in, float skip, PUT put) const
    {
#pragma unroll
        for (int k = 0; k < DT_OUTS; k++) {
            if (own_token(k) >= tokens) break;
            const float *parts = floats(0) + own_token(k) * DT_CHANNELS + channel;
            float y = parts[0];
#pragma unroll
            for (int g = 1; g < DT_GROUPS; g++) y = __fadd_rn(y, parts[g * DT_TOKENS * DT_CHANNELS]);
            put(own_token(k), gated(true, __fmaf_rn(skip, in.u[k], y), in.z[k]));
        }
    }

    // ---- The pack of out_proj ----

    __device__ void put_row(unsigned token, float y) const
    {
        a.rows[(first + token) * a.d_inner + own_channel()] = __float2bfloat16_rn(y);
    }

    // Of a cluster, which has the channels of a record, block i has tokens i, i + DT_BLOCKS, ...
    __device__ void send(unsigned token, float y) const
    {
        const unsigned rank = blockIdx.x % DT_BLOCKS,
                       to = at.out + 4 * (token / DT_BLOCKS * FM_CHUNK + rank * DT_CHANNELS + channel);
        ring_put(shared_address(shared + to), token % DT_BLOCKS, y);
    }
    __device__ void put_records() const
    {
        const unsigned token = warp * DT_BLOCKS + blockIdx.x % DT_BLOCKS, chunk = blockIdx.x / DT_BLOCKS;
        if (token >= tokens) return;
        float v[8];
        pack_load(v, floats(at.out) + warp * FM_CHUNK, FM_CHUNK, 0, true);
        if (a.form == FM_X_Q8_256)
            a.records.template put<true>(first + token, chunk, v);
        else
            a.records.template put<false>(first + token, chunk, v);
    }
};

template <class F> __global__ void __launch_bounds__(DT_THREADS, 3) dt_scan_kernel(const dt_scan_args a)
{
    typedef dt_block<F> block;
    extern __shared__ __align__(16) uint8_t shared[];
    const block b(a, shared);
    float A[DT_GROUP];
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
    b.read_x();
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

// Queues it; false: dt_proj's weights leave no room, or it would be slower.
typedef bool dt_scan_fn(fm_stream *s, const dt_scan_args *a);

template <class F> static bool dt_scan_of(fm_stream *s, const dt_scan_args *a)
{
    enum { SHARED = 226 * 1024 };
    const dim3 grid((unsigned)(a->d_inner / DT_CHANNELS), fm_blocks(a->dt.n, DT_TOKENS));
    const fm_launch l = {s, grid, DT_THREADS, dt_room<F>(*a).all, a->rows ? 1u : (unsigned)DT_BLOCKS};
    static bool ready; // one device per process
    if (l.shared > SHARED) return false;
    if (!ready) FM_CUDA(s, cudaFuncSetAttribute(dt_scan_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED));
    ready = true;
    fm_cuda_launch(&l, "scan", dt_scan_kernel<F>, *a);
    return true;
}

// Of weights of dt_proj; NULL: there is none for this type.
dt_scan_fn *fm_cuda_dt_scan_float(fm_dtype type);
dt_scan_fn *fm_cuda_dt_scan_quant(fm_dtype type);

#endif
