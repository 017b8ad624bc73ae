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
    k->product = fm_ref_product;
    k->product_floats = fm_ref_product_floats;
    k->rmsnorm_back = fm_ref_rmsnorm_back;
    k->rmsnorm_gw = fm_ref_rmsnorm_gw;
    k->conv_back = fm_ref_conv_back;
    k->scan_back = fm_ref_scan_back;
    k->scan_back_floats = fm_ref_scan_back_floats;
    k->xent = fm_ref_xent;
    k->sum_parts = fm_ref_sum_parts;
    k->sum_rows = fm_ref_sum_rows;
    k->dropout = fm_ref_dropout;
    k->adamw = fm_ref_adamw;
    k->narrow = fm_ref_narrow;
    k->squares = fm_ref_squares;
    k->transpose = fm_ref_transpose;
    k->embed = fm_ref_embed;
    k->gather = fm_ref_gather;
    k->copy_states = fm_ref_copy_states;
    k->embed_back = fm_ref_embed_back;
    k->decays = fm_ref_decays;
    k->decays_back = fm_ref_decays_back;
    fm_linear_fill_ref(k);
}
