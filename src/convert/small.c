/* small.c - tensors that are decoded whole: norms, biases, convolution, and A, which a directory holds as A_log and a GGUF as
 * A = -exp(A_log).
 *
 * A is rounded to f32 with a relative error of 2^-24, so ln(-A) has an absolute one of 6e-8: at most one unit in the last place
 * of A_log where |A_log| > ln 2, but many near zero.  Where that matters, those A_log go into a key of their own, in the order
 * of the tensor; which ones they are is read off A itself (0.5 < -A < 2), so both sides agree.  Readers that do not know the
 * key lose nothing, since the forward needs only A. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "convert/internal.h"

void fm_small_raw(float *dst, const fm_item *it)
{
    for (size_t r = 0; r < it->rows; r++)
        fm_dtype_get(it->src.type)->decode(dst + r * it->cols, fm_tensor_row(&it->src, r), it->cols);
}

static bool near_one(float a) { return -a > 0.5f && -a < 2.0f; }

static size_t count_near_one(const float *a, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += near_one(a[i]);
    return count;
}

static void a_log_key(char key[64], size_t layer) { snprintf(key, 64, FM_KEY_A_LOG, layer); }

/* ln(-a), or its neighbour that gives exactly `a` back if there is one. */
static float a_log_of(float a)
{
    const float v = (float)log(-(double)a);
    const float near[3] = {v, nextafterf(v, -INFINITY), nextafterf(v, INFINITY)};
    for (size_t i = 0; i < 3; i++)
        if (-expf(near[i]) == a) return near[i];
    return v;
}

/* In place: A becomes A_log; `exact` (may be NULL) has those of the values near one. */
static fm_status restore_a_log(float *v, size_t n, const fm_gguf_kv *exact, const fm_job *j, const fm_item *it, fm_error *err)
{
    uint64_t used = 0;
    if (exact && (exact->type != FM_GGUF_ARRAY || exact->element != FM_GGUF_F32 || exact->count != count_near_one(v, n)))
        return fm_fail(err, FM_ERR_FORMAT,
                       "%s: key " FM_KEY_A_LOG " does not fit blk.%zu.ssm_a: the file was altered; convert it "
                       "anew", j->m->source.path, it->w.layer, it->w.layer);
    for (size_t i = 0; i < n; i++) {
        if (!(v[i] < 0))
            return fm_fail(err, FM_ERR_FORMAT, "%s: blk.%zu.ssm_a holds %g, expected numbers below zero: the file is damaged",
                           j->m->source.path, it->w.layer, (double)v[i]);
        v[i] = exact && near_one(v[i]) ? (float)fm_gguf_array_f64(exact, used++) : a_log_of(v[i]);
    }
    return FM_OK;
}

fm_status fm_small_read(float *dst, const fm_job *j, const fm_item *it, fm_error *err)
{
    const size_t n = it->rows * it->cols;
    if (!it->src.data) {
        fm_synth_small(dst, j, it);
        return FM_OK;
    }
    fm_small_raw(dst, it);
    const fm_source_kind from = j->m->source.kind;
    if (it->w.def->map != FM_MAP_A || from == j->to) return FM_OK;
    if (from == FM_SOURCE_GGUF) {
        char key[64];
        a_log_key(key, it->w.layer);
        return restore_a_log(dst, n, fm_gguf_find(&j->m->source.gguf, key), j, it, err);
    }
    for (size_t i = 0; i < n; i++) dst[i] = -expf(dst[i]);
    return FM_OK;
}

/* Whether A_log from A, rounded to the source's type, is farther than one unit in the last place from A_log. */
static bool loses(fm_dtype type, float a, float a_log)
{
    const float back = a_log_of(a);
    if (type == FM_BF16) return fm_f32_to_bf16(back) != fm_f32_to_bf16(a_log);
    if (type == FM_F16) return fm_f32_to_f16(back) != fm_f32_to_f16(a_log);
    return back != a_log && nextafterf(back, a_log) != a_log;
}

/* v (n) holds A_log and becomes those that lie near zero, *n_near of them; *needed says whether A would lose any. */
static void pick_near_zero(float *v, size_t n, fm_dtype type, size_t *n_near, bool *needed)
{
    *n_near = 0;
    *needed = false;
    for (size_t i = 0; i < n; i++) {
        const float a = -expf(v[i]);
        if (!near_one(a)) continue;
        *needed = *needed || loses(type, a, v[i]);
        v[(*n_near)++] = v[i];
    }
}

fm_status fm_small_put_a_log(fm_gguf_writer *w, const fm_job *j, fm_error *err)
{
    if (!j->m || j->m->source.kind != FM_SOURCE_HF) return FM_OK;
    for (size_t i = 0; i < j->n; i++) {
        const fm_item *it = &j->items[i];
        if (it->w.def->map != FM_MAP_A) continue;
        float *v;
        size_t n_near;
        bool needed;
        char key[64];
        FM_TRY(fm_alloc((void **)&v, j->a, it->rows * it->cols, sizeof *v, "a tensor", err));
        fm_small_raw(v, it);
        pick_near_zero(v, it->rows * it->cols, it->src.type, &n_near, &needed);
        a_log_key(key, it->w.layer);
        if (needed) fm_gguf_put_f32s(w, key, v, n_near);
        fm_free(j->a, v);
    }
    return FM_OK;
}
