/* write_json.h - a vocabulary as the two files that Hugging Face's tokenizers and transformers load. */
#ifndef FM_TEXT_WRITE_JSON_H
#define FM_TEXT_WRITE_JSON_H

#include "text/tokenizer.h"

/* Appends a tokenizer.json. */
fm_status fm_vocab_write_json(fm_str *out, const fm_vocab *v, fm_error *err);
/* Appends a tokenizer_config.json; an empty chat template is left out. */
fm_status fm_vocab_write_config(fm_str *out, const fm_vocab *v, fm_view chat_template, fm_error *err);

#endif
