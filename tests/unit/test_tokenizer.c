/* test_tokenizer.c - vocabularies, encoding, added tokens and tokenizer.json, against recorded ids of Hugging Face's tokenizers
 * (<name>.cases) and of llama.cpp (<name>.out). */
#include "vocab_data.h"

#include "base/json.h"

static const struct {
    const char *name;
    fm_pretok pretok;
    const char *pretok_name;
    bool nfc, ignore_merges;
} models[] = {
    {"falcon", FM_PRETOK_FALCON, "falcon", false, false},
    {"gpt-2", FM_PRETOK_GPT2, "gpt-2", false, false},
    {"gpt-neox", FM_PRETOK_GPT2, "mpt", true, false},
    {"llama-3", FM_PRETOK_LLAMA3, "llama-bpe", false, true},
};

static fm_tokenizer *open_model(size_t i, vocab_data *d)
{
    fm_tokenizer *t;
    fm_error err = {0};
    *d = vocab_read(models[i].name, models[i].pretok, models[i].pretok_name);
    d->v.nfc = models[i].nfc;
    d->v.ignore_merges = models[i].ignore_merges;
    if (fm_tokenizer_build(&t, &d->v, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    return t;
}

static void check_recorded(const fm_tokenizer *t, const char *name)
{
    char path[512];
    size_t n, cases = 0;
    snprintf(path, sizeof path, VOCAB_DIR "%s.cases", name);
    char *all = slurp(path, &n);
    fm_str text = {0};
    for (char *p = all, *end; (end = strchr(p, '\n')) != NULL; cases++) {
        fm_str_reset(&text);
        fm_json_unescape(&text, (fm_view){p + 1, (size_t)(end - p) - 2});
        check_ids(t, text.p, text.n, FM_PARSE_SPECIAL, end + 1);
        p = strchr(end + 1, '\n') + 1;
    }
    assert_int_equal(cases, 500);
    fm_str_free(&text);
    free(all);
}

/* What a writer of GGUF files would see is what was given. */
static void check_accessors(const fm_tokenizer *t, const vocab_data *d)
{
    fm_view a, b;
    int32_t type;
    assert_int_equal(fm_tokenizer_vocab(t), d->v.n_tokens);
    for (size_t i = 0; i < d->v.n_tokens; i++) {
        fm_tokenizer_spell(t, (int32_t)i, &a, &type);
        assert_true(fm_view_eq(a, d->tokens[i]) && type == d->types[i]);
    }
    assert_int_equal(fm_tokenizer_merges(t), d->v.n_merges);
    for (size_t i = 0; i < d->v.n_merges; i++) {
        fm_tokenizer_merge(t, i, &a, &b);
        assert_true(fm_view_eq(a, d->merges[2 * i]) && fm_view_eq(b, d->merges[2 * i + 1]));
    }
    assert_string_equal(fm_tokenizer_pretok_name(t), d->v.pretok_name);
}

/* Every token that can be reached by its text is found by it; decoding the ids of a text gives the text back. */
static void check_round_trip(const fm_tokenizer *t)
{
    static const char text[] = "The quick\tbrown  fox\n\n 12345 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80 it's 100%";
    int32_t ids[256];
    size_t n = 256, at = 0;
    assert_int_equal(fm_tokenize(t, text, sizeof text - 1, 0, ids, &n, NULL), FM_OK);
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = fm_token_text(t, ids[i], false, &k);
        assert_true(at + k < sizeof text && memcmp(p, text + at, k) == 0);
        at += k;
    }
    assert_int_equal(at, sizeof text - 1);
}

static void test_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < FM_COUNT(models); i++) {
        vocab_data d;
        fm_tokenizer *t = open_model(i, &d);
        check_accessors(t, &d);
        vocab_data_free(&d);
        check_ggml(t, models[i].name);
        check_recorded(t, models[i].name);
        check_round_trip(t);
        fm_tokenizer_free(t);
    }
}

static void test_falcon(void **state)
{
    (void)state;
    vocab_data d;
    fm_tokenizer *t = open_model(0, &d);
    size_t n;
    check_ids(t, "The quick brown fox 12345 jumps. It's 3.14!", 43, 0,
              "487 1942 6537 27224 204 10963 2617 25607 25 605 18 94 204 30 25 1279 12");
    assert_int_equal(fm_tokenizer_find(t, " Hello"), 23090);
    assert_int_equal(fm_tokenizer_find(t, "\n"), 193);
    assert_int_equal(fm_tokenizer_find(t, "<|endoftext|>"), 11);
    assert_int_equal(fm_tokenizer_find(t, "no token is spelled like this"), -1);
    assert_int_equal(fm_tokenizer_find(t, ""), -1);
    assert_true(fm_tokenizer_is_special(t, 11));
    assert_false(fm_tokenizer_is_special(t, 12) || fm_tokenizer_is_special(t, -1) || fm_tokenizer_is_special(t, 65024));
    fm_token_text(t, 11, false, &n);
    assert_int_equal(n, 0);
    assert_memory_equal(fm_token_text(t, 11, true, &n), "<|endoftext|>", 13);
    assert_int_equal(n, 13);
    fm_token_text(t, 65024, true, &n);
    assert_int_equal(n, 0);
    fm_token_text(t, INT32_MIN, true, &n);
    assert_int_equal(n, 0);
    /* 28 bytes have no symbol and are left out; what is not UTF-8 goes byte by byte. */
    check_ids(t, "\x03\x04", 2, 0, "");
    int32_t eog[4];
    assert_int_equal(fm_tokenizer_eog(t, eog, 4), 1);
    assert_int_equal(eog[0], 11);
    fm_tokenizer_free(t);
    vocab_data_free(&d);
}

static void test_any_bytes(void **state)
{
    (void)state;
    vocab_data d;
    fm_tokenizer *t = open_model(1, &d);
    char text[257];
    int32_t ids[600];
    size_t n = 600, at = 0;
    for (int i = 0; i < 256; i++) text[i] = (char)(255 - i);
    assert_int_equal(fm_tokenize(t, text, 256, 0, ids, &n, NULL), FM_OK);
    for (size_t i = 0; i < n; i++) {
        size_t k;
        const char *p = fm_token_text(t, ids[i], false, &k);
        assert_memory_equal(p, text + at, k);
        at += k;
    }
    assert_int_equal(at, 256);
    fm_tokenizer_free(t);
    vocab_data_free(&d);
}

/* A word without a border must cost n log n. */
static void test_long_word(void **state)
{
    (void)state;
    const size_t n = (size_t)1 << 20;
    vocab_data d;
    fm_tokenizer *t = open_model(0, &d);
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'a', n);
    size_t n_ids = 0, bytes = 0;
    assert_int_equal(fm_tokenize(t, text, n, 0, NULL, &n_ids, NULL), FM_OK);
    int32_t *ids = malloc(n_ids * sizeof *ids);
    assert_non_null(ids);
    assert_int_equal(fm_tokenize(t, text, n, 0, ids, &n_ids, NULL), FM_OK);
    for (size_t i = 0, k; i < n_ids; i++, bytes += k) fm_token_text(t, ids[i], false, &k);
    assert_int_equal(bytes, n);
    free(ids);
    free(text);
    fm_tokenizer_free(t);
    vocab_data_free(&d);
}

/* ---- Small vocabularies, as tokenizer.json ---- */

#define HEAD  "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3,\"\\u0120\":4,\"abc\":5},\"merges\":"
#define OLD   "[\"a b\",\"ab c\"]}}"

static fm_status open_json(fm_tokenizer **t, const char *json, const char *config, const fm_allocator *a, fm_error *err)
{
    return fm_tokenizer_from_json(t, fm_view_of(json), fm_view_of(config), "tokenizer.json", a, err);
}

static fm_tokenizer *must_open(const char *json, const char *config)
{
    fm_tokenizer *t;
    fm_error err = {0};
    if (open_json(&t, json, config, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    return t;
}

static void test_merge_spellings(void **state)
{
    (void)state;
    static const char *const texts[] = {HEAD MODEL OLD, HEAD MODEL "[[\"a\",\"b\"],[\"ab\",\"c\"]]}}"};
    for (size_t i = 0; i < 2; i++) {
        fm_tokenizer *t = must_open(texts[i], NULL);
        check_ids(t, "abc ab ba", 9, FM_PARSE_SPECIAL, "5 4 2 4 1 0");
        assert_int_equal(fm_tokenizer_bos(t), -1);
        fm_tokenizer_free(t);
    }
}

static void test_added_tokens(void **state)
{
    (void)state;
    fm_tokenizer *t = must_open(
        HEAD
        "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
        "{\"id\":7,\"content\":\"<s>>\",\"special\":true,\"normalized\":false},"
        "{\"id\":8,\"content\":\"L\",\"lstrip\":true},{\"id\":9,\"content\":\"R\",\"rstrip\":true},"
        "{\"id\":10,\"content\":\"W\",\"single_word\":true},{\"id\":12,\"content\":\"<|im_end|>\",\"special\":true}],"
        "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":\"TemplateProcessing\","
        "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"pair\":[]}]}," MODEL OLD,
        "{\"pad_token\":{\"content\":\"<s>>\"},\"unk_token\":null}");
    check_ids(t, "<s><s>>a", 8, FM_PARSE_SPECIAL, "6 7 0");
    check_ids(t, "<s>a", 4, 0, "0"); /* "<", "s", ">" are no bytes of this vocabulary */
    check_ids(t, "<s", 2, FM_PARSE_SPECIAL, "");
    check_ids(t, "a  L b", 6, 0, "0 8 4 1");
    check_ids(t, "a R  b", 6, 0, "0 4 9 1");
    check_ids(t, "aW W Wb", 7, 0, "0 4 10 4 1");
    check_ids(t, "a", 1, FM_ADD_SPECIAL, "6 0");
    check_ids(t, "", 0, FM_ADD_SPECIAL, "6");
    check_ids(t, "", 0, 0, "");
    assert_int_equal(fm_tokenizer_bos(t), 6);
    assert_int_equal(fm_tokenizer_eos(t), 12);
    assert_int_equal(fm_tokenizer_pad(t), 7);
    assert_true(fm_tokenizer_add_bos(t));
    fm_view gap;
    int32_t type;
    fm_tokenizer_spell(t, 11, &gap, &type);
    assert_true(fm_view_is(gap, "[PAD11]") && type == FM_TOKEN_UNUSED);
    fm_tokenizer_free(t);
}

/* Merges make it too where it is not taken as a whole. */
static void test_added_token_that_is_ordinary(void **state)
{
    (void)state;
    fm_tokenizer *t = must_open(HEAD "\"added_tokens\":[{\"id\":2,\"content\":\"ab\",\"special\":true}]," MODEL OLD, NULL);
    check_ids(t, "abc", 3, FM_PARSE_SPECIAL, "2 3");
    check_ids(t, "abc", 3, 0, "5");
    check_ids(t, "ba", 2, FM_PARSE_SPECIAL, "1 0");
    fm_tokenizer_free(t);
}

static void test_config(void **state)
{
    (void)state;
    static const char json[] = HEAD "\"added_tokens\":[{\"id\":6,\"content\":\"<e>\",\"special\":true}]," MODEL OLD;
    fm_tokenizer *t = must_open(json, "{\"bos_token\":\"<e>\",\"eos_token\":{\"content\":\"<e>\"},\"add_bos_token\":true,"
                                      "\"add_eos_token\":true,\"model_max_length\":1e30}");
    check_ids(t, "ab", 2, FM_ADD_SPECIAL, "6 2 6");
    fm_tokenizer_free(t);
    fm_error err;
    assert_int_equal(open_json(&t, json, "{\"bos_token\":", NULL, &err), FM_ERR_FORMAT);
    assert_null(t);
}

static void test_ignore_merges(void **state)
{
    (void)state;
    static const char tail[] = "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}}";
    char json[512];
    snprintf(json, sizeof json, HEAD "\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,%s", tail);
    fm_tokenizer *t = must_open(json, NULL);
    check_ids(t, "ab", 2, 0, "2");
    check_ids(t, "aba", 3, 0, "0 1 0");
    fm_tokenizer_free(t);
    snprintf(json, sizeof json, HEAD "\"model\":{\"type\":\"BPE\",%s", tail);
    t = must_open(json, NULL);
    check_ids(t, "ab", 2, 0, "0 1");
    fm_tokenizer_free(t);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        fm_status status;
        const char *says;
    } cases[] = {
        {"", FM_ERR_FORMAT, "tokenizer.json"},
        {"{}", FM_ERR_FORMAT, "no \"model\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", FM_ERR_UNSUPPORTED, "\"none\""},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", FM_ERR_UNSUPPORTED, "Unigram"},
        {"{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true}}", FM_ERR_UNSUPPORTED, "SentencePiece"},
        {"{\"model\":{\"vocab\":[]}}", FM_ERR_UNSUPPORTED, "object"},
        {"{\"model\":{\"end_of_word_suffix\":\"</w>\"}}", FM_ERR_UNSUPPORTED, "suffix"},
        {HEAD "\"normalizer\":{\"type\":\"Lowercase\"}," MODEL OLD, FM_ERR_UNSUPPORTED, "Lowercase"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true}," MODEL OLD, FM_ERR_UNSUPPORTED, "prefix"},
        {"{\"pre_tokenizer\":{\"type\":\"Whitespace\"}," MODEL OLD, FM_ERR_UNSUPPORTED, "Whitespace(?)"},
        {HEAD MODEL "[\"a  b\"]}}", FM_ERR_FORMAT, "merge 0"},
        {HEAD MODEL "[\"ab\"]}}", FM_ERR_FORMAT, "a merge is"},
        {HEAD MODEL "[[\"a\",\"b\",\"c\"]]}}", FM_ERR_FORMAT, "a merge is"},
        {HEAD MODEL "[\"c b\"]}}", FM_ERR_FORMAT, "merge 0 (\"c\" with \"b\")"},
        {HEAD "\"model\":{\"vocab\":{\"a\":16777216}}}", FM_ERR_FORMAT, "too large"},
        {HEAD "\"model\":{\"vocab\":{\"a\":16777215}}}", FM_ERR_FORMAT, "go up to"},
        {HEAD "\"model\":{\"vocab\":{\"a\":-1}}}", FM_ERR_FORMAT, "tokenizer.json"},
        {HEAD "\"model\":{\"vocab\":{}}}", FM_ERR_FORMAT, "has 0"},
        {HEAD "\"added_tokens\":[{\"id\":3}]," MODEL OLD, FM_ERR_FORMAT, "content"},
        {HEAD MODEL "[\"a b\"", FM_ERR_FORMAT, "byte"},
    };
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_tokenizer *t;
        fm_error err = {0};
        const fm_status status = open_json(&t, cases[i].json, NULL, NULL, &err);
        if (status != cases[i].status || strstr(err.text, cases[i].says) == NULL)
            fail_msg("case %zu: %d \"%s\", expected %d with \"%s\"", i, status, err.text, cases[i].status, cases[i].says);
        assert_null(t);
    }
}

static void test_build_refused(void **state)
{
    (void)state;
    const fm_view tokens[] = {FM_VIEW("a"), FM_VIEW("b")};
    const int32_t types[] = {1, 7};
    fm_tokenizer *t;
    fm_error err;
    fm_vocab v = {.tokens = tokens, .types = types, .n_tokens = 2, .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    assert_int_equal(fm_tokenizer_build(&t, &v, NULL, &err), FM_ERR_FORMAT);
    assert_non_null(strstr(err.text, "token 1 has type 7"));
    v.types = NULL;
    v.bos = 2;
    assert_int_equal(fm_tokenizer_build(&t, &v, NULL, &err), FM_ERR_FORMAT);
    v.bos = -2;
    assert_int_equal(fm_tokenizer_build(&t, &v, NULL, &err), FM_ERR_FORMAT);
    assert_null(t);
}

static void test_room(void **state)
{
    (void)state;
    fm_tokenizer *t = must_open(HEAD MODEL OLD, NULL);
    int32_t ids[3] = {-7, -7, -7};
    size_t n = 0;
    assert_int_equal(fm_tokenize(t, "cacb", 4, 0, NULL, &n, NULL), FM_OK);
    assert_int_equal(n, 4);
    n = 2;
    fm_error err;
    assert_int_equal(fm_tokenize(t, "cacb", 4, 0, ids, &n, &err), FM_ERR_LIMIT);
    assert_int_equal(n, 4);
    assert_int_equal(ids[2], -7);
    fm_tokenizer_free(t);
    fm_tokenizer_free(NULL);
}

/* ---- Memory ---- */

typedef struct meter {
    size_t left, live;
} meter;

static void *meter_alloc(void *ctx, size_t bytes, size_t align)
{
    meter *m = ctx;
    if (m->left == 0) return NULL;
    m->left--;
    void *p = aligned_alloc(align, (bytes + align) / align * align);
    m->live += p != NULL;
    return p;
}

static void meter_free(void *ctx, void *p)
{
    meter *m = ctx;
    m->live -= p != NULL;
    free(p);
}

static fm_status open_and_encode(const fm_allocator *a)
{
    static const char json[] =
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}]},\"pre_tokenizer\":{\"type\":\"Sequence\","
        "\"pretokenizers\":[{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},\"post_processor\":{\"type\":"
        "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]},"
        "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"special\":true}]," MODEL OLD;
    fm_tokenizer *t;
    int32_t ids[64];
    size_t n = 64;
    FM_TRY(open_json(&t, json, "{\"bos_token\":\"<s>\",\"pad_token\":{\"content\":\"<s>\"}}", a, NULL));
    const fm_status status = fm_tokenize(t, "abc<s>e\xCC\x81 ab", 12, FM_PARSE_SPECIAL | FM_ADD_SPECIAL, ids, &n, NULL);
    fm_tokenizer_free(t);
    return status;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t n = 0;; n++) {
        meter m = {.left = n};
        const fm_allocator a = {meter_alloc, meter_free, &m};
        const fm_status status = open_and_encode(&a);
        assert_int_equal(m.live, 0);
        if (status == FM_OK) break;
        assert_int_equal(status, FM_ERR_MEMORY);
        assert_true(n < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_falcon),
        cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_merge_spellings),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_added_token_that_is_ordinary),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_build_refused),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
