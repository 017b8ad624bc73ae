// select_float.cu - select.cuh for weights of floats.
#include "kernels/cuda/few_float.cuh"
#include "kernels/cuda/select.cuh"

select_fn *fm_cuda_select_float(fm_dtype type)
{
    if (type == FM_BF16) return select_of<few_float<FM_BF16>>;
    if (type == FM_F16) return select_of<few_float<FM_F16>>;
    return NULL;
}
