/* test_convert.c - fm_convert(): there and back gives the same bytes, both ways and within one form; what it says; what it
 * leaves behind when it fails. */
#include <math.h>
#include <sys/stat.h>

#include "unit/convert_files.h"

#include "model/model.h"

static const char *const models[] = {"falcon-small", "falcon-odd", "falcon-bias", "mamba-small", "mamba-noconvb"};

static char *golden(char out[256], const char *name)
{
    snprintf(out, 256, GOLDEN "%s", name);
    return out;
}

static fm_st open_weights(const char *dir)
{
    fm_st s;
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_ok(fm_st_open(&s, path, FM_MAP_READ, NULL, NULL));
    return s;
}

static void assert_near(const fm_st_tensor *a, const fm_st_tensor *b)
{
    for (uint64_t i = 0; i < a->bytes; i += sizeof(float)) {
        float x, y;
        memcpy(&x, a->data + i, sizeof x);
        memcpy(&y, b->data + i, sizeof y);
        if (x != y && nextafterf(x, y) != y) fail_msg("%s: %.9g became %.9g", a->name, (double)x, (double)y);
    }
}

/* The same tensors; A_log to one unit in the last place when `near`. */
static void assert_same_weights(const char *dir_a, const char *dir_b, bool near)
{
    fm_st a = open_weights(dir_a), b = open_weights(dir_b);
    assert_int_equal(a.n_tensors, b.n_tensors);
    for (size_t i = 0; i < a.n_tensors; i++) {
        const fm_st_tensor *x = &a.tensors[i], *y = &b.tensors[i];
        assert_string_equal(x->name, y->name);
        assert_string_equal(x->type_name, y->type_name);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_memory_equal(x->dims, y->dims, x->n_dims * sizeof x->dims[0]);
        if (near && strstr(x->name, "A_log")) assert_near(x, y);
        else assert_memory_equal(x->data, y->data, x->bytes);
    }
    fm_st_close(&a);
    fm_st_close(&b);
}

static void test_there_and_back(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], gguf[256], dir[256], again[256];
    for (size_t i = 0; i < FM_COUNT(models); i++) {
        fm_convert_result r;
        assert_ok(fm_convert(golden(in, models[i]), test_path(gguf, &f, "m.gguf"), NULL, &r, NULL));
        assert_ok(fm_convert(gguf, test_path(dir, &f, "back"), NULL, NULL, NULL));
        assert_same_weights(in, dir, true);
        assert_ok(fm_convert(in, test_path(again, &f, "same"), NULL, NULL, NULL));
        assert_same_weights(in, again, false);
        fm_model *m;
        assert_ok(fm_model_load(&m, dir, NULL, NULL));
        fm_model_unload(m);
        drop_dir(dir);
        drop_dir(again);
    }
    test_folder_remove(&f);
}

/* A_log near zero, where A alone could not give it back. */
static void test_a_log_near_zero(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], work[256], gguf[256], dir[256], path[300];
    assert_ok(fm_convert(golden(in, "falcon-bias"), test_path(work, &f, "work"), NULL, NULL, NULL));
    snprintf(path, sizeof path, "%s/model.safetensors", work);
    fm_st s = open_weights(work);
    const fm_st_tensor *t = fm_st_find(&s, "backbone.layers.0.mixer.A_log");
    const long at = (long)(t->data - s.maps[0].p);
    fm_st_close(&s);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    const float tiny[4] = {1e-3f, -1e-5f, 1e-20f, 0.3f};
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fwrite(tiny, sizeof tiny, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_ok(fm_convert(work, test_path(gguf, &f, "m.gguf"), NULL, NULL, NULL));
    assert_ok(fm_convert(gguf, test_path(dir, &f, "back"), NULL, NULL, NULL));
    assert_same_weights(work, dir, true);
    drop_dir(work);
    drop_dir(dir);
    test_folder_remove(&f);
}

/* Small tensors are never rounded, matrices are. */
static void test_bf16(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], dir[256], gguf[256], back[256];
    const fm_convert_options o = {.type = "BF16"};
    assert_ok(fm_convert(golden(in, "falcon-small"), test_path(dir, &f, "half"), &o, NULL, NULL));
    fm_st s = open_weights(dir);
    assert_int_equal(fm_st_find(&s, "backbone.layers.0.mixer.in_proj.weight")->type, FM_ST_BF16);
    assert_int_equal(fm_st_find(&s, "backbone.layers.0.mixer.A_log")->type, FM_ST_F32);
    fm_st_close(&s);
    assert_ok(fm_convert(dir, test_path(gguf, &f, "m.gguf"), NULL, NULL, NULL));
    assert_ok(fm_convert(gguf, test_path(back, &f, "back"), NULL, NULL, NULL));
    assert_same_weights(dir, back, true);
    drop_dir(dir);
    drop_dir(back);
    test_folder_remove(&f);
}

static void assert_same_key(const fm_gguf *a, const fm_gguf *b, const char *key)
{
    const fm_gguf_kv *x = fm_gguf_find(a, key), *y = fm_gguf_find(b, key);
    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(x->type, y->type);
    assert_int_equal(x->end - x->data, y->end - y->data);
    assert_memory_equal(x->data, y->data, (size_t)(x->end - x->data));
}

/* A vocabulary through tokenizer.json and back. */
static void test_vocabulary(void **unused)
{
    (void)unused;
    static const char *const keys[] = {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.add_bos_token", "mamba.ssm.dt_b_c_rms", "fmamba.mixer_rms_eps"};
    const test_folder f = test_folder_make();
    char one[256], dir[256], two[256];
    assert_ok(fm_synth("tiny", "bf16", 5, test_path(one, &f, "one.gguf"), NULL, NULL, NULL));
    assert_ok(fm_convert(one, test_path(dir, &f, "dir"), NULL, NULL, NULL));
    assert_ok(fm_convert(dir, test_path(two, &f, "two.gguf"), NULL, NULL, NULL));
    fm_gguf a, b;
    assert_ok(fm_gguf_open(&a, one, FM_MAP_READ, NULL, NULL));
    assert_ok(fm_gguf_open(&b, two, FM_MAP_READ, NULL, NULL));
    for (size_t i = 0; i < FM_COUNT(keys); i++) assert_same_key(&a, &b, keys[i]);
    assert_int_equal(a.n_tensors, b.n_tensors);
    for (size_t i = 0; i < a.n_tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)a.tensors[i].name.n, a.tensors[i].name.p);
        const fm_gguf_tensor *t = fm_gguf_find_tensor(&b, name);
        assert_non_null(t);
        assert_int_equal(t->bytes, a.tensors[i].bytes);
        if (!strstr(name, "ssm_a")) /* not every A is the exponential of an f32 */
            assert_memory_equal(t->data, a.tensors[i].data, t->bytes);
    }
    fm_gguf_close(&a);
    fm_gguf_close(&b);
    drop_dir(dir);
    test_folder_remove(&f);
}

static void test_warnings(void **unused)
{
    (void)unused;
    static const struct { const char *model, *part; } cases[] = {
        {"falcon-odd", "d_inner is 88"}, {"falcon-bias", "no bias on in_proj"}, {"mamba-noconvb", "needs a bias on the conv"}};
    const test_folder f = test_folder_make();
    char in[256], out[256];
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        log_lines lines = {{0}};
        const fm_convert_options o = {.log = keep_line, .ctx = &lines};
        assert_ok(fm_convert(golden(in, cases[i].model), test_path(out, &f, "m.gguf"), &o, NULL, NULL));
        assert_non_null(strstr(lines.text, cases[i].part));
    }
    test_folder_remove(&f);
}

static bool stop(void *ctx, double fraction)
{
    (void)ctx, (void)fraction;
    return false;
}

static void test_errors(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    fm_error err;
    char in[256], out[256];
    golden(in, "falcon-odd");
    const fm_convert_options bad = {.type = "q9"}, quantised = {.type = "q4_k"}, cancel = {.progress = stop};
    assert_fails(fm_convert(in, test_path(out, &f, "m.gguf"), &bad, NULL, &err), FM_ERR_ARGUMENT, err, "\"q9\" is not a type");
    assert_fails(fm_convert(in, out, &quantised, NULL, &err), FM_ERR_ARGUMENT, err, "quantise to that type instead");
    assert_fails(fm_convert(in, out, &cancel, NULL, &err), FM_ERR_CANCELLED, err, "cancelled");
    assert_fails(fm_convert(in, test_path(out, &f, "dir"), &cancel, NULL, &err), FM_ERR_CANCELLED, err, "cancelled");
    assert_fails(fm_convert(in, GOLDEN "falcon-small", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "exists");
    assert_int_equal(fm_convert("/nowhere", out, NULL, NULL, &err), FM_ERR_IO);
    assert_int_equal(test_folder_count(&f), 0);
    test_folder_remove(&f);
}

/* Overwrites the first value of in_proj of a copy of a golden model, converts, and expects the sentence. */
static void assert_refuses(float value, const char *type, fm_status want, const char *part)
{
    const test_folder f = test_folder_make();
    fm_error err;
    char in[256], dir[256], path[300], out[256];
    assert_ok(fm_convert(golden(in, "falcon-bias"), test_path(dir, &f, "dir"), NULL, NULL, NULL));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    fm_st s = open_weights(dir);
    const long at = (long)(fm_st_find(&s, "backbone.layers.0.mixer.in_proj.weight")->data - s.maps[0].p);
    fm_st_close(&s);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&value, sizeof value, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    const fm_convert_options o = {.type = type};
    assert_fails(fm_convert(dir, test_path(out, &f, "m.gguf"), &o, NULL, &err), want, err, part);
    assert_fails(fm_quantize(dir, out, type, NULL, NULL, &err), want, err, "backbone.layers.0.mixer.in_proj.weight");
    drop_dir(dir);
    test_folder_remove(&f);
}

static void test_bad_weights(void **unused)
{
    (void)unused;
    assert_refuses(NAN, "f32", FM_ERR_FORMAT, "tensor backbone.layers.0.mixer.in_proj.weight holds NaN or infinity in row 0");
    assert_refuses(1e6f, "f16", FM_ERR_LIMIT, "more than F16 can: choose bf16 or f32");
}

static fm_status convert_body(const fm_allocator *a, void *ctx)
{
    const char *const *paths = ctx;
    const fm_convert_options o = {.allocator = a, .threads = 1};
    return fm_convert(paths[0], paths[1], &o, NULL, NULL);
}

static void test_allocation_failures(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], gguf[256], dir[256];
    const char *forth[] = {golden(in, "falcon-bias"), test_path(gguf, &f, "m.gguf")};
    assert_true(test_every_allocation(convert_body, (void *)forth) > 10);
    const char *back[] = {gguf, test_path(dir, &f, "dir")};
    assert_true(test_every_allocation(convert_body, (void *)back) > 10);
    drop_dir(dir);
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_a_log_near_zero), cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_vocabulary),     cmocka_unit_test(test_warnings),        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_bad_weights),    cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
