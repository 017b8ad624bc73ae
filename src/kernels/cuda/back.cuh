// back.cuh - the backward's entries of the table, and the sums over tokens that they share.
//
// A sum over tokens is cut into parts whose number depends on the sizes alone; parts lie in the stream's scratch and are added in
// their order.
#ifndef FM_KERNELS_CUDA_BACK_CUH
#define FM_KERNELS_CUDA_BACK_CUH

#include "kernels/cuda/cuda.cuh"

// Every backward entry into the table.
extern "C" void fm_cuda_fill_back(fm_kernels *k);
extern "C" void fm_cuda_fill_back_rows(fm_kernels *k);
extern "C" void fm_cuda_fill_back_conv(fm_kernels *k);
extern "C" void fm_cuda_fill_back_scan(fm_kernels *k);
extern "C" void fm_cuda_fill_optim(fm_kernels *k);

enum {
    FM_PART_ROWS = 32,    // tokens of a part, at least
    FM_PARTS_MAX = 256,   // parts of a sum
    FM_PART_FLOATS = 1280 // floats that all parts of a column take, at most
};

// Rows of each part when a part takes `width` floats per column.
static inline size_t fm_part_rows(size_t n, size_t width)
{
    size_t most = FM_PART_FLOATS / width;
    if (most > FM_PARTS_MAX) most = FM_PARTS_MAX;
    const size_t rows = (n + most - 1) / most;
    return rows < FM_PART_ROWS ? FM_PART_ROWS : (rows + 7) / 8 * 8;
}

// ---- out (d) += sum over n rows of f(row, column) ----

enum { FM_SUM_LANES = 32, FM_SUM_ROWS = 8, FM_SUM_AHEAD = 8 };

// Rows r with the same r % 8 are summed in their order, then the eight.  `part`: (parts, d), or NULL when there is one.  Rows are asked
// for FM_SUM_AHEAD at a time: a loop that looks for its end after each waits for each.
template <class F>
__global__ void __launch_bounds__(FM_SUM_LANES *FM_SUM_ROWS)
    fm_sum_columns(float *out, float *part, F f, size_t n, size_t d, size_t per)
{
    __shared__ float sums[FM_SUM_ROWS][FM_SUM_LANES];
    const size_t c = (size_t)blockIdx.x * FM_SUM_LANES + threadIdx.x, first = blockIdx.y * per;
    const size_t last = first + per < n ? first + per : n;
    float sum = 0.0f;
    for (size_t r = first + threadIdx.y; c < d && r < last; r += FM_SUM_AHEAD * FM_SUM_ROWS) {
        float v[FM_SUM_AHEAD];
#pragma unroll
        for (int i = 0; i < FM_SUM_AHEAD; i++) v[i] = r + i * FM_SUM_ROWS < last ? f(r + i * FM_SUM_ROWS, c) : 0.0f;
#pragma unroll
        for (int i = 0; i < FM_SUM_AHEAD; i++) sum += v[i];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c >= d) return;
    for (int i = 1; i < FM_SUM_ROWS; i++) sum += sums[i][threadIdx.x];
    if (part)
        part[blockIdx.y * d + c] = sum;
    else
        out[c] += sum;
}

// Rows of a matrix.
struct fm_plain_rows {
    const float *x;
    size_t stride;
    __device__ float operator()(size_t r, size_t c) const { return x[r * stride + c]; }
};

// out (d) += parts rows of d, `stride` apart.
static inline void fm_add_parts(fm_stream *s, float *out, const float *part, size_t parts, size_t stride, size_t d,
                                const char *what)
{
    if (!out || d == 0) return;
    fm_sum_columns<<<dim3(fm_blocks(d, FM_SUM_LANES), 1), dim3(FM_SUM_LANES, FM_SUM_ROWS), 0, s->stream>>>(
        out, (float *)NULL, fm_plain_rows{part, stride}, parts, d, parts);
    FM_LAUNCHED(s, what);
}

template <class F> static void fm_add_columns(fm_stream *s, float *out, F f, size_t n, size_t d, const char *what)
{
    if (n == 0 || d == 0) return;
    const dim3 threads(FM_SUM_LANES, FM_SUM_ROWS);
    const size_t per = fm_part_rows(n, 1), parts = (n + per - 1) / per;
    const unsigned columns = fm_blocks(d, FM_SUM_LANES);
    float *part = parts > 1 ? (float *)s->work : NULL;
    fm_sum_columns<<<dim3(columns, (unsigned)parts), threads, 0, s->stream>>>(out, part, f, n, d, per);
    FM_LAUNCHED(s, what);
    if (part) fm_add_parts(s, out, part, parts, d, d, what);
}

// ---- Sums over a block of threads, the same order always ----

// THREADS (a power of two) neighbours share a sum; more than 32 are a whole block.  `room`: a value per warp, in shared memory.
template <int THREADS> __device__ static inline double fm_group_sum(double v, double *room)
{
#pragma unroll
    for (int i = (THREADS < 32 ? THREADS : 32) / 2; i > 0; i >>= 1) v += __shfl_xor_sync(0xffffffffu, v, i);
    if (THREADS <= 32) return v;
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0.0;
    for (int i = 0; i < THREADS / 32; i++) v += room[i];
    return v;
}

#endif
