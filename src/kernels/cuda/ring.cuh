// ring.cuh - stages in shared memory that one thread has filled in bulk and warps empty; blocks of a cluster may share what is copied.
//
// `full` tells that a stage is there, `empty` that every warp of all blocks that share it is done with it.  A stage's turns are counted
// from 0, and of each barrier only the last two can be told apart.  What the copy engine brings needs no fence before wgmma reads it.
//
// Boxes lie at multiples of 1024 bytes, where a block's shared memory begins as long as all of it is dynamic: so barriers lie behind
// the stages, and no kilobyte is left to align them.
#ifndef FM_KERNELS_CUDA_RING_CUH
#define FM_KERNELS_CUDA_RING_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/wgmma.cuh"

enum { RING_BARRIERS = 2 * 8 }; // bytes of a stage

// A barrier that so many arrive at, not yet published to the other blocks and to the copy engine.
__device__ static inline void ring_init_barrier(unsigned barrier, unsigned arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// warps: how many empty a stage, those of all blocks that share it; fillers: arrivals that it is full after.  Publishes all barriers.
__device__ static inline void ring_init(unsigned full, unsigned empty, int stages, unsigned warps, unsigned fillers = 1)
{
    for (int i = 0; i < stages; i++) {
        ring_init_barrier(full + 8 * i, fillers);
        ring_init_barrier(empty + 8 * i, warps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    wgmma_publish();
}

__device__ static inline void ring_await(unsigned barrier, unsigned turn)
{
    asm volatile("{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra again;}" ::"r"(barrier),
                 "r"(turn & 1)
                 : "memory");
}

// So many bytes will come to a stage.
__device__ static inline void ring_expect(unsigned full, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(bytes) : "memory");
}

// One of the fillers has written what it had to.
__device__ static inline void ring_arrive(unsigned full)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(full) : "memory");
}

// Bytes, a multiple of 16 at places of 16, to a stage that waits for them.
__device__ static inline void ring_copy(unsigned to, unsigned full, const void *from, unsigned bytes)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
                 "r"(bytes), "r"(full)
                 : "memory");
}

// Arrives, as one of the fillers, when all is there that this thread has copied asynchronously.
__device__ static inline void ring_arrive_copied(unsigned full)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(full) : "memory");
}

// A warp is done with a stage: its lane i tells block `first` + i of the cluster, the lanes before `share` all who copy into it.
__device__ static inline void ring_release(unsigned empty, unsigned share, unsigned first, unsigned lane)
{
    if (lane >= share) return;
    if (share == 1)
        ring_arrive(empty);
    else
        asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
                     "mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(empty),
                     "r"(first + lane)
                     : "memory");
}

// Between all threads of a cluster: what one wrote before the others see after.  That waits for all that is on its way, which nobody
// needs who only has to know that the others are there, or done.
__device__ static inline void ring_meet_cluster()
{
    asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}
__device__ static inline void ring_meet_cluster_relaxed()
{
    asm volatile("barrier.cluster.arrive.relaxed; barrier.cluster.wait;" ::: "memory");
}
// The latter in two halves: this thread has come; the others have.
__device__ static inline void ring_reach_cluster_relaxed()
{
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
__device__ static inline void ring_join_cluster()
{
    asm volatile("barrier.cluster.wait;" ::: "memory");
}
// The first in two halves.
__device__ static inline void ring_reach_cluster()
{
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}
__device__ static inline void ring_join_cluster_acquire()
{
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// A float to the place in block `block` of the cluster that `to` is here.
__device__ static inline void ring_put(unsigned to, unsigned block, float v)
{
    asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; st.shared::cluster.f32 [there], %2;}" ::"r"(to),
                 "r"(block), "f"(v)
                 : "memory");
}

#endif
