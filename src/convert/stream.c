/* stream.c - the bytes of the tensors: rows are decoded, checked and encoded by all threads into a chunk, which is then
 * written. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "convert/internal.h"

#define CHUNK_BYTES ((size_t)16 << 20)
#define F16_MAX     65520.0f /* from here on f16 rounds to infinity */

fm_status fm_flow_open(fm_job *j, fm_error *err)
{
    size_t row_max;
    const size_t blocks = fm_round_up(j->cols_max ? j->cols_max : 1, 256);
    if (!fm_mul(blocks, sizeof(float), &row_max)) return fm_fail(err, FM_ERR_LIMIT, "%s: its rows are too long", j->name);
    j->chunk_bytes = row_max > CHUNK_BYTES ? row_max : CHUNK_BYTES;
    FM_TRY(fm_pool_open(&j->pool, j->o->threads, j->a, err));
    FM_TRY(fm_alloc((void **)&j->chunk, j->a, j->chunk_bytes, 1, "the output buffer", err));
    size_t n;
    if (!fm_mul(fm_pool_threads(j->pool), blocks, &n)) return fm_fail(err, FM_ERR_LIMIT, "%s: its rows are too long", j->name);
    return fm_alloc((void **)&j->rows, j->a, n, sizeof(float), "rows", err);
}

static size_t row_bytes(fm_dtype type, size_t cols)
{
    return cols / fm_dtype_get(type)->block * fm_dtype_get(type)->bytes;
}

/* Rows first .. first + n of an item, for all threads. */
typedef struct rows_job {
    const fm_job *j;
    const fm_item *it;
    size_t first, n;
    size_t stream; /* of random numbers */
    _Atomic size_t bad; /* lowest row with a value that cannot be written; SIZE_MAX: none */
} rows_job;

static bool writable(const float *row, size_t n, fm_dtype type)
{
    const float limit = type == FM_F16 ? F16_MAX : INFINITY;
    bool good = true;
    for (size_t i = 0; i < n; i++) good &= fabsf(row[i]) < limit;
    return good;
}

static void report(rows_job *r, size_t row)
{
    size_t seen = atomic_load(&r->bad);
    while (row < seen && !atomic_compare_exchange_weak(&r->bad, &seen, row)) continue;
}

static void do_rows(void *ctx, unsigned part, unsigned n_parts)
{
    rows_job *r = ctx;
    const fm_item *it = r->it;
    const size_t bytes = row_bytes(it->type, it->cols), begin = r->n * part / n_parts, end = r->n * (part + 1) / n_parts;
    float *row = r->j->rows + part * fm_round_up(r->j->cols_max, 256);
    for (size_t i = begin; i < end; i++) {
        unsigned char *dst = r->j->chunk + i * bytes;
        if (!it->src.data) {
            fm_random_row(it->type, dst, it->cols, r->j->seed, r->stream, (r->first + i) * it->cols);
            continue;
        }
        const void *src = fm_tensor_row(&it->src, r->first + i);
        fm_dtype_get(it->src.type)->decode(row, src, it->cols);
        if (!writable(row, it->cols, it->type)) {
            report(r, r->first + i);
            return;
        }
        if (it->type == it->src.type) memcpy(dst, src, bytes);
        else fm_dtype_get(it->type)->encode(dst, row, it->importance, it->cols);
    }
}

/* The sentence about a row that has a value that is none, or too large for the type. */
static fm_status fail_row(const fm_job *j, const fm_item *it, const float *row, size_t r, fm_error *err)
{
    fm_str name = {.a = j->a};
    fm_model_weight_name(&it->w, j->m->source.kind, &name);
    FM_TRY(fm_str_ok(&name, "a tensor name", err));
    fm_status status = FM_OK;
    for (size_t i = 0; i < it->cols && status == FM_OK; i++) {
        if (!isfinite(row[i]))
            status = fm_fail(err, FM_ERR_FORMAT,
                             "%s: tensor %s holds NaN or infinity in row %zu: the file is damaged, get it again",
                             j->m->source.path, name.p, r);
        else if (it->type == FM_F16 && fabsf(row[i]) >= F16_MAX)
            status = fm_fail(err, FM_ERR_LIMIT, "%s: tensor %s holds %g in row %zu, more than F16 can: choose bf16 or f32",
                             j->m->source.path, name.p, (double)row[i], r);
    }
    fm_str_free(&name);
    return status;
}

static fm_status progress(fm_job *j, size_t bytes, fm_error *err)
{
    j->bytes_done += bytes;
    if (!j->o->progress || j->o->progress(j->o->ctx, (double)j->bytes_done / (double)j->result.tensor_bytes)) return FM_OK;
    return fm_fail(err, FM_ERR_CANCELLED, "%s: cancelled, nothing was written", j->name);
}

static fm_status stream_matrix(fm_job *j, const fm_item *it, fm_sink sink, fm_error *err)
{
    const size_t bytes = row_bytes(it->type, it->cols), rows_max = j->chunk_bytes / bytes;
    for (size_t first = 0; first < it->rows; first += rows_max) {
        const size_t n = it->rows - first < rows_max ? it->rows - first : rows_max;
        rows_job r = {.j = j, .it = it, .first = first, .n = n, .stream = (size_t)(it - j->items), .bad = SIZE_MAX};
        fm_pool_run(j->pool, do_rows, &r);
        const size_t bad = atomic_load(&r.bad);
        if (bad != SIZE_MAX) {
            fm_dtype_get(it->src.type)->decode(j->rows, fm_tensor_row(&it->src, bad), it->cols);
            return fail_row(j, it, j->rows, bad, err);
        }
        FM_TRY(sink.write(sink.ctx, j->chunk, n * bytes, err));
        FM_TRY(progress(j, n * bytes, err));
    }
    return FM_OK;
}

/* v (rows, cols), encoded row by row. */
static fm_status write_small(fm_job *j, const fm_item *it, float *v, fm_sink sink, fm_error *err)
{
    const size_t bytes = row_bytes(it->type, it->cols);
    for (size_t r = 0; r < it->rows; r++) {
        float *row = v + r * it->cols;
        if (!writable(row, it->cols, it->type)) return fail_row(j, it, row, r, err);
        fm_dtype_get(it->type)->encode(j->rows, row, NULL, it->cols);
        FM_TRY(sink.write(sink.ctx, j->rows, bytes, err));
    }
    return progress(j, bytes * it->rows, err);
}

fm_status fm_flow_item(fm_job *j, const fm_item *it, fm_sink sink, fm_error *err)
{
    float *v;
    if (it->w.def->kind == FM_WEIGHT_MATRIX) return stream_matrix(j, it, sink, err);
    FM_TRY(fm_alloc((void **)&v, j->a, it->rows * it->cols, sizeof *v, "a tensor", err));
    fm_status status = fm_small_read(v, j, it, err);
    if (status == FM_OK) status = write_small(j, it, v, sink, err);
    fm_free(j->a, v);
    return status;
}
