/* fuzz_state.c - state files of arbitrary bytes, with the checksum put right so that what lies behind it is reached too. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>

#include "base/crc64.h"
#include "fmamba.h"
#include "fuzz/format_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fm_state *st, *mark;
    unsigned char *copy = malloc(n + 1);
    if (!copy) return 0;
    memcpy(copy, data, n);
    if (n >= 8 && data[n - 1] % 2) {
        const uint64_t crc = fm_crc64(0, copy, n - 8);
        memcpy(copy + n - 8, &crc, sizeof crc);
    }
    const memory_file f = memory_file_make(copy, n);
    if (fm_state_load(&st, &mark, f.path, NULL, NULL) == FM_OK) {
        const fm_state_info i = fm_state_get_info(st);
        if (strlen(i.model_id) > 64 || strlen(i.arch) > 32 || !i.model_name) abort();
        fm_state_free(mark);
        fm_state_free(st);
    }
    close(f.fd);
    free(copy);
    return 0;
}
