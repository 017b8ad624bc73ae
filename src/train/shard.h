/* shard.h - token shards, our own files of token ids: written once, mapped for training, checked block by block as they are read.
 * The layout is docs/formats/shard.md. */
#ifndef FM_TRAIN_SHARD_H
#define FM_TRAIN_SHARD_H

#include "base/file.h"
#include "train/tokens.h"

#define FM_SHARD_MAGIC  "FMTOKENS"
#define FM_SHARD_HEADER ((size_t)128)
#define FM_SHARD_BLOCK  ((size_t)1 << 20) /* bytes under one checksum */
#define FM_SHARD_ENDING ".tokens"

/* What ids mean. */
typedef struct fm_shard_info {
    uint64_t vocab;
    int32_t eos;
    unsigned char tokenizer[32]; /* SHA-256, see fm_tokenizer_identity() */
} fm_shard_info;

/* SHA-256 of the vocabulary and merges of a tokenizer: equal where equal text gives equal ids. */
void fm_tokenizer_identity(unsigned char out[32], const fm_tokenizer *t);

/* Maps a shard and checks its header, its size, its table of checksums, and that o->t is the tokenizer that made it; the tokens
 * when they are read (fm_tokens_copy()). */
fm_status fm_shard_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err);

typedef struct fm_shards {
    const char *const *files; /* (n_files) of text, see fm_tokenize_file() */
    size_t n_files;
    const char *out;    /* the shard; with a limit, "<out>-00000.tokens" and so on */
    uint64_t limit;     /* most tokens of one shard; 0: one shard */
    uint64_t n_tokens;  /* out: written */
    uint64_t n_bytes;   /* out: of text */
    uint64_t n_written; /* out: shards */
} fm_shards;

/* Tokenises files one after the other: the same bytes for any number of threads. */
fm_status fm_shards_write(fm_shards *s, const fm_tokenizing *o, fm_error *err);

#endif
