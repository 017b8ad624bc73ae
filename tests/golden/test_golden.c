/* test_golden.c - five tiny models with odd shapes against what HF transformers computes from them in fp32: logits, every layer's
 * output, greedy continuations.  tests/data/golden; the bound is 1e-4 x max(1, largest |logit| / 4). */
#include "golden/golden.h"

static const char *const names[] = {"falcon-small", "falcon-odd", "falcon-bias", "mamba-small", "mamba-noconvb"};

typedef struct golden {
    golden_run run;
    fm_st st;
    int32_t *ids;
    size_t n_ids;
} golden;

static void open_golden(golden *g, const char *name, const fm_session_options *o)
{
    char path[512];
    fm_error err = {0};
    snprintf(path, sizeof path, "%s/tests/data/golden/%s", FM_SOURCE_DIR, name);
    golden_open(&g->run, path, o);
    snprintf(path, sizeof path, "%s/tests/data/golden/%s/golden.safetensors", FM_SOURCE_DIR, name);
    if (fm_st_open(&g->st, path, FM_MAP_SHARED, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    g->ids = golden_ids(&g->st, "input_ids", &g->n_ids);
}

static void close_golden(golden *g)
{
    golden_close(&g->run);
    fm_st_close(&g->st);
    free(g->ids);
}

/* Largest difference between rows of ours and a golden tensor. */
static double max_difference(const float *ours, const golden_tensor *g, double *largest)
{
    double max = 0;
    *largest = 0;
    for (size_t i = 0; i < g->n; i++) {
        const double want = (double)golden_at(g, i);
        max = fmax(max, fabs((double)ours[i] - want));
        *largest = fmax(*largest, fabs(want));
    }
    return max;
}

static void check_logits(const char *name, const char *cpu)
{
    golden g;
    double largest;
    open_golden(&g, name, &(fm_session_options){.cpu = cpu});
    const golden_tensor want = golden_get(&g.st, "logits");
    assert_int_equal(want.rows, g.n_ids);
    assert_int_equal(want.cols, g.run.info.vocab);
    float *ours = golden_logits(&g.run, g.ids, g.n_ids);
    const double diff = max_difference(ours, &want, &largest), bound = 1e-4 * fmax(1, largest / 4);
    printf("%-14s %-5s logits differ by at most %.2e (bound %.2e)\n", name, cpu ? cpu : "auto", diff, bound);
    assert_true(diff <= bound);
    free(ours);
    close_golden(&g);
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        check_logits(names[i], NULL);
        check_logits(names[i], "ref");
    }
}

/* ---- Every layer ---- */

typedef struct layers {
    golden_rows *rows; /* (n_layer + 1) */
    size_t n;
} layers;

static void take_layer(void *ctx, size_t layer, size_t first, size_t n, const float *rows)
{
    layers *l = ctx;
    assert_true(layer < l->n);
    golden_take(&l->rows[layer], first, n, rows);
}

static void check_layers(const char *name)
{
    golden g;
    fm_error err = {0};
    open_golden(&g, name, &(fm_session_options){.chunk = 13});
    const size_t d = g.run.info.d_model;
    layers l = {calloc(g.run.info.n_layer + 2, sizeof *l.rows), g.run.info.n_layer + 2};
    assert_non_null(l.rows);
    for (size_t i = 0; i < l.n; i++) l.rows[i] = (golden_rows){calloc(g.n_ids * d, sizeof(float)), g.n_ids, d, 0};
    const fm_span span = {.seq = g.run.seq, .tokens = g.ids, .n = g.n_ids, .on_hidden = take_layer, .ctx = &l};
    if (fm_step(g.run.s, &span, 1, &err) != FM_OK) fail_msg("%s", err.text);
    for (size_t i = 1; i < l.n; i++) { /* transformers' list begins after the first block */
        char key[32];
        double largest;
        snprintf(key, sizeof key, "hidden.%zu", i - 1);
        const golden_tensor want = golden_get(&g.st, key);
        assert_int_equal(l.rows[i].got, want.rows);
        const double diff = max_difference(l.rows[i].p, &want, &largest);
        if (diff > 1e-4 * fmax(1, largest / 4)) fail_msg("%s %s differs by %g of %g", name, key, diff, largest);
    }
    for (size_t i = 0; i < l.n; i++) free(l.rows[i].p);
    free(l.rows);
    close_golden(&g);
}

static void every_layer_is_that_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) check_layers(names[i]);
}

/* ---- Greedy continuations ---- */

static void check_greedy(const char *name)
{
    golden g;
    size_t n;
    fm_error err = {0};
    open_golden(&g, name, NULL);
    int32_t *want = golden_ids(&g.st, "greedy_ids", &n);
    if (fm_seq_append(g.run.s, g.run.seq, want, 9, &err) != FM_OK) fail_msg("%s", err.text);
    for (size_t i = 9; i < n; i++) {
        const int32_t id = golden_argmax(fm_seq_logits(g.run.s, g.run.seq), g.run.info.vocab);
        if (id != want[i]) fail_msg("%s: greedy id %zu is %d, transformers has %d", name, i, (int)id, (int)want[i]);
        if (fm_seq_append(g.run.s, g.run.seq, &id, 1, &err) != FM_OK) fail_msg("%s", err.text);
    }
    free(want);
    close_golden(&g);
}

static void greedy_ids_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) check_greedy(names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(every_layer_is_that_of_transformers),
        cmocka_unit_test(greedy_ids_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
