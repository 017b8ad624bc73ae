/* bptt.h - a backward over more tokens than memory holds at once: in chunks, the state carried from one to the next.
 *
 * Truncated, gradients end at the borders of chunks: memory of one chunk, whatever the length.  Full, they do not: a first pass
 * keeps the state at every border, then chunks run again from the last to the first, each giving the one before it the gradient
 * of the state between them.  The losses are those of one pass, to the bit; full gradients are its gradients, summed over tokens
 * in another order. */
#ifndef FM_TRAIN_BPTT_H
#define FM_TRAIN_BPTT_H

#include "model/model.h"

#define FM_BPTT_PIECES ((size_t)8) /* most pieces of a chunk, which bounds the states that are held */

typedef struct fm_bptt_chunk fm_bptt_chunk;

typedef struct fm_bptt {
    size_t chunk; /* tokens */
    bool full;
    const fm_allocator *a;
    size_t state_floats;
    float *states, *g_states; /* (FM_BPTT_PIECES, state_floats) */
    float *borders;           /* (n_tokens / chunk, state_floats) when full */
    fm_bptt_chunk *chunks;    /* (chunks_max) */
    size_t n_chunks;
    fm_device *device; /* states and gradients lie there */
    fm_pass pass;      /* of a chunk */
    size_t bytes;      /* all of it */
} fm_bptt;

/* For backwards like `b` of at most n_tokens tokens, chunk at a time.  Errors  FM_ERR_MEMORY. */
fm_status fm_bptt_open(fm_bptt *p, const fm_backward *b, size_t n_tokens, size_t chunk, bool full, const fm_allocator *a,
                       fm_error *err);
void fm_bptt_free(fm_bptt *p);
/* What fm_bptt_open() would take; 0 on overflow. */
size_t fm_bptt_bytes(const fm_backward *b, size_t n_tokens, size_t chunk, bool full);
/* As fm_pass_run() with `forget`: every piece begins at zero. */
fm_status fm_bptt_run(fm_bptt *p, const fm_backward *b, fm_error *err);

#endif
