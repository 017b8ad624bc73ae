/* tensors.c - see tensors.h. */
#include "train/tensors.h"

#include <string.h>

typedef struct place {
    size_t rows, cols;  /* in the file */
    size_t down, right; /* in memory: floats from a row to the next, from a column to the next */
} place;

static place place_of(const fm_model *m, const fm_weight_def *def)
{
    const size_t rows = fm_dim_of(&m->config, def->rows), cols = fm_dim_of(&m->config, def->cols);
    if (def->kind == FM_WEIGHT_SMALL_T) return (place){rows, cols, 1, rows};
    return (place){rows, cols, cols, 1};
}

static fm_status name_of(fm_str *out, const fm_tensor_set *set, const fm_model_weight *w, fm_error *err)
{
    fm_str plain = {.a = out->a};
    fm_model_weight_name(w, FM_SOURCE_HF, &plain);
    fm_str_reset(out);
    fm_str_puts(out, set->prefix);
    if (plain.p) fm_str_put(out, plain.p, plain.n);
    out->failed |= plain.failed;
    fm_str_free(&plain);
    return fm_str_ok(out, "a tensor name", err);
}

/* ---- Values on a device ---- */

static size_t floats_of(place p)
{
    return p.rows * p.cols;
}

/* `there` where the host can reach it: itself, or a copy of its own. */
static fm_status lend(const fm_tensor_file *f, void **host, void *there, size_t bytes, fm_error *err)
{
    fm_device *device = f->m->device;
    *host = there;
    if (!device) return FM_OK;
    FM_TRY(fm_alloc(host, f->a, bytes, 1, "a tensor", err));
    fm_device_download(device, *host, there, bytes);
    const fm_status status = fm_device_wait(device, err);
    if (status != FM_OK) fm_free(f->a, *host);
    return status;
}

static fm_status give_back(const fm_tensor_file *f, float *host, float *values, place p, fm_error *err)
{
    fm_device *device = f->m->device;
    if (!device) return FM_OK;
    fm_device_upload(device, values, host, floats_of(p) * sizeof(float));
    const fm_status status = fm_device_wait(device, err);
    fm_free(f->a, host);
    return status;
}

/* ---- Writing ---- */

static const uint16_t *halves_of(const fm_tensor_set *set, size_t i)
{
    return set->halves ? set->halves[i] : NULL;
}

static fm_dtype type_of(const fm_tensor_file *f, const fm_tensor_set *set, size_t i)
{
    return halves_of(set, i) ? FM_BF16 : f->type;
}

static fm_status announce(fm_st_writer *w, const fm_tensor_file *f, const fm_tensor_set *set, size_t i, fm_str *name,
                          fm_error *err)
{
    const fm_model_weight weight = fm_model_weight_at(f->m, i);
    uint64_t dims[3];
    const unsigned n = fm_weight_dims(dims, weight.def, &f->m->config);
    FM_TRY(name_of(name, set, &weight, err));
    return fm_st_put_tensor(w, name->p, type_of(f, set, i) == FM_BF16 ? FM_ST_BF16 : FM_ST_F32, dims, n, err);
}

/* Row r of a tensor as it is to be in the file. */
static void gather(float *row, const void *values, bool halves, place p, size_t r)
{
    for (size_t c = 0; c < p.cols; c++) {
        const size_t at = r * p.down + c * p.right;
        row[c] = halves ? fm_bf16_to_f32(((const uint16_t *)values)[at]) : ((const float *)values)[at];
    }
}

static fm_status write_rows(fm_st_writer *w, const void *values, bool halves, const fm_dtype_traits *type, place p, float *row,
                            fm_error *err)
{
    void *encoded = row + p.cols;
    for (size_t r = 0; r < p.rows; r++) {
        gather(row, values, halves, p, r);
        type->encode(encoded, row, NULL, p.cols);
        FM_TRY(fm_st_write(w, encoded, p.cols * type->bytes, err));
    }
    return FM_OK;
}

/* Of a set's halves where they are, else of its values. */
static fm_status write_tensor(fm_st_writer *w, const fm_tensor_file *f, const fm_tensor_set *set, size_t i, fm_error *err)
{
    const place p = place_of(f->m, fm_model_weight_at(f->m, i).def);
    const bool halves = halves_of(set, i) != NULL;
    void *there = halves ? (void *)(uintptr_t)halves_of(set, i) : set->values[i], *values;
    float *row;
    FM_TRY(lend(f, &values, there, floats_of(p) * (halves ? sizeof(uint16_t) : sizeof(float)), err));
    fm_status status = fm_alloc((void **)&row, f->a, p.cols, 2 * sizeof *row, "a row", err);
    if (status == FM_OK) {
        status = write_rows(w, values, halves, fm_dtype_get(type_of(f, set, i)), p, row, err);
        fm_free(f->a, row);
    }
    if (f->m->device) fm_free(f->a, values);
    return status;
}

static fm_status fill(fm_st_writer *w, const fm_tensor_file *f, fm_str *name, fm_error *err)
{
    const size_t n = fm_model_weight_count(f->m);
    if (f->loss) FM_TRY(fm_st_put_tensor(w, "loss", FM_ST_F32, (const uint64_t[]){1}, 1, err));
    for (size_t s = 0; s < f->n_sets; s++)
        for (size_t i = 0; i < n; i++)
            if (f->sets[s].values[i]) FM_TRY(announce(w, f, &f->sets[s], i, name, err));
    FM_TRY(fm_st_begin_data(w, err));
    if (f->loss) FM_TRY(fm_st_write(w, f->loss, sizeof *f->loss, err));
    for (size_t s = 0; s < f->n_sets; s++)
        for (size_t i = 0; i < n; i++)
            if (f->sets[s].values[i]) FM_TRY(write_tensor(w, f, &f->sets[s], i, err));
    return fm_st_commit(w, err);
}

fm_status fm_tensors_write(const fm_tensor_file *f, const char *path, fm_error *err)
{
    fm_st_writer w;
    fm_str name = {.a = f->a};
    FM_TRY(fm_st_create(&w, path, f->a, err));
    const fm_status status = fill(&w, f, &name, err);
    fm_st_abort(&w);
    fm_str_free(&name);
    return status;
}

/* ---- Reading ---- */

static fm_status read_tensor(const fm_tensor_file *f, const fm_st *st, const char *name, float *values, place p, fm_error *err)
{
    const fm_st_tensor *found = fm_st_find(st, name);
    fm_tensor t;
    float *row;
    if (!found)
        return fm_fail(err, FM_ERR_FORMAT, "%s: tensor %s is missing: the checkpoint is incomplete", st->paths[0], name);
    FM_TRY(fm_st_as_tensor(&t, st, found, err));
    if (t.rows * t.cols != p.rows * p.cols)
        return fm_fail(err, FM_ERR_SHAPE, "%s: tensor %s has %zu values, expected %zu x %zu: it is of another model",
                       st->paths[0], name, t.rows * t.cols, p.rows, p.cols);
    t.rows = p.rows, t.cols = p.cols, t.stride = p.cols * fm_dtype_get(t.type)->bytes;
    FM_TRY(fm_alloc((void **)&row, f->a, p.cols, sizeof *row, "a row", err));
    for (size_t r = 0; r < p.rows; r++) {
        fm_dtype_get(t.type)->decode(row, fm_tensor_row(&t, r), p.cols);
        for (size_t c = 0; c < p.cols; c++) values[r * p.down + c * p.right] = row[c];
    }
    fm_free(f->a, row);
    return FM_OK;
}

static fm_status read_values(const fm_tensor_file *f, const fm_st *st, const char *name, float *values, place p, fm_error *err)
{
    void *host;
    FM_TRY(lend(f, &host, values, floats_of(p) * sizeof *values, err));
    const fm_status status = read_tensor(f, st, name, host, p, err), given = give_back(f, host, values, p, err);
    return status == FM_OK ? given : status;
}

static fm_status read_sets(const fm_tensor_file *f, const fm_st *st, fm_str *name, fm_error *err)
{
    const size_t n = fm_model_weight_count(f->m);
    for (size_t s = 0; s < f->n_sets; s++)
        for (size_t i = 0; i < n; i++) {
            const fm_model_weight w = fm_model_weight_at(f->m, i);
            if (!f->sets[s].values[i]) continue;
            FM_TRY(name_of(name, &f->sets[s], &w, err));
            FM_TRY(read_values(f, st, name->p, f->sets[s].values[i], place_of(f->m, w.def), err));
        }
    return FM_OK;
}

fm_status fm_tensors_read(const fm_tensor_file *f, const char *path, fm_error *err)
{
    fm_st st;
    fm_str name = {.a = f->a};
    FM_TRY(fm_st_open(&st, path, FM_MAP_SHARED, f->a, err));
    const fm_status status = read_sets(f, &st, &name, err);
    fm_st_close(&st);
    fm_str_free(&name);
    return status;
}
