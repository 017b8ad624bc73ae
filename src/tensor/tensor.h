/* tensor.h - a view of a matrix in memory that somebody else owns. */
#ifndef FM_TENSOR_TENSOR_H
#define FM_TENSOR_TENSOR_H

#include "tensor/dtype.h"

/* rows x cols elements of `type`, row r at data + r * stride bytes.  A vector is one row. */
typedef struct fm_tensor {
    const void *data;
    fm_dtype type;
    size_t rows, cols;
    size_t stride; /* bytes from one row to the next */
} fm_tensor;

static inline const void *fm_tensor_row(const fm_tensor *t, size_t r)
{
    return (const unsigned char *)t->data + r * t->stride;
}

/* Rows first .. first + n - 1. */
static inline fm_tensor fm_tensor_rows(const fm_tensor *t, size_t first, size_t n)
{
    return (fm_tensor){fm_tensor_row(t, first), t->type, n, t->cols, t->stride};
}

#endif
