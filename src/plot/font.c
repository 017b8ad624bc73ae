/* font.c - letters as strokes; see canvas.h.
 *
 * A glyph is strokes of points, two characters each: x, then y from the top, in base 36.  Capitals stand on 14 ('e'), small
 * letters begin at 4, tails end at 18 ('i').  After '|' a stroke goes straight from point to point; after '~' the points between
 * its ends are corners to be rounded, so that the four corners of a box make an o. */
#include <math.h>
#include <string.h>

#include "plot/canvas.h"

#define UNIT   (0.72 / 14) /* capitals are 0.72 of the size */
#define BASE   14
#define GAP    3.2 /* between letters */
#define BLANK  4.5
#define ROUNDS 3 /* of corner cutting */
#define FIRST  ' '

/* From blank to tilde. */
static const char *const glyphs[] = {
    "", "|00 0a|0d 0e", "|00 04|30 34", "|30 1e|70 5e|04 94|0a 9a", "~83 80 00 07 87 8e 0e 0b|40 4e",
    "~20 40 45 05 00 20|90 1e~89 a9 ae 6e 69 89", "|9e 23~23 10 60 64 36~36 06 0e 3e~3e 7e 88", "|00 04", "~30 04 0c 3g",
    "~00 34 3c 0g", "|32 38|03 67|63 07", "|46 4e|0a 8a", "|1d 0g", "|09 49", "|0d 1d 1e 0e 0d", "|0g 60",
    /* 0 .. 9 */
    "~40 80 8e 0e 00 40", "|03 40 4e", "~04 00 80 86 0e|0e 8e", "~02 00 70 76 36~36 86 8e 0e 0c", "|6e 60 0a 8a",
    "|70 10 06~06 15 84 8e 0e 0c", "~71 60 00 0a~4e 8e 85 05 0e 4e", "|00 80 3e", "~40 70 76 16 10 40~46 86 8e 0e 06 46",
    "~40 80 89 09 00 40~1d 2e 8e 84",
    /* : ; < = > ? @ */
    "|05 15 16 06 05|0d 1d 1e 0e 0d", "|15 16|1d 0g", "|75 0a 7f", "|08 88|0c 8c", "|05 7a 0f", "~03 00 70 76 36 3a|3d 3e",
    "~84 54 4a 4a 8a 84~84 8b cb c0 00 0e 9e",
    /* A .. Z */
    "|0e 50 ae|29 89", "|00 0e~00 40 80 87 47 07~07 47 97 9e 4e 0e", "~93 90 00 0e 9e 9b", "|00 0e~00 40 a0 ae 4e 0e",
    "|80 00 0e 8e|07 67", "|80 00 0e|07 67", "~93 90 00 0e 9e 97|97 57", "|00 0e|90 9e|07 97", "|00 0e", "|60 69~69 6e 0e 0a",
    "|00 0e|80 08|35 8e", "|00 0e 7e", "|0e 00 59 a0 ae", "|0e 00 9e 90", "~50 a0 ae 0e 00 50", "|0e 00~00 40 80 87 47 07",
    "~50 a0 ae 0e 00 50|6a be", "|0e 00~00 40 80 87 47 07|47 8e", "~83 80 00 07 87 8e 0e 0b", "|00 a0|50 5e",
    "|00 08~08 0e 9e 98|98 90", "|00 5e a0", "|00 3e 60 9e c0", "|00 9e|90 0e", "|00 57 a0|57 5e", "|00 90 0e 9e",
    /* [ \ ] ^ _ ` */
    "|30 00 0g 3g", "|00 6g", "|00 30 3g 0g", "|04 30 64", "|0g 8g", "|00 22",
    /* a .. z */
    "|74 7e~44 74 7e 0e 04 44", "|00 0e~44 74 7e 0e 04 44", "~77 74 04 0e 7e 7b", "|70 7e~44 74 7e 0e 04 44",
    "|09 79~79 74 04 0e 7e 7b", "~50 20 24|24 2e|04 54", "~44 74 7e 0e 04 44|74 7d~7d 7i 1i 0h", "|00 0e~08 04 74 79|79 7e",
    "|04 0e|00 01", "|24 2f~2f 2i 0i|20 21", "|00 0e|64 0a|28 7e", "|00 0e", "|04 0e~08 04 64 69|69 6e~68 64 c4 c9|c9 ce",
    "|04 0e~08 04 74 79|79 7e", "~44 84 8e 0e 04 44", "|04 0i~44 74 7e 0e 04 44", "|74 7i~44 74 7e 0e 04 44", "|04 0e~08 04 54",
    "~66 64 04 09 69 6e 0e 0c", "|20 2b~2b 2e 5e|04 54", "|04 09~09 0e 7e 7a|74 7e", "|04 4e 84", "|04 3e 64 9e c4",
    "|04 7e|74 0e", "|04 4e|84 2i", "|04 74 0e 7e",
    /* { | } ~ */
    "~30 10 17 08~08 19 1g 3g", "|00 0g", "~00 20 27 38~38 29 2g 0g", "~0b 07 4c 89 87"};

static const char *glyph(char letter)
{
    const size_t i = (size_t)((unsigned char)letter - FIRST);
    return (unsigned char)letter >= FIRST && i < FM_COUNT(glyphs) ? glyphs[i] : glyphs['?' - FIRST];
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c - 'a' + 10;
}

static bool ends(char c)
{
    return !c || c == '|' || c == '~';
}

double fm_font_advance(char letter)
{
    int most = 0;
    if (letter == ' ') return BLANK * UNIT;
    for (const char *g = glyph(letter); *g; g += ends(*g) || *g == ' ' ? 1 : 2)
        if (!ends(*g) && *g != ' ' && digit(*g) > most) most = digit(*g);
    return (most + GAP) * UNIT;
}

double fm_font_width(const char *text)
{
    double sum = 0;
    for (; *text; text++) sum += fm_font_advance(*text);
    return sum;
}

/* Chaikin: every inner corner becomes two points on its sides; the ends stay. */
static void cut_corners(fm_stroke *s)
{
    fm_stroke in = *s;
    size_t n = 0;
    s->p[n++] = in.p[0];
    for (size_t i = 0; i + 1 < in.n; i++) {
        const fm_point a = in.p[i], b = in.p[i + 1];
        if (i > 0) s->p[n++] = (fm_point){0.75 * a.x + 0.25 * b.x, 0.75 * a.y + 0.25 * b.y};
        if (i + 2 < in.n) s->p[n++] = (fm_point){0.25 * a.x + 0.75 * b.x, 0.25 * a.y + 0.75 * b.y};
    }
    s->p[n++] = in.p[in.n - 1];
    s->n = n;
}

bool fm_font_stroke(char letter, size_t i, fm_stroke *out)
{
    const char *g = glyph(letter);
    for (; *g; g++)
        if (ends(*g) && i-- == 0) break;
    if (!*g) return false;
    const bool round = *g++ == '~';
    out->n = 0;
    for (; !ends(*g); g += *g == ' ' ? 1 : 2)
        if (*g != ' ') out->p[out->n++] = (fm_point){digit(g[0]) * UNIT, (digit(g[1]) - BASE) * UNIT};
    for (int k = 0; round && k < ROUNDS; k++) cut_corners(out);
    return true;
}
