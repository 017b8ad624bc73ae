/* fuzz_tokens.c - any bytes as a file to train on.  The first one says which: a shard (with checksums and tokenizer put right, so
 * that what lies behind them is reached), llm.c's, Megatron's pair, lines of JSON, the same packed.  What is accepted has ids of
 * the vocabulary only, and can be copied from end to end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crc64.h"
#include "text/tokenizer.h"
#include "train/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "fuzz_tokens_XXXXXX";
static const char *const names[] = {"a.tokens", "b.bin", "c.bin", "c.idx", "d.jsonl", "e.jsonl.gz", "f.jsonl.zst"};
enum { SHARD, LLMC, MEGATRON, INDEX, LINES };

static fm_tokenizing reading;

static char *path_of(size_t name)
{
    char *p = fm_path_join(folder, names[name], NULL, NULL);
    if (!p) abort();
    return p;
}

static void clean_up(void)
{
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        char *p = path_of(i);
        unlink(p);
        fm_free(NULL, p);
    }
    rmdir(folder);
}

static void begin(void)
{
    fm_str json = {0};
    fm_tokenizer *t;
    const char *path = FM_SOURCE_DIR "/tests/data/bpe/falcon.json";
    if (fm_file_read(&json, path, (size_t)1 << 20, NULL) != FM_OK || !mkdtemp(folder)) abort();
    if (fm_tokenizer_from_json(&t, (fm_view){json.p, json.n}, (fm_view){NULL, 0}, path, NULL, NULL) != FM_OK) abort();
    fm_str_free(&json);
    reading = (fm_tokenizing){.t = t, .vocab = fm_tokenizer_vocab(t)};
    if (fm_pool_open(&reading.pool, 1, NULL, NULL) != FM_OK) abort();
    atexit(clean_up);
}

static void write_file(size_t name, const uint8_t *p, size_t n)
{
    char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f) != 0) abort();
    fm_free(NULL, path);
}

/* The checks of docs/formats/shard.md as they should be for what the header says. */
static void mend_shard(uint8_t *h, size_t n)
{
    if (n < FM_SHARD_HEADER) return;
    memcpy(h, FM_SHARD_MAGIC, 8);
    fm_tokenizer_identity(h + 48, reading.t);
    const uint64_t sums = fm_le(h + 80, 8);
    if (sums >= FM_SHARD_HEADER && sums <= n) {
        if (n - sums == 8)
            fm_put_le(h + sums, fm_crc64(0, h + 128, (size_t)(fm_le(h + 16, 8) * fm_le(h + 12, 4)) % (n - 135)), 8);
        fm_put_le(h + 88, fm_crc64(0, h + sums, n - (size_t)sums), 8);
    }
    fm_put_le(h + 120, fm_crc64(0, h, 120), 8);
}

static void read_file(size_t name)
{
    fm_tokens t;
    char *path = path_of(name);
    if (fm_tokens_read(&t, path, &reading, NULL) == FM_OK) {
        int32_t *ids = malloc((t.n + 1) * sizeof *ids);
        if (!ids) abort();
        const bool whole = fm_tokens_copy(&t, 0, t.n, ids, NULL) == FM_OK;
        for (size_t i = 0; i < t.n && whole; i++)
            if (ids[i] < 0 || (size_t)ids[i] >= reading.vocab) abort();
        free(ids);
        fm_tokens_free(&t);
    }
    fm_free(NULL, path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!reading.t) begin();
    if (size == 0) return 0;
    const size_t name = data[0] % FM_COUNT(names);
    uint8_t *bytes = malloc(size);
    if (!bytes) abort();
    memcpy(bytes, data + 1, --size);
    if (name == SHARD) mend_shard(bytes, size);
    if (name == MEGATRON || name == INDEX) { /* the last byte says how much of it is the index */
        const size_t n = size ? size - bytes[size - 1] % size : 0;
        write_file(INDEX, bytes, n);
        write_file(MEGATRON, bytes + n, size - n);
    } else {
        write_file(name, bytes, size);
    }
    read_file(name);
    free(bytes);
    return 0;
}
