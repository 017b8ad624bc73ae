/* codes.c - block formats as integers and scales (spec falcon-mamba.md 4.4), one plain reader each.  The decoders to floats are
 * tensor/quant; here the integers stay integers, because products multiply them as such. */
#include <string.h>

#include "kernels/ref/linear_ref.h"

static const int8_t iq4_values[16] = FM_IQ4_VALUES;

static float half_at(const uint8_t *p) { return fm_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static uint32_t word_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Sixteen bytes of nibbles: low ones first, high ones 16 later, each | 16 * its bit of `fifth`, minus `off`. */
static void nibbles32(int8_t *q, const uint8_t *src, uint32_t fifth, int off)
{
    for (unsigned j = 0; j < 16; j++) {
        q[j] = (int8_t)((int)((src[j] & 15u) | (fifth >> j & 1u) << 4) - off);
        q[j + 16] = (int8_t)((int)(src[j] >> 4 | (fifth >> (j + 16) & 1u) << 4) - off);
    }
}

static void iq4_32(int8_t *q, const uint8_t *src)
{
    for (int j = 0; j < 16; j++) {
        q[j] = iq4_values[src[j] & 15];
        q[j + 16] = iq4_values[src[j] >> 4];
    }
}

static void read_32(fm_codes *o, fm_dtype type, const uint8_t *s, size_t b)
{
    int8_t *q = o->q + 32 * b;
    o->d32[b] = half_at(s);
    o->m32[b] = type == FM_Q4_1 || type == FM_Q5_1 ? half_at(s + 2) : 0.0f;
    switch (type) {
    case FM_Q8_0: memcpy(q, s + 2, 32); break;
    case FM_Q4_0: nibbles32(q, s + 2, 0, 8); break;
    case FM_Q4_1: nibbles32(q, s + 4, 0, 0); break;
    case FM_Q5_0: nibbles32(q, s + 6, word_at(s + 2), 16); break;
    case FM_Q5_1: nibbles32(q, s + 8, word_at(s + 4), 0); break;
    default: iq4_32(q, s + 2); break;
    }
}

static void read_q2_k(fm_codes *o, const uint8_t *s)
{
    for (int g = 0; g < 16; g++) {
        o->scale[g] = s[g] & 15;
        o->min[g] = s[g] >> 4;
    }
    for (int j = 0; j < 256; j++) o->q[j] = s[16 + j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3;
    o->d = half_at(s + 80);
    o->m = half_at(s + 82);
}

static void read_q3_k(fm_codes *o, const uint8_t *s)
{
    const uint8_t *scales = s + 96;
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4, high = scales[8 + g % 4] >> g / 4 * 2 & 3;
        o->scale[g] = (int16_t)((low | high << 4) - 32);
    }
    for (int j = 0; j < 256; j++) {
        int low = s[32 + j / 128 * 32 + j % 32] >> j % 128 / 32 * 2 & 3, high = s[j % 32] >> j / 32 & 1;
        o->q[j] = (int8_t)(low - (high ? 0 : 4));
    }
    o->d = half_at(s + 108);
}

/* The 6-bit scales and mins of Q4_K and Q5_K, one pair per 32 columns. */
static void read_scales_k(fm_codes *o, const uint8_t *s)
{
    o->d = half_at(s);
    o->m = half_at(s + 2);
    s += 4;
    for (int j = 0; j < 16; j++) {
        int g = j / 2;
        o->scale[j] = (int16_t)(g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4);
        o->min[j] = (int16_t)(g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4);
    }
}

static void read_q45_k(fm_codes *o, const uint8_t *s, bool fifth)
{
    const uint8_t *high = s + 16, *q = s + (fifth ? 48 : 16);
    read_scales_k(o, s);
    for (int j = 0; j < 256; j++) {
        int v = q[j / 64 * 32 + j % 32] >> j / 32 % 2 * 4 & 15;
        if (fifth) v |= (high[j % 32] >> j / 32 & 1) << 4;
        o->q[j] = (int8_t)v;
    }
}

static void read_q6_k(fm_codes *o, const uint8_t *s)
{
    for (int j = 0; j < 256; j++) {
        int half = j / 128, l = j % 32, part = j % 128 / 32;
        int low = s[64 * half + 32 * (part % 2) + l] >> part / 2 * 4 & 15, high = s[128 + 32 * half + l] >> part * 2 & 3;
        o->q[j] = (int8_t)((low | high << 4) - 32);
    }
    for (int g = 0; g < 16; g++) o->scale[g] = (int8_t)s[192 + g];
    o->d = half_at(s + 208);
}

static void read_iq4_xs(fm_codes *o, const uint8_t *s)
{
    const uint32_t high = (uint32_t)(s[2] | s[3] << 8);
    o->d = half_at(s);
    for (int g = 0; g < 8; g++) {
        int scale = (s[4 + g / 2] >> g % 2 * 4 & 15) | (int)(high >> 2 * g & 3) << 4;
        o->scale[2 * g] = o->scale[2 * g + 1] = (int16_t)(scale - 32);
        iq4_32(o->q + 32 * g, s + 8 + 16 * g);
    }
}

/* A float scale per 128 columns: d32[0] and d32[1].  Words of codes: tensor/quant/int4_g128.c. */
static void read_int4_g128(fm_codes *o, const uint8_t *s)
{
    for (int j = 0; j < 256; j++) {
        const int word = j / 128 * 16 + j % 16 / 4 * 4 + j / 32 % 4;
        const int code = s[4 + 4 * word + j % 4] >> j % 32 / 16 * 4 & 15;
        o->q[j] = (int8_t)((code ^ 8) - 8);
    }
    o->d32[0] = half_at(s);
    o->d32[1] = half_at(s + 2);
}

void fm_codes_read(fm_codes *o, fm_dtype type, const uint8_t *src, size_t blocks)
{
    switch (type) {
    case FM_Q2_K: read_q2_k(o, src); return;
    case FM_Q3_K: read_q3_k(o, src); return;
    case FM_Q4_K: read_q45_k(o, src, false); return;
    case FM_Q5_K: read_q45_k(o, src, true); return;
    case FM_Q6_K: read_q6_k(o, src); return;
    case FM_IQ4_XS: read_iq4_xs(o, src); return;
    case FM_INT4_G128: read_int4_g128(o, src); return;
    default: break;
    }
    const size_t bytes = fm_dtype_get(type)->bytes;
    for (size_t b = 0; b < blocks; b++) read_32(o, type, src + b * bytes, b);
}
