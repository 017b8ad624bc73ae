/* panel.c - see panel.h. */
#include "plot/panel.h"

#include <math.h>
#include <string.h>

#define GRID      0xe6e8ee
#define AXIS      0x8a90a0
#define LABEL     0x5a6070
#define TITLE     0x20242e
#define TEXT_SIZE 12.0
#define DOT_SIDES 20

/* What lies far outside is cut off anyway, and no reader of pictures likes huge coordinates. */
static double place(const fm_scale *s, double v)
{
    return fmin(fmax(fm_scale_at(s, v), -5), 5);
}

static double place_x(const fm_panel *p, double v)
{
    return p->box.left + place(&p->x, v) * (p->box.right - p->box.left);
}

static double place_y(const fm_panel *p, double v)
{
    return p->box.bottom - place(&p->y, v) * (p->box.bottom - p->box.top);
}

static void line(fm_canvas *c, double x0, double y0, double x1, double y1, fm_paint paint)
{
    c->lines(c, (const fm_point[]){{x0, y0}, {x1, y1}}, 2, paint);
}

void fm_panel_frame(fm_canvas *c, const fm_panel *p)
{
    const fm_paint grid = {GRID, 1, 1}, axis = {AXIS, 1, 1};
    double ticks[FM_TICKS_MAX];
    char label[24];
    size_t n = fm_scale_ticks(&p->y, p->y_ticks, ticks);
    for (size_t i = 0; i < n; i++) {
        const double y = place_y(p, ticks[i]);
        line(c, p->box.left, y, p->box.right, y, grid);
        fm_scale_label(label, ticks[i]);
        c->text(c, (fm_point){p->box.left - 8, y + TEXT_SIZE * 0.36}, (fm_text_style){TEXT_SIZE, FM_ANCHOR_RIGHT, LABEL},
                label);
    }
    n = fm_scale_ticks(&p->x, p->x_ticks, ticks);
    for (size_t i = 0; i < n; i++) {
        const double x = place_x(p, ticks[i]);
        line(c, x, p->box.bottom, x, p->box.bottom + 4, axis);
        fm_scale_label(label, ticks[i]);
        c->text(c, (fm_point){x, p->box.bottom + 18}, (fm_text_style){TEXT_SIZE, FM_ANCHOR_MIDDLE, LABEL}, label);
    }
    line(c, p->box.left, p->box.bottom, p->box.right, p->box.bottom, axis);
    c->text(c, (fm_point){p->box.left, p->box.top - 10}, (fm_text_style){TEXT_SIZE + 1, FM_ANCHOR_LEFT, TITLE}, p->title);
}

/* ---- Series ---- */

static void begin_column(fm_reduced *out, double x, double y)
{
    const size_t i = out->n++;
    out->x[i] = x;
    out->mean[i] = out->least[i] = out->most[i] = y;
}

void fm_reduce(fm_reduced *out, const fm_series *s, const fm_scale *x)
{
    size_t count = 0;
    double last = -1;
    out->n = 0;
    out->crowded = false;
    for (size_t i = 0; i < s->n; i++) {
        const double column = floor(fmin(fmax(fm_scale_at(x, s->x[i]), 0), 1) * (FM_COLUMNS - 1));
        if (column != last && out->n < FM_COLUMNS) {
            begin_column(out, s->x[i], s->y[i]);
            last = column, count = 1;
            continue;
        }
        const size_t k = out->n - 1;
        out->mean[k] += (s->y[i] - out->mean[k]) / (double)++count;
        out->x[k] += (s->x[i] - out->x[k]) / (double)count;
        out->least[k] = fmin(out->least[k], s->y[i]);
        out->most[k] = fmax(out->most[k], s->y[i]);
        out->crowded = true;
    }
}

void fm_panel_dot(fm_canvas *c, fm_point at, double radius, fm_paint paint)
{
    fm_point p[DOT_SIDES];
    for (int i = 0; i < DOT_SIDES; i++) {
        const double angle = 2 * acos(-1.0) * i / DOT_SIDES;
        p[i] = (fm_point){at.x + radius * cos(angle), at.y + radius * sin(angle)};
    }
    c->fill(c, p, DOT_SIDES, paint);
}

/* Between the least and the most of each column. */
static void draw_band(fm_canvas *c, const fm_panel *p, const fm_reduced *r, fm_paint paint)
{
    fm_point outline[2 * FM_COLUMNS];
    for (size_t i = 0; i < r->n; i++) {
        outline[i] = (fm_point){place_x(p, r->x[i]), place_y(p, r->most[i])};
        outline[2 * r->n - 1 - i] = (fm_point){outline[i].x, place_y(p, r->least[i])};
    }
    c->fill(c, outline, 2 * r->n, paint);
}

void fm_panel_series(fm_canvas *c, const fm_panel *p, const fm_series *s, fm_look look)
{
    const fm_box clip = {p->box.left - 1, p->box.top - 4, p->box.right + 5, p->box.bottom + 1};
    fm_reduced r;
    fm_point points[FM_COLUMNS];
    fm_reduce(&r, s, &p->x);
    for (size_t i = 0; i < r.n; i++) points[i] = (fm_point){place_x(p, r.x[i]), place_y(p, r.mean[i])};
    c->clip(c, &clip);
    if (look.band && r.crowded) draw_band(c, p, &r, (fm_paint){look.rgb, 0.16, 0});
    c->lines(c, points, r.n, (fm_paint){look.rgb, look.dots ? 0.55 : 1, look.width});
    for (size_t i = 0; i < r.n && (look.dots || r.n == 1); i++) {
        fm_panel_dot(c, points[i], 4.2, (fm_paint){0xffffff, 1, 0});
        fm_panel_dot(c, points[i], 3.0, (fm_paint){look.rgb, 1, 0});
    }
    c->clip(c, NULL);
}
