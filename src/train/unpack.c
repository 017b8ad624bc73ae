/* unpack.c - see unpack.h. */
#include "train/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)1 << 17)

/* Every compression there is; `codec` NULL where the build found no library for it. */
static const struct compression {
    const char *suffix, *library;
    const fm_codec *codec;
} compressions[] = {
#ifdef FM_HAVE_ZLIB
    {".gz", "zlib1g-dev", &fm_codec_gz},
#else
    {".gz", "zlib1g-dev", NULL},
#endif
#ifdef FM_HAVE_ZSTD
    {".zst", "libzstd-dev", &fm_codec_zst},
#else
    {".zst", "libzstd-dev", NULL},
#endif
};

static const struct compression *compression_of(const char *path)
{
    for (size_t i = 0; i < FM_COUNT(compressions); i++)
        if (fm_view_ends(fm_view_of(path), compressions[i].suffix)) return &compressions[i];
    return NULL;
}

fm_view fm_unpack_name(const char *path)
{
    const struct compression *c = compression_of(path);
    const fm_view v = fm_view_of(path);
    return c ? (fm_view){v.p, v.n - strlen(c->suffix)} : v;
}

static fm_status open_coder(fm_unpack *u, fm_error *err)
{
    const struct compression *c = compression_of(u->path);
    if (!c) return FM_OK;
    if (!c->codec)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: this program was built without reading %s: install %s and build it again",
                       u->path, c->suffix, c->library);
    u->codec = c->codec;
    u->inside = true; /* an empty file is no whole stream */
    FM_TRY(fm_alloc((void **)&u->buffer, u->a, BUFFER_BYTES, 1, "packed bytes", err));
    return u->codec->open(&u->coder, u->a, err);
}

fm_status fm_unpack_open(fm_unpack *u, const char *path, const fm_allocator *a, fm_error *err)
{
    *u = (fm_unpack){.fd = open(path, O_RDONLY | O_CLOEXEC), .path = path, .a = a};
    if (u->fd < 0) return fm_fail_errno(err, "cannot open %s", path);
    const fm_status status = open_coder(u, err);
    if (status != FM_OK) fm_unpack_close(u);
    return status;
}

void fm_unpack_close(fm_unpack *u)
{
    if (u->coder) u->codec->close(u->coder, u->a);
    fm_free(u->a, u->buffer);
    if (u->path && u->fd >= 0) close(u->fd);
    *u = (fm_unpack){.fd = -1};
}

static fm_status read_some(fm_unpack *u, void *out, size_t room, size_t *got, fm_error *err)
{
    ssize_t r;
    do r = read(u->fd, out, room);
    while (r < 0 && errno == EINTR);
    if (r < 0) return fm_fail_errno(err, "cannot read %s", u->path);
    *got = (size_t)r;
    u->at_end = r == 0;
    return FM_OK;
}

static fm_status read_plain(fm_unpack *u, unsigned char *out, size_t room, size_t *got, fm_error *err)
{
    *got = 0;
    while (*got < room && !u->at_end) {
        size_t n;
        FM_TRY(read_some(u, out + *got, room - *got, &n, err));
        *got += n;
    }
    u->n_out += *got;
    return FM_OK;
}

/* Once the packed bytes are used up: the next of them. */
static fm_status refill(fm_unpack *u, fm_error *err)
{
    if (u->n_in > 0 || u->at_end) return FM_OK;
    u->in = u->buffer;
    return read_some(u, u->buffer, BUFFER_BYTES, &u->n_in, err);
}

static fm_status read_packed(fm_unpack *u, unsigned char *out, size_t room, size_t *got, fm_error *err)
{
    fm_codec_io io = {.out = out, .n_out = room};
    while (io.n_out > 0) {
        FM_TRY(refill(u, err));
        const size_t n_in = u->n_in, n_out = io.n_out;
        if (n_in == 0 && !u->inside) break;
        io.in = u->in, io.n_in = n_in;
        const fm_codec_result result = u->codec->step(u->coder, &io);
        u->in = io.in, u->n_in = io.n_in;
        u->n_out += n_out - io.n_out;
        if (result == FM_CODEC_BAD)
            return fm_fail(err, FM_ERR_FORMAT, "%s: damaged %s data after %llu bytes of text (%s): fetch the file again",
                           u->path, u->codec->name, (unsigned long long)u->n_out, io.why);
        u->inside = result == FM_CODEC_GOING;
        if (u->inside && u->at_end && n_out == io.n_out)
            return fm_fail(err, FM_ERR_FORMAT, "%s: its %s data are cut off after %llu bytes of text: fetch the file again",
                           u->path, u->codec->name, (unsigned long long)u->n_out);
    }
    *got = room - io.n_out;
    return FM_OK;
}

fm_status fm_unpack_read(fm_unpack *u, void *out, size_t room, size_t *got, fm_error *err)
{
    return u->codec ? read_packed(u, out, room, got, err) : read_plain(u, out, room, got, err);
}
