/* input.c - text and token ids from the command line, from files and from standard input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/common.h"

#define TEXT_BYTES_MAX ((size_t)1 << 32)

static bool takes(const fm_cli *c, fm_opt id)
{
    return fm_options_take(c->command->options, id);
}

static const fm_opt sources[] = {FM_OPT_IDS, FM_OPT_PROMPT, FM_OPT_FILE};

static bool on_command_line(const fm_cli *c, fm_opt id)
{
    return takes(c, id) && c->options.v[id].origin == FM_FROM_COMMAND_LINE;
}

/* Where the input comes from: the command line before the environment.  FM_OPT_END: standard input. */
static fm_opt source_of(const fm_cli *c)
{
    for (size_t i = 0; i < FM_COUNT(sources); i++)
        if (on_command_line(c, sources[i])) return sources[i];
    for (size_t i = 0; i < FM_COUNT(sources); i++)
        if (takes(c, sources[i]) && fm_opt_given(&c->options, sources[i])) return sources[i];
    return FM_OPT_END;
}

bool fm_cli_input_given(const fm_cli *c)
{
    return source_of(c) != FM_OPT_END;
}

size_t fm_cli_input_count(const fm_cli *c)
{
    size_t n = 0;
    for (size_t i = 0; i < FM_COUNT(sources); i++) n += on_command_line(c, sources[i]);
    return n;
}

/* ---- Text ---- */

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 32) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Writes what the escape at p stands for; gives its length, or 0 when it is none. */
static size_t put_escape(fm_str *out, const char *p, const char *end)
{
    static const char names[] = "ntr\\\"'0", values[] = "\n\t\r\\\"'";
    const char *at = p[0] == '\\' && p[1] ? strchr(names, p[1]) : NULL;
    if (at) {
        fm_str_putc(out, values[at - names]);
        return 2;
    }
    if (p[0] != '\\' || p[1] != 'x') return fm_json_unescape_u(out, p, end);
    const int high = hex_value(p[2]), low = high < 0 ? -1 : hex_value(p[3]);
    if (low < 0) return 0;
    fm_str_putc(out, (char)(high * 16 + low));
    return 4;
}

void fm_cli_unescape(fm_str *out, const char *text)
{
    const char *end = text + strlen(text);
    for (size_t n; text < end; text += n) {
        n = put_escape(out, text, end);
        if (!n) fm_str_putc(out, *text), n = 1;
    }
}

static fm_status check_utf8(const fm_str *text, const char *where, fm_error *err)
{
    const size_t bad = fm_utf8_valid(text->p, text->n);
    if (bad == text->n) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s is not UTF-8: byte %zu (0x%02X) cannot stand there: convert the text, or take it byte by "
                   "byte with --any-bytes",
                   where, bad, (unsigned char)text->p[bad]);
}

/* While nothing is done but wait for a pipe or the keyboard, Ctrl-C ends the program. */
static fm_status read_stream(fm_str *out, const char *path, fm_error *err)
{
    const bool caught = fm_cli_release_interrupt();
    const fm_status status = fm_stream_read(out, path, TEXT_BYTES_MAX, err);
    if (caught) fm_cli_hold_interrupt();
    return status;
}

fm_status fm_cli_read_text(fm_str *out, const fm_cli *c, fm_error *err)
{
    const fm_opt source = source_of(c);
    const char *prompt = source == FM_OPT_PROMPT ? fm_opt_str(&c->options, source) : NULL;
    const char *file = source == FM_OPT_FILE ? fm_opt_str(&c->options, source) : NULL;
    if (prompt && takes(c, FM_OPT_ESCAPE) && fm_opt_flag(&c->options, FM_OPT_ESCAPE))
        fm_cli_unescape(out, prompt);
    else if (prompt)
        fm_str_puts(out, prompt);
    else
        FM_TRY(read_stream(out, file ? file : "-", err));
    FM_TRY(fm_str_ok(out, "the text", err));
    if (fm_opt_flag(&c->options, FM_OPT_ANY_BYTES)) return FM_OK;
    return check_utf8(out, prompt ? "the text of -p" : file && strcmp(file, "-") ? file : "standard input", err);
}

/* ---- Ids ---- */

#define BLANKS       " \t\r\n"
#define LIST_LETTERS "0123456789,[]-" BLANKS

static size_t blanks(const char *p)
{
    return strspn(p, BLANKS);
}

static fm_status fail_id(const char *where, const char *p, fm_error *err)
{
    const size_t n = strcspn(p, BLANKS);
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s: \"%.*s\" is not a token id: expected whole numbers from 0 to 2147483647, separated by commas or "
                   "blanks, or a JSON array of them",
                   where, (int)(n < 40 ? n : 40), p);
}

/* Between two ids stand blanks, with one comma among them or none; behind the last one a comma does no harm. */
static const char *skip_separator(const char *p)
{
    p += blanks(p);
    return *p == ',' ? p + 1 + blanks(p + 1) : p;
}

/* Text is terminated. */
static fm_status read_ids(int32_t **ids, size_t *n, fm_view text, const char *where, fm_error *err)
{
    size_t cap = 0;
    const char *p = text.p + (fm_view_starts(text, "\xEF\xBB\xBF") ? 3 : 0); /* as Windows begins UTF-8 */
    p += blanks(p);
    const bool array = *p == '[';
    if (array) p += 1 + blanks(p + 1);
    while (*p && !(array && *p == ']')) {
        int64_t id;
        const size_t length = strspn(p, "0123456789");
        if (!fm_parse_i64((fm_view){p, length}, &id) || id > INT32_MAX || !strchr(BLANKS ",]", p[length]))
            return fail_id(where, p, err);
        FM_TRY(fm_grow((void **)ids, &cap, *n + 1, sizeof **ids, NULL, "token ids", err));
        (*ids)[(*n)++] = (int32_t)id;
        p = skip_separator(p + length);
    }
    if (array && !*p) return fm_fail(err, FM_ERR_FORMAT, "%s: the array of token ids does not end: its ']' is missing", where);
    if (array) p += 1 + blanks(p + 1);
    return p == text.p + text.n ? FM_OK : fail_id(where, p, err);
}

static fm_status read_id_file(int32_t **ids, size_t *n, const char *path, fm_error *err)
{
    fm_str file = {0};
    fm_status status = read_stream(&file, path, err);
    if (status == FM_OK && file.p)
        status = read_ids(ids, n, (fm_view){file.p, file.n}, strcmp(path, "-") ? path : "standard input", err);
    fm_str_free(&file);
    return status;
}

fm_status fm_cli_parse_ids(int32_t **ids, size_t *n, const char *text, fm_error *err)
{
    fm_status status;
    *ids = NULL;
    *n = 0;
    if (!strcmp(text, "-") || fm_path_exists(text))
        status = read_id_file(ids, n, text, err);
    else if (strspn(text, LIST_LETTERS) == strlen(text))
        status = read_ids(ids, n, fm_view_of(text), "--ids", err);
    else
        status = fm_fail(err, FM_ERR_IO,
                         "--ids: \"%.*s\" is neither a list of token ids, such as 1,2,3 or [1, 2, 3], nor a file that is there",
                         (int)strnlen(text, 200), text);
    if (status == FM_OK) return FM_OK;
    fm_free(NULL, *ids);
    *ids = NULL;
    *n = 0;
    return status;
}

fm_status fm_cli_tokenize(int32_t **ids, size_t *n, const fm_tokenizer *t, fm_view text, unsigned flags, fm_error *err)
{
    *ids = NULL;
    *n = 0;
    FM_TRY(fm_tokenize(t, text.p, text.n, flags, NULL, n, err));
    FM_TRY(fm_alloc((void **)ids, NULL, *n, sizeof **ids, "token ids", err));
    return fm_tokenize(t, text.p, text.n, flags, *ids, n, err);
}

void fm_cli_detokenize(fm_str *out, const fm_tokenizer *t, const int32_t *ids, size_t n, bool special)
{
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *text = fm_token_text(t, ids[i], special, &length);
        fm_str_put(out, text, length);
    }
}

static fm_status read_as_text(fm_cli_input *in, const fm_cli *c, const fm_tokenizer *t, bool begin, fm_error *err)
{
    const bool parse = !takes(c, FM_OPT_PARSE_SPECIAL) || fm_opt_flag(&c->options, FM_OPT_PARSE_SPECIAL);
    if (!t) return fm_cli_no_tokenizer(c, err);
    FM_TRY(fm_cli_read_text(&in->text, c, err));
    in->has_text = true;
    const unsigned flags = (parse ? FM_PARSE_SPECIAL : 0u) | (begin ? FM_ADD_SPECIAL : 0u);
    return fm_cli_tokenize(&in->ids, &in->n, t, (fm_view){in->text.p, in->text.n}, flags, err);
}

static fm_status check_ids(const fm_cli_input *in, size_t vocab, fm_error *err)
{
    if (!in->n)
        return fm_fail(err, FM_ERR_ARGUMENT, "the input is empty: give text with -p, -f or standard input, or ids with --ids");
    for (size_t i = 0; i < in->n && vocab; i++)
        if ((size_t)in->ids[i] >= vocab)
            return fm_fail(err, FM_ERR_LIMIT, "token %zu is %d, expected 0 .. %zu: ids of another vocabulary?", i,
                           (int)in->ids[i], vocab - 1);
    return FM_OK;
}

fm_status fm_cli_read_input(fm_cli_input *in, const fm_cli *c, const fm_tokenizer *t, bool begin, size_t vocab, fm_error *err)
{
    const char *ids = source_of(c) == FM_OPT_IDS ? fm_opt_str(&c->options, FM_OPT_IDS) : NULL;
    *in = (fm_cli_input){0};
    fm_status status = ids ? fm_cli_parse_ids(&in->ids, &in->n, ids, err) : read_as_text(in, c, t, begin, err);
    if (status == FM_OK) status = check_ids(in, vocab, err);
    if (status != FM_OK) fm_cli_input_free(in);
    return status;
}

void fm_cli_input_free(fm_cli_input *in)
{
    fm_free(NULL, in->ids);
    fm_str_free(&in->text);
    *in = (fm_cli_input){0};
}

size_t fm_cli_int_list(const char *text, size_t *out, size_t room)
{
    size_t n = 0;
    for (const char *p = text; *p; n++) {
        uint64_t v;
        const size_t length = strcspn(p, ",");
        if (n == room || !fm_parse_u64((fm_view){p, length}, &v) || v > INT32_MAX) return 0;
        out[n] = (size_t)v;
        p += length + (p[length] == ',');
    }
    return n;
}
