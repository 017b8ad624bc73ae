// dt_scan_float.cu - dt_scan.cuh for weights of floats.
#include "kernels/cuda/dt_scan.cuh"
#include "kernels/cuda/few_float.cuh"

dt_scan_fn *fm_cuda_dt_scan_float(fm_dtype type)
{
    if (type == FM_BF16) return dt_scan_of<few_float<FM_BF16>>;
    if (type == FM_F16) return dt_scan_of<few_float<FM_F16>>;
    return NULL;
}
