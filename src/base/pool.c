/* pool.c - the thread pool of pool.h, on Linux futexes and C11 atomics.
 *
 * A job is published by raising `job`; workers spin a moment, then sleep on that word.  Each worker that has returned from the
 * job lowers `running`; the caller waits for it to reach 0.  Inside a job, fm_pool_sync() is a barrier that counts `arrived`
 * and raises `round`.  In all three places the waiter announces itself (a sleeper count) before it looks at the word one last
 * time, and the waker changes the word before it looks at the count, both sequentially consistent: so a system call is made
 * only when somebody sleeps, and no wake-up is lost (the futex compares the word again in the kernel). */
#define _GNU_SOURCE
#include "base/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"

#define SPIN_NS     30000  /* how long a wait inside a job spins before it sleeps */
#define JOB_SPIN_NS 200000 /* and a wait for the next job: about what choosing a token takes */
#if defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)4 << 20) /* the sanitizer keeps most of a MiB for itself in each */
#else
#define STACK_BYTES ((size_t)1 << 20)
#endif

/* A word that threads wait on, on a cache line of its own. */
typedef struct gate {
    _Alignas(64) _Atomic uint32_t word;
    _Atomic uint32_t sleepers;
} gate;

typedef struct worker {
    fm_pool *pool;
    pthread_t thread;
    unsigned part;
    uint32_t job; /* the last job that was not for it */
} worker;

struct fm_pool {
    gate job;     /* number of the current job */
    gate running; /* workers still inside the current job */
    gate round;   /* barriers passed */
    _Alignas(64) _Atomic uint32_t arrived;
    /* From here on: written by the caller between jobs only. */
    _Alignas(64) void (*fn)(void *ctx, unsigned part, unsigned n_parts);
    void *ctx;
    bool stop;
    unsigned n_want, n_live; /* threads asked for; threads there are, the caller counted */
    long spin_ns;
    pid_t pid; /* process the workers live in; 0: not started */
    const fm_allocator *a;
    worker *workers; /* (n_want - 1) */
};

static void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000000000L + t.tv_nsec;
}

/* Spins until the word is no longer `old`; false when the time is up. */
static bool spin_while(gate *g, uint32_t old, long spin_ns)
{
    const long start = spin_ns > 0 ? now_ns() : 0;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(&g->word, memory_order_acquire) != old) return true;
            relax();
        }
    } while (spin_ns > 0 && now_ns() - start < spin_ns);
    return false;
}

/* Sleeps until the word is no longer `old`. */
static void sleep_while(gate *g, uint32_t old)
{
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->word) == old) futex_wait(&g->word, old);
    atomic_fetch_sub(&g->sleepers, 1);
}

static void wake_sleepers(gate *g)
{
    if (atomic_load(&g->sleepers) > 0) futex_wake(&g->word);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    fm_pool *p = w->pool;
    for (;;) {
        if (!spin_while(&p->job, w->job, p->spin_ns > 0 ? JOB_SPIN_NS : 0)) sleep_while(&p->job, w->job);
        w->job = atomic_load(&p->job.word);
        if (p->stop) return NULL;
        p->fn(p->ctx, w->part, p->n_live);
        if (atomic_fetch_sub(&p->running.word, 1) == 1) wake_sleepers(&p->running);
    }
}

/* Signals belong to the program's own threads; only those that a fault raises in this very thread are let through. */
static void block_signals(sigset_t *old)
{
    sigset_t set;
    sigfillset(&set);
    sigdelset(&set, SIGSEGV);
    sigdelset(&set, SIGBUS);
    sigdelset(&set, SIGFPE);
    sigdelset(&set, SIGILL);
    sigdelset(&set, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &set, old);
}

/* Starts the workers, as many as the system gives.  After a fork the words are as the last job left them, except that the
 * sleepers were threads of the parent. */
static void start_workers(fm_pool *p)
{
    atomic_store(&p->job.sleepers, 0);
    p->pid = getpid();
    p->n_live = 1;
    pthread_attr_t attr;
    sigset_t old;
    if (pthread_attr_init(&attr) != 0) return;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    block_signals(&old);
    while (p->n_live < p->n_want) {
        worker *w = &p->workers[p->n_live - 1];
        *w = (worker){.pool = p, .part = p->n_live, .job = atomic_load(&p->job.word)};
        if (pthread_create(&w->thread, &attr, worker_main, w) != 0) break;
        p->n_live++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}

static void publish_job(fm_pool *p)
{
    atomic_fetch_add(&p->job.word, 1);
    wake_sleepers(&p->job);
}

static void wait_for_workers(fm_pool *p)
{
    for (;;) {
        const uint32_t left = atomic_load_explicit(&p->running.word, memory_order_acquire);
        if (left == 0) return;
        if (!spin_while(&p->running, left, p->spin_ns)) sleep_while(&p->running, left);
    }
}

size_t fm_pool_bytes(unsigned n_threads)
{
    return fm_alloc_bytes(sizeof(fm_pool)) + fm_alloc_bytes((n_threads - 1) * sizeof(worker));
}

fm_status fm_pool_open(fm_pool **out, unsigned n_threads, const fm_allocator *a, fm_error *err)
{
    *out = NULL;
    const unsigned n_cpus = fm_cpu_count();
    if (n_threads == 0) n_threads = n_cpus;
    if (n_threads > FM_THREADS_MAX) {
        return fm_fail(err, FM_ERR_LIMIT,
                       "%u threads were asked for; the most is %u, and more than "
                       "the %u CPUs here only costs time",
                       n_threads, FM_THREADS_MAX, n_cpus);
    }
    void *memory = NULL, *workers = NULL;
    FM_TRY(fm_alloc(&memory, a, 1, sizeof(fm_pool), "a thread pool", err));
    const fm_status status = fm_alloc(&workers, a, n_threads - 1, sizeof(worker), "a thread pool's workers", err);
    if (status != FM_OK) {
        fm_free(a, memory);
        return status;
    }
    fm_pool *p = memory;
    p->a = a;
    p->workers = workers;
    p->n_want = n_threads;
    p->n_live = 1;
    /* With more threads than CPUs a spinning thread keeps the one it waits for from running. */
    p->spin_ns = n_threads > n_cpus ? 0 : SPIN_NS;
    *out = p;
    return FM_OK;
}

void fm_pool_free(fm_pool *p)
{
    if (p == NULL) return;
    if (p->pid == getpid()) {
        p->stop = true;
        publish_job(p);
        for (unsigned i = 0; i + 1 < p->n_live; i++) pthread_join(p->workers[i].thread, NULL);
    }
    fm_free(p->a, p->workers);
    fm_free(p->a, p);
}

unsigned fm_pool_threads(const fm_pool *p)
{
    return p->n_want;
}

void fm_pool_run(fm_pool *p, void (*fn)(void *ctx, unsigned part, unsigned n_parts), void *ctx)
{
    if (p->n_want > 1 && p->pid != getpid()) start_workers(p);
    if (p->n_live == 1) {
        fn(ctx, 0, 1);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->running.word, p->n_live - 1);
    publish_job(p);
    fn(ctx, 0, p->n_live);
    wait_for_workers(p);
}

void fm_pool_sync(fm_pool *p, unsigned part)
{
    FM_ASSERT(part < p->n_live);
    if (p->n_live == 1) return;
    const uint32_t round = atomic_load(&p->round.word); /* before arriving: it cannot move until we do */
    if (atomic_fetch_add(&p->arrived, 1) + 1 == p->n_live) {
        atomic_store(&p->arrived, 0);
        atomic_fetch_add(&p->round.word, 1);
        wake_sleepers(&p->round);
    } else if (!spin_while(&p->round, round, p->spin_ns)) {
        sleep_while(&p->round, round);
    }
}
