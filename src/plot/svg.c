/* svg.c - a canvas that is text: SVG 1.1, which any browser shows and any editor can change. */
#include <string.h>

#include "base/file.h"
#include "plot/canvas.h"

typedef struct svg {
    fm_canvas c;
    fm_str out;
    unsigned clips;
    const fm_allocator *a;
} svg;

static void put_points(fm_str *out, const fm_point *p, size_t n)
{
    for (size_t i = 0; i < n; i++) fm_str_printf(out, "%s%.2f,%.2f", i ? " " : "", p[i].x, p[i].y);
}

static void lines(fm_canvas *canvas, const fm_point *p, size_t n, fm_paint paint)
{
    fm_str *out = &((svg *)canvas)->out;
    if (n < 2) return;
    fm_str_printf(out, "<polyline fill=\"none\" stroke=\"#%06x\" stroke-width=\"%.2f\"", (unsigned)paint.rgb, paint.width);
    if (paint.alpha < 1) fm_str_printf(out, " stroke-opacity=\"%.2f\"", paint.alpha);
    fm_str_puts(out, " points=\"");
    put_points(out, p, n);
    fm_str_puts(out, "\"/>\n");
}

static void fill(fm_canvas *canvas, const fm_point *p, size_t n, fm_paint paint)
{
    fm_str *out = &((svg *)canvas)->out;
    if (n < 3) return;
    fm_str_printf(out, "<polygon fill=\"#%06x\" fill-opacity=\"%.2f\" points=\"", (unsigned)paint.rgb, paint.alpha);
    put_points(out, p, n);
    fm_str_puts(out, "\"/>\n");
}

static void put_escaped(fm_str *out, const char *s)
{
    for (; *s; s++) switch (*s) {
        case '&': fm_str_puts(out, "&amp;"); break;
        case '<': fm_str_puts(out, "&lt;"); break;
        case '>': fm_str_puts(out, "&gt;"); break;
        case '"': fm_str_puts(out, "&quot;"); break;
        default: fm_str_putc(out, (unsigned char)*s < ' ' ? ' ' : *s);
        }
}

static void text(fm_canvas *canvas, fm_point at, fm_text_style style, const char *words)
{
    static const char *const anchors[] = {"start", "middle", "end"};
    fm_str *out = &((svg *)canvas)->out;
    fm_str_printf(out, "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%.1f\" fill=\"#%06x\" text-anchor=\"%s\">", at.x, at.y,
                  style.size, (unsigned)style.rgb, anchors[style.anchor]);
    put_escaped(out, words);
    fm_str_puts(out, "</text>\n");
}

static void clip(fm_canvas *canvas, const fm_box *box)
{
    svg *c = (svg *)canvas;
    if (!box) {
        fm_str_puts(&c->out, "</g>\n");
        return;
    }
    fm_str_printf(&c->out,
                  "<clipPath id=\"c%u\"><rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/></clipPath>\n"
                  "<g clip-path=\"url(#c%u)\">\n",
                  c->clips, box->left, box->top, box->right - box->left, box->bottom - box->top, c->clips);
    c->clips++;
}

static fm_status save(fm_canvas *canvas, const char *path, fm_error *err)
{
    svg *c = (svg *)canvas;
    fm_out o = {0};
    fm_str_puts(&c->out, "</svg>\n");
    FM_TRY(fm_str_ok(&c->out, "the picture", err));
    FM_TRY(fm_out_open(&o, path, c->a, err));
    fm_status status = fm_out_write(&o, c->out.p, c->out.n, err);
    if (status == FM_OK) status = fm_out_commit(&o, err);
    fm_out_abort(&o);
    return status;
}

static void release(fm_canvas *canvas)
{
    svg *c = (svg *)canvas;
    fm_str_free(&c->out);
    fm_free(c->a, c);
}

fm_status fm_canvas_svg(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err)
{
    svg *c;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&c, a, 1, sizeof *c, "a canvas", err));
    c->c = (fm_canvas){lines, fill, text, clip, save, release};
    c->out.a = c->a = a;
    fm_str_printf(&c->out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
                  "font-family=\"Inter, 'DejaVu Sans', Helvetica, Arial, sans-serif\" stroke-linejoin=\"round\" "
                  "stroke-linecap=\"round\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
                  width, height, width, height);
    *out = &c->c;
    return FM_OK;
}
