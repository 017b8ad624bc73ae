/* internal.h - what the files of this folder share.  A job is a list of tensors to write, in order; each comes from the source
 * model or, in a synthetic one, from a random generator.  plan.c makes the list, stream.c its bytes, write_gguf.c and
 * write_hf.c the files around them. */
#ifndef FM_CONVERT_INTERNAL_H
#define FM_CONVERT_INTERNAL_H

#include "base/pool.h"
#include "convert/convert.h"
#include "model/model.h"

/* One tensor of the output. */
typedef struct fm_item {
    fm_model_weight w;
    size_t rows, cols; /* by the weight's definition; a vector is one row */
    fm_dtype type;     /* to be written as */
    fm_tensor src;     /* (rows, cols) as the source holds it; data NULL: drawn at random */
    const float *importance; /* (cols) or NULL */
} fm_item;

typedef struct fm_job {
    const fm_convert_options *o;
    const fm_allocator *a;
    const fm_model *m; /* NULL for a synthetic model */
    const fm_arch *arch;
    fm_config config;
    const char *name;
    fm_source_kind to;
    fm_item *items;
    size_t n;
    fm_dtype base; /* type that most bytes of the matrices have */
    uint64_t seed;
    fm_convert_result result;

    fm_pool *pool;
    unsigned char *chunk; /* rows on their way out */
    float *rows;          /* one row of floats per thread */
    size_t chunk_bytes, cols_max, bytes_done;
} fm_job;

/* ---- plan.c ---- */

/* The weights of job->m that exist, in the order of a Hugging Face checkpoint, with source but without type. */
fm_status fm_plan_weights(fm_job *j, fm_error *err);
/* Types: as the source (NULL) or this float type; or by llama.cpp's rules for this file type. */
fm_status fm_plan_convert(fm_job *j, const fm_dtype *type, fm_error *err);
void fm_plan_quantize(fm_job *j, fm_dtype type);
/* Sums up: bytes, base type. */
fm_status fm_plan_finish(fm_job *j, fm_error *err);
void fm_job_free(fm_job *j);
void fm_job_log(const fm_job *j, const char *fmt, ...) FM_PRINTF(2, 3);

/* ---- small.c: tensors that are decoded whole ---- */

/* Key of a GGUF with the A_log of layer l where A alone cannot give them back. */
#define FM_KEY_A_LOG "fmamba.blk.%zu.a_log"

/* dst (rows * cols) = the item's values as the output stores them: A or A_log. */
fm_status fm_small_read(float *dst, const fm_job *j, const fm_item *it, fm_error *err);
void fm_small_raw(float *dst, const fm_item *it); /* as the source stores them */
/* Writes those keys for all layers that need them. */
fm_status fm_small_put_a_log(fm_gguf_writer *w, const fm_job *j, fm_error *err);

/* ---- stream.c ---- */

typedef struct fm_sink {
    fm_status (*write)(void *ctx, const void *p, size_t n, fm_error *err);
    void *ctx;
} fm_sink;

fm_status fm_flow_open(fm_job *j, fm_error *err); /* threads and buffers */
fm_status fm_flow_item(fm_job *j, const fm_item *it, fm_sink sink, fm_error *err);

/* synth_blocks.c: n elements from element `at` of random stream `stream`, in blocks. */
void fm_random_row(fm_dtype type, void *dst, size_t n, uint64_t seed, uint64_t stream, uint64_t at);
/* synth.c: the values of a synthetic small tensor, as the output stores them. */
void fm_synth_small(float *dst, const fm_job *j, const fm_item *it);

/* ---- Files ---- */

/* Where the tokenizer of the output comes from: nowhere, a directory's files, or the keys of a GGUF. */
typedef struct fm_tok {
    char *dir, *json;     /* json: the path of the tokenizer.json */
    const fm_gguf *gguf;
    fm_gguf own;          /* opened for the purpose */
    const fm_allocator *a;
} fm_tok;

fm_status fm_tok_open(fm_tok *t, const fm_job *j, fm_error *err);
void fm_tok_close(fm_tok *t);
fm_status fm_tok_put_gguf(fm_gguf_writer *w, const fm_tok *t, const fm_job *j, fm_error *err); /* vocab_gguf.c */
fm_status fm_tok_put_synthetic(fm_gguf_writer *w, const fm_job *j, fm_error *err); /* vocab_bytes.c */
fm_status fm_tok_write_hf(const fm_tok *t, const fm_job *j, const char *dir, fm_error *err);    /* vocab_hf.c */
/* The text of "<dir>/<name>"; absent: empty. */
fm_status fm_read_beside(fm_str *text, const char *dir, const char *name, fm_error *err);

/* config_json.c: `text` with what the conversion changed; one made from the model alone. */
fm_status fm_config_edit(fm_str *out, const fm_job *j, fm_view text, fm_error *err);
fm_status fm_config_make(fm_str *out, const fm_job *j, fm_error *err);

fm_status fm_write_gguf(fm_job *j, const char *path, fm_error *err);
fm_status fm_write_hf(fm_job *j, const char *path, fm_error *err);
/* Chooses by the ending of `path`, opens threads and buffers first. */
fm_status fm_write_model(fm_job *j, const char *path, fm_error *err);
fm_source_kind fm_kind_of_path(const char *path);

/* imatrix.c */
typedef struct fm_imatrix {
    fm_gguf gguf;
    float *means; /* the importance of every tensor, one after another */
    const fm_allocator *a;
} fm_imatrix;

/* Points the items at their importance.  Keep it open until they are written. */
fm_status fm_imatrix_open(fm_imatrix *im, fm_job *j, const char *path, fm_error *err);
void fm_imatrix_close(fm_imatrix *im);

#endif
