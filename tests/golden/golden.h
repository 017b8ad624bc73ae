/* golden.h - reading what other programs computed, and running a model on the same ids. */
#ifndef FM_TESTS_GOLDEN_GOLDEN_H
#define FM_TESTS_GOLDEN_GOLDEN_H

#include <math.h>

#include "fmamba.h"
#include "format/safetensors.h"
#include "unit/testing.h"

/* A tensor of a golden file; `n` elements. */
typedef struct golden_tensor {
    const fm_st_tensor *t;
    size_t n, rows, cols;
} golden_tensor;

FM_UNUSED static golden_tensor golden_get(const fm_st *s, const char *name)
{
    const fm_st_tensor *t = fm_st_find(s, name);
    if (!t) fail_msg("no tensor %s", name);
    golden_tensor g = {t, 1, 1, 1};
    for (uint32_t i = 0; i < t->n_dims; i++) g.n *= t->dims[i];
    g.cols = t->n_dims ? t->dims[t->n_dims - 1] : 1;
    g.rows = g.n / g.cols;
    return g;
}

FM_UNUSED static float golden_at(const golden_tensor *g, size_t i)
{
    if (g->t->type == FM_ST_F16) {
        uint16_t h;
        memcpy(&h, g->t->data + 2 * i, sizeof h);
        return fm_f16_to_f32(h);
    }
    assert_int_equal(g->t->type, FM_ST_F32);
    float v;
    memcpy(&v, g->t->data + 4 * i, sizeof v);
    return v;
}

/* The ids of an I32 tensor in a block of the caller's, to be freed with free(). */
FM_UNUSED static int32_t *golden_ids(const fm_st *s, const char *name, size_t *n)
{
    const golden_tensor g = golden_get(s, name);
    assert_int_equal(g.t->type, FM_ST_I32);
    int32_t *ids = malloc(g.n * sizeof *ids);
    assert_non_null(ids);
    memcpy(ids, g.t->data, g.n * sizeof *ids);
    *n = g.n;
    return ids;
}

/* A model with a session of one sequence. */
typedef struct golden_run {
    fm_model *m;
    fm_session *s;
    fm_seq seq;
    fm_model_info info;
} golden_run;

FM_UNUSED static void golden_open(golden_run *r, const char *path, const fm_session_options *o)
{
    fm_error err = {0};
    if (fm_model_open(&r->m, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    r->info = fm_model_get_info(r->m);
    if (fm_session_open(&r->s, r->m, o, &err) != FM_OK) fail_msg("%s", err.text);
    if (fm_seq_new(r->s, &r->seq, &err) != FM_OK) fail_msg("%s", err.text);
}

FM_UNUSED static void golden_close(golden_run *r)
{
    fm_session_free(r->s);
    fm_model_free(r->m);
}

/* Rows that a callback gathers, whatever the chunks they come in. */
typedef struct golden_rows {
    float *p; /* (n_rows, cols) */
    size_t n_rows, cols, got;
} golden_rows;

FM_UNUSED static void golden_take(void *ctx, size_t first, size_t n, const float *rows)
{
    golden_rows *g = ctx;
    assert_true(first + n <= g->n_rows);
    memcpy(g->p + first * g->cols, rows, n * g->cols * sizeof *rows);
    g->got += n;
}

FM_UNUSED static int32_t golden_argmax(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

/* Logits (n, vocab) of all ids, from the start of a sequence; free with free(). */
FM_UNUSED static float *golden_logits(golden_run *r, const int32_t *ids, size_t n)
{
    fm_error err = {0};
    golden_rows rows = {malloc(n * r->info.vocab * sizeof(float)), n, r->info.vocab, 0};
    assert_non_null(rows.p);
    const fm_span span = {
        .seq = r->seq, .tokens = ids, .n = n, .reset = true, .want = FM_WANT_ALL, .on_logits = golden_take, .ctx = &rows};
    if (fm_step(r->s, &span, 1, &err) != FM_OK) fail_msg("%s", err.text);
    assert_int_equal(rows.got, n);
    return rows.p;
}

/* || a - b || / || b || over the last g->rows rows. */
FM_UNUSED static double golden_relative(const float *a, const golden_tensor *g)
{
    double d2 = 0, b2 = 0;
    for (size_t i = 0; i < g->n; i++) {
        const double b = (double)golden_at(g, i), d = (double)a[i] - b;
        d2 += d * d;
        b2 += b * b;
    }
    return sqrt(d2 / b2);
}

#endif
