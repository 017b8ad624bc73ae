/* config.h - the numbers that describe a model, and the source (file or directory) that they and the weights come from. */
#ifndef FM_MODEL_CONFIG_H
#define FM_MODEL_CONFIG_H

#include "format/gguf.h"
#include "format/safetensors.h"

#define FM_EOS_MAX 16

/* Spelled as the checkpoint spells them.  A new mixer adds the fields it needs. */
typedef struct fm_config {
    size_t d_model, d_inner, d_state, d_conv, dt_rank, n_layer, vocab;
    float norm_eps;
    bool mixer_norms;    /* weightless RMS norms on dt, B, C (Falcon Mamba) */
    float mixer_rms_eps; /* their epsilon */
    const char *mixer_rms_eps_source;
    bool use_bias, use_conv_bias; /* what the configuration says; GGUF: what the file holds */
    bool tie_stated, tie;         /* tie_word_embeddings, if the configuration states it */
    size_t pad_vocab_multiple;    /* the embedding may have more rows than vocab: rounded up to this */
    size_t trained_length;        /* 0: unknown */
    int32_t bos, eos[FM_EOS_MAX]; /* bos -1: none */
    size_t n_eos;
} fm_config;

/* Sizes that weight tables refer to. */
typedef enum fm_dim {
    FM_DIM_1,
    FM_DIM_MODEL,
    FM_DIM_INNER,
    FM_DIM_2INNER,
    FM_DIM_STATE,
    FM_DIM_CONV,
    FM_DIM_RANK,
    FM_DIM_RANK_2STATE,
    FM_DIM_VOCAB
} fm_dim;

size_t fm_dim_of(const fm_config *c, fm_dim d);
const char *fm_dim_name(fm_dim d); /* "2*d_inner" */

typedef enum fm_source_kind { FM_SOURCE_HF, FM_SOURCE_GGUF } fm_source_kind;

/* An open checkpoint, before anybody knows what it means. */
typedef struct fm_source {
    fm_source_kind kind;
    char *path;    /* as the caller gave it */
    fm_str config; /* FM_SOURCE_HF: the text of config.json */
    fm_st st;
    fm_gguf gguf;
    const fm_allocator *a;
} fm_source;

/* A tensor of a source as it lies there. */
typedef struct fm_source_tensor {
    const char *name; /* terminated, valid while the lookup's `name` argument is */
    fm_tensor t;
    size_t n_dims, dims[4]; /* slowest first */
} fm_source_tensor;

/* Opens a directory with config.json and safetensors, or a GGUF file.  What people try and we cannot read (pytorch_model.bin,
 * bitsandbytes and GPTQ folders, a lone tokenizer) is named in the error, with what to do. */
fm_status fm_source_open(fm_source *s, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err);
void fm_source_close(fm_source *s);
fm_status fm_source_lock(const fm_source *s, fm_error *err);

/* *found false and FM_OK when there is no such tensor. */
fm_status fm_source_find(const fm_source *s, const char *name, fm_source_tensor *out, bool *found, fm_error *err);
size_t fm_source_count(const fm_source *s);
/* Copies the name of tensor i (cut to size - 1 bytes) and its shape, bytes and type name. */
void fm_source_at(const fm_source *s, size_t i, fm_str *name, fm_tensor_info *info);

#endif
