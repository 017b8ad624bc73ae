/* stopper.h - text on its way out: held back while it may still become part of a stop string. */
#ifndef FM_RUNTIME_STOPPER_H
#define FM_RUNTIME_STOPPER_H

#include "base/str.h"

typedef struct fm_stopper {
    const char *const *stops; /* n_stops strings of the caller's; empty ones never match */
    size_t n_stops;
    fm_str held;  /* what was not given out yet */
    size_t given; /* its first bytes, which were given out by the last call */
} fm_stopper;

/* Makes room so that the calls below allocate nothing, as long as no text is longer than `longest` bytes. */
fm_status fm_stopper_init(fm_stopper *s, const char *const *stops, size_t n_stops, size_t longest, const fm_allocator *a,
                          fm_error *err);
void fm_stopper_deinit(fm_stopper *s);

/* Adds text; *out is what became certain, valid until the next call.  Returns the number of the stop string that the text reached
 * (the earliest in the text, then the first of the list), before which *out ends, or -1. */
long fm_stopper_add(fm_stopper *s, fm_view text, fm_view *out);
/* Everything still held: the end came without a stop string. */
fm_view fm_stopper_flush(fm_stopper *s);

#endif
