// turn.cuh - work of the launch in front of a kernel that its own blocks do first, dealt out by turns, so that it needs no launch.
//
// A block takes a turn before it waits for the kernel in front; turns below the number of items have one to do, and every block then
// waits until all items are published.  Who has an item is on the card and waits for nobody before he has published it, so this ends
// whatever else runs there, also where not all blocks find room at once, which mix.cuh cannot say.
//
// Counters only ever grow, and nobody sets them back: those of launches with the same number of blocks are counted together, so a turn
// tells its launch as well, and each launch publishes FM_TURN_ITEMS in all.  Turns of a launch are all taken before the next one can
// begin (fm_pdl_trigger).
#ifndef FM_KERNELS_CUDA_TURN_CUH
#define FM_KERNELS_CUDA_TURN_CUH

#include "kernels/cuda/launch.cuh"

enum { FM_TURN_ITEMS = 16 };         // of a launch, at most
enum { FM_TURN_LAUNCHES = 1 << 20 }; // after so many the count begins again

struct fm_turn {
    unsigned of;   // of the launch, from 0
    unsigned goal; // of fm_turns.published, when all items of the launch are
};

// By one thread of each block, before it lets the next kernel begin.
__device__ static inline fm_turn fm_turn_take(fm_turns *t)
{
    const unsigned taken = atomicInc(&t->taken, gridDim.x * FM_TURN_LAUNCHES - 1);
    return {taken % gridDim.x, (taken / gridDim.x + 1) * FM_TURN_ITEMS};
}

// By one thread, when the others of the block have written all of item i of n, and it knows.
__device__ static inline void fm_turn_publish(fm_turns *t, unsigned i, unsigned n)
{
    const unsigned items = i + 1 < n ? 1 : FM_TURN_ITEMS + 1 - n;
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(&t->published), "r"(items) : "memory");
}

// By one thread, which then tells the others of its block.
__device__ static inline void fm_turn_await(const fm_turns *t, unsigned goal)
{
    enum { ALL = FM_TURN_LAUNCHES * FM_TURN_ITEMS };
    unsigned published;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(published) : "l"(&t->published) : "memory");
    while ((published - goal) % ALL >= ALL / 2); // not yet, as the count goes round
}

// Between what threads write to memory and what the copy engine reads there: by those who wrote, and by the one who asks for it.
__device__ static inline void fm_turn_hand_over()
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

#endif
