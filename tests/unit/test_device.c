/* test_device.c - what the host does with a GPU, on one that is made of the CPU (fake_gpu.h): the same ids, logits and states as
 * without it, ids alone coming back where the device can choose them, memory as predicted, and a device that is lost. */
#include <math.h>

#include "kernelcheck/fake_gpu.h"
#include "runtime/session.h"
#include "runtime/state.h"
#include "unit/tiny_model.h"

enum { N = 24, CHUNK = 32, VOCAB = TINY_VOCAB, LOGITS_BYTES = VOCAB * sizeof(float), LIBRARY_BYTES = 1 << 20 };

static const int32_t text[] = {1, 5, 9, 2, 40, 63, 0, 7, 8, 22};
enum { N_TEXT = FM_COUNT(text) };

typedef struct bed {
    test_folder folder;
    char path[256];
    fm_model *cpu, *gpu;
} bed;

static int make_bed(void **state)
{
    static bed b;
    b.folder = test_folder_make();
    test_path(b.path, &b.folder, "tiny.gguf");
    tiny_model_write(b.path, FM_Q8_0);
    assert_ok(fm_model_open(&b.cpu, b.path, NULL, NULL));
    *state = &b;
    return 0;
}

static int drop_bed(void **state)
{
    const bed *b = *state;
    fm_model_free(b->cpu);
    test_folder_remove(&b->folder);
    return 0;
}

static int plug_in(void **state)
{
    bed *b = *state;
    fake_gpu_reset();
    assert_ok(fm_model_open(&b->gpu, b->path, &(fm_model_options){.device = "cuda"}, NULL));
    return 0;
}

static int pull_out(void **state)
{
    bed *b = *state;
    fm_model_free(b->gpu);
    b->gpu = NULL;
    return fake.used == 0 ? 0 : -1;
}

static fm_session *open_session(const fm_model *m, size_t n_seq)
{
    fm_session *s;
    const fm_session_options o = {.n_seq = n_seq, .chunk = CHUNK, .cpu = "ref", .threads = 1, .draft_max = 7};
    assert_ok(fm_session_open(&s, m, &o, NULL));
    return s;
}

static fm_seq new_seq(fm_session *s, size_t n)
{
    fm_seq seq;
    assert_ok(fm_seq_new(s, &seq, NULL));
    if (n) assert_ok(fm_seq_append(s, seq, text, n, NULL));
    return seq;
}

static fm_sampler *open_sampler(const fm_sampling *p)
{
    fm_sampler *sampler;
    assert_ok(fm_sampler_open(&sampler, p, VOCAB, NULL, NULL, NULL));
    return sampler;
}

static fm_sampling sampling(float temperature, int top_k, float top_p, float min_p)
{
    fm_sampling p = fm_sampling_defaults(NULL);
    p.seed = 7, p.temperature = temperature, p.top_k = top_k, p.top_p = top_p, p.min_p = min_p;
    return p;
}

static bool hear(void *ctx, const fm_token_event *e)
{
    int32_t **at = ctx;
    if (e->id >= 0) *(*at)++ = e->id;
    return true;
}

/* N ids after the sequence. */
static void generate_with(fm_session *s, fm_seq seq, const fm_sampling *p, fm_draft *draft, int32_t ids[N])
{
    fm_sampler *sampler = open_sampler(p);
    fm_generated end;
    const fm_generation g = {.n = N, .on_token = hear, .ctx = &ids, .draft = draft, .choice = 3};
    assert_ok(fm_generate(s, seq, sampler, &g, &end, NULL));
    assert_int_equal(end.n, N);
    fm_sampler_free(sampler);
}

static void generate(const fm_model *m, const fm_sampling *p, int32_t ids[N])
{
    fm_session *s = open_session(m, 1);
    const fm_seq seq = new_seq(s, N_TEXT);
    fake.downloaded = 0;
    generate_with(s, seq, p, NULL, ids);
    assert_non_null(fm_seq_logits(s, seq));
    fm_session_free(s);
}

/* ---- Ids alone ---- */

static void the_device_chooses_what_the_host_would(void **state)
{
    const bed *b = *state;
    const fm_sampling all[] = {sampling(0, 0, 1, 0),         sampling(0, 40, 0.9f, 0.1f),       sampling(1, 0, 1, 0),
                               sampling(0.8f, 0, 0.95f, 0),  sampling(1.5f, 5, 1, 0),           sampling(2, 0, 1, 0.1f),
                               sampling(3, 20, 0.7f, 0.02f), sampling(0.5f, 1000, 0.99f, 0.01f)};
    for (size_t i = 0; i < FM_COUNT(all); i++) {
        int32_t want[N], got[N];
        generate(b->cpu, &all[i], want);
        fake.n_argmax = fake.n_sample = 0;
        generate(b->gpu, &all[i], got);
        assert_memory_equal(got, want, sizeof want);
        /* The first token is the prompt's, the last one is not chosen from. */
        assert_int_equal(fake.n_argmax + fake.n_sample, N - 1);
        assert_int_equal(fake.n_argmax, all[i].temperature == 0.0f ? N - 1 : 0);
        assert_int_equal(fake.downloaded, (N - 1) * sizeof(int32_t) + LOGITS_BYTES);
    }
}

static void other_samplers_bring_logits(void **state)
{
    const bed *b = *state;
    fm_sampling all[6];
    for (size_t i = 0; i < FM_COUNT(all); i++) all[i] = sampling(1, 0, 0.9f, 0);
    static const char *const reasons[] = {
        "penalties", "mirostat", "bias", "this order of samplers", "xtc", "a dynamic temperature"};
    const fm_logit_bias bias = {5, -1.0f};
    all[0].repeat_penalty = 1.3f;
    all[1].mirostat = 2;
    all[2].biases = &bias, all[2].n_biases = 1;
    all[3].samplers = "top_p;temperature";
    all[4].xtc_probability = 0.5f;
    all[5].dynatemp_range = 0.5f;
    for (size_t i = 0; i < FM_COUNT(all); i++) {
        int32_t want[N], got[N];
        fm_sampler *sampler = open_sampler(&all[i]);
        assert_string_equal(fm_sampler_host_reason(sampler), reasons[i]);
        fm_sampler_free(sampler);
        generate(b->cpu, &all[i], want);
        generate(b->gpu, &all[i], got);
        assert_memory_equal(got, want, sizeof want);
        assert_true(fake.downloaded >= (N - 1) * LOGITS_BYTES);
    }
}

static void idle_samplers_are_no_reason(void **state)
{
    (void)state;
    fm_sampling p = sampling(0, 0, 0.9f, 0);
    p.samplers = "top_p;min_p;temperature;xtc"; /* at 0 only penalties would count */
    fm_sampler *greedy = open_sampler(&p);
    assert_null(fm_sampler_host_reason(greedy));
    fm_sampler_free(greedy);
    p = sampling(0.7f, 0, 0.9f, 0);
    p.samplers = "penalties;temperature;min_p;top_p;xtc";
    fm_sampler *usual = open_sampler(&p);
    assert_null(fm_sampler_host_reason(usual));
    fm_sampler_free(usual);
}

/* ---- Batches ---- */

/* One step of four sequences: an id of the device's, logits, an id of the host's, the likeliest. */
typedef struct mixed {
    int32_t ids[4];
    float logits[4][VOCAB];
} mixed;

static void step_mixed(const fm_model *m, mixed *out)
{
    fm_session *s = open_session(m, 4);
    fm_sampling p = sampling(1, 0, 0.9f, 0), q = p;
    q.repeat_penalty = 1.5f;
    fm_sampler *usual = open_sampler(&p), *other = open_sampler(&q);
    fm_sampler_accept(other, text[3], true);
    fm_span spans[4];
    for (size_t i = 0; i < 4; i++)
        spans[i] = (fm_span){.seq = new_seq(s, i + 1), .tokens = text + 3, .n = i + 1, .id = &out->ids[i]};
    spans[0].want = FM_WANT_CHOSEN, spans[0].sampler = usual;
    spans[1].want = FM_WANT_LAST;
    spans[2].want = FM_WANT_CHOSEN, spans[2].sampler = other;
    spans[3].want = FM_WANT_LIKELIEST;
    out->ids[1] = -1;
    fake.downloaded = 0;
    assert_ok(fm_step(s, spans, 4, NULL));
    if (m->device) assert_int_equal(fake.downloaded, 4 * sizeof(int32_t) + 2 * LOGITS_BYTES);
    for (size_t i = 0; i < 4; i++) memcpy(out->logits[i], fm_seq_logits(s, spans[i].seq), LOGITS_BYTES);
    fm_sampler_free(usual);
    fm_sampler_free(other);
    fm_session_free(s);
}

static void batches_are_mixed(void **state)
{
    const bed *b = *state;
    mixed want, got;
    step_mixed(b->cpu, &want);
    step_mixed(b->gpu, &got);
    assert_memory_equal(got.ids, want.ids, sizeof want.ids);
    assert_memory_equal(got.logits, want.logits, sizeof want.logits);
}

/* Chosen ids go on in a batch as in fm_generate(), step by step. */
static void batches_choose(void **state)
{
    const bed *b = *state;
    const fm_sampling p = sampling(1.2f, 30, 0.95f, 0);
    int32_t want[N];
    generate(b->cpu, &p, want);
    fm_session *s = open_session(b->gpu, 3);
    fm_sampler *sampler = open_sampler(&p);
    fm_span spans[3];
    int32_t ids[3] = {0}, tokens[3];
    for (size_t i = 0; i < 3; i++)
        spans[i] = (fm_span){
            .seq = new_seq(s, 0), .tokens = text, .n = N_TEXT, .want = FM_WANT_CHOSEN, .id = &ids[i], .sampler = sampler};
    for (size_t i = 0; i < 3; i++) spans[i].choice = i == 1 ? 3 : 100 + i;
    for (size_t k = 0; k < N; k++) {
        assert_ok(fm_step(s, spans, 3, NULL));
        assert_int_equal(ids[1], want[k]);
        for (size_t i = 0; i < 3; i++) tokens[i] = ids[i], spans[i].tokens = &tokens[i], spans[i].n = 1;
    }
    assert_true(fake.n_recorded > 0);
    fm_sampler_free(sampler);
    fm_session_free(s);
}

static void wrong_choices_change_nothing(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_session *s = open_session(b->gpu, 1);
    const fm_seq seq = new_seq(s, 1);
    const fm_sampling p = sampling(1, 0, 1, 0);
    fm_sampler *small;
    int32_t id;
    assert_ok(fm_sampler_open(&small, &p, VOCAB - 1, NULL, NULL, NULL));
    fm_span span = {.seq = seq, .tokens = text, .n = 1, .want = FM_WANT_CHOSEN, .sampler = small};
    assert_fails(fm_step(s, &span, 1, &err), FM_ERR_ARGUMENT, err, "a place for it");
    span.id = &id;
    assert_fails(fm_step(s, &span, 1, &err), FM_ERR_ARGUMENT, err, "63 tokens, the model has 64");
    span.sampler = NULL;
    assert_fails(fm_step(s, &span, 1, &err), FM_ERR_ARGUMENT, err, "a sampler");
    assert_int_equal(fm_seq_tokens(s, seq), 1);
    fm_sampler_free(small);
    fm_session_free(s);
}

static void bad_numbers_are_found_there_too(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_session *s = open_session(b->gpu, 1);
    static float nan_row[TINY_D];
    int32_t id = -7;
    for (size_t i = 0; i < TINY_D; i++) nan_row[i] = NAN;
    const fm_span span = {.seq = new_seq(s, 1), .embeddings = nan_row, .n = 1, .want = FM_WANT_LIKELIEST, .id = &id};
    assert_fails(fm_step(s, &span, 1, &err), FM_ERR_FORMAT, err, "not finite");
    assert_in_range(id, 0, VOCAB - 1);
    fm_session_free(s);
}

/* ---- Logits that stay there ---- */

static void choose_one(fm_session *s, fm_seq seq)
{
    static int32_t id;
    assert_ok(fm_step(s, &(fm_span){.seq = seq, .tokens = text, .n = 1, .want = FM_WANT_LIKELIEST, .id = &id}, 1, NULL));
}

static void logits_are_fetched_when_asked_for(void **state)
{
    const bed *b = *state;
    fm_session *plain = open_session(b->cpu, 1), *s = open_session(b->gpu, 3);
    const fm_seq p = new_seq(plain, 3), a = new_seq(s, 3), other = new_seq(s, 1);
    fm_seq fork;
    fm_state *st;
    assert_ok(fm_seq_append(plain, p, text, 1, NULL));
    const float *want = fm_seq_logits(plain, p);
    choose_one(s, a);
    choose_one(s, other); /* overwrites their place */
    assert_memory_equal(fm_seq_logits(s, a), want, LOGITS_BYTES);
    assert_ok(fm_seq_reset(s, a, NULL));
    assert_ok(fm_seq_append(s, a, text, 3, NULL));
    choose_one(s, a);
    assert_ok(fm_seq_fork(s, a, &fork, NULL));
    assert_ok(fm_seq_mark(s, a, NULL));
    assert_memory_equal(fm_seq_logits(s, fork), want, LOGITS_BYTES);
    choose_one(s, a);
    assert_memory_not_equal(fm_seq_logits(s, a), want, LOGITS_BYTES);
    assert_ok(fm_seq_rewind(s, a, NULL));
    assert_memory_equal(fm_seq_logits(s, a), want, LOGITS_BYTES);
    choose_one(s, fork);
    assert_ok(fm_state_take(&st, s, fork, NULL));
    assert_true(fm_state_get_info(st).has_logits);
    fm_state_free(st);
    fm_session_free(s);
    fm_session_free(plain);
}

/* More rows than the device keeps: ids come, logits do not. */
static void many_sequences_keep_no_logits(void **state)
{
    enum { MANY = 300 };
    static fm_span spans[MANY];
    static int32_t ids[MANY], tokens[MANY];
    const bed *b = *state;
    fm_session *s;
    assert_ok(fm_session_open(&s, b->gpu, &(fm_session_options){.n_seq = MANY, .chunk = MANY}, NULL));
    for (size_t i = 0; i < MANY; i++) {
        tokens[i] = (int32_t)(i % VOCAB);
        spans[i] = (fm_span){.seq = new_seq(s, 0), .tokens = &tokens[i], .n = 1, .want = FM_WANT_LIKELIEST, .id = &ids[i]};
    }
    assert_ok(fm_step(s, spans, MANY, NULL));
    for (size_t i = 0; i < MANY; i++) assert_int_equal(ids[i], ids[i % VOCAB]);
    assert_null(fm_seq_logits(s, spans[0].seq));
    assert_null(fm_seq_logits(s, spans[MANY - 1].seq));
    assert_ok(fm_seq_append(s, spans[0].seq, text, 1, NULL));
    assert_non_null(fm_seq_logits(s, spans[0].seq));
    fm_session_free(s);
}

/* ---- States ---- */

static fm_state *state_after(const fm_model *m, size_t n)
{
    fm_session *s = open_session(m, 1);
    fm_state *st;
    assert_ok(fm_state_take(&st, s, new_seq(s, n), NULL));
    fm_session_free(s);
    return st;
}

static void go_on(const fm_model *m, const fm_state *st, int32_t ids[N])
{
    const fm_sampling p = sampling(1, 0, 0.95f, 0);
    fm_session *s = open_session(m, 1);
    const fm_seq seq = new_seq(s, 2); /* overwritten */
    assert_ok(fm_state_put(s, seq, st, false, NULL));
    generate_with(s, seq, &p, NULL, ids);
    fm_session_free(s);
}

/* Through a file, from there to here and from here to there. */
static void states_move_between_devices(void **state)
{
    const bed *b = *state;
    const fm_model *const models[] = {b->cpu, b->gpu};
    const fm_sampling p = sampling(1, 0, 0.95f, 0);
    int32_t want[N], got[N];
    char path[256];
    generate(b->cpu, &p, want);
    test_path(path, &b->folder, "state");
    for (size_t from = 0; from < 2; from++)
        for (size_t to = 0; to < 2; to++) {
            fm_state *st = state_after(models[from], N_TEXT), *loaded;
            assert_ok(fm_state_save(st, NULL, path, FM_STATE_F32, NULL));
            fm_state_free(st);
            assert_ok(fm_state_load(&loaded, NULL, path, NULL, NULL));
            go_on(models[to], loaded, got);
            assert_memory_equal(got, want, sizeof want);
            fm_state_free(loaded);
        }
    assert_int_equal(remove(path), 0);
}

static void forks_and_marks_are_points_in_time(void **state)
{
    const bed *b = *state;
    const fm_sampling p = sampling(1, 0, 0.95f, 0);
    int32_t want[N], got[N];
    fm_seq fork;
    generate(b->cpu, &p, want);
    fm_session *s = open_session(b->gpu, 2);
    const fm_seq seq = new_seq(s, N_TEXT);
    assert_ok(fm_seq_mark(s, seq, NULL));
    assert_ok(fm_seq_fork(s, seq, &fork, NULL));
    generate_with(s, seq, &p, NULL, got);
    assert_memory_equal(got, want, sizeof want);
    generate_with(s, fork, &p, NULL, got);
    assert_memory_equal(got, want, sizeof want);
    assert_ok(fm_seq_rewind(s, seq, NULL));
    generate_with(s, seq, &p, NULL, got);
    assert_memory_equal(got, want, sizeof want);
    fm_session_free(s);
}

static void drafts_roll_back_there(void **state)
{
    const bed *b = *state;
    const fm_sampling p = sampling(0.1f, 0, 0.95f, 0);
    int32_t want[N], got[N], after[2][N];
    fm_draft *draft;
    generate(b->cpu, &p, want);
    fm_session *s = open_session(b->gpu, 1);
    const fm_seq seq = new_seq(s, N_TEXT);
    assert_ok(fm_draft_open(&draft, b->gpu, &(fm_draft_options){.max = 7, .fixed = true, .ngram_min = 1}, NULL));
    assert_ok(fm_draft_begin(draft, text, N_TEXT, NULL));
    generate_with(s, seq, &p, draft, got);
    assert_memory_equal(got, want, sizeof want);
    generate_with(s, seq, &p, NULL, after[0]);
    fm_session_free(s);
    fm_draft_free(draft);
    s = open_session(b->cpu, 1); /* the state behind the drafts is that of plain decoding */
    const fm_seq plain = new_seq(s, N_TEXT);
    generate_with(s, plain, &p, NULL, got);
    generate_with(s, plain, &p, NULL, after[1]);
    assert_memory_equal(after[0], after[1], sizeof after[0]);
    fm_session_free(s);
}

/* ---- States in bf16 ---- */

static fm_session *open_half(const fm_model *m, size_t chunk)
{
    fm_session *s;
    const fm_session_options o = {.n_seq = 3, .chunk = chunk, .threads = 1, .draft_max = 7, .bf16_states = true};
    assert_ok(fm_session_open(&s, m, &o, NULL));
    return s;
}

static float *state_of(fm_session *s, fm_seq seq, fm_state **st)
{
    assert_ok(fm_state_take(st, s, seq, NULL));
    return (*st)->state;
}

/* The state and the logits of the same tokens, however they came. */
static void assert_same_point(fm_session *a, fm_seq p, fm_session *b, fm_seq q)
{
    fm_state *x, *y;
    const float *one = state_of(a, p, &x), *other = state_of(b, q, &y);
    assert_memory_equal(one, other, x->state_floats * sizeof(float));
    assert_memory_equal(fm_seq_logits(a, p), fm_seq_logits(b, q), LOGITS_BYTES);
    fm_state_free(x);
    fm_state_free(y);
}

static void bf16_states_do_not_depend_on_the_cut(void **state)
{
    const bed *b = *state;
    fm_session *s = open_half(b->gpu, CHUNK), *small = open_half(b->gpu, 3);
    const fm_seq whole = new_seq(s, N_TEXT), cut = new_seq(small, N_TEXT), single = new_seq(s, 0);
    for (size_t i = 0; i < N_TEXT; i++) assert_ok(fm_seq_append(s, single, text + i, 1, NULL));
    assert_same_point(s, whole, small, cut);
    assert_same_point(s, whole, s, single);
    fm_seq fork;
    assert_ok(fm_seq_mark(s, whole, NULL));
    assert_ok(fm_seq_fork(s, whole, &fork, NULL));
    assert_ok(fm_seq_append(s, whole, text, 4, NULL));
    assert_ok(fm_seq_append(s, fork, text, 4, NULL));
    assert_same_point(s, whole, s, fork);
    assert_ok(fm_seq_rewind(s, whole, NULL));
    assert_same_point(s, whole, s, single);
    assert_ok(fm_step(s, &(fm_span){.seq = fork, .tokens = text, .n = N_TEXT, .reset = true, .want = FM_WANT_LAST}, 1, NULL));
    assert_same_point(s, fork, s, single);
    fm_session_free(s);
    fm_session_free(small);
}

/* Outside it is a state like any other, which comes back to the bit, and is near to the one in f32 but not the same. */
static void bf16_states_leave_as_f32(void **state)
{
    const bed *b = *state;
    fm_session *s = open_half(b->gpu, CHUNK), *other = open_half(b->gpu, CHUNK), *plain = open_session(b->gpu, 1);
    const fm_seq seq = new_seq(s, N_TEXT), back = new_seq(other, 1), f32 = new_seq(plain, N_TEXT);
    fm_state *st, *want;
    const float *got = state_of(s, seq, &st), *exact = state_of(plain, f32, &want);
    double error = 0, norm = 0;
    assert_int_equal(st->state_floats, want->state_floats);
    for (size_t i = 0; i < st->state_floats; i++) {
        error += (double)(got[i] - exact[i]) * (double)(got[i] - exact[i]);
        norm += (double)exact[i] * (double)exact[i];
    }
    assert_true(error > 0 && error < 1e-4 * norm);
    assert_ok(fm_state_put(other, back, st, false, NULL));
    assert_same_point(s, seq, other, back);
    assert_ok(fm_seq_append(s, seq, text, 5, NULL));
    assert_ok(fm_seq_append(other, back, text, 5, NULL));
    assert_same_point(s, seq, other, back);
    fm_state_free(st);
    fm_state_free(want);
    fm_session_free(s);
    fm_session_free(other);
    fm_session_free(plain);
}

/* What is kept of a draft moves the states to the bits of a step. */
static void bf16_states_follow_drafts(void **state)
{
    const bed *b = *state;
    fm_session *s = open_half(b->gpu, CHUNK);
    const fm_seq seq = new_seq(s, N_TEXT), plain = new_seq(s, N_TEXT);
    assert_ok(fm_trial_begin(s, seq, text, 6, NULL));
    assert_ok(fm_trial_keep(s, NULL));
    fm_trial_move(s);
    assert_ok(fm_trial_keep(s, NULL));
    fm_trial_end(s);
    assert_ok(fm_seq_append(s, plain, text, 3, NULL));
    assert_same_point(s, seq, s, plain);
    fm_session_free(s);
}

static void bf16_states_take_less_and_a_gpu(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_session *s;
    fm_device_bytes half, whole;
    fm_session_options o = {.n_seq = 5, .chunk = CHUNK};
    assert_ok(fm_session_device_bytes(b->gpu, &o, &whole, NULL));
    o.bf16_states = true;
    assert_ok(fm_session_device_bytes(b->gpu, &o, &half, NULL));
    const fm_config *c = &b->gpu->config;
    const size_t window = (c->d_conv - 1) * c->d_inner, h = c->d_state * c->d_inner;
    assert_int_equal(whole.states - half.states, 5 * 2 * c->n_layer * h * sizeof(float) / 2);
    assert_int_equal(b->gpu->half_state_floats, c->n_layer * (window + h / 2));
    fake.most = fake.used;
    assert_ok(fm_session_open(&s, b->gpu, &o, NULL));
    assert_int_equal(fm_device_bytes_sum(&half), fake.used + LIBRARY_BYTES);
    fm_session_free(s);
    assert_fails(fm_session_open(&s, b->cpu, &o, &err), FM_ERR_UNSUPPORTED, err, "--device cuda");
    assert_null(s);
    assert_int_equal(fm_session_bytes(b->cpu, &o), 0);
}

/* ---- Memory ---- */

static void memory_is_as_predicted(void **state)
{
    const bed *b = *state;
    for (size_t n_seq = 1; n_seq <= 5; n_seq += 4) {
        const fm_session_options o = {.n_seq = n_seq, .chunk = CHUNK, .draft_max = 3};
        fm_device_bytes there, planned;
        fm_session *s;
        assert_ok(fm_session_device_bytes(b->gpu, &o, &there, NULL));
        assert_ok(fm_device_bytes_of(b->cpu, &(fm_model_options){0}, &o, &planned, NULL));
        assert_memory_equal(&there, &planned, sizeof there);
        if (n_seq == 1) assert_int_equal(there.weights, fake.used);
        assert_ok(fm_session_open(&s, b->gpu, &o, NULL));
        assert_int_equal(fm_device_bytes_sum(&there), fake.used + LIBRARY_BYTES);
        fm_session_free(s);
    }
}

/* With a byte less than what is needed nothing is loaded, and the sentence says what would do. */
static void too_little_memory_is_said_first(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_model *m;
    fm_device_bytes need;
    const fm_session_options o = {.n_seq = 8, .chunk = 64};
    const fm_model_options options = {.device = "cuda", .session = &o};
    assert_ok(fm_device_bytes_of(b->cpu, &options, &o, &need, NULL));
    fake_gpu_reset();
    fake.memory = fm_device_bytes_sum(&need) - 1;
    assert_fails(fm_model_open(&m, b->path, &options, &err), FM_ERR_MEMORY, err, "Q4_K would fit");
    assert_non_null(strstr(err.text, "states of 8 sequences"));
    assert_non_null(strstr(err.text, "steps of 64 tokens"));
    assert_int_equal(fake.most, 0);
    fake.memory = need.states;
    assert_fails(fm_model_open(&m, b->path, &options, &err), FM_ERR_MEMORY, err, "fewer sequences");
    fake.memory = (size_t)128 << 20; /* and room for weights on their way */
    fake.most = 0;
    assert_ok(fm_model_open(&m, b->path, &options, &err));
    assert_true(fake.most <= need.weights + ((size_t)64 << 20));
    fm_model_free(m);
}

static void what_cannot_run_there_is_named(void **state)
{
    const bed *b = *state;
    fm_error err = {0};
    fm_model *m;
    char path[256];
    test_path(path, &b->folder, "odd.gguf");
    tiny_model_write(path, FM_IQ4_XS);
    fake_gpu_reset();
    assert_fails(fm_model_open(&m, path, &(fm_model_options){.device = "cuda"}, &err), FM_ERR_UNSUPPORTED, err, "IQ4_XS");
    assert_non_null(strstr(err.text, "--device cpu"));
    fake.why_none = "the driver is older than this program needs";
    assert_fails(fm_model_open(&m, path, &(fm_model_options){.device = "cuda"}, &err), FM_ERR_DEVICE, err, "older");
    assert_ok(fm_model_open(&m, path, &(fm_model_options){.device = "auto"}, &err));
    fm_model_free(m);
    assert_int_equal(remove(path), 0);
    fake_gpu_reset();
}

/* ---- Lost ---- */

/* Whenever it goes, the call that meets it says so, so do all that follow, and what was saved before goes on elsewhere. */
static void a_lost_device_ends_the_session(void **state)
{
    const bed *b = *state;
    const fm_sampling p = sampling(1, 0, 0.95f, 0);
    int32_t want[N], got[N], *at = got;
    generate(b->cpu, &p, want);
    for (long wait = 0; wait < 6; wait++) {
        fm_error err = {0};
        fm_generated end;
        fm_model *m;
        fm_state *st;
        fm_sampler *sampler = open_sampler(&p);
        assert_ok(fm_model_open(&m, b->path, &(fm_model_options){.device = "cuda"}, NULL));
        fm_session *s = open_session(m, 2);
        const fm_seq seq = new_seq(s, N_TEXT), other = new_seq(s, 1);
        assert_ok(fm_state_take(&st, s, seq, NULL));
        fake.waits_left = wait;
        at = got;
        const fm_generation g = {.n = N, .on_token = hear, .ctx = &at};
        assert_fails(fm_generate(s, seq, sampler, &g, &end, &err), FM_ERR_DEVICE, err, "states saved before are good");
        assert_fails(fm_seq_append(s, other, text, 1, &err), FM_ERR_DEVICE, err, "a fake failed");
        fm_state *late;
        assert_fails(fm_state_take(&late, s, seq, &err), FM_ERR_DEVICE, err, "start again");
        assert_null(late);
        fm_session_free(s);
        fm_model_free(m);
        fm_sampler_free(sampler);
        fake.waits_left = -1;
        go_on(b->cpu, st, got);
        fm_state_free(st);
    }
}

int main(void)
{
#define THERE(test) cmocka_unit_test_setup_teardown(test, plug_in, pull_out)
    const struct CMUnitTest tests[] = {THERE(the_device_chooses_what_the_host_would),
                                       THERE(other_samplers_bring_logits),
                                       cmocka_unit_test(idle_samplers_are_no_reason),
                                       THERE(batches_are_mixed),
                                       THERE(batches_choose),
                                       THERE(wrong_choices_change_nothing),
                                       THERE(bad_numbers_are_found_there_too),
                                       THERE(logits_are_fetched_when_asked_for),
                                       THERE(many_sequences_keep_no_logits),
                                       THERE(states_move_between_devices),
                                       THERE(forks_and_marks_are_points_in_time),
                                       THERE(drafts_roll_back_there),
                                       THERE(bf16_states_do_not_depend_on_the_cut),
                                       THERE(bf16_states_leave_as_f32),
                                       THERE(bf16_states_follow_drafts),
                                       THERE(bf16_states_take_less_and_a_gpu),
                                       THERE(memory_is_as_predicted),
                                       cmocka_unit_test(too_little_memory_is_said_first),
                                       cmocka_unit_test(what_cannot_run_there_is_named),
                                       THERE(a_lost_device_ends_the_session)};
    return cmocka_run_group_tests(tests, make_bed, drop_bed);
}
