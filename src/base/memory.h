/* memory.h - how much memory this process may still take. */
#ifndef FM_BASE_MEMORY_H
#define FM_BASE_MEMORY_H

#include <stdint.h>

/* Bytes: what the system says is available, within the limits on this process (RLIMIT_AS) and on its control group.  UINT64_MAX
 * when nothing says anything. */
uint64_t fm_memory_free(void);

#endif
