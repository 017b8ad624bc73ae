/* stopper.c - see stopper.h. */
#include "runtime/stopper.h"

#include <string.h>

fm_status fm_stopper_init(fm_stopper *s, const char *const *stops, size_t n_stops, size_t longest, const fm_allocator *a,
                          fm_error *err)
{
    size_t held = 0; /* never as much as a stop string */
    *s = (fm_stopper){.stops = stops, .n_stops = n_stops, .held = {.a = a}};
    for (size_t i = 0; i < n_stops; i++) held = strlen(stops[i]) > held ? strlen(stops[i]) : held;
    fm_str_reserve(&s->held, held + longest);
    return fm_str_ok(&s->held, "the text of a generation", err);
}

void fm_stopper_deinit(fm_stopper *s)
{
    fm_str_free(&s->held);
}

/* Removes what the last call gave out. */
static void drop_given(fm_stopper *s)
{
    if (!s->held.p) return;
    memmove(s->held.p, s->held.p + s->given, s->held.n - s->given);
    s->held.n -= s->given;
    s->given = 0;
}

static long find_stop(const fm_stopper *s, size_t *at)
{
    for (*at = 0; *at < s->held.n; ++*at)
        for (size_t i = 0; i < s->n_stops; i++) {
            const size_t n = strlen(s->stops[i]);
            if (n && n <= s->held.n - *at && !memcmp(s->held.p + *at, s->stops[i], n)) return (long)i;
        }
    return -1;
}

/* Bytes at the end that a stop string begins with. */
static size_t count_doubtful(const fm_stopper *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n_stops; i++) {
        const size_t n = strlen(s->stops[i]);
        for (size_t k = n ? n - 1 : 0; k > most; k--)
            if (k <= s->held.n && !memcmp(s->held.p + s->held.n - k, s->stops[i], k)) most = k;
    }
    return most;
}

long fm_stopper_add(fm_stopper *s, fm_view text, fm_view *out)
{
    size_t at;
    drop_given(s);
    fm_str_put(&s->held, text.p, text.n);
    const long stop = find_stop(s, &at);
    s->given = stop >= 0 ? at : s->held.n - count_doubtful(s);
    *out = (fm_view){s->held.p, s->given};
    return stop;
}

fm_view fm_stopper_flush(fm_stopper *s)
{
    drop_given(s);
    s->given = s->held.n;
    return (fm_view){s->held.p, s->held.n};
}
