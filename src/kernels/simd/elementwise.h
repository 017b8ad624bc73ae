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

FM_INLINE vf lanes_load(const float *p, vlanes l) { return l.whole ? vload(p) : vload_tail(p, l.tail); }

FM_INLINE void lanes_store(float *p, vf a, vlanes l)
{
    if (l.whole)
        vstore(p, a);
    else
        vstore_tail(p, a, l.tail);
}

FM_INLINE vlanes lanes_all(void) { return (vlanes){.tail = vtail_of(0), .whole = true}; }
FM_INLINE vlanes lanes_first(size_t n) { return (vlanes){.tail = vtail_of(n), .whole = false}; }

/* rmsnorm ------------------------------------------------------------------------------------------------------------------ */

static float norm_scale(const float *x, size_t d, float eps)
{
    vsquares even = vsquares_zero(), odd = vsquares_zero();
    size_t i = 0;
    for (; i + 2 * VLEN <= d; i += 2 * VLEN) {
        even = vsquares_add(even, vload(x + i));
        odd = vsquares_add(odd, vload(x + i + VLEN));
    }
    for (; i + VLEN <= d; i += VLEN) even = vsquares_add(even, vload(x + i));
    if (i < d) odd = vsquares_add(odd, vload_tail(x + i, vtail_of(d - i)));
    const double mean = (vsquares_sum(even) + vsquares_sum(odd)) / (double)d;
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

enum { CONV_VECTORS = 4 }; /* vectors of channels that share a walk over the window */

/* The row of the input that weight k meets at token t: one of this step, or a carried one. */
FM_INLINE const float *conv_row(const fm_conv_args *a, size_t seq, size_t t, size_t k)
{
    const size_t past = a->d_conv - 1;
    if (t + k < past) return a->state[seq] + (t + k) * a->d_inner;
    return a->x + (a->ragged->begin[seq] + t + k - past) * a->x_stride;
}

FM_INLINE void conv_lanes(const fm_conv_args *a, size_t seq, size_t t, size_t c, int n_vectors, vlanes l)
{
    vf sum[CONV_VECTORS];
    for (int v = 0; v < n_vectors; v++) sum[v] = a->bias ? lanes_load(a->bias + c + v * VLEN, l) : vset(0.0f);
    for (size_t k = 0; k < a->d_conv; k++) {
        const float *w = a->w + k * a->d_inner + c, *x = conv_row(a, seq, t, k) + c;
        for (int v = 0; v < n_vectors; v++)
            sum[v] = vfma(lanes_load(w + v * VLEN, l), lanes_load(x + v * VLEN, l), sum[v]);
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

static void simd_conv_silu(const fm_run *run, const fm_conv_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    if (begin == end) return;
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
        for (size_t t = 0; t < n_tokens; t++) conv_token(a, seq, t, begin, end);
        /* Each row comes from a later place than it goes to, so ascending order is safe in place. */
        for (size_t i = 0; n_tokens > 0 && i + 1 < a->d_conv; i++)
            memcpy(a->state[seq] + i * a->d_inner + begin, conv_row(a, seq, n_tokens, i) + begin, (end - begin) * sizeof(float));
    }
}

/* scan --------------------------------------------------------------------------------------------------------------------- */

/* Vectors of channels side by side: long enough runs of h and A for memory, few enough to keep their sums in registers. */
enum { SCAN_VECTORS = 4, SCAN_WIDTH = SCAN_VECTORS * VLEN };
enum { SCAN_STATES_MAX = 64 }; /* states of a tile that are copied to the stack; more are worked on where they are */
enum { SCAN_AHEAD = 4 };       /* tokens between a prefetch and its use */

/* A run of channels from c on: n_vectors of them, each with the lanes l; its states and A, wherever they are. */
typedef struct scan_tile {
    float *h;
    const float *A;
    size_t stride; /* from one state to the next, of h and of A */
    size_t c;
    int n_vectors;
    vlanes l;
} scan_tile;

FM_INLINE void scan_prefetch(const fm_scan_args *a, size_t row, const scan_tile *tile)
{
    for (int v = 0; v < tile->n_vectors; v++) {
        const size_t c = tile->c + (size_t)v * VLEN;
        __builtin_prefetch(a->u + row * a->u_stride + c);
        __builtin_prefetch(a->dt + row * a->dt_stride + c);
        if (a->z) __builtin_prefetch(a->z + row * a->z_stride + c);
        __builtin_prefetch(a->y + row * a->y_stride + c, 1);
    }
}

/* The skip term and the gate. */
FM_INLINE void scan_finish(const fm_scan_args *a, vf y, vf u, size_t row, size_t c, vlanes l)
{
    y = vfma(lanes_load(a->skip + c, l), u, y);
    if (a->z) y = vmul(y, vsilu(lanes_load(a->z + row * a->z_stride + c, l)));
    lanes_store(a->y + row * a->y_stride + c, y, l);
}

/* One token.  delta2 is delta log2 e, so that the decay is 2^(delta2 A). */
FM_INLINE void scan_token(const fm_scan_args *a, size_t row, const scan_tile *tile)
{
    const float *B = a->B + row * a->bc_stride, *C = a->C + row * a->bc_stride;
    vf u[SCAN_VECTORS], delta2[SCAN_VECTORS], du[SCAN_VECTORS], y[SCAN_VECTORS];
    for (int v = 0; v < tile->n_vectors; v++) {
        const size_t c = tile->c + (size_t)v * VLEN;
        vf dt = lanes_load(a->dt + row * a->dt_stride + c, tile->l);
        if (a->dt_bias) dt = vadd(dt, lanes_load(a->dt_bias + c, tile->l));
        const vf delta = vsoftplus(dt);
        u[v] = lanes_load(a->u + row * a->u_stride + c, tile->l);
        delta2[v] = vmul(delta, vset(VLOG2E));
        du[v] = vmul(delta, u[v]);
        y[v] = vset(0.0f);
    }
    for (size_t n = 0; n < a->d_state; n++) {
        const vf Bn = vset(B[n]), Cn = vset(C[n]);
        for (int v = 0; v < tile->n_vectors; v++) {
            const size_t at = n * tile->stride + (size_t)v * VLEN;
            const vf decay = vexp2(vmul(delta2[v], lanes_load(tile->A + at, tile->l)));
            const vf h = vfma(decay, lanes_load(tile->h + at, tile->l), vmul(du[v], Bn));
            lanes_store(tile->h + at, h, tile->l);
            y[v] = vfma(Cn, h, y[v]);
        }
    }
    for (int v = 0; v < tile->n_vectors; v++) scan_finish(a, y[v], u[v], row, tile->c + (size_t)v * VLEN, tile->l);
}

FM_INLINE void scan_tokens(const fm_scan_args *a, size_t seq, const scan_tile *tile)
{
    const size_t last = a->ragged->begin[seq + 1];
    for (size_t row = a->ragged->begin[seq]; row < last; row++) {
        if (row + SCAN_AHEAD < last) scan_prefetch(a, row + SCAN_AHEAD, tile);
        scan_token(a, row, tile);
    }
}

/* Rows of h are a power of two apart and would fight for the same lines of the cache: a tile that several tokens visit is copied
 * close together first. */
FM_INLINE void scan_tokens_near(const fm_scan_args *a, size_t seq, scan_tile *tile)
{
    float h[SCAN_STATES_MAX * SCAN_WIDTH] __attribute__((aligned(64)));
    float A[SCAN_STATES_MAX * SCAN_WIDTH] __attribute__((aligned(64)));
    const scan_tile far = *tile;
    tile->h = h;
    tile->A = A;
    tile->stride = SCAN_WIDTH;
    for (size_t n = 0; n < a->d_state; n++) {
        for (size_t v = 0; v < (size_t)tile->n_vectors; v++) {
            const size_t to = n * SCAN_WIDTH + v * VLEN, from = n * far.stride + v * VLEN;
            vstore(h + to, lanes_load(far.h + from, far.l));
            vstore(A + to, lanes_load(far.A + from, far.l));
        }
    }
    scan_tokens(a, seq, tile);
    for (size_t n = 0; n < a->d_state; n++)
        for (size_t v = 0; v < (size_t)tile->n_vectors; v++)
            lanes_store(far.h + n * far.stride + v * VLEN, vload(h + n * SCAN_WIDTH + v * VLEN), far.l);
}

FM_INLINE void scan_lanes(const fm_scan_args *a, size_t seq, size_t c, int n_vectors, vlanes l)
{
    scan_tile tile = {.h = a->h[seq] + c, .A = a->A + c, .stride = a->d_inner, .c = c, .n_vectors = n_vectors, .l = l};
    if (a->ragged->begin[seq + 1] - a->ragged->begin[seq] > 1 && a->d_state <= SCAN_STATES_MAX)
        scan_tokens_near(a, seq, &tile);
    else
        scan_tokens(a, seq, &tile);
}

static void scan_sequence(const fm_scan_args *a, size_t seq, size_t begin, size_t end)
{
    size_t c = begin;
    for (; c + SCAN_WIDTH <= end; c += SCAN_WIDTH) scan_lanes(a, seq, c, SCAN_VECTORS, lanes_all());
    for (; c + VLEN <= end; c += VLEN) scan_lanes(a, seq, c, 1, lanes_all());
    if (c < end) scan_lanes(a, seq, c, 1, lanes_first(end - c));
}

static void simd_scan(const fm_run *run, const fm_scan_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        if (a->ragged->begin[seq] < a->ragged->begin[seq + 1]) scan_sequence(a, seq, begin, end);
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
