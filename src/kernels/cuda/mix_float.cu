// mix_float.cu - mix.cuh for weights of floats.
#include "kernels/cuda/few_float.cuh"
#include "kernels/cuda/mix.cuh"

mix_fn *fm_cuda_mix_float(fm_dtype x, fm_dtype dt)
{
    if (x == FM_BF16 && dt == FM_BF16) return mix_of<few_float<FM_BF16>, few_float<FM_BF16>>;
    if (x == FM_F16 && dt == FM_F16) return mix_of<few_float<FM_F16>, few_float<FM_F16>>;
    return NULL;
}
