/* open.c - a model with everything that came with it: weights, tokenizer, chat template, generation defaults. */
#include <string.h>

#include "base/json.h"
#include "runtime/session.h"
#include "runtime/vocab.h"

#define TEXT_BYTES_MAX ((size_t)16 << 20) /* of a configuration or a template */

/* Reads a file of a Hugging Face directory; an absent one leaves *text empty. */
static fm_status read_beside(fm_str *text, const fm_model *m, const char *name, fm_error *err)
{
    char *path = fm_path_join(m->source.path, name, m->a, err);
    if (!path) return FM_ERR_MEMORY;
    const fm_status status = fm_path_exists(path) ? fm_file_read(text, path, TEXT_BYTES_MAX, err) : FM_OK;
    fm_free(m->a, path);
    return status;
}

/* ---- Tokenizer ---- */

static bool has_tokenizer(const fm_model *m)
{
    if (m->source.kind == FM_SOURCE_GGUF) return fm_gguf_find(&m->source.gguf, "tokenizer.ggml.tokens") != NULL;
    char *path = fm_path_join(m->source.path, "tokenizer.json", m->a, NULL);
    const bool there = path && fm_path_exists(path);
    fm_free(m->a, path);
    return there;
}

static fm_status load_tokenizer(fm_model *m, fm_error *err)
{
    if (m->source.kind == FM_SOURCE_GGUF) return fm_vocab_from_gguf(&m->tokenizer, &m->source.gguf, m->a, err);
    return fm_tokenizer_open(&m->tokenizer, m->source.path, m->a, err);
}

/* A model with a tokenizer of an unknown kind still works for everything that takes ids. */
static fm_status attach_tokenizer(fm_model *m, const fm_model_options *o, fm_error *err)
{
    fm_error why = {0};
    if (o->no_tokenizer || !has_tokenizer(m)) return FM_OK;
    const fm_status status = load_tokenizer(m, &why);
    if (status == FM_ERR_UNSUPPORTED) {
        if (o->log) o->log(o->ctx, why.text);
        return FM_OK;
    }
    if (status != FM_OK) {
        if (err) *err = why;
        return status;
    }
    const size_t n = fm_tokenizer_vocab(m->tokenizer);
    if (n <= m->config.vocab) return FM_OK;
    return fm_fail(err, FM_ERR_SHAPE,
                   "%s: its tokenizer has %zu tokens, its embedding only %zu rows: tokenizer and weights do not "
                   "belong together",
                   m->source.path, n, m->config.vocab);
}

/* ---- Chat template ---- */

static fm_status keep_template(fm_model *m, fm_view text, fm_error *err)
{
    if (!text.n || m->chat_template) return FM_OK;
    m->chat_template = fm_strdup(m->a, text.p, text.n, err);
    return m->chat_template ? FM_OK : FM_ERR_MEMORY;
}

static fm_status keep_escaped(fm_model *m, fm_view raw, fm_error *err)
{
    fm_str text = {.a = m->a};
    fm_json_unescape(&text, raw);
    fm_status status = fm_str_ok(&text, "a chat template", err);
    if (status == FM_OK) status = keep_template(m, (fm_view){text.p, text.n}, err);
    fm_str_free(&text);
    return status;
}

/* One {"name": ..., "template": ...} of a list; *found when it is the default one. */
static bool read_named(fm_json *j, fm_view *found)
{
    fm_view key, name = {0}, text = {0};
    if (!fm_json_enter_object(j)) return false;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "name"))
            fm_json_string(j, &name);
        else if (fm_view_is(key, "template"))
            fm_json_string(j, &text);
        else
            fm_json_skip(j);
    }
    if (fm_view_is(name, "default")) *found = text;
    return !j->error;
}

/* "chat_template" of tokenizer_config.json: a string, or a list of named ones. */
static void read_template(fm_json *j, fm_view *raw)
{
    if (fm_json_peek(j) == FM_JSON_STRING) {
        fm_json_string(j, raw);
    } else if (fm_json_peek(j) == FM_JSON_ARRAY) {
        fm_json_enter_array(j);
        while (fm_json_element(j) && read_named(j, raw)) continue;
    } else {
        fm_json_skip(j);
    }
}

static fm_status template_from_config(fm_model *m, const fm_str *config, fm_error *err)
{
    fm_view key, raw = {0};
    fm_json j = fm_json_begin(config->p, config->n, "tokenizer_config.json");
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (fm_view_is(key, "chat_template"))
                read_template(&j, &raw);
            else
                fm_json_skip(&j);
        }
    FM_TRY(fm_json_finish(&j, err));
    return keep_escaped(m, raw, err);
}

static fm_status template_from_hf(fm_model *m, fm_str *text, fm_error *err)
{
    FM_TRY(read_beside(text, m, "chat_template.jinja", err));
    FM_TRY(keep_template(m, (fm_view){text->p, text->n}, err));
    fm_str_reset(text);
    FM_TRY(read_beside(text, m, "tokenizer_config.json", err));
    return text->n ? template_from_config(m, text, err) : FM_OK;
}

static fm_status attach_template(fm_model *m, fm_error *err)
{
    if (m->source.kind == FM_SOURCE_GGUF) {
        fm_view text = {0};
        FM_TRY(fm_gguf_get_string(&m->source.gguf, "tokenizer.chat_template", &text, NULL, err));
        return keep_template(m, text, err);
    }
    fm_str text = {.a = m->a};
    const fm_status status = template_from_hf(m, &text, err);
    fm_str_free(&text);
    return status;
}

/* ---- Generation defaults ---- */

static void add_eos(fm_model *m, int64_t id)
{
    if (id < 0 || (uint64_t)id >= m->config.vocab || m->n_eos == FM_EOS_MAX) return;
    for (size_t i = 0; i < m->n_eos; i++)
        if (m->eos[i] == id) return;
    m->eos[m->n_eos++] = (int32_t)id;
}

/* eos_token_id: a number or a list of them. */
static void read_eos(fm_json *j, fm_model *m)
{
    int64_t id;
    if (fm_json_peek(j) == FM_JSON_NUMBER) {
        if (fm_json_i64(j, &id)) add_eos(m, id);
    } else if (fm_json_peek(j) == FM_JSON_ARRAY) {
        fm_json_enter_array(j);
        while (fm_json_element(j) && fm_json_i64(j, &id)) add_eos(m, id);
    } else {
        fm_json_skip(j);
    }
}

/* A number where `null` means that nothing is said. */
static void read_number(fm_json *j, float *out)
{
    double v;
    if (!fm_json_null(j) && fm_json_f64(j, &v)) *out = (float)v;
}

static fm_status read_generation_config(fm_model *m, const fm_str *text, fm_error *err)
{
    fm_view key;
    float top_k = -1;
    fm_json j = fm_json_begin(text->p, text->n, "generation_config.json");
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (fm_view_is(key, "eos_token_id"))
                read_eos(&j, m);
            else if (fm_view_is(key, "temperature"))
                read_number(&j, &m->default_temperature);
            else if (fm_view_is(key, "top_p"))
                read_number(&j, &m->default_top_p);
            else if (fm_view_is(key, "top_k"))
                read_number(&j, &top_k);
            else
                fm_json_skip(&j);
        }
    if (top_k >= 0 && top_k <= 1e6f) m->default_top_k = (int)top_k;
    return fm_json_finish(&j, err);
}

/* The text of generation_config.json, which a GGUF file of ours carries as a key. */
static fm_status find_generation_config(fm_str *text, const fm_model *m, fm_error *err)
{
    fm_view v = {0};
    if (m->source.kind == FM_SOURCE_HF) return read_beside(text, m, "generation_config.json", err);
    FM_TRY(fm_gguf_get_string(&m->source.gguf, "fmamba.generation_config_json", &v, NULL, err));
    fm_str_put(text, v.p, v.n);
    return fm_str_ok(text, "generation_config.json", err);
}

/* What ends a generation: all that any file of the model says, and the spellings that can mean nothing else. */
static fm_status attach_defaults(fm_model *m, fm_error *err)
{
    fm_str text = {.a = m->a};
    fm_status status = find_generation_config(&text, m, err);
    if (status == FM_OK && text.n) status = read_generation_config(m, &text, err);
    fm_str_free(&text);
    for (size_t i = 0; i < m->config.n_eos; i++) add_eos(m, m->config.eos[i]);
    if (!m->tokenizer) return status;
    int32_t eog[FM_EOS_MAX];
    const size_t n = fm_tokenizer_eog(m->tokenizer, eog, FM_EOS_MAX);
    add_eos(m, fm_tokenizer_eos(m->tokenizer));
    for (size_t i = 0; i < n; i++) add_eos(m, eog[i]);
    return status;
}

/* ---- The public face ---- */

static fm_status attach(fm_model *m, const fm_model_options *o, fm_error *err)
{
    FM_TRY(attach_tokenizer(m, o, err));
    FM_TRY(attach_template(m, err));
    return attach_defaults(m, err);
}

/* Too little memory is said before anything is copied. */
static fm_status to_device(fm_model *m, const fm_model_options *o, fm_error *err)
{
    FM_TRY(fm_model_open_device(m, o, err));
    if (!m->device) return FM_OK;
    FM_TRY(fm_device_check_room(m, o->session, err));
    return fm_model_to_device(m, o, err);
}

FM_API fm_status fm_model_open(fm_model **out, const char *path, const fm_model_options *options, fm_error *err)
{
    static const fm_model_options none = {0};
    *out = NULL;
    if (!path) return fm_fail(err, FM_ERR_ARGUMENT, "fm_model_open() needs a path");
    if (!options) options = &none;
    FM_TRY(fm_model_load(out, path, options, err));
    fm_status status = to_device(*out, options, err);
    if (status == FM_OK) status = attach(*out, options, err);
    if (status != FM_OK) {
        fm_model_free(*out);
        *out = NULL;
    }
    return status;
}

FM_API void fm_model_free(fm_model *m)
{
    if (!m) return;
    fm_tokenizer_free(m->tokenizer);
    fm_free(m->a, m->chat_template);
    fm_model_unload(m);
}

FM_API const fm_tokenizer *fm_model_tokenizer(const fm_model *m)
{
    return m->tokenizer;
}

FM_API fm_generation_defaults fm_model_generation_defaults(const fm_model *m)
{
    return (fm_generation_defaults){.temperature = m->default_temperature,
                                    .top_p = m->default_top_p,
                                    .top_k = m->default_top_k,
                                    .eos = m->eos,
                                    .n_eos = m->n_eos};
}
