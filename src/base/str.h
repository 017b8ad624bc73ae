/* str.h - a growing string, and views of text that somebody else owns. */
#ifndef FM_BASE_STR_H
#define FM_BASE_STR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/alloc.h"

/* n bytes at p, not terminated, owned by someone else. */
typedef struct fm_view {
    const char *p;
    size_t n;
} fm_view;

#define FM_VIEW(literal) ((fm_view){(literal), sizeof(literal) - 1})
fm_view fm_view_of(const char *s); /* of a C string; NULL gives {NULL, 0} */
bool fm_view_eq(fm_view a, fm_view b);
bool fm_view_is(fm_view a, const char *s);
bool fm_view_starts(fm_view a, const char *prefix);
bool fm_view_ends(fm_view a, const char *suffix);

/* A name from a file made fit for an error sentence: at most 80 bytes, control and non-ASCII bytes as '?'. */
typedef struct fm_quote {
    char text[84];
} fm_quote;
fm_quote fm_quote_of(fm_view name);

/* A builder.  An allocation that fails sets `failed` and later calls do nothing, so that a caller checks once at the end with
 * fm_str_ok().  p is always terminated when not NULL.  Zero-initialise; set `a` for a caller's allocator. */
typedef struct fm_str {
    char *p;
    size_t n, cap;
    const fm_allocator *a;
    bool failed;
} fm_str;

void fm_str_reserve(fm_str *s, size_t n); /* room for n more bytes */
void fm_str_put(fm_str *s, const char *bytes, size_t n);
void fm_str_puts(fm_str *s, const char *text);
void fm_str_putc(fm_str *s, char c);
void fm_str_printf(fm_str *s, const char *fmt, ...) FM_PRINTF(2, 3);
void fm_str_reset(fm_str *s); /* length 0, memory kept */
void fm_str_free(fm_str *s);
fm_status fm_str_ok(const fm_str *s, const char *what, fm_error *err);

/* Strict number reading: the whole of `v` must be the number.  Return false and leave *out alone otherwise. */
bool fm_parse_u64(fm_view v, uint64_t *out);
bool fm_parse_i64(fm_view v, int64_t *out);
bool fm_parse_f64(fm_view v, double *out); /* locale-independent; no inf, nan or hex */

/* Is `word` in a list as "note|skip|rewind", and as which of them?  *at (may be NULL) is left alone otherwise. */
bool fm_word_find(fm_view word, const char *list, char separator, size_t *at);

/* The nearest of n words to `word` (what somebody may have meant), or NULL when none is near. */
const char *fm_nearest(const char *word, const char *const *words, size_t n);

#endif
