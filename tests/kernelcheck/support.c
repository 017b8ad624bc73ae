/* support.c - guarded memory, random inputs and verdicts for kernelcheck. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/kernelcheck/kernelcheck.h"

size_t kc_sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,  21,  22,  23,  24,
                     25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,  45,  46,  47,  48,
                     49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 100, 130, 333, 1024};
size_t kc_n_sizes = FM_COUNT(kc_sizes);
const unsigned kc_part_counts[KC_N_PART_COUNTS] = {2, 3, 5, 7};

static bool quick;

bool kc_is_quick(void)
{
    return quick;
}

void kc_quick(void)
{
    quick = true;
    static const size_t few[] = {1, 3, 16, 33, 64, 100};
    memcpy(kc_sizes, few, sizeof few);
    kc_n_sizes = FM_COUNT(few);
}

static void stop(const char *what)
{
    fprintf(stderr, "kernelcheck: %s\n", what);
    exit(2);
}

static fm_stream *device;
static fm_stream_options device_options;

void kc_use_device(fm_stream *s, fm_stream_options o)
{
    device = s;
    device_options = o;
}

fm_stream *kc_device(void)
{
    return device;
}

fm_stream_options kc_device_options(void)
{
    return device_options;
}

void *kc_bytes(kc *t, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page + page;
    if (t->n_buffers == KC_BUFFERS_MAX) stop("more buffers than KC_BUFFERS_MAX: release some");
    unsigned char *map = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + room, page, PROT_NONE) != 0) stop("out of memory");
    if (device && !fm_stream_register(device, map, room)) stop("the device cannot read memory of the host");
    kc_buffer *b = &t->buffers[t->n_buffers++];
    *b = (kc_buffer){.map = map, .begin = map + room - bytes, .map_bytes = room + page, .bytes = bytes};
    memset(b->begin - 64, 0xa5, 64);
    memset(b->begin, 0xff, bytes);
    return b->begin;
}

float *kc_floats(kc *t, size_t n)
{
    return kc_bytes(t, n * sizeof(float));
}

void kc_release(kc *t)
{
    for (size_t i = 0; i < t->n_buffers; i++) {
        const kc_buffer *b = &t->buffers[i];
        for (size_t j = 1; j <= 64; j++) {
            if (b->begin[-(ptrdiff_t)j] == 0xa5) continue;
            kc_true(t, false, "wrote before a buffer");
            break;
        }
        if (device) fm_stream_unregister(device, b->map);
        munmap(b->map, b->map_bytes);
    }
    t->n_buffers = 0;
}

double kc_normal(kc *t)
{
    return (double)fm_rng_normal(t->seed, t->stream, t->draws++);
}

size_t kc_below(kc *t, size_t n)
{
    return (size_t)(fm_rng_uniform(t->seed, t->stream, t->draws++) * (double)n);
}

void kc_fill(kc *t, float *p, size_t n, kc_kind kind)
{
    static const float scale[KC_KIND_COUNT] = {1.0f, 100.0f, 1e-40f, 0.0f, 1.0f};
    for (size_t i = 0; i < n; i++) p[i] = scale[kind] * (float)kc_normal(t);
    if (kind != KC_SPECIAL || n == 0) return;
    p[kc_below(t, n)] = INFINITY;
    p[kc_below(t, n)] = -INFINITY;
    p[kc_below(t, n)] = NAN;
    p[kc_below(t, n)] = -0.0f;
}

fm_tensor kc_matrix(kc *t, fm_dtype type, size_t rows, size_t cols)
{
    size_t bytes = 0;
    float *row = kc_floats(t, cols);
    kc_true(t, fm_dtype_bytes(type, 1, cols, &bytes), "whole blocks");
    unsigned char *raw = kc_bytes(t, rows * bytes);
    for (size_t r = 0; r < rows; r++) {
        kc_fill(t, row, cols, KC_NORMAL);
        fm_dtype_get(type)->encode(raw + r * bytes, row, NULL, cols);
    }
    return (fm_tensor){raw, type, rows, cols, bytes};
}

float *kc_input(kc *t, size_t n, kc_kind kind)
{
    float *p = kc_floats(t, n);
    kc_fill(t, p, n, kind);
    return p;
}

float *kc_copy(kc *t, const float *from, size_t n)
{
    float *p = kc_floats(t, n);
    if (n > 0) memcpy(p, from, n * sizeof(float));
    return p;
}

float kc_rounded(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7f800000) == 0x7f800000) return v; /* what is not finite stays so */
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&v, &bits, sizeof v);
    return v;
}

float *kc_half(kc *t, const float *from, size_t n)
{
    uint16_t *p = kc_bytes(t, n * sizeof *p);
    for (size_t i = 0; i < n; i++) {
        const float v = kc_rounded(from[i]);
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        p[i] = (uint16_t)(bits >> 16);
    }
    return (float *)(void *)p;
}

static void fail(kc *t, const char *where, double got, double want, double bound)
{
    if (t->n_failed++ < KC_FAILURES_SHOWN)
        fprintf(stderr, "  %s/%s: %s: got %.9g, expected %.9g within %.3g\n", t->k.name, t->op, where, got, want, bound);
}

void kc_near(kc *t, double got, double want, double bound, const char *where)
{
    t->n_checks++;
    if (isnan(want) || isnan(got) || isinf(want) || isinf(got)) {
        if (!(isnan(want) && isnan(got)) && got != want) fail(t, where, got, want, bound);
        return;
    }
    const double error = fabs(got - want);
    if (error == 0.0) return;
    if (error > bound) fail(t, where, got, want, bound);
    if (error > t->worst * bound) t->worst = error / bound;
}

void kc_same(kc *t, const void *a, const void *b, size_t bytes, const char *where)
{
    kc_true(t, bytes == 0 || memcmp(a, b, bytes) == 0, where);
}

void kc_true(kc *t, bool cond, const char *where)
{
    t->n_checks++;
    if (cond) return;
    if (t->n_failed++ < KC_FAILURES_SHOWN) fprintf(stderr, "  %s/%s: %s\n", t->k.name, t->op, where);
}

void *kc_list(int place, const void *list, size_t bytes)
{
    static unsigned char *lists;
    if (!lists) lists = device ? fm_stream_alloc_host(device, KC_LISTS * KC_LIST_BYTES) : calloc(KC_LISTS, KC_LIST_BYTES);
    if (!lists || bytes > KC_LIST_BYTES) stop("no room for a list");
    return memcpy(lists + place * KC_LIST_BYTES, list, bytes);
}

fm_ragged kc_ragged(const size_t *begin, size_t n_seq)
{
    fm_ragged r = {.n_seq = n_seq, .n_tokens = begin[n_seq]};
    for (size_t s = 0; s < n_seq; s++)
        if (begin[s + 1] - begin[s] > r.longest) r.longest = begin[s + 1] - begin[s];
    r.begin = kc_list(KC_LIST_BEGIN, begin, (n_seq + 1) * sizeof *begin);
    return r;
}

static void run_on_device(void (*call)(void *ctx, const fm_run *run), void *ctx)
{
    const char *why = NULL;
    call(ctx, &(fm_run){.n_parts = 1, .stream = device});
    if (!fm_stream_wait(device, &why)) stop(why);
}

void kc_parts(void (*call)(void *ctx, const fm_run *run), void *ctx, unsigned n_parts)
{
    if (device) {
        run_on_device(call, ctx);
        return;
    }
    for (unsigned part = n_parts; part-- > 0;) call(ctx, &(fm_run){.part = part, .n_parts = n_parts});
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- Time ---- */

static double best_of(double budget, void (*call)(void *ctx, const fm_run *run), void *ctx)
{
    const fm_run all = {.part = 0, .n_parts = 1};
    double best = INFINITY;
    call(ctx, &all);
    for (double start = seconds(); seconds() - start < budget;) {
        const double begin = seconds();
        call(ctx, &all);
        best = fmin(best, seconds() - begin);
    }
    return best;
}

enum { PEAK_ROUNDS = 20000, READ_BYTES = 512 << 20 };

static void run_peak(void *ctx, const fm_run *run)
{
    (void)run;
    ((const fm_peak *)ctx)->run(PEAK_ROUNDS);
}

typedef struct reading {
    const kc_machine *m;
    const void *p;
} reading;

static void run_read(void *ctx, const fm_run *run)
{
    const reading *r = ctx;
    volatile uint64_t sum = r->m->peaks.read(r->p, READ_BYTES);
    (void)sum;
    (void)run;
}

void kc_machine_measure(kc_machine *m, unsigned features)
{
    fm_peaks_for(&m->peaks, features);
    for (int k = 0; k < FM_PEAK_COUNT; k++) {
        fm_peak peak = m->peaks.kind[k];
        m->peak[k] = peak.how ? peak.ops * PEAK_ROUNDS / best_of(0.05, run_peak, &peak) : 0.0;
    }
    void *p = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) stop("out of memory");
    madvise(p, READ_BYTES, MADV_HUGEPAGE);
    memset(p, 1, READ_BYTES);
    m->read = READ_BYTES / best_of(0.3, run_read, &(reading){m, p});
    munmap(p, READ_BYTES);
}

static void print_part(double rate, const char *unit, double peak)
{
    printf(" %9.2f %s", rate * 1e-9, unit);
    if (peak > 0.0)
        printf(" %5.1f %%", 100.0 * rate / peak);
    else
        printf("        ");
}

void kc_rate(kc *t, const char *what, const kc_work *w, void (*call)(void *ctx, const fm_run *run), void *ctx)
{
    const double best = best_of(0.2, call, ctx);
    printf("%-17s %-8s %-28s %12.0f ns", t->k.name, t->op, what, best * 1e9);
    if (w->bytes > 0.0) print_part(w->bytes / best, "GB/s", t->machine->read);
    if (w->ops > 0.0) print_part(w->ops / best, "GOP/s", t->machine->peak[w->arithmetic]);
    if (w->others > 0.0) print_part(w->others / best, w->unit, 0.0);
    putchar('\n');
    fflush(stdout);
}

void kc_time(kc *t, const char *what, double work, const char *unit, void (*call)(void *ctx, const fm_run *run), void *ctx)
{
    const bool bytes = strcmp(unit, "GB/s") == 0, ops = strcmp(unit, "GOP/s") == 0;
    const kc_work w = {.bytes = bytes ? work : 0.0, .ops = ops ? work : 0.0, .others = bytes || ops ? 0.0 : work, .unit = unit};
    kc_rate(t, what, &w, call, ctx);
}
