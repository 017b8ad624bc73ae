/* vocab.c - where tokenizers come from: the keys tokenizer.ggml.* of a GGUF file, or the files of a Hugging Face folder. */
#include "runtime/vocab.h"

#include <string.h>

#define JSON_BYTES_MAX ((size_t)256 << 20) /* of a tokenizer.json; the largest in use have 33 MB */

typedef struct arrays {
    fm_view *tokens, *merges;
    int32_t *types;
    const fm_allocator *a;
} arrays;

static void arrays_free(arrays *s)
{
    fm_free(s->a, s->tokens);
    fm_free(s->a, s->merges);
    fm_free(s->a, s->types);
}

/* An array of the file, or NULL when it has none. */
static fm_status find_array(const fm_gguf_kv **out, const fm_gguf *g, const char *key, bool strings, fm_error *err)
{
    const fm_gguf_kv *kv = fm_gguf_find(g, key);
    *out = kv;
    if (kv == NULL) return FM_OK;
    const bool good = strings ? kv->element == FM_GGUF_STRING : kv->element == FM_GGUF_I32 || kv->element == FM_GGUF_U32;
    if (kv->type == FM_GGUF_ARRAY && good) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: %s must be an array of %s", g->paths[0], key,
                   strings ? "strings" : "32-bit integers");
}

static fm_status read_tokens(arrays *s, fm_vocab *v, const fm_gguf *g, fm_error *err)
{
    const fm_gguf_kv *tokens, *types;
    FM_TRY(find_array(&tokens, g, "tokenizer.ggml.tokens", true, err));
    FM_TRY(find_array(&types, g, "tokenizer.ggml.token_type", false, err));
    if (tokens == NULL)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: it has no vocabulary (tokenizer.ggml.tokens); give a tokenizer of its own",
                       g->paths[0]);
    if (types != NULL && types->count != tokens->count)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %llu tokens, but %llu token types", g->paths[0],
                       (unsigned long long)tokens->count, (unsigned long long)types->count);
    v->n_tokens = (size_t)tokens->count;
    FM_TRY(fm_alloc((void **)&s->tokens, s->a, v->n_tokens, sizeof *s->tokens, "the vocabulary", err));
    const unsigned char *cursor = NULL;
    for (size_t i = 0; i < v->n_tokens && fm_gguf_string_next(tokens, &cursor, &s->tokens[i]);) i++;
    v->tokens = s->tokens;
    if (types == NULL) return FM_OK;
    FM_TRY(fm_alloc((void **)&s->types, s->a, v->n_tokens, sizeof *s->types, "the vocabulary", err));
    for (size_t i = 0; i < v->n_tokens; i++) s->types[i] = (int32_t)fm_gguf_array_i64(types, i);
    v->types = s->types;
    return FM_OK;
}

static fm_status read_merges(arrays *s, fm_vocab *v, const fm_gguf *g, fm_error *err)
{
    const fm_gguf_kv *merges;
    FM_TRY(find_array(&merges, g, "tokenizer.ggml.merges", true, err));
    if (merges == NULL)
        return fm_fail(err, FM_ERR_FORMAT, "%s: its vocabulary is BPE, but it has no merges (tokenizer.ggml.merges)",
                       g->paths[0]);
    size_t n_sides;
    if (!fm_mul((size_t)merges->count, 2, &n_sides)) return fm_fail(err, FM_ERR_LIMIT, "%s: too many merges", g->paths[0]);
    FM_TRY(fm_alloc((void **)&s->merges, s->a, n_sides, sizeof *s->merges, "the merges", err));
    const unsigned char *cursor = NULL;
    fm_view both;
    for (; v->n_merges < merges->count && fm_gguf_string_next(merges, &cursor, &both); v->n_merges++) {
        const char *blank = both.n > 1 ? memchr(both.p + 1, ' ', both.n - 1) : NULL;
        if (blank == NULL)
            return fm_fail(err, FM_ERR_FORMAT, "%s: merge %zu is \"%s\", expected two tokens with a blank between", g->paths[0],
                           v->n_merges, fm_quote_of(both).text);
        fm_view *side = &s->merges[2 * v->n_merges];
        side[0] = (fm_view){both.p, (size_t)(blank - both.p)};
        side[1] = (fm_view){blank + 1, both.n - side[0].n - 1};
    }
    v->merges = s->merges;
    return FM_OK;
}

static fm_status choose_pretok(fm_vocab *v, const fm_gguf *g, fm_error *err)
{
    fm_view model = {NULL, 0}, name = {NULL, 0}, arch = {NULL, 0};
    const fm_pretok_kind *kind;
    FM_TRY(fm_gguf_get_string(g, "tokenizer.ggml.model", &model, NULL, err));
    FM_TRY(fm_gguf_get_string(g, "tokenizer.ggml.pre", &name, NULL, err));
    FM_TRY(fm_gguf_get_string(g, "general.architecture", &arch, NULL, err));
    if (!fm_view_is(model, "gpt2"))
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: its tokenizer is of the type \"%s\" (tokenizer.ggml.model); this version reads byte-level BPE, "
                       "\"gpt2\"",
                       g->paths[0], fm_quote_of(model).text);
    FM_TRY(fm_pretok_find(&kind, name, arch, g->paths[0], err));
    v->pretok = kind->pretok;
    v->pretok_name = kind->name;
    v->nfc = kind->nfc;
    v->ignore_merges = kind->ignore_merges;
    v->add_bos = kind->add_bos;
    return FM_OK;
}

/* An id given as any integer; an absent one, and 0xFFFFFFFF, is none. */
static fm_status read_id(int32_t *out, const fm_gguf *g, const char *key, size_t n_tokens, fm_error *err)
{
    uint64_t id = UINT32_MAX;
    FM_TRY(fm_gguf_get_u64(g, key, &id, NULL, err));
    *out = -1;
    if (id == UINT32_MAX) return FM_OK;
    if (id >= n_tokens || id > INT32_MAX)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %s is %llu, but the vocabulary has %zu tokens", g->paths[0], key,
                       (unsigned long long)id, n_tokens);
    *out = (int32_t)id;
    return FM_OK;
}

static fm_status read_vocab(arrays *s, fm_vocab *v, const fm_gguf *g, fm_error *err)
{
    FM_TRY(choose_pretok(v, g, err));
    FM_TRY(read_tokens(s, v, g, err));
    FM_TRY(read_merges(s, v, g, err));
    FM_TRY(read_id(&v->bos, g, "tokenizer.ggml.bos_token_id", v->n_tokens, err));
    FM_TRY(read_id(&v->eos, g, "tokenizer.ggml.eos_token_id", v->n_tokens, err));
    FM_TRY(read_id(&v->unk, g, "tokenizer.ggml.unknown_token_id", v->n_tokens, err));
    FM_TRY(read_id(&v->pad, g, "tokenizer.ggml.padding_token_id", v->n_tokens, err));
    FM_TRY(fm_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &v->add_bos, NULL, err));
    return fm_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &v->add_eos, NULL, err);
}

fm_status fm_vocab_from_gguf(fm_tokenizer **out, const fm_gguf *g, const fm_allocator *a, fm_error *err)
{
    arrays s = {.a = a};
    fm_vocab v = {.bos = -1, .eos = -1, .unk = -1, .pad = -1};
    *out = NULL;
    fm_status status = read_vocab(&s, &v, g, err);
    if (status == FM_OK) {
        status = fm_tokenizer_build(out, &v, a, err);
        if (status != FM_OK) fm_fail_prefix(err, status, "%s", g->paths[0]);
    }
    arrays_free(&s);
    return status;
}

/* `path` is the tokenizer.json, `config_path` its neighbour, which may be missing. */
static fm_status open_json(fm_tokenizer **out, const char *path, const char *config_path, const fm_allocator *a, fm_error *err)
{
    fm_str json = {.a = a}, config = {.a = a};
    fm_status status = fm_file_read(&json, path, JSON_BYTES_MAX, err);
    if (status == FM_OK && fm_path_exists(config_path)) status = fm_file_read(&config, config_path, JSON_BYTES_MAX, err);
    if (status == FM_OK)
        status = fm_tokenizer_from_json(out, (fm_view){json.p, json.n}, (fm_view){config.p, config.n}, path, a, err);
    fm_str_free(&json);
    fm_str_free(&config);
    return status;
}

static fm_status open_folder(fm_tokenizer **out, const char *dir, const char *json_path, const fm_allocator *a, fm_error *err)
{
    char *path = json_path != NULL ? NULL : fm_path_join(dir, "tokenizer.json", a, err);
    if (json_path == NULL && path == NULL) return FM_ERR_MEMORY;
    char *config = fm_path_join(dir, "tokenizer_config.json", a, err);
    fm_status status = FM_ERR_MEMORY;
    if (config != NULL && path != NULL && !fm_path_exists(path))
        status = fm_fail(err, FM_ERR_IO, "%s: no tokenizer.json in this folder; give one, or a GGUF file", dir);
    else if (config != NULL)
        status = open_json(out, path != NULL ? path : json_path, config, a, err);
    fm_free(a, path);
    fm_free(a, config);
    return status;
}

static fm_status open_gguf(fm_tokenizer **out, const char *path, const fm_allocator *a, fm_error *err)
{
    fm_gguf g;
    FM_TRY(fm_gguf_open(&g, path, FM_MAP_SHARED, a, err));
    const fm_status status = fm_vocab_from_gguf(out, &g, a, err);
    fm_gguf_close(&g);
    return status;
}

fm_status fm_tokenizer_open(fm_tokenizer **out, const char *path, const fm_allocator *a, fm_error *err)
{
    *out = NULL;
    if (path == NULL) return fm_fail(err, FM_ERR_ARGUMENT, "fm_tokenizer_open() needs a path");
    if (fm_path_is_dir(path)) return open_folder(out, path, NULL, a, err);
    if (!fm_view_ends(fm_view_of(path), ".json")) return open_gguf(out, path, a, err);
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL ? fm_strdup(a, ".", 1, err) : fm_strdup(a, path, (size_t)(slash - path) + 1, err);
    if (dir == NULL) return FM_ERR_MEMORY;
    const fm_status status = open_folder(out, dir, path, a, err);
    fm_free(a, dir);
    return status;
}
