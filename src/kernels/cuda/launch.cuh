// launch.cuh - launches that may begin before the kernel in front of them has ended (programmatic dependent launch).
//
// Such a kernel calls fm_pdl_wait() before it touches anything that others wrote, and fm_pdl_trigger() after that, never before (fm_begin):
// then the kernel two places in front has always ended, and what comes before the wait may read everything but what the kernel
// directly in front writes.  Weights are such a thing: no kernel that writes weights stands directly in front of a product.  The
// exceptions are kernels that pack for quantised weights (pack.cu, fm_begin_for), which nothing but loading writes: a load ends
// with a wait; and what stands between in_proj and dt_proj in a step of few tokens (fm_begin_early), where the next one reads nothing
// but weights and states before its wait.  The norm in front of in_proj keeps to the rule, or in_proj and dt_proj do, so what came before a
// layer has ended all the same.
#ifndef FM_KERNELS_CUDA_LAUNCH_CUH
#define FM_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/cuda.cuh"

__device__ static inline void fm_pdl_wait()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}
__device__ static inline void fm_pdl_trigger()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// The usual begin of a kernel.
__device__ static inline void fm_begin()
{
    fm_pdl_wait();
    fm_pdl_trigger();
}

// early: the next kernel may come as soon as this one has; it waits for all that this one waits for.
__device__ static inline void fm_begin_early(bool early)
{
    if (early) fm_pdl_trigger();
    fm_pdl_wait();
    if (!early) fm_pdl_trigger();
}

struct fm_launch {
    fm_stream *s;
    dim3 grid;
    unsigned threads;
    size_t shared;    // dynamic, bytes
    unsigned cluster; // blocks that share their memories; divides grid.x
};

#ifdef FM_CUDA_TUNE
extern bool fm_cuda_pdl; // a check program compares with and without
#else
static const bool fm_cuda_pdl = true;
#endif

struct fm_launch_config {
    cudaLaunchAttribute attributes[2];
    cudaLaunchConfig_t c;

    explicit fm_launch_config(const fm_launch *l) : attributes(), c()
    {
        attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[0].val.programmaticStreamSerializationAllowed = fm_cuda_pdl;
        attributes[1].id = cudaLaunchAttributeClusterDimension;
        attributes[1].val.clusterDim.x = l->cluster;
        attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
        c.gridDim = l->grid;
        c.blockDim = dim3(l->threads);
        c.dynamicSmemBytes = l->shared;
        c.stream = l->s->stream;
        c.attrs = attributes;
        c.numAttrs = l->cluster > 1 ? 2 : 1;
    }
};

template <class... P, class... A>
static void fm_cuda_launch(const fm_launch *l, const char *what, void (*kernel)(P...), A... args)
{
    const fm_launch_config config(l);
    fm_cuda_note(l->s, cudaLaunchKernelEx(&config.c, kernel, P(args)...), what);
}

// How many clusters of such a launch are on an empty card at once.
template <class... P> static unsigned fm_cuda_resident(const fm_launch *l, void (*kernel)(P...))
{
    fm_launch_config config(l);
    config.c.numAttrs = 2; // clusters of one are said to be so, too
    int n = 0;
    FM_CUDA(l->s, cudaOccupancyMaxActiveClusters(&n, kernel, &config.c));
    return (unsigned)n;
}

#endif
