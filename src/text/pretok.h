/* pretok.h - cuts text into the pieces that byte-pair merges never cross.  The regular expressions of spec 5.1 and 5.3,
 * written out as code; docs/tokenizers.md quotes them. */
#ifndef FM_TEXT_PRETOK_H
#define FM_TEXT_PRETOK_H

#include "text/tokenizer.h"

/* Walks a text once, in linear time; the pieces in order are the text. */
typedef struct fm_pieces {
    fm_pretok kind;
    const char *p, *end;
    const char *run_end, *word_end; /* falcon: of the punctuation run or gap, and of the GPT-2 piece inside it */
} fm_pieces;

fm_pieces fm_pieces_begin(fm_pretok kind, fm_view text);
bool fm_pieces_next(fm_pieces *s, fm_view *piece); /* false at the end; a piece is never empty */

#endif
