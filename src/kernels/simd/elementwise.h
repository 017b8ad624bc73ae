/* elementwise.h - norm, convolution, scan and softmax, written once over the vector layer (vec_<isa>.h and vec_math.h).
 *
 * An <isa>.c includes its vector layer, then this file.  Channels and tokens never meet except in the sums of rmsnorm and
 * softmax, whose order the row length alone fixes; partial vectors run the same operations as whole ones. */
#ifndef FM_KERNELS_SIMD_ELEMENTWISE_H
#define FM_KERNELS_SIMD_ELEMENTWISE_H

#include <math.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/simd/vec_math.h"

/* A vector's worth of channels or less.  `whole` is a constant wherever this is made, so the choice costs nothing. */
typedef struct vlanes {
    vtail tail;
    bool whole;
} vlanes;

FM_INLINE vf lanes_load(const float *p, vlanes l)
{
    return l.whole ? vload(p) : vload_tail(p, l.tail);
}

FM_INLINE void lanes_store(float *p, vf a, vlanes l)
{
    if (l.whole)
        vstore(p, a);
    else
        vstore_tail(p, a, l.tail);
}

FM_INLINE vlanes lanes_all(void)
{
    return (vlanes){.tail = vtail_of(0), .whole = true};
}
FM_INLINE vlanes lanes_first(size_t n)
{
    return (vlanes){.tail = vtail_of(n), .whole = false};
}

/* rmsnorm ------------------------------------------------------------------------------------------------------------------ */

/* In double, in an order fixed by d alone. */
static double squares_sum(const float *x, size_t d)
{
    vsquares even = vsquares_zero(), odd = vsquares_zero();
    size_t i = 0;
    for (; i + 2 * VLEN <= d; i += 2 * VLEN) {
        even = vsquares_add(even, vload(x + i));
        odd = vsquares_add(odd, vload(x + i + VLEN));
    }
    for (; i + VLEN <= d; i += VLEN) even = vsquares_add(even, vload(x + i));
    if (i < d) odd = vsquares_add(odd, vload_tail(x + i, vtail_of(d - i)));
    return vsquares_sum(even) + vsquares_sum(odd);
}

static float norm_scale(const float *x, size_t d, float eps)
{
    const double mean = squares_sum(x, d) / (double)d;
    return (float)(1.0 / sqrt(mean + (double)eps));
}

FM_INLINE void norm_lanes(float *out, const float *x, const float *w, vf scale, vlanes l)
{
    vf v = vmul(lanes_load(x, l), scale);
    if (w) v = vmul(v, lanes_load(w, l));
    lanes_store(out, v, l);
}

static void simd_rmsnorm(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const float *w,
                         size_t n, size_t d, float eps)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *row = x + r * x_stride;
        float *o = out + r * out_stride;
        const vf scale = vset(norm_scale(row, d, eps));
        size_t i = 0;
        for (; i + VLEN <= d; i += VLEN) norm_lanes(o + i, row + i, w ? w + i : NULL, scale, lanes_all());
        if (i < d) norm_lanes(o + i, row + i, w ? w + i : NULL, scale, lanes_first(d - i));
    }
}

/* conv_silu ---------------------------------------------------------------------------------------------------------------- */

enum { CONV_USUAL = 4 };      /* the d_conv whose weights and window stay in registers */
enum { CONV_VECTORS = 4 };    /* otherwise: vectors of channels that share a walk over the window */
enum { CONV_CHANNELS = 512 }; /* and channels whose window stays in the first cache until it is carried on */
enum { CONV_SIDE = 2 };       /* tokens side by side */
enum { CONV_TOKENS = 8 };     /* rows of x and of out that are walked side by side; fewer are not worth the walk */

/* The row of the input that weight k meets at token t: one of this step, or a carried one. */
FM_INLINE const float *conv_row(const fm_conv_args *a, size_t seq, size_t t, size_t k)
{
    const size_t past = a->d_conv - 1;
    if (t + k < past) return fm_state_of(&a->state, seq) + (t + k) * a->d_inner;
    return a->x + (a->ragged->begin[seq] + t + k - past) * a->x_stride;
}

FM_INLINE void conv_lanes(const fm_conv_args *a, size_t seq, size_t t, size_t c, int n_vectors, vlanes l)
{
    vf sum[CONV_VECTORS];
    for (int v = 0; v < n_vectors; v++) sum[v] = a->bias ? lanes_load(a->bias + c + v * VLEN, l) : vset(0.0f);
    for (size_t k = 0; k < a->d_conv; k++) {
        const float *w = a->w + k * a->d_inner + c, *x = conv_row(a, seq, t, k) + c;
        for (int v = 0; v < n_vectors; v++) sum[v] = vfma(lanes_load(w + v * VLEN, l), lanes_load(x + v * VLEN, l), sum[v]);
    }
    float *out = a->out + (a->ragged->begin[seq] + t) * a->out_stride + c;
    for (int v = 0; v < n_vectors; v++) lanes_store(out + v * VLEN, vsilu(sum[v]), l);
}

static void conv_token(const fm_conv_args *a, size_t seq, size_t t, size_t begin, size_t end)
{
    size_t c = begin;
    for (; c + CONV_VECTORS * VLEN <= end; c += CONV_VECTORS * VLEN) conv_lanes(a, seq, t, c, CONV_VECTORS, lanes_all());
    for (; c + VLEN <= end; c += VLEN) conv_lanes(a, seq, t, c, 1, lanes_all());
    if (c < end) conv_lanes(a, seq, t, c, 1, lanes_first(end - c));
}

/* The n tokens behind a window, whose inputs are in its last places; then the window moves on. */
FM_INLINE void conv_step(float *out, size_t out_stride, vf *window, const vf *w, vf bias, int n, vlanes l)
{
    vf sum[VSIDE];
    UNROLL for (int i = 0; i < n; i++) sum[i] = bias;
    UNROLL for (int k = 0; k < CONV_USUAL; k++) UNROLL for (int i = 0; i < n; i++) sum[i] = vfma(w[k], window[k + i], sum[i]);
    vsilu_side(sum, n);
    UNROLL for (int i = 0; i < n; i++) lanes_store(out + (size_t)i * out_stride, sum[i], l);
    UNROLL for (int k = 0; k + 1 < CONV_USUAL; k++) window[k] = window[k + n];
}

/* d_conv = CONV_USUAL, some tokens from t on: each input is loaded once and moves along the window. */
FM_INLINE void conv_walk(const fm_conv_args *a, size_t seq, size_t t, size_t n_tokens, size_t c, vlanes l)
{
    const float *x = conv_row(a, seq, t, CONV_USUAL - 1) + c;
    float *out = a->out + (a->ragged->begin[seq] + t) * a->out_stride + c;
    const vf bias = a->bias ? lanes_load(a->bias + c, l) : vset(0.0f);
    vf w[CONV_USUAL], window[CONV_USUAL - 1 + CONV_SIDE];
    size_t i = 0;
    for (size_t k = 0; k < CONV_USUAL; k++) w[k] = lanes_load(a->w + k * a->d_inner + c, l);
    for (size_t k = 0; k + 1 < CONV_USUAL; k++) window[k] = lanes_load(conv_row(a, seq, t, k) + c, l);
    for (; i + CONV_SIDE <= n_tokens; i += CONV_SIDE) {
        UNROLL for (size_t j = 0; j < CONV_SIDE; j++) window[CONV_USUAL - 1 + j] = lanes_load(x + (i + j) * a->x_stride, l);
        conv_step(out + i * a->out_stride, a->out_stride, window, w, bias, CONV_SIDE, l);
    }
    for (; i < n_tokens; i++) {
        window[CONV_USUAL - 1] = lanes_load(x + i * a->x_stride, l);
        conv_step(out + i * a->out_stride, a->out_stride, window, w, bias, 1, l);
    }
}

static void conv_tokens(const fm_conv_args *a, size_t seq, size_t t, size_t n_tokens, size_t begin, size_t end)
{
    size_t c = begin;
    for (; c + VLEN <= end; c += VLEN) conv_walk(a, seq, t, n_tokens, c, lanes_all());
    if (c < end) conv_walk(a, seq, t, n_tokens, c, lanes_first(end - c));
}

static void conv_channels(const fm_conv_args *a, size_t seq, bool walk, size_t begin, size_t end)
{
    const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
    for (size_t t = 0; t < n_tokens; t += walk ? CONV_TOKENS : 1) {
        if (walk)
            conv_tokens(a, seq, t, n_tokens - t < CONV_TOKENS ? n_tokens - t : CONV_TOKENS, begin, end);
        else
            conv_token(a, seq, t, begin, end);
    }
    /* Each row comes from a later place than it goes to, so ascending order is safe in place. */
    for (size_t i = 0; !a->hold && n_tokens > 0 && i + 1 < a->d_conv; i++)
        memcpy(fm_state_of(&a->state, seq) + i * a->d_inner + begin, conv_row(a, seq, n_tokens, i) + begin,
               (end - begin) * sizeof(float));
}

static void conv_sequence(const fm_conv_args *a, size_t seq, size_t begin, size_t end)
{
    const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
    const bool walk = a->d_conv == CONV_USUAL && n_tokens >= CONV_TOKENS;
    const size_t step = walk ? end - begin : CONV_CHANNELS;
    for (size_t c = begin; c < end; c += step) conv_channels(a, seq, walk, c, end - c < step ? end : c + step);
}

static void simd_conv_silu(const fm_run *run, const fm_conv_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    if (begin == end) return;
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) conv_sequence(a, seq, begin, end);
}

/* scan --------------------------------------------------------------------------------------------------------------------- */

/* Work goes in blocks of at most SCAN_BLOCK channel-tokens, in three passes: what depends on dt and u, the states, what makes y
 * of their sum.  No pass waits for another's chain, and what passes between them stays in the first cache.  A block takes all the
 * tokens of a sequence up to SCAN_TOKENS and as many channels as then fit: each row of h and A is walked once a block and in one
 * long run, so a lone token, whose states come from memory, goes at memory's speed. */
enum { SCAN_TOKENS = 16, SCAN_BLOCK = SCAN_TOKENS * FM_CHANNEL_GRANULE };
enum { SCAN_STATES = VREGISTERS / 8 }; /* states walked together: less of delta2, du and y is loaded and stored */
enum { SCAN_SIDE = 2 };                /* vectors of inputs, and of outputs, side by side */
enum { SCAN_GROUP = 2048 };            /* channels whose states wait in the second cache for the next block of tokens */

typedef struct scan_block {
    size_t c, width; /* channels c .. c + width - 1 */
    size_t row, n_rows;
    float *h;
    size_t h_stride; /* from one state to the next */
    bool hold;
    float delta2[SCAN_BLOCK] __attribute__((aligned(64))); /* delta log2 e, so that the decay is 2^(delta2 A) */
    float du[SCAN_BLOCK] __attribute__((aligned(64)));     /* all of these (n_rows, width) */
    float u[SCAN_BLOCK] __attribute__((aligned(64)));
    float y[SCAN_BLOCK] __attribute__((aligned(64)));
    float most[SCAN_BLOCK] __attribute__((aligned(64))); /* (width): the largest delta2 of a channel */
} scan_block;

FM_INLINE void scan_input(const fm_scan_args *a, scan_block *b, size_t t, size_t i, int n, vlanes l)
{
    const size_t row = b->row + t, c = b->c + i, at = t * b->width + i;
    const float *dt = a->dt + row * a->dt_stride + c, *in = a->u + row * a->u_stride + c;
    vf delta[VSIDE];
    UNROLL for (int v = 0; v < n; v++) delta[v] = lanes_load(dt + v * VLEN, l);
    if (a->dt_bias) UNROLL for (int v = 0; v < n; v++) delta[v] = vadd(delta[v], lanes_load(a->dt_bias + c + v * VLEN, l));
    vsoftplus_side(delta, n);
    UNROLL for (int v = 0; v < n; v++)
    {
        const vf delta2 = vmul(delta[v], vset(VLOG2E)), u = lanes_load(in + v * VLEN, l);
        float *most = b->most + i + v * VLEN;
        lanes_store(b->delta2 + at + v * VLEN, delta2, l);
        if (VNEAR_FASTER) lanes_store(most, t == 0 ? delta2 : vmax(lanes_load(most, l), delta2), l);
        lanes_store(b->du + at + v * VLEN, vmul(delta[v], u), l);
        lanes_store(b->u + at + v * VLEN, u, l);
        lanes_store(b->y + at + v * VLEN, vset(0.0f), l);
    }
}

static void scan_inputs(const fm_scan_args *a, scan_block *b)
{
    for (size_t t = 0; t < b->n_rows; t++) {
        size_t i = 0;
        for (; i + SCAN_SIDE * VLEN <= b->width; i += SCAN_SIDE * VLEN) scan_input(a, b, t, i, SCAN_SIDE, lanes_all());
        for (; i + VLEN <= b->width; i += VLEN) scan_input(a, b, t, i, 1, lanes_all());
        if (i < b->width) scan_input(a, b, t, i, 1, lanes_first(b->width - i));
    }
}

/* What scan_lanes() has in registers: vectors of states of the same channels. */
typedef struct scan_state {
    vf h[SCAN_STATES], A[SCAN_STATES];
} scan_state;

/* Takes n_states vectors over the n_rows tokens of the block.  near: no exponent leaves VNEAR. */
FM_INLINE void scan_walk(const fm_scan_args *a, scan_block *b, scan_state *s, size_t n, int n_states, size_t n_rows, size_t i,
                         vlanes l, bool near)
{
    const size_t width = b->width, bc_stride = a->bc_stride;
    const float *B = a->B + b->row * bc_stride + n, *C = (a->y ? a->C : a->B) + b->row * bc_stride + n;
    for (size_t t = 0, at = i; t < n_rows; t++, at += width, B += bc_stride, C += bc_stride) {
        const vf delta2 = lanes_load(b->delta2 + at, l), du = lanes_load(b->du + at, l);
        vf decay[SCAN_STATES], y = lanes_load(b->y + at, l);
        UNROLL for (int k = 0; k < n_states; k++) decay[k] = vmul(delta2, s->A[k]);
        if (near) vexp2_near(decay, n_states);
        UNROLL for (int k = 0; k < n_states; k++)
        {
            s->h[k] = vfma(near ? decay[k] : vexp2(decay[k]), s->h[k], vmul(du, vset(B[k])));
            y = vfma(vset(C[k]), s->h[k], y);
        }
        lanes_store(b->y + at, y, l);
    }
}

/* A function of its own, so that the constants of both walks do not push one another out of registers. */
__attribute__((noinline)) static void scan_walk_near(const fm_scan_args *a, scan_block *b, scan_state *s, size_t n,
                                                     size_t n_rows, size_t i)
{
    scan_state in = *s;
    scan_walk(a, b, &in, n, SCAN_STATES, n_rows, i, lanes_all(), true);
    *s = in;
}

/* Whether no exponent of these channels leaves VNEAR; a NaN does. */
FM_INLINE bool scan_near(const scan_block *b, const scan_state *s, int n_states, size_t i, vlanes l)
{
    const vf most = lanes_load(b->most + i, l);
    bool near = true;
    for (int k = 0; k < n_states; k++) near &= vall_le(vmul(most, vabs(s->A[k])), vset(VNEAR));
    return near;
}

/* n_states of a vector of channels over the n_rows tokens of the block.  Without y there is no C either, and what
 * stands in its place is not used. */
FM_INLINE void scan_lanes(const fm_scan_args *a, scan_block *b, size_t n, int n_states, size_t n_rows, size_t i, vlanes l)
{
    const float *A_in = a->A + n * a->d_inner + b->c + i;
    float *h = b->h + n * b->h_stride + i;
    scan_state s;
    for (int k = 0; k < n_states; k++) {
        s.h[k] = lanes_load(h + (size_t)k * b->h_stride, l);
        s.A[k] = lanes_load(A_in + (size_t)k * a->d_inner, l);
    }
    if (VNEAR_FASTER && l.whole && n_states == SCAN_STATES && n_rows > 1 && scan_near(b, &s, n_states, i, l))
        scan_walk_near(a, b, &s, n, n_rows, i);
    else
        scan_walk(a, b, &s, n, n_states, n_rows, i, l, false);
    if (b->hold) return;
    for (int k = 0; k < n_states; k++) lanes_store(h + (size_t)k * b->h_stride, s.h[k], l);
}

FM_INLINE void scan_states(const fm_scan_args *a, scan_block *b, size_t n, int n_states, size_t n_rows)
{
    size_t i = 0;
    for (; i + VLEN <= b->width; i += VLEN) scan_lanes(a, b, n, n_states, n_rows, i, lanes_all());
    if (i < b->width) scan_lanes(a, b, n, n_states, n_rows, i, lanes_first(b->width - i));
}

/* The skip term and the gate. */
FM_INLINE void scan_output(const fm_scan_args *a, const scan_block *b, size_t t, size_t i, int n, vlanes l)
{
    const size_t row = b->row + t, c = b->c + i;
    const float *u = b->u + t * b->width + i, *sum = b->y + t * b->width + i, *skip = a->skip + c;
    vf y[VSIDE], gate[VSIDE];
    UNROLL for (int v = 0, j = 0; v < n; v++, j += VLEN) y[v] =
        vfma(lanes_load(skip + j, l), lanes_load(u + j, l), lanes_load(sum + j, l));
    if (a->z) {
        UNROLL for (int v = 0; v < n; v++) gate[v] = lanes_load(a->z + row * a->z_stride + c + v * VLEN, l);
        vsilu_side(gate, n);
        UNROLL for (int v = 0; v < n; v++) y[v] = vmul(y[v], gate[v]);
    }
    UNROLL for (int v = 0; v < n; v++) lanes_store(a->y + row * a->y_stride + c + v * VLEN, y[v], l);
}

static void scan_outputs(const fm_scan_args *a, const scan_block *b)
{
    for (size_t t = 0; t < b->n_rows; t++) {
        size_t i = 0;
        for (; i + SCAN_SIDE * VLEN <= b->width; i += SCAN_SIDE * VLEN) scan_output(a, b, t, i, SCAN_SIDE, lanes_all());
        for (; i + VLEN <= b->width; i += VLEN) scan_output(a, b, t, i, 1, lanes_all());
        if (i < b->width) scan_output(a, b, t, i, 1, lanes_first(b->width - i));
    }
}

/* The rows of the next block are short runs far apart, which the processor does not see coming.  Into the second cache: they may
 * all fall on the same lines of the first. */
static void scan_prefetch(const fm_scan_args *a, const scan_block *b)
{
    const size_t begin = b->c + b->width, left = a->d_inner - begin, end = begin + (left < b->width ? left : b->width);
    for (size_t row = b->row; row < b->row + b->n_rows; row++) {
        for (size_t c = begin; c < end; c += 16) {
            __builtin_prefetch(a->u + row * a->u_stride + c, 0, 2);
            __builtin_prefetch(a->dt + row * a->dt_stride + c, 0, 2);
            if (a->y && a->z) __builtin_prefetch(a->z + row * a->z_stride + c, 0, 2);
        }
    }
}

static void scan_lone(const fm_scan_args *a, scan_block *b)
{
    size_t n = 0;
    for (; n + SCAN_STATES <= a->d_state; n += SCAN_STATES) scan_states(a, b, n, SCAN_STATES, 1);
    for (; n < a->d_state; n++) scan_states(a, b, n, 1, 1);
}

static void scan_several(const fm_scan_args *a, scan_block *b)
{
    size_t n = 0;
    for (; n + SCAN_STATES <= a->d_state; n += SCAN_STATES) scan_states(a, b, n, SCAN_STATES, b->n_rows);
    for (; n < a->d_state; n++) scan_states(a, b, n, 1, b->n_rows);
}

static void scan_run(const fm_scan_args *a, scan_block *b)
{
    scan_inputs(a, b);
    if (b->n_rows == 1) {
        scan_lone(a, b);
    } else {
        scan_prefetch(a, b);
        scan_several(a, b);
    }
    if (a->y) scan_outputs(a, b);
}

/* Channels begin .. end - 1 of a sequence. */
static void scan_channels(const fm_scan_args *a, size_t seq, size_t begin, size_t end)
{
    const size_t first = a->ragged->begin[seq], last = a->ragged->begin[seq + 1];
    scan_block b;
    for (size_t row = first; row < last; row += b.n_rows) {
        b.row = row;
        b.n_rows = last - row < SCAN_TOKENS ? last - row : SCAN_TOKENS;
        const size_t width = SCAN_BLOCK / b.n_rows / 16 * 16;
        for (b.c = begin; b.c < end; b.c += b.width) {
            b.width = end - b.c < width ? end - b.c : width;
            b.h = fm_state_of(&a->h, seq) + b.c;
            b.h_stride = a->d_inner;
            b.hold = a->hold;
            scan_run(a, &b);
        }
    }
}

/* Longer than a block and to be left as it was: on a copy of the states of a few channels at a time. */
static void scan_channels_held(const fm_scan_args *a, size_t seq, size_t begin, size_t end)
{
    enum { WIDTH = 16 };
    float h[FM_D_STATE_MAX * WIDTH] __attribute__((aligned(64)));
    const size_t first = a->ragged->begin[seq], last = a->ragged->begin[seq + 1];
    scan_block b = {.h = h, .h_stride = WIDTH};
    for (b.c = begin; b.c < end; b.c += b.width) {
        b.width = end - b.c < WIDTH ? end - b.c : WIDTH;
        for (size_t n = 0; n < a->d_state; n++)
            memcpy(h + n * WIDTH, fm_state_of(&a->h, seq) + n * a->d_inner + b.c, b.width * sizeof *h);
        for (b.row = first; b.row < last; b.row += b.n_rows) {
            b.n_rows = last - b.row < SCAN_TOKENS ? last - b.row : SCAN_TOKENS;
            scan_run(a, &b);
        }
    }
}

static void simd_scan(const fm_run *run, const fm_scan_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        const bool copied = a->hold && a->ragged->begin[seq + 1] - a->ragged->begin[seq] > SCAN_TOKENS;
        for (size_t c = begin; c < end; c += SCAN_GROUP) {
            const size_t to = end - c < SCAN_GROUP ? end : c + SCAN_GROUP;
            if (copied)
                scan_channels_held(a, seq, c, to);
            else
                scan_channels(a, seq, c, to);
        }
    }
}

/* softmax ------------------------------------------------------------------------------------------------------------------ */

static float softmax_max(const float *x, size_t d)
{
    const vf low = vset(-INFINITY);
    vf max = low;
    size_t i = 0;
    for (; i + VLEN <= d; i += VLEN) max = vmax(max, vload(x + i));
    if (i < d) {
        const vtail tail = vtail_of(d - i);
        max = vmax(max, vtail_select(tail, vload_tail(x + i, tail), low));
    }
    return vmax_lane(max);
}

/* out may be NULL: the sum alone. */
static float softmax_exp(float *out, const float *x, size_t d, float max)
{
    const vf top = vset(max);
    vf sum = vset(0.0f);
    size_t i = 0;
    for (; i + VLEN <= d; i += VLEN) {
        const vf e = vexp(vsub(vload(x + i), top));
        if (out) vstore(out + i, e);
        sum = vadd(sum, e);
    }
    if (i < d) {
        const vtail tail = vtail_of(d - i);
        const vf e = vexp(vsub(vload_tail(x + i, tail), top));
        if (out) vstore_tail(out + i, e, tail);
        sum = vadd(sum, vtail_select(tail, e, vset(0.0f)));
    }
    return vsum(sum);
}

static void softmax_divide(float *out, size_t d, float sum)
{
    const vf by = vset(sum);
    size_t i = 0;
    for (; i + VLEN <= d; i += VLEN) vstore(out + i, vdiv(vload(out + i), by));
    if (i < d) vstore_tail(out + i, vdiv(vload_tail(out + i, vtail_of(d - i)), by), vtail_of(d - i));
}

static void simd_softmax(const fm_run *run, float *out, float *lse, const float *x, size_t x_stride, size_t n, size_t d)
{
    size_t begin, end;
    fm_run_range(run, n, 1, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const float *row = x + r * x_stride;
        float *o = out ? out + r * d : NULL;
        const float max = softmax_max(row, d);
        const float sum = softmax_exp(o, row, d, max);
        if (lse) lse[r] = max + logf(sum);
        if (o) softmax_divide(o, d, sum);
    }
}

FM_INLINE void fill_elementwise(fm_kernels *k, const char *name)
{
    k->name = name;
    k->rmsnorm = simd_rmsnorm;
    k->conv_silu = simd_conv_silu;
    k->scan = simd_scan;
    k->softmax = simd_softmax;
}

#endif
