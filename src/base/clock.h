/* clock.h - time that only goes forward, for estimates of what work costs; never for anything that a result depends on. */
#ifndef FM_BASE_CLOCK_H
#define FM_BASE_CLOCK_H

double fm_clock_s(void); /* seconds since some moment */

#endif
