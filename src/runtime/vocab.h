/* vocab.h - a tokenizer out of the metadata of a GGUF file. */
#ifndef FM_RUNTIME_VOCAB_H
#define FM_RUNTIME_VOCAB_H

#include "format/gguf.h"
#include "text/tokenizer.h"

/* Reads the keys tokenizer.ggml.*, whatever the file's architecture.  The tokenizer copies, so g may be closed.
 * Errors  FM_ERR_UNSUPPORTED (no vocabulary, not byte-level BPE, an unknown pre-tokeniser), FM_ERR_FORMAT, FM_ERR_MEMORY. */
fm_status fm_vocab_from_gguf(fm_tokenizer **out, const fm_gguf *g, const fm_allocator *a, fm_error *err);

#endif
