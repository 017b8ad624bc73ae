/* safetensors_write.c - writing one safetensors file: the header from what was announced, then the data without gaps. */
#include "base/json.h"
#include "format/safetensors_internal.h"

fm_status fm_st_create(fm_st_writer *w, const char *path, const fm_allocator *a, fm_error *err)
{
    *w = (fm_st_writer){.header = {.a = a}};
    FM_TRY(fm_out_open(&w->out, path, a, err));
    fm_str_puts(&w->header, "{\"__metadata__\":{\"format\":\"pt\"}");
    return FM_OK;
}

fm_status fm_st_put_tensor(fm_st_writer *w, const char *name, fm_st_type type, const uint64_t *dims, unsigned n_dims,
                           fm_error *err)
{
    unsigned bits = 0;
    const char *type_name = fm_st_type_text(type, &bits);
    uint64_t bytes = bits / 8, end = 0;
    bool fits = true;
    if (name[0] == '\0' || n_dims > FM_ST_DIMS_MAX)
        return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' has %u dimensions, a safetensors file takes names and at most %u", name,
                       n_dims, FM_ST_DIMS_MAX);
    for (unsigned d = 0; d < n_dims; d++) fits = fits && fm_mul_u64(bytes, dims[d], &bytes);
    if (!fits || !fm_add_u64(w->offset, bytes, &end) || end > (uint64_t)INT64_MAX)
        return fm_fail(err, FM_ERR_SHAPE, "tensor '%s' is too large for a safetensors file", name);
    fm_str_putc(&w->header, ',');
    fm_jsonw j = {.out = &w->header};
    fm_jsonw_cstr(&j, name);
    fm_str_printf(&w->header, ":{\"dtype\":\"%s\",\"shape\":[", type_name);
    for (unsigned d = 0; d < n_dims; d++) fm_str_printf(&w->header, "%s%llu", d > 0 ? "," : "", (unsigned long long)dims[d]);
    fm_str_printf(&w->header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->offset, (unsigned long long)end);
    w->offset = end;
    w->n_tensors++;
    return FM_OK;
}

fm_status fm_st_begin_data(fm_st_writer *w, fm_error *err)
{
    FM_ASSERT(w->out.n == 0);
    fm_str_putc(&w->header, '}');
    while (!w->header.failed && w->header.n % 8 != 0) fm_str_putc(&w->header, ' ');
    FM_TRY(fm_str_ok(&w->header, "a safetensors header", err));
    if (w->header.n > ST_HEADER_MAX)
        return fm_fail(err, FM_ERR_LIMIT, "%s: the header would have %zu bytes, readers take at most %u: write fewer tensors",
                       w->out.path, w->header.n, ST_HEADER_MAX);
    const uint64_t n = w->header.n;
    FM_TRY(fm_out_write(&w->out, &n, sizeof(n), err));
    FM_TRY(fm_out_write(&w->out, w->header.p, w->header.n, err));
    w->data_begin = w->out.n;
    return FM_OK;
}

fm_status fm_st_write(fm_st_writer *w, const void *p, size_t n, fm_error *err)
{
    FM_ASSERT(w->data_begin > 0);
    return fm_out_write(&w->out, p, n, err);
}

fm_status fm_st_commit(fm_st_writer *w, fm_error *err)
{
    fm_str_free(&w->header);
    const uint64_t found = w->out.n - w->data_begin;
    if (w->data_begin > 0 && found == w->offset) return fm_out_commit(&w->out, err);
    const fm_status status = fm_fail(err, FM_ERR_ARGUMENT, "%s: tensors of %llu bytes were announced, but %llu were written",
                                     w->out.path, (unsigned long long)w->offset, (unsigned long long)found);
    fm_out_abort(&w->out);
    return status;
}

void fm_st_abort(fm_st_writer *w)
{
    fm_str_free(&w->header);
    fm_out_abort(&w->out);
}
