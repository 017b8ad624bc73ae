/* test_vocab.c - tokenizers out of GGUF files, tokenizer.json files and folders, through fm_tokenizer_open(). */
#include "vocab_data.h"

#include <sys/stat.h>
#include <unistd.h>

#include "runtime/vocab.h"

#define SCRATCH "test_vocab.gguf"

static void check_array(const fm_gguf *g, const char *key, const fm_tokenizer *t, bool merges)
{
    const fm_gguf_kv *kv = fm_gguf_find(g, key);
    const unsigned char *cursor = NULL;
    fm_view want, a, b;
    int32_t type;
    size_t i = 0;
    assert_non_null(kv);
    for (; fm_gguf_string_next(kv, &cursor, &want); i++) {
        if (merges) {
            fm_tokenizer_merge(t, i, &a, &b);
            assert_int_equal(want.n, a.n + 1 + b.n);
            assert_true(memcmp(want.p, a.p, a.n) == 0 && want.p[a.n] == ' ' && memcmp(want.p + a.n + 1, b.p, b.n) == 0);
        } else {
            fm_tokenizer_spell(t, (int32_t)i, &a, &type);
            assert_true(fm_view_eq(a, want));
        }
    }
    assert_int_equal(i, merges ? fm_tokenizer_merges(t) : fm_tokenizer_vocab(t));
}

/* What a writer would write is what the file has. */
static void check_written_back(const char *path, const fm_tokenizer *t)
{
    fm_gguf g;
    fm_error err = {0};
    fm_view token;
    int32_t type;
    assert_int_equal(fm_gguf_open(&g, path, FM_MAP_SHARED, NULL, &err), FM_OK);
    check_array(&g, "tokenizer.ggml.tokens", t, false);
    check_array(&g, "tokenizer.ggml.merges", t, true);
    const fm_gguf_kv *types = fm_gguf_find(&g, "tokenizer.ggml.token_type");
    for (size_t i = 0; types != NULL && i < types->count; i++) {
        fm_tokenizer_spell(t, (int32_t)i, &token, &type);
        assert_int_equal(type, fm_gguf_array_i64(types, i));
    }
    fm_gguf_close(&g);
}

static fm_tokenizer *must_open(const char *path)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_open(&t, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    return t;
}

static void test_falcon(void **state)
{
    (void)state;
    fm_tokenizer *t = must_open(VOCAB_DIR "falcon.gguf");
    check_written_back(VOCAB_DIR "falcon.gguf", t);
    check_ggml(t, "falcon");
    check_ids(t, "a<|endoftext|>", 14, FM_PARSE_SPECIAL | FM_ADD_SPECIAL, "76 11");
    assert_int_equal(fm_tokenizer_eos(t), 11);
    assert_int_equal(fm_tokenizer_bos(t), 11);
    assert_int_equal(fm_tokenizer_pad(t), -1);
    assert_false(fm_tokenizer_add_bos(t));
    assert_string_equal(fm_tokenizer_pretok_name(t), "falcon");
    fm_tokenizer_free(t);
}

typedef struct keys {
    const char *arch, *model, *pre; /* NULL: leave the key out */
    int64_t bos;                    /* -1: leave it out */
    bool no_tokens, no_merges, short_types;
} keys;

static fm_str *join_merges(const vocab_data *d, fm_view *merges)
{
    static fm_str all;
    fm_str_reset(&all);
    for (size_t i = 0; i < d->v.n_merges; i++) {
        merges[i].n = d->merges[2 * i].n + 1 + d->merges[2 * i + 1].n;
        fm_str_put(&all, d->merges[2 * i].p, d->merges[2 * i].n);
        fm_str_putc(&all, ' ');
        fm_str_put(&all, d->merges[2 * i + 1].p, d->merges[2 * i + 1].n);
    }
    for (size_t i = 0, at = 0; i < d->v.n_merges; at += merges[i++].n) merges[i].p = all.p + at;
    return &all;
}

static void write_gguf(const keys *k, const vocab_data *d)
{
    fm_gguf_writer w;
    fm_view *merges = calloc(d->v.n_merges + 1, sizeof *merges);
    assert_non_null(merges);
    fm_str *all = join_merges(d, merges);
    assert_int_equal(fm_gguf_create(&w, SCRATCH, NULL, NULL), FM_OK);
    if (k->arch != NULL) fm_gguf_put_string(&w, "general.architecture", fm_view_of(k->arch));
    if (k->model != NULL) fm_gguf_put_string(&w, "tokenizer.ggml.model", fm_view_of(k->model));
    if (k->pre != NULL) fm_gguf_put_string(&w, "tokenizer.ggml.pre", fm_view_of(k->pre));
    if (!k->no_tokens) fm_gguf_put_strings(&w, "tokenizer.ggml.tokens", d->tokens, d->v.n_tokens);
    fm_gguf_put_i32s(&w, "tokenizer.ggml.token_type", d->types, d->v.n_tokens - k->short_types);
    if (!k->no_merges) fm_gguf_put_strings(&w, "tokenizer.ggml.merges", merges, d->v.n_merges);
    if (k->bos >= 0) fm_gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", (uint32_t)k->bos);
    assert_int_equal(fm_gguf_begin_data(&w, NULL), FM_OK);
    assert_int_equal(fm_gguf_commit(&w, NULL), FM_OK);
    fm_str_free(all);
    free(merges);
}

/* GPT-NeoX as the old files have it: no tokenizer.ggml.pre; runs of blanks are user-defined tokens. */
static void test_neox_without_pre(void **state)
{
    (void)state;
    vocab_data d = vocab_read("gpt-neox", FM_PRETOK_GPT2, "mpt");
    write_gguf(&(keys){.arch = "gptneox", .model = "gpt2", .bos = 0}, &d);
    vocab_data_free(&d);
    fm_tokenizer *t = must_open(SCRATCH);
    check_written_back(SCRATCH, t);
    check_ggml(t, "gpt-neox");
    assert_string_equal(fm_tokenizer_pretok_name(t), "mpt");
    check_ids(t, "e\xCC\x81", 3, 0, "860"); /* NFC */
    fm_tokenizer_free(t);
    unlink(SCRATCH);
}

static vocab_data small_vocab(void)
{
    static fm_view tokens[6], merges[2];
    static int32_t types[] = {FM_TOKEN_CONTROL, 1, 1, 1, FM_TOKEN_USER_DEFINED, FM_TOKEN_USER_DEFINED};
    static const char *const texts[] = {"<s>", "a", "b", "ab", "[PAD4]", "b b"};
    for (size_t i = 0; i < 6; i++) tokens[i] = fm_view_of(texts[i]);
    merges[0] = tokens[1];
    merges[1] = tokens[2];
    return (vocab_data){.v = {.n_tokens = 6, .n_merges = 1}, .tokens = tokens, .merges = merges, .types = types};
}

static void test_small(void **state)
{
    (void)state;
    const vocab_data d = small_vocab();
    write_gguf(&(keys){.model = "gpt2", .pre = "llama-bpe", .bos = 0}, &d);
    fm_tokenizer *t = must_open(SCRATCH);
    check_written_back(SCRATCH, t);
    check_ids(t, "ab<s>b b", 8, FM_PARSE_SPECIAL | FM_ADD_SPECIAL, "0 3 0 5"); /* llama-bpe adds BOS unless told otherwise */
    check_ids(t, "[PAD4]", 6, FM_PARSE_SPECIAL, "");                           /* a filler is not text */
    fm_tokenizer_free(t);
    write_gguf(&(keys){.model = "gpt2", .bos = 0xFFFFFFFF}, &d);
    t = must_open(SCRATCH);
    assert_string_equal(fm_tokenizer_pretok_name(t), "gpt-2");
    assert_int_equal(fm_tokenizer_bos(t), -1);
    fm_tokenizer_free(t);
    unlink(SCRATCH);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        keys k;
        fm_status status;
        const char *says;
    } cases[] = {
        {{.model = "llama", .bos = -1}, FM_ERR_UNSUPPORTED, "type \"llama\""},
        {{.bos = -1}, FM_ERR_UNSUPPORTED, "type \"\""},
        {{.model = "gpt2", .pre = "qwen2", .bos = -1}, FM_ERR_UNSUPPORTED, "\"qwen2\""},
        {{.model = "gpt2", .bos = -1, .no_tokens = true}, FM_ERR_UNSUPPORTED, "no vocabulary"},
        {{.model = "gpt2", .bos = -1, .no_merges = true}, FM_ERR_FORMAT, "no merges"},
        {{.model = "gpt2", .bos = -1, .short_types = true}, FM_ERR_FORMAT, "5 token types"},
        {{.model = "gpt2", .bos = 6}, FM_ERR_FORMAT, "has 6 tokens"},
    };
    const vocab_data d = small_vocab();
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_tokenizer *t;
        fm_error err = {0};
        write_gguf(&cases[i].k, &d);
        const fm_status status = fm_tokenizer_open(&t, SCRATCH, NULL, &err);
        if (status != cases[i].status || strstr(err.text, cases[i].says) == NULL || strstr(err.text, SCRATCH) == NULL)
            fail_msg("case %zu: %d \"%s\", expected %d with \"%s\"", i, status, err.text, cases[i].status, cases[i].says);
        assert_null(t);
    }
    unlink(SCRATCH);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_json_and_folder(void **state)
{
    (void)state;
    fm_tokenizer *t;
    fm_error err = {0};
    mkdir("test_vocab.dir", 0755);
    assert_int_equal(fm_tokenizer_open(&t, "test_vocab.dir", NULL, &err), FM_ERR_IO);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    write_text("test_vocab.dir/tokenizer.json",
               "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\","
               "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}");
    write_text("test_vocab.dir/tokenizer_config.json", "{\"bos_token\":\"b\",\"add_bos_token\":true}");
    static const char *const paths[] = {"test_vocab.dir", "test_vocab.dir/tokenizer.json"};
    for (size_t i = 0; i < 2; i++) {
        t = must_open(paths[i]);
        check_ids(t, "ab", 2, FM_ADD_SPECIAL, "1 2");
        fm_tokenizer_free(t);
    }
    unlink("test_vocab.dir/tokenizer_config.json");
    t = must_open(paths[0]);
    assert_int_equal(fm_tokenizer_bos(t), -1);
    fm_tokenizer_free(t);
    unlink("test_vocab.dir/tokenizer.json");
    rmdir("test_vocab.dir");
    assert_int_equal(fm_tokenizer_open(&t, "no-such-file.json", NULL, &err), FM_ERR_IO);
    assert_int_equal(fm_tokenizer_open(&t, "no-such-file.gguf", NULL, &err), FM_ERR_IO);
    assert_int_equal(fm_tokenizer_open(&t, NULL, NULL, &err), FM_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_falcon),  cmocka_unit_test(test_neox_without_pre), cmocka_unit_test(test_small),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_json_and_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
