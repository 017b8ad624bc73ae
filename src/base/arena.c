/* arena.c - the bump allocator of arena.h. */
#include "base/arena.h"

#include <stdint.h>

/* Bytes of a piece with the padding after it, so that the next one is aligned too. */
static bool piece_bytes(size_t count, size_t size, size_t *out)
{
    size_t bytes = 0;
    if (!fm_mul(count, size, &bytes)) return false;
    if (bytes > SIZE_MAX - (FM_ALIGN - 1)) return false;
    *out = fm_round_up(bytes, FM_ALIGN);
    return true;
}

void *fm_arena_push(fm_arena *a, size_t count, size_t size)
{
    size_t bytes = 0, end = 0;
    const bool fits = piece_bytes(count, size, &bytes) && fm_add(a->used, bytes, &end);
    if (a->base == NULL) {
        a->used = fits ? end : SIZE_MAX;
        return NULL;
    }
    FM_ASSERT(fits && end <= a->size);
    void *p = a->base + a->used;
    a->used = end;
    return p;
}
