/* feed.h - what a configuration names to learn from: a file, or a folder whose files are one source. */
#ifndef FM_TRAIN_FEED_H
#define FM_TRAIN_FEED_H

#include "train/tokens.h"

typedef struct fm_feed {
    fm_tokens *parts;
    size_t n_parts, cap;
    double weight;
    const fm_allocator *a;
} fm_feed;

/* "PATH" or "PATH*WEIGHT"; of a folder all files in it whose names do not begin with a dot, in the order of their names. */
fm_status fm_feed_open(fm_feed *s, const char *text, const fm_tokenizing *o, fm_error *err);
void fm_feed_free(fm_feed *s);
size_t fm_feed_tokens(const fm_feed *s);
size_t fm_feed_bytes(const fm_feed *s); /* of the text, 0: unknown */

#endif
