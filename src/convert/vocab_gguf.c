/* vocab_gguf.c - where the output's tokenizer comes from, and its keys in a GGUF (spec falcon-mamba.md 4.2, 5). */
#include <string.h>

#include "convert/internal.h"
#include "text/tokenizer.h"

static bool has_tokens(const fm_gguf *g) { return fm_gguf_find(g, "tokenizer.ggml.tokens") != NULL; }

/* The directory `dir`, or the tokenizer.json `file` with its neighbours. */
static fm_status from_files(fm_tok *t, const char *dir, const char *file, fm_error *err)
{
    const char *slash = file ? strrchr(file, '/') : NULL;
    const char *from = dir ? dir : slash ? file : ".";
    const size_t n = dir ? strlen(dir) : slash ? (size_t)(slash - file) : 1;
    t->dir = fm_strdup(t->a, n ? from : "/", n ? n : 1, err);
    if (!t->dir) return FM_ERR_MEMORY;
    char *path = file ? NULL : fm_path_join(t->dir, "tokenizer.json", t->a, err);
    if (!file && !path) return FM_ERR_MEMORY;
    fm_status status = FM_OK;
    const char *json = file ? file : path;
    if (file || fm_path_exists(json)) {
        t->json = fm_strdup(t->a, json, strlen(json), err);
        if (!t->json) status = FM_ERR_MEMORY;
    }
    fm_free(t->a, path);
    return status;
}

static fm_status from_option(fm_tok *t, const char *path, fm_error *err)
{
    if (fm_path_is_dir(path)) FM_TRY(from_files(t, path, NULL, err));
    else if (fm_view_ends(fm_view_of(path), ".json")) FM_TRY(from_files(t, NULL, path, err));
    else FM_TRY(fm_gguf_open(&t->own, path, FM_MAP_SHARED, t->a, err));
    if (t->own.n_maps > 0 && has_tokens(&t->own)) t->gguf = &t->own;
    if (t->json || t->gguf) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s has no tokenizer: give a directory with a tokenizer.json, that file, or a GGUF file", path);
}

fm_status fm_tok_open(fm_tok *t, const fm_job *j, fm_error *err)
{
    *t = (fm_tok){.a = j->a};
    fm_status status = FM_OK;
    if (j->o->tokenizer) status = from_option(t, j->o->tokenizer, err);
    else if (j->m && j->m->source.kind == FM_SOURCE_HF) status = from_files(t, j->m->source.path, NULL, err);
    else if (j->m && has_tokens(&j->m->source.gguf)) t->gguf = &j->m->source.gguf;
    if (status != FM_OK) fm_tok_close(t);
    return status;
}

void fm_tok_close(fm_tok *t)
{
    fm_free(t->a, t->dir);
    fm_free(t->a, t->json);
    fm_gguf_close(&t->own);
    *t = (fm_tok){0};
}

/* ---- Keys from a tokenizer.json ---- */

/* Every row of the embedding needs a token: the missing ones are "[PADi]", unused. */
static fm_status put_tokens(fm_gguf_writer *w, const fm_tokenizer *t, size_t vocab, const fm_allocator *a, fm_error *err)
{
    fm_str pads = {.a = a};
    fm_view *views = NULL;
    int32_t *types = NULL;
    const size_t n = fm_tokenizer_vocab(t);
    fm_status status = fm_alloc((void **)&views, a, vocab, sizeof *views, "the vocabulary", err);
    if (status == FM_OK) status = fm_alloc((void **)&types, a, vocab, sizeof *types, "the vocabulary", err);
    for (size_t i = n; i < vocab; i++) fm_str_printf(&pads, "[PAD%zu]", i);
    if (status == FM_OK) status = fm_str_ok(&pads, "the vocabulary", err);
    if (status == FM_OK) {
        const char *p = pads.p;
        for (size_t i = 0; i < vocab; i++) {
            if (i < n) {
                fm_tokenizer_spell(t, (int32_t)i, &views[i], &types[i]);
                continue;
            }
            const char *end = strchr(p, ']') + 1;
            views[i] = (fm_view){p, (size_t)(end - p)};
            types[i] = FM_TOKEN_UNUSED;
            p = end;
        }
        fm_gguf_put_strings(w, "tokenizer.ggml.tokens", views, vocab);
        fm_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, vocab);
    }
    fm_str_free(&pads);
    fm_free(a, views);
    fm_free(a, types);
    return status;
}

static fm_status put_merges(fm_gguf_writer *w, const fm_tokenizer *t, const fm_allocator *a, fm_error *err)
{
    const size_t n = fm_tokenizer_merges(t);
    fm_str text = {.a = a};
    fm_view *views, left, right;
    FM_TRY(fm_alloc((void **)&views, a, n, sizeof *views, "the merges", err));
    for (size_t i = 0; i < n; i++) {
        fm_tokenizer_merge(t, i, &left, &right);
        fm_str_put(&text, left.p, left.n);
        fm_str_putc(&text, ' ');
        fm_str_put(&text, right.p, right.n);
    }
    const fm_status status = fm_str_ok(&text, "the merges", err);
    const char *p = text.p;
    for (size_t i = 0; i < n && status == FM_OK; i++) {
        fm_tokenizer_merge(t, i, &left, &right);
        views[i] = (fm_view){p, left.n + 1 + right.n};
        p += views[i].n;
    }
    if (status == FM_OK) fm_gguf_put_strings(w, "tokenizer.ggml.merges", views, n);
    fm_free(a, views);
    fm_str_free(&text);
    return status;
}

static void put_id(fm_gguf_writer *w, const char *key, int32_t id)
{
    if (id >= 0) fm_gguf_put_u32(w, key, (uint32_t)id);
}

static fm_status put_json_keys(fm_gguf_writer *w, const fm_tokenizer *t, const fm_job *j, fm_error *err)
{
    const fm_config *c = &j->config;
    if (fm_tokenizer_vocab(t) > c->vocab)
        return fm_fail(err, FM_ERR_SHAPE, "%s: the tokenizer has %zu tokens, the embedding only %zu rows: they do not belong "
                       "together", j->name, fm_tokenizer_vocab(t), c->vocab);
    fm_gguf_put_string(w, "tokenizer.ggml.model", FM_VIEW("gpt2"));
    fm_gguf_put_string(w, "tokenizer.ggml.pre", fm_view_of(fm_tokenizer_pretok_name(t)));
    FM_TRY(put_tokens(w, t, c->vocab, j->a, err));
    FM_TRY(put_merges(w, t, j->a, err));
    put_id(w, "tokenizer.ggml.bos_token_id", fm_tokenizer_bos(t) >= 0 ? fm_tokenizer_bos(t) : c->bos);
    put_id(w, "tokenizer.ggml.eos_token_id", fm_tokenizer_eos(t) >= 0 || !c->n_eos ? fm_tokenizer_eos(t) : c->eos[0]);
    put_id(w, "tokenizer.ggml.unknown_token_id", fm_tokenizer_unk(t));
    put_id(w, "tokenizer.ggml.padding_token_id", fm_tokenizer_pad(t));
    fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", fm_tokenizer_add_bos(t));
    fm_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", fm_tokenizer_add_eos(t));
    return FM_OK;
}

/* "chat_template" of tokenizer_config.json when it is one text; lists of named ones give their default. */
static fm_status put_config_template(fm_gguf_writer *w, const fm_str *config, const fm_job *j, fm_error *err)
{
    fm_view key, text = {0}, name, body;
    fm_json r = fm_json_begin(config->p, config->n, "tokenizer_config.json");
    if (fm_json_enter_object(&r))
        while (fm_json_key(&r, &key)) {
            if (!fm_view_is(key, "chat_template") || fm_json_peek(&r) == FM_JSON_NULL) {
                fm_json_skip(&r);
            } else if (fm_json_peek(&r) != FM_JSON_ARRAY) {
                fm_json_string(&r, &text);
            } else if (fm_json_enter_array(&r)) {
                while (fm_json_element(&r) && fm_json_enter_object(&r)) {
                    name = body = (fm_view){0};
                    while (fm_json_key(&r, &key)) fm_json_string(&r, fm_view_is(key, "name") ? &name : &body);
                    if (fm_view_is(name, "default")) text = body;
                }
            }
        }
    FM_TRY(fm_json_finish(&r, err));
    fm_str plain = {.a = j->a};
    if (text.n) fm_json_unescape(&plain, text);
    const fm_status status = fm_str_ok(&plain, "a chat template", err);
    if (status == FM_OK && plain.n) fm_gguf_put_string(w, "tokenizer.chat_template", (fm_view){plain.p, plain.n});
    fm_str_free(&plain);
    return status;
}

static fm_status put_template(fm_gguf_writer *w, const fm_tok *t, const fm_str *config, const fm_job *j, fm_error *err)
{
    fm_str text = {.a = j->a};
    fm_status status = fm_read_beside(&text, t->dir, "chat_template.jinja", err);
    if (status == FM_OK && text.n) fm_gguf_put_string(w, "tokenizer.chat_template", (fm_view){text.p, text.n});
    else if (status == FM_OK && config->n) status = put_config_template(w, config, j, err);
    fm_str_free(&text);
    return status;
}

static fm_status put_json(fm_gguf_writer *w, const fm_tok *t, const fm_job *j, fm_error *err)
{
    fm_str json = {.a = j->a}, config = {.a = j->a};
    fm_tokenizer *tokenizer = NULL;
    fm_status status = fm_file_read(&json, t->json, (size_t)256 << 20, err);
    if (status == FM_OK) status = fm_read_beside(&config, t->dir, "tokenizer_config.json", err);
    if (status == FM_OK)
        status = fm_tokenizer_from_json(&tokenizer, (fm_view){json.p, json.n}, (fm_view){config.p, config.n}, t->json, j->a,
                                        err);
    if (status == FM_OK) status = put_json_keys(w, tokenizer, j, err);
    if (status == FM_OK) status = put_template(w, t, &config, j, err);
    fm_tokenizer_free(tokenizer);
    fm_str_free(&json);
    fm_str_free(&config);
    return status;
}

fm_status fm_tok_put_gguf(fm_gguf_writer *w, const fm_tok *t, const fm_job *j, fm_error *err)
{
    if (t->json) return put_json(w, t, j, err);
    const uint64_t n = fm_gguf_find(t->gguf, "tokenizer.ggml.tokens")->count;
    if (n != j->config.vocab)
        return fm_fail(err, FM_ERR_SHAPE,
                       "%s: its vocabulary has %llu tokens, the embedding %zu rows: they do not belong together",
                       t->gguf->paths[0], (unsigned long long)n, j->config.vocab);
    for (size_t i = 0; i < t->gguf->n_kv; i++)
        if (fm_view_starts(t->gguf->kv[i].key, "tokenizer.")) fm_gguf_put_copy(w, &t->gguf->kv[i]);
    if (!fm_gguf_find(t->gguf, "tokenizer.ggml.add_bos_token")) fm_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    return FM_OK;
}
