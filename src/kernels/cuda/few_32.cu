// few_32.cu - kernels of few_32.cuh: weights in blocks of 32.
#include "kernels/cuda/few_32.cuh"

few_fn *fm_cuda_few_32(fm_dtype type)
{
    switch (type) {
    case FM_Q8_0: return few_of<few_32<FM_Q8_0>>;
    case FM_Q4_0: return few_of<few_32<FM_Q4_0>>;
    case FM_Q4_1: return few_of<few_32<FM_Q4_1>>;
    case FM_Q5_0: return few_of<few_32<FM_Q5_0>>;
    case FM_Q5_1: return few_of<few_32<FM_Q5_1>>;
    default: return few_of<few_32<FM_IQ4_NL>>;
    }
}
