/* vocab_json.c - tokenizer.json and tokenizer_config.json into an fm_vocab.
 * All strings are unescaped into one growing text, so entries are offsets until everything was read. */
#include <string.h>

#include "text/json_internal.h"
#include "text/tokenizer_internal.h"

typedef struct entry {
    size_t at, n; /* within the text; at SIZE_MAX: the id was never given */
    int32_t type;
    uint8_t added;
} entry;

typedef struct piece {
    size_t at, n;
} piece;

typedef struct vocab_reader {
    const char *path;
    const fm_allocator *a;
    fm_error *err;
    fm_status status; /* the first failure that is not the JSON's own */
    fm_str text, one; /* all strings; the one just read */
    entry *tokens;
    size_t n_tokens, tokens_cap, n_given;
    piece *merges; /* two each */
    size_t n_merges, merges_cap;
    fm_view model, added, normalizer, pre_tokenizer, post_processor; /* source texts */
    bool ignore_merges;
    fm_str unk;
    fm_pipeline pipeline;
} vocab_reader;

/* What tokenizer_config.json says; -1 for a switch that it does not mention. */
typedef struct config {
    fm_str bos, eos, pad, unk;
    int add_bos, add_eos;
} config;

static void stop(vocab_reader *r, fm_json *j, fm_status status)
{
    r->status = status;
    fm_json_fail(j, "is not a vocabulary");
}

/* Unescapes into the text. */
static piece keep(vocab_reader *r, fm_view raw)
{
    const size_t at = r->text.n;
    fm_json_unescape(&r->text, raw);
    return (piece){at, r->text.n - at};
}

static fm_status set_token(vocab_reader *r, uint64_t id, piece text, int32_t type, uint8_t added)
{
    if (id >= FM_VOCAB_MAX)
        return fm_fail(r->err, FM_ERR_FORMAT, "%s: token id %llu is too large, ids end at %zu", r->path, (unsigned long long)id,
                       FM_VOCAB_MAX - 1);
    if (id >= r->n_tokens) {
        FM_TRY(fm_grow((void **)&r->tokens, &r->tokens_cap, (size_t)id + 1, sizeof *r->tokens, r->a, "the vocabulary", r->err));
        for (; r->n_tokens <= id; r->n_tokens++) r->tokens[r->n_tokens] = (entry){.at = SIZE_MAX, .type = FM_TOKEN_UNUSED};
    }
    r->n_given += r->tokens[id].at == SIZE_MAX;
    r->tokens[id] = (entry){text.at, text.n, type, added};
    return FM_OK;
}

static void read_vocab(vocab_reader *r, fm_json *j)
{
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        uint64_t id;
        if (!fm_json_u64(j, &id)) return;
        const fm_status status = set_token(r, id, keep(r, key), FM_TOKEN_NORMAL, 0);
        if (status != FM_OK) {
            stop(r, j, status);
            return;
        }
    }
}

/* Cuts "a b"; neither side may be empty, and a blank is not of the byte alphabet. */
static bool cut_merge(const vocab_reader *r, piece both, piece side[2])
{
    const char *p = r->text.p + both.at;
    const char *blank = both.n > 0 ? memchr(p, ' ', both.n) : NULL;
    if (blank == NULL) return false;
    side[0] = (piece){both.at, (size_t)(blank - p)};
    side[1] = (piece){both.at + side[0].n + 1, both.n - side[0].n - 1};
    return side[0].n > 0 && side[1].n > 0;
}

/* "a b" or ["a", "b"] */
static bool read_merge(vocab_reader *r, fm_json *j, piece side[2])
{
    fm_view raw;
    if (fm_json_peek(j) == FM_JSON_STRING) return fm_json_string(j, &raw) && cut_merge(r, keep(r, raw), side);
    size_t n = 0;
    if (!fm_json_enter_array(j)) return false;
    while (fm_json_element(j)) {
        if (n == 2 || !fm_json_string(j, &raw)) return false;
        side[n++] = keep(r, raw);
    }
    return n == 2 && !r->text.failed;
}

static void read_merges(vocab_reader *r, fm_json *j)
{
    if (!fm_json_enter_array(j)) return;
    while (fm_json_element(j)) {
        piece side[2];
        if (r->text.failed || !read_merge(r, j, side)) {
            fm_json_fail(j, "a merge is \"left right\" or [\"left\", \"right\"]");
            return;
        }
        const size_t n = 2 * r->n_merges;
        const fm_status status =
            fm_grow((void **)&r->merges, &r->merges_cap, n + 2, sizeof *r->merges, r->a, "the merges", r->err);
        if (status != FM_OK) {
            stop(r, j, status);
            return;
        }
        r->merges[n] = side[0];
        r->merges[n + 1] = side[1];
        r->n_merges++;
    }
}

/* A member that must be null, absent or empty for byte-level BPE. */
static void refuse_text(vocab_reader *r, fm_json *j, const char *what)
{
    if (fm_json_null(j) || !fm_json_text(j, &r->one) || r->one.n == 0) return;
    stop(r, j,
         fm_fail(r->err, FM_ERR_UNSUPPORTED, "%s: its model has %s; this version reads byte-level BPE, which has none", r->path,
                 what));
}

static void read_model_type(vocab_reader *r, fm_json *j)
{
    if (!fm_json_text(j, &r->one) || r->one.failed || fm_view_is((fm_view){r->one.p, r->one.n}, "BPE")) return;
    stop(r, j,
         fm_fail(r->err, FM_ERR_UNSUPPORTED, "%s: its model is \"%.60s\"; this version reads byte-level BPE", r->path,
                 r->one.p != NULL ? r->one.p : ""));
}

static void read_byte_fallback(vocab_reader *r, fm_json *j)
{
    bool on;
    if (!fm_json_bool(j, &on) || !on) return;
    stop(r, j,
         fm_fail(r->err, FM_ERR_UNSUPPORTED,
                 "%s: its model falls back to byte tokens, as SentencePiece does; this version "
                 "reads byte-level BPE",
                 r->path));
}

static void read_model(vocab_reader *r, fm_json *j)
{
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "vocab")) {
            if (fm_json_peek(j) != FM_JSON_OBJECT)
                stop(r, j,
                     fm_fail(r->err, FM_ERR_UNSUPPORTED,
                             "%s: its vocabulary is not an object of \"token\": id, as that of "
                             "byte-level BPE is",
                             r->path));
            read_vocab(r, j);
        } else if (fm_view_is(key, "type"))
            read_model_type(r, j);
        else if (fm_view_is(key, "merges"))
            read_merges(r, j);
        else if (fm_view_is(key, "ignore_merges"))
            fm_json_bool(j, &r->ignore_merges);
        else if (fm_view_is(key, "byte_fallback"))
            read_byte_fallback(r, j);
        else if (fm_view_is(key, "continuing_subword_prefix"))
            refuse_text(r, j, "a prefix for continuing subwords");
        else if (fm_view_is(key, "end_of_word_suffix"))
            refuse_text(r, j, "a suffix for word ends");
        else if (fm_view_is(key, "unk_token") && !fm_json_null(j))
            fm_json_text(j, &r->unk);
        else if (!fm_view_is(key, "unk_token"))
            fm_json_skip(j);
    }
}

static bool is_ordinary(const vocab_reader *r, uint64_t id, fm_view content)
{
    if (id >= r->n_tokens || r->tokens[id].at == SIZE_MAX || r->tokens[id].type != FM_TOKEN_NORMAL) return false;
    return fm_view_eq((fm_view){r->text.p + r->tokens[id].at, r->tokens[id].n}, content);
}

static void read_added_token(vocab_reader *r, fm_json *j)
{
    fm_view key, content = {NULL, 0};
    uint64_t id = UINT64_MAX;
    bool special = false, normalized = true, left = false, right = false, single = false;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "id"))
            fm_json_u64(j, &id);
        else if (fm_view_is(key, "content"))
            fm_json_string(j, &content);
        else if (fm_view_is(key, "special"))
            fm_json_bool(j, &special);
        else if (fm_view_is(key, "normalized"))
            fm_json_bool(j, &normalized);
        else if (fm_view_is(key, "lstrip"))
            fm_json_bool(j, &left);
        else if (fm_view_is(key, "rstrip"))
            fm_json_bool(j, &right);
        else if (fm_view_is(key, "single_word"))
            fm_json_bool(j, &single);
        else
            fm_json_skip(j);
    }
    if (j->error != NULL) return;
    if (id == UINT64_MAX || content.p == NULL) {
        fm_json_fail(j, "an added token needs \"id\" and \"content\"");
        return;
    }
    const unsigned how = (normalized ? 0u : FM_ADDED_RAW) | (left ? FM_ADDED_LSTRIP : 0u) | (right ? FM_ADDED_RSTRIP : 0u) |
                         (single ? FM_ADDED_SINGLE_WORD : 0u);
    const int32_t type = special ? FM_TOKEN_CONTROL : FM_TOKEN_USER_DEFINED;
    const unsigned ordinary = is_ordinary(r, id, content) ? FM_ADDED_ORDINARY : 0u;
    const fm_status status = set_token(r, id, keep(r, content), type, (uint8_t)(how | ordinary));
    if (status != FM_OK) stop(r, j, status);
}

static void read_added(vocab_reader *r, fm_json *j)
{
    if (fm_json_null(j) || !fm_json_enter_array(j)) return;
    while (fm_json_element(j)) read_added_token(r, j);
}

/* The JSON's own error unless something else went wrong first; then out of memory, which strings report late. */
static fm_status settle(vocab_reader *r, fm_json *j)
{
    FM_TRY(r->status);
    FM_TRY(fm_str_ok(&r->text, "the vocabulary", r->err));
    FM_TRY(fm_str_ok(&r->one, "the vocabulary", r->err));
    FM_TRY(fm_str_ok(&r->unk, "the vocabulary", r->err));
    return fm_json_finish(j, r->err);
}

static fm_status read_sections(vocab_reader *r, fm_view json)
{
    fm_view key, unused;
    fm_json j = fm_json_begin(json.p, json.n, r->path);
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            fm_view *section = fm_view_is(key, "model")            ? &r->model
                               : fm_view_is(key, "added_tokens")   ? &r->added
                               : fm_view_is(key, "normalizer")     ? &r->normalizer
                               : fm_view_is(key, "pre_tokenizer")  ? &r->pre_tokenizer
                               : fm_view_is(key, "post_processor") ? &r->post_processor
                                                                   : &unused;
            fm_json_raw(&j, section);
        }
    FM_TRY(fm_json_finish(&j, r->err));
    if (r->model.n > 0) return FM_OK;
    return fm_fail(r->err, FM_ERR_FORMAT, "%s: it has no \"model\", so it is not a tokenizer.json", r->path);
}

static fm_status read_all(vocab_reader *r, fm_view json)
{
    FM_TRY(read_sections(r, json));
    fm_json j = fm_json_begin(r->model.p, r->model.n, r->path);
    read_model(r, &j);
    FM_TRY(settle(r, &j));
    FM_TRY(fm_pipeline_read(&r->pipeline, r->normalizer, r->pre_tokenizer, r->post_processor, r->path, r->err));
    if (r->added.n > 0) {
        j = fm_json_begin(r->added.p, r->added.n, r->path);
        read_added(r, &j);
        FM_TRY(settle(r, &j));
    }
    /* Gaps are filled, so a few bytes must not be able to ask for gigabytes. */
    if (r->n_tokens / 2 > r->n_given + 32768)
        return fm_fail(r->err, FM_ERR_FORMAT, "%s: its ids go up to %zu, but it has only %zu tokens", r->path, r->n_tokens - 1,
                       r->n_given);
    for (size_t i = 0; i < r->n_tokens; i++) {
        entry *e = &r->tokens[i];
        if (e->at != SIZE_MAX) continue;
        e->at = r->text.n;
        fm_str_printf(&r->text, "[PAD%zu]", i);
        e->n = r->text.n - e->at;
    }
    return fm_str_ok(&r->text, "the vocabulary", r->err);
}

/* Either the token's text or an object with its "content". */
static void read_name(fm_json *j, fm_str *out)
{
    fm_view key;
    if (fm_json_peek(j) == FM_JSON_STRING) {
        fm_json_text(j, out);
    } else if (fm_json_peek(j) == FM_JSON_OBJECT && fm_json_enter_object(j)) {
        while (fm_json_key(j, &key)) {
            if (fm_view_is(key, "content"))
                fm_json_text(j, out);
            else
                fm_json_skip(j);
        }
    } else {
        fm_json_skip(j);
    }
}

static void read_switch(fm_json *j, int *out)
{
    bool on;
    if (fm_json_peek(j) != FM_JSON_BOOL)
        fm_json_skip(j);
    else if (fm_json_bool(j, &on))
        *out = on;
}

static fm_status read_config(config *c, fm_view text, fm_error *err)
{
    fm_view key;
    if (text.p == NULL) return FM_OK;
    fm_json j = fm_json_begin(text.p, text.n, "tokenizer_config.json");
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (fm_view_is(key, "bos_token"))
                read_name(&j, &c->bos);
            else if (fm_view_is(key, "eos_token"))
                read_name(&j, &c->eos);
            else if (fm_view_is(key, "pad_token"))
                read_name(&j, &c->pad);
            else if (fm_view_is(key, "unk_token"))
                read_name(&j, &c->unk);
            else if (fm_view_is(key, "add_bos_token"))
                read_switch(&j, &c->add_bos);
            else if (fm_view_is(key, "add_eos_token"))
                read_switch(&j, &c->add_eos);
            else
                fm_json_skip(&j);
        }
    const fm_str *const names[] = {&c->bos, &c->eos, &c->pad, &c->unk};
    for (size_t i = 0; i < FM_COUNT(names); i++) FM_TRY(fm_str_ok(names[i], "tokenizer_config.json", err));
    return fm_json_finish(&j, err);
}

static int32_t id_of(const fm_tokenizer *t, const fm_str *name, int32_t otherwise)
{
    const int32_t id = name->n > 0 ? fm_tokenizer_find_view(t, (fm_view){name->p, name->n}) : -1;
    return id >= 0 ? id : otherwise;
}

/* Names become ids.  The configuration rules over the post-processor; the end token may also be known by its spelling. */
static void resolve_names(fm_tokenizer *t, const vocab_reader *r, const config *c)
{
    int32_t eog = -1;
    fm_tokenizer_eog(t, &eog, 1);
    const int32_t before = id_of(t, &r->pipeline.before, -1), after = id_of(t, &r->pipeline.after, -1);
    t->bos = id_of(t, &c->bos, before);
    t->eos = id_of(t, &c->eos, after >= 0 ? after : eog);
    t->pad = id_of(t, &c->pad, -1);
    t->unk = id_of(t, &c->unk, id_of(t, &r->unk, -1));
    t->add_bos = c->add_bos >= 0 ? c->add_bos == 1 : before >= 0;
    t->add_eos = c->add_eos >= 0 ? c->add_eos == 1 : after >= 0;
}

/* Offsets become views, now that the text stands still. */
static fm_status build(fm_tokenizer **out, const vocab_reader *r)
{
    const size_t n = r->n_tokens, n_sides = 2 * r->n_merges;
    fm_view *views = NULL;
    int32_t *types = NULL;
    uint8_t *added = NULL;
    fm_status status = fm_alloc((void **)&views, r->a, n + n_sides, sizeof *views, "the vocabulary", r->err);
    if (status == FM_OK) status = fm_alloc((void **)&types, r->a, n, sizeof *types, "the vocabulary", r->err);
    if (status == FM_OK) status = fm_alloc((void **)&added, r->a, n, sizeof *added, "the vocabulary", r->err);
    if (status == FM_OK) {
        for (size_t i = 0; i < n; i++) {
            views[i] = (fm_view){r->text.p + r->tokens[i].at, r->tokens[i].n};
            types[i] = r->tokens[i].type;
            added[i] = r->tokens[i].added;
        }
        for (size_t i = 0; i < n_sides; i++) views[n + i] = (fm_view){r->text.p + r->merges[i].at, r->merges[i].n};
        const fm_vocab v = {.tokens = views,
                            .types = types,
                            .added = added,
                            .n_tokens = n,
                            .merges = views + n,
                            .n_merges = r->n_merges,
                            .pretok = r->pipeline.pretok,
                            .pretok_name = r->pipeline.pretok_name,
                            .nfc = r->pipeline.nfc,
                            .ignore_merges = r->ignore_merges,
                            .bos = -1,
                            .eos = -1,
                            .unk = -1,
                            .pad = -1};
        status = fm_tokenizer_build(out, &v, r->a, r->err);
        if (status != FM_OK) fm_fail_prefix(r->err, status, "%s", r->path);
    }
    fm_free(r->a, views);
    fm_free(r->a, types);
    fm_free(r->a, added);
    return status;
}

fm_status fm_tokenizer_from_json(fm_tokenizer **out, fm_view json, fm_view config_json, const char *path, const fm_allocator *a,
                                 fm_error *err)
{
    vocab_reader r = {
        .path = path, .a = a, .err = err, .text.a = a, .one.a = a, .unk.a = a, .pipeline.before.a = a, .pipeline.after.a = a};
    config c = {.bos.a = a, .eos.a = a, .pad.a = a, .unk.a = a, .add_bos = -1, .add_eos = -1};
    *out = NULL;
    fm_status status = read_all(&r, json);
    if (status == FM_OK) status = read_config(&c, config_json, err);
    if (status == FM_OK) status = build(out, &r);
    if (status == FM_OK) resolve_names(*out, &r, &c);
    fm_str *const strings[] = {&r.text, &r.one, &r.unk, &r.pipeline.before, &r.pipeline.after, &c.bos, &c.eos, &c.pad, &c.unk};
    for (size_t i = 0; i < FM_COUNT(strings); i++) fm_str_free(strings[i]);
    fm_free(a, r.tokens);
    fm_free(a, r.merges);
    return status;
}
