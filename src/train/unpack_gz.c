/* unpack_gz.c - gzip by zlib, which checks each member's CRC and length. */
#include <limits.h>
#include <zlib.h>

#include "train/unpack.h"

enum { GZIP_WINDOW = 15 + 16 }; /* the largest window, and a gzip header is expected */

typedef struct coder {
    z_stream z;
    bool ended; /* a member has: the next byte begins another */
} coder;

static voidpf take(voidpf a, uInt items, uInt size)
{
    void *p = NULL;
    return fm_alloc(&p, a, items, size, "zlib", NULL) == FM_OK ? p : NULL;
}

static void give_back(voidpf a, voidpf p)
{
    fm_free(a, p);
}

static fm_status open_gz(void **out, const fm_allocator *a, fm_error *err)
{
    coder *c;
    FM_TRY(fm_alloc((void **)&c, a, 1, sizeof *c, "a gzip reader", err));
    c->z.zalloc = take;
    c->z.zfree = give_back;
    c->z.opaque = (void *)(uintptr_t)a; /* only handed back to take() and give_back() */
    if (inflateInit2(&c->z, GZIP_WINDOW) != Z_OK) {
        fm_free(a, c);
        return fm_fail(err, FM_ERR_MEMORY, "no memory for reading gzip");
    }
    *out = c;
    return FM_OK;
}

static uInt at_most_uint(size_t n)
{
    return n < UINT_MAX ? (uInt)n : UINT_MAX;
}

static fm_codec_result step_gz(void *ctx, fm_codec_io *io)
{
    coder *c = ctx;
    const uInt n_in = at_most_uint(io->n_in), n_out = at_most_uint(io->n_out);
    if (c->ended) inflateReset(&c->z);
    c->z.next_in = (Bytef *)(uintptr_t)io->in; /* zlib only reads it */
    c->z.avail_in = n_in;
    c->z.next_out = io->out;
    c->z.avail_out = n_out;
    const int result = inflate(&c->z, Z_NO_FLUSH);
    io->in += n_in - c->z.avail_in, io->n_in -= n_in - c->z.avail_in;
    io->out += n_out - c->z.avail_out, io->n_out -= n_out - c->z.avail_out;
    c->ended = result == Z_STREAM_END;
    if (c->ended) return FM_CODEC_WHOLE;
    if (result == Z_OK || result == Z_BUF_ERROR) return FM_CODEC_GOING;
    io->why = c->z.msg ? c->z.msg : result == Z_MEM_ERROR ? "no memory" : "not gzip";
    return FM_CODEC_BAD;
}

static void close_gz(void *ctx, const fm_allocator *a)
{
    coder *c = ctx;
    inflateEnd(&c->z);
    fm_free(a, c);
}

const fm_codec fm_codec_gz = {.name = "gzip", .open = open_gz, .step = step_gz, .close = close_gz};
