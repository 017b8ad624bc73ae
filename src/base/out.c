/* out.c - output files (file.h) that appear under their name only when they are complete.
 *
 * The bytes go to a temporary file in the target's own directory, so that the final rename is atomic.  Only what cannot be
 * replaced that way (a device, a FIFO, /dev/stdout) is written directly: then `tmp` is NULL.  After a failed write the file is
 * closed and the temporary removed at once, so that a commit cannot publish half a file; `path` stays until commit or abort. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define BUFFER_BYTES ((size_t)1 << 20)

/* These name open files of this process; a rename would replace the link rather than reach the file. */
static bool is_descriptor_path(const char *path)
{
    const fm_view v = fm_view_of(path);
    return fm_view_starts(v, "/dev/std") || fm_view_starts(v, "/dev/fd/") || fm_view_starts(v, "/proc/");
}

/* Path of the file itself when `path` is a link to one, so that the link stays. */
static char *target_of(const char *path, const fm_allocator *a, fm_error *err)
{
    char real[PATH_MAX];
    const char *target = realpath(path, real) == NULL ? path : real;
    return fm_strdup(a, target, strlen(target), err);
}

static fm_status open_direct(fm_out *o, fm_error *err)
{
    o->fd = open(o->path, O_WRONLY | O_APPEND | O_CLOEXEC);
    return o->fd < 0 ? fm_fail_errno(err, "cannot write to %s", o->path) : FM_OK;
}

fm_status fm_tmp_name(fm_str *tmp, const char *target, int attempt, fm_error *err)
{
    fm_str_reset(tmp);
    fm_str_printf(tmp, "%s.tmp.%ld", target, (long)getpid());
    if (attempt > 0) fm_str_printf(tmp, ".%d", attempt);
    return fm_str_ok(tmp, "a temporary name", err);
}

static fm_status open_beside(fm_out *o, fm_error *err)
{
    fm_str tmp = {.a = o->a};
    fm_status status = FM_OK;
    for (int attempt = 0; attempt < FM_TMP_TRIES && o->fd < 0; attempt++) {
        status = fm_tmp_name(&tmp, o->path, attempt, err);
        if (status != FM_OK) break;
        o->fd = open(tmp.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (o->fd < 0 && errno != EEXIST) break;
    }
    if (o->fd >= 0) {
        o->tmp = tmp.p;
        return FM_OK;
    }
    if (status == FM_OK) status = fm_fail_errno(err, "cannot create a file beside %s", o->path);
    fm_str_free(&tmp);
    return status;
}

static fm_status open_target(fm_out *o, const char *path, fm_error *err)
{
    struct stat st;
    const bool exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) return fm_fail(err, FM_ERR_IO, "cannot write %s: it is a directory; name a file", path);
    void *buf = NULL;
    FM_TRY(fm_alloc(&buf, o->a, BUFFER_BYTES, 1, "the write buffer of a file", err));
    o->buf = buf;
    const bool direct = is_descriptor_path(path) || (exists && !S_ISREG(st.st_mode));
    o->path = direct ? fm_strdup(o->a, path, strlen(path), err) : target_of(path, o->a, err);
    if (o->path == NULL) return FM_ERR_MEMORY;
    if (direct) return open_direct(o, err);
    FM_TRY(open_beside(o, err));
    /* The new file keeps the old one's permissions; a file system without them need not obey. */
    if (exists && fchmod(o->fd, st.st_mode & 0777) != 0 && errno == EIO)
        return fm_fail_errno(err, "cannot set the permissions of %s", o->tmp);
    return FM_OK;
}

fm_status fm_out_open(fm_out *o, const char *path, const fm_allocator *a, fm_error *err)
{
    *o = (fm_out){.fd = -1, .a = a};
    const fm_status status = open_target(o, path, err);
    if (status != FM_OK) fm_out_abort(o);
    return status;
}

/* Closes and removes what was written; the paths stay for messages. */
static void discard(fm_out *o)
{
    if (o->fd >= 0) close(o->fd);
    o->fd = -1;
    if (o->tmp != NULL) unlink(o->tmp);
}

static fm_status fail_out(fm_out *o, const char *doing, fm_error *err)
{
    const fm_status status = fm_fail_errno(err, "cannot %s %s", doing, o->path);
    discard(o);
    return status;
}

static fm_status write_all(fm_out *o, const unsigned char *p, size_t n, fm_error *err)
{
    while (n > 0) {
        const ssize_t w = write(o->fd, p, n);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) {
            if (w == 0) errno = EIO;
            const fm_status status = fm_fail_errno(err, "cannot write %zu more bytes to %s", n, o->path);
            discard(o);
            return status;
        }
        p += w;
        n -= (size_t)w;
    }
    return FM_OK;
}

static fm_status check_usable(const fm_out *o, fm_error *err)
{
    FM_ASSERT(o->path != NULL);
    if (o->fd >= 0) return FM_OK;
    return fm_fail(err, FM_ERR_IO, "cannot write %s: an earlier write to it failed", o->path);
}

static fm_status flush(fm_out *o, fm_error *err)
{
    const size_t n = o->buf_n;
    o->buf_n = 0;
    return write_all(o, o->buf, n, err);
}

fm_status fm_out_write(fm_out *o, const void *p, size_t n, fm_error *err)
{
    FM_TRY(check_usable(o, err));
    if (n == 0) return FM_OK;
    if (n > BUFFER_BYTES - o->buf_n) FM_TRY(flush(o, err));
    if (n >= BUFFER_BYTES) {
        FM_TRY(write_all(o, p, n, err));
    } else {
        memcpy(o->buf + o->buf_n, p, n);
        o->buf_n += n;
    }
    o->n += n;
    return FM_OK;
}

fm_status fm_out_pad(fm_out *o, size_t align, fm_error *err)
{
    static const unsigned char zeros[4096];
    FM_ASSERT(align > 0);
    size_t n = (size_t)((align - o->n % align) % align);
    while (n > 0) {
        const size_t part = n < sizeof(zeros) ? n : sizeof(zeros);
        FM_TRY(fm_out_write(o, zeros, part, err));
        n -= part;
    }
    return FM_OK;
}

fm_status fm_out_rewrite(fm_out *o, uint64_t at, const void *p, size_t n, fm_error *err)
{
    FM_TRY(check_usable(o, err));
    FM_ASSERT(at <= o->n && n <= o->n - at);
    if (o->tmp == NULL) return fm_fail(err, FM_ERR_IO, "%s cannot be gone back in: name a file", o->path);
    FM_TRY(flush(o, err));
    for (const unsigned char *from = p; n > 0;) {
        const ssize_t w = pwrite(o->fd, from, n, (off_t)at);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return fail_out(o, "write", err);
        from += w, at += (uint64_t)w, n -= (size_t)w;
    }
    return FM_OK;
}

/* A directory that cannot be opened or synced by its kind is left alone: the file is in place, and nothing better can be done. */
void fm_path_sync(const char *path)
{
    const char *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    char dir[PATH_MAX] = ".";
    if (n >= sizeof dir) return;
    if (n > 0) memcpy(dir, path, n), dir[n] = '\0';
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

static fm_status publish(fm_out *o, fm_error *err)
{
    FM_TRY(check_usable(o, err));
    FM_TRY(flush(o, err));
    if (o->tmp != NULL && fsync(o->fd) != 0) return fail_out(o, "sync", err);
    const int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0) return fail_out(o, "close", err);
    if (o->tmp == NULL) return FM_OK;
    if (rename(o->tmp, o->path) != 0) return fail_out(o, "put the finished file in place of", err);
    fm_free(o->a, o->tmp);
    o->tmp = NULL;
    fm_path_sync(o->path);
    return FM_OK;
}

fm_status fm_out_commit(fm_out *o, fm_error *err)
{
    const fm_status status = publish(o, err);
    fm_out_abort(o);
    return status;
}

void fm_out_abort(fm_out *o)
{
    if (o->path != NULL) discard(o);
    fm_free(o->a, o->buf);
    fm_free(o->a, o->path);
    fm_free(o->a, o->tmp);
    *o = (fm_out){.fd = -1};
}

fm_status fm_file_write(const char *dir, const char *name, fm_view text, const fm_allocator *a, fm_error *err)
{
    fm_out o = {.fd = -1};
    char *path = fm_path_join(dir, name, a, err);
    if (path == NULL) return FM_ERR_MEMORY;
    fm_status status = fm_out_open(&o, path, a, err);
    if (status == FM_OK) status = fm_out_write(&o, text.p, text.n, err);
    if (status == FM_OK) status = fm_out_commit(&o, err);
    fm_out_abort(&o);
    fm_free(a, path);
    return status;
}
