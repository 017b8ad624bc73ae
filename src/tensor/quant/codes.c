/* codes.c - codes and scales into bytes and back. */
#include "tensor/quant/codes.h"

#include <string.h>

void fm_pack_nibbles(uint8_t *q, const uint8_t *codes, size_t half)
{
    for (size_t i = 0; i < half; i++) q[i] = (uint8_t)((codes[i] & 15) | (codes[i + half] & 15) << 4);
}

void fm_unpack_nibbles(uint8_t *codes, const uint8_t *q, size_t half)
{
    for (size_t i = 0; i < half; i++) {
        codes[i] = q[i] & 15;
        codes[i + half] = q[i] >> 4;
    }
}

void fm_pack_fifth(uint8_t h[4], const uint8_t codes[32])
{
    memset(h, 0, 4);
    for (size_t i = 0; i < 32; i++) h[i / 8] |= (uint8_t)((codes[i] >> 4 & 1) << i % 8);
}

void fm_unpack_fifth(uint8_t codes[32], const uint8_t h[4])
{
    for (size_t i = 0; i < 32; i++) codes[i] |= (uint8_t)((h[i / 8] >> i % 8 & 1) << 4);
}

void fm_pack_pairs(uint8_t q[64], const uint8_t codes[FM_SUPER], unsigned shift)
{
    for (size_t half = 0; half < 2; half++, q += 32, codes += 128) {
        for (size_t l = 0; l < 32; l++) {
            unsigned byte = 0;
            for (unsigned part = 0; part < 4; part++) byte |= (codes[32 * part + l] >> shift & 3u) << 2 * part;
            q[l] = (uint8_t)byte;
        }
    }
}

void fm_unpack_pairs(uint8_t codes[FM_SUPER], const uint8_t q[64], unsigned shift)
{
    for (size_t half = 0; half < 2; half++, q += 32, codes += 128) {
        for (unsigned part = 0; part < 4; part++) {
            for (size_t l = 0; l < 32; l++) codes[32 * part + l] |= (uint8_t)((q[l] >> 2 * part & 3) << shift);
        }
    }
}

void fm_pack_plane(uint8_t h[32], const uint8_t codes[FM_SUPER], unsigned shift)
{
    memset(h, 0, 32);
    for (unsigned g = 0; g < 8; g++) {
        for (size_t l = 0; l < 32; l++) h[l] |= (uint8_t)((codes[32 * g + l] >> shift & 1) << g);
    }
}

void fm_unpack_plane(uint8_t codes[FM_SUPER], const uint8_t h[32], unsigned shift)
{
    for (unsigned g = 0; g < 8; g++) {
        for (size_t l = 0; l < 32; l++) codes[32 * g + l] |= (uint8_t)((h[l] >> g & 1) << shift);
    }
}

/* Bytes 0-3 and 4-7 hold scales and minima 0-3 in their low six bits; the nibbles of bytes 8-11 are the low bits of numbers
 * 4-7, whose upper two bits fill the tops of bytes 0-7. */
void fm_pack_scales(uint8_t s[12], const uint8_t scale[8], const uint8_t min[8])
{
    for (size_t i = 0; i < 4; i++) {
        s[i] = (uint8_t)(scale[i] | (scale[i + 4] >> 4) << 6);
        s[i + 4] = (uint8_t)(min[i] | (min[i + 4] >> 4) << 6);
        s[i + 8] = (uint8_t)((scale[i + 4] & 15) | (min[i + 4] & 15) << 4);
    }
}

void fm_unpack_scales(uint8_t scale[8], uint8_t min[8], const uint8_t s[12])
{
    for (size_t i = 0; i < 4; i++) {
        scale[i] = s[i] & 63;
        min[i] = s[i + 4] & 63;
        scale[i + 4] = (uint8_t)((s[i + 8] & 15) | (s[i] >> 6) << 4);
        min[i + 4] = (uint8_t)(s[i + 8] >> 4 | (s[i + 4] >> 6) << 4);
    }
}
