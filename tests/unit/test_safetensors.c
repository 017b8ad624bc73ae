/* test_safetensors.c - safetensors files, single and sharded, read, refused and written. */
#include "unit/format_build.h"

#include "format/safetensors.h"

/* A file of this header and n bytes of data, counting up. */
static bytes make_file(const char *header, size_t n)
{
    bytes b = {NULL, 0, 0};
    put_text(&b, header);
    for (size_t i = 0; i < n; i++) put_u8(&b, (uint8_t)i);
    return b;
}

static fm_status open_bytes(fm_st *s, const test_folder *f, const bytes *b, fm_error *err)
{
    char path[256];
    test_file_write(test_path(path, f, "x.safetensors"), b->p, b->n);
    return fm_st_open(s, path, FM_MAP_SHARED, NULL, err);
}

static uint64_t read_everything(const fm_st *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const fm_st_tensor *t = &s->tensors[i];
        sum += strlen(t->name) + strlen(t->type_name);
        for (uint64_t c = 0; c < t->bytes; c++) sum += t->data[c];
        assert_ptr_equal(fm_st_find(s, t->name), t);
    }
    if (s->metadata != NULL) sum += strlen(s->metadata);
    return sum;
}

static const char SAMPLE[] = "{\"__metadata__\":{\"format\":\"pt\",\"n\\\"\":\"\\u00e9\"},"
                             "\"z.w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                             "\"a.conv\":{\"shape\":[2,1,2],\"extra\":[{}],\"dtype\":\"BF16\",\"data_offsets\":[24,32]},"
                             "\"n\\u00e9\\n\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[32,40]},"
                             "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[40,48]},"
                             "\"odd\":{\"dtype\":\"F5_ODD\",\"shape\":[3],\"data_offsets\":[48,51]},"
                             "\"f4\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[51,53]},"
                             "\"none\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[53,53]},"
                             "\"one\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[53,54]}}  ";
#define SAMPLE_DATA ((size_t)54)

static void test_reads(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes b = make_file(SAMPLE, SAMPLE_DATA);
    fm_st s;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    assert_ok(open_bytes(&s, &f, &b, &err));
    assert_int_equal(s.n_tensors, 8);
    for (size_t i = 1; i < s.n_tensors; i++) assert_true(strcmp(s.tensors[i - 1].name, s.tensors[i].name) < 0);
    assert_string_equal(s.metadata, "{\"format\":\"pt\",\"n\\\"\":\"\\u00e9\"}");
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "z.w"), &err));
    assert_true(t.type == FM_F32 && t.rows == 2 && t.cols == 3 && t.stride == 12 &&
                *(const uint8_t *)fm_tensor_row(&t, 1) == 12);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "a.conv"), &err));
    assert_true(t.type == FM_BF16 && t.rows == 2 && t.cols == 2 && *(const uint8_t *)t.data == 24);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "n\xC3\xA9\n"), &err));
    assert_true(t.type == FM_F16 && t.rows == 1 && t.cols == 4);
    const fm_st_tensor *odd = fm_st_find(&s, "odd"), *f4 = fm_st_find(&s, "f4"), *one = fm_st_find(&s, "one");
    assert_true(odd->type == FM_ST_OTHER && odd->bytes == 3 && strcmp(odd->type_name, "F5_ODD") == 0);
    assert_true(f4->type == FM_ST_OTHER && strcmp(f4->type_name, "F4") == 0);
    assert_true(one->type == FM_ST_U8 && one->n_dims == 0 && one->bytes == 1 && one->data[0] == 53);
    assert_fails(fm_st_as_tensor(&t, &s, odd, &err), FM_ERR_UNSUPPORTED, err, "'odd' has type F5_ODD, expected F32");
    assert_fails(fm_st_as_tensor(&t, &s, fm_st_find(&s, "i"), &err), FM_ERR_UNSUPPORTED, err, "type I64");
    assert_fails(fm_st_as_tensor(&t, &s, fm_st_find(&s, "none"), &err), FM_ERR_UNSUPPORTED, err, "'none' is empty");
    assert_null(fm_st_find(&s, "z"));
    read_everything(&s);
    fm_st_close(&s);
    free(b.p);
    test_folder_remove(&f);
}

/* A file that ends at byte n, for every n, blanks in the header making it fill a page with a forbidden one behind. */
static void test_cut_off(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    guard *guarded = calloc(1, sizeof(*guarded));
    assert_non_null(guarded);
    guard_make(guarded);
    size_t n_guarded = 0;
    const size_t header = sizeof(SAMPLE) - 1, whole = 8 + header + SAMPLE_DATA;
    for (size_t n = 0; n <= whole; n++) {
        const size_t pad = n <= 9 ? 0 : PAGE - n % PAGE;
        bytes b = {NULL, 0, 0};
        put_u64(&b, header + pad);
        put(&b, SAMPLE, 1);
        for (size_t i = 0; i < pad; i++) put(&b, " ", 1);
        put(&b, SAMPLE + 1, header - 1);
        put_zeros(&b, SAMPLE_DATA);
        b.n = n + pad;
        fm_st s;
        fm_error err = {FM_OK, ""};
        const fm_status status = open_bytes(&s, &f, &b, &err);
        if (n < whole) {
            assert_int_equal(status, FM_ERR_FORMAT);
            assert_true(strstr(err.text, "cut off") != NULL || strstr(err.text, "empty") != NULL);
            assert_null(s.maps);
        } else {
            assert_int_equal(status, FM_OK);
            n_guarded += guard_holds(guarded, s.maps[0].p);
            read_everything(&s);
            fm_st_close(&s);
        }
        free(b.p);
    }
    if (n_guarded == 0) print_message("no forbidden page followed the files\n");
    guard_free(guarded);
    free(guarded);
    test_folder_remove(&f);
}

static void test_altered_bytes(void **state)
{
    (void)state;
    static const unsigned char masks[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    const test_folder f = test_folder_make();
    bytes b = make_file(SAMPLE, SAMPLE_DATA);
    size_t n_refused = 0;
    for (size_t i = 0; i < b.n; i++) {
        for (size_t m = 0; m < FM_COUNT(masks); m++) {
            b.p[i] ^= masks[m];
            fm_st s;
            fm_error err = {FM_OK, ""};
            if (open_bytes(&s, &f, &b, &err) == FM_OK) {
                read_everything(&s);
                fm_st_close(&s);
            } else {
                assert_true(err.code != FM_OK && err.text[0] != '\0');
                n_refused++;
            }
            b.p[i] ^= masks[m];
        }
    }
    assert_true(n_refused > 1000);
    free(b.p);
    test_folder_remove(&f);
}

/* Headers that must be refused, over 16 bytes of data. */
static void test_refused_headers(void **state)
{
    (void)state;
#define T(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    static const char *const cases[][2] = {
        {"{" T("a", "F32", "[4]", "[0,12]") "}", "tensor 'a' has 12 bytes by its data_offsets"},
        {"{" T("a", "F32", "[4]", "[16,0]") "}", "run backwards"},
        {"{" T("a", "F32", "[5]", "[0,20]") "}", "ends 20 bytes after the header, but only 16 bytes are there"},
        {"{" T("a", "F32", "[2]", "[0,8]") "," T("b", "F32", "[3]", "[4,16]") "}", "tensors overlap"},
        {"{" T("a", "F32", "[1]", "[0,4]") "," T("b", "F32", "[2]", "[8,16]") "}", "leave a gap"},
        {"{" T("a", "F32", "[3]", "[4,16]") "}", "begins 4 bytes after the header, expected 0"},
        {"{" T("a", "F32", "[3]", "[0,12]") "}", "4 bytes follow the last tensor"},
        {"{}", "16 bytes follow the last tensor"},
        {"{" T("a", "F32", "[2]", "[0,8]") "," T("a", "F32", "[2]", "[8,16]") "}", "tensor 'a' is there twice"},
        {"{" T("a", "F32", "[2]", "[0,8]") "," T("\\u0061", "F32", "[2]", "[8,16]") "}", "tensor 'a' is there twice"},
        {"{" T("a", "F32", "[4294967296,4294967296,4]", "[0,16]") "}", "not what its shape and type F32 make"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,4]", "[0,16]") "}", "more than 8 dimensions"},
        {"{" T("a", "F32", "[-4]", "[0,16]") "}", "x.safetensors"},
        {"{" T("a", "F32", "[4.0]", "[0,16]") "}", "x.safetensors"},
        {"{" T("a", "F32", "[4]", "[0,8,16]") "}", "more than two numbers"},
        {"{" T("a", "F32", "[4]", "[16]") "}", "not two numbers"},
        {"{" T("a", "F32", "4", "[0,16]") "}", "x.safetensors"},
        {"{" T("a", "", "[4]", "[0,16]") "}", "dtype is empty"},
        {"{" T("", "F32", "[4]", "[0,16]") "}", "name is empty"},
        {"{" T("a\\u0000b", "F32", "[4]", "[0,16]") "}", "zero byte"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", "lacks its dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", "a field twice"},
        {"{\"a\":7}", "x.safetensors"},
        {"{\"__metadata__\":{\"a\":1}," T("a", "F32", "[4]", "[0,16]") "}", "not an object of strings"},
        {"{\"__metadata__\":{},\"__metadata__\":{}," T("a", "F32", "[4]", "[0,16]") "}", "__metadata__ is there twice"},
        {"{" T("a", "F32", "[4]", "[0,16]"), "x.safetensors"},
        {"{" T("a", "F32", "[4]", "[0,16]") "} x", "x.safetensors"},
        {"[]", "does not begin with '{'"},
        {" {}", "does not begin with '{'"},
    };
#undef T
    const test_folder f = test_folder_make();
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        bytes b = make_file(cases[i][0], 16);
        fm_st s;
        fm_error err = {FM_OK, ""};
        assert_fails(open_bytes(&s, &f, &b, &err), FM_ERR_FORMAT, err, cases[i][1]);
        free(b.p);
    }
    test_folder_remove(&f);
}

static void test_other_files(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        size_t n;
        const char *says;
    } files[] = {
        {"", 0, "empty"},
        {"abc", 3, "too few"},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7Fzzzz", 12,
         "not a safetensors file: it would begin with a header of 9223372036854775807"},
        {"\x01\xE1\xF5\x05\0\0\0\0{}", 10, "100000001 bytes (2 to 100000000"},
        {"\x10\0\0\0\0\0\0\0{}", 10, "its header has 16 bytes, but only 2 are there"},
        {"version https://git-lfs.github.com/spec/v1\noid", 46, "Git LFS pointer"},
        {"PK\x03\x04zzzzzzzzz", 13, "pickle: convert it to safetensors"},
        {"\x80\x02}q\x00zzzz", 9, "pickle"},
        {"<!doctype html>", 15, "HTML"},
        {"GGUF\x03\0\0\0\0\0\0\0", 12, "a GGUF file: its name should end in .gguf"},
        {"{\"error\": \"not found\"}", 22, "JSON text"},
    };
    const test_folder f = test_folder_make();
    for (size_t i = 0; i < FM_COUNT(files); i++) {
        bytes b = {NULL, 0, 0};
        put(&b, files[i].head, files[i].n);
        fm_st s;
        fm_error err = {FM_OK, ""};
        assert_fails(open_bytes(&s, &f, &b, &err), FM_ERR_FORMAT, err, files[i].says);
        free(b.p);
    }
    test_folder_remove(&f);
}

static void write_shard(const test_folder *f, const char *file, const char *tensor)
{
    char path[256], header[256];
    snprintf(header, sizeof(header),
             "{\"__metadata__\":{\"file\":\"%s\"},\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", file,
             tensor);
    bytes b = make_file(header, 8);
    test_file_write(test_path(path, f, file), b.p, b.n);
    free(b.p);
}

static fm_status open_index(fm_st *s, const test_folder *f, const char *json, fm_error *err)
{
    char path[256];
    test_file_write(test_path(path, f, "model.safetensors.index.json"), json, strlen(json));
    return fm_st_open(s, path, FM_MAP_SHARED, NULL, err);
}

static fm_status open_path(const fm_allocator *a, void *path)
{
    fm_st s;
    FM_TRY(fm_st_open(&s, path, FM_MAP_SHARED, a, NULL));
    read_everything(&s);
    fm_st_close(&s);
    return FM_OK;
}

static void test_shards(void **state)
{
    (void)state;
    static const char INDEX[] = "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"q\":\"m2\",\"p\":\"m1\",\"r\":\"m3\"}}";
    const test_folder f = test_folder_make();
    fm_st s;
    fm_error err = {FM_OK, ""};
    write_shard(&f, "m1", "p");
    write_shard(&f, "m3", "r");
    assert_fails(open_index(&s, &f, INDEX, &err), FM_ERR_FORMAT, err, "/m2: this shard is missing (2 of the 3");
    write_shard(&f, "m2", "q");
    assert_ok(open_index(&s, &f, INDEX, &err));
    assert_true(s.n_maps == 3 && s.n_tensors == 3 && fm_st_find(&s, "r")->part == 2);
    assert_string_equal(s.metadata, "{\"file\":\"m1\"}");
    read_everything(&s);
    fm_st_close(&s);
    write_shard(&f, "m2", "other");
    assert_fails(open_index(&s, &f, INDEX, &err), FM_ERR_FORMAT, err, "says tensor 'q' is in 'm2', which does not hold it");
    write_shard(&f, "m2", "p");
    assert_fails(open_index(&s, &f, INDEX, &err), FM_ERR_FORMAT, err, "tensor 'p' is there twice");
    write_shard(&f, "m2", "q");
    assert_fails(open_index(&s, &f, "{\"weight_map\":{\"q\":\"m1\",\"p\":\"m2\"}}", &err), FM_ERR_FORMAT, err,
                 "is not the shard that holds it");
    test_folder_remove(&f);
}

static void test_refused_indices(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"weight_map\":{\"p\":\"../m1\"}}", "names a shard '../m1', expected a plain file name"},
        {"{\"weight_map\":{\"p\":\"..\"}}", "expected a plain file name"},
        {"{\"weight_map\":{\"p\":\"/etc/passwd\"}}", "expected a plain file name"},
        {"{\"weight_map\":{\"p\":\"sub\\u002fm1\"}}", "expected a plain file name"},
        {"{\"weight_map\":{\"p\":\"m1\\u0000\"}}", "zero byte"},
        {"{\"weight_map\":{\"p\":\"\"}}", "empty"},
        {"{\"weight_map\":{\"p\":7}}", "index.json"},
        {"{\"weight_map\":{}}", "weight_map is empty"},
        {"{\"weight_map\":{\"p\":\"m1\"},\"weight_map\":{}}", "weight_map is there twice"},
        {"{}", "weight_map is missing"},
        {"[]", "index.json"},
        {"", "index.json"},
        {"version https://git-lfs.github.com/spec/v1\noid", "expected JSON, found a Git LFS pointer"},
    };
    const test_folder f = test_folder_make();
    write_shard(&f, "m1", "p");
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_st s;
        fm_error err = {FM_OK, ""};
        assert_fails(open_index(&s, &f, cases[i][0], &err), FM_ERR_FORMAT, err, cases[i][1]);
    }
    test_folder_remove(&f);
}

static void test_allocations(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    bytes b = make_file(SAMPLE, SAMPLE_DATA);
    test_file_write(test_path(path, &f, "x.safetensors"), b.p, b.n);
    assert_true(test_every_allocation(open_path, path) >= 8);
    write_shard(&f, "m1", "p");
    write_shard(&f, "m2", "q");
    fm_st s;
    assert_ok(open_index(&s, &f, "{\"weight_map\":{\"q\":\"m2\",\"p\":\"m1\"}}", NULL));
    fm_st_close(&s);
    assert_true(test_every_allocation(open_path, test_path(path, &f, "model.safetensors.index.json")) >= 12);
    free(b.p);
    test_folder_remove(&f);
}

static void test_write_then_read(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    fm_st_writer w;
    fm_st s;
    fm_error err = {FM_OK, ""};
    assert_ok(fm_st_create(&w, test_path(path, &f, "w.safetensors"), NULL, &err));
    assert_ok(fm_st_put_tensor(&w, "b \"quoted\" \xC3\xA9", FM_ST_F32, (const uint64_t[]){2, 2}, 2, &err));
    assert_ok(fm_st_put_tensor(&w, "a", FM_ST_BF16, (const uint64_t[]){3}, 1, &err));
    assert_ok(fm_st_put_tensor(&w, "none", FM_ST_I64, (const uint64_t[]){0}, 1, &err));
    assert_ok(fm_st_put_tensor(&w, "scalar", FM_ST_U8, NULL, 0, &err));
    assert_ok(fm_st_begin_data(&w, &err));
    assert_ok(fm_st_write(&w, (const float[]){1, 2, 3, 4}, 16, &err));
    assert_ok(fm_st_write(&w, "abcdefg", 7, &err));
    assert_ok(fm_st_commit(&w, &err));
    assert_ok(fm_st_open(&s, path, FM_MAP_READ, NULL, &err));
    assert_int_equal(s.n_tensors, 4);
    assert_string_equal(s.metadata, "{\"format\":\"pt\"}");
    const fm_st_tensor *b = fm_st_find(&s, "b \"quoted\" \xC3\xA9"), *a = fm_st_find(&s, "a");
    assert_true(b != NULL && b->n_dims == 2 && b->type == FM_ST_F32 && ((const float *)b->data)[3] == 4.0f);
    assert_int_equal((size_t)(b->data - s.maps[0].p) % 8, 0);
    assert_true(a != NULL && a->type == FM_ST_BF16 && memcmp(a->data, "abcdef", 6) == 0);
    assert_true(fm_st_find(&s, "scalar")->data[0] == 'g' && fm_st_find(&s, "none")->bytes == 0);
    fm_st_close(&s);
    test_folder_remove(&f);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    fm_st_writer w;
    fm_error err = {FM_OK, ""};
    const uint64_t dims[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, huge[] = {1ull << 40, 1ull << 40};
    assert_ok(fm_st_create(&w, test_path(path, &f, "w.safetensors"), NULL, &err));
    assert_fails(fm_st_put_tensor(&w, "x", FM_ST_F32, dims, 9, &err), FM_ERR_SHAPE, err, "9 dimensions");
    assert_fails(fm_st_put_tensor(&w, "", FM_ST_F32, dims, 1, &err), FM_ERR_SHAPE, err, "takes names");
    assert_fails(fm_st_put_tensor(&w, "x", FM_ST_F32, huge, 2, &err), FM_ERR_SHAPE, err, "too large");
    assert_ok(fm_st_put_tensor(&w, "x", FM_ST_F32, dims, 8, &err));
    assert_ok(fm_st_begin_data(&w, &err));
    assert_ok(fm_st_write(&w, "abc", 3, &err));
    assert_fails(fm_st_commit(&w, &err), FM_ERR_ARGUMENT, err, "4 bytes were announced, but 3 were written");
    assert_int_equal(test_folder_count(&f), 0);
    assert_ok(fm_st_create(&w, path, NULL, &err));
    fm_st_abort(&w);
    assert_int_equal(test_folder_count(&f), 0);
    test_folder_remove(&f);
}

/* tests/data/format/peer.safetensors was written by the safetensors package (tests/oracles/format_oracle.py make). */
static void test_peer_file(void **state)
{
    (void)state;
    fm_st s;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    assert_ok(fm_st_open(&s, FM_SOURCE_DIR "/tests/data/format/peer.safetensors", FM_MAP_SHARED, NULL, &err));
    assert_int_equal(s.n_tensors, 8);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "f32"), &err));
    assert_true(t.rows == 2 && t.cols == 3 && ((const float *)t.data)[5] == 5.0f);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "conv"), &err));
    assert_true(t.rows == 2 && t.cols == 4 && ((const float *)fm_tensor_row(&t, 1))[0] == 4.0f);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "f16"), &err));
    assert_true(t.type == FM_F16 && fm_f16_to_f32(((const uint16_t *)t.data)[3]) == 1.5f);
    assert_ok(fm_st_as_tensor(&t, &s, fm_st_find(&s, "scalar"), &err));
    assert_true(t.rows == 1 && t.cols == 1 && *(const float *)t.data == 2.5f);
    assert_string_equal(fm_st_find(&s, "u16")->type_name, "U16");
    assert_int_equal(fm_st_find(&s, "i64")->type, FM_ST_I64);
    assert_int_equal(fm_st_find(&s, "b")->type, FM_ST_BOOL);
    assert_int_equal(fm_st_find(&s, "empty")->bytes, 0);
    assert_non_null(strstr(s.metadata, "\"note\":"));
    fm_st_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),           cmocka_unit_test(test_cut_off),     cmocka_unit_test(test_altered_bytes),
        cmocka_unit_test(test_refused_headers), cmocka_unit_test(test_other_files), cmocka_unit_test(test_shards),
        cmocka_unit_test(test_refused_indices), cmocka_unit_test(test_allocations), cmocka_unit_test(test_write_then_read),
        cmocka_unit_test(test_writer_refuses),  cmocka_unit_test(test_peer_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
