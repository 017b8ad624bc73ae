// mix_quant.cu - mix.cuh for quantised weights.
#include "kernels/cuda/few_128.cuh"
#include "kernels/cuda/few_256.cuh"
#include "kernels/cuda/few_32.cuh"
#include "kernels/cuda/mix.cuh"

template <class F> static mix_fn *of()
{
    return mix_of<F, F>;
}

mix_fn *fm_cuda_mix_quant(fm_dtype x, fm_dtype dt)
{
    if (dt != x) return NULL;
    switch (x) {
    case FM_Q8_0: return of<few_32<FM_Q8_0>>();
    case FM_Q4_0: return of<few_32<FM_Q4_0>>();
    case FM_IQ4_NL: return of<few_32<FM_IQ4_NL>>();
    case FM_Q4_K: return of<few_256<FM_Q4_K>>();
    case FM_Q6_K: return of<few_256<FM_Q6_K>>();
    case FM_INT4_G128: return of<few_128<FM_INT4_G128>>();
    default: return NULL;
    }
}
