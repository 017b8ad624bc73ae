/* linear_avx512_bf16.c - products with BF16 weights for AVX-512 with BF16: pairs of columns multiply in one instruction. */
#include "kernels/simd/linear_vec_avx512.h"

#include "kernels/simd/linear_words.h"

static void linear_pairs(const fm_run *run, const fm_linear_args *a)
{
    linear_words(run, a, WORD_PAIR);
}

static void pack_pairs(const fm_pack_args *a)
{
    pack_words(a, WORD_PAIR);
}

void fm_linear_fill_avx512_bf16(fm_kernels *k)
{
    k->linear[FM_BF16] = linear_pairs;
    k->pack_x[FM_X_BF16] = pack_pairs;
}
