/* rows.c - whole rows moved about: the embedding and its gradient, selections of rows, states, decays. */
#include <string.h>

#include "kernels/ref/ref.h"

void fm_ref_embed(const fm_run *run, float *out, size_t out_stride, const fm_tensor *table, const int32_t *ids, size_t n)
{
    const fm_dtype_traits *type = fm_dtype_get(table->type);
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        FM_ASSERT(ids[i] >= 0 && (size_t)ids[i] < table->rows);
        type->decode(out + i * out_stride, fm_tensor_row(table, (size_t)ids[i]), table->cols);
    }
}

void fm_ref_gather(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const size_t *index,
                   size_t n, size_t d)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t i = begin; i < end; i++)
        memcpy(out + i * out_stride, x + (index ? index[i] : i) * x_stride, d * sizeof(fm_real));
}

void fm_ref_copy_states(const fm_run *run, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats)
{
    size_t begin, end;
    fm_run_range(run, floats, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t s = 0; s < n_seq; s++)
        memcpy(fm_state_of(to, s) + begin, fm_state_of(from, s) + begin, (end - begin) * sizeof(fm_real));
}

void fm_ref_embed_back(const fm_run *run, fm_real *g_E, const fm_real *g, size_t g_stride, const int32_t *ids, size_t n,
                       size_t d)
{
    size_t begin, end;
    fm_run_range(run, d, 16, &begin, &end);
    for (size_t t = 0; t < n; t++)
        for (size_t i = begin; i < end; i++) g_E[(size_t)ids[t] * d + i] += g[t * g_stride + i];
}

void fm_ref_decays(const fm_run *run, fm_real *A, const fm_real *w, size_t n)
{
    size_t begin, end;
    fm_run_range(run, n, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t i = begin; i < end; i++) A[i] = -exp(w[i]);
}

void fm_ref_decays_back(const fm_run *run, fm_real *g, const fm_real *A, size_t n)
{
    size_t begin, end;
    fm_run_range(run, n, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t i = begin; i < end; i++) g[i] *= A[i];
}
