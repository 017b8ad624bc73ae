/* kernels.c - which table a machine gets: the reference first, then each instruction set in turn
 * overrides what it has; and how a call is cut into parts. */
#include "kernels/kernels.h"

#include "base/cpu.h"
#include "kernels/linear.h"

fm_xform fm_xform_of(fm_dtype weights)
{
    const fm_dtype_traits *t = fm_dtype_get(weights);
    if (weights == FM_BF16) return FM_X_BF16;
    if (t->is_float) return FM_X_F32;
    return t->block == 32 ? FM_X_Q8_32 : FM_X_Q8_256;
}

/* Whole granules are dealt out evenly; the first parts take one more each when they do not divide.
 * Written without `granules * part`, which could overflow. */
void fm_run_range(const fm_run *run, size_t n, size_t granule, size_t *begin, size_t *end)
{
    FM_ASSERT(run->n_parts > 0 && run->part < run->n_parts && granule > 0);
    if (run->granule) {
        FM_ASSERT(run->granule % granule == 0);
        granule = run->granule;
    }
    const size_t granules = n / granule + (n % granule != 0);
    const size_t each = granules / run->n_parts, more = granules % run->n_parts;
    const size_t first = run->part * each + (run->part < more ? run->part : more);
    const size_t last = first + each + (run->part < more);
    *begin = first < granules ? first * granule : n;
    *end = last < granules ? last * granule : n;
}

void fm_kernels_for(fm_kernels *out, unsigned cpu_features)
{
    *out = (fm_kernels){0};
    fm_kernels_fill_ref(out);
#if defined(__x86_64__)
    if (cpu_features & FM_CPU_AVX2) fm_kernels_fill_avx2(out);
    if (cpu_features & FM_CPU_AVX512) fm_kernels_fill_avx512(out);
    if (cpu_features & FM_CPU_AVX512_VNNI) fm_kernels_fill_avx512_vnni(out);
    if (cpu_features & FM_CPU_AVX512_BF16) fm_kernels_fill_avx512_bf16(out);
    if (cpu_features & FM_CPU_AMX_INT8) {
        out->name = "avx512+vnni+amx";
        fm_linear_fill_amx(out);
    }
    if (cpu_features & FM_CPU_STREAM) (cpu_features & FM_CPU_AVX512 ? fm_linear_stream_avx512 : fm_linear_stream_avx2)(out);
#elif defined(__aarch64__)
    if (cpu_features & FM_CPU_NEON) fm_kernels_fill_neon(out);
    if (cpu_features & FM_CPU_DOTPROD) {
        out->name = "neon+dotprod";
        fm_linear_fill_neon_dotprod(out);
    }
#else
    (void)cpu_features;
#endif
}
