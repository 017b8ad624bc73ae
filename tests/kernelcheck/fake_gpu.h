/* fake_gpu.h - a GPU that is made of the CPU: all of kernels/cuda/stream.h over the reference kernels, so that what the host does
 * with a device can be tested where there is none.  Its memory is counted, and it can be lost on the way.
 *
 * A program that links it takes these functions for those of the library (-Wl,-z,muldefs). */
#ifndef FM_TESTS_FAKE_GPU_H
#define FM_TESTS_FAKE_GPU_H

#include "base/compiler.h"
#include "kernels/cuda/stream.h"

typedef struct fake_gpu {
    const char *why_none;      /* not NULL: there is no device, and why */
    size_t memory, used, most; /* bytes: of the device, taken, and taken at most */
    size_t downloaded;         /* bytes that came to the host */
    size_t n_argmax, n_sample; /* rows of which ids were chosen */
    size_t n_recorded;         /* steps */
    long waits_left;           /* at this wait (from 0) the device is lost; negative: never */
} fake_gpu;

extern fake_gpu fake;

void fake_gpu_reset(void); /* 1 GiB, nothing counted, never lost; everything must have been given back */

#endif
