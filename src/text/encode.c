/* encode.c - text to ids.  The order of things is that of Hugging Face's tokenizers: cut out the added tokens that are matched
 * raw; normalise what lies between; cut out the added tokens that are matched after normalisation; cut the rest into pieces;
 * merge each piece.  Control tokens are only cut out when the caller asks for it, user-defined ones always. */
#include <string.h>

#include "base/utf8.h"
#include "text/pretok.h"
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

typedef struct encoder {
    const fm_tokenizer *t;
    bool control;
    const char *text;       /* the whole of it, with `tainted`: */
    const uint8_t *tainted; /* bytes that cannot be part of a control token; NULL: none */
    size_t text_n;
    int32_t *ids; /* NULL: only count */
    size_t room, n;
    fm_bpe_work work;
    fm_str normal; /* one stretch of normalised text */
    fm_error *err;
} encoder;

static void emit(encoder *e, int32_t id)
{
    if (e->ids != NULL && e->n < e->room) e->ids[e->n] = id;
    e->n++;
}

static fm_status encode_piece(encoder *e, fm_view piece)
{
    if (e->t->ignore_merges) {
        const int32_t id = fm_tokenizer_lookup(e->t, piece, (fm_view){NULL, 0});
        if (id >= 0) {
            emit(e, id);
            return FM_OK;
        }
    }
    FM_TRY(fm_bpe_merge(&e->t->bpe, &e->work, piece, e->err));
    for (uint32_t i = e->work.n > 0 ? 0 : UINT32_MAX; i != UINT32_MAX; i = e->work.symbols[i].next)
        emit(e, e->work.symbols[i].id);
    return FM_OK;
}

static fm_status encode_plain(encoder *e, fm_view text)
{
    fm_view piece;
    for (fm_pieces s = fm_pieces_begin(e->t->pretok, text); fm_pieces_next(&s, &piece);) FM_TRY(encode_piece(e, piece));
    return FM_OK;
}

static bool has_tokens(const encoder *e, int pass)
{
    return e->t->tries[pass][0].n > 0 || (e->control && e->t->tries[pass][1].n > 0);
}

/* Normalised text lies elsewhere, and nothing is known of its bytes. */
static bool is_tainted(const encoder *e, fm_view part)
{
    if (!e->tainted) return false;
    if (part.p < e->text || part.p + part.n > e->text + e->text_n) return true;
    return memchr(e->tainted + (part.p - e->text), 1, part.n) != NULL;
}

/* Length of the longest added token of this pass that the text begins with, or 0. */
static size_t match(const encoder *e, int pass, fm_view text, int32_t *id)
{
    const fm_trie *tries = e->t->tries[pass];
    size_t n = fm_trie_match(&tries[0], text, id);
    if (e->control) {
        int32_t control = -1;
        const size_t control_n = fm_trie_match(&tries[1], text, &control);
        if (control_n >= n && control_n > 0 && !is_tainted(e, (fm_view){text.p, control_n})) {
            n = control_n;
            *id = control;
        }
    }
    return n;
}

/* The character that ends at p (begin < p). */
static uint32_t char_before(const char *begin, const char *p)
{
    const char *q = p - 1;
    while (q > begin && p - q < 4 && ((unsigned char)*q & 0xC0) == 0x80) q--;
    uint32_t cp;
    return fm_utf8_decode(&cp, q, (size_t)(p - q)) == (size_t)(p - q) ? cp : FM_UTF8_INVALID;
}

static uint32_t char_at(const char *p, const char *end, size_t *n)
{
    uint32_t cp;
    *n = fm_utf8_decode(&cp, p, (size_t)(end - p));
    return cp;
}

static bool is_word(uint32_t cp)
{
    return cp == '_' || (fm_unicode_flags(cp) & (FM_UC_LETTER | FM_UC_NUMBER | FM_UC_MARK)) != 0;
}

static bool is_alone(fm_view text, const char *p, size_t n)
{
    const char *end = text.p + text.n;
    size_t unused;
    return (p == text.p || !is_word(char_before(text.p, p))) && (p + n == end || !is_word(char_at(p + n, end, &unused)));
}

/* Start of the white space that ends at p, not before `begin`. */
static const char *strip_left(const char *begin, const char *p)
{
    while (p > begin) {
        const uint32_t cp = char_before(begin, p);
        char utf8[4];
        if (!(fm_unicode_flags(cp) & FM_UC_SPACE)) break;
        p -= fm_utf8_encode(utf8, cp);
    }
    return p;
}

static const char *strip_right(const char *p, const char *end)
{
    size_t n;
    while (p < end && (fm_unicode_flags(char_at(p, end, &n)) & FM_UC_SPACE)) p += n;
    return p;
}

static fm_status encode_between(encoder *e, int pass, fm_view text);

/* Cuts the added tokens of this pass out of the text; what lies between goes on. */
static fm_status encode_pass(encoder *e, int pass, fm_view text)
{
    const char *end = text.p + text.n, *done = text.p;
    for (const char *p = text.p; has_tokens(e, pass) && p < end;) {
        int32_t id = -1;
        const size_t n = match(e, pass, (fm_view){p, (size_t)(end - p)}, &id);
        if (n == 0) {
            p++;
            continue;
        }
        const unsigned how = e->t->added[id];
        if (!(how & FM_ADDED_SINGLE_WORD) || is_alone(text, p, n)) {
            const char *start = how & FM_ADDED_LSTRIP ? strip_left(done, p) : p;
            FM_TRY(encode_between(e, pass, (fm_view){done, (size_t)(start - done)}));
            emit(e, id);
            done = how & FM_ADDED_RSTRIP ? strip_right(p + n, end) : p + n;
            p = done;
        } else {
            p += n;
        }
    }
    return encode_between(e, pass, (fm_view){done, (size_t)(end - done)});
}

static fm_status encode_between(encoder *e, int pass, fm_view text)
{
    if (text.n == 0) return FM_OK;
    if (pass == 1) return encode_plain(e, text);
    if (!e->t->nfc || !fm_nfc_needed(text)) return encode_pass(e, 1, text);
    fm_str_reset(&e->normal);
    FM_TRY(fm_nfc(&e->normal, text, e->t->a, e->err));
    return encode_pass(e, 1, (fm_view){e->normal.p, e->normal.n});
}

static fm_status finish(encoder *e, const char *text, size_t n, unsigned flags, size_t *n_ids)
{
    const fm_tokenizer *t = e->t;
    const bool add = flags & FM_ADD_SPECIAL;
    e->work.a = e->normal.a = t->a;
    if (add && t->add_bos && t->bos >= 0) emit(e, t->bos);
    const fm_status status = n > 0 ? encode_pass(e, 0, (fm_view){text, n}) : FM_OK;
    if (add && t->add_eos && t->eos >= 0) emit(e, t->eos);
    fm_bpe_work_free(&e->work);
    fm_str_free(&e->normal);
    *n_ids = status == FM_OK ? e->n : 0;
    if (status != FM_OK) return status;
    if (e->ids == NULL || e->n <= e->room) return FM_OK;
    return fm_fail(e->err, FM_ERR_LIMIT, "the text has %zu tokens, but there is room for %zu; make room or shorten it", e->n,
                   e->room);
}

fm_status fm_tokenize(const fm_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t *ids, size_t *n_ids,
                      fm_error *err)
{
    encoder e = {.t = t, .control = flags & FM_PARSE_SPECIAL, .ids = ids, .room = *n_ids, .err = err};
    return finish(&e, text, n, flags, n_ids);
}

fm_status fm_tokenize_tainted(const fm_tokenizer *t, fm_view text, const uint8_t *tainted, int32_t *ids, size_t *n_ids,
                              fm_error *err)
{
    encoder e = {
        .t = t, .control = true, .text = text.p, .tainted = tainted, .text_n = text.n, .ids = ids, .room = *n_ids, .err = err};
    return finish(&e, text.p, text.n, 0, n_ids);
}
