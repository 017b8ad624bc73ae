/* optim.h - the optimiser's step and the norm of gradients, written once over the vector layer. */
#ifndef FM_KERNELS_SIMD_OPTIM_H
#define FM_KERNELS_SIMD_OPTIM_H

#include "kernels/simd/elementwise.h"

enum { OPTIM_GRANULE = 1024 };

typedef struct adamw_factors {
    vf clip, lr, beta1, beta2, rest1, rest2, eps, decay, c1, c2;
} adamw_factors;

/* Operation by operation what the reference does, each rounded once: to its bits. */
FM_INLINE void adamw_lanes(const fm_adamw_args *a, const adamw_factors *f, size_t i, vlanes l)
{
    const vf w = lanes_load(a->w + i, l), g = vmul(f->clip, lanes_load(a->g + i, l));
    const vf m = vadd(vmul(f->beta1, lanes_load(a->m + i, l)), vmul(f->rest1, g));
    const vf v = vadd(vmul(f->beta2, lanes_load(a->v + i, l)), vmul(vmul(f->rest2, g), g));
    const vf step = vdiv(vmul(f->c1, m), vadd(vsqrt(vmul(f->c2, v)), f->eps));
    lanes_store(a->m + i, m, l);
    lanes_store(a->v + i, v, l);
    lanes_store(a->w + i, vsub(w, vmul(f->lr, vadd(vmul(f->decay, w), step))), l);
}

static void simd_adamw(const fm_run *run, const fm_adamw_args *a)
{
    const adamw_factors f = {.clip = vset(a->clip),
                             .lr = vset(a->lr),
                             .beta1 = vset(a->beta1),
                             .beta2 = vset(a->beta2),
                             .rest1 = vset(1.0f - a->beta1),
                             .rest2 = vset(1.0f - a->beta2),
                             .eps = vset(a->eps),
                             .decay = vset(a->decay),
                             .c1 = vset(a->c1),
                             .c2 = vset(a->c2)};
    size_t i, end;
    fm_run_range(run, a->n, OPTIM_GRANULE, &i, &end);
    for (; i + VLEN <= end; i += VLEN) adamw_lanes(a, &f, i, lanes_all());
    if (i < end) adamw_lanes(a, &f, i, lanes_first(end - i));
}

static void simd_squares(const fm_run *run, double *sums, const float *x, size_t n)
{
    size_t s, end;
    fm_run_range(run, n / FM_SQUARES + (n % FM_SQUARES != 0), 1, &s, &end);
    for (; s < end; s++) {
        const size_t first = s * FM_SQUARES, count = n - first < FM_SQUARES ? n - first : FM_SQUARES;
        sums[s] = squares_sum(x + first, count);
    }
}

FM_INLINE void fill_optim(fm_kernels *k)
{
    k->adamw = simd_adamw;
    k->squares = simd_squares;
}

#endif
