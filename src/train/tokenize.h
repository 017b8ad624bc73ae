/* tokenize.h - files of text become token ids: by all threads, in the order of the text, a round at a time. */
#ifndef FM_TRAIN_TOKENIZE_H
#define FM_TRAIN_TOKENIZE_H

#include "base/pool.h"
#include "train/chunks.h"

typedef struct fm_tokenizing {
    const fm_tokenizer *t;
    size_t vocab; /* every id is below it */
    fm_pool *pool;
    const fm_allocator *a; /* called by several threads */
} fm_tokenizing;

/* Where ids go; n_bytes of text they were made from. */
typedef struct fm_token_sink {
    fm_status (*put)(void *ctx, const int32_t *ids, size_t n, size_t n_bytes, fm_error *err);
    void *ctx;
} fm_token_sink;

/* Reads what the name says it is, packed (.gz, .zst) or not: .jsonl, an object with "text" a line, each a document of its own
 * that gets an end token; anything else is text, in which special tokens are parsed (documents end with the end token).  The
 * ids are those of the whole file tokenised at once, for any number of threads.
 * Errors  as fm_chunks_next(), FM_ERR_FORMAT (names the line), FM_ERR_SHAPE (an id outside the vocabulary). */
fm_status fm_tokenize_file(const fm_tokenizing *o, const char *path, fm_token_sink sink, fm_error *err);

/* Appends the "text" of a line of JSON; `path` is for errors. */
fm_status fm_jsonl_text(fm_str *out, fm_view line, const char *path, fm_error *err);

#endif
