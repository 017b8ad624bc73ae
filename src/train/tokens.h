/* tokens.h - token ids of one or more documents, one after the other: made from text, or mapped from a file of tokens. */
#ifndef FM_TRAIN_TOKENS_H
#define FM_TRAIN_TOKENS_H

#include "base/file.h"
#include "train/tokenize.h"

typedef struct fm_tokens {
    int32_t *ids; /* (n) owned; NULL: `packed` */
    size_t n;
    size_t n_bytes; /* of the text they were made from; 0: unknown */
    const fm_allocator *a;
    const unsigned char *packed; /* (n) little-endian numbers of `width` bytes, within `map` */
    unsigned width;
    fm_map map;
    /* Of a shard, whose blocks are checked when they are read for the first time. */
    const unsigned char *sums; /* (blocks) CRC-64 of FM_SHARD_BLOCK bytes each, within `map` */
    bool *checked;             /* (blocks) */
    size_t vocab;
    char *path;
} fm_tokens;

/* Whole numbers as files have them, little-endian, of 1 to 8 bytes. */
static inline uint64_t fm_le(const unsigned char *p, unsigned width)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void fm_put_le(unsigned char *p, uint64_t v, unsigned width)
{
    for (unsigned i = 0; i < width; i++) p[i] = (unsigned char)(v >> (8 * i));
}

/* What the file is: tokens when it begins as a shard, llm.c's or Megatron's files do (shard.h, foreign.h), else as
 * fm_tokenize_file().  Every id has been checked against the vocabulary, those of a shard are when they are read. */
fm_status fm_tokens_read(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err);
/* Of mapped tokens: every id below the vocabulary, by all threads, now. */
fm_status fm_tokens_check(const fm_tokens *t, const char *path, const fm_tokenizing *o, fm_error *err);
/* The same, and checksums, block by block as they are read. */
fm_status fm_tokens_check_later(fm_tokens *t, const unsigned char *sums, const char *path, const fm_tokenizing *o,
                                fm_error *err);
/* ids[at ... at + n).  One thread at a time.  FM_ERR_FORMAT, FM_ERR_SHAPE: what is damaged, or too large, is named. */
fm_status fm_tokens_copy(const fm_tokens *t, size_t at, size_t n, int32_t *out, fm_error *err);
/* Into memory: t->ids is there afterwards. */
fm_status fm_tokens_load(fm_tokens *t, fm_error *err);
void fm_tokens_free(fm_tokens *t);

#endif
