// peak.cu - what this card does at most: memory read by every multiprocessor, and a bf16 product that is large enough for cuBLASLt.
#include "kernels/cuda/blas.cuh"
#include "kernels/cuda/launch.cuh"

namespace
{

enum { RUNS = 5, SIDE = 8192, THREADS = 256, AT_ONCE = 8 };
const size_t READ_BYTES = (size_t)4 << 30; // many times the cache

// Eight reads of 16 bytes on their way in every thread; the sum keeps the compiler from leaving them out.  n is read but for a rest.
__global__ void __launch_bounds__(THREADS) read_all(const uint4 *p, size_t n, unsigned *out)
{
    const size_t step = (size_t)gridDim.x * THREADS;
    unsigned sum = 0;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i + (AT_ONCE - 1) * step < n; i += AT_ONCE * step) {
        uint4 v[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) v[k] = __ldcs(p + i + k * step);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    if (sum == 0x5eed5eedu) *out = sum;
}

// Shortest of some runs, in seconds; the first warms up.
template <class F> double seconds(fm_stream *s, F run)
{
    cudaEvent_t from, to;
    float best = 0.0f;
    FM_CUDA(s, cudaEventCreate(&from));
    FM_CUDA(s, cudaEventCreate(&to));
    for (int i = 0; i <= RUNS && s->error == cudaSuccess; i++) {
        float ms = 0.0f;
        cudaEventRecord(from, s->stream);
        run();
        cudaEventRecord(to, s->stream);
        FM_CUDA(s, cudaEventSynchronize(to));
        FM_CUDA(s, cudaEventElapsedTime(&ms, from, to));
        if (i > 0 && (best == 0.0f || ms < best)) best = ms;
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return 1e-3 * (double)best;
}

// The best of several numbers of blocks: which it is differs from card to card.
double read_rate(fm_stream *s, const void *p, size_t bytes)
{
    double best = 0.0;
    for (int per_sm = 1; per_sm <= 8; per_sm++) {
        const double t = seconds(s, [=] {
            read_all<<<s->n_sm * per_sm, THREADS, 0, s->stream>>>((const uint4 *)p, bytes / 16, (unsigned *)p);
            FM_LAUNCHED(s, "reading");
        });
        if (t > 0.0 && (double)bytes / t > best) best = (double)bytes / t;
    }
    return best;
}

// Numbers between 1 and 2 of either sign, no two alike: with equal ones a product takes less power, and so a higher clock.
__global__ void __launch_bounds__(THREADS) fill(unsigned *p, size_t n)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += (size_t)gridDim.x * THREADS) {
        unsigned v = (unsigned)i * 2654435761u;
        v ^= v >> 15;
        p[i] = ((v * 2246822519u) & 0x807f807fu) | 0x3f803f80u;
    }
}

double product_rate(fm_stream *s, char *p)
{
    const size_t matrix = (size_t)SIDE * SIDE * 2;
    fm_gemm g = {};
    g.a = p, g.b = p + matrix, g.c = (float *)(p + 2 * matrix);
    g.lda = g.ldb = g.ldc = g.m = g.n = g.k = SIDE;
    g.b_t = true;
    fill<<<s->n_sm * 8, THREADS, 0, s->stream>>>((unsigned *)p, 2 * matrix / 4);
    FM_LAUNCHED(s, "numbers to multiply");
    const double t = seconds(s, [=] { fm_cuda_gemm(s, &g); });
    return t > 0.0 ? 2.0 * SIDE * SIDE * SIDE / t : 0.0;
}

} // namespace

extern "C" fm_gpu_peaks fm_cuda_peaks(fm_stream *s)
{
    fm_gpu_peaks peaks = {};
    size_t bytes = READ_BYTES;
    const size_t least = (size_t)SIDE * SIDE * 8;
    void *p = fm_stream_alloc(s, bytes);
    if (!p) p = fm_stream_alloc(s, bytes = least);
    if (!p) return peaks;
    FM_CUDA(s, cudaMemsetAsync(p, 1, bytes, s->stream));
    peaks.read = read_rate(s, p, bytes);
    peaks.bf16 = product_rate(s, (char *)p);
    fm_stream_free(s, p);
    return peaks;
}
