/* fuzz_gguf.c - any bytes through the GGUF reader: what it accepts must be safe to read to the last byte, must be found again
 * by name, and its keys must survive being written and read once more. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>

#include "format/gguf.h"
#include "fuzz/format_file.h"

/* Stops the fuzzer, in every build. */
static void check(bool ok)
{
    if (!ok) abort();
}

static void check_keys(const fm_gguf *g, fm_str *text)
{
    for (size_t i = 0; i < g->n_kv; i++) {
        const fm_gguf_kv *kv = &g->kv[i];
        fm_str_reset(text);
        fm_str_put(text, kv->key.p, kv->key.n);
        check(strlen(text->p) == kv->key.n && fm_gguf_find(g, text->p) == kv);
        fm_str_reset(text);
        fm_gguf_kv_json(text, kv, 3);
        const unsigned char *at = NULL;
        fm_view v;
        uint64_t n = 0;
        while (fm_gguf_string_next(kv, &at, &v)) n++;
        if (kv->type == FM_GGUF_ARRAY && kv->element == FM_GGUF_STRING) check(n == kv->count && at == kv->end);
        if (kv->type != FM_GGUF_ARRAY || kv->element == FM_GGUF_STRING || kv->element == FM_GGUF_ARRAY) continue;
        for (uint64_t e = 0; e < kv->count; e++) (void)fm_gguf_array_i64(kv, e);
        check(kv->count == 0 || kv->data + kv->count <= kv->end);
    }
}

static void check_tensors(const fm_gguf *g, fm_str *text)
{
    const unsigned char *end = g->maps[0].p + g->maps[0].n;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const fm_gguf_tensor *t = &g->tensors[i];
        fm_str_reset(text);
        fm_str_put(text, t->name.p, t->name.n);
        check(fm_gguf_find_tensor(g, text->p) == t);
        check(t->data == NULL || (t->bytes > 0 && t->data > g->maps[0].p && t->bytes <= (uint64_t)(end - t->data)));
        fm_tensor view;
        if (fm_gguf_as_tensor(&view, g, t, NULL) == FM_OK) check(view.rows * view.stride == t->bytes);
    }
}

static void check_copy(const fm_gguf *g)
{
    memory_file f = memory_file_make(NULL, 0);
    fm_gguf_writer w;
    fm_gguf copy;
    if (fm_gguf_create(&w, f.path, NULL, NULL) == FM_OK) {
        for (size_t i = 0; i < g->n_kv; i++) fm_gguf_put_copy(&w, &g->kv[i]);
        check(fm_gguf_begin_data(&w, NULL) == FM_OK && fm_gguf_commit(&w, NULL) == FM_OK);
        check(fm_gguf_open(&copy, f.path, FM_MAP_READ, NULL, NULL) == FM_OK);
        check(copy.n_kv + (fm_gguf_find(g, "general.alignment") != NULL) == g->n_kv);
        fm_gguf_close(&copy);
    }
    close(f.fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memory_file f = memory_file_make(data, size);
    fm_str text = {.p = NULL};
    fm_gguf g;
    if (fm_gguf_open(&g, f.path, size % 2 != 0 ? FM_MAP_SHARED : FM_MAP_READ, NULL, NULL) == FM_OK) {
        check_keys(&g, &text);
        check_tensors(&g, &text);
        check_copy(&g);
        fm_gguf_close(&g);
    }
    fm_str_free(&text);
    close(f.fd);
    return 0;
}
