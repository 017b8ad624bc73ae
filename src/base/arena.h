/* arena.h - a bump allocator whose layout functions run twice: with base NULL it only measures, then it places.
 * So the size announced and the size used are the same code (design, "Names, errors, memory"). */
#ifndef FM_BASE_ARENA_H
#define FM_BASE_ARENA_H

#include <stddef.h>

#include "base/alloc.h"

typedef struct fm_arena {
    unsigned char *base; /* NULL: measuring */
    size_t used, size;   /* bytes; size is ignored while measuring */
} fm_arena;

/* count * size bytes aligned to FM_ALIGN, or NULL while measuring.  Running past the end, or an overflow while placing, is a
 * bug and asserts; an overflow while measuring saturates `used` to SIZE_MAX so that the allocation after it fails. */
void *fm_arena_push(fm_arena *a, size_t count, size_t size);

#define FM_PUSH(arena, type, count) ((type *)fm_arena_push((arena), (count), sizeof(type)))

#endif
