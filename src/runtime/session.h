/* session.h - sequences in time: where their states live, and the scratch of the steps that move them. */
#ifndef FM_RUNTIME_SESSION_H
#define FM_RUNTIME_SESSION_H

#include "model/model.h"

/* A point of a sequence that can be returned to. */
typedef struct fm_point {
    uint64_t tokens;
    bool has_logits;
    float *state;       /* (state_floats of the session), on the model's device */
    float *logits;      /* (vocab) */
    const float *there; /* not NULL: its logits still are in the scratch on the device, where the next pass overwrites them */
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
    bool last;     /* the last token of its span */
    bool id;       /* only an id is wanted of it, which a device can choose */
    size_t i;      /* position in its span */
    uint64_t seen; /* tokens of its sequence up to it */
} fm_row_owner;

/* A step that may be taken back (trial.c): its tokens are the one that is certain and guesses of what follows. */
typedef struct fm_trial {
    fm_seq seq;            /* 0: none */
    size_t n, kept, moved; /* tokens run; those that belong to the sequence; those its state has seen */
    int32_t *tokens;       /* (draft_max + 1) */
    float *logits;         /* (draft_max + 1, vocab) after each token */
    float *log;            /* (draft_max + 1 tokens) what moves the states: fm_log_floats() */
} fm_trial;

struct fm_session {
    fm_allocator allocator_copy;
    const fm_allocator *a;
    const fm_model *m;
    fm_kernels k;
    fm_pool *pool;
    bool (*cancel)(void *ctx);
    void *cancel_ctx;
    size_t n_seq, chunk, draft_max;
    bool half_states;    /* they are bf16 there (fm_state_narrow()) */
    size_t state_floats; /* of a point */
    float *narrowed;     /* (state_floats) on the host: one on its way there */
    fm_trial trial;
    void *memory;
    void *device_memory, *host; /* on a device: states, logs and scratch lie there; what is copied from and to it */
    size_t host_bytes;
    fm_graphs graphs;
    fm_sequence *seqs;    /* (n_seq) */
    fm_piece *pieces;     /* (n_seq) of the chunk that runs */
    uint32_t *piece_span; /* (n_seq) */
    size_t *done;         /* (n_seq) tokens of each span that are behind it */
    size_t *out_rows;     /* (chunk) */
    fm_row_owner *owners; /* (chunk) */
    fm_draw *draws;       /* (chunk) on a device: how the ids of these rows are drawn */
    void *scratch;
    size_t scratch_bytes;
};

/* The sequence behind a handle, or NULL with err filled. */
fm_sequence *fm_session_find(const fm_session *s, fm_seq seq, fm_error *err);
/* The same for whoever reads its state: a trial's tokens are made up for; or changes it: the trial is over. */
fm_sequence *fm_session_read(fm_session *s, fm_seq seq, fm_error *err);
fm_sequence *fm_session_change(fm_session *s, fm_seq seq, fm_error *err);
void fm_point_copy(const fm_session *s, fm_point *to, fm_point *from);
void fm_point_clear(const fm_session *s, fm_point *p);
/* Fetches logits that are still on the device: of one point, or of all sequences before their place is overwritten.  An error is
 * kept by the device and found by the next step. */
void fm_point_settle(const fm_session *s, fm_point *p);
void fm_session_settle(const fm_session *s);
/* Kernels that one token of one sequence takes on a device; 0: on the CPU, or before the second such step. */
size_t fm_session_launches(const fm_session *s);

/* ---- What is taken on a device (memory.c) ---- */

typedef struct fm_device_bytes {
    size_t weights, states, scratch; /* as they lie there; of all sequences; of steps and products */
} fm_device_bytes;

size_t fm_session_n_seq(const fm_session_options *o); /* as they are, or the defaults; `o` may be NULL */
size_t fm_session_chunk(const fm_session_options *o);
/* Of a model that has a device, be it a planned one, and of such a session. */
fm_status fm_session_device_bytes(const fm_model *m, const fm_session_options *o, fm_device_bytes *out, fm_error *err);
/* The same of any model: where it is on the CPU, as a GPU with these options would have it.  No GPU is needed. */
fm_status fm_device_bytes_of(const fm_model *m, const fm_model_options *how, const fm_session_options *o, fm_device_bytes *out,
                             fm_error *err);
size_t fm_device_bytes_sum(const fm_device_bytes *b); /* saturates */
/* FM_ERR_MEMORY, with the numbers, where the model's device has not as much free. */
fm_status fm_device_check_room(const fm_model *m, const fm_session_options *o, fm_error *err);

/* ---- Steps that may be taken back (trial.c) ---- */

/* Runs n <= fm_trial_room() + 1 tokens after the sequence without moving its state.  The first belongs to the sequence at once,
 * the others when fm_trial_keep() says so, one by one; tokens and logits of the sequence follow at once, its state when it is
 * asked for.  Any other use of the sequence drops what was not kept. */
fm_status fm_trial_begin(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err);
int32_t fm_trial_next(const fm_session *s, fm_seq seq); /* the token that the next keep is about; -1: there is none */
fm_status fm_trial_keep(fm_session *s, fm_error *err);
void fm_trial_move(fm_session *s);         /* the state sees what was kept */
void fm_trial_end(fm_session *s);          /* and what was not is dropped */
size_t fm_trial_room(const fm_session *s); /* guesses that fit into a trial */

/* step.c: a step of one span with its states held; logits of all its tokens to s->trial.logits, its log to s->trial.log. */
fm_status fm_step_held(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, fm_error *err);
fm_status fm_step_check_logits(const fm_session *s, const float *row, fm_error *err);

#endif
