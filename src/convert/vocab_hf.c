/* vocab_hf.c - the tokenizer files of a directory: copied from another one, or made from the keys of a GGUF. */
#include <string.h>

#include "convert/internal.h"
#include "text/tokenizer.h"

/* ---- Copies ---- */

static fm_status copy_file(const char *from, const char *name, const char *to, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    fm_status status = fm_read_beside(&text, from, name, err);
    if (status == FM_OK && text.n) status = fm_write_text(to, name, (fm_view){text.p, text.n}, a, err);
    fm_str_free(&text);
    return status;
}

static fm_status copy_tokenizer(const fm_tok *t, const fm_job *j, const char *dir, fm_error *err)
{
    static const char *const names[] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                                        "merges.txt", "chat_template.jinja"};
    for (size_t i = 0; i < FM_COUNT(names); i++) FM_TRY(copy_file(t->dir, names[i], dir, j->a, err));
    if (!t->json) return FM_OK;
    fm_str text = {.a = j->a};
    fm_status status = fm_file_read(&text, t->json, (size_t)256 << 20, err);
    if (status == FM_OK) status = fm_write_text(dir, "tokenizer.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    return status;
}

/* ---- tokenizer.json from a GGUF ---- */

#define BYTE_LEVEL(regex) "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, " \
                          "\"use_regex\": " regex "}"
#define SEQUENCE(steps)   "{\"type\": \"Sequence\", \"pretokenizers\": [" steps "]}"
#define SPLIT(regex)      "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex "\"}, " \
                          "\"behavior\": \"Isolated\", \"invert\": false}"
#define LLAMA3 "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}" \
               "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*" \
               "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static const char falcon_steps[] = SEQUENCE("{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}, " BYTE_LEVEL("true")
    ", {\"type\": \"Digits\", \"individual_digits\": false}, " SPLIT("[0-9][0-9][0-9]"));
static const char gpt2_steps[] = BYTE_LEVEL("true");
static const char llama3_steps[] = SEQUENCE(SPLIT(LLAMA3) ", " BYTE_LEVEL("false"));

static const char *const steps[] = {
    [FM_PRETOK_FALCON] = falcon_steps, [FM_PRETOK_GPT2] = gpt2_steps, [FM_PRETOK_LLAMA3] = llama3_steps};

typedef struct source {
    const fm_gguf *g;
    const fm_gguf_kv *tokens, *types, *merges;
    const fm_pretok_kind *pre;
    size_t n; /* tokens without the padding at the end */
    int64_t bos, eos, unk, pad;
    bool add_bos, add_eos;
    fm_view *text; /* (n) */
} source;

static int64_t type_of(const source *s, size_t i) { return s->types ? fm_gguf_array_i64(s->types, i) : FM_TOKEN_NORMAL; }

static fm_status read_id(int64_t *id, const source *s, const char *key, fm_error *err)
{
    uint64_t v = UINT64_MAX;
    FM_TRY(fm_gguf_get_u64(s->g, key, &v, NULL, err));
    *id = v < s->n ? (int64_t)v : -1;
    return FM_OK;
}

static fm_status read_pre(source *s, fm_error *err)
{
    fm_view name = {0}, arch = {0};
    FM_TRY(fm_gguf_get_string(s->g, "tokenizer.ggml.pre", &name, NULL, err));
    FM_TRY(fm_gguf_get_string(s->g, "general.architecture", &arch, NULL, err));
    FM_TRY(fm_pretok_find(&s->pre, name, arch, s->g->paths[0], err));
    s->add_bos = s->pre->add_bos;
    return FM_OK;
}

/* The tokens "[PADi]" at the end only filled up the embedding. */
static void drop_padding(source *s)
{
    while (s->n > 0 && fm_view_starts(s->text[s->n - 1], "[PAD") && type_of(s, s->n - 1) != FM_TOKEN_CONTROL) s->n--;
}

static fm_status read_source(source *s, const fm_job *j, fm_error *err)
{
    s->tokens = fm_gguf_find(s->g, "tokenizer.ggml.tokens");
    s->types = fm_gguf_find(s->g, "tokenizer.ggml.token_type");
    s->merges = fm_gguf_find(s->g, "tokenizer.ggml.merges");
    if (s->tokens->type != FM_GGUF_ARRAY || s->tokens->element != FM_GGUF_STRING || !s->merges ||
        s->merges->type != FM_GGUF_ARRAY || s->merges->element != FM_GGUF_STRING ||
        (s->types && (s->types->type != FM_GGUF_ARRAY || s->types->count != s->tokens->count)))
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: its vocabulary is not byte-level BPE with merges: give a tokenizer of its own",
                       s->g->paths[0]);
    FM_TRY(read_pre(s, err));
    s->n = (size_t)s->tokens->count;
    FM_TRY(fm_alloc((void **)&s->text, j->a, s->n, sizeof *s->text, "the vocabulary", err));
    const unsigned char *cursor = NULL;
    for (size_t i = 0; i < s->n && fm_gguf_string_next(s->tokens, &cursor, &s->text[i]);) i++;
    drop_padding(s);
    FM_TRY(read_id(&s->bos, s, "tokenizer.ggml.bos_token_id", err));
    FM_TRY(read_id(&s->eos, s, "tokenizer.ggml.eos_token_id", err));
    FM_TRY(read_id(&s->unk, s, "tokenizer.ggml.unknown_token_id", err));
    FM_TRY(read_id(&s->pad, s, "tokenizer.ggml.padding_token_id", err));
    FM_TRY(fm_gguf_get_bool(s->g, "tokenizer.ggml.add_bos_token", &s->add_bos, NULL, err));
    return fm_gguf_get_bool(s->g, "tokenizer.ggml.add_eos_token", &s->add_eos, NULL, err);
}

static void put_text(fm_str *out, fm_view v)
{
    fm_jsonw w = {.out = out};
    fm_jsonw_string(&w, v);
}

static void put_added(fm_str *out, const source *s)
{
    bool first = true;
    fm_str_puts(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < s->n; i++) {
        const int64_t type = type_of(s, i);
        if (type != FM_TOKEN_CONTROL && type != FM_TOKEN_USER_DEFINED) continue;
        const bool control = type == FM_TOKEN_CONTROL;
        fm_str_printf(out, "%s\n    {\"id\": %zu, \"content\": ", first ? "" : ",", i);
        put_text(out, s->text[i]);
        fm_str_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                      "\"normalized\": %s, \"special\": %s}",
                      control ? "false" : "true", control ? "true" : "false");
        first = false;
    }
    fm_str_puts(out, "\n  ],\n");
}

/* One of the two lists of a template: the text, with the special tokens that are added around it. */
static void put_template_item(fm_str *out, const source *s, int64_t id, const char *before, const char *after)
{
    fm_str_printf(out, "%s{\"SpecialToken\": {\"id\": ", before);
    put_text(out, s->text[id]);
    fm_str_printf(out, ", \"type_id\": 0}}%s", after);
}

static void put_post(fm_str *out, const source *s)
{
    const bool bos = s->add_bos && s->bos >= 0, eos = s->add_eos && s->eos >= 0;
    const int64_t ids[2] = {bos ? s->bos : -1, eos && !(bos && s->bos == s->eos) ? s->eos : -1};
    bool first = true;
    if (!bos && !eos) {
        fm_str_puts(out, "  \"post_processor\": " BYTE_LEVEL("true") ",\n");
        return;
    }
    fm_str_puts(out, "  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [");
    if (bos) put_template_item(out, s, s->bos, "", ", ");
    fm_str_puts(out, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}");
    if (eos) put_template_item(out, s, s->eos, ", ", "");
    fm_str_puts(out, "], \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", "
                     "\"type_id\": 1}}], \"special_tokens\": {");
    for (size_t i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        if (!first) fm_str_puts(out, ", ");
        put_text(out, s->text[ids[i]]);
        fm_str_puts(out, ": {\"id\": ");
        put_text(out, s->text[ids[i]]);
        fm_str_printf(out, ", \"ids\": [%lld], \"tokens\": [", (long long)ids[i]);
        put_text(out, s->text[ids[i]]);
        fm_str_puts(out, "]}");
        first = false;
    }
    fm_str_puts(out, "}},\n");
}

static fm_status put_merges(fm_str *out, const source *s, fm_error *err)
{
    const unsigned char *cursor = NULL;
    fm_view both;
    fm_str_puts(out, "    \"merges\": [");
    for (size_t i = 0; i < s->merges->count && fm_gguf_string_next(s->merges, &cursor, &both); i++) {
        const char *blank = both.n > 1 ? memchr(both.p + 1, ' ', both.n - 1) : NULL;
        if (!blank)
            return fm_fail(err, FM_ERR_FORMAT, "%s: merge %zu is not two tokens with a blank between: the file is damaged",
                           s->g->paths[0], i);
        fm_str_puts(out, i ? ",\n      [" : "\n      [");
        put_text(out, (fm_view){both.p, (size_t)(blank - both.p)});
        fm_str_puts(out, ", ");
        put_text(out, (fm_view){blank + 1, both.n - (size_t)(blank - both.p) - 1});
        fm_str_putc(out, ']');
    }
    fm_str_puts(out, "\n    ]\n");
    return FM_OK;
}

static fm_status put_tokenizer(fm_str *out, const source *s, fm_error *err)
{
    fm_str_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(out, s);
    fm_str_printf(out, "  \"normalizer\": %s,\n  \"pre_tokenizer\": ", s->pre->nfc ? "{\"type\": \"NFC\"}" : "null");
    fm_str_puts(out, steps[s->pre->pretok]);
    fm_str_puts(out, ",\n");
    put_post(out, s);
    fm_str_puts(out, "  \"decoder\": " BYTE_LEVEL("true") ",\n");
    fm_str_puts(out, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                     "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
                     "    \"byte_fallback\": false,\n");
    fm_str_printf(out, "    \"ignore_merges\": %s,\n    \"vocab\": {", s->pre->ignore_merges ? "true" : "false");
    for (size_t i = 0; i < s->n; i++) {
        fm_str_puts(out, i ? ",\n      " : "\n      ");
        put_text(out, s->text[i]);
        fm_str_printf(out, ": %zu", i);
    }
    fm_str_puts(out, "\n    },\n");
    FM_TRY(put_merges(out, s, err));
    fm_str_puts(out, "  }\n}\n");
    return fm_str_ok(out, "tokenizer.json", err);
}

static fm_status put_config(fm_str *out, const source *s, fm_error *err)
{
    const struct { const char *key; int64_t id; } names[] = {
        {"bos_token", s->bos}, {"eos_token", s->eos}, {"pad_token", s->pad}, {"unk_token", s->unk}};
    fm_view template = {0};
    FM_TRY(fm_gguf_get_string(s->g, "tokenizer.chat_template", &template, NULL, err));
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "add_bos_token"), fm_jsonw_bool(&w, s->add_bos);
    fm_jsonw_key(&w, "add_eos_token"), fm_jsonw_bool(&w, s->add_eos);
    for (size_t i = 0; i < FM_COUNT(names); i++)
        if (names[i].id >= 0) fm_jsonw_key(&w, names[i].key), fm_jsonw_string(&w, s->text[names[i].id]);
    if (template.n) fm_jsonw_key(&w, "chat_template"), fm_jsonw_string(&w, template);
    fm_jsonw_key(&w, "tokenizer_class"), fm_jsonw_cstr(&w, "PreTrainedTokenizerFast");
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
    return fm_str_ok(out, "tokenizer_config.json", err);
}

static fm_status make_files(source *s, const fm_job *j, const char *dir, fm_error *err)
{
    fm_str text = {.a = j->a};
    fm_status status = read_source(s, j, err);
    if (status == FM_OK) status = put_tokenizer(&text, s, err);
    if (status == FM_OK) status = fm_write_text(dir, "tokenizer.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_reset(&text);
    if (status == FM_OK) status = put_config(&text, s, err);
    if (status == FM_OK) status = fm_write_text(dir, "tokenizer_config.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    fm_free(j->a, s->text);
    return status;
}

/* The source's own: a file, or the text that a GGUF of ours carries. */
static fm_status write_generation(const fm_job *j, const char *dir, fm_error *err)
{
    fm_view text = {0};
    if (!j->m) return FM_OK;
    if (j->m->source.kind == FM_SOURCE_HF) return copy_file(j->m->source.path, "generation_config.json", dir, j->a, err);
    FM_TRY(fm_gguf_get_string(&j->m->source.gguf, "fmamba.generation_config_json", &text, NULL, err));
    return text.n ? fm_write_text(dir, "generation_config.json", text, j->a, err) : FM_OK;
}

fm_status fm_tok_write_hf(const fm_tok *t, const fm_job *j, const char *dir, fm_error *err)
{
    FM_TRY(write_generation(j, dir, err));
    if (t->dir) return copy_tokenizer(t, j, dir, err);
    source s = {.g = t->gguf};
    if (t->gguf) return make_files(&s, j, dir, err);
    fm_job_log(j, "%s has no vocabulary: the directory gets no tokenizer and works for token ids only", j->name);
    return FM_OK;
}
