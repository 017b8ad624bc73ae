/* check_sample.c - a device's choice of tokens against the definition of docs/sampling.md, written out in double with a sort.
 *
 * The device's probabilities are expf's of float: a border of top_p or of the draw nearer than 1e-6 may fall to the neighbour;
 * such draws are not judged. */
#include <stdlib.h>

#include "tests/kernelcheck/kernelcheck.h"

typedef struct entry {
    float logit;
    int32_t id;
} entry;

static int by_rank(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static float tamed(float v)
{
    return v >= -1e30f ? fminf(v, 1e30f) : -1e30f;
}

static int32_t likeliest(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (tamed(x[i]) > tamed(x[best])) best = i;
    return (int32_t)best;
}

/* The choice; *sure is false where a border is too near. */
static int32_t choose(entry *e, const float *x, size_t n, const fm_draw *d, bool *sure)
{
    const float max = tamed(x[likeliest(x, n)]), least = d->min_p > 0 ? logf(d->min_p) : -1e30f;
    size_t kept = 0;
    double total = 0, sum = 0;
    *sure = true;
    if (d->temperature == 0) return likeliest(x, n);
    for (size_t i = 0; i < n; i++) {
        const float v = fmaxf((tamed(x[i]) - max) / d->temperature, -1e30f);
        if (fabsf(v - least) < 1e-6f * fabsf(least)) *sure = false;
        if (v >= least) e[kept++] = (entry){v, (int32_t)i};
    }
    const bool few = d->top_k > 0 && (size_t)d->top_k < kept;
    if (few || d->top_p < 1) qsort(e, kept, sizeof *e, by_rank);
    if (few) kept = (size_t)d->top_k;
    for (size_t i = 0; i < kept; i++) total += exp((double)e[i].logit);
    for (size_t i = 0; i < kept && d->top_p < 1; i++) {
        sum += exp((double)e[i].logit);
        if (fabs(sum - (double)d->top_p * total) < 1e-6 * total) *sure = false;
        if (sum >= (double)d->top_p * total) kept = i + 1;
    }
    total = sum = 0;
    for (size_t i = 0; i < kept; i++) total += exp((double)e[i].logit);
    for (size_t i = 0; i < kept; i++) {
        const double after = sum + exp((double)e[i].logit);
        if (fabs(after - d->random * total) < 1e-6 * total) *sure = false;
        if (after > d->random * total) return e[i].id;
        sum = after;
    }
    return likeliest(x, n);
}

enum { N = 12 };

static void check_case(kc *t, size_t vocab, float scale, kc_kind kind, bool ties)
{
    const size_t stride = vocab + 3;
    float *x = kc_input(t, N * stride, kind);
    for (size_t i = 0; i < N * stride; i++) x[i] = scale * (ties ? rintf(x[i]) : x[i]);
    fm_draw *draws = kc_bytes(t, N * sizeof *draws);
    for (size_t i = 0; i < N; i++) {
        static const float temperature[] = {1.0f, 0.7f, 0.0f, 2.5f}, min_p[] = {0.0f, 0.05f, 0.0f},
                           top_p[] = {0.95f, 1.0f, 0.3f, 1.0f, 0.999f};
        static const int32_t top_k[] = {0, 40, 1, -1, 3};
        draws[i] = (fm_draw){temperature[kc_below(t, 4)], min_p[kc_below(t, 3)], top_p[kc_below(t, 5)], top_k[kc_below(t, 5)],
                             (double)kc_below(t, 1 << 30) / (1 << 30)};
    }
    int32_t *ids = kc_bytes(t, 2 * N * sizeof *ids);
    const char *why = NULL;
    fm_cuda_argmax(kc_device(), ids, x, stride, N, vocab);
    fm_cuda_sample(kc_device(), ids + N, x, stride, draws, N, vocab);
    kc_true(t, fm_stream_wait(kc_device(), &why), "choosing");
    entry *e = malloc(vocab * sizeof *e);
    if (!e) abort();
    for (size_t i = 0; i < N; i++) {
        bool sure;
        const int32_t want = choose(e, x + i * stride, vocab, &draws[i], &sure);
        kc_near(t, ids[i], likeliest(x + i * stride, vocab), 0.0, "the likeliest");
        if (sure) kc_near(t, ids[N + i], want, 0.0, "a drawn token");
        kc_true(t, ids[N + i] >= 0 && (size_t)ids[N + i] < vocab, "a drawn token out of range");
    }
    free(e);
    kc_release(t);
}

static void check(kc *t)
{
    static const size_t vocab[] = {1, 2, 31, 1000, 1025, 65024};
    for (size_t i = 0; i < FM_COUNT(vocab); i++)
        for (int round = 0; round < 4; round++) {
            check_case(t, vocab[i], 1.0f, KC_NORMAL, round % 2);
            check_case(t, vocab[i], 4.0f, KC_NORMAL, false);
        }
    for (int kind = 0; kind < KC_KIND_COUNT; kind++) check_case(t, 777, 1.0f, (kc_kind)kind, false);
}

const kc_op kc_op_sample = {.name = "sample", .check = check};
