/* unicode_data.h - the generated tables of unicode_data.c; only unicode.c reads them. */
#ifndef FM_TEXT_UNICODE_DATA_H
#define FM_TEXT_UNICODE_DATA_H

#include <stddef.h>
#include <stdint.h>

typedef struct fm_unicode_range {
    uint32_t first, last;
    uint8_t ccc; /* canonical combining class, never 0 */
} fm_unicode_range;

typedef struct fm_unicode_slice {
    uint32_t cp;
    uint16_t begin;
    uint8_t n; /* fm_unicode_pool[begin .. begin + n) */
} fm_unicode_slice;

typedef struct fm_unicode_pair {
    uint32_t first, second, composed;
} fm_unicode_pair;

extern const char fm_unicode_version[];
extern const uint8_t fm_unicode_class[16];
extern const uint16_t fm_unicode_stage1[8704];
extern const uint64_t fm_unicode_stage2[]; /* 8 words a block, 16 classes a word, lowest first */

extern const size_t fm_unicode_n_ccc, fm_unicode_n_decompose, fm_unicode_n_compose;
extern const fm_unicode_range fm_unicode_ccc[];       /* by code point */
extern const fm_unicode_slice fm_unicode_decompose[]; /* by code point */
extern const uint32_t fm_unicode_pool[];
extern const fm_unicode_pair fm_unicode_compose[]; /* by first, then second */

#endif
