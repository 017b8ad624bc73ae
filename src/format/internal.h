/* internal.h - what the files of this folder share: little-endian loads, names in error sentences, sorted orders, and telling
 * what a file is that is not what it was taken for. */
#ifndef FM_FORMAT_INTERNAL_H
#define FM_FORMAT_INTERNAL_H

#include <string.h>

#include "format/gguf.h"

/* The formats are little-endian and so are all machines this builds for (base/cpu.h); memcpy because nothing is aligned. */
static inline uint16_t fm_load_u16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint32_t fm_load_u32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t fm_load_u64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* a * b, a + b into *out; false on overflow. */
static inline bool fm_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool fm_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

/* Sorts order[0..n) by cmp(ctx, order[i], order[j]) in O(n log n) worst case and without memory: counts and names come from
 * files that may be made to hurt, which rules out the C library's qsort. */
typedef int (*fm_order_cmp)(const void *ctx, size_t i, size_t j);
void fm_order_sort(size_t *order, size_t n, fm_order_cmp cmp, const void *ctx);
/* Bytewise, shorter first. */
int fm_view_cmp(fm_view a, fm_view b);

/* What the first bytes of a file say it is ("a Git LFS pointer: fetch the real file with 'git lfs pull'"), ending in what to
 * do; NULL when they say nothing. */
const char *fm_sniff(const unsigned char *p, size_t n);

/* One file, not looking for other parts (gguf_read.c); *g is zeroed on failure. */
fm_status fm_gguf_open_one(fm_gguf *g, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err);
/* Orders g->tensors by name and refuses a name given twice. */
fm_status fm_gguf_order_tensors(fm_gguf *g, fm_error *err);
/* Adds the other parts if there are any (gguf_split.c). */
fm_status fm_gguf_join(fm_gguf *g, fm_map_mode mode, fm_error *err);
/* Bytes of a scalar type, 0 for strings and arrays. */
size_t fm_gguf_scalar_bytes(fm_gguf_kv_type type);

#endif
