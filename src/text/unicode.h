/* unicode.h - what pre-tokenisers and normalisers ask about characters.  Tables: unicode_data.c, tools/unicode_tables.py. */
#ifndef FM_TEXT_UNICODE_H
#define FM_TEXT_UNICODE_H

#include "base/str.h"

enum {
    FM_UC_LETTER = 1, /* category L* */
    FM_UC_NUMBER = 2, /* N* */
    FM_UC_SPACE = 4,  /* White_Space */
    FM_UC_MARK = 8,   /* M* */
    FM_UC_PUNCT = 16, /* P* of Unicode 8, and all ASCII punctuation: what the Punctuation pre-tokeniser isolates */
    FM_UC_NFC = 32    /* may change under NFC, or combine with what stands before it */
};

/* The FM_UC_* bits of a code point; 0 for FM_UTF8_INVALID and anything else beyond U+10FFFF. */
unsigned fm_unicode_flags(uint32_t cp);

/* Whether NFC could change the text.  Bytes that are not UTF-8 count as characters of their own. */
bool fm_nfc_needed(fm_view text);

/* Appends the text in Unicode normalisation form C (UAX 15); bytes that are not UTF-8 stay as they are. */
fm_status fm_nfc(fm_str *out, fm_view text, const fm_allocator *a, fm_error *err);

#endif
