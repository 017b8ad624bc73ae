// sample.cu - tokens chosen where the logits are: the likeliest, or one drawn after temperature, min_p, top_k and top_p, in that
// order, as runtime/sampler does with its usual list of samplers and nothing else in play.
//
// A block takes a row.  Candidates are ordered by (key, id), the key being the bits of their distance from the likeliest, so that
// every cut is a pair (key, id) found by bisection over sums of the row: fixed order, no sorting, no atomics.  Few candidates are
// gathered in shared memory first.
//
// What is the same as on the CPU: the likeliest, min_p and top_k to the bit (min_p but for the rounding of one logarithm).  The
// probabilities are expf's of float where the CPU has exp of double, within 1e-7 relative: a draw or a top_p that falls within 1e-7
// of a border may take the neighbour.
#include "kernels/cuda/forward.cuh"

namespace
{

enum { THREADS = 1024, WARPS = THREADS / 32, LIST_MOST = 6000, COARSE = 8 };

// ---- Sums over the block, the same in every thread ----

struct measure { // of a set of candidates
    double count, mass;
};

__device__ measure plus(measure a, measure b)
{
    return {a.count + b.count, a.mass + b.mass};
}

__device__ measure from_lane(measure v, int lane)
{
    return {__shfl_sync(0xffffffffu, v.count, lane), __shfl_sync(0xffffffffu, v.mass, lane)};
}

// The sum of all threads before this one; *all of all.
__device__ measure before(measure v, measure *all)
{
    __shared__ measure warps[WARPS];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    measure sum = v;
#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
        const measure other = from_lane(sum, lane - i < 0 ? 0 : lane - i);
        if (lane >= i) sum = plus(other, sum);
    }
    __syncthreads(); // the last sums have been read
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    measure total = {0.0, 0.0}, mine = {0.0, 0.0};
    for (int w = 0; w < WARPS; w++) {
        if (w == warp) mine = total;
        total = plus(total, warps[w]);
    }
    *all = total;
    const measure left = from_lane(sum, lane ? lane - 1 : 0);
    return lane ? plus(mine, left) : mine;
}

__device__ measure sum_all(measure v)
{
    measure all;
    before(v, &all);
    return all;
}

// ---- The likeliest ----

// As runtime/sampler takes logits: no NaN, nothing infinite.
__device__ float tamed(float v)
{
    return v >= -1e30f ? fminf(v, 1e30f) : -1e30f;
}

struct best {
    float v;
    int id;
};

__device__ best better(best a, best b)
{
    return b.v > a.v || (b.v == a.v && b.id < a.id) ? b : a;
}

__device__ best likeliest(const float *x, int vocab)
{
    __shared__ best warps[WARPS];
    best b = {-INFINITY, 0x7fffffff};
    for (int i = (int)threadIdx.x; i < vocab; i += THREADS) b = better(b, best{tamed(x[i]), i});
    for (int round = 0; round < 2; round++) {
#pragma unroll
        for (int i = 16; i > 0; i >>= 1)
            b = better(b, best{__shfl_xor_sync(0xffffffffu, b.v, i), __shfl_xor_sync(0xffffffffu, b.id, i)});
        if (round) break;
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = b;
        __syncthreads();
        b = warps[threadIdx.x % 32];
    }
    return b;
}

__global__ void __launch_bounds__(THREADS) argmax_row(int32_t *ids, const float *logits, size_t stride, int vocab)
{
    fm_begin();
    const best b = likeliest(logits + blockIdx.x * stride, vocab);
    if (threadIdx.x == 0) ids[blockIdx.x] = b.id;
}

// ---- Candidates ----

struct candidate {
    unsigned key;
    int id;
};

struct cut { // what is at or before it stays
    unsigned key;
    int id;

    __device__ bool keeps(candidate c) const { return c.key < key || (c.key == key && c.id <= id); }
};

// The row, or those of it that were gathered; either way in the order of ids.
struct source {
    const float *x;
    const candidate *list; // NULL: the row
    int n;
    float max, temperature;

    __device__ candidate at(int i) const
    {
        if (list) return list[i];
        const float v = fmaxf(__fdiv_rn(__fsub_rn(tamed(x[i]), max), temperature), -1e30f);
        return {__float_as_uint(fabsf(v)), i};
    }
    __device__ void share(int *begin, int *end) const // this thread's run of candidates
    {
        const int each = (n + THREADS - 1) / THREADS;
        *begin = min((int)threadIdx.x * each, n);
        *end = min(*begin + each, n);
    }
};

__device__ double weight(unsigned key)
{
    return (double)expf(-__uint_as_float(key));
}

template <typename P> __device__ measure share_of(const source &s, P keeps)
{
    int begin, end;
    measure m = {0.0, 0.0};
    s.share(&begin, &end);
    for (int i = begin; i < end; i++) {
        const candidate c = s.at(i);
        if (keeps(c)) m = plus(m, measure{1.0, weight(c.key)});
    }
    return m;
}

template <typename P> __device__ measure measure_of(const source &s, P keeps)
{
    return sum_all(share_of(s, keeps));
}

// The id of the nth candidate (from 1) of those that `keeps` keeps.
template <typename P> __device__ int nth(const source &s, double n, P keeps)
{
    __shared__ int found;
    int begin, end;
    measure all;
    double seen = before(share_of(s, keeps), &all).count;
    s.share(&begin, &end);
    for (int i = begin; i < end && seen < n; i++) {
        const candidate c = s.at(i);
        if (keeps(c) && ++seen == n) found = c.id;
    }
    __syncthreads();
    return found;
}

// The first cut within `old` at which reached(measure of what it keeps) holds; `old` where none does.
template <typename R> __device__ cut first_cut(const source &s, cut old, R reached)
{
    unsigned lo = 0, hi = old.key;
    while (lo < hi) {
        const unsigned mid = lo + (hi - lo) / 2;
        if (reached(measure_of(s, [=](candidate c) { return c.key <= mid && old.keeps(c); })))
            hi = mid;
        else
            lo = mid + 1;
    }
    const measure less = measure_of(s, [=](candidate c) { return c.key < lo; });
    const measure ties = measure_of(s, [=](candidate c) { return c.key == lo && old.keeps(c); });
    if (ties.count == 0.0 || !reached(plus(less, ties))) return old;
    double n = 1.0, most = ties.count; // the ties it takes
    while (n < most) {
        const double mid = floor((n + most) / 2);
        if (reached(measure{less.count + mid, less.mass + mid * weight(lo)}))
            most = mid;
        else
            n = mid + 1.0;
    }
    return {lo, nth(s, n, [=](candidate c) { return c.key == lo && old.keeps(c); })};
}

// ---- Drawing ----

// Candidates that certainly hold what top_k and top_p leave: those nearer to the likeliest than one of a few distances.
__device__ unsigned near_enough(const source &s, unsigned most, const fm_draw &d, measure all)
{
    for (int j = 1; j <= COARSE; j++) {
        const unsigned key = __float_as_uint((float)(j * j) * 0.5f);
        if (key >= most) break;
        const measure m = measure_of(s, [=](candidate c) { return c.key <= key; });
        const bool enough = d.top_k > 0 && d.top_k < all.count ? m.count >= d.top_k : m.mass >= (double)d.top_p * all.mass;
        if (enough) return key;
    }
    return most;
}

// Gathers them in the order of ids, where there is room.
__device__ source gathered(const source &s, candidate *list, unsigned most)
{
    const auto keeps = [=](candidate c) { return c.key <= most; };
    int begin, end;
    measure all;
    int to = (int)before(share_of(s, keeps), &all).count;
    if (all.count > LIST_MOST) return s;
    s.share(&begin, &end);
    for (int i = begin; i < end; i++) {
        const candidate c = s.at(i);
        if (keeps(c)) list[to++] = c;
    }
    __syncthreads();
    source few = s;
    few.list = list;
    few.n = (int)all.count;
    return few;
}

// In the order of ids: nothing was sorted.
__device__ int draw_by_id(const source &s, unsigned most, double random)
{
    __shared__ int found;
    const auto keeps = [=](candidate c) { return c.key <= most; };
    int begin, end;
    measure all;
    const measure mine = share_of(s, keeps);
    double sum = before(mine, &all).mass;
    const double target = random * all.mass;
    if (threadIdx.x == 0) found = -1;
    __syncthreads();
    s.share(&begin, &end);
    for (int i = begin; i < end && sum <= target; i++) {
        const candidate c = s.at(i);
        if (!keeps(c)) continue;
        if ((sum += weight(c.key)) > target) atomicMax(&found, c.id); // rounding may give two threads one each
    }
    __syncthreads();
    return found;
}

// From the likeliest down.
__device__ int draw_by_rank(source s, candidate *list, unsigned most, const fm_draw &d, measure all)
{
    const bool few = d.top_k > 0 && d.top_k < all.count;
    s = gathered(s, list, near_enough(s, most, d, all));
    cut c = {most, 0x7fffffff};
    if (few) c = first_cut(s, c, [&](measure m) { return m.count >= d.top_k; });
    if (d.top_p < 1.0f) {
        const double total = few ? measure_of(s, [=](candidate x) { return c.keeps(x); }).mass : all.mass;
        c = first_cut(s, c, [&](measure m) { return m.mass >= (double)d.top_p * total; });
    }
    const double total = measure_of(s, [=](candidate x) { return c.keeps(x); }).mass, target = d.random * total;
    const cut drawn = first_cut(s, c, [&](measure m) { return m.mass > target; });
    return target < total ? drawn.id : -1;
}

__global__ void __launch_bounds__(THREADS)
    sample_row(int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, int vocab)
{
    extern __shared__ candidate list[];
    fm_begin();
    const fm_draw d = draws[blockIdx.x];
    const float *x = logits + blockIdx.x * stride;
    const best b = likeliest(x, vocab);
    int id = b.id;
    if (d.temperature > 0.0f) {
        const source s = {x, NULL, vocab, b.v, d.temperature};
        const float most_apart = d.min_p > 0.0f ? fminf((float)-log((double)d.min_p), 1e30f) : 1e30f;
        const unsigned most = __float_as_uint(fabsf(most_apart));
        const measure all = measure_of(s, [=](candidate c) { return c.key <= most; });
        const bool ranked = (d.top_k > 0 && d.top_k < all.count) || d.top_p < 1.0f;
        const int drawn = ranked ? draw_by_rank(s, list, most, d, all) : draw_by_id(s, most, d.random);
        if (drawn >= 0) id = drawn;
    }
    if (threadIdx.x == 0) ids[blockIdx.x] = id;
}

} // namespace

extern "C" void fm_cuda_argmax(fm_stream *s, int32_t *ids, const float *logits, size_t stride, size_t n, size_t vocab)
{
    if (n > 0) fm_queue(s, "argmax", argmax_row, (unsigned)n, THREADS, ids, logits, stride, (int)vocab);
}

extern "C" void fm_cuda_sample(fm_stream *s, int32_t *ids, const float *logits, size_t stride, const fm_draw *draws, size_t n,
                               size_t vocab)
{
    const size_t bytes = LIST_MOST * sizeof(candidate);
    static_assert(LIST_MOST * sizeof(candidate) <= 48 << 10, "what a block has without asking");
    if (n > 0) fm_queue_shared(s, "sample", sample_row, (unsigned)n, THREADS, bytes, ids, logits, stride, draws, (int)vocab);
}
