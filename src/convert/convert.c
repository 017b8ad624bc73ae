/* convert.c - fm_convert() and fm_quantize(): open the source, plan, write. */
#include <string.h>

#include "convert/internal.h"

fm_source_kind fm_kind_of_path(const char *path)
{
    return fm_view_ends(fm_view_of(path), ".gguf") ? FM_SOURCE_GGUF : FM_SOURCE_HF;
}

fm_status fm_write_model(fm_job *j, const char *path, fm_error *err)
{
    FM_TRY(fm_plan_finish(j, err));
    FM_TRY(fm_flow_open(j, err));
    return j->to == FM_SOURCE_GGUF ? fm_write_gguf(j, path, err) : fm_write_hf(j, path, err);
}

/* "source" and NULL leave *given false. */
static fm_status parse_float(const char *text, fm_dtype *type, bool *given, fm_error *err)
{
    *given = text && strcmp(text, "source") != 0;
    if (!*given) return FM_OK;
    if (!fm_dtype_from_name(fm_view_of(text), type))
        return fm_fail(err, FM_ERR_ARGUMENT, "\"%s\" is not a type: expected source, f32, f16 or bf16", text);
    if (fm_dtype_get(*type)->is_float) return FM_OK;
    return fm_fail(err, FM_ERR_ARGUMENT, "converting gives source, f32, f16 or bf16, not %s: quantise to that type instead",
                   fm_dtype_get(*type)->name);
}

static fm_status plan_convert(fm_job *j, fm_error *err)
{
    fm_dtype type = FM_F32;
    bool given;
    FM_TRY(parse_float(j->o->type, &type, &given, err));
    FM_TRY(fm_plan_weights(j, err));
    return fm_plan_convert(j, given ? &type : NULL, err);
}

/* Weights that were quantised before lose twice; whoever does it should know. */
static void warn_twice(const fm_job *j, fm_dtype type)
{
    for (size_t i = 0; i < j->n; i++) {
        const fm_item *it = &j->items[i];
        if (fm_dtype_get(it->src.type)->is_float || it->type == it->src.type) continue;
        fm_job_log(j, "%s is already quantised (%s): %s of it is worse than %s of the original", j->name,
                   fm_dtype_get(it->src.type)->name, fm_dtype_get(type)->name, fm_dtype_get(type)->name);
        return;
    }
}

static fm_status plan_quantize(fm_job *j, fm_dtype type, fm_error *err)
{
    FM_TRY(fm_plan_weights(j, err));
    fm_plan_quantize(j, type);
    warn_twice(j, type);
    if (j->result.n_fallback)
        fm_job_log(j, "%zu matrices have rows that are not whole blocks of %s and take another type", j->result.n_fallback,
                   fm_dtype_get(type)->name);
    return FM_OK;
}

/* Opens IN; the caller unloads job->m, also after a failure. */
static fm_status open_source(fm_job *j, fm_model **m, const char *in, const fm_convert_options *o, const char *out,
                             fm_error *err)
{
    if (fm_path_same(in, out))
        return fm_fail(err, FM_ERR_ARGUMENT, "%s and %s are one file, which would be lost: give the new model another name", in,
                       out);
    const fm_model_options options = {.allocator = o->allocator, .no_tokenizer = true, .mixer_rms_eps = o->mixer_rms_eps};
    FM_TRY(fm_model_load(m, in, &options, err));
    *j = (fm_job){.o = o,
                  .a = o->allocator,
                  .m = *m,
                  .arch = (*m)->arch,
                  .config = (*m)->config,
                  .name = (*m)->name,
                  .to = fm_kind_of_path(out)};
    return FM_OK;
}

static fm_status finish(fm_job *j, fm_model *m, fm_status status, fm_convert_result *result)
{
    if (result) *result = status == FM_OK ? j->result : (fm_convert_result){0};
    fm_job_free(j);
    fm_model_unload(m);
    return status;
}

static const fm_convert_options no_options = {0};

fm_status fm_convert(const char *in, const char *out, const fm_convert_options *o, fm_convert_result *result, fm_error *err)
{
    fm_job j = {0};
    fm_model *m = NULL;
    fm_status status = open_source(&j, &m, in, o ? o : &no_options, out, err);
    if (status == FM_OK) status = plan_convert(&j, err);
    if (status == FM_OK) status = fm_write_model(&j, out, err);
    return finish(&j, m, status, result);
}

static fm_status quantize(fm_job *j, const char *out, fm_dtype type, fm_error *err)
{
    fm_imatrix im = {0};
    FM_TRY(plan_quantize(j, type, err));
    if (j->o->imatrix) FM_TRY(fm_imatrix_open(&im, j, j->o->imatrix, err));
    const fm_status status = fm_write_model(j, out, err);
    fm_imatrix_close(&im);
    return status;
}

fm_status fm_quantize(const char *in, const char *out, const char *type, const fm_convert_options *o, fm_convert_result *result,
                      fm_error *err)
{
    fm_job j = {0};
    fm_model *m = NULL;
    fm_dtype dtype;
    if (result) *result = (fm_convert_result){0};
    if (!fm_dtype_from_name(fm_view_of(type), &dtype)) return fm_dtype_fail(type, err);
    if (fm_kind_of_path(out) != FM_SOURCE_GGUF)
        return fm_fail(err, FM_ERR_ARGUMENT, "%s: quantised weights go into a GGUF file: give a name ending in .gguf", out);
    fm_status status = open_source(&j, &m, in, o ? o : &no_options, out, err);
    if (status == FM_OK) status = quantize(&j, out, dtype, err);
    return finish(&j, m, status, result);
}
