/* test_bptt.c - backwards in chunks against one over all tokens: the losses to the bit, truncated or full; full gradients the
 * same but for the order of sums; truncated ones other, unless every piece fits a chunk.  On five tiny models. */
#include "base/cpu.h"
#include "golden/golden.h"
#include "train/bptt.h"
#include "train/gradients.h"

static const char *const names[] = {"falcon-small", "falcon-odd", "falcon-bias", "mamba-small", "mamba-noconvb"};

enum { CHUNK = 16, TOKENS = 67, PIECES_MAX = 40 };

/* Chunked sums differ from whole ones in their order alone, and a sum of n terms is within (n - 1) u of the exact one relative to
 * the sum of their absolute values, u = 2^-24.  (Found: 4e-7.) */
#define BOUND ((TOKENS - 1) * 0x1p-24)

typedef struct world {
    fm_model *m;
    fm_kernels k;
    fm_pool *pool;
    int32_t ids[TOKENS], targets[TOKENS];
    fm_piece pieces[PIECES_MAX];
    size_t n_pieces;
    fm_dropout dropout;
} world;

typedef struct result {
    fm_gradients g;
    float loss[TOKENS];
} result;

/* Pieces of these lengths, over and over. */
static void world_open(world *w, const char *name, const size_t *lengths, size_t n_lengths)
{
    char path[512];
    fm_error err = {0};
    unsigned features;
    *w = (world){.dropout = {.p = 0.25f, .seed = 3, .step = 5, .first_row = 1000}};
    snprintf(path, sizeof path, "%s/tests/data/golden/%s", FM_SOURCE_DIR, name);
    if (fm_model_open(&w->m, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    assert_ok(fm_cpu_cap(&features, "auto", NULL));
    fm_kernels_for(&w->k, features);
    const int32_t vocab = (int32_t)fm_model_get_info(w->m).vocab;
    for (int32_t i = 0; i < TOKENS; i++) {
        w->ids[i] = (i * i * 5 + i * 3 + 1) % vocab;
        w->targets[i] = i % 11 == 10 ? -1 : (i * 7 + 2) % vocab;
    }
    for (size_t at = 0; at < TOKENS; w->n_pieces++) {
        const size_t want = lengths[w->n_pieces % n_lengths], n = want < TOKENS - at ? want : TOKENS - at;
        assert_true(w->n_pieces < PIECES_MAX);
        w->pieces[w->n_pieces] = (fm_piece){.tokens = w->ids + at, .n = n};
        at += n;
    }
}

static void world_close(world *w)
{
    fm_model_free(w->m);
}

typedef enum way { WHOLE, FULL, TRUNCATED } way;

/* The pass, whole or in chunks. */
static void compute(result *r, world *w, way how, bool recompute, unsigned threads)
{
    fm_error err = {0};
    assert_ok(fm_gradients_open(&r->g, w->m, NULL, NULL));
    assert_ok(fm_pool_open(&w->pool, threads, NULL, NULL));
    memset(r->loss, 0, sizeof r->loss);
    const fm_backward b = {.m = w->m,
                           .k = &w->k,
                           .pool = w->pool,
                           .pieces = w->pieces,
                           .n_pieces = w->n_pieces,
                           .forget = true,
                           .targets = w->targets,
                           .scale = 1.0f / 61,
                           .dropout = w->dropout.p > 0 ? &w->dropout : NULL,
                           .recompute = recompute,
                           .g = r->g.g,
                           .loss = r->loss};
    if (how == WHOLE) {
        fm_pass p;
        assert_ok(fm_pass_open(&p, &b, TOKENS, NULL, NULL));
        assert_ok(fm_pass_run(&p, &b, NULL));
        fm_pass_free(&p);
    } else {
        fm_bptt p;
        if (fm_bptt_open(&p, &b, TOKENS, CHUNK, how == FULL, NULL, &err) != FM_OK) fail_msg("%s", err.text);
        assert_ok(fm_bptt_run(&p, &b, NULL));
        fm_bptt_free(&p);
    }
    fm_gradients_settle(&r->g, &w->k, w->pool);
    fm_pool_free(w->pool);
}

/* The largest relative L2 distance of a weight's gradients. */
static double distance(const fm_gradients *a, const fm_gradients *b)
{
    double most = 0;
    for (size_t i = 0; i < a->n; i++) {
        double diff = 0, norm = 0;
        for (size_t j = 0; j < a->counts[i]; j++) {
            diff += pow((double)a->g[i][j] - (double)b->g[i][j], 2);
            norm += pow((double)b->g[i][j], 2);
        }
        if (norm > 0 && sqrt(diff / norm) > most) most = sqrt(diff / norm);
        assert_true(norm > 0 || diff == 0);
    }
    return most;
}

static void check(const char *name, const size_t *lengths, size_t n_lengths, bool recompute)
{
    world w;
    result whole, full, more, truncated;
    world_open(&w, name, lengths, n_lengths);
    compute(&whole, &w, WHOLE, recompute, 1);
    compute(&full, &w, FULL, recompute, 1);
    compute(&more, &w, FULL, recompute, 3);
    compute(&truncated, &w, TRUNCATED, recompute, 2);
    assert_memory_equal(full.loss, whole.loss, sizeof whole.loss);
    assert_memory_equal(truncated.loss, whole.loss, sizeof whole.loss);
    assert_memory_equal(more.g.memory, full.g.memory, full.g.floats * sizeof(float));
    const double d = distance(&full.g, &whole.g), cut = distance(&truncated.g, &whole.g);
    if (d > BOUND) fail_msg("%s: full gradients are %.2e away", name, d);
    if (cut < 100 * BOUND) fail_msg("%s: truncated gradients are only %.2e away: is anything cut off?", name, cut);
    fm_gradients_free(&whole.g);
    fm_gradients_free(&full.g);
    fm_gradients_free(&more.g);
    fm_gradients_free(&truncated.g);
    world_close(&w);
}

static void one_long_piece(void **state)
{
    (void)state;
    const size_t length = TOKENS;
    for (size_t i = 0; i < FM_COUNT(names); i++) check(names[i], &length, 1, i % 2);
}

/* Pieces that end at borders, beside them and between; more in a chunk than it may have. */
static void pieces_of_all_lengths(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 16, 15, 20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3};
    for (size_t i = 0; i < FM_COUNT(names); i++) check(names[i], lengths, FM_COUNT(lengths), i % 2 == 0);
}

/* Pieces of a chunk each: nothing is cut off. */
static void truncation_within_a_chunk_is_none(void **state)
{
    (void)state;
    const size_t length = CHUNK;
    world w;
    result whole, truncated;
    world_open(&w, names[0], &length, 1);
    compute(&whole, &w, WHOLE, false, 1);
    compute(&truncated, &w, TRUNCATED, false, 1);
    assert_memory_equal(truncated.loss, whole.loss, sizeof whole.loss);
    assert_true(distance(&truncated.g, &whole.g) <= BOUND);
    fm_gradients_free(&whole.g);
    fm_gradients_free(&truncated.g);
    world_close(&w);
}

/* Memory of a truncated pass is that of a chunk, whatever there is to read; a full one adds a state for each border. */
static void memory_is_that_of_a_chunk(void **state)
{
    (void)state;
    const size_t length = TOKENS;
    world w;
    world_open(&w, names[0], &length, 1);
    assert_ok(fm_pool_open(&w.pool, 1, NULL, NULL));
    const fm_backward b = {.m = w.m, .k = &w.k, .pool = w.pool, .n_pieces = 1, .forget = true};
    const size_t few = fm_bptt_bytes(&b, 1000, CHUNK, false), many = fm_bptt_bytes(&b, 101000, CHUNK, false);
    assert_true(many - few < 10 * 100000); /* the list of chunks */
    const size_t border = w.m->state_floats * sizeof(float);
    assert_int_equal(fm_bptt_bytes(&b, 1000, CHUNK, true) - few, (1000 / CHUNK + FM_BPTT_PIECES) * border);
    assert_int_equal(fm_bptt_bytes(&b, SIZE_MAX / 2, 1, true), 0);
    fm_pool_free(w.pool);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_long_piece), cmocka_unit_test(pieces_of_all_lengths),
                                       cmocka_unit_test(truncation_within_a_chunk_is_none),
                                       cmocka_unit_test(memory_is_that_of_a_chunk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
