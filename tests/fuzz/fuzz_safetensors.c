/* fuzz_safetensors.c - any bytes through the safetensors reader: what it accepts lies inside the file, fills it, and is found
 * again by name. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>

#include "format/safetensors.h"
#include "fuzz/format_file.h"

/* Stops the fuzzer, in every build. */
static void check(bool ok)
{
    if (!ok) abort();
}

static void check_file(const fm_st *s)
{
    const unsigned char *begin = s->maps[0].p, *end = begin + s->maps[0].n;
    uint64_t header = 0, sum = 0;
    memcpy(&header, begin, sizeof(header));
    for (size_t i = 0; i < s->n_tensors; i++) {
        const fm_st_tensor *t = &s->tensors[i];
        check(fm_st_find(s, t->name) == t && t->type_name != NULL && t->n_dims <= FM_ST_DIMS_MAX);
        check(t->data >= begin + 8 + header && t->bytes <= (uint64_t)(end - t->data));
        sum += t->bytes;
        fm_tensor view;
        if (fm_st_as_tensor(&view, s, t, NULL) == FM_OK) check(view.rows * view.stride == t->bytes);
    }
    check(sum == s->maps[0].n - 8 - header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memory_file f = memory_file_make(data, size);
    fm_st s;
    if (fm_st_open(&s, f.path, size % 2 != 0 ? FM_MAP_SHARED : FM_MAP_READ, NULL, NULL) == FM_OK) {
        check_file(&s);
        fm_st_close(&s);
    }
    close(f.fd);
    return 0;
}
