/* bench_roofline.c - what this machine can do at most with these threads, and what that means for a test.
 *
 * A step reads every weight but the embedding once, and reads and writes the state of each sequence; it multiplies every matrix
 * with every token, the head with one per sequence.  Whichever takes longer at the measured peak, bytes or operations, is the
 * limit.  Norms, convolution and scan are not counted: they are what stands between a kernel and 100 %. */
#define _GNU_SOURCE /* MADV_HUGEPAGE */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cpu.h"
#include "cli/bench.h"
#include "model/model.h"

#define CACHE_MULTIPLE  4u /* of the last-level cache: what is left in it from the pass before is not seen again */
#define READ_BYTES_MIN  ((size_t)256 << 20)
#define READ_PASSES     3u
#define PEAK_SECONDS    10e-3 /* of a run in which the turbo clock and the start of threads no longer matter */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)

struct fm_bench_roofline {
    fm_device *device; /* whose limits count; NULL: the CPU's */
    fm_pool *pool;
    fm_peaks peaks;
    bool amx; /* the session's kernels use it */
    unsigned char *buffer;
    size_t bytes;
    double weight_bytes, state_bytes;                   /* of a step, of a sequence */
    double ops[FM_PEAK_COUNT], head_ops[FM_PEAK_COUNT]; /* of a token, by arithmetic; of a row of logits */
};

/* ---- Measuring: each thread its share, the slowest counts ---- */

typedef struct job {
    const fm_peaks *peaks;
    fm_peak_kind kind;
    size_t rounds;
    const unsigned char *p; /* NULL: multiply */
    size_t n;
} job;

static void work(void *ctx, unsigned part, unsigned n_parts)
{
    const job *j = ctx;
    const size_t share = j->n / n_parts / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    volatile uint64_t sum = 0;
    if (j->p)
        sum = j->peaks->read(j->p + part * share, share);
    else
        j->peaks->kind[j->kind].run(j->rounds);
    (void)sum;
}

static double seconds(fm_pool *pool, job *j)
{
    const double begun = fm_clock_s();
    fm_pool_run(pool, work, j);
    return fm_clock_s() - begun;
}

static double read_rate(const fm_bench_roofline *r, const unsigned char *p, size_t n)
{
    const unsigned threads = fm_pool_threads(r->pool);
    double best = 0;
    for (unsigned i = 0; i < READ_PASSES; i++) {
        const double bytes = (double)(n / threads / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES * threads);
        const double rate = bytes / seconds(r->pool, &(job){.peaks = &r->peaks, .p = p, .n = n});
        best = rate > best ? rate : best;
    }
    return best;
}

/* Twice as many rounds until they take long enough, then the best of three runs. */
double fm_bench_peak_rate(fm_pool *pool, const fm_peaks *peaks, fm_peak_kind kind)
{
    const fm_peak *peak = &peaks->kind[kind];
    job j = {.peaks = peaks, .kind = kind, .rounds = 1000};
    if (!peak->how) return 0;
    double best = seconds(pool, &j);
    while (best < PEAK_SECONDS) {
        j.rounds *= 2;
        best = seconds(pool, &j);
    }
    for (int i = 0; i < 2; i++) {
        const double again = seconds(pool, &j);
        best = again < best ? again : best;
    }
    return peak->ops * (double)j.rounds * fm_pool_threads(pool) / best;
}

/* On a GPU every product of many tokens is one of bf16, and few tokens are limited by memory whatever their arithmetic. */
static fm_bench_machine measure_device(const fm_bench_roofline *r)
{
    fm_bench_machine machine = {0};
    fm_device_peaks(r->device, &machine.read, &machine.peak[FM_PEAK_BF16]);
    return machine;
}

fm_bench_machine fm_bench_roofline_measure(fm_bench_roofline *r)
{
    if (r->device) return measure_device(r);
    fm_bench_machine machine = {.read = read_rate(r, r->buffer, r->bytes)};
    for (int kind = 0; kind < FM_PEAK_COUNT; kind++)
        machine.peak[kind] = fm_bench_peak_rate(r->pool, &r->peaks, (fm_peak_kind)kind);
    return machine;
}

fm_status fm_bench_roofline_mapped(fm_bench_roofline *r, const char *path, double *read, fm_error *err)
{
    fm_map map = {0};
    *read = 0;
    if (r->device || fm_path_is_dir(path)) return FM_OK;
    FM_TRY(fm_map_open(&map, path, FM_MAP_SHARED, err));
    if (map.n >= r->bytes) *read = read_rate(r, map.p, r->bytes);
    fm_map_close(&map);
    return FM_OK;
}

const fm_peaks *fm_bench_roofline_peaks(const fm_bench_roofline *r)
{
    if (r->device) return NULL;
    return &r->peaks;
}

/* ---- What a test needs ---- */

static void count_work(fm_bench_roofline *r, const fm_model *m)
{
    const size_t n = fm_model_weight_count(m);
    r->state_bytes = 2.0 * (double)fm_model_get_info(m).state_bytes;
    for (size_t i = 0; i < n; i++) {
        const fm_model_weight w = fm_model_weight_at(m, i);
        if (!w.loaded->data || (w.global && i == FM_GLOBAL_EMBED)) continue;
        r->weight_bytes += (double)w.loaded->rows * (double)w.loaded->stride;
        if (w.def->kind != FM_WEIGHT_MATRIX) continue;
        double *ops = w.global && i == FM_GLOBAL_HEAD ? r->head_ops : r->ops;
        const fm_peak_kind kind = r->device ? FM_PEAK_BF16 : fm_peak_of(&r->peaks, w.loaded->type);
        ops[kind] += 2.0 * (double)w.loaded->rows * (double)w.loaded->cols;
    }
}

/* The rate for an arithmetic: AMX where the kernels have it, and bf16 in f32 where its own instruction is the slower one. */
static double best_peak(const fm_bench_roofline *r, const fm_bench_machine *machine, fm_peak_kind *kind)
{
    const fm_peak_kind amx = *kind == FM_PEAK_I8 ? FM_PEAK_AMX_I8 : FM_PEAK_AMX_BF16;
    if (r->amx && *kind != FM_PEAK_F32 && machine->peak[amx] > machine->peak[*kind]) *kind = amx;
    if (machine->peak[*kind] < machine->peak[FM_PEAK_F32]) *kind = FM_PEAK_F32;
    return machine->peak[*kind];
}

fm_bench_limit fm_bench_roofline_limit(const fm_bench_roofline *r, const fm_bench_machine *machine, const fm_bench_test *t)
{
    const double tokens = (double)t->batch * (double)(t->prefill ? t->length : 1), logits = (double)t->batch;
    const double reading = (r->weight_bytes + (double)t->batch * r->state_bytes) / machine->read;
    double multiplying = 0, most = 0;
    fm_peak_kind by = FM_PEAK_F32;
    for (int k = 0; k < FM_PEAK_COUNT; k++) {
        fm_peak_kind kind = (fm_peak_kind)k;
        const double ops = tokens * r->ops[k] + logits * r->head_ops[k];
        if (ops == 0) continue;
        const double time = ops / best_peak(r, machine, &kind);
        multiplying += time;
        if (time > most) most = time, by = kind;
    }
    if (reading > multiplying) return (fm_bench_limit){tokens / reading, "memory"};
    return (fm_bench_limit){tokens / multiplying, fm_peak_name(by)};
}

/* ---- Memory to read: anonymous, in huge pages where the system gives them, larger than any cache ---- */

static size_t buffer_bytes(unsigned threads)
{
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE), pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t n = cache > 0 ? CACHE_MULTIPLE * (size_t)cache : 0;
    const size_t most = pages > 0 ? (size_t)pages * (size_t)page / 2 : READ_BYTES_MIN;
    if (n < READ_BYTES_MIN) n = READ_BYTES_MIN;
    if (n > most) n = most;
    return fm_round_up(n / threads, HUGE_PAGE_BYTES) * threads;
}

static void fill(void *ctx, unsigned part, unsigned n_parts)
{
    fm_bench_roofline *r = ctx;
    const size_t share = r->bytes / n_parts;
    memset(r->buffer + part * share, 1, share);
}

static fm_status take_buffer(fm_bench_roofline *r, fm_error *err)
{
    r->bytes = buffer_bytes(fm_pool_threads(r->pool));
    void *p = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return fm_fail_errno(err, "no %zu MiB to measure the memory with", r->bytes >> 20);
    r->buffer = p;
    madvise(p, r->bytes, MADV_HUGEPAGE); /* small pages are slower, not wrong */
    fm_pool_run(r->pool, fill, r);
    return FM_OK;
}

/* A limit that is not known must not be printed as one. */
static fm_status refuse_unmeasured(fm_bench_roofline *r, fm_error *err)
{
    const fm_bench_machine machine = measure_device(r);
    FM_TRY(fm_device_wait(r->device, err));
    if (machine.read > 0 && machine.peak[FM_PEAK_BF16] > 0) return FM_OK;
    return fm_fail(err, FM_ERR_MEMORY,
                   "--roofline: %s has no 512 MiB left to measure its limits in: fewer sequences (--batch), a smaller chunk "
                   "(-b) or a smaller model would leave them",
                   fm_device_name(r->device));
}

fm_status fm_bench_roofline_open(fm_bench_roofline **out, const fm_cli *c, const fm_model *m, const fm_session *s,
                                 fm_error *err)
{
    unsigned features = 0;
    FM_TRY(fm_cpu_cap(&features, fm_opt_str(&c->options, FM_OPT_CPU), err));
    FM_TRY(fm_alloc((void **)out, NULL, 1, sizeof **out, "the measurement", err));
    fm_bench_roofline *r = *out;
    r->amx = strstr(fm_session_kernels(s), "amx") != NULL;
    fm_peaks_for(&r->peaks, features);
    r->device = m->device;
    count_work(r, m);
    if (r->device) return refuse_unmeasured(r, err);
    FM_TRY(fm_pool_open(&r->pool, fm_session_threads(s), NULL, err));
    return take_buffer(r, err);
}

void fm_bench_roofline_free(fm_bench_roofline *r)
{
    if (!r) return;
    if (r->buffer) munmap(r->buffer, r->bytes);
    fm_pool_free(r->pool);
    fm_free(NULL, r);
}
