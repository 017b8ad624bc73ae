/* tensors.c - the list of a model's tensors as its file has them, with names that live as long as the model. */
#include <string.h>

#include "model/model.h"

static fm_status collect(fm_model *m, fm_str *all, size_t n, fm_error *err)
{
    fm_str name = {.a = m->a};
    for (size_t i = 0; i < n; i++) {
        fm_source_at(&m->source, i, &name, &m->tensors[i]);
        if (name.p)
            fm_str_put(all, name.p, name.n + 1);
        else
            fm_str_putc(all, 0);
    }
    const fm_status status = fm_str_ok(&name, "a tensor name", err);
    fm_str_free(&name);
    return status == FM_OK ? fm_str_ok(all, "the tensor names", err) : status;
}

fm_status fm_model_list_tensors(fm_model *m, fm_error *err)
{
    const size_t n = fm_source_count(&m->source);
    FM_TRY(fm_alloc((void **)&m->tensors, m->a, n, sizeof *m->tensors, "the tensor list", err));
    m->tensor_names.a = m->a;
    FM_TRY(collect(m, &m->tensor_names, n, err));
    const char *p = m->tensor_names.p;
    for (size_t i = 0; i < n; i++, p += strlen(p) + 1) m->tensors[i].name = p;
    return FM_OK;
}

FM_API size_t fm_model_tensor_count(const fm_model *m)
{
    return fm_source_count(&m->source);
}

FM_API fm_tensor_info fm_model_tensor(const fm_model *m, size_t i)
{
    return i < fm_model_tensor_count(m) ? m->tensors[i] : (fm_tensor_info){0};
}
