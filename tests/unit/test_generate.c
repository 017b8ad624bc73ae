/* test_generate.c - the loop: why it ends, what it reports, and that a text does not depend on where it was computed.  Ids with
 * a model of random weights; text with the model that ships with the sources. */
#include <math.h>

#include "text/tokenizer.h"
#include "unit/tiny_model.h"

#define TALES FM_SOURCE_DIR "/tests/data/tales/tales.gguf"

enum { IDS = 64 };

typedef struct world {
    test_folder folder;
    fm_model *tiny, *tales;
} world;

static int open_world(void **state)
{
    static world w;
    char path[256];
    fm_error err = {0};
    w.folder = test_folder_make();
    tiny_model_write(test_path(path, &w.folder, "m.gguf"), FM_F32);
    if (fm_model_open(&w.tiny, path, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    if (fm_model_open(&w.tales, TALES, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    assert_non_null(fm_model_tokenizer(w.tales));
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    world *w = *state;
    fm_model_free(w->tiny);
    fm_model_free(w->tales);
    test_folder_remove(&w->folder);
    return 0;
}

static const int32_t prompt[] = {5, 17, 3, 60, 21};

static fm_session *session(const fm_model *m)
{
    fm_session *s;
    const fm_session_options o = {.n_seq = 4, .threads = 1};
    assert_ok(fm_session_open(&s, m, &o, NULL));
    return s;
}

static fm_seq prompted(fm_session *s)
{
    fm_seq seq;
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_ok(fm_seq_append(s, seq, prompt, FM_COUNT(prompt), NULL));
    return seq;
}

/* Knows the prompt. */
static fm_sampler *sampler(const fm_model *m, float temperature)
{
    fm_sampler *s;
    fm_sampling p = fm_sampling_defaults(NULL);
    p.seed = 42;
    p.temperature = temperature;
    p.top_p = 1;
    p.repeat_penalty = 1.2f;
    p.frequency_penalty = 0.1f;
    assert_ok(fm_sampler_open(&s, &p, fm_model_get_info(m).vocab, fm_model_tokenizer(m), NULL, NULL));
    for (size_t i = 0; i < FM_COUNT(prompt); i++) fm_sampler_accept(s, prompt[i], true);
    return s;
}

/* What came through the callback. */
typedef struct heard {
    int32_t ids[IDS];
    char text[4096];
    size_t n, text_n, n_last; /* n_last: events with id -1 */
    size_t stop_after;        /* 0: never */
    size_t choice;
    const fm_session *session; /* check log-probabilities against this sequence */
    fm_seq seq;
} heard;

static void check_logprobs(const heard *h, const fm_token_event *e)
{
    const float *z = fm_seq_logits(h->session, h->seq);
    assert_non_null(z);
    assert_true(fabs(e->logprob - fm_logprob(z, TINY_VOCAB, e->id)) < 1e-12);
    size_t better = 0;
    for (size_t i = 0; i < e->n_top; i++) {
        assert_true(e->top_logprobs[i] <= (i ? e->top_logprobs[i - 1] : 0));
        assert_true(fabs(e->top_logprobs[i] - fm_logprob(z, TINY_VOCAB, e->top_ids[i])) < 1e-12);
    }
    for (int32_t id = 0; id < TINY_VOCAB && e->n_top; id++) better += z[id] > z[e->top_ids[e->n_top - 1]];
    assert_true(e->n_top == 0 || better == e->n_top - 1);
}

static bool hear(void *ctx, const fm_token_event *e)
{
    heard *h = ctx;
    assert_int_equal(e->choice, h->choice);
    assert_int_equal(e->i, h->n);
    assert_true(h->text_n + e->text_n < sizeof h->text);
    if (e->text_n) memcpy(h->text + h->text_n, e->text, e->text_n);
    h->text_n += e->text_n;
    h->text[h->text_n] = 0;
    if (e->id < 0) {
        assert_true(e->text_n > 0);
        h->n_last++;
        return true;
    }
    assert_int_equal(h->n_last, 0);
    assert_true(h->n < IDS);
    h->ids[h->n++] = e->id;
    if (h->session) check_logprobs(h, e);
    return h->n != h->stop_after;
}

static fm_generated generate(fm_session *s, fm_seq seq, fm_sampler *sampler_, fm_generation g, heard *h)
{
    fm_generated out;
    fm_error err = {0};
    g.on_token = hear;
    g.ctx = h;
    g.choice = h->choice;
    if (fm_generate(s, seq, sampler_, &g, &out, &err) != FM_OK) fail_msg("%s", err.text);
    assert_true(h->n_last <= 1);
    return out;
}

/* A fresh session, one generation of the tiny model. */
static fm_generated once(const world *w, float temperature, fm_generation g, heard *h)
{
    fm_session *s = session(w->tiny);
    fm_sampler *chooser = sampler(w->tiny, temperature);
    const fm_seq seq = prompted(s);
    const fm_generated out = generate(s, seq, chooser, g, h);
    assert_int_equal(fm_seq_tokens(s, seq), FM_COUNT(prompt) + out.n);
    assert_int_equal(h->n, out.n);
    fm_sampler_free(chooser);
    fm_session_free(s);
    return out;
}

/* ---- Ends ---- */

static void test_length(void **state)
{
    for (size_t n = 1; n < 20; n += 6) {
        heard h = {0};
        const fm_generated out = once(*state, 0.8f, (fm_generation){.n = n}, &h);
        assert_int_equal(out.stop, FM_STOP_LENGTH);
        assert_int_equal(out.n, n);
        assert_int_equal(h.text_n, 0);
    }
}

static void test_eos(void **state)
{
    heard all = {0}, h = {0};
    once(*state, 0.8f, (fm_generation){.n = 20}, &all);
    const int32_t eos[] = {63, all.ids[6]};
    size_t first = 0;
    while (all.ids[first] != eos[0] && all.ids[first] != eos[1]) first++;
    fm_generation g = {.n = 20, .eos = eos, .n_eos = 2};
    fm_generated out = once(*state, 0.8f, g, &h);
    assert_int_equal(out.stop, FM_STOP_EOS);
    assert_int_equal(out.n, first);
    assert_memory_equal(h.ids, all.ids, first * sizeof *h.ids);
    g.n = 0; /* as long as it takes */
    h = (heard){0};
    out = once(*state, 0.8f, g, &h);
    assert_int_equal(out.n, first);
    g.n = 20;
    g.ignore_eos = true;
    h = (heard){0};
    out = once(*state, 0.8f, g, &h);
    assert_int_equal(out.stop, FM_STOP_LENGTH);
    assert_memory_equal(h.ids, all.ids, sizeof all.ids);
}

static void test_cancelled(void **state)
{
    heard all = {0}, h = {.stop_after = 4};
    once(*state, 0.8f, (fm_generation){.n = 20}, &all);
    const fm_generated out = once(*state, 0.8f, (fm_generation){.n = 20}, &h);
    assert_int_equal(out.stop, FM_STOP_CANCELLED);
    assert_int_equal(out.n, 4);
    assert_memory_equal(h.ids, all.ids, 4 * sizeof *h.ids);
}

/* The session's own callback: what was given out stays in the sequence, and the text stops before the next choice. */
typedef struct impatience {
    size_t asked, patience;
} impatience;

static bool tire(void *ctx)
{
    impatience *c = ctx;
    return c->asked++ >= c->patience;
}

static void test_cancelled_by_session(void **state)
{
    const world *w = *state;
    heard all = {0};
    once(w, 0.8f, (fm_generation){.n = 20}, &all);
    for (size_t after = 0; after < 6; after++) {
        impatience c = {.patience = SIZE_MAX};
        const fm_session_options o = {.threads = 1, .cancel = tire, .ctx = &c};
        heard h = {0};
        fm_session *s;
        fm_sampler *chooser = sampler(w->tiny, 0.8f);
        assert_ok(fm_session_open(&s, w->tiny, &o, NULL));
        const fm_seq seq = prompted(s);
        c = (impatience){.patience = after};
        const fm_generated out = generate(s, seq, chooser, (fm_generation){.n = 20}, &h);
        assert_int_equal(out.stop, FM_STOP_CANCELLED);
        assert_int_equal(out.n, after);
        assert_int_equal(h.n, after);
        assert_int_equal(fm_seq_tokens(s, seq), FM_COUNT(prompt) + after);
        assert_memory_equal(h.ids, all.ids, after * sizeof *h.ids);
        fm_sampler_free(chooser);
        fm_session_free(s);
    }
}

static void test_refused(void **state)
{
    const world *w = *state;
    static const char *const stops[] = {"x"};
    fm_session *s = session(w->tiny);
    fm_sampler *chooser = sampler(w->tiny, 1), *other = sampler(w->tales, 1);
    fm_seq seq;
    fm_generated out;
    fm_error err;
    fm_generation g = {.n = 3};
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_fails(fm_generate(s, seq, chooser, &g, &out, &err), FM_ERR_ARGUMENT, err, "append a prompt");
    assert_ok(fm_seq_append(s, seq, prompt, 2, NULL));
    assert_fails(fm_generate(s, seq, other, &g, &out, &err), FM_ERR_ARGUMENT, err, "sampler");
    g.n_top = 21;
    assert_fails(fm_generate(s, seq, chooser, &g, &out, &err), FM_ERR_ARGUMENT, err, "21 alternatives");
    g = (fm_generation){.n = 3, .stops = stops, .n_stops = 1};
    assert_fails(fm_generate(s, seq, chooser, &g, &out, &err), FM_ERR_ARGUMENT, err, "tokenizer");
    g = (fm_generation){.n = 3};
    fm_seq_free(s, seq);
    assert_int_equal(fm_generate(s, seq, chooser, &g, &out, &err), FM_ERR_ARGUMENT);
    assert_int_equal(out.n, 0);
    fm_sampler_free(chooser);
    fm_sampler_free(other);
    fm_session_free(s);
}

/* ---- What it reports, and from where ---- */

static void test_logprobs(void **state)
{
    const world *w = *state;
    static const size_t tops[] = {0, 1, 5, 20};
    for (size_t i = 0; i < FM_COUNT(tops); i++) {
        fm_session *s = session(w->tiny);
        fm_sampler *chooser = sampler(w->tiny, 1.2f);
        heard h = {.session = s, .seq = prompted(s)};
        generate(s, h.seq, chooser, (fm_generation){.n = 12, .want_logprob = true, .n_top = tops[i]}, &h);
        assert_int_equal(h.n, 12);
        fm_sampler_free(chooser);
        fm_session_free(s);
    }
}

/* Choices of one prompt by fork: each its own text, the same text as when it is computed alone. */
static void test_choices(void **state)
{
    const world *w = *state;
    enum { CHOICES = 3 };
    heard forked[CHOICES] = {0};
    fm_session *s = session(w->tiny);
    const fm_seq root = prompted(s);
    for (size_t i = 0; i < CHOICES; i++) {
        heard alone = {.choice = i};
        fm_seq seq;
        fm_sampler *chooser = sampler(w->tiny, 1);
        forked[i].choice = i;
        assert_ok(fm_seq_fork(s, root, &seq, NULL));
        generate(s, seq, chooser, (fm_generation){.n = 24}, &forked[i]);
        fm_sampler_free(chooser);
        once(w, 1, (fm_generation){.n = 24}, &alone);
        assert_memory_equal(forked[i].ids, alone.ids, sizeof alone.ids);
        for (size_t k = 0; k < i; k++) assert_memory_not_equal(forked[i].ids, forked[k].ids, sizeof alone.ids);
    }
    fm_session_free(s);
}

/* Goes on in another session from a saved state, with a sampler that is told the text so far. */
static void continue_from(const world *w, const fm_state *st, const heard *so_far, heard *rest, size_t n)
{
    fm_session *s = session(w->tiny);
    fm_sampler *chooser = sampler(w->tiny, 1);
    fm_generated out;
    fm_seq seq;
    for (size_t i = 0; i < so_far->n; i++) fm_sampler_accept(chooser, so_far->ids[i], false);
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_ok(fm_state_put(s, seq, st, false, NULL));
    out = generate(s, seq, chooser, (fm_generation){.n = n}, rest);
    assert_int_equal(out.n, n);
    fm_sampler_free(chooser);
    fm_session_free(s);
}

static void test_continued(void **state)
{
    const world *w = *state;
    heard all = {0}, half = {0}, rest = {0};
    char path[256];
    fm_state *st;
    fm_session *s = session(w->tiny);
    fm_sampler *chooser = sampler(w->tiny, 1);
    const fm_seq seq = prompted(s);
    once(w, 1, (fm_generation){.n = 30}, &all);
    generate(s, seq, chooser, (fm_generation){.n = 11}, &half);
    assert_ok(fm_state_take(&st, s, seq, NULL));
    assert_ok(fm_state_save(st, NULL, test_path(path, &w->folder, "s.fmstate"), FM_STATE_F32, NULL));
    fm_state_free(st);
    fm_sampler_free(chooser);
    fm_session_free(s);
    assert_ok(fm_state_load(&st, NULL, path, NULL, NULL));
    continue_from(w, st, &half, &rest, 19);
    fm_state_free(st);
    assert_memory_equal(half.ids, all.ids, 11 * sizeof *all.ids);
    assert_memory_equal(rest.ids, all.ids + 11, 19 * sizeof *all.ids);
}

/* ---- Text ---- */

/* The shipped model goes on from these words. */
static fm_generated tell(const world *w, float temperature, fm_generation g, heard *h)
{
    static const char words[] = "Once upon a time there was a horse";
    int32_t ids[64];
    size_t n = FM_COUNT(ids);
    fm_session *s = session(w->tales);
    fm_seq seq;
    fm_sampling p = fm_sampling_defaults(NULL);
    fm_sampler *chooser;
    p.temperature = temperature;
    g.tokenizer = fm_model_tokenizer(w->tales);
    assert_ok(fm_sampler_open(&chooser, &p, fm_model_get_info(w->tales).vocab, NULL, NULL, NULL));
    assert_ok(fm_tokenize(g.tokenizer, words, sizeof words - 1, FM_ADD_SPECIAL, ids, &n, NULL));
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_ok(fm_seq_append(s, seq, ids, n, NULL));
    const fm_generated out = generate(s, seq, chooser, g, h);
    assert_int_equal(fm_seq_tokens(s, seq), n + out.n);
    fm_sampler_free(chooser);
    fm_session_free(s);
    return out;
}

/* All events together are the text of the ids. */
static void test_text(void **state)
{
    const world *w = *state;
    for (int i = 0; i < 3; i++) {
        heard h = {0};
        fm_detok d = {{0}, 0};
        fm_str want = {0};
        tell(w, (float)i, (fm_generation){.n = 40}, &h);
        for (size_t k = 0; k < h.n; k++) fm_detok_add(&d, fm_model_tokenizer(w->tales), h.ids[k], false, &want);
        fm_detok_flush(&d, &want);
        assert_string_equal(h.text, want.p);
        assert_true(h.text_n > 40);
        fm_str_free(&want);
    }
}

static void test_stop_string(void **state)
{
    const world *w = *state;
    heard all = {0};
    tell(w, 0.8f, (fm_generation){.n = 40}, &all);
    /* Every part of the text that begins anywhere and is this long, and a string that never comes. */
    for (size_t begin = 0; begin + 7 <= all.text_n; begin += 9) {
        char part[8] = {0};
        const char *const stops[] = {"\x01", part};
        heard h = {0};
        memcpy(part, all.text + begin, 7);
        const size_t at = (size_t)(strstr(all.text, part) - all.text);
        const fm_generated out = tell(w, 0.8f, (fm_generation){.n = 40, .stops = stops, .n_stops = 2}, &h);
        assert_int_equal(out.stop, FM_STOP_STRING);
        assert_int_equal(out.stop_string, 1);
        assert_int_equal(out.n, h.n);
        assert_int_equal(h.n_last, 0);
        assert_int_equal(h.text_n, at);
        assert_memory_equal(h.text, all.text, at);
    }
}

/* The end of the text might have become a stop string: it comes in one last event. */
static void test_held_back(void **state)
{
    const world *w = *state;
    heard all = {0}, h = {0};
    char stop[16] = {0};
    const char *const stops[] = {stop};
    tell(w, 0, (fm_generation){.n = 30}, &all);
    snprintf(stop, sizeof stop, "%s\x01", all.text + all.text_n - 4);
    const fm_generated out = tell(w, 0, (fm_generation){.n = 30, .stops = stops, .n_stops = 1}, &h);
    assert_int_equal(out.stop, FM_STOP_LENGTH);
    assert_int_equal(h.n_last, 1);
    assert_string_equal(h.text, all.text);
}

/* Special tokens are in the text only when they are asked for. */
static void test_special(void **state)
{
    const world *w = *state;
    const fm_tokenizer *t = fm_model_tokenizer(w->tales);
    const int32_t eos = fm_tokenizer_eos(t);
    size_t n;
    const char *name = fm_token_text(t, eos, true, &n);
    assert_in_range(n, 1, 64);
    for (int special = 0; special < 2; special++) {
        fm_session *s = session(w->tales);
        fm_sampling p = fm_sampling_defaults(NULL);
        fm_sampler *chooser;
        fm_seq seq;
        heard h = {0};
        p.allowed = &eos;
        p.n_allowed = 1;
        assert_ok(fm_sampler_open(&chooser, &p, fm_model_get_info(w->tales).vocab, NULL, NULL, NULL));
        assert_ok(fm_seq_new(s, &seq, NULL));
        assert_ok(fm_seq_append(s, seq, &eos, 1, NULL));
        generate(s, seq, chooser, (fm_generation){.n = 1, .tokenizer = t, .special = special}, &h);
        assert_int_equal(h.text_n, special ? n : 0);
        assert_memory_equal(h.text, name, h.text_n);
        fm_sampler_free(chooser);
        fm_session_free(s);
    }
}

/* ---- Memory ---- */

typedef struct reopened {
    fm_session *s;
    fm_seq seq;
    fm_sampler *chooser;
    fm_generation g;
} reopened;

static bool never(void *ctx, const fm_token_event *e)
{
    (void)ctx;
    (void)e;
    fail_msg("a token came although memory was short");
    return false;
}

static bool whatever(void *ctx, const fm_token_event *e)
{
    (void)ctx;
    (void)e;
    return true;
}

static fm_status generate_from_mark(const fm_allocator *a, void *ctx)
{
    reopened *r = ctx;
    const test_allocator *t = a->ctx;
    fm_generated out;
    assert_ok(fm_seq_rewind(r->s, r->seq, NULL));
    fm_sampler_reset(r->chooser);
    r->g.allocator = a;
    r->g.on_token = t->fail_at > 2 ? whatever : never; /* the first two are all there are */
    return fm_generate(r->s, r->seq, r->chooser, &r->g, &out, NULL);
}

/* Memory is taken before the first token, and no more of it for a longer text or a long stop string. */
static void test_memory(void **state)
{
    const world *w = *state;
    static char endless[10000];
    const char *const stops[] = {"\n\n\n\n", endless};
    memset(endless, ' ', sizeof endless - 1);
    const int32_t begin = 1;
    reopened r = {.s = session(w->tales),
                  .g = {.tokenizer = fm_model_tokenizer(w->tales), .n = 20, .stops = stops, .n_stops = 2}};
    const fm_sampling p = fm_sampling_defaults(NULL);
    assert_ok(fm_sampler_open(&r.chooser, &p, fm_model_get_info(w->tales).vocab, NULL, NULL, NULL));
    assert_ok(fm_seq_new(r.s, &r.seq, NULL));
    assert_ok(fm_seq_append(r.s, r.seq, &begin, 1, NULL));
    assert_ok(fm_seq_mark(r.s, r.seq, NULL));
    assert_int_equal(test_every_allocation(generate_from_mark, &r), 2);
    r.g.n = 60;
    assert_int_equal(test_every_allocation(generate_from_mark, &r), 2);
    fm_sampler_free(r.chooser);
    fm_session_free(r.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length),    cmocka_unit_test(test_eos),
        cmocka_unit_test(test_cancelled), cmocka_unit_test(test_cancelled_by_session),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_choices),   cmocka_unit_test(test_continued),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_held_back), cmocka_unit_test(test_special),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
