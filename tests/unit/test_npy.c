/* test_npy.c - .npy files, byte for byte as NumPy writes them. */
#include "format/npy.h"
#include "unit/testing.h"

static fm_str read_all(const char *path)
{
    fm_str s = {.p = NULL};
    assert_ok(fm_file_read(&s, path, 4096, NULL));
    return s;
}

static fm_str write_array(const char *path, const size_t *shape, unsigned n_dims, const float *data, size_t n)
{
    fm_out o;
    fm_error err = {FM_OK, ""};
    assert_ok(fm_npy_create_f32(&o, path, shape, n_dims, &err));
    assert_ok(fm_out_write(&o, data, n * sizeof(*data), &err));
    assert_ok(fm_out_commit(&o, &err));
    return read_all(path);
}

/* tests/data/format/peer.npy was written by NumPy (tests/oracles/format_oracle.py make). */
static void test_same_as_numpy(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    const float data[] = {0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f};
    fm_str ours = write_array(test_path(path, &f, "a.npy"), (const size_t[]){2, 3}, 2, data, 6);
    fm_str theirs = read_all(FM_SOURCE_DIR "/tests/data/format/peer.npy");
    assert_int_equal(ours.n, theirs.n);
    assert_memory_equal(ours.p, theirs.p, ours.n);
    fm_str_free(&ours);
    fm_str_free(&theirs);
    test_folder_remove(&f);
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        unsigned n_dims;
        size_t shape[3];
        const char *text;
    } cases[] = {
        {0, {0}, "'shape': (), }"}, {1, {7}, "'shape': (7,), }"}, {3, {1, 0, 12345678901}, "'shape': (1, 0, 12345678901), }"}};
    const test_folder f = test_folder_make();
    char path[256];
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_str s = write_array(test_path(path, &f, "a.npy"), cases[i].shape, cases[i].n_dims, NULL, 0);
        assert_int_equal(s.n % 64, 0);
        assert_memory_equal(s.p, "\x93NUMPY\x01\0", 8);
        assert_int_equal((unsigned char)s.p[8] + 256 * (unsigned char)s.p[9], s.n - 10);
        assert_non_null(strstr(s.p + 10, cases[i].text));
        assert_int_equal(s.p[s.n - 1], '\n');
        fm_str_free(&s);
    }
    test_folder_remove(&f);
}

static void test_refused(void **state)
{
    (void)state;
    fm_out o;
    fm_error err = {FM_OK, ""};
    assert_fails(fm_npy_create_f32(&o, "no/such/folder/a.npy", NULL, 0, &err), FM_ERR_IO, err, "no/such/folder/a.npy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_numpy),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
