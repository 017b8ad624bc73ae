/* png.c - a canvas of pixels, two to each unit of the page, written as PNG (ISO/IEC 15948: eight bits, RGB, no interlace). */
#include <math.h>
#include <string.h>
#include <zlib.h>

#include "base/file.h"
#include "plot/canvas.h"

#define SCALE        2.0
#define STROKE_WIDTH 0.082 /* of the size of text */

typedef struct png {
    fm_canvas c;
    fm_raster r;
    fm_point *scaled; /* (room) */
    size_t room;
    bool failed;
    const fm_allocator *a;
} png;

/* ---- The file ---- */

static void put_u32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(v >> (24 - 8 * i));
}

static fm_status put_chunk(fm_out *o, const char *name, const unsigned char *data, size_t n, fm_error *err)
{
    unsigned char head[8], tail[4];
    put_u32(head, (uint32_t)n);
    memcpy(head + 4, name, 4);
    uLong crc = crc32(crc32(0, NULL, 0), head + 4, 4);
    if (n) crc = crc32(crc, data, (uInt)n);
    put_u32(tail, (uint32_t)crc);
    FM_TRY(fm_out_write(o, head, sizeof head, err));
    if (n) FM_TRY(fm_out_write(o, data, n, err));
    return fm_out_write(o, tail, sizeof tail, err);
}

/* Rows with the filter "up": what is the same as in the row above becomes zeros. */
static void filter(unsigned char *out, const fm_raster *r)
{
    const size_t row = 3 * r->width;
    out[0] = 0; /* the first has none above */
    memcpy(out + 1, r->rgb, row);
    for (size_t y = 1; y < r->height; y++) {
        unsigned char *to = out + y * (row + 1);
        const unsigned char *from = r->rgb + y * row, *above = from - row;
        to[0] = 2;
        for (size_t i = 0; i < row; i++) to[i + 1] = (unsigned char)(from[i] - above[i]);
    }
}

static fm_status write_chunks(fm_out *o, const fm_raster *r, const unsigned char *data, size_t n, fm_error *err)
{
    unsigned char header[13] = {0};
    put_u32(header, (uint32_t)r->width);
    put_u32(header + 4, (uint32_t)r->height);
    header[8] = 8, header[9] = 2; /* bits of a sample; RGB */
    FM_TRY(fm_out_write(o, "\x89PNG\r\n\x1a\n", 8, err));
    FM_TRY(put_chunk(o, "IHDR", header, sizeof header, err));
    FM_TRY(put_chunk(o, "IDAT", data, n, err));
    FM_TRY(put_chunk(o, "IEND", NULL, 0, err));
    return fm_out_commit(o, err);
}

fm_status fm_png_write(const fm_raster *r, const char *path, const fm_allocator *a, fm_error *err)
{
    const size_t n = r->height * (3 * r->width + 1);
    uLongf packed = compressBound((uLong)n);
    unsigned char *memory;
    fm_out o = {0};
    FM_TRY(fm_alloc((void **)&memory, a, n + packed, 1, "a picture", err));
    filter(memory, r);
    fm_status status = FM_OK;
    if (compress2(memory + n, &packed, memory, (uLong)n, 9) != Z_OK)
        status = fm_fail(err, FM_ERR_MEMORY, "zlib has no memory to compress the picture");
    if (status == FM_OK) status = fm_out_open(&o, path, a, err);
    if (status == FM_OK) status = write_chunks(&o, r, memory + n, packed, err);
    fm_out_abort(&o);
    fm_free(a, memory);
    return status;
}

/* ---- The canvas ---- */

static const fm_point *scale(png *c, const fm_point *p, size_t n)
{
    if (n > c->room) {
        fm_free(c->a, c->scaled);
        c->room = 0;
        c->failed |= fm_alloc((void **)&c->scaled, c->a, n, sizeof *c->scaled, "points", NULL) != FM_OK;
        if (!c->failed) c->room = n;
    }
    for (size_t i = 0; i < n && !c->failed; i++) c->scaled[i] = (fm_point){p[i].x * SCALE, p[i].y * SCALE};
    return c->failed ? NULL : c->scaled;
}

static void lines(fm_canvas *canvas, const fm_point *p, size_t n, fm_paint paint)
{
    png *c = (png *)canvas;
    const fm_point *scaled = scale(c, p, n);
    paint.width *= SCALE;
    if (scaled) fm_raster_lines(&c->r, scaled, n, paint);
}

static void fill(fm_canvas *canvas, const fm_point *p, size_t n, fm_paint paint)
{
    png *c = (png *)canvas;
    const fm_point *scaled = scale(c, p, n);
    if (scaled) fm_raster_fill(&c->r, scaled, n, paint);
}

static void text(fm_canvas *canvas, fm_point at, fm_text_style style, const char *words)
{
    const double width = fm_font_width(words) * style.size;
    const fm_paint paint = {style.rgb, 1, style.size * STROKE_WIDTH};
    fm_stroke s;
    if (style.anchor != FM_ANCHOR_LEFT) at.x -= style.anchor == FM_ANCHOR_MIDDLE ? width / 2 : width;
    for (; *words; words++) {
        for (size_t i = 0; fm_font_stroke(*words, i, &s); i++) {
            for (size_t k = 0; k < s.n; k++) s.p[k] = (fm_point){at.x + s.p[k].x * style.size, at.y + s.p[k].y * style.size};
            lines(canvas, s.p, s.n, paint);
        }
        at.x += fm_font_advance(*words) * style.size;
    }
}

static void clip(fm_canvas *canvas, const fm_box *box)
{
    png *c = (png *)canvas;
    c->r.clip = (fm_box){0, 0, (double)c->r.width, (double)c->r.height};
    if (box) c->r.clip = (fm_box){box->left * SCALE, box->top * SCALE, box->right * SCALE, box->bottom * SCALE};
}

static fm_status save(fm_canvas *canvas, const char *path, fm_error *err)
{
    const png *c = (const png *)canvas;
    if (c->failed) return fm_fail(err, FM_ERR_MEMORY, "no memory for the points of the picture");
    return fm_png_write(&c->r, path, c->a, err);
}

static void release(fm_canvas *canvas)
{
    png *c = (png *)canvas;
    fm_free(c->a, c->scaled);
    fm_free(c->a, c->r.rgb);
    fm_free(c->a, c->r.mask);
    fm_free(c->a, c);
}

fm_status fm_canvas_png(fm_canvas **out, double width, double height, const fm_allocator *a, fm_error *err)
{
    png *c;
    *out = NULL;
    FM_TRY(fm_alloc((void **)&c, a, 1, sizeof *c, "a canvas", err));
    c->c = (fm_canvas){lines, fill, text, clip, save, release};
    c->r = (fm_raster){.width = (size_t)lround(width * SCALE), .height = (size_t)lround(height * SCALE)};
    c->a = a;
    fm_status status = fm_alloc((void **)&c->r.rgb, a, c->r.width * c->r.height, 3, "a picture", err);
    if (status == FM_OK) status = fm_alloc((void **)&c->r.mask, a, c->r.width, c->r.height, "a picture", err);
    if (status != FM_OK) {
        release(&c->c);
        return status;
    }
    memset(c->r.rgb, 255, c->r.width * c->r.height * 3);
    clip(&c->c, NULL);
    *out = &c->c;
    return FM_OK;
}
