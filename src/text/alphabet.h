/* alphabet.h - the byte alphabet of byte-level BPE: printable bytes stand for themselves, the other 68 for U+0100 and up. */
#ifndef FM_TEXT_ALPHABET_H
#define FM_TEXT_ALPHABET_H

#include <stdint.h>

#define FM_ALPHABET_END 0x144u /* past the last character of it */

uint32_t fm_alphabet_char(unsigned char byte);
int fm_alphabet_byte(uint32_t cp); /* -1: not of the alphabet */

#endif
