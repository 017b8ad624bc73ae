/* test_linear_back.c - gradients of products, biases and the embedding against central differences.  The ops are linear and all
 * numbers small integers, so differences and gradients are exact in float: they must be equal, whatever the table. */
#include "base/cpu.h"
#include "base/rng.h"
#include "ops/backward.h"
#include "unit/testing.h"

enum { N_MAX = 40, ROWS_MAX = 67, COLS_MAX = 70, PAD = 3 };

typedef struct product {
    fm_kernels k;
    fm_pool *pool;
    fm_tensor W;
    size_t n, rows, cols;
    bool add;
    _Alignas(float) unsigned char weights[ROWS_MAX * COLS_MAX * sizeof(float)];
    float w[ROWS_MAX * COLS_MAX], x[N_MAX * (COLS_MAX + PAD)], bias[ROWS_MAX], y[N_MAX * ROWS_MAX];
    float c[N_MAX * (ROWS_MAX + PAD)];                                             /* weights of y in the loss: its gradient */
    float g_x[N_MAX * (COLS_MAX + 1)], g_w[ROWS_MAX * COLS_MAX], g_bias[ROWS_MAX]; /* said to be the others */
    float *scratch;
    void *packed;
    size_t packed_bytes;
} product;

static uint64_t n_drawn;

static float draw(void)
{
    return (float)(int)(fm_rng_uniform(5, 1, n_drawn++) * 9.0) - 4.0f;
}

static void draw_all(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = draw();
}

static fm_ctx context(const product *p, unsigned part, unsigned n_parts)
{
    return (fm_ctx){.k = &p->k,
                    .pool = p->pool,
                    .run = {.part = part, .n_parts = n_parts},
                    .packed = p->packed,
                    .packed_bytes = p->packed_bytes};
}

static fm_rows x_of(product *p)
{
    return (fm_rows){.p = p->x, .n = p->n, .d = p->cols, .stride = p->cols + PAD};
}

static void forward(void *ctx, unsigned part, unsigned n_parts)
{
    product *p = ctx;
    const fm_ctx c = context(p, part, n_parts);
    fm_op_linear(&c, fm_rows_of(p->y, p->n, p->rows), fm_op_pack_rows(&c, x_of(p), &p->W), &p->W, p->bias);
}

static void backward(void *ctx, unsigned part, unsigned n_parts)
{
    product *p = ctx;
    const fm_ctx c = context(p, part, n_parts);
    const fm_rows g_y = {.p = p->c, .n = p->n, .d = p->rows, .stride = p->rows + PAD},
                  g_x = {.p = p->g_x, .n = p->n, .d = p->cols, .stride = p->cols + 1};
    fm_op_linear_back(&c, &(fm_linear_back){.g_x = g_x,
                                            .g_y = g_y,
                                            .x = x_of(p),
                                            .W = &p->W,
                                            .g_W = p->g_w,
                                            .g_bias = p->g_bias,
                                            .add = p->add,
                                            .decoded = p->scratch});
}

static void encode(product *p)
{
    const fm_dtype_traits *type = fm_dtype_get(p->W.type);
    for (size_t r = 0; r < p->rows; r++) type->encode(p->weights + r * p->W.stride, p->w + r * p->cols, NULL, p->cols);
}

static double loss(product *p)
{
    double sum = 0.0;
    encode(p);
    fm_pool_run(p->pool, forward, p);
    for (size_t t = 0; t < p->n; t++)
        for (size_t r = 0; r < p->rows; r++) sum += (double)p->c[t * (p->rows + PAD) + r] * (double)p->y[t * p->rows + r];
    return sum;
}

static float difference(product *p, float *v)
{
    const float at = *v;
    *v = at + 1.0f;
    const double above = loss(p);
    *v = at - 1.0f;
    const double below = loss(p);
    *v = at;
    return (float)((above - below) / 2.0);
}

static void product_open(product *p, fm_dtype type, unsigned threads, unsigned features)
{
    fm_error err = {0};
    fm_kernels_for(&p->k, features);
    if (fm_pool_open(&p->pool, threads, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    p->W = (fm_tensor){p->weights, type, p->rows, p->cols, p->cols * fm_dtype_get(type)->bytes};
    draw_all(p->w, p->rows * p->cols);
    draw_all(p->x, FM_COUNT(p->x));
    draw_all(p->c, FM_COUNT(p->c));
    draw_all(p->bias, p->rows);
    encode(p);
    const size_t forth = fm_op_packed_bytes(&p->k, &p->W, p->n, threads),
                 back = fm_op_linear_back_packed(&p->k, &p->W, p->n, threads);
    p->packed_bytes = forth > back ? forth : back;
    p->packed = aligned_alloc(64, (p->packed_bytes + 63) / 64 * 64);
    p->scratch = aligned_alloc(64, (fm_op_linear_back_floats(&p->W) * sizeof(float) + 63) / 64 * 64);
    assert_true(p->packed && p->scratch);
}

static void product_close(product *p)
{
    free(p->packed);
    free(p->scratch);
    fm_pool_free(p->pool);
}

/* What the gradients are added to comes off again. */
static void check_product(product *p)
{
    enum { SAMPLES = 12 };
    const float start = 8.0f;
    for (size_t i = 0; i < FM_COUNT(p->g_x); i++) p->g_x[i] = start;
    for (size_t i = 0; i < FM_COUNT(p->g_w); i++) p->g_w[i] = start;
    for (size_t i = 0; i < FM_COUNT(p->g_bias); i++) p->g_bias[i] = start;
    fm_pool_run(p->pool, backward, p);
    for (size_t k = 0; k < SAMPLES; k++) {
        const size_t t = (k * 7 + 1) % p->n, r = (k * 13 + 2) % p->rows, c = (k * 11 + p->cols - 1) % p->cols;
        assert_true(difference(p, p->x + t * (p->cols + PAD) + c) == p->g_x[t * (p->cols + 1) + c] - (p->add ? start : 0.0f));
        assert_true(difference(p, p->w + r * p->cols + c) == p->g_w[r * p->cols + c] - start);
        assert_true(difference(p, p->bias + r) == p->g_bias[r] - start);
        assert_true(p->g_x[t * (p->cols + 1) + p->cols] == start); /* beyond the row */
    }
}

static void products(void **state)
{
    (void)state;
    static const size_t sizes[][3] = {{1, 1, 1}, {1, 67, 5}, {3, 17, 33}, {17, 5, 70}, {40, 67, 16}, {16, 64, 64}};
    static const fm_dtype types[] = {FM_F32, FM_F16, FM_BF16};
    static product p;
    for (size_t i = 0; i < FM_COUNT(sizes) * FM_COUNT(types); i++) {
        const size_t *s = sizes[i / FM_COUNT(types)];
        p = (product){.n = s[0], .rows = s[1], .cols = s[2], .add = i % 2};
        product_open(&p, types[i % FM_COUNT(types)], 1 + (unsigned)i % 3, i % 4 == 3 ? 0 : fm_cpu_features());
        check_product(&p);
        product_close(&p);
    }
}

/* ---- Embedding ---- */

enum { T = 9, D = 19, VOCAB = 5 };

typedef struct lookup {
    fm_pool *pool;
    fm_kernels k;
    float table[VOCAB * D], c[T * D], g[VOCAB * D], out[T * D];
    int32_t ids[T];
} lookup;

static void look_up(void *ctx, unsigned part, unsigned n_parts)
{
    lookup *l = ctx;
    const fm_ctx c = {.k = &l->k, .pool = l->pool, .run = {.part = part, .n_parts = n_parts}};
    const fm_tensor table = {l->table, FM_F32, VOCAB, D, D * sizeof(float)};
    fm_op_embed(&c, fm_rows_of(l->out, T, D), &table, l->ids);
    fm_op_embed_back(&c, l->g, fm_rows_of(l->c, T, D), l->ids);
}

/* An id that comes several times, one that never comes. */
static void embedding(void **state)
{
    (void)state;
    static lookup l = {.ids = {0, 4, 4, 1, 0, 4, 3, 3, 4}};
    fm_error err = {0};
    fm_kernels_for(&l.k, fm_cpu_features());
    if (fm_pool_open(&l.pool, 2, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    draw_all(l.c, T * D);
    draw_all(l.table, VOCAB * D);
    fm_pool_run(l.pool, look_up, &l);
    for (size_t id = 0; id < VOCAB; id++)
        for (size_t i = 0; i < D; i++) {
            float want = 0.0f; /* the loss is linear in each entry: its slope is the sum of c where the id stands */
            for (size_t t = 0; t < T; t++) {
                if ((size_t)l.ids[t] == id) want += l.c[t * D + i];
                assert_true(l.out[t * D + i] == l.table[(size_t)l.ids[t] * D + i]);
            }
            assert_true(l.g[id * D + i] == want);
        }
    fm_pool_free(l.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(embedding)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
