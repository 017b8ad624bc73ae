/* json.c - the pull reader of json.h: RFC 8259 to the letter, nothing more (no comments, no NaN, no trailing commas).
 * It needs no stack of its own beyond one bit per level, and no recursion: input cannot exhaust anything.
 * The writer is in jsonw.c. */
#include "base/json.h"

#include <string.h>

#include "base/utf8.h"

fm_json fm_json_begin(const char *text, size_t n, const char *name)
{
    fm_json j = {.begin = text, .p = text, .end = text, .name = name, .first = true};
    if (n > 0) j.end = text + n;
    return j;
}

void fm_json_fail(fm_json *j, const char *why)
{
    if (j->error == NULL) j->error = why;
}

static bool fail(fm_json *j, const char *why)
{
    fm_json_fail(j, why);
    return false;
}

static void skip_blanks(fm_json *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')) j->p++;
}

/* The next byte after blanks, 0 at the end (a real 0 byte is wrong everywhere, so the two need no telling apart). */
static char next_byte(fm_json *j)
{
    skip_blanks(j);
    return j->p < j->end ? *j->p : '\0';
}

static fm_json_type type_of(char c)
{
    switch (c) {
    case '{': return FM_JSON_OBJECT;
    case '[': return FM_JSON_ARRAY;
    case '"': return FM_JSON_STRING;
    case 't':
    case 'f': return FM_JSON_BOOL;
    case 'n': return FM_JSON_NULL;
    default: return c == '-' || (c >= '0' && c <= '9') ? FM_JSON_NUMBER : FM_JSON_ERROR;
    }
}

/* The byte after the comma that stands at p, for peeking past it. */
static char byte_after_comma(const fm_json *j)
{
    fm_json ahead = *j;
    ahead.p++;
    return next_byte(&ahead);
}

fm_json_type fm_json_peek(fm_json *j)
{
    if (j->error != NULL) return FM_JSON_ERROR;
    char c = next_byte(j);
    if (j->p == j->end) {
        if (j->depth == 0 && !j->first) return FM_JSON_END;
        fail(j, "the text ends where a value was expected");
        return FM_JSON_ERROR;
    }
    if (j->depth == 0 && !j->first) {
        fail(j, "something follows after the end of the value");
        return FM_JSON_ERROR;
    }
    if (j->depth > 0 && c == (j->object[j->depth - 1] ? '}' : ']')) return FM_JSON_END;
    if (j->depth > 0 && !j->first && c == ',') c = byte_after_comma(j);
    const fm_json_type type = type_of(c);
    if (type == FM_JSON_ERROR) fail(j, "expected a value");
    return type;
}

/* Stands at a value of this type, or sets the error. */
static bool expect(fm_json *j, fm_json_type type, const char *why)
{
    if (j->error != NULL) return false;
    if (j->depth == 0 && !j->first) return fail(j, "something follows after the end of the value");
    return type_of(next_byte(j)) == type || fail(j, why);
}

static bool enter(fm_json *j, bool object)
{
    if (j->depth == FM_JSON_DEPTH_MAX) return fail(j, "nested deeper than 64 levels");
    j->p++;
    j->object[j->depth++] = object;
    j->first = true;
    return true;
}

bool fm_json_enter_object(fm_json *j)
{
    return expect(j, FM_JSON_OBJECT, "expected an object") && enter(j, true);
}

bool fm_json_enter_array(fm_json *j)
{
    return expect(j, FM_JSON_ARRAY, "expected an array") && enter(j, false);
}

/* Moves to the next member of the container, over its comma; false at the closing bracket, which is consumed, or on error. */
static bool next_member(fm_json *j, bool object)
{
    if (j->error != NULL) return false;
    FM_ASSERT(j->depth > 0 && j->object[j->depth - 1] == object);
    const char c = next_byte(j);
    if (c == (object ? '}' : ']')) {
        j->p++;
        j->depth--;
        j->first = false;
        return false;
    }
    if (!j->first) {
        if (c != ',') return fail(j, object ? "expected ',' or '}'" : "expected ',' or ']'");
        j->p++;
    }
    j->first = false;
    return true;
}

static bool hex_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* One escape, p at its backslash. */
static bool read_escape(fm_json *j)
{
    const size_t left = (size_t)(j->end - j->p);
    if (left < 2) return fail(j, "the text ends inside a string");
    if (j->p[1] != 'u') {
        if (j->p[1] == '\0' || strchr("\"\\/bfnrt", j->p[1]) == NULL) return fail(j, "unknown escape in a string");
        j->p += 2;
        return true;
    }
    if (left < 6) return fail(j, "the text ends inside a string");
    for (int i = 2; i < 6; i++)
        if (!hex_digit(j->p[i])) return fail(j, "\\u needs four hexadecimal digits");
    j->p += 6;
    return true;
}

/* One code point, p at a byte that is not ASCII. */
static bool read_code_point(fm_json *j)
{
    uint32_t cp = 0;
    const size_t n = fm_utf8_decode(&cp, j->p, (size_t)(j->end - j->p));
    if (cp == FM_UTF8_INVALID) return fail(j, "a string is not valid UTF-8");
    j->p += n;
    return true;
}

/* A string, p at its opening quote. */
static bool read_string(fm_json *j, fm_view *raw)
{
    const char *start = ++j->p;
    while (j->p < j->end && *j->p != '"') {
        const unsigned char c = (unsigned char)*j->p;
        if (c == '\\') {
            if (!read_escape(j)) return false;
        } else if (c >= 0x80) {
            if (!read_code_point(j)) return false;
        } else if (c < 0x20) {
            return fail(j, "a control character stands unescaped in a string");
        } else {
            j->p++;
        }
    }
    if (j->p == j->end) return fail(j, "the text ends inside a string");
    *raw = (fm_view){start, (size_t)(j->p - start)};
    j->p++;
    return true;
}

bool fm_json_key(fm_json *j, fm_view *key)
{
    *key = (fm_view){NULL, 0};
    if (!next_member(j, true)) return false;
    if (next_byte(j) != '"') return fail(j, "expected a key in quotes");
    if (!read_string(j, key)) return false;
    if (next_byte(j) != ':') return fail(j, "expected ':' after a key");
    j->p++;
    return type_of(next_byte(j)) != FM_JSON_ERROR || fail(j, "expected a value after ':'");
}

bool fm_json_element(fm_json *j)
{
    if (!next_member(j, false)) return false;
    return type_of(next_byte(j)) != FM_JSON_ERROR || fail(j, "expected a value");
}

/* A scalar was consumed, so its container is no longer at its beginning. */
static bool done(fm_json *j)
{
    j->first = false;
    return true;
}

bool fm_json_string(fm_json *j, fm_view *raw)
{
    return expect(j, FM_JSON_STRING, "expected a string") && read_string(j, raw) && done(j);
}

static bool read_word(fm_json *j, const char *word)
{
    const size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n) != 0) return fail(j, "expected true, false or null");
    j->p += n;
    return true;
}

bool fm_json_bool(fm_json *j, bool *out)
{
    if (!expect(j, FM_JSON_BOOL, "expected true or false")) return false;
    const bool value = *j->p == 't';
    if (!read_word(j, value ? "true" : "false")) return false;
    *out = value;
    return done(j);
}

bool fm_json_null(fm_json *j)
{
    if (j->error != NULL || (j->depth == 0 && !j->first)) return false;
    return next_byte(j) == 'n' && read_word(j, "null") && done(j);
}

/* Skips digits; false when there is none. */
static bool read_digits(fm_json *j)
{
    const char *start = j->p;
    while (j->p < j->end && *j->p >= '0' && *j->p <= '9') j->p++;
    return j->p > start || fail(j, "expected a digit");
}

static bool at(const fm_json *j, char c)
{
    return j->p < j->end && *j->p == c;
}

/* number = [-] (0 | 1-9 digits) [. digits] [e [+-] digits], p at its first byte. */
static bool read_number(fm_json *j, fm_view *text)
{
    const char *start = j->p;
    if (at(j, '-')) j->p++;
    const bool zero = at(j, '0');
    const char *whole = j->p;
    if (!read_digits(j)) return false;
    if (zero && j->p - whole > 1) return fail(j, "a number begins with a superfluous 0");
    if (at(j, '.')) {
        j->p++;
        if (!read_digits(j)) return false;
    }
    if (at(j, 'e') || at(j, 'E')) {
        j->p++;
        if (at(j, '+') || at(j, '-')) j->p++;
        if (!read_digits(j)) return false;
    }
    *text = (fm_view){start, (size_t)(j->p - start)};
    return true;
}

/* As an error in a number is found only behind it, the position goes back to its beginning. */
static bool fail_number(fm_json *j, fm_view text, const char *why)
{
    j->p = text.p;
    return fail(j, why);
}

bool fm_json_u64(fm_json *j, uint64_t *out)
{
    fm_view text;
    if (!expect(j, FM_JSON_NUMBER, "expected a whole number") || !read_number(j, &text)) return false;
    if (!fm_parse_u64(text, out)) return fail_number(j, text, "expected a whole number from 0 to 2^64-1");
    return done(j);
}

bool fm_json_i64(fm_json *j, int64_t *out)
{
    fm_view text;
    if (!expect(j, FM_JSON_NUMBER, "expected a whole number") || !read_number(j, &text)) return false;
    if (!fm_parse_i64(text, out)) return fail_number(j, text, "expected a whole number of 64 bits");
    return done(j);
}

bool fm_json_f64(fm_json *j, double *out)
{
    fm_view text;
    if (!expect(j, FM_JSON_NUMBER, "expected a number") || !read_number(j, &text)) return false;
    if (!fm_parse_f64(text, out)) return fail_number(j, text, "a number is too large for a double");
    return done(j);
}

/* Consumes a scalar whole, or only the opening bracket of a container. */
static bool read_start(fm_json *j)
{
    fm_view ignored;
    bool flag = false;
    const char c = next_byte(j);
    switch (type_of(c)) {
    case FM_JSON_OBJECT: return fm_json_enter_object(j);
    case FM_JSON_ARRAY: return fm_json_enter_array(j);
    case FM_JSON_STRING: return fm_json_string(j, &ignored);
    case FM_JSON_BOOL: return fm_json_bool(j, &flag);
    case FM_JSON_NULL: return fm_json_null(j);
    case FM_JSON_NUMBER: return read_number(j, &ignored) && done(j);
    default: return fail(j, "expected a value");
    }
}

bool fm_json_skip(fm_json *j)
{
    if (j->error != NULL) return false;
    if (j->depth == 0 && !j->first) return fail(j, "something follows after the end of the value");
    const unsigned outside = j->depth;
    fm_view key;
    if (!read_start(j)) return false;
    while (j->error == NULL && j->depth > outside) {
        const bool more = j->object[j->depth - 1] ? fm_json_key(j, &key) : fm_json_element(j);
        if (more && !read_start(j)) return false;
    }
    return j->error == NULL;
}

bool fm_json_raw(fm_json *j, fm_view *raw)
{
    skip_blanks(j);
    const char *start = j->p;
    if (!fm_json_skip(j)) return false;
    *raw = (fm_view){start, (size_t)(j->p - start)};
    return true;
}

fm_status fm_json_finish(fm_json *j, fm_error *err)
{
    if (j->error == NULL && j->depth > 0) fail(j, "a container was not read to its end");
    if (j->error == NULL) {
        skip_blanks(j);
        if (j->first) fail(j, "the text ends where a value was expected");
        if (j->p < j->end) fail(j, "something follows after the end of the value");
    }
    if (j->error == NULL) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: %s at byte %zu", j->name == NULL ? "JSON" : j->name, j->error,
                   (size_t)(j->p - j->begin));
}

static uint32_t hex_value(char c)
{
    if (c <= '9') return (uint32_t)(c - '0');
    return (uint32_t)((c | 0x20) - 'a') + 10u;
}

static uint32_t four_hex(const char *p)
{
    return hex_value(p[0]) << 12 | hex_value(p[1]) << 8 | hex_value(p[2]) << 4 | hex_value(p[3]);
}

/* True when a whole \uXXXX stands at p: raw views are checked, but a caller may hand in any bytes. */
static bool is_u_escape(const char *p, const char *end)
{
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return false;
    for (int i = 2; i < 6; i++)
        if (!hex_digit(p[i])) return false;
    return true;
}

/* A lone surrogate encodes as U+FFFD. */
size_t fm_json_unescape_u(fm_str *out, const char *p, const char *end)
{
    if (!is_u_escape(p, end)) return 0;
    uint32_t cp = four_hex(p + 2);
    size_t n = 6;
    if (cp >= 0xD800u && cp < 0xDC00u && is_u_escape(p + 6, end)) {
        const uint32_t low = four_hex(p + 8);
        if (low >= 0xDC00u && low < 0xE000u) {
            cp = 0x10000u + ((cp - 0xD800u) << 10) + (low - 0xDC00u);
            n = 12;
        }
    }
    char utf8[4];
    fm_str_put(out, utf8, fm_utf8_encode(utf8, cp));
    return n;
}

static char short_escape(char c)
{
    switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return c;
    }
}

void fm_json_unescape(fm_str *out, fm_view raw)
{
    if (raw.n == 0) {
        fm_str_put(out, "", 0);
        return;
    }
    const char *p = raw.p, *const end = raw.p + raw.n;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        const char *stop = slash == NULL ? end : slash;
        fm_str_put(out, p, (size_t)(stop - p));
        p = stop;
        if (p == end) return;
        const size_t n = fm_json_unescape_u(out, p, end);
        if (n) {
            p += n;
        } else if (end - p >= 2) {
            fm_str_putc(out, short_escape(p[1]));
            p += 2;
        } else {
            p++;
        }
    }
}
