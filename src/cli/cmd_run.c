/* cmd_run.c - talk to a model: a chat at a terminal, one answer with a prompt argument or a pipe. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/repl.h"

static fm_status read_template(fm_str *out, const char *path, fm_error *err)
{
    if (!strcmp(path, "-") || fm_path_exists(path)) return fm_stream_read(out, path, (size_t)1 << 24, err);
    return fm_fail(err, FM_ERR_IO,
                   "--chat-template: \"%s\" is neither a file that is there nor the name of a built-in template, chatml or "
                   "falcon3",
                   path);
}

static fm_status open_chat(fm_talk *k, fm_error *err)
{
    const char *source = fm_opt_str(&k->c->options, FM_OPT_CHAT_TEMPLATE);
    fm_str text = {0};
    fm_status status = FM_OK;
    k->template_name = source ? source : "the model's chat template";
    if (source && strcmp(source, "chatml") != 0 && strcmp(source, "falcon3") != 0) {
        status = read_template(&text, source, err);
        source = text.p ? text.p : "";
    }
    if (status == FM_OK) {
        status = fm_chat_open(&k->chat, k->model, source, err);
        if (status != FM_OK) fm_fail_prefix(err, status, "%s", k->template_name);
    }
    fm_str_free(&text);
    return status;
}

static fm_status open_talk(fm_talk *k, const fm_cli *c, fm_error *err)
{
    const char *system = fm_opt_str(&c->options, FM_OPT_SYSTEM);
    k->c = c;
    k->verbose = fm_opt_flag(&c->options, FM_OPT_VERBOSE);
    FM_TRY(fm_cli_model_open(&k->model, c, 1, err));
    FM_TRY(fm_cli_tokenizer(&k->t, c, k->model, err));
    FM_TRY(fm_cli_session_open(&k->session, k->model, c, 1, err));
    FM_TRY(fm_seq_new(k->session, &k->seq, err));
    FM_TRY(fm_cli_sampling_read(&k->sampling, c, k->model, err));
    FM_TRY(fm_cli_draft_open(&k->draft, c, k->model, err));
    /* A model that was never taught to chat, the one that ships for instance, continues text. */
    k->plain = !fm_opt_flag(&c->options, FM_OPT_CONVERSATION) ||
               (!fm_opt_given(&c->options, FM_OPT_CHAT_TEMPLATE) && !fm_model_chat_template(k->model));
    if (system) fm_str_puts(&k->system, system);
    return k->plain ? FM_OK : open_chat(k, err);
}

static void close_talk(fm_talk *k)
{
    fm_talk_forget(k);
    fm_str_free(&k->system);
    fm_chat_free(k->chat);
    fm_cli_sampling_free(&k->sampling);
    fm_cli_draft_close(&k->draft);
    fm_session_free(k->session);
    fm_model_free(k->model);
}

/* The prompt of the command line: its operands, separated by blanks, or standard input. */
static fm_status read_prompt(fm_str *out, const fm_cli *c, fm_error *err)
{
    for (size_t i = 0; i < c->n_operands; i++) {
        if (i) fm_str_putc(out, ' ');
        fm_str_puts(out, c->operands[i]);
    }
    if (!c->n_operands) FM_TRY(fm_cli_read_text(out, c, err));
    while (!c->n_operands && out->n && out->p[out->n - 1] == '\n') out->p[--out->n] = 0;
    if (out->n) return fm_str_ok(out, "the prompt", err);
    return fm_fail(err, FM_ERR_ARGUMENT, "the prompt is empty: give it as an argument, with -p, -f or on standard input");
}

static int answer_once(fm_talk *k)
{
    fm_error err = {0};
    fm_str prompt = {0};
    bool cancelled = false;
    fm_status status = read_prompt(&prompt, k->c, &err);
    if (status == FM_OK) status = fm_talk_say(k, prompt.p, &cancelled, &err);
    fm_str_free(&prompt);
    if (status != FM_OK) return fm_cli_fail(&err);
    return cancelled ? FM_EXIT_FAILURE : FM_EXIT_OK;
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_talk k = {0};
    const bool interactive = !c->n_operands && !fm_cli_input_given(c) && fm_cli_is_terminal(STDIN_FILENO) &&
                             !fm_opt_flag(&c->options, FM_OPT_SINGLE_TURN);
    const fm_status status = open_talk(&k, c, &err);
    if (status == FM_OK) fm_cli_start_line(c, k.model, k.session, &k.sampling.p);
    const int code = status != FM_OK ? fm_cli_fail(&err) : interactive ? fm_repl(&k) : answer_once(&k);
    close_talk(&k);
    return code;
}

static const fm_opt options[] = {
    FM_OPTS_COMMON,      FM_OPTS_MODEL,      FM_OPTS_ENGINE, FM_OPT_STATES,    FM_OPTS_TEXT,  FM_OPT_CTX_SIZE,
    FM_OPT_N_PREDICT,    FM_OPT_IGNORE_EOS,  FM_OPT_STOP,    FM_OPT_SPECIAL,   FM_OPT_SYSTEM, FM_OPT_CHAT_TEMPLATE,
    FM_OPT_CONVERSATION, FM_OPT_SINGLE_TURN, FM_OPT_FORCE,   FM_OPTS_SAMPLING, FM_OPTS_DRAFT, FM_OPT_END};

const fm_command fm_command_run = {
    .name = "run",
    .summary = "talk to a model",
    .usage = "[PROMPT ...] [-m MODEL] [options]",
    .details = "At a terminal it is a chat, in which /? lists what can be said to the program; with a prompt, or with text on "
               "standard input, it answers once.  The state is kept from turn to turn, so that a turn costs what is new in it. "
               " A model "
               "without a chat template continues the text instead.",
    .options = options,
    .max_operands = 4096,
    .run = run,
};
