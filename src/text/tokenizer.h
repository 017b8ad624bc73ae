/* tokenizer.h - byte-level BPE: what the rest of the library needs beyond fmamba.h.  Spec falcon-mamba.md section 5. */
#ifndef FM_TEXT_TOKENIZER_H
#define FM_TEXT_TOKENIZER_H

#include "base/str.h"

typedef enum fm_pretok { FM_PRETOK_FALCON, FM_PRETOK_GPT2, FM_PRETOK_LLAMA3 } fm_pretok;

/* What a name in tokenizer.ggml.pre stands for. */
typedef struct fm_pretok_kind {
    const char *name;
    fm_pretok pretok;
    bool nfc, ignore_merges, add_bos;
} fm_pretok_kind;

/* An empty name (files from before the key existed) and "default" stand for what the architecture, general.architecture, uses.
 * FM_ERR_UNSUPPORTED when nothing is called so; `path` is the file that says it. */
fm_status fm_pretok_find(const fm_pretok_kind **out, fm_view name, fm_view arch, const char *path, fm_error *err);

enum { /* token types as GGUF numbers them */
       FM_TOKEN_NORMAL = 1,
       FM_TOKEN_UNKNOWN,
       FM_TOKEN_CONTROL,
       FM_TOKEN_USER_DEFINED,
       FM_TOKEN_UNUSED,
       FM_TOKEN_BYTE
};

enum {                           /* how an added token is matched; tokenizer.json says so, GGUF cannot */
       FM_ADDED_RAW = 1,         /* before normalisation; control tokens of a GGUF are, user-defined ones are not */
       FM_ADDED_LSTRIP = 2,      /* takes the white space before it along */
       FM_ADDED_RSTRIP = 4,      /* ... and behind it */
       FM_ADDED_SINGLE_WORD = 8, /* only where no word character touches it */
       FM_ADDED_ORDINARY = 16    /* what merges make, too: it stands in the vocabulary under the same spelling */
};

/* A vocabulary as it comes out of a file, the same from GGUF and from tokenizer.json.  Everything is borrowed during
 * fm_tokenizer_build(), which copies. */
typedef struct fm_vocab {
    const fm_view *tokens; /* (n_tokens) spelled in the printable byte alphabet; control and added tokens verbatim */
    const int32_t *types;  /* (n_tokens) FM_TOKEN_*, or NULL: all normal */
    const uint8_t *added;  /* (n_tokens) FM_ADDED_* of control and user-defined tokens, or NULL: as in a GGUF */
    size_t n_tokens;
    const fm_view *merges; /* (2 * n_merges): left, right */
    size_t n_merges;
    fm_pretok pretok;
    bool ignore_merges, add_bos, add_eos, nfc;
    int32_t bos, eos, unk, pad; /* -1: none */
    const char *pretok_name;    /* as GGUF spells it in tokenizer.ggml.pre: "falcon", "gpt-2", "llama-bpe" ... */
} fm_vocab;

fm_status fm_tokenizer_build(fm_tokenizer **out, const fm_vocab *v, const fm_allocator *a, fm_error *err);

/* From the text of a tokenizer.json; `config` (may be NULL) is tokenizer_config.json: bos/eos/pad names, add_bos_token. */
fm_status fm_tokenizer_from_json(fm_tokenizer **out, fm_view json, fm_view config, const char *path, const fm_allocator *a,
                                 fm_error *err);

/* As fm_tokenize() with FM_PARSE_SPECIAL, but no control token is made of a byte whose tainted[i] is 1: tainted (text.n). */
fm_status fm_tokenize_tainted(const fm_tokenizer *t, fm_view text, const uint8_t *tainted, int32_t *ids, size_t *n_ids,
                              fm_error *err);

/* For writing a GGUF: what fm_tokenizer_build() was given, rebuilt from the tokenizer.  Views are valid as long as t. */
void fm_tokenizer_spell(const fm_tokenizer *t, int32_t id, fm_view *token, int32_t *type);
size_t fm_tokenizer_merges(const fm_tokenizer *t);
void fm_tokenizer_merge(const fm_tokenizer *t, size_t i, fm_view *left, fm_view *right);
const char *fm_tokenizer_pretok_name(const fm_tokenizer *t);
bool fm_tokenizer_add_bos(const fm_tokenizer *t);
bool fm_tokenizer_add_eos(const fm_tokenizer *t);
int32_t fm_tokenizer_unk(const fm_tokenizer *t);
int32_t fm_tokenizer_pad(const fm_tokenizer *t);

/* Ids that end a generation by their spelling (<|im_end|>, <|endoftext|>, <|end_of_text|>, <|eot_id|>, ...): at most `max`. */
size_t fm_tokenizer_eog(const fm_tokenizer *t, int32_t *ids, size_t max);

/* Text from a stream of ids: bytes are held back until they are whole UTF-8, invalid ones become U+FFFD.  Zero-initialise. */
typedef struct fm_detok {
    char tail[8];
    size_t n;
} fm_detok;

/* Appends to `out` what became certain with this token; flush gives the rest at the end. */
void fm_detok_add(fm_detok *d, const fm_tokenizer *t, int32_t id, bool special, fm_str *out);
void fm_detok_flush(fm_detok *d, fm_str *out);

#endif
