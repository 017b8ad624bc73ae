/* alloc.c - zeroed, aligned, overflow-checked allocation over the caller's fm_allocator. */
#define _GNU_SOURCE /* madvise */
#include "base/alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

size_t fm_alloc_bytes(size_t bytes)
{
    if (bytes == 0) return FM_ALIGN;
    if (bytes > (size_t)PTRDIFF_MAX - FM_ALIGN) return 0;
    return fm_round_up(bytes, FM_ALIGN);
}

/* The huge pages within a large block of the C library, whose memory is private and belongs to no file: asks for huge ones (a
 * session of 140 MiB then begins with 70 faults, not 36000), and gives back what lies in them, so that they read as zeros and
 * cost nothing before they are used.  false: they are as they were. */
static bool renew_pages(void *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE); /* a refusal costs only time */
#endif
    return madvise(p, bytes, MADV_DONTNEED) == 0;
}

static void zero_large(unsigned char *p, size_t bytes)
{
    const size_t lead = (size_t)(-(uintptr_t)p % HUGE_BYTES), whole = (bytes - lead) / HUGE_BYTES * HUGE_BYTES;
    memset(p, 0, lead);
    if (!renew_pages(p + lead, whole)) memset(p + lead, 0, whole);
    memset(p + lead + whole, 0, bytes - lead - whole);
}

static void *zero_alloc(const fm_allocator *a, size_t bytes)
{
    const bool given = a != NULL && a->alloc != NULL;
    void *p = given ? a->alloc(a->ctx, bytes, FM_ALIGN) : aligned_alloc(FM_ALIGN, bytes);
    if (p == NULL) return NULL;
    FM_ASSERT((uintptr_t)p % FM_ALIGN == 0);
    if (given || bytes < 2 * HUGE_BYTES)
        memset(p, 0, bytes);
    else
        zero_large(p, bytes);
    return p;
}

static fm_status fail_memory(fm_error *err, size_t count, size_t size, const char *what)
{
    size_t bytes = 0;
    if (!fm_mul(count, size, &bytes)) {
        return fm_fail(err, FM_ERR_MEMORY,
                       "%s: %zu elements of %zu bytes do not fit this machine's "
                       "address space",
                       what, count, size);
    }
    return fm_fail(err, FM_ERR_MEMORY,
                   "out of memory: %s needs %zu bytes; free some memory or ask "
                   "for less",
                   what, bytes);
}

fm_status fm_alloc(void **out, const fm_allocator *a, size_t count, size_t size, const char *what, fm_error *err)
{
    *out = NULL;
    size_t bytes = 0;
    if (!fm_mul(count, size, &bytes)) return fail_memory(err, count, size, what);
    const size_t padded = fm_alloc_bytes(bytes);
    void *p = padded > 0 ? zero_alloc(a, padded) : NULL;
    if (p == NULL) return fail_memory(err, count, size, what);
    *out = p;
    return FM_OK;
}

void fm_free(const fm_allocator *a, void *p)
{
    if (p == NULL) return;
    if (a == NULL || a->free == NULL) {
        free(p);
    } else {
        a->free(a->ctx, p);
    }
}

fm_status fm_grow(void **p, size_t *cap, size_t need, size_t size, const fm_allocator *a, const char *what, fm_error *err)
{
    if (need <= *cap) return FM_OK;
    size_t room = *cap > SIZE_MAX / 2 ? need : *cap * 2;
    if (room < need) room = need;
    if (room < 8) room = 8;
    void *grown = NULL;
    FM_TRY(fm_alloc(&grown, a, room, size, what, err));
    if (*p != NULL) memcpy(grown, *p, *cap * size);
    fm_free(a, *p);
    *p = grown;
    *cap = room;
    return FM_OK;
}

char *fm_strdup(const fm_allocator *a, const char *s, size_t n, fm_error *err)
{
    void *p = NULL;
    size_t bytes = 0;
    if (!fm_add(n, 1, &bytes)) {
        fail_memory(err, n, 1, "a copy of a text");
        return NULL;
    }
    if (fm_alloc(&p, a, bytes, 1, "a copy of a text", err) != FM_OK) return NULL;
    char *copy = p;
    if (n > 0) memcpy(copy, s, n);
    return copy;
}
