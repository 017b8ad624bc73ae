/* convert_files.h - what the tests of src/convert share: golden models, scratch directories, tensors of two files compared, an
 * importance file as llama.cpp's tool writes it. */
#ifndef FM_TESTS_UNIT_CONVERT_FILES_H
#define FM_TESTS_UNIT_CONVERT_FILES_H

#include "base/sha256.h"
#include "convert/convert.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "unit/testing.h"

#define GOLDEN FM_SOURCE_DIR "/tests/data/golden/"

/* Deletes a directory of files in the scratch folder. */
FM_UNUSED static void drop_dir(const char *path)
{
    test_folder f;
    assert_true(snprintf(f.path, sizeof f.path, "%s", path) < (int)sizeof f.path);
    test_folder_remove(&f);
}

/* The lines that a conversion logs, one after another. */
typedef struct log_lines {
    char text[2048];
} log_lines;

FM_UNUSED static void keep_line(void *ctx, const char *line)
{
    log_lines *l = ctx;
    const size_t n = strlen(l->text);
    snprintf(l->text + n, sizeof l->text - n, "%s\n", line);
}

FM_UNUSED static void hash_of(char out[65], const void *p, size_t n)
{
    fm_sha256 s;
    unsigned char digest[32];
    fm_sha256_begin(&s);
    fm_sha256_add(&s, p, n);
    fm_sha256_end(&s, digest);
    fm_hex(out, digest, 32);
}

/* Importance of two matrices of the shape "tiny": sums that grow with the column, seven inputs counted. */
FM_UNUSED static void write_imatrix(const char *path, size_t cols)
{
    static const char *const names[] = {"blk.0.ssm_in.weight", "blk.1.ssm_in.weight"};
    fm_gguf_writer w;
    assert_ok(fm_gguf_create(&w, path, NULL, NULL));
    const fm_view dataset = FM_VIEW("made up");
    fm_gguf_put_string(&w, "general.type", FM_VIEW("imatrix"));
    fm_gguf_put_strings(&w, "imatrix.datasets", &dataset, 1);
    fm_gguf_put_u32(&w, "imatrix.chunk_count", 7);
    fm_gguf_put_u32(&w, "imatrix.chunk_size", 512);
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.in_sum2", names[i]);
        assert_ok(fm_gguf_put_tensor(&w, name, FM_F32, (const uint64_t[]){cols, 1}, 2, NULL));
        snprintf(name, sizeof name, "%s.counts", names[i]);
        assert_ok(fm_gguf_put_tensor(&w, name, FM_F32, (const uint64_t[]){1, 1}, 2, NULL));
    }
    assert_ok(fm_gguf_begin_data(&w, NULL));
    const float count = 7;
    for (size_t i = 0; i < FM_COUNT(names); i++) {
        for (size_t c = 0; c < cols; c++) {
            const float sum = (float)((c * 37 + i * 11) % 101 + 1) * 0.25f;
            assert_ok(fm_gguf_write(&w, &sum, sizeof sum, NULL));
        }
        assert_ok(fm_gguf_end_tensor(&w, NULL));
        assert_ok(fm_gguf_write(&w, &count, sizeof count, NULL));
        assert_ok(fm_gguf_end_tensor(&w, NULL));
    }
    assert_ok(fm_gguf_commit(&w, NULL));
}

#endif
