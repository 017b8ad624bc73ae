/* backward.h - gradients of convolution, scan and loss, written once over the vector layer (after elementwise.h).
 *
 * Channels lie in lanes; time runs outside.  The sums over tokens are those of the reference; the sums over channels, g_B and
 * g_C, run over the vectors of a block and then over the lanes, whatever the split. */
#ifndef FM_KERNELS_SIMD_BACKWARD_H
#define FM_KERNELS_SIMD_BACKWARD_H

#include "kernels/simd/elementwise.h"

/* s (1 + v (1 - s)) with s = sigmoid(v): the derivative of silu. */
FM_INLINE vf vsilu_slope(vf v)
{
    const vf one = vset(1.0f), s = vdiv(one, vadd(one, vexp(vsub(vset(0.0f), v))));
    return vmul(s, vfma(v, vsub(one, s), one));
}

FM_INLINE void lanes_add(float *p, vf v, vlanes l)
{
    lanes_store(p, vadd(lanes_load(p, l), v), l);
}

/* conv --------------------------------------------------------------------------------------------------------------------- */

FM_INLINE vf conv_back_load(const fm_conv_back_args *a, size_t seq, size_t e, size_t c, vlanes l)
{
    const size_t past = a->d_conv - 1;
    if (e >= past) return lanes_load(a->x + (a->ragged->begin[seq] + e - past) * a->x_stride + c, l);
    return fm_states_exist(&a->state) ? lanes_load(fm_state_of(&a->state, seq) + e * a->d_inner + c, l) : vset(0.0f);
}

/* The gradients of the sums before silu go to g_x for now; weights and bias take their share. */
FM_INLINE void conv_back_sums(const fm_conv_back_args *a, size_t seq, size_t n_tokens, size_t c, vlanes l)
{
    for (size_t t = 0; t < n_tokens; t++) {
        const size_t row = a->ragged->begin[seq] + t;
        vf sum = a->bias ? lanes_load(a->bias + c, l) : vset(0.0f);
        for (size_t k = 0; k < a->d_conv; k++)
            sum = vfma(lanes_load(a->w + k * a->d_inner + c, l), conv_back_load(a, seq, t + k, c, l), sum);
        const vf g = vmul(lanes_load(a->g + row * a->g_stride + c, l), vsilu_slope(sum));
        lanes_store(a->g_x + row * a->g_x_stride + c, g, l);
        if (a->g_bias) lanes_add(a->g_bias + c, g, l);
        for (size_t k = 0; k < a->d_conv; k++)
            lanes_add(a->g_w + k * a->d_inner + c, vmul(g, conv_back_load(a, seq, t + k, c, l)), l);
    }
}

/* Gradient of input e of the window before the step followed by the step, as in the reference. */
FM_INLINE vf conv_back_input(const fm_conv_back_args *a, size_t seq, size_t n_tokens, size_t e, size_t c, vlanes l)
{
    const bool last = fm_states_exist(&a->g_state) && e >= n_tokens;
    vf g = last ? lanes_load(fm_state_of(&a->g_state, seq) + (e - n_tokens) * a->d_inner + c, l) : vset(0.0f);
    for (size_t k = 0; k < a->d_conv && k <= e; k++) {
        const size_t row = a->ragged->begin[seq] + e - k;
        if (e - k >= n_tokens) continue;
        g = vfma(lanes_load(a->w + k * a->d_inner + c, l), lanes_load(a->g_x + row * a->g_x_stride + c, l), g);
    }
    return g;
}

FM_INLINE void conv_back_lanes(const fm_conv_back_args *a, size_t seq, size_t c, vlanes l)
{
    const size_t past = a->d_conv - 1, first = a->ragged->begin[seq], n_tokens = a->ragged->begin[seq + 1] - first;
    vf before[FM_CONV_MAX];
    conv_back_sums(a, seq, n_tokens, c, l);
    for (size_t e = 0; e < past && fm_states_exist(&a->g_state); e++) before[e] = conv_back_input(a, seq, n_tokens, e, c, l);
    for (size_t t = 0; t < n_tokens; t++) {
        const vf g = conv_back_input(a, seq, n_tokens, t + past, c, l);
        lanes_store(a->g_x + (first + t) * a->g_x_stride + c, g, l);
    }
    for (size_t e = 0; e < past && fm_states_exist(&a->g_state); e++)
        lanes_store(fm_state_of(&a->g_state, seq) + e * a->d_inner + c, before[e], l);
}

static void simd_conv_back(const fm_run *run, const fm_conv_back_args *a)
{
    size_t begin, end;
    FM_ASSERT(a->d_conv <= FM_CONV_MAX);
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        size_t c = begin;
        if (a->ragged->begin[seq] == a->ragged->begin[seq + 1]) continue;
        for (; c + VLEN <= end; c += VLEN) conv_back_lanes(a, seq, c, lanes_all());
        if (c < end) conv_back_lanes(a, seq, c, lanes_first(end - c));
    }
}

/* scan --------------------------------------------------------------------------------------------------------------------- */

enum { BACK_CHUNK = 32 }; /* tokens between two states that are kept; what a chunk needs stays in the second cache */
enum { BACK_VECTORS = FM_CHANNEL_GRANULE / VLEN };

/* A block's memory: for each vector the states at the begin of each chunk; then what one chunk of one vector needs; then the
 * lanes of g_B and g_C of a chunk, which all vectors of the block add to. */
typedef struct scan_back_space {
    float *kept;   /* (BACK_VECTORS, chunks, d_state, VLEN) */
    float *carry;  /* (BACK_VECTORS, d_state, VLEN) lambda of the next token times its decay */
    float *replay; /* (BACK_CHUNK + 1, d_state, VLEN) */
    float *decay;  /* (BACK_CHUNK, d_state, VLEN) */
    float *delta;  /* (BACK_CHUNK, VLEN) */
    float *g_bc;   /* (BACK_CHUNK, 2 d_state, VLEN) */
    float *g_A;    /* (d_state, VLEN) */
} scan_back_space;

static size_t simd_scan_back_floats(size_t longest, size_t d_state)
{
    const size_t chunks = (longest + BACK_CHUNK - 1) / BACK_CHUNK;
    return VLEN * (d_state * (BACK_VECTORS * (chunks + 1) + BACK_CHUNK + 1 + BACK_CHUNK + 2 * BACK_CHUNK + 1) + BACK_CHUNK);
}

static scan_back_space scan_back_place(const fm_scan_back_args *a)
{
    const size_t row = a->d_state * VLEN;
    scan_back_space s;
    s.replay = a->scratch;
    s.decay = s.replay + (BACK_CHUNK + 1) * row;
    s.delta = s.decay + BACK_CHUNK * row;
    s.g_bc = s.delta + BACK_CHUNK * VLEN;
    s.g_A = s.g_bc + 2 * BACK_CHUNK * row;
    s.carry = s.g_A + row;
    s.kept = s.carry + BACK_VECTORS * row;
    return s;
}

/* A vector of channels of one sequence. */
typedef struct scan_back_tile {
    const fm_scan_back_args *a;
    const scan_back_space *s;
    size_t seq, c;
    vlanes l;
    float *kept, *carry; /* of this vector */
} scan_back_tile;

FM_INLINE vf back_raw_dt(const scan_back_tile *k, size_t row)
{
    const vf dt = lanes_load(k->a->dt + row * k->a->dt_stride + k->c, k->l);
    return k->a->dt_bias ? vadd(dt, lanes_load(k->a->dt_bias + k->c, k->l)) : dt;
}

/* States of one token on: `decay` (d_state, VLEN) may be NULL. */
FM_INLINE void back_advance(const scan_back_tile *k, size_t row, float *after, const float *before, float *decay, vf delta)
{
    const fm_scan_back_args *a = k->a;
    const float *B = a->B + row * a->bc_stride;
    const vf delta2 = vmul(delta, vset(VLOG2E)), du = vmul(delta, lanes_load(a->u + row * a->u_stride + k->c, k->l));
    for (size_t n = 0; n < a->d_state; n++) {
        const vf d = vexp2(vmul(delta2, lanes_load(a->A + n * a->d_inner + k->c, k->l)));
        if (decay) vstore(decay + n * VLEN, d);
        vstore(after + n * VLEN, vfma(d, vload(before + n * VLEN), vmul(du, vset(B[n]))));
    }
}

FM_INLINE void back_keep(const scan_back_tile *k, size_t first, size_t n_tokens)
{
    const fm_scan_back_args *a = k->a;
    const size_t row = a->d_state * VLEN;
    float *h = k->s->replay;
    for (size_t n = 0; n < a->d_state; n++)
        vstore(h + n * VLEN,
               fm_states_exist(&a->h) ? lanes_load(fm_state_of(&a->h, k->seq) + n * a->d_inner + k->c, k->l) : vset(0.0f));
    for (size_t t = 0; t < n_tokens; t++) {
        if (t % BACK_CHUNK == 0) memcpy(k->kept + t / BACK_CHUNK * row, h, row * sizeof *h);
        back_advance(k, first + t, h, h, NULL, vsoftplus(back_raw_dt(k, first + t)));
    }
}

/* y before the gate and what the gate passes on; g_z is written. */
FM_INLINE vf back_gate(const scan_back_tile *k, size_t row, const float *after, vf u)
{
    const fm_scan_back_args *a = k->a;
    const float *C = a->C + row * a->bc_stride;
    const vf g = lanes_load(a->g + row * a->g_stride + k->c, k->l);
    if (!a->z) return g;
    vf y = vmul(lanes_load(a->skip + k->c, k->l), u);
    for (size_t n = 0; n < a->d_state; n++) y = vfma(vset(C[n]), vload(after + n * VLEN), y);
    const vf z = lanes_load(a->z + row * a->z_stride + k->c, k->l);
    lanes_store(a->g_z + row * a->g_z_stride + k->c, vmul(vmul(g, y), vsilu_slope(z)), k->l);
    return vmul(g, vsilu(z));
}

/* Token `at` of the chunk. */
FM_INLINE void back_token_lanes(const scan_back_tile *k, size_t row, size_t at)
{
    const fm_scan_back_args *a = k->a;
    const size_t width = a->d_state * VLEN;
    const float *B = a->B + row * a->bc_stride, *C = a->C + row * a->bc_stride, *before = k->s->replay + at * width,
                *after = before + width, *decay = k->s->decay + at * width;
    float *g_B = k->s->g_bc + 2 * at * width, *g_C = g_B + width;
    const vf u = lanes_load(a->u + row * a->u_stride + k->c, k->l), delta = vload(k->s->delta + at * VLEN), du = vmul(delta, u);
    const vf g_y = back_gate(k, row, after, u);
    vf g_delta = vset(0.0f), by_b = vset(0.0f);
    for (size_t n = 0; n < a->d_state; n++) {
        const size_t i = n * VLEN;
        const vf lambda = vfma(g_y, vset(C[n]), vload(k->carry + i)), next = vmul(vload(decay + i), lambda);
        const vf past = vmul(next, vload(before + i));
        vstore(g_B + i, vfma(lambda, du, vload(g_B + i)));
        vstore(g_C + i, vfma(g_y, vload(after + i), vload(g_C + i)));
        by_b = vfma(lambda, vset(B[n]), by_b);
        g_delta = vfma(past, lanes_load(a->A + n * a->d_inner + k->c, k->l), g_delta);
        vstore(k->s->g_A + i, vfma(past, delta, vload(k->s->g_A + i)));
        vstore(k->carry + i, next);
    }
    g_delta = vfma(by_b, u, g_delta);
    const vf v = back_raw_dt(k, row);
    const vf g_v = vdiv(g_delta, vadd(vset(1.0f), vexp(vsub(vset(0.0f), v))));
    lanes_add(a->g_skip + k->c, vmul(g_y, u), k->l);
    if (a->g_dt_bias) lanes_add(a->g_dt_bias + k->c, g_v, k->l);
    lanes_store(a->g_dt + row * a->g_dt_stride + k->c, g_v, k->l);
    lanes_store(a->g_u + row * a->g_u_stride + k->c, vfma(g_y, lanes_load(a->skip + k->c, k->l), vmul(delta, by_b)), k->l);
}

FM_INLINE void back_chunk(const scan_back_tile *k, size_t first, size_t chunk, size_t n)
{
    const fm_scan_back_args *a = k->a;
    const size_t width = a->d_state * VLEN;
    memcpy(k->s->replay, k->kept + chunk * width, width * sizeof(float));
    memset(k->s->g_A, 0, width * sizeof(float));
    for (size_t t = 0; t < n; t++) {
        const vf delta = vsoftplus(back_raw_dt(k, first + t));
        vstore(k->s->delta + t * VLEN, delta);
        back_advance(k, first + t, k->s->replay + (t + 1) * width, k->s->replay + t * width, k->s->decay + t * width, delta);
    }
    for (size_t t = n; t-- > 0;) back_token_lanes(k, first + t, t);
    for (size_t i = 0; i < a->d_state; i++) lanes_add(a->g_A + i * a->d_inner + k->c, vload(k->s->g_A + i * VLEN), k->l);
}

/* The lanes that a partial vector does not have hold zeros throughout: inputs are loaded as zeros. */
static void scan_back_bc(const fm_scan_back_args *a, const scan_back_space *s, size_t first, size_t n, float *g_bc)
{
    const size_t N2 = 2 * a->d_state;
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < N2; i++) g_bc[(first + t) * N2 + i] = vsum(vload(s->g_bc + (t * N2 + i) * VLEN));
}

FM_INLINE vlanes back_lanes(size_t c, size_t end)
{
    return c + VLEN <= end ? lanes_all() : lanes_first(end - c);
}

/* Vector v of the block that begins at channel c. */
static scan_back_tile back_tile(const fm_scan_back_args *a, const scan_back_space *s, size_t seq, size_t c, size_t v,
                                size_t end)
{
    const size_t width = a->d_state * VLEN, n = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
    c += v * VLEN;
    const size_t chunks = (n + BACK_CHUNK - 1) / BACK_CHUNK;
    return (scan_back_tile){.a = a,
                            .s = s,
                            .seq = seq,
                            .c = c,
                            .l = back_lanes(c, end),
                            .kept = s->kept + v * chunks * width,
                            .carry = s->carry + v * width};
}

/* States at the chunks' begins, and the gradient that comes from after the step. */
static void back_begin(const scan_back_tile *k, size_t first, size_t n_tokens)
{
    const fm_scan_back_args *a = k->a;
    back_keep(k, first, n_tokens);
    for (size_t n = 0; n < a->d_state; n++)
        vstore(k->carry + n * VLEN,
               fm_states_exist(&a->g_h) ? lanes_load(fm_state_of(&a->g_h, k->seq) + n * a->d_inner + k->c, k->l) : vset(0.0f));
}

static void back_end(const scan_back_tile *k)
{
    for (size_t n = 0; fm_states_exist(&k->a->g_h) && n < k->a->d_state; n++)
        lanes_store(fm_state_of(&k->a->g_h, k->seq) + n * k->a->d_inner + k->c, vload(k->carry + n * VLEN), k->l);
}

/* A block of channels [c, end) of one sequence. */
static void scan_back_block(const fm_scan_back_args *a, size_t seq, size_t c, size_t end, float *g_bc)
{
    const size_t first = a->ragged->begin[seq], n_tokens = a->ragged->begin[seq + 1] - first;
    const scan_back_space s = scan_back_place(a);
    const size_t vectors = (end - c + VLEN - 1) / VLEN;
    for (size_t v = 0; v < vectors; v++) {
        const scan_back_tile k = back_tile(a, &s, seq, c, v, end);
        back_begin(&k, first, n_tokens);
    }
    for (size_t chunk = (n_tokens + BACK_CHUNK - 1) / BACK_CHUNK; chunk-- > 0;) {
        const size_t begin = chunk * BACK_CHUNK, n = n_tokens - begin < BACK_CHUNK ? n_tokens - begin : BACK_CHUNK;
        memset(s.g_bc, 0, n * 2 * a->d_state * VLEN * sizeof(float));
        for (size_t v = 0; v < vectors; v++) {
            const scan_back_tile k = back_tile(a, &s, seq, c, v, end);
            back_chunk(&k, first + begin, chunk, n);
        }
        scan_back_bc(a, &s, first + begin, n, g_bc);
    }
    for (size_t v = 0; v < vectors; v++) {
        const scan_back_tile k = back_tile(a, &s, seq, c, v, end);
        back_end(&k);
    }
}

static void simd_scan_back(const fm_run *run, const fm_scan_back_args *a)
{
    size_t begin, end;
    const size_t rows = a->ragged->begin[a->ragged->n_seq], width = rows * 2 * a->d_state;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t c = begin; c < end; c += FM_CHANNEL_GRANULE) {
        const size_t last = end - c < FM_CHANNEL_GRANULE ? end : c + FM_CHANNEL_GRANULE;
        for (size_t seq = 0; seq < a->ragged->n_seq; seq++)
            scan_back_block(a, seq, c, last, a->g_bc_parts + c / FM_CHANNEL_GRANULE * width);
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
    k->conv_back = simd_conv_back;
    k->scan_back = simd_scan_back;
    k->scan_back_floats = simd_scan_back_floats;
    k->xent = simd_xent;
}

#endif
