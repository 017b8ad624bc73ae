/* sha256.h - SHA-256 (FIPS 180-4), for naming models and checking state files. */
#ifndef FM_BASE_SHA256_H
#define FM_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct fm_sha256 {
    uint32_t h[8];
    uint64_t n;
    unsigned char block[64];
} fm_sha256;

void fm_sha256_begin(fm_sha256 *s);
void fm_sha256_add(fm_sha256 *s, const void *p, size_t n);
void fm_sha256_end(fm_sha256 *s, unsigned char out[32]);
void fm_hex(char *out, const unsigned char *p, size_t n); /* 2n lower-case digits and a 0 */

#endif
