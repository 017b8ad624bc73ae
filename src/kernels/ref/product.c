/* product.c - products of gradients, summed in double and rounded once; other tables may differ by the error of a float sum. */
#include "kernels/ref/ref.h"

static double term(const fm_product_args *a, size_t i, size_t k, size_t j)
{
    const fm_real left = a->turned ? a->a[k * a->a_stride + i] : a->a[i * a->a_stride + k];
    return (double)left * (double)a->b[k * a->b_stride + j];
}

void fm_ref_product(const fm_run *run, const fm_product_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->m, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        for (size_t j = 0; j < a->n; j++) {
            fm_real *out = a->out + i * a->out_stride + j;
            double sum = 0.0;
            for (size_t k = 0; k < a->k; k++) sum += term(a, i, k, j);
            *out = a->add ? *out + (fm_real)sum : (fm_real)sum;
        }
}

size_t fm_ref_product_floats(size_t m)
{
    (void)m;
    return 0;
}
