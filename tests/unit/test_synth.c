/* test_synth.c - fm_synth(): the same model for the same seed, values of the promised size in every type, files that open. */
#include <math.h>

#include "unit/convert_files.h"

#include "model/model.h"

static void file_hash(char out[65], const char *path)
{
    fm_map m;
    assert_ok(fm_map_open(&m, path, FM_MAP_READ, NULL));
    hash_of(out, m.p, m.n);
    fm_map_close(&m);
}

static void test_seed(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char path[256], a[65], b[65], c[65];
    const fm_convert_options one = {.threads = 1}, three = {.threads = 3};
    test_path(path, &f, "m.gguf");
    assert_ok(fm_synth("tiny", "q4_k", 7, path, &one, NULL, NULL));
    file_hash(a, path);
    assert_ok(fm_synth("tiny", "q4_k", 7, path, &three, NULL, NULL));
    file_hash(b, path);
    assert_ok(fm_synth("tiny", "q4_k", 8, path, &three, NULL, NULL));
    file_hash(c, path);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    test_folder_remove(&f);
}

/* Mean and deviation of a matrix. */
static void measure(const fm_tensor *t, double *mean, double *sd)
{
    float row[1024];
    double sum = 0, squares = 0;
    assert_true(t->cols <= FM_COUNT(row));
    for (size_t r = 0; r < t->rows; r++) {
        fm_dtype_get(t->type)->decode(row, fm_tensor_row(t, r), t->cols);
        for (size_t i = 0; i < t->cols; i++) sum += (double)row[i], squares += (double)row[i] * (double)row[i];
    }
    const double n = (double)(t->rows * t->cols);
    *mean = sum / n;
    *sd = sqrt(squares / n - *mean * *mean);
}

static void test_every_type(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char path[256];
    test_path(path, &f, "m.gguf");
    for (unsigned t = 0; t < FM_DTYPE_COUNT; t++) {
        fm_model *m;
        double mean, sd;
        assert_ok(fm_synth("tiny", fm_dtype_get((fm_dtype)t)->name, 1, path, NULL, NULL, NULL));
        assert_ok(fm_model_load(&m, path, NULL, NULL));
        assert_ok(fm_model_check(m, NULL));
        const fm_tensor *w = &m->globals[FM_GLOBAL_EMBED];
        assert_int_equal(w->type, t);
        measure(w, &mean, &sd);
        if (!(sd > 0.018 && sd < 0.022 && fabs(mean) < 0.003))
            fail_msg("%s: mean %g, deviation %g", fm_dtype_get((fm_dtype)t)->name, mean, sd);
        fm_model_unload(m);
    }
    test_folder_remove(&f);
}

/* A = -1 .. -16 and steps within 0.001 .. 0.1, in both forms. */
static void check_small(const char *path)
{
    fm_model *m;
    assert_ok(fm_model_load(&m, path, NULL, NULL));
    for (size_t i = FM_GLOBAL_COUNT; i < fm_model_weight_count(m); i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        const float *v = w.loaded->data;
        if (strcmp(w.def->name, "A") == 0)
            for (size_t k = 0; k < 16; k++) assert_true(fabsf(v[k * w.loaded->cols + 3] + (float)(k + 1)) < 1e-5f);
        if (strcmp(w.def->name, "dt_proj.bias") == 0)
            for (size_t k = 0; k < w.loaded->cols; k++) {
                const double dt = log1p(exp((double)v[k]));
                assert_true(dt > 0.00099 && dt < 0.101);
            }
    }
    fm_model_unload(m);
}

static void test_small_tensors(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char path[256];
    assert_ok(fm_synth("tiny", "q8_0", 1, test_path(path, &f, "m.gguf"), NULL, NULL, NULL));
    check_small(path);
    assert_ok(fm_synth("tiny", "bf16", 1, test_path(path, &f, "dir"), NULL, NULL, NULL));
    check_small(path);
    drop_dir(path);
    test_folder_remove(&f);
}

static void test_errors(void **unused)
{
    (void)unused;
    fm_error err;
    assert_fails(fm_synth("mamba-9b", "q4_k", 1, "m.gguf", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "falcon-mamba-7b, ");
    assert_fails(fm_synth("tiny", "q7", 1, "m.gguf", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "\"q7\" is not a type");
    assert_fails(fm_synth("tiny", "q4_k", 1, "dir", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "a directory holds f32");
    assert_string_equal(fm_synth_shape(0), "falcon-mamba-7b");
    assert_null(fm_synth_shape(100));
}

static fm_status synth_body(const fm_allocator *a, void *ctx)
{
    const fm_convert_options o = {.allocator = a, .threads = 1};
    return fm_synth("tiny", "q2_k", 1, ctx, &o, NULL, NULL);
}

static void test_allocation_failures(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char path[256];
    assert_true(test_every_allocation(synth_body, test_path(path, &f, "m.gguf")) > 5);
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed),          cmocka_unit_test(test_every_type), cmocka_unit_test(test_small_tensors),
        cmocka_unit_test(test_errors),        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
