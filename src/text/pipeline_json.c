/* pipeline_json.c - normaliser, pre-tokeniser and post-processor of a tokenizer.json, recognised by their structure.
 * The chain of pre-tokenisers is first written down as one line of text, its signature; known[] says which of ours that is. */
#include "text/json_internal.h"

#define GPT2_REGEX     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define GPT2_FOLDED    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_TAIL    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_REGEX   "(?i:'s|'t|'re|'ve|'m|'ll|'d)" LLAMA3_TAIL
#define LLAMA3_SPELLED "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])" LLAMA3_TAIL

static const struct {
    const char *signature;
    fm_pretok pretok;
    const char *name;
} known[] = {
    {"punctuation(Contiguous) bytes(regex) digits(false) split([0-9][0-9][0-9],Isolated)", FM_PRETOK_FALCON, "falcon"},
    {"bytes(regex)", FM_PRETOK_GPT2, "gpt-2"},
    {"split(" GPT2_REGEX ",Isolated) bytes()", FM_PRETOK_GPT2, "gpt-2"},
    {"split(" GPT2_REGEX ",Removed,invert) bytes()", FM_PRETOK_GPT2, "gpt-2"},
    {"split(" GPT2_FOLDED ",Isolated) bytes()", FM_PRETOK_GPT2, "gpt-2"},
    {"split(" LLAMA3_REGEX ",Isolated) bytes()", FM_PRETOK_LLAMA3, "llama-bpe"},
    {"split(" LLAMA3_REGEX ",Removed,invert) bytes()", FM_PRETOK_LLAMA3, "llama-bpe"},
    {"split(" LLAMA3_SPELLED ",Isolated) bytes()", FM_PRETOK_LLAMA3, "llama-bpe"},
    {"split(" LLAMA3_SPELLED ",Removed,invert) bytes()", FM_PRETOK_LLAMA3, "llama-bpe"},
};

bool fm_json_text(fm_json *j, fm_str *out)
{
    fm_view raw;
    fm_str_reset(out);
    if (!fm_json_string(j, &raw)) return false;
    fm_json_unescape(out, raw);
    return true;
}

/* One step of the chain, as far as any step has these members. */
typedef struct step {
    fm_str type, behavior, pattern;
    fm_view list; /* the steps of a Sequence, as source text */
    bool add_prefix_space, use_regex, individual, invert;
} step;

static void read_pattern(fm_json *j, fm_str *out)
{
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "Regex") || fm_view_is(key, "String"))
            fm_json_text(j, out);
        else
            fm_json_skip(j);
        if (fm_view_is(key, "String")) fm_str_puts(out, "(verbatim)");
    }
}

static void read_step(fm_json *j, step *s)
{
    fm_view key;
    s->use_regex = true;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "type"))
            fm_json_text(j, &s->type);
        else if (fm_view_is(key, "behavior"))
            fm_json_text(j, &s->behavior);
        else if (fm_view_is(key, "pattern"))
            read_pattern(j, &s->pattern);
        else if (fm_view_is(key, "add_prefix_space"))
            fm_json_bool(j, &s->add_prefix_space);
        else if (fm_view_is(key, "use_regex"))
            fm_json_bool(j, &s->use_regex);
        else if (fm_view_is(key, "individual_digits"))
            fm_json_bool(j, &s->individual);
        else if (fm_view_is(key, "invert"))
            fm_json_bool(j, &s->invert);
        else if (fm_view_is(key, "pretokenizers") || fm_view_is(key, "normalizers"))
            fm_json_raw(j, &s->list);
        else
            fm_json_skip(j);
    }
}

static void step_free(step *s)
{
    fm_str_free(&s->type);
    fm_str_free(&s->behavior);
    fm_str_free(&s->pattern);
}

static bool is(const fm_str *s, const char *text)
{
    return fm_view_is((fm_view){s->p, s->n}, text);
}

static const char *text_of(const fm_str *s)
{
    return s->p != NULL ? s->p : "";
}

static void write_step(fm_str *out, const step *s)
{
    if (out->n > 0) fm_str_putc(out, ' ');
    if (is(&s->type, "ByteLevel"))
        fm_str_printf(out, "bytes(%s%s)", s->use_regex ? "regex" : "", s->add_prefix_space ? ",prefix" : "");
    else if (is(&s->type, "Digits"))
        fm_str_printf(out, "digits(%s)", s->individual ? "true" : "false");
    else if (is(&s->type, "Punctuation"))
        fm_str_printf(out, "punctuation(%s)", text_of(&s->behavior));
    else if (is(&s->type, "Split"))
        fm_str_printf(out, "split(%s,%s%s)", text_of(&s->pattern), text_of(&s->behavior), s->invert ? ",invert" : "");
    else
        fm_str_printf(out, "%s(?)", text_of(&s->type));
}

/* Appends the signature of a step, or of the steps of a Sequence; nesting is bounded by the reader's depth limit, since the
 * source text of an inner list was already checked as part of the outer one. */
static void write_chain(fm_str *out, fm_json *j)
{
    step s = {.type.a = out->a, .behavior.a = out->a, .pattern.a = out->a};
    if (fm_json_null(j)) return;
    read_step(j, &s);
    out->failed |= s.type.failed || s.behavior.failed || s.pattern.failed;
    if (j->error == NULL && is(&s.type, "Sequence") && s.list.p != NULL) {
        fm_json inner = fm_json_begin(s.list.p, s.list.n, j->name);
        if (fm_json_enter_array(&inner))
            while (fm_json_element(&inner)) write_chain(out, &inner);
        if (inner.error != NULL) fm_json_fail(j, inner.error);
    } else if (j->error == NULL) {
        write_step(out, &s);
    }
    step_free(&s);
}

static fm_status signature(fm_str *out, fm_view text, const char *path, fm_error *err)
{
    if (text.n == 0) return FM_OK;
    fm_json j = fm_json_begin(text.p, text.n, path);
    write_chain(out, &j);
    FM_TRY(fm_str_ok(out, "the pre-tokeniser", err));
    return fm_json_finish(&j, err);
}

static fm_status choose_pretok(fm_pipeline *p, const fm_str *chain, const char *path, fm_error *err)
{
    for (size_t i = 0; i < FM_COUNT(known); i++)
        if (is(chain, known[i].signature)) {
            p->pretok = known[i].pretok;
            p->pretok_name = known[i].name;
            return FM_OK;
        }
    return fm_fail(
        err, FM_ERR_UNSUPPORTED,
        "%s: its pre-tokeniser is \"%.300s\", which this version does not know; it knows falcon's, GPT-2's and Llama 3's", path,
        chain->n > 0 ? chain->p : "none");
}

static fm_status choose_normaliser(fm_pipeline *p, const fm_str *chain, const char *path, fm_error *err)
{
    p->nfc = is(chain, "NFC(?)");
    if (p->nfc || chain->n == 0) return FM_OK;
    return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: its normaliser is \"%.300s\"; this version has NFC and none", path, chain->p);
}

/* One element of a template: {"SpecialToken": {"id": ...}} or {"Sequence": ...}. */
static void read_template_item(fm_json *j, fm_pipeline *p, bool *seen_text)
{
    fm_view key, inner;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        fm_str *name = *seen_text ? &p->after : &p->before;
        if (!fm_view_is(key, "SpecialToken") || name->n > 0) {
            *seen_text |= fm_view_is(key, "Sequence");
            fm_json_skip(j);
        } else if (fm_json_enter_object(j)) {
            while (fm_json_key(j, &inner)) {
                if (fm_view_is(inner, "id"))
                    fm_json_text(j, name);
                else
                    fm_json_skip(j);
            }
        }
    }
}

static void read_post(fm_json *j, fm_pipeline *p)
{
    fm_view key;
    bool seen_text = false;
    if (fm_json_null(j) || !fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "single") && fm_json_peek(j) == FM_JSON_ARRAY && fm_json_enter_array(j))
            while (fm_json_element(j)) read_template_item(j, p, &seen_text);
        else if (fm_view_is(key, "processors") && fm_json_enter_array(j))
            while (fm_json_element(j)) read_post(j, p);
        else if (!fm_view_is(key, "processors"))
            fm_json_skip(j);
    }
}

fm_status fm_pipeline_read(fm_pipeline *p, fm_view normalizer, fm_view pre_tokenizer, fm_view post_processor, const char *path,
                           fm_error *err)
{
    fm_str chain = {.a = p->before.a};
    fm_status status = signature(&chain, normalizer, path, err);
    if (status == FM_OK) status = choose_normaliser(p, &chain, path, err);
    fm_str_reset(&chain);
    if (status == FM_OK) status = signature(&chain, pre_tokenizer, path, err);
    if (status == FM_OK) status = choose_pretok(p, &chain, path, err);
    fm_str_free(&chain);
    FM_TRY(status);
    /* The NeoX family: GPT-2's pieces after NFC.  GGUF has no key for a normaliser, so the name carries it. */
    if (p->nfc && p->pretok == FM_PRETOK_GPT2) p->pretok_name = "mpt";
    if (post_processor.n == 0) return FM_OK;
    fm_json j = fm_json_begin(post_processor.p, post_processor.n, path);
    read_post(&j, p);
    FM_TRY(fm_str_ok(&p->before, "the post-processor", err));
    FM_TRY(fm_str_ok(&p->after, "the post-processor", err));
    return fm_json_finish(&j, err);
}
