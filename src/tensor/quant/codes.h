/* codes.h - the pieces that the block formats are built from: scalars in a block, and codes spread over its bytes.
 *
 * A code is the small unsigned number that stands for one element.  Encoders and decoders work on one code per byte; these
 * functions are the only place that knows how codes share bytes.  The layouts are those of spec 4.4. */
#ifndef FM_TENSOR_QUANT_CODES_H
#define FM_TENSOR_QUANT_CODES_H

#include "tensor/traits.h"

enum { FM_SUPER = 256 }; /* elements of a super-block */

static inline uint16_t fm_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void fm_put_u16(uint8_t *p, uint16_t h)
{
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static inline float fm_get_f16(const uint8_t *p)
{
    return fm_f16_to_f32(fm_get_u16(p));
}

/* The nearest finite half, and 0 for a NaN: an infinite scale would turn every zero code of its block into a NaN. */
static inline uint16_t fm_finite_half(float f)
{
    const uint16_t h = fm_f32_to_f16(f);
    if ((h & 0x7c00u) != 0x7c00u) return h;
    return (h & 0x3ffu) != 0 ? 0 : (uint16_t)(h - 1);
}

static inline void fm_put_f16(uint8_t *p, float f)
{
    fm_put_u16(p, fm_finite_half(f));
}

static inline int fm_clamp_int(int v, int lo, int hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* v to the nearest integer, halves to even, for |v| < 2^22: 1.5 * 2^23 has a unit of 1, so the sum's low bits hold the result.
 * Beyond that range (infinity and NaN too) the bits are meaningless but defined, and the same on every machine. */
static inline int fm_round_even(float v)
{
    union {
        float f;
        uint32_t u;
    } sum = {v + 0x1.8p23f};
    return (int)(sum.u & 0x7fffffu) - 0x400000;
}

/* Nibbles: byte i holds code i below and code i + half above. */
void fm_pack_nibbles(uint8_t *q, const uint8_t *codes, size_t half);
void fm_unpack_nibbles(uint8_t *codes, const uint8_t *q, size_t half);

/* The fifth bits of 32 codes, one bit each in order. */
void fm_pack_fifth(uint8_t h[4], const uint8_t codes[32]);
void fm_unpack_fifth(uint8_t codes[32], const uint8_t h[4]); /* ors into the codes */

/* Bits `shift` and `shift + 1` of 256 codes: of each 128, byte l holds codes l, l + 32, l + 64, l + 96 from low to high. */
void fm_pack_pairs(uint8_t q[64], const uint8_t codes[FM_SUPER], unsigned shift);
void fm_unpack_pairs(uint8_t codes[FM_SUPER], const uint8_t q[64], unsigned shift); /* ors into the codes */

/* Bit `shift` of 256 codes: bit g of byte l belongs to code 32 g + l. */
void fm_pack_plane(uint8_t h[32], const uint8_t codes[FM_SUPER], unsigned shift);
void fm_unpack_plane(uint8_t codes[FM_SUPER], const uint8_t h[32], unsigned shift); /* ors into the codes */

/* Eight 6-bit scales and eight 6-bit minima in 12 bytes (Q4_K, Q5_K). */
void fm_pack_scales(uint8_t s[12], const uint8_t scale[8], const uint8_t min[8]);
void fm_unpack_scales(uint8_t scale[8], uint8_t min[8], const uint8_t s[12]);

#endif
