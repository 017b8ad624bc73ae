/* linear_avx512_vnni.c - products with quantised weights for AVX-512 with VNNI: the templates with that set's vectors, and its
 * own products of one token.  Floats gain nothing by it, so the rest is what avx512 has. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_few_vnni.h"
#include "kernels/simd/linear_gemv_vnni.h"

static void linear_q4_k(const fm_run *run, const fm_linear_args *a)
{
    size_t r, end;
    if (a->n < 2 || a->n > FEW_MOST) {
        gemv[FM_Q4_K](run, a);
        return;
    }
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    for (; r < end; r += LANES) few_q4_k(a, r, end - r < LANES ? end - r : LANES);
}

void fm_linear_fill_avx512_vnni(fm_kernels *k)
{
    fm_linear_fill_avx512(k);
    gemv_fill(k);
    k->linear[FM_Q4_K] = linear_q4_k;
}

void fm_linear_few_avx512_vnni(const fm_run *run, const fm_linear_args *a)
{
    (a->W->type == FM_Q4_K ? linear_q4_k : gemv[a->W->type])(run, a);
}
