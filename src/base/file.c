/* file.c - reading files: mapped, into anonymous memory, or into a string; and paths.  Writing is in out.c. */
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* The most one read() is asked for; between two of them a caller hears of the progress. */
#define READ_MAX ((size_t)1 << 26)

/* Opens a regular file; O_NONBLOCK so that a FIFO is refused below instead of waited for. */
static fm_status open_regular(int *fd, size_t *n, const char *path, fm_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fm_fail_errno(err, "cannot open %s", path);
    fm_status status = FM_OK;
    if (fstat(*fd, &st) != 0) {
        status = fm_fail_errno(err, "cannot find the size of %s", path);
    } else if (S_ISDIR(st.st_mode)) {
        status = fm_fail(err, FM_ERR_IO, "%s is a directory; a file was expected", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = fm_fail(err, FM_ERR_IO, "%s is not a regular file; give a file on a disk", path);
    } else if ((uintmax_t)st.st_size > (uintmax_t)PTRDIFF_MAX) {
        status = fm_fail(err, FM_ERR_IO, "%s is too large for this machine's address space", path);
    }
    if (status != FM_OK) close(*fd);
    *n = status == FM_OK ? (size_t)st.st_size : 0;
    return status;
}

static fm_status fail_map(const char *path, size_t n, fm_error *err)
{
    return fm_fail_errno(err, "cannot map the %zu bytes of %s", n, path);
}

static fm_status read_all(int fd, unsigned char *p, size_t n, fm_map_mode mode, const char *path, fm_error *err)
{
    size_t got = 0;
    while (got < n) {
        const size_t want = n - got < READ_MAX ? n - got : READ_MAX;
        const ssize_t r = read(fd, p + got, want);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return fm_fail_errno(err, "cannot read %s", path);
        if (r == 0) {
            return fm_fail(err, FM_ERR_IO,
                           "%s ended after %zu of %zu bytes; did another program "
                           "cut it while it was read?",
                           path, got, n);
        }
        got += (size_t)r;
        if (mode.progress && !mode.progress(mode.ctx, (double)got / (double)n))
            return fm_fail(err, FM_ERR_CANCELLED, "stopped after %zu of the %zu bytes of %s", got, n, path);
    }
    return FM_OK;
}

static fm_status read_to_memory(fm_map *m, int fd, size_t n, fm_map_mode mode, const char *path, fm_error *err)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return fail_map(path, n, err);
#ifdef MADV_HUGEPAGE
    madvise(p, n, MADV_HUGEPAGE); /* a wish: without huge pages everything works, more slowly */
#endif
    const fm_status status = read_all(fd, p, n, mode, path, err);
    if (status != FM_OK) {
        munmap(p, n);
        return status;
    }
    mprotect(p, n, PROT_READ); /* a guard against our own mistakes only, so failing is fine */
    *m = (fm_map){.p = p, .n = n, .mapped = false};
    return FM_OK;
}

static fm_status map_file(fm_map *m, int fd, size_t n, const char *path, fm_error *err)
{
    void *p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return fail_map(path, n, err);
    *m = (fm_map){.p = p, .n = n, .mapped = true};
    return FM_OK;
}

fm_status fm_map_open(fm_map *m, const char *path, fm_map_mode mode, fm_error *err)
{
    int fd = -1;
    size_t n = 0;
    fm_status status = FM_OK;
    *m = (fm_map){0};
    FM_TRY(open_regular(&fd, &n, path, err));
    if (n == 0) {
        m->p = (const unsigned char *)""; /* the system maps no empty range; a pointer spares callers the case */
    } else if (mode.read) {
        status = read_to_memory(m, fd, n, mode, path, err);
    } else {
        status = map_file(m, fd, n, path, err);
    }
    close(fd);
    return status;
}

fm_status fm_map_lock(const fm_map *m, const char *path, fm_error *err)
{
    if (m->n == 0 || mlock(m->p, m->n) == 0) return FM_OK;
    const int number = errno;
    struct rlimit limit = {0, 0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    errno = number;
    return fm_fail_errno(err,
                         "cannot pin the %zu bytes of %s in memory: the limit on locked memory "
                         "is %llu bytes; raise it (ulimit -l, RLIMIT_MEMLOCK) or run without mlock",
                         m->n, path, (unsigned long long)limit.rlim_cur);
}

void fm_map_close(fm_map *m)
{
    if (m->n > 0) {
        /* Through an integer: munmap takes a plain void *, and the bytes are const only to us. */
        munmap((void *)(uintptr_t)m->p, m->n);
    }
    *m = (fm_map){0};
}

static fm_status read_stream(fm_str *s, int fd, const char *name, size_t max, fm_error *err)
{
    char part[16384];
    for (;;) {
        const ssize_t r = read(fd, part, sizeof(part));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return fm_fail_errno(err, "cannot read %s", name);
        if ((size_t)r > max - s->n) {
            return fm_fail(err, FM_ERR_LIMIT,
                           "%s is larger than %zu bytes, the most that is read "
                           "of such a file; is it the right one?",
                           name, max);
        }
        fm_str_put(s, part, (size_t)r);
        FM_TRY(fm_str_ok(s, name, err));
        if (r == 0) return FM_OK;
    }
}

fm_status fm_file_read(fm_str *s, const char *path, size_t max, fm_error *err)
{
    int fd;
    size_t n;
    fm_str_reset(s);
    FM_TRY(open_regular(&fd, &n, path, err));
    const fm_status status = read_stream(s, fd, path, max, err);
    close(fd);
    return status;
}

fm_status fm_stream_read(fm_str *s, const char *path, size_t max, fm_error *err)
{
    fm_str_reset(s);
    if (strcmp(path, "-") == 0) return read_stream(s, STDIN_FILENO, "standard input", max, err);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fm_fail_errno(err, "cannot open %s", path);
    const fm_status status = read_stream(s, fd, path, max, err);
    close(fd);
    return status;
}

bool fm_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool fm_path_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool fm_path_same(const char *a, const char *b)
{
    struct stat s, t;
    return stat(a, &s) == 0 && stat(b, &t) == 0 && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

char *fm_path_join(const char *dir, const char *name, const fm_allocator *a, fm_error *err)
{
    fm_str s = {.a = a};
    const size_t n = strlen(dir);
    fm_str_put(&s, dir, n);
    if (n > 0 && dir[n - 1] != '/') fm_str_putc(&s, '/');
    fm_str_puts(&s, name);
    if (fm_str_ok(&s, "a path", err) != FM_OK) {
        fm_str_free(&s);
        return NULL;
    }
    return s.p;
}

fm_status fm_dir_make(const char *path, fm_error *err)
{
    if (mkdir(path, 0777) == 0) return FM_OK;
    if (errno != EEXIST) return fm_fail_errno(err, "cannot make the directory %s", path);
    if (fm_path_is_dir(path)) return FM_OK;
    return fm_fail(err, FM_ERR_IO, "cannot make the directory %s: a file of that name is in its place", path);
}

void fm_dir_remove(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return;
    for (const struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    rmdir(path);
}
