/* pack.h - rounding of product inputs to the packed forms, in plain C that compilers turn into vector code.
 *
 * Included by ref/pack.c and by each simd/linear_<isa>.c, so one text serves every instruction set; no operation here depends on
 * the vector width, so every table packs the same bits (compile with contraction of a * b + c off). */
#ifndef FM_KERNELS_SIMD_PACK_H
#define FM_KERNELS_SIMD_PACK_H

#include <string.h>

#include "base/compiler.h"
#include "kernels/linear.h"

static size_t pack_records(size_t cols) { return cols / FM_X_COLS + (cols % FM_X_COLS != 0); }

static size_t pack_bytes(fm_xform form, size_t n, size_t cols)
{
    const bool floats = form == FM_X_F32 || form == FM_X_BF16;
    size_t unit = floats ? sizeof(float) : form == FM_X_Q8_32 ? sizeof(fm_x32) : sizeof(fm_x256);
    if (cols > SIZE_MAX - FM_X_COLS || n > SIZE_MAX - FM_X_TILE) return 0;
    size_t units = floats ? fm_x_f32_stride(cols) : pack_records(cols);
    if (floats && n >= FM_X_MANY) n = (n + FM_X_TILE - 1) / FM_X_TILE * FM_X_TILE;
    size_t bytes;
    if (__builtin_mul_overflow(units, unit, &bytes)) return 0;
    return __builtin_mul_overflow(bytes, n, &bytes) ? 0 : bytes;
}

/* Rounds n values into q and returns d.  Magnitudes compare as integers, which puts Inf and NaN above every number.  Adding
 * 1.5 * 2^23 rounds to the nearest even integer and leaves it in the low bits. */
FM_INLINE float pack_round(int8_t *q, const float *x, size_t n)
{
    const float magic = 12582912.0f;
    uint32_t top = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    float max, inverse = 0.0f, d = __builtin_nanf("");
    if (top < 0x7f800000u) {
        memcpy(&max, &top, sizeof max);
        d = max / 127.0f;
        inverse = 1.0f / d;
        if (inverse > 3.0e38f) d = inverse = 0.0f; /* all zeros, or too small to be told from them */
    }
    for (size_t i = 0; i < n; i++) {
        float v = (inverse == 0.0f ? 0.0f : x[i]) * inverse + magic;
        int32_t bits;
        memcpy(&bits, &v, sizeof bits);
        q[i] = (int8_t)(bits - 0x4b400000);
    }
    return d;
}

FM_INLINE void pack_record_256(fm_x256 *o, const float *x)
{
    o->d = pack_round(o->q, x, FM_X_COLS);
    memset(o->unused, 0, sizeof o->unused); /* so that packs compare byte by byte */
    for (int g = 0; g < 16; g++) {
        int sum = 0;
        for (int j = 0; j < 16; j++) sum += o->q[16 * g + j];
        o->sum16[g] = (int16_t)sum;
    }
    for (int g = 0; g < 8; g++) o->sum32[g] = (int16_t)(o->sum16[2 * g] + o->sum16[2 * g + 1]);
}

/* `blocks` blocks of 32; a record has eight. */
FM_INLINE void pack_record_32(fm_x32 *o, const float *x, size_t blocks)
{
    if (blocks < 8) memset(o, 0, sizeof *o);
    memset(o->unused, 0, sizeof o->unused);
    for (size_t b = 0; b < blocks; b++) {
        o->d[b] = pack_round(o->q + 32 * b, x + 32 * b, 32);
        int32_t sum = 0;
        for (int j = 0; j < 32; j++) sum += o->q[32 * b + (size_t)j];
        o->nsum[b] = -sum;
        o->ds[b] = o->d[b] * (float)sum;
    }
}

static void pack_256(const fm_pack_args *a)
{
    for (size_t c = a->col; c < a->col_end; c += FM_X_COLS)
        for (size_t r = a->row; r < a->row_end; r++)
            pack_record_256((fm_x256 *)a->out + c / FM_X_COLS * a->n + r, a->x + r * a->x_stride + c);
}

static void pack_32(const fm_pack_args *a)
{
    for (size_t c = a->col; c < a->col_end; c += FM_X_COLS) {
        const size_t left = (a->cols - c) / 32;
        for (size_t r = a->row; r < a->row_end; r++)
            pack_record_32((fm_x32 *)a->out + c / FM_X_COLS * a->n + r, a->x + r * a->x_stride + c, left < 8 ? left : 8);
    }
}

static void pack_f32(const fm_pack_args *a)
{
    const size_t stride = fm_x_f32_stride(a->cols), end = a->col_end == a->cols ? stride : a->col_end;
    for (size_t r = a->row; r < a->row_end; r++) {
        float *o = (float *)a->out + r * stride;
        memcpy(o + a->col, a->x + r * a->x_stride + a->col, (a->col_end - a->col) * sizeof *o);
        memset(o + a->col_end, 0, (end - a->col_end) * sizeof *o);
    }
}

static void pack_fill(fm_kernels *k)
{
    k->pack_x_bytes = pack_bytes;
    k->pack_x[FM_X_F32] = pack_f32;
    k->pack_x[FM_X_BF16] = pack_f32;
    k->pack_x[FM_X_Q8_32] = pack_32;
    k->pack_x[FM_X_Q8_256] = pack_256;
}

#endif
