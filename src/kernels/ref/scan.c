/* scan.c - the selective scan (spec falcon-mamba.md 2.1, steps 9 to 13; equation 2 of the Mamba
 * paper): time in order, channels apart, one state vector per channel. */
#include "kernels/ref/ref.h"

/* One token of one channel, h its states.  y may be the same place as u or z: all inputs are read first. */
static void scan_token(const fm_scan_args *a, float *h, size_t row, size_t c)
{
    const float *B = a->B + row * a->bc_stride;
    const float u = a->u[row * a->u_stride + c];
    const float bias = a->dt_bias ? a->dt_bias[c] : 0.0f;
    const float delta = fm_ref_softplus(a->dt[row * a->dt_stride + c] + bias);
    const float du = delta * u;
    for (size_t n = 0; n < a->d_state; n++) h[n] = expf(delta * a->A[n * a->d_inner + c]) * h[n] + du * B[n];
    if (!a->y) return;
    const float *C = a->C + row * a->bc_stride;
    float y = 0.0f;
    for (size_t n = 0; n < a->d_state; n++) y += C[n] * h[n];
    y += a->skip[c] * u;
    if (a->z) y *= fm_ref_silu(a->z[row * a->z_stride + c]);
    a->y[row * a->y_stride + c] = y;
}

static void scan_channel(const fm_scan_args *a, size_t seq, size_t c)
{
    float h[FM_D_STATE_MAX], *state = a->h[seq] + c;
    for (size_t n = 0; n < a->d_state; n++) h[n] = state[n * a->d_inner];
    for (size_t row = a->ragged->begin[seq]; row < a->ragged->begin[seq + 1]; row++) scan_token(a, h, row, c);
    for (size_t n = 0; n < a->d_state && !a->hold; n++) state[n * a->d_inner] = h[n];
}

void fm_ref_scan(const fm_run *run, const fm_scan_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        if (a->ragged->begin[seq] == a->ragged->begin[seq + 1]) continue;
        for (size_t c = begin; c < end; c++) scan_channel(a, seq, c);
    }
}
