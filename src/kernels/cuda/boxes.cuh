// boxes.cuh - matrices of bf16 as the copy engine brings them: boxes of rows by 64 columns, in the order that wgmma.cuh calls
// `swizzle 128`, zeros beyond what exists.
#ifndef FM_KERNELS_CUDA_BOXES_CUH
#define FM_KERNELS_CUDA_BOXES_CUH

#include "kernels/cuda/cuda.cuh"

#include <cudaTypedefs.h>

enum { FM_BOX_COLS = 64, FM_BOX_LINE = FM_BOX_COLS * 2 }; // bytes of a row of a box

// Dimensions of a matrix, the innermost first, bytes from one to the next of all but that, and how much of each a box has.
struct fm_boxes {
    unsigned rank;
    cuuint64_t size[3], stride[2];
    cuuint32_t box[3];
};

static inline bool fm_cuda_map(fm_stream *s, CUtensorMap *map, const void *from, const fm_boxes *b)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode;
    const cuuint32_t step[] = {1, 1, 1};
    cudaDriverEntryPointQueryResult found;
    if (!encode)
        FM_CUDA(s,
                cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000, cudaEnableDefault, &found));
    if (!encode) return false;
    const CUresult r = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, b->rank, (void *)from, b->size, b->stride, b->box, step,
                              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS) fm_cuda_note(s, cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
    return r == CUDA_SUCCESS;
}

// Rows that boxes can be made of lie at multiples of 16 bytes.
static inline bool fm_cuda_has_boxes(const void *p, size_t stride)
{
    return (uintptr_t)p % 16 == 0 && stride % 16 == 0;
}

// ---- The box that begins there, to shared memory; `full` counts its bytes.  To all blocks of a cluster, the same place in each ----

__device__ static inline void fm_copy_box(unsigned to, unsigned full, const CUtensorMap *map, unsigned x, unsigned y)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            to),
        "l"(map), "r"(x), "r"(y), "r"(full)
        : "memory");
}
__device__ static inline void fm_copy_box(unsigned to, unsigned full, const CUtensorMap *map, unsigned x, unsigned y,
                                          unsigned z)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
            "r"(to),
        "l"(map), "r"(x), "r"(y), "r"(z), "r"(full)
        : "memory");
}
template <int CLUSTER>
__device__ static inline void fm_share_box(unsigned to, unsigned full, const CUtensorMap *map, unsigned x, unsigned y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(full), "h"((uint16_t)((1 << CLUSTER) - 1))
                 : "memory");
}
template <int CLUSTER>
__device__ static inline void fm_share_box(unsigned to, unsigned full, const CUtensorMap *map, unsigned x, unsigned y,
                                           unsigned z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(full), "h"((uint16_t)((1 << CLUSTER) - 1))
                 : "memory");
}

#endif
