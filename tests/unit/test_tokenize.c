/* test_tokenize.c - files of text, packed or not, become the ids of the whole text tokenised at once, for any number of threads;
 * what is damaged, cut off or no text is refused by name and place. */
#include "testing.h"
#include "train/tokens.h"
#include "vocab_data.h"

#ifdef FM_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef FM_HAVE_ZSTD
#include <zstd.h>
#endif

#include "text/tokenizer.h"

static const char *const tokenizers[] = {BPE_DIR "falcon.json", BPE_DIR "gpt2.json", BPE_DIR "llama3.json"};

/* Longer than a round of one worker, no line like another; ends of documents, and special tokens at places of every kind. */
static char *make_text(size_t *n)
{
    size_t n_part;
    char *part = slurp(BPE_DIR "text.txt", &n_part);
    fm_str s = {0};
    for (int i = 0; s.n < FM_CHUNKS_ROUND * FM_CHUNK_BYTES + FM_CHUNK_BYTES; i++) {
        fm_str_put(&s, part + i % 97, n_part - (size_t)(i % 97));
        fm_str_printf(&s, "%s%d %s", i % 3 ? "\n\n" : "<|endoftext|>\n ", i, i % 5 ? "a\n" : "<|endoftext|>b\n\n\n");
    }
    free(part);
    *n = s.n;
    char *text = malloc(s.n);
    assert_non_null(text);
    memcpy(text, s.p, s.n);
    fm_str_free(&s);
    return text;
}

static fm_tokens read_tokens(const char *path, const fm_tokenizer *t, unsigned threads)
{
    fm_tokens out;
    fm_error err = {0};
    fm_pool *pool;
    assert_ok(fm_pool_open(&pool, threads, NULL, NULL));
    const fm_tokenizing o = {.t = t, .vocab = fm_tokenizer_vocab(t), .pool = pool};
    if (fm_tokens_read(&out, path, &o, &err) != FM_OK) fail_msg("%s", err.text);
    fm_pool_free(pool);
    return out;
}

static void check_refused(const char *path, const fm_tokenizer *t, size_t vocab, fm_status want, const char *sentence)
{
    fm_tokens out;
    fm_error err = {0};
    fm_pool *pool;
    assert_ok(fm_pool_open(&pool, 2, NULL, NULL));
    const fm_tokenizing o = {.t = t, .vocab = vocab, .pool = pool};
    assert_fails(fm_tokens_read(&out, path, &o, &err), want, err, sentence);
    if (!strstr(err.text, path)) fail_msg("\"%s\" does not name the file", err.text);
    fm_pool_free(pool);
}

static void check_tokens(const fm_tokens *got, const int32_t *want, size_t n)
{
    assert_int_equal(got->n, n);
    assert_memory_equal(got->ids, want, n * sizeof *want);
}

static int32_t *tokenize_whole(const fm_tokenizer *t, const char *text, size_t n, size_t *n_ids)
{
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    *n_ids = n + 1;
    assert_ok(fm_tokenize(t, text, n, FM_PARSE_SPECIAL, ids, n_ids, NULL));
    return ids;
}

static void a_cut_text_has_the_ids_of_the_whole(void **state)
{
    (void)state;
    test_folder f = test_folder_make();
    char path[256];
    size_t n, n_ids;
    char *text = make_text(&n);
    test_file_write(test_path(path, &f, "text.txt"), text, n);
    for (size_t i = 0; i < FM_COUNT(tokenizers); i++) {
        fm_tokenizer *t = bpe_open(tokenizers[i]);
        int32_t *want = tokenize_whole(t, text, n, &n_ids);
        for (unsigned threads = 1; threads <= 3; threads += 2) {
            fm_tokens got = read_tokens(path, t, threads);
            check_tokens(&got, want, n_ids);
            assert_int_equal(got.n_bytes, n);
            fm_tokens_free(&got);
        }
        free(want);
        fm_tokenizer_free(t);
    }
    free(text);
    test_folder_remove(&f);
}

/* ---- Packed ---- */

/* Two streams one after the other, as `cat a.gz b.gz` gives. */
static size_t pack(unsigned char *out, size_t room, const char *text, size_t n, bool gz)
{
    const size_t half = n / 3;
    size_t total = 0;
    for (int i = 0; i < 2; i++) {
        const char *from = i ? text + half : text;
        const size_t n_from = i ? n - half : half;
        (void)from, (void)n_from, (void)room;
#ifdef FM_HAVE_ZLIB
        if (gz) {
            z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
                          .avail_in = (uInt)n_from,
                          .next_out = out + total,
                          .avail_out = (uInt)(room - total)};
            assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
            assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
            total += z.total_out;
            deflateEnd(&z);
        }
#endif
#ifdef FM_HAVE_ZSTD
        if (!gz) {
            ZSTD_CCtx *c = ZSTD_createCCtx();
            ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
            const size_t packed = ZSTD_compress2(c, out + total, room - total, from, n_from);
            assert_false(ZSTD_isError(packed));
            total += packed;
            ZSTD_freeCCtx(c);
        }
#endif
    }
    return total;
}

static void check_packed(const char *name, bool gz)
{
    test_folder f = test_folder_make();
    char path[256];
    size_t n, n_ids;
    char *text = make_text(&n);
    fm_tokenizer *t = bpe_open(tokenizers[0]);
    unsigned char *packed = malloc(2 * n);
    assert_non_null(packed);
    const size_t n_packed = pack(packed, 2 * n, text, n, gz);
    int32_t *want = tokenize_whole(t, text, n, &n_ids);
    test_file_write(test_path(path, &f, name), packed, n_packed);
    fm_tokens got = read_tokens(path, t, 2);
    check_tokens(&got, want, n_ids);
    fm_tokens_free(&got);
    const size_t vocab = fm_tokenizer_vocab(t);
    for (size_t i = 1; i < 8; i++) {
        test_file_write(path, packed, n_packed * i / 8);
        check_refused(path, t, vocab, FM_ERR_FORMAT, "cut off after ");
    }
    test_file_write(path, packed, 0);
    check_refused(path, t, vocab, FM_ERR_FORMAT, "cut off after 0 bytes");
    test_file_write(path, text, n);
    check_refused(path, t, vocab, FM_ERR_FORMAT, "damaged");
    for (size_t i = 1; i < 8; i++) {
        const size_t at = n_packed * i / 8;
        packed[at] ^= 0x10;
        test_file_write(path, packed, n_packed);
        check_refused(path, t, vocab, FM_ERR_FORMAT, "damaged");
        packed[at] ^= 0x10;
    }
    free(want);
    free(packed);
    free(text);
    fm_tokenizer_free(t);
    test_folder_remove(&f);
}

static void packed_text_is_unpacked(void **state)
{
    (void)state;
#ifdef FM_HAVE_ZLIB
    check_packed("text.txt.gz", true);
#endif
#ifdef FM_HAVE_ZSTD
    check_packed("text.txt.zst", false);
#endif
}

/* ---- Lines ---- */

static void lines_are_documents(void **state)
{
    (void)state;
    test_folder f = test_folder_make();
    char path[256];
    fm_tokenizer *t = bpe_open(tokenizers[0]);
    const int32_t eos = fm_tokenizer_eos(t);
    fm_str lines = {0};
    int32_t *want = malloc(((size_t)1 << 23) * sizeof *want);
    size_t n = 0;
    assert_non_null(want);
    for (int i = 0; lines.n < 2 * FM_CHUNK_BYTES + 1000; i++) {
        char text[64];
        const int length = snprintf(text, sizeof text, "%d <|endoftext|> a\tstory of %d", i, i * 7);
        fm_str_printf(&lines, "{\"id\": %d, \"text\": \"%d <|endoftext|> a\\tstory of %d\"}\n%s", i, i, i * 7,
                      i % 9 ? "" : "\n");
        size_t room = sizeof text;
        assert_ok(fm_tokenize(t, text, (size_t)length, 0, want + n, &room, NULL)); /* special tokens are text in a document */
        n += room;
        want[n++] = eos;
    }
    test_file_write(test_path(path, &f, "docs.jsonl"), lines.p, lines.n);
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        fm_tokens got = read_tokens(path, t, threads);
        check_tokens(&got, want, n);
        fm_tokens_free(&got);
    }
    size_t n_lines = 0;
    for (size_t i = 0; i < lines.n; i++) n_lines += lines.p[i] == '\n';
    char where[300];
    snprintf(where, sizeof where, "%s:%zu: a line has no \"text\"", path, n_lines + 1);
    fm_str_puts(&lines, "{\"txt\": \"\"}\n{\"broken\n");
    test_file_write(path, lines.p, lines.n);
    check_refused(path, t, fm_tokenizer_vocab(t), FM_ERR_FORMAT, where);
    check_refused(path, t, 300, FM_ERR_SHAPE, "tokenizer and model do not belong together");
    fm_str_free(&lines);
    free(want);
    fm_tokenizer_free(t);
    test_folder_remove(&f);
}

static void what_is_no_text_is_refused(void **state)
{
    (void)state;
    test_folder f = test_folder_make();
    char path[256];
    fm_tokenizer *t = bpe_open(tokenizers[0]);
    check_refused(test_path(path, &f, "missing.txt.gz"), t, 1000, FM_ERR_IO, "cannot open");
    check_refused(f.path, t, 1000, FM_ERR_IO, "cannot read");
    test_file_write(test_path(path, &f, "empty.txt"), "", 0);
    fm_tokens got = read_tokens(path, t, 1);
    assert_int_equal(got.n, 0);
    fm_tokens_free(&got);
    fm_tokenizer_free(t);
    test_folder_remove(&f);
}

/* A file of one letter, of which a round holds 4 MiB and no more than 8 MiB may be held. */
static fm_status read_uncut(const char *path, char letter, size_t n, bool whole, fm_error *err)
{
    fm_chunks c;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, letter, n);
    test_file_write(path, text, n);
    free(text);
    assert_ok(fm_chunks_open(&c, path, whole, 1, NULL, NULL));
    c.held = 2 * FM_CHUNKS_ROUND * FM_CHUNK_BYTES;
    const fm_status status = fm_chunks_next(&c, err);
    if (status == FM_OK) {
        assert_int_equal(c.n, letter == '\n' ? (n - 1) / FM_CHUNK_BYTES : 1);
        assert_int_equal(fm_chunk(&c, 0).n, letter == '\n' ? FM_CHUNK_BYTES : n);
    }
    fm_chunks_close(&c);
    return status;
}

static void what_is_held_is_bounded(void **state)
{
    (void)state;
    test_folder f = test_folder_make();
    char text[256], lines[256];
    fm_error err = {0};
    const size_t limit = 2 * FM_CHUNKS_ROUND * FM_CHUNK_BYTES;
    test_path(text, &f, "a.txt");
    test_path(lines, &f, "a.jsonl");
    assert_ok(read_uncut(text, 'a', limit - 1, false, &err));
    assert_fails(read_uncut(text, 'a', limit, false, &err), FM_ERR_LIMIT, err,
                 "8388608 bytes without a line end behind a letter");
    assert_ok(read_uncut(text, 'a', limit - 1, true, &err));
    assert_fails(read_uncut(text, 'a', limit, true, &err), FM_ERR_LIMIT, err, "must not be cut");
    assert_fails(read_uncut(lines, 'a', limit, true, &err), FM_ERR_LIMIT, err, "without a line end:");
    assert_ok(read_uncut(lines, '\n', limit / 2, true, &err)); /* lines are cut all the same */
    test_folder_remove(&f);
}

/* ---- Memory that runs out ---- */

typedef struct attempt {
    const fm_tokenizer *t;
    const char *path;
    fm_pool *pool;
} attempt;

static fm_status read_with(const fm_allocator *a, void *ctx)
{
    const attempt *x = ctx;
    const fm_tokenizing o = {.t = x->t, .vocab = fm_tokenizer_vocab(x->t), .pool = x->pool, .a = a};
    fm_tokens out;
    FM_TRY(fm_tokens_read(&out, x->path, &o, NULL));
    fm_tokens_free(&out);
    return FM_OK;
}

static void memory_may_run_out(void **state)
{
    (void)state;
    attempt x = {.t = bpe_open(tokenizers[0]), .path = BPE_DIR "text.jsonl"};
    assert_ok(fm_pool_open(&x.pool, 1, NULL, NULL));
    assert_true(test_every_allocation(read_with, &x) > 3);
    fm_pool_free(x.pool);
    fm_tokenizer_free((fm_tokenizer *)(uintptr_t)x.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_cut_text_has_the_ids_of_the_whole),
                                       cmocka_unit_test(packed_text_is_unpacked),
                                       cmocka_unit_test(lines_are_documents),
                                       cmocka_unit_test(what_is_no_text_is_refused),
                                       cmocka_unit_test(what_is_held_is_bounded),
                                       cmocka_unit_test(memory_may_run_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
