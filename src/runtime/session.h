/* session.h - sequences in time: where their states live, and the scratch of the steps that move them. */
#ifndef FM_RUNTIME_SESSION_H
#define FM_RUNTIME_SESSION_H

#include "model/model.h"

/* A point of a sequence that can be returned to. */
typedef struct fm_point {
    uint64_t tokens;
    bool has_logits;
    float *state;  /* (state_floats) */
    float *logits; /* (vocab) */
} fm_point;

typedef struct fm_sequence {
    uint32_t generation; /* counts the lives of this slot: a handle of an earlier life is stale */
    bool used, marked, in_step;
    fm_point live, mark;
    fm_point undo; /* where a cancelled chunk returns to; its memory exists only in sessions that can be cancelled */
    bool undo_marked;
} fm_sequence;

/* Which logits row of a chunk belongs to which span. */
typedef struct fm_row_owner {
    uint32_t span;
    bool last; /* the last token of its span */
    size_t i;  /* position in its span */
} fm_row_owner;

struct fm_session {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    const fm_model *m;
    fm_kernels k;
    fm_pool *pool;
    bool (*cancel)(void *ctx);
    void *cancel_ctx;
    size_t n_seq, chunk;
    void *memory;
    fm_sequence *seqs;    /* (n_seq) */
    fm_piece *pieces;     /* (n_seq) of the chunk that runs */
    uint32_t *piece_span; /* (n_seq) */
    size_t *done;         /* (n_seq) tokens of each span that are behind it */
    size_t *out_rows;     /* (chunk) */
    fm_row_owner *owners; /* (chunk) */
    void *scratch;
    size_t scratch_bytes;
};

/* The sequence behind a handle, or NULL with err filled. */
fm_sequence *fm_session_find(const fm_session *s, fm_seq seq, fm_error *err);
void fm_point_copy(const fm_session *s, fm_point *to, const fm_point *from);
void fm_point_clear(const fm_session *s, fm_point *p);

#endif
