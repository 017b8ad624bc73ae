/* train_eval.c - what a model in training is asked now and then: held-out text, and to write some of its own.  A session over
 * the trainer's model sees the weights as they are; nothing is saved for it. */
#include <string.h>

#include "cli/train.h"
#include "train/inspect.h"

/* ---- Held-out text ---- */

fm_status fm_train_evaluate(fm_train_job *j, fm_cli_score *score, fm_error *err)
{
    *score = (fm_cli_score){.t = j->tokenizer, .vocab = fm_model_get_info(j->m).vocab};
    FM_TRY(fm_cli_session_open(&score->session, j->m, j->c, 1, err));
    fm_status status = fm_seq_new(score->session, &score->seq, err);
    if (status == FM_OK) status = fm_cli_score_windows(score, j->val.ids, j->val.n, (size_t)j->o.length, NULL, NULL, err);
    fm_session_free(score->session);
    score->session = NULL;
    return status;
}

fm_status fm_train_report_evaluation(fm_train_job *j, const fm_train_step *s, fm_error *err)
{
    fm_cli_score score;
    fm_str line = {0};
    FM_TRY(fm_train_evaluate(j, &score, err));
    const double nats = fm_cli_score_nats(&score), bits = fm_cli_score_bits(&score);
    fm_train_say(j, "step %llu: held-out loss %.4f, %.4f bits per byte", (unsigned long long)s->step, nats, bits);
    fm_jsonw w = fm_train_log_begin(&line, s);
    fm_jsonw_key(&w, "val_loss"), fm_jsonw_f64(&w, nats);
    fm_jsonw_key(&w, "bits_per_byte"), fm_jsonw_f64(&w, bits);
    fm_train_log_end(j, &w);
    return FM_OK;
}

/* ---- A text ---- */

static bool take_text(void *ctx, const fm_token_event *e)
{
    fm_str_put(ctx, e->text, e->text_n);
    return true;
}

/* The prompt's ids; those of an empty one are the end token, after which a document begins. */
static fm_status read_prompt(int32_t **ids, size_t *n, const fm_train_job *j, fm_error *err)
{
    const int32_t eos = fm_tokenizer_eos(j->tokenizer);
    FM_TRY(fm_cli_tokenize(ids, n, j->tokenizer, fm_view_of(j->o.sample), FM_PARSE_SPECIAL, err));
    if (*n > 0) return FM_OK;
    fm_free(NULL, *ids);
    FM_TRY(fm_alloc((void **)ids, NULL, 1, sizeof **ids, "a prompt", err));
    (*ids)[0] = eos >= 0 ? eos : 0;
    *n = 1;
    return FM_OK;
}

static fm_status generate(fm_str *text, const fm_train_job *j, fm_session *s, fm_error *err)
{
    const int32_t eos = fm_tokenizer_eos(j->tokenizer);
    const fm_generation g = {.n = (size_t)j->o.sample_tokens,
                             .tokenizer = j->tokenizer,
                             .eos = &eos,
                             .n_eos = eos >= 0,
                             .on_token = take_text,
                             .ctx = text};
    fm_sampling p = fm_sampling_defaults(NULL);
    fm_sampler *sampler;
    fm_generated end;
    fm_seq seq;
    int32_t *ids = NULL;
    size_t n = 0;
    p.seed = j->o.seed;
    FM_TRY(fm_seq_new(s, &seq, err));
    FM_TRY(read_prompt(&ids, &n, j, err));
    fm_status status = fm_seq_append(s, seq, ids, n, err);
    fm_free(NULL, ids);
    FM_TRY(status);
    FM_TRY(fm_sampler_open(&sampler, &p, fm_model_get_info(j->m).vocab, NULL, NULL, err));
    status = fm_generate(s, seq, sampler, &g, &end, err);
    fm_sampler_free(sampler);
    return status;
}

/* What a model writes may hold any byte: none of them commands the terminal. */
static void report(fm_train_job *j, const fm_train_step *s, fm_str *text)
{
    fm_str line = {0};
    for (size_t i = 0; i < text->n; i++)
        if ((unsigned char)text->p[i] < ' ' && text->p[i] != '\n' && text->p[i] != '\t') text->p[i] = '?';
    const fm_view written = {text->p ? text->p : "", text->n};
    fm_train_say(j, "step %llu writes: %s|%.*s", (unsigned long long)s->step, j->o.sample, (int)written.n, written.p);
    fm_jsonw w = fm_train_log_begin(&line, s);
    fm_jsonw_key(&w, "prompt"), fm_jsonw_cstr(&w, j->o.sample);
    fm_jsonw_key(&w, "sample"), fm_jsonw_string(&w, written);
    fm_train_log_end(j, &w);
}

fm_status fm_train_report_sample(fm_train_job *j, const fm_train_step *s, fm_error *err)
{
    fm_session *session;
    fm_str text = {0};
    FM_TRY(fm_cli_session_open(&session, j->m, j->c, 1, err));
    fm_status status = generate(&text, j, session, err);
    fm_session_free(session);
    if (status == FM_OK) status = fm_str_ok(&text, "a sample", err);
    if (status == FM_OK) report(j, s, &text);
    fm_str_free(&text);
    return status;
}

/* ---- What the scans work with ---- */

static const char *const spread_names[] = {"dt", "B", "C", "h"};

static void print_spreads(fm_train_job *j, const fm_train_step *s, const fm_layer_spread *layers, size_t n)
{
    fm_str out = {0};
    fm_str_puts(&out, "layer         least      mean      most       rms");
    for (size_t l = 0; l < n; l++) {
        const fm_spread spreads[] = {layers[l].dt, layers[l].B, layers[l].C, layers[l].h};
        for (size_t i = 0; i < FM_COUNT(spreads); i++)
            fm_str_printf(&out, "\n%5zu  %-2s %9.3g %9.3g %9.3g %9.3g", l, spread_names[i], spreads[i].least, spreads[i].mean,
                          spreads[i].most, spreads[i].rms);
    }
    if (!out.failed) fm_train_say(j, "step %llu: what the scans work with\n%s", (unsigned long long)s->step, out.p);
    fm_str_free(&out);
}

static void log_spreads(fm_train_job *j, const fm_train_step *s, const fm_layer_spread *layers, size_t n)
{
    fm_str line = {0};
    fm_jsonw w = fm_train_log_begin(&line, s);
    fm_jsonw_key(&w, "layers");
    fm_jsonw_array(&w);
    for (size_t l = 0; l < n; l++) {
        const fm_spread spreads[] = {layers[l].dt, layers[l].B, layers[l].C, layers[l].h};
        fm_jsonw_object(&w);
        for (size_t i = 0; i < FM_COUNT(spreads); i++) {
            const double numbers[] = {spreads[i].least, spreads[i].mean, spreads[i].most, spreads[i].rms};
            fm_jsonw_key(&w, spread_names[i]);
            fm_jsonw_array(&w);
            for (size_t k = 0; k < FM_COUNT(numbers); k++) fm_jsonw_f64(&w, numbers[k]);
            fm_jsonw_end(&w, ']');
        }
        fm_jsonw_end(&w, '}');
    }
    fm_jsonw_end(&w, ']');
    fm_train_log_end(j, &w);
}

fm_status fm_train_report_spreads(fm_train_job *j, const fm_train_step *s, fm_error *err)
{
    const size_t n = fm_model_get_info(j->m).n_layer;
    fm_layer_spread *layers;
    FM_TRY(fm_alloc((void **)&layers, NULL, n, sizeof *layers, "spreads", err));
    const fm_status status = fm_trainer_spread(j->t, layers, err);
    if (status == FM_OK) print_spreads(j, s, layers, n), log_spreads(j, s, layers, n);
    fm_free(NULL, layers);
    return status;
}
