/* dtype.h - the types a tensor's elements can have: plain floats and block-quantised formats.
 *
 * One row of the list below per type; one file per block format in quant/.  A new format is that file and that line: it can then
 * be loaded, shown, computed with (through its row decoder), converted and quantised to.  Formats: spec falcon-mamba.md 4.4. */
#ifndef FM_TENSOR_DTYPE_H
#define FM_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/str.h"

/* X(NAME, GGUF tensor type number, GGUF file type number, elements per block, bytes per block).  Numbers of our own types lie far
 * beyond ggml's, so that programs which do not know them refuse such a file (docs/formats/gguf.md). */
#define FM_DTYPE_LIST(X)        \
    X(F32, 0, 0, 1, 4)          \
    X(F16, 1, 1, 1, 2)          \
    X(BF16, 30, 32, 1, 2)       \
    X(Q8_0, 8, 7, 32, 34)       \
    X(Q4_0, 2, 2, 32, 18)       \
    X(Q4_1, 3, 3, 32, 20)       \
    X(Q5_0, 6, 8, 32, 22)       \
    X(Q5_1, 7, 9, 32, 24)       \
    X(Q2_K, 10, 10, 256, 84)    \
    X(Q3_K, 11, 12, 256, 110)   \
    X(Q4_K, 12, 15, 256, 144)   \
    X(Q5_K, 13, 17, 256, 176)   \
    X(Q6_K, 14, 18, 256, 210)   \
    X(IQ4_NL, 20, 25, 32, 18)   \
    X(IQ4_XS, 23, 30, 256, 136) \
    X(INT4_G128, 4128, 4128, 256, 132)

typedef enum fm_dtype {
#define X(name, gguf, ftype, block, bytes) FM_##name,
    FM_DTYPE_LIST(X)
#undef X
    FM_DTYPE_COUNT
} fm_dtype;

/* A format.  Row functions work on whole rows: n elements, a multiple of `block`. */
typedef struct fm_dtype_traits {
    const char *name;        /* "Q4_K" */
    uint32_t gguf, ftype;    /* numbers of ggml's tensor type and llama's file type */
    size_t block, bytes;     /* elements and bytes per block */
    bool is_float;           /* F32, F16, BF16 */
    /* dst (n) f32 = src.  The formula of the spec, bit for bit. */
    void (*decode)(float *dst, const void *src, size_t n);
    /* dst = src (n) f32.  importance (n) or NULL weights each column's error.  Deterministic, and with or without importance
     * the bytes of ggml's writer.  Two exceptions: a scale beyond the halves is stored as the largest half, where ggml writes
     * infinity; NaN and infinity in src or importance give a block without meaning, but one of finite numbers.  The float types
     * keep what they are given. */
    void (*encode)(void *dst, const float *src, const float *importance, size_t n);
} fm_dtype_traits;

const fm_dtype_traits *fm_dtype_get(fm_dtype t); /* t < FM_DTYPE_COUNT */
bool fm_dtype_from_gguf(uint32_t gguf, fm_dtype *out);
/* "q4_k", "Q4_K", "q4_k_m", "Q4_K_S", "Q3_K_L" ...: any case, llama.cpp's mixes of a type name the type. */
bool fm_dtype_from_name(fm_view name, fm_dtype *out);
/* For a name that is none: says which there are. */
fm_status fm_dtype_fail(const char *name, fm_error *err);
const char *fm_gguf_type_name(uint32_t gguf); /* also of types that we cannot compute with ("IQ2_XXS"), NULL if unknown */

/* Bytes of `rows` rows of `cols` elements; false on overflow or when cols is not a multiple of the block. */
bool fm_dtype_bytes(fm_dtype t, size_t rows, size_t cols, size_t *out);

/* Scalar conversions, exact definitions (round to nearest even). */
float fm_f16_to_f32(uint16_t h);
uint16_t fm_f32_to_f16(float f);
static inline float fm_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}
uint16_t fm_f32_to_bf16(float f);

/* The formats, one file each. */
#define X(name, gguf, ftype, block, bytes) extern const fm_dtype_traits fm_dtype_##name;
FM_DTYPE_LIST(X)
#undef X

#endif
