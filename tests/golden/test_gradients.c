/* test_gradients.c - gradients of five tiny models against what PyTorch's autograd computes on HF transformers' slow path, within
 * a relative L2 of 1e-4 per tensor; and the same bits for any number of threads. */
#include "base/cpu.h"
#include "golden/golden.h"
#include "model/model.h"
#include "train/gradients.h"

static const char *const names[] = {"falcon-small", "falcon-odd", "falcon-bias", "mamba-small", "mamba-noconvb"};

typedef struct world {
    fm_model *m;
    fm_st st;
    int32_t *ids;
    size_t n;
} world;

static void world_open(world *w, const char *name)
{
    char path[512];
    fm_error err = {0};
    snprintf(path, sizeof path, "%s/tests/data/golden/%s", FM_SOURCE_DIR, name);
    if (fm_model_open(&w->m, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/tests/data/golden/%s/golden.safetensors", FM_SOURCE_DIR, name);
    if (fm_st_open(&w->st, path, FM_MAP_SHARED, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    w->ids = golden_ids(&w->st, "input_ids", &w->n);
}

static void world_close(world *w)
{
    fm_model_free(w->m);
    fm_st_close(&w->st);
    free(w->ids);
}

static double compute(fm_gradients *g, const world *w, const char *cpu, unsigned threads)
{
    fm_error err = {0};
    unsigned features;
    fm_kernels k;
    fm_pool *pool;
    double loss;
    if (fm_gradients_open(g, w->m, NULL, &err) != FM_OK || fm_cpu_cap(&features, cpu, &err) != FM_OK) fail_msg("%s", err.text);
    fm_kernels_for(&k, features);
    if (fm_pool_open(&pool, threads, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    if (fm_gradients_of(g, &loss, &k, pool, w->ids, w->n, &err) != FM_OK) fail_msg("%s", err.text);
    fm_pool_free(pool);
    return loss;
}

/* The file that `fmamba gradients` writes against autograd's, tensor by tensor. */
static void check_file(const char *name, const fm_st *want, const fm_st *got)
{
    size_t n = 0;
    for (size_t i = 0; i < want->n_tensors; i++) {
        const char *key = want->tensors[i].name;
        if (strncmp(key, "grad.", 5) != 0) continue;
        const golden_tensor a = golden_get(got, key), b = golden_get(want, key);
        assert_int_equal(a.n, b.n);
        double diff = 0, norm = 0;
        for (size_t j = 0; j < a.n; j++) {
            diff += pow((double)golden_at(&a, j) - (double)golden_at(&b, j), 2);
            norm += pow((double)golden_at(&b, j), 2);
        }
        if (sqrt(diff) > 1e-4 * sqrt(norm)) fail_msg("%s: %s is %.2e away", name, key, sqrt(diff / norm));
        n++;
    }
    assert_int_equal(n + 1, got->n_tensors); /* and the loss */
}

static void check_model(const char *name, const char *cpu)
{
    world w;
    fm_gradients g;
    fm_st got;
    fm_error err = {0};
    char path[] = "test_gradients_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    world_open(&w, name);
    const double loss = compute(&g, &w, cpu, 2);
    const golden_tensor want = golden_get(&w.st, "loss");
    assert_true(fabs(loss - (double)golden_at(&want, 0)) <= 1e-5 * fabs(loss));
    if (fm_gradients_write(&g, loss, path, &err) != FM_OK || fm_st_open(&got, path, FM_MAP_READ, NULL, &err) != FM_OK)
        fail_msg("%s", err.text);
    check_file(name, &w.st, &got);
    fm_st_close(&got);
    unlink(path);
    fm_gradients_free(&g);
    world_close(&w);
}

static void gradients_are_those_of_autograd(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        check_model(names[i], "auto");
        check_model(names[i], "ref");
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        world w;
        fm_gradients one, more;
        world_open(&w, names[i]);
        const double loss = compute(&one, &w, "auto", 1);
        for (unsigned threads = 2; threads <= 5; threads++) {
            assert_true(compute(&more, &w, "auto", threads) == loss);
            assert_memory_equal(more.memory, one.memory, one.floats * sizeof(float));
            fm_gradients_free(&more);
        }
        fm_gradients_free(&one);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_those_of_autograd),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
