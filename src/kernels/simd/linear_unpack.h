/* linear_unpack.h - block formats (spec falcon-mamba.md 4.4) to panels of bytes, LANES rows at a time.
 *
 * Rows lie in lanes: word j of every row's block makes one vector, and all bit work happens there.  Codes come as a dot
 * instruction takes them, as unsigned bytes, plus an offset that the tile takes back through the sums of the inputs.
 *
 * A type is a head_<type>, which leaves a block's scales in a panel, and a codes_<type>, which gives the codes in steps: of 64
 * columns for super-blocks, of one block of 32 (with its scale) for the others.  The panel's own q is filled by unpack_<type>. */
#ifndef FM_KERNELS_SIMD_LINEAR_UNPACK_H
#define FM_KERNELS_SIMD_LINEAR_UNPACK_H

/* The first includer names the instruction set by including its linear_vec_<isa>.h before this file. */
#include "kernels/linear.h"

/* 256 columns of LANES rows. */
typedef struct panel {
    iv q[64];     /* four consecutive columns of every row */
    iv scale[16]; /* per 16 or 32 columns, as dot_end_scaled takes it */
    iv min[8];    /* pairs of 16-bit factors for the inputs' sums */
    fv d[8], m[8];
    iv high[8]; /* Q3_K, Q5_K: the codes' highest bits, which lie apart */
} panel;

typedef const uint8_t *const *row_list; /* LANES pointers */

static const int8_t iq4_values[16] = FM_IQ4_VALUES;

#define B(byte) ((byte) * 0x01010101u)

/* Byte g % 4 of words[g / 4] in every lane, zero- or sign-extended. */
FM_INLINE iv unpack_byte(const iv *words, int g) { return words[g / 4] >> (8 * (g % 4)) & 255u; }

FM_INLINE iv sign_extend8(iv v) { return (v ^ 128u) - 128u; }

FM_INLINE iv pair16(iv a, iv b) { return (a & 0xffffu) | b << 16; }

FM_INLINE iv scale_form(iv s) { return DOT_CHAIN ? s : pair16(s, s); }

/* Scales of `groups` groups; where codes carry an offset (a power of two, 0 for none), also the factors that take it back. */
FM_INLINE void put_scales(panel *p, const iv *s, int groups, uint32_t offset)
{
    for (int g = 0; g < groups; g++) p->scale[g] = scale_form(s[g]);
    if (offset)
        for (int g = 0; g < groups; g += 2) p->min[g / 2] = pair16(s[g] * offset, s[g + 1] * offset);
}

FM_INLINE void put_mins(panel *p, const iv *words, int groups)
{
    for (int g = 0; g < groups; g += 2) p->min[g / 2] = pair16(unpack_byte(words, g), unpack_byte(words, g + 1));
}

/* The d and m (or only d) halves in a word. */
FM_INLINE void put_dm(panel *p, iv word, size_t b)
{
    p->d[b] = fv_from_half(word);
    p->m[b] = fv_from_half(word >> 16);
}

FM_INLINE void unpack_scales_k(panel *p, const iv head[4])
{
    const iv u = head[1], v = head[2], w = head[3];
    const iv scales[2] = {u & B(63u), (w & B(15u)) | (u >> 2 & B(48u))};
    const iv mins[2] = {v & B(63u), (w >> 4 & B(15u)) | (v >> 2 & B(48u))};
    iv s[8];
    put_dm(p, head[0], 0);
    for (int g = 0; g < 8; g++) s[g] = unpack_byte(scales, g);
    put_scales(p, s, 8, 0);
    put_mins(p, mins, 8);
}

FM_INLINE void head_q4_k(panel *p, row_list row, size_t off)
{
    iv v[4];
    iv_load_rows(v, row, off);
    unpack_scales_k(p, v);
}

FM_INLINE void codes_q4_k(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    (void)p;
    for (int i = 0; i < 2; i++) {
        iv v[4];
        iv_load_rows(v, row, off + 16 + 32 * (size_t)step + 16 * (size_t)i);
        for (int k = 0; k < 4; k++) {
            q[4 * i + k] = v[k] & B(15u);
            q[4 * i + k + 8] = v[k] >> 4 & B(15u);
        }
    }
}

FM_INLINE void head_q5_k(panel *p, row_list row, size_t off)
{
    head_q4_k(p, row, off);
    iv_load_rows(p->high, row, off + 16);
    iv_load_rows(p->high + 4, row, off + 32);
}

FM_INLINE void codes_q5_k(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    codes_q4_k(q, p, row, off + 32, step);
    for (int k = 0; k < 8; k++) {
        const iv h = p->high[k] >> 2 * step;
        q[k] |= (h & B(1u)) << 4;
        q[k + 8] |= (h & B(2u)) << 3;
    }
}

FM_INLINE void head_q2_k(panel *p, row_list row, size_t off)
{
    iv v[4], scales[4], mins[4], s[16];
    iv_load_rows(v, row, off);
    for (int i = 0; i < 4; i++) {
        scales[i] = v[i] & B(15u);
        mins[i] = v[i] >> 4 & B(15u);
    }
    for (int g = 0; g < 16; g++) s[g] = unpack_byte(scales, g);
    put_scales(p, s, 16, 0);
    put_mins(p, mins, 16);
    iv_load_rows(v, row, off + 68);
    put_dm(p, v[3], 0);
}

FM_INLINE void codes_q2_k(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    iv v[4];
    (void)p;
    iv_load_rows(v, row, off + 16 + 16 * (size_t)step);
    for (int k = 0; k < 4; k++)
        for (int part = 0; part < 4; part++) q[4 * part + k] = v[k] >> 2 * part & B(3u);
}

/* The 12 bytes of scales start at 96, two bytes before a block's last 14, so that the last load ends with the block. */
FM_INLINE void unpack_scales_q3_k(panel *p, row_list row, size_t off)
{
    iv v[4], s[16], word[4];
    iv_load_rows(v, row, off + 94);
    p->d[0] = fv_from_half(v[3] >> 16);
    const iv a = v[0] >> 16 | v[1] << 16, b = v[1] >> 16 | v[2] << 16, high = v[2] >> 16 | v[3] << 16;
    const iv low[4] = {a & B(15u), b & B(15u), a >> 4 & B(15u), b >> 4 & B(15u)};
    for (int i = 0; i < 4; i++) word[i] = low[i] | (high >> 2 * i & B(3u)) << 4;
    for (int g = 0; g < 16; g++) s[g] = unpack_byte(word, g) - 32u;
    put_scales(p, s, 16, 4);
}

FM_INLINE void head_q3_k(panel *p, row_list row, size_t off)
{
    unpack_scales_q3_k(p, row, off);
    iv_load_rows(p->high, row, off);
    iv_load_rows(p->high + 4, row, off + 16);
}

FM_INLINE void codes_q3_k(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    iv v[4];
    iv_load_rows(v, row, off + 32 + 16 * (size_t)step);
    for (int k = 0; k < 4; k++) {
        const iv h = p->high[step % 2 * 4 + k] >> step / 2 * 4;
        for (int part = 0; part < 4; part++) q[4 * part + k] = (v[k] >> 2 * part & B(3u)) | (h >> part & B(1u)) << 2;
    }
}

FM_INLINE void head_q6_k(panel *p, row_list row, size_t off)
{
    iv v[4], s[16];
    iv_load_rows(v, row, off + 192);
    for (int g = 0; g < 16; g++) s[g] = sign_extend8(unpack_byte(v, g));
    put_scales(p, s, 16, 32);
    iv_load_rows(v, row, off + 194);
    p->d[0] = fv_from_half(v[3] >> 16);
}

FM_INLINE void codes_q6_k(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    const size_t low = off + 64 * ((size_t)step / 2) + 16 * ((size_t)step % 2);
    iv a[4], b[4], h[4];
    (void)p;
    iv_load_rows(a, row, low);
    iv_load_rows(b, row, low + 32);
    iv_load_rows(h, row, off + 128 + 16 * (size_t)step);
    for (int k = 0; k < 4; k++) {
        q[k] = (a[k] & B(15u)) | (h[k] & B(3u)) << 4;
        q[k + 4] = (b[k] & B(15u)) | (h[k] >> 2 & B(3u)) << 4;
        q[k + 8] = (a[k] >> 4 & B(15u)) | (h[k] & B(48u));
        q[k + 12] = (b[k] >> 4 & B(15u)) | (h[k] >> 2 & B(48u));
    }
}

/* IQ4 codes of 16 bytes: low nibbles first, high ones 16 columns later. */
FM_INLINE void put_iq4(iv *q, const iv v[4])
{
    for (int k = 0; k < 4; k++) {
        q[k] = iv_lookup(iq4_values, v[k] & B(15u)) ^ B((uint32_t)FULL_OFFSET);
        q[k + 4] = iv_lookup(iq4_values, v[k] >> 4 & B(15u)) ^ B((uint32_t)FULL_OFFSET);
    }
}

FM_INLINE void head_iq4_xs(panel *p, row_list row, size_t off)
{
    iv v[4], s[8];
    iv_load_rows(v, row, off);
    p->d[0] = fv_from_half(v[0]);
    for (int g = 0; g < 8; g++) s[g] = ((v[1] >> 4 * g & 15u) | (v[0] >> (16 + 2 * g) & 3u) << 4) - 32u;
    put_scales(p, s, 8, FULL_OFFSET);
}

FM_INLINE void codes_iq4_xs(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    (void)p;
    for (int i = 0; i < 2; i++) {
        iv v[4];
        iv_load_rows(v, row, off + 8 + 32 * (size_t)step + 16 * (size_t)i);
        put_iq4(q + 8 * i, v);
    }
}

FM_INLINE void head_int4_g128(panel *p, row_list row, size_t off)
{
    iv v[4];
    iv_load_rows(v, row, off);
    p->d[0] = fv_from_half(v[0]);
    p->d[1] = fv_from_half(v[0] >> 16);
}

/* A word of the file has four columns low and the four that are 16 further high; its neighbours are of other blocks of 32. */
FM_INLINE void codes_int4_g128(iv q[16], const panel *p, row_list row, size_t off, int step)
{
    (void)p;
    for (int i = 0; i < 2; i++) {
        iv v[4];
        iv_load_rows(v, row, off + 4 + 32 * (size_t)step + 16 * (size_t)i);
        for (int k = 0; k < 4; k++) {
            v[k] ^= B(0x88u); /* two's complement becomes an offset of 8 */
            q[8 * i + 2 * k] = v[k] & B(15u);
            q[8 * i + 2 * k + 1] = v[k] >> 4 & B(15u);
        }
    }
}

/* Where the codes of a step lie: the index of q[i] in the panel. */
FM_INLINE int step_word(int step, int i, int groups)
{
    if (groups == 2) return step / 2 * 32 + i % 8 / 2 * 8 + i % 2 * 4 + step % 2 * 2 + i / 8;
    return groups == 16 ? step / 2 * 32 + step % 2 * 4 + i / 4 * 8 + i % 4 : 16 * step + i;
}

#define UNPACK_256(type, groups)                                                                                               \
    static void unpack_##type(panel *p, row_list row, size_t off, size_t blocks)                                               \
    {                                                                                                                          \
        (void)blocks;                                                                                                          \
        head_##type(p, row, off);                                                                                              \
        for (int step = 0; step < 4; step++) {                                                                                 \
            iv q[16];                                                                                                          \
            codes_##type(q, p, row, off, step);                                                                                \
            for (int i = 0; i < 16; i++) p->q[step_word(step, i, groups)] = q[i];                                              \
        }                                                                                                                      \
    }

UNPACK_256(q4_k, 8)
UNPACK_256(q5_k, 8)
UNPACK_256(q2_k, 16)
UNPACK_256(q3_k, 16)
UNPACK_256(q6_k, 16)
UNPACK_256(iq4_xs, 8)

FM_INLINE void codes_q8_0(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv v[4];
    iv_load_rows(v, row, off);
    p->d[b] = fv_from_half(v[0]);
    for (size_t i = 0; i < 2; i++) {
        iv_load_rows(v, row, off + 2 + 16 * i);
        for (size_t k = 0; k < 4; k++) q[4 * i + k] = v[k] ^ B((uint32_t)FULL_OFFSET);
    }
}

FM_INLINE void put_nibbles(iv *q, const iv v[4])
{
    for (int k = 0; k < 4; k++) {
        q[k] = v[k] & B(15u);
        q[k + 4] = v[k] >> 4 & B(15u);
    }
}

/* The fifth bits: bit j of `bits` belongs to column j.  The product puts copies of four bits 7 places apart. */
FM_INLINE void add_fifth(iv *q, iv bits)
{
    for (int k = 0; k < 8; k++) q[k] |= ((bits >> 4 * k & 15u) * 0x204081u & B(1u)) << 4;
}

FM_INLINE void codes_q4_0(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv v[4];
    iv_load_rows(v, row, off);
    p->d[b] = fv_from_half(v[0]);
    iv_load_rows(v, row, off + 2);
    put_nibbles(q, v);
}

FM_INLINE void codes_q4_1(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv v[4];
    iv_load_rows(v, row, off);
    put_dm(p, v[0], b);
    iv_load_rows(v, row, off + 4);
    put_nibbles(q, v);
}

FM_INLINE void codes_q5_0(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv head[4], v[4];
    iv_load_rows(head, row, off);
    p->d[b] = fv_from_half(head[0]);
    iv_load_rows(v, row, off + 6);
    put_nibbles(q, v);
    add_fifth(q, head[0] >> 16 | head[1] << 16);
}

FM_INLINE void codes_q5_1(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv head[4], v[4];
    iv_load_rows(head, row, off);
    put_dm(p, head[0], b);
    iv_load_rows(v, row, off + 8);
    put_nibbles(q, v);
    add_fifth(q, head[1]);
}

FM_INLINE void codes_iq4_nl(iv q[8], panel *p, row_list row, size_t off, size_t b)
{
    iv v[4];
    iv_load_rows(v, row, off);
    p->d[b] = fv_from_half(v[0]);
    iv_load_rows(v, row, off + 2);
    put_iq4(q, v);
}

#define UNPACK_32(type, bytes)                                                                                                 \
    static void unpack_##type(panel *p, row_list row, size_t off, size_t blocks)                                               \
    {                                                                                                                          \
        for (size_t b = 0; b < blocks; b++) codes_##type(p->q + 8 * b, p, row, off + (bytes)*b, b);                            \
    }

UNPACK_32(q8_0, 34)
UNPACK_32(q4_0, 18)
UNPACK_32(q4_1, 20)
UNPACK_32(q5_0, 22)
UNPACK_32(q5_1, 24)
UNPACK_32(iq4_nl, 18)

#undef B
#endif
