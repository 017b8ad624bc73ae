/* conv.c - causal depthwise convolution with a carried window, then silu (spec falcon-mamba.md 2.1,
 * steps 4 and 5). */
#include "kernels/ref/ref.h"

/* The row of the input that meets weight k at token t: an input of this step or a carried one.
 * Valid because state row i holds the input of token i - (d_conv - 1). */
static const fm_real *window_row(const fm_conv_args *a, size_t seq, size_t t, size_t k)
{
    const size_t past = a->d_conv - 1;
    if (t + k < past) return fm_state_of(&a->state, seq) + (t + k) * a->d_inner;
    return a->x + (a->ragged->begin[seq] + t + k - past) * a->x_stride;
}

static void convolve(const fm_conv_args *a, size_t seq, size_t n_tokens, size_t c)
{
    for (size_t t = 0; t < n_tokens; t++) {
        fm_real sum = a->bias ? a->bias[c] : 0.0f;
        for (size_t k = 0; k < a->d_conv; k++) sum += a->w[k * a->d_inner + c] * window_row(a, seq, t, k)[c];
        a->out[(a->ragged->begin[seq] + t) * a->out_stride + c] = fm_ref_silu(sum);
    }
}

/* Ascending rows read at or after the row written, so the shift is safe in place. */
static void carry(const fm_conv_args *a, size_t seq, size_t n_tokens, size_t c)
{
    fm_real *state = fm_state_of(&a->state, seq);
    for (size_t i = 0; i + 1 < a->d_conv; i++) state[i * a->d_inner + c] = window_row(a, seq, n_tokens, i)[c];
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

/* ---- Backward ---- */

/* Input of time t - (d_conv - 1) of a sequence, or NULL for a zero before its begin. */
static const fm_real *back_row(const fm_conv_back_args *a, size_t seq, size_t t)
{
    const size_t past = a->d_conv - 1;
    if (t >= past) return a->x + (a->ragged->begin[seq] + t - past) * a->x_stride;
    return fm_states_exist(&a->state) ? fm_state_of(&a->state, seq) + t * a->d_inner : NULL;
}

/* g_x holds the gradients of the sums before silu afterwards; weights and bias take their share. */
static void back_silu(const fm_conv_back_args *a, size_t seq, size_t n_tokens, size_t c)
{
    const size_t first = a->ragged->begin[seq];
    for (size_t t = 0; t < n_tokens; t++) {
        fm_real sum = a->bias ? a->bias[c] : 0.0f;
        for (size_t k = 0; k < a->d_conv; k++) {
            const fm_real *x = back_row(a, seq, t + k);
            if (x) sum += a->w[k * a->d_inner + c] * x[c];
        }
        const fm_real s = 1.0f / (1.0f + exp(-sum));
        const fm_real g = a->g[(first + t) * a->g_stride + c] * (s * (1.0f + sum * (1.0f - s)));
        a->g_x[(first + t) * a->g_x_stride + c] = g;
        if (a->g_bias) a->g_bias[c] += g;
        for (size_t k = 0; k < a->d_conv; k++) {
            const fm_real *x = back_row(a, seq, t + k);
            if (x) a->g_w[k * a->d_inner + c] += g * x[c];
        }
    }
}

/* Gradient of input e of the window before the step followed by the step: the sums e - k have met it with weight k, and the
 * window after the step holds it from e = n_tokens on. */
static fm_real back_input(const fm_conv_back_args *a, size_t seq, size_t n_tokens, size_t e, size_t c)
{
    const bool last = fm_states_exist(&a->g_state) && e >= n_tokens;
    fm_real g = last ? fm_state_of(&a->g_state, seq)[(e - n_tokens) * a->d_inner + c] : 0.0f;
    for (size_t k = 0; k < a->d_conv && k <= e; k++)
        if (e - k < n_tokens) g += a->w[k * a->d_inner + c] * a->g_x[(a->ragged->begin[seq] + e - k) * a->g_x_stride + c];
    return g;
}

/* Token t's row of g_x is not read again after it is written, so walking ascending is safe in place. */
static void back_inputs(const fm_conv_back_args *a, size_t seq, size_t n_tokens, size_t c)
{
    const size_t past = a->d_conv - 1;
    const bool states = fm_states_exist(&a->g_state);
    fm_real before[FM_CONV_MAX];
    for (size_t e = 0; e < past && states; e++) before[e] = back_input(a, seq, n_tokens, e, c);
    for (size_t t = 0; t < n_tokens; t++)
        a->g_x[(a->ragged->begin[seq] + t) * a->g_x_stride + c] = back_input(a, seq, n_tokens, t + past, c);
    for (size_t e = 0; e < past && states; e++) fm_state_of(&a->g_state, seq)[e * a->d_inner + c] = before[e];
}

void fm_ref_conv_back(const fm_run *run, const fm_conv_back_args *a)
{
    size_t begin, end;
    FM_ASSERT(a->d_conv <= FM_CONV_MAX);
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
        for (size_t c = begin; c < end && n_tokens > 0; c++) {
            back_silu(a, seq, n_tokens, c);
            back_inputs(a, seq, n_tokens, c);
        }
    }
}
