/* bpe_train.h - a byte-level BPE vocabulary learned from text.
 *
 * Pieces of text that are equal are counted once.  Then the most frequent pair of neighbours becomes a token, again and again;
 * of pairs equally frequent the one with the smaller ids.  Vocabulary and merges are those that the BpeTrainer of Hugging Face's
 * tokenizers (0.23.3) gives for the same texts with initial_alphabet=ByteLevel.alphabet(), whatever the number of threads. */
#ifndef FM_TRAIN_BPE_TRAIN_H
#define FM_TRAIN_BPE_TRAIN_H

#include "text/tokenizer.h"

typedef struct fm_bpe_options {
    const char *const *files; /* (n_files), see fm_counts_file() */
    size_t n_files;
    const char *const *specials; /* (n_specials) get ids 0, 1 ...; the first one ends documents.  They are never merged */
    size_t n_specials;
    size_t vocab;           /* tokens, special ones and the 256 bytes among them */
    uint64_t min_frequency; /* a pair that came less often is not merged */
    fm_pretok pretok;
    unsigned threads;                             /* 0: as many as there are */
    bool (*progress)(void *ctx, double fraction); /* may be NULL; false cancels */
    void *ctx;
} fm_bpe_options;

typedef struct fm_bpe_vocab {
    fm_vocab v; /* points into what follows */
    fm_view *tokens, *merges;
    int32_t *types;
    char *text;
    uint64_t n_bytes, n_pieces; /* of text there was, of different pieces in it */
    const fm_allocator *a;
} fm_bpe_vocab;

/* The vocabulary is smaller than asked for when the text has no more pairs.  `a` is called by several threads.
 * Errors  FM_ERR_ARGUMENT (a vocabulary below the alphabet, unusable special tokens, no text), FM_ERR_IO, FM_ERR_FORMAT,
 *         FM_ERR_LIMIT, FM_ERR_MEMORY, FM_ERR_CANCELLED. */
fm_status fm_bpe_train(fm_bpe_vocab *out, const fm_bpe_options *o, const fm_allocator *a, fm_error *err);
void fm_bpe_vocab_free(fm_bpe_vocab *b);

/* Writes tokenizer.json and tokenizer_config.json into a folder, which is made when it is missing. */
fm_status fm_bpe_save(const fm_bpe_vocab *b, const char *dir, fm_error *err);

#endif
