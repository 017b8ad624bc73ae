/* kernels.h - the op table: pure maths on pointers.  No allocation, no threads, no failure.
 *
 * Every entry exists in scalar C (ref/), which is the specification; SIMD tables override entries and are judged against it by
 * tests/kernelcheck.  An entry is called by every worker with its own fm_run and computes its share, part i of n; the split never
 * changes a bit of the result, nor does the number of tokens in the call: a token's numbers depend on its own row, its sequence's
 * state and the weights alone, in an order fixed by the sizes.  (T, d) means T rows of d floats; a `_stride` counts floats from
 * one row to the next.  fm_real is float (real.h).  Only `out` may alias inputs, where said.
 *
 * `half` in a call's arguments: the rows that it names are bf16 at these pointers, and their strides count those.  Sums and
 * states stay f32, and what is written rounds to nearest even.  Only tables of a device take it, where their entry `half` says
 * so; such rows lie at multiples of 16 bytes.  `half_h`: the scan's states are bf16; the reference and a device take it. */
#ifndef FM_KERNELS_KERNELS_H
#define FM_KERNELS_KERNELS_H

#include "kernels/real.h"
#include "tensor/tensor.h"

/* Which share of a call this is.  Calls over the same number of items with the same `granule`, which is a multiple of every
 * kernel's own, give a part the same items: what it computed itself it need not wait for. */
typedef struct fm_run {
    unsigned part, n_parts;
    size_t granule;           /* 0: as fine as each kernel can */
    struct fm_stream *stream; /* tables of a device: the queue that a call is put on, as part 0 of 1; else NULL */
} fm_run;

/* [*begin, *end): this part's share of n items, cut at multiples of `granule` (>= 1), or of the run's own. */
void fm_run_range(const fm_run *run, size_t n, size_t granule, size_t *begin, size_t *end);

/* How the tokens of a step belong to sequences: sequence s owns rows begin[s] .. begin[s + 1] - 1.  The list lies where the
 * kernels read; what a launch has to know stands beside it. */
typedef struct fm_ragged {
    size_t n_seq;
    const size_t *begin;      /* (n_seq + 1) */
    size_t n_tokens, longest; /* in all, and of the longest sequence */
    const uint32_t *seen;     /* (n_seq) tokens of each sequence before the step; NULL where nobody asks (half_h does) */
    const size_t *on_host;    /* `begin` where launches can read it, or NULL; decides how work is shared */
} fm_ragged;

/* One token of each sequence. */
static inline bool fm_is_one_each(const fm_ragged *r)
{
    return r->longest == 1 && r->n_tokens == r->n_seq;
}

/* One piece of every sequence's state: `at` floats into each of a list, or into the rows of a matrix.  Neither: there is none.
 * `at` and `stride` count floats also where what lies there is bf16. */
typedef struct fm_states {
    fm_real *const *list; /* (n_seq) */
    fm_real *rows;        /* (n_seq, stride) */
    size_t stride, at;
} fm_states;

static inline bool fm_states_exist(const fm_states *s)
{
    return s->list || s->rows;
}

static inline fm_real *fm_state_of(const fm_states *s, size_t seq)
{
    return (s->list ? s->list[seq] : s->rows + seq * s->stride) + s->at;
}

/* The forms in which a product reads its input rows.  Rounding to a form is part of the product's definition (docs/numerics.md):
 *   F32     as it is; for weights F32 and F16 (widened exactly).
 *   BF16    the same for weights BF16; but the table that multiplies pairs of bf16 rounds to bf16, to nearest even.
 *   Q8_32   blocks of 32: d = max|x| / 127 (f32), q = round to nearest even(x * (1 / d)) as int8, s = sum of q.
 *   Q8_256  the same in blocks of 256, with a sum per 16 elements; for the K types, IQ4_XS and INT4_G128.
 * A block of zeros has d = 0 and q = 0; a block with NaN or Inf has d = NaN and q = 0, so that the result is NaN. */
typedef enum fm_xform { FM_X_F32, FM_X_BF16, FM_X_Q8_32, FM_X_Q8_256, FM_XFORM_COUNT } fm_xform;

fm_xform fm_xform_of(fm_dtype weights);

/* A rectangle of an input to be packed. */
typedef struct fm_pack_args {
    void *out;      /* the pack of all n rows */
    const float *x; /* (n, cols), and not only the rectangle */
    size_t x_stride;
    bool half; /* x */
    size_t n, cols;
    size_t row, row_end;      /* rows row .. row_end - 1 */
    size_t col, col_end;      /* of these columns; both multiples of FM_PACK_COLS, or the end of the row */
    struct fm_stream *stream; /* as fm_run's */
} fm_pack_args;

/* Channels are dealt out in runs of this many floats: four cache lines, a whole number of vectors of every instruction set, so
 * that only the last part meets a partial vector.  Packing takes longer runs. */
enum { FM_CHANNEL_GRANULE = 64, FM_PACK_COLS = 256 };
enum { FM_CONV_MAX = 64 };  /* largest d_conv */
enum { FM_SQUARES = 4096 }; /* floats whose squares are summed at once */

typedef struct fm_linear_args {
    float *y; /* (n, rows) out: y = x . W^T (+ bias) (+ the old y when add), in this order */
    size_t y_stride;
    const float *old; /* a device's table: what is added instead of the old y, laid out like it; NULL: the old y itself */
    const void *x;      /* n rows packed by pack_x[fm_xform_of(W->type)] of the same table */
    const fm_tensor *W; /* (rows, cols), rows as they lie in the file: no alignment beyond that of the type's fields */
    const float *bias;  /* (rows) or NULL */
    bool add;
    bool half; /* y, which then has neither bias nor add */
    size_t n;  /* tokens */
} fm_linear_args;

/* A product, f32 without bias or add, and the norms of three runs of columns of its rows (rmsnorm_three). */
typedef struct fm_linear_three_args {
    fm_linear_args product; /* y NULL: only the normed rows are wanted */
    fm_real *out;           /* (n, rows) */
    size_t out_stride;
    void *packed; /* as rmsnorm_three's */
    fm_xform form;
    size_t d[3];
    float eps;
} fm_linear_three_args;

typedef struct fm_conv_args {
    fm_real *out; /* (T, d_inner) = silu(conv(x) + bias) */
    size_t out_stride;
    fm_states state;  /* n_seq x (d_conv - 1, d_inner): the last inputs, oldest first; read and written */
    const fm_real *x; /* (T, d_inner) */
    size_t x_stride;
    const fm_real *w;    /* (d_conv, d_inner): w[d_conv - 1] meets the current token (spec 2.1 step 4) */
    const fm_real *bias; /* (d_inner) or NULL */
    const fm_ragged *ragged;
    size_t d_inner, d_conv; /* d_conv >= 1 */
    bool hold;              /* leave state as it was: a draft may be taken back */
    bool half;              /* x and out */
    void *packed;           /* where the table `packs`: the pack of out as well; else NULL */
    fm_xform form;          /* of that pack */
} fm_conv_args;

/* The product that makes x and z and the convolution of x (spec 2.1 steps 2 - 5), for a table that can do both at once. */
typedef struct fm_linear_conv_args {
    fm_linear_args product; /* W (2 d_inner, cols), neither add nor half; of y only z is written, columns d_inner and up */
    fm_conv_args conv;      /* x: not looked at */
} fm_linear_conv_args;

/* States of a channel, at most: a held scan keeps a copy on the stack. */
enum { FM_D_STATE_MAX = 4096 };

/* A scan of rows of bf16 can leave the state at every so-manyth row of the step to its backward, which walks from one to the
 * next: (rows / FM_KEPT_ROWS + 1, d_state, d_inner), the state before row FM_KEPT_ROWS i at i, where that row does not begin a
 * sequence.  So many floats; 0: not of such a shape. */
enum { FM_KEPT_ROWS = 8, FM_KEPT_STATES = 16 };
static inline size_t fm_scan_kept_floats(size_t n_tokens, size_t d_inner, size_t d_state)
{
    return d_state == FM_KEPT_STATES && d_inner % FM_CHANNEL_GRANULE == 0
               ? (n_tokens / FM_KEPT_ROWS + 1) * FM_KEPT_STATES * d_inner
               : 0;
}

/* Selective scan with everything around it that is element-wise (spec 2.1 steps 9-13):
 *   delta = softplus(dt + dt_bias), h = exp(delta A) h + delta B u, y = C h + skip u, y *= silu(z).
 * Without y only h moves, to the same bits: how the accepted part of a draft that ran with `hold` is made up for. */
typedef struct fm_scan_args {
    fm_real *y; /* (T, d_inner); may alias u or z; NULL: C, skip and z are not looked at, and nothing is packed */
    size_t y_stride;
    fm_states h;      /* n_seq x (d_state, d_inner): channels fastest; read and written */
    const fm_real *u; /* (T, d_inner) */
    size_t u_stride;
    const fm_real *dt; /* (T, d_inner), before bias and softplus */
    size_t dt_stride;
    const fm_real *dt_bias; /* (d_inner) or NULL */
    const fm_real *A;       /* (d_state, d_inner), negative: -exp(A_log) */
    const fm_real *B, *C;   /* (T, d_state) each */
    size_t bc_stride;
    const fm_real *skip; /* (d_inner): the paper's D */
    const fm_real *z;    /* (T, d_inner) gate, or NULL for none */
    size_t z_stride;
    const fm_ragged *ragged;
    size_t d_inner, d_state; /* d_state <= FM_D_STATE_MAX */
    bool hold;               /* leave h as it was */
    bool half;               /* y, u, dt and z */
    bool half_h;             /* h, which after every token, when y is made, rounds as dither.h says; never with `kept` */
    fm_real *kept;           /* fm_scan_kept_floats() of them, or NULL */
    void *packed;            /* where the table `packs`: the pack of y as well; else NULL */
    fm_xform form;           /* of that pack */
    bool alone;              /* the pack is all that is wanted: whether y is written is the table's business */
} fm_scan_args;

/* A layer from x_proj to the input of its last product (spec 2.1 steps 7 - 13), for a table that takes fewer launches for it. */
typedef struct fm_select_args {
    fm_linear_args x_proj;    /* y: room for (n, dt_rank + 2 d_state) that follow one another */
    const fm_tensor *dt_proj; /* (d_inner, dt_rank) */
    bool norms;               /* of dt, B and C, with eps */
    float eps;
    fm_scan_args scan; /* dt, B, C: not looked at; of y only the pack is wanted */
} fm_select_args;

/* A layer from its convolution to the input of its last product (spec 2.1 steps 4 - 13), for a table that can do it at once. */
typedef struct fm_mix_args {
    fm_conv_args conv;                 /* out, packed: not looked at */
    fm_scan_args scan;                 /* y, u, dt, B, C, packed: not looked at */
    const fm_tensor *x_proj, *dt_proj; /* (dt_rank + 2 d_state, d_inner), (d_inner, dt_rank) */
    bool norms;                        /* of dt, B and C, with eps */
    float eps;
    fm_xform out_form;
    void *packed; /* out: the pack of the gated output (n, d_inner) for a product of out_form */
} fm_mix_args;

/* ---- Backward (spec falcon-mamba.md 8): g_v is the gradient of the loss with respect to v.  Gradients of weights are added to
 * what is there; gradients of activations are written.  Sums over tokens run in their order and sums over channels in the order
 * of blocks of FM_CHANNEL_GRANULE, so that the split never changes a bit. */

typedef struct fm_linear_gx_args {
    float *g_x; /* (n, cols) */
    size_t g_x_stride;
    const float *g_y; /* (n, rows) */
    size_t g_y_stride;
    const fm_tensor *W; /* (rows, cols) */
    bool add;
    size_t n;
    bool half_x, half_y; /* g_x, g_y */
} fm_linear_gx_args;

typedef struct fm_linear_gw_args {
    float *g_W;       /* (rows, cols), dense */
    const float *g_y; /* (n, rows) */
    size_t g_y_stride;
    const float *x; /* (n, cols) */
    size_t x_stride;
    size_t n, rows, cols;
    bool same_g_y;       /* linear_gx of the same g_y was the call before this one: what it made of it may be used again */
    bool half_x, half_y; /* x, g_y */
} fm_linear_gw_args;

typedef struct fm_rmsnorm_back_args {
    fm_real *g_x; /* (n, d): written, or added to when `add` (the residual stream) */
    size_t g_x_stride;
    fm_real *rho;     /* (n) out: 1 / rms of each row, for rmsnorm_gw */
    const fm_real *g; /* (n, d) gradient of the norm's output */
    size_t g_stride;
    const fm_real *x; /* (n, d) the norm's input */
    size_t x_stride;
    const fm_real *w; /* (d) or NULL */
    size_t n, d;
    float eps;
    bool add;
    bool half;     /* g */
    fm_real *g_w;  /* (d), a device's table: added to at once; else NULL, and rmsnorm_gw does it */
    void *rounded; /* likewise: (n, d) as bf16, the new g_x once more; or NULL */
} fm_rmsnorm_back_args;

typedef struct fm_conv_back_args {
    fm_real *g_x; /* (T, d_inner) */
    size_t g_x_stride;
    fm_real *g_w, *g_bias; /* (d_conv, d_inner), (d_inner) or NULL: added to */
    fm_states g_state;     /* n_seq x (d_conv - 1, d_inner), or none: in, after the step; out, before it */
    const fm_real *g;      /* (T, d_inner) gradient of silu(conv(x) + bias) */
    size_t g_stride;
    fm_states state; /* windows before the step; none: zeros */
    const fm_real *x;
    size_t x_stride;
    const fm_real *w, *bias; /* as fm_conv_args */
    const fm_ragged *ragged;
    size_t d_inner, d_conv;
    bool half; /* g_x, g and x */
} fm_conv_back_args;

typedef struct fm_scan_back_args {
    fm_real *g_u, *g_dt, *g_z; /* (T, d_inner) each; g_dt is of dt before bias and softplus; g_z NULL without a gate */
    size_t g_u_stride, g_dt_stride, g_z_stride;
    fm_real *g_bc_parts; /* (blocks, T, 2 d_state): each block of FM_CHANNEL_GRANULE channels' part of g_B | g_C */
    fm_real *g_A, *g_dt_bias, *g_skip; /* (d_state, d_inner), (d_inner) or NULL, (d_inner): added to */
    fm_states g_h;                     /* n_seq x (d_state, d_inner), or none: in, of the last state; out, of the first */
    const fm_real *g;                  /* (T, d_inner) gradient of the gated output */
    size_t g_stride;
    fm_states h;                                            /* states before the step; none: zeros */
    const fm_real *u, *dt, *dt_bias, *A, *B, *C, *skip, *z; /* as fm_scan_args */
    size_t u_stride, dt_stride, bc_stride, z_stride;
    const fm_ragged *ragged;
    size_t d_inner, d_state;
    fm_real *scratch;    /* scan_back_floats(), this worker's own */
    bool half;           /* g_u, g_dt, g_z, g, u, dt and z */
    const fm_real *kept; /* as the scan left it, or NULL: the states are worked out again */
} fm_scan_back_args;

/* out (m, n) = (out +) a b, all in f32: the gradients of a product's input (a = g_y, b = W) and of its weights (a = g_y turned,
 * b = x).  The sum runs over k in an order fixed by k alone. */
typedef struct fm_product_args {
    fm_real *out; /* (m, n) */
    size_t out_stride;
    const fm_real *a; /* (m, k), or (k, m) when `turned` */
    size_t a_stride;
    const fm_real *b; /* (k, n) */
    size_t b_stride;
    size_t m, n, k;
    bool turned, add;
    fm_real *scratch; /* product_floats(m), this worker's own */
} fm_product_args;

/* Cross entropy of one row of logits each (spec 8; training.md 1.2 for z). */
typedef struct fm_xent_args {
    fm_real *logits;       /* (n, vocab): in; out, the gradient scale * d(loss) */
    fm_real *loss;         /* (n) out: lse - logit of the target + z lse^2; 0 for ignored rows */
    const int32_t *target; /* (n); negative: ignored, no gradient */
    size_t n, vocab;
    float scale, z;
    bool half; /* logits and gradient are rows of bf16: a device's table; vocab % 8 == 0 */
} fm_xent_args;

/* Dropout: out = (out +) x kept / (1 - p), where value i of row r is kept with probability 1 - p by word i % 4 of
 * fm_rng_words(seed, stream, (first_row + r) * ceil(d / 4) + i / 4): a function of its place, whatever the split or the batch. */
typedef struct fm_dropout_args {
    fm_real *out; /* (n, d); may be x */
    size_t out_stride;
    const fm_real *x;
    size_t x_stride;
    size_t n, d;
    float p;
    uint64_t seed, stream, first_row;
    bool add;
} fm_dropout_args;

/* AdamW (Loshchilov & Hutter 2019; decay is decoupled): m and v are the moving means of g and g^2, corrected for their zero begin
 * by c1 = 1 / (1 - beta1^t) and c2 = 1 / (1 - beta2^t). */
typedef struct fm_adamw_args {
    fm_real *w, *m, *v; /* (n) each */
    const fm_real *g;   /* (n) */
    size_t n;
    float clip; /* factor on g: 1, or less where the norm of all gradients is clipped */
    float lr, beta1, beta2, eps, decay, c1, c2;
} fm_adamw_args;

/* Masters as bf16: to nearest, or up with the probability of the part that is cut off, so that the mean is the value itself.  The
 * chance of value i is half i % 2 of word i % FM_NARROW_DRAW / 2 of fm_rng_words(seed, stream, i / FM_NARROW_DRAW). */
enum { FM_NARROW_DRAW = 8 };

typedef struct fm_narrow_args {
    uint16_t *out;    /* (n) */
    const fm_real *w; /* (n) */
    size_t n;
    bool by_chance;
    uint64_t seed, stream;
} fm_narrow_args;

typedef struct fm_kernels {
    const char *name; /* "ref" "avx2" "avx512" "avx512+vnni" "avx512+vnni+bf16" "avx512+vnni+amx" "neon" ... */

    /* out (n, d) = x / sqrt(mean(x^2) + eps) * w; w (d) may be NULL (Falcon Mamba's norms on dt, B, C).  out may alias x.
     * Splits rows.  |error| <= (d / 2 + 4) epsilon |out| for any summation order of d squares. */
    void (*rmsnorm)(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const fm_real *w,
                    size_t n, size_t d, float eps);

    /* Bytes that n packed rows of `cols` columns take; 0 on overflow. */
    size_t (*pack_x_bytes)(fm_xform form, size_t n, size_t cols);
    /* Packs a rectangle of x; cols is a multiple of the form's block.  The layout is this table's business; row i of a pack of n
     * rows holds the same numbers as a pack of that row alone. */
    void (*pack_x[FM_XFORM_COUNT])(const fm_pack_args *a);

    /* Splits rows of W.  Integer sums are exact; floats combine in an order fixed by cols. */
    void (*linear[FM_DTYPE_COUNT])(const fm_run *run, const fm_linear_args *a);

    /* Splits channels.  States of sequences with no tokens in the step stay as they are. */
    void (*conv_silu)(const fm_run *run, const fm_conv_args *a);
    void (*scan)(const fm_run *run, const fm_scan_args *a);

    /* out (n, d) = softmax of each row of x; out may alias x and may be NULL; lse (n), log of the sum of exponentials, or NULL.
     * Splits rows. */
    void (*softmax)(const fm_run *run, fm_real *out, fm_real *lse, const fm_real *x, size_t x_stride, size_t n, size_t d);

    /* Splits rows of out.  |error| <= (k + 2) epsilon times the sum of magnitudes, for any order of the sum. */
    void (*product)(const fm_run *run, const fm_product_args *a);
    size_t (*product_floats)(size_t m);

    /* Backward.  Splits rows. */
    void (*rmsnorm_back)(const fm_run *run, const fm_rmsnorm_back_args *a);
    /* g_w (d) += sum over rows of g x rho.  Splits columns. */
    void (*rmsnorm_gw)(const fm_run *run, fm_real *g_w, const fm_rmsnorm_back_args *a);
    void (*conv_back)(const fm_run *run, const fm_conv_back_args *a); /* splits channels */
    /* Walks chunks from the last to the first, each replayed from a state kept at its begin: never inverts a decay.  Scratch is
     * for a step of so many tokens, in any sequences.  Splits channels in blocks of FM_CHANNEL_GRANULE. */
    void (*scan_back)(const fm_run *run, const fm_scan_back_args *a);
    size_t (*scan_back_floats)(size_t n_tokens, size_t d_inner, size_t d_state);
    void (*xent)(const fm_run *run, const fm_xent_args *a); /* splits rows */
    /* out (n, d) = sum of n_parts matrices (n, d) in their order.  Splits rows. */
    void (*sum_parts)(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *parts, size_t n_parts, size_t n,
                      size_t d);
    /* g_b (d) += sum over rows of g.  Splits columns. */
    void (*sum_rows)(const fm_run *run, fm_real *g_b, const fm_real *g, size_t g_stride, size_t n, size_t d);
    void (*dropout)(const fm_run *run, const fm_dropout_args *a); /* splits rows */
    /* w -= lr (decay w + c1 m / (sqrt(c2 v) + eps)) after m and v have taken clip g.  Splits elements. */
    void (*adamw)(const fm_run *run, const fm_adamw_args *a);
    void (*narrow)(const fm_run *run, const fm_narrow_args *a); /* splits elements; the same bits in every table */
    /* sums[i] = sum in double of the squares of x[i * FM_SQUARES ..] (at most FM_SQUARES of them); splits the sums. */
    void (*squares)(const fm_run *run, double *sums, const fm_real *x, size_t n);
    /* Rows.  out (n, d) = rows ids[i] of a table of any type, decoded; rows index[i] of x, or its first n when index is NULL.
     * They split rows. */
    void (*embed)(const fm_run *run, float *out, size_t out_stride, const fm_tensor *table, const int32_t *ids, size_t n);
    void (*gather)(const fm_run *run, fm_real *out, size_t out_stride, const fm_real *x, size_t x_stride, const size_t *index,
                   size_t n, size_t d);
    /* The same `floats` of each sequence's memory, from one place to another.  Splits floats. */
    void (*copy_states)(const fm_run *run, const fm_states *to, const fm_states *from, size_t n_seq, size_t floats);
    /* g_E (vocab, d) += rows of g (n, d) at their ids, in their order.  Splits columns. */
    void (*embed_back)(const fm_run *run, fm_real *g_E, const fm_real *g, size_t g_stride, const int32_t *ids, size_t n,
                       size_t d);
    /* A table of decays and its gradient: A (n) = -exp(w); g (n) *= A.  They split elements. */
    void (*decays)(const fm_run *run, fm_real *A, const fm_real *w, size_t n);
    void (*decays_back)(const fm_run *run, fm_real *g, const fm_real *A, size_t n);
    /* The products of a backward on a device; NULL on the CPU, which makes them of `product`: g_x (n, cols) = g_y (n, rows) W,
     * added when `add`; g_W (rows, cols) += g_y^T x.  Splits rows of the output. */
    void (*linear_gx)(const fm_run *run, const fm_linear_gx_args *a);
    void (*linear_gw)(const fm_run *run, const fm_linear_gw_args *a);
    /* out (rows, cols) = W as bf16, row behind row: a device's products of many tokens with it give the bits of those with W. */
    void (*round)(const fm_run *run, void *out, const fm_tensor *W);
    /* out (cols, rows) = W transposed, as f32.  Splits rows of W. */
    void (*transpose)(const fm_run *run, float *out, size_t out_stride, const fm_tensor *W);
    /* Whether rmsnorm_pack, conv_silu and scan of n rows write packs of this form themselves, which saves reading the rows again:
     * the bits of pack_x.  NULL: they never do.  `half`: whether rows of bf16 that follow one another without a gap are such a
     * pack.  Where it says yes, that memory holds no other pack any more. */
    bool (*packs)(const fm_run *run, fm_xform form, bool half, const void *packed, size_t n, size_t cols);
    /* Whether rows of d channels around products of this form are to be bf16 in a step of n tokens (`half` above).
     * NULL: never. */
    bool (*half)(const fm_run *run, fm_xform form, size_t n, size_t d);
    /* rmsnorm of rows of which only the pack, of this form, is wanted; where the table packs.  A device may leave it to the
     * product that reads the pack: x stays as it is until that was called. */
    void (*rmsnorm_pack)(const fm_run *run, fm_xform form, void *packed, const float *x, size_t x_stride, const float *w,
                         size_t n, size_t d, float eps);
    /* rmsnorm without weights of three runs of columns that follow one another, d[0], d[1] and d[2] wide, at once: the bits of
     * three calls.  NULL: they are three calls.  packed: where the table packs, the pack of the first run as well; else NULL. */
    void (*rmsnorm_three)(const fm_run *run, float *out, size_t out_stride, fm_xform form, void *packed, const float *x,
                          size_t x_stride, const size_t d[3], size_t n, float eps);
    /* A product and rmsnorm_three at once, where that is one thing for `n` rows and this W: then linear_three has the bits of
     * both calls.  NULL: it never is. */
    bool (*has_three)(const fm_run *run, const fm_tensor *W, size_t n, const size_t d[3]);
    void (*linear_three)(const fm_run *run, const fm_linear_three_args *a);
    /* All of fm_mix_args, to the bits of the entries that it stands for; false: not in a step like this, and nothing was done.
     * NULL: never. */
    bool (*mix)(const fm_run *run, const fm_mix_args *a);
    /* All of fm_select_args, likewise. */
    bool (*select)(const fm_run *run, const fm_select_args *a);
    /* All of fm_linear_conv_args, likewise.  It takes no step that mix takes. */
    bool (*linear_conv)(const fm_run *run, const fm_linear_conv_args *a);
} fm_kernels;

/* The table for these features (base/cpu.h): reference first, then each instruction set overrides what it has. */
void fm_kernels_for(fm_kernels *out, unsigned cpu_features);

/* The fillers, one per instruction set; each compiled with its own flags and exporting nothing else. */
void fm_kernels_fill_ref(fm_kernels *k);
void fm_kernels_fill_avx2(fm_kernels *k);
void fm_kernels_fill_avx512(fm_kernels *k);
void fm_kernels_fill_avx512_vnni(fm_kernels *k);
void fm_kernels_fill_avx512_bf16(fm_kernels *k);
void fm_kernels_fill_neon(fm_kernels *k);

#endif
