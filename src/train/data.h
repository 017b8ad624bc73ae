/* data.h - tokens to train on: sources become windows, in an order that a key decides and any position can be asked.
 *
 * A source is a stream of token ids cut into blocks; blocks of an epoch come in the order of a keyed permutation.  Sources are
 * mixed by weights: draw k of a source with weight w stands at k / w, and draws come in the order of these places.  So which
 * window comes as the n-th of a stage is a function of n: resuming costs nothing, and of many workers each can take every
 * so-manyth window of a step, whatever their number. */
#ifndef FM_TRAIN_DATA_H
#define FM_TRAIN_DATA_H

#include "train/tokens.h"

#define FM_SOURCES_MAX 32

/* A bijection of [0, n): a Feistel network on the next power of four, walked until it lands inside. */
uint64_t fm_permute(uint64_t i, uint64_t n, uint64_t key);

/* From `begin` tokens of the run on: windows of this length, and this mixture. */
typedef struct fm_stage {
    uint64_t begin;
    size_t length;
    double weights[FM_SOURCES_MAX]; /* how often, relative to each other; 0: not at all */
} fm_stage;

/* A block is as long as the longest stage's window: shorter windows are taken out of it one after the other, and a stage goes on
 * where the one before it stopped, so that nothing is read twice in an epoch. */
typedef struct fm_data {
    const fm_tokens *sources[FM_SOURCES_MAX]; /* (n_parts) each: files of one kind, as if they were one */
    size_t n_parts[FM_SOURCES_MAX];           /* 0 means 1 */
    size_t n_sources;
    double weights[FM_SOURCES_MAX]; /* without stages */
    size_t length;
    const fm_stage *stages; /* (n_stages) ascending, the first from 0; none: the two above for the whole run */
    size_t n_stages;
    uint64_t seed;
} fm_data;

/* How far training has come; zero at first. */
typedef struct fm_cursor {
    uint64_t stage, drawn;          /* windows of this stage */
    uint64_t taken[FM_SOURCES_MAX]; /* tokens of each source before it */
} fm_cursor;

/* FM_ERR_ARGUMENT when a source has not one whole block (names it by its number), all together have not the windows of a step, or
 * stages do not fit. */
fm_status fm_data_check(const fm_data *d, uint64_t batch, fm_error *err);
/* A place that a file tells; `path` is for the message.  FM_ERR_ARGUMENT: of a stage that the data have not.  FM_ERR_FORMAT: no
 * run comes so far. */
fm_status fm_data_check_cursor(const fm_data *d, const fm_cursor *c, const char *path, fm_error *err);
size_t fm_data_longest(const fm_data *d);                    /* of all stages' windows */
size_t fm_data_length(const fm_data *d, const fm_cursor *c); /* of a window here */
/* The length + 1 ids of the window that comes after `ahead` others; errors as fm_tokens_copy(). */
fm_status fm_data_window(const fm_data *d, const fm_cursor *c, uint64_t ahead, int32_t *out, fm_error *err);
/* After a step that took so many windows, at `tokens` of the run: a new stage begins between steps. */
void fm_data_advance(const fm_data *d, fm_cursor *c, uint64_t windows, uint64_t tokens);
/* How many of a stage's first n windows each source gives: out (n_sources). */
void fm_data_shares(const fm_data *d, uint64_t stage, uint64_t n, uint64_t *out);

#endif
