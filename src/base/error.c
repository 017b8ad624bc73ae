/* error.c - filling an fm_error, and stopping on our own mistakes.
 * Nothing here allocates: an error about memory must not need any. */
#define _GNU_SOURCE /* strerrordesc_np */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *fm_status_name(fm_status status)
{
    switch (status) {
    case FM_OK: return "FM_OK";
    case FM_ERR_ARGUMENT: return "FM_ERR_ARGUMENT";
    case FM_ERR_IO: return "FM_ERR_IO";
    case FM_ERR_FORMAT: return "FM_ERR_FORMAT";
    case FM_ERR_SHAPE: return "FM_ERR_SHAPE";
    case FM_ERR_UNSUPPORTED: return "FM_ERR_UNSUPPORTED";
    case FM_ERR_MEMORY: return "FM_ERR_MEMORY";
    case FM_ERR_LIMIT: return "FM_ERR_LIMIT";
    case FM_ERR_CANCELLED: return "FM_ERR_CANCELLED";
    case FM_ERR_MISMATCH: return "FM_ERR_MISMATCH";
    case FM_ERR_DEVICE: return "FM_ERR_DEVICE";
    }
    return "unknown fm_status";
}

/* A text that was cut off must not end inside a UTF-8 sequence: file names come from users. */
static void trim_cut_text(char *text, size_t n)
{
    size_t i = n;
    while (i > 0 && n - i < 3 && ((unsigned char)text[i - 1] & 0xC0u) == 0x80u) i--;
    if (i == 0 || (unsigned char)text[i - 1] < 0xC0u) return;
    const unsigned char lead = (unsigned char)text[i - 1];
    const size_t length = lead >= 0xF0u ? 4 : lead >= 0xE0u ? 3 : 2;
    if (n - (i - 1) < length) text[i - 1] = '\0';
}

/* Formats into text[at..]; returns the new length, at most sizeof(err->text) - 1. */
FM_PRINTF(3, 0)
static size_t append(fm_error *err, size_t at, const char *fmt, va_list args)
{
    const size_t room = sizeof(err->text) - at;
    const int n = vsnprintf(err->text + at, room, fmt, args);
    if (n < 0) {
        err->text[at] = '\0';
        return at;
    }
    if ((size_t)n < room) return at + (size_t)n;
    trim_cut_text(err->text, sizeof(err->text) - 1);
    return strlen(err->text);
}

FM_PRINTF(3, 4)
static size_t append_text(fm_error *err, size_t at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const size_t n = append(err, at, fmt, args);
    va_end(args);
    return n;
}

fm_status fm_fail(fm_error *err, fm_status code, const char *fmt, ...)
{
    FM_ASSERT(code != FM_OK);
    if (err == NULL) return code;
    fm_error made = {.code = code}; /* apart from *err, whose old text may be among the arguments */
    va_list args;
    va_start(args, fmt);
    append(&made, 0, fmt, args);
    va_end(args);
    *err = made;
    return code;
}

fm_status fm_fail_errno(fm_error *err, const char *fmt, ...)
{
    const int number = errno;
    const fm_status code = number == ENOMEM ? FM_ERR_MEMORY : FM_ERR_IO;
    if (err == NULL) return code;
    fm_error made = {.code = code};
    va_list args;
    va_start(args, fmt);
    const size_t at = append(&made, 0, fmt, args);
    va_end(args);
    /* GNU: the C locale's sentence for this number, thread-safe and never allocated. */
    const char *reason = strerrordesc_np(number);
    if (reason != NULL) {
        append_text(&made, at, ": %s", reason);
    } else {
        append_text(&made, at, ": system error %d", number);
    }
    *err = made;
    return code;
}

fm_status fm_fail_prefix(fm_error *err, fm_status code, const char *fmt, ...)
{
    if (err == NULL) return code;
    fm_error made = {.code = err->code == FM_OK ? code : err->code};
    va_list args;
    va_start(args, fmt);
    const size_t at = append(&made, 0, fmt, args);
    va_end(args);
    append_text(&made, at, ": %s", err->text);
    *err = made;
    return made.code;
}

void fm_assert_fail(const char *cond, const char *file, int line)
{
    /* The only line this library ever prints: after it there is no program left to return an error to. */
    fprintf(stderr, "%s:%d: fmamba: internal error, please report it: %s\n", file, line, cond);
    abort();
}
