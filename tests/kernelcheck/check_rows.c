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

/* The same rows as the device stores them. */
static fm_tensor stored_matrix(kc *t, const fm_tensor *raw)
{
    const size_t stored = fm_cuda_row_bytes(raw->type, raw->cols);
    void *places = kc_bytes(t, (raw->rows * stored + 255) / 256 * 256); /* ends at a page: begins at 256 bytes */
    fm_cuda_store(kc_device(), places, raw->data, raw->type, raw->rows, raw->cols);
    return (fm_tensor){places, raw->type, raw->rows, raw->cols, stored};
}

/* A table as the device stores it, by ids; every value decodes exactly. */
static void check_embed(kc *t, fm_dtype type, size_t cols)
{
    enum { ROWS = 9, N = 5 };
    static const int32_t ids[N] = {8, 0, 3, 3, 7};
    float *row = kc_floats(t, cols);
    const fm_tensor raw = kc_matrix(t, type, ROWS, cols), table = stored_matrix(t, &raw);
    rows_case c = {.k = &t->k, .out_stride = cols + 1, .n = N};
    int32_t *ours = kc_bytes(t, sizeof ids);
    memcpy(ours, ids, sizeof ids);
    c.ids = ours;
    c.out = kc_floats(t, N * c.out_stride);
    c.table = table;
    kc_parts(embed, &c, 1);
    for (size_t i = 0; i < N; i++) {
        fm_dtype_get(type)->decode(row, fm_tensor_row(&raw, (size_t)ids[i]), cols);
        for (size_t j = 0; j < cols; j++)
            kc_near(t, (double)c.out[i * c.out_stride + j], (double)row[j], 0.0, "a decoded value");
    }
    kc_release(t);
}

/* ---- Packs that come with rows: the bits of pack_x ---- */

typedef struct pack_case {
    fm_xform form;
    const size_t *begin; /* of the sequences' rows */
    size_t n_seq, d, d_state;
} pack_case;

static size_t pack_bytes(kc *t, const pack_case *c)
{
    return t->k.pack_x_bytes(c->form, c->begin[c->n_seq], c->d);
}

static void same_pack(kc *t, const pack_case *c, const void *packed, const float *rows, const char *where)
{
    const size_t n = c->begin[c->n_seq], bytes = pack_bytes(t, c);
    const char *why = NULL;
    const fm_pack_args a = {.x = rows, .x_stride = c->d, .n = n, .cols = c->d, .row_end = n, .col_end = c->d};
    fm_pack_args to = a;
    to.out = kc_bytes(t, bytes);
    to.stream = kc_device();
    t->k.pack_x[c->form](&to);
    kc_true(t, fm_stream_wait(kc_device(), &why), "packing");
    kc_same(t, packed, to.out, bytes, where);
}

static void check_norm_pack(kc *t, const pack_case *c, const float *x, const float *w)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const size_t n = c->begin[c->n_seq], d = c->d;
    void *packed = kc_bytes(t, pack_bytes(t, c));
    float *out = kc_floats(t, n * d);
    t->k.rmsnorm(&run, out, d, x, d, w, n, d, 1e-5f);
    t->k.rmsnorm_pack(&run, c->form, packed, x, d, w, n, d, 1e-5f);
    same_pack(t, c, packed, out, "rmsnorm's pack");
}

static void check_conv_pack(kc *t, const pack_case *c, const float *x, const float *w)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged r = kc_ragged(c->begin, c->n_seq);
    const size_t d = c->d;
    fm_conv_args a = {.out_stride = d, .x = x, .x_stride = d, .w = w, .ragged = &r, .d_inner = d, .d_conv = 4, .hold = true};
    a.out = kc_floats(t, r.n_tokens * d);
    a.state = (fm_states){.rows = kc_input(t, c->n_seq * 3 * d, KC_NORMAL), .stride = 3 * d};
    a.packed = kc_bytes(t, pack_bytes(t, c));
    a.form = c->form;
    t->k.conv_silu(&run, &a);
    same_pack(t, c, a.packed, a.out, "the pack of a convolution");
}

static void check_scan_pack(kc *t, const pack_case *c, const float *x, const float *w)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_ragged r = kc_ragged(c->begin, c->n_seq);
    const size_t d = c->d, n = c->d_state;
    fm_scan_args a = {.y_stride = d, .u = x, .u_stride = d, .dt = x, .dt_stride = d, .B = x, .C = x + n, .bc_stride = d};
    a.A = kc_input(t, n * d, KC_ZERO);
    a.skip = w;
    a.z = x;
    a.z_stride = d;
    a.ragged = &r;
    a.d_inner = d;
    a.d_state = n;
    a.h = (fm_states){.rows = kc_input(t, c->n_seq * n * d, KC_NORMAL), .stride = n * d};
    a.hold = true;
    a.form = c->form;
    float *y = a.y = kc_floats(t, r.n_tokens * d);
    void *packed = a.packed = kc_bytes(t, pack_bytes(t, c));
    t->k.scan(&run, &a);
    a.y = kc_floats(t, r.n_tokens * d);
    a.packed = kc_bytes(t, pack_bytes(t, c));
    a.alone = true;
    t->k.scan(&run, &a);
    same_pack(t, c, packed, y, "the pack of a scan");
    same_pack(t, c, a.packed, y, "the pack of a scan, alone");
}

static void check_packs(kc *t, const pack_case *c)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const size_t n = c->begin[c->n_seq];
    if (!t->k.packs || !t->k.packs(&run, c->form, false, NULL, n, c->d)) return;
    const float *x = kc_input(t, n * c->d, KC_SPECIAL), *w = kc_input(t, 4 * c->d, KC_NORMAL);
    check_norm_pack(t, c, x, w);
    check_conv_pack(t, c, x, w);
    check_scan_pack(t, c, x, w);
    kc_release(t);
}

static void check_all_packs(kc *t)
{
    enum { MOST = 65 };
    static const size_t few[] = {0, 17, 18, 40}, fewer[] = {0, 13, 14, 30}, counts[] = {1, 2, 8, 9, 16, 17, 33, 64, MOST};
    size_t begin[MOST + 1];
    for (size_t i = 0; i <= MOST; i++) begin[i] = i;
    for (size_t d_state = 7; d_state <= 16; d_state++) {
        check_packs(t, &(pack_case){FM_X_BF16, few, 3, 256, d_state});
        check_packs(t, &(pack_case){FM_X_BF16, begin, 40, 256, d_state});
        check_packs(t, &(pack_case){FM_X_Q8_256, few, 3, 256, d_state});
        check_packs(t, &(pack_case){FM_X_Q8_256, fewer, 3, 512, d_state});
        check_packs(t, &(pack_case){FM_X_Q8_32, fewer, 3, 512, d_state});
        check_packs(t, &(pack_case){FM_X_Q8_32, begin, 40, 256, d_state});
    }
    for (size_t i = 0; i < FM_COUNT(counts); i++) {
        check_packs(t, &(pack_case){FM_X_Q8_256, begin, counts[i], 512, 16});
        check_packs(t, &(pack_case){FM_X_Q8_256, begin, counts[i], 768, 8});
        check_packs(t, &(pack_case){FM_X_Q8_32, begin, counts[i], 512, 16});
        check_packs(t, &(pack_case){FM_X_Q8_32, begin, counts[i], 544, 8});
    }
    check_packs(t, &(pack_case){FM_X_Q8_256, begin, 3, 4352, 16});
    check_packs(t, &(pack_case){FM_X_Q8_32, begin, 3, 4128, 16});
}

/* ---- A product of rows that are to be normed, whose blocks may do that: the bits of the norm, the pack and the product ---- */

typedef struct norm_product {
    fm_tensor W;
    const float *x, *w;
    float *normed, *y[2];
    void *packed[2];
} norm_product;

static void check_norm_rows(kc *t, const norm_product *p, size_t n)
{
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_xform form = fm_xform_of(p->W.type);
    const size_t rows = p->W.rows, cols = p->W.cols;
    const float *x = p->x + n * cols;
    const char *why = NULL;
    t->k.rmsnorm_pack(&run, form, p->packed[0], x, cols, p->w, n, cols, 1e-5f);
    t->k.rmsnorm(&run, p->normed, cols, x, cols, p->w, n, cols, 1e-5f);
    t->k.pack_x[form](&(fm_pack_args){.out = p->packed[1],
                                      .x = p->normed,
                                      .x_stride = cols,
                                      .n = n,
                                      .cols = cols,
                                      .row_end = n,
                                      .col_end = cols,
                                      .stream = kc_device()});
    for (int i = 0; i < 2; i++)
        t->k.linear[p->W.type](&run,
                               &(fm_linear_args){.y = p->y[i], .y_stride = rows, .x = p->packed[i], .W = &p->W, .n = n});
    kc_true(t, fm_stream_wait(kc_device(), &why), why ? why : "a product");
    kc_same(t, p->y[0], p->y[1], n * rows * sizeof *p->y[0], "a product of rows that its blocks norm");
}

/* Steps of several numbers of tokens, other ones each, write their packs to one place. */
static void check_norm_product(kc *t, fm_dtype type, size_t rows, size_t cols)
{
    enum { N = 16 };
    static const size_t tokens[] = {1, 2, 3, 8, 9, N};
    const fm_run run = {.n_parts = 1, .stream = kc_device()};
    const fm_xform form = fm_xform_of(type);
    if (!t->k.packs || !t->k.packs(&run, form, false, NULL, N, cols)) return;
    const fm_tensor raw = kc_matrix(t, type, rows, cols);
    const size_t bytes = t->k.pack_x_bytes(form, N, cols);
    const norm_product p = {.W = stored_matrix(t, &raw),
                            .x = kc_input(t, 2 * N * cols, KC_NORMAL),
                            .w = kc_input(t, cols, KC_NORMAL),
                            .normed = kc_floats(t, N * cols),
                            .y = {kc_floats(t, N * rows), kc_floats(t, N * rows)},
                            .packed = {kc_bytes(t, bytes), kc_bytes(t, bytes)}};
    for (size_t i = 0; i < FM_COUNT(tokens); i++) check_norm_rows(t, &p, tokens[i]);
    kc_release(t);
}

static void check_norm_products(kc *t)
{
    static const fm_dtype types[] = {FM_F32, FM_F16, FM_BF16, FM_Q8_0, FM_Q4_K, FM_Q6_K, FM_INT4_G128};
    static const size_t shapes[][2] = {{1024, 4096}, {5000, 2048}, {144, 1280}, {512, 4352}, {16, 1536}};
    for (size_t i = 0; i < FM_COUNT(types); i++)
        for (size_t k = 0; k < FM_COUNT(shapes); k++) check_norm_product(t, types[i], shapes[k][0], shapes[k][1]);
}

static void check(kc *t)
{
    check_all_packs(t);
    check_norm_products(t);
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
