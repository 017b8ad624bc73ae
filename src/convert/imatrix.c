/* imatrix.c - importance of a matrix's columns, as llama.cpp's imatrix tool writes it: a GGUF with, per matrix, the sum of the
 * squares of its inputs ("<name>.in_sum2") and how many there were ("<name>.counts"), both F32.  The importance is their
 * mean. */
#include <math.h>
#include <string.h>

#include "convert/internal.h"

static fm_status open_file(fm_imatrix *im, const char *path, fm_error *err)
{
    fm_map map;
    FM_TRY(fm_map_open(&map, path, FM_MAP_SHARED, err));
    const bool gguf = map.n >= 4 && memcmp(map.p, "GGUF", 4) == 0;
    fm_map_close(&map);
    if (!gguf)
        return fm_fail(err, FM_ERR_UNSUPPORTED,
                       "%s is not a GGUF file: the older .dat form of importance files is not read; make "
                       "it again with a current llama-imatrix, or convert it: llama-imatrix --in-file %s -o imatrix.gguf",
                       path, path);
    FM_TRY(fm_gguf_open(&im->gguf, path, FM_MAP_SHARED, im->a, err));
    fm_view type = {0};
    FM_TRY(fm_gguf_get_string(&im->gguf, "general.type", &type, NULL, err));
    if (fm_view_is(type, "imatrix") || fm_gguf_find(&im->gguf, "imatrix.chunk_count")) return FM_OK;
    return fm_fail(err, FM_ERR_FORMAT,
                   "%s: general.type is \"%.*s\", expected \"imatrix\": give a file that llama-imatrix wrote",
                   path, (int)(type.n < 40 ? type.n : 40), type.p ? type.p : "");
}

static const fm_gguf_tensor *find(const fm_imatrix *im, fm_str *name, size_t n, const char *suffix)
{
    name->n = n;
    fm_str_puts(name, suffix);
    return name->failed ? NULL : fm_gguf_find_tensor(&im->gguf, name->p);
}

static bool is_f32(const fm_gguf_tensor *t, uint64_t n)
{
    return t && t->gguf_type == fm_dtype_get(FM_F32)->gguf && t->bytes == n * sizeof(float);
}

/* dst (cols) = mean of the squares; all ones when nothing was counted. */
static bool read_means(float *dst, const fm_gguf_tensor *sums, const fm_gguf_tensor *counts, size_t cols)
{
    float count;
    memcpy(&count, counts->data, sizeof count);
    count = roundf(count);
    memcpy(dst, sums->data, cols * sizeof *dst);
    for (size_t i = 0; i < cols; i++) {
        dst[i] = count > 0 ? dst[i] / count : 1.0f;
        if (!isfinite(dst[i])) return false;
    }
    return true;
}

static fm_status read_item(fm_imatrix *im, const fm_job *j, fm_item *it, float *dst, fm_str *name, fm_error *err)
{
    fm_model_weight_name(&it->w, FM_SOURCE_GGUF, name);
    const size_t n = name->n;
    const fm_gguf_tensor *counts = find(im, name, n, ".counts"), *sums = find(im, name, n, ".in_sum2");
    FM_TRY(fm_str_ok(name, "a tensor name", err));
    if (!sums && !counts) return FM_OK;
    if (!is_f32(counts, 1) || !is_f32(sums, it->cols))
        return fm_fail(err, FM_ERR_SHAPE,
                       "%s: %s has not the %zu F32 sums and one count of a matrix of this model (%s): it was "
                       "made for another one", im->gguf.paths[0], name->p, it->cols, j->name);
    if (!read_means(dst, sums, counts, it->cols))
        return fm_fail(err, FM_ERR_FORMAT, "%s: %s holds NaN or infinity: make it again", im->gguf.paths[0], name->p);
    it->importance = dst;
    return FM_OK;
}

static fm_status read_items(fm_imatrix *im, fm_job *j, fm_error *err)
{
    size_t total = 0, used = 0, n_found = 0;
    fm_str name = {.a = j->a};
    fm_status status = FM_OK;
    for (size_t i = 0; i < j->n; i++)
        if (j->items[i].w.def->kind == FM_WEIGHT_MATRIX) total += j->items[i].cols;
    FM_TRY(fm_alloc((void **)&im->means, im->a, total, sizeof *im->means, "the importance", err));
    for (size_t i = 0; i < j->n && status == FM_OK; i++) {
        fm_item *it = &j->items[i];
        if (it->w.def->kind != FM_WEIGHT_MATRIX) continue;
        status = read_item(im, j, it, im->means + used, &name, err);
        used += it->cols;
        n_found += it->importance != NULL;
    }
    fm_str_free(&name);
    if (status != FM_OK || n_found) return status;
    return fm_fail(err, FM_ERR_SHAPE, "%s: it has nothing about any matrix of %s: it was made for another model",
                   im->gguf.paths[0], j->name);
}

fm_status fm_imatrix_open(fm_imatrix *im, fm_job *j, const char *path, fm_error *err)
{
    *im = (fm_imatrix){.a = j->a};
    fm_status status = open_file(im, path, err);
    if (status == FM_OK) status = read_items(im, j, err);
    if (status != FM_OK) fm_imatrix_close(im);
    return status;
}

void fm_imatrix_close(fm_imatrix *im)
{
    fm_gguf_close(&im->gguf);
    fm_free(im->a, im->means);
    *im = (fm_imatrix){0};
}
