/* test_draft.c - drafts change nothing but the speed: whatever guesses, whatever the sampler, wherever the end comes, ids, text,
 * log-probabilities and states are those of plain decoding, to the bit. */
#include <math.h>

#include "runtime/draft/draft.h"
#include "runtime/state.h"
#include "unit/tiny_model.h"

#define TALES FM_SOURCE_DIR "/tests/data/tales/tales.gguf"

enum { N = 96, SAMPLERS = 8 };

typedef struct world {
    test_folder folder;
    fm_model *tales, *tiny, *rounded, *other; /* rounded: tiny in Q8_0; other: tiny in Q4_0, further off */
} world;

static fm_model *make(const test_folder *f, const char *name, fm_dtype type)
{
    char path[256];
    fm_model *m;
    tiny_model_write(test_path(path, f, name), type);
    assert_ok(fm_model_open(&m, path, NULL, NULL));
    return m;
}

static int open_world(void **state)
{
    static world w;
    w.folder = test_folder_make();
    w.tiny = make(&w.folder, "a.gguf", FM_F32);
    w.rounded = make(&w.folder, "b.gguf", FM_Q8_0);
    w.other = make(&w.folder, "c.gguf", FM_Q4_0);
    assert_ok(fm_model_open(&w.tales, TALES, NULL, NULL));
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    world *w = *state;
    fm_model_free(w->tales);
    fm_model_free(w->tiny);
    fm_model_free(w->rounded);
    fm_model_free(w->other);
    test_folder_remove(&w->folder);
    return 0;
}

/* ---- One generation, and what came of it ---- */

typedef struct outcome {
    int32_t ids[N + 1];
    double logprobs[N + 1];
    char text[4096];
    size_t n, text_n;
    fm_generated end;
    fm_state *st, *seen; /* after it; within it, when token `look` came */
    size_t stop_after, look;
    fm_session *s;
    fm_seq seq;
} outcome;

static bool hear(void *ctx, const fm_token_event *e)
{
    outcome *o = ctx;
    assert_true(o->text_n + e->text_n < sizeof o->text);
    if (e->text_n) memcpy(o->text + o->text_n, e->text, e->text_n);
    o->text_n += e->text_n;
    if (e->id < 0) return true;
    assert_true(o->n < N + 1);
    assert_non_null(fm_seq_logits(o->s, o->seq));
    o->logprobs[o->n] = e->logprob;
    o->ids[o->n++] = e->id;
    if (o->n == o->look) assert_ok(fm_state_take(&o->seen, o->s, o->seq, NULL));
    return o->n != o->stop_after;
}

static fm_sampling sampling(size_t which)
{
    fm_sampling p = fm_sampling_defaults(NULL);
    p.seed = 11;
    p.temperature = which ? 0.7f : 0;
    if (which == 2) p.repeat_penalty = 1.3f, p.presence_penalty = 0.2f, p.frequency_penalty = 0.1f;
    if (which == 3) p.dry_multiplier = 0.8f;
    if (which == 4) p.mirostat = 1, p.mirostat_tau = 3;
    if (which == 5) p.mirostat = 2, p.mirostat_tau = 3;
    if (which == 6) p.xtc_probability = 0.5f, p.min_p = 0.05f, p.top_k = 30;
    if (which == 7) p.dynatemp_range = 0.4f, p.typical_p = 0.9f, p.min_tokens = 20;
    return p;
}

static const char words[] = "The king had a daughter. The king had a son. The king had a daughter. The king had a";
static const int32_t numbers[] = {5, 17, 3, 60, 21, 5, 17, 3, 60, 21, 5, 17};

static size_t prompt(const fm_model *m, int32_t ids[64])
{
    size_t n = FM_COUNT(numbers);
    memcpy(ids, numbers, sizeof numbers);
    if (!fm_model_tokenizer(m)) return n;
    n = 64;
    assert_ok(fm_tokenize(fm_model_tokenizer(m), words, sizeof words - 1, FM_ADD_SPECIAL, ids, &n, NULL));
    return n;
}

/* What a generation is made with. */
typedef struct setting {
    const fm_model *m;
    fm_generation g;
    fm_sampling p;
    const fm_draft_options *draft; /* NULL: plain */
    fm_session_options so;
} setting;

static fm_sampler *open_sampler(const setting *c, const int32_t *ids, size_t n)
{
    fm_sampler *s;
    assert_ok(fm_sampler_open(&s, &c->p, fm_model_get_info(c->m).vocab, fm_model_tokenizer(c->m), NULL, NULL));
    fm_sampler_set_eos(s, c->g.eos, c->g.n_eos);
    for (size_t i = 0; i < n; i++) fm_sampler_accept(s, ids[i], true);
    return s;
}

static void generate(const setting *c, outcome *o)
{
    int32_t ids[64];
    const size_t n = prompt(c->m, ids);
    fm_sampler *sampler = open_sampler(c, ids, n);
    fm_session_options so = c->so;
    fm_generation g = c->g;
    fm_error err = {0};
    fm_draft *draft = NULL;
    if (!so.threads) so.threads = 1;
    so.draft_max = c->draft ? 15 : 0;
    assert_ok(fm_session_open(&o->s, c->m, &so, NULL));
    assert_ok(fm_seq_new(o->s, &o->seq, NULL));
    assert_ok(fm_seq_append(o->s, o->seq, ids, n, NULL));
    if (c->draft) assert_ok(fm_draft_open(&draft, c->m, c->draft, NULL));
    if (c->draft) assert_ok(fm_draft_begin(draft, ids, n, NULL));
    g.draft = draft;
    g.on_token = hear;
    g.ctx = o;
    g.want_logprob = true;
    g.tokenizer = fm_model_tokenizer(c->m);
    if (fm_generate(o->s, o->seq, sampler, &g, &o->end, &err) != FM_OK) fail_msg("%s", err.text);
    assert_int_equal(fm_seq_tokens(o->s, o->seq), n + o->end.n);
    assert_ok(fm_state_take(&o->st, o->s, o->seq, NULL));
    fm_draft_free(draft);
    fm_sampler_free(sampler);
    fm_session_free(o->s);
}

static void same_state(const fm_state *a, const fm_state *b)
{
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->has_logits, b->has_logits);
    assert_memory_equal(a->state, b->state, a->state_floats * sizeof(float));
    assert_memory_equal(a->logits, b->logits, a->sizes[FM_STATE_VOCAB] * sizeof(float));
}

static void same(const outcome *a, const outcome *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->text_n, b->text_n);
    assert_memory_equal(a->text, b->text, a->text_n);
    assert_int_equal(a->end.stop, b->end.stop);
    assert_int_equal(a->end.n, b->end.n);
    assert_int_equal(a->end.stop_string, b->end.stop_string);
    same_state(a->st, b->st);
    if (a->seen) same_state(a->seen, b->seen);
}

static void forget(outcome *o)
{
    fm_state_free(o->st);
    fm_state_free(o->seen);
}

static const fm_draft_options ngram = {.fixed = true, .ngram_min = 1};

/* With and without drafts; gives how many guesses came true. */
static uint64_t compare(const fm_model *m, fm_sampling p, fm_generation g, const fm_draft_options *d, outcome how)
{
    outcome plain = how, drafted = how;
    generate(&(setting){.m = m, .g = g, .p = p}, &plain);
    generate(&(setting){.m = m, .g = g, .p = p, .draft = d}, &drafted);
    same(&plain, &drafted);
    assert_int_equal(plain.end.drafted, 0);
    assert_true(drafted.end.accepted <= drafted.end.drafted);
    forget(&plain);
    forget(&drafted);
    return drafted.end.accepted;
}

/* ---- The same whatever happens ---- */

static void test_samplers(void **state)
{
    const world *w = *state;
    for (size_t i = 0; i < SAMPLERS; i++) {
        const fm_draft_options learning = {.ngram_min = 1};
        assert_true(compare(w->tales, sampling(i), (fm_generation){.n = N}, &ngram, (outcome){.look = 9}) > 0);
        assert_true(compare(w->tiny, sampling(i), (fm_generation){.n = N}, &ngram, (outcome){.look = 40}) > 0);
        compare(w->tales, sampling(i), (fm_generation){.n = N}, &learning, (outcome){.look = 0});
    }
}

static void test_every_length(void **state)
{
    const world *w = *state;
    uint64_t accepted = 0;
    for (size_t n = 1; n < 40; n++)
        accepted += compare(w->tales, sampling(0), (fm_generation){.n = n}, &ngram, (outcome){.n = 0});
    assert_true(accepted > 100);
}

static void test_every_stop(void **state)
{
    const world *w = *state;
    for (size_t n = 1; n < 24; n++) compare(w->tales, sampling(1), (fm_generation){.n = N}, &ngram, (outcome){.stop_after = n});
}

/* The text ends at each of its own tokens in turn, by id and by string. */
static void test_every_end(void **state)
{
    const world *w = *state;
    outcome all = {.n = 0};
    generate(&(setting){.m = w->tales, .g = {.n = 40}, .p = sampling(0)}, &all);
    for (size_t i = 0; i < all.n; i += 3)
        compare(w->tales, sampling(0), (fm_generation){.n = N, .eos = &all.ids[i], .n_eos = 1}, &ngram, (outcome){.n = 0});
    for (size_t i = 0; i + 5 < all.text_n; i += 7) {
        char part[6] = {0};
        const char *const stops[] = {"\x01", part};
        memcpy(part, all.text + i, 5);
        compare(w->tales, sampling(0), (fm_generation){.n = N, .stops = stops, .n_stops = 2}, &ngram, (outcome){.n = 0});
    }
    forget(&all);
}

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
    for (size_t patience = 2; patience < 30; patience += 3) {
        impatience a = {.patience = patience}, b = a;
        outcome plain = {.n = 0}, drafted = {.n = 0};
        setting c = {.m = w->tales, .g = {.n = N}, .p = sampling(0), .so = {.cancel = tire, .ctx = &a, .chunk = 64}};
        a.patience += 26; /* the prompt is asked about between layers */
        b.patience += 26;
        generate(&c, &plain);
        c.draft = &ngram;
        c.so.ctx = &b;
        generate(&c, &drafted);
        same(&plain, &drafted);
        forget(&plain);
        forget(&drafted);
    }
}

/* Chunks shorter than a draft cut it; threads and the reference kernels do not matter. */
static void test_sessions(void **state)
{
    const world *w = *state;
    const fm_session_options options[] = {
        {.chunk = 2}, {.chunk = 5}, {.chunk = 16}, {.threads = 2}, {.threads = 3, .cpu = "ref"}};
    for (size_t i = 0; i < FM_COUNT(options); i++) {
        outcome plain = {.look = 11}, drafted = {.look = 11};
        setting c = {.m = w->tiny, .g = {.n = N}, .p = sampling(0), .so = options[i]};
        generate(&c, &plain);
        c.draft = &ngram;
        generate(&c, &drafted);
        same(&plain, &drafted);
        assert_true(drafted.end.accepted > 0);
        forget(&plain);
        forget(&drafted);
    }
}

/* ---- Draft models ---- */

static void test_draft_models(void **state)
{
    const world *w = *state;
    const fm_model *const models[] = {w->tiny, w->rounded, w->other};
    uint64_t accepted[3];
    for (size_t i = 0; i < FM_COUNT(models); i++) {
        const fm_draft_options alone = {.model = models[i], .no_ngram = true, .fixed = true, .threads = 1, .max = 7},
                               learning = {.model = models[i], .threads = 1};
        accepted[i] = compare(w->tiny, sampling(0), (fm_generation){.n = N}, &alone, (outcome){.look = 20});
        for (size_t k = 1; k < SAMPLERS; k++) compare(w->tiny, sampling(k), (fm_generation){.n = N}, &alone, (outcome){.n = 0});
        compare(w->tiny, sampling(1), (fm_generation){.n = N}, &learning, (outcome){.n = 0});
    }
    /* Of 96 tokens every eighth is the target's own; the last draft is cut by the length. */
    assert_int_equal(accepted[0], N - N / 8);
    assert_true(accepted[1] > accepted[2]);
    assert_true(accepted[2] > 0);
}

/* The model itself as its draft: every guess is right. */
static void test_own_draft(void **state)
{
    const world *w = *state;
    const fm_draft_options own = {.model = w->tales, .no_ngram = true, .fixed = true, .threads = 1};
    outcome o = {.n = 0};
    generate(&(setting){.m = w->tales, .g = {.n = 80}, .p = sampling(0), .draft = &own}, &o);
    assert_int_equal(o.end.accepted, 75);
    assert_int_equal(o.end.drafted, 75);
    forget(&o);
}

/* Choices of one prompt, forked, with one draft. */
static void test_choices(void **state)
{
    const world *w = *state;
    int32_t ids[64];
    const size_t n = prompt(w->tiny, ids);
    const fm_draft_options options = {.model = w->rounded, .threads = 1, .fixed = true, .max = 5};
    const fm_session_options so = {.n_seq = 4, .threads = 1, .draft_max = 5};
    fm_session *s;
    fm_draft *d;
    fm_seq root, seq;
    assert_ok(fm_session_open(&s, w->tiny, &so, NULL));
    assert_ok(fm_draft_open(&d, w->tiny, &options, NULL));
    assert_ok(fm_seq_new(s, &root, NULL));
    assert_ok(fm_seq_append(s, root, ids, n, NULL));
    for (size_t i = 0; i < 3; i++) {
        setting c = {.m = w->tiny, .g = {.n = 50, .choice = i}, .p = sampling(1)};
        outcome alone = {.n = 0}, forked = {.s = s};
        generate(&c, &alone);
        fm_sampler *sampler = open_sampler(&c, ids, n);
        assert_ok(fm_seq_fork(s, root, &seq, NULL));
        forked.seq = seq;
        assert_ok(fm_draft_begin(d, ids, n, NULL));
        c.g = (fm_generation){.n = 50, .choice = i, .draft = d, .on_token = hear, .ctx = &forked, .want_logprob = true};
        assert_ok(fm_generate(s, seq, sampler, &c.g, &forked.end, NULL));
        assert_ok(fm_state_take(&forked.st, s, seq, NULL));
        same(&alone, &forked);
        fm_seq_free(s, seq);
        fm_sampler_free(sampler);
        forget(&alone);
        forget(&forked);
    }
    fm_draft_free(d);
    fm_session_free(s);
}

/* ---- Refusals and memory ---- */

static void test_refused(void **state)
{
    const world *w = *state;
    fm_draft *d;
    fm_session *s;
    fm_seq seq;
    fm_generated out;
    fm_error err;
    const int32_t beyond = TINY_VOCAB;
    assert_fails(fm_draft_open(&d, w->tales, &(fm_draft_options){.model = w->tiny}, &err), FM_ERR_MISMATCH, err, "vocabulary");
    assert_null(d);
    assert_fails(fm_draft_open(&d, w->tiny, &(fm_draft_options){.max = 65}, &err), FM_ERR_ARGUMENT, err, "at most 64");
    assert_fails(fm_draft_open(&d, w->tiny, &(fm_draft_options){.max = 4, .min = 5}, &err), FM_ERR_ARGUMENT, err, "5 .. 4");
    assert_fails(fm_draft_open(&d, w->tiny, &(fm_draft_options){.ngram_max = 17}, &err), FM_ERR_ARGUMENT, err, "16");
    assert_fails(fm_draft_open(&d, w->tiny, &(fm_draft_options){.ngram_max = 2, .ngram_min = 3}, &err), FM_ERR_ARGUMENT, err,
                 "n-grams");
    assert_fails(fm_draft_open(&d, w->tiny, &(fm_draft_options){.history = SIZE_MAX}, &err), FM_ERR_LIMIT, err, "history");
    assert_ok(fm_draft_open(&d, w->tiny, NULL, NULL));
    assert_fails(fm_draft_begin(d, &beyond, 1, &err), FM_ERR_LIMIT, err, "64");
    assert_int_equal(fm_session_open(&s, w->tiny, &(fm_session_options){.draft_max = 65}, &err), FM_ERR_LIMIT);
    assert_ok(fm_session_open(&s, w->tiny, &(fm_session_options){.threads = 1}, NULL));
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_ok(fm_seq_append(s, seq, numbers, 3, NULL));
    const setting c = {.m = w->tiny, .p = sampling(0)};
    fm_sampler *sampler = open_sampler(&c, NULL, 0);
    const fm_generation g = {.n = 3, .draft = d};
    assert_fails(fm_generate(s, seq, sampler, &g, &out, &err), FM_ERR_ARGUMENT, err, "draft_max");
    fm_sampler_free(sampler);
    fm_session_free(s);
    fm_draft_free(d);
}

typedef struct counted {
    const test_allocator *t;
    size_t n_calls; /* when the first token came */
} counted;

static bool count(void *ctx, const fm_token_event *e)
{
    counted *c = ctx;
    if (e->i == 0) c->n_calls = c->t->n_calls;
    assert_int_equal(c->t->n_calls, c->n_calls);
    return true;
}

/* All memory is taken before the first token, and is what was announced. */
static void test_memory(void **state)
{
    const world *w = *state;
    test_allocator t;
    fm_session *s;
    fm_draft *d;
    fm_seq seq;
    fm_generated out;
    test_allocator_arm(&t, 0);
    const fm_session_options so = {.allocator = &t.a, .threads = 2, .draft_max = 15}, none = {.allocator = &t.a, .threads = 2};
    const fm_draft_options options = {.allocator = &t.a, .model = w->other, .threads = 1, .fixed = true};
    const size_t log = 16 * (2 * TINY_INNER + TINY_STATE + TINY_VOCAB) * sizeof(float);
    assert_true(fm_session_bytes(w->tiny, &so) - fm_session_bytes(w->tiny, &none) >= log);
    assert_true(fm_session_bytes(w->tiny, &so) - fm_session_bytes(w->tiny, &none) < log + 1024);
    assert_ok(fm_session_open(&s, w->tiny, &so, NULL));
    assert_ok(fm_draft_open(&d, w->tiny, &options, NULL));
    assert_ok(fm_seq_new(s, &seq, NULL));
    assert_ok(fm_seq_append(s, seq, numbers, FM_COUNT(numbers), NULL));
    assert_ok(fm_draft_begin(d, numbers, FM_COUNT(numbers), NULL));
    const setting c = {.m = w->tiny, .p = sampling(0)};
    fm_sampler *sampler = open_sampler(&c, NULL, 0);
    counted calls = {&t, 0};
    const fm_generation g = {.n = 200, .draft = d, .on_token = count, .ctx = &calls, .allocator = &t.a};
    assert_ok(fm_generate(s, seq, sampler, &g, &out, NULL));
    assert_true(out.accepted > 0 && out.accepted < out.drafted);
    fm_sampler_free(sampler);
    fm_draft_free(d);
    fm_session_free(s);
    assert_int_equal(t.n_live, 0);
}

static fm_status open_draft(const fm_allocator *a, void *ctx)
{
    const world *w = ctx;
    fm_draft *d;
    const fm_draft_options o = {.allocator = a, .model = w->other, .threads = 2};
    FM_TRY(fm_draft_open(&d, w->tiny, &o, NULL));
    fm_draft_free(d);
    return FM_OK;
}

static void test_short_memory(void **state)
{
    test_every_allocation(open_draft, *state);
}

/* ---- The parts ---- */

static void fill(fm_ngram *g, const char *text)
{
    for (; *text; text++) fm_ngram_add(g, *text);
}

/* What is expected to follow the text: `want` begins with it. */
static void expect(fm_ngram *g, const char *text, const char *want)
{
    int32_t guesses[8];
    fm_ngram_clear(g);
    fill(g, text);
    if (!*want) assert_int_equal(g->match, 0);
    for (size_t i = 0; want[i]; i++) {
        assert_true(g->match > 0);
        guesses[i] = fm_ngram_guess(g, guesses, i);
        assert_int_equal(guesses[i], want[i]);
    }
}

static void test_ngrams(void **state)
{
    (void)state;
    int32_t ring[64];
    uint64_t ends[4 * 128];
    fm_ngram g = {.min = 2, .max = 5, .cap = 64, .ring = ring, .ends = ends};
    expect(&g, "", "");
    expect(&g, "abcdef", "");
    expect(&g, "abcdefa", ""); /* one is too few */
    expect(&g, "abcdefab", "cdef");
    expect(&g, "abx_aby_ab", "y_ab");         /* the latest place */
    expect(&g, "1abcx_2abcy_1abc", "x_2abc"); /* but the longest agreement first */
    expect(&g, "ababab", "ababab");           /* a repetition runs into its own guesses */
    expect(&g, "aaa", "aaaa");
    /* A guess that came true goes on in its place, although a later one agrees for the five tokens that are indexed. */
    expect(&g, "0123456789x_3456789y_0123456789", "x_34");
    /* What lies further back than the ring is forgotten. */
    expect(&g, "qr...............................................................................qr", "");
    for (uint64_t i = 0; i < 1000; i++) fm_ngram_add(&g, (int32_t)(i % 50));
    for (size_t i = 0; i < 8; i++) assert_int_equal(fm_ngram_guess(&g, NULL, i), (1000 + i) % 50);
    assert_int_equal(g.length, FM_NGRAM_LOOK);
}

static double always(const void *ctx, size_t i)
{
    (void)i;
    return *(const double *)ctx;
}

static void test_policy(void **state)
{
    (void)state;
    fm_costs c;
    fm_costs_init(&c);
    const double sure = 1, likely = 0.8, hardly = 0.1;
    assert_int_equal(fm_policy_length(&c, 0, 15, always, &sure), 0); /* no step was timed yet */
    fm_costs_learn(&c, 1, 0.1);
    assert_int_equal(fm_policy_length(&c, 0, 15, always, &sure), 15);
    assert_int_equal(fm_policy_length(&c, 0, 15, always, &hardly), 0);
    const size_t usual = fm_policy_length(&c, 0, 15, always, &likely);
    assert_in_range(usual, 3, 10);
    assert_true(fm_policy_length(&c, 0.1, 15, always, &likely) < usual);
    for (size_t i = 0; i < 20; i++) fm_costs_learn(&c, 16, 0.1); /* guesses cost nothing */
    assert_true(fm_policy_length(&c, 0, 15, always, &likely) >= usual);
    for (size_t n = 2; n <= 16; n++)
        for (size_t i = 0; i < 20; i++) fm_costs_learn(&c, n, 0.1 * (double)n); /* guesses cost what tokens cost */
    assert_int_equal(fm_policy_length(&c, 0, 15, always, &likely), 0);
    for (size_t i = 0; i < 2000; i++) fm_costs_learn(&c, 1, 0.1); /* and are tried again some time */
    assert_int_equal(fm_policy_length(&c, 0, 15, always, &likely), usual);
    fm_odds o;
    const float first[FM_ODDS] = {0.5f};
    fm_odds_init(&o, first);
    for (size_t i = 0; i < 200; i++) fm_odds_learn(&o, 0, i % 4 != 0);
    assert_true(fabsf(o.chance[0] - 0.75f) < 0.1f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samplers),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_stop),
        cmocka_unit_test(test_every_end),
        cmocka_unit_test(test_cancelled_by_session),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_draft_models),
        cmocka_unit_test(test_own_draft),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_ngrams),
        cmocka_unit_test(test_policy),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
