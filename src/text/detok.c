/* detok.c - text from a stream of ids.  A token may end within a UTF-8 sequence; what is unfinished waits in `tail`. */
#include "base/utf8.h"
#include "text/tokenizer.h"

static void put_replacement(fm_str *out)
{
    fm_str_put(out, "\xEF\xBF\xBD", 3);
}

/* Drops the first k bytes of the tail. */
static void shift(fm_detok *d, size_t k)
{
    for (size_t i = k; i < d->n; i++) d->tail[i - k] = d->tail[i];
    d->n -= k;
}

/* Resolves the tail as far as it is certain: whole characters go out, each maximal ill-formed prefix becomes U+FFFD. */
static void resolve(fm_detok *d, bool last, fm_str *out)
{
    while (d->n > 0 && (last || fm_utf8_tail(d->tail, d->n) != d->n)) {
        uint32_t cp;
        const size_t n = fm_utf8_decode(&cp, d->tail, d->n);
        if (cp == FM_UTF8_INVALID)
            put_replacement(out);
        else
            fm_str_put(out, d->tail, n);
        shift(d, n);
    }
}

void fm_detok_add(fm_detok *d, const fm_tokenizer *t, int32_t id, bool special, fm_str *out)
{
    size_t n;
    const char *p = fm_token_text(t, id, special, &n);
    for (size_t i = 0; i < n;) {
        const size_t valid = d->n == 0 ? fm_utf8_valid(p + i, n - i) : 0;
        if (valid > 0) {
            fm_str_put(out, p + i, valid);
            i += valid;
            continue;
        }
        d->tail[d->n++] = p[i++];
        resolve(d, false, out);
    }
}

void fm_detok_flush(fm_detok *d, fm_str *out)
{
    resolve(d, true, out);
    d->n = 0;
}
