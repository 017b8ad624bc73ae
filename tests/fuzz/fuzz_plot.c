/* fuzz_plot.c - any bytes as the log of a training, read and drawn: whatever it says, every coordinate is near the page. */
#include <stdlib.h>

#include "plot/plot.h"

/* A canvas that looks and draws nothing. */
static void see(fm_canvas *c, const fm_point *p, size_t n, fm_paint paint)
{
    (void)c, (void)paint;
    for (size_t i = 0; i < n; i++)
        if (!(p[i].x > -1e4 && p[i].x < 1e4 && p[i].y > -1e4 && p[i].y < 1e4)) abort();
}

static void see_text(fm_canvas *c, fm_point at, fm_text_style style, const char *text)
{
    (void)style, (void)text;
    see(c, &at, 1, (fm_paint){0});
}

static void see_box(fm_canvas *c, const fm_box *box)
{
    (void)c, (void)box;
}

static fm_status open_canvas(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err)
{
    static fm_canvas canvas = {see, see, see_text, see_box, NULL, NULL};
    (void)width, (void)height, (void)a, (void)err;
    *out = &canvas;
    return FM_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fm_plot_log log;
    fm_canvas *c;
    if (fm_plot_log_parse(&log, (const char *)data, n, "run/log.jsonl", NULL, NULL) != FM_OK) return 0;
    if (fm_plot_draw(&c, &log, 1, open_canvas, NULL) != FM_OK) abort();
    fm_plot_log_free(&log);
    return 0;
}
