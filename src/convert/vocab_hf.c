/* vocab_hf.c - the tokenizer files of a directory: copied from another one, or made from the keys of a GGUF. */
#include <string.h>

#include "convert/internal.h"
#include "text/write_json.h"

/* ---- Copies ---- */

static fm_status copy_file(const char *from, const char *name, const char *to, const fm_allocator *a, fm_error *err)
{
    fm_str text = {.a = a};
    fm_status status = fm_read_beside(&text, from, name, err);
    if (status == FM_OK && text.n) status = fm_file_write(to, name, (fm_view){text.p, text.n}, a, err);
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
    if (status == FM_OK) status = fm_file_write(dir, "tokenizer.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    return status;
}

/* ---- Files made from the keys of a GGUF ---- */

typedef struct source {
    const fm_gguf *g;
    const fm_gguf_kv *tokens, *types, *merges;
    fm_vocab v; /* its tokens without the padding at the end */
    fm_view *text, *sides; /* what v.tokens and v.merges are */
    int32_t *type;
} source;

static fm_status read_id(int32_t *id, const source *s, const char *key, fm_error *err)
{
    uint64_t v = UINT64_MAX;
    FM_TRY(fm_gguf_get_u64(s->g, key, &v, NULL, err));
    *id = v < s->v.n_tokens && v <= INT32_MAX ? (int32_t)v : -1;
    return FM_OK;
}

static fm_status read_pre(source *s, fm_error *err)
{
    fm_view name = {0}, arch = {0};
    const fm_pretok_kind *pre;
    FM_TRY(fm_gguf_get_string(s->g, "tokenizer.ggml.pre", &name, NULL, err));
    FM_TRY(fm_gguf_get_string(s->g, "general.architecture", &arch, NULL, err));
    FM_TRY(fm_pretok_find(&pre, name, arch, s->g->paths[0], err));
    s->v.pretok = pre->pretok;
    s->v.pretok_name = pre->name;
    s->v.nfc = pre->nfc;
    s->v.ignore_merges = pre->ignore_merges;
    s->v.add_bos = pre->add_bos;
    return FM_OK;
}

static fm_status read_tokens(source *s, const fm_job *j, fm_error *err)
{
    const size_t n = (size_t)s->tokens->count;
    const unsigned char *cursor = NULL;
    FM_TRY(fm_alloc((void **)&s->text, j->a, n, sizeof *s->text, "the vocabulary", err));
    FM_TRY(fm_alloc((void **)&s->type, j->a, n, sizeof *s->type, "the vocabulary", err));
    for (size_t i = 0; i < n && fm_gguf_string_next(s->tokens, &cursor, &s->text[i]);) i++;
    for (size_t i = 0; i < n; i++) s->type[i] = s->types ? (int32_t)fm_gguf_array_i64(s->types, i) : FM_TOKEN_NORMAL;
    s->v.tokens = s->text;
    s->v.types = s->type;
    s->v.n_tokens = n;
    return FM_OK;
}

/* The tokens "[PADi]" at the end only filled up the embedding. */
static void drop_padding(fm_vocab *v)
{
    while (v->n_tokens > 0 && fm_view_starts(v->tokens[v->n_tokens - 1], "[PAD") &&
           v->types[v->n_tokens - 1] != FM_TOKEN_CONTROL)
        v->n_tokens--;
}

static fm_status read_merges(source *s, const fm_job *j, fm_error *err)
{
    const unsigned char *cursor = NULL;
    fm_view both;
    size_t n, i = 0;
    if (!fm_mul((size_t)s->merges->count, 2, &n)) return fm_fail(err, FM_ERR_LIMIT, "%s: too many merges", s->g->paths[0]);
    FM_TRY(fm_alloc((void **)&s->sides, j->a, n, sizeof *s->sides, "the merges", err));
    for (; i < s->merges->count && fm_gguf_string_next(s->merges, &cursor, &both); i++) {
        const char *blank = both.n > 1 ? memchr(both.p + 1, ' ', both.n - 1) : NULL;
        if (!blank)
            return fm_fail(err, FM_ERR_FORMAT, "%s: merge %zu is not two tokens with a blank between: the file is damaged",
                           s->g->paths[0], i);
        s->sides[2 * i] = (fm_view){both.p, (size_t)(blank - both.p)};
        s->sides[2 * i + 1] = (fm_view){blank + 1, both.n - (size_t)(blank - both.p) - 1};
    }
    s->v.merges = s->sides;
    s->v.n_merges = i;
    return FM_OK;
}

static fm_status read_source(source *s, const fm_job *j, fm_error *err)
{
    s->tokens = fm_gguf_find(s->g, "tokenizer.ggml.tokens");
    s->types = fm_gguf_find(s->g, "tokenizer.ggml.token_type");
    s->merges = fm_gguf_find(s->g, "tokenizer.ggml.merges");
    if (s->tokens->type != FM_GGUF_ARRAY || s->tokens->element != FM_GGUF_STRING || !s->merges ||
        s->merges->type != FM_GGUF_ARRAY || s->merges->element != FM_GGUF_STRING ||
        (s->types && (s->types->type != FM_GGUF_ARRAY || s->types->count != s->tokens->count ||
                      (s->types->element != FM_GGUF_I32 && s->types->element != FM_GGUF_U32))))
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: its vocabulary is not byte-level BPE with merges: give a tokenizer of its own",
                       s->g->paths[0]);
    FM_TRY(read_pre(s, err));
    FM_TRY(read_tokens(s, j, err));
    drop_padding(&s->v);
    FM_TRY(read_merges(s, j, err));
    FM_TRY(read_id(&s->v.bos, s, "tokenizer.ggml.bos_token_id", err));
    FM_TRY(read_id(&s->v.eos, s, "tokenizer.ggml.eos_token_id", err));
    FM_TRY(read_id(&s->v.unk, s, "tokenizer.ggml.unknown_token_id", err));
    FM_TRY(read_id(&s->v.pad, s, "tokenizer.ggml.padding_token_id", err));
    FM_TRY(fm_gguf_get_bool(s->g, "tokenizer.ggml.add_bos_token", &s->v.add_bos, NULL, err));
    return fm_gguf_get_bool(s->g, "tokenizer.ggml.add_eos_token", &s->v.add_eos, NULL, err);
}

static fm_status write_config(fm_str *out, const source *s, fm_error *err)
{
    fm_view chat_template = {0};
    FM_TRY(fm_gguf_get_string(s->g, "tokenizer.chat_template", &chat_template, NULL, err));
    return fm_vocab_write_config(out, &s->v, chat_template, err);
}

static fm_status make_files(source *s, const fm_job *j, const char *dir, fm_error *err)
{
    fm_str text = {.a = j->a};
    fm_status status = read_source(s, j, err);
    if (status == FM_OK) status = fm_vocab_write_json(&text, &s->v, err);
    if (status == FM_OK) status = fm_file_write(dir, "tokenizer.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_reset(&text);
    if (status == FM_OK) status = write_config(&text, s, err);
    if (status == FM_OK) status = fm_file_write(dir, "tokenizer_config.json", (fm_view){text.p, text.n}, j->a, err);
    fm_str_free(&text);
    fm_free(j->a, s->text);
    fm_free(j->a, s->type);
    fm_free(j->a, s->sides);
    return status;
}

/* The source's own: a file, or the text that a GGUF of ours carries. */
static fm_status write_generation(const fm_job *j, const char *dir, fm_error *err)
{
    fm_view text = {0};
    if (!j->m) return FM_OK;
    if (j->m->source.kind == FM_SOURCE_HF) return copy_file(j->m->source.path, "generation_config.json", dir, j->a, err);
    FM_TRY(fm_gguf_get_string(&j->m->source.gguf, "fmamba.generation_config_json", &text, NULL, err));
    return text.n ? fm_file_write(dir, "generation_config.json", text, j->a, err) : FM_OK;
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
