/* scale.c - from values to places, and round numbers between them; see panel.h. */
#include <math.h>
#include <stdio.h>

#include "plot/panel.h"

fm_scale fm_scale_of(double low, double high, bool logarithmic)
{
    if (logarithmic) {
        high = fmax(high, 1e-300);
        low = fmin(fmax(low, 1e-300), high);
        if (high / low < 1.5) low /= 1.5, high *= 1.5;
    } else if (high - low <= 1e-9 * fmax(fabs(low), fabs(high)) || !(high - low > 0)) {
        const double around = fmax(fabs(low) * 0.1, 1e-9);
        low -= around, high += around;
    }
    return (fm_scale){low, high, logarithmic};
}

double fm_scale_at(const fm_scale *s, double v)
{
    if (!s->log) return (v - s->low) / (s->high - s->low);
    return log(fmax(v, s->low * 1e-3) / s->low) / log(s->high / s->low);
}

/* The round step not below what `want` steps need. */
static double round_step(double range, size_t want)
{
    const double raw = range / (double)want, power = pow(10, floor(log10(raw)));
    return power * (raw <= power * 1.0001 ? 1 : raw <= 2 * power ? 2 : raw <= 5 * power ? 5 : 10);
}

static size_t linear_ticks(const fm_scale *s, size_t want, double out[FM_TICKS_MAX])
{
    const double step = round_step(s->high - s->low, want), first = ceil(s->low / step - 1e-9);
    size_t n = 0;
    for (size_t i = 0; i < FM_TICKS_MAX; i++) {
        const double v = (first + (double)i) * step;
        if (v > s->high + 1e-9 * step) break;
        out[n++] = fabs(v) < 1e-9 * step ? 0 : v;
    }
    return n;
}

static size_t log_ticks(const fm_scale *s, size_t want, double out[FM_TICKS_MAX])
{
    static const double within[] = {1, 2, 5};
    const double first = floor(log10(s->low)), decades = log10(s->high) - log10(s->low);
    const int apart = (int)fmax(1, ceil(decades / (double)want));
    const size_t each = decades * 3 <= (double)want + 1 ? 3 : 1;
    size_t n = 0;
    for (int k = 0; n < FM_TICKS_MAX; k += apart) {
        const double power = pow(10, first + k);
        if (power > s->high * 1.0001) break;
        for (size_t i = 0; i < each && n < FM_TICKS_MAX; i++)
            if (power * within[i] >= s->low * 0.9999 && power * within[i] <= s->high * 1.0001) out[n++] = power * within[i];
    }
    return n;
}

size_t fm_scale_ticks(const fm_scale *s, size_t want, double out[FM_TICKS_MAX])
{
    return s->log ? log_ticks(s, want, out) : linear_ticks(s, want, out);
}

void fm_scale_label(char out[24], double v)
{
    static const char units[] = {'k', 'M', 'G', 'T'};
    const double size = fabs(v);
    size_t i = 0;
    if (size > 0 && (size < 0.01 || size >= 1e15)) {
        const int power = (int)floor(log10(size) + 1e-9);
        snprintf(out, 24, "%.3ge%d", v / pow(10, power), power);
    } else if (size < 1000) {
        snprintf(out, 24, "%.4g", v);
    } else {
        for (v /= 1000; fabs(v) >= 1000 && i + 1 < sizeof units; v /= 1000) i++;
        snprintf(out, 24, "%.4g%c", v, units[i]);
    }
}
