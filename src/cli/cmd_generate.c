/* cmd_generate.c - continue a text or ids; one answer or several of one prompt. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/common.h"
#include "runtime/session.h"

#define N_DEFAULT 128

/* What one choice gave. */
typedef struct answer {
    int32_t *ids; /* n */
    size_t n, cap;
    fm_str text, logprobs; /* logprobs: the elements of a JSON array */
    fm_generated end;
} answer;

typedef struct job {
    const fm_cli *c;
    fm_cli_engine e;
    fm_cli_input in;
    fm_cli_sampling sampling;
    fm_cli_draft draft;
    const fm_tokenizer *t; /* NULL: ids only */
    answer *answers;       /* n_choices */
    size_t n_choices;
    bool stream; /* text goes out as it comes */
    answer *now;
    double begun, prefilled, first, done;
    fm_status status;
} job;

/* ---- Tokens as they come ---- */

static void put_logprob(answer *a, const fm_token_event *e, const fm_tokenizer *t)
{
    fm_jsonw w = {.out = &a->logprobs};
    if (a->n > 1) fm_str_putc(&a->logprobs, ',');
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "id"), fm_jsonw_i64(&w, e->id);
    fm_jsonw_key(&w, "logprob"), fm_jsonw_f64(&w, e->logprob);
    fm_jsonw_key(&w, "top");
    fm_jsonw_array(&w);
    for (size_t i = 0; i < e->n_top; i++) {
        size_t n = 0;
        const char *text = t ? fm_token_text(t, e->top_ids[i], true, &n) : NULL;
        fm_jsonw_object(&w);
        fm_jsonw_key(&w, "id"), fm_jsonw_i64(&w, e->top_ids[i]);
        fm_jsonw_key(&w, "text");
        if (text)
            fm_jsonw_string(&w, (fm_view){text, n});
        else
            fm_jsonw_null(&w);
        fm_jsonw_key(&w, "logprob"), fm_jsonw_f64(&w, e->top_logprobs[i]);
        fm_jsonw_end(&w, '}');
    }
    fm_jsonw_end(&w, ']');
    fm_jsonw_end(&w, '}');
}

static bool on_token(void *ctx, const fm_token_event *e)
{
    job *j = ctx;
    answer *a = j->now;
    if (e->i == 0) j->first = fm_clock_s();
    fm_str_put(&a->text, e->text, e->text_n);
    if (e->id >= 0) {
        j->status = fm_grow((void **)&a->ids, &a->cap, a->n + 1, sizeof *a->ids, NULL, "the answer", NULL);
        if (j->status != FM_OK) return false;
        a->ids[a->n++] = e->id;
        if (fm_opt_given(&j->c->options, FM_OPT_LOGPROBS)) put_logprob(a, e, j->t);
    }
    if (j->stream && j->t)
        fwrite(e->text, 1, e->text_n, stdout);
    else if (j->stream && e->id >= 0)
        printf(e->i ? " %d" : "%d", (int)e->id);
    if (j->stream) fflush(stdout);
    return !ferror(stdout) && !fm_cli_interrupted(NULL);
}

/* ---- Prompt and choices ---- */

static fm_status prefill(job *j, fm_error *err)
{
    const fm_cli *c = j->c;
    const char *state = fm_opt_str(&c->options, FM_OPT_STATE);
    if (state) FM_TRY(fm_cli_state_load(&j->e, c, state, NULL, err));
    j->begun = fm_clock_s();
    if (state && !fm_cli_input_given(c)) return FM_OK; /* goes on from the state's own logits */
    const uint64_t before = fm_seq_tokens(j->e.session, j->e.seq);
    FM_TRY(fm_cli_read_input(&j->in, c, j->t, before == 0, fm_model_get_info(j->e.model).vocab, err));
    FM_TRY(fm_cli_check_guard(c, before + j->in.n, err));
    return fm_seq_append(j->e.session, j->e.seq, j->in.ids, j->in.n, err);
}

static fm_generation generation(job *j, size_t choice, int64_t n)
{
    const fm_cli *c = j->c;
    const fm_opt_value *stops = &c->options.v[FM_OPT_STOP];
    return (fm_generation){.n = n < 0 ? 0 : (size_t)n,
                           .tokenizer = j->t,
                           .stops = stops->list,
                           .n_stops = stops->n,
                           .eos = j->sampling.eos,
                           .n_eos = j->sampling.n_eos,
                           .ignore_eos = fm_opt_flag(&c->options, FM_OPT_IGNORE_EOS),
                           .special = fm_opt_flag(&c->options, FM_OPT_SPECIAL),
                           .want_logprob = fm_opt_given(&c->options, FM_OPT_LOGPROBS),
                           .n_top = (size_t)fm_opt_int(&c->options, FM_OPT_LOGPROBS),
                           .choice = choice,
                           .draft = j->draft.draft,
                           .on_token = on_token,
                           .ctx = j};
}

static fm_status run_choice(job *j, fm_sampler *sampler, fm_seq seq, size_t choice, fm_error *err)
{
    const int64_t n = fm_cli_predict(j->c, N_DEFAULT, fm_seq_tokens(j->e.session, seq));
    const fm_generation g = generation(j, choice, n);
    j->now = &j->answers[choice];
    fm_sampler_reset(sampler);
    fm_sampler_set_eos(sampler, j->sampling.eos, j->sampling.n_eos);
    for (size_t i = 0; i < j->in.n; i++) fm_sampler_accept(sampler, j->in.ids[i], true);
    if (n == 0) return FM_OK;
    fm_cli_note_host(&j->sampling, j->e.model, sampler, &g);
    if (g.draft) FM_TRY(fm_draft_begin(g.draft, j->in.ids, j->in.n, err));
    FM_TRY(fm_generate(j->e.session, seq, sampler, &g, &j->now->end, err));
    return j->status == FM_OK ? FM_OK : fm_fail(err, j->status, "the answer does not fit into memory");
}

/* All but the last choice go on from a fork of the prompt's state; the last one takes the state itself. */
static fm_status run_choices(job *j, fm_sampler *sampler, fm_error *err)
{
    for (size_t i = 0; i < j->n_choices; i++) {
        fm_seq seq = j->e.seq;
        const bool last = i + 1 == j->n_choices;
        if (!last) FM_TRY(fm_seq_fork(j->e.session, j->e.seq, &seq, err));
        const fm_status status = run_choice(j, sampler, seq, i, err);
        if (!last) fm_seq_free(j->e.session, seq);
        FM_TRY(status);
        if (j->answers[i].end.stop == FM_STOP_CANCELLED) break;
    }
    return FM_OK;
}

static void echo(const job *j)
{
    if (!fm_opt_flag(&j->c->options, FM_OPT_ECHO) || !j->in.has_text) return;
    fm_cli_style(j->c, stdout, "1");
    fwrite(j->in.text.p, 1, j->in.text.n, stdout);
    fm_cli_style(j->c, stdout, "0");
}

static fm_status generate(job *j, fm_error *err)
{
    fm_sampler *sampler;
    const size_t vocab = fm_model_get_info(j->e.model).vocab;
    FM_TRY(fm_sampler_open(&sampler, &j->sampling.p, vocab, j->t, NULL, err));
    fm_status status = prefill(j, err);
    j->prefilled = fm_clock_s();
    if (status == FM_OK && j->stream) echo(j);
    if (status == FM_OK) status = run_choices(j, sampler, err);
    j->done = fm_clock_s();
    fm_sampler_free(sampler);
    return status;
}

static fm_status save_state(const job *j, fm_error *err)
{
    fm_state *st;
    const char *path = fm_opt_str(&j->c->options, FM_OPT_SAVE_STATE);
    if (!path) return FM_OK;
    FM_TRY(fm_state_take(&st, j->e.session, j->e.seq, err));
    const fm_status status = fm_state_save(st, NULL, path, FM_STATE_F32, err);
    fm_state_free(st);
    return status;
}

/* ---- What is printed ---- */

static void put_answer(fm_jsonw *w, const job *j, const answer *a)
{
    const bool echo = fm_opt_flag(&j->c->options, FM_OPT_ECHO) && j->in.has_text;
    fm_str text = {0};
    if (echo) fm_str_put(&text, j->in.text.p, j->in.text.n);
    fm_str_put(&text, a->text.p, a->text.n);
    fm_jsonw_key(w, "ids");
    fm_jsonw_array(w);
    for (size_t i = 0; i < a->n; i++) fm_jsonw_i64(w, a->ids[i]);
    fm_jsonw_end(w, ']');
    fm_jsonw_key(w, "text");
    if (j->t)
        fm_jsonw_string(w, (fm_view){text.p, text.n});
    else
        fm_jsonw_null(w);
    fm_jsonw_key(w, "stop"), fm_jsonw_cstr(w, fm_cli_stop_name(a->end.stop));
    if (j->draft.draft) {
        fm_jsonw_key(w, "drafted"), fm_jsonw_u64(w, a->end.drafted);
        fm_jsonw_key(w, "accepted"), fm_jsonw_u64(w, a->end.accepted);
    }
    if (fm_opt_given(&j->c->options, FM_OPT_LOGPROBS)) {
        fm_jsonw_key(w, "logprobs");
        fm_str_putc(w->out, '[');
        fm_str_put(w->out, a->logprobs.p, a->logprobs.n);
        fm_str_putc(w->out, ']');
        w->comma = true;
        w->after_key = false;
    }
    fm_str_free(&text);
}

static int print_json(const job *j)
{
    fm_str out = {0};
    fm_jsonw w = {.out = &out};
    fm_jsonw_object(&w);
    put_answer(&w, j, &j->answers[0]);
    if (j->n_choices > 1) {
        fm_jsonw_key(&w, "choices");
        fm_jsonw_array(&w);
        for (size_t i = 0; i < j->n_choices; i++) {
            fm_jsonw_object(&w);
            put_answer(&w, j, &j->answers[i]);
            fm_jsonw_end(&w, '}');
        }
        fm_jsonw_end(&w, ']');
    }
    fm_jsonw_end(&w, '}');
    fm_str_putc(&out, '\n');
    return fm_cli_put(&out);
}

static int print_texts(const job *j)
{
    fm_str out = {0};
    for (size_t i = 0; i < j->n_choices; i++) {
        fm_str_printf(&out, "%s--- %zu ---\n", i ? "\n" : "", i + 1);
        if (j->t) fm_str_put(&out, j->answers[i].text.p, j->answers[i].text.n);
        for (size_t k = 0; k < j->answers[i].n && !j->t; k++) fm_str_printf(&out, k ? " %d" : "%d", (int)j->answers[i].ids[k]);
        fm_str_putc(&out, '\n');
    }
    return fm_cli_put(&out);
}

static void print_timings(const job *j)
{
    size_t n = 0;
    fm_generated all = {0};
    for (size_t i = 0; i < j->n_choices; i++) {
        n += j->answers[i].n;
        all.drafted += j->answers[i].end.drafted;
        all.accepted += j->answers[i].end.accepted;
    }
    const double prompt = j->prefilled - j->begun, rest = j->done - j->prefilled;
    if (!fm_opt_flag(&j->c->options, FM_OPT_VERBOSE)) return;
    fm_cli_style(j->c, stderr, "2");
    fprintf(stderr, "prompt: %zu tokens, %.1f tok/s; first token after %.0f ms; generated: %zu tokens, %.2f tok/s\n", j->in.n,
            prompt > 0 ? (double)j->in.n / prompt : 0.0, n ? 1e3 * (j->first - j->begun) : 0.0, n,
            rest > 0 ? (double)n / rest : 0.0);
    const size_t launches = fm_session_launches(j->e.session);
    if (launches) fprintf(stderr, "kernel launches per token: %zu\n", launches);
    if (j->draft.draft) fm_cli_print_drafts(&all);
    fm_cli_style(j->c, stderr, "0");
}

static bool was_cancelled(const job *j)
{
    for (size_t i = 0; i < j->n_choices; i++)
        if (j->answers[i].end.stop == FM_STOP_CANCELLED) return true;
    return false;
}

static int print(const job *j)
{
    int code = FM_EXIT_OK;
    if (fm_opt_flag(&j->c->options, FM_OPT_JSON))
        code = print_json(j);
    else if (!j->stream)
        code = print_texts(j);
    else
        putchar('\n');
    print_timings(j);
    return code == FM_EXIT_OK && was_cancelled(j) ? FM_EXIT_FAILURE : code;
}

/* ---- Around it ---- */

static fm_status open_job(job *j, const fm_cli *c, fm_error *err)
{
    j->c = c;
    j->n_choices = (size_t)fm_opt_int(&c->options, FM_OPT_CHOICES);
    j->stream = j->n_choices == 1 && !fm_opt_flag(&c->options, FM_OPT_JSON);
    const size_t n_seq = j->n_choices > 1 ? 2 : 1;
    FM_TRY(fm_cli_model_open(&j->e.model, c, n_seq, err));
    FM_TRY(fm_cli_session_open(&j->e.session, j->e.model, c, n_seq, err));
    FM_TRY(fm_seq_new(j->e.session, &j->e.seq, err));
    FM_TRY(fm_cli_sampling_read(&j->sampling, c, j->e.model, err));
    FM_TRY(fm_cli_draft_open(&j->draft, c, j->e.model, err));
    j->t = fm_model_tokenizer(j->e.model);
    return fm_alloc((void **)&j->answers, NULL, j->n_choices, sizeof *j->answers, "the answers", err);
}

static void close_job(job *j)
{
    for (size_t i = 0; j->answers && i < j->n_choices; i++) {
        fm_free(NULL, j->answers[i].ids);
        fm_str_free(&j->answers[i].text);
        fm_str_free(&j->answers[i].logprobs);
    }
    fm_free(NULL, j->answers);
    fm_cli_sampling_free(&j->sampling);
    fm_cli_input_free(&j->in);
    fm_cli_draft_close(&j->draft);
    fm_cli_engine_close(&j->e);
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    job j = {0};
    fm_status status = open_job(&j, c, &err);
    if (status == FM_OK) fm_cli_start_line(c, j.e.model, j.e.session, &j.sampling.p);
    if (status == FM_OK) status = generate(&j, &err);
    int code = status == FM_OK ? print(&j) : fm_cli_fail(&err);
    if (status == FM_OK && save_state(&j, &err) != FM_OK) code = fm_cli_fail(&err); /* what was written is not lost */
    close_job(&j);
    return code;
}

static const fm_opt options[] = {
    FM_OPTS_COMMON,   FM_OPTS_MODEL,     FM_OPTS_ENGINE, FM_OPT_STATES,  FM_OPTS_TEXT,     FM_OPT_IDS,     FM_OPT_CTX_SIZE,
    FM_OPT_N_PREDICT, FM_OPT_IGNORE_EOS, FM_OPT_STOP,    FM_OPT_SPECIAL, FM_OPT_ECHO,      FM_OPT_CHOICES, FM_OPT_LOGPROBS,
    FM_OPT_STATE,     FM_OPT_SAVE_STATE, FM_OPT_FORCE,   FM_OPT_JSON,    FM_OPTS_SAMPLING, FM_OPTS_DRAFT,  FM_OPT_END};

const fm_command fm_command_generate = {
    .name = "generate",
    .summary = "continue a text",
    .usage = "[-p TEXT | -f FILE | --ids IDS] [-n N] [options]",
    .details =
        "Writes at most 128 tokens unless -n says otherwise.  With --state and neither text nor ids it goes on where the state "
        "ended.  --json prints {\"ids\", \"text\", \"stop\"}; text is null for a model without a tokenizer; with "
        "drafts it adds \"drafted\" and \"accepted\".",
    .options = options,
    .max_operands = 0,
    .run = run,
};
