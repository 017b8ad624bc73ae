/* test_format_adversary.c - files made to hurt: counts and lengths near every limit of 64 bits, deep nesting, names that
 * collide, and lists long enough that anything slower than n log n would be noticed. */
#include <time.h>

#include "unit/format_build.h"

#include "format/internal.h"
#include "format/safetensors.h"

static fm_status open_bytes(fm_gguf *g, const test_folder *f, const bytes *b, fm_error *err)
{
    char path[256];
    test_file_write(test_path(path, f, "x.gguf"), b->p, b->n);
    return fm_gguf_open(g, path, FM_MAP_SHARED, NULL, err);
}

/* Opens b, which must be refused with this sentence, and frees it. */
static void refuse(bytes b, fm_status want, const char *says)
{
    const test_folder f = test_folder_make();
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    assert_fails(open_bytes(&g, &f, &b, &err), want, err, says);
    assert_null(g.maps);
    free(b.p);
    test_folder_remove(&f);
}

static void accept(bytes b)
{
    const test_folder f = test_folder_make();
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    if (open_bytes(&g, &f, &b, &err) != FM_OK) fail_msg("%s", err.text);
    fm_gguf_close(&g);
    free(b.p);
    test_folder_remove(&f);
}

static bytes head(uint64_t n_tensors, uint64_t n_kv)
{
    bytes b = {NULL, 0, 0};
    put_head(&b, n_tensors, n_kv);
    return b;
}

static void test_counts(void **state)
{
    (void)state;
    static const uint64_t counts[] = {UINT64_MAX, 1ull << 63, 1ull << 60, 1ull << 32, 1000000, 4};
    for (size_t i = 0; i < FM_COUNT(counts); i++) {
        bytes b = head(0, counts[i]);
        put_zeros(&b, 50);
        refuse(b, FM_ERR_FORMAT, "which cannot fit in a file of 74 bytes");
        b = head(counts[i], 0);
        put_zeros(&b, 50);
        refuse(b, FM_ERR_FORMAT, "which cannot fit in a file of 74 bytes");
    }
    accept(head(0, 0));
}

static void test_key_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {0, 65536, 1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < FM_COUNT(lengths); i++) {
        bytes b = head(0, 1);
        put_u64(&b, lengths[i]);
        put_zeros(&b, 70000);
        refuse(b, FM_ERR_FORMAT, "expected 1 to 65535");
    }
    bytes b = head(0, 1);
    put_u64(&b, 65535);
    for (size_t i = 0; i < 65535; i++) put_u8(&b, 'k');
    put_u32(&b, FM_GGUF_U8);
    put_u8(&b, 1);
    accept(b);
    b = head(0, 1);
    put_u64(&b, 3), put(&b, "a\0b", 3), put_u32(&b, FM_GGUF_U8), put_u8(&b, 1);
    refuse(b, FM_ERR_FORMAT, "'a?b' contains a zero byte");
}

static void test_values(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {9, 1ull << 32, 1ull << 61, (1ull << 61) + 1, 1ull << 63, UINT64_MAX - 3, UINT64_MAX};
    for (size_t i = 0; i < FM_COUNT(lengths); i++) {
        for (uint32_t element = FM_GGUF_U8; element <= FM_GGUF_F64; element++) {
            bytes b = head(0, 1);
            put_array(&b, "key", element, lengths[i]);
            put_zeros(&b, 8);
            refuse(b, FM_ERR_FORMAT, element == FM_GGUF_ARRAY ? "" : "cut off");
        }
        bytes b = head(0, 1);
        put_key(&b, "key", FM_GGUF_STRING);
        put_u64(&b, lengths[i]);
        put_zeros(&b, 8);
        refuse(b, FM_ERR_FORMAT, "a string at byte");
    }
    static const uint32_t types[] = {13, 255, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        bytes b = head(0, 1);
        put_key(&b, "key", types[i]);
        put_zeros(&b, 8);
        refuse(b, FM_ERR_FORMAT, "has value type");
        b = head(0, 1);
        put_array(&b, "key", types[i], 0);
        refuse(b, FM_ERR_FORMAT, "has value type");
    }
    bytes b = head(0, 1);
    put_key(&b, "key", FM_GGUF_BOOL), put_u8(&b, 2);
    refuse(b, FM_ERR_FORMAT, "boolean of value 2");
}

/* `depth` arrays within each other, the innermost empty. */
static bytes nested(unsigned depth)
{
    bytes b = head(0, 1);
    put_key(&b, "deep", FM_GGUF_ARRAY);
    for (unsigned d = 1; d < depth; d++) put_u32(&b, FM_GGUF_ARRAY), put_u64(&b, 1);
    put_u32(&b, FM_GGUF_U8), put_u64(&b, 0);
    return b;
}

static void test_nesting(void **state)
{
    (void)state;
    accept(nested(FM_GGUF_DEPTH_MAX));
    refuse(nested(FM_GGUF_DEPTH_MAX + 1), FM_ERR_UNSUPPORTED, "nested more than 8 deep");
    refuse(nested(1000000), FM_ERR_UNSUPPORTED, "nested more than 8 deep");
}

static void test_duplicates_and_names(void **state)
{
    (void)state;
    const uint64_t dims[] = {8};
    bytes b = head(0, 3);
    put_key(&b, "same", FM_GGUF_U8), put_u8(&b, 1);
    put_key(&b, "other", FM_GGUF_U8), put_u8(&b, 1);
    put_key(&b, "same", FM_GGUF_U16), put_u16(&b, 1);
    refuse(b, FM_ERR_FORMAT, "key 'same' is there twice");
    b = head(2, 0);
    put_info(&b, "t", dims, 1, 0, 0), put_info(&b, "t", dims, 1, 0, 32);
    pad_to(&b, 32), put_zeros(&b, 64);
    refuse(b, FM_ERR_FORMAT, "tensor 't' is there twice");
    char name[66];
    memset(name, 'n', sizeof(name));
    name[63] = '\0';
    b = head(1, 0);
    put_info(&b, name, dims, 1, 0, 0), pad_to(&b, 32), put_zeros(&b, 32);
    accept(b);
    name[63] = 'n', name[64] = '\0';
    b = head(1, 0);
    put_info(&b, name, dims, 1, 0, 0), pad_to(&b, 32), put_zeros(&b, 32);
    refuse(b, FM_ERR_FORMAT, "is 64 bytes long, expected 1 to 63");
}

/* One tensor of this description over 64 bytes of data. */
static bytes one_tensor(const uint64_t *dims, uint32_t n_dims, uint32_t type, uint64_t offset)
{
    bytes b = head(1, 0);
    put_info(&b, "t", dims, n_dims, type, offset);
    pad_to(&b, 32), put_zeros(&b, 64);
    return b;
}

static void test_shapes_and_places(void **state)
{
    (void)state;
    const uint64_t d16[] = {16}, zero[] = {4, 0}, big[] = {1ull << 62}, square[] = {1ull << 32, 1ull << 32}, odd[] = {31};
    const uint64_t edge[] = {32, 1ull << 59, 2}, five[] = {1, 1, 1, 1, 1};
    accept(one_tensor(d16, 1, 0, 0));
    accept(one_tensor(NULL, 0, 0, 0));
    refuse(one_tensor(zero, 2, 0, 0), FM_ERR_FORMAT, "dimension 1 of size 0, which makes it empty");
    refuse(one_tensor(square, 2, 0, 0), FM_ERR_FORMAT, "more elements than can be counted");
    refuse(one_tensor(square, 2, 4242, 0), FM_ERR_FORMAT, "more elements than can be counted");
    refuse(one_tensor(big, 1, 0, 0), FM_ERR_FORMAT, "more bytes than can be counted");
    refuse(one_tensor(edge, 3, 8, 0), FM_ERR_FORMAT, "can be counted");
    refuse(one_tensor(odd, 1, 8, 0), FM_ERR_FORMAT, "rows of 31 elements, expected a multiple of 32 for its type Q8_0");
    refuse(one_tensor(five, 5, 0, 0), FM_ERR_FORMAT, "5 dimensions");
    refuse(one_tensor(d16, 1, 0, 16), FM_ERR_FORMAT, "offset 16, expected a multiple of the alignment 32");
    refuse(one_tensor(d16, 1, 0, 32), FM_ERR_FORMAT, "but the file has 128 bytes: it is cut off");
    refuse(one_tensor(d16, 1, 0, UINT64_MAX - 31), FM_ERR_FORMAT, "but the file has 128 bytes");
    refuse(one_tensor(d16, 1, 0, 1ull << 63), FM_ERR_FORMAT, "but the file has 128 bytes");
    refuse(one_tensor(d16, 1, 4242, 1ull << 63), FM_ERR_FORMAT, "but the file has 128 bytes");
    bytes b = head(1, 0);
    put_info(&b, "t", d16, 1, 1, 0), pad_to(&b, 32), put_zeros(&b, 32);
    accept(b);
    b = head(1, 0); /* the last tensor need not be padded */
    put_info(&b, "t", (const uint64_t[]){3}, 1, 0, 0), pad_to(&b, 32), put_zeros(&b, 12);
    accept(b);
}

static void test_overlaps(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset[3];
        bool good;
    } cases[] = {{{0, 64, 128}, true},  {{128, 0, 64}, true}, {{0, 32, 128}, false}, {{64, 64, 128}, false},
                 {{128, 96, 0}, false}, {{0, 128, 64}, true}, {{0, 0, 0}, false}};
    const uint64_t dims[] = {16};
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        bytes b = head(3, 0);
        put_info(&b, "a", dims, 1, 0, cases[i].offset[0]);
        put_info(&b, "b", dims, 1, 0, cases[i].offset[1]);
        put_info(&b, "c", dims, 1, 0, cases[i].offset[2]);
        pad_to(&b, 32), put_zeros(&b, 192);
        if (cases[i].good)
            accept(b);
        else
            refuse(b, FM_ERR_FORMAT, "overlap");
    }
    /* A tensor of unknown size may lie between others but not inside one. */
    for (unsigned inside = 0; inside < 2; inside++) {
        bytes b = head(2, 0);
        put_info(&b, "a", dims, 1, 0, 0);
        put_info(&b, "b", dims, 1, 4242, inside ? 32 : 64);
        pad_to(&b, 32), put_zeros(&b, 96);
        if (inside)
            refuse(b, FM_ERR_FORMAT, "overlap");
        else
            accept(b);
    }
}

static bytes aligned(uint32_t type, uint64_t value, uint64_t offset)
{
    bytes b = head(2, 1);
    put_key(&b, "general.alignment", type);
    put(&b, &value, fm_gguf_scalar_bytes(type));
    put_info(&b, "a", (const uint64_t[]){1}, 1, 0, 0);
    put_info(&b, "b", (const uint64_t[]){1}, 1, 0, offset);
    pad_to(&b, value == 8 ? 8 : 64), put_zeros(&b, 68);
    return b;
}

static void test_alignments(void **state)
{
    (void)state;
    accept(aligned(FM_GGUF_U32, 64, 64));
    accept(aligned(FM_GGUF_U32, 8, 8));
    accept(aligned(FM_GGUF_U64, 64, 64));
    static const uint64_t bad[] = {0, 1, 4, 24, 33, UINT32_MAX};
    for (size_t i = 0; i < FM_COUNT(bad); i++)
        refuse(aligned(FM_GGUF_U32, bad[i], 64), FM_ERR_FORMAT, "expected a power of two");
    refuse(aligned(FM_GGUF_U64, 1ull << 63, 64), FM_ERR_FORMAT, "expected a power of two");
    refuse(aligned(FM_GGUF_U32, 1u << 31, 0), FM_ERR_FORMAT, "the file has");
    refuse(aligned(FM_GGUF_I32, UINT32_MAX, 64), FM_ERR_FORMAT, "expected no negative number");
    refuse(aligned(FM_GGUF_F32, 64, 64), FM_ERR_FORMAT, "expected an unsigned integer");
}

static void test_splits(void **state)
{
    (void)state;
    static const uint16_t numbers[][2] = {{3, 3}, {1, 1}, {65535, 2}};
    for (size_t i = 0; i < FM_COUNT(numbers); i++) {
        bytes b = head(0, 2);
        put_key(&b, "split.no", FM_GGUF_U16), put_u16(&b, numbers[i][0]);
        put_key(&b, "split.count", FM_GGUF_U16), put_u16(&b, numbers[i][1]);
        refuse(b, FM_ERR_FORMAT, "of a split model: the file is damaged");
    }
    bytes b = head(0, 1);
    put_key(&b, "split.count", FM_GGUF_U64), put_u64(&b, UINT64_MAX);
    refuse(b, FM_ERR_FORMAT, "of a split model: the file is damaged");
    b = head(0, 1);
    put_key(&b, "split.count", FM_GGUF_U16), put_u16(&b, 0);
    accept(b);
}

/* Names that share long prefixes, in an order bad for quicksort (organ pipe), and a list of 200,000: seconds would mean n^2. */
static void test_long_lists(void **state)
{
    (void)state;
    const size_t n = 200000;
    const uint64_t dims[] = {1};
    bytes b = head(n, n);
    char name[64];
    for (size_t i = 0; i < n; i++) {
        const size_t k = i < n / 2 ? 2 * i : 2 * (n - i) - 1;
        snprintf(name, sizeof(name), "a.long.prefix.that.all.of.them.share.%08zu", k);
        put_key(&b, name, FM_GGUF_U8), put_u8(&b, 1);
    }
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "another.long.prefix.that.they.share.%08zu", (i * 7919) % n);
        put_info(&b, name, dims, 1, 0, 32 * (n - 1 - i));
    }
    pad_to(&b, 32), put_zeros(&b, 32 * n);
    const test_folder f = test_folder_make();
    fm_gguf g;
    fm_error err = {FM_OK, ""};
    const clock_t begin = clock();
    assert_ok(open_bytes(&g, &f, &b, &err));
    for (size_t i = 0; i < n; i += 97) {
        snprintf(name, sizeof(name), "another.long.prefix.that.they.share.%08zu", i);
        assert_non_null(fm_gguf_find_tensor(&g, name));
    }
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 20.0);
    fm_gguf_close(&g);
    free(b.p);
    test_folder_remove(&f);
}

static int cmp_numbers(const void *ctx, size_t i, size_t j)
{
    const unsigned *v = ctx;
    return v[i] < v[j] ? -1 : v[i] > v[j];
}

static void test_order(void **state)
{
    (void)state;
    unsigned values[100] = {0};
    size_t order[100];
    for (size_t n = 0; n <= FM_COUNT(order); n++) {
        unsigned seed = (unsigned)n, seen = 0;
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            values[i] = (seed >> 16) % 37;
            order[i] = i;
        }
        fm_order_sort(order, n, cmp_numbers, values);
        for (size_t i = 1; i < n; i++) assert_true(values[order[i - 1]] <= values[order[i]]);
        for (size_t i = 0; i < n; i++) seen += (unsigned)order[i];
        assert_int_equal(seen, n < 2 ? 0 : n * (n - 1) / 2);
    }
}

/* Long and unprintable names must neither break an error sentence nor reach the terminal as they are. */
static void test_quotes(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'n', sizeof(name));
    assert_string_equal(fm_quote_of((fm_view){"\x1b[2Ja\xC3\xA9", 7}).text, "?[2Ja??");
    assert_int_equal(strlen(fm_quote_of((fm_view){name, 80}).text), 80);
    const fm_quote cut = fm_quote_of((fm_view){name, 81});
    assert_int_equal(strlen(cut.text), 83);
    assert_string_equal(cut.text + 80, "...");
    assert_string_equal(fm_quote_of((fm_view){NULL, 0}).text, "");
}

static void test_safetensors_lists(void **state)
{
    (void)state;
    const unsigned n = 100000;
    fm_str json = {.p = NULL};
    fm_str_puts(&json, "{");
    for (unsigned i = 0; i < n; i++)
        fm_str_printf(&json, "%s\"t.%u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%u,%u]}", i > 0 ? "," : "",
                      (unsigned)((uint64_t)i * 7919 % n), n - 1 - i, n - i);
    fm_str_puts(&json, "}");
    bytes b = {NULL, 0, 0};
    put_text(&b, json.p);
    put_zeros(&b, n);
    const test_folder f = test_folder_make();
    char path[256];
    test_file_write(test_path(path, &f, "x.safetensors"), b.p, b.n);
    fm_st s;
    const clock_t begin = clock();
    assert_ok(fm_st_open(&s, path, FM_MAP_SHARED, NULL, NULL));
    assert_int_equal(s.n_tensors, n);
    assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 20.0);
    fm_st_close(&s);
    fm_str_free(&json);
    free(b.p);
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_key_lengths),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_duplicates_and_names),
        cmocka_unit_test(test_shapes_and_places),
        cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_alignments),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_safetensors_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
