/* outputs.h - the arrays that a kernel writes, all together: copied for another run, compared bit by bit. */
#ifndef FM_TESTS_KERNELCHECK_OUTPUTS_H
#define FM_TESTS_KERNELCHECK_OUTPUTS_H

#include "base/compiler.h"
#include "tests/kernelcheck/kernelcheck.h"

enum { OUTPUTS_MAX = 16 };

typedef struct outputs {
    float *p[OUTPUTS_MAX];
    size_t n[OUTPUTS_MAX], count;
} outputs;

/* Adds an array of n floats, that begin as `from` (NULL: not a number); gives its index. */
FM_UNUSED static size_t outputs_add(kc *t, outputs *o, const float *from, size_t n)
{
    o->p[o->count] = from ? kc_copy(t, from, n) : kc_floats(t, n);
    o->n[o->count] = n;
    return o->count++;
}

FM_UNUSED static outputs outputs_copy(kc *t, const outputs *from)
{
    outputs o = {.count = 0};
    for (size_t i = 0; i < from->count; i++) outputs_add(t, &o, from->p[i], from->n[i]);
    return o;
}

FM_UNUSED static void outputs_same(kc *t, const outputs *a, const outputs *b, const char *where)
{
    for (size_t i = 0; i < a->count; i++) kc_same(t, a->p[i], b->p[i], a->n[i] * sizeof(float), where);
}

#endif
