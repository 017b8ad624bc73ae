/* backward.h - gradients of convolution and loss, written once over the vector layer; those of the scan are in scan_back.h.
 *
 * Channels lie in lanes; time runs outside.  The sums over tokens are those of the reference. */
#ifndef FM_KERNELS_SIMD_BACKWARD_H
#define FM_KERNELS_SIMD_BACKWARD_H

#include "base/rng.h"
#include "kernels/simd/scan_back.h"

/* conv --------------------------------------------------------------------------------------------------------------------- */

enum { CONV_WINDOW = 4 }; /* the d_conv whose weights, window and sums stay in registers */

/* A vector of channels of one sequence. */
typedef struct conv_back_tile {
    const fm_conv_back_args *a;
    size_t seq, c, first, n_tokens;
} conv_back_tile;

/* Element e of the window before the step followed by the step. */
FM_INLINE vf conv_back_load(const conv_back_tile *k, size_t e, vlanes l)
{
    const fm_conv_back_args *a = k->a;
    const size_t past = a->d_conv - 1;
    if (e >= past) return lanes_load(a->x + (k->first + e - past) * a->x_stride + k->c, l);
    return fm_states_exist(&a->state) ? lanes_load(fm_state_of(&a->state, k->seq) + e * a->d_inner + k->c, l) : vset(0.0f);
}

/* Gradient of element e, as in the reference: g_x holds those of the sums before silu. */
FM_INLINE vf conv_back_input(const conv_back_tile *k, size_t e, vlanes l)
{
    const fm_conv_back_args *a = k->a;
    vf g = vset(0.0f);
    if (fm_states_exist(&a->g_state) && e >= k->n_tokens)
        g = lanes_load(fm_state_of(&a->g_state, k->seq) + (e - k->n_tokens) * a->d_inner + k->c, l);
    for (size_t i = 0; i < a->d_conv && i <= e; i++) {
        if (e - i >= k->n_tokens) continue;
        const vf sum = lanes_load(a->g_x + (k->first + e - i) * a->g_x_stride + k->c, l);
        g = vfma(lanes_load(a->w + i * a->d_inner + k->c, l), sum, g);
    }
    return g;
}

/* The gradients of the sums before silu go to g_x for now; weights and bias take their share.  `d_conv` is a constant where the
 * window fits into registers. */
FM_INLINE void conv_back_sums(const conv_back_tile *k, size_t d_conv, vlanes l)
{
    const fm_conv_back_args *a = k->a;
    const vf bias = a->bias ? lanes_load(a->bias + k->c, l) : vset(0.0f);
    const float *g = a->g + k->first * a->g_stride + k->c, *x = a->x + k->first * a->x_stride + k->c;
    float *g_x = a->g_x + k->first * a->g_x_stride + k->c;
    vf w[FM_CONV_MAX], window[FM_CONV_MAX], g_w[FM_CONV_MAX], g_bias = vset(0.0f);
    for (size_t i = 0; i < d_conv; i++) {
        w[i] = lanes_load(a->w + i * a->d_inner + k->c, l);
        g_w[i] = vset(0.0f);
        if (i + 1 < d_conv) window[i + 1] = conv_back_load(k, i, l);
    }
    for (size_t t = 0; t < k->n_tokens; t++, g += a->g_stride, x += a->x_stride, g_x += a->g_x_stride) {
        vf sum = bias;
        for (size_t i = 0; i + 1 < d_conv; i++) window[i] = window[i + 1];
        window[d_conv - 1] = lanes_load(x, l);
        for (size_t i = 0; i < d_conv; i++) sum = vfma(w[i], window[i], sum);
        const vf v = vmul(lanes_load(g, l), vsilu_slope(sum));
        lanes_store(g_x, v, l);
        g_bias = vadd(g_bias, v);
        for (size_t i = 0; i < d_conv; i++) g_w[i] = vfma(v, window[i], g_w[i]);
    }
    if (a->g_bias) lanes_add(a->g_bias + k->c, g_bias, l);
    for (size_t i = 0; i < d_conv; i++) lanes_add(a->g_w + i * a->d_inner + k->c, g_w[i], l);
}

/* Inputs whose weights all meet tokens of the step: each gradient of a sum is loaded once and moves along the window. */
FM_INLINE void conv_back_walk(const conv_back_tile *k, size_t n, vlanes l)
{
    const fm_conv_back_args *a = k->a;
    float *g_x = a->g_x + k->first * a->g_x_stride + k->c;
    vf w[CONV_WINDOW], window[CONV_WINDOW];
    for (size_t i = 0; i < CONV_WINDOW; i++) {
        w[i] = lanes_load(a->w + i * a->d_inner + k->c, l);
        if (i + 1 < CONV_WINDOW) window[i + 1] = lanes_load(g_x + i * a->g_x_stride, l);
    }
    for (size_t t = 0; t < n; t++, g_x += a->g_x_stride) {
        vf g = vset(0.0f);
        for (size_t i = 0; i + 1 < CONV_WINDOW; i++) window[i] = window[i + 1];
        window[CONV_WINDOW - 1] = lanes_load(g_x + (CONV_WINDOW - 1) * a->g_x_stride, l);
        for (size_t i = 0; i < CONV_WINDOW; i++) g = vfma(w[i], window[CONV_WINDOW - 1 - i], g);
        lanes_store(g_x, g, l);
    }
}

FM_INLINE void conv_back_lanes(const conv_back_tile *k, vlanes l)
{
    const fm_conv_back_args *a = k->a;
    const size_t past = a->d_conv - 1;
    const bool usual = a->d_conv == CONV_WINDOW;
    vf before[FM_CONV_MAX];
    size_t t = 0;
    if (usual)
        conv_back_sums(k, CONV_WINDOW, l);
    else
        conv_back_sums(k, a->d_conv, l);
    const bool states = fm_states_exist(&a->g_state);
    for (size_t e = 0; e < past && states; e++) before[e] = conv_back_input(k, e, l);
    if (usual && k->n_tokens > past) {
        t = k->n_tokens - past;
        conv_back_walk(k, t, l);
    }
    for (; t < k->n_tokens; t++)
        lanes_store(a->g_x + (k->first + t) * a->g_x_stride + k->c, conv_back_input(k, t + past, l), l);
    for (size_t e = 0; e < past && states; e++)
        lanes_store(fm_state_of(&a->g_state, k->seq) + e * a->d_inner + k->c, before[e], l);
}

static void simd_conv_back(const fm_run *run, const fm_conv_back_args *a)
{
    size_t begin, end;
    FM_ASSERT(a->d_conv <= FM_CONV_MAX);
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        conv_back_tile k = {a, seq, begin, a->ragged->begin[seq], a->ragged->begin[seq + 1] - a->ragged->begin[seq]};
        if (k.n_tokens == 0) continue;
        for (; k.c + VLEN <= end; k.c += VLEN) conv_back_lanes(&k, lanes_all());
        if (k.c < end) conv_back_lanes(&k, lanes_first(end - k.c));
    }
}

/* norm --------------------------------------------------------------------------------------------------------------------- */

/* Sum of g w x rho: the part of the gradient along the row. */
static float norm_along(const float *g, const float *x, const float *w, float rho, size_t d)
{
    vf sum = vset(0.0f);
    size_t i = 0;
    for (; i + VLEN <= d; i += VLEN) {
        const vf v = vmul(vload(g + i), vmul(vload(x + i), vset(rho)));
        sum = w ? vfma(v, vload(w + i), sum) : vadd(sum, v);
    }
    if (i < d) {
        const vtail t = vtail_of(d - i);
        const vf v = vmul(vload_tail(g + i, t), vmul(vload_tail(x + i, t), vset(rho)));
        sum = w ? vfma(v, vload_tail(w + i, t), sum) : vadd(sum, v);
    }
    return vsum(sum);
}

/* g_x = (g_x +) rho (w g - x rho mean). */
FM_INLINE void norm_back_lanes(float *g_x, const float *g, const float *x, const float *w, vf rho, vf mean, bool add, vlanes l)
{
    vf v = lanes_load(g, l);
    if (w) v = vmul(v, lanes_load(w, l));
    v = vmul(rho, vfnma(mean, vmul(lanes_load(x, l), rho), v));
    lanes_store(g_x, add ? vadd(lanes_load(g_x, l), v) : v, l);
}

static void simd_rmsnorm_back(const fm_run *run, const fm_rmsnorm_back_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *g = a->g + r * a->g_stride, *x = a->x + r * a->x_stride, *w = a->w;
        float *g_x = a->g_x + r * a->g_x_stride;
        const float rho = norm_scale(x, a->d, a->eps);
        const vf scale = vset(rho), mean = vset(norm_along(g, x, w, rho, a->d) / (float)a->d);
        size_t i = 0;
        a->rho[r] = rho;
        for (; i + VLEN <= a->d; i += VLEN)
            norm_back_lanes(g_x + i, g + i, x + i, w ? w + i : NULL, scale, mean, a->add, lanes_all());
        if (i < a->d) norm_back_lanes(g_x + i, g + i, x + i, w ? w + i : NULL, scale, mean, a->add, lanes_first(a->d - i));
    }
}

/* dropout ------------------------------------------------------------------------------------------------------------------ */

enum { DROP_COUNTERS = 16, DROP_WORDS = 4 * DROP_COUNTERS, WIDE = sizeof(vwide) / sizeof(uint64_t) };

/* fm_rng_round() on a counter a lane.  Only low halves count: what the sums leave above them is never read. */
FM_INLINE void drop_round(vwide c[4], uint32_t k0, uint32_t k1)
{
    const vwide a = vwide_product(c[0], (vwide){0} + FM_RNG_MULTIPLIER_0),
                b = vwide_product(c[2], (vwide){0} + FM_RNG_MULTIPLIER_1);
    c[0] = (b >> 32) ^ c[1] ^ k0;
    c[1] = b;
    c[2] = (a >> 32) ^ c[3] ^ k1;
    c[3] = a;
}

/* Words of the counters from `first` on, DROP_COUNTERS of them. */
FM_INLINE void drop_words(uint32_t words[DROP_WORDS], const fm_dropout_args *a, uint64_t first)
{
    vwide c[DROP_COUNTERS / WIDE][4];
    uint32_t k0 = (uint32_t)a->seed, k1 = (uint32_t)(a->seed >> 32);
    for (size_t v = 0; v < DROP_COUNTERS / WIDE; v++) {
        uint64_t counters[WIDE];
        for (size_t i = 0; i < WIDE; i++) counters[i] = first + v * WIDE + i;
        memcpy(&c[v][0], counters, sizeof counters);
        c[v][1] = c[v][0] >> 32;
        c[v][2] = (vwide){0} + a->stream;
        c[v][3] = c[v][2] >> 32;
    }
    for (int r = 0; r < FM_RNG_ROUNDS; r++, k0 += FM_RNG_WEYL_0, k1 += FM_RNG_WEYL_1)
        for (size_t v = 0; v < DROP_COUNTERS / WIDE; v++) drop_round(c[v], k0, k1);
    for (size_t v = 0; v < DROP_COUNTERS / WIDE; v++)
        for (size_t i = 0; i < WIDE; i++, words += 4)
            for (size_t j = 0; j < 4; j++) words[j] = (uint32_t)c[v][j][i];
}

static void drop_values(float *out, const float *x, const uint32_t *words, size_t n, uint32_t below, float scale, bool add)
{
    for (size_t i = 0; i < n && add; i++) out[i] += words[i] >= below ? x[i] * scale : 0.0f;
    for (size_t i = 0; i < n && !add; i++) out[i] = words[i] >= below ? x[i] * scale : 0.0f;
}

static void simd_dropout(const fm_run *run, const fm_dropout_args *a)
{
    const uint32_t below = (uint32_t)((double)a->p * 4294967296.0);
    const float scale = 1.0f / (1.0f - a->p);
    uint32_t words[DROP_WORDS];
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const uint64_t first = (a->first_row + r) * ((a->d + 3) / 4);
        for (size_t i = 0; i < a->d; i += DROP_WORDS) {
            const size_t n = a->d - i < DROP_WORDS ? a->d - i : DROP_WORDS;
            drop_words(words, a, first + i / 4);
            drop_values(a->out + r * a->out_stride + i, a->x + r * a->x_stride + i, words, n, below, scale, a->add);
        }
    }
}

/* loss --------------------------------------------------------------------------------------------------------------------- */

/* Sum in float of at most 1024 terms at a time, these in double: as near to the reference as its own rounding. */
static float xent_lse(const float *x, size_t n)
{
    float max = x[0];
    double sum = 0.0;
    for (size_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (size_t i = 0; i < n; i += 1024) {
        const size_t end = n - i < 1024 ? n : i + 1024;
        vf part = vset(0.0f);
        size_t j = i;
        for (; j + VLEN <= end; j += VLEN) part = vadd(part, vexp(vsub(vload(x + j), vset(max))));
        if (j < end) {
            const vtail t = vtail_of(end - j);
            part = vadd(part, vtail_select(t, vexp(vsub(vload_tail(x + j, t), vset(max))), vset(0.0f)));
        }
        sum += (double)vsum(part);
    }
    return max + (float)log(sum);
}

static void simd_xent(const fm_run *run, const fm_xent_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        float *x = a->logits + r * a->vocab;
        const int32_t target = a->target[r];
        a->loss[r] = 0.0f;
        if (target < 0) {
            memset(x, 0, a->vocab * sizeof *x);
            continue;
        }
        const float lse = xent_lse(x, a->vocab), scale = a->scale * (1.0f + 2.0f * a->z * lse);
        size_t i = 0;
        a->loss[r] = lse - x[target] + a->z * lse * lse;
        for (; i + VLEN <= a->vocab; i += VLEN) vstore(x + i, vmul(vset(scale), vexp(vsub(vload(x + i), vset(lse)))));
        if (i < a->vocab) {
            const vtail t = vtail_of(a->vocab - i);
            vstore_tail(x + i, vmul(vset(scale), vexp(vsub(vload_tail(x + i, t), vset(lse)))), t);
        }
        x[target] -= a->scale;
    }
}

FM_INLINE void fill_backward(fm_kernels *k)
{
    k->rmsnorm_back = simd_rmsnorm_back;
    k->conv_back = simd_conv_back;
    k->scan_back = simd_scan_back;
    k->scan_back_floats = simd_scan_back_floats;
    k->dropout = simd_dropout;
    k->xent = simd_xent;
}

#endif
