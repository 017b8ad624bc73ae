/* safetensors_read.c - one safetensors file: the length of its header, JSON, and tensors that fill the rest without gaps.
 * Sharded models are put together in safetensors_index.c.  Spec falcon-mamba.md section 3. */
#include "base/json.h"
#include "format/safetensors_internal.h"

/* Types beyond fm_st_type are known by their size only. */
static const struct {
    const char *name;
    fm_st_type type;
    unsigned bits;
} types[] = {
    {"F32", FM_ST_F32, 32},      {"F16", FM_ST_F16, 16},      {"BF16", FM_ST_BF16, 16},    {"F64", FM_ST_F64, 64},
    {"I64", FM_ST_I64, 64},      {"I32", FM_ST_I32, 32},      {"I16", FM_ST_I16, 16},      {"I8", FM_ST_I8, 8},
    {"U8", FM_ST_U8, 8},         {"BOOL", FM_ST_BOOL, 8},     {"U16", FM_ST_OTHER, 16},    {"U32", FM_ST_OTHER, 32},
    {"U64", FM_ST_OTHER, 64},    {"C64", FM_ST_OTHER, 64},    {"F4", FM_ST_OTHER, 4},      {"F6_E2M3", FM_ST_OTHER, 6},
    {"F6_E3M2", FM_ST_OTHER, 6}, {"F8_E5M2", FM_ST_OTHER, 8}, {"F8_E4M3", FM_ST_OTHER, 8}, {"F8_E8M0", FM_ST_OTHER, 8},
};

fm_st_type fm_st_type_of(fm_view name, const char **static_name, unsigned *bits)
{
    *static_name = NULL;
    *bits = 0;
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        if (!fm_view_is(name, types[i].name)) continue;
        *static_name = types[i].name;
        *bits = types[i].bits;
        return types[i].type;
    }
    return FM_ST_OTHER;
}

const char *fm_st_type_text(fm_st_type type, unsigned *bits)
{
    FM_ASSERT(type < FM_ST_OTHER);
    for (size_t i = 0; i < FM_COUNT(types); i++) {
        if (types[i].type != type) continue;
        *bits = types[i].bits;
        return types[i].name;
    }
    return NULL;
}

bool fm_st_add_text(fm_str *text, fm_view raw, size_t *at)
{
    *at = text->n;
    fm_json_unescape(text, raw);
    const size_t n = text->n - *at;
    const bool good = text->failed || (n > 0 && memchr(text->p + *at, 0, n) == NULL);
    fm_str_putc(text, '\0');
    return good;
}

/* One tensor's entry as read, before it is checked. */
typedef struct entry {
    fm_st_tensor t;
    st_texts texts;
    uint64_t begin, end;
    unsigned bits; /* per element; 0: unknown */
    bool has_type, has_shape, has_offsets;
} entry;

static bool read_type(st_builder *b, fm_json *j, entry *e)
{
    fm_view raw;
    if (!fm_json_string(j, &raw)) return false;
    e->t.type = fm_st_type_of(raw, &e->t.type_name, &e->bits);
    if (e->t.type_name == NULL && !fm_st_add_text(&b->text, raw, &e->texts.type_name)) {
        fm_json_fail(j, "a tensor's dtype is empty or contains a zero byte");
        return false;
    }
    return true;
}

static bool read_shape(fm_json *j, entry *e)
{
    if (!fm_json_enter_array(j)) return false;
    while (fm_json_element(j)) {
        if (e->t.n_dims == FM_ST_DIMS_MAX) {
            fm_json_fail(j, "a tensor has more than 8 dimensions");
            return false;
        }
        if (!fm_json_u64(j, &e->t.dims[e->t.n_dims])) return false;
        e->t.n_dims++;
    }
    return true;
}

static bool read_offsets(fm_json *j, entry *e)
{
    unsigned n = 0;
    if (!fm_json_enter_array(j)) return false;
    while (fm_json_element(j)) {
        if (n == 2) {
            fm_json_fail(j, "a tensor's data_offsets are more than two numbers");
            return false;
        }
        if (!fm_json_u64(j, n == 0 ? &e->begin : &e->end)) return false;
        n++;
    }
    if (n != 2) fm_json_fail(j, "a tensor's data_offsets are not two numbers");
    return n == 2;
}

static bool claim(fm_json *j, bool *seen)
{
    if (*seen) fm_json_fail(j, "a tensor has a field twice");
    const bool fresh = !*seen;
    *seen = true;
    return fresh;
}

static void read_entry(st_builder *b, fm_json *j, entry *e)
{
    fm_view key;
    if (!fm_json_enter_object(j)) return;
    while (fm_json_key(j, &key)) {
        bool ok = true;
        if (fm_view_is(key, "dtype"))
            ok = claim(j, &e->has_type) && read_type(b, j, e);
        else if (fm_view_is(key, "shape"))
            ok = claim(j, &e->has_shape) && read_shape(j, e);
        else if (fm_view_is(key, "data_offsets"))
            ok = claim(j, &e->has_offsets) && read_offsets(j, e);
        else
            fm_json_skip(j);
        if (!ok) return;
    }
    if (j->error == NULL && !(e->has_type && e->has_shape && e->has_offsets))
        fm_json_fail(j, "a tensor lacks its dtype, shape or data_offsets");
}

/* The shape and the offsets must say the same size, and lie in the `room` bytes after the header. */
static fm_status check_entry(const char *path, const char *name, entry *e, size_t room, fm_error *err)
{
    const fm_quote q = fm_quote_of(fm_view_of(name));
    uint64_t bits = e->bits;
    bool fits = true;
    for (uint32_t d = 0; d < e->t.n_dims; d++)
        if (e->t.dims[d] == 0) bits = 0;
    for (uint32_t d = 0; d < e->t.n_dims && bits > 0; d++) fits = fits && fm_mul_u64(bits, e->t.dims[d], &bits);
    if (e->end < e->begin)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: tensor '%s' has data_offsets %llu to %llu, which run backwards: the file is "
                       "damaged",
                       path, q.text, (unsigned long long)e->begin, (unsigned long long)e->end);
    e->t.bytes = e->end - e->begin;
    if (e->bits > 0 && (!fits || bits % 8 != 0 || bits / 8 != e->t.bytes))
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: tensor '%s' has %llu bytes by its data_offsets, which is not what its shape and "
                       "type %s make: the file is damaged",
                       path, q.text, (unsigned long long)e->t.bytes, e->t.type_name);
    if (e->end > room)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: tensor '%s' ends %llu bytes after the header, but only %zu bytes are there: the "
                       "file is cut off or damaged, download it again",
                       path, q.text, (unsigned long long)e->end, room);
    return FM_OK;
}

static fm_status add_entry(st_builder *b, const entry *e, fm_error *err)
{
    fm_st *s = b->s;
    size_t need = 0;
    void *tensors = s->tensors, *texts = b->texts;
    if (!fm_add(s->n_tensors, 1, &need)) need = SIZE_MAX;
    const fm_status status =
        fm_grow(&tensors, &b->tensors_cap, need, sizeof(*s->tensors), s->a, "a safetensors file's tensor list", err);
    s->tensors = tensors;
    FM_TRY(status);
    const fm_status other =
        fm_grow(&texts, &b->texts_cap, need, sizeof(*b->texts), s->a, "a safetensors file's tensor names", err);
    b->texts = texts;
    FM_TRY(other);
    b->texts[s->n_tensors] = e->texts;
    s->tensors[s->n_tensors++] = e->t;
    return FM_OK;
}

/* `data` is the first byte after the header, `room` the bytes from there to the file's end. */
typedef struct section {
    const unsigned char *data;
    size_t room;
    const char *path;
} section;

static fm_status read_tensor(st_builder *b, fm_json *j, fm_view key, const section *at, uint32_t part, fm_error *err)
{
    entry e = {.t.part = part, .texts.type_name = ST_NO_TEXT};
    if (!fm_st_add_text(&b->text, key, &e.texts.name)) {
        fm_json_fail(j, "a tensor's name is empty or contains a zero byte");
        return FM_OK;
    }
    read_entry(b, j, &e);
    if (j->error != NULL) return FM_OK; /* fm_json_finish says it */
    FM_TRY(fm_str_ok(&b->text, "tensor names", err));
    if (e.t.type_name == NULL && e.texts.type_name == ST_NO_TEXT) e.t.type_name = "";
    FM_TRY(check_entry(at->path, b->text.p + e.texts.name, &e, at->room, err));
    e.t.data = at->data + e.begin;
    return add_entry(b, &e, err);
}

/* The metadata is an object of strings; kept from the first file only. */
static fm_status read_metadata(st_builder *b, fm_json *j, uint32_t part, fm_error *err)
{
    fm_view raw, key;
    if (!fm_json_raw(j, &raw)) return FM_OK;
    fm_json m = fm_json_begin(raw.p, raw.n, "__metadata__");
    if (fm_json_enter_object(&m))
        while (fm_json_key(&m, &key)) {
            fm_view value;
            fm_json_string(&m, &value);
        }
    if (m.error != NULL) {
        fm_json_fail(j, "__metadata__ is not an object of strings");
        return FM_OK;
    }
    if (part != 0 || b->s->metadata != NULL) return FM_OK;
    b->s->metadata = fm_strdup(b->s->a, raw.p, raw.n, err);
    return b->s->metadata == NULL ? FM_ERR_MEMORY : FM_OK;
}

static int cmp_data(const void *ctx, size_t i, size_t j)
{
    const fm_st_tensor *t = ctx;
    if (t[i].data != t[j].data) return t[i].data < t[j].data ? -1 : 1;
    if (t[i].bytes != t[j].bytes) return t[i].bytes < t[j].bytes ? -1 : 1;
    return i < j ? -1 : i > j;
}

static fm_status make_order(size_t **out, size_t n, fm_order_cmp cmp, const fm_st_tensor *first, const fm_allocator *a,
                            fm_error *err)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, a, n, sizeof(**out), "a safetensors file's index", err));
    *out = p;
    for (size_t i = 0; i < n; i++) (*out)[i] = i;
    fm_order_sort(*out, n, cmp, first);
    return FM_OK;
}

/* The tensors from `first` on must fill the section without gap and overlap, as the official library asks. */
static fm_status check_filled(const st_builder *b, size_t first, const section *at, fm_error *err)
{
    const size_t n = b->s->n_tensors - first;
    const fm_st_tensor *tensors = n ? b->s->tensors + first : NULL; /* of none there may be no list */
    size_t *order = NULL;
    FM_TRY(make_order(&order, n, cmp_data, tensors, b->s->a, err));
    const unsigned char *expected = at->data;
    fm_status status = FM_OK;
    for (size_t i = 0; i < n && status == FM_OK; i++) {
        const fm_st_tensor *t = &tensors[order[i]];
        const char *name = b->text.p + b->texts[first + order[i]].name;
        if (t->data != expected)
            status = fm_fail(err, FM_ERR_FORMAT,
                             "%s: tensor '%s' begins %zu bytes after the header, expected %zu: tensors %s, the "
                             "file is damaged",
                             at->path, fm_quote_of(fm_view_of(name)).text, (size_t)(t->data - at->data),
                             (size_t)(expected - at->data), t->data < expected ? "overlap" : "leave a gap");
        expected = t->data + t->bytes;
    }
    fm_free(b->s->a, order);
    if (status == FM_OK && expected != at->data + at->room)
        status = fm_fail(err, FM_ERR_FORMAT,
                         "%s: %zu bytes follow the last tensor, expected none: the file is damaged, download "
                         "it again",
                         at->path, at->room - (size_t)(expected - at->data));
    return status;
}

static fm_status read_header(st_builder *b, fm_view header, const section *at, uint32_t part, fm_error *err)
{
    const size_t first = b->s->n_tensors;
    fm_json j = fm_json_begin(header.p, header.n, at->path);
    fm_view key;
    bool metadata_seen = false;
    if (fm_json_enter_object(&j))
        while (fm_json_key(&j, &key)) {
            if (!fm_view_is(key, "__metadata__"))
                FM_TRY(read_tensor(b, &j, key, at, part, err));
            else if (metadata_seen)
                fm_json_fail(&j, "__metadata__ is there twice");
            else
                FM_TRY(read_metadata(b, &j, part, err));
            metadata_seen = metadata_seen || fm_view_is(key, "__metadata__");
        }
    FM_TRY(fm_str_ok(&b->text, "tensor names", err));
    FM_TRY(fm_json_finish(&j, err));
    return check_filled(b, first, at, err);
}

fm_status fm_st_read_part(st_builder *b, uint32_t part, fm_map_mode mode, fm_error *err)
{
    fm_st *s = b->s;
    const char *path = s->paths[part];
    fm_map *m = &s->maps[part];
    FM_TRY(fm_map_open(m, path, mode, err));
    if (m->n == 0) return fm_fail(err, FM_ERR_FORMAT, "%s: the file is empty: download it again", path);
    const uint64_t n = m->n >= 8 ? fm_load_u64(m->p) : 0;
    const bool plausible = n > 0 && n <= ST_HEADER_MAX && m->n >= 9 && m->p[8] == '{';
    if (!plausible) {
        const char *what = fm_sniff(m->p, m->n);
        if (what != NULL) return fm_fail(err, FM_ERR_FORMAT, "%s: expected a safetensors file, found %s", path, what);
    }
    if (m->n < 8)
        return fm_fail(err, FM_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file: it is cut off, download it again",
                       path, m->n);
    if (n > ST_HEADER_MAX || n < 2)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: not a safetensors file: it would begin with a header of %llu bytes (2 to %u are "
                       "possible)",
                       path, (unsigned long long)n, ST_HEADER_MAX);
    if (n > m->n - 8)
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: its header has %llu bytes, but only %zu are there: the file is cut off or not a "
                       "safetensors file, download it again",
                       path, (unsigned long long)n, m->n - 8);
    if (m->p[8] != '{')
        return fm_fail(err, FM_ERR_FORMAT, "%s: not a safetensors file: its header does not begin with '{'", path);
    const section at = {m->p + 8 + n, m->n - 8 - (size_t)n, path};
    return read_header(b, (fm_view){(const char *)m->p + 8, (size_t)n}, &at, part, err);
}

static int cmp_names(const void *ctx, size_t i, size_t j)
{
    const fm_st_tensor *t = ctx;
    const int c = strcmp(t[i].name, t[j].name);
    return c != 0 ? c : i < j ? -1 : i > j;
}

fm_status fm_st_finish(st_builder *b, fm_error *err)
{
    fm_st *s = b->s;
    for (size_t i = 0; i < s->n_tensors; i++) {
        s->tensors[i].name = b->text.p + b->texts[i].name;
        if (b->texts[i].type_name != ST_NO_TEXT) s->tensors[i].type_name = b->text.p + b->texts[i].type_name;
    }
    size_t *order = NULL;
    void *sorted = NULL;
    FM_TRY(make_order(&order, s->n_tensors, cmp_names, s->tensors, s->a, err));
    const fm_status status =
        fm_alloc(&sorted, s->a, s->n_tensors, sizeof(*s->tensors), "a safetensors file's tensor list", err);
    if (status == FM_OK) {
        for (size_t i = 0; i < s->n_tensors; i++) ((fm_st_tensor *)sorted)[i] = s->tensors[order[i]];
        fm_free(s->a, s->tensors);
        s->tensors = sorted;
        s->names = b->text.p;
        b->text = (fm_str){.a = s->a};
    }
    fm_free(s->a, order);
    FM_TRY(status);
    for (size_t i = 1; i < s->n_tensors; i++)
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0)
            return fm_fail(err, FM_ERR_FORMAT, "%s: tensor '%s' is there twice: the file is damaged",
                           s->paths[s->tensors[i].part], fm_quote_of(fm_view_of(s->tensors[i].name)).text);
    return FM_OK;
}

void fm_st_builder_free(st_builder *b)
{
    fm_str_free(&b->text);
    fm_free(b->s->a, b->texts);
}

fm_status fm_st_make_parts(fm_st *s, size_t n, fm_error *err)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, s->a, n, sizeof(*s->paths), "a safetensors file's path", err));
    s->paths = p;
    FM_TRY(fm_alloc(&p, s->a, n, sizeof(*s->maps), "a safetensors file's mapping", err));
    s->maps = p;
    s->n_maps = n;
    return FM_OK;
}

static fm_status open_single(st_builder *b, const char *path, fm_map_mode mode, fm_error *err)
{
    FM_TRY(fm_st_make_parts(b->s, 1, err));
    b->s->paths[0] = fm_strdup(b->s->a, path, strlen(path), err);
    if (b->s->paths[0] == NULL) return FM_ERR_MEMORY;
    FM_TRY(fm_st_read_part(b, 0, mode, err));
    return fm_st_finish(b, err);
}

fm_status fm_st_open(fm_st *s, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err)
{
    *s = (fm_st){.a = a};
    st_builder b = {.s = s, .text = {.a = a}};
    const bool is_index = fm_view_ends(fm_view_of(path), ".index.json");
    const fm_status status = is_index ? fm_st_read_index(&b, path, mode, err) : open_single(&b, path, mode, err);
    fm_st_builder_free(&b);
    if (status != FM_OK) fm_st_close(s);
    return status;
}

void fm_st_close(fm_st *s)
{
    for (size_t i = 0; i < s->n_maps; i++) {
        fm_map_close(&s->maps[i]);
        fm_free(s->a, s->paths[i]);
    }
    fm_free(s->a, s->maps);
    fm_free(s->a, s->paths);
    fm_free(s->a, s->tensors);
    fm_free(s->a, s->metadata);
    fm_free(s->a, s->names);
    *s = (fm_st){.a = NULL};
}

const fm_st_tensor *fm_st_find(const fm_st *s, const char *name)
{
    for (size_t low = 0, high = s->n_tensors; low < high;) {
        const size_t mid = low + (high - low) / 2;
        const int c = strcmp(name, s->tensors[mid].name);
        if (c == 0) return &s->tensors[mid];
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

fm_status fm_st_as_tensor(fm_tensor *out, const fm_st *s, const fm_st_tensor *t, fm_error *err)
{
    fm_dtype type = FM_F32;
    if (t->type == FM_ST_F16)
        type = FM_F16;
    else if (t->type == FM_ST_BF16)
        type = FM_BF16;
    else if (t->type != FM_ST_F32)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: tensor '%s' has type %s, expected F32, F16 or BF16: get the model in one of "
                       "these, not quantised",
                       s->paths[t->part], fm_quote_of(fm_view_of(t->name)).text, fm_quote_of(fm_view_of(t->type_name)).text);
    if (t->bytes == 0)
        return fm_fail(err, FM_ERR_UNSUPPORTED, "%s: tensor '%s' is empty", s->paths[t->part],
                       fm_quote_of(fm_view_of(t->name)).text);
    const size_t cols = t->n_dims == 0 ? 1 : (size_t)t->dims[t->n_dims - 1], stride = cols * fm_dtype_get(type)->bytes;
    *out = (fm_tensor){t->data, type, (size_t)t->bytes / stride, cols, stride};
    return FM_OK;
}
