// select_quant.cu - select.cuh and select_wide.cuh for quantised weights.
#include "kernels/cuda/few_128.cuh"
#include "kernels/cuda/few_256.cuh"
#include "kernels/cuda/few_32.cuh"
#include "kernels/cuda/select_wide.cuh"

template <class F> static bool select_some(fm_stream *s, const select_args *a, const fm_linear_args *x_proj)
{
    return (a->dt.n <= FM_CUDA_FEW ? select_of<F> : select_wide_of<F>)(s, a, x_proj);
}

select_fn *fm_cuda_select_quant(fm_dtype type)
{
    switch (type) {
    case FM_Q8_0: return select_some<few_32<FM_Q8_0>>;
    case FM_Q4_0: return select_some<few_32<FM_Q4_0>>;
    case FM_IQ4_NL: return select_some<few_32<FM_IQ4_NL>>;
    case FM_Q4_K: return select_some<few_256<FM_Q4_K>>;
    case FM_Q6_K: return select_some<few_256<FM_Q6_K>>;
    case FM_INT4_G128: return select_some<few_128<FM_INT4_G128>>;
    default: return NULL;
    }
}
