/* convert.h - model files from model files: converting, quantising, and making up models of a given shape.
 *
 * What a path means is decided by its ending: OUT ending in ".gguf" becomes a GGUF file, anything else a Hugging Face directory
 * (config.json, safetensors, tokenizer and generation files).  IN is whatever fm_model_open() opens.  A file is written beside
 * its target, synced and renamed; a directory is built as a sibling and renamed: after any failure the target is as it was.
 *
 * Every matrix (embedding, head, in_proj, x_proj, dt_proj, out_proj) takes the wanted type.  Small tensors (norms, biases,
 * convolution, A, D: a thousandth of the weights) are never rounded: GGUF holds them as F32, a directory in the type of the
 * matrices when that loses nothing and as F32 otherwise.  Every weight is read on the way; one that is NaN or infinite is
 * FM_ERR_FORMAT naming its tensor.  Manual: docs/converting.md.
 *
 * Errors of all three  FM_ERR_ARGUMENT (a type or shape that is none, an output that cannot be), FM_ERR_IO, FM_ERR_FORMAT,
 * FM_ERR_SHAPE, FM_ERR_UNSUPPORTED, FM_ERR_LIMIT (a weight too large for F16), FM_ERR_CANCELLED, FM_ERR_MEMORY. */
#ifndef FM_CONVERT_CONVERT_H
#define FM_CONVERT_CONVERT_H

#include "fmamba.h"

/* Shared by all three; zero is the default. */
typedef struct fm_convert_options {
    const fm_allocator *allocator;
    /* fm_convert(): "source" or NULL for the types of the source (BF16 for what is quantised there), else "f32", "f16", "bf16".
     * Any case.  fm_quantize() and fm_synth() take their type as an argument. */
    const char *type;
    unsigned threads;      /* 0: the CPUs this process may use */
    const char *name;      /* general.name of a GGUF; NULL: the model's own */
    const char *tokenizer; /* take it from this directory, tokenizer.json or GGUF file instead of from IN */
    const char *imatrix;   /* fm_quantize(): importance file in llama.cpp's GGUF form; NULL: none */
    size_t shard_bytes;    /* most bytes of tensors in one file of a directory; 0: 5 GB, as transformers has it */
    float mixer_rms_eps;   /* > 0: written as the epsilon of the norms on dt, B, C */
    fm_progress_fn progress;
    fm_log_fn log;         /* warnings: what llama.cpp will refuse, tensors of another type than asked for, no tokenizer */
    void *ctx;             /* of progress and log */
} fm_convert_options;

/* What was written. */
typedef struct fm_convert_result {
    size_t n_tensors, tensor_bytes; /* tensor_bytes: of all tensors, without headers and padding */
    size_t n_fallback;              /* matrices of another type than asked for, because their rows do not divide */
} fm_convert_result;

/* IN to OUT with every value kept that the type can hold.  From one form to the other and back gives the same bytes, A_log
 * within one unit in the last place.  `out` may be an existing file, which is replaced, or an empty directory. */
fm_status fm_convert(const char *in, const char *out, const fm_convert_options *o, fm_convert_result *result, fm_error *err);

/* IN to a GGUF file whose matrices are of `type` ("q4_k", "Q4_K_M", "q8_0", "bf16" ...: any case; the mixes _S, _M, _L of a K
 * type mean the type itself, as they do in llama.cpp for these models).  Type per tensor and fallbacks: spec falcon-mamba.md
 * 4.3; without an imatrix the bytes are llama.cpp's. */
fm_status fm_quantize(const char *in, const char *out, const char *type, const fm_convert_options *o, fm_convert_result *result,
                      fm_error *err);

/* A random model of a named shape, the same for the same seed whatever the number of threads, drawn directly in the blocks of
 * `type`: it runs at the speed of a real one and says nothing.  Matrices have standard deviation 0.02, A = -1 .. -d_state, the
 * bias of dt_proj gives steps of 0.001 .. 0.1.  Without o->tokenizer a GGUF gets a byte-level vocabulary that spells any
 * text, a directory none. */
fm_status fm_synth(const char *shape, const char *type, uint64_t seed, const char *out, const fm_convert_options *o,
                   fm_convert_result *result, fm_error *err);

/* Name of shape i ("falcon-mamba-7b", "mamba-130m", "tiny" ...), NULL past the last: for help texts. */
const char *fm_synth_shape(size_t i);

#endif
