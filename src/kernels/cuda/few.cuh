// few.cuh - products of up to 16 columns: weights stream through the tensor cores once, at the rate of the memory.
//
// A warp multiplies 16 rows with 8 or 16 columns, a chunk of the input dimension at a time, by mma m16n8: its weights are the
// larger operand, columns that do not exist repeat the last one and are not written.  Weights come through a ring in shared memory
// that each lane fills with asynchronous copies and reads back itself, so that bytes in flight cost no registers and no barrier.
// `split` warps of a block, and the blocks of a cluster, share the chunks of a row; their sums are added in order.  What splits is
// decided by (rows, cols) alone, so a column's bits do not depend on the others, on how many there are, or on the grid.
//
// Blocks stay and walk over tiles of rows: the ring runs on from one to the next.  It is filled before the kernel waits for the one
// in front, so memory is busy while the input is being made.
#ifndef FM_KERNELS_CUDA_FEW_CUH
#define FM_KERNELS_CUDA_FEW_CUH

#include <cooperative_groups.h>

#include "kernels/cuda/few_input.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pack.cuh"

struct few_args {
    float *y;
    size_t y_stride;
    const uint8_t *x;  // records, or rows of bf16
    unsigned x_stride; // bytes of a record, or of a row
    unsigned x_tokens; // room in a record
    unsigned x_shared; // bytes of the input that a block makes for itself (few_source) or copies; 0: it reads x
    const uint8_t *w;
    size_t w_stride; // bytes
    const float *bias;
    unsigned rows, cols, n;
    unsigned chunks;       // of a row
    unsigned row_bytes;    // of floats that exist; the last chunk may be part
    unsigned split, tiles; // warps that share a row; tiles of rows a block has at once
    unsigned cluster;
    bool add;
};

// Rows that each block packs for itself, in place of few_args.x.  A parameter of its own: kernels of 16 columns, which do not look at
// it, spill registers when few_args holds it.
struct few_source {
    const float *x; // NULL: none
    size_t stride;
    bool aligned, normed; // to 16 bytes; they are to be normed first, with weights norm_w
    const float *norm_w;
    float eps;
};

// ---- Instructions ----

template <int BYTES> __device__ static inline void copy_async(unsigned to, const void *from)
{
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES) : "memory");
}
// 16 bytes, or zeros.
__device__ static inline void copy_async_if(unsigned to, const void *from, bool exists)
{
    asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
}
__device__ static inline void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> __device__ static inline void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ static inline void mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ static inline void mma_f16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Sums of four bytes' products in 32 bits, from `begin`.
__device__ static inline void mma_s8_32(int c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, int begin)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(begin));
}
// Of rows that are unsigned.
__device__ static inline void mma_u8_32(int c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0));
}
__device__ static inline void mma_s8_32_add(int c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ static inline void mma_s8_16(int c[4], uint32_t a0, uint32_t a1, uint32_t b)
{
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a0), "r"(a1), "r"(b), "r"(0));
}

// Integer sums that begin at the bits of 1.5 * 2^23 come out as floats, for an addition; none here reaches 2^22.
enum { FM_MAGIC = 0x4b400000 };
__device__ static inline float magic_float(int i)
{
    return __int_as_float(i) - __int_as_float(FM_MAGIC);
}

// ---- The kernel.  A format F says what a chunk is:
//   F::GROUP            chunks of 256 columns
//   F::SLOT             bytes of the ring that 32 lanes' part of eight rows takes
//   F::ask(...)         copies lane t's part of chunk `c` of a row there
//   F::RESIDENT         blocks of 8 warps and 8 columns to have registers for: two run, a third may be the next kernel's, filling
//                       its ring; two where three would spill
//   F::pack(...)        packs a row of floats, where inputs are no records
//   F::RECORDS          inputs are records, of which few_wide.cuh takes more columns: then
//   F::NARROW           columns from which on few_narrow.cuh is faster for matrices of few rows
//   F::SIDE             bytes beside those of 8 columns in a record
//   F::WIDE             how codes lie there (few_wide_codes.cuh)
//   F::wide_rest        what is left to be done of a chunk when its products are done
//   F::wide(...)        products of a chunk of a warp's 16 rows and the input in shared memory; meanwhile y += the chunk before it,
//                       settled() and next() (few_256.cuh)
//   F::wide_settle_all  y += the last chunk
//   F::tokens           a chunk of the input of up to 16 tokens
//   F::multiply(...)    waits for the oldest of so many stages, y += the chunk of the tile's rows times that
//   F::ONE              one column has an arithmetic of its own, to the same bits: then
//   F::column           what a lane multiplies of a chunk of it; read(...) fetches that
//   F::multiply_one(...)  y += the chunk of the tile's rows times that; all stages that it reads are there
//   F::WHOLE            few_whole.cuh takes it ----

// Where a lane stands: row g of eight, part t of four.
struct few_lane {
    int lane, g, t;
};

template <class F, int NT> struct few_ring {
    static constexpr int STAGE = 2 * F::SLOT;
    static constexpr int WANT = (NT == 1 ? 9 : 8) * 1024 / STAGE; // more leaves the first level no room for 16 inputs
    static constexpr int STAGES = WANT < 2 ? 2 : WANT > 6 ? 6 : WANT;
    static constexpr int ROWS = 16, COLS = 8 * NT;
    static constexpr size_t shared(unsigned warps) { return (size_t)warps * (STAGES * STAGE + ROWS * COLS * sizeof(float)); }
};

// Where a lane is in asking for weights: rows g and g + 8 of a tile of a group, and the chunk.  Rows beyond the last repeat it.
struct few_walk {
    unsigned group, chunk;
    const uint8_t *row[2];

    __device__ inline void enter(const few_args &p, unsigned to, unsigned first_row, unsigned first, const few_lane &l)
    {
        group = to;
        chunk = first;
#pragma unroll
        for (int i = 0; i < 2; i++) row[i] = p.w + min(first_row + 8 * i + l.g, p.rows - 1) * p.w_stride;
    }
};

// Adds the sums of all who shared the rows, in order, and finishes.  `mine`: this block's sums [warp][ROWS][COLS].
template <class F, int NT>
__device__ static inline void few_finish(const few_args &p, float *mine, unsigned first_row, unsigned rank)
{
    using R = few_ring<F, NT>;
    const unsigned rows = R::ROWS * p.tiles, items = rows * p.n;
    for (unsigned i = threadIdx.x + rank * blockDim.x; i < items; i += blockDim.x * p.cluster) {
        const unsigned r = i % rows, col = i / rows, row = first_row + r;
        if (row >= p.rows) continue;
        float *from = mine + (r / R::ROWS * p.split * R::ROWS + r % R::ROWS) * R::COLS + col;
        float *y = p.y + col * p.y_stride + row;
        const float old = p.add ? *y : 0.0f, bias = p.bias ? p.bias[row] : 0.0f;
        float v = 0.0f;
        for (unsigned k = 0; k < p.cluster; k++) {
            const float *at = p.cluster > 1 ? cooperative_groups::this_cluster().map_shared_rank(from, k) : from;
            for (unsigned w = 0; w < p.split; w++) v += at[w * R::ROWS * R::COLS];
        }
        if (p.bias) v += bias;
        *y = p.add ? v + old : v;
    }
}

template <int NT> __device__ static inline void few_leave(float *mine, const float y[NT][4], const few_lane &l)
{
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            *(float2 *)(mine + (8 * h + l.g) * 8 * NT + 8 * nt + 2 * l.t) = make_float2(y[nt][2 * h], y[nt][2 * h + 1]);
}

__device__ static inline void few_meet(unsigned cluster)
{
    if (cluster > 1)
        cooperative_groups::this_cluster().sync();
    else
        __syncthreads();
}

// The block's own pack; w: the weights of the norm.  meanwhile(): what is to be asked for behind the first row.
template <class F, class MEANWHILE>
__device__ static inline void few_take_input(uint8_t *to, const few_args &p, const few_source &from, const few_piece &w,
                                             MEANWHILE meanwhile)
{
    if constexpr (!F::RECORDS)
        if (!from.normed) F::pack(to, p, from);
    for (unsigned t = 0; from.normed && t < p.n; t++) {
        few_piece v;
        few_read(v, from.x + t * from.stride, (ptrdiff_t)p.cols);
        if (t == 0) meanwhile();
        few_norm_piece(v, w, 1.0 / (double)p.cols, from.eps);
        if constexpr (F::RECORDS)
            few_put_records<F::SIDE == FM_X256_SIDE>(to, p.x_stride, p.chunks, v);
        else
            few_put_row((__nv_bfloat16 *)(to + t * p.x_stride), v, p.x_stride / 2);
        if (t + 1 < p.n) __syncthreads(); // nobody's sums are overwritten
    }
    __syncthreads();
}

// A row of floats that was packed before: who reads it there waits for L2 at every chunk, behind weights on their way.
__device__ static inline void few_copy_input(uint8_t *to, const few_args &p)
{
#pragma unroll 4
    for (unsigned i = 16 * threadIdx.x; i < p.x_shared; i += 16 * blockDim.x) *(uint4 *)(to + i) = *(const uint4 *)(p.x + i);
    __syncthreads();
}

// The lane's copies but the last N have come, and those of the other lanes, some of which it reads.
template <int N> __device__ static inline void few_await()
{
    copy_wait<N>();
    __syncwarp();
}

// The chunk of the input that is multiplied next, on its way while the one before is: in L2 it may be far away.
struct few_nothing {
    __device__ inline void read(const uint8_t *, const few_args &, unsigned, const few_lane &) {}
};
template <class F, bool ONE> struct few_ahead {
    typedef few_nothing column;
};
template <class F> struct few_ahead<F, true> {
    typedef typename F::column column;
};

// F::multiply of up to eight columns; ONE: of one, by F::multiply_one where there is one.
template <class F, int STAGES, bool ONE>
__device__ static inline void few_multiply(float y[1][4], const uint8_t *stage, const uint8_t *x, unsigned chunk,
                                           const few_args &p, const few_lane &l)
{
    if constexpr (ONE && F::ONE) {
        typename F::column column;
        column.read(x, p, chunk, l);
        few_await<STAGES - 1>();
        F::multiply_one(y[0], stage, column, l);
    } else
        F::template multiply<1, STAGES>(y, stage, typename F::tokens(x, chunk, p), l);
}

// ONE: by F::multiply_one.
template <class F, int NT, bool ONE>
__global__ __launch_bounds__(256, NT == 1 ? F::RESIDENT : 2) static void few_kernel(const few_args p, const few_source from)
{
    using R = few_ring<F, NT>;
    extern __shared__ uint8_t shared[];
    const unsigned warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const few_lane l = {(int)threadIdx.x % 32, (int)threadIdx.x % 32 / 4, (int)threadIdx.x % 4};
    uint8_t *ring = shared + p.x_shared + warp * (R::STAGES * R::STAGE);
    float *sums = (float *)(shared + p.x_shared + warps * (R::STAGES * R::STAGE));
    const unsigned rank = blockIdx.x % p.cluster, step = p.split * p.cluster, first = warp % p.split + p.split * rank;
    const unsigned group_rows = R::ROWS * p.tiles, groups = (p.rows + group_rows - 1) / group_rows;
    const unsigned group_step = gridDim.x / p.cluster, tile = warp / p.split * R::ROWS;

    few_walk ask;
    ask.enter(p, blockIdx.x / p.cluster, blockIdx.x / p.cluster * group_rows + tile, first, l);
    const auto ask_next = [&](unsigned stage) {
        if (ask.group < groups && first < p.chunks) {
            const unsigned to = shared_address(ring + stage * R::STAGE);
            F::ask(to, ask.row[0], p, ask.chunk, l);
            F::ask(to + F::SLOT, ask.row[1], p, ask.chunk, l);
            ask.chunk += step;
            if (ask.chunk >= p.chunks)
                ask.enter(p, ask.group + group_step, (ask.group + group_step) * group_rows + tile, first, l);
        }
        copy_commit();
    };
    // A row that is to be normed is asked for behind half of the ring only: whatever is asked for waits for all that was before.
    constexpr int BEFORE = R::STAGES / 2;
    const bool normed = NT == 1 && from.normed;
    const auto ask_rest = [&] {
#pragma unroll
        for (int i = BEFORE; i < R::STAGES; i++) ask_next(i);
    };
    few_piece norm_w; // which nobody writes just before; with floats there are no registers for it any earlier
    if (F::RECORDS && normed) few_read(norm_w, from.norm_w, (ptrdiff_t)p.cols);
#pragma unroll
    for (int i = 0; i < BEFORE; i++) ask_next(i);
    if (!F::RECORDS && normed) few_read(norm_w, from.norm_w, (ptrdiff_t)p.cols);
    if (!normed) ask_rest();
    fm_begin();
    const uint8_t *x = p.x;
    if (NT == 1 && p.x_shared) {
        if (F::RECORDS || from.x)
            few_take_input<F>(shared, p, from, norm_w, ask_rest);
        else
            few_copy_input(shared, p);
        x = shared;
    }

    typename few_ahead<F, ONE>::column ahead;
    ahead.read(x, p, first, l);
    unsigned stage = 0;
    for (unsigned group = blockIdx.x / p.cluster; group < groups; group += group_step) {
        float y[NT][4] = {};
        for (unsigned chunk = first; chunk < p.chunks; chunk += step) {
            if constexpr (ONE) {
                const auto here = ahead;
                ahead.read(x, p, chunk + step < p.chunks ? chunk + step : first, l);
                few_await<R::STAGES - 1>();
                F::multiply_one(y[0], ring + stage * R::STAGE, here, l);
            } else
                F::template multiply<NT, R::STAGES>(y, ring + stage * R::STAGE, typename F::tokens(x, chunk, p), l);
            if (F::RECORDS) __syncwarp(); // lanes read what others copied
            ask_next(stage);
            if (++stage == R::STAGES) stage = 0;
        }
        few_leave<NT>(sums + warp * R::ROWS * R::COLS, y, l);
        few_meet(p.cluster);
        few_finish<F, NT>(p, sums, group * group_rows, rank);
        if (p.cluster > 1 || group + group_step < groups)
            few_meet(p.cluster); // nobody overwrites what others still read, or leaves
    }
}

// ---- How a product is cut, by rows and chunks alone ----

struct few_cut {
    unsigned cluster, split;
};

#ifdef FM_CUDA_TUNE
extern few_cut fm_cuda_cut; // a check program tries others
extern unsigned fm_cuda_blocks;
#endif

// How many warps sum parts of a row of few rows, such as x_proj's: one to each 256 columns, of which `group` chunks are one.  That is
// how mix.cuh shares them.  0: not as many as a cluster of eight blocks has, or weights that are quantised.
static inline few_cut few_cut_narrow(size_t rows, unsigned chunks, unsigned group)
{
    const unsigned ways = chunks / group;
    few_cut c = {1, 0};
    if (group == 1 || rows > 512 || chunks % group) return c;
    while (c.cluster < 8 && (ways > 8 * c.cluster || ways % c.cluster)) c.cluster *= 2;
    if (ways <= 8 * c.cluster && ways % c.cluster == 0) c.split = ways / c.cluster;
    return c;
}

// Enough warps to keep the memory busy and to end together, but few that share a short row.
static inline few_cut few_cut_of(size_t rows, unsigned chunks, unsigned group)
{
    const size_t tiles = (rows + 15) / 16;
    few_cut c = few_cut_narrow(rows, chunks, group);
#ifdef FM_CUDA_TUNE
    if (fm_cuda_cut.split) return fm_cuda_cut;
#endif
    if (c.split) return c;
    c = {1, 1};
    while (c.split < 8 && tiles * c.split < 4000 && chunks >= 2 * c.split) c.split *= 2;
    while (c.cluster < 4 && tiles * c.split * c.cluster < 512 && chunks >= 4 * c.split * c.cluster) c.cluster *= 2;
    return c;
}

// Tiles of 16 rows that a block has at once.
static inline unsigned few_tiles(size_t rows, few_cut cut, unsigned n_sm)
{
    unsigned tiles = cut.cluster > 1 ? 1 : 8 / cut.split;
    while (tiles > 1 && (rows + 15) / 16 / tiles < 2 * n_sm) tiles /= 2;
    return tiles;
}

template <class F>
static bool whole_launch(fm_stream *s, const few_args &p, unsigned groups); // few_whole.cuh: whether it takes that

template <class F, int NT, bool ONE> static void few_launch(fm_stream *s, few_args p, const few_source &from)
{
    using R = few_ring<F, NT>;
    enum { SHARED = 227 * 1024, BLOCK_OWN = 1024 }; // of a multiprocessor; what the system keeps per block
    const few_cut cut = few_cut_of(p.rows, p.chunks, F::GROUP);
    p.cluster = cut.cluster;
    p.split = cut.split;
    const unsigned tiles = (p.rows + R::ROWS - 1) / R::ROWS, sm = (unsigned)s->n_sm;
    p.tiles = few_tiles(p.rows, cut, sm);
    const unsigned warps = p.split * p.tiles, groups = (tiles + p.tiles - 1) / p.tiles;
    if constexpr (ONE)
        if (whole_launch<F>(s, p, groups)) return;
    const size_t shared = R::shared(warps) + p.x_shared;
    unsigned fit = (unsigned)(SHARED / (shared + BLOCK_OWN));
    fit = min(fit, 16 / warps);
#ifdef FM_CUDA_TUNE
    if (fm_cuda_blocks) fit = min((unsigned)(SHARED / (shared + BLOCK_OWN)), fm_cuda_blocks);
#endif
    const unsigned blocks = cut.cluster > 1 ? groups * cut.cluster : min(groups, max(fit, 1u) * sm);
    fm_cuda_allow_shared<few_kernel<F, NT, ONE>>(s, SHARED - BLOCK_OWN);
    const fm_launch l = {s, blocks, 32 * warps, shared, cut.cluster};
    fm_cuda_launch(&l, "linear", few_kernel<F, NT, ONE>, p, from);
}

// y += x W^T of as many columns as a group has: up to 8, 16, and of records also 32 or 64.
typedef void few_fn(fm_stream *s, const few_args *p, const few_source *from, size_t columns);
template <class F, int NT> static void wide_launch(fm_stream *s, const few_args &p); // few_wide.cuh
template <class F> static bool narrow_launch(fm_stream *s, const few_args &p); // few_narrow.cuh: false: it has no such blocks
template <class F> static void few_of(fm_stream *s, const few_args *p, const few_source *from, size_t columns)
{
    if constexpr (F::RECORDS) {
        if (columns >= F::NARROW && narrow_launch<F>(s, *p)) return;
        if (columns > 32) return wide_launch<F, 8>(s, *p);
        if (columns > 16) return wide_launch<F, 4>(s, *p);
    }
    if constexpr (F::ONE)
        if (columns == 1) return few_launch<F, 1, true>(s, *p, *from);
    if (columns > 8)
        few_launch<F, 2, false>(s, *p, *from);
    else
        few_launch<F, 1, false>(s, *p, *from);
}

// Columns of a chunk; FM_CHUNK of them are F::GROUP chunks.
static inline unsigned few_width(fm_dtype type)
{
    return !fm_is_float(type) ? FM_CHUNK : type == FM_F32 ? 32 : 64;
}

// Warps that sum parts of a row of such a product.
static inline unsigned few_ways(const few_args &p, fm_dtype type)
{
    const few_cut cut = few_cut_of(p.rows, p.chunks, FM_CHUNK / few_width(type));
    return cut.split * cut.cluster;
}

// The arguments of a product's first group of columns; *group: bytes of the pack from one group to the next.
few_args fm_cuda_few_args(const fm_linear_args *a, size_t *group);
// Of n columns in one group, by a kernel that has its own input and output.
few_args fm_cuda_few_within(const fm_tensor *W, size_t n);

few_fn *fm_cuda_few_float(fm_dtype type);
few_fn *fm_cuda_few_32(fm_dtype type);
few_fn *fm_cuda_few_128(fm_dtype type);
few_fn *fm_cuda_few_256(fm_dtype type);

#endif
