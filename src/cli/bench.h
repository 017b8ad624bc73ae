/* bench.h - what the parts of "fmamba bench" share: a row, its rounds, and what else is measured in each of them.
 *
 * The speed of memory wanders by tens of percent within minutes, so only what was measured side by side may be compared: in each
 * round of a row come the machine (--roofline), fmamba, the peer (--peer), and ratios are taken round by round. */
#ifndef FM_CLI_BENCH_H
#define FM_CLI_BENCH_H

#include "base/pool.h"
#include "cli/common.h"
#include "kernels/peak.h"

typedef struct fm_bench_test {
    bool prefill;         /* append `length` tokens at once; else one by one */
    size_t length, batch; /* in `batch` sequences at once */
} fm_bench_test;

/* Median, least and most of the rounds. */
typedef struct fm_bench_spread {
    double median, min, max;
} fm_bench_spread;

/* Sorts v (n). */
fm_bench_spread fm_bench_spread_of(double *v, size_t n);

/* ---- Another program (bench_peer.c) ---- */

typedef struct fm_bench_peer fm_bench_peer;

/* Of --peer, --peer-batched, --peer-timeout; *out is NULL when neither is given.  `model` is the file it is to run. */
fm_status fm_bench_peer_open(fm_bench_peer **out, const fm_cli *c, const char *model, unsigned threads, fm_error *err);
void fm_bench_peer_free(fm_bench_peer *p);
bool fm_bench_peer_takes(const fm_bench_peer *p, const fm_bench_test *t); /* false: no command for so many sequences */
/* Runs it once: tokens per second of all sequences together. */
fm_status fm_bench_peer_run(fm_bench_peer *p, const fm_bench_test *t, double *rate, fm_error *err);

/* ---- The machine (bench_roofline.c) ---- */

typedef struct fm_bench_roofline fm_bench_roofline;

/* What the machine does at this moment, all threads together: bytes/s and operations/s, 0 where it has no such thing. */
typedef struct fm_bench_machine {
    double read;
    double peak[FM_PEAK_COUNT];
} fm_bench_machine;

/* Operations a second of one kind of arithmetic, all threads of the pool together; 0 where the machine has none. */
double fm_bench_peak_rate(fm_pool *pool, const fm_peaks *peaks, fm_peak_kind kind);

typedef struct fm_bench_limit {
    double rate;    /* tokens/s */
    const char *by; /* "memory", "int8" ... */
} fm_bench_limit;

/* `s` says with how many threads and which kernels.  Takes the memory it reads: several times the last-level cache. */
fm_status fm_bench_roofline_open(fm_bench_roofline **out, const fm_cli *c, const fm_model *m, const fm_session *s,
                                 fm_error *err);
void fm_bench_roofline_free(fm_bench_roofline *r);
fm_bench_machine fm_bench_roofline_measure(fm_bench_roofline *r);
/* Bytes/s of reading the model's file as it is mapped; 0 when it is none, or so small that it lies in the cache. */
fm_status fm_bench_roofline_mapped(fm_bench_roofline *r, const char *path, double *read, fm_error *err);
const fm_peaks *fm_bench_roofline_peaks(const fm_bench_roofline *r); /* NULL: it measures a GPU */
/* What a test can reach at most on such a machine. */
fm_bench_limit fm_bench_roofline_limit(const fm_bench_roofline *r, const fm_bench_machine *machine, const fm_bench_test *t);

/* ---- Printing (bench_rows.c) ---- */

typedef struct fm_bench_row {
    fm_bench_test test;
    fm_bench_spread ours, peer, ratio; /* peer, ratio: median 0 when there was none */
    fm_bench_spread limit, reached;    /* tokens/s, fraction; median 0 without --roofline */
    const char *limited_by;
    fm_bench_machine machine; /* medians of the row's rounds */
} fm_bench_row;

typedef struct fm_bench_rows {
    const fm_cli *c;
    const fm_model *m;
    const fm_session *s;
    bool has_peer;
    const fm_bench_roofline *roofline; /* NULL: none */
    bool json, csv;
    fm_str out; /* JSON, until the end */
    fm_jsonw w;
} fm_bench_rows;

/* What all rows share, with the machine (mapped: bytes/s of reading the file as it is mapped, 0 not measured). */
void fm_bench_rows_begin(fm_bench_rows *r, const fm_bench_machine *machine, double mapped);
void fm_bench_rows_put(fm_bench_rows *r, const fm_bench_row *row); /* at once, but for JSON */
int fm_bench_rows_end(fm_bench_rows *r);                           /* an exit code */

#endif
