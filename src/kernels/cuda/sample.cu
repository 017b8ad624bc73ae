// sample.cu - tokens chosen where the logits are: the likeliest, or one drawn after temperature, min_p, top_k and top_p, in that
// order, as runtime/sampler does with its usual list of samplers and nothing else in play.
//
// A cluster of blocks takes a row, each block a run of ids, whose keys stay in its shared memory: a key is the bits of a
// candidate's distance from the likeliest.  Candidates are ordered by (key, id), so that every cut is a pair (key, id); it is found
// digit by digit, from sums over the row of those below seven borders at once.  Sums are of integers - a candidate counts 1, or its
// probability in units of 2^-40 of the likeliest's - and have no order.
//
// What is the same as on the CPU: the likeliest, min_p and top_k to the bit (min_p but for the rounding of one logarithm).  The
// probabilities are expf's of float where the CPU has exp of double, within 1e-7 relative: a draw or a top_p that falls within 1e-7
// of a border may take the neighbour.
#include <cooperative_groups.h>

#include "kernels/cuda/forward.cuh"

namespace
{

enum { THREADS = 512, WARPS = THREADS / 32, BLOCKS = 8, BORDERS = 7, SUMS = BORDERS + 2, DIGIT = 3, KEY_BITS = 31 };
const unsigned NEVER = 0xffffffffu;        // the key of what is out of play
const unsigned long long ONE = 1ull << 40; // larger than any sum of ids
const size_t SHARED_MOST = (size_t)200 << 10;

namespace cg = cooperative_groups;

struct best {
    float v;
    int id;
};

// What the blocks of a row tell each other: by turns, so that one meeting is enough.
struct board {
    unsigned long long warps[WARPS][SUMS];
    unsigned long long sums[2][BLOCKS][SUMS];
    best warp_bests[WARPS], bests[BLOCKS];
    int warps_bad[WARPS], bad[BLOCKS];
};

// One row and this block's part of it.
struct row {
    board *b;
    unsigned *keys; // of ids first .. first + n - 1
    int first, n, turn;
};

// ---- Sums over the row ----

__device__ unsigned long long warp_sum(unsigned long long v) // v < 2^48
{
    const unsigned long long lo = __reduce_add_sync(0xffffffffu, (unsigned)v & 0xffffffu);
    return lo + ((unsigned long long)__reduce_add_sync(0xffffffffu, (unsigned)(v >> 24)) << 24);
}

// Sums of n values of each thread of all blocks; lane i < n of every warp has the ith.
__device__ unsigned long long sum_all(row &r, const unsigned long long *v, int n)
{
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    cg::cluster_group cluster = cg::this_cluster();
    for (int i = 0; i < n; i++) {
        const unsigned long long sum = warp_sum(v[i]);
        if (lane == 0) r.b->warps[warp][i] = sum;
    }
    __syncthreads();
    r.turn ^= 1;
    if (warp == 0 && lane < n) {
        unsigned long long sum = 0;
        for (int w = 0; w < WARPS; w++) sum += r.b->warps[w][lane];
        for (int to = 0; to < BLOCKS; to++) cluster.map_shared_rank(r.b, to)->sums[r.turn][cluster.block_rank()][lane] = sum;
    }
    cluster.sync();
    unsigned long long sum = 0;
    for (int from = 0; from < BLOCKS && lane < n; from++) sum += r.b->sums[r.turn][from][lane];
    return sum;
}

// What a candidate counts.
struct by_count {
    __device__ unsigned long long operator()(unsigned) const { return 1; }
};
struct by_mass {
    __device__ unsigned long long operator()(unsigned key) const
    {
        return __float2ull_rn(expf(-__uint_as_float(key)) * 0x1p40f);
    }
};

struct cut { // what is at or before it stays
    unsigned key;
    int id;

    __device__ bool keeps(unsigned k, int i) const { return k < key || (k == key && i <= id); }
};

template <class M> __device__ unsigned long long sum_of(row &r, cut c, M measure)
{
    unsigned long long sum = 0;
    for (int i = (int)threadIdx.x; i < r.n; i += THREADS)
        if (c.keeps(r.keys[i], r.first + i)) sum += measure(r.keys[i]);
    return __shfl_sync(0xffffffffu, sum_all(r, &sum, 1), 0);
}

// ---- The first place at which a sum is reached ----

struct place {
    unsigned at;              // of `bits` bits
    int id;                   // of the only candidate there; -1: there may be several
    unsigned long long below; // the sum of what is before it, where id is -1
};

// `where(i, &at)`: whether this block's candidate i is in play, and its place.  The sum over all must reach `need`.
template <class W, class M> __device__ place first_place(row &r, unsigned long long need, int bits, M measure, W where)
{
    place p = {0, -1, 0};
    unsigned long long end = 1ull << bits;
    for (int shift = bits; shift > 0;) {
        unsigned long long sums[SUMS] = {}; // below each border; of those in play how many ONEs and ids, and places
        shift = shift > DIGIT ? shift - DIGIT : 0;
        for (int i = (int)threadIdx.x; i < r.n; i += THREADS) {
            unsigned at;
            if (!where(i, &at) || at < p.at || at >= end) continue;
            const unsigned long long c = measure(r.keys[i]);
            const unsigned digit = (at - p.at) >> shift;
#pragma unroll
            for (int d = 0; d < BORDERS; d++)
                if (digit <= d) sums[d] += c;
            sums[BORDERS] += ONE + (unsigned)(r.first + i);
            sums[BORDERS + 1] += at;
        }
        unsigned long long sum = sum_all(r, sums, SUMS);
        const unsigned long long left = __shfl_sync(0xffffffffu, sum, BORDERS),
                                 ats = __shfl_sync(0xffffffffu, sum, BORDERS + 1);
        if (left / ONE == 1) return {(unsigned)ats, (int)(left % ONE), 0};
        sum += p.below;
        const unsigned less = __ballot_sync(0xffffffffu, sum < need) & ((1u << BORDERS) - 1);
        const int digit = __popc(less); // sums grow with the border
        const unsigned long long before = __shfl_sync(0xffffffffu, sum, digit > 0 ? digit - 1 : 0);
        if (digit > 0) p.below = before;
        p.at += (unsigned)digit << shift;
        if (digit < BORDERS) end = (unsigned long long)p.at + (1ull << shift);
    }
    return p;
}

__device__ int id_bits(int vocab)
{
    return 32 - __clz(vocab);
}

// The first cut within `old` at which `need` is reached, which it is by all of `old`.
template <class M> __device__ cut first_cut(row &r, cut old, unsigned long long need, int vocab, M measure)
{
    const place p = first_place(r, need, KEY_BITS, measure, [&](int i, unsigned *at) {
        *at = r.keys[i];
        return old.keeps(r.keys[i], r.first + i);
    });
    if (p.id >= 0) return {p.at, p.id};
    // Of equal keys each counts the same.
    const unsigned long long each = measure(p.at), left = need - p.below, nth = each ? (left + each - 1) / each : 1;
    const place tie = first_place(r, nth, id_bits(vocab), by_count(), [&](int i, unsigned *at) {
        *at = (unsigned)(r.first + i);
        return r.keys[i] == p.at && old.keeps(p.at, r.first + i);
    });
    return {p.at, (int)tie.at};
}

// ---- The likeliest ----

// As runtime/sampler takes logits: no NaN, nothing infinite.
__device__ float tamed(float v)
{
    return v >= -1e30f ? fminf(v, 1e30f) : -1e30f;
}

__device__ best better(best a, best b)
{
    return b.v > a.v || (b.v == a.v && b.id < a.id) ? b : a;
}

// The likeliest of n logits of each block, and whether a logit was not finite; all threads of all blocks get both.
__device__ best likeliest(row &r, const float *x, bool *bad)
{
    cg::cluster_group cluster = cg::this_cluster();
    best b = {-INFINITY, 0x7fffffff};
    bool odd = false;
    for (int i = (int)threadIdx.x; i < r.n; i += THREADS) {
        odd |= !isfinite(x[r.first + i]);
        b = better(b, best{tamed(x[r.first + i]), r.first + i});
    }
    odd = __any_sync(0xffffffffu, odd);
    for (int round = 0; round < 2; round++) {
#pragma unroll
        for (int i = 16; i > 0; i >>= 1)
            b = better(b, best{__shfl_xor_sync(0xffffffffu, b.v, i), __shfl_xor_sync(0xffffffffu, b.id, i)});
        if (round) break;
        if (threadIdx.x % 32 == 0) r.b->warp_bests[threadIdx.x / 32] = b, r.b->warps_bad[threadIdx.x / 32] = odd;
        __syncthreads();
        b = r.b->warp_bests[threadIdx.x % WARPS];
        odd = __any_sync(0xffffffffu, r.b->warps_bad[threadIdx.x % WARPS]);
    }
    if (threadIdx.x < BLOCKS) {
        board *to = cluster.map_shared_rank(r.b, threadIdx.x);
        to->bests[cluster.block_rank()] = b;
        to->bad[cluster.block_rank()] = odd;
    }
    cluster.sync();
    for (int i = 0; i < BLOCKS; i++) b = better(b, r.b->bests[i]), odd |= r.b->bad[i];
    *bad = odd;
    return b;
}

__device__ row begin_row(board *b, unsigned *keys, int vocab)
{
    const int each = (vocab + BLOCKS - 1) / BLOCKS, first = min((int)cg::this_cluster().block_rank() * each, vocab);
    return {b, keys, first, min(each, vocab - first), 0};
}

// Nobody leaves while others may still write to its memory.
__device__ void end_row(int32_t *id, int chosen, bool bad)
{
    cg::this_cluster().sync();
    if (cg::this_cluster().block_rank() == 0 && threadIdx.x == 0) *id = bad ? ~chosen : chosen;
}

__global__ void __launch_bounds__(THREADS) argmax_row(int32_t *ids, const float *logits, size_t stride, int vocab)
{
    __shared__ board shared;
    bool bad;
    const size_t at = blockIdx.x / BLOCKS;
    fm_begin();
    row r = begin_row(&shared, NULL, vocab);
    cg::this_cluster().sync(); // all blocks are there
    const best b = likeliest(r, logits + at * stride, &bad);
    end_row(ids + at, b.id, bad);
}

// ---- Drawing ----

// Keys of what min_p leaves.
__device__ void find_keys(row &r, const float *x, float max, const fm_draw &d)
{
    const float most_apart = d.min_p > 0.0f ? fminf((float)-log((double)d.min_p), 1e30f) : 1e30f;
    const unsigned most = __float_as_uint(fabsf(most_apart));
    for (int i = (int)threadIdx.x; i < r.n; i += THREADS) {
        const float v = fmaxf(__fdiv_rn(__fsub_rn(tamed(x[r.first + i]), max), d.temperature), -1e30f);
        const unsigned key = __float_as_uint(fabsf(v));
        r.keys[i] = key <= most ? key : NEVER;
    }
}

// The least integer sum that is at least `share` of `all`; 1 at least, so that something is kept.
__device__ unsigned long long at_least(double share, unsigned long long all)
{
    const unsigned long long need = (unsigned long long)ceil(share * (double)all);
    return need < 1 ? 1 : need > all ? all : need;
}

// The least integer sum beyond `share` of `all`, share < 1.
__device__ unsigned long long beyond(double share, unsigned long long all)
{
    const unsigned long long need = (unsigned long long)floor(share * (double)all) + 1;
    return need > all ? all : need;
}

// In the order of ids where nothing is sorted, else from the likeliest down.
__device__ int draw(row &r, const fm_draw &d, int vocab)
{
    cut c = {NEVER - 1, vocab};
    const bool few = d.top_k > 0 && (unsigned long long)d.top_k < sum_of(r, c, by_count());
    if (few) c = first_cut(r, c, (unsigned long long)d.top_k, vocab, by_count());
    unsigned long long all = sum_of(r, c, by_mass());
    if (d.top_p < 1.0f) {
        c = first_cut(r, c, at_least((double)d.top_p, all), vocab, by_mass());
        all = sum_of(r, c, by_mass());
    }
    const unsigned long long need = beyond(d.random, all);
    if (few || d.top_p < 1.0f) return first_cut(r, c, need, vocab, by_mass()).id;
    const auto where = [&](int i, unsigned *at) {
        *at = (unsigned)(r.first + i);
        return c.keeps(r.keys[i], r.first + i);
    };
    return (int)first_place(r, need, id_bits(vocab), by_mass(), where).at;
}

__global__ void __launch_bounds__(THREADS)
    sample_row(int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, int vocab)
{
    __shared__ board shared;
    extern __shared__ unsigned keys[];
    bool bad;
    const size_t at = blockIdx.x / BLOCKS;
    const float *x = logits + at * stride;
    fm_begin();
    const fm_draw d = draws[at];
    row r = begin_row(&shared, keys, vocab);
    cg::this_cluster().sync();
    const best b = likeliest(r, x, &bad);
    int id = b.id;
    if (d.temperature > 0.0f) {
        find_keys(r, x, b.v, d);
        __syncthreads();
        id = draw(r, d, vocab);
    }
    end_row(ids + at, id, bad);
}

} // namespace

extern "C" void fm_cuda_argmax(fm_stream *s, int32_t *ids, const float *logits, size_t stride, size_t n, size_t vocab)
{
    const fm_launch l = {s, (unsigned)n * BLOCKS, THREADS, 0, BLOCKS};
    if (n > 0) fm_cuda_launch(&l, "argmax", argmax_row, ids, logits, stride, (int)vocab);
}

extern "C" void fm_cuda_sample(fm_stream *s, int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, size_t n,
                               size_t vocab)
{
    const size_t bytes = (vocab + BLOCKS - 1) / BLOCKS * sizeof(unsigned);
    const fm_launch l = {s, (unsigned)n * BLOCKS, THREADS, bytes, BLOCKS};
    if (bytes > SHARED_MOST) {
        fm_cuda_note(s, cudaErrorNotSupported, "sampling on the device: a vocabulary of more than 409600 tokens");
        return;
    }
    fm_cuda_allow_shared<sample_row>(s, SHARED_MOST);
    if (n > 0) fm_cuda_launch(&l, "sample", sample_row, ids, logits, stride, draws, (int)vocab);
}
