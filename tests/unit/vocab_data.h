/* vocab_data.h - reads the vocabularies of tests/data/vocab/ (the format: tests/oracles/tokenizer_oracle.py) and the tokenizers
 * of tests/data/bpe/. */
#ifndef FM_TEST_VOCAB_DATA_H
#define FM_TEST_VOCAB_DATA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/tokenizer.h"

#define VOCAB_DIR FM_SOURCE_DIR "/tests/data/vocab/"
#define BPE_DIR   FM_SOURCE_DIR "/tests/data/bpe/"

typedef struct vocab_data {
    fm_vocab v;
    char *text;      /* the file; spellings are cut out of it */
    fm_view *tokens; /* (v.n_tokens) */
    fm_view *merges;
    int32_t *types;
} vocab_data;

static inline char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) fail_msg("%s is missing", path);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = '\0';
    fclose(f);
    return p;
}

/* A tokenizer.json whose documents end with <|endoftext|>. */
static inline fm_tokenizer *bpe_open(const char *path)
{
    fm_tokenizer *t;
    fm_error err = {0};
    size_t n;
    char *json = slurp(path, &n);
    const fm_view config = FM_VIEW("{\"eos_token\": \"<|endoftext|>\"}");
    if (fm_tokenizer_from_json(&t, (fm_view){json, n}, config, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    free(json);
    return t;
}

/* Bytes of the first n characters. */
static inline size_t chars(const char *p, unsigned long n)
{
    size_t i = 0;
    for (; n > 0; n--) do
            i++;
        while (((unsigned char)p[i] & 0xC0) == 0x80);
    return i;
}

/* Runs of the character for a blank become runs of blanks, in place. */
static inline void blanks(fm_view *token, char *p)
{
    token->n /= 2;
    memset(p, ' ', token->n);
}

static inline void vocab_line(vocab_data *d, char *line, char *end)
{
    const size_t id = d->v.n_tokens++;
    char *how = memchr(line, ' ', (size_t)(end - line));
    d->tokens[id] = (fm_view){line, (size_t)((how != NULL ? how : end) - line)};
    d->types[id] = FM_TOKEN_NORMAL;
    if (how == NULL) return;
    if (how[1] == '#') {
        d->types[id] = FM_TOKEN_CONTROL;
    } else if (how[1] == '+') {
        d->types[id] = FM_TOKEN_USER_DEFINED;
        blanks(&d->tokens[id], line);
    } else {
        for (char *p = how; p < end;) {
            const size_t left = chars(line, strtoul(p + 1, &p, 10));
            fm_view *side = &d->merges[2 * d->v.n_merges++];
            side[0] = (fm_view){line, left};
            side[1] = (fm_view){line + left, d->tokens[id].n - left};
        }
    }
}

static inline vocab_data vocab_read(const char *name, fm_pretok pretok, const char *pretok_name)
{
    vocab_data d = {0};
    char path[512];
    size_t n;
    snprintf(path, sizeof path, VOCAB_DIR "%s.vocab", name);
    d.text = slurp(path, &n);
    d.tokens = calloc(140000, sizeof *d.tokens);
    d.types = calloc(140000, sizeof *d.types);
    d.merges = calloc(2 * 300000, sizeof *d.merges);
    assert_true(d.tokens != NULL && d.types != NULL && d.merges != NULL);
    for (char *p = d.text, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) vocab_line(&d, p, end);
    d.v.tokens = d.tokens;
    d.v.types = d.types;
    d.v.merges = d.merges;
    d.v.pretok = pretok;
    d.v.pretok_name = pretok_name;
    d.v.bos = d.v.eos = d.v.unk = d.v.pad = -1;
    return d;
}

static inline void vocab_data_free(vocab_data *d)
{
    free(d->text);
    free(d->tokens);
    free(d->types);
    free(d->merges);
}

/* Compares ids with a line "1 2 3" (blanks before each or between). */
static inline void check_ids(const fm_tokenizer *t, const char *text, size_t n, unsigned flags, const char *line)
{
    enum { ROOM = 8192 };
    static int32_t ids[ROOM];
    size_t n_ids = ROOM, i = 0;
    fm_error err;
    assert_int_equal(fm_tokenize(t, text, n, flags, ids, &n_ids, &err), FM_OK);
    for (const char *p = line; *p != '\0' && *p != '\n'; i++) {
        char *end;
        const long want = strtol(p, &end, 10);
        if (end == p) break;
        if (i >= n_ids || ids[i] != want)
            fail_msg("\"%.*s\": id %zu is %d, expected %ld", (int)n, text, i, i < n_ids ? ids[i] : -1, want);
        p = end;
    }
    if (i != n_ids) fail_msg("\"%.*s\": %zu ids, expected %zu", (int)n, text, n_ids, i);
}

/* The 46 cases of <name>.out. */
static inline void check_ggml(const fm_tokenizer *t, const char *name)
{
    static const char cut[] = "\n__ggml_vocab_test__\n";
    char path[512];
    size_t n, cases = 0;
    char *in = slurp(VOCAB_DIR "ggml.inp", &n);
    snprintf(path, sizeof path, VOCAB_DIR "%s.out", name);
    char *out = slurp(path, &n), *line = out;
    for (char *p = in, *end; (end = strstr(p, cut)) != NULL; p = end + sizeof cut - 1, cases++) {
        check_ids(t, p, (size_t)(end - p), 0, line);
        line = strchr(line, '\n') + 1;
    }
    assert_int_equal(cases, 46);
    free(in);
    free(out);
}

#endif
