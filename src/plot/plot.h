/* plot.h - pictures of training: logs of runs read from JSON lines, drawn on one page, SVG or PNG. */
#ifndef FM_PLOT_PLOT_H
#define FM_PLOT_PLOT_H

#include "plot/canvas.h"

#define FM_PLOT_RUNS_MAX   8
#define FM_PLOT_POINTS_MAX ((size_t)1 << 24) /* of one series */
#define FM_PLOT_VALUE_MAX  1e30              /* larger values are left out */

/* What is drawn over tokens. */
typedef enum fm_plot_kind {
    FM_PLOT_LOSS,
    FM_PLOT_HELD_OUT,
    FM_PLOT_RATE,
    FM_PLOT_BATCH,
    FM_PLOT_SPEED,
    FM_PLOT_SWEEP,       /* final loss over learning rate: `fmamba train --sweep` */
    FM_PLOT_SWEEP_PLAIN, /* the same without the norms on dt, B, C */
    FM_PLOT_KINDS
} fm_plot_kind;

typedef struct fm_series {
    double *x, *y; /* (n), x ascending but for sweeps; all finite */
    size_t n, cap;
} fm_series;

typedef struct fm_plot_log {
    fm_quote name;
    fm_series s[FM_PLOT_KINDS];
    double bits;                  /* bits per byte of the last held-out text; 0: unknown */
    size_t n_damaged, at_damaged; /* lines that are no JSON object or hold values of another type, and the first of them */
    const char *why_damaged;      /* a fragment */
    const fm_allocator *a;
} fm_plot_log;

/* Reads a log, or the log.jsonl of a folder.  Damaged lines are counted and left out, as are values that are no numbers.  Where a
 * log goes back (a run that was killed and went on from a checkpoint) the later lines count.
 * Errors  FM_ERR_IO, FM_ERR_FORMAT (nothing in it can be drawn), FM_ERR_LIMIT, FM_ERR_MEMORY. */
fm_status fm_plot_log_read(fm_plot_log *out, const char *path, const fm_allocator *a, fm_error *err);
/* The same of n bytes; `path` is for the name and for errors. */
fm_status fm_plot_log_parse(fm_plot_log *out, const char *text, size_t n, const char *path, const fm_allocator *a,
                            fm_error *err);
void fm_plot_log_free(fm_plot_log *l);

/* Draws 1 .. FM_PLOT_RUNS_MAX logs on a canvas that it opens. */
fm_status fm_plot_draw(fm_canvas **out, const fm_plot_log *logs, size_t n, fm_canvas_open *open, fm_error *err);
/* Draws and writes them; the ending of the path says how: .svg or .png. */
fm_status fm_plot_write(const fm_plot_log *logs, size_t n, const char *path, fm_error *err);

#endif
