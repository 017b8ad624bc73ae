// few_256.cu - kernels of few_256.cuh: weights in super-blocks of 256.
#include "kernels/cuda/few_256.cuh"

few_fn *fm_cuda_few_256(fm_dtype type)
{
    switch (type) {
    case FM_Q2_K: return few_of<few_256<FM_Q2_K>>;
    case FM_Q3_K: return few_of<few_256<FM_Q3_K>>;
    case FM_Q4_K: return few_of<few_256<FM_Q4_K>>;
    case FM_Q5_K: return few_of<few_256<FM_Q5_K>>;
    case FM_Q6_K: return few_of<few_256<FM_Q6_K>>;
    default: return few_of<few_256<FM_IQ4_XS>>;
    }
}
