/* json_internal.h - a tokenizer.json while it is being read; shared by vocab_json.c and pipeline_json.c. */
#ifndef FM_TEXT_JSON_INTERNAL_H
#define FM_TEXT_JSON_INTERNAL_H

#include "base/json.h"
#include "text/tokenizer.h"

/* What the parts of the file around the vocabulary say.  Zero-initialise. */
typedef struct fm_pipeline {
    fm_pretok pretok;
    const char *pretok_name;
    bool nfc;
    fm_str before, after; /* names of the first token that the post-processor puts in front and behind */
} fm_pipeline;

/* From the source texts of "normalizer", "pre_tokenizer" and "post_processor" (absent: empty).  FM_ERR_UNSUPPORTED says which
 * part does what this version cannot. */
fm_status fm_pipeline_read(fm_pipeline *p, fm_view normalizer, fm_view pre_tokenizer, fm_view post_processor, const char *path,
                           fm_error *err);

/* The next value, a string, with its escapes resolved, replacing what is in `out`. */
bool fm_json_text(fm_json *j, fm_str *out);

#endif
