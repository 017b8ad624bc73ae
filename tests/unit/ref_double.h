/* ref_double.h - included before everything else in src/kernels/ref and in the tests that compile it as double: what makes the
 * second copy, whose names end in _double so that it cannot be taken for the program's. */
#ifndef FM_TESTS_UNIT_REF_DOUBLE_H
#define FM_TESTS_UNIT_REF_DOUBLE_H

#define FM_REAL double

#define fm_ref_rmsnorm          fm_ref_rmsnorm_double
#define fm_ref_conv_silu        fm_ref_conv_silu_double
#define fm_ref_scan             fm_ref_scan_double
#define fm_ref_softmax          fm_ref_softmax_double
#define fm_ref_rmsnorm_back     fm_ref_rmsnorm_back_double
#define fm_ref_rmsnorm_gw       fm_ref_rmsnorm_gw_double
#define fm_ref_conv_back        fm_ref_conv_back_double
#define fm_ref_scan_back        fm_ref_scan_back_double
#define fm_ref_scan_back_floats fm_ref_scan_back_floats_double
#define fm_ref_xent             fm_ref_xent_double
#define fm_ref_sum_parts        fm_ref_sum_parts_double
#define fm_ref_sum_rows         fm_ref_sum_rows_double
#define fm_ref_transpose        fm_ref_transpose_double
#define fm_ref_embed            fm_ref_embed_double
#define fm_ref_gather           fm_ref_gather_double
#define fm_ref_copy_states      fm_ref_copy_states_double
#define fm_ref_embed_back       fm_ref_embed_back_double
#define fm_ref_decays           fm_ref_decays_double
#define fm_ref_decays_back      fm_ref_decays_back_double
#define fm_ref_dropout          fm_ref_dropout_double
#define fm_ref_adamw            fm_ref_adamw_double
#define fm_ref_narrow           fm_ref_narrow_double
#define fm_ref_squares          fm_ref_squares_double

#endif
