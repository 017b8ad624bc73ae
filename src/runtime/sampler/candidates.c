/* candidates.c - ordering candidates and their probabilities. */
#include "runtime/sampler/sampler.h"

#include <math.h>

static bool better(const fm_candidate *a, const fm_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare(const void *a, const void *b)
{
    return better(a, b) ? -1 : better(b, a) ? 1 : 0;
}

static void swap_bytes(unsigned char *a, unsigned char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const unsigned char t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

/* Lets element i of a heap of n sink to its place. */
static void sink(unsigned char *p, size_t i, size_t n, size_t size, int (*order)(const void *a, const void *b))
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && order(p + child * size, p + (child + 1) * size) < 0) child++;
        if (order(p + i * size, p + child * size) >= 0) return;
        swap_bytes(p + i * size, p + child * size, size);
    }
}

void fm_sort_in_place(void *base, size_t n, size_t size, int (*order)(const void *a, const void *b))
{
    unsigned char *p = base;
    for (size_t i = n / 2; i-- > 0;) sink(p, i, n, size, order);
    for (size_t end = n; end-- > 1;) {
        swap_bytes(p, p + end * size, size);
        sink(p, 0, end, size, order);
    }
}

static void swap(fm_candidate *a, fm_candidate *b)
{
    const fm_candidate t = *a;
    *a = *b;
    *b = t;
}

/* Quickselect: afterwards the k likeliest are in front, in any order. */
static void select_best(fm_candidate *c, size_t n, size_t k)
{
    size_t begin = 0, end = n;
    while (end - begin > 1) {
        const fm_candidate pivot = c[begin + (end - begin - 1) / 2]; /* never the last: both sides shrink */
        size_t i = begin, j = end - 1;
        for (;; i++, j--) {
            while (better(&c[i], &pivot)) i++;
            while (better(&pivot, &c[j])) j--;
            if (i >= j) break;
            swap(&c[i], &c[j]);
        }
        if (k <= j + 1)
            end = j + 1;
        else
            begin = j + 1;
        if (k == j + 1) return;
    }
}

void fm_candidates_sort(fm_candidates *c, size_t k)
{
    if (k > c->n) k = c->n;
    if (k <= c->sorted) return;
    if (k < c->n) select_best(c->c, c->n, k);
    fm_sort_in_place(c->c, k, sizeof *c->c, compare);
    c->sorted = k;
}

float fm_candidates_max(const fm_candidates *c)
{
    float max = c->c[0].logit;
    for (size_t i = 1; i < c->n && !c->sorted; i++) max = c->c[i].logit > max ? c->c[i].logit : max;
    return max;
}

void fm_candidates_softmax(fm_candidates *c)
{
    const double max = (double)fm_candidates_max(c);
    double sum = 0;
    for (size_t i = 0; i < c->n; i++) sum += c->p[i] = exp((double)c->c[i].logit - max);
    for (size_t i = 0; i < c->n; i++) c->p[i] /= sum;
}

void fm_candidates_keep(fm_candidates *c, float least)
{
    const float max = fm_candidates_max(c);
    size_t n = 0, sorted = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->c[i].logit < least && c->c[i].logit < max) continue;
        sorted += i < c->sorted;
        c->c[n++] = c->c[i];
    }
    c->n = n;
    c->sorted = sorted;
}
