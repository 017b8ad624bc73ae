/* cmd_perplexity.c - cross entropy of a text: streaming, in disjoint windows, or in rolling windows as lm-eval has them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/score.h"

static fm_status progress(fm_cli_bar *bar, size_t done, size_t all, fm_error *err)
{
    if (fm_cli_progress(bar, (double)done / (double)all)) return FM_OK;
    return fm_fail(err, FM_ERR_CANCELLED, "stopped after %zu of %zu tokens", done, all);
}

/* One sequence, the state carried through; every token but the first is scored. */
static fm_status score_stream(fm_cli_score *s, const fm_cli_input *in, fm_cli_bar *bar, fm_error *err)
{
    const size_t part = 4096;
    for (size_t at = 0; at + 1 < in->n; at += part) {
        const size_t left = in->n - 1 - at, n = left < part ? left : part;
        FM_TRY(fm_cli_score_span(s, in->ids + at, in->ids + at + 1, n, at == 0, err));
        FM_TRY(progress(bar, at + n, in->n, err));
    }
    return FM_OK;
}

/* lm-eval's rolling windows: a prefix token first, then each window predicts the next `window` tokens from one token of context;
 * a short last window has more context. */
static fm_status score_rolling(fm_cli_score *s, const fm_cli_input *in, size_t window, int32_t prefix, fm_cli_bar *bar,
                               fm_error *err)
{
    int32_t *ids, *targets;
    FM_TRY(fm_alloc((void **)&ids, NULL, in->n, sizeof *ids, "a window", err));
    fm_status status = fm_alloc((void **)&targets, NULL, window, sizeof *targets, "a window", err);
    ids[0] = prefix; /* input i is the token before token i */
    memcpy(ids + 1, in->ids, (in->n - 1) * sizeof *ids);
    for (size_t at = 0; at < in->n && status == FM_OK;) {
        const size_t left = in->n - at, n = left < window ? left : window, first = at + n > window ? at + n - window : 0;
        const size_t length = at + n - first;
        for (size_t i = 0; i < length; i++) targets[i] = first + i < at ? -1 : in->ids[first + i];
        status = fm_cli_score_span(s, ids + first, targets, length, true, err);
        at += n;
        if (status == FM_OK) status = progress(bar, at, in->n, err);
    }
    fm_free(NULL, targets);
    fm_free(NULL, ids);
    return status;
}

static fm_status prefix_token(int32_t *out, const fm_model *m, fm_error *err)
{
    const fm_tokenizer *t = fm_model_tokenizer(m);
    const fm_generation_defaults d = fm_model_generation_defaults(m);
    *out = t && fm_tokenizer_bos(t) >= 0 ? fm_tokenizer_bos(t) : t ? fm_tokenizer_eos(t) : d.n_eos ? d.eos[0] : -1;
    if (*out >= 0) return FM_OK;
    return fm_fail(err, FM_ERR_UNSUPPORTED,
                   "rolling windows begin with a BOS or EOS token, and this model names none: use --reset");
}

static fm_status score_all(fm_cli_score *s, const fm_model *m, const fm_cli *c, const fm_cli_input *in, fm_error *err)
{
    const size_t window = (size_t)fm_opt_int(&c->options, FM_OPT_WINDOW);
    const bool reset = fm_opt_flag(&c->options, FM_OPT_RESET);
    int32_t prefix;
    if (window && reset && in->n <= window)
        return fm_fail(err, FM_ERR_ARGUMENT,
                       "%zu tokens do not fill one window of %zu and the token after it: use a smaller --window", in->n,
                       window);
    if (!window && in->n < 2) return fm_fail(err, FM_ERR_ARGUMENT, "one token: there is nothing to predict");
    if (window && !reset) FM_TRY(prefix_token(&prefix, m, err));
    fm_cli_bar bar = fm_cli_bar_begin("scoring");
    const fm_status status = !window ? score_stream(s, in, &bar, err)
                             : reset ? fm_cli_score_windows(s, in->ids, in->n, window, fm_cli_progress, &bar, err)
                                     : score_rolling(s, in, window, prefix, &bar, err);
    fm_cli_bar_end(&bar);
    if (status != FM_OK || isfinite(s->nll)) return status;
    return fm_fail(err, FM_ERR_FORMAT,
                   "the cross entropy is not finite: the model's logits hold NaN or infinities, so its weights are damaged");
}

static int report(const fm_cli_score *s, const fm_cli *c)
{
    fm_str out = {0};
    const double nll = fm_cli_score_nats(s), ppl = exp(nll), bits = fm_cli_score_bits(s);
    if (fm_opt_flag(&c->options, FM_OPT_JSON)) {
        const struct {
            const char *key;
            double v;
        } numbers[] = {{"nll", nll}, {"ppl", ppl}, {"bits_per_byte", bits}};
        fm_jsonw w = {.out = &out};
        fm_jsonw_object(&w);
        for (size_t i = 0; i < FM_COUNT(numbers); i++) fm_jsonw_key(&w, numbers[i].key), fm_jsonw_f64(&w, numbers[i].v);
        fm_jsonw_key(&w, "tokens"), fm_jsonw_u64(&w, s->n);
        fm_jsonw_key(&w, "bytes"), fm_jsonw_u64(&w, s->bytes);
        fm_jsonw_end(&w, '}');
        fm_str_putc(&out, '\n');
    } else {
        fm_str_printf(&out, "tokens        %llu\nnats/token    %.6f\nperplexity    %.4f\n", (unsigned long long)s->n, nll, ppl);
        if (s->bytes) fm_str_printf(&out, "bits per byte %.6f\n", bits);
    }
    return fm_cli_put(&out);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_cli_engine e = {0};
    fm_cli_input in = {0};
    fm_cli_score s = {0};
    if (fm_opt_flag(&c->options, FM_OPT_RESET) && !fm_opt_int(&c->options, FM_OPT_WINDOW))
        return fm_cli_usage(c, "--reset needs --window N");
    fm_status status = fm_cli_engine_open(&e, c, &err);
    if (status == FM_OK) {
        s = (fm_cli_score){
            .session = e.session, .seq = e.seq, .t = fm_model_tokenizer(e.model), .vocab = fm_model_get_info(e.model).vocab};
        status = fm_cli_read_input(&in, c, s.t, true, s.vocab, &err);
    }
    if (status == FM_OK) status = fm_cli_check_guard(c, in.n, &err);
    if (status == FM_OK) fm_cli_start_line(c, e.model, e.session, NULL);
    if (status == FM_OK) status = score_all(&s, e.model, c, &in, &err);
    fm_cli_input_free(&in);
    fm_cli_engine_close(&e);
    return status == FM_OK ? report(&s, c) : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON,  FM_OPTS_MODEL, FM_OPTS_ENGINE, FM_OPT_STATES, FM_OPTS_TEXT, FM_OPT_IDS,
                                 FM_OPT_CTX_SIZE, FM_OPT_WINDOW, FM_OPT_RESET,   FM_OPT_JSON,   FM_OPT_END};

const fm_command fm_command_perplexity = {
    .name = "perplexity",
    .summary = "measure how well the model predicts a text",
    .usage = "[-f FILE | -p TEXT | --ids IDS] [--window N [--reset]] [options]",
    .details =
        "By default the text is one sequence whose state is carried through, and the first token is not scored.  --window N "
        "--reset scores disjoint windows of N tokens from a zero state, each position predicting the next token.  --window N "
        "alone scores in lm-eval's rolling windows.  nll is in nats per token; bits per byte compare across tokenizers.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
