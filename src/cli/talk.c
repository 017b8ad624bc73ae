/* talk.c - a turn of a talk: the prompt is rendered, what is new in it is appended to the state, and the answer is written. */
#include <stdio.h>
#include <string.h>

#include "cli/repl.h"

typedef struct writing {
    fm_talk *k;
    fm_str text; /* of the answer */
    size_t n;
    bool failed;
} writing;

static void drop_turn(fm_talk *k)
{
    fm_free(NULL, k->turns[--k->n_turns].content);
}

static void drop_all(fm_talk *k)
{
    while (k->n_turns) drop_turn(k);
    fm_free(NULL, k->turns);
    fm_free(NULL, k->said);
    k->turns = NULL, k->said = NULL;
    k->cap_turns = k->n_said = k->cap_said = k->n_base = 0;
    k->plain = !k->chat;
}

void fm_talk_forget(fm_talk *k)
{
    drop_all(k);
    if (k->session) fm_seq_reset(k->session, k->seq, NULL);
}

static fm_status add_turn(fm_talk *k, const char *role, const char *text, size_t n, fm_error *err)
{
    FM_TRY(fm_grow((void **)&k->turns, &k->cap_turns, k->n_turns + 1, sizeof *k->turns, NULL, "the talk", err));
    char *copy = fm_strdup(NULL, text ? text : "", n, err);
    if (!copy) return FM_ERR_MEMORY;
    k->turns[k->n_turns++] = (fm_turn){role, copy};
    return FM_OK;
}

static fm_status note_said(fm_talk *k, const int32_t *ids, size_t n, fm_error *err)
{
    FM_TRY(fm_grow((void **)&k->said, &k->cap_said, k->n_said + n, sizeof *k->said, NULL, "the talk", err));
    memcpy(k->said + k->n_said, ids, n * sizeof *ids);
    k->n_said += n;
    return FM_OK;
}

/* ---- The prompt ---- */

static fm_status render_ids(fm_talk *k, const fm_message *m, size_t n, int32_t **ids, size_t *n_ids, fm_error *err)
{
    const fm_status status = fm_chat_tokenize(k->chat, m, n, true, NULL, n_ids, err);
    if (status != FM_OK) return fm_fail_prefix(err, status, "%s", k->template_name);
    FM_TRY(fm_alloc((void **)ids, NULL, *n_ids, sizeof **ids, "the prompt", err));
    return fm_chat_tokenize(k->chat, m, n, true, *ids, n_ids, err);
}

static fm_status chat_ids(fm_talk *k, int32_t **ids, size_t *n_ids, fm_error *err)
{
    fm_message *m;
    size_t n = 0;
    FM_TRY(fm_alloc((void **)&m, NULL, k->n_turns + 1, sizeof *m, "the messages", err));
    if (k->system.n) m[n++] = (fm_message){"system", k->system.p};
    for (size_t i = 0; i < k->n_turns; i++) m[n++] = (fm_message){k->turns[i].role, k->turns[i].content};
    const fm_status status = render_ids(k, m, n, ids, n_ids, err);
    fm_free(NULL, m);
    return status;
}

/* Back to the beginning, or to the state that was loaded. */
static fm_status begin_anew(fm_talk *k, fm_error *err)
{
    k->n_said = k->n_base;
    return fm_seq_rewind(k->session, k->seq, err);
}

static bool continues(const fm_talk *k, const int32_t *ids, size_t n)
{
    return k->n_said < n && (!k->n_said || !memcmp(k->said, ids, k->n_said * sizeof *ids));
}

/* What is new in the prompt goes to the sequence.  Where the prompt does not begin with what the sequence has seen (an answer
 * that was cut short, a template that rewrites the past), the sequence begins anew. */
static fm_status append_new(fm_talk *k, const int32_t *ids, size_t n, fm_error *err)
{
    FM_TRY(fm_cli_check_guard(k->c, n, err));
    if (!continues(k, ids, n)) FM_TRY(begin_anew(k, err));
    const size_t same = k->n_said;
    FM_TRY(fm_seq_append(k->session, k->seq, ids + same, n - same, err));
    return note_said(k, ids + same, n - same, err);
}

static fm_status append_prompt(fm_talk *k, const char *text, fm_error *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    fm_status status;
    if (k->plain) {
        const unsigned flags = FM_PARSE_SPECIAL | (k->n_said ? 0u : FM_ADD_SPECIAL);
        status = fm_cli_tokenize(&ids, &n, k->t, fm_view_of(text), flags, err);
        if (status == FM_OK) status = fm_cli_check_guard(k->c, fm_seq_tokens(k->session, k->seq) + n, err);
        if (status == FM_OK) status = fm_seq_append(k->session, k->seq, ids, n, err);
        if (status == FM_OK) status = note_said(k, ids, n, err);
    } else {
        status = chat_ids(k, &ids, &n, err);
        if (status == FM_OK) status = append_new(k, ids, n, err);
    }
    fm_free(NULL, ids);
    return status;
}

/* ---- Going on from a state ---- */

/* A question and an answer in place of those that the state has seen: what the template puts between them and the next message
 * is then what is new in the prompt. */
static fm_status add_stand_ins(fm_talk *k, fm_error *err)
{
    int32_t *ids = NULL;
    size_t n;
    FM_TRY(add_turn(k, "user", "x", 1, err));
    fm_status status = chat_ids(k, &ids, &n, err);
    if (status == FM_OK) status = note_said(k, ids, n, err);
    fm_free(NULL, ids);
    FM_TRY(status);
    FM_TRY(fm_cli_tokenize(&ids, &n, k->t, FM_VIEW("y"), 0, err));
    status = note_said(k, ids, n, err);
    fm_free(NULL, ids);
    return status == FM_OK ? add_turn(k, "assistant", "y", 1, err) : status;
}

/* Whether a template keeps the stand-ins as they are when another message follows. */
static fm_status try_next_turn(fm_talk *k, bool *good, fm_error *err)
{
    int32_t *ids = NULL;
    size_t n;
    FM_TRY(add_turn(k, "user", "z", 1, err));
    const fm_status status = chat_ids(k, &ids, &n, err);
    *good = status == FM_OK && continues(k, ids, n);
    fm_free(NULL, ids);
    drop_turn(k);
    return status;
}

static fm_status stand_in(fm_talk *k, fm_error *err)
{
    bool good = false;
    if (k->chat) FM_TRY(add_stand_ins(k, err));
    if (k->chat) FM_TRY(try_next_turn(k, &good, err));
    k->n_base = k->n_said;
    k->plain = !good;
    return fm_seq_mark(k->session, k->seq, err);
}

/* A state that is refused leaves the talk as it is. */
fm_status fm_talk_resume(fm_talk *k, const fm_state *st, bool force, fm_error *err)
{
    FM_TRY(fm_state_put(k->session, k->seq, st, force, err));
    drop_all(k);
    const fm_status status = stand_in(k, err);
    if (status != FM_OK) fm_talk_forget(k);
    return status;
}

/* ---- The answer ---- */

static bool on_token(void *ctx, const fm_token_event *e)
{
    writing *w = ctx;
    fm_str_put(&w->text, e->text, e->text_n);
    fwrite(e->text, 1, e->text_n, stdout);
    fflush(stdout);
    if (e->id >= 0) {
        w->n++;
        w->failed |= note_said(w->k, &e->id, 1, NULL) != FM_OK;
    }
    return !w->failed && !ferror(stdout) && !fm_cli_interrupted(NULL);
}

static fm_status write_answer(fm_talk *k, writing *w, fm_generated *end, fm_error *err)
{
    const fm_opt_value *stops = &k->c->options.v[FM_OPT_STOP];
    const int64_t n = fm_cli_predict(k->c, k->plain ? 256 : -1, fm_seq_tokens(k->session, k->seq));
    if (n == 0) return FM_OK;
    const fm_generation g = {.n = n < 0 ? 0 : (size_t)n,
                             .tokenizer = k->t,
                             .stops = stops->list,
                             .n_stops = stops->n,
                             .eos = k->sampling.eos,
                             .n_eos = k->sampling.n_eos,
                             .ignore_eos = fm_opt_flag(&k->c->options, FM_OPT_IGNORE_EOS),
                             .special = fm_opt_flag(&k->c->options, FM_OPT_SPECIAL),
                             .draft = k->draft.draft,
                             .on_token = on_token,
                             .ctx = w};
    fm_sampler *sampler;
    if (g.draft) FM_TRY(fm_draft_begin(g.draft, k->said, k->n_said, err));
    FM_TRY(fm_sampler_open(&sampler, &k->sampling.p, fm_model_get_info(k->model).vocab, k->t, NULL, err));
    fm_sampler_set_eos(sampler, k->sampling.eos, k->sampling.n_eos);
    for (size_t i = 0; i < k->n_said; i++) fm_sampler_accept(sampler, k->said[i], true);
    fm_cli_note_host(&k->sampling, k->model, sampler, &g);
    const fm_status status = fm_generate(k->session, k->seq, sampler, &g, end, err);
    fm_sampler_free(sampler);
    return status;
}

static void print_timings(const fm_talk *k, size_t n_prompt, double prompt, size_t n, double rest, fm_stop stop)
{
    fm_cli_style(k->c, stderr, "2");
    fprintf(stderr,
            "prompt: %zu tokens in %.2f s, %.1f tok/s; time to first token %.0f ms; answer: %zu tokens, %.2f tok/s (%s)\n",
            n_prompt, prompt, (double)n_prompt / prompt, 1e3 * prompt, n, (double)n / rest, fm_cli_stop_name(stop));
    fm_cli_style(k->c, stderr, "0");
}

static fm_status answer(fm_talk *k, const char *text, writing *w, bool *cancelled, fm_error *err)
{
    fm_generated end = {0};
    const double begun = fm_clock_s();
    const size_t before = k->n_said;
    const uint64_t stood = fm_seq_tokens(k->session, k->seq);
    if (k->plain) { /* text is not said again: what fails is taken back */
        FM_TRY(fm_seq_mark(k->session, k->seq, err));
        k->n_base = before;
    }
    const fm_status status = append_prompt(k, text, err);
    if (status != FM_OK) { /* the sequence may stand somewhere within the prompt */
        const bool moved = k->n_said != before || fm_seq_tokens(k->session, k->seq) != stood;
        if (!k->plain) drop_turn(k);
        if (moved) FM_TRY(begin_anew(k, status == FM_ERR_CANCELLED ? err : NULL));
        *cancelled = status == FM_ERR_CANCELLED;
        return *cancelled ? FM_OK : status;
    }
    const double prefilled = fm_clock_s();
    const size_t n_prompt = k->n_said - (before < k->n_said ? before : 0);
    FM_TRY(write_answer(k, w, &end, err));
    putchar('\n');
    *cancelled = end.stop == FM_STOP_CANCELLED;
    if (k->verbose) print_timings(k, n_prompt, prefilled - begun, w->n, fm_clock_s() - prefilled, end.stop);
    if (k->verbose && k->draft.draft) fm_cli_print_drafts(&end);
    return k->plain ? FM_OK : add_turn(k, "assistant", w->text.p, w->text.n, err);
}

fm_status fm_talk_say(fm_talk *k, const char *text, bool *cancelled, fm_error *err)
{
    writing w = {.k = k};
    fm_cli_clear_interrupt();
    *cancelled = false;
    if (!k->plain) FM_TRY(add_turn(k, "user", text, strlen(text), err));
    const fm_status status = answer(k, text, &w, cancelled, err);
    fm_str_free(&w.text);
    return status;
}
