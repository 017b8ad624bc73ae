/* stepcheck.c - recorded steps of decoding on a GPU against the same steps launched kernel by kernel: bit for bit.
 *
 * usage: stepcheck MODEL...
 *
 * A step that is watched (on_hidden) is never recorded.  Two sessions take the same tokens, one watched and one not, in steps of
 * 1 to 64 sequences, for logits and for the likeliest ids, with states in f32 and in bf16; both then take one watched step more,
 * which shows their states. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/session.h"

enum { STEPS = 5, MOST = 64 };

typedef struct side {
    fm_session *s;
    fm_seq seq[MOST];
    int32_t ids[MOST];
} side;

static fm_error err;

static void check(fm_status status)
{
    if (status == FM_OK) return;
    fprintf(stderr, "stepcheck: %s\n", err.text);
    exit(2);
}

static void look(void *ctx, size_t layer, size_t first, size_t n_rows, const float *rows)
{
    (void)ctx, (void)layer, (void)first, (void)n_rows, (void)rows;
}

static void open_side(side *a, const fm_model *m, size_t n, bool half)
{
    const fm_session_options o = {.n_seq = MOST, .chunk = MOST, .threads = 1, .bf16_states = half};
    check(fm_session_open(&a->s, m, &o, &err));
    for (size_t i = 0; i < n; i++) check(fm_seq_new(a->s, &a->seq[i], &err));
}

static void step(side *a, size_t n, int at, size_t vocab, fm_want want, bool watched)
{
    fm_span spans[MOST] = {0};
    int32_t tokens[MOST];
    for (size_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)((size_t)(at * 977 + 31) * (i + 3) % vocab);
        spans[i] = (fm_span){.seq = a->seq[i], .tokens = &tokens[i], .n = 1, .want = want, .id = &a->ids[i]};
        if (watched && i == 0) spans[i].on_hidden = look;
    }
    check(fm_step(a->s, spans, n, &err));
}

/* Rows of logits that differ, and of how many floats. */
static size_t compare(const side *a, const side *b, size_t n, size_t vocab, double *worst)
{
    size_t floats = 0;
    for (size_t i = 0; i < n; i++) {
        const float *p = fm_seq_logits(a->s, a->seq[i]), *q = fm_seq_logits(b->s, b->seq[i]);
        for (size_t k = 0; k < vocab; k++) {
            const double d = p[k] > q[k] ? p[k] - q[k] : q[k] - p[k];
            if (memcmp(p + k, q + k, sizeof *p) == 0) continue;
            floats++;
            if (!(d <= *worst)) *worst = d;
        }
    }
    return floats;
}

static size_t launches; /* of a recorded step of one column; 0: none was recorded, and nothing compared */

static bool run(const fm_model *m, size_t n, fm_want want, bool half)
{
    const size_t vocab = fm_model_get_info(m).vocab;
    side a, b;
    double worst = 0.0;
    size_t differ = 0, other_ids = 0;
    open_side(&a, m, n, half);
    open_side(&b, m, n, half);
    for (int at = 0; at < STEPS; at++) {
        step(&a, n, at, vocab, want, true);
        step(&b, n, at, vocab, want, false);
        if (want == FM_WANT_LAST) differ += compare(&a, &b, n, vocab, &worst);
        for (size_t i = 0; i < n && want == FM_WANT_LIKELIEST; i++) other_ids += a.ids[i] != b.ids[i];
    }
    step(&a, n, STEPS, vocab, FM_WANT_LAST, true);
    step(&b, n, STEPS, vocab, FM_WANT_LAST, true);
    const size_t after = compare(&a, &b, n, vocab, &worst);
    const bool good = !differ && !after && !other_ids;
    if (!good)
        printf("  %zu columns, %s, states in %s: %zu logits of recorded steps and %zu after them differ (by %.3g), %zu ids\n",
               n, want == FM_WANT_LAST ? "logits" : "ids", half ? "bf16" : "f32", differ, after, worst, other_ids);
    if (n == 1) launches = fm_session_launches(b.s);
    fm_session_free(a.s);
    fm_session_free(b.s);
    return good;
}

int main(int argc, char **argv)
{
    static const size_t columns[] = {1, 2, 7, 8, 9, 16, 17, 33, 64};
    bool all = true;
    for (int i = 1; i < argc; i++) {
        fm_model *m;
        check(fm_model_open(&m, argv[i], &(fm_model_options){.device = "cuda", .no_tokenizer = true}, &err));
        const fm_model_info info = fm_model_get_info(m);
        bool good = true;
        for (size_t k = 0; k < 2 * sizeof columns / sizeof *columns; k++) {
            good &= run(m, columns[k / 2], FM_WANT_LAST, k % 2);
            good &= run(m, columns[k / 2], FM_WANT_LIKELIEST, k % 2);
        }
        good &= launches > 0;
        printf("%s: %s, %s, %zu states, %zu launches a token\n", good ? "same bits" : "OTHER BITS", info.name, info.type,
               info.d_state, launches);
        fflush(stdout);
        all &= good;
        fm_model_free(m);
    }
    return all ? 0 : 1;
}
