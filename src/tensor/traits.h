/* traits.h - how a format's file states its row of the dtype list.
 *
 * The numbers of a type stand once, in FM_DTYPE_LIST; the constants below are taken from it, so that a format's file names only
 * itself and its two row functions. */
#ifndef FM_TENSOR_TRAITS_H
#define FM_TENSOR_TRAITS_H

#include "tensor/dtype.h"

enum {
#define X(name, gguf, ftype, block, bytes)                                                                 \
    FM_##name##_GGUF = (gguf), FM_##name##_FTYPE = (ftype), FM_##name##_BLOCK = (block), FM_##name##_BYTES = (bytes),
    FM_DTYPE_LIST(X)
#undef X
};

#define FM_DTYPE_TRAITS(NAME, IS_FLOAT, DECODE, ENCODE)                                                    \
    {                                                                                                      \
        .name = #NAME, .gguf = FM_##NAME##_GGUF, .ftype = FM_##NAME##_FTYPE,                               \
        .block = FM_##NAME##_BLOCK, .bytes = FM_##NAME##_BYTES, .is_float = (IS_FLOAT),                    \
        .decode = (DECODE), .encode = (ENCODE)                                                             \
    }

#endif
