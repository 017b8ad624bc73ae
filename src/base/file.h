/* file.h - files: mapped for reading, or written beside their target, synced and renamed. */
#ifndef FM_BASE_FILE_H
#define FM_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

/* Read-only bytes of a whole file: mapped, or read into anonymous memory (huge pages where the system gives them). */
typedef struct fm_map {
    const unsigned char *p;
    size_t n;
    bool mapped; /* false: anonymous memory */
} fm_map;

/* How a file comes into memory: mapped and shared between processes, or read. */
typedef struct fm_map_mode {
    bool read;
    fm_progress_fn progress; /* while reading, with the fraction of this file; may be NULL */
    void *ctx;
} fm_map_mode;
#define FM_MAP_SHARED ((fm_map_mode){0})
#define FM_MAP_READ   ((fm_map_mode){.read = true})

/* Errors  FM_ERR_IO (missing, a directory, unreadable, not a regular file), FM_ERR_MEMORY, FM_ERR_CANCELLED.  An empty file gives
 * n = 0. */
fm_status fm_map_open(fm_map *m, const char *path, fm_map_mode mode, fm_error *err);
fm_status fm_map_lock(const fm_map *m, const char *path, fm_error *err); /* mlock; the error says which limit to raise */
void fm_map_close(fm_map *m);

/* The whole of a small regular file (at most `max` bytes) as a terminated string in s. */
fm_status fm_file_read(fm_str *s, const char *path, size_t max, fm_error *err);
/* The same of whatever a person names: a FIFO or a device too, and "-" for standard input.  May wait for its writer. */
fm_status fm_stream_read(fm_str *s, const char *path, size_t max, fm_error *err);

/* An output file that appears under its name only when complete: written to "<path>.tmp.<pid>", fsync'ed, renamed, its
 * directory fsync'ed.  After any failure call fm_out_abort(); the target is then as it was before. */
typedef struct fm_out {
    int fd;
    uint64_t n; /* bytes written so far */
    char *path, *tmp;
    unsigned char *buf;
    size_t buf_n;
    const fm_allocator *a;
} fm_out;

fm_status fm_out_open(fm_out *o, const char *path, const fm_allocator *a, fm_error *err);
fm_status fm_out_write(fm_out *o, const void *p, size_t n, fm_error *err);
fm_status fm_out_pad(fm_out *o, size_t align, fm_error *err); /* zeros up to a multiple of align */
/* Again n bytes that were written at `at`: a header whose numbers were not known.  Not of a device or FIFO. */
fm_status fm_out_rewrite(fm_out *o, uint64_t at, const void *p, size_t n, fm_error *err);
fm_status fm_out_commit(fm_out *o, fm_error *err);            /* frees o in either case */
void fm_out_abort(fm_out *o);                                 /* harmless after commit or on a zeroed fm_out */

/* A whole small file at once, dir/name, in the same way. */
fm_status fm_file_write(const char *dir, const char *name, fm_view text, const fm_allocator *a, fm_error *err);

/* What was renamed to this name survives a power cut from now on, where the file system can say so. */
void fm_path_sync(const char *path);

/* The name of what is written beside its target, in place of *tmp.  Names are tried until one is free: what a crash left may
 * carry our own process number, always 1 in a container. */
enum { FM_TMP_TRIES = 100 };
fm_status fm_tmp_name(fm_str *tmp, const char *target, int attempt, fm_error *err);

bool fm_path_is_dir(const char *path);
bool fm_path_exists(const char *path);
bool fm_path_same(const char *a, const char *b); /* do both exist, and are they one file? */
char *fm_path_join(const char *dir, const char *name, const fm_allocator *a, fm_error *err); /* NULL: no memory */
fm_status fm_dir_make(const char *path, fm_error *err);                                      /* one level; existing is fine */
void fm_dir_remove(const char *path); /* with the files directly in it; none is fine */

#endif
