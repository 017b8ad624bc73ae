/* stages.h - stages of a run as a configuration writes them. */
#ifndef FM_TRAIN_STAGES_H
#define FM_TRAIN_STAGES_H

#include "train/config.h"
#include "train/data.h"

/* data.stages into out (c->stages.n): words "from=4M length=1024 weights=1,3,0", of which length and weights are those of
 * data.length and data.train where they are missing.  `d` has the sources and their weights.
 * Errors  FM_ERR_ARGUMENT, names the stage and what was expected. */
fm_status fm_stages_parse(fm_stage *out, const fm_train_config *c, const fm_data *d, fm_error *err);

#endif
