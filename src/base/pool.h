/* pool.h - our thread pool: persistent workers that run one function together (SPMD) and meet at barriers.
 *
 * Workers that wait for a job spin for a fifth of a millisecond, so that the next token finds them awake, then sleep on a futex:
 * idle, they cost nothing.  Inside a job a barrier spins for a few tens of microseconds, then sleeps.  Fork-safe: in a child
 * process the pool starts its workers anew at the first job.  One thread at a time may use a pool. */
#ifndef FM_BASE_POOL_H
#define FM_BASE_POOL_H

#include <stddef.h>

#include "base/alloc.h"

typedef struct fm_pool fm_pool;

/* n_threads counts the caller, which works too; 0 means fm_cpu_count().  Threads start at the first job. */
fm_status fm_pool_open(fm_pool **out, unsigned n_threads, const fm_allocator *a, fm_error *err);
void fm_pool_free(fm_pool *p);
unsigned fm_pool_threads(const fm_pool *p);
size_t fm_pool_bytes(unsigned n_threads); /* what fm_pool_open() allocates for so many */

/* Calls fn(ctx, part, n_parts) once on every thread, n_parts = threads, and returns when all have returned.
 * If worker threads cannot be started the job runs with the threads there are (n_parts says how many). */
void fm_pool_run(fm_pool *p, void (*fn)(void *ctx, unsigned part, unsigned n_parts), void *ctx);

/* Inside a job: waits until every part has called it.  With one thread it is free. */
void fm_pool_sync(fm_pool *p, unsigned part);

#endif
