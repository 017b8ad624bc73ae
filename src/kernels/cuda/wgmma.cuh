// wgmma.cuh - sums by four warps at once: of bytes, 64 rows from their registers, 32 or 64 columns from shared memory; of bf16, both
// from shared memory.
//
// Lanes hold rows and sums as with mma m16n8k32, 16 rows to a warp.  Columns lie in panels of 128 bytes a column, pieces of 16 bytes
// in the order that `swizzle 128` has: piece i of column j at i ^ j % 8.  A product is under way until wgmma_wait: until then
// nobody touches its registers.
#ifndef FM_KERNELS_CUDA_WGMMA_CUH
#define FM_KERNELS_CUDA_WGMMA_CUH

#include <stdint.h>

// 32 bytes of every column, `step` of four in a panel; panels begin at multiples of 1024 bytes.
__device__ static inline uint64_t wgmma_columns(unsigned panel, int step)
{
    const uint64_t swizzle_128 = (uint64_t)1 << 62, groups_of_8 = (uint64_t)(1024 >> 4) << 32, unused = (uint64_t)1 << 16;
    return swizzle_128 | groups_of_8 | unused | (panel + 32 * step) >> 4;
}

// What the lanes wrote to registers is there for the products that follow.
__device__ static inline void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ static inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All but the last N groups are done: rows that they read may be written again.
template <int N> __device__ static inline void wgmma_wait_rows()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
// The same, and `c` are the sums of one that is done.
template <int N, int NT> __device__ static inline void wgmma_wait(int c[NT][4])
{
    wgmma_wait_rows<N>();
#pragma unroll
    for (int k = 0; k < 4 * NT; k++) asm volatile("" : "+r"(c[k / 4][k % 4])::"memory");
}
template <int N, int NT> __device__ static inline void wgmma_wait(float c[NT][4])
{
    wgmma_wait_rows<N>();
#pragma unroll
    for (int k = 0; k < 4 * NT; k++) asm volatile("" : "+f"(c[k / 4][k % 4])::"memory");
}

#define FM_FOUR(i) "+r"(c[i][0]), "+r"(c[i][1]), "+r"(c[i][2]), "+r"(c[i][3])
#define FM_WGMMA_32(rows)                                                                                                      \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %21, 0; wgmma.mma_async.sync.aligned.m64n32k32.s32." rows ".s8 "               \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, p;}"                        \
                 : FM_FOUR(0), FM_FOUR(1), FM_FOUR(2), FM_FOUR(3)                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define FM_WGMMA_64(rows)                                                                                                      \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k32.s32." rows ".s8 "               \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                                     \
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p;}"               \
                 : FM_FOUR(0), FM_FOUR(1), FM_FOUR(2), FM_FOUR(3), FM_FOUR(4), FM_FOUR(5), FM_FOUR(6), FM_FOUR(7)              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
// c = a b, or c += a b when `add`; bytes of rows are signed or not, of columns always.
template <int NT, bool SIGNED> __device__ static inline void wgmma_bytes(int c[NT][4], const uint32_t a[4], uint64_t b, int add)
{
    static_assert(NT == 4 || NT == 8, "32 or 64 columns");
    if constexpr (NT == 4 && SIGNED) FM_WGMMA_32("s8");
    if constexpr (NT == 4 && !SIGNED) FM_WGMMA_32("u8");
    if constexpr (NT == 8 && SIGNED) FM_WGMMA_64("s8");
    if constexpr (NT == 8 && !SIGNED) FM_WGMMA_64("u8");
}
#undef FM_WGMMA_32
#undef FM_WGMMA_64
#undef FM_FOUR

// The same for bf16 with sums in f32; rows lie in panels as columns do.
#define FM_FOUR(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
// c = a b, or c += a b when `add`: 16 columns of k of 64 rows and of 8 NT columns.
template <int NT> __device__ static inline void wgmma_bf16(float c[NT][4], uint64_t a, uint64_t b, int add)
{
    static_assert(NT == 4 || NT == 8 || NT == 16, "32, 64 or 128 columns");
    if constexpr (NT == 4)
        asm volatile("{.reg .pred p; setp.ne.b32 p, %18, 0; wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
                     "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, %16, %17, p, 1, 1, 0, 0;}"
                     : FM_FOUR(0), FM_FOUR(1), FM_FOUR(2), FM_FOUR(3)
                     : "l"(a), "l"(b), "r"(add));
    if constexpr (NT == 8)
        asm volatile("{.reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                     "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                     "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, p, 1, 1, 0, 0;}"
                     : FM_FOUR(0), FM_FOUR(1), FM_FOUR(2), FM_FOUR(3), FM_FOUR(4), FM_FOUR(5), FM_FOUR(6), FM_FOUR(7)
                     : "l"(a), "l"(b), "r"(add));
    if constexpr (NT == 16)
        asm volatile("{.reg .pred p; setp.ne.b32 p, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                     "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                     "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
                     "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
                     "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, %64, %65, p, 1, 1, 0, 0;}"
                     : FM_FOUR(0), FM_FOUR(1), FM_FOUR(2), FM_FOUR(3), FM_FOUR(4), FM_FOUR(5), FM_FOUR(6), FM_FOUR(7),
                       FM_FOUR(8), FM_FOUR(9), FM_FOUR(10), FM_FOUR(11), FM_FOUR(12), FM_FOUR(13), FM_FOUR(14), FM_FOUR(15)
                     : "l"(a), "l"(b), "r"(add));
}
#undef FM_FOUR

// Copies into shared memory that this thread waited for can be read by products after the next barrier.
__device__ static inline void wgmma_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#endif
