/* scan_back.h - gradients of the selective scan, written once over the vector layer (after elementwise.h).
 *
 * A block of FM_CHANNEL_GRANULE channels goes through a sequence twice: forward, to keep its states at the begin of each chunk of
 * BACK_CHUNK tokens; and back, chunk by chunk.  A chunk takes three passes: what depends on dt, u and the gate; for each state on
 * its own, the chunk forward and back, so that chain, sum of A and the vectors of a group stay in registers; and what becomes of
 * the sums over the states.  What passes between them stays in the first cache.  Channels beyond the last hold zeros throughout.
 *
 * The sums over channels, g_B and g_C, run over the vectors of a group, the groups of a block, and then the lanes. */
#ifndef FM_KERNELS_SIMD_SCAN_BACK_H
#define FM_KERNELS_SIMD_SCAN_BACK_H

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

enum { BACK_CHUNK = 16, BACK_WIDTH = FM_CHANNEL_GRANULE };
enum { BACK_VECTORS = VREGISTERS / 8, BACK_GROUP = BACK_VECTORS * VLEN }; /* walked together */
enum { BACK_APART = 16 }; /* floats between one array and the next: addresses that end in the same 12 bits hold each other up */

/* A block's memory; a row is BACK_WIDTH floats. */
typedef struct back_space {
    float *delta, *du, *g_y, *y, *by_b, *g_delta; /* (BACK_CHUNK rows) each: by_b is the sum of lambda B over the states */
    float *h, *decay;                             /* (BACK_CHUNK + 1 rows), (BACK_CHUNK rows) of one state */
    float *most;                                  /* (a row) the largest delta of each channel in the chunk, for back_near() */
    float *g_b, *g_c;                             /* (BACK_CHUNK, VLEN) of one state: lanes that are still to be added */
    float *A, *g_A, *carry;                       /* (d_state rows); carry: lambda of the next token times its decay */
    float *kept;                                  /* (chunks, d_state rows) */
} back_space;

static size_t back_chunks(size_t n_tokens)
{
    return (n_tokens + BACK_CHUNK - 1) / BACK_CHUNK;
}

static size_t simd_scan_back_floats(size_t n_tokens, size_t d_inner, size_t d_state)
{
    (void)d_inner; /* a block of channels after the other */
    return BACK_WIDTH * (8 * BACK_CHUNK + 2 + d_state * (3 + back_chunks(n_tokens))) + 8 * BACK_APART + 2 * BACK_CHUNK * VLEN;
}

static back_space back_place(float *p, size_t d_state)
{
    const size_t chunk = (size_t)BACK_CHUNK * BACK_WIDTH + BACK_APART, states = d_state * BACK_WIDTH;
    back_space s;
    s.delta = p;
    s.du = s.delta + chunk;
    s.g_y = s.du + chunk;
    s.y = s.g_y + chunk;
    s.by_b = s.y + chunk;
    s.g_delta = s.by_b + chunk;
    s.decay = s.g_delta + chunk;
    s.h = s.decay + chunk;
    s.most = s.h + chunk + BACK_WIDTH;
    s.g_b = s.most + BACK_WIDTH;
    s.g_c = s.g_b + BACK_CHUNK * VLEN;
    s.A = s.g_c + BACK_CHUNK * VLEN;
    s.g_A = s.A + states;
    s.carry = s.g_A + states;
    s.kept = s.carry + states;
    return s;
}

/* Channels c .. end - 1, at most BACK_WIDTH, of one sequence. */
typedef struct back_block {
    const fm_scan_back_args *a;
    back_space s;
    size_t seq, c, end;
    size_t first, n_tokens; /* the sequence's rows */
} back_block;

/* The channels of the vector that begins i channels into the block. */
FM_INLINE vlanes back_lanes(const back_block *b, size_t i)
{
    const size_t c = b->c + i;
    return c + VLEN <= b->end ? lanes_all() : lanes_first(c < b->end ? b->end - c : 0);
}

FM_INLINE vf back_raw_dt(const back_block *b, size_t row, size_t i, vlanes l)
{
    const fm_scan_back_args *a = b->a;
    const vf dt = lanes_load(a->dt + row * a->dt_stride + b->c + i, l);
    return a->dt_bias ? vadd(dt, lanes_load(a->dt_bias + b->c + i, l)) : dt;
}

/* ---- What the states need ---- */

FM_INLINE void back_input(const back_block *b, size_t row, size_t t, size_t i, vlanes l)
{
    const size_t at = t * BACK_WIDTH + i;
    const vf delta = vsoftplus(back_raw_dt(b, row + t, i, l));
    vstore(b->s.delta + at, delta);
    if (VNEAR_FASTER) vstore(b->s.most + i, t == 0 ? delta : vmax(vload(b->s.most + i), delta));
    vstore(b->s.du + at, vmul(delta, lanes_load(b->a->u + (row + t) * b->a->u_stride + b->c + i, l)));
}

FM_INLINE void back_gate(const back_block *b, size_t row, size_t t, size_t i, vlanes l)
{
    const fm_scan_back_args *a = b->a;
    const size_t at = t * BACK_WIDTH + i, c = b->c + i;
    vf g = lanes_load(a->g + (row + t) * a->g_stride + c, l);
    if (a->z) g = vmul(g, vsilu(lanes_load(a->z + (row + t) * a->z_stride + c, l)));
    vstore(b->s.g_y + at, g);
    vstore(b->s.y + at, vmul(lanes_load(a->skip + c, l), lanes_load(a->u + (row + t) * a->u_stride + c, l)));
    vstore(b->s.by_b + at, vset(0.0f));
    vstore(b->s.g_delta + at, vset(0.0f));
}

static void back_inputs(const back_block *b, size_t row, size_t n)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < BACK_WIDTH; i += VLEN) {
            if (b->c + i + VLEN <= b->end)
                back_input(b, row, t, i, lanes_all());
            else
                back_input(b, row, t, i, back_lanes(b, i));
        }
}

static void back_gates(const back_block *b, size_t row, size_t n)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < BACK_WIDTH; i += VLEN) {
            if (b->c + i + VLEN <= b->end)
                back_gate(b, row, t, i, lanes_all());
            else
                back_gate(b, row, t, i, back_lanes(b, i));
        }
}

/* ---- The states ---- */

/* Whether no exponent of state n of a group leaves VNEAR in the chunk that back_inputs() had last; a NaN does. */
FM_INLINE bool back_near(const back_block *b, size_t n, size_t i)
{
    const float *most = b->s.most + i, *A = b->s.A + n * BACK_WIDTH + i;
    bool near = VNEAR_FASTER;
    for (size_t v = 0; v < BACK_GROUP && near; v += VLEN)
        near = vall_le(vmul(vload(most + v), vabs(vmul(vload(A + v), vset(VLOG2E)))), vset(VNEAR));
    return near;
}

FM_INLINE void back_decays(vf decay[BACK_VECTORS], const float *delta, const vf A2[BACK_VECTORS], bool near)
{
    for (int v = 0; v < BACK_VECTORS; v++) decay[v] = vmul(vload(delta + v * VLEN), A2[v]);
    if (near) vexp2_near(decay, BACK_VECTORS);
    for (int v = 0; v < BACK_VECTORS && !near; v++) decay[v] = vexp2(decay[v]);
}

/* State n of a group of channels over BACK_CHUNK tokens, from one begin of a chunk to the next.  near: as back_near() says. */
FM_INLINE void back_advance(const back_block *b, float *after, const float *before, size_t row, size_t n, size_t i, bool near)
{
    const size_t bc_stride = b->a->bc_stride, at = n * BACK_WIDTH + i;
    const float *B = b->a->B + row * bc_stride + n, *delta = b->s.delta + i, *du = b->s.du + i;
    vf A2[BACK_VECTORS], h[BACK_VECTORS];
    for (int v = 0; v < BACK_VECTORS; v++) {
        A2[v] = vmul(vload(b->s.A + at + v * VLEN), vset(VLOG2E));
        h[v] = vload(before + at + v * VLEN);
    }
    for (size_t t = 0; t < BACK_CHUNK; t++, B += bc_stride, delta += BACK_WIDTH, du += BACK_WIDTH) {
        vf decay[BACK_VECTORS];
        back_decays(decay, delta, A2, near);
        for (int v = 0; v < BACK_VECTORS; v++) h[v] = vfma(decay[v], h[v], vmul(vload(du + v * VLEN), vset(*B)));
    }
    for (int v = 0; v < BACK_VECTORS; v++) vstore(after + at + v * VLEN, h[v]);
}

/* Functions of their own, as scan_walk_near(). */
__attribute__((noinline)) static void back_advance_near(const back_block *b, float *after, const float *before, size_t row,
                                                        size_t n, size_t i)
{
    back_advance(b, after, before, row, n, i, true);
}

static void back_advance_state(const back_block *b, float *after, const float *before, size_t row, size_t n)
{
    for (size_t i = 0; i < BACK_WIDTH; i += BACK_GROUP) {
        if (back_near(b, n, i))
            back_advance_near(b, after, before, row, n, i);
        else
            back_advance(b, after, before, row, n, i, false);
    }
}

/* State n of a group over n_rows tokens with everything kept, and y. */
FM_INLINE void back_replay(const back_block *b, const float *before, size_t row, size_t n_rows, size_t n, size_t i, bool near)
{
    const size_t bc_stride = b->a->bc_stride, at = n * BACK_WIDTH + i;
    const float *B = b->a->B + row * bc_stride + n, *C = b->a->C + row * bc_stride + n;
    const float *delta = b->s.delta + i, *du = b->s.du + i;
    float *decays = b->s.decay + i, *after = b->s.h + i, *y = b->s.y + i;
    vf A2[BACK_VECTORS], h[BACK_VECTORS];
    for (int v = 0; v < BACK_VECTORS; v++) {
        A2[v] = vmul(vload(b->s.A + at + v * VLEN), vset(VLOG2E));
        h[v] = vload(before + at + v * VLEN);
        vstore(after + v * VLEN, h[v]);
    }
    for (size_t t = 0; t < n_rows; t++, B += bc_stride, C += bc_stride) {
        const vf B_t = vset(*B), C_t = vset(*C);
        after += BACK_WIDTH;
        vf decay[BACK_VECTORS];
        back_decays(decay, delta, A2, near);
        for (int v = 0; v < BACK_VECTORS; v++) {
            h[v] = vfma(decay[v], h[v], vmul(vload(du + v * VLEN), B_t));
            vstore(decays + v * VLEN, decay[v]);
            vstore(after + v * VLEN, h[v]);
            vstore(y + v * VLEN, vfma(C_t, h[v], vload(y + v * VLEN)));
        }
        delta += BACK_WIDTH, du += BACK_WIDTH, decays += BACK_WIDTH, y += BACK_WIDTH;
    }
}

__attribute__((noinline)) static void back_replay_near(const back_block *b, const float *before, size_t row, size_t n_rows,
                                                       size_t n, size_t i)
{
    back_replay(b, before, row, n_rows, n, i, true);
}

/* And from the last token to the first. */
static void back_return(const back_block *b, size_t row, size_t n_rows, size_t n, size_t i)
{
    const size_t bc_stride = b->a->bc_stride, at = n * BACK_WIDTH + i, last = (n_rows - 1) * BACK_WIDTH + i;
    const float *B = b->a->B + (row + n_rows - 1) * bc_stride + n, *C = b->a->C + (row + n_rows - 1) * bc_stride + n;
    const float *delta = b->s.delta + last, *du = b->s.du + last, *g_y = b->s.g_y + last;
    const float *decay = b->s.decay + last, *h = b->s.h + last;
    float *by_b = b->s.by_b + last, *g_delta = b->s.g_delta + last, *g_b = b->s.g_b, *g_c = b->s.g_c;
    vf A[BACK_VECTORS], g_A[BACK_VECTORS], carry[BACK_VECTORS];
    for (int v = 0; v < BACK_VECTORS; v++) {
        A[v] = vload(b->s.A + at + v * VLEN);
        g_A[v] = vload(b->s.g_A + at + v * VLEN);
        carry[v] = vload(b->s.carry + at + v * VLEN);
    }
    for (size_t t = n_rows; t-- > 0; B -= bc_stride, C -= bc_stride) {
        const vf B_t = vset(*B), C_t = vset(*C);
        vf sum_b = i ? vload(g_b + t * VLEN) : vset(0.0f), sum_c = i ? vload(g_c + t * VLEN) : vset(0.0f);
        for (int v = 0; v < BACK_VECTORS; v++) {
            const vf g = vload(g_y + v * VLEN), lambda = vfma(g, C_t, carry[v]);
            carry[v] = vmul(vload(decay + v * VLEN), lambda);
            const vf past = vmul(carry[v], vload(h + v * VLEN));
            sum_b = vfma(lambda, vload(du + v * VLEN), sum_b);
            sum_c = vfma(g, vload(h + BACK_WIDTH + v * VLEN), sum_c);
            g_A[v] = vfma(past, vload(delta + v * VLEN), g_A[v]);
            vstore(by_b + v * VLEN, vfma(lambda, B_t, vload(by_b + v * VLEN)));
            vstore(g_delta + v * VLEN, vfma(past, A[v], vload(g_delta + v * VLEN)));
        }
        vstore(g_b + t * VLEN, sum_b);
        vstore(g_c + t * VLEN, sum_c);
        delta -= BACK_WIDTH, du -= BACK_WIDTH, g_y -= BACK_WIDTH, decay -= BACK_WIDTH, h -= BACK_WIDTH;
        by_b -= BACK_WIDTH, g_delta -= BACK_WIDTH;
    }
    for (int v = 0; v < BACK_VECTORS; v++) {
        vstore(b->s.g_A + at + v * VLEN, g_A[v]);
        vstore(b->s.carry + at + v * VLEN, carry[v]);
    }
}

/* State n over a chunk; g_bc is this block's part. */
static void back_state(const back_block *b, const float *before, size_t row, size_t n_rows, size_t n, float *g_bc)
{
    const size_t N = b->a->d_state;
    for (size_t i = 0; i < BACK_WIDTH; i += BACK_GROUP) {
        if (back_near(b, n, i))
            back_replay_near(b, before, row, n_rows, n, i);
        else
            back_replay(b, before, row, n_rows, n, i, false);
        back_return(b, row, n_rows, n, i);
    }
    for (size_t t = 0; t < n_rows; t++) {
        g_bc[(row + t) * 2 * N + n] = vsum(vload(b->s.g_b + t * VLEN));
        g_bc[(row + t) * 2 * N + N + n] = vsum(vload(b->s.g_c + t * VLEN));
    }
}

/* ---- What becomes of the sums ---- */

FM_INLINE void back_output(const back_block *b, size_t row, size_t n_rows, size_t i, vlanes l)
{
    const fm_scan_back_args *a = b->a;
    const size_t c = b->c + i;
    const vf skip = lanes_load(a->skip + c, l);
    vf g_skip = vset(0.0f), g_bias = vset(0.0f);
    for (size_t t = 0; t < n_rows; t++) {
        const size_t at = t * BACK_WIDTH + i, r = row + t;
        const vf u = lanes_load(a->u + r * a->u_stride + c, l), g_y = vload(b->s.g_y + at), by_b = vload(b->s.by_b + at);
        const vf slope = vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vsub(vset(0.0f), back_raw_dt(b, r, i, l)))));
        const vf g_dt = vmul(vfma(by_b, u, vload(b->s.g_delta + at)), slope);
        lanes_store(a->g_dt + r * a->g_dt_stride + c, g_dt, l);
        lanes_store(a->g_u + r * a->g_u_stride + c, vfma(g_y, skip, vmul(vload(b->s.delta + at), by_b)), l);
        g_skip = vfma(g_y, u, g_skip);
        g_bias = vadd(g_bias, g_dt);
        if (!a->z) continue;
        const vf z = lanes_load(a->z + r * a->z_stride + c, l), g = lanes_load(a->g + r * a->g_stride + c, l);
        lanes_store(a->g_z + r * a->g_z_stride + c, vmul(vmul(g, vload(b->s.y + at)), vsilu_slope(z)), l);
    }
    lanes_add(a->g_skip + c, g_skip, l);
    if (a->g_dt_bias) lanes_add(a->g_dt_bias + c, g_bias, l);
}

static void back_outputs(const back_block *b, size_t row, size_t n_rows)
{
    for (size_t i = 0; i < BACK_WIDTH && b->c + i < b->end; i += VLEN) {
        if (b->c + i + VLEN <= b->end)
            back_output(b, row, n_rows, i, lanes_all());
        else
            back_output(b, row, n_rows, i, back_lanes(b, i));
    }
}

/* ---- A block ---- */

/* The rows of the next chunk are short runs far apart, which the processor does not see coming. */
static void back_prefetch(const back_block *b, size_t row, size_t n_rows, bool all)
{
    const fm_scan_back_args *a = b->a;
    for (size_t r = row; r < row + n_rows; r++)
        for (size_t c = b->c; c < b->end; c += 16) {
            __builtin_prefetch(a->u + r * a->u_stride + c, 0, 2);
            __builtin_prefetch(a->dt + r * a->dt_stride + c, 0, 2);
            if (!all) continue;
            __builtin_prefetch(a->g + r * a->g_stride + c, 0, 2);
            if (a->z) __builtin_prefetch(a->z + r * a->z_stride + c, 0, 2);
        }
}

/* The states before the sequence, A, and the gradient that comes from after it. */
static void back_begin(const back_block *b)
{
    const fm_scan_back_args *a = b->a;
    for (size_t n = 0; n < a->d_state; n++)
        for (size_t i = 0; i < BACK_WIDTH; i += VLEN) {
            const vlanes l = back_lanes(b, i);
            const size_t at = n * BACK_WIDTH + i, from = n * a->d_inner + b->c + i;
            vstore(b->s.A + at, lanes_load(a->A + from, l));
            vstore(b->s.g_A + at, vset(0.0f));
            vstore(b->s.kept + at, fm_states_exist(&a->h) ? lanes_load(fm_state_of(&a->h, b->seq) + from, l) : vset(0.0f));
            vstore(b->s.carry + at, fm_states_exist(&a->g_h) ? lanes_load(fm_state_of(&a->g_h, b->seq) + from, l) : vset(0.0f));
        }
}

static void back_end(const back_block *b)
{
    const fm_scan_back_args *a = b->a;
    for (size_t n = 0; n < a->d_state; n++)
        for (size_t i = 0; i < BACK_WIDTH && b->c + i < b->end; i += VLEN) {
            const vlanes l = back_lanes(b, i);
            const size_t at = n * BACK_WIDTH + i, to = n * a->d_inner + b->c + i;
            lanes_add(a->g_A + to, vload(b->s.g_A + at), l);
            if (fm_states_exist(&a->g_h)) lanes_store(fm_state_of(&a->g_h, b->seq) + to, vload(b->s.carry + at), l);
        }
}

static void back_keep(const back_block *b)
{
    const size_t states = b->a->d_state * BACK_WIDTH, chunks = back_chunks(b->n_tokens);
    for (size_t chunk = 0; chunk + 1 < chunks; chunk++) {
        const size_t row = b->first + chunk * BACK_CHUNK;
        float *before = b->s.kept + chunk * states;
        back_inputs(b, row, BACK_CHUNK);
        back_prefetch(b, row + BACK_CHUNK, chunk + 2 < chunks ? BACK_CHUNK : 0, false);
        for (size_t n = 0; n < b->a->d_state; n++) back_advance_state(b, before + states, before, row, n);
    }
}

static void scan_back_block(const back_block *b, float *g_bc)
{
    back_begin(b);
    back_keep(b);
    for (size_t chunk = back_chunks(b->n_tokens); chunk-- > 0;) {
        const size_t done = chunk * BACK_CHUNK, row = b->first + done;
        const size_t n_rows = b->n_tokens - done < BACK_CHUNK ? b->n_tokens - done : BACK_CHUNK;
        const float *before = b->s.kept + chunk * b->a->d_state * BACK_WIDTH;
        back_inputs(b, row, n_rows);
        back_gates(b, row, n_rows);
        if (chunk > 0) back_prefetch(b, row - BACK_CHUNK, BACK_CHUNK, true);
        for (size_t n = 0; n < b->a->d_state; n++) back_state(b, before, row, n_rows, n, g_bc);
        back_outputs(b, row, n_rows);
    }
    back_end(b);
}

static void simd_scan_back(const fm_run *run, const fm_scan_back_args *a)
{
    size_t begin, end;
    const size_t rows = a->ragged->begin[a->ragged->n_seq], part = rows * 2 * a->d_state;
    fm_run_range(run, a->d_inner, FM_CHANNEL_GRANULE, &begin, &end);
    back_block b = {.a = a, .s = back_place(a->scratch, a->d_state)};
    for (b.c = begin; b.c < end; b.c += BACK_WIDTH) {
        b.end = end - b.c < BACK_WIDTH ? end : b.c + BACK_WIDTH;
        for (b.seq = 0; b.seq < a->ragged->n_seq; b.seq++) {
            b.first = a->ragged->begin[b.seq];
            b.n_tokens = a->ragged->begin[b.seq + 1] - b.first;
            if (b.n_tokens > 0) scan_back_block(&b, a->g_bc_parts + b.c / FM_CHANNEL_GRANULE * part);
        }
    }
}

#endif
