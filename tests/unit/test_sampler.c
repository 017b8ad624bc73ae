/* test_sampler.c - every sampler against a numpy oracle (tests/oracles/sampler_oracle.py wrote tests/data/sampler/cases.txt),
 * and what an oracle cannot say: which parameters are refused, how draws are distributed and what they depend on, memory. */
#include <math.h>

#include "base/rng.h"
#include "fmamba.h"
#include "runtime/sampler/internal.h"
#include "text/tokenizer.h"
#include "unit/sampler_cases.h"

#define CASES FM_SOURCE_DIR "/tests/data/sampler/cases.txt"

static fm_sampler *open_sampler(const fm_sampling *p, size_t vocab)
{
    fm_sampler *s;
    fm_error err = {0};
    if (fm_sampler_open(&s, p, vocab, NULL, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    return s;
}

/* Logits that no two runs of this program differ in. */
static void fill_logits(float *z, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++) z[i] = 2 * fm_rng_normal(11, stream, i);
}

/* ---- Recorded cases ---- */

/* A sampler in the situation of the case. */
static fm_sampler *open_case(const recorded *r)
{
    fm_sampler *s = open_sampler(&r->p, VOCAB);
    for (size_t i = 0; i < r->n_breakers && s->breaker; i++) s->breaker[r->breakers[i]] = true;
    fm_sampler_set_eos(s, r->eos, r->n_eos);
    for (size_t i = 0; i < r->n_prompt; i++) fm_sampler_accept(s, r->prompt[i], true);
    for (size_t i = 0; i < r->n_output; i++) fm_sampler_accept(s, r->output[i], false);
    if (!isnan(r->mu)) s->mu = r->mu;
    return s;
}

/* Says where the candidates differ from the record. */
static bool check_survivors(const recorded *r, fm_sampler *s)
{
    double p[VOCAB] = {0};
    fm_candidates *c = &s->candidates;
    fm_candidates_softmax(c);
    for (size_t i = 0; i < c->n; i++) {
        assert_true(isfinite(c->c[i].logit));
        assert_true(p[c->c[i].id] == 0);
        p[c->c[i].id] = c->p[i];
    }
    for (size_t id = 0; id < VOCAB; id++)
        if (fabs(p[id] - r->survive[id]) > 1e-7 + 3e-5 * r->survive[id] || (p[id] > 1e-12) != (r->survive[id] > 1e-12)) {
            print_error("%s: token %zu has probability %.9g, expected %.9g\n", r->name, id, p[id], r->survive[id]);
            return false;
        }
    return true;
}

/* Both versions of mirostat learn the same way from what they drew, when it is accepted and only then. */
static void check_learning(const recorded *r, fm_sampler *s, double before, int32_t id)
{
    if (!(r->survive[id] > 0)) fail_msg("%s: token %d was drawn, which is gone", r->name, (int)id);
    const double surprise = r->p.mirostat ? -log2(r->uncut[id]) : 0;
    const double want = r->p.mirostat ? before - (double)r->p.mirostat_eta * (surprise - (double)r->p.mirostat_tau) : before;
    assert_true(s->mu == before);
    fm_sampler_accept(s, id, false);
    assert_true(fabs(s->mu - want) < 1e-4);
    fm_sampler_accept(s, id, false);
    assert_true(fabs(s->mu - want) < 1e-4);
}

static void test_cases(void **state)
{
    FILE *f = fopen(CASES, "r");
    recorded r;
    size_t n = 0, n_wrong = 0;
    int vocab;
    (void)state;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "vocab %d\n", &vocab), 1);
    assert_int_equal(vocab, VOCAB);
    for (; read_case(&r, f); n++) {
        fm_sampler *s = open_case(&r);
        const double mu = s->mu;
        const int32_t id = fm_sampler_choose(s, r.logits, 0, 5);
        assert_in_range(id, 0, VOCAB - 1);
        const bool same = check_survivors(&r, s);
        if (same) check_learning(&r, s, mu, id);
        n_wrong += !same;
        for (size_t i = 0; i < r.n_rated; i++)
            assert_true(fabs(fm_logprob(r.logits, VOCAB, r.rated[i]) - r.logprobs[i]) < 1e-12 * fabs(r.logprobs[i]));
        fm_sampler_free(s);
    }
    fclose(f);
    assert_int_equal(n_wrong, 0);
    assert_true(n > 150);
}

/* ---- Ordering ---- */

static int best_first(const void *a, const void *b)
{
    const fm_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* A permutation of 0 .. n-1 with logits of `levels` different values: few levels, many ties. */
static void scatter(fm_candidate *c, size_t n, uint32_t levels, uint64_t stream)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t w[4];
        fm_rng_words(w, 5, stream, i);
        c[i] = (fm_candidate){(int32_t)i, (float)(w[0] % levels)};
        const size_t j = w[1] % (i + 1);
        const fm_candidate t = c[i];
        c[i] = c[j];
        c[j] = t;
    }
}

static void test_sort(void **state)
{
    static const uint32_t levels[] = {1, 2, 7, 1u << 20};
    enum { N = 70 };
    fm_candidate original[N], want[N], c[N];
    (void)state;
    for (size_t l = 0; l < FM_COUNT(levels); l++)
        for (size_t n = 1; n <= N; n += n < 12 ? 1 : 29) {
            scatter(original, n, levels[l], n);
            memcpy(want, original, n * sizeof *c);
            qsort(want, n, sizeof *want, best_first);
            for (size_t k = 0; k <= n + 1; k++) {
                memcpy(c, original, n * sizeof *c);
                fm_candidates list = {.c = c, .n = n};
                fm_candidates_sort(&list, k);
                assert_int_equal(list.sorted, k < n ? k : n);
                assert_int_equal(list.n, n);
                for (size_t i = 0; i < list.sorted; i++) assert_int_equal(c[i].id, want[i].id);
                fm_candidates_sort(&list, n); /* on from where it was */
                for (size_t i = 0; i < n; i++) assert_int_equal(c[i].id, want[i].id);
            }
        }
}

static void test_sort_large(void **state)
{
    enum { N = 20000 };
    fm_candidate *c = malloc(N * sizeof *c), *want = malloc(N * sizeof *c);
    (void)state;
    assert_true(c && want);
    for (size_t k = 1; k <= N; k = k * 5 + 1) {
        scatter(c, N, 1u << 30, k);
        memcpy(want, c, N * sizeof *c);
        qsort(want, N, sizeof *c, best_first);
        fm_candidates list = {.c = c, .n = N};
        fm_candidates_sort(&list, k);
        assert_memory_equal(c, want, k * sizeof *c);
    }
    free(c);
    free(want);
}

/* top_p sorts more and more as it needs to; a flat distribution of many tokens needs nearly all. */
static void test_top_p_of_many(void **state)
{
    enum { N = 5000 };
    static float z[N];
    fm_sampling p = neutral();
    (void)state;
    for (size_t i = 0; i < N; i++) z[i] = -1e-4f * (float)((i * 1237) % N);
    p.top_p = 0.8f;
    fm_sampler *s = open_sampler(&p, N);
    fm_sampler_choose(s, z, 0, 0);
    double total = 0, sum = 0;
    for (size_t i = 0; i < N; i++) total += exp(-1e-4 * (double)i);
    size_t want = 0;
    while (sum < 0.8 * total) sum += exp(-1e-4 * (double)want++);
    assert_in_range(s->candidates.n, want - 1, want + 1);
    for (size_t i = 0; i < s->candidates.n; i++) assert_true(s->candidates.c[i].logit >= -1e-4f * (float)want - 1e-6f);
    fm_sampler_free(s);
}

static void test_logprob_edges(void **state)
{
    const float z[] = {1000, 1000, -1000, -INFINITY};
    (void)state;
    assert_true(fabs(fm_logprob(z, 4, 0) + log(2)) < 1e-15);
    assert_true(fabs(fm_logprob(z, 4, 2) + 2000 + log(2)) < 1e-12);
    assert_true(fm_logprob(z, 4, 3) == -(double)INFINITY);
    assert_true(fm_logprob(z, 4, -1) == -(double)INFINITY);
    assert_true(fm_logprob(z, 4, 4) == -(double)INFINITY);
    assert_true(fm_logprob(z, 1, 0) == 0);
    const float odd[] = {NAN, INFINITY, 0, -NAN}, none[] = {NAN, -INFINITY};
    assert_true(fm_logprob(odd, 4, 0) == -(double)INFINITY && fm_logprob(odd, 4, 3) == -(double)INFINITY);
    assert_true(fm_logprob(odd, 4, 1) == 0 && fm_logprob(odd, 4, 2) < -1e38);
    assert_true(fm_logprob(none, 2, 0) == -(double)INFINITY && fm_logprob(none, 2, 1) == -(double)INFINITY);
}

/* ---- Parameters ---- */

static void refuse(const fm_sampling *p, fm_status want, const char *part)
{
    fm_sampler *s = (fm_sampler *)(uintptr_t)1;
    fm_error err = {0};
    test_allocator t;
    test_allocator_arm(&t, 0);
    assert_fails(fm_sampler_open(&s, p, VOCAB, NULL, &t.a, &err), want, err, part);
    assert_null(s);
    assert_int_equal(t.n_live, 0);
}

static void test_ranges(void **state)
{
    static const struct {
        const char *name;
        double lo, hi; /* the least and the most that is accepted */
        double below, above;
    } ranges[] = {
        {"temperature", 0, 100, -0.1, 101},
        {"dynatemp_range", 0, 100, -1, 101},
        {"dynatemp_exponent", 0, 100, -1, 101},
        {"top_k", -1, 1 << 30, -2, 1073741825},
        {"top_p", 0, 1, -0.1, 1.1},
        {"min_p", 0, 1, -0.1, 1.1},
        {"typical_p", 0, 1, -0.1, 1.1},
        {"top_n_sigma", -1, 1e6, -1.5, 2e6},
        {"xtc_probability", 0, 1, -0.1, 1.1},
        {"xtc_threshold", 0, 1, -0.1, 1.1},
        {"repeat_penalty", 0.01, 1e3, 0, 1001},
        {"presence_penalty", -2, 2, -2.1, 2.1},
        {"frequency_penalty", -2, 2, -2.1, 2.1},
        {"repeat_last_n", -1, 65536, -2, 65537},
        {"dry_multiplier", 0, 1e3, -1, 1001},
        {"dry_base", 0, 1e3, -1, 1001},
        {"dry_allowed_length", 1, 65536, 0, 65537},
        {"dry_penalty_last_n", -1, 65536, -2, 65537},
        {"mirostat", 0, 2, -1, 3},
        {"mirostat_tau", 0, 100, -1, 101},
        {"mirostat_eta", 0, 1, -0.1, 1.1},
    };
    (void)state;
    for (size_t i = 0; i < FM_COUNT(ranges); i++) {
        const double bad[] = {ranges[i].below, ranges[i].above}, good[] = {ranges[i].lo, ranges[i].hi};
        for (int k = 0; k < 2; k++) {
            fm_sampling p = neutral();
            set_parameter(&p, ranges[i].name, bad[k]);
            refuse(&p, FM_ERR_ARGUMENT, ranges[i].name);
            set_parameter(&p, ranges[i].name, good[k]);
            fm_sampler_free(open_sampler(&p, VOCAB));
        }
    }
    fm_sampling p = neutral();
    p.top_p = NAN;
    refuse(&p, FM_ERR_ARGUMENT, "top_p");
}

static void test_ids_refused(void **state)
{
    static const fm_logit_bias biases[] = {{-1, 0}, {VOCAB, 0}, {0, NAN}, {0, INFINITY}};
    static const int32_t allowed[] = {-1, VOCAB};
    (void)state;
    for (size_t i = 0; i < FM_COUNT(biases); i++) {
        fm_sampling p = neutral();
        p.biases = &biases[i];
        p.n_biases = 1;
        refuse(&p, FM_ERR_LIMIT, "logit bias 0");
    }
    for (size_t i = 0; i < FM_COUNT(allowed); i++) {
        fm_sampling p = neutral();
        p.allowed = &allowed[i];
        p.n_allowed = 1;
        refuse(&p, FM_ERR_LIMIT, "allowed token 0");
    }
}

static void test_order_list(void **state)
{
    char many[FM_SAMPLERS_MAX * 6 + 7];
    fm_sampling p = neutral();
    (void)state;
    p.samplers = "top_k;topp";
    refuse(&p, FM_ERR_ARGUMENT, "\"topp\"");
    p.samplers = "top_k, top_p";
    refuse(&p, FM_ERR_ARGUMENT, "separated by ';'");
    p.samplers = "Top_k";
    refuse(&p, FM_ERR_ARGUMENT, "\"Top_k\"");
    for (size_t i = 0; i <= FM_SAMPLERS_MAX; i++) memcpy(many + 6 * i, "top_k;", 7);
    p.samplers = many;
    refuse(&p, FM_ERR_LIMIT, "more than 32");
    p.samplers = ";;xtc;top_k;;min_p;";
    fm_sampler *s = open_sampler(&p, VOCAB);
    assert_int_equal(s->n_order, 3);
    assert_ptr_equal(s->order[0], &fm_sampler_xtc);
    assert_ptr_equal(s->order[1], &fm_sampler_top_k);
    assert_ptr_equal(s->order[2], &fm_sampler_min_p);
    fm_sampler_free(s);
}

static void test_vocab_sizes(void **state)
{
    const fm_sampling p = neutral();
    const float z = -3;
    fm_sampler *s;
    fm_error err;
    (void)state;
    assert_fails(fm_sampler_open(&s, &p, 0, NULL, NULL, &err), FM_ERR_ARGUMENT, err, "0 tokens");
    assert_fails(fm_sampler_open(&s, &p, (size_t)INT32_MAX + 1, NULL, NULL, &err), FM_ERR_ARGUMENT, err, "expected 1");
    s = open_sampler(&p, 1);
    assert_int_equal(fm_sampler_choose(s, &z, 0, 0), 0);
    fm_sampler_accept(s, -1, false);
    fm_sampler_accept(s, 1, false);
    assert_int_equal(s->n_seen, 0);
    fm_sampler_free(s);
    fm_sampler_free(NULL);
}

static void test_defaults(void **state)
{
    const fm_sampling p = fm_sampling_defaults(NULL);
    (void)state;
    assert_true(p.temperature == 0.8f && p.top_p == 0.95f && p.top_k == 0 && p.min_p == 0 && p.typical_p == 1);
    assert_true(p.repeat_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0 && p.dry_multiplier == 0);
    assert_true(p.top_n_sigma == 0 && p.xtc_probability == 0 && p.mirostat == 0 && p.dynatemp_range == 0);
    assert_int_equal(p.repeat_last_n, 64);
}

/* ---- Draws ---- */

enum { DRAWS = 20000 };

/* Chi-square of DRAWS draws against the probabilities. */
static double chi_square(fm_sampler *s, const float *z, size_t vocab, const double *p)
{
    size_t hits[VOCAB] = {0};
    double sum = 0;
    for (uint64_t i = 0; i < DRAWS; i++) hits[fm_sampler_choose(s, z, 3, i)]++;
    for (size_t i = 0; i < vocab; i++) {
        const double want = DRAWS * p[i];
        if (want == 0)
            assert_int_equal(hits[i], 0);
        else
            sum += ((double)hits[i] - want) * ((double)hits[i] - want) / want;
    }
    return sum;
}

static void test_distribution(void **state)
{
    enum { N = 12 };
    static const int top_ks[] = {0, 5};
    float z[N];
    double p[N];
    (void)state;
    for (size_t i = 0; i < N; i++) z[i] = 0.25f * (float)((i * 5) % N);
    for (size_t k = 0; k < FM_COUNT(top_ks); k++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            double total = 0;
            for (size_t i = 0; i < N; i++) {
                p[i] = top_ks[k] == 0 || z[i] >= 0.25f * (float)(N - top_ks[k]) ? exp((double)z[i]) : 0;
                total += p[i];
            }
            for (size_t i = 0; i < N; i++) p[i] /= total;
            fm_sampling params = neutral();
            params.seed = seed;
            params.top_k = top_ks[k];
            fm_sampler *s = open_sampler(&params, N);
            const double chi = chi_square(s, z, N, p);
            assert_true(chi < (top_ks[k] ? 18.5 : 31.3)); /* 99.9% of 4 and of 11 degrees of freedom */
            fm_sampler_free(s);
        }
}

/* XTC strikes with its probability, and its dice are not those of the draw. */
static void test_xtc_probability(void **state)
{
    const float z[3] = {2, 2, 0}; /* the lower id is thought likelier */
    fm_sampling params = neutral();
    size_t struck = 0, first = 0;
    (void)state;
    params.xtc_probability = 0.3f;
    fm_sampler *s = open_sampler(&params, 3);
    for (uint64_t i = 0; i < DRAWS; i++) {
        const int32_t id = fm_sampler_choose(s, z, 0, i);
        if (s->candidates.n == 2)
            struck++;
        else
            first += id == 0;
    }
    assert_in_range(struck, DRAWS * 0.285, DRAWS * 0.315);
    const double p = exp(2) / (2 * exp(2) + 1), kept = (double)(DRAWS - struck);
    assert_in_range(first, (p - 0.015) * kept, (p + 0.015) * kept);
    fm_sampler_free(s);
}

/* The same (seed, choice, position) gives the same token whatever was drawn before, and a change of any of them gives others. */
static void test_placement(void **state)
{
    enum { N = 200 };
    float z[VOCAB];
    int32_t in_order[N];
    size_t differ[3] = {0};
    fm_sampling p = neutral(), other = neutral();
    (void)state;
    p.xtc_probability = other.xtc_probability = 0.5f;
    other.seed = 1;
    fill_logits(z, VOCAB, 0);
    fm_sampler *a = open_sampler(&p, VOCAB), *b = open_sampler(&p, VOCAB), *c = open_sampler(&other, VOCAB);
    for (uint64_t i = 0; i < N; i++) in_order[i] = fm_sampler_choose(a, z, 7, i);
    for (uint64_t i = N; i-- > 0;) {
        fm_sampler_choose(b, z, i, 3 * i);
        assert_int_equal(fm_sampler_choose(b, z, 7, i), in_order[i]);
        differ[0] += fm_sampler_choose(b, z, 8, i) != in_order[i];
        differ[1] += fm_sampler_choose(b, z, 7, i + 1) != in_order[i];
        differ[2] += fm_sampler_choose(c, z, 7, i) != in_order[i];
    }
    for (int i = 0; i < 3; i++) assert_true(differ[i] > N / 2);
    fm_sampler_free(a);
    fm_sampler_free(b);
    fm_sampler_free(c);
}

static void test_logits_untouched(void **state)
{
    float z[VOCAB], copy[VOCAB];
    fm_sampling p = fm_sampling_defaults(NULL);
    (void)state;
    fill_logits(z, VOCAB, 1);
    memcpy(copy, z, sizeof z);
    p.top_k = 5;
    p.repeat_penalty = 1.5f;
    fm_sampler *s = open_sampler(&p, VOCAB);
    for (uint64_t i = 0; i < 20; i++) fm_sampler_accept(s, fm_sampler_choose(s, z, 0, i), false);
    assert_memory_equal(z, copy, sizeof z);
    fm_sampler_free(s);
}

/* ---- History ---- */

static void test_window(void **state)
{
    static const int windows[] = {0, 1, 3, 64, -1};
    enum { N = 300 };
    int32_t text[N];
    (void)state;
    for (size_t w = 0; w < FM_COUNT(windows); w++)
        for (int dry = 0; dry < 2; dry++) { /* DRY's own window lengthens the history */
            fm_sampling p = neutral();
            p.repeat_last_n = windows[w];
            p.dry_multiplier = (float)dry;
            p.dry_penalty_last_n = 10;
            fm_sampler *s = open_sampler(&p, VOCAB);
            for (size_t i = 0; i < N; i++) {
                uint32_t counts[VOCAB] = {0}, generated[VOCAB] = {0};
                text[i] = (int32_t)((i * i + i / 7) % VOCAB);
                fm_sampler_accept(s, text[i], i % 3 == 0);
                for (size_t j = 0; j <= i; j++) {
                    generated[text[j]] += j % 3 != 0;
                    counts[text[j]] += windows[w] < 0 || i - j < (size_t)windows[w];
                }
                assert_memory_equal(s->window, counts, sizeof counts);
                assert_memory_equal(s->generated, generated, sizeof generated);
            }
            fm_sampler_reset(s);
            for (size_t i = 0; i < VOCAB; i++) assert_true(s->window[i] == 0 && s->generated[i] == 0);
            assert_int_equal(s->n_seen + s->n_generated, 0);
            fm_sampler_free(s);
        }
}

/* Resetting gives a sampler that does what a new one does. */
static void test_reset(void **state)
{
    float z[VOCAB];
    fm_sampling p = neutral();
    int32_t first[60];
    (void)state;
    p.mirostat = 2;
    p.mirostat_tau = 3;
    p.dry_multiplier = 1;
    p.dry_allowed_length = 1;
    p.frequency_penalty = 0.2f;
    p.repeat_penalty = 1.1f;
    fm_sampler *s = open_sampler(&p, VOCAB);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < FM_COUNT(first); i++) {
            fill_logits(z, VOCAB, i);
            const int32_t id = fm_sampler_choose(s, z, 0, i);
            if (round) assert_int_equal(id, first[i]);
            first[i] = id;
            fm_sampler_accept(s, id, false);
        }
        fm_sampler_reset(s);
    }
    fm_sampler_free(s);
}

/* Mirostat brings the surprise of a long text near tau. */
static void test_mirostat_converges(void **state)
{
    static float z[2000];
    (void)state;
    for (size_t i = 0; i < FM_COUNT(z); i++) z[i] = -1.1f * logf((float)(i + 1));
    for (int version = 1; version <= 2; version++) {
        fm_sampling p = neutral();
        p.mirostat = version;
        p.mirostat_tau = 3;
        fm_sampler *s = open_sampler(&p, FM_COUNT(z));
        double surprise = 0;
        for (uint64_t i = 0; i < 2000; i++) {
            const int32_t id = fm_sampler_choose(s, z, 0, i);
            surprise -= fm_logprob(z, FM_COUNT(z), id) / log(2);
            fm_sampler_accept(s, id, false);
        }
        assert_true(fabs(surprise / 2000 - 3) < 0.1);
        fm_sampler_free(s);
    }
}

/* ---- Breakers ---- */

static fm_tokenizer *small_tokenizer(void)
{
    /* As the byte alphabet spells them: U+010A is a line feed, U+0120 a space. */
    const fm_view tokens[] = {FM_VIEW("a"),  FM_VIEW("b"),  FM_VIEW("\xC4\x8A"),
                              FM_VIEW("x:"), FM_VIEW("\""), FM_VIEW("\xC4\xA0*")};
    const fm_vocab v = {.tokens = tokens,
                        .n_tokens = FM_COUNT(tokens),
                        .pretok = FM_PRETOK_GPT2,
                        .pretok_name = "gpt-2",
                        .bos = -1,
                        .eos = -1,
                        .unk = -1,
                        .pad = -1};
    fm_tokenizer *t;
    fm_error err = {0};
    if (fm_tokenizer_build(&t, &v, NULL, &err) != FM_OK) fail_msg("%s", err.text);
    return t;
}

static void check_breakers(const fm_sampling *p, const fm_tokenizer *t, const char *want)
{
    fm_sampler *s;
    assert_ok(fm_sampler_open(&s, p, 8, t, NULL, NULL));
    for (size_t i = 0; i < 8; i++) assert_int_equal(s->breaker[i], want[i] == '1');
    fm_sampler_free(s);
}

static void test_breakers(void **state)
{
    static const char *const own[] = {"b", ""};
    fm_tokenizer *t = small_tokenizer();
    fm_sampling p = neutral();
    (void)state;
    p.dry_multiplier = 1;
    check_breakers(&p, t, "00111100");
    check_breakers(&p, NULL, "00000000");
    p.dry_breakers = own;
    p.n_dry_breakers = 2;
    check_breakers(&p, t, "01000000");
    p.n_dry_breakers = 0;
    check_breakers(&p, t, "00000000");
    fm_tokenizer_free(t);
}

/* A breaker that no token holds: "b\n\"" is spread over three of them. */
static void test_breaker_of_several_tokens(void **state)
{
    static const char *const own[] = {"zzz", "b\n\"", "ax:a"};
    static const int32_t text[] = {1, 2, 4, 0, 3, 1, 2, 2, 4, 0, 3, 0, 1, 2, 4};
    static const uint64_t broken[] = {0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 12, 12, 12, 15};
    fm_tokenizer *t = small_tokenizer();
    fm_sampling p = neutral();
    fm_sampler *s;
    (void)state;
    p.dry_multiplier = 1;
    p.dry_breakers = own;
    p.n_dry_breakers = FM_COUNT(own);
    assert_ok(fm_sampler_open(&s, &p, 8, t, NULL, NULL));
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < FM_COUNT(text); i++) {
            fm_sampler_accept(s, text[i], i % 2);
            assert_int_equal(s->broken_at, broken[i]);
        }
        fm_sampler_reset(s);
    }
    fm_sampler_free(s);
    fm_tokenizer_free(t);
}

/* A text longer than what is remembered of it still shows a breaker at its end; a longer breaker is refused. */
static void test_long_breakers(void **state)
{
    char longest[FM_BREAKER_MAX + 2], *spread[] = {longest};
    fm_tokenizer *t = small_tokenizer();
    fm_sampling p = neutral();
    fm_sampler *s;
    (void)state;
    memset(longest, 'a', sizeof longest);
    longest[FM_BREAKER_MAX - 1] = 'b';
    longest[FM_BREAKER_MAX] = 0;
    p.dry_multiplier = 1;
    p.dry_breakers = (const char *const *)spread;
    p.n_dry_breakers = 1;
    assert_ok(fm_sampler_open(&s, &p, 8, t, NULL, NULL));
    for (size_t i = 0; i < 1000; i++) fm_sampler_accept(s, 0, true);
    assert_int_equal(s->broken_at, 0);
    fm_sampler_accept(s, 1, true);
    assert_int_equal(s->broken_at, 1001);
    fm_sampler_free(s);
    fm_tokenizer_free(t);
    longest[FM_BREAKER_MAX] = 'a';
    longest[FM_BREAKER_MAX + 1] = 0;
    refuse(&p, FM_ERR_LIMIT, "breaker 0 has 257 bytes");
}

/* ---- Memory ---- */

static fm_status open_and_close(const fm_allocator *a, void *ctx)
{
    fm_sampler *s;
    fm_error err = {0};
    const fm_status status = fm_sampler_open(&s, ctx, VOCAB, NULL, a, &err);
    assert_int_equal(status, err.code);
    assert_true((s != NULL) == (status == FM_OK));
    fm_sampler_free(s);
    return status;
}

static fm_sampling everything(void)
{
    static const fm_logit_bias biases[] = {{1, 2}, {3, -INFINITY}};
    static const int32_t allowed[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    fm_sampling p = fm_sampling_defaults(NULL);
    p.dynatemp_range = 0.2f;
    p.top_k = 9;
    p.min_p = 0.001f;
    p.typical_p = 0.9f;
    p.top_n_sigma = 4;
    p.xtc_probability = 0.5f;
    p.repeat_penalty = 1.1f;
    p.presence_penalty = p.frequency_penalty = 0.1f;
    p.dry_multiplier = 0.5f;
    p.biases = biases;
    p.n_biases = FM_COUNT(biases);
    p.allowed = allowed;
    p.n_allowed = FM_COUNT(allowed);
    return p;
}

static void test_memory(void **state)
{
    fm_sampling p = everything();
    (void)state;
    assert_int_equal(test_every_allocation(open_and_close, &p), 2);
}

/* All memory is taken by opening, whatever is switched on; the parameters may be gone afterwards. */
static void test_choose_takes_none(void **state)
{
    float z[VOCAB];
    (void)state;
    for (int mirostat = 0; mirostat <= 2; mirostat++) {
        test_allocator t;
        fm_sampler *s;
        fm_sampling p = everything();
        p.mirostat = mirostat;
        test_allocator_arm(&t, 0);
        assert_ok(fm_sampler_open(&s, &p, VOCAB, NULL, &t.a, NULL));
        memset(&p, 0xA5, sizeof p);
        const size_t calls = t.n_calls;
        for (uint64_t i = 0; i < 500; i++) {
            fill_logits(z, VOCAB, i);
            const int32_t id = fm_sampler_choose(s, z, 0, i);
            assert_in_range(id, 0, 9);
            assert_int_not_equal(id, 3);
            fm_sampler_accept(s, id, i < 10);
        }
        fm_sampler_reset(s);
        assert_int_equal(t.n_calls, calls);
        fm_sampler_free(s);
        assert_int_equal(t.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_sort_large),
        cmocka_unit_test(test_top_p_of_many),
        cmocka_unit_test(test_logprob_edges),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_ids_refused),
        cmocka_unit_test(test_order_list),
        cmocka_unit_test(test_vocab_sizes),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_xtc_probability),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_logits_untouched),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_mirostat_converges),
        cmocka_unit_test(test_breakers),
        cmocka_unit_test(test_breaker_of_several_tokens),
        cmocka_unit_test(test_long_breakers),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_choose_takes_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
