/* error.h - raising and passing on errors.  The codes and fm_error are public (fmamba.h). */
#ifndef FM_BASE_ERROR_H
#define FM_BASE_ERROR_H

#include "base/compiler.h"
#include "fmamba.h"

/* Fills `err` (may be NULL) with one sentence that says what was expected, what was found and what to do; returns `code`,
 * so that a failing function ends with `return fm_fail(err, FM_ERR_SHAPE, "...", ...)`. */
fm_status fm_fail(fm_error *err, fm_status code, const char *fmt, ...) FM_PRINTF(3, 4);

/* As fm_fail, with ": <text of errno>" appended; FM_ERR_MEMORY when errno is ENOMEM, else FM_ERR_IO. */
fm_status fm_fail_errno(fm_error *err, const char *fmt, ...) FM_PRINTF(2, 3);

/* Puts "<prefix>: " before the sentence already in `err`; returns err->code.  err may be NULL (then `code` is returned). */
fm_status fm_fail_prefix(fm_error *err, fm_status code, const char *fmt, ...) FM_PRINTF(3, 4);

/* Passes an error on unchanged. */
#define FM_TRY(call)                             \
    do {                                         \
        const fm_status fm_try_status_ = (call); \
        if (FM_UNLIKELY(fm_try_status_ != FM_OK)) \
            return fm_try_status_;               \
    } while (0)

#endif
