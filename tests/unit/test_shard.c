/* test_shard.c - token shards: what is written is read, the same bytes for any number of threads, and no damaged byte goes
 * unnoticed; token files of llm.c and Megatron. */
#include "base/rng.h"
#include "testing.h"
#include "text/tokenizer.h"
#include "train/feed.h"
#include "train/shard.h"
#include "vocab_data.h"

typedef struct world {
    test_folder f;
    fm_tokenizer *t;
    fm_pool *pool;
    fm_tokenizing o;
    fm_tokens text; /* of the file below */
    char path[256];
} world;

/* A text of more tokens than a block holds. */
static void world_open(world *w)
{
    size_t n;
    fm_str s = {0};
    char *part = slurp(BPE_DIR "text.txt", &n);
    *w = (world){.f = test_folder_make(), .t = bpe_open(BPE_DIR "falcon.json")};
    while (s.n < 2 * FM_SHARD_BLOCK) fm_str_put(&s, part, n);
    test_file_write(test_path(w->path, &w->f, "text.txt"), s.p, s.n);
    assert_ok(fm_pool_open(&w->pool, 2, NULL, NULL));
    w->o = (fm_tokenizing){.t = w->t, .vocab = fm_tokenizer_vocab(w->t), .pool = w->pool};
    assert_ok(fm_tokens_read(&w->text, w->path, &w->o, NULL));
    assert_true(w->text.n > FM_SHARD_BLOCK / 2);
    fm_str_free(&s);
    free(part);
}

static void world_close(world *w)
{
    fm_tokens_free(&w->text);
    fm_pool_free(w->pool);
    fm_tokenizer_free(w->t);
    test_folder_remove(&w->f);
}

static void write_shards(const world *w, const char *out, uint64_t limit)
{
    const char *const files[] = {w->path};
    fm_shards s = {.files = files, .n_files = 1, .out = out, .limit = limit};
    fm_error err = {0};
    if (fm_shards_write(&s, &w->o, &err) != FM_OK) fail_msg("%s", err.text);
    assert_int_equal(s.n_tokens, w->text.n);
    assert_int_equal(s.n_bytes, w->text.n_bytes);
    assert_int_equal(s.n_written, limit ? (w->text.n + limit - 1) / limit : 1);
}

static void check_tokens(const fm_tokens *got, const int32_t *want, size_t n)
{
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    assert_int_equal(got->n, n);
    assert_ok(fm_tokens_copy(got, 0, n, ids, NULL));
    assert_memory_equal(ids, want, n * sizeof *ids);
    for (size_t at = 0; at + 7 < n; at += n / 9) {
        assert_ok(fm_tokens_copy(got, at, 7, ids, NULL));
        assert_memory_equal(ids, want + at, 7 * sizeof *ids);
    }
    free(ids);
}

static void a_shard_holds_the_tokens(void **state)
{
    (void)state;
    world w;
    fm_tokens got;
    char path[256], other[256];
    size_t n[2];
    world_open(&w);
    write_shards(&w, test_path(path, &w.f, "a.tokens"), 0);
    assert_ok(fm_tokens_read(&got, path, &w.o, NULL));
    assert_null(got.ids); /* mapped */
    check_tokens(&got, w.text.ids, w.text.n);
    assert_int_equal(got.n_bytes, w.text.n_bytes);
    assert_ok(fm_tokens_load(&got, NULL));
    check_tokens(&got, w.text.ids, w.text.n);
    fm_tokens_free(&got);
    fm_pool_free(w.pool); /* another number of threads */
    assert_ok(fm_pool_open(&w.pool, 3, NULL, NULL));
    w.o.pool = w.pool;
    write_shards(&w, test_path(other, &w.f, "b.tokens"), 0);
    char *a = slurp(path, &n[0]), *b = slurp(other, &n[1]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(a, b, n[0]);
    free(a);
    free(b);
    world_close(&w);
}

static void a_folder_of_shards_is_one_source(void **state)
{
    (void)state;
    world w;
    fm_feed s;
    fm_error err = {0};
    test_folder shards = test_folder_make();
    char out[256], name[256];
    world_open(&w);
    write_shards(&w, test_path(out, &shards, "part"), w.text.n / 3);
    snprintf(name, sizeof name, "%s*2.5", shards.path);
    if (fm_feed_open(&s, name, &w.o, &err) != FM_OK) fail_msg("%s", err.text);
    assert_true(s.weight == 2.5);
    assert_int_equal(s.n_parts, w.text.n % 3 ? 4 : 3);
    assert_int_equal(fm_feed_tokens(&s), w.text.n);
    assert_int_equal(fm_feed_bytes(&s), w.text.n_bytes);
    for (size_t i = 0, at = 0; i < s.n_parts; at += s.parts[i++].n) check_tokens(&s.parts[i], w.text.ids + at, s.parts[i].n);
    fm_feed_free(&s);
    const char *const files[] = {w.path};
    fm_shards fewer = {.files = files, .n_files = 1, .out = out, .limit = w.text.n};
    assert_fails(fm_shards_write(&fewer, &w.o, &err), FM_ERR_IO, err, "part-00001.tokens is there from an earlier run");
    test_folder_remove(&shards);
    world_close(&w);
}

/* ---- Damage ---- */

static void check_refused(const world *w, const char *path, fm_status want, const char *sentence)
{
    fm_tokens got;
    fm_error err = {0};
    assert_fails(fm_tokens_read(&got, path, &w->o, &err), want, err, sentence);
    if (!strstr(err.text, w->f.path)) fail_msg("\"%s\" does not name the file", err.text);
}

/* Of a shard whose second block is damaged the first can be read, and nothing that reaches into the second. */
static void check_block_refused(const world *w, const char *path)
{
    const size_t each = FM_SHARD_BLOCK / 2;
    fm_tokens got;
    fm_error err = {0};
    int32_t ids[2];
    assert_ok(fm_tokens_read(&got, path, &w->o, &err));
    assert_ok(fm_tokens_copy(&got, 0, 2, ids, &err));
    assert_ok(fm_tokens_copy(&got, each - 2, 2, ids, &err));
    assert_memory_equal(ids, w->text.ids + each - 2, sizeof ids);
    for (int again = 0; again < 2; again++)
        assert_fails(fm_tokens_copy(&got, each - 1, 2, ids, &err), FM_ERR_FORMAT, err, "a.tokens: tokens 524288 .. ");
    assert_fails(fm_tokens_load(&got, &err), FM_ERR_FORMAT, err, "tokens 524288 .. ");
    assert_ok(fm_tokens_copy(&got, each - 2, 2, ids, &err));
    fm_tokens_free(&got);
}

/* Every bit of the header, and bits all over the rest; every way to cut the file. */
static void damage_is_noticed(void **state)
{
    (void)state;
    world w;
    fm_tokens got;
    size_t n;
    char path[256];
    world_open(&w);
    write_shards(&w, test_path(path, &w.f, "a.tokens"), 0);
    char *bytes = slurp(path, &n);
    for (size_t i = 8; i < FM_SHARD_HEADER; i++) { /* the magic itself decides whether it is a shard */
        bytes[i] ^= 4;
        test_file_write(path, bytes, n);
        check_refused(&w, path, FM_ERR_FORMAT, "its header is damaged");
        bytes[i] ^= 4;
    }
    for (uint64_t i = 0; i < 20; i++) {
        const size_t at = FM_SHARD_HEADER + (size_t)(fm_rng_uniform(1, 1, i) * (double)(n - FM_SHARD_HEADER));
        bytes[at] ^= 1;
        test_file_write(path, bytes, n);
        const fm_status status = fm_tokens_read(&got, path, &w.o, NULL);
        if (status == FM_OK) {
            assert_int_equal(fm_tokens_load(&got, NULL), FM_ERR_FORMAT);
            fm_tokens_free(&got);
        } else {
            assert_int_equal(status, FM_ERR_FORMAT);
        }
        bytes[at] ^= 1;
    }
    bytes[FM_SHARD_HEADER + FM_SHARD_BLOCK] ^= 1;
    test_file_write(path, bytes, n);
    check_block_refused(&w, path);
    bytes[FM_SHARD_HEADER + FM_SHARD_BLOCK] ^= 1;
    for (size_t cut = 8; cut < n; cut += cut < 200 ? 1 : n / 11) {
        test_file_write(path, bytes, cut);
        check_refused(&w, path, FM_ERR_FORMAT, "cut off");
    }
    free(bytes);
    world_close(&w);
}

static void another_tokenizer_is_refused(void **state)
{
    (void)state;
    world w;
    char path[256];
    world_open(&w);
    write_shards(&w, test_path(path, &w.f, "a.tokens"), 0);
    w.o.vocab--;
    check_refused(&w, path, FM_ERR_SHAPE, "its vocabulary has 457 tokens, the model's 456");
    fm_tokenizer *other = bpe_open(BPE_DIR "gpt2.json");
    w.o = (fm_tokenizing){.t = other, .vocab = 1000, .pool = w.pool};
    check_refused(&w, path, FM_ERR_SHAPE, "was made with another tokenizer");
    fm_tokenizer_free(other);
    world_close(&w);
}

/* ---- Files of others ---- */

static void put(fm_str *s, uint64_t v, unsigned width)
{
    unsigned char b[8];
    fm_put_le(b, v, width);
    fm_str_put(s, (const char *)b, width);
}

static void check_foreign(const world *w, const char *path, const fm_str *bytes, unsigned width)
{
    fm_tokens got;
    fm_error err = {0};
    static const int32_t want[] = {5, 456, 0, 11, 300};
    test_file_write(path, bytes->p, bytes->n);
    if (fm_tokens_read(&got, path, &w->o, &err) != FM_OK) fail_msg("%s", err.text);
    assert_int_equal(got.width, width);
    assert_int_equal(got.n, 5);
    int32_t ids[5];
    assert_ok(fm_tokens_copy(&got, 0, 5, ids, NULL));
    assert_memory_equal(ids, want, sizeof ids);
    fm_tokens_free(&got);
}

static fm_str llmc(unsigned magic, unsigned version, unsigned width, uint64_t last)
{
    fm_str s = {0};
    const uint64_t ids[] = {5, 456, 0, 11, last};
    put(&s, magic, 4), put(&s, version, 4), put(&s, 5, 4);
    while (s.n < 1024) put(&s, 0, 4);
    for (int i = 0; i < 5; i++) put(&s, ids[i], width);
    return s;
}

static void llmc_is_read(void **state)
{
    (void)state;
    world w;
    char path[256];
    world_open(&w);
    test_path(path, &w.f, "data.bin");
    fm_str s = llmc(20240520, 1, 2, 300);
    check_foreign(&w, path, &s, 2);
    test_file_write(path, s.p, s.n - 1);
    check_refused(&w, path, FM_ERR_FORMAT, "its header promises 5 tokens of 2");
    test_file_write(path, s.p, 1000);
    check_refused(&w, path, FM_ERR_FORMAT, "was cut off");
    fm_str_free(&s);
    s = llmc(20240801, 7, 4, 300);
    check_foreign(&w, path, &s, 4);
    fm_str_free(&s);
    s = llmc(20240520, 1, 2, 457);
    test_file_write(path, s.p, s.n);
    check_refused(&w, path, FM_ERR_SHAPE, "token 4 is 457, expected 0 .. 456");
    fm_str_free(&s);
    s = llmc(20240522, 1, 2, 1);
    test_file_write(path, s.p, s.n);
    check_refused(&w, path, FM_ERR_UNSUPPORTED, "multiple-choice");
    fm_str_free(&s);
    test_file_write(path, "\1\0\2\0", 4);
    check_refused(&w, path, FM_ERR_FORMAT, "no token file that this program knows");
    world_close(&w);
}

/* Two sequences of 3 and 2 tokens, two documents. */
static fm_str megatron_index(unsigned dtype, unsigned width, uint64_t second)
{
    fm_str s = {0};
    fm_str_put(&s, "MMIDIDX\0\0", 9);
    put(&s, 1, 8), put(&s, dtype, 1), put(&s, 2, 8), put(&s, 3, 8);
    put(&s, 3, 4), put(&s, second, 4);
    put(&s, 0, 8), put(&s, 3 * width, 8);
    for (unsigned i = 0; i < 3; i++) put(&s, i, 8);
    return s;
}

static void megatron_is_read(void **state)
{
    (void)state;
    static const struct {
        unsigned dtype, width;
    } types[] = {{8, 2}, {3, 2}, {4, 4}, {5, 8}};
    world w;
    char bin[256], idx[256];
    world_open(&w);
    test_path(bin, &w.f, "data.bin");
    test_path(idx, &w.f, "data.idx");
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        const uint64_t ids[] = {5, 456, 0, 11, 300};
        fm_str s = {0}, index = megatron_index(types[i].dtype, types[i].width, 2);
        for (int k = 0; k < 5; k++) put(&s, ids[k], types[i].width);
        test_file_write(idx, index.p, index.n);
        check_foreign(&w, bin, &s, types[i].width);
        test_file_write(idx, index.p, index.n - 1);
        check_refused(&w, bin, FM_ERR_FORMAT, "too few for 2 sequences and 3 documents");
        fm_str_free(&index);
        index = megatron_index(types[i].dtype, types[i].width, 1);
        test_file_write(idx, index.p, index.n);
        check_refused(&w, idx, FM_ERR_FORMAT, "they do not belong together");
        index.p[17] = 7;
        test_file_write(idx, index.p, index.n);
        check_refused(&w, idx, FM_ERR_UNSUPPORTED, "dtype code 7");
        fm_str_free(&index);
        fm_str_free(&s);
    }
    const unsigned char minus[10] = {5, 0, 0xff, 0xff}; /* -1 of int16 is no token */
    fm_str index = megatron_index(3, 2, 2);
    test_file_write(idx, index.p, index.n);
    test_file_write(bin, minus, sizeof minus);
    check_refused(&w, bin, FM_ERR_SHAPE, "token 1 is 65535, expected 0 .. 456");
    fm_str_free(&index);
    world_close(&w);
}

/* ---- Memory that runs out ---- */

static fm_status write_and_read(const fm_allocator *a, void *ctx)
{
    const world *w = ctx;
    char path[256];
    const char *const files[] = {BPE_DIR "text.jsonl"};
    const fm_tokenizing o = {.t = w->t, .vocab = w->o.vocab, .pool = w->pool, .a = a};
    fm_shards s = {.files = files, .n_files = 1, .out = test_path(path, &w->f, "c"), .limit = 500};
    fm_feed source;
    FM_TRY(fm_shards_write(&s, &o, NULL));
    FM_TRY(fm_feed_open(&source, w->f.path, &o, NULL));
    fm_feed_free(&source);
    return FM_OK;
}

static void memory_may_run_out(void **state)
{
    (void)state;
    world w;
    world_open(&w);
    unlink(w.path);
    assert_true(test_every_allocation(write_and_read, &w) > 10);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_shard_holds_the_tokens),
                                       cmocka_unit_test(a_folder_of_shards_is_one_source),
                                       cmocka_unit_test(damage_is_noticed),
                                       cmocka_unit_test(another_tokenizer_is_refused),
                                       cmocka_unit_test(llmc_is_read),
                                       cmocka_unit_test(megatron_is_read),
                                       cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
