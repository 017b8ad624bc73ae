/* test_gguf.c - GGUF files read, refused and written.  Nastier ones are in test_format_adversary.c. */
#include "unit/format_build.h"

#include "base/json.h"

static const uint64_t DIMS_F32[] = {4, 3}, DIMS_Q8[] = {32, 2}, DIMS_I32[] = {5}, DIMS_ODD[] = {7, 2};

#define DATA_BYTES ((size_t)224) /* of the file below, from the data section's begin */

/* Every kind of value, nested arrays, four tensors: plain, quantised, of a type we can only size, of a type nobody knows.
 * `pad` bytes of text come first. */
static bytes make_file(size_t pad)
{
    bytes b = {NULL, 0, 0};
    put_head(&b, 4, 19);
    put_key(&b, "pad", FM_GGUF_STRING);
    put_u64(&b, pad);
    for (size_t i = 0; i < pad; i++) put(&b, "x", 1);
    put_key(&b, "t.u8", FM_GGUF_U8), put_u8(&b, 200);
    put_key(&b, "t.i8", FM_GGUF_I8), put_u8(&b, (uint8_t)-5);
    put_key(&b, "t.u16", FM_GGUF_U16), put_u16(&b, 60000);
    put_key(&b, "t.i16", FM_GGUF_I16), put_u16(&b, (uint16_t)-300);
    put_key(&b, "t.u32", FM_GGUF_U32), put_u32(&b, 4000000000u);
    put_key(&b, "t.i32", FM_GGUF_I32), put_u32(&b, (uint32_t)-70000);
    put_key(&b, "t.f32", FM_GGUF_F32), put(&b, &(float){1e-5f}, 4);
    put_key(&b, "t.bool", FM_GGUF_BOOL), put_u8(&b, 1);
    put_key(&b, "t.string", FM_GGUF_STRING), put_text(&b, "h\xC3\xA9\xFF\"");
    put_key(&b, "t.u64", FM_GGUF_U64), put_u64(&b, UINT64_MAX);
    put_key(&b, "t.i64", FM_GGUF_I64), put_u64(&b, (uint64_t)INT64_MIN);
    put_key(&b, "t.f64", FM_GGUF_F64), put(&b, &(double){0.1}, 8);
    put_array(&b, "a.empty", FM_GGUF_U32, 0);
    put_array(&b, "a.i16", FM_GGUF_I16, 3), put_u16(&b, 1), put_u16(&b, (uint16_t)-2), put_u16(&b, 3);
    put_array(&b, "a.f32", FM_GGUF_F32, 2), put(&b, (const float[]){0.5f, -2.5f}, 8);
    put_array(&b, "a.strings", FM_GGUF_STRING, 3), put_text(&b, "one"), put_text(&b, ""), put_text(&b, "three");
    put_array(&b, "a.nested", FM_GGUF_ARRAY, 2);
    put_u32(&b, FM_GGUF_U8), put_u64(&b, 2), put_u8(&b, 7), put_u8(&b, 8);
    put_u32(&b, FM_GGUF_STRING), put_u64(&b, 1), put_text(&b, "in");
    put_array(&b, "a.bool", FM_GGUF_BOOL, 2), put_u8(&b, 1), put_u8(&b, 0);
    put_info(&b, "plain", DIMS_F32, 2, 0, 0);
    put_info(&b, "quantised", DIMS_Q8, 2, 8, 64);
    put_info(&b, "integers", DIMS_I32, 1, 26, 160);
    put_info(&b, "strange", DIMS_ODD, 2, 4242, 192);
    pad_to(&b, 32);
    for (unsigned i = 0; i < 12; i++) put(&b, &(float){(float)i}, 4);
    put_zeros(&b, 16);
    for (unsigned i = 0; i < 68; i++) put_u8(&b, (uint8_t)i);
    put_zeros(&b, 28);
    for (unsigned i = 0; i < 5; i++) put_u32(&b, i);
    put_zeros(&b, 12); /* so that the strange one's place is inside the file */
    return b;
}

static fm_status open_bytes(fm_gguf *g, const test_folder *f, const bytes *b, fm_error *err)
{
    char path[256];
    test_file_write(test_path(path, f, "x.gguf"), b->p, b->n);
    return fm_gguf_open(g, path, FM_MAP_SHARED, NULL, err);
}

/* Reads all there is to read: what opening has accepted must not lead out of the file. */
static uint64_t read_everything(const fm_gguf *g)
{
    uint64_t sum = 0;
    fm_str text = {.p = NULL};
    for (size_t i = 0; i < g->n_kv; i++) {
        const fm_gguf_kv *kv = &g->kv[i];
        fm_str_reset(&text);
        fm_gguf_kv_json(&text, kv, 4);
        fm_gguf_kv_json(&text, kv, SIZE_MAX);
        sum += text.n;
        const unsigned char *at = NULL;
        fm_view v;
        while (fm_gguf_string_next(kv, &at, &v))
            for (size_t c = 0; c < v.n; c++) sum += (unsigned char)v.p[c];
        if (kv->type != FM_GGUF_ARRAY || kv->element == FM_GGUF_STRING || kv->element == FM_GGUF_ARRAY) continue;
        for (uint64_t e = 0; e < kv->count; e++) sum += (uint64_t)fm_gguf_array_i64(kv, e) + (fm_gguf_array_f64(kv, e) > 0.0);
    }
    for (size_t i = 0; i < g->n_tensors; i++) {
        fm_tensor t;
        if (fm_gguf_as_tensor(&t, g, &g->tensors[i], NULL) != FM_OK) continue;
        const unsigned char *p = t.data;
        for (size_t c = 0; c < t.rows * t.stride; c++) sum += p[c];
    }
    fm_str_free(&text);
    return sum;
}

static void test_scalars(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes b = make_file(1);
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    assert_ok(open_bytes(&g, &f, &b, &err));
    assert_int_equal(g.n_kv, 19);
    static const struct {
        const char *key;
        double value;
    } numbers[] = {{"t.u8", 200},     {"t.i8", -5},      {"t.u16", 60000},   {"t.i16", -300}, {"t.u32", 4e9},
                   {"t.i32", -70000}, {"t.u64", 0x1p64}, {"t.i64", -0x1p63}, {"t.f64", 0.1},  {"t.f32", (double)1e-5f}};
    for (size_t i = 0; i < FM_COUNT(numbers); i++) {
        double d = 0.0;
        bool found = false;
        assert_ok(fm_gguf_get_f64(&g, numbers[i].key, &d, &found, &err));
        assert_true(found && d == numbers[i].value);
    }
    uint64_t u = 0;
    assert_ok(fm_gguf_get_u64(&g, "t.u64", &u, NULL, &err));
    assert_true(u == UINT64_MAX);
    assert_ok(fm_gguf_get_u64(&g, "t.u8", &u, NULL, &err));
    assert_int_equal(u, 200);
    bool flag = false, found = true;
    assert_ok(fm_gguf_get_bool(&g, "t.bool", &flag, &found, &err));
    assert_true(flag && found);
    fm_view v = FM_VIEW("untouched");
    assert_ok(fm_gguf_get_string(&g, "t.nothing", &v, &found, &err));
    assert_true(!found && fm_view_is(v, "untouched"));
    assert_ok(fm_gguf_get_string(&g, "t.string", &v, &found, &err));
    assert_true(found && fm_view_is(v, "h\xC3\xA9\xFF\""));
    assert_fails(fm_gguf_get_u64(&g, "t.i8", &u, NULL, &err), FM_ERR_FORMAT, err, "'t.i8' is -5");
    assert_fails(fm_gguf_get_u64(&g, "t.f32", &u, NULL, &err), FM_ERR_FORMAT, err,
                 "'t.f32' is of type f32, expected an unsigned");
    assert_fails(fm_gguf_get_u64(&g, "t.bool", &u, NULL, &err), FM_ERR_FORMAT, err, "type bool");
    assert_fails(fm_gguf_get_bool(&g, "t.u8", &flag, NULL, &err), FM_ERR_FORMAT, err, "expected a boolean");
    assert_fails(fm_gguf_get_string(&g, "a.i16", &v, NULL, &err), FM_ERR_FORMAT, err, "type array, expected a string");
    assert_fails(fm_gguf_get_f64(&g, "t.string", &(double){0}, NULL, &err), FM_ERR_FORMAT, err, "expected a number");
    assert_null(fm_gguf_find(&g, "t.u"));
    fm_gguf_close(&g);
    free(b.p);
    test_folder_remove(&f);
}

static void assert_json(const fm_gguf *g, const char *key, size_t max, const char *want)
{
    fm_str s = {.p = NULL};
    const fm_gguf_kv *kv = fm_gguf_find(g, key);
    assert_non_null(kv);
    fm_gguf_kv_json(&s, kv, max);
    assert_string_equal(s.p, want);
    fm_str_free(&s);
}

static void test_arrays(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes b = make_file(0);
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    assert_ok(open_bytes(&g, &f, &b, &err));
    const fm_gguf_kv *a = fm_gguf_find(&g, "a.i16");
    assert_true(a != NULL && a->count == 3 && fm_gguf_array_i64(a, 1) == -2 && fm_gguf_array_f64(a, 2) == 3.0);
    a = fm_gguf_find(&g, "a.f32");
    assert_true(a != NULL && fm_gguf_array_f64(a, 1) == -2.5 && fm_gguf_array_i64(a, 1) == -2);
    const unsigned char *at = NULL;
    fm_view v;
    a = fm_gguf_find(&g, "a.strings");
    assert_true(fm_gguf_string_next(a, &at, &v) && fm_view_is(v, "one"));
    assert_true(fm_gguf_string_next(a, &at, &v) && v.n == 0);
    assert_true(fm_gguf_string_next(a, &at, &v) && fm_view_is(v, "three"));
    assert_false(fm_gguf_string_next(a, &at, &v));
    at = NULL;
    assert_false(fm_gguf_string_next(fm_gguf_find(&g, "a.i16"), &at, &v));
    assert_json(&g, "a.empty", 9, "[]");
    assert_json(&g, "a.i16", 9, "[1,-2,3]");
    assert_json(&g, "a.i16", 2, "{\"count\":3,\"first\":[1,-2]}");
    assert_json(&g, "a.strings", 1, "{\"count\":3,\"first\":[\"one\"]}");
    assert_json(&g, "a.nested", 2, "[[7,8],[\"in\"]]");
    assert_json(&g, "a.nested", 1, "{\"count\":2,\"first\":[{\"count\":2,\"first\":[7]}]}");
    assert_json(&g, "a.bool", 9, "[true,false]");
    assert_json(&g, "t.string", 9, "\"h\xC3\xA9\xEF\xBF\xBD\\\"\"");
    assert_json(&g, "t.u64", 9, "18446744073709551615");
    assert_json(&g, "t.i64", 9, "-9223372036854775808");
    assert_json(&g, "t.f64", 9, "0.1");
    fm_gguf_close(&g);
    free(b.p);
    test_folder_remove(&f);
}

static void test_tensors(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes b = make_file(3);
    fm_gguf g;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    assert_ok(open_bytes(&g, &f, &b, &err));
    assert_int_equal(g.n_tensors, 4);
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "plain"), &err));
    assert_true(t.type == FM_F32 && t.rows == 3 && t.cols == 4 && t.stride == 16);
    assert_true(((const float *)fm_tensor_row(&t, 2))[3] == 11.0f);
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "quantised"), &err));
    assert_true(t.type == FM_Q8_0 && t.rows == 2 && t.cols == 32 && t.stride == 34);
    assert_int_equal(((const unsigned char *)fm_tensor_row(&t, 1))[0], 34);
    const fm_gguf_tensor *i = fm_gguf_find_tensor(&g, "integers"), *s = fm_gguf_find_tensor(&g, "strange");
    assert_true(i->bytes == 20 && i->data != NULL && i->data[16] == 4);
    assert_true(s->bytes == 0 && s->data == NULL);
    assert_fails(fm_gguf_as_tensor(&t, &g, i, &err), FM_ERR_UNSUPPORTED, err, "'integers' has type I32 (number 26)");
    assert_fails(fm_gguf_as_tensor(&t, &g, s, &err), FM_ERR_UNSUPPORTED, err, "'strange' has type unknown (number 4242)");
    assert_null(fm_gguf_find_tensor(&g, "missing"));
    fm_gguf_close(&g);
    free(b.p);
    test_folder_remove(&f);
}

/* A file that ends at byte n, for every n, laid out so that the file fills a page and what follows may not be touched. */
static void test_cut_off(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes whole = make_file(0);
    guard *guarded = calloc(1, sizeof(*guarded));
    assert_non_null(guarded);
    guard_make(guarded);
    size_t n_guarded = 0;
    /* The pad comes first among the keys; after the header only whole units of alignment leave the layout as it is. */
    const size_t pad_at = 24 + 8 + 3 + 4 + 8;
    for (size_t n = 0; n <= whole.n; n++) {
        size_t pad = n < pad_at ? 0 : PAGE - n % PAGE;
        if (n > whole.n - DATA_BYTES) pad = pad / 32 * 32;
        bytes b = make_file(pad);
        b.n = n + pad;
        fm_gguf g;
        fm_error err = {FM_OK, ""};
        const fm_status status = open_bytes(&g, &f, &b, &err);
        if (n < whole.n) {
            assert_int_equal(status, FM_ERR_FORMAT);
            assert_true(strstr(err.text, "cut off") != NULL || strstr(err.text, "empty") != NULL ||
                        strstr(err.text, "does not begin") != NULL);
            assert_null(g.maps);
        } else {
            assert_int_equal(status, FM_OK);
            n_guarded += guard_holds(guarded, g.maps[0].p);
            read_everything(&g);
            fm_gguf_close(&g);
        }
        free(b.p);
    }
    if (n_guarded == 0) print_message("no forbidden page followed the files\n");
    guard_free(guarded);
    free(guarded);
    free(whole.p);
    test_folder_remove(&f);
}

static void test_altered_bytes(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    static const unsigned char masks[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    bytes b = make_file(0);
    size_t n_refused = 0;
    uint64_t sum = 0;
    for (size_t i = 0; i < b.n; i++) {
        for (size_t m = 0; m < FM_COUNT(masks); m++) {
            b.p[i] ^= masks[m];
            fm_gguf g;
            fm_error err = {FM_OK, ""};
            if (open_bytes(&g, &f, &b, &err) == FM_OK) {
                sum += read_everything(&g);
                fm_gguf_close(&g);
            } else {
                assert_true(err.code != FM_OK && err.text[0] != '\0');
                n_refused++;
            }
            b.p[i] ^= masks[m];
        }
    }
    assert_true(n_refused > 300 && sum > 0);
    free(b.p);
    test_folder_remove(&f);
}

static fm_status open_path(const fm_allocator *a, void *path)
{
    fm_gguf g;
    FM_TRY(fm_gguf_open(&g, path, FM_MAP_SHARED, a, NULL));
    read_everything(&g);
    fm_gguf_close(&g);
    return FM_OK;
}

static void test_allocations(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    bytes b = make_file(0);
    test_file_write(test_path(path, &f, "x.gguf"), b.p, b.n);
    assert_true(test_every_allocation(open_path, path) >= 7);
    free(b.p);
    test_folder_remove(&f);
}

static void test_not_gguf(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        size_t n;
        const char *says;
    } files[] = {
        {"", 0, "empty"},
        {"GGU", 3, "does not begin with 'GGUF'"},
        {"GGUF", 4, "cut off"},
        {"GGUF\x01\0\0\0zzzz", 12, "GGUF version 1, expected 2 or 3: convert"},
        {"GGUF\x04\0\0\0zzzz", 12, "version 4, this program reads versions 2 and 3"},
        {"GGUF\0\0\0\x03zzzz", 12, "big-endian GGUF file (version 3)"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, "Git LFS pointer"},
        {"<!DOCTYPE html><html>", 21, "HTML"},
        {"PK\x03\x04zzzzzzzzz", 13, "zip archive"},
        {"\x80\x02}q\x00zzzz", 9, "pickle"},
        {"tjggzzzzzzzz", 12, "before GGUF"},
        {"\x20\0\0\0\0\0\0\0{\"a\":1}", 15, "a safetensors file"},
        {"random bytes", 12, "not a GGUF file"},
    };
    const test_folder f = test_folder_make();
    for (size_t i = 0; i < FM_COUNT(files); i++) {
        bytes b = {NULL, 0, 0};
        put(&b, files[i].head, files[i].n);
        fm_gguf g;
        fm_error err = {FM_OK, ""};
        const fm_status want = i == 4 ? FM_ERR_UNSUPPORTED : FM_ERR_FORMAT;
        assert_fails(open_bytes(&g, &f, &b, &err), want, err, files[i].says);
        free(b.p);
    }
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    assert_fails(fm_gguf_open(&g, "no/such/file.gguf", FM_MAP_SHARED, NULL, &err), FM_ERR_IO, err, "no/such/file.gguf");
    fm_gguf_close(&g); /* harmless */
    test_folder_remove(&f);
}

static void write_sample(fm_gguf_writer *w, const fm_gguf *from)
{
    fm_error err = {FM_OK, ""};
    fm_gguf_put_u32(w, "w.u32", 7);
    fm_gguf_put_u64(w, "w.u64", 1ull << 40);
    fm_gguf_put_f32(w, "w.f32", 0.25f);
    fm_gguf_put_bool(w, "w.bool", true);
    fm_gguf_put_string(w, "w.string", FM_VIEW("text"));
    fm_gguf_put_strings(w, "w.strings", (const fm_view[]){FM_VIEW("a"), {NULL, 0}, FM_VIEW("bc")}, 3);
    fm_gguf_put_i32s(w, "w.i32s", (const int32_t[]){-1, 2}, 2);
    fm_gguf_put_f32s(w, "w.f32s", (const float[]){0.5f}, 1);
    for (size_t i = 0; i < from->n_kv; i++) fm_gguf_put_copy(w, &from->kv[i]);
    assert_ok(fm_gguf_put_tensor(w, "one", FM_F32, (const uint64_t[]){3}, 1, &err));
    assert_ok(fm_gguf_put_tensor(w, "two", FM_Q8_0, (const uint64_t[]){32, 2, 2}, 3, &err));
    assert_ok(fm_gguf_begin_data(w, &err));
    assert_ok(fm_gguf_write(w, (const float[]){1.0f, 2.0f}, 8, &err));
    assert_ok(fm_gguf_write(w, (const float[]){3.0f}, 4, &err));
    assert_ok(fm_gguf_end_tensor(w, &err));
    const unsigned char zeros[4 * 34] = {9};
    assert_ok(fm_gguf_write(w, zeros, sizeof(zeros), &err));
    assert_ok(fm_gguf_end_tensor(w, &err));
    assert_ok(fm_gguf_commit(w, &err));
}

static void test_write_then_read(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    bytes b = make_file(5);
    char path[256];
    fm_gguf from, g;
    fm_gguf_writer w;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    assert_ok(open_bytes(&from, &f, &b, &err));
    assert_ok(fm_gguf_create(&w, test_path(path, &f, "w.gguf"), NULL, &err));
    write_sample(&w, &from);
    assert_int_equal(test_folder_count(&f), 2);
    assert_ok(fm_gguf_open(&g, path, FM_MAP_READ, NULL, &err));
    assert_int_equal(g.n_kv, from.n_kv + 8);
    for (size_t i = 0; i < from.n_kv; i++) {
        const fm_gguf_kv *x = &from.kv[i], *y = &g.kv[i + 8];
        assert_true(fm_view_eq(x->key, y->key) && x->type == y->type && x->count == y->count && x->element == y->element);
        assert_int_equal(x->end - x->data, y->end - y->data);
        assert_memory_equal(x->data, y->data, (size_t)(x->end - x->data));
    }
    assert_json(&g, "w.u32", 9, "7");
    assert_json(&g, "w.u64", 9, "1099511627776");
    assert_json(&g, "w.f32", 9, "0.25");
    assert_json(&g, "w.bool", 9, "true");
    assert_json(&g, "w.string", 9, "\"text\"");
    assert_json(&g, "w.strings", 9, "[\"a\",\"\",\"bc\"]");
    assert_json(&g, "w.i32s", 9, "[-1,2]");
    assert_json(&g, "w.f32s", 9, "[0.5]");
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "one"), &err));
    assert_true(t.rows == 1 && t.cols == 3 && ((const float *)t.data)[2] == 3.0f);
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "two"), &err));
    assert_true(t.rows == 4 && t.cols == 32 && ((const unsigned char *)t.data)[0] == 9);
    assert_int_equal(g.maps[0].n % 32, 0);
    fm_gguf_close(&g);
    fm_gguf_close(&from);
    free(b.p);
    test_folder_remove(&f);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256], name[66];
    memset(name, 'n', sizeof(name));
    name[64] = '\0';
    fm_gguf_writer w;
    fm_error err = {FM_OK, ""};
    const uint64_t d[] = {32, 1, 1, 1, 1}, zero[] = {0}, odd[] = {33}, huge[] = {1ull << 33, 1ull << 33};
    assert_ok(fm_gguf_create(&w, test_path(path, &f, "w.gguf"), NULL, &err));
    assert_fails(fm_gguf_put_tensor(&w, name, FM_F32, d, 1, &err), FM_ERR_LIMIT, err, "64 bytes, a GGUF file takes 1 to 63");
    assert_fails(fm_gguf_put_tensor(&w, "", FM_F32, d, 1, &err), FM_ERR_LIMIT, err, "0 bytes");
    assert_fails(fm_gguf_put_tensor(&w, "x", FM_F32, d, 5, &err), FM_ERR_SHAPE, err, "5 dimensions");
    assert_fails(fm_gguf_put_tensor(&w, "x", FM_F32, zero, 1, &err), FM_ERR_SHAPE, err, "empty");
    assert_fails(fm_gguf_put_tensor(&w, "x", FM_F32, huge, 2, &err), FM_ERR_SHAPE, err, "too large");
    assert_fails(fm_gguf_put_tensor(&w, "x", FM_Q8_0, odd, 1, &err), FM_ERR_SHAPE, err, "multiple of 32");
    name[63] = '\0';
    assert_ok(fm_gguf_put_tensor(&w, name, FM_F32, d, 1, &err));
    assert_ok(fm_gguf_begin_data(&w, &err));
    assert_ok(fm_gguf_write(&w, "abc", 3, &err));
    assert_fails(fm_gguf_end_tensor(&w, &err), FM_ERR_ARGUMENT, err, "announced with 128 bytes, but 3 were written");
    assert_fails(fm_gguf_commit(&w, &err), FM_ERR_ARGUMENT, err, "0 of the 1 announced tensors");
    assert_int_equal(test_folder_count(&f), 0);
    assert_ok(fm_gguf_create(&w, path, NULL, &err));
    fm_gguf_put_u32(&w, "k", 1);
    fm_gguf_abort(&w);
    assert_int_equal(test_folder_count(&f), 0);
    test_folder_remove(&f);
}

/* Part `no` (from 0) of `count`, holding one tensor; written as s-0000X-of-0000N.gguf. */
static void write_part(const test_folder *f, unsigned no, unsigned count, const char *tensor, int total)
{
    char name[64], path[256];
    bytes b = {NULL, 0, 0};
    put_head(&b, 1, 3);
    put_key(&b, "split.no", FM_GGUF_U16), put_u16(&b, (uint16_t)no);
    put_key(&b, "split.count", FM_GGUF_U16), put_u16(&b, (uint16_t)count);
    put_key(&b, "split.tensors.count", FM_GGUF_I32), put_u32(&b, (uint32_t)total);
    put_info(&b, tensor, (const uint64_t[]){2}, 1, 0, 0);
    pad_to(&b, 32);
    put(&b, (const float[]){(float)no, 1.0f}, 8);
    snprintf(name, sizeof(name), "s-%05u-of-%05u.gguf", no + 1, count);
    test_file_write(test_path(path, f, name), b.p, b.n);
    free(b.p);
}

static void test_split(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char first[256], other[256];
    fm_gguf g;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    test_path(first, &f, "s-00001-of-00003.gguf");
    write_part(&f, 0, 3, "a", 3);
    write_part(&f, 2, 3, "c", 3);
    assert_fails(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err, "part 2 of the split model");
    assert_non_null(strstr(err.text, "2 of 3 parts are there"));
    write_part(&f, 1, 3, "b", 3);
    assert_ok(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err));
    assert_true(g.n_maps == 3 && g.n_tensors == 3 && g.n_kv == 3);
    const fm_gguf_tensor *c = fm_gguf_find_tensor(&g, "c");
    assert_true(c != NULL && c->part == 2 && strstr(g.paths[2], "-00003-of-00003.gguf") != NULL);
    assert_ok(fm_gguf_as_tensor(&t, &g, c, &err));
    assert_true(((const float *)t.data)[0] == 2.0f);
    fm_gguf_close(&g);
    assert_true(test_every_allocation(open_path, first) > 20);
    test_path(other, &f, "s-00002-of-00003.gguf");
    assert_fails(fm_gguf_open(&g, other, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err,
                 "is part 2 of 3 of a split model: give");
    write_part(&f, 1, 3, "a", 3);
    assert_fails(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err, "tensor 'a' is there twice");
    write_part(&f, 1, 3, "b", 3);
    write_part(&f, 0, 3, "a", 4);
    assert_fails(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err,
                 "hold 3 tensors, split.tensors.count says 4");
    write_part(&f, 0, 3, "a", 3);
    assert_int_equal(rename(test_path(other, &f, "s-00003-of-00003.gguf"), first), 0);
    write_part(&f, 2, 3, "c", 3);
    assert_fails(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err, "is part 3 of 3");
    write_part(&f, 0, 3, "a", 3);
    assert_int_equal(rename(first, test_path(other, &f, "renamed.gguf")), 0);
    assert_fails(fm_gguf_open(&g, other, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err, "its name does not end in");
    write_part(&f, 0, 3, "a", 3);
    assert_int_equal(rename(test_path(other, &f, "s-00003-of-00003.gguf"), test_path((char[256]){0}, &f, "gone")), 0);
    write_part(&f, 1, 2, "b", 3);
    assert_int_equal(
        rename(test_path(other, &f, "s-00002-of-00002.gguf"), test_path((char[256]){0}, &f, "s-00003-of-00003.gguf")), 0);
    assert_fails(fm_gguf_open(&g, first, FM_MAP_SHARED, NULL, &err), FM_ERR_FORMAT, err,
                 "says it is part 2 of 2, expected part 3 of 3");
    test_folder_remove(&f);
}

/* tests/data/format/peer.gguf was written by the gguf package of Python (tests/oracles/format_oracle.py make). */
static void test_peer_file(void **state)
{
    (void)state;
    fm_gguf g;
    fm_tensor t;
    fm_error err = {FM_OK, ""};
    assert_ok(fm_gguf_open(&g, FM_SOURCE_DIR "/tests/data/format/peer.gguf", FM_MAP_SHARED, NULL, &err));
    assert_json(&g, "general.architecture", 9, "\"mamba\"");
    assert_json(&g, "k.u8", 9, "250");
    assert_json(&g, "k.i8", 9, "-7");
    assert_json(&g, "k.u16", 9, "65535");
    assert_json(&g, "k.i16", 9, "-32768");
    assert_json(&g, "k.u32", 9, "4294967295");
    assert_json(&g, "k.i32", 9, "-2147483648");
    assert_json(&g, "k.u64", 9, "18446744073709551615");
    assert_json(&g, "k.i64", 9, "-9223372036854775808");
    assert_json(&g, "k.f32", 9, "0.00001");
    assert_json(&g, "k.f64", 9, "0.1");
    assert_json(&g, "k.bool", 9, "true");
    assert_json(&g, "k.string", 9, "\"caf\xC3\xA9\"");
    assert_json(&g, "k.strings", 9, "[\"a\",\"\",\"\xE2\x82\xAC\"]");
    assert_json(&g, "k.ints", 9, "[1,-2,3]");
    assert_json(&g, "k.floats", 9, "[0.5,-1.5]");
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "f32"), &err));
    assert_true(t.type == FM_F32 && t.rows == 2 && t.cols == 3 && ((const float *)t.data)[5] == 5.0f);
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "f16"), &err));
    assert_true(t.type == FM_F16 && t.rows == 1 && t.cols == 4 && fm_f16_to_f32(((const uint16_t *)t.data)[3]) == 1.5f);
    assert_ok(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "q8_0"), &err));
    assert_true(t.type == FM_Q8_0 && t.rows == 3 && t.cols == 64 && t.stride == 68);
    assert_fails(fm_gguf_as_tensor(&t, &g, fm_gguf_find_tensor(&g, "i32"), &err), FM_ERR_UNSUPPORTED, err, "I32");
    fm_gguf_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),  cmocka_unit_test(test_arrays),          cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_cut_off),  cmocka_unit_test(test_altered_bytes),   cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_not_gguf), cmocka_unit_test(test_write_then_read), cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_split),    cmocka_unit_test(test_peer_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
