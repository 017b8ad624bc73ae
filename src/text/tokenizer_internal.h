/* tokenizer_internal.h - what a tokenizer is made of; shared by tokenizer.c, encode.c, vocab_json.c and nobody else. */
#ifndef FM_TEXT_TOKENIZER_INTERNAL_H
#define FM_TEXT_TOKENIZER_INTERNAL_H

#include "text/alphabet.h"
#include "text/bpe.h"
#include "text/special.h"
#include "text/tokenizer.h"

#define FM_VOCAB_MAX ((size_t)1 << 24) /* tokens, and merges: far beyond any vocabulary in use */

struct fm_tokenizer {
    fm_allocator allocator; /* a copy, so that the caller's struct may go */
    const fm_allocator *a;  /* of it, or NULL */
    size_t n;
    char *spelled, *bytes;         /* the tokens as files spell them, and as text, end to end */
    size_t *spelled_at, *bytes_at; /* (n + 1) */
    uint8_t *types, *added;        /* (n) */
    uint32_t *lookup;              /* id + 1 of tokens that are not added, hashed by their bytes; 0: empty */
    size_t n_lookup, longest;      /* a power of two; bytes of the longest token in lookup */
    fm_bpe bpe;
    fm_trie tries[2][2]; /* [cut out after normalisation][control], see encode.c */
    fm_pretok pretok;
    char *pretok_name;
    bool ignore_merges, add_bos, add_eos, nfc;
    int32_t bos, eos, unk, pad;
};

/* Id of the token that is not an added one with these bytes, or -1. */
int32_t fm_tokenizer_lookup(const fm_tokenizer *t, fm_view left, fm_view right);
/* As fm_tokenizer_find(). */
int32_t fm_tokenizer_find_view(const fm_tokenizer *t, fm_view text);

#endif
