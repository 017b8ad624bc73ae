/* shape.h - the shapes of known models, by name. */
#ifndef FM_MODEL_SHAPE_H
#define FM_MODEL_SHAPE_H

#include "model/arch/arch.h"

const char *fm_shape_name(size_t i); /* NULL after the last */
/* Architecture and configuration of a shape; FM_ERR_ARGUMENT lists the names. */
fm_status fm_shape_find(const char *name, const fm_arch **arch, fm_config *config, fm_error *err);

#endif
