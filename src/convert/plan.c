/* plan.c - which tensors are written and as what.  The weights come from the model's own tables; the types from the source,
 * from a wish, or from the rules of llama.cpp's quantiser (spec falcon-mamba.md 4.3). */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "convert/internal.h"

void fm_job_log(const fm_job *j, const char *fmt, ...)
{
    char line[512];
    va_list args;
    if (!j->o->log) return;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    j->o->log(j->o->ctx, line);
}

void fm_job_free(fm_job *j)
{
    fm_pool_free(j->pool);
    fm_free(j->a, j->chunk);
    fm_free(j->a, j->rows);
    fm_free(j->a, j->items);
}

/* Embedding, layers, final norm, head: the order in which transformers saves, so that shards fall where they fall there. */
static size_t saved_at(size_t i, size_t n)
{
    const size_t n_layers = n - FM_GLOBAL_COUNT;
    if (i == 0) return FM_GLOBAL_EMBED;
    return i <= n_layers ? FM_GLOBAL_COUNT + i - 1 : i == n_layers + 1 ? FM_GLOBAL_NORM : FM_GLOBAL_HEAD;
}

/* GGUF leaves out a head that is the embedding; so does everybody when the configuration ties them. */
static bool redundant_head(const fm_job *j, const fm_item *head)
{
    if (j->config.tie) return true;
    return j->to == FM_SOURCE_GGUF && j->m->source.kind == FM_SOURCE_HF && fm_model_same_matrix(&head->src, &j->items[0].src);
}

fm_status fm_plan_weights(fm_job *j, fm_error *err)
{
    const size_t n = fm_model_weight_count(j->m);
    FM_TRY(fm_alloc((void **)&j->items, j->a, n, sizeof *j->items, "the list of tensors", err));
    for (size_t i = 0; i < n; i++) {
        fm_item *it = &j->items[j->n];
        fm_source_tensor t;
        bool found;
        *it = (fm_item){.w = fm_model_weight_at(j->m, saved_at(i, n))};
        FM_TRY(fm_model_weight_source(j->m, &it->w, &t, &found, err));
        if (!found) continue;
        it->rows = fm_dim_of(&j->config, it->w.def->rows);
        it->cols = fm_dim_of(&j->config, it->w.def->cols);
        it->src = t.t;
        /* Axes of size 1 (conv1d) may have been counted into the rows. */
        it->src.rows = it->rows, it->src.cols = it->cols;
        const fm_dtype_traits *traits = fm_dtype_get(t.t.type);
        it->src.stride = it->cols / traits->block * traits->bytes;
        it->type = t.t.type;
        if (it->w.global && it->w.def == &j->arch->globals[FM_GLOBAL_HEAD] && redundant_head(j, it)) continue;
        j->n++;
    }
    return FM_OK;
}

static bool is_matrix(const fm_item *it)
{
    return it->w.def->kind == FM_WEIGHT_MATRIX;
}

static float rounded(fm_dtype type, float v)
{
    return type == FM_F16 ? fm_f16_to_f32(fm_f32_to_f16(v)) : type == FM_BF16 ? fm_bf16_to_f32(fm_f32_to_bf16(v)) : v;
}

/* Whether writing the tensor's n values `v` as `type` loses nothing.  A_log that was computed from A (`raw`) is off by a
 * rounding: what counts for it is that the rounded one gives the same A. */
static bool survives(fm_dtype type, const float *v, const float *raw, size_t n, bool from_a)
{
    for (size_t i = 0; i < n; i++) {
        const float r = rounded(type, v[i]);
        if (from_a ? -expf(r) != raw[i] : r != v[i]) return false;
    }
    return true;
}

/* For a directory: the wanted type if every value of the tensor survives it, else F32. */
static fm_status choose_small(fm_job *j, fm_item *it, fm_dtype want, fm_error *err)
{
    float *v;
    it->type = FM_F32;
    if (want == FM_F32) return FM_OK;
    const size_t n = it->rows * it->cols;
    FM_TRY(fm_alloc((void **)&v, j->a, 2 * n, sizeof *v, "a tensor", err));
    const fm_status status = fm_small_read(v, j, it, err);
    if (status == FM_OK) {
        fm_small_raw(v + n, it);
        const bool from_a = it->w.def->map == FM_MAP_A && j->m->source.kind == FM_SOURCE_GGUF;
        if (survives(want, v, v + n, n, from_a)) it->type = want;
    }
    fm_free(j->a, v);
    return status;
}

fm_status fm_plan_convert(fm_job *j, const fm_dtype *type, fm_error *err)
{
    fm_dtype matrices = FM_BF16; /* of the last float matrix seen: what small tensors go with */
    for (size_t i = 0; i < j->n; i++) {
        fm_item *it = &j->items[i];
        if (!is_matrix(it)) continue;
        it->type = type ? *type : fm_dtype_get(it->src.type)->is_float ? it->src.type : FM_BF16;
        matrices = it->type;
    }
    const bool as_is = !type && j->m->source.kind == FM_SOURCE_HF && j->to == FM_SOURCE_HF;
    for (size_t i = 0; i < j->n; i++) {
        fm_item *it = &j->items[i];
        if (is_matrix(it) || as_is) continue;
        if (j->to == FM_SOURCE_GGUF)
            it->type = FM_F32;
        else
            FM_TRY(choose_small(j, it, matrices, err));
    }
    return FM_OK;
}

/* ---- The rules of llama.cpp's quantiser ---- */

static bool divides(fm_dtype type, size_t cols)
{
    return cols % fm_dtype_get(type)->block == 0;
}

/* What rows take that are not whole blocks of `type`. */
static fm_dtype fall_back(fm_dtype type, size_t cols)
{
    static const struct {
        fm_dtype from, to;
    } smaller[] = {{FM_Q2_K, FM_Q4_0}, {FM_Q3_K, FM_Q4_0}, {FM_Q4_K, FM_Q5_0},
                   {FM_Q5_K, FM_Q5_1}, {FM_Q6_K, FM_Q8_0}, {FM_IQ4_XS, FM_IQ4_NL}, {FM_INT4_G128, FM_Q4_0}};
    if (divides(type, cols)) return type;
    for (size_t i = 0; i < FM_COUNT(smaller); i++)
        if (smaller[i].from == type && divides(smaller[i].to, cols)) return smaller[i].to;
    return FM_F16;
}

/* The matrix that gives the logits deserves more bits. */
static fm_dtype head_type(fm_dtype base, size_t cols)
{
    return base == FM_Q8_0 || !divides(base, cols) ? FM_Q8_0 : FM_Q6_K;
}

void fm_plan_quantize(fm_job *j, fm_dtype type)
{
    bool tied = true;
    j->base = type;
    for (size_t i = 0; i < j->n; i++) tied = tied && j->items[i].w.def != &j->arch->globals[FM_GLOBAL_HEAD];
    const fm_weight_def *head = &j->arch->globals[tied ? FM_GLOBAL_EMBED : FM_GLOBAL_HEAD];
    for (size_t i = 0; i < j->n; i++) {
        fm_item *it = &j->items[i];
        it->type = FM_F32;
        if (!is_matrix(it)) continue;
        it->type = type;
        if (fm_dtype_get(type)->is_float) continue;
        if (it->w.def == head) it->type = head_type(type, it->cols);
        it->type = fall_back(it->type, it->cols);
        j->result.n_fallback += !divides(type, it->cols);
    }
}

fm_status fm_plan_finish(fm_job *j, fm_error *err)
{
    size_t bytes[FM_DTYPE_COUNT] = {0}, total = 0;
    for (size_t i = 0; i < j->n; i++) {
        const fm_item *it = &j->items[i];
        size_t n;
        if (!fm_dtype_bytes(it->type, it->rows, it->cols, &n) || !fm_add(total, n, &total))
            return fm_fail(err, FM_ERR_LIMIT, "%s: its tensors have more bytes than can be counted", j->name);
        if (is_matrix(it)) bytes[it->type] += n;
        if (it->cols > j->cols_max) j->cols_max = it->cols;
    }
    const bool chosen = j->base != FM_F32; /* by fm_plan_quantize() */
    for (unsigned t = 0; t < FM_DTYPE_COUNT && !chosen; t++)
        if (bytes[t] > bytes[j->base]) j->base = (fm_dtype)t;
    j->result.n_tensors = j->n;
    j->result.tensor_bytes = total;
    return FM_OK;
}
