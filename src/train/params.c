/* params.c - see params.h. */
#include "train/params.h"

#include <math.h>
#include <string.h>

#include "train/tensors.h"

bool fm_params_decays(const fm_params *p, size_t i)
{
    const fm_weight_def *def = fm_model_weight_at(p->m, i).def;
    return def->kind == FM_WEIGHT_MATRIX || def->cols == FM_DIM_CONV;
}

static void decode_weight(float *w, const fm_model_weight *from)
{
    const fm_tensor *t = from->loaded;
    for (size_t r = 0; r < t->rows; r++) fm_dtype_get(t->type)->decode(w + r * t->cols, fm_tensor_row(t, r), t->cols);
    for (size_t i = 0; from->def->map == FM_MAP_A && i < t->rows * t->cols; i++) w[i] = logf(-w[i]);
}

/* The model computes with the master itself, but for A, whose memory is the model's own. */
static void adopt(fm_params *p, size_t i)
{
    const fm_model_weight w = fm_model_weight_at(p->m, i);
    fm_tensor *t = (fm_tensor *)(uintptr_t)w.loaded; /* the model is ours now */
    if (w.def->map == FM_MAP_A) return;
    *t = (fm_tensor){p->w[i], FM_F32, t->rows, t->cols, t->cols * sizeof(float)};
}

fm_status fm_params_open(fm_params *p, fm_model *m, const fm_gradients *g, fm_error *err)
{
    *p = (fm_params){.m = m, .a = g->a, .n = g->n, .floats = g->floats};
    fm_status status = fm_alloc((void **)&p->w, p->a, p->n, sizeof *p->w, "the list of weights", err);
    if (status == FM_OK) status = fm_alloc((void **)&p->memory, p->a, p->floats, sizeof(float), "the weights", err);
    if (status != FM_OK) {
        fm_params_free(p);
        return status;
    }
    for (size_t i = 0; i < p->n; i++) {
        if (!g->g[i]) continue;
        const fm_model_weight w = fm_model_weight_at(m, i);
        p->w[i] = p->memory + (g->g[i] - g->memory);
        decode_weight(p->w[i], &w);
        adopt(p, i);
    }
    if (m->config.tie) m->globals[FM_GLOBAL_HEAD] = m->globals[FM_GLOBAL_EMBED];
    return FM_OK;
}

void fm_params_free(fm_params *p)
{
    fm_free(p->a, p->w);
    fm_free(p->a, p->memory);
    *p = (fm_params){0};
}

void fm_params_settle(fm_params *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const fm_model_weight w = fm_model_weight_at(p->m, i);
        if (w.def->map != FM_MAP_A || !p->w[i]) continue;
        float *A = (float *)(uintptr_t)w.loaded->data;
        for (size_t j = 0; j < w.loaded->rows * w.loaded->cols; j++) A[j] = -expf(p->w[i][j]);
    }
}

fm_status fm_params_write(const fm_params *p, fm_dtype type, const char *path, fm_error *err)
{
    const fm_tensor_file f = {.m = p->m, .sets = &(fm_tensor_set){"", p->w}, .n_sets = 1, .type = type, .a = p->a};
    return fm_tensors_write(&f, path, err);
}
