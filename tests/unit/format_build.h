/* format_build.h - what the tests of src/format share: files put together byte by byte, and a hole in the address space in
 * front of a forbidden page, so that reading one byte past a mapped file of one page stops the program. */
#ifndef FM_TESTS_UNIT_FORMAT_BUILD_H
#define FM_TESTS_UNIT_FORMAT_BUILD_H

#include <sys/mman.h>

#include "format/gguf.h"
#include "unit/testing.h"

#define PAGE ((size_t)4096)

typedef struct bytes {
    unsigned char *p;
    size_t n, cap;
} bytes;

FM_UNUSED static void put(bytes *b, const void *p, size_t n)
{
    if (b->p == NULL || b->n + n > b->cap) {
        b->cap = 2 * (b->n + n) + 64;
        b->p = realloc(b->p, b->cap);
        assert_non_null(b->p);
    }
    if (n > 0) memcpy(b->p + b->n, p, n);
    b->n += n;
}

FM_UNUSED static void put_zeros(bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++) put(b, "", 1);
}

FM_UNUSED static void put_u8(bytes *b, uint8_t v)
{
    put(b, &v, 1);
}

FM_UNUSED static void put_u16(bytes *b, uint16_t v)
{
    put(b, &v, 2);
}

FM_UNUSED static void put_u32(bytes *b, uint32_t v)
{
    put(b, &v, 4);
}

FM_UNUSED static void put_u64(bytes *b, uint64_t v)
{
    put(b, &v, 8);
}

FM_UNUSED static void put_text(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

FM_UNUSED static void put_key(bytes *b, const char *key, uint32_t type)
{
    put_text(b, key);
    put_u32(b, type);
}

FM_UNUSED static void put_array(bytes *b, const char *key, uint32_t element, uint64_t n)
{
    put_key(b, key, FM_GGUF_ARRAY);
    put_u32(b, element);
    put_u64(b, n);
}

FM_UNUSED static void put_head(bytes *b, uint64_t n_tensors, uint64_t n_kv)
{
    put(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}

FM_UNUSED static void put_info(bytes *b, const char *name, const uint64_t *dims, uint32_t n_dims, uint32_t type,
                               uint64_t offset)
{
    put_text(b, name);
    put_u32(b, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) put_u64(b, dims[d]);
    put_u32(b, type);
    put_u64(b, offset);
}

FM_UNUSED static void pad_to(bytes *b, size_t align)
{
    while (b->n % align != 0) put(b, "", 1);
}

/* Makes the next mapping of one page end where a forbidden page begins; best effort, see guard_holds(). */
typedef struct guard {
    unsigned char *hole, *filler[2048];
    size_t n_filler;
} guard;

FM_UNUSED static void guard_make(guard *g)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    g->n_filler = 0;
    g->hole = mmap(NULL, 2 * PAGE, PROT_NONE, flags, -1, 0);
    assert_true(g->hole != MAP_FAILED);
    munmap(g->hole, PAGE);
    while (g->n_filler < FM_COUNT(g->filler)) {
        unsigned char *p = mmap(NULL, PAGE, PROT_NONE, flags, -1, 0);
        assert_true(p != MAP_FAILED);
        if (p == g->hole) {
            munmap(p, PAGE);
            return;
        }
        g->filler[g->n_filler++] = p;
    }
}

FM_UNUSED static bool guard_holds(const guard *g, const void *mapped)
{
    return mapped == g->hole;
}

FM_UNUSED static void guard_free(guard *g)
{
    for (size_t i = 0; i < g->n_filler; i++) munmap(g->filler[i], PAGE);
    munmap(g->hole + PAGE, PAGE);
}

#endif
