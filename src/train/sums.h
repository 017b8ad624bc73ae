/* sums.h - check sums of the files of a checkpoint, in a file beside them: weights have no form that damage would break, and a
 * run that went on from damaged ones would look like any other. */
#ifndef FM_TRAIN_SUMS_H
#define FM_TRAIN_SUMS_H

#include "base/alloc.h"

/* Writes dir/checksums.json: the CRC-64 of each of dir/names[0 .. n). */
fm_status fm_sums_write(const char *dir, const char *const *names, size_t n, const fm_allocator *a, fm_error *err);
/* FM_ERR_FORMAT names the first file that is not what it was.  A folder without checksums.json passes: it is of an older program
 * or put together by hand. */
fm_status fm_sums_check(const char *dir, const fm_allocator *a, fm_error *err);

#endif
