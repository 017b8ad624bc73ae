/* cmd_state.c - states as files: create, append, show, fork, rewind. */
#include <stdio.h>
#include <string.h>

#include "cli/common.h"

static fm_state_type file_type(const fm_cli *c)
{
    const char *type = fm_opt_str(&c->options, FM_OPT_STATE_TYPE);
    return type && !strcmp(type, "bf16") ? FM_STATE_BF16 : FM_STATE_F32;
}

static fm_status save(const fm_state *st, const fm_state *mark, const char *path, fm_state_type type, fm_error *err)
{
    FM_TRY(fm_state_save(st, mark, path, type, err));
    if (type == FM_STATE_BF16) fm_cli_note("%s holds the state in bf16: it does not keep the bits", path);
    return FM_OK;
}

/* Takes the sequence's state and saves it with its mark. */
static fm_status save_sequence(const fm_cli *c, const fm_cli_engine *e, const fm_state *mark, const char *path, fm_error *err)
{
    fm_state *st;
    FM_TRY(fm_state_take(&st, e->session, e->seq, err));
    const fm_status status = save(st, mark, path, file_type(c), err);
    fm_state_free(st);
    return status;
}

static fm_status append_input(const fm_cli *c, const fm_cli_engine *e, fm_error *err)
{
    fm_cli_input in;
    const bool begin = fm_seq_tokens(e->session, e->seq) == 0;
    FM_TRY(fm_cli_read_input(&in, c, fm_model_tokenizer(e->model), begin, fm_model_get_info(e->model).vocab, err));
    fm_status status = fm_cli_check_guard(c, fm_seq_tokens(e->session, e->seq) + in.n, err);
    if (status == FM_OK) status = fm_seq_append(e->session, e->seq, in.ids, in.n, err);
    fm_cli_input_free(&in);
    return status;
}

static fm_status create(const fm_cli *c, fm_error *err)
{
    fm_cli_engine e;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    fm_status status = fm_cli_engine_open(&e, c, err);
    if (status == FM_OK) status = append_input(c, &e, err);
    if (status == FM_OK) status = save_sequence(c, &e, NULL, out, err);
    fm_cli_engine_close(&e);
    return status;
}

/* The state before the append becomes the mark, to which rewind returns. */
static fm_status append(const fm_cli *c, const char *path, fm_error *err)
{
    fm_cli_engine e;
    fm_state *before = NULL;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    fm_status status = fm_cli_engine_open(&e, c, err);
    if (status == FM_OK) status = fm_cli_state_load(&e, c, path, NULL, err);
    if (status == FM_OK && fm_opt_flag(&c->options, FM_OPT_MARK)) status = fm_state_take(&before, e.session, e.seq, err);
    if (status == FM_OK) status = append_input(c, &e, err);
    if (status == FM_OK) status = save_sequence(c, &e, before, out ? out : path, err);
    fm_state_free(before);
    fm_cli_engine_close(&e);
    return status;
}

static fm_status fork_file(const fm_cli *c, const char *path, fm_error *err)
{
    fm_state *st, *mark;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    FM_TRY(fm_state_load(&st, &mark, path, NULL, err));
    const fm_state_type type = fm_opt_given(&c->options, FM_OPT_STATE_TYPE) ? file_type(c) : fm_state_get_info(st).type;
    const fm_status status = save(st, mark, out, type, err);
    fm_state_free(st);
    fm_state_free(mark);
    return status;
}

static fm_status rewind_file(const fm_cli *c, const char *path, fm_error *err)
{
    fm_state *st, *mark;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    FM_TRY(fm_state_load(&st, &mark, path, NULL, err));
    fm_status status = FM_OK;
    if (!mark)
        status = fm_fail(err, FM_ERR_ARGUMENT,
                         "%s holds no earlier state to rewind to: it was never appended to, or with --no-mark", path);
    if (status == FM_OK) status = save(mark, NULL, out ? out : path, fm_state_get_info(mark).type, err);
    fm_state_free(st);
    fm_state_free(mark);
    return status;
}

static void show_json(fm_str *out, const fm_state_info *i, const fm_state *mark)
{
    fm_jsonw w = {.out = out, .pretty = true};
    const struct {
        const char *key, *v;
    } texts[] = {{"model", i->model_name},
                 {"model_id", i->model_id},
                 {"arch", i->arch},
                 {"weight_type", i->weight_type},
                 {"type", i->type == FM_STATE_BF16 ? "bf16" : "f32"}};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "tokens"), fm_jsonw_u64(&w, i->tokens);
    for (size_t k = 0; k < FM_COUNT(texts); k++) fm_jsonw_key(&w, texts[k].key), fm_jsonw_cstr(&w, texts[k].v);
    fm_jsonw_key(&w, "state_bytes"), fm_jsonw_u64(&w, i->state_bytes);
    fm_jsonw_key(&w, "vocab"), fm_jsonw_u64(&w, i->vocab);
    fm_jsonw_key(&w, "has_logits"), fm_jsonw_bool(&w, i->has_logits);
    fm_jsonw_key(&w, "mark_tokens");
    if (mark)
        fm_jsonw_u64(&w, fm_state_get_info(mark).tokens);
    else
        fm_jsonw_null(&w);
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
}

static void show_text(fm_str *out, const fm_state_info *i, const fm_state *mark)
{
    fm_str_printf(out, "tokens   %llu\nmodel    %s (%s, %s)\nid       %s\nstate    %zu bytes, stored as %s\nlogits   %s\n",
                  (unsigned long long)i->tokens, i->model_name, i->arch, i->weight_type, i->model_id, i->state_bytes,
                  i->type == FM_STATE_BF16 ? "bf16, which does not keep the bits" : "f32", i->has_logits ? "yes" : "no");
    if (mark)
        fm_str_printf(out, "mark     rewind returns to token %llu\n", (unsigned long long)fm_state_get_info(mark).tokens);
    else
        fm_str_puts(out, "mark     none\n");
}

static fm_status show(const fm_cli *c, const char *path, int *code, fm_error *err)
{
    fm_state *st, *mark;
    fm_str out = {0};
    FM_TRY(fm_state_load(&st, &mark, path, NULL, err));
    const fm_state_info i = fm_state_get_info(st);
    if (fm_opt_flag(&c->options, FM_OPT_JSON))
        show_json(&out, &i, mark);
    else
        show_text(&out, &i, mark);
    *code = fm_cli_put(&out);
    fm_state_free(st);
    fm_state_free(mark);
    return FM_OK;
}

static int run(const fm_cli *c)
{
    const char *verb = c->operands[0], *path = c->n_operands > 1 ? c->operands[1] : NULL;
    const char *out = fm_opt_str(&c->options, FM_OPT_OUT);
    fm_error err = {0};
    int code = FM_EXIT_OK;
    fm_status status;
    const bool creates = !strcmp(verb, "create"), shows = !strcmp(verb, "show");
    if (creates && path)
        return fm_cli_usage(c, "unexpected argument '%s': state create takes text with -p or -f, and -o FILE", path);
    if (!creates && !path) return fm_cli_usage(c, "which state? fmamba state %s FILE", verb);
    if (!out && (creates || !strcmp(verb, "fork")))
        return fm_cli_usage(c, "state %s needs -o FILE, where the state goes", verb);
    if (creates)
        status = create(c, &err);
    else if (!strcmp(verb, "append"))
        status = append(c, path, &err);
    else if (shows)
        status = show(c, path, &code, &err);
    else if (!strcmp(verb, "fork"))
        status = fork_file(c, path, &err);
    else if (!strcmp(verb, "rewind"))
        status = rewind_file(c, path, &err);
    else
        return fm_cli_usage(c, "'%s' is none of create, append, show, fork, rewind", verb);
    if (status == FM_OK && !shows && fm_opt_flag(&c->options, FM_OPT_JSON)) status = show(c, out ? out : path, &code, &err);
    return status == FM_OK ? code : fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPTS_MODEL,   FM_OPTS_ENGINE, FM_OPT_STATES,     FM_OPTS_TEXT,
                                 FM_OPT_IDS,     FM_OPT_CTX_SIZE, FM_OPT_OUT,     FM_OPT_STATE_TYPE, FM_OPT_MARK,
                                 FM_OPT_FORCE,   FM_OPT_JSON,     FM_OPT_END};

const fm_command fm_command_state = {
    .name = "state",
    .summary = "create, append to, show, fork and rewind state files",
    .usage = "create -f FILE -o S | append S -f FILE [-o S2] | show S | fork S -o S2 | rewind S [-o S2]",
    .details = "A state is what the model remembers of a text: of fixed size, whatever the length.  append keeps the state it "
               "began from "
               "in the same file, and rewind returns to it.  Without -o a state is replaced in its own file.  --json shows the "
               "state that came of it.",
    .verbs = "create append show fork rewind",
    .options = options,
    .min_operands = 1,
    .max_operands = 2,
    .run = run,
};
