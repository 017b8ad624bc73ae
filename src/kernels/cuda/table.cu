// table.cu - the table of a GPU: each file of this folder fills what it has.
#include "kernels/cuda/back.cuh"
#include "kernels/cuda/forward.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/pack.cuh"

extern "C" void fm_kernels_fill_cuda(fm_kernels *k)
{
    k->name = "cuda";
    fm_cuda_fill_norm(k);
    fm_cuda_fill_conv(k);
    fm_cuda_fill_scan(k);
    fm_cuda_fill_rows(k);
    fm_cuda_fill_pack(k);
    fm_cuda_fill_few(k);
    fm_cuda_fill_many(k);
    fm_cuda_fill_mix(k);
    fm_cuda_fill_select(k);
    fm_cuda_fill_back(k);
}
