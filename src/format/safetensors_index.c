/* safetensors_index.c - models cut into shards: "model.safetensors.index.json" names, for every tensor, the file it is in.
 * The shards lie beside the index; names that would lead elsewhere are refused. */
#include "base/json.h"
#include "format/safetensors_internal.h"

#define INDEX_BYTES_MAX 100000000u

/* One line of the weight_map; both are places in `text`. */
typedef struct line {
    size_t name, file;
} line;

typedef struct shard_list {
    const char *path;
    const fm_allocator *a;
    fm_str text;
    line *lines;
    size_t n, cap;
    size_t *by_file; /* indices of lines, sorted by file */
    uint32_t *part;  /* of each line */
} shard_list;

static const char *file_of(const shard_list *x, size_t i)
{
    return x->text.p + x->lines[i].file;
}

static int cmp_files(const void *ctx, size_t i, size_t j)
{
    const shard_list *x = ctx;
    const int c = strcmp(file_of(x, i), file_of(x, j));
    return c != 0 ? c : i < j ? -1 : i > j;
}

static fm_status add_line(shard_list *x, fm_json *j, fm_view name, fm_error *err)
{
    line l;
    fm_view file;
    if (!fm_json_string(j, &file)) return FM_OK;
    if (!fm_st_add_text(&x->text, name, &l.name) || !fm_st_add_text(&x->text, file, &l.file)) {
        fm_json_fail(j, "a name in the weight_map is empty or contains a zero byte");
        return FM_OK;
    }
    FM_TRY(fm_str_ok(&x->text, "the names of an index file", err));
    void *p = x->lines;
    const fm_status status = fm_grow(&p, &x->cap, x->n + 1, sizeof(*x->lines), x->a, "an index file's names", err);
    x->lines = p;
    FM_TRY(status);
    x->lines[x->n++] = l;
    return FM_OK;
}

static fm_status read_lines(shard_list *x, fm_view json, fm_error *err)
{
    fm_json j = fm_json_begin(json.p, json.n, x->path);
    fm_view key, name;
    bool seen = false;
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (!fm_view_is(key, "weight_map")) {
                fm_json_skip(&j);
                continue;
            }
            if (seen) fm_json_fail(&j, "the weight_map is there twice");
            seen = true;
            if (fm_json_enter_object(&j))
                while (fm_json_key(&j, &name)) FM_TRY(add_line(x, &j, name, err));
        }
    FM_TRY(fm_json_finish(&j, err));
    if (x->n == 0)
        return fm_fail(err, FM_ERR_FORMAT, "%s: its weight_map is %s: not the index of a sharded safetensors model", x->path,
                       seen ? "empty" : "missing");
    return FM_OK;
}

static fm_status check_file_name(const shard_list *x, const char *file, fm_error *err)
{
    if (strchr(file, '/') == NULL && strstr(file, "..") == NULL) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: names a shard '%s', expected a plain file name beside it: do not use this model",
                   x->path, fm_quote_of(fm_view_of(file)).text);
}

/* Numbers the shards in order of name and gives every line its number. */
static fm_status number_files(shard_list *x, uint32_t *n_files, fm_error *err)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, x->a, x->n, sizeof(*x->by_file), "an index file's shards", err));
    x->by_file = p;
    FM_TRY(fm_alloc(&p, x->a, x->n, sizeof(*x->part), "an index file's shards", err));
    x->part = p;
    for (size_t i = 0; i < x->n; i++) x->by_file[i] = i;
    fm_order_sort(x->by_file, x->n, cmp_files, x);
    uint32_t n = 0;
    for (size_t i = 0; i < x->n; i++) {
        const size_t at = x->by_file[i];
        if (i == 0 || strcmp(file_of(x, at), file_of(x, x->by_file[i - 1])) != 0) {
            FM_TRY(check_file_name(x, file_of(x, at), err));
            n++;
        }
        x->part[at] = n - 1;
    }
    *n_files = n;
    return FM_OK;
}

/* The shard's path: the index's folder and the shard's name.  NULL on failure. */
static char *shard_path(const shard_list *x, const char *file, fm_error *err)
{
    const char *slash = strrchr(x->path, '/');
    fm_str s = {.a = x->a};
    if (slash != NULL) fm_str_put(&s, x->path, (size_t)(slash - x->path) + 1);
    fm_str_puts(&s, file);
    if (fm_str_ok(&s, "a shard's path", err) == FM_OK) return s.p;
    fm_str_free(&s);
    return NULL;
}

/* All shards must be there before any is read: one sentence that names the first missing one and counts. */
static fm_status name_parts(fm_st *s, const shard_list *x, uint32_t n_files, fm_error *err)
{
    FM_TRY(fm_st_make_parts(s, n_files, err));
    uint32_t n_found = 0, missing = n_files;
    for (size_t i = 0; i < x->n; i++) {
        const uint32_t part = x->part[x->by_file[i]];
        if (s->paths[part] != NULL) continue;
        s->paths[part] = shard_path(x, file_of(x, x->by_file[i]), err);
        if (s->paths[part] == NULL) return FM_ERR_MEMORY;
        if (fm_path_exists(s->paths[part]))
            n_found++;
        else if (missing == n_files)
            missing = part;
    }
    if (missing == n_files) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT, "%s: this shard is missing (%u of the %u that %s names are there): download it",
                   s->paths[missing], n_found, n_files, x->path);
}

/* Every line's tensor must be in the file that the line says. */
static fm_status check_lines(const fm_st *s, const shard_list *x, fm_error *err)
{
    for (size_t i = 0; i < x->n; i++) {
        const char *name = x->text.p + x->lines[i].name;
        const fm_st_tensor *t = fm_st_find(s, name);
        if (t != NULL && t->part == x->part[i]) continue;
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: says tensor '%s' is in '%s', which %s it: the files are from different models or "
                       "damaged",
                       x->path, fm_quote_of(fm_view_of(name)).text, fm_quote_of(fm_view_of(file_of(x, i))).text,
                       t == NULL ? "does not hold" : "is not the shard that holds");
    }
    return FM_OK;
}

static fm_status read_index(st_builder *b, shard_list *x, fm_map_mode mode, fm_error *err)
{
    fm_str json = {.a = x->a};
    fm_status status = fm_file_read(&json, x->path, INDEX_BYTES_MAX, err);
    if (status == FM_OK && json.n > 0 && json.p[0] != '{') {
        const char *what = fm_sniff((const unsigned char *)json.p, json.n);
        if (what != NULL) status = fm_fail(err, FM_ERR_FORMAT, "%s: expected JSON, found %s", x->path, what);
    }
    if (status == FM_OK) status = read_lines(x, (fm_view){json.p, json.n}, err);
    fm_str_free(&json);
    FM_TRY(status);
    uint32_t n_files = 0;
    FM_TRY(number_files(x, &n_files, err));
    FM_TRY(name_parts(b->s, x, n_files, err));
    for (uint32_t part = 0; part < n_files; part++) FM_TRY(fm_st_read_part(b, part, mode, err));
    FM_TRY(fm_st_finish(b, err));
    return check_lines(b->s, x, err);
}

fm_status fm_st_read_index(st_builder *b, const char *path, fm_map_mode mode, fm_error *err)
{
    shard_list x = {.path = path, .a = b->s->a, .text = {.a = b->s->a}};
    const fm_status status = read_index(b, &x, mode, err);
    fm_str_free(&x.text);
    fm_free(x.a, x.lines);
    fm_free(x.a, x.by_file);
    fm_free(x.a, x.part);
    return status;
}
