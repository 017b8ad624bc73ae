/* utf8.h - UTF-8 decoding and checking (Unicode 15, chapter 3: no overlong forms, no surrogates, at most U+10FFFF). */
#ifndef FM_BASE_UTF8_H
#define FM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FM_UTF8_INVALID 0xFFFFFFFFu

/* Decodes the code point at p (n > 0 bytes left): returns its length in bytes and stores it; an invalid or cut-off sequence
 * returns the length of its maximal ill-formed prefix (>= 1) and stores FM_UTF8_INVALID. */
size_t fm_utf8_decode(uint32_t *cp, const char *p, size_t n);

size_t fm_utf8_encode(char out[4], uint32_t cp); /* bytes written; U+FFFD for an invalid code point */

/* Bytes of the longest valid prefix of p[0..n). */
size_t fm_utf8_valid(const char *p, size_t n);

/* How many bytes at the end of p[0..n) are a so far valid but unfinished sequence (0..3). */
size_t fm_utf8_tail(const char *p, size_t n);

#endif
