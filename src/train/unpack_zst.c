/* unpack_zst.c - Zstandard by libzstd, which checks the checksum of frames that have one.  Its memory is the C library's: a
 * caller's allocator is an experimental part of its interface. */
#include <zstd.h>

#include "train/unpack.h"

enum { WINDOW_LOG_MAX = 27 }; /* 128 MiB: what `zstd` itself takes without --long; a frame cannot make us hold more */

static fm_status open_zst(void **out, const fm_allocator *a, fm_error *err)
{
    (void)a;
    ZSTD_DStream *s = ZSTD_createDStream();
    if (!s) return fm_fail(err, FM_ERR_MEMORY, "no memory for reading zstd");
    ZSTD_DCtx_setParameter(s, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    *out = s;
    return FM_OK;
}

static fm_codec_result step_zst(void *ctx, fm_codec_io *io)
{
    ZSTD_inBuffer in = {io->in, io->n_in, 0};
    ZSTD_outBuffer out = {io->out, io->n_out, 0};
    const size_t left = ZSTD_decompressStream(ctx, &out, &in);
    io->in += in.pos, io->n_in -= in.pos;
    io->out += out.pos, io->n_out -= out.pos;
    if (ZSTD_isError(left)) {
        io->why = ZSTD_getErrorName(left);
        return FM_CODEC_BAD;
    }
    return left == 0 ? FM_CODEC_WHOLE : FM_CODEC_GOING;
}

static void close_zst(void *ctx, const fm_allocator *a)
{
    (void)a;
    ZSTD_freeDStream(ctx);
}

const fm_codec fm_codec_zst = {.name = "zstd", .open = open_zst, .step = step_zst, .close = close_zst};
