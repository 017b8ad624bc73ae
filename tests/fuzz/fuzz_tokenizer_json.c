/* fuzz_tokenizer_json.c - any bytes as a tokenizer.json; one that opens then encodes the same bytes and decodes the ids. */
#include <stdint.h>
#include <stdlib.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const fm_tokenizer *t, fm_view text)
{
    size_t n = 0;
    fm_str out = {0};
    fm_detok d = {0};
    if (fm_tokenize(t, text.p, text.n, FM_PARSE_SPECIAL | FM_ADD_SPECIAL, NULL, &n, NULL) != FM_OK) return;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (ids == NULL) return;
    if (fm_tokenize(t, text.p, text.n, FM_PARSE_SPECIAL | FM_ADD_SPECIAL, ids, &n, NULL) != FM_OK) abort();
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= fm_tokenizer_vocab(t)) abort();
        fm_detok_add(&d, t, ids[i], true, &out);
    }
    fm_detok_flush(&d, &out);
    fm_str_free(&out);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const fm_view json = {(const char *)data, size};
    fm_tokenizer *t;
    fm_error err;
    if (fm_tokenizer_from_json(&t, json, (fm_view){NULL, 0}, "tokenizer.json", NULL, &err) != FM_OK) return 0;
    use(t, json);
    fm_tokenizer_free(t);
    return 0;
}
