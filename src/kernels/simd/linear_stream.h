/* linear_stream.h - one token times F32 and F16, row after row, for cores that read a stream best (after linear_float.h). */
#ifndef FM_KERNELS_SIMD_LINEAR_STREAM_H
#define FM_KERNELS_SIMD_LINEAR_STREAM_H

#include "kernels/simd/linear_float.h"

enum { STREAM_BYTES = 6 << 10 }; /* of a row, at most: longer ones lose */

FM_INLINE bool streams(const fm_linear_args *a, word_kind kind)
{
    return a->n == 1 && row_bytes(a->W->cols, kind) <= STREAM_BYTES;
}

FM_INLINE void stream_words(const fm_run *run, const fm_linear_args *a, word_kind kind)
{
    size_t r, end;
    fm_run_range(run, a->W->rows, GRANULE, &r, &end);
    for (; r < end; r++) stream_tile(a, r, 0, 1, 1, kind);
}

static void linear_f32_stream(const fm_run *run, const fm_linear_args *a)
{
    if (streams(a, WORD_F32))
        stream_words(run, a, WORD_F32);
    else
        linear_f32(run, a);
}

static void linear_f16_stream(const fm_run *run, const fm_linear_args *a)
{
    if (streams(a, WORD_F16))
        stream_words(run, a, WORD_F16);
    else
        linear_f16(run, a);
}

static void linear_fill_stream(fm_kernels *k)
{
    k->linear[FM_F32] = linear_f32_stream;
    k->linear[FM_F16] = linear_f16_stream;
}

#endif
