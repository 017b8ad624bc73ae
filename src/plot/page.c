/* page.c - what stands where; see plot.h.  A page of runs has the loss above and learning rate, batch and throughput below, all
 * over tokens; a page of sweeps has the loss over the learning rate. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plot/panel.h"

#define WIDTH        1200.0
#define LEFT         64.0
#define RIGHT        (WIDTH - 28)
#define LEGEND_TOP   44.0
#define LEGEND_ROW   22.0
#define LOSS_HEIGHT  400.0
#define SMALL_TOP    74.0 /* from one row of panels to the next */
#define SMALL        170.0
#define TEXT         0x20242e
#define FAINT        0x6a7080
#define RATE_DECADES 1000.0 /* of the largest rate: below is the begin of the warm-up */

static const uint32_t colours[FM_PLOT_RUNS_MAX] = {0x2f6fb7, 0xd9622b, 0x2f9461, 0xb0478e,
                                                   0xb8901c, 0x5f5bc4, 0x3a9ea3, 0x8a5a44};

typedef struct page {
    fm_canvas *c;
    const fm_plot_log *logs;
    size_t n;
} page;

/* ---- Ranges ---- */

typedef struct extent {
    double low, high; /* low > high: nothing */
} extent;

static void widen(extent *e, const fm_series *s, bool along_x, double least)
{
    const double *v = along_x ? s->x : s->y;
    for (size_t i = 0; i < s->n; i++) {
        if (v[i] < least) continue;
        e->low = fmin(e->low, v[i]);
        e->high = fmax(e->high, v[i]);
    }
}

static extent extent_of(const page *p, fm_plot_kind kind, bool along_x, double least)
{
    extent e = {HUGE_VAL, -HUGE_VAL};
    for (size_t i = 0; i < p->n; i++) widen(&e, &p->logs[i].s[kind], along_x, least);
    return e.low <= e.high ? e : (extent){0, 1};
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The first steps of a run from random weights would press all others flat: what lies highest is cut off. */
static fm_scale loss_scale(const page *p, const fm_scale *x)
{
    static const double cut_off = 0.03;
    double means[FM_PLOT_RUNS_MAX * FM_COLUMNS];
    fm_reduced r;
    size_t n = 0;
    extent held_out = extent_of(p, FM_PLOT_HELD_OUT, false, -HUGE_VAL);
    for (size_t i = 0; i < p->n; i++) {
        fm_reduce(&r, &p->logs[i].s[FM_PLOT_LOSS], x);
        for (size_t k = 0; k < r.n; k++) means[n++] = r.mean[k];
    }
    if (!n) return fm_scale_of(held_out.low, held_out.high, false);
    qsort(means, n, sizeof *means, ascending);
    double low = means[0];
    const double high = means[n - 1 - (size_t)((double)n * cut_off)];
    for (size_t i = 0; i < p->n; i++)
        if (p->logs[i].s[FM_PLOT_HELD_OUT].n) low = fmin(low, held_out.low);
    const double margin = (high - low) * 0.05;
    return fm_scale_of(low - margin, high + margin, false);
}

/* ---- The legend ---- */

static void put_summary(fm_str *out, const fm_plot_log *l)
{
    const fm_series *loss = &l->s[FM_PLOT_LOSS], *held_out = &l->s[FM_PLOT_HELD_OUT];
    char tokens[24];
    if (loss->n) {
        fm_scale_label(tokens, loss->x[loss->n - 1]);
        fm_str_printf(out, "%s tokens,  loss %.4f", tokens, loss->y[loss->n - 1]);
    }
    if (held_out->n) fm_str_printf(out, "%sheld-out %.4f", out->n ? ",  " : "", held_out->y[held_out->n - 1]);
    if (l->bits > 0) fm_str_printf(out, "  (%.4f bits per byte)", l->bits);
}

static void draw_entry(const page *p, size_t row, uint32_t rgb, const char *name, const char *more)
{
    const double y = LEGEND_TOP + LEGEND_ROW * (double)row, middle = y - 5;
    p->c->lines(p->c, (const fm_point[]){{LEFT, middle}, {LEFT + 26, middle}}, 2, (fm_paint){rgb, 1, 3});
    p->c->text(p->c, (fm_point){LEFT + 36, y}, (fm_text_style){14, FM_ANCHOR_LEFT, TEXT}, name);
    p->c->text(p->c, (fm_point){RIGHT, y}, (fm_text_style){13, FM_ANCHOR_RIGHT, FAINT}, more);
}

static fm_status draw_legend(const page *p, fm_error *err)
{
    fm_str more = {.a = p->logs[0].a};
    for (size_t i = 0; i < p->n; i++) {
        fm_str_reset(&more);
        put_summary(&more, &p->logs[i]);
        if (!more.failed) draw_entry(p, i, colours[i], p->logs[i].name.text, more.n ? more.p : "");
    }
    const fm_status status = fm_str_ok(&more, "a legend", err);
    fm_str_free(&more);
    return status;
}

/* ---- Pages ---- */

static void draw_panel(const page *p, const fm_panel *panel, fm_plot_kind kind, fm_look look)
{
    for (size_t i = 0; i < p->n; i++) {
        look.rgb = colours[i];
        fm_panel_series(p->c, panel, &p->logs[i].s[kind], look);
    }
}

static void draw_small(const page *p, size_t column, const fm_panel *shape, fm_plot_kind kind)
{
    const double gap = 62, width = (RIGHT - LEFT - 2 * gap) / 3;
    fm_panel panel = *shape;
    panel.box.left = LEFT + (double)column * (width + gap);
    panel.box.right = panel.box.left + width;
    fm_panel_frame(p->c, &panel);
    draw_panel(p, &panel, kind, (fm_look){.width = 1.8});
}

static fm_scale rate_scale(const page *p)
{
    const double high = extent_of(p, FM_PLOT_RATE, false, 0).high;
    const extent e = extent_of(p, FM_PLOT_RATE, false, fmax(high / RATE_DECADES, 1e-300));
    return fm_scale_of(e.low / 1.2, e.high * 1.2, e.low > 0 && e.high / e.low > 8);
}

static fm_scale from_zero(const page *p, fm_plot_kind kind)
{
    return fm_scale_of(0, extent_of(p, kind, false, 0).high * 1.12, false);
}

static void draw_runs(const page *p)
{
    const double top = LEGEND_TOP + LEGEND_ROW * (double)p->n + 34, small = top + LOSS_HEIGHT + SMALL_TOP;
    const extent steps = extent_of(p, FM_PLOT_LOSS, true, 0), held_out = extent_of(p, FM_PLOT_HELD_OUT, true, 0);
    fm_panel loss = {.box = {LEFT, top, RIGHT, top + LOSS_HEIGHT},
                     .x = fm_scale_of(0, fmax(steps.high, held_out.high), false),
                     .title = "Loss, nats per token, over tokens: lines training (band: least to most), dots held-out",
                     .x_ticks = 10,
                     .y_ticks = 8};
    loss.y = loss_scale(p, &loss.x);
    fm_panel_frame(p->c, &loss);
    draw_panel(p, &loss, FM_PLOT_LOSS, (fm_look){.width = 1.8, .band = true});
    draw_panel(p, &loss, FM_PLOT_HELD_OUT, (fm_look){.width = 1.4, .dots = true});
    fm_panel shape = {.box = {0, small, 0, small + SMALL}, .x = loss.x, .x_ticks = 4, .y_ticks = 4};
    shape.y = rate_scale(p), shape.title = "Learning rate";
    draw_small(p, 0, &shape, FM_PLOT_RATE);
    shape.y = from_zero(p, FM_PLOT_BATCH), shape.title = "Batch, windows";
    draw_small(p, 1, &shape, FM_PLOT_BATCH);
    shape.y = from_zero(p, FM_PLOT_SPEED), shape.title = "Tokens per second";
    draw_small(p, 2, &shape, FM_PLOT_SPEED);
}

/* The curves of all sweeps, in the order of the legend. */
typedef struct curves {
    const fm_series *s[2 * FM_PLOT_RUNS_MAX];
    char names[2 * FM_PLOT_RUNS_MAX][120];
    size_t n;
} curves;

static curves find_curves(const page *p)
{
    static const char *const kinds[] = {"", ", without the norms on dt, B and C"};
    curves c = {.n = 0};
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < 2; k++) {
            const fm_series *s = &p->logs[i].s[FM_PLOT_SWEEP + k];
            if (!s->n) continue;
            snprintf(c.names[c.n], sizeof c.names[0], "%s%s", p->logs[i].name.text, kinds[k]);
            c.s[c.n++] = s;
        }
    return c;
}

static void put_best(char out[64], const fm_series *s)
{
    size_t best = 0;
    char rate[24];
    for (size_t i = 1; i < s->n; i++)
        if (s->y[i] < s->y[best]) best = i;
    fm_scale_label(rate, s->x[best]);
    snprintf(out, 64, "best %.4f at %s", s->y[best], rate);
}

static void draw_sweeps(const page *p, const curves *c)
{
    const double top = LEGEND_TOP + LEGEND_ROW * (double)c->n + 34;
    extent x = {HUGE_VAL, -HUGE_VAL}, y = x;
    char best[64];
    for (size_t i = 0; i < c->n; i++) widen(&x, c->s[i], true, 0), widen(&y, c->s[i], false, -HUGE_VAL);
    const double margin = (y.high - y.low) * 0.06;
    const fm_panel panel = {.box = {LEFT, top, RIGHT, top + LOSS_HEIGHT + SMALL},
                            .x = fm_scale_of(x.low / 1.1, x.high * 1.1, true),
                            .y = fm_scale_of(y.low - margin, y.high + margin, false),
                            .title = "Loss at the end, nats per token, over the learning rate",
                            .x_ticks = 10,
                            .y_ticks = 8};
    fm_panel_frame(p->c, &panel);
    for (size_t i = 0; i < c->n; i++) {
        const uint32_t rgb = colours[i % FM_COUNT(colours)];
        fm_panel_series(p->c, &panel, c->s[i], (fm_look){.rgb = rgb, .width = 2, .dots = true});
        put_best(best, c->s[i]);
        draw_entry(p, i, rgb, c->names[i], best);
    }
}

fm_status fm_plot_draw(fm_canvas **out, const fm_plot_log *logs, size_t n, fm_canvas_open *open, fm_error *err)
{
    page p = {.logs = logs, .n = n};
    *out = NULL;
    if (n < 1 || n > FM_PLOT_RUNS_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "%zu logs: expected 1 to %d on a page", n, FM_PLOT_RUNS_MAX);
    const curves sweeps = find_curves(&p);
    const double legend = LEGEND_TOP + LEGEND_ROW * (double)(sweeps.n ? sweeps.n : n) + 34,
                 below = LOSS_HEIGHT + SMALL + (sweeps.n ? 0 : SMALL_TOP) + 40;
    FM_TRY(open(&p.c, WIDTH, legend + below, logs[0].a, err));
    fm_status status = FM_OK;
    if (sweeps.n)
        draw_sweeps(&p, &sweeps);
    else
        draw_runs(&p), status = draw_legend(&p, err);
    if (status == FM_OK)
        *out = p.c;
    else
        p.c->free(p.c);
    return status;
}

fm_status fm_plot_write(const fm_plot_log *logs, size_t n, const char *path, fm_error *err)
{
    const fm_view v = fm_view_of(path);
    const bool svg = fm_view_ends(v, ".svg");
    fm_canvas *c;
    if (!svg && !fm_view_ends(v, ".png")) return fm_fail(err, FM_ERR_ARGUMENT, "%s: a picture ends in .svg or .png", path);
    FM_TRY(fm_plot_draw(&c, logs, n, svg ? fm_canvas_svg : fm_canvas_png, err));
    const fm_status status = c->write(c, path, err);
    c->free(c);
    return status;
}
