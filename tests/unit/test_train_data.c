/* test_train_data.c - the order of windows: every one once in an epoch, sources by their weights, stages that go on where the one
 * before stopped; and that any place of it can be asked, by any number of workers. */
#include "base/rng.h"
#include "testing.h"
#include "train/data.h"

enum { N = 257, BLOCK = 16 };

typedef struct world {
    int32_t ids[3][N];
    fm_tokens tokens[4];
    fm_data d;
} world;

/* Token i of source s is 1000 s + i; the third source comes in two parts. */
static void world_make(world *w)
{
    for (int s = 0; s < 3; s++)
        for (int i = 0; i < N; i++) w->ids[s][i] = 1000 * s + i;
    w->tokens[0] = (fm_tokens){.ids = w->ids[0], .n = N};
    w->tokens[1] = (fm_tokens){.ids = w->ids[1], .n = 100};
    w->tokens[2] = (fm_tokens){.ids = w->ids[2], .n = 40};
    w->tokens[3] = (fm_tokens){.ids = w->ids[2] + 40, .n = N - 40};
    w->d = (fm_data){.sources = {&w->tokens[0], &w->tokens[1], &w->tokens[2]},
                     .n_parts = {1, 0, 2},
                     .weights = {3, 1, 0.5},
                     .n_sources = 3,
                     .length = BLOCK,
                     .seed = 5};
}

static void check_window(const int32_t *w, size_t length)
{
    for (size_t i = 0; i <= length; i++) assert_int_equal(w[i], w[0] + (int)i);
}

static void an_epoch_has_every_window_once(void **state)
{
    (void)state;
    world w;
    int32_t out[BLOCK + 1];
    world_make(&w);
    w.d.n_sources = 1;
    int order[2][N / BLOCK];
    for (uint64_t epoch = 0; epoch < 2; epoch++) {
        unsigned char seen[N / BLOCK] = {0};
        for (uint64_t i = 0; i < N / BLOCK; i++) {
            assert_ok(fm_data_window(&w.d, &(fm_cursor){.drawn = epoch * (N / BLOCK)}, i, out, NULL));
            check_window(out, BLOCK);
            assert_int_equal(out[0] % BLOCK, 0);
            assert_int_equal(seen[out[0] / BLOCK]++, 0);
            order[epoch][i] = out[0];
        }
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
}

static void sources_come_by_their_weights(void **state)
{
    (void)state;
    world w;
    uint64_t n[3];
    size_t count[3] = {0};
    int32_t out[BLOCK + 1];
    world_make(&w);
    for (uint64_t i = 0; i < 900; i++) {
        fm_data_shares(&w.d, 0, i, n);
        for (int s = 0; s < 3; s++) assert_int_equal(n[s], count[s]);
        assert_ok(fm_data_window(&w.d, &(fm_cursor){0}, i, out, NULL));
        check_window(out, BLOCK);
        count[out[0] / 1000]++;
    }
    assert_int_equal(count[0], 600);
    assert_int_equal(count[1], 200);
    assert_int_equal(count[2], 100);
}

/* Windows of a part lie within it: none reaches from one file into the next. */
static void parts_are_read_apart(void **state)
{
    (void)state;
    world w;
    int32_t out[BLOCK + 1];
    world_make(&w);
    w.d.sources[0] = &w.tokens[2];
    w.d.n_parts[0] = 2;
    w.d.n_sources = 1;
    const size_t n = 39 / BLOCK + (N - 41) / BLOCK;
    unsigned char seen[N] = {0};
    for (uint64_t i = 0; i < n; i++) {
        assert_ok(fm_data_window(&w.d, &(fm_cursor){0}, i, out, NULL));
        const int at = out[0] - 2000;
        assert_true(at < 40 ? at % BLOCK == 0 && at + BLOCK < 40 : (at - 40) % BLOCK == 0);
        assert_int_equal(seen[at]++, 0);
    }
}

static const fm_stage stages[3] = {{.begin = 0, .length = 4, .weights = {1, 1, 0}},
                                   {.begin = 130, .length = 8, .weights = {1, 0, 1}},
                                   {.begin = 1000, .length = 16, .weights = {5, 3, 2}}};

/* A run of steps of 3 windows, as one worker sees it: what each step reads. */
enum { STEPS = 120, BATCH = 3 };

static void read_run(const fm_data *d, int32_t out[STEPS][BATCH][BLOCK + 1], fm_cursor *cursors, uint64_t *tokens)
{
    fm_cursor c = {0};
    uint64_t seen = 0;
    for (int i = 0; i < STEPS; i++) {
        const size_t length = fm_data_length(d, &c);
        cursors[i] = c;
        tokens[i] = seen;
        for (uint64_t b = 0; b < BATCH; b++) {
            memset(out[i][b], 0, sizeof out[i][b]);
            assert_ok(fm_data_window(d, &c, b, out[i][b], NULL));
            check_window(out[i][b], length);
        }
        seen += BATCH * length;
        fm_data_advance(d, &c, BATCH, seen);
    }
}

static void stages_go_on_where_the_last_stopped(void **state)
{
    (void)state;
    world w;
    int32_t out[STEPS][BATCH][BLOCK + 1];
    fm_cursor c[STEPS];
    uint64_t tokens[STEPS];
    unsigned char seen[N] = {0};
    world_make(&w);
    w.d.stages = stages;
    w.d.n_stages = 3;
    assert_ok(fm_data_check(&w.d, BATCH, NULL));
    read_run(&w.d, out, c, tokens);
    for (int i = 0; i < STEPS; i++) {
        const size_t length = fm_data_length(&w.d, &c[i]);
        assert_int_equal(length, tokens[i] < 130 ? 4 : tokens[i] < 1000 ? 8 : 16);
        for (int b = 0; b < BATCH; b++) {
            const int s = out[i][b][0] / 1000, at = out[i][b][0] % 1000;
            assert_true(w.d.stages[c[i].stage].weights[s] > 0);
            for (size_t k = 0; s == 0 && tokens[i] + BATCH * length < 400 && k < length; k++)
                assert_int_equal(seen[at + (int)k]++, 0); /* still in the first epoch of the first source */
        }
    }
}

/* Resumed at random steps, with 1 to 8 workers of which each takes every so-manyth window of a step. */
static void any_number_of_workers_reads_the_same(void **state)
{
    (void)state;
    world w;
    int32_t want[STEPS][BATCH][BLOCK + 1];
    fm_cursor cursors[STEPS];
    uint64_t tokens[STEPS];
    world_make(&w);
    w.d.stages = stages;
    w.d.n_stages = 3;
    read_run(&w.d, want, cursors, tokens);
    for (uint64_t workers = 1; workers <= 8; workers++) {
        const int from = (int)(fm_rng_uniform(3, workers, 0) * STEPS);
        fm_cursor c = cursors[from];
        uint64_t seen = tokens[from];
        for (int i = from; i < STEPS; i++) {
            const size_t length = fm_data_length(&w.d, &c);
            size_t n = 0;
            for (uint64_t rank = 0; rank < workers; rank++)
                for (uint64_t b = rank; b < BATCH; b += workers, n++) {
                    int32_t got[BLOCK + 1] = {0};
                    assert_ok(fm_data_window(&w.d, &c, b, got, NULL));
                    assert_memory_equal(got, want[i][b], sizeof got);
                }
            assert_int_equal(n, BATCH);
            seen += BATCH * length;
            fm_data_advance(&w.d, &c, BATCH, seen);
        }
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    world w;
    fm_error err = {0};
    world_make(&w);
    w.d.length = 100;
    assert_fails(fm_data_check(&w.d, 1, &err), FM_ERR_ARGUMENT, err,
                 "source 2 has 100 tokens, a window takes 100 and the one after");
    w.d.length = BLOCK; /* 16 windows of the first source, 6 of the second, 2 + 13 of the third */
    assert_ok(fm_data_check(&w.d, 37, NULL));
    assert_fails(fm_data_check(&w.d, 38, &err), FM_ERR_ARGUMENT, err,
                 "a step takes 38 windows of 16 tokens, but there is text for 37");
    fm_stage s[2] = {{.length = 6, .weights = {1}}, {.begin = 9, .length = 16, .weights = {1}}};
    w.d.stages = s;
    w.d.n_stages = 2;
    assert_fails(fm_data_check(&w.d, 1, &err), FM_ERR_ARGUMENT, err, "stage 1 has windows of 6 tokens: expected a divisor of");
    s[0].length = 8;
    s[1].begin = 0;
    assert_fails(fm_data_check(&w.d, 1, &err), FM_ERR_ARGUMENT, err, "stage 2 begins at 0 tokens");
    s[1].begin = 9;
    s[1].weights[0] = 0;
    assert_fails(fm_data_check(&w.d, 1, &err), FM_ERR_ARGUMENT, err, "stage 2 takes nothing");
}

/* A checkpoint may tell any place. */
static void places_no_run_reaches_are_refused(void **state)
{
    (void)state;
    static const fm_stage two[] = {{.length = 8, .weights = {1}}, {.begin = 100, .length = 16, .weights = {1}}};
    const fm_data d = {.n_sources = 1, .weights = {1}, .length = 16, .stages = two, .n_stages = 2};
    fm_cursor c = {.stage = 1, .drawn = 1u << 30, .taken = {(uint64_t)1 << 61}};
    fm_error err = {0};
    assert_ok(fm_data_check_cursor(&d, &c, "p", &err));
    c.drawn = (uint64_t)1 << 41;
    assert_fails(fm_data_check_cursor(&d, &c, "p", &err), FM_ERR_FORMAT, err,
                 "p: no run comes as far as it says (2199023255552 windows");
    c.drawn--;
    assert_ok(fm_data_check_cursor(&d, &c, "p", &err));
    c.taken[0] = (uint64_t)1 << 62;
    assert_fails(fm_data_check_cursor(&d, &c, "p", &err), FM_ERR_FORMAT, err, "the file is damaged");
    c.stage = 2;
    assert_fails(fm_data_check_cursor(&d, &c, "p", &err), FM_ERR_ARGUMENT, err,
                 "in stage 3 of its data, but data.stages has 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_epoch_has_every_window_once),
                                       cmocka_unit_test(sources_come_by_their_weights),
                                       cmocka_unit_test(parts_are_read_apart),
                                       cmocka_unit_test(stages_go_on_where_the_last_stopped),
                                       cmocka_unit_test(any_number_of_workers_reads_the_same),
                                       cmocka_unit_test(places_no_run_reaches_are_refused),
                                       cmocka_unit_test(what_does_not_fit_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
