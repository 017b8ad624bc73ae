/* raster.c - lines and areas into pixels; see canvas.h.  What is drawn first becomes coverage in the mask, then colour. */
#include <math.h>
#include <stdlib.h>

#include "plot/canvas.h"

enum { CROSSINGS_MAX = 2048, SUBROWS = 4 };

typedef struct range {
    size_t begin, end;
} range;

/* Whole pixels of [low, high] inside [from, to] and below n. */
static range pixels(double low, double high, double from, double to, size_t n)
{
    low = fmax(fmax(low, from), 0.0), high = fmin(fmin(high, to), (double)n);
    if (!(low < high)) return (range){0, 0};
    return (range){(size_t)floor(low), (size_t)ceil(high)};
}

/* What was covered takes the colour, and the mask is zero again. */
static void blend(fm_raster *r, range rows, range columns, fm_paint paint)
{
    const unsigned colour[] = {paint.rgb >> 16 & 255, paint.rgb >> 8 & 255, paint.rgb & 255};
    for (size_t y = rows.begin; y < rows.end; y++)
        for (size_t x = columns.begin; x < columns.end; x++) {
            unsigned char *mask = &r->mask[y * r->width + x], *rgb = &r->rgb[3 * (y * r->width + x)];
            const double cover = *mask / 255.0 * paint.alpha;
            for (size_t i = 0; *mask && i < 3; i++)
                rgb[i] = (unsigned char)lround(rgb[i] + cover * ((double)colour[i] - rgb[i]));
            *mask = 0;
        }
}

static fm_box bounds(const fm_point *p, size_t n, double margin)
{
    fm_box b = {p[0].x, p[0].y, p[0].x, p[0].y};
    for (size_t i = 1; i < n; i++) {
        b.left = fmin(b.left, p[i].x), b.right = fmax(b.right, p[i].x);
        b.top = fmin(b.top, p[i].y), b.bottom = fmax(b.bottom, p[i].y);
    }
    return (fm_box){b.left - margin, b.top - margin, b.right + margin, b.bottom + margin};
}

static double distance(fm_point at, fm_point a, fm_point b)
{
    const double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
    const double t = length > 0 ? fmin(fmax(((at.x - a.x) * dx + (at.y - a.y) * dy) / length, 0), 1) : 0;
    return hypot(at.x - a.x - t * dx, at.y - a.y - t * dy);
}

/* A segment with round ends: a pixel is covered by how far its middle is inside. */
static void cover_segment(fm_raster *r, fm_point a, fm_point b, double width)
{
    const double half = width / 2;
    const fm_box box = bounds((const fm_point[]){a, b}, 2, half + 1);
    const range rows = pixels(box.top, box.bottom, r->clip.top, r->clip.bottom, r->height),
                columns = pixels(box.left, box.right, r->clip.left, r->clip.right, r->width);
    for (size_t y = rows.begin; y < rows.end; y++)
        for (size_t x = columns.begin; x < columns.end; x++) {
            const double inside = half + 0.5 - distance((fm_point){(double)x + 0.5, (double)y + 0.5}, a, b);
            const unsigned char cover = (unsigned char)lround(255 * fmin(fmax(inside, 0), 1));
            unsigned char *mask = &r->mask[y * r->width + x];
            if (cover > *mask) *mask = cover;
        }
}

void fm_raster_lines(fm_raster *r, const fm_point *p, size_t n, fm_paint paint)
{
    if (n < 2) return;
    const fm_box box = bounds(p, n, paint.width / 2 + 1);
    for (size_t i = 0; i + 1 < n; i++) cover_segment(r, p[i], p[i + 1], paint.width);
    blend(r, pixels(box.top, box.bottom, r->clip.top, r->clip.bottom, r->height),
          pixels(box.left, box.right, r->clip.left, r->clip.right, r->width), paint);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Where the outline crosses a horizontal line, in order. */
static size_t crossings(double *out, const fm_point *p, size_t n, double y)
{
    size_t count = 0;
    for (size_t i = 0; i < n && count < CROSSINGS_MAX; i++) {
        const fm_point a = p[i], b = p[(i + 1) % n];
        if ((a.y <= y) != (b.y <= y)) out[count++] = a.x + (y - a.y) / (b.y - a.y) * (b.x - a.x);
    }
    qsort(out, count, sizeof *out, ascending);
    return count & ~(size_t)1;
}

/* A quarter of a row's coverage between two crossings. */
static void cover_span(fm_raster *r, size_t y, double from, double to)
{
    const range columns = pixels(from, to, r->clip.left, r->clip.right, r->width);
    for (size_t x = columns.begin; x < columns.end; x++) {
        const double cover = fmin(to, (double)x + 1) - fmax(from, (double)x);
        unsigned char *mask = &r->mask[y * r->width + x];
        *mask = (unsigned char)fmin(255, *mask + lround(cover * 255.0 / SUBROWS));
    }
}

void fm_raster_fill(fm_raster *r, const fm_point *p, size_t n, fm_paint paint)
{
    double at[CROSSINGS_MAX];
    if (n < 3) return;
    const fm_box box = bounds(p, n, 0);
    const range rows = pixels(box.top, box.bottom, r->clip.top, r->clip.bottom, r->height);
    for (size_t y = rows.begin; y < rows.end; y++)
        for (int sub = 0; sub < SUBROWS; sub++) {
            const size_t count = crossings(at, p, n, (double)y + (sub + 0.5) / SUBROWS);
            for (size_t i = 0; i < count; i += 2) cover_span(r, y, at[i], at[i + 1]);
        }
    blend(r, rows, pixels(box.left, box.right, r->clip.left, r->clip.right, r->width), paint);
}
