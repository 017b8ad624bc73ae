/* test_session.c - sequences and steps: what each call refuses, what it leaves behind, what it allocates. */
#include "unit/tiny_model.h"

typedef struct bed {
    test_folder folder;
    char path[256];
    fm_model *m;
} bed;

static int make_bed(void **state)
{
    static bed b;
    fm_error err = {0};
    b.folder = test_folder_make();
    test_path(b.path, &b.folder, "tiny.gguf");
    tiny_model_write(b.path, FM_Q4_K);
    if (fm_model_open(&b.m, b.path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    *state = &b;
    return 0;
}

static int drop_bed(void **state)
{
    const bed *b = *state;
    fm_model_free(b->m);
    test_folder_remove(&b->folder);
    return 0;
}

static fm_session *open_session(const bed *b, const fm_session_options *o)
{
    fm_session *s;
    fm_error err = {0};
    if (fm_session_open(&s, b->m, o, &err) != FM_OK) fail_msg("%s", err.text);
    return s;
}

static fm_seq new_seq(fm_session *s)
{
    fm_seq seq;
    assert_ok(fm_seq_new(s, &seq, NULL));
    return seq;
}

static const int32_t text[] = {1, 5, 9, 2, 40, 63, 0, 7, 8, 22};
enum { N = FM_COUNT(text) };

/* ---- Handles ---- */

static void handles_go_stale(void **state)
{
    fm_error err = {0};
    fm_session *s = open_session(*state, &(fm_session_options){.n_seq = 2});
    fm_seq a = new_seq(s), b = new_seq(s), c;
    assert_int_not_equal(a, 0);
    assert_fails(fm_seq_new(s, &c, &err), FM_ERR_LIMIT, err, "2 sequences");
    assert_int_equal(c, 0);
    assert_fails(fm_seq_fork(s, a, &c, &err), FM_ERR_LIMIT, err, "free one");
    fm_seq_free(s, a);
    fm_seq_free(s, a); /* harmless */
    assert_fails(fm_seq_append(s, a, text, N, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_fails(fm_seq_mark(s, a, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_fails(fm_seq_rewind(s, a, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_fails(fm_seq_reset(s, a, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_fails(fm_seq_fork(s, a, &c, &err), FM_ERR_ARGUMENT, err, "no such sequence");
    assert_int_equal(fm_seq_tokens(s, a), 0);
    assert_null(fm_seq_logits(s, a));
    c = new_seq(s); /* the same slot in a new life */
    assert_int_not_equal(c, a);
    assert_int_equal(fm_seq_append(s, a, text, N, NULL), FM_ERR_ARGUMENT);
    assert_ok(fm_seq_append(s, c, text, N, NULL));
    assert_ok(fm_seq_append(s, b, text, N, NULL));
    assert_int_equal(fm_seq_append(s, 0, text, N, NULL), FM_ERR_ARGUMENT);
    assert_int_equal(fm_seq_append(s, UINT64_MAX, text, N, NULL), FM_ERR_ARGUMENT);
    fm_session_free(s);
}

/* ---- What a step refuses, changing nothing ---- */

static void wrong_steps_change_nothing(void **state)
{
    fm_error err = {0};
    fm_session *s = open_session(*state, &(fm_session_options){.n_seq = 2});
    const fm_seq a = new_seq(s);
    float logits[TINY_VOCAB], embedding[TINY_D] = {0};
    const int32_t bad[] = {3, TINY_VOCAB, 4}, negative[] = {-1};
    assert_ok(fm_seq_append(s, a, text, N, NULL));
    memcpy(logits, fm_seq_logits(s, a), sizeof logits);
    assert_fails(fm_seq_append(s, a, bad, 3, &err), FM_ERR_LIMIT, err, "token 1 of span 0 is 64");
    assert_fails(fm_seq_append(s, a, negative, 1, &err), FM_ERR_LIMIT, err, "is -1");
    assert_fails(fm_seq_append(s, a, text, 0, &err), FM_ERR_ARGUMENT, err, "empty");
    assert_fails(fm_seq_append(s, a, NULL, 1, &err), FM_ERR_ARGUMENT, err, "tokens or embeddings");
    const fm_span both = {.seq = a, .tokens = text, .embeddings = embedding, .n = 1};
    assert_fails(fm_step(s, &both, 1, &err), FM_ERR_ARGUMENT, err, "tokens or embeddings");
    const fm_span twice[] = {{.seq = a, .tokens = text, .n = 1}, {.seq = a, .tokens = text, .n = 1}};
    assert_fails(fm_step(s, twice, 2, &err), FM_ERR_ARGUMENT, err, "twice");
    const fm_span deaf = {.seq = a, .tokens = text, .n = 1, .want = FM_WANT_ALL};
    assert_fails(fm_step(s, &deaf, 1, &err), FM_ERR_ARGUMENT, err, "on_logits");
    const fm_span placeless = {.seq = a, .tokens = text, .n = 1, .want = FM_WANT_LIKELIEST};
    assert_fails(fm_step(s, &placeless, 1, &err), FM_ERR_ARGUMENT, err, "a place for it");
    assert_fails(fm_step(s, twice, 0, &err), FM_ERR_ARGUMENT, err, "0 spans");
    assert_fails(fm_step(s, twice, 3, &err), FM_ERR_ARGUMENT, err, "3 spans");
    assert_int_equal(fm_seq_tokens(s, a), N);
    assert_memory_equal(fm_seq_logits(s, a), logits, sizeof logits);
    fm_session_free(s);
}

static void wrong_sessions_do_not_open(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_session *s;
    assert_fails(fm_session_open(&s, b->m, &(fm_session_options){.cpu = "mmx"}, &err), FM_ERR_ARGUMENT, err, "mmx");
    assert_null(s);
    assert_fails(fm_session_open(&s, b->m, &(fm_session_options){.chunk = (size_t)1 << 40}, &err), FM_ERR_LIMIT, err,
                 "chunks of");
    assert_fails(fm_session_open(&s, b->m, &(fm_session_options){.n_seq = SIZE_MAX}, &err), FM_ERR_LIMIT, err, "sequences");
    assert_int_equal(fm_session_bytes(b->m, &(fm_session_options){.n_seq = SIZE_MAX}), 0);
}

/* ---- Points in time ---- */

static void mark_rewind_reset(void **state)
{
    fm_session *s = open_session(*state, NULL);
    const fm_seq a = new_seq(s);
    float before[TINY_VOCAB];
    assert_null(fm_seq_logits(s, a));
    assert_ok(fm_seq_append(s, a, text, 4, NULL));
    memcpy(before, fm_seq_logits(s, a), sizeof before);
    assert_ok(fm_seq_mark(s, a, NULL));
    assert_ok(fm_seq_append(s, a, text + 4, N - 4, NULL));
    assert_memory_not_equal(fm_seq_logits(s, a), before, sizeof before);
    for (int twice = 0; twice < 2; twice++) {
        assert_ok(fm_seq_rewind(s, a, NULL));
        assert_int_equal(fm_seq_tokens(s, a), 4);
        assert_memory_equal(fm_seq_logits(s, a), before, sizeof before);
    }
    assert_ok(fm_seq_reset(s, a, NULL));
    assert_int_equal(fm_seq_tokens(s, a), 0);
    assert_null(fm_seq_logits(s, a));
    assert_ok(fm_seq_append(s, a, text, 4, NULL));
    assert_memory_equal(fm_seq_logits(s, a), before, sizeof before);
    assert_ok(fm_seq_rewind(s, a, NULL)); /* no mark any more: the beginning */
    assert_int_equal(fm_seq_tokens(s, a), 0);
    fm_session_free(s);
}

static void documents_begin_anew(void **state)
{
    fm_session *s = open_session(*state, NULL);
    const fm_seq a = new_seq(s);
    float fresh[TINY_VOCAB];
    assert_ok(fm_seq_append(s, a, text, 5, NULL));
    memcpy(fresh, fm_seq_logits(s, a), sizeof fresh);
    assert_ok(fm_seq_append(s, a, text, N, NULL));
    assert_ok(fm_step(s, &(fm_span){.seq = a, .tokens = text, .n = 5, .reset = true}, 1, NULL));
    assert_int_equal(fm_seq_tokens(s, a), 5);
    assert_memory_equal(fm_seq_logits(s, a), fresh, sizeof fresh);
    assert_ok(fm_step(s, &(fm_span){.seq = a, .tokens = text, .n = 1, .want = FM_WANT_NONE}, 1, NULL));
    assert_null(fm_seq_logits(s, a));
    fm_session_free(s);
}

/* Each of two sequences gets the id that its logits, asked for at the same place, have as their largest. */
static void the_likeliest_comes_alone(void **state)
{
    const fm_session_options o = {.n_seq = 2, .threads = 1};
    fm_session *s = open_session(*state, &o);
    const fm_seq a = new_seq(s), b = new_seq(s);
    int32_t id[2] = {-1, -1};
    const fm_span spans[] = {{.seq = a, .tokens = text, .n = N, .want = FM_WANT_LIKELIEST, .id = &id[0]},
                             {.seq = b, .tokens = text, .n = 3, .want = FM_WANT_LIKELIEST, .id = &id[1]}};
    assert_ok(fm_step(s, spans, 2, NULL));
    for (size_t i = 0; i < 2; i++) {
        assert_ok(fm_step(s, &(fm_span){.seq = a, .tokens = text, .n = spans[i].n, .reset = true}, 1, NULL));
        const float *logits = fm_seq_logits(s, a);
        assert_in_range(id[i], 0, TINY_VOCAB - 1);
        for (int32_t k = 0; k < TINY_VOCAB; k++)
            assert_true(k < id[i] ? logits[k] < logits[id[i]] : logits[k] <= logits[id[i]]);
    }
    fm_session_free(s);
}

/* ---- Embeddings and hidden states ---- */

typedef struct hidden {
    float embedding[N * TINY_D];
    size_t layers;
} hidden;

static void keep_embedding(void *ctx, size_t layer, size_t first, size_t n, const float *rows)
{
    hidden *h = ctx;
    if (layer == 0) memcpy(h->embedding + first * TINY_D, rows, n * TINY_D * sizeof *rows);
    h->layers |= (size_t)1 << layer;
}

static void embeddings_stand_for_tokens(void **state)
{
    static hidden h;
    fm_session *s = open_session(*state, &(fm_session_options){.n_seq = 2, .chunk = 3});
    const fm_seq a = new_seq(s), b = new_seq(s);
    assert_ok(fm_step(s, &(fm_span){.seq = a, .tokens = text, .n = N, .on_hidden = keep_embedding, .ctx = &h}, 1, NULL));
    assert_int_equal(h.layers, 7); /* embedding, one block, final norm */
    assert_ok(fm_step(s, &(fm_span){.seq = b, .embeddings = h.embedding, .n = N}, 1, NULL));
    assert_memory_equal(fm_seq_logits(s, a), fm_seq_logits(s, b), TINY_VOCAB * sizeof(float));
    fm_session_free(s);
}

/* ---- Cancelling ---- */

static bool count_down(void *ctx)
{
    int *left = ctx;
    return (*left)-- <= 0;
}

/* However many questions pass before the "yes", the sequence stands behind whole chunks and goes on with the same bits. */
static void cancelled_steps_stand_behind_whole_chunks(void **state)
{
    int left = 1000000;
    float want[TINY_VOCAB];
    fm_error err = {0};
    fm_session *s = open_session(*state, &(fm_session_options){.chunk = 4, .cancel = count_down, .ctx = &left});
    const fm_seq a = new_seq(s);
    assert_ok(fm_seq_append(s, a, text, N, NULL));
    memcpy(want, fm_seq_logits(s, a), sizeof want);
    for (int questions = 0;; questions++) {
        left = 1000000;
        assert_ok(fm_seq_reset(s, a, NULL));
        left = questions;
        const fm_status status = fm_seq_append(s, a, text, N, &err);
        left = 1000000;
        if (status == FM_OK) break;
        assert_int_equal(status, FM_ERR_CANCELLED);
        const size_t done = (size_t)fm_seq_tokens(s, a);
        assert_true(done == 0 || done == 4 || done == 8);
        assert_ok(fm_seq_append(s, a, text + done, N - done, NULL));
        assert_memory_equal(fm_seq_logits(s, a), want, sizeof want);
    }
    fm_session_free(s);
}

/* ---- Memory ---- */

typedef struct counted {
    fm_allocator a;
    size_t bytes, calls;
} counted;

static void *count_alloc(void *ctx, size_t bytes, size_t align)
{
    counted *c = ctx;
    c->bytes += bytes;
    c->calls++;
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void count_free(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

static void sessions_allocate_what_they_say_and_steps_nothing(void **state)
{
    const bed *b = *state;
    for (unsigned threads = 1; threads <= 3; threads++)
        for (size_t n_seq = 1; n_seq <= 5; n_seq += 2) {
            counted c = {.a = {count_alloc, count_free, NULL}};
            c.a.ctx = &c;
            const fm_session_options o = {.allocator = &c.a, .n_seq = n_seq, .chunk = 16, .threads = threads};
            fm_session *s = open_session(b, &o);
            assert_int_equal(c.bytes, fm_session_bytes(b->m, &o));
            const size_t calls = c.calls;
            const fm_seq a = new_seq(s);
            assert_ok(fm_seq_append(s, a, text, N, NULL));
            for (int i = 0; i < 20; i++) assert_ok(fm_seq_append(s, a, text, 1, NULL));
            assert_ok(fm_seq_mark(s, a, NULL));
            assert_ok(fm_seq_rewind(s, a, NULL));
            assert_int_equal(c.calls, calls);
            fm_session_free(s);
        }
}

static fm_status open_and_step(const fm_allocator *a, void *ctx)
{
    const bed *b = ctx;
    fm_session *s;
    fm_seq seq;
    FM_TRY(fm_session_open(&s, b->m, &(fm_session_options){.allocator = a, .threads = 2}, NULL));
    fm_status status = fm_seq_new(s, &seq, NULL);
    if (status == FM_OK) status = fm_seq_append(s, seq, text, N, NULL);
    fm_session_free(s);
    return status;
}

static fm_status open_model(const fm_allocator *a, void *ctx)
{
    const bed *b = ctx;
    fm_model *m;
    FM_TRY(fm_model_open(&m, b->path, &(fm_model_options){.allocator = a}, NULL));
    fm_model_free(m);
    return FM_OK;
}

static void every_allocation_may_fail(void **state)
{
    assert_true(test_every_allocation(open_model, *state) > 3);
    assert_true(test_every_allocation(open_and_step, *state) > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(handles_go_stale),
                                       cmocka_unit_test(wrong_steps_change_nothing),
                                       cmocka_unit_test(wrong_sessions_do_not_open),
                                       cmocka_unit_test(mark_rewind_reset),
                                       cmocka_unit_test(documents_begin_anew),
                                       cmocka_unit_test(the_likeliest_comes_alone),
                                       cmocka_unit_test(embeddings_stand_for_tokens),
                                       cmocka_unit_test(cancelled_steps_stand_behind_whole_chunks),
                                       cmocka_unit_test(sessions_allocate_what_they_say_and_steps_nothing),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, make_bed, drop_bed);
}
