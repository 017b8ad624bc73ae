/* kernels.h - the op table: pure maths on pointers.  No allocation, no threads, no failure.
 *
 * Every entry exists in scalar C (ref/), which is the specification; SIMD tables override entries and are judged against it by
 * tests/kernelcheck.  An entry is called by every worker with its own fm_run and computes its share, part i of n; the split never
 * changes a bit of the result, nor does the number of tokens in the call: a token's numbers depend on its own row, its sequence's
 * state and the weights alone, in an order fixed by the sizes.  (T, d) means T rows of d floats; a `_stride` counts floats from
 * one row to the next.  Only `out` may alias inputs, where said. */
#ifndef FM_KERNELS_KERNELS_H
#define FM_KERNELS_KERNELS_H

#include "tensor/tensor.h"

/* Which share of a call this is. */
typedef struct fm_run {
    unsigned part, n_parts;
} fm_run;

/* [*begin, *end): this part's share of n items, cut at multiples of `granule` (>= 1). */
void fm_run_range(const fm_run *run, size_t n, size_t granule, size_t *begin, size_t *end);

/* How the tokens of a step belong to sequences: sequence s owns rows begin[s] .. begin[s + 1] - 1. */
typedef struct fm_ragged {
    size_t n_seq;
    const size_t *begin; /* (n_seq + 1) */
} fm_ragged;

/* The forms in which a product reads its input rows.  Rounding to a form is part of the product's definition (docs/numerics.md):
 *   F32     as it is; for weights F32, F16, BF16 (widened exactly).
 *   Q8_32   blocks of 32: d = max|x| / 127 (f32), q = round to nearest even(x * (1 / d)) as int8, s = sum of q.
 *   Q8_256  the same in blocks of 256, with a sum per 16 elements; for the K types and IQ4_XS.
 * A block of zeros has d = 0 and q = 0; a block with NaN or Inf has d = NaN and q = 0, so that the result is NaN. */
typedef enum fm_xform { FM_X_F32, FM_X_Q8_32, FM_X_Q8_256, FM_XFORM_COUNT } fm_xform;

fm_xform fm_xform_of(fm_dtype weights);

typedef struct fm_linear_args {
    float *y;           /* (n, rows) out: y = x . W^T (+ bias) (+ the old y when add), in this order */
    size_t y_stride;
    const void *x;      /* n rows packed by pack_x[fm_xform_of(W->type)] of the same table */
    const fm_tensor *W; /* (rows, cols), rows as they lie in the file: no alignment beyond that of the type's fields */
    const float *bias;  /* (rows) or NULL */
    bool add;
    size_t n;           /* tokens */
} fm_linear_args;

typedef struct fm_conv_args {
    float *out;          /* (T, d_inner) = silu(conv(x) + bias) */
    size_t out_stride;
    float *const *state; /* n_seq x (d_conv - 1, d_inner): the last inputs, oldest first; read and written */
    const float *x;      /* (T, d_inner) */
    size_t x_stride;
    const float *w;      /* (d_conv, d_inner): w[d_conv - 1] meets the current token (spec 2.1 step 4) */
    const float *bias;   /* (d_inner) or NULL */
    const fm_ragged *ragged;
    size_t d_inner, d_conv; /* d_conv >= 1 */
    bool hold;              /* leave state as it was: a draft may be taken back */
} fm_conv_args;

/* States of a channel, at most: a held scan keeps a copy on the stack. */
enum { FM_D_STATE_MAX = 4096 };

/* Selective scan with everything around it that is element-wise (spec 2.1 steps 9-13):
 *   delta = softplus(dt + dt_bias), h = exp(delta A) h + delta B u, y = C h + skip u, y *= silu(z).
 * Without y only h moves, to the same bits: how the accepted part of a draft that ran with `hold` is made up for. */
typedef struct fm_scan_args {
    float *y;         /* (T, d_inner); may alias u or z; NULL: C, skip and z are not looked at */
    size_t y_stride;
    float *const *h;  /* n_seq x (d_state, d_inner): channels fastest; read and written */
    const float *u;   /* (T, d_inner) */
    size_t u_stride;
    const float *dt;  /* (T, d_inner), before bias and softplus */
    size_t dt_stride;
    const float *dt_bias; /* (d_inner) or NULL */
    const float *A;       /* (d_state, d_inner), negative: -exp(A_log) */
    const float *B, *C;   /* (T, d_state) each */
    size_t bc_stride;
    const float *skip;    /* (d_inner): the paper's D */
    const float *z;       /* (T, d_inner) gate, or NULL for none */
    size_t z_stride;
    const fm_ragged *ragged;
    size_t d_inner, d_state; /* d_state <= FM_D_STATE_MAX */
    bool hold; /* leave h as it was */
} fm_scan_args;

typedef struct fm_kernels {
    const char *name; /* "ref" "avx2" "avx512" "avx512+vnni" "neon" ... */

    /* out (n, d) = x / sqrt(mean(x^2) + eps) * w; w (d) may be NULL (Falcon Mamba's norms on dt, B, C).  out may alias x.
     * Splits rows.  |error| <= (d / 2 + 4) epsilon |out| for any summation order of d squares. */
    void (*rmsnorm)(const fm_run *run, float *out, size_t out_stride, const float *x, size_t x_stride, const float *w, size_t n,
                    size_t d, float eps);

    /* Bytes that n packed rows of `cols` columns take; 0 on overflow. */
    size_t (*pack_x_bytes)(fm_xform form, size_t n, size_t cols);
    /* Packs x (n, cols); cols is a multiple of the form's block.  Splits rows and blocks.  The layout is this table's business;
     * row i of a pack of n rows holds the same numbers as a pack of that row alone. */
    void (*pack_x[FM_XFORM_COUNT])(const fm_run *run, void *out, const float *x, size_t x_stride, size_t n, size_t cols);

    /* Splits rows of W.  Integer sums are exact; floats combine in an order fixed by cols. */
    void (*linear[FM_DTYPE_COUNT])(const fm_run *run, const fm_linear_args *a);

    /* Splits channels.  States of sequences with no tokens in the step stay as they are. */
    void (*conv_silu)(const fm_run *run, const fm_conv_args *a);
    void (*scan)(const fm_run *run, const fm_scan_args *a);

    /* out (n, d) = softmax of each row of x; out may alias x and may be NULL; lse (n), log of the sum of exponentials, or NULL.
     * Splits rows. */
    void (*softmax)(const fm_run *run, float *out, float *lse, const float *x, size_t x_stride, size_t n, size_t d);
} fm_kernels;

/* The table for these features (base/cpu.h): reference first, then each instruction set overrides what it has. */
void fm_kernels_for(fm_kernels *out, unsigned cpu_features);

/* The fillers, one per instruction set; each compiled with its own flags and exporting nothing else. */
void fm_kernels_fill_ref(fm_kernels *k);
void fm_kernels_fill_avx2(fm_kernels *k);
void fm_kernels_fill_avx512(fm_kernels *k);
void fm_kernels_fill_avx512_vnni(fm_kernels *k);
void fm_kernels_fill_neon(fm_kernels *k);

#endif
