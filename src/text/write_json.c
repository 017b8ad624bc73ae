/* write_json.c - see write_json.h. */
#include "text/write_json.h"

#include "base/json.h"

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

static int32_t type_of(const fm_vocab *v, size_t i)
{
    return v->types ? v->types[i] : FM_TOKEN_NORMAL;
}

static void put_text(fm_str *out, fm_view text)
{
    fm_jsonw w = {.out = out};
    fm_jsonw_string(&w, text);
}

static void put_added(fm_str *out, const fm_vocab *v)
{
    bool first = true;
    fm_str_puts(out, "  \"added_tokens\": [");
    for (size_t i = 0; i < v->n_tokens; i++) {
        const int64_t type = type_of(v, i);
        if (type != FM_TOKEN_CONTROL && type != FM_TOKEN_USER_DEFINED) continue;
        const bool control = type == FM_TOKEN_CONTROL;
        fm_str_printf(out, "%s\n    {\"id\": %zu, \"content\": ", first ? "" : ",", i);
        put_text(out, v->tokens[i]);
        fm_str_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                      "\"normalized\": %s, \"special\": %s}",
                      control ? "false" : "true", control ? "true" : "false");
        first = false;
    }
    fm_str_puts(out, "\n  ],\n");
}

/* One of the two lists of a template: the text, with the special tokens that are added around it. */
static void put_template_item(fm_str *out, const fm_vocab *v, int64_t id, const char *before, const char *after)
{
    fm_str_printf(out, "%s{\"SpecialToken\": {\"id\": ", before);
    put_text(out, v->tokens[id]);
    fm_str_printf(out, ", \"type_id\": 0}}%s", after);
}

static void put_post(fm_str *out, const fm_vocab *v)
{
    const bool bos = v->add_bos && v->bos >= 0, eos = v->add_eos && v->eos >= 0;
    const int64_t ids[2] = {bos ? v->bos : -1, eos && !(bos && v->bos == v->eos) ? v->eos : -1};
    bool first = true;
    if (!bos && !eos) {
        fm_str_puts(out, "  \"post_processor\": " BYTE_LEVEL("true") ",\n");
        return;
    }
    fm_str_puts(out, "  \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [");
    if (bos) put_template_item(out, v, v->bos, "", ", ");
    fm_str_puts(out, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}");
    if (eos) put_template_item(out, v, v->eos, ", ", "");
    fm_str_puts(out, "], \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", "
                     "\"type_id\": 1}}], \"special_tokens\": {");
    for (size_t i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        if (!first) fm_str_puts(out, ", ");
        put_text(out, v->tokens[ids[i]]);
        fm_str_puts(out, ": {\"id\": ");
        put_text(out, v->tokens[ids[i]]);
        fm_str_printf(out, ", \"ids\": [%lld], \"tokens\": [", (long long)ids[i]);
        put_text(out, v->tokens[ids[i]]);
        fm_str_puts(out, "]}");
        first = false;
    }
    fm_str_puts(out, "}},\n");
}

static void put_merges(fm_str *out, const fm_vocab *v)
{
    fm_str_puts(out, "    \"merges\": [");
    for (size_t i = 0; i < v->n_merges; i++) {
        fm_str_puts(out, i ? ",\n      [" : "\n      [");
        put_text(out, v->merges[2 * i]);
        fm_str_puts(out, ", ");
        put_text(out, v->merges[2 * i + 1]);
        fm_str_putc(out, ']');
    }
    fm_str_puts(out, "\n    ]\n");
}

fm_status fm_vocab_write_json(fm_str *out, const fm_vocab *v, fm_error *err)
{
    fm_str_puts(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added(out, v);
    fm_str_printf(out, "  \"normalizer\": %s,\n  \"pre_tokenizer\": ", v->nfc ? "{\"type\": \"NFC\"}" : "null");
    fm_str_puts(out, steps[v->pretok]);
    fm_str_puts(out, ",\n");
    put_post(out, v);
    fm_str_puts(out, "  \"decoder\": " BYTE_LEVEL("true") ",\n");
    fm_str_puts(out, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                     "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
                     "    \"byte_fallback\": false,\n");
    fm_str_printf(out, "    \"ignore_merges\": %s,\n    \"vocab\": {", v->ignore_merges ? "true" : "false");
    for (size_t i = 0; i < v->n_tokens; i++) {
        fm_str_puts(out, i ? ",\n      " : "\n      ");
        put_text(out, v->tokens[i]);
        fm_str_printf(out, ": %zu", i);
    }
    fm_str_puts(out, "\n    },\n");
    put_merges(out, v);
    fm_str_puts(out, "  }\n}\n");
    return fm_str_ok(out, "tokenizer.json", err);
}

fm_status fm_vocab_write_config(fm_str *out, const fm_vocab *v, fm_view chat_template, fm_error *err)
{
    const struct { const char *key; int64_t id; } names[] = {
        {"bos_token", v->bos}, {"eos_token", v->eos}, {"pad_token", v->pad}, {"unk_token", v->unk}};
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "add_bos_token"), fm_jsonw_bool(&w, v->add_bos);
    fm_jsonw_key(&w, "add_eos_token"), fm_jsonw_bool(&w, v->add_eos);
    for (size_t i = 0; i < FM_COUNT(names); i++)
        if (names[i].id >= 0) fm_jsonw_key(&w, names[i].key), fm_jsonw_string(&w, v->tokens[names[i].id]);
    if (chat_template.n) fm_jsonw_key(&w, "chat_template"), fm_jsonw_string(&w, chat_template);
    fm_jsonw_key(&w, "tokenizer_class"), fm_jsonw_cstr(&w, "PreTrainedTokenizerFast");
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
    return fm_str_ok(out, "tokenizer_config.json", err);
}
