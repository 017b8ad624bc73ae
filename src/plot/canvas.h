/* canvas.h - what a page is drawn on: lines, areas and text, kept as SVG or painted into the pixels of a PNG.
 *
 * Units are the page's, y going down.  Nothing drawn fails: a canvas that has no memory says so when it is written. */
#ifndef FM_PLOT_CANVAS_H
#define FM_PLOT_CANVAS_H

#include "base/str.h"

typedef struct fm_point {
    double x, y;
} fm_point;

typedef struct fm_box {
    double left, top, right, bottom;
} fm_box;

typedef struct fm_paint {
    uint32_t rgb;
    double alpha; /* 0 .. 1 */
    double width; /* of lines */
} fm_paint;

typedef enum fm_anchor { FM_ANCHOR_LEFT, FM_ANCHOR_MIDDLE, FM_ANCHOR_RIGHT } fm_anchor;

typedef struct fm_text_style {
    double size;
    fm_anchor anchor;
    uint32_t rgb;
} fm_text_style;

typedef struct fm_canvas fm_canvas;
struct fm_canvas {
    void (*lines)(fm_canvas *c, const fm_point *p, size_t n, fm_paint paint);       /* one line through n points */
    void (*fill)(fm_canvas *c, const fm_point *p, size_t n, fm_paint paint);        /* the area inside n points */
    void (*text)(fm_canvas *c, fm_point at, fm_text_style style, const char *text); /* `at` is on the base line */
    void (*clip)(fm_canvas *c, const fm_box *box);                                  /* draw only inside, until NULL comes */
    fm_status (*write)(fm_canvas *c, const char *path, fm_error *err);              /* beside its place, then renamed */
    void (*free)(fm_canvas *c);
};

typedef fm_status fm_canvas_open(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err);
fm_status fm_canvas_svg(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err);
fm_status fm_canvas_png(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err);

/* ---- What is drawn where there are no fonts (font.c): letters as strokes, in units of the size of the text ---- */

enum { FM_STROKE_POINTS_MAX = 160 };

typedef struct fm_stroke {
    fm_point p[FM_STROKE_POINTS_MAX]; /* from the begin of the base line */
    size_t n;
} fm_stroke;

/* How far a letter moves the next one; letters beyond ASCII are drawn as '?'. */
double fm_font_advance(char letter);
/* Stroke i of a letter; false when it has no more. */
bool fm_font_stroke(char letter, size_t i, fm_stroke *out);
double fm_font_width(const char *text);

/* ---- Pixels (raster.c) ---- */

typedef struct fm_raster {
    size_t width, height;
    unsigned char *rgb;  /* (height, width, 3) */
    unsigned char *mask; /* (height, width) coverage of what is being drawn; zero between drawings */
    fm_box clip;         /* in pixels */
} fm_raster;

/* Points in pixels; anti-aliased.  A line covers a pixel once, however often it passes. */
void fm_raster_lines(fm_raster *r, const fm_point *p, size_t n, fm_paint paint);
void fm_raster_fill(fm_raster *r, const fm_point *p, size_t n, fm_paint paint);

/* ---- PNG (png.c) ---- */

fm_status fm_png_write(const fm_raster *r, const char *path, const fm_allocator *a, fm_error *err);

#endif
