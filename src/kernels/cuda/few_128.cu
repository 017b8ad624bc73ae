// few_128.cu - kernels of few_128.cuh: weights with a scale for each 128.
#include "kernels/cuda/few_128.cuh"

few_fn *fm_cuda_few_128(fm_dtype)
{
    return few_of<few_128<FM_INT4_G128>>;
}
