/* test_toy_tasks.c - two tasks that only a selective state solves (Gu & Dao 2023, section 4.1), learnt to the last answer by a
 * model of two layers, on examples it has not seen:
 *
 *   selective copying  symbols stand between noise, at places that change: they come again after a separator, in their order
 *   induction          a mark is followed by a symbol; wherever it comes again, so does the symbol
 *
 * An example is a window that ends with the end token, which predicts nothing. */
#include <math.h>

#include "base/rng.h"
#include "fmamba.h"
#include "model/shape.h"
#include "train/init.h"
#include "train/trainer.h"
#include "unit/testing.h"

enum { EOS, NOISE, MARK, SYMBOLS }; /* ids; symbols are SYMBOLS, SYMBOLS + 1 ... */
enum { WINDOW_MAX = 64, EXAMPLES = 6000, HELD_OUT = 200, BATCH = 32 };

typedef struct task {
    const char *name;
    size_t length, vocab;
    /* Fills a window; answer[i] says whether the token after i follows from those before. */
    void (*make)(int32_t *ids, bool *answer, uint64_t example);
    double rate;
    unsigned steps; /* the last third of them with a rate that falls to nothing */
} task;

static size_t below(size_t n, uint64_t example, uint64_t i)
{
    return (size_t)(fm_rng_uniform(9, example, i) * (double)n);
}

/* ---- The tasks ---- */

enum { COPY_BODY = 16, COPY_N = 4, COPY_ALPHABET = 6, COPY_LENGTH = COPY_BODY + COPY_N + 2 };

static void make_copying(int32_t *ids, bool *answer, uint64_t example)
{
    int32_t *out = ids + COPY_BODY;
    size_t placed = 0;
    *out++ = MARK;
    for (size_t i = 0; i < COPY_BODY; i++) {
        const bool here = below(COPY_BODY - i, example, 2 * i) < COPY_N - placed; /* any choice of places is as likely */
        ids[i] = here ? SYMBOLS + (int32_t)below(COPY_ALPHABET, example, 2 * i + 1) : NOISE;
        if (here) out[placed++] = ids[i];
    }
    out[COPY_N] = EOS;
    for (size_t i = 0; i < COPY_LENGTH; i++) answer[i] = i >= COPY_BODY && i < COPY_BODY + COPY_N;
}

enum { INDUCTION_ALPHABET = 8, INDUCTION_LENGTH = 32, INDUCTION_EVERY = 8 };

/* A mark somewhere in each run of INDUCTION_EVERY tokens. */
static void make_induction(int32_t *ids, bool *answer, uint64_t example)
{
    const int32_t symbol = SYMBOLS + (int32_t)below(INDUCTION_ALPHABET, example, 0);
    for (size_t i = 0; i < INDUCTION_LENGTH; i++) {
        ids[i] = SYMBOLS + (int32_t)below(INDUCTION_ALPHABET, example, 1 + i);
        answer[i] = false;
    }
    for (size_t run = 0; run < INDUCTION_LENGTH; run += INDUCTION_EVERY) {
        const size_t at = run + below(INDUCTION_EVERY - 2, example, 100 + run);
        ids[at] = MARK, ids[at + 1] = symbol;
        answer[at] = run > 0;
    }
    ids[INDUCTION_LENGTH - 1] = EOS;
}

static const task tasks[] = {
    {"selective copying", COPY_LENGTH, SYMBOLS + COPY_ALPHABET, make_copying, 4e-3, 900},
    {"induction", INDUCTION_LENGTH, SYMBOLS + INDUCTION_ALPHABET, make_induction, 4e-3, 180},
};

/* ---- Learning them ---- */

typedef struct world {
    const task *task;
    test_folder f;
    fm_tokens text;
    fm_data data;
    fm_model *m;
    fm_trainer *t;
    fm_session *s;
    fm_seq seq;
} world;

static void must(fm_status status, const fm_error *err)
{
    if (status != FM_OK) fail_msg("%s", err->text);
}

static void world_open(world *w, const task *t)
{
    fm_error err = {0};
    const fm_config c = {.d_model = 64,
                         .d_inner = 128,
                         .d_state = 16,
                         .d_conv = 4,
                         .dt_rank = 4,
                         .n_layer = 2,
                         .vocab = t->vocab,
                         .norm_eps = 1e-5f,
                         .mixer_norms = true,
                         .mixer_rms_eps = 1e-6f,
                         .use_conv_bias = true,
                         .pad_vocab_multiple = 1,
                         .n_eos = 1};
    fm_train_options o = fm_train_defaults();
    *w = (world){.task = t, .f = test_folder_make()};
    w->text = (fm_tokens){.n = EXAMPLES * t->length + 1, .ids = calloc(EXAMPLES * t->length + 1, sizeof(int32_t))};
    assert_non_null(w->text.ids);
    for (size_t i = 0; i < EXAMPLES; i++) t->make(w->text.ids + i * t->length, (bool[WINDOW_MAX]){0}, HELD_OUT + i);
    w->data = (fm_data){.sources = {&w->text}, .weights = {1}, .n_sources = 1, .length = t->length, .seed = 3};
    const uint64_t step = BATCH * t->length;
    o.schedule = (fm_schedule){.peak = t->rate,
                               .warmup = 50 * step,
                               .decay_begin = t->steps * 2 / 3 * step,
                               .total = t->steps * step,
                               .decay = FM_DECAY_LINEAR,
                               .batch_end = BATCH};
    o.length = t->length, o.micro_batch = BATCH, o.eos = EOS, o.weight_decay = 0.0f, o.seed = 3, o.threads = 1;
    must(fm_init_write(fm_arch_by_name("falcon_mamba"), &c, 5, w->f.path, NULL, &err), &err);
    must(fm_model_open(&w->m, w->f.path, NULL, &err), &err);
    must(fm_trainer_open(&w->t, w->m, &w->data, &o, NULL, &err), &err);
    must(fm_session_open(&w->s, w->m, NULL, &err), &err);
    must(fm_seq_new(w->s, &w->seq, &err), &err);
}

static void world_close(world *w)
{
    fm_session_free(w->s);
    fm_trainer_free(w->t);
    fm_model_free(w->m);
    free(w->text.ids);
    test_folder_remove(&w->f);
}

typedef struct marks {
    const int32_t *ids;
    const bool *answer;
    size_t vocab, n, right;
} marks;

static void take_logits(void *ctx, size_t first, size_t n, const float *rows)
{
    marks *k = ctx;
    for (size_t i = 0; i < n; i++) {
        const float *row = rows + i * k->vocab;
        size_t best = 0;
        for (size_t v = 1; v < k->vocab; v++)
            if (row[v] > row[best]) best = v;
        if (!k->answer[first + i]) continue;
        k->n++;
        k->right += (int32_t)best == k->ids[first + i + 1];
    }
}

/* Part of the answers on held-out examples that are right. */
static double accuracy(world *w)
{
    int32_t ids[WINDOW_MAX];
    bool answer[WINDOW_MAX];
    fm_error err = {0};
    marks k = {.ids = ids, .answer = answer, .vocab = w->task->vocab};
    for (uint64_t example = 0; example < HELD_OUT; example++) {
        w->task->make(ids, answer, example);
        const fm_span span = {.seq = w->seq,
                              .tokens = ids,
                              .n = w->task->length - 1,
                              .reset = true,
                              .want = FM_WANT_ALL,
                              .on_logits = take_logits,
                              .ctx = &k};
        must(fm_step(w->s, &span, 1, &err), &err);
    }
    return (double)k.right / (double)k.n;
}

static void check_task(const task *t)
{
    world w;
    fm_train_step s = {0};
    world_open(&w, t);
    assert_true(accuracy(&w) < 0.5);
    for (unsigned step = 1; step <= t->steps; step++) {
        s = fm_trainer_step(w.t);
        assert_true(s.finite);
        if (step % (t->steps / 6) == 0)
            print_message("%s: step %u, loss %.3f, %.2f %% right\n", t->name, step, s.loss, 100.0 * accuracy(&w));
    }
    const double right = accuracy(&w);
    world_close(&w);
    if (right < 1.0) fail_msg("%s: %.2f %% of the answers are right after %u steps", t->name, 100.0 * right, t->steps);
}

static void selective_copying(void **state)
{
    (void)state;
    check_task(&tasks[0]);
}

static void induction(void **state)
{
    (void)state;
    check_task(&tasks[1]);
}

/* With an argument, the tests whose names match. */
int main(int argc, char **argv)
{
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(selective_copying), cmocka_unit_test(induction)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
