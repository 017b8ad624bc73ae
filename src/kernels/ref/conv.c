/* conv.c - causal depthwise convolution with a carried window, then silu (spec falcon-mamba.md 2.1,
 * steps 4 and 5). */
#include "kernels/ref/ref.h"

/* The row of the input that meets weight k at token t: an input of this step or a carried one.
 * Valid because state row i holds the input of token i - (d_conv - 1). */
static const float *window_row(const fm_conv_args *a, size_t seq, size_t t, size_t k)
{
    const size_t past = a->d_conv - 1;
    if (t + k < past) return a->state[seq] + (t + k) * a->d_inner;
    return a->x + (a->ragged->begin[seq] + t + k - past) * a->x_stride;
}

static void convolve(const fm_conv_args *a, size_t seq, size_t n_tokens, size_t c)
{
    for (size_t t = 0; t < n_tokens; t++) {
        float sum = a->bias ? a->bias[c] : 0.0f;
        for (size_t k = 0; k < a->d_conv; k++) sum += a->w[k * a->d_inner + c] * window_row(a, seq, t, k)[c];
        a->out[(a->ragged->begin[seq] + t) * a->out_stride + c] = fm_ref_silu(sum);
    }
}

/* Ascending rows read at or after the row written, so the shift is safe in place. */
static void carry(const fm_conv_args *a, size_t seq, size_t n_tokens, size_t c)
{
    for (size_t i = 0; i + 1 < a->d_conv; i++) a->state[seq][i * a->d_inner + c] = window_row(a, seq, n_tokens, i)[c];
}

void fm_ref_conv_silu(const fm_run *run, const fm_conv_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
        if (n_tokens == 0) continue;
        for (size_t c = begin; c < end; c++) {
            convolve(a, seq, n_tokens, c);
            if (!a->hold) carry(a, seq, n_tokens, c);
        }
    }
}
