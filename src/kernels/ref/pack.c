/* pack.c - how product inputs are rounded and laid out, for processors without a table of their own.  The text is in
 * simd/pack.h, which every table compiles with its own instructions. */
#include "kernels/ref/linear_ref.h"
#include "kernels/simd/pack.h"

void fm_pack_fill_ref(fm_kernels *k) { pack_fill(k); }
