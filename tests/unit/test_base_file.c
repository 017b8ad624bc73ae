/* test_base_file.c - base/file.h: maps, small files, and outputs that appear whole or not at all. */
#include "testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"

static void check_content(const char *path, const void *want, size_t n)
{
    fm_map m;
    assert_ok(fm_map_open(&m, path, FM_MAP_READ, NULL));
    assert_int_equal(m.n, n);
    assert_memory_equal(m.p, want, n);
    fm_map_close(&m);
}

static void test_map(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    test_path(path, &f, "data");
    test_file_write(path, "0123456789", 10);
    for (int read = 0; read < 2; read++) {
        fm_map m;
        assert_ok(fm_map_open(&m, path, (fm_map_mode){.read = read}, NULL));
        assert_int_equal(m.n, 10);
        assert_int_equal(m.mapped, !read);
        assert_memory_equal(m.p, "0123456789", 10);
        assert_ok(fm_map_lock(&m, path, NULL));
        fm_map_close(&m);
        fm_map_close(&m);
    }
    test_file_write(path, "", 0);
    fm_map m;
    assert_ok(fm_map_open(&m, path, FM_MAP_SHARED, NULL));
    assert_int_equal(m.n, 0);
    assert_non_null(m.p);
    fm_map_close(&m);
    test_folder_remove(&f);
}

static void test_map_errors(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    fm_error err = {0};
    fm_map m;
    test_path(path, &f, "missing");
    assert_fails(fm_map_open(&m, path, FM_MAP_SHARED, &err), FM_ERR_IO, err, "missing: No such file");
    assert_fails(fm_map_open(&m, f.path, FM_MAP_SHARED, &err), FM_ERR_IO, err, "is a directory");
    test_path(path, &f, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_fails(fm_map_open(&m, path, FM_MAP_READ, &err), FM_ERR_IO, err, "not a regular file");
    assert_null(m.p);
    test_folder_remove(&f);
}

static void test_read(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    static char big[100000];
    memset(big, 'x', sizeof(big));
    test_path(path, &f, "text");
    test_file_write(path, big, sizeof(big));
    fm_error err = {0};
    fm_str s = {0};
    fm_str_puts(&s, "old");
    assert_ok(fm_file_read(&s, path, sizeof(big), &err));
    assert_int_equal(s.n, sizeof(big));
    assert_memory_equal(s.p, big, sizeof(big));
    assert_int_equal(s.p[s.n], 0);
    assert_fails(fm_file_read(&s, path, sizeof(big) - 1, &err), FM_ERR_LIMIT, err, "99999 bytes");
    assert_fails(fm_file_read(&s, f.path, 10, &err), FM_ERR_IO, err, "is a directory");
    assert_fails(fm_stream_read(&s, f.path, 10, &err), FM_ERR_IO, err, "Is a directory");
    test_file_write(path, "", 0);
    assert_ok(fm_file_read(&s, path, 0, &err));
    assert_string_equal(s.p, "");
    fm_str_free(&s);
    test_folder_remove(&f);
}

static void test_read_stdin(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "from a pipe", 11), 11);
    close(ends[1]);
    const int saved = dup(STDIN_FILENO);
    assert_true(dup2(ends[0], STDIN_FILENO) >= 0);
    close(ends[0]);
    fm_str s = {0};
    assert_ok(fm_stream_read(&s, "-", 100, NULL));
    assert_string_equal(s.p, "from a pipe");
    fm_str_free(&s);
    if (saved >= 0) {
        dup2(saved, STDIN_FILENO);
        close(saved);
    }
}

/* Pieces around the size of the buffer; the target appears at the commit. */
static void test_out(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    test_path(path, &f, "out");
    static const size_t pieces[] = {0, 1, 100, (1u << 20) - 1, 1u << 20, 5, (1u << 20) + 1, 3u << 20, 7};
    static unsigned char data[4u << 20];
    for (size_t i = 0; i < sizeof(data); i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
    fm_out o;
    assert_ok(fm_out_open(&o, path, NULL, NULL));
    size_t n = 0;
    for (size_t i = 0; i < FM_COUNT(pieces); i++) {
        assert_ok(fm_out_write(&o, data, pieces[i], NULL));
        n += pieces[i];
        assert_int_equal(o.n, n);
    }
    assert_ok(fm_out_pad(&o, 32, NULL));
    assert_int_equal(o.n % 32, 0);
    assert_ok(fm_out_pad(&o, 32, NULL));
    assert_ok(fm_out_pad(&o, 65536, NULL));
    assert_false(fm_path_exists(path));
    const size_t total = (size_t)o.n;
    assert_ok(fm_out_commit(&o, NULL));
    fm_out_abort(&o);
    fm_map m;
    assert_ok(fm_map_open(&m, path, FM_MAP_SHARED, NULL));
    assert_int_equal(m.n, total);
    const unsigned char *p = m.p;
    for (size_t i = 0; i < FM_COUNT(pieces); i++) {
        assert_memory_equal(p, data, pieces[i]);
        p += pieces[i];
    }
    while (p < m.p + m.n) assert_int_equal(*p++, 0);
    fm_map_close(&m);
    assert_int_equal(test_folder_count(&f), 1);
    test_folder_remove(&f);
}

static void test_out_replaces(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256], link[256];
    test_path(path, &f, "out");
    test_path(link, &f, "link");
    test_file_write(path, "old", 3);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(symlink("out", link), 0);
    fm_out o;
    assert_ok(fm_out_open(&o, path, NULL, NULL));
    assert_ok(fm_out_write(&o, "half", 4, NULL));
    check_content(path, "old", 3);
    fm_out_abort(&o);
    check_content(path, "old", 3);
    assert_ok(fm_out_open(&o, link, NULL, NULL)); /* the link stays, its file is replaced */
    assert_ok(fm_out_write(&o, "new!", 4, NULL));
    assert_ok(fm_out_commit(&o, NULL));
    check_content(path, "new!", 4);
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(test_folder_count(&f), 2);
    fm_out zero = {0};
    fm_out_abort(&zero);
    test_folder_remove(&f);
}

/* A temporary file that a crashed process of the same number left is stepped around. */
static void test_out_stale(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256], stale[300];
    test_path(path, &f, "out");
    snprintf(stale, sizeof(stale), "%s.tmp.%ld", path, (long)getpid());
    test_file_write(stale, "stale", 5);
    fm_out o;
    assert_ok(fm_out_open(&o, path, NULL, NULL));
    assert_ok(fm_out_write(&o, "fresh", 5, NULL));
    assert_ok(fm_out_commit(&o, NULL));
    check_content(path, "fresh", 5);
    check_content(stale, "stale", 5);
    test_folder_remove(&f);
}

static void test_out_errors(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    fm_error err = {0};
    fm_out o;
    assert_fails(fm_out_open(&o, f.path, NULL, &err), FM_ERR_IO, err, "is a directory");
    test_path(path, &f, "no/such/folder");
    assert_fails(fm_out_open(&o, path, NULL, &err), FM_ERR_IO, err, "No such file or directory");
    fm_out_abort(&o);
    test_folder_remove(&f);
}

/* The kernel's file that is always full: the very path a full disk takes. */
static void test_out_full(void **state)
{
    (void)state;
    if (!fm_path_exists("/dev/full")) skip();
    static const unsigned char data[2u << 20];
    fm_error err = {0};
    fm_out o;
    assert_ok(fm_out_open(&o, "/dev/full", NULL, &err));
    assert_fails(fm_out_write(&o, data, sizeof(data), &err), FM_ERR_IO, err, "/dev/full: No space left");
    assert_fails(fm_out_write(&o, data, 1, &err), FM_ERR_IO, err, "earlier write");
    assert_fails(fm_out_commit(&o, &err), FM_ERR_IO, err, "earlier write");
    assert_ok(fm_out_open(&o, "/dev/full", NULL, &err));
    assert_ok(fm_out_write(&o, data, 10, &err));
    assert_fails(fm_out_commit(&o, &err), FM_ERR_IO, err, "No space left");
}

/* A limit on file size cuts a write short half-way: nothing is left behind, the old target stands. */
static void test_out_cut(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    static const unsigned char data[3u << 20];
    test_path(path, &f, "out");
    test_file_write(path, "old", 3);
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 2500000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    fm_error err = {0};
    fm_out o;
    assert_ok(fm_out_open(&o, path, NULL, &err));
    const fm_status status = fm_out_write(&o, data, sizeof(data), &err);
    fm_out_abort(&o);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_fails(status, FM_ERR_IO, err, "File too large");
    check_content(path, "old", 3);
    assert_int_equal(test_folder_count(&f), 1);
    test_folder_remove(&f);
}

static void *read_fifo(void *arg)
{
    static char text[16];
    FILE *file = fopen(arg, "rb");
    if (file == NULL) return NULL;
    const size_t n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}

static void test_out_fifo(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    char path[256];
    test_path(path, &f, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_fifo, path), 0);
    fm_out o;
    assert_ok(fm_out_open(&o, path, NULL, NULL));
    assert_ok(fm_out_write(&o, "through", 7, NULL));
    assert_ok(fm_out_commit(&o, NULL));
    void *text = NULL;
    pthread_join(reader, &text);
    assert_string_equal(text, "through");
    assert_int_equal(test_folder_count(&f), 1);
    test_folder_remove(&f);
}

static void check_join(const char *dir, const char *name, const char *want)
{
    char *p = fm_path_join(dir, name, NULL, NULL);
    assert_string_equal(p, want);
    fm_free(NULL, p);
}

static void test_paths(void **state)
{
    (void)state;
    check_join("a", "b", "a/b");
    check_join("a/", "b", "a/b");
    check_join("/", "b", "/b");
    check_join("", "b", "b");
    const test_folder f = test_folder_make();
    char path[256];
    fm_error err = {0};
    test_path(path, &f, "dir");
    assert_false(fm_path_exists(path));
    assert_ok(fm_dir_make(path, &err));
    assert_ok(fm_dir_make(path, &err));
    assert_true(fm_path_is_dir(path) && fm_path_exists(path));
    test_path(path, &f, "dir/a/b");
    assert_fails(fm_dir_make(path, &err), FM_ERR_IO, err, "No such file");
    test_path(path, &f, "file");
    test_file_write(path, "x", 1);
    assert_false(fm_path_is_dir(path));
    assert_fails(fm_dir_make(path, &err), FM_ERR_IO, err, "in its place");
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),        cmocka_unit_test(test_map_errors), cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_stdin), cmocka_unit_test(test_out),        cmocka_unit_test(test_out_replaces),
        cmocka_unit_test(test_out_stale),  cmocka_unit_test(test_out_errors), cmocka_unit_test(test_out_full),
        cmocka_unit_test(test_out_cut),    cmocka_unit_test(test_out_fifo),   cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
