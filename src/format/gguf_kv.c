/* gguf_kv.c - reading the metadata values of an open GGUF file, and showing them as JSON. */
#include <inttypes.h>

#include "base/json.h"
#include "format/internal.h"

static const char *type_name(fm_gguf_kv_type type)
{
    static const char *const names[] = {
        "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
    };
    return names[type];
}

const fm_gguf_kv *fm_gguf_find(const fm_gguf *g, const char *key)
{
    const fm_view wanted = fm_view_of(key);
    for (size_t low = 0, high = g->n_kv; low < high;) {
        const size_t mid = low + (high - low) / 2;
        const fm_gguf_kv *kv = &g->kv[g->kv_order[mid]];
        const int c = fm_view_cmp(wanted, kv->key);
        if (c == 0) return kv;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* A number of any type: exactly one of the three is right. */
typedef struct number {
    enum { UNSIGNED, NEGATIVE, REAL } kind;
    uint64_t u;
    int64_t i;
    double f;
} number;

static number of_signed(int64_t v)
{
    if (v >= 0) return (number){.kind = UNSIGNED, .u = (uint64_t)v};
    return (number){.kind = NEGATIVE, .i = v};
}

static float load_f32(const unsigned char *p)
{
    float f;
    memcpy(&f, p, sizeof(f));
    return f;
}

static double load_f64(const unsigned char *p)
{
    double f;
    memcpy(&f, p, sizeof(f));
    return f;
}

static number load_number(fm_gguf_kv_type type, const unsigned char *p)
{
    switch (type) {
    case FM_GGUF_U8: return (number){.kind = UNSIGNED, .u = *p};
    case FM_GGUF_I8: return of_signed((int8_t)*p);
    case FM_GGUF_U16: return (number){.kind = UNSIGNED, .u = fm_load_u16(p)};
    case FM_GGUF_I16: return of_signed((int16_t)fm_load_u16(p));
    case FM_GGUF_U32: return (number){.kind = UNSIGNED, .u = fm_load_u32(p)};
    case FM_GGUF_I32: return of_signed((int32_t)fm_load_u32(p));
    case FM_GGUF_U64: return (number){.kind = UNSIGNED, .u = fm_load_u64(p)};
    case FM_GGUF_I64: return of_signed((int64_t)fm_load_u64(p));
    case FM_GGUF_BOOL: return (number){.kind = UNSIGNED, .u = *p != 0};
    case FM_GGUF_F32: return (number){.kind = REAL, .f = (double)load_f32(p)};
    case FM_GGUF_F64: return (number){.kind = REAL, .f = load_f64(p)};
    case FM_GGUF_STRING:
    case FM_GGUF_ARRAY: break;
    }
    FM_ASSERT(!"a number was asked of a string or an array");
    return (number){.kind = UNSIGNED};
}

static bool is_number(fm_gguf_kv_type type)
{
    return type != FM_GGUF_STRING && type != FM_GGUF_ARRAY && type != FM_GGUF_BOOL;
}

static fm_status fail_type(const fm_gguf *g, const fm_gguf_kv *kv, const char *expected, fm_error *err)
{
    return fm_fail(err, FM_ERR_FORMAT, "%s: key '%s' is of type %s, expected %s: the file is damaged or not for this program",
                   g->paths[0], fm_quote_of(kv->key).text, type_name(kv->type), expected);
}

/* The value of a key, or NULL and *found = false. */
static const fm_gguf_kv *look(const fm_gguf *g, const char *key, bool *found)
{
    const fm_gguf_kv *kv = fm_gguf_find(g, key);
    if (found != NULL) *found = kv != NULL;
    return kv;
}

fm_status fm_gguf_get_u64(const fm_gguf *g, const char *key, uint64_t *out, bool *found, fm_error *err)
{
    const fm_gguf_kv *kv = look(g, key, found);
    if (kv == NULL) return FM_OK;
    if (!is_number(kv->type)) return fail_type(g, kv, "an unsigned integer", err);
    const number v = load_number(kv->type, kv->data);
    if (v.kind == REAL) return fail_type(g, kv, "an unsigned integer", err);
    if (v.kind == NEGATIVE)
        return fm_fail(err, FM_ERR_FORMAT, "%s: key '%s' is %" PRId64 ", expected no negative number: the file is damaged",
                       g->paths[0], key, v.i);
    *out = v.u;
    return FM_OK;
}

fm_status fm_gguf_get_f64(const fm_gguf *g, const char *key, double *out, bool *found, fm_error *err)
{
    const fm_gguf_kv *kv = look(g, key, found);
    if (kv == NULL) return FM_OK;
    if (!is_number(kv->type)) return fail_type(g, kv, "a number", err);
    const number v = load_number(kv->type, kv->data);
    *out = v.kind == REAL ? v.f : v.kind == NEGATIVE ? (double)v.i : (double)v.u;
    return FM_OK;
}

fm_status fm_gguf_get_bool(const fm_gguf *g, const char *key, bool *out, bool *found, fm_error *err)
{
    const fm_gguf_kv *kv = look(g, key, found);
    if (kv == NULL) return FM_OK;
    if (kv->type != FM_GGUF_BOOL) return fail_type(g, kv, "a boolean", err);
    *out = *kv->data != 0;
    return FM_OK;
}

fm_status fm_gguf_get_string(const fm_gguf *g, const char *key, fm_view *out, bool *found, fm_error *err)
{
    const fm_gguf_kv *kv = look(g, key, found);
    if (kv == NULL) return FM_OK;
    if (kv->type != FM_GGUF_STRING) return fail_type(g, kv, "a string", err);
    *out = (fm_view){(const char *)kv->data + 8, (size_t)(kv->end - kv->data) - 8};
    return FM_OK;
}

bool fm_gguf_string_next(const fm_gguf_kv *array, const unsigned char **cursor, fm_view *out)
{
    if (array->type != FM_GGUF_ARRAY || array->element != FM_GGUF_STRING) return false;
    if (*cursor == NULL) *cursor = array->data;
    if (*cursor == array->end) return false;
    const size_t n = (size_t)fm_load_u64(*cursor);
    *out = (fm_view){(const char *)*cursor + 8, n};
    *cursor += 8 + n;
    return true;
}

static number element(const fm_gguf_kv *array, uint64_t i)
{
    FM_ASSERT(array->type == FM_GGUF_ARRAY && i < array->count);
    return load_number(array->element, array->data + i * fm_gguf_scalar_bytes(array->element));
}

int64_t fm_gguf_array_i64(const fm_gguf_kv *array, uint64_t i)
{
    const number v = element(array, i);
    if (v.kind == NEGATIVE) return v.i;
    if (v.kind == UNSIGNED) return v.u > (uint64_t)INT64_MAX ? INT64_MAX : (int64_t)v.u;
    if (v.f >= 0x1p63) return INT64_MAX;
    if (v.f <= -0x1p63) return INT64_MIN;
    return v.f == v.f ? (int64_t)v.f : 0;
}

double fm_gguf_array_f64(const fm_gguf_kv *array, uint64_t i)
{
    const number v = element(array, i);
    return v.kind == REAL ? v.f : v.kind == NEGATIVE ? (double)v.i : (double)v.u;
}

static void json_scalar(fm_jsonw *w, fm_gguf_kv_type type, const unsigned char *p)
{
    if (type == FM_GGUF_BOOL) {
        fm_jsonw_bool(w, *p != 0);
    } else if (type == FM_GGUF_F32) {
        fm_jsonw_f32(w, load_f32(p));
    } else {
        const number v = load_number(type, p);
        if (v.kind == REAL)
            fm_jsonw_f64(w, v.f);
        else if (v.kind == NEGATIVE)
            fm_jsonw_i64(w, v.i);
        else
            fm_jsonw_u64(w, v.u);
    }
}

static const unsigned char *json_array(fm_jsonw *w, fm_gguf_kv_type type, uint64_t count, const unsigned char *p, size_t max);

/* One value of `type` at p, shown unless w is NULL; returns where the next one lies.  Opening has checked all lengths. */
static const unsigned char *json_value(fm_jsonw *w, fm_gguf_kv_type type, const unsigned char *p, size_t max)
{
    if (type == FM_GGUF_ARRAY) {
        const fm_gguf_kv_type inner = (fm_gguf_kv_type)fm_load_u32(p);
        return json_array(w, inner, fm_load_u64(p + 4), p + 12, max);
    }
    if (type == FM_GGUF_STRING) {
        const size_t n = (size_t)fm_load_u64(p);
        if (w != NULL) fm_jsonw_string(w, (fm_view){(const char *)p + 8, n});
        return p + 8 + n;
    }
    if (w != NULL) json_scalar(w, type, p);
    return p + fm_gguf_scalar_bytes(type);
}

static const unsigned char *json_array(fm_jsonw *w, fm_gguf_kv_type type, uint64_t count, const unsigned char *p, size_t max)
{
    const bool cut = count > max;
    if (w != NULL && cut) {
        fm_jsonw_object(w);
        fm_jsonw_key(w, "count");
        fm_jsonw_u64(w, count);
        fm_jsonw_key(w, "first");
    }
    if (w != NULL) fm_jsonw_array(w);
    const size_t size = fm_gguf_scalar_bytes(type);
    uint64_t i = 0;
    for (; i < count && i < max; i++) p = json_value(w, type, p, max);
    if (size > 0)
        p += (count - i) * size;
    else
        for (; i < count; i++) p = json_value(NULL, type, p, max);
    if (w != NULL) fm_jsonw_end(w, ']');
    if (w != NULL && cut) fm_jsonw_end(w, '}');
    return p;
}

void fm_gguf_kv_json(fm_str *out, const fm_gguf_kv *kv, size_t max)
{
    fm_jsonw w = {.out = out};
    if (kv->type == FM_GGUF_ARRAY)
        json_array(&w, kv->element, kv->count, kv->data, max);
    else
        json_value(&w, kv->type, kv->data, max);
}
