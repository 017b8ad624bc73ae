/* gguf_read.c - opening one GGUF file: header, keys, tensor list, and every check that needs no tensor data.
 * Values are read in gguf_kv.c, split files joined in gguf_split.c.  Spec falcon-mamba.md 4.1. */
#include "format/internal.h"

#define GGUF_VERSION      3u
#define DEFAULT_ALIGNMENT 32u
#define KV_BYTES_MIN      14u /* key length, one byte of key, type, the smallest value */
#define TENSOR_BYTES_MIN  25u /* name length, one byte of name, n_dims, type, offset */

/* Where reading stands. */
typedef struct cursor {
    const unsigned char *begin, *p, *end;
    const char *path;
    fm_error *err;
} cursor;

static size_t left(const cursor *c)
{
    return (size_t)(c->end - c->p);
}

static fm_status fail_cut(const cursor *c, uint64_t n, const char *what)
{
    return fm_fail(c->err, FM_ERR_FORMAT,
                   "%s: %s at byte %zu needs %llu bytes, but the file ends %zu bytes later: it is cut off or damaged, "
                   "download it again",
                   c->path, what, (size_t)(c->p - c->begin), (unsigned long long)n, left(c));
}

static fm_status need(const cursor *c, uint64_t n, const char *what)
{
    return n <= left(c) ? FM_OK : fail_cut(c, n, what);
}

static fm_status take_u32(cursor *c, uint32_t *out, const char *what)
{
    FM_TRY(need(c, 4, what));
    *out = fm_load_u32(c->p);
    c->p += 4;
    return FM_OK;
}

static fm_status take_u64(cursor *c, uint64_t *out, const char *what)
{
    FM_TRY(need(c, 8, what));
    *out = fm_load_u64(c->p);
    c->p += 8;
    return FM_OK;
}

/* A string that names something: not empty, at most `max` bytes, no zero bytes. */
static fm_status take_name(cursor *c, fm_view *out, size_t max, const char *what)
{
    uint64_t n = 0;
    FM_TRY(take_u64(c, &n, what));
    if (n == 0 || n > max)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: %s at byte %zu is %llu bytes long, expected 1 to %zu: the file is damaged, or "
                       "was written by a program with other limits",
                       c->path, what, (size_t)(c->p - c->begin) - 8, (unsigned long long)n, max);
    FM_TRY(need(c, n, what));
    *out = (fm_view){(const char *)c->p, (size_t)n};
    if (memchr(c->p, 0, (size_t)n) != NULL)
        return fm_fail(c->err, FM_ERR_FORMAT, "%s: %s '%s' contains a zero byte: the file is damaged", c->path, what,
                       fm_quote_of(*out).text);
    c->p += n;
    return FM_OK;
}

size_t fm_gguf_scalar_bytes(fm_gguf_kv_type type)
{
    switch (type) {
    case FM_GGUF_U8:
    case FM_GGUF_I8:
    case FM_GGUF_BOOL: return 1;
    case FM_GGUF_U16:
    case FM_GGUF_I16: return 2;
    case FM_GGUF_U32:
    case FM_GGUF_I32:
    case FM_GGUF_F32: return 4;
    case FM_GGUF_U64:
    case FM_GGUF_I64:
    case FM_GGUF_F64: return 8;
    case FM_GGUF_STRING:
    case FM_GGUF_ARRAY: break;
    }
    return 0;
}

static fm_status take_type(cursor *c, fm_gguf_kv_type *out, fm_view key)
{
    uint32_t type = 0;
    FM_TRY(take_u32(c, &type, "the type of a value"));
    if (type > FM_GGUF_F64)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: key '%s' has value type %u, expected 0 to 12: the file is damaged or newer than "
                       "this program",
                       c->path, fm_quote_of(key).text, type);
    *out = (fm_gguf_kv_type)type;
    return FM_OK;
}

static fm_status skip_string(cursor *c)
{
    uint64_t n = 0;
    FM_TRY(take_u64(c, &n, "the length of a string"));
    FM_TRY(need(c, n, "a string"));
    c->p += n;
    return FM_OK;
}

static fm_status skip_elements(cursor *c, const fm_gguf_kv *array, unsigned depth);

/* Element type and count of an array into *array, whose key is set; its elements are passed over. */
static fm_status skip_array(cursor *c, fm_gguf_kv *array, unsigned depth)
{
    if (depth > FM_GGUF_DEPTH_MAX)
        return fm_fail(c->err, FM_ERR_UNSUPPORTED, "%s: key '%s' has arrays nested more than %u deep", c->path,
                       fm_quote_of(array->key).text, FM_GGUF_DEPTH_MAX);
    FM_TRY(take_type(c, &array->element, array->key));
    FM_TRY(take_u64(c, &array->count, "the length of an array"));
    array->data = c->p;
    return skip_elements(c, array, depth);
}

/* Every element takes bytes of the file, so the work is bounded by its size whatever the counts say. */
static fm_status skip_elements(cursor *c, const fm_gguf_kv *array, unsigned depth)
{
    const size_t size = fm_gguf_scalar_bytes(array->element);
    if (size > 0) {
        if (array->count > left(c) / size) {
            uint64_t bytes = UINT64_MAX;
            if (!fm_mul_u64(array->count, size, &bytes)) bytes = UINT64_MAX;
            return fail_cut(c, bytes, "an array");
        }
        c->p += array->count * size;
        return FM_OK;
    }
    for (uint64_t i = 0; i < array->count; i++) {
        fm_gguf_kv inner = {.key = array->key};
        FM_TRY(array->element == FM_GGUF_STRING ? skip_string(c) : skip_array(c, &inner, depth + 1));
    }
    return FM_OK;
}

static fm_status take_kv(cursor *c, fm_gguf_kv *kv)
{
    FM_TRY(take_name(c, &kv->key, FM_GGUF_KEY_MAX, "a key"));
    FM_TRY(take_type(c, &kv->type, kv->key));
    kv->data = c->p;
    if (kv->type == FM_GGUF_STRING) {
        FM_TRY(skip_string(c));
    } else if (kv->type == FM_GGUF_ARRAY) {
        FM_TRY(skip_array(c, kv, 1));
    } else {
        const size_t size = fm_gguf_scalar_bytes(kv->type);
        FM_TRY(need(c, size, "a value"));
        c->p += size;
        if (kv->type == FM_GGUF_BOOL && *kv->data > 1)
            return fm_fail(c->err, FM_ERR_FORMAT, "%s: key '%s' is a boolean of value %u, expected 0 or 1: the file is damaged",
                           c->path, fm_quote_of(kv->key).text, *kv->data);
    }
    kv->end = c->p;
    return FM_OK;
}

static int cmp_keys(const void *ctx, size_t i, size_t j)
{
    const fm_gguf_kv *kv = ctx;
    return fm_view_cmp(kv[i].key, kv[j].key);
}

static int cmp_names(const void *ctx, size_t i, size_t j)
{
    const fm_gguf_tensor *t = ctx;
    return fm_view_cmp(t[i].name, t[j].name);
}

/* Indices 0..n-1 sorted by cmp. */
static fm_status make_order(size_t **out, size_t n, fm_order_cmp cmp, const void *items, const fm_gguf *g, fm_error *err)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, g->a, n, sizeof(**out), "a GGUF file's index", err));
    *out = p;
    for (size_t i = 0; i < n; i++) (*out)[i] = i;
    fm_order_sort(*out, n, cmp, items);
    return FM_OK;
}

static fm_status take_keys(cursor *c, fm_gguf *g, uint64_t n)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, g->a, (size_t)n, sizeof(*g->kv), "a GGUF file's keys", c->err));
    g->kv = p;
    for (; g->n_kv < n; g->n_kv++) FM_TRY(take_kv(c, &g->kv[g->n_kv]));
    FM_TRY(make_order(&g->kv_order, g->n_kv, cmp_keys, g->kv, g, c->err));
    for (size_t i = 1; i < g->n_kv; i++) {
        const fm_view key = g->kv[g->kv_order[i]].key;
        if (fm_view_eq(key, g->kv[g->kv_order[i - 1]].key))
            return fm_fail(c->err, FM_ERR_FORMAT, "%s: key '%s' is there twice: the file is damaged", c->path,
                           fm_quote_of(key).text);
    }
    return FM_OK;
}

static fm_status read_alignment(fm_gguf *g, fm_error *err)
{
    g->alignment = DEFAULT_ALIGNMENT;
    FM_TRY(fm_gguf_get_u64(g, "general.alignment", &g->alignment, NULL, err));
    const uint64_t v = g->alignment;
    if (v < 8 || v > UINT32_MAX || (v & (v - 1)) != 0)
        return fm_fail(err, FM_ERR_FORMAT, "%s: general.alignment is %llu, expected a power of two of at least 8", g->paths[0],
                       (unsigned long long)v);
    return FM_OK;
}

/* Types that this program cannot compute with but that files hold: their sizes are facts of the format, and knowing them lets
 * the checks and the totals include such tensors. */
static bool foreign_type(uint32_t gguf, uint64_t *block, uint64_t *bytes)
{
    static const struct {
        uint8_t gguf;
        uint16_t block, bytes;
    } known[] = {
        {16, 256, 66}, {17, 256, 74}, {18, 256, 98}, {19, 256, 50}, {21, 256, 110}, {22, 256, 82}, {24, 1, 1},   {25, 1, 2},
        {26, 1, 4},    {27, 1, 8},    {28, 1, 8},    {29, 256, 56}, {34, 256, 54},  {35, 256, 66}, {39, 32, 17},
    };
    for (size_t i = 0; i < FM_COUNT(known); i++) {
        if (known[i].gguf != gguf) continue;
        *block = known[i].block;
        *bytes = known[i].bytes;
        return true;
    }
    return false;
}

static bool type_size(uint32_t gguf, uint64_t *block, uint64_t *bytes)
{
    fm_dtype type;
    if (!fm_dtype_from_gguf(gguf, &type)) return foreign_type(gguf, block, bytes);
    const fm_dtype_traits *traits = fm_dtype_get(type);
    *block = traits->block;
    *bytes = traits->bytes;
    return true;
}

/* Sets t->bytes; 0 for a type of unknown size. */
static fm_status size_tensor(const cursor *c, fm_gguf_tensor *t, bool *known)
{
    uint64_t elements = 1, block = 1, bytes = 0;
    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (t->dims[d] == 0 || !fm_mul_u64(elements, t->dims[d], &elements))
            return fm_fail(c->err, FM_ERR_FORMAT,
                           "%s: tensor '%s' has dimension %llu of size %llu, which makes %s: the file is "
                           "damaged",
                           c->path, fm_quote_of(t->name).text, (unsigned long long)d, (unsigned long long)t->dims[d],
                           t->dims[d] == 0 ? "it empty" : "more elements than can be counted");
    }
    *known = type_size(t->gguf_type, &block, &bytes);
    if (!*known) return FM_OK;
    if (t->dims[0] % block != 0)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: tensor '%s' has rows of %llu elements, expected a multiple of %llu for its type "
                       "%s: the file is damaged",
                       c->path, fm_quote_of(t->name).text, (unsigned long long)t->dims[0], (unsigned long long)block,
                       fm_gguf_type_name(t->gguf_type));
    if (!fm_mul_u64(elements / block, bytes, &t->bytes) || t->bytes > SIZE_MAX / 2)
        return fm_fail(c->err, FM_ERR_FORMAT, "%s: tensor '%s' has more bytes than can be counted: the file is damaged",
                       c->path, fm_quote_of(t->name).text);
    return FM_OK;
}

/* The tensor's place within the data section goes to *offset; its pointer is set when the section's begin is known. */
static fm_status take_tensor(cursor *c, const fm_gguf *g, fm_gguf_tensor *t, uint64_t *offset)
{
    FM_TRY(take_name(c, &t->name, FM_GGUF_NAME_MAX, "a tensor name"));
    FM_TRY(take_u32(c, &t->n_dims, "a tensor's number of dimensions"));
    if (t->n_dims > FM_COUNT(t->dims))
        return fm_fail(c->err, FM_ERR_FORMAT, "%s: tensor '%s' has %u dimensions, at most 4 are possible: the file is damaged",
                       c->path, fm_quote_of(t->name).text, t->n_dims);
    for (uint32_t d = 0; d < FM_COUNT(t->dims); d++) {
        t->dims[d] = 1;
        if (d < t->n_dims) FM_TRY(take_u64(c, &t->dims[d], "a tensor's dimensions"));
    }
    FM_TRY(take_u32(c, &t->gguf_type, "a tensor's type"));
    FM_TRY(take_u64(c, offset, "a tensor's offset"));
    if (*offset % g->alignment != 0)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: tensor '%s' lies at offset %llu, expected a multiple of the alignment %llu: the "
                       "file is damaged",
                       c->path, fm_quote_of(t->name).text, (unsigned long long)*offset, (unsigned long long)g->alignment);
    return FM_OK;
}

typedef struct place {
    uint64_t begin, end;
} place;

static int cmp_places(const void *ctx, size_t i, size_t j)
{
    const place *p = ctx;
    if (p[i].begin != p[j].begin) return p[i].begin < p[j].begin ? -1 : 1;
    if (p[i].end != p[j].end) return p[i].end < p[j].end ? -1 : 1;
    return i < j ? -1 : i > j;
}

static fm_status check_overlaps(const cursor *c, const fm_gguf *g, const place *places)
{
    size_t *order = NULL;
    FM_TRY(make_order(&order, g->n_tensors, cmp_places, places, g, c->err));
    fm_status status = FM_OK;
    for (size_t i = 1; i < g->n_tensors && status == FM_OK; i++) {
        const size_t before = order[i - 1], after = order[i];
        if (places[after].begin < places[before].end)
            status = fm_fail(c->err, FM_ERR_FORMAT, "%s: tensors '%s' and '%s' overlap: the file is damaged", c->path,
                             fm_quote_of(g->tensors[before].name).text, fm_quote_of(g->tensors[after].name).text);
    }
    fm_free(g->a, order);
    return status;
}

/* places[] hold offsets within the data section, which begins at the next multiple of the alignment. */
static fm_status place_tensors(const cursor *c, fm_gguf *g, const place *places)
{
    const uint64_t size = (uint64_t)(c->end - c->begin), header = (uint64_t)(c->p - c->begin);
    const uint64_t data = (header + g->alignment - 1) / g->alignment * g->alignment;
    for (size_t i = 0; i < g->n_tensors; i++) {
        fm_gguf_tensor *t = &g->tensors[i];
        uint64_t end = UINT64_MAX;
        if (!fm_add_u64(data, places[i].end, &end)) end = UINT64_MAX;
        if (end > size)
            return fm_fail(c->err, FM_ERR_FORMAT,
                           "%s: tensor '%s' ends at byte %llu, but the file has %llu bytes: it is cut off "
                           "or damaged, download it again",
                           c->path, fm_quote_of(t->name).text, (unsigned long long)end, (unsigned long long)size);
        if (t->bytes > 0) t->data = c->begin + data + places[i].begin;
    }
    return FM_OK;
}

static fm_status take_tensor_list(cursor *c, fm_gguf *g, uint64_t n, place *places)
{
    for (; g->n_tensors < n; g->n_tensors++) {
        fm_gguf_tensor *t = &g->tensors[g->n_tensors];
        place *at = &places[g->n_tensors];
        bool known = false;
        FM_TRY(take_tensor(c, g, t, &at->begin));
        FM_TRY(size_tensor(c, t, &known));
        if (!fm_add_u64(at->begin, t->bytes, &at->end)) at->end = UINT64_MAX;
    }
    FM_TRY(place_tensors(c, g, places));
    FM_TRY(check_overlaps(c, g, places));
    return fm_gguf_order_tensors(g, c->err);
}

static fm_status take_tensors(cursor *c, fm_gguf *g, uint64_t n)
{
    void *p = NULL, *places = NULL;
    FM_TRY(fm_alloc(&p, g->a, (size_t)n, sizeof(*g->tensors), "a GGUF file's tensor list", c->err));
    g->tensors = p;
    FM_TRY(fm_alloc(&places, g->a, (size_t)n, sizeof(place), "a GGUF file's tensor places", c->err));
    const fm_status status = take_tensor_list(c, g, n, places);
    fm_free(g->a, places);
    return status;
}

fm_status fm_gguf_order_tensors(fm_gguf *g, fm_error *err)
{
    fm_free(g->a, g->tensor_order);
    g->tensor_order = NULL;
    FM_TRY(make_order(&g->tensor_order, g->n_tensors, cmp_names, g->tensors, g, err));
    for (size_t i = 1; i < g->n_tensors; i++) {
        const fm_gguf_tensor *x = &g->tensors[g->tensor_order[i - 1]], *y = &g->tensors[g->tensor_order[i]];
        if (fm_view_eq(x->name, y->name))
            return fm_fail(err, FM_ERR_FORMAT, "%s: tensor '%s' is there twice: the file is damaged", g->paths[y->part],
                           fm_quote_of(y->name).text);
    }
    return FM_OK;
}

static fm_status check_magic(cursor *c)
{
    if (left(c) == 0) return fm_fail(c->err, FM_ERR_FORMAT, "%s: the file is empty: download it again", c->path);
    if (left(c) >= 4 && memcmp(c->p, "GGUF", 4) == 0) {
        c->p += 4;
        return FM_OK;
    }
    const char *what = fm_sniff(c->p, left(c));
    if (what != NULL) return fm_fail(c->err, FM_ERR_FORMAT, "%s: expected a GGUF file, found %s", c->path, what);
    return fm_fail(c->err, FM_ERR_FORMAT, "%s: not a GGUF file: it does not begin with 'GGUF'", c->path);
}

static fm_status check_version(cursor *c)
{
    uint32_t version = 0;
    FM_TRY(take_u32(c, &version, "the version"));
    if (version == GGUF_VERSION || version == 2) return FM_OK; /* of little-endian files these are the same */
    if (version != 0 && (version & 0xFFFFu) == 0)
        return fm_fail(c->err, FM_ERR_FORMAT, "%s: a big-endian GGUF file (version %u): get or convert a little-endian one",
                       c->path, __builtin_bswap32(version));
    if (version == 1)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: GGUF version 1, expected 2 or 3: convert the original model again with a current converter",
                       c->path);
    return fm_fail(c->err, FM_ERR_UNSUPPORTED,
                   "%s: GGUF version %u, this program reads versions 2 and 3: it is newer than the program or damaged", c->path,
                   version);
}

static fm_status read_file(cursor *c, fm_gguf *g)
{
    uint64_t n_tensors = 0, n_kv = 0;
    FM_TRY(check_magic(c));
    FM_TRY(check_version(c));
    FM_TRY(take_u64(c, &n_tensors, "the number of tensors"));
    FM_TRY(take_u64(c, &n_kv, "the number of keys"));
    if (n_kv > left(c) / KV_BYTES_MIN || n_tensors > left(c) / TENSOR_BYTES_MIN)
        return fm_fail(c->err, FM_ERR_FORMAT,
                       "%s: its header announces %llu keys and %llu tensors, which cannot fit in a file of "
                       "%zu bytes: it is cut off or damaged, download it again",
                       c->path, (unsigned long long)n_kv, (unsigned long long)n_tensors, (size_t)(c->end - c->begin));
    FM_TRY(take_keys(c, g, n_kv));
    FM_TRY(read_alignment(g, c->err));
    return take_tensors(c, g, n_tensors);
}

static fm_status open_file(fm_gguf *g, const char *path, fm_map_mode mode, fm_error *err)
{
    void *p = NULL;
    FM_TRY(fm_alloc(&p, g->a, 1, sizeof(*g->paths), "a GGUF file's path", err));
    g->paths = p;
    g->paths[0] = fm_strdup(g->a, path, strlen(path), err);
    if (g->paths[0] == NULL) return FM_ERR_MEMORY;
    FM_TRY(fm_alloc(&p, g->a, 1, sizeof(*g->maps), "a GGUF file's mapping", err));
    g->maps = p;
    g->n_maps = 1;
    FM_TRY(fm_map_open(&g->maps[0], path, mode, err));
    const unsigned char *begin = g->maps[0].p;
    cursor c = {begin, begin, begin == NULL ? NULL : begin + g->maps[0].n, path, err};
    return read_file(&c, g);
}

fm_status fm_gguf_open_one(fm_gguf *g, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err)
{
    *g = (fm_gguf){.a = a};
    const fm_status status = open_file(g, path, mode, err);
    if (status != FM_OK) fm_gguf_close(g);
    return status;
}

fm_status fm_gguf_open(fm_gguf *g, const char *path, fm_map_mode mode, const fm_allocator *a, fm_error *err)
{
    FM_TRY(fm_gguf_open_one(g, path, mode, a, err));
    const fm_status status = fm_gguf_join(g, mode, err);
    if (status != FM_OK) fm_gguf_close(g);
    return status;
}

void fm_gguf_close(fm_gguf *g)
{
    for (size_t i = 0; i < g->n_maps; i++) fm_map_close(&g->maps[i]);
    /* A path may be there before its map: an open that failed in between leaves n_maps 0. */
    for (size_t i = 0; g->paths != NULL && i < (g->n_maps > 0 ? g->n_maps : 1); i++) fm_free(g->a, g->paths[i]);
    fm_free(g->a, g->maps);
    fm_free(g->a, g->paths);
    fm_free(g->a, g->kv);
    fm_free(g->a, g->tensors);
    fm_free(g->a, g->kv_order);
    fm_free(g->a, g->tensor_order);
    *g = (fm_gguf){.a = NULL};
}

const fm_gguf_tensor *fm_gguf_find_tensor(const fm_gguf *g, const char *name)
{
    const fm_view wanted = fm_view_of(name);
    for (size_t low = 0, high = g->n_tensors; low < high;) {
        const size_t mid = low + (high - low) / 2;
        const fm_gguf_tensor *t = &g->tensors[g->tensor_order[mid]];
        const int c = fm_view_cmp(wanted, t->name);
        if (c == 0) return t;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

fm_status fm_gguf_as_tensor(fm_tensor *out, const fm_gguf *g, const fm_gguf_tensor *t, fm_error *err)
{
    fm_dtype type;
    const char *path = g->paths[t->part], *type_name = fm_gguf_type_name(t->gguf_type);
    if (!fm_dtype_from_gguf(t->gguf_type, &type) || t->data == NULL)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s: tensor '%s' has type %s (number %u), which this program cannot compute with: "
                       "use a file in another quantisation, such as Q8_0 or Q4_K",
                       path, fm_quote_of(t->name).text, type_name == NULL ? "unknown" : type_name, t->gguf_type);
    const fm_dtype_traits *traits = fm_dtype_get(type);
    const size_t rows = (size_t)(t->dims[1] * t->dims[2] * t->dims[3]), cols = (size_t)t->dims[0];
    *out = (fm_tensor){t->data, type, rows, cols, cols / traits->block * traits->bytes};
    return FM_OK;
}
