/* panel.h - one pair of axes on a page: scales, ticks, and series reduced to what can be seen. */
#ifndef FM_PLOT_PANEL_H
#define FM_PLOT_PANEL_H

#include "plot/canvas.h"
#include "plot/plot.h"

/* ---- Scales (scale.c) ---- */

typedef struct fm_scale {
    double low, high; /* low < high, both finite; positive when log */
    bool log;
} fm_scale;

enum { FM_TICKS_MAX = 24 };

/* Wide enough to be drawn, whatever the values. */
fm_scale fm_scale_of(double low, double high, bool log);
double fm_scale_at(const fm_scale *s, double v); /* 0 at low, 1 at high */
/* About `want` round numbers, ascending; a logarithmic scale gets its decades, and 2 and 5 where these are few. */
size_t fm_scale_ticks(const fm_scale *s, size_t want, double out[FM_TICKS_MAX]);
/* "2.5M", "0.04", "2e-4". */
void fm_scale_label(char out[24], double v);

/* ---- Panels ---- */

typedef struct fm_panel {
    fm_box box; /* of the axes; labels stand left of it and below, the title above */
    fm_scale x, y;
    const char *title;
    size_t x_ticks, y_ticks;
} fm_panel;

enum { FM_COLUMNS = 560 }; /* of a series, at most: more cannot be told apart */

/* A series by columns of the panel: of the points of each, the mean, the least and the most. */
typedef struct fm_reduced {
    double x[FM_COLUMNS], mean[FM_COLUMNS], least[FM_COLUMNS], most[FM_COLUMNS];
    size_t n;
    bool crowded; /* a column has several points */
} fm_reduced;

void fm_reduce(fm_reduced *out, const fm_series *s, const fm_scale *x);

typedef struct fm_look {
    uint32_t rgb;
    double width;
    bool band, dots;
} fm_look;

void fm_panel_frame(fm_canvas *c, const fm_panel *p);
void fm_panel_series(fm_canvas *c, const fm_panel *p, const fm_series *s, fm_look look);
void fm_panel_dot(fm_canvas *c, fm_point at, double radius, fm_paint paint);

#endif
