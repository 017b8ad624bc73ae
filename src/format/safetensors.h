/* safetensors.h - safetensors files, single or sharded by an index, read and written.  Spec falcon-mamba.md section 3. */
#ifndef FM_FORMAT_SAFETENSORS_H
#define FM_FORMAT_SAFETENSORS_H

#include "base/file.h"
#include "tensor/tensor.h"

#define FM_ST_DIMS_MAX 8u

typedef enum fm_st_type {
    FM_ST_F32,
    FM_ST_F16,
    FM_ST_BF16,
    FM_ST_F64,
    FM_ST_I64,
    FM_ST_I32,
    FM_ST_I16,
    FM_ST_I8,
    FM_ST_U8,
    FM_ST_BOOL,
    FM_ST_OTHER
} fm_st_type;

typedef struct fm_st_tensor {
    const char *name; /* terminated, unescaped */
    fm_st_type type;
    const char *type_name; /* as in the file */
    uint32_t n_dims;
    uint64_t dims[FM_ST_DIMS_MAX]; /* slowest first */
    uint64_t bytes;
    const unsigned char *data;
    uint32_t part; /* which file */
} fm_st_tensor;

typedef struct fm_st {
    fm_map *maps;
    char **paths;
    size_t n_maps;
    fm_st_tensor *tensors; /* sorted by name */
    size_t n_tensors;
    char *metadata; /* the __metadata__ object of the first file as JSON text, or NULL */
    void *names;    /* one block behind every tensor name */
    const fm_allocator *a;
} fm_st;

/* One file, or with a path ending in ".index.json" all the shards that the index names (each once; every tensor of the
 * weight_map must be in its file).  Checks: header length against the file, JSON, dtype and shape against data_offsets,
 * overlaps, bounds, duplicates.  Errors as gguf.h.  FM_ERR_FORMAT for a file that is a Git LFS pointer, a pickle or HTML says
 * so. */
fm_status fm_st_open(fm_st *s, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err);
void fm_st_close(fm_st *s);
const fm_st_tensor *fm_st_find(const fm_st *s, const char *name); /* NULL if absent */

/* As a matrix of our types: all but the last dimension are rows.  FM_ERR_UNSUPPORTED for integer types. */
fm_status fm_st_as_tensor(fm_tensor *out, const fm_st *s, const fm_st_tensor *t, fm_error *err);

/* Writing: announce all tensors, then stream them in the same order. */
typedef struct fm_st_writer {
    fm_out out;
    fm_str header;
    uint64_t n_tensors, offset; /* offset: bytes of tensor data announced so far */
    uint64_t data_begin;        /* where in the file they begin */
} fm_st_writer;

fm_status fm_st_create(fm_st_writer *w, const char *path, const fm_allocator *a, fm_error *err);
fm_status fm_st_put_tensor(fm_st_writer *w, const char *name, fm_st_type type, const uint64_t *dims, unsigned n_dims,
                           fm_error *err);
fm_status fm_st_begin_data(fm_st_writer *w, fm_error *err); /* metadata {"format": "pt"}, header padded to 8 bytes */
fm_status fm_st_write(fm_st_writer *w, const void *p, size_t n, fm_error *err);
fm_status fm_st_commit(fm_st_writer *w, fm_error *err);
void fm_st_abort(fm_st_writer *w);

#endif
