/* test_tales.c - the shipped model against what transformers and llama.cpp compute from it (tests/data/tales): logits, greedy
 * text, cross entropy, and the logits of each quantised form.  llama.cpp uses the layer norm's epsilon for dt, B and C too;
 * so do these
 * comparisons with it, by the option that overrides the file's. */
#include "convert/convert.h"
#include "golden/golden.h"

#define MODEL FM_SOURCE_DIR "/tests/data/tales/tales.gguf"
#define DATA  FM_SOURCE_DIR "/tests/data/tales/"

enum { LAST = 64 };

static void open_data(fm_st *st, const char *name)
{
    char path[512];
    fm_error err = {0};
    snprintf(path, sizeof path, "%s%s", DATA, name);
    if (fm_st_open(st, path, FM_MAP_SHARED, NULL, &err) != FM_OK) fail_msg("%s", err.text);
}

/* Mean cross entropy of ids[1 ..] under logits (n, vocab), as transformers' loss. */
static double mean_nll(const float *logits, const int32_t *ids, size_t n, size_t vocab)
{
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++) sum -= fm_logprob(logits + i * vocab, vocab, ids[i + 1]);
    return sum / (double)(n - 1);
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    golden_run r;
    fm_st st;
    size_t n;
    golden_open(&r, MODEL, NULL);
    open_data(&st, "golden.safetensors");
    int32_t *ids = golden_ids(&st, "input_ids", &n);
    float *logits = golden_logits(&r, ids, n);
    const golden_tensor want = golden_get(&st, "logits_last64"), nll = golden_get(&st, "nll");
    double max = 0, largest = 0;
    for (size_t i = 0; i < want.n; i++) {
        const double w = (double)golden_at(&want, i);
        max = fmax(max, fabs((double)logits[(n - LAST) * r.info.vocab + i] - w));
        largest = fmax(largest, fabs(w));
    }
    printf("logits differ by at most %.2e of %.1f; nll %.6f, transformers %.6f\n", max, largest,
           mean_nll(logits, ids, n, r.info.vocab), (double)golden_at(&nll, 0));
    assert_true(max <= 1e-4 * fmax(1, largest / 4));
    assert_true(fabs(mean_nll(logits, ids, n, r.info.vocab) - (double)golden_at(&nll, 0)) < 1e-5);
    free(logits);
    free(ids);
    fm_st_close(&st);
    golden_close(&r);
}

static void greedy_text_is_that_of_transformers(void **state)
{
    (void)state;
    golden_run r;
    fm_st st;
    size_t n, one;
    golden_open(&r, MODEL, NULL);
    open_data(&st, "golden.safetensors");
    int32_t *ids = golden_ids(&st, "greedy_ids", &n), *prompt = golden_ids(&st, "greedy_prompt_len", &one);
    assert_int_equal(fm_seq_append(r.s, r.seq, ids, (size_t)prompt[0], NULL), FM_OK);
    for (size_t i = (size_t)prompt[0]; i < n; i++) {
        assert_int_equal(golden_argmax(fm_seq_logits(r.s, r.seq), r.info.vocab), ids[i]);
        assert_int_equal(fm_seq_append(r.s, r.seq, ids + i, 1, NULL), FM_OK);
    }
    int32_t tokens[8];
    size_t n_tokens = FM_COUNT(tokens);
    assert_int_equal(fm_tokenize(fm_model_tokenizer(r.m), "Once upon a time", 16, 0, tokens, &n_tokens, NULL), FM_OK);
    assert_int_equal(n_tokens, prompt[0]);
    assert_memory_equal(tokens, ids, n_tokens * sizeof *tokens);
    free(ids);
    free(prompt);
    fm_st_close(&st);
    golden_close(&r);
}

/* ---- llama.cpp ---- */

static double distance(const char *model, const char *data)
{
    golden_run r = {0};
    fm_st st;
    size_t n;
    fm_error err = {0};
    const fm_model_options o = {.mixer_rms_eps = 1e-5f};
    if (fm_model_open(&r.m, model, &o, &err) != FM_OK || fm_session_open(&r.s, r.m, NULL, &err) != FM_OK ||
        fm_seq_new(r.s, &r.seq, &err) != FM_OK)
        fail_msg("%s", err.text);
    r.info = fm_model_get_info(r.m);
    open_data(&st, data);
    int32_t *ids = golden_ids(&st, "input_ids", &n);
    float *logits = golden_logits(&r, ids, n);
    const golden_tensor want = golden_get(&st, "logits");
    const double d = golden_relative(logits + (n - LAST) * r.info.vocab, &want);
    free(logits);
    free(ids);
    fm_st_close(&st);
    golden_close(&r);
    return d;
}

static void logits_are_those_of_llama_cpp(void **state)
{
    (void)state;
    static const struct {
        const char *type, *data;
        double bound;
    } forms[] = {
        {"f32", "llamacpp-f32.safetensors", 2e-3},   {"q8_0", "llamacpp-q8_0.safetensors", 2e-2},
        {"q6_k", "llamacpp-q6_k.safetensors", 2e-2}, {"q4_k_m", "llamacpp-q4_k_m.safetensors", 2e-2},
        {"q4_0", "llamacpp-q4_0.safetensors", 2e-2}, {"iq4_xs", "llamacpp-iq4_xs.safetensors", 2e-2},
        {"q2_k", "llamacpp-q2_k.safetensors", 2e-2},
    };
    const test_folder folder = test_folder_make();
    char path[256];
    test_path(path, &folder, "m.gguf");
    for (size_t i = 0; i < FM_COUNT(forms); i++) {
        fm_error err = {0};
        if (fm_quantize(MODEL, path, forms[i].type, NULL, NULL, &err) != FM_OK) fail_msg("%s", err.text);
        const double d = distance(path, forms[i].data);
        printf("%-7s relative distance to llama.cpp %.2e (bound %.0e)\n", forms[i].type, d, forms[i].bound);
        assert_true(d <= forms[i].bound);
    }
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(greedy_text_is_that_of_transformers),
        cmocka_unit_test(logits_are_those_of_llama_cpp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
