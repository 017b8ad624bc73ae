/* write_gguf.c - a GGUF file around the tensors: keys (spec falcon-mamba.md 4.2), then data in the order of the header. */
#include <string.h>

#include "convert/internal.h"

/* Keys that describe the file and not the model. */
static bool replaced(const fm_job *j, fm_view key, bool other_tokenizer)
{
    static const char *const own[] = {"general.file_type", "general.quantization_version", "general.alignment"};
    for (size_t i = 0; i < FM_COUNT(own); i++)
        if (fm_view_is(key, own[i])) return true;
    if (fm_view_starts(key, "split.")) return true;
    if (fm_view_is(key, "general.name")) return j->o->name != NULL;
    if (fm_view_is(key, "fmamba.mixer_rms_eps")) return j->o->mixer_rms_eps > 0;
    return other_tokenizer && fm_view_starts(key, "tokenizer.");
}

static void copy_keys(fm_gguf_writer *w, const fm_job *j, bool other_tokenizer)
{
    const fm_gguf *g = &j->m->source.gguf;
    for (size_t i = 0; i < g->n_kv; i++)
        if (!replaced(j, g->kv[i].key, other_tokenizer)) fm_gguf_put_copy(w, &g->kv[i]);
    if (j->o->name) fm_gguf_put_string(w, "general.name", fm_view_of(j->o->name));
    if (j->o->mixer_rms_eps > 0 && j->config.mixer_norms) fm_gguf_put_f32(w, "fmamba.mixer_rms_eps", j->config.mixer_rms_eps);
}

/* What GGUF has no keys for travels as text, for the way back: config.json and generation_config.json. */
static fm_status put_texts(fm_gguf_writer *w, const fm_job *j, fm_error *err)
{
    fm_str text = {.a = j->a};
    if (!j->m) return FM_OK;
    fm_gguf_put_string(w, "fmamba.config_json", (fm_view){j->m->source.config.p, j->m->source.config.n});
    const fm_status status = fm_read_beside(&text, j->m->source.path, "generation_config.json", err);
    if (status == FM_OK && text.n) fm_gguf_put_string(w, "fmamba.generation_config_json", (fm_view){text.p, text.n});
    fm_str_free(&text);
    return status;
}

static fm_status put_tokenizer(fm_gguf_writer *w, const fm_job *j, const fm_tok *t, fm_error *err)
{
    if (t->json || t->gguf) return fm_tok_put_gguf(w, t, j, err);
    if (!j->m) return fm_tok_put_synthetic(w, j, err);
    fm_gguf_put_string(w, "tokenizer.ggml.model", FM_VIEW("no_vocab"));
    fm_gguf_put_u32(w, "mamba.vocab_size", (uint32_t)j->config.vocab);
    if (j->config.bos >= 0) fm_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)j->config.bos);
    if (j->config.n_eos) fm_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)j->config.eos[0]);
    fm_job_log(j, "%s has no tokenizer.json: the GGUF works for token ids only (give one with a tokenizer option)", j->name);
    return FM_OK;
}

static fm_status put_new_keys(fm_gguf_writer *w, const fm_job *j, const fm_tok *t, fm_error *err)
{
    fm_gguf_put_string(w, "general.architecture", fm_view_of(j->arch->gguf));
    fm_gguf_put_string(w, "general.type", FM_VIEW("model"));
    fm_gguf_put_string(w, "general.name", fm_view_of(j->o->name ? j->o->name : j->name));
    j->arch->put_gguf(w, &j->config);
    FM_TRY(put_texts(w, j, err));
    FM_TRY(fm_small_put_a_log(w, j, err));
    return put_tokenizer(w, j, t, err);
}

static fm_status put_keys(fm_gguf_writer *w, const fm_job *j, fm_error *err)
{
    fm_tok t;
    FM_TRY(fm_tok_open(&t, j, err));
    const bool gguf = j->m && j->m->source.kind == FM_SOURCE_GGUF;
    fm_status status = FM_OK;
    if (gguf) {
        copy_keys(w, j, j->o->tokenizer != NULL);
        if (j->o->tokenizer) status = fm_tok_put_gguf(w, &t, j, err);
    } else {
        status = put_new_keys(w, j, &t, err);
    }
    fm_tok_close(&t);
    bool quantised = false;
    for (size_t i = 0; i < j->n; i++) quantised = quantised || !fm_dtype_get(j->items[i].type)->is_float;
    fm_gguf_put_u32(w, "general.file_type", fm_dtype_get(j->base)->ftype);
    if (quantised) fm_gguf_put_u32(w, "general.quantization_version", 2);
    return status;
}

static fm_status put_tensors(fm_gguf_writer *w, const fm_job *j, fm_error *err)
{
    fm_str name = {.a = j->a};
    fm_status status = FM_OK;
    for (size_t i = 0; i < j->n && status == FM_OK; i++) {
        const fm_item *it = &j->items[i];
        const uint64_t dims[2] = {it->cols, it->rows};
        fm_model_weight_name(&it->w, FM_SOURCE_GGUF, &name);
        status = fm_str_ok(&name, "a tensor name", err);
        if (status == FM_OK) status = fm_gguf_put_tensor(w, name.p, it->type, dims, it->w.def->rows == FM_DIM_1 ? 1 : 2, err);
    }
    fm_str_free(&name);
    return status;
}

/* What llama.cpp's mamba cannot hold; we read it all the same. */
static void warn_llama(const fm_job *j)
{
    bool conv_bias = false, other_bias = false;
    for (size_t i = 0; i < j->n; i++) {
        const char *name = j->items[i].w.def->name;
        conv_bias = conv_bias || strcmp(name, "conv1d.bias") == 0;
        other_bias = other_bias || strcmp(name, "in_proj.bias") == 0 || strcmp(name, "out_proj.bias") == 0;
    }
    if (j->config.d_inner != 2 * j->config.d_model)
        fm_job_log(j, "llama.cpp will refuse this file: d_inner is %zu, it expects 2 * d_model = %zu", j->config.d_inner,
                   2 * j->config.d_model);
    if (other_bias) fm_job_log(j, "llama.cpp will refuse this file: its mamba has no bias on in_proj and out_proj");
    if (!conv_bias) fm_job_log(j, "llama.cpp will refuse this file: its mamba needs a bias on the convolution");
}

static fm_status write_data(void *ctx, const void *p, size_t n, fm_error *err) { return fm_gguf_write(ctx, p, n, err); }

static fm_status write_all(fm_gguf_writer *w, fm_job *j, fm_error *err)
{
    FM_TRY(put_keys(w, j, err));
    FM_TRY(put_tensors(w, j, err));
    FM_TRY(fm_gguf_begin_data(w, err));
    for (size_t i = 0; i < j->n; i++) {
        FM_TRY(fm_flow_item(j, &j->items[i], (fm_sink){write_data, w}, err));
        FM_TRY(fm_gguf_end_tensor(w, err));
    }
    return fm_gguf_commit(w, err);
}

fm_status fm_write_gguf(fm_job *j, const char *path, fm_error *err)
{
    fm_gguf_writer w;
    warn_llama(j);
    FM_TRY(fm_gguf_create(&w, path, j->a, err));
    const fm_status status = write_all(&w, j, err);
    fm_gguf_abort(&w);
    return status;
}
