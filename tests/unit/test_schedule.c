/* test_schedule.c - the promise of fmamba.h: the logits of a token are the same bits whatever the schedule.
 *
 * Cuts: for every weight type and kernel table, a 64-token prompt in all 63 two-part splits, all chunk sizes 1 .. 64 and 100
 * seeded random cuts, against the prompt in one piece.  Schedules: weight type, table, batch, threads, chunk size and where
 * the sequence
 * comes from (live, forked, restored from a file), every pair of values at least once; "full" runs the whole product. */
#include "base/cpu.h"
#include "unit/tiny_model.h"

enum { PROMPT = 64, RANDOM_CUTS = 100, BATCH_MAX = 16, SHORT = 20 };

typedef struct world {
    test_folder folder;
    fm_model *models[FM_DTYPE_COUNT];
    const char *tables[8];
    size_t n_tables;
} world;

static int open_world(void **state)
{
    static const char *const names[] = {"ref", "avx2", "avx512", "avx512+vnni", "avx512+vnni+bf16", "avx512+vnni+amx",
                                        "neon", "neon+dotprod"};
    static world w;
    char path[256];
    unsigned features;
    w.folder = test_folder_make();
    test_path(path, &w.folder, "m.gguf");
    for (size_t i = 0; i < FM_COUNT(names); i++)
        if (fm_cpu_cap(&features, names[i], NULL) == FM_OK) w.tables[w.n_tables++] = names[i];
    for (size_t t = 0; t < FM_DTYPE_COUNT; t++) {
        fm_error err = {0};
        tiny_model_write(path, (fm_dtype)t);
        if (fm_model_open(&w.models[t], path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
        unlink(path); /* the mapping keeps it */
    }
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    world *w = *state;
    for (size_t t = 0; t < FM_DTYPE_COUNT; t++) fm_model_free(w->models[t]);
    test_folder_remove(&w->folder);
    return 0;
}

static int32_t prompt_token(size_t sequence, size_t i)
{
    return (int32_t)((sequence * 131 + i * i * 7 + i * 13) % TINY_VOCAB);
}

static fm_session *session(const world *w, fm_dtype type, const char *table, size_t n_seq, size_t chunk, unsigned threads)
{
    fm_session *s;
    fm_error err = {0};
    const fm_session_options o = {.cpu = table, .n_seq = n_seq, .chunk = chunk, .threads = threads};
    if (fm_session_open(&s, w->models[type], &o, &err) != FM_OK) fail_msg("%s", err.text);
    return s;
}

/* Rows that arrive must equal those that are wanted. */
typedef struct expected {
    const float *rows; /* (n, TINY_VOCAB) */
    size_t begin, n;   /* the span's first token is row `begin` */
    bool record;
    bool differs;
} expected;

static void take(void *ctx, size_t first, size_t n, const float *rows)
{
    expected *e = ctx;
    float *at = (float *)(uintptr_t)e->rows + (e->begin + first) * TINY_VOCAB;
    assert_true(e->begin + first + n <= e->n);
    if (e->record)
        memcpy(at, rows, n * TINY_VOCAB * sizeof *rows);
    else
        e->differs |= memcmp(at, rows, n * TINY_VOCAB * sizeof *rows) != 0;
}

static void append(fm_session *s, fm_seq seq, const int32_t *tokens, size_t n, expected *e)
{
    fm_error err = {0};
    const fm_span span = {.seq = seq, .tokens = tokens, .n = n, .want = FM_WANT_ALL, .on_logits = take, .ctx = e};
    if (fm_step(s, &span, 1, &err) != FM_OK) fail_msg("%s", err.text);
    e->begin += n;
}

/* ---- Cuts of one sequence ---- */

typedef struct cuts {
    const world *w;
    fm_dtype type;
    const char *table;
    int32_t prompt[PROMPT];
    float rows[PROMPT * TINY_VOCAB];
} cuts;

/* Runs the prompt in pieces that end where `ends` has a bit set. */
static void check_cut(const cuts *c, fm_session *s, fm_seq seq, uint64_t ends, const char *what, size_t which)
{
    expected e = {.rows = c->rows, .n = PROMPT};
    fm_error err = {0};
    assert_ok(fm_seq_reset(s, seq, &err));
    for (size_t begin = 0, i = 0; i < PROMPT; i++)
        if (i + 1 == PROMPT || (ends >> i & 1)) {
            append(s, seq, c->prompt + begin, i + 1 - begin, &e);
            begin = i + 1;
        }
    if (e.differs) fail_msg("%s, %s: logits differ with %s %zu", fm_dtype_get(c->type)->name, c->table, what, which);
}

static void check_chunk(const cuts *c, size_t chunk)
{
    fm_seq seq;
    fm_session *s = session(c->w, c->type, c->table, 1, chunk, 1);
    assert_ok(fm_seq_new(s, &seq, NULL));
    check_cut(c, s, seq, 0, "chunks of", chunk);
    fm_session_free(s);
}

static void check_cuts(const world *w, fm_dtype type, const char *table)
{
    cuts c = {.w = w, .type = type, .table = table};
    fm_seq seq;
    fm_session *s = session(w, type, table, 1, 0, 1);
    assert_ok(fm_seq_new(s, &seq, NULL));
    for (size_t i = 0; i < PROMPT; i++) c.prompt[i] = prompt_token(1, i);
    append(s, seq, c.prompt, PROMPT, &(expected){.rows = c.rows, .n = PROMPT, .record = true});
    for (size_t i = 0; i + 1 < PROMPT; i++) check_cut(&c, s, seq, (uint64_t)1 << i, "a split after token", i);
    for (size_t i = 0; i < RANDOM_CUTS; i++) {
        uint32_t r[4];
        fm_rng_words(r, 3, 0, i);
        const uint64_t dense = (uint64_t)r[0] << 32 | r[1], thin = (uint64_t)r[2] << 32 | r[3];
        check_cut(&c, s, seq, i % 2 ? dense : dense & thin, "random cut", i);
    }
    check_cut(&c, s, seq, UINT64_MAX, "single tokens, case", 0);
    fm_session_free(s);
    for (size_t chunk = 1; chunk <= PROMPT; chunk++) check_chunk(&c, chunk);
}

static void cuts_do_not_matter(void **state)
{
    const world *w = *state;
    for (size_t k = 0; k < w->n_tables; k++)
        for (size_t t = 0; t < FM_DTYPE_COUNT; t++) check_cuts(w, (fm_dtype)t, w->tables[k]);
}

/* ---- Batches, threads, chunks, origins ---- */

enum { TYPE, TABLE, BATCH, THREADS, CHUNK, ORIGIN, N_FACTORS };
enum { LIVE, FORKED, RESTORED, N_ORIGINS };
static const size_t chunk_sizes[] = {512, 1, 7, 33};

typedef struct schedule {
    size_t v[N_FACTORS];
} schedule;

/* Sequence i of a batch: its own prompt of its own length, the first `head` tokens of which come from its origin. */
static size_t length_of(size_t i)
{
    return 3 + (i * 7) % (SHORT - 2);
}
static size_t head_of(size_t i)
{
    return 1 + i % 3;
}

/* What each sequence gives when it runs alone, in one piece: (BATCH_MAX, TINY_VOCAB). */
static void run_alone(const world *w, fm_dtype type, const char *table, float *out)
{
    fm_session *s = session(w, type, table, 1, 0, 1);
    fm_seq seq;
    assert_ok(fm_seq_new(s, &seq, NULL));
    for (size_t i = 0; i < BATCH_MAX; i++) {
        int32_t prompt[SHORT];
        for (size_t k = 0; k < length_of(i); k++) prompt[k] = prompt_token(i, k);
        assert_ok(fm_seq_reset(s, seq, NULL));
        assert_ok(fm_seq_append(s, seq, prompt, length_of(i), NULL));
        memcpy(out + i * TINY_VOCAB, fm_seq_logits(s, seq), TINY_VOCAB * sizeof *out);
    }
    fm_session_free(s);
}

/* The sequence goes through a file and comes back under another handle. */
static fm_seq restore(const world *w, fm_session *s, fm_seq seq)
{
    char path[256];
    fm_state *st;
    fm_error err = {0};
    test_path(path, &w->folder, "s.state");
    if (fm_state_take(&st, s, seq, &err) != FM_OK || fm_state_save(st, NULL, path, FM_STATE_F32, &err) != FM_OK)
        fail_msg("%s", err.text);
    fm_state_free(st);
    fm_seq_free(s, seq);
    if (fm_seq_new(s, &seq, &err) != FM_OK || fm_state_load(&st, NULL, path, NULL, &err) != FM_OK ||
        fm_state_put(s, seq, st, false, &err) != FM_OK)
        fail_msg("%s", err.text);
    fm_state_free(st);
    return seq;
}

static fm_seq begin_sequence(const world *w, fm_session *s, size_t i, size_t origin)
{
    int32_t head[4];
    fm_seq seq, fork;
    assert_ok(fm_seq_new(s, &seq, NULL));
    for (size_t k = 0; k < head_of(i); k++) head[k] = prompt_token(i, k);
    assert_ok(fm_seq_append(s, seq, head, head_of(i), NULL));
    if (origin == RESTORED) return restore(w, s, seq);
    if (origin == LIVE) return seq;
    assert_ok(fm_seq_fork(s, seq, &fork, NULL));
    assert_ok(fm_seq_append(s, seq, head, head_of(i), NULL)); /* what the original does later is its own business */
    fm_seq_free(s, seq);
    return fork;
}

static void check_schedule(const world *w, const schedule *p, const float *alone)
{
    const size_t n = p->v[BATCH] + 1;
    fm_session *s =
        session(w, (fm_dtype)p->v[TYPE], w->tables[p->v[TABLE]], n + 1, chunk_sizes[p->v[CHUNK]], (unsigned)p->v[THREADS] + 1);
    int32_t tails[BATCH_MAX][SHORT];
    fm_span spans[BATCH_MAX];
    fm_error err = {0};
    for (size_t i = 0; i < n; i++) {
        const size_t head = head_of(i), rest = length_of(i) - head;
        for (size_t k = 0; k < rest; k++) tails[i][k] = prompt_token(i, head + k);
        spans[i] = (fm_span){.seq = begin_sequence(w, s, i, p->v[ORIGIN]), .tokens = tails[i], .n = rest};
    }
    if (fm_step(s, spans, n, &err) != FM_OK) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++)
        if (memcmp(fm_seq_logits(s, spans[i].seq), alone + i * TINY_VOCAB, TINY_VOCAB * sizeof *alone))
            fail_msg("%s, %s: sequence %zu of %zu differs (%zu threads, chunks of %zu, origin %zu)",
                     fm_dtype_get((fm_dtype)p->v[TYPE])->name, w->tables[p->v[TABLE]], i, n, p->v[THREADS] + 1,
                     chunk_sizes[p->v[CHUNK]], p->v[ORIGIN]);
    fm_session_free(s);
}

/* ---- Which schedules: every pair of values of two factors at least once ---- */

typedef struct cover {
    size_t size[N_FACTORS];
    bool done[N_FACTORS][N_FACTORS][16][16];
} cover;

static size_t gain(const cover *c, const schedule *p, size_t factor, size_t value, size_t n_set)
{
    size_t n = 0;
    for (size_t f = 0; f < n_set; f++) n += f != factor && !c->done[f][factor][p->v[f]][value];
    return n;
}

/* The first pair that is still open, then for each other factor the value that covers most; false when all are covered. */
static bool next_schedule(const cover *c, schedule *p)
{
    for (size_t a = 0; a < N_FACTORS; a++)
        for (size_t b = a + 1; b < N_FACTORS; b++)
            for (size_t i = 0; i < c->size[a]; i++)
                for (size_t k = 0; k < c->size[b]; k++) {
                    if (c->done[a][b][i][k]) continue;
                    *p = (schedule){0};
                    p->v[a] = i, p->v[b] = k;
                    for (size_t f = 0; f < N_FACTORS; f++) {
                        if (f == a || f == b) continue;
                        size_t best = 0;
                        for (size_t v = 0; v < c->size[f]; v++)
                            if (gain(c, p, f, v, N_FACTORS) > gain(c, p, f, best, N_FACTORS)) best = v;
                        p->v[f] = best;
                    }
                    return true;
                }
    return false;
}

static void mark_covered(cover *c, const schedule *p)
{
    for (size_t a = 0; a < N_FACTORS; a++)
        for (size_t b = 0; b < N_FACTORS; b++) c->done[a][b][p->v[a]][p->v[b]] = true;
}

static const float *alone_for(const world *w, const schedule *p)
{
    static float rows[FM_DTYPE_COUNT][8][BATCH_MAX * TINY_VOCAB];
    static bool have[FM_DTYPE_COUNT][8];
    const size_t t = p->v[TYPE], k = p->v[TABLE];
    if (!have[t][k]) run_alone(w, (fm_dtype)t, w->tables[k], rows[t][k]);
    have[t][k] = true;
    return rows[t][k];
}

static void schedules_do_not_matter(void **state)
{
    const world *w = *state;
    static cover c;
    c = (cover){.size = {FM_DTYPE_COUNT, w->n_tables, BATCH_MAX, 4, FM_COUNT(chunk_sizes), N_ORIGINS}};
    size_t n = 0;
    for (schedule p; next_schedule(&c, &p); n++) {
        mark_covered(&c, &p);
        check_schedule(w, &p, alone_for(w, &p));
    }
    printf("%zu schedules cover every pair\n", n);
}

static void every_schedule(void **state)
{
    const world *w = *state;
    const size_t size[N_FACTORS] = {FM_DTYPE_COUNT, w->n_tables, BATCH_MAX, 4, FM_COUNT(chunk_sizes), N_ORIGINS};
    schedule p = {0};
    for (;;) {
        check_schedule(w, &p, alone_for(w, &p));
        size_t f = 0;
        while (f < N_FACTORS && ++p.v[f] == size[f]) p.v[f++] = 0;
        if (f == N_FACTORS) return;
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest daily[] = {cmocka_unit_test(cuts_do_not_matter), cmocka_unit_test(schedules_do_not_matter)};
    const struct CMUnitTest slow[] = {cmocka_unit_test(every_schedule)};
    if (argc > 1 && !strcmp(argv[1], "full")) return cmocka_run_group_tests(slow, open_world, close_world);
    return cmocka_run_group_tests(daily, open_world, close_world);
}
