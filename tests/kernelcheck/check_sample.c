/* check_sample.c - a device's choice of tokens against tests/draw_reference.h.
 *
 * The device's probabilities are expf's of float: a border of top_p or of the draw nearer than 1e-6 may fall to the neighbour;
 * such draws are not judged. */
#include <stdlib.h>

#include "tests/draw_reference.h"
#include "tests/kernelcheck/kernelcheck.h"

enum { N = 12 };

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

static void check_case(kc *t, size_t vocab, float scale, kc_kind kind, bool ties)
{
    const size_t rows = kc_is_quick() ? 2 : N;
    const size_t stride = vocab + 3;
    float *x = kc_input(t, rows * stride, kind);
    for (size_t i = 0; i < rows * stride; i++) x[i] = scale * (ties ? rintf(x[i]) : x[i]);
    fm_draw *draws = kc_bytes(t, rows * sizeof *draws);
    for (size_t i = 0; i < rows; i++) {
        static const float temperature[] = {1.0f, 0.7f, 0.0f, 2.5f}, min_p[] = {0.0f, 0.05f, 0.0f},
                           top_p[] = {0.95f, 1.0f, 0.3f, 1.0f, 0.999f};
        static const int32_t top_k[] = {0, 40, 1, -1, 3};
        draws[i] = (fm_draw){temperature[kc_below(t, 4)], min_p[kc_below(t, 3)], top_p[kc_below(t, 5)], top_k[kc_below(t, 5)],
                             (double)kc_below(t, 1 << 30) / (1 << 30)};
    }
    int32_t *ids = kc_bytes(t, 2 * rows * sizeof *ids);
    const char *why = NULL;
    fm_cuda_argmax(kc_device(), ids, x, stride, rows, vocab);
    fm_cuda_sample(kc_device(), ids + rows, x, stride, draws, rows, vocab);
    kc_true(t, fm_stream_wait(kc_device(), &why), "choosing");
    draw_entry *e = malloc(vocab * sizeof *e);
    if (!e) abort();
    for (size_t i = 0; i < rows; i++) {
        bool sure;
        const float *row = x + i * stride;
        const int32_t want = draw_reference(e, row, vocab, &draws[i], &sure),
                      got = ids[rows + i] < 0 ? ~ids[rows + i] : ids[rows + i];
        const bool finite = all_finite(row, vocab);
        kc_near(t, ids[i], finite ? draw_likeliest(row, vocab) : ~draw_likeliest(row, vocab), 0.0, "the likeliest");
        if (sure) kc_near(t, ids[rows + i], finite ? want : ~want, 0.0, "a drawn token");
        kc_true(t, got >= 0 && (size_t)got < vocab, "a drawn token out of range");
    }
    free(e);
    kc_release(t);
}

static void check(kc *t)
{
    static const size_t vocab[] = {31, 1000, 1, 2, 1025, 65024};
    for (size_t i = 0; i < (kc_is_quick() ? 2 : FM_COUNT(vocab)); i++)
        for (int round = 0; round < (kc_is_quick() ? 1 : 4); round++) {
            check_case(t, vocab[i], 1.0f, KC_NORMAL, round % 2);
            check_case(t, vocab[i], 4.0f, KC_NORMAL, false);
        }
    for (int kind = kc_is_quick() ? KC_SPECIAL : 0; kind < KC_KIND_COUNT; kind++)
        check_case(t, 777, 1.0f, (kc_kind)kind, false);
}

const kc_op kc_op_sample = {.name = "sample", .check = check};
