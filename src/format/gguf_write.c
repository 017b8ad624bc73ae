/* gguf_write.c - writing GGUF version 3 files in the strict form that every reader takes: tensors in the order of the header,
 * without gaps, each padded to the alignment.  Spec falcon-mamba.md 4.1. */
#include "format/internal.h"

#define ALIGNMENT 32u

static void put_u32(fm_str *s, uint32_t v)
{
    char bytes[sizeof(v)];
    memcpy(bytes, &v, sizeof(v));
    fm_str_put(s, bytes, sizeof(bytes));
}

static void put_u64(fm_str *s, uint64_t v)
{
    char bytes[sizeof(v)];
    memcpy(bytes, &v, sizeof(v));
    fm_str_put(s, bytes, sizeof(bytes));
}

static void put_text(fm_str *s, fm_view v)
{
    put_u64(s, v.n);
    fm_str_put(s, v.p, v.n);
}

static void begin_key(fm_gguf_writer *w, fm_view key, fm_gguf_kv_type type)
{
    FM_ASSERT(key.n > 0 && key.n <= FM_GGUF_KEY_MAX && memchr(key.p, 0, key.n) == NULL);
    put_text(&w->kv, key);
    put_u32(&w->kv, type);
    w->n_kv++;
}

/* Key, element type and count; the elements follow. */
static void begin_array(fm_gguf_writer *w, const char *key, fm_gguf_kv_type element, size_t n)
{
    begin_key(w, fm_view_of(key), FM_GGUF_ARRAY);
    put_u32(&w->kv, element);
    put_u64(&w->kv, n);
}

fm_status fm_gguf_create(fm_gguf_writer *w, const char *path, const fm_allocator *a, fm_error *err)
{
    *w = (fm_gguf_writer){.kv = {.a = a}, .infos = {.a = a}, .sizes = {.a = a}, .alignment = ALIGNMENT};
    return fm_out_open(&w->out, path, a, err);
}

void fm_gguf_put_u32(fm_gguf_writer *w, const char *key, uint32_t v)
{
    begin_key(w, fm_view_of(key), FM_GGUF_U32);
    put_u32(&w->kv, v);
}

void fm_gguf_put_u64(fm_gguf_writer *w, const char *key, uint64_t v)
{
    begin_key(w, fm_view_of(key), FM_GGUF_U64);
    put_u64(&w->kv, v);
}

void fm_gguf_put_f32(fm_gguf_writer *w, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    begin_key(w, fm_view_of(key), FM_GGUF_F32);
    put_u32(&w->kv, bits);
}

void fm_gguf_put_bool(fm_gguf_writer *w, const char *key, bool v)
{
    begin_key(w, fm_view_of(key), FM_GGUF_BOOL);
    fm_str_putc(&w->kv, v ? 1 : 0);
}

void fm_gguf_put_string(fm_gguf_writer *w, const char *key, fm_view v)
{
    begin_key(w, fm_view_of(key), FM_GGUF_STRING);
    put_text(&w->kv, v);
}

void fm_gguf_put_strings(fm_gguf_writer *w, const char *key, const fm_view *v, size_t n)
{
    begin_array(w, key, FM_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) put_text(&w->kv, v[i]);
}

void fm_gguf_put_i32s(fm_gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    begin_array(w, key, FM_GGUF_I32, n);
    fm_str_put(&w->kv, (const char *)v, n * sizeof(*v));
}

void fm_gguf_put_f32s(fm_gguf_writer *w, const char *key, const float *v, size_t n)
{
    begin_array(w, key, FM_GGUF_F32, n);
    fm_str_put(&w->kv, (const char *)v, n * sizeof(*v));
}

void fm_gguf_put_copy(fm_gguf_writer *w, const fm_gguf_kv *kv)
{
    /* Ours is not the source's alignment, and our header must not say so. */
    if (fm_view_is(kv->key, "general.alignment")) return;
    begin_key(w, kv->key, kv->type);
    if (kv->type == FM_GGUF_ARRAY) {
        put_u32(&w->kv, kv->element);
        put_u64(&w->kv, kv->count);
    }
    fm_str_put(&w->kv, (const char *)kv->data, (size_t)(kv->end - kv->data));
}

/* Bytes of a tensor of this shape, which is refused where a reader would refuse it. */
static fm_status check_shape(const char *name, fm_dtype type, const uint64_t *dims, unsigned n_dims, uint64_t *bytes,
                             fm_error *err)
{
    const fm_dtype_traits *traits = fm_dtype_get(type);
    uint64_t blocks = 1;
    if (n_dims == 0 || n_dims > 4)
        return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' has %u dimensions, a GGUF file takes 1 to 4", name, n_dims);
    for (unsigned d = 0; d < n_dims; d++) {
        const uint64_t n = d == 0 ? dims[0] / traits->block : dims[d];
        if (dims[d] == 0 || !fm_mul_u64(blocks, n, &blocks))
            return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' has dimension %u of size %llu: empty or too large for a GGUF file",
                           name, d, (unsigned long long)dims[d]);
    }
    if (dims[0] % traits->block != 0)
        return fm_fail(err, FM_ERR_SHAPE,
                       "tensor '%s' has rows of %llu elements, type %s needs a multiple of %zu: choose another "
                       "type for it",
                       name, (unsigned long long)dims[0], traits->name, traits->block);
    if (!fm_mul_u64(blocks, traits->bytes, bytes) || *bytes > (uint64_t)INT64_MAX)
        return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' is too large for a GGUF file", name);
    return FM_OK;
}

fm_status fm_gguf_put_tensor(fm_gguf_writer *w, const char *name, fm_dtype type, const uint64_t *dims, unsigned n_dims,
                             fm_error *err)
{
    const size_t n = strlen(name);
    uint64_t bytes = 0, padded = 0, end = 0;
    if (n == 0 || n > FM_GGUF_NAME_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "tensor name '%s' has %zu bytes, a GGUF file takes 1 to %u", name, n,
                       FM_GGUF_NAME_MAX);
    FM_TRY(check_shape(name, type, dims, n_dims, &bytes, err));
    padded = (bytes + w->alignment - 1) / w->alignment * w->alignment;
    if (!fm_add_u64(w->offset, padded, &end) || end > (uint64_t)INT64_MAX)
        return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' makes the file too large for a GGUF file", name);
    put_text(&w->infos, (fm_view){name, n});
    put_u32(&w->infos, n_dims);
    for (unsigned d = 0; d < n_dims; d++) put_u64(&w->infos, dims[d]);
    put_u32(&w->infos, fm_dtype_get(type)->gguf);
    put_u64(&w->infos, w->offset);
    put_u64(&w->sizes, bytes);
    w->offset = end;
    w->n_tensors++;
    return FM_OK;
}

fm_status fm_gguf_begin_data(fm_gguf_writer *w, fm_error *err)
{
    unsigned char head[24] = {'G', 'G', 'U', 'F', 3};
    FM_ASSERT(w->out.n == 0);
    FM_TRY(fm_str_ok(&w->kv, "a GGUF file's keys", err));
    FM_TRY(fm_str_ok(&w->infos, "a GGUF file's tensor list", err));
    FM_TRY(fm_str_ok(&w->sizes, "a GGUF file's tensor sizes", err));
    memcpy(head + 8, &w->n_tensors, 8);
    memcpy(head + 16, &w->n_kv, 8);
    FM_TRY(fm_out_write(&w->out, head, sizeof(head), err));
    if (w->n_kv > 0) FM_TRY(fm_out_write(&w->out, w->kv.p, w->kv.n, err));
    if (w->n_tensors > 0) FM_TRY(fm_out_write(&w->out, w->infos.p, w->infos.n, err));
    FM_TRY(fm_out_pad(&w->out, w->alignment, err));
    w->tensor_begin = w->out.n;
    return FM_OK;
}

fm_status fm_gguf_write(fm_gguf_writer *w, const void *p, size_t n, fm_error *err)
{
    FM_ASSERT(w->tensor_begin > 0);
    return fm_out_write(&w->out, p, n, err);
}

fm_status fm_gguf_end_tensor(fm_gguf_writer *w, fm_error *err)
{
    FM_ASSERT(w->tensor_begin > 0 && w->n_ended < w->n_tensors);
    uint64_t expected;
    memcpy(&expected, w->sizes.p + 8 * w->n_ended, sizeof(expected));
    const uint64_t found = w->out.n - w->tensor_begin;
    if (found != expected)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s: tensor %llu was announced with %llu bytes, but %llu were written",
                       w->out.path, (unsigned long long)w->n_ended, (unsigned long long)expected, (unsigned long long)found);
    FM_TRY(fm_out_pad(&w->out, w->alignment, err));
    w->tensor_begin = w->out.n;
    w->n_ended++;
    return FM_OK;
}

static void free_texts(fm_gguf_writer *w)
{
    fm_str_free(&w->kv);
    fm_str_free(&w->infos);
    fm_str_free(&w->sizes);
}

fm_status fm_gguf_commit(fm_gguf_writer *w, fm_error *err)
{
    free_texts(w);
    if (w->tensor_begin > 0 && w->n_ended == w->n_tensors && w->out.n == w->tensor_begin) return fm_out_commit(&w->out, err);
    const fm_status status = fm_fail(err, FM_ERR_ARGUMENT, "%s: %llu of the %llu announced tensors were written", w->out.path,
                                     (unsigned long long)w->n_ended, (unsigned long long)w->n_tensors);
    fm_out_abort(&w->out);
    return status;
}

void fm_gguf_abort(fm_gguf_writer *w)
{
    free_texts(w);
    fm_out_abort(&w->out);
}
