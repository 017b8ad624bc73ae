/* crc64.h - CRC-64/XZ (ECMA-182, reflected), the check of the parts of a state file. */
#ifndef FM_BASE_CRC64_H
#define FM_BASE_CRC64_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of what `crc` stands for followed by n bytes at p; begin with 0.  "123456789" gives 995DC9BBDF1939FA. */
uint64_t fm_crc64(uint64_t crc, const void *p, size_t n);

#endif
