/* json.h - an allocation-free pull reader (RFC 8259, UTF-8 checked, depth-limited) and a small writer.
 *
 * Reading is by events.  The reader borrows the text; strings come as raw views (escapes still in them) and are unescaped only
 * when asked.  Every call after an error gives FM_JSON_ERROR again, so that a loop needs one check.
 *
 *     fm_json j = fm_json_begin(text, n, "config.json");
 *     if (fm_json_enter_object(&j)) while (fm_json_key(&j, &key)) {
 *         if (fm_view_is(key, "vocab_size")) fm_json_u64(&j, &vocab); else fm_json_skip(&j);
 *     }
 *     FM_TRY(fm_json_finish(&j, err)); */
#ifndef FM_BASE_JSON_H
#define FM_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define FM_JSON_DEPTH_MAX 64

typedef enum fm_json_type {
    FM_JSON_ERROR, FM_JSON_NULL, FM_JSON_BOOL, FM_JSON_NUMBER, FM_JSON_STRING, FM_JSON_ARRAY, FM_JSON_OBJECT, FM_JSON_END
} fm_json_type;

typedef struct fm_json {
    const char *begin, *p, *end;
    const char *name;  /* for errors: a file name */
    const char *error; /* NULL while all is well; a static sentence fragment otherwise */
    unsigned depth;
    bool first; /* no element of the current container was read yet */
    bool object[FM_JSON_DEPTH_MAX];
} fm_json;

fm_json fm_json_begin(const char *text, size_t n, const char *name);

/* The type of the next value, without consuming it; FM_JSON_END at the end of the current container or of the text. */
fm_json_type fm_json_peek(fm_json *j);

/* Containers.  enter: consumes the opening bracket (an error if the value is something else).  key / element: true while there
 * is a next member (its value must then be consumed), false after consuming the closing bracket or on error. */
bool fm_json_enter_object(fm_json *j);
bool fm_json_enter_array(fm_json *j);
bool fm_json_key(fm_json *j, fm_view *key); /* raw view; keys with escapes compare through fm_json_unescape */
bool fm_json_element(fm_json *j);

/* Scalars: consume the next value into *out; false (and the error set) if it is of another type or out of range. */
bool fm_json_string(fm_json *j, fm_view *raw);
bool fm_json_bool(fm_json *j, bool *out);
bool fm_json_u64(fm_json *j, uint64_t *out);
bool fm_json_i64(fm_json *j, int64_t *out);
bool fm_json_f64(fm_json *j, double *out);
bool fm_json_null(fm_json *j); /* consumes a null if there is one; false (no error) if there is none */
bool fm_json_skip(fm_json *j); /* any value, checked */
bool fm_json_raw(fm_json *j, fm_view *raw); /* any value, checked, as its source text */

/* Marks the text wrong for a reason of the caller's (`why` static). */
void fm_json_fail(fm_json *j, const char *why);

/* FM_OK when the text was well-formed and wholly read, else FM_ERR_FORMAT "name: why at byte N". */
fm_status fm_json_finish(fm_json *j, fm_error *err);

/* Appends what \uXXXX at p stands for, or two of them that make a surrogate pair; gives their bytes, 0: there is none. */
size_t fm_json_unescape_u(fm_str *out, const char *p, const char *end);
/* Appends the raw string's text with escapes resolved (UTF-8; lone surrogates become U+FFFD). */
void fm_json_unescape(fm_str *out, fm_view raw);

/* Writer: appends to a string.  Commas and indentation are its business; keys and values are the caller's. */
typedef struct fm_jsonw {
    fm_str *out;
    unsigned depth;
    bool comma, after_key;
    bool pretty; /* newlines and two blanks per level */
} fm_jsonw;

void fm_jsonw_object(fm_jsonw *w);
void fm_jsonw_array(fm_jsonw *w);
void fm_jsonw_end(fm_jsonw *w, char bracket); /* '}' or ']' */
void fm_jsonw_key(fm_jsonw *w, const char *key);
void fm_jsonw_string(fm_jsonw *w, fm_view v); /* invalid UTF-8 becomes U+FFFD */
void fm_jsonw_cstr(fm_jsonw *w, const char *s); /* NULL writes null */
void fm_jsonw_i64(fm_jsonw *w, int64_t v);
void fm_jsonw_u64(fm_jsonw *w, uint64_t v);
void fm_jsonw_f64(fm_jsonw *w, double v); /* shortest text that reads back equal as double; not finite writes null */
void fm_jsonw_f32(fm_jsonw *w, float v);  /* shortest text that reads back equal as float */
void fm_jsonw_bool(fm_jsonw *w, bool v);
void fm_jsonw_null(fm_jsonw *w);

#endif
