/* logprob.c - see logprob.h. */
#include "runtime/logprob.h"

#include <float.h>
#include <math.h>

#include "fmamba.h"

static double tame(float z)
{
    return isnan(z) ? -(double)INFINITY : (double)fminf(z, FLT_MAX);
}

fm_log_norm fm_log_norm_of(const float *logits, size_t n)
{
    double max = -(double)INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) max = fmax(max, tame(logits[i]));
    if (max == -(double)INFINITY) return (fm_log_norm){0, 0};
    for (size_t i = 0; i < n; i++) sum += exp(tame(logits[i]) - max);
    return (fm_log_norm){max, log(sum)};
}

double fm_log_softmax(float z, fm_log_norm norm)
{
    return tame(z) - norm.max - norm.log_rest;
}

FM_API double fm_logprob(const float *logits, size_t vocab, int32_t id)
{
    if (id < 0 || (size_t)id >= vocab) return -(double)INFINITY;
    return fm_log_softmax(logits[id], fm_log_norm_of(logits, vocab));
}
