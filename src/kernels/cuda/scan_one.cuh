// scan_one.cuh - the scan of one token of each sequence, and the arguments that all scans have.
//
// Its limit is the memory of the states: step_one walks sequences with A in registers.
#ifndef FM_KERNELS_CUDA_SCAN_ONE_CUH
#define FM_KERNELS_CUDA_SCAN_ONE_CUH

#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/scan.cuh"

namespace
{

enum { ONE_THREADS = 64, BLOCKS_PER_SM = 9, PAIRS_PER_SM = 8 }; // of step_one, of step_pair

// R: float or __nv_bfloat16, of y, u, dt and z.
template <typename R> struct scan {
    R *y;
    fm_states h;
    const R *u, *dt, *z;
    size_t y_stride, u_stride, dt_stride, z_stride;
    const float *dt_bias, *A, *skip, *B, *C;
    size_t bc_stride;
    const size_t *begin;
    const uint32_t *seen;
    size_t n_seq, d_inner;
    size_t walk_rows; // walks.cuh, where states are kept
    int d_state;
    bool hold, bc_aligned, out;
    __nv_bfloat16 *packed; // (n_tokens, d_inner) without a gap, or NULL
    fm_records records;    // in its place where FORM is one of integers
    float *kept;           // (n_tokens / FM_KEPT_ROWS + 1, d_state, d_inner), or NULL

    __device__ void put4(size_t row, size_t c, float4 v) const // of whole vectors
    {
        if (y) fm_store4<true>(y + row * y_stride + c, 4, v);
        if (packed) fm_store4_bf16(packed + row * d_inner + c, v);
    }
    __device__ void put(size_t row, size_t c, float v) const
    {
        if (y) fm_store1(y + row * y_stride + c, v);
        if (packed) packed[row * d_inner + c] = __float2bfloat16_rn(v);
    }
};

// A thread has a channel with all its states, and adds up what its warps would in scan_long.  Sequence s is row s.
template <typename R> struct inputs {
    R u, dt, z; // as they come
};

template <typename R> __device__ inputs<R> inputs_of(const scan<R> &a, size_t row, size_t c)
{
    return {a.u[row * a.u_stride + c], a.dt[row * a.dt_stride + c], a.out && a.z ? a.z[row * a.z_stride + c] : (R)0.0f};
}

// A block that makes records has the channels of one, whose outputs wait here for a warp that rounds them as pack_x does.  Warps take
// turns, and two turns have places of their own, so that the others go on meanwhile.
template <int FORM> struct outputs {
    enum { THREADS = (int)FM_CHUNK, PER_SM = 3, PER_SM_OF_FEW = 2 };
    float v[2][THREADS];

    template <typename R> __device__ void put(const scan<R> &a, unsigned turn, size_t row, float y)
    {
        v[turn % 2][threadIdx.x] = y;
        __syncthreads();
        if (threadIdx.x / 32 != turn % (THREADS / 32)) return;
        float x[8];
        pack_load(x, v[turn % 2], THREADS, 0, true);
        a.records.template put<FORM == FM_X_Q8_256>(row, blockIdx.x, x);
    }
};
template <> struct outputs<FM_X_BF16> {
    enum { THREADS = (int)ONE_THREADS, PER_SM = BLOCKS_PER_SM, PER_SM_OF_FEW = BLOCKS_PER_SM };
    template <typename R> __device__ void put(const scan<R> &, unsigned, size_t, float) {}
};

// W times S states.  Threads walk every gridDim.y-th sequence with the decays in registers, and read the next one early.
template <typename R, int S, int W, int FORM, int PER_SM>
__global__ void __launch_bounds__(outputs<FORM>::THREADS, FORM == FM_X_BF16 ? 0 : PER_SM) step_one(scan<R> a)
{
    __shared__ outputs<FORM> record;
    const size_t c = (size_t)blockIdx.x * outputs<FORM>::THREADS + threadIdx.x, d = a.d_inner;
    if (c >= d) return; // whoever returns does not hold up the next kernel; nobody does where records are made
    states<S * W, true> h, next;
    h.read_decays(a.A + c, d, 0); // weights: nobody writes them just before
    const float bias = a.dt_bias ? a.dt_bias[c] : 0.0f, skip = a.out ? a.skip[c] : 0.0f;
    size_t s = blockIdx.y;
    float *state = fm_cuda_state(a.h, s) + c; // no kernel writes the list
#pragma unroll
    for (int i = 0; i < S * W; i++) fm_prefetch(state + i * d);
    fm_begin_for<FORM>(a.records);
    next.read(state, d, 0);
    inputs<R> then = inputs_of(a, s, c);
    for (unsigned turn = 0; s < a.n_seq; turn++) {
        float *const here = state, *const B = (float *)a.B + s * a.bc_stride, *const C = (float *)a.C + s * a.bc_stride;
        const inputs<R> now = then;
        const size_t row = s;
#pragma unroll
        for (int i = 0; i < S * W; i++) h.h[i] = next.h[i];
        s += gridDim.y;
        if (s < a.n_seq) {
            state = fm_cuda_state(a.h, s) + c;
            next.read(state, d, 0);
            then = inputs_of(a, s, c);
        }
        const float2 step = step_of((float)now.u, (float)now.dt, bias);
        float y = 0.0f;
#pragma unroll
        for (int w = 0; w < W; w++) {
            states<S, true> part;
#pragma unroll
            for (int i = 0; i < S; i++) part.a[i] = h.a[w * S + i], part.h[i] = h.h[w * S + i];
            part.move(step, B + w * S, 0);
            if (a.out) y = w == 0 ? part.sum(C, 0) : __fadd_rn(y, part.sum(C + w * S, 0));
            if (!a.hold) part.write(here + w * S * d, d, 0);
        }
        if (!a.out) continue;
        const float out = gated(a.z, __fmaf_rn(skip, (float)now.u, y), (float)now.z);
        a.put(row, c, out);
        record.put(a, turn, row, out);
    }
}

// The same of states in bf16, of an even number of channels: a thread has two, whose states it reads and writes at once, so that as
// many bytes are under way as with f32 (with one it reached 70 % of the memory's speed, so 96 %).
template <typename R, int S, int W> struct pair {
    const scan<R> &a;
    size_t c, words; // first channel; from one state to the next
    states<S * W, true> decays[2];
    float bias[2], skip[2];

    __device__ void read_weights()
    {
        for (int k = 0; k < 2; k++) {
            decays[k].read_decays(a.A + c + k, a.d_inner, 0);
            bias[k] = a.dt_bias ? a.dt_bias[c + k] : 0.0f;
            skip[k] = a.out ? a.skip[c + k] : 0.0f;
        }
    }
    __device__ unsigned *state_of(size_t s) const { return (unsigned *)(fm_cuda_state_of<__nv_bfloat16>(a.h, s) + c); }

    __device__ void read(unsigned to[S * W], inputs<R> in[2], const unsigned *state, size_t row) const
    {
#pragma unroll
        for (int i = 0; i < S * W; i++) to[i] = state[i * words];
        in[0] = inputs_of(a, row, c), in[1] = inputs_of(a, row, c + 1);
    }

    // S of the states, from the w-th S on, of channel k.
    __device__ states<S, true, __nv_bfloat16> part_of(const unsigned h[S * W], int w, int k) const
    {
        states<S, true, __nv_bfloat16> p;
#pragma unroll
        for (int i = 0; i < S; i++) {
            p.a[i] = decays[k].a[w * S + i];
            p.h[i] = __uint_as_float(k ? h[w * S + i] & 0xffff0000u : h[w * S + i] << 16);
        }
        return p;
    }

    __device__ void step(unsigned *state, const unsigned h[S * W], const inputs<R> in[2], size_t row) const
    {
        const float *const B = a.B + row * a.bc_stride, *const C = a.C + row * a.bc_stride;
        float y[2];
#pragma unroll
        for (int w = 0; w < W; w++) {
            states<S, true, __nv_bfloat16> part[2] = {part_of(h, w, 0), part_of(h, w, 1)};
#pragma unroll
            for (int k = 0; k < 2; k++) {
                part[k].move(step_of((float)in[k].u, (float)in[k].dt, bias[k]), B + w * S, 0);
                if (a.out) y[k] = w == 0 ? part[k].sum(C, 0) : __fadd_rn(y[k], part[k].sum(C + w * S, 0));
                part[k].begin(a.seen, row, c + k, w * S);
                part[k].leave();
            }
#pragma unroll
            for (int i = 0; i < S && !a.hold; i++)
                state[(w * S + i) * words] =
                    __byte_perm(__float_as_uint(part[0].h[i]), __float_as_uint(part[1].h[i]), 0x7632); // the upper halves
        }
        for (int k = 0; k < 2 && a.out; k++)
            a.put(row, c + k, gated(a.z, __fmaf_rn(skip[k], (float)in[k].u, y[k]), (float)in[k].z));
    }
};

template <typename R, int S, int W> __global__ void __launch_bounds__(ONE_THREADS) step_pair(scan<R> a)
{
    pair<R, S, W> p = {a, 2 * ((size_t)blockIdx.x * ONE_THREADS + threadIdx.x), a.d_inner / 2};
    if (p.c >= a.d_inner) return;
    p.read_weights();
    size_t s = blockIdx.y;
    unsigned *state = p.state_of(s), next[S * W];
    inputs<R> then[2];
#pragma unroll
    for (int i = 0; i < S * W; i++) fm_prefetch(state + i * p.words);
    fm_begin();
    p.read(next, then, state, s);
    while (s < a.n_seq) {
        const size_t row = s;
        unsigned *const here = state, now[S * W];
        const inputs<R> in[2] = {then[0], then[1]};
#pragma unroll
        for (int i = 0; i < S * W; i++) now[i] = next[i];
        s += gridDim.y;
        if (s < a.n_seq) {
            state = p.state_of(s);
            p.read(next, then, state, s);
        }
        p.step(here, now, in, row);
    }
}

// The same for any number of states: a sequence each blockIdx.y.
template <typename R, typename H, int S> __global__ void __launch_bounds__(ONE_THREADS) step_any(scan<R> a)
{
    const size_t c = (size_t)blockIdx.x * ONE_THREADS + threadIdx.x, d = a.d_inner, row = blockIdx.y;
    if (c >= d) return;
    fm_begin();
    const inputs<R> now = inputs_of(a, row, c);
    const float2 step = step_of((float)now.u, (float)now.dt, a.dt_bias ? a.dt_bias[c] : 0.0f);
    H *state = fm_cuda_state_of<H>(a.h, row) + c;
    const float *B = a.B + row * a.bc_stride, *C = a.C + row * a.bc_stride;
    float y = 0.0f;
    for (int n0 = 0; n0 < a.d_state; n0 += S) {
        const int n = a.d_state - n0;
        states<S, false, H> part;
        part.read_decays(a.A + n0 * d + c, d, n);
        part.read(state + n0 * d, d, n);
        part.move(step, B + n0, n);
        if (a.out) y = n0 == 0 ? part.sum(C, n) : __fadd_rn(y, part.sum(C + n0, n));
        part.begin(a.seen, row, c, n0);
        part.leave();
        if (!a.hold) part.write(state + n0 * d, d, n);
    }
    if (a.out) a.put(row, c, gated(a.z, __fmaf_rn(a.skip[c], (float)now.u, y), (float)now.z));
}

// ---- Launches ----

// Sequences that are walked at once, where so many blocks fit on a multiprocessor.
template <typename R> unsigned groups_of(const fm_stream *s, const scan<R> &a, unsigned blocks, unsigned per_sm)
{
    const size_t fit = (size_t)s->n_sm * per_sm / blocks;
    return (unsigned)(fit < 1 ? 1 : fit < a.n_seq ? fit : a.n_seq);
}

template <typename R, int S, int FORM, int PER_SM> void launch_step_with(fm_stream *s, const scan<R> &a)
{
    const unsigned threads = outputs<FORM>::THREADS, blocks = fm_blocks(a.d_inner, threads);
    fm_queue(s, "scan", step_one<R, S, 4, FORM, PER_SM>, dim3(blocks, groups_of(s, a, blocks, PER_SM)), threads, a);
}

// Few sequences want registers, many want blocks: Q4_K, one sequence 367 tokens a second with three blocks and 375 with two, 64
// sequences 6516 and 6208 (H100).
template <typename R, int S, int FORM> void launch_step(fm_stream *s, const scan<R> &a)
{
    if (a.n_seq <= FM_CUDA_FEW)
        launch_step_with<R, S, FORM, outputs<FORM>::PER_SM_OF_FEW>(s, a);
    else
        launch_step_with<R, S, FORM, outputs<FORM>::PER_SM>(s, a);
}

template <typename H, int S, typename R> void launch_one(fm_stream *s, const scan<R> &a)
{
    enum { FEW = S <= 4 ? S : 1 };
    const bool half = sizeof(H) == 2, whole = S <= 4 && a.d_state == 4 * S;
    const unsigned blocks = fm_blocks(a.d_inner, ONE_THREADS), pairs = fm_blocks(a.d_inner / 2, ONE_THREADS);
    if (whole && !half)
        launch_step<R, FEW, FM_X_BF16>(s, a);
    else if (whole && a.d_inner % 2 == 0)
        fm_queue(s, "scan", step_pair<R, FEW, 4>, dim3(pairs, groups_of(s, a, pairs, PAIRS_PER_SM)), ONE_THREADS, a);
    else
        fm_queue(s, "scan", step_any<R, H, S>, dim3(blocks, (unsigned)a.n_seq), ONE_THREADS, a);
}

} // namespace

#endif
