/* gguf.h - GGUF version 3 files, read and written; nothing about models.  Spec falcon-mamba.md 4.1.
 *
 * Reading maps the file(s) and checks everything that can be checked without touching tensor data: counts and lengths against
 * the file's size, key and tensor names, types, alignment, offsets and overlaps.  Split files ("-00001-of-0000N.gguf") open
 * through their first part and then look like one. */
#ifndef FM_FORMAT_GGUF_H
#define FM_FORMAT_GGUF_H

#include "base/file.h"
#include "tensor/tensor.h"

typedef enum fm_gguf_kv_type {
    FM_GGUF_U8,
    FM_GGUF_I8,
    FM_GGUF_U16,
    FM_GGUF_I16,
    FM_GGUF_U32,
    FM_GGUF_I32,
    FM_GGUF_F32,
    FM_GGUF_BOOL,
    FM_GGUF_STRING,
    FM_GGUF_ARRAY,
    FM_GGUF_U64,
    FM_GGUF_I64,
    FM_GGUF_F64
} fm_gguf_kv_type;

#define FM_GGUF_KEY_MAX   65535u /* bytes of a key */
#define FM_GGUF_NAME_MAX  63u    /* bytes of a tensor name, as in llama.cpp */
#define FM_GGUF_DEPTH_MAX 8u     /* arrays within arrays */

/* A metadata value as it lies in the file.  Scalars: `data`; a string's begins with its u64 length.  Arrays: `count` elements
 * of `element` from `data` on, which may be unaligned; arrays of strings are walked with fm_gguf_string_next(). */
typedef struct fm_gguf_kv {
    fm_view key;
    fm_gguf_kv_type type, element;
    uint64_t count;
    const unsigned char *data, *end; /* bytes of the value */
} fm_gguf_kv;

typedef struct fm_gguf_tensor {
    fm_view name;
    uint32_t n_dims, gguf_type;
    uint64_t dims[4]; /* fastest first, as in the file; unused ones 1 */
    uint64_t bytes;
    const unsigned char *data; /* NULL when gguf_type is one we cannot size */
    uint32_t part;             /* index of the file of a split model that holds it */
} fm_gguf_tensor;

typedef struct fm_gguf {
    fm_map *maps; /* n_maps parts of a split file, or one */
    char **paths;
    size_t n_maps;
    fm_gguf_kv *kv; /* of the first part */
    size_t n_kv;
    fm_gguf_tensor *tensors; /* of all parts, in file order */
    size_t n_tensors;
    size_t *kv_order, *tensor_order; /* indices by name */
    uint64_t alignment;
    const fm_allocator *a;
} fm_gguf;

/* Errors name the path, the key or tensor, what was expected and found: FM_ERR_IO, FM_ERR_FORMAT (cut off, wrong magic,
 * big-endian, versions 1 and 2, duplicate keys or tensors, a missing split part), FM_ERR_UNSUPPORTED, FM_ERR_MEMORY. */
fm_status fm_gguf_open(fm_gguf *g, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err);
void fm_gguf_close(fm_gguf *g);

const fm_gguf_kv *fm_gguf_find(const fm_gguf *g, const char *key); /* NULL if absent */
const fm_gguf_tensor *fm_gguf_find_tensor(const fm_gguf *g, const char *name);
/* As a tensor of our types.  FM_ERR_UNSUPPORTED names a type that we cannot compute with. */
fm_status fm_gguf_as_tensor(fm_tensor *out, const fm_gguf *g, const fm_gguf_tensor *t, fm_error *err);

/* Typed reads of scalars; any integer type converts if it fits.  A missing key: *out untouched, FM_OK, *found = false (found
 * may be NULL).  Wrong type or out of range: FM_ERR_FORMAT naming key, expected and found. */
fm_status fm_gguf_get_u64(const fm_gguf *g, const char *key, uint64_t *out, bool *found, fm_error *err);
fm_status fm_gguf_get_f64(const fm_gguf *g, const char *key, double *out, bool *found, fm_error *err);
fm_status fm_gguf_get_bool(const fm_gguf *g, const char *key, bool *out, bool *found, fm_error *err);
fm_status fm_gguf_get_string(const fm_gguf *g, const char *key, fm_view *out, bool *found, fm_error *err);

/* Walks an array of strings: start with cursor NULL; false at its end. */
bool fm_gguf_string_next(const fm_gguf_kv *array, const unsigned char **cursor, fm_view *out);
/* Element i of an array of numbers or booleans, i < count; as an integer cut to the range of int64_t, not-a-number 0. */
int64_t fm_gguf_array_i64(const fm_gguf_kv *array, uint64_t i);
double fm_gguf_array_f64(const fm_gguf_kv *array, uint64_t i);
/* Appends the value as JSON text; an array longer than `max` elements becomes {"count": n, "first": [max elements]}. */
void fm_gguf_kv_json(fm_str *out, const fm_gguf_kv *kv, size_t max);

/* ---- Writing: collect keys, announce tensors, then stream their data in the same order. ---- */

typedef struct fm_gguf_writer {
    fm_out out;
    fm_str kv, infos, sizes;          /* sizes: bytes of each announced tensor, one u64 each */
    uint64_t n_kv, n_tensors, offset; /* offset: bytes of tensor data announced so far */
    uint64_t n_ended, tensor_begin;   /* tensors written; where in the file the current one begins */
    size_t alignment;                 /* 32 */
} fm_gguf_writer;

fm_status fm_gguf_create(fm_gguf_writer *w, const char *path, const fm_allocator *a, fm_error *err);
void fm_gguf_put_u32(fm_gguf_writer *w, const char *key, uint32_t v);
void fm_gguf_put_u64(fm_gguf_writer *w, const char *key, uint64_t v);
void fm_gguf_put_f32(fm_gguf_writer *w, const char *key, float v);
void fm_gguf_put_bool(fm_gguf_writer *w, const char *key, bool v);
void fm_gguf_put_string(fm_gguf_writer *w, const char *key, fm_view v);
void fm_gguf_put_strings(fm_gguf_writer *w, const char *key, const fm_view *v, size_t n);
void fm_gguf_put_i32s(fm_gguf_writer *w, const char *key, const int32_t *v, size_t n);
void fm_gguf_put_f32s(fm_gguf_writer *w, const char *key, const float *v, size_t n);
void fm_gguf_put_copy(fm_gguf_writer *w, const fm_gguf_kv *kv); /* any value, as it is; general.alignment is left out */
/* Announces a tensor; dims fastest first.  Names of at most 63 bytes. */
fm_status fm_gguf_put_tensor(fm_gguf_writer *w, const char *name, fm_dtype type, const uint64_t *dims, unsigned n_dims,
                             fm_error *err);
fm_status fm_gguf_begin_data(fm_gguf_writer *w, fm_error *err); /* writes the header */
/* The bytes of the next tensor, in as many pieces as wanted; fm_gguf_end_tensor() checks the size and pads. */
fm_status fm_gguf_write(fm_gguf_writer *w, const void *p, size_t n, fm_error *err);
fm_status fm_gguf_end_tensor(fm_gguf_writer *w, fm_error *err);
fm_status fm_gguf_commit(fm_gguf_writer *w, fm_error *err); /* all announced tensors must be written */
void fm_gguf_abort(fm_gguf_writer *w);

#endif
