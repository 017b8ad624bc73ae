/* ref.c - fills the table with the scalar kernels, the specification of every other table. */
#include "kernels/ref/ref.h"

#include "kernels/linear.h"

void fm_kernels_fill_ref(fm_kernels *k)
{
    k->name = "ref";
    k->rmsnorm = fm_ref_rmsnorm;
    k->conv_silu = fm_ref_conv_silu;
    k->scan = fm_ref_scan;
    k->softmax = fm_ref_softmax;
    fm_linear_fill_ref(k);
}
