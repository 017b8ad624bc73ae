// few_float.cu - kernels of few_float.cuh: weights of floats.
#include "kernels/cuda/few_float.cuh"

few_fn *fm_cuda_few_float(fm_dtype type)
{
    if (type == FM_F32) return few_of<few_float<FM_F32>>;
    return type == FM_F16 ? few_of<few_float<FM_F16>> : few_of<few_float<FM_BF16>>;
}
