/* kernelcheck.h - the bench that judges every kernel table against the reference.
 *
 * A check file exports one kc_op; kernelcheck.c lists them.  Checks draw their data from `kc`, put it into guarded buffers, run
 * both tables, and report through kc_near (a derived bound) and kc_same (the same bits). */
#ifndef FM_TESTS_KERNELCHECK_H
#define FM_TESTS_KERNELCHECK_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cuda/stream.h"
#include "kernels/kernels.h"
#include "kernels/peak.h"

enum { KC_BUFFERS_MAX = 2048, KC_FAILURES_SHOWN = 10 };

typedef struct kc_buffer {
    unsigned char *map, *begin;
    size_t map_bytes, bytes;
} kc_buffer;

typedef struct kc {
    const char *op;
    fm_kernels k, ref;
    uint64_t seed, stream, draws;
    size_t n_checks, n_failed;
    double worst;                     /* largest error seen, as a fraction of its bound */
    const struct kc_machine *machine; /* with --bench */
    kc_buffer buffers[KC_BUFFERS_MAX];
    size_t n_buffers;
} kc;

typedef struct kc_op {
    const char *name;
    void (*check)(kc *t);
    void (*bench)(kc *t); /* may be NULL */
} kc_op;

/* Times every kernel of a device's table on the shapes of a model, in its own memory. */
void kc_bench_device(fm_stream *s, const fm_kernels *k, const char *only);

extern const kc_op kc_op_product; /* of training */
extern const kc_op kc_op_rmsnorm, kc_op_conv, kc_op_scan, kc_op_softmax, kc_op_linear;
extern const kc_op kc_op_norm_back, kc_op_conv_back, kc_op_scan_back, kc_op_xent, kc_op_adamw, kc_op_narrow, kc_op_sums;
extern const kc_op kc_op_many, kc_op_mix, kc_op_rows, kc_op_sample; /* a device's */

/* Memory that ends at a page nobody may touch, with a pattern before it; filled with NaN.  It lives until kc_release, which also
 * looks whether the pattern still stands. */
void *kc_bytes(kc *t, size_t bytes);
float *kc_floats(kc *t, size_t n);
void kc_release(kc *t);

/* Inputs.  NORMAL: sd 1; LARGE: sd 100; TINY: denormals; ZERO; SPECIAL: normal with a NaN, an infinity of each sign and a -0. */
typedef enum kc_kind { KC_NORMAL, KC_LARGE, KC_TINY, KC_ZERO, KC_SPECIAL, KC_KIND_COUNT } kc_kind;
void kc_fill(kc *t, float *p, size_t n, kc_kind kind);
fm_tensor kc_matrix(kc *t, fm_dtype type, size_t rows, size_t cols); /* normal numbers, as rows lie in a file */
float *kc_input(kc *t, size_t n, kc_kind kind);
float *kc_copy(kc *t, const float *from, size_t n);

/* Rows of bf16 (`half` in kernels.h): a number rounded to nearest even, and n of them as a device keeps them.  A pointer to float
 * like those of an fm_rows. */
float kc_rounded(float v);
float *kc_half(kc *t, const float *from, size_t n);

double kc_normal(kc *t);
size_t kc_below(kc *t, size_t n); /* [0, n) */

/* |got - want| <= bound; NaN meets NaN and infinities are equal.  `where` says which case, for the report. */
void kc_near(kc *t, double got, double want, double bound, const char *where);
void kc_same(kc *t, const void *a, const void *b, size_t bytes, const char *where);
void kc_true(kc *t, bool cond, const char *where);

/* Checks of a device's table: from here on buffers are also the device's, which reads them over the bus, and every call is put on
 * this queue and waited for.  NULL: the CPU again. */
void kc_use_device(fm_stream *s, fm_stream_options o);
fm_stream *kc_device(void);
fm_stream_options kc_device_options(void);
static inline bool kc_on_device(void)
{
    return kc_device() != NULL;
}

/* What kernels read beside numbers: a copy of a list, good until the next one in the same place.  A step of the sequences whose
 * rows begin at `begin` (n_seq + 1). */
enum { KC_LIST_BEGIN, KC_LIST_STATES, KC_LIST_SEEN, KC_LISTS, KC_LIST_BYTES = 1024 };
void *kc_list(int place, const void *list, size_t bytes);
fm_ragged kc_ragged(const size_t *begin, size_t n_seq);

/* Calls `call` for every part of n_parts, last part first; a device takes everything as one part. */
void kc_parts(void (*call)(void *ctx, const fm_run *run), void *ctx, unsigned n_parts);

/* The sizes that every op is tried at: 1 to 67, 100, 130, 333, 1024. */
extern size_t kc_sizes[];
extern size_t kc_n_sizes;
void kc_quick(void); /* a few of them, for runs under a tool that watches every access */
bool kc_is_quick(void);
extern const unsigned kc_part_counts[]; /* 2, 3, 5, 7 */
enum { KC_N_PART_COUNTS = 4 };

/* What one core can do, measured when --bench starts: GB/s from memory, and 10^9 operations/s by arithmetic (0: it has none). */
typedef struct kc_machine {
    fm_peaks peaks;
    double read, peak[FM_PEAK_COUNT];
} kc_machine;
void kc_machine_measure(kc_machine *m, unsigned features);

/* What a call does.  A zero is not printed. */
typedef struct kc_work {
    double
        bytes;  /* that it reads or writes once: judged against reading from memory, so more than 100 % is the cache's doing */
    double ops; /* multiplications and additions, judged against the peak of `arithmetic` */
    fm_peak_kind arithmetic;
    double others; /* operations of a sort of their own ("Gstate/s"), with `unit`; no peak to judge them by */
    const char *unit;
} kc_work;

/* Runs `call` for about a fifth of a second and prints the best time in ns, GB/s, GOP/s, and the part of the machine's peak. */
void kc_rate(kc *t, const char *what, const kc_work *work, void (*call)(void *ctx, const fm_run *run), void *ctx);
/* The same for `work` of one sort: "GB/s", "GOP/s" (in f32), or a unit of the op's own. */
void kc_time(kc *t, const char *what, double work, const char *unit, void (*call)(void *ctx, const fm_run *run), void *ctx);

#endif
