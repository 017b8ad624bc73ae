/* check_rows.c - a device's movers of rows and states against the reference, to the bit, and its decays within 2 ulp. */
#include "tests/kernelcheck/kernelcheck.h"

enum { N_SEQ = 3 };

typedef struct rows_case {
    const fm_kernels *k;
    float *out;
    const float *x;
    const size_t *index;
    const int32_t *ids;
    fm_tensor table;
    size_t out_stride, x_stride, n, d;
    float *to[N_SEQ], *from[N_SEQ];
} rows_case;

static void gather(void *ctx, const fm_run *run)
{
    const rows_case *c = ctx;
    c->k->gather(run, c->out, c->out_stride, c->x, c->x_stride, c->index, c->n, c->d);
}

static void decays(void *ctx, const fm_run *run)
{
    const rows_case *c = ctx;
    c->k->decays(run, c->out, c->x, c->n);
}

static void embed(void *ctx, const fm_run *run)
{
    const rows_case *c = ctx;
    c->k->embed(run, c->out, c->out_stride, &c->table, c->ids, c->n);
}

/* From a list of places, one float on, to the rows of a matrix. */
static void copy_states(void *ctx, const fm_run *run)
{
    const rows_case *c = ctx;
    const fm_states to = {.rows = c->out, .stride = c->out_stride};
    const fm_states from = {.list = kc_list(KC_LIST_STATES, c->from, sizeof c->from), .at = 1};
    c->k->copy_states(run, &to, &from, N_SEQ, c->d);
}

static void check_gather(kc *t, size_t d)
{
    enum { N = 7 };
    static const size_t index[N] = {3, 0, 9, 9, 1, 4, 2};
    rows_case c = {.k = &t->k, .n = N, .d = d, .x_stride = d + d % 3, .out_stride = d + d % 2};
    c.x = kc_input(t, 10 * c.x_stride, KC_SPECIAL);
    size_t *ours = kc_bytes(t, sizeof index);
    memcpy(ours, index, sizeof index);
    for (int i = 0; i < 2; i++) {
        c.index = i ? ours : NULL;
        c.out = kc_floats(t, N * c.out_stride);
        rows_case ref = c;
        ref.k = &t->ref;
        ref.out = kc_floats(t, N * c.out_stride);
        kc_parts(gather, &c, 1);
        gather(&ref, &(fm_run){.n_parts = 1});
        kc_same(t, c.out, ref.out, N * c.out_stride * sizeof(float), "gathered rows");
    }
    for (size_t s = 0; s < N_SEQ; s++) c.from[s] = kc_input(t, d + 1, KC_SPECIAL);
    c.out = kc_floats(t, N_SEQ * c.out_stride);
    kc_parts(copy_states, &c, 1);
    for (size_t s = 0; s < N_SEQ; s++) kc_same(t, c.out + s * c.out_stride, c.from[s] + 1, d * sizeof(float), "copied states");
    kc_release(t);
}

static void check_decays(kc *t, size_t n)
{
    rows_case c = {.k = &t->k, .out = kc_floats(t, n), .x = kc_input(t, n, KC_NORMAL), .n = n};
    kc_parts(decays, &c, 1);
    for (size_t i = 0; i < n; i++) {
        const double want = -exp((double)c.x[i]);
        kc_near(t, (double)c.out[i], want, 2.0 * FLT_EPSILON * fabs(want), "decay");
    }
    kc_release(t);
}

/* A table as the device stores it, by ids; every value decodes exactly. */
static void check_embed(kc *t, fm_dtype type, size_t cols)
{
    enum { ROWS = 9, N = 5 };
    static const int32_t ids[N] = {8, 0, 3, 3, 7};
    size_t bytes = 0;
    kc_true(t, fm_dtype_bytes(type, 1, cols, &bytes), "whole blocks");
    float *row = kc_floats(t, cols);
    unsigned char *raw = kc_bytes(t, ROWS * bytes);
    for (size_t r = 0; r < ROWS; r++) {
        kc_fill(t, row, cols, KC_NORMAL);
        fm_dtype_get(type)->encode(raw + r * bytes, row, NULL, cols);
    }
    const size_t stored = fm_cuda_row_bytes(type, cols);
    rows_case c = {.k = &t->k, .out_stride = cols + 1, .n = N};
    void *places = kc_bytes(t, (ROWS * stored + 255) / 256 * 256); /* ends at a page: begins at 256 bytes */
    int32_t *ours = kc_bytes(t, sizeof ids);
    memcpy(ours, ids, sizeof ids);
    c.ids = ours;
    c.out = kc_floats(t, N * c.out_stride);
    c.table = (fm_tensor){places, type, ROWS, cols, stored};
    fm_cuda_store(kc_device(), places, raw, type, ROWS, cols);
    kc_parts(embed, &c, 1);
    for (size_t i = 0; i < N; i++) {
        fm_dtype_get(type)->decode(row, raw + (size_t)ids[i] * bytes, cols);
        for (size_t j = 0; j < cols; j++)
            kc_near(t, (double)c.out[i * c.out_stride + j], (double)row[j], 0.0, "a decoded value");
    }
    kc_release(t);
}

/* ---- Packs that come with rows: the bits of pack_x ---- */

enum { PACK_N = 40, PACK_D = 256 };

static void same_pack(kc *t, const void *packed, const float *rows, const char *where)
{
    void *want = kc_bytes(t, t->k.pack_x_bytes(FM_X_BF16, PACK_N, PACK_D));
    const char *why = NULL;
    t->k.pack_x[FM_X_BF16](&(fm_pack_args){.out = want,
                                           .x = rows,
                                           .x_stride = PACK_D,
                                           .n = PACK_N,
                                           .cols = PACK_D,
                                           .row_end = PACK_N,
                                           .col_end = PACK_D,
                                           .stream = kc_device()});
    kc_true(t, fm_stream_wait(kc_device(), &why), "packing");
    kc_same(t, packed, want, (size_t)2 * PACK_N * PACK_D, where);
}

static void check_packs(kc *t, const size_t *begin, size_t n_seq, size_t d_state)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged r = kc_ragged(begin, n_seq);
    const size_t N = PACK_N, D = PACK_D, bytes = 2 * N * D;
    const char *why = NULL;
    if (!t->k.packs || !t->k.packs(&run, FM_X_BF16, NULL, N, D)) return;
    const float *x = kc_input(t, N * D, KC_SPECIAL), *w = kc_input(t, 4 * D, KC_NORMAL), *A = kc_input(t, d_state * D, KC_ZERO);
    float *states = kc_input(t, n_seq * (3 + d_state) * D, KC_NORMAL), *out[3];
    void *packed[4];
    for (int i = 0; i < 3; i++) out[i] = kc_floats(t, N * D);
    for (int i = 0; i < 4; i++) packed[i] = kc_bytes(t, bytes);
    t->k.rmsnorm(&run, out[0], D, x, D, w, N, D, 1e-5f);
    t->k.rmsnorm_pack(&run, packed[0], x, D, w, N, D, 1e-5f);
    fm_conv_args conv = {
        .out = out[1], .out_stride = D, .x = x, .x_stride = D, .w = w, .ragged = &r, .d_inner = D, .d_conv = 4};
    conv.state = (fm_states){.rows = states, .stride = 3 * D};
    conv.hold = true;
    conv.packed = packed[1];
    t->k.conv_silu(&run, &conv);
    fm_scan_args scan = {
        .y = out[2], .y_stride = D, .u = x, .u_stride = D, .dt = x, .dt_stride = D, .A = A, .B = x, .C = x + d_state};
    scan.bc_stride = D;
    scan.skip = w;
    scan.z = x;
    scan.z_stride = D;
    scan.ragged = &r;
    scan.d_inner = D;
    scan.d_state = d_state;
    scan.h = (fm_states){.rows = states + n_seq * 3 * D, .stride = d_state * D};
    scan.hold = true;
    scan.packed = packed[2];
    t->k.scan(&run, &scan);
    scan.y = NULL;
    scan.packed = packed[3];
    t->k.scan(&run, &scan);
    kc_true(t, fm_stream_wait(kc_device(), &why), "kernels that pack");
    same_pack(t, packed[0], out[0], "rmsnorm's pack");
    same_pack(t, packed[1], out[1], "the pack of a convolution");
    same_pack(t, packed[2], out[2], "the pack of a scan");
    same_pack(t, packed[3], out[2], "the pack of a scan, alone");
    kc_release(t);
}

static void check_all_packs(kc *t)
{
    size_t begin[PACK_N + 1], few[] = {0, 17, 18, PACK_N};
    for (size_t i = 0; i <= PACK_N; i++) begin[i] = i;
    for (size_t d_state = 7; d_state <= 16; d_state++) {
        check_packs(t, few, 3, d_state);
        check_packs(t, begin, PACK_N, d_state);
    }
}

static void check(kc *t)
{
    check_all_packs(t);
    for (size_t i = 0; i < kc_n_sizes; i++) check_gather(t, kc_sizes[i]);
    check_decays(t, 1);
    check_decays(t, 5000);
    for (int type = 0; type < FM_DTYPE_COUNT; type++) {
        const size_t block = fm_dtype_get((fm_dtype)type)->block;
        check_embed(t, (fm_dtype)type, block == 1 ? 37 : 3 * block);
        check_embed(t, (fm_dtype)type, 512);
    }
}

const kc_op kc_op_rows = {.name = "rows", .check = check};
