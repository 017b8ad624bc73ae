/* pass.h - what the forward and the backward pass share: the lists that kernels read, and how much room packed inputs take. */
#ifndef FM_MODEL_PASS_H
#define FM_MODEL_PASS_H

#include "model/model.h"

/* As kernels see them, and as the host fills them: the same on the CPU. */
typedef struct fm_lists {
    int32_t *ids;   /* (T) */
    size_t *begin;  /* (n_pieces + 1) */
    float **state;  /* (n_pieces) */
    uint32_t *seen; /* (n_pieces) */
} fm_lists;

fm_lists fm_lists_place(fm_arena *a, size_t T, size_t n_pieces);
size_t fm_pieces_tokens(const fm_piece *pieces, size_t n_pieces);
/* Fills the host's side; gives the step as kernels, which read `seen`, are told of it. */
fm_ragged fm_lists_fill(const fm_lists *host, const fm_lists *seen, const fm_piece *pieces, size_t n_pieces);

/* What a pass is measured by. */
typedef struct fm_extent {
    const fm_kernels *k;
    size_t T, n_pieces;
    unsigned n_parts;
} fm_extent;

/* Bytes of packed inputs of one product; 0: they overflow. */
typedef size_t fm_product_bytes(const fm_kernels *k, const fm_tensor *W, size_t n, unsigned n_parts);
/* The most of any product, the head's with so many rows at once; SIZE_MAX on overflow. */
size_t fm_packed_most(const fm_model *m, const fm_extent *e, size_t head_rows, fm_product_bytes *bytes);

#endif
