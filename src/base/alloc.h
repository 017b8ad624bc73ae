/* alloc.h - every allocation of the library goes through these, over the caller's fm_allocator (fmamba.h).
 * `a` NULL means the C library's.  Memory is aligned to FM_ALIGN bytes. */
#ifndef FM_BASE_ALLOC_H
#define FM_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define FM_ALIGN ((size_t)64)

/* a * b, a + b into *out; false when the result does not fit size_t (then *out is untouched). */
static inline bool fm_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline bool fm_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

static inline size_t fm_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline size_t fm_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* count * size bytes, zeroed; *out is NULL on failure.  `what` names the thing in the error.  count 0 gives a valid pointer.
 * Errors  FM_ERR_MEMORY, also when count * size overflows. */
fm_status fm_alloc(void **out, const fm_allocator *a, size_t count, size_t size, const char *what, fm_error *err);

/* What fm_alloc() asks the allocator for when it is to give `bytes`: a multiple of FM_ALIGN, at least one; 0 when too many. */
size_t fm_alloc_bytes(size_t bytes);

/* Releases what fm_alloc gave; NULL is fine. */
void fm_free(const fm_allocator *a, void *p);

/* Grows *p (from *cap elements to at least `need`, doubling) keeping its contents; *p NULL and *cap 0 at first. */
fm_status fm_grow(void **p, size_t *cap, size_t need, size_t size, const fm_allocator *a, const char *what, fm_error *err);

char *fm_strdup(const fm_allocator *a, const char *s, size_t n, fm_error *err); /* n bytes and a 0; NULL on failure */

#endif
