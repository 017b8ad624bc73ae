/* foreign.h - token files of other trainers, mapped.  They have no checksums and say nothing of a tokenizer: sizes are checked
 * against the file, and every id against the vocabulary. */
#ifndef FM_TRAIN_FOREIGN_H
#define FM_TRAIN_FOREIGN_H

#include "train/tokens.h"

/* llm.c: 256 int32 of header (magic 20240520, version 1, n tokens; uint16 follow; or 20240801, version 7, uint32). */
bool fm_llmc_is(const char *path, const unsigned char *head, size_t n);
fm_status fm_llmc_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err);

/* Megatron: NAME.idx ("MMIDIDX", dtype, lengths and places of sequences) beside NAME.bin (their tokens, one after the other);
 * either name will do. */
bool fm_megatron_is(const char *path, const unsigned char *head, size_t n);
fm_status fm_megatron_open(fm_tokens *out, const char *path, const fm_tokenizing *o, fm_error *err);

#endif
