/* cmd_tokenize.c - text to token ids. */
#include "cli/common.h"

/* The tokenizer alone: vocabulary-only GGUF files of any architecture open too. */
static fm_status open_tokenizer(fm_tokenizer **out, const fm_cli *c, fm_error *err)
{
    fm_str path = {0};
    *out = NULL;
    fm_status status = fm_cli_model_path(&path, c, err);
    if (status == FM_OK) status = fm_tokenizer_open(out, path.p, NULL, err);
    fm_str_free(&path);
    return status;
}

static void put_json(fm_str *out, const int32_t *ids, size_t n)
{
    fm_jsonw w = {.out = out};
    fm_jsonw_array(&w);
    for (size_t i = 0; i < n; i++) fm_jsonw_i64(&w, ids[i]);
    fm_jsonw_end(&w, ']');
    fm_str_putc(out, '\n');
}

static void put_table(fm_str *out, const fm_tokenizer *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *text = fm_token_text(t, ids[i], true, &length);
        fm_jsonw w = {.out = out};
        fm_str_printf(out, "%8d  ", (int)ids[i]);
        fm_jsonw_string(&w, (fm_view){text, length});
        fm_str_putc(out, '\n');
    }
}

static void put_ids(fm_str *out, const fm_cli *c, const fm_tokenizer *t, const int32_t *ids, size_t n)
{
    if (fm_opt_flag(&c->options, FM_OPT_JSON)) {
        put_json(out, ids, n);
    } else if (fm_opt_flag(&c->options, FM_OPT_TOKEN_TEXT)) {
        put_table(out, t, ids, n);
    } else {
        for (size_t i = 0; i < n; i++) fm_str_printf(out, i ? " %d" : "%d", (int)ids[i]);
        fm_str_putc(out, '\n');
    }
}

static fm_status tokenize(const fm_cli *c, const fm_tokenizer *t, fm_str *out, fm_error *err)
{
    fm_str text = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    const unsigned parse = fm_opt_flag(&c->options, FM_OPT_PARSE_SPECIAL) ? FM_PARSE_SPECIAL : 0u;
    fm_status status = fm_cli_read_text(&text, c, err);
    if (status == FM_OK) status = fm_cli_tokenize(&ids, &n, t, (fm_view){text.p, text.n}, parse | FM_ADD_SPECIAL, err);
    if (status == FM_OK) put_ids(out, c, t, ids, n);
    fm_free(NULL, ids);
    fm_str_free(&text);
    return status;
}

static int run(const fm_cli *c)
{
    fm_error err = {0};
    fm_tokenizer *t;
    fm_str out = {0};
    fm_status status = open_tokenizer(&t, c, &err);
    if (status == FM_OK) status = tokenize(c, t, &out, &err);
    fm_tokenizer_free(t);
    if (status == FM_OK) return fm_cli_put(&out);
    fm_str_free(&out);
    return fm_cli_fail(&err);
}

static const fm_opt options[] = {FM_OPTS_COMMON, FM_OPT_MODEL, FM_OPTS_TEXT, FM_OPT_JSON, FM_OPT_TOKEN_TEXT, FM_OPT_END};

const fm_command fm_command_tokenize = {
    .name = "tokenize",
    .summary = "print the token ids of a text",
    .usage = "[-p TEXT | -f FILE] [--json | --show] [options]",
    .details = "Reads standard input without -p or -f.  Vocabulary-only GGUF files of any architecture open too.",
    .options = options,
    .max_operands = 0,
    .run = run,
};
