/* internal.h - what the element-wise kernels of every table share. */
#ifndef FM_KERNELS_INTERNAL_H
#define FM_KERNELS_INTERNAL_H

#include "kernels/kernels.h"

/* Channels are dealt out in runs of this many floats: four cache lines, a whole number of vectors of
 * every instruction set, so only the last part meets a partial vector. */
enum { FM_CHANNEL_GRANULE = 64 };

#endif
