/* config_json.c - config.json of a directory: the source's own with what the conversion changed, or one made from the model. */
#include <math.h>

#include "convert/internal.h"

static const char *torch_name(fm_dtype t) { return t == FM_F16 ? "float16" : t == FM_BF16 ? "bfloat16" : "float32"; }

/* Replaces what the output has otherwise; false: keep the member as it is. */
static bool put_changed(fm_str *out, const fm_job *j, fm_view key, bool *has_type, bool *has_eps, bool *has_tie)
{
    fm_jsonw w = {.out = out};
    if (fm_view_is(key, "dtype") || fm_view_is(key, "torch_dtype")) {
        *has_type = true;
        fm_jsonw_cstr(&w, torch_name(j->base));
    } else if (fm_view_is(key, "mixer_rms_eps")) {
        *has_eps = true;
        fm_jsonw_f32(&w, j->config.mixer_rms_eps);
    } else if (fm_view_is(key, "tie_word_embeddings")) {
        *has_tie = true;
        fm_jsonw_bool(&w, j->config.tie);
    } else {
        return false;
    }
    return true;
}

static void put_member(fm_str *out, const char *key)
{
    fm_str_printf(out, "%s\n  \"%s\": ", out->n > 1 ? "," : "", key);
}

static void put_missing(fm_str *out, const fm_job *j, bool has_type, bool has_eps, bool has_tie)
{
    fm_jsonw w = {.out = out};
    if (!has_type) put_member(out, "torch_dtype"), fm_jsonw_cstr(&w, torch_name(j->base));
    w = (fm_jsonw){.out = out};
    if (!has_eps && j->config.mixer_norms && fabsf(j->config.mixer_rms_eps - 1e-6f) > 1e-12f)
        put_member(out, "mixer_rms_eps"), fm_jsonw_f32(&w, j->config.mixer_rms_eps);
    w = (fm_jsonw){.out = out};
    if (!has_tie && !j->config.tie) put_member(out, "tie_word_embeddings"), fm_jsonw_bool(&w, false);
}

/* A copy of config.json, member by member, nested values as they are written. */
fm_status fm_config_edit(fm_str *out, const fm_job *j, fm_view text, fm_error *err)
{
    bool has_type = false, has_eps = false, has_tie = false;
    fm_view key, raw;
    fm_json r = fm_json_begin(text.p, text.n, "config.json");
    fm_str_putc(out, '{');
    if (fm_json_enter_object(&r))
        while (fm_json_key(&r, &key)) {
            if (!fm_json_raw(&r, &raw)) break;
            fm_str_printf(out, "%s\n  \"%.*s\": ", out->n > 1 ? "," : "", (int)key.n, key.p);
            if (!put_changed(out, j, key, &has_type, &has_eps, &has_tie)) fm_str_put(out, raw.p, raw.n);
        }
    put_missing(out, j, has_type, has_eps, has_tie);
    fm_str_puts(out, "\n}\n");
    FM_TRY(fm_json_finish(&r, err));
    return fm_str_ok(out, "config.json", err);
}

fm_status fm_config_make(fm_str *out, const fm_job *j, fm_error *err)
{
    fm_jsonw w = {.out = out, .pretty = true};
    fm_jsonw_object(&w);
    fm_jsonw_key(&w, "architectures");
    fm_jsonw_array(&w);
    fm_jsonw_cstr(&w, j->arch->hf_class);
    fm_jsonw_end(&w, ']');
    fm_jsonw_key(&w, "model_type"), fm_jsonw_cstr(&w, j->arch->hf_type);
    j->arch->put_json(&w, &j->config);
    fm_jsonw_key(&w, "torch_dtype"), fm_jsonw_cstr(&w, torch_name(j->base));
    fm_jsonw_end(&w, '}');
    fm_str_putc(out, '\n');
    return fm_str_ok(out, "config.json", err);
}
