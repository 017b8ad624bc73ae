/* test_bpe_train.c - vocabularies against those that Hugging Face's tokenizers learned from the same texts
 * (tests/oracles/bpe_train_oracle.py), with one thread and several; cuts, limits, and memory that runs out. */
#include "testing.h"
#include "train/bpe_train.h"
#include "train/counts.h"
#include "vocab_data.h"

#define DATA FM_SOURCE_DIR "/tests/data/bpe/"

static const char *const end_token[] = {"<|endoftext|>"};
static const char *const text_file[] = {DATA "text.txt"};

static fm_bpe_options options_of(size_t vocab)
{
    return (fm_bpe_options){.files = text_file,
                            .n_files = 1,
                            .specials = end_token,
                            .n_specials = 1,
                            .vocab = vocab,
                            .min_frequency = 2,
                            .pretok = FM_PRETOK_FALCON,
                            .threads = 1};
}

static void check_view(fm_view got, fm_view want)
{
    if (!fm_view_eq(got, want)) fail_msg("\"%.*s\", expected \"%.*s\"", (int)got.n, got.p, (int)want.n, want.p);
}

static void check_same(const fm_vocab *got, const fm_tokenizer *want)
{
    assert_int_equal(got->n_tokens, fm_tokenizer_vocab(want));
    assert_int_equal(got->n_merges, fm_tokenizer_merges(want));
    for (size_t i = 0; i < got->n_tokens; i++) {
        fm_view token;
        int32_t type;
        fm_tokenizer_spell(want, (int32_t)i, &token, &type);
        check_view(got->tokens[i], token);
        assert_int_equal(got->types[i], type);
    }
    for (size_t i = 0; i < got->n_merges; i++) {
        fm_view left, right;
        fm_tokenizer_merge(want, i, &left, &right);
        check_view(got->merges[2 * i], left);
        check_view(got->merges[2 * i + 1], right);
    }
    assert_string_equal(got->pretok_name, fm_tokenizer_pretok_name(want));
}

static void check_recorded(const char *path, fm_bpe_options o)
{
    size_t n;
    char *json = slurp(path, &n);
    fm_tokenizer *want;
    assert_ok(fm_tokenizer_from_json(&want, (fm_view){json, n}, (fm_view){NULL, 0}, path, NULL, NULL));
    for (o.threads = 1; o.threads <= 5; o.threads += 2) {
        fm_bpe_vocab got;
        assert_ok(fm_bpe_train(&got, &o, NULL, NULL));
        check_same(&got.v, want);
        fm_bpe_vocab_free(&got);
    }
    fm_tokenizer_free(want);
    free(json);
}

/* The cases of the oracle. */
static void test_recorded(void **state)
{
    (void)state;
    static const char *const both[] = {DATA "text.txt", DATA "text.jsonl"};
    static const char *const end_pad[] = {"<|endoftext|>", "<|pad|>"}, *const pad_end[] = {"<|pad|>", "<|endoftext|>"};
    fm_bpe_options o = options_of(480);
    check_recorded(DATA "falcon.json", o);
    o.files = both, o.n_files = 2, o.specials = end_pad, o.n_specials = 2, o.pretok = FM_PRETOK_GPT2, o.min_frequency = 0;
    check_recorded(DATA "gpt2.json", o);
    o.files = both + 1, o.n_files = 1, o.specials = pad_end, o.pretok = FM_PRETOK_LLAMA3, o.min_frequency = 3, o.vocab = 2000;
    check_recorded(DATA "llama3.json", o);
}

/* What a name of a new file gives. */
static fm_status train_on(fm_bpe_vocab *out, const char *name, const char *text, size_t n, fm_bpe_options o, fm_error *err)
{
    const test_folder f = test_folder_make();
    char path[256];
    const char *const files[] = {test_path(path, &f, name)};
    test_file_write(path, text, n);
    o.files = files;
    o.n_files = 1;
    const fm_status status = fm_bpe_train(out, &o, NULL, err);
    test_folder_remove(&f);
    return status;
}

/* Several mebibytes, so that texts are cut inside documents: the counts are those of the text in one piece. */
static void test_chunks(void **state)
{
    (void)state;
    size_t n, total = 0;
    char *text = slurp(DATA "text.txt", &n), *many = malloc(2000 * n);
    assert_non_null(many);
    for (int i = 0; i < 2000; i++, total += n) memcpy(many + total, text, n);
    for (fm_pretok pretok = FM_PRETOK_FALCON; pretok <= FM_PRETOK_LLAMA3; pretok++) {
        fm_bpe_vocab one, all;
        fm_bpe_options o = options_of(600);
        o.pretok = pretok;
        o.threads = 3;
        assert_ok(train_on(&all, "many.txt", many, total, o, NULL));
        o.min_frequency = 1;
        assert_ok(train_on(&one, "one.txt", text, n, o, NULL));
        assert_int_equal(all.n_bytes, 2000 * one.n_bytes);
        assert_int_equal(all.n_pieces, one.n_pieces);
        assert_int_equal(all.v.n_merges, one.v.n_merges);
        for (size_t i = 0; i < 2 * one.v.n_merges; i++) check_view(all.v.merges[i], one.v.merges[i]);
        fm_bpe_vocab_free(&one);
        fm_bpe_vocab_free(&all);
    }
    free(many);
    free(text);
}

/* By hand: bytes that are no text are letters as others are, special tokens cut, the longest of them first. */
static void test_bytes_and_cuts(void **state)
{
    (void)state;
    static const char *const specials[] = {"<a>", "<a>b\n"};
    fm_bpe_options o = options_of(300);
    fm_bpe_vocab b;
    o.specials = specials;
    o.n_specials = 2;
    static const char text[] = "\xFF\xFE\xFF\xFE<a>b\n\xFF\xFE<a>xy<a>xy";
    assert_ok(train_on(&b, "x.txt", text, sizeof text - 1, o, NULL));
    assert_int_equal(b.v.n_tokens, 260);
    assert_int_equal(b.v.n_merges, 2);
    check_view(b.v.tokens[1], FM_VIEW("<a>b\n"));
    check_view(b.v.tokens[258], FM_VIEW("\xC3\xBF\xC3\xBE")); /* three times; the letters of FF and FE are U+00FF and U+00FE */
    check_view(b.v.tokens[259], FM_VIEW("xy"));
    assert_int_equal(b.v.eos, 0);
    fm_bpe_vocab_free(&b);
    assert_ok(train_on(&b, "x.txt", "abab", 4, options_of(257), NULL));
    assert_int_equal(b.v.n_merges, 0);
    fm_bpe_vocab_free(&b);
}

static void test_refusals(void **state)
{
    (void)state;
    fm_bpe_vocab b;
    fm_error err = {0};
    fm_bpe_options o = options_of(256);
    assert_fails(fm_bpe_train(&b, &o, NULL, &err), FM_ERR_ARGUMENT, err, "at least 257");
    o.vocab = SIZE_MAX;
    assert_fails(fm_bpe_train(&b, &o, NULL, &err), FM_ERR_ARGUMENT, err, "at most");
    o = options_of(300);
    static const char *const missing[] = {DATA "missing.txt"};
    o.files = missing;
    assert_fails(fm_bpe_train(&b, &o, NULL, &err), FM_ERR_IO, err, "missing.txt");
    assert_fails(train_on(&b, "x.txt", "", 0, o, &err), FM_ERR_ARGUMENT, err, "no text");
    assert_fails(train_on(&b, "x.txt", "<|endoftext|>", 13, o, &err), FM_ERR_ARGUMENT, err, "no text");
    assert_fails(train_on(&b, "x.jsonl", "{\"text\": \"a\"}\n{\"t\": 1}\n", 23, o, &err), FM_ERR_FORMAT, err, "no \"text\"");
    static const char *const bad[][2] = {{"<a>", "<a>"}, {"<a>", ""}, {"<a>", "\xFF"}, {"<a>", "x"}, {"<a>", "\xC4\xA0the"}};
    static const char *const why[] = {"twice", "empty", "UTF-8", "spelled", "spelled"};
    o.n_specials = 2;
    for (size_t i = 0; i < FM_COUNT(why); i++) {
        o.specials = bad[i];
        assert_fails(train_on(&b, "x.txt", "abab", 4, o, &err), FM_ERR_ARGUMENT, err, why[i]);
    }
}

static bool cancel(void *ctx, double fraction)
{
    (void)ctx;
    return fraction < 0.9;
}

static void test_cancel(void **state)
{
    (void)state;
    fm_bpe_vocab b;
    fm_error err = {0};
    fm_bpe_options o = options_of(480);
    o.progress = cancel;
    assert_fails(fm_bpe_train(&b, &o, NULL, &err), FM_ERR_CANCELLED, err, "cancelled");
}

/* Written, read back by our own reader: ids of a text and its text again. */
static void test_files(void **state)
{
    (void)state;
    const test_folder f = test_folder_make();
    fm_bpe_vocab b;
    const fm_bpe_options o = options_of(480);
    fm_tokenizer *t;
    assert_ok(fm_bpe_train(&b, &o, NULL, NULL));
    assert_ok(fm_bpe_save(&b, f.path, NULL));
    assert_int_equal(test_folder_count(&f), 2);
    assert_ok(fm_tokenizer_open(&t, f.path, NULL, NULL));
    check_same(&b.v, t);
    assert_int_equal(fm_tokenizer_eos(t), 0);
    assert_int_equal(fm_tokenizer_bos(t), -1);
    fm_tokenizer_free(t);
    fm_bpe_vocab_free(&b);
    test_folder_remove(&f);
}

static fm_status train_with(const fm_allocator *a, void *ctx)
{
    (void)ctx;
    fm_bpe_vocab b;
    static const char *const files[] = {DATA "text.jsonl"};
    fm_bpe_options o = options_of(270);
    o.files = files;
    const fm_status status = fm_bpe_train(&b, &o, a, NULL);
    fm_bpe_vocab_free(&b);
    return status;
}

static void test_memory(void **state)
{
    (void)state;
    assert_true(test_every_allocation(train_with, NULL) > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded),       cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_bytes_and_cuts), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_cancel),         cmocka_unit_test(test_files),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
