/* npy.h - NumPy's .npy format 1.0, written only. */
#ifndef FM_FORMAT_NPY_H
#define FM_FORMAT_NPY_H

#include "base/file.h"

/* Opens o and writes the header of a C-ordered little-endian float32 array of this shape; the caller streams the data with
 * fm_out_write() and commits. */
fm_status fm_npy_create_f32(fm_out *o, const char *path, const size_t *shape, unsigned n_dims, fm_error *err);

#endif
