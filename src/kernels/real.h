/* real.h - the number that a kernel of the reference computes with.  The program's are float; tests compile ref/ a second time
 * with FM_REAL=double, against which finite differences can tell a wrong gradient from a rounded one. */
#ifndef FM_KERNELS_REAL_H
#define FM_KERNELS_REAL_H

#ifndef FM_REAL
#define FM_REAL float
#endif

typedef FM_REAL fm_real;

#endif
