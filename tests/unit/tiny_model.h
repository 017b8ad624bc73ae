/* tiny_model.h - one-layer Falcon Mamba models with seeded random weights in any type, written as GGUF files, for tests that care
 * about schedules and bits and not about what the numbers mean. */
#ifndef FM_TESTS_UNIT_TINY_MODEL_H
#define FM_TESTS_UNIT_TINY_MODEL_H

#include "base/rng.h"
#include "fmamba.h"
#include "format/gguf.h"
#include "unit/testing.h"

enum { TINY_D = 256, TINY_INNER = 512, TINY_STATE = 16, TINY_CONV = 4, TINY_RANK = 16, TINY_VOCAB = 64 };

typedef struct tiny_tensor {
    const char *name;
    fm_dtype type;
    size_t rows, cols; /* rows 0: a vector */
    float mean, sd;
} tiny_tensor;

FM_UNUSED static void tiny_write_row(fm_gguf_writer *w, const tiny_tensor *t, uint64_t stream, size_t r)
{
    float row[TINY_INNER];
    unsigned char bytes[TINY_INNER * sizeof(float)];
    size_t n;
    for (size_t i = 0; i < t->cols; i++) row[i] = t->mean + t->sd * fm_rng_normal(7, stream, r * t->cols + i);
    assert_true(fm_dtype_bytes(t->type, 1, t->cols, &n));
    fm_dtype_get(t->type)->encode(bytes, row, NULL, t->cols);
    assert_ok(fm_gguf_write(w, bytes, n, NULL));
}

FM_UNUSED static void tiny_keys(fm_gguf_writer *w)
{
    static const struct {
        const char *key;
        uint32_t v;
    } sizes[] = {{"mamba.embedding_length", TINY_D},   {"mamba.block_count", 1},
                 {"mamba.ssm.inner_size", TINY_INNER}, {"mamba.ssm.state_size", TINY_STATE},
                 {"mamba.ssm.conv_kernel", TINY_CONV}, {"mamba.ssm.time_step_rank", TINY_RANK}};
    fm_gguf_put_string(w, "general.architecture", FM_VIEW("mamba"));
    for (size_t i = 0; i < FM_COUNT(sizes); i++) fm_gguf_put_u32(w, sizes[i].key, sizes[i].v);
    fm_gguf_put_f32(w, "mamba.attention.layer_norm_rms_epsilon", 1e-5f);
    fm_gguf_put_bool(w, "mamba.ssm.dt_b_c_rms", true);
}

/* Matrices in `type`; dt_proj, whose rows are shorter than a block, in f16. */
FM_UNUSED static void tiny_model_write(const char *path, fm_dtype type)
{
    const fm_dtype short_type = fm_dtype_get(type)->is_float ? type : FM_F16;
    const tiny_tensor tensors[] = {
        {"token_embd.weight", type, TINY_VOCAB, TINY_D, 0, 1},
        {"output_norm.weight", FM_F32, 0, TINY_D, 1, 0.1f},
        {"output.weight", type, TINY_VOCAB, TINY_D, 0, 0.1f},
        {"blk.0.attn_norm.weight", FM_F32, 0, TINY_D, 1, 0.1f},
        {"blk.0.ssm_in.weight", type, 2 * TINY_INNER, TINY_D, 0, 0.1f},
        {"blk.0.ssm_conv1d.weight", FM_F32, TINY_INNER, TINY_CONV, 0, 0.4f},
        {"blk.0.ssm_conv1d.bias", FM_F32, 0, TINY_INNER, 0, 0.1f},
        {"blk.0.ssm_x.weight", type, TINY_RANK + 2 * TINY_STATE, TINY_INNER, 0, 0.1f},
        {"blk.0.ssm_dt.weight", short_type, TINY_INNER, TINY_RANK, 0, 0.2f},
        {"blk.0.ssm_dt.bias", FM_F32, 0, TINY_INNER, -2, 0.5f},
        {"blk.0.ssm_a", FM_F32, TINY_INNER, TINY_STATE, -4, 0.5f},
        {"blk.0.ssm_d", FM_F32, 0, TINY_INNER, 1, 0.1f},
        {"blk.0.ssm_out.weight", type, TINY_D, TINY_INNER, 0, 0.1f},
    };
    fm_gguf_writer w;
    assert_ok(fm_gguf_create(&w, path, NULL, NULL));
    tiny_keys(&w);
    for (size_t i = 0; i < FM_COUNT(tensors); i++) {
        const tiny_tensor *t = &tensors[i];
        const uint64_t dims[2] = {t->cols, t->rows};
        assert_ok(fm_gguf_put_tensor(&w, t->name, t->type, dims, t->rows ? 2 : 1, NULL));
    }
    assert_ok(fm_gguf_begin_data(&w, NULL));
    for (size_t i = 0; i < FM_COUNT(tensors); i++) {
        for (size_t r = 0; r < (tensors[i].rows ? tensors[i].rows : 1); r++) tiny_write_row(&w, &tensors[i], i, r);
        assert_ok(fm_gguf_end_tensor(&w, NULL));
    }
    assert_ok(fm_gguf_commit(&w, NULL));
}

#endif
