// select_quant.cu - select.cuh for quantised weights.
#include "kernels/cuda/few_128.cuh"
#include "kernels/cuda/few_256.cuh"
#include "kernels/cuda/few_32.cuh"
#include "kernels/cuda/select.cuh"

select_fn *fm_cuda_select_quant(fm_dtype type)
{
    switch (type) {
    case FM_Q8_0: return select_of<few_32<FM_Q8_0>>;
    case FM_Q4_0: return select_of<few_32<FM_Q4_0>>;
    case FM_IQ4_NL: return select_of<few_32<FM_IQ4_NL>>;
    case FM_Q4_K: return select_of<few_256<FM_Q4_K>>;
    case FM_Q6_K: return select_of<few_256<FM_Q6_K>>;
    case FM_INT4_G128: return select_of<few_128<FM_INT4_G128>>;
    default: return NULL;
    }
}
