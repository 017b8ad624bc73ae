/* outliers.c - see outliers.h. */
#include "train/outliers.h"

#include <math.h>

static const char *const names[FM_OUTLIER_SERIES] = {"loss", "norm"};

fm_status fm_outliers_open(fm_outliers *o, size_t window, const double limits[FM_OUTLIER_SERIES], const fm_allocator *a,
                           fm_error *err)
{
    *o = (fm_outliers){.window = window, .limits = {limits[0], limits[1]}, .a = a};
    if (window == 1 || window > FM_OUTLIERS_WINDOW_MAX)
        return fm_fail(err, FM_ERR_ARGUMENT, "a window of %zu steps to find outliers: expected 2 to %d, or 0 for none", window,
                       FM_OUTLIERS_WINDOW_MAX);
    for (size_t i = 0; window && i < FM_OUTLIER_SERIES; i++)
        FM_TRY(fm_alloc((void **)&o->values[i], a, window, sizeof(double), "a window of steps", err));
    return FM_OK;
}

void fm_outliers_free(fm_outliers *o)
{
    for (size_t i = 0; i < FM_OUTLIER_SERIES; i++) fm_free(o->a, o->values[i]);
    *o = (fm_outliers){0};
}

/* Value k of the window, the oldest being 0. */
static double value_at(const fm_outliers *o, size_t series, size_t k)
{
    return o->values[series][(o->oldest + k) % o->window];
}

static double z_of(const fm_outliers *o, size_t series, double v)
{
    const double n = (double)o->n;
    double sum = 0.0, squares = 0.0;
    for (size_t k = 0; k < o->n; k++) sum += value_at(o, series, k);
    const double mean = sum / n;
    for (size_t k = 0; k < o->n; k++) squares += (value_at(o, series, k) - mean) * (value_at(o, series, k) - mean);
    const double least = 1e-9 * fabs(mean) + 1e-30; /* of values that are all the same */
    return (v - mean) / fmax(sqrt(squares / (n - 1)), least);
}

static void take(fm_outliers *o, const double values[FM_OUTLIER_SERIES])
{
    const size_t at = (o->oldest + o->n) % o->window;
    for (size_t i = 0; i < FM_OUTLIER_SERIES; i++) o->values[i][at] = values[i];
    if (o->n < o->window)
        o->n++;
    else
        o->oldest = (o->oldest + 1) % o->window;
}

bool fm_outliers_judge(fm_outliers *o, const double values[FM_OUTLIER_SERIES], double z[FM_OUTLIER_SERIES])
{
    bool out = false;
    for (size_t i = 0; i < FM_OUTLIER_SERIES; i++) {
        z[i] = o->window && o->n == o->window ? z_of(o, i, values[i]) : 0.0;
        out |= o->limits[i] > 0.0 && z[i] > o->limits[i];
    }
    o->in_a_row = out ? o->in_a_row + 1 : 0;
    if (!out && o->window) take(o, values);
    return out;
}

/* ---- Checkpoints ---- */

void fm_outliers_put(const fm_outliers *o, fm_jsonw *w)
{
    fm_jsonw_object(w);
    fm_jsonw_key(w, "in_a_row"), fm_jsonw_u64(w, o->in_a_row);
    for (size_t i = 0; i < FM_OUTLIER_SERIES; i++) {
        fm_jsonw_key(w, names[i]);
        fm_jsonw_array(w);
        for (size_t k = 0; k < o->n; k++) fm_jsonw_f64(w, value_at(o, i, k));
        fm_jsonw_end(w, ']');
    }
    fm_jsonw_end(w, '}');
}

/* Of a longer window the last values count. */
static size_t read_ring(fm_outliers *o, size_t series, fm_json *j)
{
    size_t n = 0;
    double v;
    if (!fm_json_enter_array(j)) return 0;
    while (fm_json_element(j))
        if (fm_json_f64(j, &v) && o->window) o->values[series][n++ % o->window] = v;
    return n;
}

void fm_outliers_read(fm_outliers *o, fm_json *j)
{
    size_t n[FM_OUTLIER_SERIES] = {0};
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, names[0]))
            n[0] = read_ring(o, 0, j);
        else if (fm_view_is(key, names[1]))
            n[1] = read_ring(o, 1, j);
        else if (fm_view_is(key, "in_a_row"))
            fm_json_u64(j, &o->in_a_row);
        else
            fm_json_skip(j);
    }
    if (n[0] != n[1]) fm_json_fail(j, "windows of losses and norms of different lengths");
    o->n = n[0] < o->window ? n[0] : o->window;
    o->oldest = n[0] > o->n && o->window ? n[0] % o->window : 0;
}
