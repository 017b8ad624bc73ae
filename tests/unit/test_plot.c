/* test_plot.c - logs of training as pictures: damaged and absurd logs, scales, letters, and a PNG that is right in every part. */
#include <math.h>
#include <stdio.h>
#include <zlib.h>

#include "base/file.h"
#include "plot/panel.h"
#include "testing.h"

static fm_status read_log(fm_plot_log *l, const char *text, fm_error *err)
{
    test_folder f = test_folder_make();
    char path[300];
    snprintf(path, sizeof path, "%s/some run.jsonl", f.path);
    assert_int_equal(fm_file_write(f.path, "some run.jsonl", fm_view_of(text), NULL, err), FM_OK);
    const fm_status status = fm_plot_log_read(l, path, NULL, err);
    test_folder_remove(&f);
    return status;
}

static void a_log_is_read(void **state)
{
    (void)state;
    fm_plot_log l;
    fm_error err = {0};
    assert_int_equal(read_log(&l,
                              "{\"step\": 1, \"tokens\": 10, \"loss\": 5, \"rate\": 0.1, \"batch\": 2, \"tok_s\": 7}\n\n"
                              "{\"step\": 1, \"tokens\": 10, \"val_loss\": 6, \"bits_per_byte\": 2.5}\n"
                              "{\"step\": 2, \"tokens\": 20, \"loss\": 4}\n{\"step\": 3, \"tokens\": 30, \"loss\": 3}\n"
                              "{\"step\": 2, \"tokens\": 20, \"loss\": 4.5, \"what\": [{}]}",
                              &err),
                     FM_OK);
    assert_string_equal(l.name.text, "some run");
    assert_int_equal(l.n_damaged, 0);
    assert_int_equal(l.s[FM_PLOT_LOSS].n, 2); /* the second step, and what followed it, was done again */
    assert_true(l.s[FM_PLOT_LOSS].x[1] == 20 && l.s[FM_PLOT_LOSS].y[1] == 4.5);
    assert_int_equal(l.s[FM_PLOT_HELD_OUT].n, 1);
    assert_int_equal(l.s[FM_PLOT_SPEED].n, 1);
    assert_true(l.bits == 2.5);
    fm_plot_log_free(&l);
}

/* Cut off, of another type, not finite, absurdly large: left out, and the first damaged line is known. */
static void damage_is_left_out_and_named(void **state)
{
    (void)state;
    fm_plot_log l;
    fm_error err = {0};
    assert_int_equal(
        read_log(&l,
                 "{\"tokens\": 10, \"loss\": 5}\n{\"tokens\": 20, \"loss\": null}\n{\"tokens\": 30, \"loss\": 1e300}\n"
                 "{\"tokens\": 40, \"loss\": \"five\"}\n{\"tokens\": -50, \"loss\": 5}\nnonsense\n"
                 "{\"tokens\": 60, \"loss\": 1e999}\n{\"tokens\": 70, \"loss\": 2}\n{\"tokens\": 80, \"lo",
                 &err),
        FM_OK);
    assert_int_equal(l.s[FM_PLOT_LOSS].n, 2);
    assert_true(l.s[FM_PLOT_LOSS].x[1] == 70);
    assert_int_equal(l.at_damaged, 4);
    assert_int_equal(l.n_damaged, 4);
    fm_plot_log_free(&l);
    assert_int_equal(read_log(&l, "nonsense\n", &err), FM_ERR_FORMAT);
    assert_non_null(strstr(err.text, "line 1"));
    assert_int_equal(read_log(&l, "", &err), FM_ERR_FORMAT);
}

static void ticks_are_round_and_inside(void **state)
{
    (void)state;
    static const struct {
        double low, high;
        bool log;
    } ranges[] = {{0, 1, false},         {2.4, 3.1, false},     {0, 0, false},      {5, 5, false},     {-1e30, 1e30, false},
                  {1e-30, 2e-30, false}, {1, 1 + 1e-12, false}, {1e-5, 1e-2, true}, {3, 4, true},      {0, 0, true},
                  {1e-30, 1e30, true},   {-7, -7, false},       {7, 7, true},       {0, 29.6e6, false}};
    double ticks[FM_TICKS_MAX];
    char label[24];
    for (size_t i = 0; i < FM_COUNT(ranges); i++) {
        const fm_scale s = fm_scale_of(ranges[i].low, ranges[i].high, ranges[i].log);
        assert_true(isfinite(s.low) && isfinite(s.high) && s.low < s.high);
        assert_true(fabs(fm_scale_at(&s, s.low)) < 1e-6 && fabs(fm_scale_at(&s, s.high) - 1) < 1e-6);
        const size_t n = fm_scale_ticks(&s, 8, ticks);
        assert_in_range(n, 1, FM_TICKS_MAX);
        for (size_t k = 0; k < n; k++) {
            const double at = fm_scale_at(&s, ticks[k]);
            fm_scale_label(label, ticks[k]);
            if (!(at >= -1e-3 && at <= 1 + 1e-3) || (k && !(ticks[k] > ticks[k - 1])))
                fail_msg("range %zu: tick %g of %g .. %g", i, ticks[k], s.low, s.high);
        }
    }
}

static void labels_are_short(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *want;
    } cases[] = {{0, "0"},        {2.75, "2.75"}, {1e-3, "1e-3"}, {2.5e-4, "2.5e-4"}, {10000, "10k"},
                 {2.5e6, "2.5M"}, {1e9, "1G"},    {-0.5, "-0.5"}, {5e12, "5T"},       {999, "999"}};
    char label[24];
    for (size_t i = 0; i < FM_COUNT(cases); i++) {
        fm_scale_label(label, cases[i].v);
        assert_string_equal(label, cases[i].want);
    }
}

static void every_letter_has_strokes_and_room(void **state)
{
    (void)state;
    fm_stroke s;
    for (int c = 1; c < 256; c++) {
        size_t n = 0;
        for (; fm_font_stroke((char)c, n, &s); n++) {
            assert_in_range(s.n, 2, FM_STROKE_POINTS_MAX);
            for (size_t i = 0; i < s.n; i++)
                assert_true(s.p[i].x >= 0 && s.p[i].x < fm_font_advance((char)c) && fabs(s.p[i].y) < 0.75);
        }
        assert_true(c == ' ' ? n == 0 : n > 0);
        assert_true(fm_font_advance((char)c) > 0.1);
    }
}

/* A line of width 2 through the middle, and a square: whole pixels full, the others untouched. */
static void pixels_are_covered(void **state)
{
    (void)state;
    unsigned char rgb[8 * 8 * 3], mask[8 * 8] = {0};
    fm_raster r = {8, 8, rgb, mask, {0, 0, 8, 8}};
    memset(rgb, 255, sizeof rgb);
    fm_raster_lines(&r, (const fm_point[]){{-3, 4}, {12, 4}}, 2, (fm_paint){0, 1, 2});
    for (size_t y = 0; y < 8; y++)
        for (size_t x = 0; x < 8; x++) assert_int_equal(rgb[3 * (8 * y + x)], y == 3 || y == 4 ? 0 : 255);
    memset(rgb, 255, sizeof rgb);
    r.clip = (fm_box){0, 0, 5, 8};
    fm_raster_fill(&r, (const fm_point[]){{2, 2}, {6, 2}, {6, 6}, {2, 6}}, 4, (fm_paint){0xff0000, 1, 0});
    for (size_t y = 0; y < 8; y++)
        for (size_t x = 0; x < 8; x++) {
            const bool inside = x >= 2 && x < 5 && y >= 2 && y < 6;
            assert_int_equal(rgb[3 * (8 * y + x)], 255);
            assert_int_equal(rgb[3 * (8 * y + x) + 1], inside ? 0 : 255);
        }
    for (size_t i = 0; i < sizeof mask; i++) assert_int_equal(mask[i], 0);
}

static uint32_t u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

/* Chunks with their checksums, and pixels that come out again. */
static void a_png_can_be_read_back(void **state)
{
    (void)state;
    enum { W = 5, H = 3, ROW = 3 * W + 1 };
    unsigned char rgb[W * H * 3], mask[W * H] = {0}, rows[H * ROW];
    const fm_raster r = {W, H, rgb, mask, {0, 0, W, H}};
    test_folder f = test_folder_make();
    char path[300];
    fm_str file = {0};
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (unsigned char)(i * 37);
    snprintf(path, sizeof path, "%s/p.png", f.path);
    assert_int_equal(fm_png_write(&r, path, NULL, NULL), FM_OK);
    assert_int_equal(fm_file_read(&file, path, 1 << 16, NULL), FM_OK);
    assert_memory_equal(file.p, "\x89PNG\r\n\x1a\n", 8);
    uLongf n = sizeof rows;
    for (size_t at = 8; at < file.n; at += 12 + u32(file.p + at)) {
        const uint32_t length = u32(file.p + at);
        assert_int_equal(crc32(0, (const Bytef *)file.p + at + 4, length + 4), u32(file.p + at + 8 + length));
        if (memcmp(file.p + at + 4, "IHDR", 4) == 0) assert_true(u32(file.p + at + 8) == W && u32(file.p + at + 12) == H);
        if (memcmp(file.p + at + 4, "IDAT", 4) == 0)
            assert_int_equal(uncompress(rows, &n, (const Bytef *)file.p + at + 8, length), Z_OK);
    }
    assert_int_equal(n, sizeof rows);
    for (size_t y = 0; y < H; y++)
        for (size_t i = 0; i < 3 * W; i++) {
            unsigned char *v = &rows[y * ROW + 1 + i];
            if (rows[y * ROW] == 2) *v = (unsigned char)(*v + rows[(y - 1) * ROW + 1 + i]);
            assert_int_equal(*v, rgb[y * 3 * W + i]);
        }
    fm_str_free(&file);
    test_folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_log_is_read),
                                       cmocka_unit_test(damage_is_left_out_and_named),
                                       cmocka_unit_test(ticks_are_round_and_inside),
                                       cmocka_unit_test(labels_are_short),
                                       cmocka_unit_test(every_letter_has_strokes_and_room),
                                       cmocka_unit_test(pixels_are_covered),
                                       cmocka_unit_test(a_png_can_be_read_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
