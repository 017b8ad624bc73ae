/* chunks.h - a file of text in pieces that can be worked on apart: rounds of chunks, cut where no rule of a pre-tokeniser reaches
 * across.  Only a round is held in memory, however long the file is, packed or not. */
#ifndef FM_TRAIN_CHUNKS_H
#define FM_TRAIN_CHUNKS_H

#include "train/unpack.h"

#define FM_CHUNK_BYTES  ((size_t)1 << 20)
#define FM_CHUNKS_HELD  ((size_t)1 << 30) /* bytes without a place to cut at are fewer */
#define FM_CHUNKS_ROUND ((size_t)4)       /* chunks of a round, for each worker */

typedef struct fm_chunks {
    fm_unpack in;
    bool lines; /* .jsonl: cut behind line ends */
    bool whole; /* text must not be cut */
    char *text;
    size_t n_text, cap, want; /* bytes there are; room; bytes that a round tries to get */
    size_t held;              /* FM_CHUNKS_HELD; tests take less */
    size_t *cuts;             /* (n + 1) where the chunks of the round begin */
    size_t n, cuts_cap;
    const fm_allocator *a;
} fm_chunks;

/* `whole`: no cuts in text (lines are cut all the same).  Errors as fm_unpack_open(). */
fm_status fm_chunks_open(fm_chunks *c, const char *path, bool whole, unsigned workers, const fm_allocator *a, fm_error *err);
/* The next round; c->n is 0 after the last.  Views are valid until the next call.
 * Errors  as fm_unpack_read(), and FM_ERR_LIMIT when so many bytes have no place to cut at. */
fm_status fm_chunks_next(fm_chunks *c, fm_error *err);
static inline fm_view fm_chunk(const fm_chunks *c, size_t i)
{
    return (fm_view){c->text + c->cuts[i], c->cuts[i + 1] - c->cuts[i]};
}
void fm_chunks_close(fm_chunks *c);

/* The lines of a chunk that are not empty; *at begins at 0.  false after the last. */
bool fm_chunk_line(fm_view chunk, size_t *at, fm_view *line);

#endif
