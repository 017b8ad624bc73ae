/* test_quantize.c - fm_quantize(): llama.cpp's types and llama.cpp's bytes, with and without importance; sizes of the 7B model;
 * importance files that do not fit. */
#include "unit/convert_files.h"

#include "convert/internal.h"

/* One line of tests/data/convert/llamacpp.txt. */
typedef struct expected {
    char source[32], file_type[16], importance[16], tensor[64], type[16], hash[20];
} expected;

static void quantise_for(const expected *e, const test_folder *f, const char *out)
{
    char in[256], imatrix[256];
    const fm_convert_options o = {.imatrix = strcmp(e->importance, "none") ? test_path(imatrix, f, "imatrix.gguf") : NULL};
    if (strcmp(e->source, "tiny") == 0) test_path(in, f, "tiny.gguf");
    else snprintf(in, sizeof in, GOLDEN "%s", e->source);
    assert_ok(fm_quantize(in, out, e->file_type, &o, NULL, NULL));
}

static void assert_line(const fm_gguf *g, const expected *e)
{
    char hash[65];
    const fm_gguf_tensor *t = fm_gguf_find_tensor(g, e->tensor);
    assert_non_null(t);
    assert_string_equal(fm_gguf_type_name(t->gguf_type), e->type);
    hash_of(hash, t->data, t->bytes);
    if (strncmp(hash, e->hash, 16) != 0) fail_msg("%s %s %s: not llama.cpp's bytes", e->source, e->file_type, e->tensor);
}

static bool same_file(const expected *a, const expected *b)
{
    return !strcmp(a->source, b->source) && !strcmp(a->file_type, b->file_type) && !strcmp(a->importance, b->importance);
}

static void test_llamacpp_bytes(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char path[256], line[256];
    assert_ok(fm_synth("tiny", "f32", 3, test_path(path, &f, "tiny.gguf"), NULL, NULL, NULL));
    write_imatrix(test_path(path, &f, "imatrix.gguf"), 256);
    FILE *file = fopen(FM_SOURCE_DIR "/tests/data/convert/llamacpp.txt", "r");
    assert_non_null(file);
    expected last = {0}, e;
    fm_gguf g = {0};
    size_t n = 0;
    test_path(path, &f, "out.gguf");
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        assert_int_equal(sscanf(line, "%31s %15s %15s %63s %15s %19s", e.source, e.file_type, e.importance, e.tensor, e.type,
                                e.hash), 6);
        if (!same_file(&e, &last)) {
            fm_gguf_close(&g);
            quantise_for(&e, &f, path);
            assert_ok(fm_gguf_open(&g, path, FM_MAP_READ, NULL, NULL));
            last = e;
        }
        assert_line(&g, &e);
        n++;
    }
    assert_int_equal(fclose(file), 0);
    assert_true(n > 200);
    fm_gguf_close(&g);
    test_folder_remove(&f);
}

/* A plan for falcon-mamba-7b without any weights. */
static size_t bytes_of_7b(fm_dtype type)
{
    fm_job j = {.arch = fm_arch_by_name("falcon_mamba"), .name = "7B",
                .config = {.d_model = 4096, .d_inner = 8192, .d_state = 16, .d_conv = 4, .dt_rank = 256, .n_layer = 64,
                           .vocab = 65024}};
    const fm_block *b = j.arch->block(&j.config, 0);
    j.items = calloc(FM_GLOBAL_COUNT + 64 * b->n_weights, sizeof *j.items);
    assert_non_null(j.items);
    for (size_t i = 0; i < FM_GLOBAL_COUNT + 64 * b->n_weights; i++) {
        const fm_weight_def *d = i < FM_GLOBAL_COUNT ? &j.arch->globals[i] : &b->weights[(i - FM_GLOBAL_COUNT) % b->n_weights];
        if (strcmp(d->name, "in_proj.bias") == 0 || strcmp(d->name, "out_proj.bias") == 0) continue;
        j.items[j.n++] = (fm_item){.w = {.def = d}, .rows = fm_dim_of(&j.config, d->rows),
                                    .cols = fm_dim_of(&j.config, d->cols)};
    }
    fm_plan_quantize(&j, type);
    assert_ok(fm_plan_finish(&j, NULL));
    assert_int_equal(j.result.n_fallback, 0);
    assert_int_equal(j.n, 643);
    free(j.items);
    return j.result.tensor_bytes;
}

/* Spec falcon-mamba.md 4.3. */
static void test_sizes(void **unused)
{
    (void)unused;
    static const struct { fm_dtype type; size_t bytes; } table[] = {
        {FM_Q2_K, 2562686976}, {FM_Q3_K, 3273015296},  {FM_Q4_0, 4201906176}, {FM_Q4_K, 4201906176}, {FM_IQ4_NL, 4201906176},
        {FM_IQ4_XS, 3983343616}, {FM_Q4_1, 4639031296}, {FM_Q5_0, 5076156416}, {FM_Q5_K, 5076156416}, {FM_Q5_1, 5513281536},
        {FM_Q6_K, 6005047296}, {FM_Q8_0, 7763410944},  {FM_INT4_G128, 3874062336}, {FM_F16, 14569979904}, {FM_BF16, 14569979904}};
    for (size_t i = 0; i < FM_COUNT(table); i++) assert_int_equal(bytes_of_7b(table[i].type), table[i].bytes);
}

static void test_names_mean_the_type(void **unused)
{
    (void)unused;
    static const char *const names[] = {"q4_k", "Q4_K_M", "q4_K_s"};
    const test_folder f = test_folder_make();
    char in[256], out[256], first[65], hash[65];
    assert_ok(fm_synth("tiny", "bf16", 1, test_path(in, &f, "in.gguf"), NULL, NULL, NULL));
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        fm_map m;
        const fm_convert_options o = {.threads = 1 + (unsigned)i};
        assert_ok(fm_quantize(in, test_path(out, &f, "out.gguf"), names[i], &o, NULL, NULL));
        assert_ok(fm_map_open(&m, out, FM_MAP_READ, NULL));
        hash_of(i ? hash : first, m.p, m.n);
        fm_map_close(&m);
        if (i) assert_string_equal(hash, first);
    }
    test_folder_remove(&f);
}

static void test_errors(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    fm_error err;
    char in[256], out[256], im[256];
    const fm_convert_options o = {.imatrix = test_path(im, &f, "im")};
    assert_ok(fm_synth("tiny", "bf16", 1, test_path(in, &f, "in.gguf"), NULL, NULL, NULL));
    test_path(out, &f, "out.gguf");
    assert_fails(fm_quantize(in, out, "q7_k", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "\"q7_k\" is not a type");
    assert_fails(fm_quantize(in, "dir", "q4_k", NULL, NULL, &err), FM_ERR_ARGUMENT, err, "ending in .gguf");
    test_file_write(im, "\x05\0\0\0legacy", 10);
    assert_fails(fm_quantize(in, out, "q4_k", &o, NULL, &err), FM_ERR_UNSUPPORTED, err, "older .dat form");
    write_imatrix(im, 128);
    assert_fails(fm_quantize(in, out, "q4_k", &o, NULL, &err), FM_ERR_SHAPE, err, "made for another one");
    assert_int_equal(remove(im), 0);
    assert_int_equal(fm_quantize(in, out, "q4_k", &o, NULL, &err), FM_ERR_IO);
    assert_int_equal(test_folder_count(&f), 1);
    test_folder_remove(&f);
}

/* Quantising what is quantised says so. */
static void test_twice(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], out[256];
    log_lines lines = {{0}};
    const fm_convert_options o = {.log = keep_line, .ctx = &lines};
    assert_ok(fm_synth("tiny", "q8_0", 1, test_path(in, &f, "in.gguf"), NULL, NULL, NULL));
    assert_ok(fm_quantize(in, test_path(out, &f, "out.gguf"), "q4_k", &o, NULL, NULL));
    assert_non_null(strstr(lines.text, "already quantised (Q8_0)"));
    test_folder_remove(&f);
}

static fm_status quantise_body(const fm_allocator *a, void *ctx)
{
    const char *const *paths = ctx;
    const fm_convert_options o = {.allocator = a, .threads = 1, .imatrix = paths[2]};
    return fm_quantize(paths[0], paths[1], "q4_k", &o, NULL, NULL);
}

static void test_allocation_failures(void **unused)
{
    (void)unused;
    const test_folder f = test_folder_make();
    char in[256], out[256], im[256];
    assert_ok(fm_synth("tiny", "q4_k", 1, test_path(in, &f, "in.gguf"), NULL, NULL, NULL));
    write_imatrix(test_path(im, &f, "im.gguf"), 256);
    const char *paths[] = {in, test_path(out, &f, "out.gguf"), im};
    assert_true(test_every_allocation(quantise_body, (void *)paths) > 10);
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llamacpp_bytes), cmocka_unit_test(test_sizes), cmocka_unit_test(test_names_mean_the_type),
        cmocka_unit_test(test_errors),         cmocka_unit_test(test_twice), cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
