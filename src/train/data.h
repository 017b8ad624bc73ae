/* data.h - tokens to train on: documents in files become windows, in an order that a key decides and any position can be asked.
 *
 * A source is a stream of token ids cut into windows of `length` tokens, each with the token after it.  Windows of an epoch come
 * in the order of a keyed permutation, so a cursor is one number per source and resuming costs nothing. */
#ifndef FM_TRAIN_DATA_H
#define FM_TRAIN_DATA_H

#include "base/str.h"
#include "fmamba.h"

#define FM_SOURCES_MAX 32

/* A bijection of [0, n): a Feistel network on the next power of four, walked until it lands inside. */
uint64_t fm_permute(uint64_t i, uint64_t n, uint64_t key);

/* Token ids of one or more documents, one after the other. */
typedef struct fm_tokens {
    int32_t *ids; /* (n) owned */
    size_t n;
    size_t n_bytes; /* of the text they were made from; 0: unknown */
    const fm_allocator *a;
} fm_tokens;

/* Reads what the name says it is: .txt or anything else, text in which special tokens are parsed (documents end with the end
 * token); .jsonl, an object with "text" a line, each a document of its own that gets an end token.  Every id is below `vocab`. */
fm_status fm_tokens_read(fm_tokens *out, const char *path, const fm_tokenizer *t, size_t vocab, const fm_allocator *a,
                         fm_error *err);
void fm_tokens_free(fm_tokens *t);
/* Appends the "text" of a line of JSON; `path` is for errors. */
fm_status fm_jsonl_text(fm_str *out, fm_view line, const char *path, fm_error *err);

typedef struct fm_data {
    const fm_tokens *sources[FM_SOURCES_MAX];
    double weights[FM_SOURCES_MAX]; /* how often, relative to each other */
    size_t n_sources;
    size_t length; /* tokens of a window */
    uint64_t seed;
} fm_data;

/* How far training has come: windows taken from each source. */
typedef struct fm_cursor {
    uint64_t taken[FM_SOURCES_MAX];
} fm_cursor;

/* FM_ERR_ARGUMENT when a source has not one whole window: names it by its number. */
fm_status fm_data_check(const fm_data *d, fm_error *err);
/* The next window's length + 1 ids, valid as long as the source; the source is the one that lags most behind its weight. */
const int32_t *fm_data_next(const fm_data *d, fm_cursor *c);

#endif
