/* unpack.h - the bytes of a file, unpacked while they are read when its name ends in .gz or .zst.
 *
 * To add a compression, write one file that fills an fm_codec and add one line to the table in unpack.c. */
#ifndef FM_TRAIN_UNPACK_H
#define FM_TRAIN_UNPACK_H

#include "base/str.h"

/* What a codec is given and leaves: it takes from `in` and puts to `out`, moving both. */
typedef struct fm_codec_io {
    const unsigned char *in;
    size_t n_in;
    unsigned char *out;
    size_t n_out;
    const char *why; /* of FM_CODEC_BAD, static */
} fm_codec_io;

typedef enum fm_codec_result {
    FM_CODEC_GOING, /* wants more bytes or more room */
    FM_CODEC_WHOLE, /* a stream has ended, checksum and all; another may follow */
    FM_CODEC_BAD
} fm_codec_result;

typedef struct fm_codec {
    const char *name;
    fm_status (*open)(void **coder, const fm_allocator *a, fm_error *err);
    fm_codec_result (*step)(void *coder, fm_codec_io *io);
    void (*close)(void *coder, const fm_allocator *a);
} fm_codec;

/* Defined where the build found their libraries. */
extern const fm_codec fm_codec_gz, fm_codec_zst;

typedef struct fm_unpack {
    int fd;
    const char *path; /* borrowed */
    const fm_allocator *a;
    const fm_codec *codec; /* NULL: plain bytes */
    void *coder;
    unsigned char *buffer; /* of packed bytes */
    const unsigned char *in;
    size_t n_in;
    uint64_t n_out;      /* bytes given so far */
    bool inside, at_end; /* in the middle of a stream; no more bytes in the file */
} fm_unpack;

/* Errors  FM_ERR_IO, FM_ERR_MEMORY, FM_ERR_UNSUPPORTED (a compression that this build leaves out). */
fm_status fm_unpack_open(fm_unpack *u, const char *path, const fm_allocator *a, fm_error *err);
/* Up to `room` bytes; fewer only at the end.
 * Errors  FM_ERR_IO, FM_ERR_FORMAT (damaged or cut off: says after how many bytes of text). */
fm_status fm_unpack_read(fm_unpack *u, void *out, size_t room, size_t *got, fm_error *err);
void fm_unpack_close(fm_unpack *u);

/* The name without the suffix of a compression: what is in the file. */
fm_view fm_unpack_name(const char *path);

#endif
