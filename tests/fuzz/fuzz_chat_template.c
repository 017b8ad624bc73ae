/* fuzz_chat_template.c - any bytes as a template, and behind a zero byte as its variables; what renders must have runs that add
 * up to its text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char usual[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"yo\"}], "
    "\"bos_token\": \"<s>\", \"tools\": [{\"a\": [1, 2.5, null, true]}], \"add_generation_prompt\": true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const trusted[] = {"bos_token"};
    const char *text = (const char *)data, *zero = size ? memchr(text, 0, size) : NULL;
    const fm_view source = {text, zero ? (size_t)(zero - text) : size};
    const fm_view variables = zero ? (fm_view){zero + 1, size - source.n - 1} : (fm_view){usual, sizeof usual - 1};
    fm_jinja *t;
    fm_jinja_output o;
    fm_error err;
    if (fm_jinja_parse(&t, source, NULL, &err) != FM_OK) return 0;
    if (fm_jinja_render(t, variables, trusted, 1, &o, &err) == FM_OK) {
        size_t n = 0;
        for (size_t i = 0; i < o.n_runs; i++) n += o.runs[i].n;
        if (n != o.text.n) abort();
        fm_jinja_output_free(&o);
    }
    fm_jinja_free(t);
    return 0;
}
