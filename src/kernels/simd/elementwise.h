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

static void simd_conv_silu(const fm_run *run, const fm_conv_args *a)
{
    size_t begin, end;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    if (begin == end) return;
    for (size_t seq = 0; seq < a->ragged->n_seq; seq++) {
        const size_t n_tokens = a->ragged->begin[seq + 1] - a->ragged->begin[seq];
        for (size_t t = 0; t < n_tokens; t++) conv_token(a, seq, t, begin, end);
        /* Each row comes from a later place than it goes to, so ascending order is safe in place. */
        for (size_t i = 0; !a->hold && n_tokens > 0 && i + 1 < a->d_conv; i++)
            memcpy(a->state[seq] + i * a->d_inner + begin, conv_row(a, seq, n_tokens, i) + begin,
                   (end - begin) * sizeof(float));
    }
}

/* scan --------------------------------------------------------------------------------------------------------------------- */

/* Work goes in blocks of SCAN_BLOCK channel-tokens, in three passes: what depends on dt and u, the states, what makes y of their
 * sum.  No pass waits for another's chain, and what passes between them stays in the first cache.  Several tokens of a sequence
 * make blocks of SCAN_WIDTH channels by SCAN_TOKENS tokens; a lone token is memory's business and goes along whole rows. */
enum { SCAN_WIDTH = FM_CHANNEL_GRANULE, SCAN_TOKENS = 16, SCAN_BLOCK = SCAN_WIDTH * SCAN_TOKENS };
enum { SCAN_NEAR = 64 }; /* states of a tile that are copied to the stack; more are worked on where they are */

typedef struct scan_block {
    float delta2[SCAN_BLOCK] __attribute__((aligned(64))); /* delta log2 e, so that the decay is 2^(delta2 A) */
    float du[SCAN_BLOCK] __attribute__((aligned(64)));
    float u[SCAN_BLOCK] __attribute__((aligned(64)));
    float y[SCAN_BLOCK] __attribute__((aligned(64)));
} scan_block;

/* Channels c to c + width - 1, and where their states and A are. */
typedef struct scan_tile {
    size_t c, width;
    float *h;
    const float *A;
    size_t h_stride, A_stride; /* from one state to the next */
} scan_tile;

FM_INLINE void scan_input(const fm_scan_args *a, size_t row, size_t c, scan_block *b, size_t at, vlanes l)
{
    vf dt = lanes_load(a->dt + row * a->dt_stride + c, l);
    if (a->dt_bias) dt = vadd(dt, lanes_load(a->dt_bias + c, l));
    const vf delta = vsoftplus(dt), u = lanes_load(a->u + row * a->u_stride + c, l);
    lanes_store(b->delta2 + at, vmul(delta, vset(VLOG2E)), l);
    lanes_store(b->du + at, vmul(delta, u), l);
    lanes_store(b->u + at, u, l);
    lanes_store(b->y + at, vset(0.0f), l);
}

FM_INLINE void scan_inputs(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile, scan_block *b)
{
    for (size_t t = 0; t < n_rows; t++) {
        const size_t at = t * tile->width;
        size_t i = 0;
        for (; i + VLEN <= tile->width; i += VLEN) scan_input(a, row + t, tile->c + i, b, at + i, lanes_all());
        if (i < tile->width) scan_input(a, row + t, tile->c + i, b, at + i, lanes_first(tile->width - i));
    }
}

/* One state of a vector of channels over one token. */
FM_INLINE vf scan_step(vf h, vf A, vf delta2, vf du, vf B)
{
    return vfma(vexp2(vmul(delta2, A)), h, vmul(du, B));
}

FM_INLINE void scan_state(float *h, const float *A, scan_block *b, size_t at, vf B, vf C, vlanes l)
{
    const vf next = scan_step(lanes_load(h, l), lanes_load(A, l), lanes_load(b->delta2 + at, l), lanes_load(b->du + at, l), B);
    lanes_store(h, next, l);
    lanes_store(b->y + at, vfma(C, next, lanes_load(b->y + at, l)), l);
}

/* The states of any tile, row by row of h. */
static void scan_states(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile, scan_block *b)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *B = a->B + (row + t) * a->bc_stride, *C = a->y ? a->C + (row + t) * a->bc_stride : B;
        for (size_t n = 0; n < a->d_state; n++) {
            float *h = tile->h + n * tile->h_stride;
            const float *A = tile->A + n * tile->A_stride;
            const vf Bn = vset(B[n]), Cn = vset(C[n]);
            const size_t at = t * tile->width;
            size_t i = 0;
            for (; i + VLEN <= tile->width; i += VLEN) scan_state(h + i, A + i, b, at + i, Bn, Cn, lanes_all());
            if (i < tile->width) scan_state(h + i, A + i, b, at + i, Bn, Cn, lanes_first(tile->width - i));
        }
    }
}

enum { SCAN_HELD = 16 }; /* states that scan_states_held keeps in registers */

/* The same for SCAN_HELD states of one vector of channels, which stay in registers from token to token. */
FM_INLINE void scan_states_held(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile, scan_block *b,
                                size_t i)
{
    vf h[SCAN_HELD];
#pragma GCC unroll 16
    for (size_t n = 0; n < SCAN_HELD; n++) h[n] = vload(tile->h + n * SCAN_WIDTH + i);
    for (size_t t = 0; t < n_rows; t++) {
        const float *B = a->B + (row + t) * a->bc_stride, *C = a->y ? a->C + (row + t) * a->bc_stride : B;
        const size_t at = t * SCAN_WIDTH + i;
        const vf delta2 = vload(b->delta2 + at), du = vload(b->du + at);
        vf y = vset(0.0f);
#pragma GCC unroll 16
        for (size_t n = 0; n < SCAN_HELD; n++) {
            h[n] = scan_step(h[n], vload(tile->A + n * SCAN_WIDTH + i), delta2, du, vset(B[n]));
            y = vfma(vset(C[n]), h[n], y);
        }
        vstore(b->y + at, y);
    }
#pragma GCC unroll 16
    for (size_t n = 0; n < SCAN_HELD; n++) vstore(tile->h + n * SCAN_WIDTH + i, h[n]);
}

/* The skip term and the gate. */
FM_INLINE void scan_output(const fm_scan_args *a, size_t row, size_t c, const scan_block *b, size_t at, vlanes l)
{
    vf y = vfma(lanes_load(a->skip + c, l), lanes_load(b->u + at, l), lanes_load(b->y + at, l));
    if (a->z) y = vmul(y, vsilu(lanes_load(a->z + row * a->z_stride + c, l)));
    lanes_store(a->y + row * a->y_stride + c, y, l);
}

FM_INLINE void scan_outputs(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile, const scan_block *b)
{
    for (size_t t = 0; t < n_rows; t++) {
        const size_t at = t * tile->width;
        size_t i = 0;
        for (; i + VLEN <= tile->width; i += VLEN) scan_output(a, row + t, tile->c + i, b, at + i, lanes_all());
        if (i < tile->width) scan_output(a, row + t, tile->c + i, b, at + i, lanes_first(tile->width - i));
    }
}

/* Rows that lie a power of two apart fight for the same lines of the cache and nothing sees the next coming. */
FM_INLINE void scan_prefetch(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile)
{
    for (size_t r = row; r < row + n_rows; r++) {
        for (size_t c = tile->c; c < tile->c + tile->width; c += 16) {
            __builtin_prefetch(a->u + r * a->u_stride + c);
            __builtin_prefetch(a->dt + r * a->dt_stride + c);
            if (a->y && a->z) __builtin_prefetch(a->z + r * a->z_stride + c);
        }
    }
}

static void scan_rows(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *tile)
{
    scan_block b;
    const size_t step = tile->width <= SCAN_WIDTH ? SCAN_TOKENS : 1;
    const bool held = VREGISTERS == 32 && a->d_state == SCAN_HELD && tile->width == SCAN_WIDTH && tile->h_stride == SCAN_WIDTH;
    for (size_t t = 0; t < n_rows; t += step) {
        const size_t n = n_rows - t < step ? n_rows - t : step, left = n_rows - t - n;
        scan_inputs(a, row + t, n, tile, &b);
        scan_prefetch(a, row + t + n, left < step ? left : step, tile);
        for (size_t i = 0; held && i < SCAN_WIDTH; i += VLEN) scan_states_held(a, row + t, n, tile, &b, i);
        if (!held) scan_states(a, row + t, n, tile, &b);
        if (a->y) scan_outputs(a, row + t, n, tile, &b);
    }
}

static void scan_copy(float *to, size_t to_stride, const float *from, size_t from_stride, size_t n, size_t width)
{
    for (size_t i = 0; i < n; i++) memcpy(to + i * to_stride, from + i * from_stride, width * sizeof *to);
}

/* Rows of h are a power of two apart and would fight for the same lines of the cache: a tile that several tokens visit is copied
 * close together first. */
static void scan_near(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *far)
{
    float h[SCAN_NEAR * SCAN_WIDTH] __attribute__((aligned(64)));
    float A[SCAN_NEAR * SCAN_WIDTH] __attribute__((aligned(64)));
    const scan_tile near = {far->c, far->width, h, A, SCAN_WIDTH, SCAN_WIDTH};
    scan_copy(h, SCAN_WIDTH, far->h, far->h_stride, a->d_state, far->width);
    scan_copy(A, SCAN_WIDTH, far->A, far->A_stride, a->d_state, far->width);
    scan_rows(a, row, n_rows, &near);
    if (!a->hold) scan_copy(far->h, far->h_stride, h, SCAN_WIDTH, a->d_state, far->width);
}

/* More states than that, to be left as they were. */
static void scan_hold_many(const fm_scan_args *a, size_t row, size_t n_rows, const scan_tile *far)
{
    enum { WIDTH = 16 };
    float h[FM_D_STATE_MAX * WIDTH] __attribute__((aligned(64)));
    for (size_t i = 0; i < far->width; i += WIDTH) {
        const size_t width = far->width - i < WIDTH ? far->width - i : WIDTH;
        const scan_tile tile = {far->c + i, width, h, far->A + i, WIDTH, far->A_stride};
        scan_copy(h, WIDTH, far->h + i, far->h_stride, a->d_state, width);
        scan_rows(a, row, n_rows, &tile);
    }
}

static void scan_sequence(const fm_scan_args *a, size_t seq, size_t begin, size_t end)
{
    const size_t row = a->ragged->begin[seq], n_rows = a->ragged->begin[seq + 1] - row;
    const bool lone = n_rows == 1 && !a->hold;
    const size_t step = lone ? SCAN_BLOCK : SCAN_WIDTH;
    for (size_t c = begin; c < end; c += step) {
        const size_t width = end - c < step ? end - c : step;
        const scan_tile tile = {c, width, a->h[seq] + c, a->A + c, a->d_inner, a->d_inner};
        if (!lone && a->d_state <= SCAN_NEAR)
            scan_near(a, row, n_rows, &tile);
        else if (a->hold)
            scan_hold_many(a, row, n_rows, &tile);
        else
            scan_rows(a, row, n_rows, &tile);
    }
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
