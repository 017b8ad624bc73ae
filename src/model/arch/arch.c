/* arch.c - the list of architectures, and which one a checkpoint is. */
#include "model/arch/arch.h"

#include <string.h>

extern const fm_arch fm_arch_falcon_mamba, fm_arch_mamba;

/* In the order in which they are asked whether a source is theirs. */
static const fm_arch *const archs[] = {
    &fm_arch_falcon_mamba,
    &fm_arch_mamba,
};

const fm_arch *fm_arch_by_name(const char *name)
{
    for (size_t i = 0; i < FM_COUNT(archs); i++)
        if (strcmp(archs[i]->name, name) == 0) return archs[i];
    return NULL;
}

/* model_type of a config.json, or where it has none the first of its "architectures", a class name. */
static fm_view read_type(fm_json *j)
{
    fm_view key, type = {0}, class_name = {0};
    if (!fm_json_enter_object(j)) return type;
    while (fm_json_key(j, &key)) {
        if (fm_view_is(key, "model_type") && fm_json_peek(j) == FM_JSON_STRING)
            fm_json_string(j, &type);
        else if (!fm_view_is(key, "architectures") || fm_json_peek(j) != FM_JSON_ARRAY)
            fm_json_skip(j);
        else
            for (fm_json_enter_array(j); fm_json_element(j);)
                if (class_name.n || fm_json_peek(j) != FM_JSON_STRING)
                    fm_json_skip(j);
                else
                    fm_json_string(j, &class_name);
    }
    return type.n ? type : class_name;
}

fm_view fm_config_model_type(const fm_source *s)
{
    fm_json j = fm_json_begin(s->config.p, s->config.n, "config.json");
    return read_type(&j);
}

/* What a source says it is: general.architecture, or the type in config.json. */
static fm_status stated_name(fm_view *out, const fm_source *s, fm_error *err)
{
    *out = (fm_view){0};
    if (s->kind == FM_SOURCE_GGUF) return fm_gguf_get_string(&s->gguf, "general.architecture", out, NULL, err);
    fm_json j = fm_json_begin(s->config.p, s->config.n, "config.json");
    *out = read_type(&j);
    const fm_status status = fm_json_finish(&j, err);
    return status == FM_OK ? FM_OK : fm_fail_prefix(err, status, "%s", s->path);
}

static fm_status fail_arch(const fm_source *s, fm_view name, fm_error *err)
{
    fm_str list = {0};
    for (size_t i = 0; i < FM_COUNT(archs); i++) fm_str_printf(&list, "%s%s", i ? ", " : "", archs[i]->name);
    fm_fail(err, FM_ERR_UNSUPPORTED, "%s: architecture \"%s\" is not one of those this version runs (%s): use a Mamba-1 model",
            s->path, fm_quote_of(name).text, list.p ? list.p : "");
    fm_str_free(&list);
    return FM_ERR_UNSUPPORTED;
}

fm_status fm_arch_find(const fm_arch **out, const fm_source *s, fm_error *err)
{
    *out = NULL;
    fm_view name;
    FM_TRY(stated_name(&name, s, err));
    for (size_t i = 0; i < FM_COUNT(archs); i++)
        if (archs[i]->claims(s)) {
            *out = archs[i];
            return FM_OK;
        }
    return fail_arch(s, name, err);
}
