/* cmd_detokenize.c - token ids to text. */
#include "cli/common.h"

static fm_status detokenize(const fm_cli *c, fm_str *out, fm_error *err)
{
    fm_str path = {0};
    fm_tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    const char *given = fm_opt_str(&c->options, FM_OPT_IDS);
    fm_status status = fm_cli_model_path(&path, c, err);
    if (status == FM_OK) status = fm_tokenizer_open(&t, path.p, NULL, err);
    if (status == FM_OK) status = fm_cli_parse_ids(&ids, &n, given ? given : "-", err);
    for (size_t i = 0; i < n && status == FM_OK; i++)
        if ((size_t)ids[i] >= fm_tokenizer_vocab(t))
            status = fm_fail(err, FM_ERR_LIMIT, "token %zu is %d, expected 0 .. %zu: ids of another vocabulary?", i,
                             (int)ids[i], fm_tokenizer_vocab(t) - 1);
    if (status == FM_OK) fm_cli_detokenize(out, t, ids, n, true);
    fm_free(NULL, ids);
    fm_tokenizer_free(t);
    fm_str_free(&path);
    return status;
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_str text = {0}, out = {0};
    const fm_status status = detokenize(c, &text, &err);
    if (status != FM_OK) {
        fm_str_free(&text);
        return fm_cli_fail(&err);
    }
    if (!fm_opt_flag(&c->options, FM_OPT_JSON)) return fm_cli_put(&text);
    fm_jsonw w = {.out = &out};
    fm_jsonw_string(&w, (fm_view){text.p, text.n});
    fm_str_putc(&out, '\n');
    fm_str_free(&text);
    return fm_cli_put(&out);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_MODEL, FM_OPT_IDS, FM_OPT_JSON, FM_OPT_END};

const fm_command fm_command_detokenize = {
    .name = "detokenize",
    .summary = "print the text of token ids",
    .usage = "--ids IDS [--json] [options]",
    .details = "The bytes come out as the tokens hold them, special tokens as their text; --json replaces what is not UTF-8.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
