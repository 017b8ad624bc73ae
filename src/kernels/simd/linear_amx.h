/* linear_amx.h - the tile instructions, with what they do to memory written out: the intrinsics of gcc 12 leave it unsaid, and
 * the compiler then drops stores that only a tile load reads.
 *
 * A product of tiles gives 16 tokens by 16 rows of up to 64 columns, and 32 take as long as 64.  A holds a token's columns in a
 * row, B has the layout of a panel's q (linear_unpack.h).  Every sum is an exact 32-bit integer. */
#ifndef FM_KERNELS_SIMD_LINEAR_AMX_H
#define FM_KERNELS_SIMD_LINEAR_AMX_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

enum { TILE_ROWS = 16, TILE_BYTES = 64 };

/* What ldtilecfg reads. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

/* Tiles 0 - 3 hold sums of `tokens` (<= 16) rows, 4 a piece of the input, 5 - 7 pieces of weights, `cols` (<= 64) columns each.
 * Nothing promises that a configuration outlives a call, so each call of a product begins with tiles_begin. */
FM_INLINE void tiles_begin(size_t tokens, size_t cols)
{
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.row_bytes[i] = i == 4 ? (uint16_t)cols : TILE_BYTES;
        c.rows[i] = (uint8_t)(i <= 4 ? tokens : cols / 4);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(c));
}

/* Back to the initial state, which a task switch need not save. */
FM_INLINE void tiles_end(void)
{
    __asm__ volatile("tilerelease");
}

#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
#define TILE_LOAD(tile, from, stride)                                                                                          \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"((const void *)(from)), "r"((size_t)(stride)) : "memory")
#define TILE_STORE(to, tile)                                                                                                   \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"((void *)(to)), "r"((size_t)TILE_BYTES) : "memory")

/* sum += a . b; the input `a` is signed, the weights `b` signed (SS) or not (SU). */
#define TILE_DOT_SS(sum, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
#define TILE_DOT_SU(sum, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

#endif
