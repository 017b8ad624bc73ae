/* pretok.c - the pre-tokenisers falcon, gpt-2 and llama-3.  Each matcher gets a text that is not empty and returns the length
 * of the piece it begins with; the comments above the rules quote the alternative of the regular expression they stand for.
 * A byte that is not UTF-8 is a character of no class, so it goes with punctuation. */
#include "text/pretok.h"

#include "base/utf8.h"
#include "text/unicode.h"

enum { NEWLINE = 1u << 16, LN = FM_UC_LETTER | FM_UC_NUMBER, LNS = LN | FM_UC_SPACE };

/* The character at p: its length, and its FM_UC_* bits in *flags (with NEWLINE for CR and LF).  0 at the end. */
static size_t look(const char *p, const char *end, unsigned *flags)
{
    uint32_t cp;
    *flags = 0;
    if (p == end) return 0;
    const size_t n = fm_utf8_decode(&cp, p, (size_t)(end - p));
    *flags = fm_unicode_flags(cp) | (cp == '\n' || cp == '\r' ? NEWLINE : 0u);
    return n;
}

/* Past all characters with a bit of `any` (want true), or with none of them (want false). */
static const char *run(const char *p, const char *end, unsigned any, bool want)
{
    unsigned f;
    for (size_t n; (n = look(p, end, &f)) != 0 && ((f & any) != 0) == want;) p += n;
    return p;
}

/* \s+(?!\S)|\s+ : all of the white space at the end of the text, else all but its last character, else that one. */
static const char *spaces(const char *p, const char *end)
{
    const char *last = p;
    unsigned f;
    for (size_t n; (n = look(p, end, &f)) != 0 && (f & FM_UC_SPACE);) {
        last = p;
        p += n;
    }
    return p == end ? p : last;
}

static const char *spaces_or_one(const char *p, const char *end)
{
    unsigned f;
    const char *stop = spaces(p, end);
    return stop > p ? stop : p + look(p, end, &f);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* 's|'t|'re|'ve|'m|'ll|'d : the length, or 0.  Without case also the long s (U+017F), which folds to s. */
static size_t contraction(const char *p, const char *end, bool fold)
{
    const size_t left = (size_t)(end - p);
    if (left < 2 || *p != '\'') return 0;
    const char c = fold ? lower(p[1]) : p[1];
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    if (left < 3) return 0;
    if (fold && p[1] == '\xC5' && p[2] == '\xBF') return 3;
    const char d = fold ? lower(p[2]) : p[2];
    return ((c == 'r' || c == 'v') && d == 'e') || (c == 'l' && d == 'l') ? 3 : 0;
}

static size_t gpt2(const char *p, const char *end)
{
    const size_t contracted = contraction(p, end, false);
    if (contracted != 0) return contracted;
    const char *start = p;
    unsigned f;
    size_t n = look(p, end, &f);
    if (*p == ' ' && p + 1 < end) { /* " ?" of the three rules that follow */
        unsigned next;
        const size_t next_n = look(p + 1, end, &next);
        if (!(next & FM_UC_SPACE)) {
            p++;
            n = next_n;
            f = next;
        }
    }
    if (f & FM_UC_LETTER) return (size_t)(run(p + n, end, FM_UC_LETTER, true) - start);
    if (f & FM_UC_NUMBER) return (size_t)(run(p + n, end, FM_UC_NUMBER, true) - start);
    if (!(f & FM_UC_SPACE)) return (size_t)(run(p + n, end, LNS, false) - start);
    return (size_t)(spaces_or_one(p, end) - start);
}

/* \p{N}{1,3} */
static const char *three_numbers(const char *p, const char *end)
{
    unsigned f;
    for (int i = 0; i < 3; i++) {
        const size_t n = look(p, end, &f);
        if (n == 0 || !(f & FM_UC_NUMBER)) break;
        p += n;
    }
    return p;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line end of the white space, where there is one. */
static const char *lines(const char *p, const char *end)
{
    const char *after = NULL, *q = p;
    unsigned f;
    for (size_t n; (n = look(q, end, &f)) != 0 && (f & FM_UC_SPACE);) {
        q += n;
        if (f & NEWLINE) after = q;
    }
    return after != NULL ? after : spaces_or_one(p, end);
}

static size_t llama3(const char *p, const char *end)
{
    const size_t contracted = contraction(p, end, true);
    if (contracted != 0) return contracted;
    unsigned f, next;
    const size_t n = look(p, end, &f);
    const size_t next_n = look(p + n, end, &next);
    if (f & FM_UC_LETTER) return (size_t)(run(p + n, end, FM_UC_LETTER, true) - p);
    if (f & FM_UC_NUMBER) return (size_t)(three_numbers(p, end) - p);
    /* [^\r\n\p{L}\p{N}]?\p{L}+ */
    if (!(f & NEWLINE) && (next & FM_UC_LETTER)) return (size_t)(run(p + n + next_n, end, FM_UC_LETTER, true) - p);
    /*  ?[^\s\p{L}\p{N}]+[\r\n]* */
    if (!(f & FM_UC_SPACE) || (*p == ' ' && next_n != 0 && !(next & LNS)))
        return (size_t)(run(run(p + n, end, LNS, false), end, NEWLINE, true) - p);
    return (size_t)(lines(p, end) - p);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits runs after the byte alphabet, where these six bytes are spelled with superscripts and fractions. */
static bool is_numeric_byte(char c)
{
    const unsigned char b = (unsigned char)c;
    return is_digit(c) || b == 0xB2 || b == 0xB3 || b == 0xB9 || b == 0xBC || b == 0xBD || b == 0xBE;
}

static bool three_digits(const char *p, const char *end)
{
    return end - p >= 3 && is_digit(p[0]) && is_digit(p[1]) && is_digit(p[2]);
}

/* Digits (runs), then Split on [0-9][0-9][0-9]: what stands before, between and after the matches is a piece too. */
static const char *digits(const char *p, const char *end)
{
    if (three_digits(p, end)) return p + 3;
    const bool numeric = is_numeric_byte(*p++);
    while (p < end && is_numeric_byte(*p) == numeric && !three_digits(p, end)) p++;
    return p;
}

static const char *falcon(fm_pieces *s)
{
    if (s->p == s->run_end) {
        unsigned f;
        const size_t n = look(s->p, s->end, &f);
        s->run_end = run(s->p + n, s->end, FM_UC_PUNCT, (f & FM_UC_PUNCT) != 0);
    }
    if (s->p == s->word_end) s->word_end = s->p + gpt2(s->p, s->run_end);
    return digits(s->p, s->word_end);
}

fm_pieces fm_pieces_begin(fm_pretok kind, fm_view text)
{
    return (fm_pieces){.kind = kind, .p = text.p, .end = text.p + text.n, .run_end = text.p, .word_end = text.p};
}

bool fm_pieces_next(fm_pieces *s, fm_view *piece)
{
    if (s->p == s->end) return false;
    const char *stop;
    switch (s->kind) {
    case FM_PRETOK_FALCON: stop = falcon(s); break;
    case FM_PRETOK_LLAMA3: stop = s->p + llama3(s->p, s->end); break;
    case FM_PRETOK_GPT2:
    default: stop = s->p + gpt2(s->p, s->end); break;
    }
    *piece = (fm_view){s->p, (size_t)(stop - s->p)};
    s->p = stop;
    return true;
}
