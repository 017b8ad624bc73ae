/* outliers.h - steps whose loss or gradient norm stands out from those before: z-scores over a sliding window.
 *
 * Steps that stand out do not enter the window, else one spike would hide the next.  Everything is a function of the values
 * taken, oldest first, so that a window that was saved and read again judges with the same bits. */
#ifndef FM_TRAIN_OUTLIERS_H
#define FM_TRAIN_OUTLIERS_H

#include "base/json.h"

enum { FM_OUTLIERS_WINDOW_MAX = 4096, FM_OUTLIER_SERIES = 2 };

typedef struct fm_outliers {
    size_t window;                     /* steps looked back at; 0: nobody stands out */
    double limits[FM_OUTLIER_SERIES];  /* of the z-scores of loss and gradient norm; 0: none */
    double *values[FM_OUTLIER_SERIES]; /* (window) rings */
    size_t n, oldest;
    uint64_t in_a_row; /* steps that stood out since the last one that did not */
    const fm_allocator *a;
} fm_outliers;

/* `limits` as in the struct.  FM_ERR_ARGUMENT: a window of one step, or beyond FM_OUTLIERS_WINDOW_MAX. */
fm_status fm_outliers_open(fm_outliers *o, size_t window, const double limits[FM_OUTLIER_SERIES], const fm_allocator *a,
                           fm_error *err);
void fm_outliers_free(fm_outliers *o);

/* Does a step stand out?  z gets how many standard deviations each value is above the mean of the window; 0 until it is full. */
bool fm_outliers_judge(fm_outliers *o, const double values[FM_OUTLIER_SERIES], double z[FM_OUTLIER_SERIES]);

/* To and from the state of a checkpoint: one value, an object. */
void fm_outliers_put(const fm_outliers *o, fm_jsonw *w);
void fm_outliers_read(fm_outliers *o, fm_json *j);

#endif
