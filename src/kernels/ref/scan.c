/* scan.c - the selective scan (spec falcon-mamba.md 2.1, steps 9 to 13; equation 2 of the Mamba
 * paper): time in order, channels apart, one state vector per channel. */
#include "kernels/ref/ref.h"

#include <string.h>

#include "kernels/dither.h"

/* One token of one channel, h its states.  y may be the same place as u or z: all inputs are read first. */
static void scan_token(const fm_scan_args *a, fm_real *h, size_t row, size_t c)
{
    const fm_real *B = a->B + row * a->bc_stride;
    const fm_real u = a->u[row * a->u_stride + c];
    const fm_real bias = a->dt_bias ? a->dt_bias[c] : 0.0f;
    const fm_real delta = fm_ref_softplus(a->dt[row * a->dt_stride + c] + bias);
    const fm_real du = delta * u;
    for (size_t n = 0; n < a->d_state; n++) h[n] = exp(delta * a->A[n * a->d_inner + c]) * h[n] + du * B[n];
    if (!a->y) return;
    const fm_real *C = a->C + row * a->bc_stride;
    fm_real y = 0.0f;
    for (size_t n = 0; n < a->d_state; n++) y += C[n] * h[n];
    y += a->skip[c] * u;
    if (a->z) y *= fm_ref_silu(a->z[row * a->z_stride + c]);
    a->y[row * a->y_stride + c] = y;
}

/* The states of a channel as a token of its sequence leaves them. */
static void round_states(fm_real *h, size_t n, size_t c, uint32_t token)
{
    for (size_t i = 0; i < n; i++)
        h[i] = (fm_real)fm_dither((float)h[i], fm_dither_word((uint32_t)c, (uint32_t)i & ~1u, token), (uint32_t)i);
}

static void scan_channel_half(const fm_scan_args *a, size_t seq, size_t c)
{
    fm_real h[FM_D_STATE_MAX];
    uint16_t *state = (uint16_t *)(void *)fm_state_of(&a->h, seq) + c;
    const size_t first = a->ragged->begin[seq];
    for (size_t n = 0; n < a->d_state; n++) h[n] = (fm_real)fm_bf16_to_f32(state[n * a->d_inner]);
    for (size_t row = first; row < a->ragged->begin[seq + 1]; row++) {
        scan_token(a, h, row, c);
        round_states(h, a->d_state, c, a->ragged->seen[seq] + (uint32_t)(row - first));
    }
    for (size_t n = 0; n < a->d_state && !a->hold; n++) state[n * a->d_inner] = fm_f32_to_bf16((float)h[n]);
}

static void scan_channel(const fm_scan_args *a, size_t seq, size_t c)
{
    fm_real h[FM_D_STATE_MAX], *state = fm_state_of(&a->h, seq) + c;
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
        for (size_t c = begin; c < end; c++) (a->half_h ? scan_channel_half : scan_channel)(a, seq, c);
    }
}

/* ---- Backward: spec 8, its chunked form ---- */

enum { CHUNK = 64 }; /* tokens between two states that are kept */

size_t fm_ref_scan_back_floats(size_t n_tokens, size_t d_inner, size_t d_state)
{
    (void)d_inner; /* a channel after the other */
    const size_t chunks = (n_tokens + CHUNK - 1) / CHUNK;
    return (chunks + CHUNK + 3) * d_state;
}

/* Memory of one channel's walk. */
typedef struct walk {
    const fm_scan_back_args *a;
    size_t seq, c, first, n_tokens;
    fm_real *kept;   /* (chunks, d_state) states at the begin of each chunk */
    fm_real *replay; /* (CHUNK + 1, d_state) states before each token of a chunk, and after the last */
    fm_real *carry;  /* (d_state) a lambda of the token after this one */
    fm_real *sums;   /* (d_state) of g_A */
} walk;

static walk walk_begin(const fm_scan_back_args *a, size_t seq, size_t c)
{
    const size_t first = a->ragged->begin[seq], n = a->ragged->begin[seq + 1] - first, N = a->d_state;
    fm_real *p = a->scratch;
    return (walk){.a = a,
                  .seq = seq,
                  .c = c,
                  .first = first,
                  .n_tokens = n,
                  .replay = p,
                  .carry = p + (CHUNK + 1) * N,
                  .sums = p + (CHUNK + 2) * N,
                  .kept = p + (CHUNK + 3) * N};
}

static fm_real back_delta(const walk *w, size_t row)
{
    const fm_scan_back_args *a = w->a;
    return fm_ref_softplus(a->dt[row * a->dt_stride + w->c] + (a->dt_bias ? a->dt_bias[w->c] : 0.0f));
}

/* h after the token from h before it: the arithmetic of the forward. */
static void back_step(const walk *w, fm_real *after, const fm_real *before, size_t row)
{
    const fm_scan_back_args *a = w->a;
    const fm_real *B = a->B + row * a->bc_stride, delta = back_delta(w, row), du = delta * a->u[row * a->u_stride + w->c];
    for (size_t n = 0; n < a->d_state; n++) after[n] = exp(delta * a->A[n * a->d_inner + w->c]) * before[n] + du * B[n];
}

static void keep_states(const walk *w)
{
    const size_t N = w->a->d_state;
    fm_real *h = w->replay;
    const bool states = fm_states_exist(&w->a->h);
    for (size_t n = 0; n < N; n++) h[n] = states ? fm_state_of(&w->a->h, w->seq)[n * w->a->d_inner + w->c] : 0.0f;
    for (size_t t = 0; t < w->n_tokens; t++) {
        for (size_t n = 0; n < N && t % CHUNK == 0; n++) w->kept[t / CHUNK * N + n] = h[n];
        back_step(w, h, h, w->first + t);
    }
}

/* Token `row`: h before and after it, and what the gate and the skip pass on. */
static void back_token(const walk *w, size_t row, const fm_real *before, const fm_real *after, fm_real *g_bc)
{
    const fm_scan_back_args *a = w->a;
    const size_t N = a->d_state, c = w->c;
    const fm_real *B = a->B + row * a->bc_stride, *C = a->C + row * a->bc_stride;
    const fm_real u = a->u[row * a->u_stride + c], delta = back_delta(w, row), g = a->g[row * a->g_stride + c];
    fm_real y = a->skip[c] * u, g_y = g, g_u, g_delta = 0.0f, by_b = 0.0f;
    for (size_t n = 0; n < N; n++) y += C[n] * after[n];
    if (a->z) {
        const fm_real z = a->z[row * a->z_stride + c], s = 1.0f / (1.0f + exp(-z));
        a->g_z[row * a->g_z_stride + c] = g * y * (s * (1.0f + z * (1.0f - s)));
        g_y = g * fm_ref_silu(z);
    }
    for (size_t n = 0; n < N; n++) {
        const fm_real A = a->A[n * a->d_inner + c], decay = exp(delta * A), lambda = g_y * C[n] + w->carry[n];
        const fm_real past = lambda * decay * before[n];
        g_bc[n] += lambda * delta * u;
        g_bc[N + n] += g_y * after[n];
        by_b += lambda * B[n];
        g_delta += past * A;
        w->sums[n] += past * delta;
        w->carry[n] = decay * lambda;
    }
    g_delta += by_b * u;
    g_u = g_y * a->skip[c] + delta * by_b;
    const fm_real v = a->dt[row * a->dt_stride + c] + (a->dt_bias ? a->dt_bias[c] : 0.0f);
    const fm_real g_v = v > 20.0f ? g_delta : g_delta / (1.0f + exp(-v));
    a->g_skip[c] += g_y * u;
    if (a->g_dt_bias) a->g_dt_bias[c] += g_v;
    a->g_dt[row * a->g_dt_stride + c] = g_v;
    a->g_u[row * a->g_u_stride + c] = g_u;
}

static void back_channel(const fm_scan_back_args *a, size_t seq, size_t c, fm_real *g_bc)
{
    const walk w = walk_begin(a, seq, c);
    const size_t N = a->d_state;
    keep_states(&w);
    fm_real *g_h = fm_states_exist(&a->g_h) ? fm_state_of(&a->g_h, seq) + c : NULL;
    for (size_t n = 0; n < N; n++) w.sums[n] = 0.0f, w.carry[n] = g_h ? g_h[n * a->d_inner] : 0.0f;
    for (size_t chunk = (w.n_tokens + CHUNK - 1) / CHUNK; chunk-- > 0;) {
        const size_t begin = chunk * CHUNK, left = w.n_tokens - begin, n = left < CHUNK ? left : CHUNK;
        for (size_t i = 0; i < N; i++) w.replay[i] = w.kept[chunk * N + i];
        for (size_t t = 0; t < n; t++) back_step(&w, w.replay + (t + 1) * N, w.replay + t * N, w.first + begin + t);
        for (size_t t = n; t-- > 0;)
            back_token(&w, w.first + begin + t, w.replay + t * N, w.replay + (t + 1) * N, g_bc + (w.first + begin + t) * 2 * N);
    }
    for (size_t n = 0; n < N; n++) {
        a->g_A[n * a->d_inner + c] += w.sums[n];
        if (g_h) g_h[n * a->d_inner] = w.carry[n];
    }
}

void fm_ref_scan_back(const fm_run *run, const fm_scan_back_args *a)
{
    size_t begin, end;
    const size_t rows = a->ragged->begin[a->ragged->n_seq], width = rows * 2 * a->d_state;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t c = begin; c < end; c += FM_CHANNEL_GRANULE) {
        const size_t last = end - c < FM_CHANNEL_GRANULE ? end : c + FM_CHANNEL_GRANULE;
        fm_real *g_bc = a->g_bc_parts + c / FM_CHANNEL_GRANULE * width;
        memset(g_bc, 0, width * sizeof *g_bc);
        for (size_t seq = 0; seq < a->ragged->n_seq; seq++)
            for (size_t i = c; i < last; i++) back_channel(a, seq, i, g_bc);
    }
}
