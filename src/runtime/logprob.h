/* logprob.h - log-softmax of raw logits, in double and never NaN. */
#ifndef FM_RUNTIME_LOGPROB_H
#define FM_RUNTIME_LOGPROB_H

#include <stddef.h>

/* log(sum(exp(z))) of some logits is max + log_rest; kept apart, differences to large logits lose nothing. */
typedef struct fm_log_norm {
    double max, log_rest;
} fm_log_norm;

fm_log_norm fm_log_norm_of(const float *logits, size_t n);
/* -INFINITY for a logit that is -INFINITY or no number; +INFINITY counts as FLT_MAX. */
double fm_log_softmax(float z, fm_log_norm norm);

#endif
